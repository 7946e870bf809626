/* The encoder's thread: tiles of whatever images wait are put through the vision encoder side by side, a few layers at a
 * time, so that decoding of requests goes on in between. */
#include "generate/engine.h"

#include <string.h>

typedef struct {
  IvlImage *image; /* owned reference */
  guint tile;
  IvlVkBuffer *patches; /* of the whole image, owned by its last tile */
  bool last;
} Tile;

typedef struct {
  IvlModel *model;
  GQueue tiles;      /* Tile *, prepared and waiting */
  GPtrArray *batch;  /* Tile *, under way */
  guint step;
  IvlVkBuffer *out;  /* [max_tiles * tile_tokens, H] */
  GQueue followers;  /* IvlImage *, owned: like another that isn't encoded yet */
  IvlVkBuffer *difference; /* u32, read back */
  IvlVkBuffer *levels; /* see make_levels */
  double step_ns;    /* of a tile, lately; 0: not known */
} IvlEncoder;

static guint64
tile_patch_bytes (const IvlConfig *config)
{
  guint k = 3 * config->vision.patch_size * config->vision.patch_size;
  return 4ull * config->vision.grid * config->vision.grid * ((k + 7) / 8 * 8);
}

static guint64
tile_embedding_bytes (const IvlConfig *config)
{
  return 4ull * config->tile_tokens * config->text.hidden;
}

static void
tile_free (Tile *tile)
{
  if (tile->last)
    ivl_vk_buffer_free (tile->patches);
  ivl_image_unref (tile->image);
  g_free (tile);
}

static void
set_state (IvlImage *image, IvlImageState state, GError *error)
{
  IvlModel *model = image->model;
  g_mutex_lock (&model->lock);
  if (image->state != IMAGE_FAILED) {
    image->state = state;
    image->error = error;
  } else {
    g_clear_error (&error);
  }
  ivl_model_tell (model);
  g_mutex_unlock (&model->lock);
}

/* Followers become what the ones they are like have become. */
static void
settle_followers (IvlEncoder *self)
{
  IvlModel *model = self->model;
  for (guint n = g_queue_get_length (&self->followers); n; n--) {
    IvlImage *image = g_queue_pop_head (&self->followers);
    g_mutex_lock (&model->lock);
    IvlImageState state = image->origin->state;
    if (state == IMAGE_READY || state == IMAGE_FAILED)
      image->state = state;
    if (state == IMAGE_FAILED)
      image->error = g_error_copy (image->origin->error);
    if (state == IMAGE_READY)
      model->stats.tiles_reused += image->n_tiles;
    ivl_model_tell (model);
    g_mutex_unlock (&model->lock);
    if (state == IMAGE_READY || state == IMAGE_FAILED)
      ivl_image_unref (image);
    else
      g_queue_push_tail (&self->followers, image);
  }
}

/* Compares IMAGE with the one before it; if they are alike enough it becomes a follower. */
static gboolean
follow (IvlEncoder *self, IvlImage *image, bool *alike, GError **error)
{
  IvlModel *model = self->model;
  const IvlConfig *config = model->config;
  *alike = false;
  g_autoptr (IvlImage) previous = g_steal_pointer (&image->previous);
  IvlImage *origin = previous ? ivl_image_source (previous) : NULL;
  if (!origin || !origin->tiles || origin->n_tiles != image->n_tiles)
    return TRUE;
  g_mutex_lock (&model->lock);
  bool failed = origin->state == IMAGE_FAILED, never = origin->state == IMAGE_NEW;
  g_mutex_unlock (&model->lock);
  if (failed || never) /* which the next one needn't; nobody asks about it */
    return TRUE;
  if (!self->difference && !(self->difference = ivl_vk_buffer_new (model->device, IVL_VK_READBACK, 16, error)))
    return FALSE;
  IvlSpan result = { self->difference, 0, 16 };
  if (!ivl_vk_begin (model->vision_stream, error))
    return FALSE;
  ivl_vk_fill (model->vision_stream, result, 0);
  ivl_image_record_difference (model->vision_stream, (IvlSpan){ image->tiles, 0, image->tiles->size },
                               (IvlSpan){ origin->tiles, 0, origin->tiles->size }, image->n_tiles,
                               config->vision.image_size, config->vision.patch_size, result);
  if (!ivl_vk_run (model->vision_stream, error))
    return FALSE;
  ivl_vk_buffer_invalidate (self->difference);
  double samples = 3. * config->vision.patch_size * config->vision.patch_size;
  *alike = *(const guint32 *) self->difference->map / samples < image->threshold;
  if (*alike) {
    g_mutex_lock (&model->lock);
    image->origin = ivl_image_ref (origin);
    g_mutex_unlock (&model->lock);
    if (!image->luma)
      g_clear_pointer (&image->tiles, ivl_vk_buffer_free);
    g_queue_push_tail (&self->followers, ivl_image_ref (image));
  }
  return TRUE;
}

