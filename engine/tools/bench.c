/* internvl-bench: load, tile encode, prefill, decode of a model, in numbers. */
#include <internvl/internvl.h>
#include <json-glib/json-glib.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "model/weights.h"
#include "tools/synthetic.h"

typedef struct {
  IvlDevice *device;
  IvlConfig *config;
  IvlCheckpoint *checkpoint;
  IvlModelWeights weights;
  IvlVkStream *stream;
  JsonObject *out;
  guint repeats;
  gboolean profile;
} Bench;

static double
now (void)
{
  return (double) g_get_monotonic_time () / 1e6;
}

static void
put (Bench *b, const char *key, double value, const char *unit)
{
  printf ("%-32s %10.2f %s\n", key, value, unit);
  fflush (stdout);
  json_object_set_double_member (b->out, key, value);
}

static gint
by_time (gconstpointer a, gconstpointer b)
{
  const IvlVkProfile *x = a, *y = b;
  return x->ns < y->ns ? 1 : x->ns > y->ns ? -1 : 0;
}

static void
show_profile (Bench *b, const char *what)
{
  GList *list = g_list_sort (g_hash_table_get_values (ivl_vk_stream_get_profile (b->stream)), by_time);
  double total = 0;
  for (GList *l = list; l; l = l->next)
    total += (double) ((IvlVkProfile *) l->data)->ns;
  if (total > 0)
    printf ("  %s, by kernel:                  ms   calls   GFLOP/s    GB/s   share\n", what);
  for (GList *l = list; l && total > 0; l = l->next) {
    IvlVkProfile *p = l->data;
    printf ("    %-28s %8.1f %7" G_GUINT64_FORMAT " %9.1f %7.1f %6.1f%%\n", p->name, (double) p->ns / 1e6, p->calls,
            p->flops / (double) MAX (p->ns, 1), p->bytes / (double) MAX (p->ns, 1), 100. * (double) p->ns / total);
  }
  g_list_free (list);
}

static guint
hash_floats (const float *data, gsize n)
{
  guint h = 2166136261u;
  for (gsize i = 0; i < n * 4; i++)
    h = (h ^ ((const guint8 *) data)[i]) * 16777619u;
  return h;
}

/* ---- stages ---- */

static gboolean
bench_tiles (Bench *b, guint tiles, GError **error)
{
  const IvlConfig *config = b->config;
  guint batch = MIN (tiles, ivl_vit_max_tiles (config, b->device));
  IvlVitRun run = { 0 };
  if (!ivl_vit_run_init (&run, &b->weights.vit, b->device, batch, error))
    return FALSE;
  g_autoptr (IvlVkBuffer) out = ivl_vk_buffer_new (b->device, IVL_VK_DEVICE,
                                                   4ull * batch * config->tile_tokens * config->text.hidden, error);
  gsize n = run.patches.size / 4;
  g_autofree float *patches = g_new0 (float, n);
  guint64 seed = ivl_synthetic_seed ("patches");
  guint k = 3 * config->vision.patch_size * config->vision.patch_size, pitch = (k + 7) / 8 * 8;
  for (gsize i = 0; i < n; i++)
    patches[i] = i % pitch < k ? (float) (ivl_synthetic_random (seed, i) >> 40) / (1 << 22) - 2.f : 0.f;
  gboolean ok = out && ivl_vk_write (b->stream, run.patches, patches, n * 4, error);
  double best = INFINITY;
  for (guint r = 0; ok && r < b->repeats + 1; r++) {
    if (r == 1)
      ivl_vk_stream_set_profiling (b->stream, b->profile);
    double start = now ();
    for (guint done = 0; ok && done < tiles; done += batch)
      for (guint step = 0; ok && step < ivl_vit_n_steps (&b->weights.vit); step++) {
        ok = ivl_vk_begin (b->stream, error);
        if (ok) {
          ivl_vit_record_step (&run, b->stream, step, MIN (batch, tiles - done), (IvlSpan){ out, 0, out->size });
          ok = ivl_vk_run (b->stream, error);
        }
      }
    if (r > 0)
      best = MIN (best, now () - start);
  }
  if (ok) {
    g_autofree char *key = g_strdup_printf ("encode_%u_tiles_ms_per_tile", tiles);
    put (b, key, best / tiles * 1e3, "ms a tile");
    show_profile (b, "vision encoder");
  }
  ivl_vk_stream_set_profiling (b->stream, FALSE);
  ivl_vit_run_deinit (&run);
  return ok;
}

typedef struct {
  IvlDecoderRun run;
  IvlKvCache cache;
} Text;

static gboolean
text_init (Text *t, Bench *b, guint rows, guint sequences, guint context, GError **error)
{
  guint pages = sequences * (context / IVL_KV_PAGE + 2);
  memset (t, 0, sizeof *t);
  if (!ivl_decoder_run_init (&t->run, &b->weights.decoder, b->device, rows, sequences, context + IVL_KV_PAGE, error))
    return FALSE;
  if (ivl_kv_cache_init (&t->cache, &b->weights.decoder, b->device, pages, pages, error))
    return TRUE;
  ivl_decoder_run_deinit (&t->run);
  return FALSE;
}

