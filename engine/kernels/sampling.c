#include "kernels/sampling.h"

#include <math.h>
#include <string.h>

/* Masses of all tokens together stay below 2^47 (shaders/sampling/common.h). */
#define MAX_VOCAB (1u << 19)
#define MIN_TEMPERATURE 1e-5f
#define KEY_DIGITS 4
#define IDS_TOGETHER 256 /* places for a context's tokens: what is recorded serves while it grows by so many */

typedef struct IvlSampleRow SampleRow;
typedef struct IvlSampleState SampleState;
typedef struct IvlPushSampling Push;

G_STATIC_ASSERT (sizeof (SampleRow) == 48);
G_STATIC_ASSERT (sizeof (SampleState) == 32);

typedef enum { PARTIAL, HISTOGRAM, SUMS, DRAW, N_LOGITS_KERNELS } LogitsKernel;

static const IvlKernelId logits_kernels[N_LOGITS_KERNELS][2] = {
  [PARTIAL] = { IVL_K_SAMPLING_PARTIAL_BUFFER, IVL_K_SAMPLING_PARTIAL_TEXEL },
  [HISTOGRAM] = { IVL_K_SAMPLING_HISTOGRAM_BUFFER, IVL_K_SAMPLING_HISTOGRAM_TEXEL },
  [SUMS] = { IVL_K_SAMPLING_SUMS_BUFFER, IVL_K_SAMPLING_SUMS_TEXEL },
  [DRAW] = { IVL_K_SAMPLING_DRAW_BUFFER, IVL_K_SAMPLING_DRAW_TEXEL },
};

/* Cuts SIZE bytes off a buffer that is being laid out. */
static IvlSpan
reserve (guint64 *used, guint64 size)
{
  IvlSpan span = { NULL, *used, MAX (size, 16) };
  *used += (span.size + 255) / 256 * 256;
  return span;
}

gboolean
ivl_sampler_init (IvlSampler *self, IvlDevice *device, guint vocab, guint max_rows, guint max_context, GError **error)
{
  *self = (IvlSampler){ .device = device, .vocab = vocab, .max_rows = max_rows, .max_context = max_context };
  if (vocab == 0 || vocab > MAX_VOCAB)
    return ivl_fail (error, IVL_ERROR_UNSUPPORTED, "A vocabulary of %u tokens; at most %u are supported", vocab,
                     MAX_VOCAB);
  self->blocks = (vocab + IVL_SAMPLE_BLOCK - 1) / IVL_SAMPLE_BLOCK;
  self->mask_words = (vocab + 31) / 32;
  self->seen = g_new0 (guint32, vocab);

  guint64 upload = 0, work = 0, pairs = (guint64) max_rows * self->blocks;
  self->rows = reserve (&upload, max_rows * sizeof (SampleRow));
  self->ids = reserve (&upload, (guint64) max_rows * MIN (max_context, vocab) * 4);
  self->masks = reserve (&upload, (guint64) max_rows * self->mask_words * 4);
  self->partials = reserve (&work, pairs * 16);
  self->states = reserve (&work, max_rows * sizeof (SampleState));
  self->histogram = reserve (&work, pairs * 2 * 256 * 4);
  self->sums = reserve (&work, pairs * 8);
  if (!(self->upload = ivl_vk_buffer_new (device, IVL_VK_UPLOAD, upload, error))
      || !(self->work = ivl_vk_buffer_new (device, IVL_VK_DEVICE, work, error))
      || !(self->results = ivl_vk_buffer_new (device, IVL_VK_READBACK, max_rows * sizeof (IvlSample), error))) {
    ivl_sampler_deinit (self);
    return FALSE;
  }
  self->rows.buffer = self->ids.buffer = self->masks.buffer = self->upload;
  self->partials.buffer = self->states.buffer = self->histogram.buffer = self->sums.buffer = self->work;
  return TRUE;
}

