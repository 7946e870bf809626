/* A golden model taken apart: its weights, the two forward passes, and what feeds them, through the engine's private
 * functions. Failures end the test. */
#ifndef FORWARD_H
#define FORWARD_H

#include "golden.h"

#include "kernels/image.h"
#include "model/weights.h"

typedef struct {
  Golden *golden;
  IvlDevice *device;
  IvlVkStream *stream;
  IvlConfig *config;
  IvlCheckpoint *checkpoint;
  IvlModelWeights weights;
  IvlVitRun vit;
  IvlDecoderRun run;
  IvlKvCache cache;
  guint32 image_id;
} Forward;

/* Rows of one decoder forward, and tiles side by side: small, so that prompts and pictures take several. */
#define FORWARD_ROWS 64
#define FORWARD_TILES 3
#define FORWARD_LOGITS 8
#define FORWARD_CONTEXT 2048

/* DTYPE: an IvlDtype, or -1 for the folder's own. The KV cache begins with one page. */
void forward_set_up (Forward *f, const char *name, int dtype);
void forward_tear_down (Forward *f);

/* Embeddings of pictures, one after the other. */
typedef struct {
  IvlVkBuffer *buffer; /* [rows, H] */
  guint rows;
} Embeddings;

/* Called after every step of the vision encoder, with the batch's first tile among all of the picture's. */
typedef void (*VisionTap) (Forward *f, guint step, guint first_tile, guint tiles, gpointer data);
/* TILES_A_TIME: side by side, at most FORWARD_TILES. Returns how many tiles the picture has. */
guint forward_encode (Forward *f, const char *picture, guint max_tiles, guint tiles_a_time, Embeddings *out, VisionTap tap,
                      gpointer tap_data);
void embeddings_clear (Embeddings *embeddings);

/* Ids as the decoder takes them, with the rows of the images in order. */
typedef struct {
  guint32 *tokens;
  guint n_tokens;
  IvlRows *rows;
  guint *rows_before; /* [n_tokens + 1] */
} Prompt;
void prompt_init (Prompt *prompt, Forward *f, const guint32 *ids, guint n, const Embeddings *images, guint n_images);
void prompt_clear (Prompt *prompt);
/* Pictures of the turns up to and with TURN, encoded, and the turn's prompt_ids. IMAGES: 8 places. */
void forward_prompt (Forward *f, JsonObject *c, guint turn, Prompt *prompt, Embeddings *images, guint *n_images);

/* A job of N tokens from AT on. */
IvlDecoderJob prompt_job (const Prompt *prompt, IvlSequence *sequence, guint at, guint n, gboolean want_logits);
/* Reserves and runs one forward. */
void forward_jobs (Forward *f, const IvlDecoderJob *jobs, guint n_jobs, IvlDecoderTap tap, gpointer data);
/* Runs a whole prompt in chunks of STEP. */
void forward_run (Forward *f, IvlSequence *sequence, const Prompt *prompt, guint from, guint to, guint step,
                  IvlDecoderTap tap, gpointer data);
void forward_tokens (Forward *f, IvlSequence *sequence, const guint32 *tokens, guint n);
/* [V], of the INDEX-th job that wanted logits. Newly allocated. */
float *forward_logits (Forward *f, guint index);
float *forward_read (Forward *f, IvlSpan span, gsize first, gsize n);

#endif
