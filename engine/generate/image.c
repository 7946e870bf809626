/* IvlImage: pixels handed in, embeddings once the encoder has been there. */
#include "generate/engine.h"

/* PICTURE or ON_DEVICE. */
static IvlImage *
image_new (IvlModel *model, const IvlPicture *picture, IvlDevicePicture *on_device, guint max_tiles, GError **error)
{
  const IvlConfig *config = model->config;
  guint size = config->vision.image_size, patch = config->vision.patch_size;
  IvlImage *self = g_new0 (IvlImage, 1);
  self->ref_count = 1;
  self->model = ivl_model_ref (model);
  max_tiles = config->dynamic_image_size ? MAX (max_tiles, 1) : 1;
  gboolean ok;
  if (on_device) {
    self->picture = ivl_device_picture_ref (on_device);
    ok = ivl_image_plan_init_apart (&self->plan, model->device, &on_device->layout, on_device->places,
                                    (IvlSpan){ on_device->buffer, 0, on_device->buffer->size }, size, patch, max_tiles,
                                    config->use_thumbnail, error);
  } else {
    ok = ivl_image_plan_init (&self->plan, model->device, picture, size, patch, max_tiles, config->use_thumbnail, error);
  }
  if (!ok || !(self->upload = ivl_vk_buffer_new (model->device, IVL_VK_UPLOAD, self->plan.upload_bytes, error))) {
    ivl_image_unref (self);
    return NULL;
  }
  ivl_image_plan_upload (&self->plan, picture, self->upload->map);
  ivl_vk_buffer_flush (self->upload);
  self->n_tiles = self->plan.n_tiles;
  g_mutex_lock (&model->lock);
  self->serial = ++model->next_serial;
  g_mutex_unlock (&model->lock);
  return self;
}

static IvlImage *
image_new_after (IvlModel *model, const IvlPicture *picture, IvlDevicePicture *on_device, guint max_tiles,
                 IvlImage *previous, float threshold, GError **error)
{
  if (previous && previous->model != model) {
    ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "ivl_image_new_after: the previous image belongs to another model");
    return NULL;
  }
  IvlImage *self = image_new (model, picture, on_device, max_tiles, error);
  if (!self || !(threshold > 0.f))
    return self;
  self->threshold = threshold;
  if (previous)
    self->previous = ivl_image_ref (previous);
  return self;
}

void
ivl_image_set_previous (IvlImage *self, IvlImage *previous)
{
  IvlModel *model = self->model;
  if (previous && previous->model != model)
    return;
  IvlImage *old = NULL;
  g_mutex_lock (&model->lock);
  if (self->state == IMAGE_NEW && self->threshold > 0.f) {
    old = self->previous;
    self->previous = previous ? ivl_image_ref (previous) : NULL;
  }
  g_mutex_unlock (&model->lock);
  ivl_image_unref (old);
}

IvlImage *
ivl_image_new (IvlModel *model, const IvlPicture *picture, guint max_tiles, GError **error)
{
  return image_new (model, picture, NULL, max_tiles, error);
}

IvlImage *
ivl_image_new_after (IvlModel *model, const IvlPicture *picture, guint max_tiles, IvlImage *previous, float threshold,
                     GError **error)
{
  return image_new_after (model, picture, NULL, max_tiles, previous, threshold, error);
}

IvlImage *
ivl_image_new_from_device (IvlModel *model, IvlDevicePicture *picture, guint max_tiles, IvlImage *previous,
                           float threshold, GError **error)
{
  if (picture->device != model->device || picture->readback) {
    ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "ivl_image_new_from_device: the picture is %s",
              picture->readback ? "made for reading back" : "on another device than the model");
    return NULL;
  }
  return image_new_after (model, NULL, picture, max_tiles, previous, threshold, error);
}

gboolean
ivl_image_is_reused (IvlImage *self)
{
  g_mutex_lock (&self->model->lock);
  gboolean reused = self->origin != NULL;
  g_mutex_unlock (&self->model->lock);
  return reused;
}

IvlImage *
ivl_image_ref (IvlImage *self)
{
  g_atomic_int_inc (&self->ref_count);
  return self;
}

void
ivl_image_unref (IvlImage *self)
{
  if (!self || !g_atomic_int_dec_and_test (&self->ref_count))
    return;
  ivl_image_plan_deinit (&self->plan);
  ivl_vk_buffer_free (self->upload);
  ivl_device_picture_unref (self->picture);
  ivl_vk_buffer_free (self->embeddings);
  ivl_vk_buffer_free (self->tiles);
  g_free (self->luma);
  ivl_image_unref (self->previous);
  ivl_image_unref (self->origin);
  ivl_client_unref (self->client);
  g_clear_error (&self->error);
  ivl_model_unref (self->model);
  g_free (self);
}

void
ivl_image_queue (IvlImage *self, IvlClient *client)
{
  IvlModel *model = self->model;
  if (self->state != IMAGE_NEW)
    return;
  self->state = IMAGE_QUEUED;
  self->client = client ? ivl_client_ref (client) : NULL;
  g_queue_push_tail (&model->images, ivl_image_ref (self));
  g_cond_signal (&model->vision_wake);
}

void
ivl_image_prefetch (IvlImage *self, IvlClient *client)
{
  g_mutex_lock (&self->model->lock);
  ivl_image_queue (self, client);
  g_mutex_unlock (&self->model->lock);
}

guint
ivl_image_get_n_tiles (IvlImage *self)
{
  return self->n_tiles;
}
