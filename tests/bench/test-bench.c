/* internvl-bench and write-model as programs, on the tiny shape: what they print and write, and what they refuse. Nothing
 * here depends on how long anything takes. Arguments: the two programs. */
#include <glib/gstdio.h>
#include <json-glib/json-glib.h>
#include <string.h>

static const char *bench, *write_model;
static char *folder;

static char *
in_folder (const char *name)
{
  return g_build_filename (folder, name, NULL);
}

/* Runs PROGRAM with the arguments up to NULL; returns what it printed, standard error if it is to FAIL. */
static char *
run (gboolean fail, const char *program, ...)
{
  g_autoptr (GPtrArray) args = g_ptr_array_new ();
  g_autofree char *out = NULL, *errors = NULL;
  g_autoptr (GError) error = NULL;
  int status;
  va_list list;
  va_start (list, program);
  for (const char *arg = program; arg; arg = va_arg (list, const char *))
    g_ptr_array_add (args, (gpointer) arg);
  va_end (list);
  g_ptr_array_add (args, NULL);
  g_spawn_sync (NULL, (char **) args->pdata, NULL, 0, NULL, NULL, &out, &errors, &status, &error);
  g_assert_no_error (error);
  if (g_spawn_check_wait_status (status, NULL) == fail)
    g_error ("%s: exit status %d\n%s%s", program, status, out, errors);
  g_assert_true (!fail || WIFEXITED (status));
  return fail ? g_steal_pointer (&errors) : g_steal_pointer (&out);
}

static void
check_contains (const char *text, const char *part)
{
  if (!strstr (text, part))
    g_error ("\"%s\" isn't in:\n%s", part, text);
}

static JsonObject *
read_json (const char *path, JsonParser **parser)
{
  g_autoptr (GError) error = NULL;
  *parser = json_parser_new ();
  json_parser_load_from_file (*parser, path, &error);
  g_assert_no_error (error);
  return json_node_get_object (json_parser_get_root (*parser));
}

static void
check_positive (JsonObject *object, const char *key)
{
  g_assert_true (json_object_has_member (object, key));
  if (!(json_object_get_double_member (object, key) > 0))
    g_error ("%s is %g", key, json_object_get_double_member (object, key));
}

#define ROWS "peak,tiles-2,prefill-48,decode-0x1,decode-64x3,start-warm"

static void
test_json (void)
{
  g_autofree char *path = in_folder ("a.json");
  g_autofree char *out = run (FALSE, bench, "--model-shape", "tiny", "--weights", "f16", "--rows", ROWS, "--repeats",
                              "1", "--decode-tokens", "3", "--profile", "--json", path, NULL);
  check_contains (out, "prefill-48");
  g_autoptr (JsonParser) parser = NULL;
  JsonObject *result = read_json (path, &parser);
  g_assert_cmpint (json_object_get_int_member (result, "version"), ==, 1);
  check_positive (json_object_get_object_member (result, "peak"), "gflops");
  check_positive (json_object_get_object_member (result, "peak"), "gb_per_s");
  check_positive (json_object_get_object_member (result, "memory"), "host_peak_bytes");
  check_positive (json_object_get_object_member (result, "memory"), "device_peak_bytes");
  check_positive (result, "weights_bytes");
  JsonObject *memory = json_object_get_object_member (result, "memory");
  g_assert_cmpfloat (json_object_get_double_member (memory, "device_peak_bytes"), >=,
                     json_object_get_double_member (result, "weights_bytes"));
  static const char *const facts[] = { "date", "device", "driver", "api", "model", "weights" };
  for (guint i = 0; i < G_N_ELEMENTS (facts); i++)
    g_assert_cmpstr (json_object_get_string_member (result, facts[i]), !=, "");
  JsonObject *rows = json_object_get_object_member (result, "rows");
  g_auto (GStrv) names = g_strsplit (ROWS, ",", -1);
  for (guint i = 0; names[i]; i++) {
    g_assert_true (json_object_has_member (rows, names[i]));
    JsonObject *row = json_object_get_object_member (rows, names[i]);
    check_positive (row, "value");
    check_positive (row, "seconds");
    g_assert_true (json_object_has_member (row, "cpu_seconds"));
    if (g_str_equal (names[i], "peak") || g_str_equal (names[i], "start-warm"))
      continue;
    g_assert_cmpuint (strlen (json_object_get_string_member (row, "logits_hash")), ==, 8);
    check_positive (row, "matmul_gflops");
    check_positive (row, "matmul_peak_share");
    check_positive (row, "reading_peak_share");
    JsonArray *kernels = json_object_get_array_member (row, "kernels");
    double share = 0;
    g_assert_cmpuint (json_array_get_length (kernels), >, 2);
    for (guint k = 0; k < json_array_get_length (kernels); k++) {
      JsonObject *kernel = json_array_get_object_element (kernels, k);
      check_positive (kernel, "calls");
      check_positive (kernel, "ms");
      share += json_object_get_double_member (kernel, "share");
      if (g_str_has_prefix (json_object_get_string_member (kernel, "name"), "gemm_")) {
        check_positive (kernel, "gflops");
        check_positive (kernel, "gb_per_s");
        check_positive (kernel, "peak_share");
      }
    }
    g_assert_cmpfloat_with_epsilon (share, 1, 1e-6);
  }
}

