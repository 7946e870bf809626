#include "model/pack.h"

#include <string.h>
#include <xxhash.h>

#include "model/quantise.h"

#define STAGING_BYTES (32u << 20) /* packed at a time */

static void pack_panels (gpointer data, gpointer user_data);

gboolean
ivl_packer_init (IvlPacker *self, IvlDevice *device, guint64 block_bytes, GCancellable *cancellable, GError **error)
{
  *self = (IvlPacker){ .device = device, .cancellable = cancellable };
  ivl_vk_arena_init (&self->arena, device, IVL_VK_DEVICE, block_bytes);
  self->slices = g_ptr_array_new_with_free_func (g_free);
  self->workers = g_thread_pool_new (pack_panels, NULL, (gint) MIN (g_get_num_processors (), 16), FALSE, error);
  if (!self->workers || !(self->stream = ivl_vk_stream_new (device, error))) {
    ivl_packer_deinit (self);
    return FALSE;
  }
  return TRUE;
}

void
ivl_packer_deinit (IvlPacker *self)
{
  if (self->workers)
    g_thread_pool_free (self->workers, TRUE, TRUE);
  self->workers = NULL;
  g_clear_pointer (&self->stream, ivl_vk_stream_free);
  g_clear_pointer (&self->slices, g_ptr_array_unref);
  ivl_vk_arena_deinit (&self->arena);
}

