/* What a stream of overlapping chunks saves, that it changes nothing, and what is refused for want of memory. */
#include "golden.h"

#include <internvl/internvl.h>
#include <string.h>

#include "push.h"
#include "vk/device.h"

#define NAME "qwen2-ln-orig"
#define PROMPT "What happens in these frames, and what happened before?"

enum { CHUNKS = 3, FRAMES = 4, STRIDE = 2, ALL = STRIDE * (CHUNKS - 1) + FRAMES };

static IvlModel *
load (void)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *path = golden_path ("models", NAME, NULL);
  g_autoptr (IvlDevice) device = ivl_device_open (NULL, &error);
  g_assert_no_error (error);
  IvlModel *model = ivl_model_load (device, path, &(IvlModelParams){ .speculation = IVL_SPECULATION_OFF }, NULL, &error);
  g_assert_no_error (error);
  return model;
}

static IvlImage *
make_frame (IvlModel *model, guint i)
{
  g_autoptr (GError) error = NULL;
  guint width, height;
  g_autofree guint8 *rgb = golden_picture ("square112", &width, &height);
  for (guint k = 0; k < 3 * width * height; k++)
    rgb[k] = (guint8) (rgb[k] + 17 * i);
  IvlPicture picture;
  ivl_picture_init_rgb (&picture, rgb, width, height, 3 * width);
  IvlImage *image = ivl_image_new (model, &picture, 1, &error);
  g_assert_no_error (error);
  return image;
}

static IvlAnswer *
ask (IvlModel *model, IvlImage **images)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (IvlSession) session = ivl_session_new (model, &error);
  IvlQuestion question = { .prompt = PROMPT, .images = images, .n_images = FRAMES, .media = IVL_MEDIA_VIDEO,
                           .params = IVL_GENERATE_PARAMS_INIT };
  question.params.max_tokens = 16;
  IvlAnswer *answer = ivl_session_ask (session, &question, &error);
  g_assert_no_error (error);
  return answer;
}

/* Half of each chunk's frames are the one before's. Answers and their probabilities, bit by bit, are those of a model
 * that has seen nothing before; each frame is encoded once; the prompt's beginning is read once. */
static void
test_overlap (void)
{
  IvlModel *model = load ();
  IvlImage *frames[ALL];
  guint reused = 0, prompt = 0;
  for (guint i = 0; i < ALL; i++)
    frames[i] = make_frame (model, i);
  for (guint c = 0; c < CHUNKS; c++) {
    g_autoptr (IvlAnswer) got = ask (model, frames + c * STRIDE);
    IvlModel *fresh = load ();
    IvlImage *images[FRAMES];
    for (guint i = 0; i < FRAMES; i++)
      images[i] = make_frame (fresh, c * STRIDE + i);
    g_autoptr (IvlAnswer) want = ask (fresh, images);
    g_assert_cmpuint (want->prompt_tokens_reused, ==, 0);
    g_assert_cmpstr (got->text, ==, want->text);
    g_assert_cmpuint (got->generated_tokens, ==, want->generated_tokens);
    g_assert_true (got->confidence == want->confidence);
    g_assert_cmpint (got->prompt_tokens_reused > 0, ==, c > 0);
    reused += got->prompt_tokens_reused;
    prompt += got->prompt_tokens;
    for (guint i = 0; i < FRAMES; i++)
      ivl_image_unref (images[i]);
    ivl_model_unref (fresh);
  }
  IvlModelStats stats;
  ivl_model_get_stats (model, &stats);
  g_assert_cmpuint (stats.tiles_encoded, ==, ALL);
  g_assert_cmpuint (stats.prompt_tokens_reused, ==, reused);
  g_assert_cmpuint (stats.prompt_tokens + reused, ==, prompt);
  for (guint i = 0; i < ALL; i++)
    ivl_image_unref (frames[i]);
  ivl_model_unref (model);
}

/* A device of its own memory with so many bytes of it. */
static IvlDevice *
small_device (guint64 bytes)
{
  g_autoptr (GError) error = NULL;
  IvlDevice *device = ivl_device_open (NULL, &error);
  g_assert_no_error (error);
  device->software = false;
  device->memory_budget = false;
  for (guint i = 0; i < device->memory.memoryHeapCount; i++)
    device->memory.memoryHeaps[i].size = bytes;
  return device;
}

/* Refused with both numbers before a weight is read; with as much as was asked for, it loads. */
static void
test_small_heap (void)
{
  g_autofree char *path = golden_path ("models", NAME, NULL);
  static const IvlWeights kinds[] = { IVL_WEIGHTS_F32, IVL_WEIGHTS_AUTO, IVL_WEIGHTS_Q4 };
  guint64 before = G_MAXUINT64;
  for (guint i = 0; i < G_N_ELEMENTS (kinds); i++) {
    g_autoptr (GError) error = NULL;
    IvlModelParams params = { .weights = kinds[i] };
    g_autoptr (IvlDevice) small = small_device (10000);
    g_assert_null (ivl_model_load (small, path, &params, NULL, &error));
    g_assert_error (error, IVL_ERROR, IVL_ERROR_OUT_OF_MEMORY);
    g_assert_nonnull (strstr (error->message, " 10000 "));
    const char *needs = strstr (error->message, " needs ");
    g_assert_nonnull (needs);
    guint64 need = g_ascii_strtoull (needs + strlen (" needs "), NULL, 10);
    g_assert_cmpuint (need, >, 10000);
    g_assert_cmpuint (need, <, before);
    before = need;
    g_clear_error (&error);
    g_autoptr (IvlDevice) less = small_device (need - 1);
    g_assert_null (ivl_model_load (less, path, &params, NULL, &error));
    g_assert_error (error, IVL_ERROR, IVL_ERROR_OUT_OF_MEMORY);
    g_clear_error (&error);
    g_autoptr (IvlDevice) enough = small_device (need);
    IvlModel *model = ivl_model_load (enough, path, &params, NULL, &error);
    g_assert_no_error (error);
    ivl_model_unref (model);
  }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/economy/overlap", test_overlap);
  g_test_add_func ("/economy/small-heap", test_small_heap);
  return g_test_run ();
}