/* The table of levels for images whose pixels are gone. */
static gboolean
make_levels (IvlEncoder *self, GError **error)
{
  if (self->levels)
    return TRUE;
  if (!(self->levels = ivl_vk_buffer_new (self->model->device, IVL_VK_UPLOAD, IVL_IMAGE_LEVELS_BYTES, error)))
    return FALSE;
  ivl_image_fill_levels (self->levels->map);
  ivl_vk_buffer_flush (self->levels);
  return TRUE;
}

/* Pixels, or tiles that were compared, to patches of all tiles, and the tiles into the queue. */
static gboolean
prepare (IvlEncoder *self, IvlImage *image, GError **error)
{
  IvlModel *model = self->model;
  const IvlConfig *config = model->config;
  guint k = 3 * config->vision.patch_size * config->vision.patch_size;
  gboolean ok = FALSE;
  IvlVkBuffer *scratch = NULL, *patches = NULL;
  if (!(image->luma ? make_levels (self, error)
                    : !!(scratch = ivl_vk_buffer_new (model->device, IVL_VK_DEVICE, image->plan.scratch_bytes, error)))
      || !(patches = ivl_vk_buffer_new (model->device, IVL_VK_DEVICE, image->n_tiles * tile_patch_bytes (config), error))
      || (image->threshold > 0.f && !image->tiles
          && !(image->tiles = ivl_vk_buffer_new (model->device, IVL_VK_DEVICE,
                                                 4ull * image->n_tiles * config->vision.image_size
                                                   * config->vision.image_size, error)))
      || !(image->embeddings
           = ivl_vk_buffer_new (model->device, IVL_VK_DEVICE, image->n_tiles * tile_embedding_bytes (config), error))
      || !ivl_vk_begin (model->vision_stream, error))
    goto done;
  IvlSpan tiles = { image->tiles, 0, image->tiles ? image->tiles->size : 0 };
  IvlRows rows = ivl_rows ((IvlSpan){ patches, 0, patches->size }, (k + 7) / 8 * 8);
  if (image->luma)
    ivl_image_record_patches (model->vision_stream, &image->plan, (IvlSpan){ self->levels, 0, self->levels->size }, tiles, rows);
  else
    ivl_image_record (model->vision_stream, &image->plan, (IvlSpan){ image->upload, 0, image->upload->size },
                      (IvlSpan){ scratch, 0, scratch->size }, image->tiles ? &tiles : NULL, rows);
  bool alike = false;
  if (!ivl_vk_run (model->vision_stream, error) || !follow (self, image, &alike, error))
    goto done;
  g_clear_pointer (&image->upload, ivl_vk_buffer_free);
  g_clear_pointer (&image->picture, ivl_device_picture_unref);
  ok = TRUE;
  if (alike)
    g_clear_pointer (&image->embeddings, ivl_vk_buffer_free);
  for (guint t = 0; t < image->n_tiles && !alike; t++) {
    Tile *tile = g_new0 (Tile, 1);
    *tile = (Tile){ ivl_image_ref (image), t, patches, t + 1 == image->n_tiles };
    g_queue_push_tail (&self->tiles, tile);
  }
  if (!alike)
    patches = NULL;
done:
  ivl_vk_buffer_free (scratch);
  ivl_vk_buffer_free (patches);
  return ok;
}

/* The oldest image of the client whose turn it is. Nobody needs one whose only reference is the queue's. */
static IvlImage *
next_image (IvlModel *model)
{
  GList *next = NULL;
  g_mutex_lock (&model->lock);
  for (GList *link = model->images.head; link; link = link->next) {
    const IvlImage *image = link->data, *best = next ? next->data : NULL;
    if (!best || ivl_client_used (image->client, TURN_ENCODE) < ivl_client_used (best->client, TURN_ENCODE))
      next = link;
  }
  IvlImage *image = next ? next->data : NULL;
  if (image) {
    g_queue_delete_link (&model->images, next);
    if (g_atomic_int_get (&image->ref_count) > 1)
      ivl_client_charge (model, image->client, TURN_ENCODE, image->n_tiles);
  }
  g_mutex_unlock (&model->lock);
  return image;
}

static void
take_images (IvlEncoder *self)
{
  IvlModel *model = self->model;
  while (g_queue_get_length (&self->tiles) < model->vit_run.max_tiles) {
    IvlImage *image = next_image (model);
    if (!image)
      return;
    GError *error = NULL;
    if (g_atomic_int_get (&image->ref_count) > 1 && !prepare (self, image, &error))
      set_state (image, IMAGE_FAILED, error);
    ivl_image_unref (image);
  }
}

static void
fail_batch (IvlEncoder *self, GError *error)
{
  for (guint i = 0; i < self->batch->len; i++)
    set_state (((Tile *) self->batch->pdata[i])->image, IMAGE_FAILED, g_error_copy (error));
  g_error_free (error);
  g_ptr_array_set_size (self->batch, 0);
}