static void
text_deinit (Text *t)
{
  ivl_kv_cache_deinit (&t->cache);
  ivl_decoder_run_deinit (&t->run);
}

/* N tokens to each of M sequences, in one forward. */
static gboolean
run_text (Bench *b, Text *t, IvlSequence *sequences, guint m, guint n, GError **error)
{
  g_autofree IvlDecoderJob *jobs = g_new0 (IvlDecoderJob, m);
  g_autofree guint32 *tokens = g_new (guint32, n);
  guint64 seed = ivl_synthetic_seed ("prompt");
  for (guint i = 0; i < n; i++)
    tokens[i] = (guint32) (ivl_synthetic_random (seed, sequences[0].length + i) % (b->config->text.vocab - 32));
  for (guint i = 0; i < m; i++) {
    if (!ivl_sequence_reserve (&sequences[i], &t->cache, b->stream, n, error))
      return FALSE;
    jobs[i] = (IvlDecoderJob){ &sequences[i], tokens, n, NULL, TRUE };
  }
  return ivl_vk_begin (b->stream, error)
         && ivl_decoder_record (&t->run, &t->cache, b->stream, jobs, m, NULL, NULL, error) && ivl_vk_run (b->stream, error);
}

static gboolean
bench_prefill (Bench *b, guint tokens, GError **error)
{
  Text t;
  guint chunk = MIN (tokens, b->device->software ? 256 : 512);
  if (!text_init (&t, b, chunk, 1, tokens, error))
    return FALSE;
  IvlSequence sequence;
  ivl_sequence_init (&sequence);
  double best = INFINITY;
  gboolean ok = TRUE;
  for (guint r = 0; ok && r < b->repeats + 1; r++) {
    if (r == 1)
      ivl_vk_stream_set_profiling (b->stream, b->profile);
    ivl_sequence_truncate (&sequence, &t.cache, 0);
    double start = now ();
    for (guint done = 0; ok && done < tokens; done += chunk)
      ok = run_text (b, &t, &sequence, 1, MIN (chunk, tokens - done), error);
    if (r > 0)
      best = MIN (best, now () - start);
  }
  if (ok) {
    g_autofree char *key = g_strdup_printf ("prefill_%u_tokens_per_s", tokens);
    put (b, key, tokens / best, "tokens/s");
    show_profile (b, "prefill");
    g_autofree float *logits = g_new (float, b->config->text.vocab);
    ok = ivl_vk_read (b->stream, t.run.logits, logits, b->config->text.vocab * sizeof (float), error);
    g_autofree char *hash_key = g_strdup_printf ("prefill_%u_logits_hash", tokens);
    g_autofree char *hash = g_strdup_printf ("%08x", hash_floats (logits, b->config->text.vocab));
    json_object_set_string_member (b->out, hash_key, hash);
    printf ("%-32s %10s\n", hash_key, hash);
  }
  ivl_vk_stream_set_profiling (b->stream, FALSE);
  ivl_sequence_deinit (&sequence, &t.cache);
  text_deinit (&t);
  return ok;
}

static gboolean
bench_decode (Bench *b, guint context, guint batch, GError **error)
{
  const guint steps = 16;
  Text t;
  guint chunk = b->device->software ? 256 : 512;
  if (!text_init (&t, b, MAX (chunk, batch), batch, context + steps + 1, error))
    return FALSE;
  g_autofree IvlSequence *sequences = g_new (IvlSequence, batch);
  gboolean ok = TRUE;
  for (guint i = 0; i < batch; i++)
    ivl_sequence_init (&sequences[i]);
  /* The values in the cache don't matter for time, so only the length is set. */
  for (guint i = 0; ok && i < batch; i++) {
    ok = ivl_sequence_reserve (&sequences[i], &t.cache, b->stream, context + steps + 1, error);
    sequences[i].length = context;
  }
  ok = ok && run_text (b, &t, sequences, batch, 1, error);
  ivl_vk_stream_set_profiling (b->stream, b->profile);
  double start = now ();
  for (guint s = 0; ok && s < steps; s++)
    ok = run_text (b, &t, sequences, batch, 1, error);
  double seconds = now () - start;
  if (ok) {
    g_autofree char *key = g_strdup_printf ("decode_context_%u_batch_%u_tokens_per_s", context, batch);
    put (b, key, steps * batch / seconds, "tokens/s");
    show_profile (b, "decode");
  }
  ivl_vk_stream_set_profiling (b->stream, FALSE);
  for (guint i = 0; i < batch; i++)
    ivl_sequence_deinit (&sequences[i], &t.cache);
  text_deinit (&t);
  return ok;
}

