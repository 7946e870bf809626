/* From logits to tokens: repetition penalty, then greedy choice, or temperature, top-k, top-p and a draw, in the order
 * and meaning of transformers' logits processors. A row each for what is batched; rows are independent.
 *
 * An answer depends on logits, parameters, seed and step alone: not on the batch, nor on how a device runs it. */
#ifndef IVL_KERNELS_SAMPLING_H
#define IVL_KERNELS_SAMPLING_H

#include "kernels/gemm.h"

typedef struct {
  float temperature;          /* below 1e-5: greedy, the lowest id of equals */
  float top_p;                /* the smallest set of the likeliest tokens that has this probability or more (with all
                               * tokens that are as likely as its last); 1 or more: off */
  guint top_k;                /* the likeliest, with all tokens that are as likely as the last; 0: off */
  guint64 seed;
  guint step;                 /* tokens generated before this one: another draw of the same seed */
  float repetition_penalty;   /* a logit of a token in the context is divided by it if positive, else multiplied, once;
                               * 1: off */
  const guint32 *context;     /* borrowed; ids outside of the vocabulary (image places) are passed over */
  guint n_context;
  const guint32 *allowed;     /* borrowed; a bit per token, the lowest first: others have no probability. NULL: all */
} IvlSampleRequest;

#define IVL_SAMPLE_INVALID 0xffffffffu

typedef struct {
  guint32 token;              /* IVL_SAMPLE_INVALID if a logit is NaN or plus infinity, or no token is allowed */
  float probability;          /* softmax of the logits after penalty and mask, before temperature, top-k and top-p */
} IvlSample;

/* Buffers for one batch at a time: record, run, read. */
typedef struct {
  IvlDevice *device;          /* borrowed */
  guint vocab, max_rows, max_context;
  guint blocks, mask_words;
  IvlVkBuffer *upload, *work, *results;
  IvlSpan rows, ids, masks;   /* of upload */
  IvlSpan partials, states, histogram, sums; /* of work */
  guint32 *seen;              /* [vocab]: mark of the last row whose context had the token */
  guint32 mark;
} IvlSampler;

gboolean ivl_sampler_init (IvlSampler *sampler, IvlDevice *device, guint vocab, guint max_rows, guint max_context,
                           GError **error);
/* Takes a sampler that is all zero, too. */
void ivl_sampler_deinit (IvlSampler *sampler);
/* LOGITS: f32 [n, PITCH], PITCH a multiple of 4 floats; penalties are applied in place. What the last record read must
 * have run: parameters are written where the kernels read them. Recorded between ivl_vk_begin and ivl_vk_submit. */
gboolean ivl_sampler_record (IvlSampler *sampler, IvlVkStream *stream, IvlSpan logits, guint pitch,
                             const IvlSampleRequest *requests, guint n, GError **error);
/* For checks and timing: TEXELS -1 by device, 0 storage buffers, 1 texel buffers. */
gboolean ivl_sampler_record_variant (IvlSampler *sampler, IvlVkStream *stream, IvlSpan logits, guint pitch,
                                     const IvlSampleRequest *requests, guint n, int texels, GError **error);
/* After the submission has been waited for. */
gboolean ivl_sampler_read (IvlSampler *sampler, IvlSample *samples, guint n, GError **error);

#endif
