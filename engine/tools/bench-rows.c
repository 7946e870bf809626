#include "tools/bench.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tools/synthetic.h"

/* ---- names ---- */

gboolean
bench_row_parse (const char *name, BenchRow *row, GError **error)
{
  char rest;
  *row = (BenchRow){ .batch = 1 };
  if (strcmp (name, "peak") == 0)
    row->kind = BENCH_PEAK;
  else if (strcmp (name, "start-cold") == 0)
    row->kind = BENCH_START_COLD;
  else if (strcmp (name, "start-warm") == 0)
    row->kind = BENCH_START_WARM;
  else if (strcmp (name, "start") == 0)
    row->kind = BENCH_START;
  else if (strcmp (name, "start-text") == 0)
    row->kind = BENCH_START_TEXT;
  else if (sscanf (name, "still-%5u%c", &row->n, &rest) == 1 && row->n >= 1)
    row->kind = BENCH_STILL;
  else if (sscanf (name, "overlap-%5u%c", &row->n, &rest) == 1 && row->n >= 1)
    row->kind = BENCH_OVERLAP;
  else if (sscanf (name, "apart-%5u%c", &row->n, &rest) == 1 && row->n >= 1)
    row->kind = BENCH_APART;
  else if (sscanf (name, "tiles-%5u%c", &row->n, &rest) == 1 && row->n >= 1 && row->n <= 256)
    row->kind = BENCH_TILES;
  else if (sscanf (name, "prefill-%7u%c", &row->n, &rest) == 1 && row->n >= 1 && row->n <= 1u << 20)
    row->kind = BENCH_PREFILL;
  else if (sscanf (name, "decode-%7ux%5u%c", &row->n, &row->batch, &rest) == 2 && row->n <= 1u << 20 && row->batch >= 1
           && row->batch <= 256)
    row->kind = BENCH_DECODE;
  else
    return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "There is no row \"%s\"; there are peak, start, start-text, "
                     "start-cold, start-warm, tiles-N, prefill-TOKENS, decode-CONTEXTxBATCH, still-CHUNKS, "
                     "overlap-CHUNKS, apart-CHUNKS", name);
  return TRUE;
}

/* ---- results ---- */

static gint
by_time (gconstpointer a, gconstpointer b)
{
  const IvlVkProfile *x = a, *y = b;
  return x->ns < y->ns ? 1 : x->ns > y->ns ? -1 : 0;
}

/* What a run reached of the limits measured: its matmuls of the arithmetic, all of it of the reading. On a software driver
 * the times of kernels hold what else the cores did meanwhile; the process's own time, shared out as they are, doesn't. */
static void
put_shares (const Bench *b, JsonObject *row, BenchTime best, double run_seconds, double matmul_share, double matmul_flops,
            double bytes)
{
  double seconds = b->device->software ? MIN (best.wall, best.cpu / g_get_num_processors ()) : run_seconds;
  seconds = MAX (seconds, 1e-6);
  double gflops = matmul_flops / (seconds * matmul_share) / 1e9, gbytes = bytes / seconds / 1e9;
  json_object_set_double_member (row, "matmul_gflops", gflops);
  json_object_set_double_member (row, "matmul_peak_share", gflops * 1e9 / b->peak_flops);
  json_object_set_double_member (row, "reading_peak_share", gbytes * 1e9 / b->peak_bytes);
  printf ("    of the peak: matmuls %.2f GFLOP/s, %.0f %% of the arithmetic; %.2f GB/s in all, %.0f %% of the reading\n", gflops,
          100 * gflops * 1e9 / b->peak_flops, gbytes, 100 * gbytes * 1e9 / b->peak_bytes);
}