/* The same values from memory, from a folder and from GGUF files give the same logits; --compare says so. */
static void
test_compare (void)
{
  static const char *const kinds[] = { "folder", "gguf" };
  g_autofree char *of_memory = in_folder ("memory.json");
  g_free (run (FALSE, bench, "-s", "tiny", "--rows", "tiles-1,prefill-32", "--weights", "f16", "-r", "1", "-j", of_memory,
               NULL));
  for (guint i = 0; i < G_N_ELEMENTS (kinds); i++) {
    g_autofree char *model = in_folder (kinds[i]), *path = g_strconcat (model, ".json", NULL);
    g_free (run (FALSE, write_model, "tiny", "f16", kinds[i], model, NULL));
    g_free (run (FALSE, bench, "--model", model, "--rows", "tiles-1,prefill-32,decode-0x1,start-warm", "-r", "1", "-j",
                 path, NULL));
    g_autofree char *out = run (FALSE, bench, "--compare", of_memory, path, NULL);
    char *row = strstr (out, "prefill-32");
    g_assert_nonnull (row);
    check_contains (row, "same logits");
    g_assert_null (strstr (out, "OTHER logits"));
    check_contains (out, "decode-0x1");
  }
  g_autofree char *other = in_folder ("other.json"), *text = NULL;
  g_assert_true (g_file_get_contents (of_memory, &text, NULL, NULL));
  char *hash = strstr (text, "logits_hash");
  g_assert_nonnull (hash);
  hash = strchr (hash, ':') + 3; /* : "h */
  *hash = *hash == '0' ? '1' : '0';
  g_file_set_contents (other, text, -1, NULL);
  g_autofree char *out = run (FALSE, bench, "--compare", of_memory, other, NULL);
  check_contains (out, "OTHER logits");
  check_contains (out, "same logits");
}

static void
test_refusals (void)
{
  g_autofree char *no_rows = in_folder ("no-rows.json"), *no_json = in_folder ("no.json"), *nothing = in_folder ("none");
  g_file_set_contents (no_rows, "{\"rows\": 3}", -1, NULL);
  g_file_set_contents (no_json, "{\"rows\": {", -1, NULL);
  const struct {
    const char *args[5], *expected;
  } cases[] = {
    { { "--model-shape", "3B" }, "3B" },
    { { "--model-shape", "tiny", "--rows", "tiles-0" }, "tiles-0" },
    { { "--model-shape", "tiny", "--rows", "decode-16" }, "decode-CONTEXTxBATCH" },
    { { "--model-shape", "tiny", "--rows", "" }, "names none" },
    { { "--model-shape", "tiny", "--rows", "prefill-1000000" }, "positions" },
    { { "--model-shape", "tiny", "--weights", "q5" }, "q5" },
    { { "--model-shape", "tiny", "--repeats", "0" }, "--repeats" },
    { { "--model-shape", "tiny", "--decode-tokens", "-1" }, "--decode-tokens" },
    { { "--model-shape", "tiny", "--model", "x" }, "exclude" },
    { { "--model-shape", "tiny", "stray" }, "stray" },
    { { "--model", nothing }, nothing },
    { { "--nonsense" }, "nonsense" },
    { { "--compare", no_rows }, "two files" },
    { { "--compare", no_rows, no_rows }, "rows" },
    { { "--compare", no_json, no_rows }, no_json },
    { { "--compare", nothing, no_rows }, nothing },
    { { "--model-shape", "78B", "--rows", "prefill-8" }, "of host memory" },
  };
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    const char *const *a = cases[i].args;
    g_autofree char *errors = run (TRUE, bench, a[0], a[1], a[2], a[3], a[4], NULL);
    g_assert_true (g_str_has_prefix (errors, "internvl-bench: "));
    check_contains (errors, cases[i].expected);
  }
}

static void
test_writer_refusals (void)
{
  g_autofree char *out = in_folder ("refused");
  g_free (run (TRUE, write_model, NULL));
  g_free (run (TRUE, write_model, "tiny", "q8", "folder", out, NULL));
  g_free (run (TRUE, write_model, "tiny", "f16", "zip", out, NULL));
  g_autofree char *internlm2 = run (TRUE, write_model, "2B", "f16", "gguf", out, NULL);
  check_contains (internlm2, "Qwen2");
  g_autofree char *full = run (TRUE, write_model, "tiny", "f16", "folder", "/dev/null/x", NULL);
  check_contains (full, "/dev/null/x");
}

static void
remove_tree (const char *path)
{
  GDir *dir = g_dir_open (path, 0, NULL);
  const char *name;
  while (dir && (name = g_dir_read_name (dir))) {
    g_autofree char *child = g_build_filename (path, name, NULL);
    remove_tree (child);
  }
  if (dir)
    g_dir_close (dir);
  g_remove (path);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_assert_cmpint (argc, ==, 3);
  bench = argv[1];
  write_model = argv[2];
  folder = g_dir_make_tmp ("internvl-test-bench-XXXXXX", NULL);
  g_assert_nonnull (folder);
  g_test_add_func ("/bench/json", test_json);
  g_test_add_func ("/bench/compare", test_compare);
  g_test_add_func ("/bench/refusals", test_refusals);
  g_test_add_func ("/bench/writer-refusals", test_writer_refusals);
  int status = g_test_run ();
  remove_tree (folder);
  g_free (folder);
  return status;
}
