#include "tools/bench.h"

#include <stdio.h>

static JsonObject *
read_result (const char *path, JsonParser **parser, GError **error)
{
  *parser = json_parser_new ();
  if (!json_parser_load_from_file (*parser, path, error)) {
    g_prefix_error (error, "%s: ", path);
    return NULL;
  }
  JsonNode *root = json_parser_get_root (*parser);
  JsonObject *object = root && JSON_NODE_HOLDS_OBJECT (root) ? json_node_get_object (root) : NULL;
  JsonNode *rows = object ? json_object_get_member (object, "rows") : NULL;
  if (rows && JSON_NODE_HOLDS_OBJECT (rows))
    return object;
  ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "%s: no result of internvl-bench --json: there is no object \"rows\"", path);
  return NULL;
}

/* Of any type that prints. "" if there is none. */
static char *
text_of (JsonObject *object, const char *key)
{
  JsonNode *node = json_object_get_member (object, key);
  if (!node || !JSON_NODE_HOLDS_VALUE (node))
    return g_strdup ("");
  return json_node_get_value_type (node) == G_TYPE_STRING ? json_node_dup_string (node)
                                                          : g_strdup_printf ("%.6g", json_node_get_double (node));
}

static double
number_of (JsonObject *object, const char *key)
{
  JsonNode *node = object ? json_object_get_member (object, key) : NULL;
  return node && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) != G_TYPE_STRING ? json_node_get_double (node)
                                                                                                : 0;
}

static JsonObject *
object_of (JsonObject *object, const char *key)
{
  JsonNode *node = object ? json_object_get_member (object, key) : NULL;
  return node && JSON_NODE_HOLDS_OBJECT (node) ? json_node_get_object (node) : NULL;
}

static void
print_line (const char *name, double a, double b, const char *unit, const char *note)
{
  printf ("%-24s ", name);
  if (a > 0)
    printf ("%12.2f ", a);
  else
    printf ("%12s ", "-");
  if (b > 0)
    printf ("%12.2f ", b);
  else
    printf ("%12s ", "-");
  if (a > 0 && b > 0)
    printf ("%7.3f ", b / a);
  else
    printf ("%7s ", "-");
  printf ("%s%s\n", unit, note);
}

static void
print_kernels (JsonObject *a, JsonObject *b)
{
  g_autoptr (GHashTable) others = g_hash_table_new (g_str_hash, g_str_equal);
  JsonArray *of_a = a && json_object_has_member (a, "kernels") ? json_object_get_array_member (a, "kernels") : NULL;
  JsonArray *of_b = b && json_object_has_member (b, "kernels") ? json_object_get_array_member (b, "kernels") : NULL;
  for (guint i = 0; of_b && i < json_array_get_length (of_b); i++) {
    JsonObject *kernel = json_array_get_object_element (of_b, i);
    g_hash_table_insert (others, (gpointer) json_object_get_string_member_with_default (kernel, "name", ""), kernel);
  }
  for (guint i = 0; of_a && i < json_array_get_length (of_a); i++) {
    JsonObject *kernel = json_array_get_object_element (of_a, i);
    const char *name = json_object_get_string_member_with_default (kernel, "name", "");
    g_autofree char *label = g_strconcat ("  ", name, NULL);
    print_line (label, number_of (kernel, "ms"), number_of (g_hash_table_lookup (others, name), "ms"), "ms", "");
    g_hash_table_remove (others, name);
  }
  for (guint i = 0; of_b && i < json_array_get_length (of_b); i++) {
    JsonObject *kernel = json_array_get_object_element (of_b, i);
    const char *name = json_object_get_string_member_with_default (kernel, "name", "");
    g_autofree char *label = g_strconcat ("  ", name, NULL);
    if (g_hash_table_contains (others, name))
      print_line (label, 0, number_of (kernel, "ms"), "ms", "");
  }
}

static void
print_row (const char *name, JsonObject *a, JsonObject *b)
{
  g_autofree char *unit = text_of (a ? a : b, "unit");
  g_autofree char *hash_a = a ? text_of (a, "logits_hash") : g_strdup (""), *hash_b = b ? text_of (b, "logits_hash") : g_strdup ("");
  const char *note = !*hash_a || !*hash_b ? "" : g_str_equal (hash_a, hash_b) ? ", same logits" : ", OTHER logits";
  print_line (name, number_of (a, "value"), number_of (b, "value"), unit, note);
  g_autofree char *cpu = g_strconcat ("  cpu", NULL);
  print_line (cpu, number_of (a, "cpu_seconds"), number_of (b, "cpu_seconds"), "CPU-seconds", "");
  print_kernels (a, b);
}

gboolean
bench_compare (const char *path_a, const char *path_b, GError **error)
{
  g_autoptr (JsonParser) parser_a = NULL, parser_b = NULL;
  JsonObject *a = read_result (path_a, &parser_a, error), *b = a ? read_result (path_b, &parser_b, error) : NULL;
  if (!b)
    return FALSE;
  static const char *const facts[] = { "date", "device", "driver", "model", "weights" };
  for (guint i = 0; i < G_N_ELEMENTS (facts); i++) {
    g_autofree char *x = text_of (a, facts[i]), *y = text_of (b, facts[i]);
    printf ("%-10s A %s\n%-10s B %s\n", facts[i], x, "", y);
  }
  printf ("\n%-24s %12s %12s %7s\n", "row", "A", "B", "B / A");
  static const char *const peaks[] = { "gflops", "gb_per_s" };
  for (guint i = 0; i < G_N_ELEMENTS (peaks); i++)
    print_line (i ? "peak, reading" : "peak, arithmetic", number_of (object_of (a, "peak"), peaks[i]),
                number_of (object_of (b, "peak"), peaks[i]), i ? "GB/s" : "GFLOP/s", "");
  JsonObject *rows_a = json_object_get_object_member (a, "rows"), *rows_b = json_object_get_object_member (b, "rows");
  g_autoptr (GList) of_a = json_object_get_members (rows_a), of_b = json_object_get_members (rows_b);
  for (GList *l = of_a; l; l = l->next)
    print_row (l->data, object_of (rows_a, l->data), object_of (rows_b, l->data));
  for (GList *l = of_b; l; l = l->next)
    if (!json_object_has_member (rows_a, l->data))
      print_row (l->data, NULL, object_of (rows_b, l->data));
  static const char *const memories[] = { "host_peak_bytes", "device_peak_bytes" };
  for (guint i = 0; i < G_N_ELEMENTS (memories); i++)
    print_line (memories[i], number_of (object_of (a, "memory"), memories[i]) / 1e6,
                number_of (object_of (b, "memory"), memories[i]) / 1e6, "MB", "");
  return TRUE;
}