/* The profile since it was turned on, of RUNS runs: what a run takes. */
static void
put_profile (Bench *b, JsonObject *row, guint runs, BenchTime best)
{
  GList *list = g_list_sort (g_hash_table_get_values (ivl_vk_stream_get_profile (b->stream)), by_time);
  JsonArray *kernels = json_array_new ();
  double total = 0, flops = 0, bytes = 0, matmul_ns = 0, matmul_flops = 0;
  for (GList *l = list; l; l = l->next) {
    total += (double) ((IvlVkProfile *) l->data)->ns;
    flops += ((IvlVkProfile *) l->data)->flops;
    bytes += ((IvlVkProfile *) l->data)->bytes;
    if (g_str_has_prefix (((IvlVkProfile *) l->data)->name, "gemm_")) {
      matmul_ns += (double) ((IvlVkProfile *) l->data)->ns;
      matmul_flops += ((IvlVkProfile *) l->data)->flops;
    }
  }
  if (total > 0)
    printf ("    %-30s %8s %7s %9s %7s %7s %7s\n", "kernel", "ms", "calls", "GFLOP/s", "GB/s", "share", "of peak");
  for (GList *l = list; l && total > 0; l = l->next) {
    IvlVkProfile *p = l->data;
    double ns = (double) MAX (p->ns, 1), gflops = p->flops / ns, gbytes = p->bytes / ns;
    double arithmetic = b->peak_flops > 0 ? gflops * 1e9 / b->peak_flops : 0;
    double reading = b->peak_bytes > 0 ? gbytes * 1e9 / b->peak_bytes : 0, of_peak = MAX (arithmetic, reading);
    JsonObject *kernel = json_object_new ();
    json_object_set_string_member (kernel, "name", p->name);
    json_object_set_double_member (kernel, "calls", (double) p->calls / runs);
    json_object_set_double_member (kernel, "ms", ns / 1e6 / runs);
    json_object_set_double_member (kernel, "share", ns / total);
    json_object_set_double_member (kernel, "gflops", gflops);
    json_object_set_double_member (kernel, "gb_per_s", gbytes);
    printf ("    %-30s %8.2f %7.0f %9.2f %7.2f %6.1f%%", p->name, ns / 1e6 / runs, (double) p->calls / runs, gflops, gbytes,
            100 * ns / total);
    if (of_peak > 0) {
      json_object_set_double_member (kernel, "peak_share", of_peak);
      printf (" %6.1f%%", 100 * of_peak);
    }
    printf ("\n");
    json_array_add_object_element (kernels, kernel);
  }
  if (total > 0) {
    json_object_set_double_member (row, "gflops", flops / total);
    json_object_set_double_member (row, "gb_per_s", bytes / total);
    if (matmul_ns > 0 && b->peak_flops > 0)
      put_shares (b, row, best, total / 1e9 / runs, matmul_ns / total, matmul_flops / runs, bytes / runs);
  }
  json_object_set_array_member (row, "kernels", kernels);
  g_list_free (list);
}

/* Times the runs of a row: the first isn't counted, the quickest of the others is. */
typedef struct {
  Bench *bench;
  guint run, left;
  BenchTime start, best;
} Timer;

static gboolean
timer_next (Timer *t)
{
  if (t->run > 0) {
    BenchTime took = bench_since (t->start);
    if (t->run == 2 || (t->run > 2 && took.wall < t->best.wall))
      t->best = took;
  }
  if (t->run == t->bench->repeats + 1)
    return FALSE;
  if (t->run++ == 1)
    ivl_vk_stream_set_profiling (t->bench->stream, t->bench->profile);
  t->start = bench_now ();
  return TRUE;
}

static JsonObject *
finish (Timer *t, const char *name, double value, const char *unit)
{
  Bench *b = t->bench;
  JsonObject *row = bench_put (b, name, value, unit, t->best, b->repeats);
  if (b->profile)
    put_profile (b, row, b->repeats, t->best);
  return row;
}

/* ---- vision ---- */

