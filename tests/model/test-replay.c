/* Decode steps that run what was recorded before, and pipelines made ahead: nothing comes out otherwise for it. */
#include "forward.h"

#include <internvl/internvl.h>
#include <string.h>

#define NAME "qwen2-ln-orig"
#define STEPS 140 /* past the keys that one recording is for, and past the pages that the cache begins with */
#define EVERY 10  /* steps whose logits are looked at */

#define OK(call)                                                                                   \
  do {                                                                                             \
    GError *ok_error = NULL;                                                                       \
    call;                                                                                          \
    g_assert_no_error (ok_error);                                                                  \
  } while (0)

/* Steps of one sequence, of two together at the end, and of one again; all logits looked at, one after the other. */
static GArray *
run_steps (Forward *f)
{
  GArray *all = g_array_new (FALSE, FALSE, sizeof (float));
  IvlSequence sequences[2];
  for (guint i = 0; i < 2; i++)
    ivl_sequence_init (&sequences[i]);
  for (guint s = 0; s < STEPS; s++) {
    guint32 tokens[] = { 3 + 7 * s % 50, 5 + 3 * s % 50 };
    guint n = s % 16 == 15 ? 2 : 1;
    IvlDecoderJob jobs[2];
    for (guint i = 0; i < n; i++)
      jobs[i] = (IvlDecoderJob){ &sequences[i], &tokens[i], 1, NULL, 1, FALSE };
    forward_jobs (f, jobs, n, NULL, NULL);
    for (guint i = 0; i < n && (n == 2 || s % EVERY == 0 || s + 1 == STEPS); i++) {
      g_autofree float *logits = forward_logits (f, i);
      g_array_append_vals (all, logits, f->config->text.vocab);
    }
  }
  for (guint i = 0; i < 2; i++)
    ivl_sequence_deinit (&sequences[i], &f->cache);
  return all;
}

static void
test_same (void)
{
  Forward f;
  forward_set_up (&f, NAME, -1);
  g_autoptr (GArray) again = run_steps (&f);
  guint64 replayed = ivl_vk_stream_get_replayed (f.stream);
  /* A recording for up to 128 keys, one for more, for one row and for two, and anew when the cache has grown. */
  g_assert_cmpuint (replayed, >=, STEPS - 12);
  g_assert_cmpuint (replayed, <, STEPS);
  if (!f.device->timestamps) {
    g_test_skip ("without timestamps there is no profile, and nothing to compare with");
  } else {
    ivl_vk_stream_set_profiling (f.stream, TRUE); /* which has everything recorded anew */
    g_autoptr (GArray) fresh = run_steps (&f);
    g_assert_cmpuint (ivl_vk_stream_get_replayed (f.stream), ==, replayed);
    g_assert_cmpmem (again->data, again->len * sizeof (float), fresh->data, fresh->len * sizeof (float));
  }
  forward_tear_down (&f);
}

/* Two keys, more than are kept of others between, and a submission that is dropped. */
static void
test_kept (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (IvlDevice) device = ivl_device_open (NULL, &error);
  g_assert_no_error (error);
  IvlVkStream *stream = ivl_vk_stream_new (device, &error);
  g_autoptr (IvlVkBuffer) buffer = ivl_vk_buffer_new (device, IVL_VK_READBACK, 256, &error);
  g_assert_no_error (error);
  IvlSpan span = { buffer, 0, 4 };
  const guint32 *value = buffer->map;
  for (guint32 round = 0; round < 3; round++)
    for (guint32 key = 0; key < 120; key++) {
      for (guint again = 0; again < 2; again++) {
        OK (ivl_vk_begin (stream, &ok_error));
        guint64 before = ivl_vk_stream_get_replayed (stream);
        if (!ivl_vk_replay (stream, &key, sizeof key))
          ivl_vk_fill (stream, span, key + 100);
        ivl_vk_replay_end (stream);
        g_assert_cmpuint (ivl_vk_stream_get_replayed (stream) - before, ==, again);
        if (again == 0 && key % 5 == 4) {
          ivl_vk_discard (stream);
          continue;
        }
        OK (ivl_vk_run (stream, &ok_error));
        ivl_vk_buffer_invalidate (buffer);
        g_assert_cmpuint (*value, ==, key + 100);
      }
      OK (ivl_vk_begin (stream, &ok_error));
      ivl_vk_fill (stream, span, 1);
      OK (ivl_vk_run (stream, &ok_error));
    }
  /* One that is dropped while it is recorded isn't kept. */
  guint32 key = 1000;
  OK (ivl_vk_begin (stream, &ok_error));
  g_assert_false (ivl_vk_replay (stream, &key, sizeof key));
  ivl_vk_discard (stream);
  OK (ivl_vk_begin (stream, &ok_error));
  g_assert_false (ivl_vk_replay (stream, &key, sizeof key));
  ivl_vk_replay_end (stream);
  OK (ivl_vk_run (stream, &ok_error));
  ivl_vk_stream_free (stream);
}

