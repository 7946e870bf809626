/* Chunks of video one after the other through the public API, as the element asks about them: FRAMES frames of one tile
 * each and a short answer. */
#include "tools/bench.h"

#include <string.h>

#define FRAMES 4
#define ANSWER_TOKENS 16
#define THRESHOLD 8.f /* levels; the still camera's frames are all alike */

/* Chunk I's frames. WINDOW keeps those of the chunk before it. */
static gboolean
next_frames (IvlModel *model, const BenchRow *row, guint chunk, IvlImage **window, GError **error)
{
  guint kept = 0;
  if (row->kind == BENCH_OVERLAP && chunk > 0) {
    kept = FRAMES / 2;
    for (guint i = 0; i < kept; i++) {
      ivl_image_unref (window[i]);
      window[i] = window[i + kept];
      window[i + kept] = NULL;
    }
  }
  g_autoptr (IvlImage) last = window[FRAMES - 1] ? ivl_image_ref (window[FRAMES - 1]) : NULL;
  for (guint i = kept; i < FRAMES; i++) {
    gboolean still = row->kind == BENCH_STILL;
    IvlImage *frame = bench_make_image (model, still ? 0 : chunk * FRAMES / 2 + i, last, still ? THRESHOLD : 0, error);
    if (!frame)
      return FALSE;
    g_clear_pointer (&window[i], ivl_image_unref);
    window[i] = frame;
    g_clear_pointer (&last, ivl_image_unref);
    last = ivl_image_ref (frame);
  }
  return TRUE;
}

/* Chunks after the first, which pays for all its frames and for the pipelines. */
gboolean
bench_stream (Bench *b, const BenchRow *row, const char *name, GError **error)
{
  if (!b->model)
    return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "%s needs a tokenizer: --model", name);
  g_autoptr (IvlModel) model = bench_open_model (b, error);
  IvlImage *window[FRAMES] = { NULL };
  IvlModelStats before = { 0 }, after;
  gboolean ok = model != NULL;
  BenchTime start = bench_now ();
  for (guint i = 0; ok && i <= row->n; i++) {
    ok = next_frames (model, row, i, window, error) && bench_ask (model, window, FRAMES, ANSWER_TOKENS, error);
    if (i == 0) {
      start = bench_now ();
      ivl_model_get_stats (model, &before);
    }
  }
  BenchTime took = bench_since (start);
  for (guint i = 0; i < FRAMES; i++)
    ivl_image_unref (window[i]);
  if (!ok)
    return FALSE;
  ivl_model_get_stats (model, &after);
  JsonObject *out = bench_put (b, name, took.wall / row->n, "s a chunk", took, row->n);
  json_object_set_double_member (out, "tiles_encoded", (double) (after.tiles_encoded - before.tiles_encoded) / row->n);
  json_object_set_double_member (out, "prompt_tokens_reused",
                                 (double) (after.prompt_tokens_reused - before.prompt_tokens_reused) / row->n);
  return TRUE;
}