static gboolean
run_tiles (Bench *b, guint tiles, const char *name, GError **error)
{
  const IvlConfig *config = b->config;
  const IvlVit *vit = &b->weights_on_device.vit;
  guint batch = MIN (tiles, ivl_vit_max_tiles (config, b->device));
  IvlVitRun run = { 0 };
  if (!ivl_vit_run_init (&run, vit, b->device, batch, error))
    return FALSE;
  g_autoptr (IvlVkBuffer) out = ivl_vk_buffer_new (b->device, IVL_VK_DEVICE,
                                                   4ull * batch * config->tile_tokens * config->text.hidden, error);
  gsize n = run.patches.size / 4, n_out = (gsize) config->tile_tokens * config->text.hidden;
  g_autofree float *patches = g_new0 (float, n), *embeddings = g_new (float, n_out);
  guint64 seed = ivl_synthetic_seed ("patches");
  guint k = 3 * config->vision.patch_size * config->vision.patch_size, pitch = (k + 7) / 8 * 8;
  for (gsize i = 0; i < n; i++)
    patches[i] = i % pitch < k ? (float) (ivl_synthetic_random (seed, i) >> 40) / (1 << 22) - 2.f : 0.f;
  gboolean ok = out && ivl_vk_write (b->stream, run.patches, patches, n * 4, error);
  Timer timer = { .bench = b };
  while (ok && timer_next (&timer))
    for (guint done = 0; ok && done < tiles; done += batch)
      for (guint step = 0; ok && step < ivl_vit_n_steps (vit); step++) {
        ok = ivl_vk_begin (b->stream, error);
        if (ok) {
          ivl_vit_record_step (&run, b->stream, step, MIN (batch, tiles - done), (IvlSpan){ out, 0, out->size });
          ok = ivl_vk_run (b->stream, error);
        }
      }
  if (ok) {
    JsonObject *row = finish (&timer, name, timer.best.wall / tiles * 1e3, "ms a tile");
    ok = ivl_vk_read (b->stream, (IvlSpan){ out, 0, out->size }, embeddings, n_out * sizeof (float), error);
    if (ok)
      bench_put_hash (b, row, embeddings, n_out);
  }
  ivl_vk_stream_set_profiling (b->stream, FALSE);
  ivl_vit_run_deinit (&run);
  return ok;
}

/* ---- language model ---- */

typedef struct {
  IvlDecoderRun run;
  IvlKvCache cache;
  IvlSequence *sequences;
  guint n;
} Text;

static gboolean
text_init (Text *t, Bench *b, guint rows, guint sequences, guint context, GError **error)
{
  const IvlDecoder *decoder = &b->weights_on_device.decoder;
  guint pages = sequences * (context / IVL_KV_PAGE + 2);
  memset (t, 0, sizeof *t);
  if (!ivl_decoder_run_init (&t->run, decoder, b->device, rows, sequences, context + IVL_KV_PAGE, error))
    return FALSE;
  if (!ivl_kv_cache_init (&t->cache, decoder, b->device, pages, pages, error)) {
    ivl_decoder_run_deinit (&t->run);
    return FALSE;
  }
  t->sequences = g_new (IvlSequence, sequences);
  t->n = sequences;
  for (guint i = 0; i < sequences; i++)
    ivl_sequence_init (&t->sequences[i]);
  return TRUE;
}

static void
text_deinit (Text *t)
{
  for (guint i = 0; i < t->n; i++)
    ivl_sequence_deinit (&t->sequences[i], &t->cache);
  g_free (t->sequences);
  ivl_kv_cache_deinit (&t->cache);
  ivl_decoder_run_deinit (&t->run);
}

/* N tokens to each of the sequences, in one forward. */
static gboolean
run_text (Bench *b, Text *t, guint n, GError **error)
{
  g_autofree IvlDecoderJob *jobs = g_new0 (IvlDecoderJob, t->n);
  g_autofree guint32 *tokens = g_new (guint32, n);
  guint64 seed = ivl_synthetic_seed ("prompt");
  for (guint i = 0; i < n; i++)
    tokens[i] = (guint32) (ivl_synthetic_random (seed, t->sequences[0].length + i) % (b->config->text.vocab - 32));
  for (guint i = 0; i < t->n; i++) {
    if (!ivl_sequence_reserve (&t->sequences[i], &t->cache, b->stream, n, error))
      return FALSE;
    jobs[i] = (IvlDecoderJob){ &t->sequences[i], tokens, n, NULL, 1, FALSE };
  }
  return ivl_vk_begin (b->stream, error)
         && ivl_decoder_record (&t->run, &t->cache, b->stream, jobs, t->n, NULL, NULL, error)
         && ivl_vk_run (b->stream, error);
}

