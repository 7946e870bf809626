/* How frames differ from those before them: measured on tiles, once their pixels have been resized, whether they will be
 * encoded or not. What is measured costs a resize, which encoding then needn't do again. */
#include "generate/engine.h"

/* Frames compared between two steps of the encoder: each is little work, but many streams have many frames. */
#define AT_ONCE 4
/* Of the largest difference and the histograms in what is read back; a multiple of any device's alignment. */
#define LUMA_OFFSET 256

typedef struct {
  IvlImage *image, *previous; /* owned */
  IvlChangeFunc done;
  gpointer user_data;
} Change;

struct IvlChanges {
  IvlModel *model;
  IvlVkBuffer *result;        /* grown as needed */
};

IvlChanges *
ivl_changes_new (IvlModel *model)
{
  IvlChanges *self = g_new0 (IvlChanges, 1);
  self->model = model;
  return self;
}

void
ivl_changes_free (IvlChanges *self)
{
  ivl_vk_buffer_free (self->result);
  g_free (self);
}

void
ivl_image_compare_async (IvlImage *image, IvlImage *previous, IvlChangeFunc done, gpointer user_data)
{
  IvlModel *model = image->model;
  Change *change = g_new (Change, 1);
  *change = (Change){ ivl_image_ref (image), previous ? ivl_image_ref (previous) : NULL, done, user_data };
  g_mutex_lock (&model->lock);
  g_queue_push_tail (&model->changes, change);
  g_cond_signal (&model->vision_wake);
  g_mutex_unlock (&model->lock);
}

static gsize
luma_bytes (const IvlImage *image)
{
  return 4ull * image->n_tiles * IVL_LUMA_BLOCKS * IVL_LUMA_BLOCKS * IVL_LUMA_BINS;
}

static void
record (IvlChanges *self, IvlImage *image, const IvlImage *previous, IvlVkBuffer *scratch)
{
  IvlModel *model = self->model;
  guint size = model->config->vision.image_size;
  IvlSpan tiles = { image->tiles, 0, image->tiles->size }, largest = { self->result, 0, 16 };
  ivl_image_record_tiles (model->vision_stream, &image->plan, (IvlSpan){ image->upload, 0, image->upload->size },
                          (IvlSpan){ scratch, 0, scratch->size }, tiles);
  ivl_image_record_luma (model->vision_stream, tiles, image->n_tiles, size,
                         (IvlSpan){ self->result, LUMA_OFFSET, luma_bytes (image) });
  ivl_vk_fill (model->vision_stream, largest, 0);
  if (previous)
    ivl_image_record_difference (model->vision_stream, tiles, (IvlSpan){ previous->tiles, 0, previous->tiles->size },
                                 image->n_tiles, size, model->config->vision.patch_size, largest);
}

static gboolean
measure (IvlChanges *self, IvlImage *image, const IvlImage *previous, IvlImageChange *change, GError **error)
{
  IvlModel *model = self->model;
  guint size = model->config->vision.image_size, patch = model->config->vision.patch_size;
  gsize need = LUMA_OFFSET + luma_bytes (image);
  g_mutex_lock (&model->lock);
  bool fresh = image->state == IMAGE_NEW && !image->luma;
  g_mutex_unlock (&model->lock);
  if (!fresh)
    return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT,
                     "ivl_image_compare_async: the image was compared or asked about before");
  if (previous && (previous->model != model || !previous->luma || previous->n_tiles != image->n_tiles))
    previous = NULL;
  if (!self->result || self->result->size < need) {
    g_clear_pointer (&self->result, ivl_vk_buffer_free);
    if (!(self->result = ivl_vk_buffer_new (model->device, IVL_VK_READBACK, need, error)))
      return FALSE;
  }
  IvlVkBuffer *scratch = ivl_vk_buffer_new (model->device, IVL_VK_DEVICE, image->plan.scratch_bytes, error);
  if (scratch && !image->tiles)
    image->tiles = ivl_vk_buffer_new (model->device, IVL_VK_DEVICE, 4ull * image->n_tiles * size * size, error);
  gboolean ok = scratch && image->tiles && ivl_vk_begin (model->vision_stream, error);
  if (ok) {
    record (self, image, previous, scratch);
    ok = ivl_vk_run (model->vision_stream, error);
  }
  ivl_vk_buffer_free (scratch);
  if (!ok) {
    g_clear_pointer (&image->tiles, ivl_vk_buffer_free);
    return FALSE;
  }
  g_clear_pointer (&image->upload, ivl_vk_buffer_free);
  g_clear_pointer (&image->picture, ivl_device_picture_unref);
  ivl_vk_buffer_invalidate (self->result);
  image->luma = g_memdup2 ((const guint8 *) self->result->map + LUMA_OFFSET, luma_bytes (image));
  *change = (IvlImageChange){ 255.f, 1.f };
  if (previous) {
    change->motion = (float) (*(const guint32 *) self->result->map / (3. * patch * patch));
    change->scene = (float) ivl_image_luma_difference (previous->luma, image->luma, image->n_tiles, size);
  }
  return TRUE;
}

bool
ivl_changes_step (IvlChanges *self)
{
  IvlModel *model = self->model;
  guint n = 0;
  for (; n < AT_ONCE; n++) {
    g_mutex_lock (&model->lock);
    Change *change = g_queue_pop_head (&model->changes);
    g_mutex_unlock (&model->lock);
    if (!change)
      break;
    g_autoptr (GError) error = NULL;
    IvlImageChange result;
    gboolean ok = measure (self, change->image, change->previous, &result, &error);
    change->done (change->image, ok ? &result : NULL, error, change->user_data);
    ivl_image_unref (change->previous);
    ivl_image_unref (change->image);
    g_free (change);
  }
  return n > 0;
}