static gboolean
begin_batch (IvlEncoder *self, GError **error)
{
  IvlModel *model = self->model;
  guint64 bytes = tile_patch_bytes (model->config);
  while (self->batch->len < model->vit_run.max_tiles && !g_queue_is_empty (&self->tiles))
    g_ptr_array_add (self->batch, g_queue_pop_head (&self->tiles));
  self->step = 0;
  if (!self->out
      && !(self->out = ivl_vk_buffer_new (model->device, IVL_VK_DEVICE,
                                          model->vit_run.max_tiles * tile_embedding_bytes (model->config), error)))
    return FALSE;
  if (!ivl_vk_begin (model->vision_stream, error))
    return FALSE;
  for (guint i = 0; i < self->batch->len; i++) {
    Tile *tile = self->batch->pdata[i];
    IvlSpan to = model->vit_run.patches;
    to.offset += i * bytes;
    ivl_vk_copy (model->vision_stream, (IvlSpan){ tile->patches, tile->tile * bytes, bytes }, to, bytes);
  }
  return TRUE;
}

static void
end_batch (IvlEncoder *self)
{
  IvlModel *model = self->model;
  guint64 bytes = tile_embedding_bytes (model->config);
  GError *error = NULL;
  if (!ivl_vk_begin (model->vision_stream, &error)) {
    fail_batch (self, error);
    return;
  }
  for (guint i = 0; i < self->batch->len; i++) {
    Tile *tile = self->batch->pdata[i];
    ivl_vk_copy (model->vision_stream, (IvlSpan){ self->out, i * bytes, bytes },
                 (IvlSpan){ tile->image->embeddings, tile->tile * bytes, bytes }, bytes);
  }
  if (!ivl_vk_run (model->vision_stream, &error)) {
    fail_batch (self, error);
    return;
  }
  for (guint i = 0; i < self->batch->len; i++) {
    Tile *tile = self->batch->pdata[i];
    if (tile->last)
      set_state (tile->image, IMAGE_READY, NULL);
  }
  g_mutex_lock (&model->lock);
  model->stats.tiles_encoded += self->batch->len;
  model->stats.encode_batches++;
  g_mutex_unlock (&model->lock);
  g_ptr_array_set_size (self->batch, 0);
}

/* How many steps of the batch go together. */
static guint
steps_together (const IvlEncoder *self)
{
  guint left = ivl_vit_n_steps (&self->model->weights.vit) - self->step;
  double most = self->step_ns > 0. ? IVL_TURN_NS / (self->step_ns * self->batch->len) : 1.;
  return (guint) CLAMP (most, 1., left);
}

/* Goes on with the batch under way, or begins one. False if there is nothing to do. */
static bool
encode (IvlEncoder *self)
{
  IvlModel *model = self->model;
  GError *error = NULL;
  if (self->batch->len == 0) {
    take_images (self);
    settle_followers (self);
    if (g_queue_is_empty (&self->tiles))
      return false;
    if (!begin_batch (self, &error)) {
      fail_batch (self, error);
      return true;
    }
  } else if (!ivl_vk_begin (model->vision_stream, &error)) {
    fail_batch (self, error);
    return true;
  }
  guint n = steps_together (self), tiles = self->batch->len;
  guint64 ns = 0;
  for (guint i = 0; i < n; i++)
    ivl_vit_record_step (&model->vit_run, model->vision_stream, self->step + i, tiles,
                         (IvlSpan){ self->out, 0, self->out->size });
  if (!ivl_vk_run_timed (model->vision_stream, &ns, &error)) {
    fail_batch (self, error);
  } else {
    self->step += n;
    self->step_ns = ivl_ns_lately (self->step_ns, (double) ns / (n * tiles));
    if (self->step == ivl_vit_n_steps (&model->weights.vit))
      end_batch (self);
  }
  settle_followers (self);
  g_mutex_lock (&model->lock);
  model->stats.encode_ns += ns;
  g_mutex_unlock (&model->lock);
  return true;
}

void
ivl_encoder_run (IvlModel *model)
{
  IvlEncoder self = { .model = model, .batch = g_ptr_array_new_with_free_func ((GDestroyNotify) tile_free) };
  IvlChanges *changes = ivl_changes_new (model);
  for (bool quit = false; !quit;) {
    bool worked = ivl_changes_step (changes);
    worked = encode (&self) || worked;
    g_mutex_lock (&model->lock);
    while (!worked && !model->quit && !model->halt && g_queue_is_empty (&model->images)
           && g_queue_is_empty (&model->changes))
      g_cond_wait (&model->vision_wake, &model->lock);
    quit = model->halt
           || (!worked && model->quit && g_queue_is_empty (&model->images) && g_queue_is_empty (&model->changes));
    g_mutex_unlock (&model->lock);
  }
  ivl_changes_free (changes);
  g_queue_clear_full (&self.tiles, (GDestroyNotify) tile_free);
  g_ptr_array_unref (self.batch);
  g_queue_clear_full (&self.followers, (GDestroyNotify) ivl_image_unref);
  ivl_vk_buffer_free (self.difference);
  ivl_vk_buffer_free (self.levels);
  ivl_vk_buffer_free (self.out);
}