/* ---- pipelines ---- */

static const guint32 lanes[] = { 64 };

static gpointer
get (gpointer device)
{
  g_autoptr (GError) error = NULL;
  gconstpointer pipeline = ivl_vk_pipeline_get (device, IVL_K_VIT_TOKENS, lanes, 1, &error);
  g_assert_no_error (error);
  return (gpointer) pipeline;
}

static void
test_prepare (void)
{
  g_autoptr (GError) error = NULL;
  for (guint round = 0; round < 8; round++) {
    g_autoptr (IvlDevice) device = ivl_device_open (NULL, &error);
    g_assert_no_error (error);
    guint32 too_many[] = { G_MAXUINT32 };
    GThread *threads[4];
    ivl_vk_pipeline_prepare (device, IVL_K_VIT_TOKENS, lanes, 1);
    ivl_vk_pipeline_prepare (device, IVL_K_VIT_TOKENS, too_many, 1);
    ivl_vk_pipeline_prepare (device, IVL_K_ROPE_CACHE, (guint32[]){ 64, 64, 2, 2 }, 4); /* nobody wants it */
    if (round % 2)
      ivl_vk_pipelines_forget (device);
    for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
      threads[i] = g_thread_new ("get", get, device);
    gconstpointer pipeline = get (device);
    for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
      g_assert_true (g_thread_join (threads[i]) == pipeline);
    /* What failed ahead fails with its reason for who wants it, as often as he does. */
    for (guint i = 0; i < 2; i++) {
      g_assert_null (ivl_vk_pipeline_get (device, IVL_K_VIT_TOKENS, too_many, 1, &error));
      g_assert_error (error, IVL_ERROR, IVL_ERROR_INTERNAL);
      g_clear_error (&error);
    }
  }
}

/* A model that was loaded has all pipelines of an answer under way but those that read its pictures. */
static void
test_ahead (void)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *path = golden_path ("models", NAME, NULL);
  g_autoptr (IvlDevice) device = ivl_device_open (NULL, &error);
  g_assert_no_error (error);
  IvlModel *model = ivl_model_load (device, path, NULL, NULL, &error);
  g_assert_no_error (error);
  guint width, height;
  g_autofree guint8 *rgb = golden_picture ("square112", &width, &height);
  IvlPicture picture;
  ivl_picture_init_rgb (&picture, rgb, width, height, 3 * width);
  IvlImage *image = ivl_image_new (model, &picture, 1, &error);
  IvlSession *session = ivl_session_new (model, &error);
  g_assert_no_error (error);
  g_mutex_lock (&device->pipeline_lock);
  guint before = g_hash_table_size (device->pipelines);
  g_mutex_unlock (&device->pipeline_lock);
  g_assert_cmpuint (before, >, 15);
  IvlQuestion question = { .prompt = "What?", .images = &image, .n_images = 1, .params = IVL_GENERATE_PARAMS_INIT };
  question.params.max_tokens = 4;
  IvlAnswer *answer = ivl_session_ask (session, &question, &error);
  g_assert_no_error (error);
  g_mutex_lock (&device->pipeline_lock);
  guint after = g_hash_table_size (device->pipelines);
  g_mutex_unlock (&device->pipeline_lock);
  g_test_message ("%u pipelines ahead, %u made later", before, after - before);
  g_assert_cmpuint (after - before, <=, 4);
  ivl_answer_free (answer);
  ivl_session_unref (session);
  ivl_image_unref (image);
  ivl_model_unref (model);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/replay/same", test_same);
  g_test_add_func ("/replay/kept", test_kept);
  g_test_add_func ("/pipelines/prepare", test_prepare);
  g_test_add_func ("/pipelines/ahead", test_ahead);
  return g_test_run ();
}
