/* The language model: Qwen2 and InternLM2 (Llama with a fused q/k/v), one forward for any mix of prefill chunks and
 * single decode steps.
 *
 *   x [M, H] = token embeddings, image rows copied over their places
 *   L x: x += o (attention (rope (qkv (norm (x)))));  x += down (silu (gate (norm (x))) * up (norm (x)))
 *   logits [R, V] = head (norm (x[last rows]))
 *
 * The KV cache is paged: IVL_KV_PAGE tokens a page, a layer's cache is [pages * IVL_KV_PAGE, 2, kv heads, head dim].
 * A sequence is a list of pages; sequences of any length share one pool. */
#ifndef IVL_MODEL_DECODER_H
#define IVL_MODEL_DECODER_H

#include "kernels/attention.h"
#include "kernels/norm.h"
#include "model/config.h"

typedef struct {
  IvlSpan input_norm; /* [H] */
  IvlWeight qkv;      /* [(heads + 2 kv_heads) * d, H]: q, k, v; a head's rows of q and k in rotary pairs (checkpoint.h) */
  IvlSpan qkv_bias;   /* in that order; or no buffer */
  IvlWeight o;        /* [H, heads * d] */
  IvlSpan post_norm;  /* [H] */
  IvlWeight gate_up;  /* [2F, H], rows gate 0, up 0, gate 1, up 1, ... */
  IvlWeight down;     /* [H, F] */
} IvlDecoderLayer;

/* Weights; the spans are borrowed from the model's arena. */
typedef struct {
  const IvlConfig *config; /* borrowed */
  IvlWeight embed;         /* [V, H] */
  IvlWeight head;          /* [V, H]; the same slices as embed when tied */
  IvlSpan norm;            /* [H] */
  IvlSpan rope;            /* (cos, sin) [positions, d / 2] */
  guint n_positions;
  IvlDecoderLayer *layers; /* [config->text.layers] */
} IvlDecoder;

/* Fills COS_SIN [positions, d / 2, 2] as the reference computes it: f32 frequencies and angles. */
void ivl_rope_table (const IvlConfig *config, guint n_positions, float *cos_sin);

/* ---- KV cache ---- */

typedef struct {
  const IvlDecoder *decoder;
  IvlDevice *device; /* borrowed */
  IvlVkBuffer **layers;
  guint n_pages, max_pages;
  GArray *free_pages; /* guint32 stack */
  GArray *page_refs;  /* guint32 per page */
} IvlKvCache;

typedef struct {
  GArray *pages; /* guint32 */
  guint length;  /* tokens cached */
} IvlSequence;

gboolean ivl_kv_cache_init (IvlKvCache *cache, const IvlDecoder *decoder, IvlDevice *device, guint n_pages,
                            guint max_pages, GError **error);
void ivl_kv_cache_deinit (IvlKvCache *cache);
guint64 ivl_kv_page_bytes (const IvlConfig *config);

void ivl_sequence_init (IvlSequence *sequence);
void ivl_sequence_deinit (IvlSequence *sequence, IvlKvCache *cache);
/* Makes room for N more tokens, growing the cache up to max_pages. The stream must be idle. Fails with
 * IVL_ERROR_OUT_OF_MEMORY and changes nothing if there is none. */
gboolean ivl_sequence_reserve (IvlSequence *sequence, IvlKvCache *cache, IvlVkStream *stream, guint n,
                               GError **error);
/* Forgets the tokens from LENGTH on, and up to a page more where the page is shared: see sequence->length. */
void ivl_sequence_truncate (IvlSequence *sequence, IvlKvCache *cache, guint length);
/* Makes the empty SEQUENCE share the first whole pages of FROM's tokens, at most N tokens; returns how many. */
guint ivl_sequence_share (IvlSequence *sequence, IvlKvCache *cache, const IvlSequence *from, guint n);

/* ---- forward ---- */

/* What one sequence brings to a forward pass. */
typedef struct {
  IvlSequence *sequence;  /* room for n_tokens must be reserved; its length grows by n_tokens */
  const guint32 *tokens;  /* IVL_TOKEN_IMAGE where an image row goes */
  guint n_tokens;
  const IvlRows *image_rows; /* one source row [H] per IVL_TOKEN_IMAGE in order; .offset is the row's start */
  guint want_logits;      /* of so many of the last tokens; places in the logits are given in order of the jobs */
  gboolean one_by_one;    /* each token attends as if it came alone: what a row computes doesn't depend on those after */
} IvlDecoderJob;

typedef struct {
  const IvlDecoder *decoder;
  IvlDevice *device; /* borrowed */
  guint max_rows, max_logits;
  IvlVkArena arena, host_arena;
  IvlSpan x, h, wide;
  IvlSpan logits;    /* [max_logits, V] */
  guint logits_pitch;
  IvlSpan rows, items, pages, index; /* host-visible */
  guint max_items, max_page_entries;
} IvlDecoderRun;

/* MAX_ROWS: tokens of one forward; MAX_LOGITS: jobs that want logits; MAX_CONTEXT: tokens of the longest sequence. */
gboolean ivl_decoder_run_init (IvlDecoderRun *run, const IvlDecoder *decoder, IvlDevice *device, guint max_rows,
                               guint max_logits, guint max_context, GError **error);
void ivl_decoder_run_deinit (IvlDecoderRun *run);

/* Called after the embeddings (layer 0) and after each layer (1..L) with x waited for; for checks. */
typedef void (*IvlDecoderTap) (guint layer, IvlRows x, guint rows, gpointer data);

/* Records the whole forward, or takes what was recorded for as many rows that all bring one token and want its logits; the
 * caller submits. The previous submission that used RUN must be waited for.
 * With TAP, submits and waits by itself at every layer. */
gboolean ivl_decoder_record (IvlDecoderRun *run, IvlKvCache *cache, IvlVkStream *stream, const IvlDecoderJob *jobs,
                             guint n_jobs, IvlDecoderTap tap, gpointer tap_data, GError **error);

#endif
