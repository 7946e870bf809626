/* The private side of IvlModel, IvlImage and IvlSession, shared by the files of generate/.
 *
 * One scheduler thread per model owns the stream and everything that is recorded on it. Other threads hand work over
 * under `lock`: images to encode and requests to answer. Continuous batching: every forward takes one token of each
 * request that decodes and fills up with chunks of prompts; a vision step goes between two forwards. */
#ifndef IVL_GENERATE_ENGINE_H
#define IVL_GENERATE_ENGINE_H

#include "kernels/image.h"
#include "kernels/sampling.h"
#include "model/decoder.h"
#include "model/vit.h"
#include "text/chat.h"
#include "text/tokenizer.h"

typedef struct IvlRequest IvlRequest;

struct IvlModel {
  gint ref_count;
  char *share_key;            /* in the registry of ivl_model_share, or NULL */
  IvlDevice *device;
  char *name, *architecture;
  IvlConfig config;
  IvlTokenizer *tokenizer;
  GArray *stop_ids;           /* guint32: tokens that end an answer */
  guint32 image_context_id;
  guint context_tokens, max_sessions;
  guint64 weight_bytes;

  IvlVkArena weights;
  GPtrArray *slices;          /* of IvlSpan arrays, for the IvlWeights */
  IvlVit vit;
  IvlDecoder decoder;

  IvlVkStream *stream;        /* the scheduler's, once it runs */
  IvlVitRun vit_run;
  IvlDecoderRun decoder_run;
  IvlKvCache kv;              /* pages: under kv_lock */
  GMutex kv_lock;
  IvlSampler sampler;

  GThread *thread;
  GMutex lock;
  GCond wake;                 /* scheduler: there is work, or quit */
  bool quit;
  GQueue images;              /* IvlImage *, owned references, waiting to be encoded */
  GQueue arrivals;            /* IvlRequest *, waiting to be taken up */
  IvlModelStats stats;
  guint64 next_image_serial;
};

typedef enum { IMAGE_NEW, IMAGE_QUEUED, IMAGE_READY, IMAGE_FAILED } IvlImageState;

struct IvlImage {
  gint ref_count;
  IvlModel *model;
  guint64 serial;
  IvlImagePlan plan;
  IvlVkBuffer *upload;        /* freed once encoded */
  IvlVkBuffer *embeddings;    /* [tiles * tile_tokens, H] */
  IvlImageState state;        /* under model->lock */
  guint tiles_done;           /* scheduler only */
  IvlVkBuffer *patches;       /* scheduler only, while being encoded */
  GError *error;
};

struct IvlSession {
  gint ref_count;
  IvlModel *model;
  GMutex lock;
  IvlRequest *busy;           /* borrowed */
  IvlChat *chat;
  IvlSequence sequence;       /* under model->kv_lock */
  GArray *cached;             /* guint64 per cached token: what it was, to find what can be kept */
  GPtrArray *images;          /* IvlImage *, of all turns */
};

/* A question on its way through the scheduler. */
struct IvlRequest {
  IvlSession *session;
  IvlGenerateParams params;
  char **stop;
  IvlTextFunc text_func;
  gpointer text_data;
  IvlAnswerFunc done;
  gpointer done_data;
  gint cancelled;             /* atomic */

  GArray *tokens;             /* guint32, the whole prompt; IVL_TOKEN_IMAGE for image rows, then what was generated */
  GArray *image_rows;         /* IvlRows per IVL_TOKEN_IMAGE, in order */
  GPtrArray *images;          /* IvlImage *, those that image_rows point into */
  guint prompt_tokens;
  guint reused;
  guint n_new;
  IvlTextDecoder *text;
  IvlStopMatcher *matcher;
  GString *answer;
  double probability_sum;
  gint64 submitted_us, images_us, prefilled_us;
};

/* loader.c */
gboolean ivl_model_load_weights (IvlModel *model, const char *path, const IvlModelParams *params,
                                 GCancellable *cancellable, GError **error);
/* scheduler.c */
gpointer ivl_scheduler_run (gpointer model);

#endif
