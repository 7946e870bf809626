/* internvl-bench: load, tile encode, prefill, decode of a model, in numbers. See bench.h. */
#include "tools/bench.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "tools/synthetic.h"

static const char *const dtype_names[] = { "f32", "f16", "bf16", "q8", "q4" };

#define QUICK "peak,start-warm,tiles-1,prefill-256,decode-0x1"
#define ALL                                                                                                            \
  "peak,start-cold,start-warm,tiles-1,tiles-4,tiles-12,prefill-256,prefill-1024,prefill-4096,"                         \
  "decode-0x1,decode-0x4,decode-0x16,decode-1024x1,decode-1024x4,decode-1024x16,decode-4096x1,decode-4096x4,"          \
  "decode-4096x16"

/* ---- time and results ---- */

BenchTime
bench_now (void)
{
  struct rusage usage;
  getrusage (RUSAGE_SELF, &usage);
  return (BenchTime){ (double) g_get_monotonic_time () / 1e6,
                      (double) (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
                        + (double) (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6 };
}

BenchTime
bench_since (BenchTime start)
{
  BenchTime now = bench_now ();
  return (BenchTime){ now.wall - start.wall, now.cpu - start.cpu };
}

JsonObject *
bench_put (Bench *b, const char *name, double value, const char *unit, BenchTime best, guint runs)
{
  JsonObject *row = json_object_new ();
  json_object_set_double_member (row, "value", value);
  json_object_set_string_member (row, "unit", unit);
  json_object_set_double_member (row, "seconds", best.wall);
  json_object_set_double_member (row, "cpu_seconds", best.cpu);
  json_object_set_int_member (row, "runs", runs);
  json_object_set_object_member (b->rows, name, row);
  if (!b->quiet)
    printf ("%-18s %10.2f %-24s %8.3f s, %8.3f CPU-s\n", name, value, unit, best.wall, best.cpu);
  fflush (stdout);
  return row;
}

void
bench_put_hash (Bench *b, JsonObject *row, const float *data, gsize n)
{
  guint h = 2166136261u;
  for (gsize i = 0; i < n * sizeof *data; i++)
    h = (h ^ ((const guint8 *) data)[i]) * 16777619u;
  g_autofree char *hash = g_strdup_printf ("%08x", h);
  json_object_set_string_member (row, "logits_hash", hash);
  if (!b->quiet)
    printf ("%-18s hash %s\n", "", hash);
}

/* ---- model ---- */

static guint64
host_available (void)
{
  g_autofree char *text = NULL;
  const char *line = g_file_get_contents ("/proc/meminfo", &text, NULL, NULL) ? strstr (text, "MemAvailable:") : NULL;
  return line ? g_ascii_strtoull (line + strlen ("MemAvailable:"), NULL, 10) * 1024 : G_MAXUINT64;
}

/* Seeded weights are made in memory, so there must be room for them twice where the device's memory is the host's. */
static gboolean
check_memory (const Bench *b, GError **error)
{
  guint64 host = ivl_config_weight_bytes (b->config, 2);
  guint64 on_device = b->dtype < 0 ? host
                      : b->dtype == IVL_DTYPE_Q8 ? host / 16 * 9
                      : b->dtype == IVL_DTYPE_Q4 ? host / 16 * 5
                                                 : host / 2 * ivl_dtype_bytes ((IvlDtype) b->dtype);
  guint64 host_need = b->device->software ? host + on_device : host, host_found = host_available ();
  guint64 device_found = ivl_vk_available_bytes (b->device);
  g_autofree char *need = ivl_format_bytes (host_need), *found = ivl_format_bytes (host_found);
  g_autofree char *device_need = ivl_format_bytes (on_device), *device_has = ivl_format_bytes (device_found);
  if (host_need > host_found)
    return ivl_fail (error, IVL_ERROR_OUT_OF_MEMORY, "%s: seeded weights need %s of host memory, and %s are free; choose a "
                     "smaller shape", b->shape, need, found);
  if (on_device > device_found)
    return ivl_fail (error, IVL_ERROR_OUT_OF_MEMORY, "%s needs %s on Vulkan device \"%s\", which has %s; choose a smaller "
                     "shape or weight type", b->shape, device_need, ivl_device_get_name (b->device), device_has);
  return TRUE;
}

static gboolean
open_device (Bench *b, GError **error)
{
  if (!b->device && !(b->device = ivl_device_open (b->device_name, error)))
    return FALSE;
  return b->stream || (b->stream = ivl_vk_stream_new (b->device, error));
}

static gboolean
open_config (Bench *b, GError **error)
{
  b->config = b->model ? ivl_config_load (b->model, error) : ivl_synthetic_config (b->shape, error);
  if (!b->config || (!b->model && !check_memory (b, error)))
    return FALSE;
  b->positions = MIN (b->config->text.max_position, 8192);
  g_autofree char *description = ivl_config_describe (b->config);
  g_autofree char *weights = g_strdup (b->dtype < 0 ? "the files' own" : dtype_names[b->dtype]);
  const IvlDevice *d = b->device;
  printf ("%s, weights %s, on %s\n", description, weights, d->name);
  json_object_set_string_member (b->out, "model", description);
  json_object_set_string_member (b->out, "weights", b->dtype < 0 ? "auto" : weights);
  json_object_set_string_member (b->out, "device", d->name);
  g_autofree char *api = g_strdup_printf ("%u.%u.%u", VK_API_VERSION_MAJOR (d->properties.apiVersion),
                                          VK_API_VERSION_MINOR (d->properties.apiVersion),
                                          VK_API_VERSION_PATCH (d->properties.apiVersion));
  json_object_set_string_member (b->out, "api", api);
  /* How Mesa and most others write it. */
  g_autofree char *driver = g_strdup_printf ("%u, %u.%u.%u", d->driver, VK_API_VERSION_MAJOR (d->properties.driverVersion),
                                             VK_API_VERSION_MINOR (d->properties.driverVersion),
                                             VK_API_VERSION_PATCH (d->properties.driverVersion));
  json_object_set_string_member (b->out, "driver", driver);
  json_object_set_boolean_member (b->out, "software", d->software);
  json_object_set_int_member (b->out, "subgroup_size", d->subgroup_size);
  return TRUE;
}

gboolean
bench_load (Bench *b, GError **error)
{
  if (b->loaded)
    return TRUE;
  IvlCheckpoint *checkpoint
    = b->model ? ivl_checkpoint_open (b->model, b->config, error) : ivl_synthetic_checkpoint (b->config, error);
  if (!checkpoint)
    return FALSE;
  BenchTime start = bench_now ();
  b->loaded = ivl_weights_load (&b->weights_on_device, b->device, checkpoint, b->config, b->dtype, b->positions, NULL, error);
  ivl_checkpoint_free (checkpoint);
  if (!b->loaded)
    return FALSE;
  BenchTime took = bench_since (start);
  bench_put (b, "load", took.wall, "s to the device", took, 1);
  json_object_set_int_member (b->out, "weights_bytes", (gint64) b->weights_on_device.bytes);
  printf ("%-18s %10.2f MB on the device\n", "weights", (double) b->weights_on_device.bytes / 1e6);
  return TRUE;
}

static void
put_memory (Bench *b)
{
  struct rusage usage;
  getrusage (RUSAGE_SELF, &usage);
  JsonObject *memory = json_object_new ();
  json_object_set_int_member (memory, "host_peak_bytes", (gint64) usage.ru_maxrss * 1024);
  json_object_set_int_member (memory, "device_peak_bytes", (gint64) b->device->peak_bytes);
  json_object_set_object_member (b->out, "memory", memory);
  printf ("%-18s %10.2f MB of the process at most, %.2f MB in Vulkan buffers\n", "memory", (double) usage.ru_maxrss / 1e3 * 1.024,
          (double) b->device->peak_bytes / 1e6);
}

/* ---- options ---- */

static gboolean
parse_weights (Bench *b, const char *weights, GError **error)
{
  b->dtype = -1;
  if (!weights || strcmp (weights, "auto") == 0)
    return TRUE;
  for (guint i = 0; i < G_N_ELEMENTS (dtype_names); i++)
    if (strcmp (weights, dtype_names[i]) == 0)
      b->dtype = (int) i;
  return b->dtype >= 0
         || ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "--weights is %s; there are auto, f32, f16, bf16, q8, q4", weights);
}

/* What goes through the public API comes before anything else: it opens devices of its own, and the
 * peak of memory should be its own. */
static gboolean
run_rows (Bench *b, char **names, GError **error)
{
  for (guint pass = 0; pass < 2; pass++)
    for (guint i = 0; names[i]; i++) {
      BenchRow row;
      if (!bench_row_parse (g_strstrip (names[i]), &row, error))
        return FALSE;
      gboolean start = row.kind >= BENCH_START && row.kind <= BENCH_START_WARM;
      if (start == (pass == 0) && !bench_row_run (b, &row, names[i], error))
        return FALSE;
    }
  return TRUE;
}

static gboolean
check_rows (char **names, GError **error)
{
  BenchRow row;
  for (guint i = 0; names[i]; i++)
    if (!bench_row_parse (g_strstrip (names[i]), &row, error))
      return FALSE;
  return names[0] || ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "--rows names none");
}