void
ivl_sampler_deinit (IvlSampler *self)
{
  ivl_vk_buffer_free (self->upload);
  ivl_vk_buffer_free (self->work);
  ivl_vk_buffer_free (self->results);
  g_free (self->seen);
  memset (self, 0, sizeof *self);
}

static guint32
fraction (float p)
{
  if (!(p < 1))
    return G_MAXUINT32;
  return p > 0 ? (guint32) MIN ((double) p * 4294967296.0, 4294967294.0) : 0;
}

/* The tokens of a context, each once; returns how many. */
static guint
write_ids (IvlSampler *self, const IvlSampleRequest *request, guint32 *ids)
{
  guint n = 0;
  if (++self->mark == 0) {
    memset (self->seen, 0, self->vocab * sizeof *self->seen);
    self->mark = 1;
  }
  for (guint i = 0; i < request->n_context; i++) {
    guint32 id = request->context[i];
    if (id >= self->vocab || self->seen[id] == self->mark)
      continue;
    self->seen[id] = self->mark;
    ids[n++] = id;
  }
  return n;
}

typedef struct {
  IvlSampler *sampler;
  IvlVkStream *stream;
  IvlSpan logits;
  gboolean texels;
  Push push;
} Recorder;

static const guint32 specs[] = { IVL_SAMPLE_LANES };

static void
dispatch (const Recorder *r, IvlKernelId kernel, const IvlSpan *spans, IvlGroups groups)
{
  ivl_vk_dispatch (r->stream, kernel, specs, G_N_ELEMENTS (specs), spans, &r->push, sizeof r->push, groups);
}

/* A kernel that walks all logits, a workgroup per block. */
static void
walk (const Recorder *r, LogitsKernel kernel, const IvlSpan *spans, double flops)
{
  double n = (double) r->push.vocab * r->push.n_rows;
  dispatch (r, logits_kernels[kernel][r->texels], spans, (IvlGroups){ r->push.blocks, r->push.n_rows, 1 });
  ivl_vk_note_work (r->stream, flops * n, 4 * n);
}

static void
search (Recorder *r, guint phase)
{
  IvlSampler *s = r->sampler;
  r->push.phase = phase;
  for (r->push.digit = 0; r->push.digit < KEY_DIGITS; r->push.digit++) {
    walk (r, HISTOGRAM, (IvlSpan[]){ r->logits, s->rows, s->masks, s->states, s->histogram }, 5);
    dispatch (r, IVL_K_SAMPLING_STEP, (IvlSpan[]){ s->rows, s->histogram, s->states },
              (IvlGroups){ r->push.n_rows, 1, 1 });
  }
}

static void
record_choice (Recorder *r, guint id_groups, gboolean draws, gboolean any_k, gboolean any_p)
{
  IvlSampler *s = r->sampler;
  guint n = r->push.n_rows;
  IvlSpan results = { s->results, 0, s->results->size };
  if (id_groups)
    dispatch (r, IVL_K_SAMPLING_PENALTY, (IvlSpan[]){ r->logits, s->rows, s->ids }, (IvlGroups){ id_groups, n, 1 });
  walk (r, PARTIAL, (IvlSpan[]){ r->logits, s->rows, s->masks, s->partials }, 10);
  dispatch (r, IVL_K_SAMPLING_REDUCE, (IvlSpan[]){ s->rows, s->partials, s->states, results },
            (IvlGroups){ (n + IVL_SAMPLE_LANES - 1) / IVL_SAMPLE_LANES, 1, 1 });
  if (!draws)
    return;
  if (any_k)
    search (r, 0);
  if (any_p)
    search (r, 1);
  walk (r, SUMS, (IvlSpan[]){ r->logits, s->rows, s->masks, s->states, s->sums }, 10);
  dispatch (r, logits_kernels[DRAW][r->texels],
            (IvlSpan[]){ r->logits, s->rows, s->masks, s->states, s->sums, results }, (IvlGroups){ n, 1, 1 });
}

