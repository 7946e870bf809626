#include "forward.h"

#include <string.h>

#define OK(call)                                                                                   \
  G_STMT_START {                                                                                   \
    g_autoptr (GError) ok_error = NULL;                                                            \
    gboolean ok_result = (call);                                                                   \
    g_assert_no_error (ok_error);                                                                  \
    g_assert_true (ok_result);                                                                     \
  } G_STMT_END

void
forward_set_up (Forward *f, const char *name, int dtype)
{
  g_autoptr (GError) error = NULL;
  memset (f, 0, sizeof *f);
  f->golden = golden_open (name);
  f->image_id = (guint32) json_object_get_int_member (f->golden->root, "image_token_id");
  f->device = ivl_device_open (NULL, &error);
  g_assert_no_error (error);
  f->stream = ivl_vk_stream_new (f->device, &error);
  g_assert_no_error (error);
  f->config = ivl_config_load (f->golden->folder, &error);
  g_assert_no_error (error);
  f->checkpoint = ivl_checkpoint_open (f->golden->folder, f->config, &error);
  g_assert_no_error (error);
  OK (ivl_weights_load (&f->weights, f->device, f->checkpoint, f->config, dtype, FORWARD_CONTEXT, NULL, &ok_error));
  OK (ivl_vit_run_init (&f->vit, &f->weights.vit, f->device, FORWARD_TILES, &ok_error));
  OK (ivl_decoder_run_init (&f->run, &f->weights.decoder, f->device, FORWARD_ROWS, FORWARD_LOGITS, FORWARD_CONTEXT,
                            &ok_error));
  /* One page to begin with, so that growth is part of every test. */
  OK (ivl_kv_cache_init (&f->cache, &f->weights.decoder, f->device, 1, 256, &ok_error));
}

void
forward_tear_down (Forward *f)
{
  ivl_kv_cache_deinit (&f->cache);
  ivl_decoder_run_deinit (&f->run);
  ivl_vit_run_deinit (&f->vit);
  ivl_vk_stream_free (f->stream);
  ivl_weights_deinit (&f->weights);
  ivl_checkpoint_free (f->checkpoint);
  ivl_config_free (f->config);
  ivl_device_unref (f->device);
  golden_free (f->golden);
}

float *
forward_read (Forward *f, IvlSpan span, gsize first, gsize n)
{
  float *out = g_new (float, n);
  span.offset += 4 * first;
  span.size -= 4 * first;
  OK (ivl_vk_read (f->stream, span, out, 4 * n, &ok_error));
  return out;
}

static IvlSpan
whole (IvlVkBuffer *buffer)
{
  return (IvlSpan){ buffer, 0, buffer->size };
}

static IvlVkBuffer *
new_buffer (Forward *f, IvlVkUse use, guint64 bytes)
{
  g_autoptr (GError) error = NULL;
  IvlVkBuffer *buffer = ivl_vk_buffer_new (f->device, use, bytes, &error);
  g_assert_no_error (error);
  return buffer;
}

guint
forward_encode (Forward *f, const char *name, guint max_tiles, guint tiles_a_time, Embeddings *out, VisionTap tap,
                gpointer tap_data)
{
  const IvlConfig *config = f->config;
  guint width, height;
  g_autofree guint8 *rgb = golden_picture (name, &width, &height);
  IvlPicture picture;
  ivl_picture_init_rgb (&picture, rgb, width, height, 3 * width);
  IvlImagePlan plan;
  OK (ivl_image_plan_init (&plan, f->device, &picture, config->vision.image_size, config->vision.patch_size, max_tiles,
                           TRUE, &ok_error));
  guint pitch = (3 * config->vision.patch_size * config->vision.patch_size + 7) / 8 * 8;
  guint64 tile_bytes = 4ull * config->vision.grid * config->vision.grid * pitch;
  guint64 out_bytes = 4ull * config->tile_tokens * config->text.hidden;
  g_autoptr (IvlVkBuffer) upload = new_buffer (f, IVL_VK_UPLOAD, plan.upload_bytes);
  g_autoptr (IvlVkBuffer) scratch = new_buffer (f, IVL_VK_DEVICE, plan.scratch_bytes);
  g_autoptr (IvlVkBuffer) patches = new_buffer (f, IVL_VK_DEVICE, plan.n_tiles * tile_bytes);
  g_autoptr (IvlVkBuffer) batch_out = new_buffer (f, IVL_VK_DEVICE, FORWARD_TILES * out_bytes);
  *out = (Embeddings){ new_buffer (f, IVL_VK_DEVICE, plan.n_tiles * out_bytes), plan.n_tiles * config->tile_tokens };
  ivl_image_plan_upload (&plan, &picture, upload->map);
  ivl_vk_buffer_flush (upload);
  OK (ivl_vk_begin (f->stream, &ok_error));
  ivl_image_record (f->stream, &plan, whole (upload), whole (scratch), NULL, ivl_rows (whole (patches), pitch));
  OK (ivl_vk_run (f->stream, &ok_error));

  for (guint first = 0; first < plan.n_tiles; first += tiles_a_time) {
    guint n = MIN (tiles_a_time, plan.n_tiles - first);
    OK (ivl_vk_begin (f->stream, &ok_error));
    ivl_vk_copy (f->stream, (IvlSpan){ patches, first * tile_bytes, n * tile_bytes }, f->vit.patches, n * tile_bytes);
    for (guint step = 0; step < ivl_vit_n_steps (&f->weights.vit); step++) {
      ivl_vit_record_step (&f->vit, f->stream, step, n, whole (batch_out));
      if (tap) {
        OK (ivl_vk_run (f->stream, &ok_error));
        tap (f, step, first, n, tap_data);
        OK (ivl_vk_begin (f->stream, &ok_error));
      }
    }
    ivl_vk_copy (f->stream, whole (batch_out), (IvlSpan){ out->buffer, first * out_bytes, n * out_bytes }, n * out_bytes);
    OK (ivl_vk_run (f->stream, &ok_error));
  }
  guint n_tiles = plan.n_tiles;
  ivl_image_plan_deinit (&plan);
  return n_tiles;
}