static gboolean
write_json (Bench *b, const char *path, GError **error)
{
  g_autoptr (JsonNode) node = json_node_init_object (json_node_alloc (), b->out);
  g_autofree char *text = json_to_string (node, TRUE);
  return g_file_set_contents (path, text, -1, error);
}

int
main (int argc, char **argv)
{
  g_autofree char *model = NULL, *shape = NULL, *device = NULL, *weights = NULL, *json = NULL, *rows = NULL;
  gboolean quick = FALSE, profile = FALSE, compare = FALSE;
  int repeats = 2, decode_tokens = 16;
  const GOptionEntry options[] = {
    { "model", 'm', 0, G_OPTION_ARG_FILENAME, &model, "Checkpoint folder, or GGUF file or folder", "PATH" },
    { "model-shape", 's', 0, G_OPTION_ARG_STRING, &shape,
      "Seeded weights of a family member's shapes: 1B 2B 4B 8B 26B 38B 78B tiny (1B)", "SIZE" },
    { "device", 'd', 0, G_OPTION_ARG_STRING, &device, "Vulkan device, by number, kind or name", "NAME" },
    { "weights", 'w', 0, G_OPTION_ARG_STRING, &weights, "auto, f32, f16, bf16, q8 or q4", "TYPE" },
    { "rows", 'R', 0, G_OPTION_ARG_STRING, &rows,
      "What to time, with commas: peak start start-text start-cold start-warm tiles-N prefill-TOKENS "
      "decode-CONTEXTxBATCH still-CHUNKS overlap-CHUNKS apart-CHUNKS", "LIST" },
    { "repeats", 'r', 0, G_OPTION_ARG_INT, &repeats, "Runs after the first, the best counts (2)", "N" },
    { "decode-tokens", 't', 0, G_OPTION_ARG_INT, &decode_tokens, "Tokens a sequence in decode rows (16)", "N" },
    { "quick", 'q', 0, G_OPTION_ARG_NONE, &quick, "One row a stage", NULL },
    { "profile", 'p', 0, G_OPTION_ARG_NONE, &profile, "Times by kernel", NULL },
    { "json", 'j', 0, G_OPTION_ARG_FILENAME, &json, "Writes the numbers to FILE as well", "FILE" },
    { "compare", 'c', 0, G_OPTION_ARG_NONE, &compare, "Prints two files of --json side by side: --compare A B", NULL },
    { NULL },
  };
  g_autoptr (GOptionContext) context = g_option_context_new ("[A.json B.json] - times load, tile encode, prefill and decode "
                                                             "of a model");
  g_option_context_add_main_entries (context, options, NULL);
  GError *error = NULL;
  gboolean ok = g_option_context_parse (context, &argc, &argv, &error);
  g_autoptr (JsonObject) out = json_object_new ();
  Bench b = { .model = model, .shape = shape ? shape : "1B", .device_name = device, .profile = profile, .out = out,
              .rows = json_object_new () };
  json_object_set_object_member (out, "rows", b.rows);
  if (ok && (compare ? argc != 3 : argc != 1))
    ok = ivl_fail (&error, IVL_ERROR_BAD_ARGUMENT, compare ? "--compare takes two files" : "%s: no such option",
                   argc > 1 ? argv[1] : "");
  if (ok && compare) {
    ok = bench_compare (argv[1], argv[2], &error);
  } else if (ok) {
    if (model && shape)
      ok = ivl_fail (&error, IVL_ERROR_BAD_ARGUMENT, "--model and --model-shape exclude each other");
    if (ok && (repeats < 1 || repeats > 1000))
      ok = ivl_fail (&error, IVL_ERROR_BAD_ARGUMENT, "--repeats is %d; it must be 1 to 1000", repeats);
    if (ok && (decode_tokens < 1 || decode_tokens > 4096))
      ok = ivl_fail (&error, IVL_ERROR_BAD_ARGUMENT, "--decode-tokens is %d; it must be 1 to 4096", decode_tokens);
    g_auto (GStrv) names = g_strsplit (rows ? rows : quick ? QUICK : ALL, ",", -1);
    b.repeats = (guint) repeats;
    b.decode_tokens = (guint) decode_tokens;
    g_autoptr (GDateTime) date = g_date_time_new_now_utc ();
    g_autofree char *date_text = g_date_time_format_iso8601 (date);
    json_object_set_int_member (out, "version", 1);
    json_object_set_string_member (out, "date", date_text);
    ok = ok && parse_weights (&b, weights, &error) && check_rows (names, &error) && open_device (&b, &error)
         && open_config (&b, &error) && run_rows (&b, names, &error);
    if (ok)
      put_memory (&b);
    ok = ok && (!json || write_json (&b, json, &error));
  }
  if (!ok)
    fprintf (stderr, "internvl-bench: %s\n", error->message);
  g_clear_error (&error);
  ivl_vk_stream_free (b.stream);
  if (b.loaded)
    ivl_weights_deinit (&b.weights_on_device);
  ivl_config_free (b.config);
  ivl_device_unref (b.device);
  return ok ? 0 : 1;
}