static guint16
to_bf16 (float f)
{
  guint32 u;
  memcpy (&u, &f, 4);
  return (guint16) ((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

/* A run of panels of one matrix. */
typedef struct {
  const IvlMatrixSource *source;
  IvlDtype dtype;
  guint first_row, rows; /* rows of the matrix in these panels */
  guint k_pad;
  guint8 *out;
  GError *error;
  struct Batch *batch;
  guint16 largest; /* magnitude of bf16 */
} Job;

typedef struct Batch {
  GMutex lock;
  GCond done;
  guint left;
} Batch;

/* SCRATCH: cols floats. */
static void
quantise_row (Job *job, guint row, float *scratch)
{
  guint cols = job->source->cols, local = row - job->first_row;
  ivl_matrix_source_row_f32 (job->source, row, scratch);
  guint8 *out = job->out + (gsize) (local / IVL_PANEL) * ivl_weight_panel_bytes (job->dtype, cols);
  local %= IVL_PANEL;
  guint step_bytes = job->dtype == IVL_DTYPE_Q8 ? 8 : 4; /* of eight values */
  for (guint k = 0; k < cols; k += IVL_QUANT_BLOCK) {
    guint16 scale;
    guint32 words[IVL_QUANT_BLOCK / 4];
    ivl_quantise_block (job->dtype, scratch + k, MIN (cols - k, IVL_QUANT_BLOCK), &scale, words);
    memcpy (out + local * sizeof scale, &scale, sizeof scale);
    out += 16 * IVL_QUANT_SCALES;
    for (guint s = 0; s < 4; s++, out += (gsize) IVL_PANEL * step_bytes)
      memcpy (out + local * step_bytes, (guint8 *) words + s * step_bytes, step_bytes);
  }
}

static void
pack_one_row (Job *job, guint row, guint8 *scratch)
{
  guint cols = job->source->cols;
  if (!ivl_matrix_source_check_row (job->source, row, job->error ? NULL : &job->error))
    return;
  if (ivl_dtype_is_quantised (job->dtype)) {
    quantise_row (job, row, (float *) scratch);
    return;
  }
  guint bytes = ivl_dtype_bytes (job->dtype), row_bytes = job->k_pad * bytes;
  IvlTensorDtype have;
  const void *data = ivl_matrix_source_row (job->source, row, &have);
  if ((guint) have == (guint) job->dtype) {
    memcpy (scratch, data, (gsize) cols * bytes);
  } else {
    g_autofree float *values = g_new (float, cols);
    ivl_tensor_to_f32 (have, data, values, cols);
    for (guint i = 0; i < cols; i++)
      if (job->dtype == IVL_DTYPE_F32)
        ((float *) scratch)[i] = values[i];
      else
        ((guint16 *) scratch)[i] = job->dtype == IVL_DTYPE_F16 ? ivl_to_f16 (values[i]) : to_bf16 (values[i]);
  }
  if (job->dtype == IVL_DTYPE_BF16)
    for (guint i = 0; i < cols; i++)
      job->largest = MAX (job->largest, ((guint16 *) scratch)[i] & 0x7fff);
  guint local = row - job->first_row;
  guint8 *out = job->out + (gsize) (local / IVL_PANEL) * IVL_PANEL * row_bytes
                + (gsize) IVL_PANEL_TEXEL (local % IVL_PANEL) * 16;
  for (guint at = 0; at < row_bytes; at += 16, out += IVL_PANEL * 16)
    memcpy (out, scratch + at, 16);
}

static void
pack_panels (gpointer data, gpointer user_data)
{
  Job *job = data;
  gsize panel_bytes = ivl_weight_panel_bytes (job->dtype, job->source->cols);
  g_autofree guint8 *scratch = g_malloc0 (job->k_pad * sizeof (float));
  guint panels = (job->rows + IVL_PANEL - 1) / IVL_PANEL;
  if (job->rows % IVL_PANEL)
    memset (job->out + (panels - 1) * panel_bytes, 0, panel_bytes);
  for (guint r = 0; r < job->rows && !job->error; r++)
    pack_one_row (job, job->first_row + r, scratch);
  g_mutex_lock (&job->batch->lock);
  if (--job->batch->left == 0)
    g_cond_signal (&job->batch->done);
  g_mutex_unlock (&job->batch->lock);
}

/* Packs ROWS rows from FIRST on to OUT, on all cores. */
static gboolean
pack_rows (IvlPacker *self, const IvlMatrixSource *source, IvlDtype dtype, guint first, guint rows, guint8 *out,
           GError **error)
{
  guint k_pad = (source->cols + 7) / 8 * 8;
  gsize panel_bytes = ivl_weight_panel_bytes (dtype, source->cols);
  guint panels = (rows + IVL_PANEL - 1) / IVL_PANEL;
  guint step = MAX (panels / (4 * (guint) g_thread_pool_get_max_threads (self->workers)), 1);
  guint n_jobs = (panels + step - 1) / step;
  g_autofree Job *jobs = g_new0 (Job, n_jobs);
  Batch batch = { .left = n_jobs };
  g_mutex_init (&batch.lock);
  g_cond_init (&batch.done);
  for (guint i = 0; i < n_jobs; i++) {
    guint from = i * step * IVL_PANEL;
    jobs[i] = (Job){ source, dtype, first + from, MIN (rows - from, step * IVL_PANEL), k_pad,
                     out + (gsize) i * step * panel_bytes, NULL, &batch, 0 };
    g_thread_pool_push (self->workers, &jobs[i], NULL);
  }
  g_mutex_lock (&batch.lock);
  while (batch.left)
    g_cond_wait (&batch.done, &batch.lock);
  g_mutex_unlock (&batch.lock);
  g_mutex_clear (&batch.lock);
  g_cond_clear (&batch.done);
  gboolean ok = TRUE;
  for (guint i = 0; i < n_jobs; i++) {
    self->largest = MAX (self->largest, jobs[i].largest);
    if (!jobs[i].error)
      continue;
    if (ok)
      g_propagate_error (error, jobs[i].error);
    else
      g_error_free (jobs[i].error);
    ok = FALSE;
  }
  return ok;
}

static guint
slice_rows (IvlDevice *device, guint n, gsize panel_bytes)
{
  const VkPhysicalDeviceLimits *limits = &device->properties.limits;
  guint64 most = device->texels ? MIN (16ull * limits->maxTexelBufferElements, 1ull << 30) : limits->maxStorageBufferRange;
  return (guint) MIN ((guint64) n, MAX (most / panel_bytes, 1) * IVL_PANEL);
}

guint64
ivl_pack_matrix_bytes (const IvlMatrixSource *source, IvlDtype dtype)
{
  return ivl_weight_slice_bytes (dtype, source->rows, source->cols);
}

void
ivl_pack_lay_out (IvlPacker *self, const IvlMatrixSource *source, IvlDtype dtype, IvlWeight *weight)
{
  guint k_pad = (source->cols + 7) / 8 * 8;
  *weight = (IvlWeight){ .dtype = dtype, .n = source->rows, .k = source->cols, .k_pad = k_pad };
  weight->slice_n = slice_rows (self->device, source->rows, ivl_weight_panel_bytes (dtype, source->cols));
  weight->n_slices = (source->rows + weight->slice_n - 1) / weight->slice_n;
  weight->slices = g_new0 (IvlSpan, weight->n_slices);
  g_ptr_array_add (self->slices, weight->slices);
}

gboolean
ivl_pack_fingerprint (IvlPacker *self, IvlDtype dtype, guint64 *fingerprint, GError **error)
{
  enum { ROWS = IVL_PANEL + 6, COLS = 2 * IVL_QUANT_BLOCK + 12 };
  float values[ROWS * COLS];
  for (guint i = 0; i < ROWS * COLS; i++)
    values[i] = (float) ((gint32) (i * 2654435761u) >> 8) * 0x1p-22f;
  IvlMatrixSource source = { .rows = ROWS, .cols = COLS, .dtype = IVL_TENSOR_F32, .n_parts = 1 };
  source.parts[0] = (IvlMatrixPart){ .tensor = { .name = "probe", .file = "", .dtype = IVL_TENSOR_F32, .n_dims = 2,
                                                 .shape = { ROWS, COLS }, .data = values, .bytes = sizeof values },
                                     .rows = ROWS, .block = ROWS, .stride = ROWS };
  gsize bytes = (ROWS + IVL_PANEL - 1) / IVL_PANEL * ivl_weight_panel_bytes (dtype, COLS);
  g_autofree guint8 *out = g_malloc0 (bytes);
  if (!pack_rows (self, &source, dtype, 0, ROWS, out, error))
    return FALSE;
  *fingerprint = XXH3_64bits (out, bytes);
  return TRUE;
}

gboolean
ivl_pack_matrix (IvlPacker *self, const IvlMatrixSource *source, IvlDtype dtype, IvlWeight *weight, GError **error)
{
  gsize panel_bytes = ivl_weight_panel_bytes (dtype, source->cols);
  ivl_pack_lay_out (self, source, dtype, weight);
  self->largest = 0;
  for (guint s = 0; s < weight->n_slices; s++) {
    guint first = s * weight->slice_n, rows = MIN (weight->slice_n, source->rows - first);
    IvlSpan *span = &weight->slices[s];
    if (g_cancellable_set_error_if_cancelled (self->cancellable, NULL))
      return ivl_fail (error, IVL_ERROR_CANCELLED, "Loading was cancelled");
    if (!ivl_vk_arena_alloc (&self->arena, ivl_weight_slice_bytes (dtype, rows, source->cols), span, error))
      return FALSE;
    guint step = (guint) MAX (STAGING_BYTES / panel_bytes, 1) * IVL_PANEL;
    if (span->buffer->map) {
      for (guint r = 0; r < rows; r += step) {
        guint n = MIN (step, rows - r);
        guint8 *out = (guint8 *) span->buffer->map + span->offset + (gsize) (r / IVL_PANEL) * panel_bytes;
        if (!pack_rows (self, source, dtype, first + r, n, out, error))
          return FALSE;
        if (self->packed)
          self->packed (out, (n + IVL_PANEL - 1) / IVL_PANEL * panel_bytes, self->packed_data);
        if (self->read)
          self->read (self->read_data);
      }
      ivl_vk_buffer_flush (span->buffer);
      continue;
    }
    g_autofree guint8 *staging = g_malloc (MIN (step, rows + IVL_PANEL) / IVL_PANEL * panel_bytes + panel_bytes);
    for (guint r = 0; r < rows; r += step) {
      guint n = MIN (step, rows - r);
      gsize bytes = (n + IVL_PANEL - 1) / IVL_PANEL * panel_bytes;
      IvlSpan part = { span->buffer, span->offset + (gsize) (r / IVL_PANEL) * panel_bytes, bytes };
      if (!pack_rows (self, source, dtype, first + r, n, staging, error)
          || !ivl_vk_write (self->stream, part, staging, bytes, error))
        return FALSE;
      if (self->packed)
        self->packed (staging, bytes, self->packed_data);
      if (self->read)
        self->read (self->read_data);
    }
  }
  guint32 bits = (guint32) self->largest << 16;
  memcpy (&weight->largest, &bits, sizeof bits);
  return TRUE;
}

gboolean
ivl_pack_floats (IvlPacker *self, const float *data, gsize n, IvlSpan *span, GError **error)
{
  return ivl_vk_arena_alloc (&self->arena, n * sizeof *data, span, error)
         && ivl_vk_write (self->stream, *span, data, n * sizeof *data, error);
}