void
embeddings_clear (Embeddings *self)
{
  g_clear_pointer (&self->buffer, ivl_vk_buffer_free);
}

void
prompt_init (Prompt *self, Forward *f, const guint32 *ids, guint n, const Embeddings *images, guint n_images)
{
  guint hidden = f->config->text.hidden, row = 0, image = 0, used = 0;
  *self = (Prompt){ .tokens = g_memdup2 (ids, n * sizeof *ids), .n_tokens = n, .rows = g_new0 (IvlRows, n),
                    .rows_before = g_new0 (guint, n + 1) };
  for (guint i = 0; i < n; i++) {
    self->rows_before[i] = used;
    if (ids[i] != f->image_id)
      continue;
    g_assert_cmpuint (image, <, n_images);
    self->tokens[i] = IVL_TOKEN_IMAGE;
    self->rows[used++] = (IvlRows){ whole (images[image].buffer), (guint64) row * hidden, hidden };
    if (++row == images[image].rows) {
      row = 0;
      image++;
    }
  }
  self->rows_before[n] = used;
  g_assert_cmpuint (image, ==, n_images);
}

void
prompt_clear (Prompt *self)
{
  g_free (self->tokens);
  g_free (self->rows);
  g_free (self->rows_before);
}

void
forward_prompt (Forward *f, JsonObject *c, guint turn, Prompt *prompt, Embeddings *images, guint *n_images)
{
  JsonArray *turns = json_object_get_array_member (c, "turns");
  *n_images = 0;
  for (guint t = 0; t <= turn; t++) {
    JsonObject *o = json_array_get_object_element (turns, t);
    JsonArray *names = json_object_get_array_member (o, "pictures"), *tiles = json_object_get_array_member (o, "tiles");
    for (guint i = 0; i < json_array_get_length (names); i++) {
      g_assert_cmpuint (*n_images, <, 8);
      guint n = forward_encode (f, json_array_get_string_element (names, i),
                                (guint) json_object_get_int_member (o, "max_tiles"), FORWARD_TILES,
                                &images[(*n_images)++], NULL, NULL);
      g_assert_cmpuint (n, ==, json_array_get_int_element (tiles, i));
    }
  }
  guint n;
  g_autofree guint32 *ids = golden_ints (json_array_get_object_element (turns, turn), "prompt_ids", &n);
  prompt_init (prompt, f, ids, n, images, *n_images);
}

IvlDecoderJob
prompt_job (const Prompt *prompt, IvlSequence *sequence, guint at, guint n, gboolean want_logits)
{
  return (IvlDecoderJob){ sequence, prompt->tokens + at, n, prompt->rows + prompt->rows_before[at], want_logits };
}

void
forward_jobs (Forward *f, const IvlDecoderJob *jobs, guint n_jobs, IvlDecoderTap tap, gpointer data)
{
  for (guint i = 0; i < n_jobs; i++)
    OK (ivl_sequence_reserve (jobs[i].sequence, &f->cache, f->stream, jobs[i].n_tokens, &ok_error));
  OK (ivl_vk_begin (f->stream, &ok_error));
  OK (ivl_decoder_record (&f->run, &f->cache, f->stream, jobs, n_jobs, tap, data, &ok_error));
  OK (ivl_vk_run (f->stream, &ok_error));
}

void
forward_run (Forward *f, IvlSequence *sequence, const Prompt *prompt, guint from, guint to, guint step, IvlDecoderTap tap,
             gpointer data)
{
  for (guint at = from; at < to; at += step) {
    guint n = MIN (step, to - at);
    IvlDecoderJob job = prompt_job (prompt, sequence, at, n, at + n == to);
    forward_jobs (f, &job, 1, tap, data);
  }
}

void
forward_tokens (Forward *f, IvlSequence *sequence, const guint32 *tokens, guint n)
{
  forward_jobs (f, &(IvlDecoderJob){ sequence, tokens, n, NULL, TRUE }, 1, NULL, NULL);
}

float *
forward_logits (Forward *f, guint index)
{
  return forward_read (f, f->run.logits, (gsize) index * f->run.logits_pitch, f->config->text.vocab);
}
