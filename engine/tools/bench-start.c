/* From nothing to the first token of an answer about one picture: device, weights, pipelines, a tile, a prompt. With
 * --model it is the public API on the files; with seeded weights, which are in memory and have no tokenizer, the same
 * steps without either. Cold: the pipeline caches, ours and Mesa's, are empty; what else the operating system keeps of
 * files stays as it is. */
#include "tools/bench.h"

#include <glib/gstdio.h>
#include <string.h>

#include "tools/synthetic.h"

static void
remove_tree (const char *path)
{
  GDir *dir = g_file_test (path, G_FILE_TEST_IS_SYMLINK) ? NULL : g_dir_open (path, 0, NULL);
  const char *name;
  while (dir && (name = g_dir_read_name (dir))) {
    g_autofree char *child = g_build_filename (path, name, NULL);
    remove_tree (child);
  }
  if (dir)
    g_dir_close (dir);
  g_remove (path);
}

IvlImage *
bench_make_image (IvlModel *model, guint seed, IvlImage *previous, float threshold, GError **error)
{
  IvlModelInfo info;
  ivl_model_get_info (model, &info);
  guint side = info.tile_size;
  g_autofree guint8 *pixels = g_malloc (3 * side * side);
  for (guint y = 0; y < side; y++)
    for (guint x = 0; x < side; x++)
      for (guint c = 0; c < 3; c++)
        pixels[(y * side + x) * 3 + c] = (guint8) ((c == 0 ? x : c == 1 ? y : x ^ y) + 37 * seed);
  IvlPicture picture;
  ivl_picture_init_rgb (&picture, pixels, side, side, 3 * side);
  return threshold > 0 ? ivl_image_new_after (model, &picture, 1, previous, threshold, error)
                       : ivl_image_new (model, &picture, 1, error);
}

IvlModel *
bench_open_model (Bench *b, GError **error)
{
  static const IvlWeights types[] = { IVL_WEIGHTS_F32, IVL_WEIGHTS_F16, IVL_WEIGHTS_BF16, IVL_WEIGHTS_Q8, IVL_WEIGHTS_Q4 };
  IvlModelParams params = { .weights = b->dtype < 0 ? IVL_WEIGHTS_AUTO : types[b->dtype] };
  g_autoptr (IvlDevice) device = ivl_device_open (b->device_name, error);
  return device ? ivl_model_load (device, b->model, &params, NULL, error) : NULL;
}

gboolean
bench_ask (IvlModel *model, IvlImage *const *images, guint n, guint tokens, GError **error)
{
  g_autoptr (IvlSession) session = ivl_session_new (model, error);
  if (!session)
    return FALSE;
  IvlQuestion question = { .prompt = "What is this?", .images = images, .n_images = n, .media = IVL_MEDIA_VIDEO,
                           .params = IVL_GENERATE_PARAMS_INIT };
  question.params.max_tokens = tokens;
  g_autoptr (IvlAnswer) answer = ivl_session_ask (session, &question, error);
  return answer != NULL;
}

static gboolean
ask_model (Bench *b, gboolean picture, GError **error)
{
  g_autoptr (IvlModel) model = bench_open_model (b, error);
  g_autoptr (IvlImage) image = model && picture ? bench_make_image (model, 0, NULL, 0, error) : NULL;
  return model && (image || !picture) && bench_ask (model, &image, picture ? 1 : 0, 1, error);
}

static gboolean
forward_all (Bench *b, IvlConfig *config, IvlDevice *device, IvlVkStream *stream, IvlModelWeights *weights, GError **error)
{
  Bench inner = { .dtype = b->dtype, .positions = b->positions, .quiet = TRUE, .device = device, .config = config,
                  .weights_on_device = *weights, .loaded = TRUE, .stream = stream, .rows = json_object_new () };
  const BenchRow tile = { BENCH_TILES, 1, 1 }, prompt = { BENCH_PREFILL, config->tile_tokens + 32, 1 };
  gboolean ok = bench_row_run (&inner, &tile, "tile", error) && bench_row_run (&inner, &prompt, "prompt", error);
  json_object_unref (inner.rows);
  return ok;
}

/* The weights are made before the clock runs. */
static gboolean
run_synthetic (Bench *b, BenchTime *took, GError **error)
{
  gboolean ok = FALSE;
  g_autoptr (IvlConfig) config = ivl_synthetic_config (b->shape, error);
  IvlCheckpoint *checkpoint = config ? ivl_synthetic_checkpoint (config, error) : NULL;
  if (!checkpoint)
    return FALSE;
  BenchTime start = bench_now ();
  IvlModelWeights weights = { 0 };
  IvlDevice *device = ivl_device_open (b->device_name, error);
  if (device && ivl_weights_load (&weights, device, checkpoint, config, b->dtype, b->positions, NULL, error)) {
    IvlVkStream *stream = ivl_vk_stream_new (device, error);
    ok = stream && forward_all (b, config, device, stream, &weights, error);
    ivl_vk_stream_free (stream);
    *took = bench_since (start);
    ivl_weights_deinit (&weights);
  }
  ivl_checkpoint_free (checkpoint);
  ivl_device_unref (device);
  return ok;
}

static gboolean
run_once (Bench *b, gboolean picture, BenchTime *took, GError **error)
{
  if (!b->model && picture)
    return run_synthetic (b, took, error);
  if (!b->model)
    return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "start-text needs a tokenizer: --model");
  BenchTime start = bench_now ();
  gboolean ok = ask_model (b, picture, error);
  *took = bench_since (start);
  return ok;
}

gboolean
bench_start (Bench *b, BenchKind kind, const char *name, GError **error)
{
  gboolean cold = kind == BENCH_START_COLD, picture = kind != BENCH_START_TEXT;
  static const char *const variables[] = { "INTERNVL_CACHE", "MESA_SHADER_CACHE_DIR" };
  char *before[G_N_ELEMENTS (variables)];
  g_autofree char *folder = cold ? g_dir_make_tmp ("internvl-bench-XXXXXX", error) : NULL;
  if (cold && !folder)
    return FALSE;
  for (guint i = 0; i < G_N_ELEMENTS (variables); i++) {
    before[i] = g_strdup (g_getenv (variables[i]));
    if (cold)
      g_setenv (variables[i], folder, TRUE);
  }
  BenchTime took;
  /* Warm: a first time fills the caches. */
  gboolean ok = (kind != BENCH_START_WARM || run_once (b, picture, &took, error)) && run_once (b, picture, &took, error);
  for (guint i = 0; i < G_N_ELEMENTS (variables); i++) {
    if (before[i])
      g_setenv (variables[i], before[i], TRUE);
    else
      g_unsetenv (variables[i]);
    g_free (before[i]);
  }
  if (folder)
    remove_tree (folder);
  if (ok)
    bench_put (b, name, took.wall, "s to the first token", took, 1);
  return ok;
}