gboolean
ivl_sampler_record (IvlSampler *self, IvlVkStream *stream, IvlSpan logits, guint pitch,
                    const IvlSampleRequest *requests, guint n, GError **error)
{
  return ivl_sampler_record_variant (self, stream, logits, pitch, requests, n, -1, error);
}

gboolean
ivl_sampler_record_variant (IvlSampler *self, IvlVkStream *stream, IvlSpan logits, guint pitch,
                            const IvlSampleRequest *requests, guint n, int texels, GError **error)
{
  g_assert (pitch % 4 == 0 && pitch >= self->vocab);
  if (n > self->max_rows)
    return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "Sampling: %u rows; made for %u", n, self->max_rows);
  SampleRow *rows = (SampleRow *) (void *) ((guint8 *) self->upload->map + self->rows.offset);
  guint32 *ids = (guint32 *) (void *) ((guint8 *) self->upload->map + self->ids.offset);
  guint32 *masks = (guint32 *) (void *) ((guint8 *) self->upload->map + self->masks.offset);
  guint first_id = 0, most_ids = 0;
  gboolean draws = FALSE, any_k = FALSE, any_p = FALSE;
  for (guint i = 0; i < n; i++) {
    const IvlSampleRequest *request = &requests[i];
    gboolean draw = request->temperature >= MIN_TEMPERATURE;
    gboolean penalise = request->repetition_penalty != 1 && request->repetition_penalty > 0 && request->context;
    if (penalise && request->n_context > self->max_context)
      return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "Sampling: a context of %u tokens; made for %u",
                       request->n_context, self->max_context);
    SampleRow row = {
      .flags = request->allowed ? 1 : 0,
      .inverse_temperature = draw ? 1 / request->temperature : 0,
      .top_k = draw && request->top_k < self->vocab ? request->top_k : 0,
      .top_p = draw ? fraction (request->top_p) : G_MAXUINT32,
      .seed_low = (guint32) request->seed, .seed_high = (guint32) (request->seed >> 32), .step = request->step,
      .penalty = request->repetition_penalty,
      .first_id = first_id, .n_ids = penalise ? write_ids (self, request, ids + first_id) : 0,
    };
    rows[i] = row;
    if (request->allowed)
      memcpy (masks + (gsize) i * self->mask_words, request->allowed, self->mask_words * 4);
    first_id += row.n_ids;
    most_ids = MAX (most_ids, row.n_ids);
    draws |= draw;
    any_k |= row.top_k != 0;
    any_p |= row.top_p != G_MAXUINT32;
  }
  ivl_vk_buffer_flush (self->upload);
  if (n == 0)
    return TRUE;

  logits.size = (guint64) n * pitch * 4;
  Recorder r = { self, stream, logits, .push = { self->vocab, pitch / 4, self->blocks, n, self->mask_words } };
  r.texels = ivl_vk_use_texels (self->device, logits.size, texels);
  guint id_groups = (most_ids + IDS_TOGETHER - 1) / IDS_TOGETHER * (IDS_TOGETHER / IVL_SAMPLE_LANES);
  guint64 key[] = { self->upload->serial, logits.buffer->serial, logits.offset, pitch, n, id_groups, r.texels,
                    draws + 2 * any_k + 4 * any_p };
  if (ivl_vk_replay (stream, key, sizeof key))
    return TRUE;
  record_choice (&r, id_groups, draws, any_k, any_p);
  ivl_vk_replay_end (stream);
  return TRUE;
}

gboolean
ivl_sampler_read (IvlSampler *self, IvlSample *samples, guint n, GError **error)
{
  if (n > self->max_rows)
    return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "Sampling: %u rows; made for %u", n, self->max_rows);
  ivl_vk_buffer_invalidate (self->results);
  memcpy (samples, self->results->map, n * sizeof *samples);
  return TRUE;
}