static gboolean
load (Bench *b, const char *path, const char *synthetic, const char *weights, GError **error)
{
  int dtype = -1;
  if (weights && strcmp (weights, "auto") != 0) {
    static const char *const names[] = { "f32", "f16", "bf16", "q8", "q4" };
    for (guint i = 0; i < G_N_ELEMENTS (names); i++)
      if (strcmp (weights, names[i]) == 0)
        dtype = (int) i;
    if (dtype < 0)
      return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "--weights is %s; there are auto, f32, f16, bf16, q8, q4", weights);
  }
  b->config = path ? ivl_config_load (path, error) : ivl_synthetic_config (synthetic, error);
  if (!b->config)
    return FALSE;
  g_autofree char *description = ivl_config_describe (b->config);
  printf ("model: %s on %s\n", description, ivl_device_get_name (b->device));
  b->checkpoint = path ? ivl_checkpoint_open (path, b->config, error) : ivl_synthetic_checkpoint (b->config, error);
  if (!b->checkpoint)
    return FALSE;
  double start = now ();
  if (!ivl_weights_load (&b->weights, b->device, b->checkpoint, b->config, dtype, 8192, NULL, error)
      || !(b->stream = ivl_vk_stream_new (b->device, error)))
    return FALSE;
  put (b, "load_s", now () - start, "s to the device");
  put (b, "weights_mb", (double) b->weights.bytes / 1e6, "MB");
  g_clear_pointer (&b->checkpoint, ivl_checkpoint_free);
  return TRUE;
}

static gboolean
run (Bench *b, gboolean quick, GError **error)
{
  static const guint tiles[] = { 1, 4 }, prompts[] = { 256, 1024, 4096 }, contexts[] = { 0, 1024, 4096 };
  static const guint batches[] = { 1, 4, 16 };
  for (guint i = 0; i < (quick ? 1 : G_N_ELEMENTS (tiles)); i++)
    if (!bench_tiles (b, tiles[i], error))
      return FALSE;
  for (guint i = 0; i < (quick ? 1 : G_N_ELEMENTS (prompts)); i++)
    if (!bench_prefill (b, prompts[i], error))
      return FALSE;
  for (guint i = 0; i < (quick ? 1 : G_N_ELEMENTS (contexts)); i++)
    for (guint j = 0; j < (quick || i > 1 ? 1 : G_N_ELEMENTS (batches)); j++)
      if (!bench_decode (b, contexts[i], batches[j], error))
        return FALSE;
  struct rusage usage;
  getrusage (RUSAGE_SELF, &usage);
  put (b, "peak_host_mb", (double) usage.ru_maxrss / 1e3, "MB");
  return TRUE;
}

int
main (int argc, char **argv)
{
  g_autofree char *model = NULL, *synthetic = NULL, *device = NULL, *weights = NULL, *json = NULL;
  gboolean quick = FALSE, profile = FALSE;
  int repeats = 2;
  const GOptionEntry options[] = {
    { "model", 'm', 0, G_OPTION_ARG_FILENAME, &model, "Checkpoint folder", "PATH" },
    { "synthetic", 's', 0, G_OPTION_ARG_STRING, &synthetic, "True shapes, seeded weights: 1B 2B 4B 8B ... tiny (1B)",
      "SIZE" },
    { "device", 'd', 0, G_OPTION_ARG_STRING, &device, "Vulkan device, by number, kind or name", "NAME" },
    { "weights", 'w', 0, G_OPTION_ARG_STRING, &weights, "auto, f32, f16, bf16, q8 or q4", "TYPE" },
    { "repeats", 'r', 0, G_OPTION_ARG_INT, &repeats, "Runs after the first, the best counts (2)", "N" },
    { "quick", 'q', 0, G_OPTION_ARG_NONE, &quick, "One row a stage", NULL },
    { "profile", 'p', 0, G_OPTION_ARG_NONE, &profile, "Times by kernel", NULL },
    { "json", 'j', 0, G_OPTION_ARG_FILENAME, &json, "Writes the numbers to FILE as well", "FILE" },
    { NULL },
  };
  g_autoptr (GOptionContext) context = g_option_context_new ("- times load, tile encode, prefill and decode of a model");
  g_option_context_add_main_entries (context, options, NULL);
  GError *error = NULL;
  Bench b = { .out = json_object_new () };
  gboolean ok = g_option_context_parse (context, &argc, &argv, &error);
  b.repeats = (guint) CLAMP (repeats, 1, 100);
  b.profile = profile;
  ok = ok && (b.device = ivl_device_open (device, &error)) && load (&b, model, synthetic ? synthetic : "1B", weights, &error)
       && run (&b, quick, &error);
  if (ok && json) {
    JsonNode *node = json_node_init_object (json_node_alloc (), b.out);
    g_autofree char *text = json_to_string (node, TRUE);
    ok = g_file_set_contents (json, text, -1, &error);
    json_node_unref (node);
  }
  if (!ok)
    fprintf (stderr, "internvl-bench: %s\n", error->message);
  g_clear_error (&error);
  json_object_unref (b.out);
  ivl_checkpoint_free (b.checkpoint);
  ivl_vk_stream_free (b.stream);
  if (b.config)
    ivl_weights_deinit (&b.weights);
  ivl_config_free (b.config);
  ivl_device_unref (b.device);
  return ok ? 0 : 1;
}