static gboolean
read_hash (Bench *b, Text *t, JsonObject *row, GError **error)
{
  guint n = b->config->text.vocab;
  g_autofree float *logits = g_new (float, n);
  if (!ivl_vk_read (b->stream, t->run.logits, logits, n * sizeof (float), error))
    return FALSE;
  bench_put_hash (b, row, logits, n);
  return TRUE;
}

static gboolean
run_prefill (Bench *b, guint tokens, const char *name, GError **error)
{
  Text t;
  guint chunk = MIN (tokens, b->device->software ? 256 : 512);
  if (!text_init (&t, b, chunk, 1, tokens, error))
    return FALSE;
  gboolean ok = TRUE;
  Timer timer = { .bench = b };
  while (ok && timer_next (&timer)) {
    ivl_sequence_truncate (&t.sequences[0], &t.cache, 0);
    for (guint done = 0; ok && done < tokens; done += chunk)
      ok = run_text (b, &t, MIN (chunk, tokens - done), error);
  }
  ok = ok && read_hash (b, &t, finish (&timer, name, tokens / timer.best.wall, "tokens/s"), error);
  ivl_vk_stream_set_profiling (b->stream, FALSE);
  text_deinit (&t);
  return ok;
}

static gboolean
run_decode (Bench *b, guint context, guint batch, const char *name, GError **error)
{
  Text t;
  guint steps = b->decode_tokens;
  if (!text_init (&t, b, MAX (batch, 16), batch, context + steps, error))
    return FALSE;
  gboolean ok = TRUE;
  for (guint i = 0; ok && i < batch; i++)
    ok = ivl_sequence_reserve (&t.sequences[i], &t.cache, b->stream, context + steps, error);
  /* What the cache holds makes no difference to the time, so only its length is set; zeros keep the logits the same. */
  ok = ok && ivl_vk_begin (b->stream, error);
  if (ok) {
    for (guint i = 0; i < b->config->text.layers; i++)
      ivl_vk_fill (b->stream, (IvlSpan){ t.cache.layers[i], 0, t.cache.layers[i]->size }, 0);
    ok = ivl_vk_run (b->stream, error);
  }
  Timer timer = { .bench = b };
  while (ok && timer_next (&timer)) {
    for (guint i = 0; i < batch; i++)
      t.sequences[i].length = context;
    for (guint s = 0; ok && s < steps; s++)
      ok = run_text (b, &t, 1, error);
  }
  ok = ok && read_hash (b, &t, finish (&timer, name, steps * batch / timer.best.wall, "tokens/s"), error);
  ivl_vk_stream_set_profiling (b->stream, FALSE);
  text_deinit (&t);
  return ok;
}

gboolean
bench_row_run (Bench *b, const BenchRow *row, const char *name, GError **error)
{
  if (row->kind <= BENCH_START_WARM && row->kind >= BENCH_START)
    return row->kind >= BENCH_STILL && row->kind <= BENCH_APART ? bench_stream (b, row, name, error)
                                                                : bench_start (b, row->kind, name, error);
  if (row->kind == BENCH_PEAK)
    return bench_peak (b, name, error);
  if (!bench_load (b, error))
    return FALSE;
  if (row->kind == BENCH_TILES)
    return run_tiles (b, row->n, name, error);
  if (row->kind == BENCH_PREFILL ? row->n > b->positions : row->n + b->decode_tokens > b->positions)
    return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "%s: the model has %u positions", name, b->positions);
  return row->kind == BENCH_PREFILL ? run_prefill (b, row->n, name, error)
                                    : run_decode (b, row->n, row->batch, name, error);
}
