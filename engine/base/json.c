#include "base/json.h"

#include <string.h>

#include "base/error.h"

/* Reads four hex digits; -1 if they aren't. */
static int
hex4 (const char *p, const char *end)
{
  int value = 0;
  if (end - p < 4)
    return -1;
  for (int i = 0; i < 4; i++) {
    int digit = g_ascii_xdigit_value (p[i]);
    if (digit < 0)
      return -1;
    value = value * 16 + digit;
  }
  return value;
}

/* Skips the rest of a string whose opening quote is behind P; NULL if there is something wrong with it. */
static const char *
skip_string (const char *p, const char *end)
{
  while (p < end) {
    unsigned char c = (unsigned char) *p++;
    if (c == '"')
      return p;
    if (c < 0x20)
      return NULL;
    if (c != '\\')
      continue;
    if (p == end || !strchr ("\"\\/bfnrtu", *p) || !*p)
      return NULL;
    if (*p++ != 'u')
      continue;
    int unit = hex4 (p, end);
    if (unit < 0)
      return NULL;
    p += 4;
    if (unit < 0xd800 || unit > 0xdfff)
      continue;
    if (unit > 0xdbff || end - p < 6 || p[0] != '\\' || p[1] != 'u')
      return NULL;
    unit = hex4 (p + 2, end);
    if (unit < 0xdc00 || unit > 0xdfff)
      return NULL;
    p += 6;
  }
  return NULL;
}

typedef struct {
  guint depth, n_values, n_members;
} Census;

/* Looks the text over before json-glib does. It needn't find what json-glib will refuse by itself. */
static const char *
inspect (const char *p, const char *end, Census *census)
{
  guint digits = 0;
  gboolean fraction = FALSE;
  while (p < end) {
    char c = *p++;
    if (g_ascii_isdigit (c)) {
      if (++digits > 18 && !fraction)
        return "a number of more than 18 digits";
      continue;
    }
    digits = 0;
    fraction = c == '.';
    switch (c) {
    case '"':
      if (!(p = skip_string (p, end)))
        return "a string without end, with raw control characters or with a bad escape";
      break;
    case '{':
    case '[':
      if (++census->depth > IVL_JSON_MAX_DEPTH)
        return "nested too deeply";
      census->n_values++;
      break;
    case '}':
    case ']':
      if (census->depth-- == 0)
        return "a closing bracket too many";
      break;
    case ':':
      census->n_members++;
      break;
    case ',':
      census->n_values++;
      break;
    default:
      /* The letters of true, false, null and of exponents. */
      if (!c || !strchr (" \t\r\n.+-eEtrufalsn", c))
        return "not JSON";
    }
    if (census->n_values > IVL_JSON_MAX_VALUES)
      return "too many values";
  }
  return census->depth ? "ends too early" : NULL;
}

static guint count_members (JsonNode *node);

static void
count_in_object (JsonObject *object, const char *name, JsonNode *node, gpointer count)
{
  *(guint *) count += 1 + count_members (node);
}

static void
count_in_array (JsonArray *array, guint i, JsonNode *node, gpointer count)
{
  *(guint *) count += count_members (node);
}

static guint
count_members (JsonNode *node)
{
  guint count = 0;
  if (JSON_NODE_HOLDS_OBJECT (node))
    json_object_foreach_member (json_node_get_object (node), count_in_object, &count);
  else if (JSON_NODE_HOLDS_ARRAY (node))
    json_array_foreach_element (json_node_get_array (node), count_in_array, &count);
  return count;
}

JsonNode *
ivl_json_parse (const char *name, const char *data, gsize bytes, GError **error)
{
  const char *bad;
  Census census = { 0 };
  if (!g_utf8_validate_len (data, bytes, &bad)) {
    ivl_fail (error, IVL_ERROR_BAD_MODEL, "%s: not UTF-8 at byte %zu", name, (gsize) (bad - data));
    return NULL;
  }
  const char *fault = inspect (data, data + bytes, &census);
  if (fault) {
    ivl_fail (error, IVL_ERROR_BAD_MODEL, "%s: corrupt: %s", name, fault);
    return NULL;
  }
  /* Sealed below: json-glib 1.10's own immutable parser leaves some roots unsealed, and aborts when they are taken. */
  g_autoptr (JsonParser) parser = json_parser_new ();
  g_autoptr (GError) inner = NULL;
  if (bytes > G_MAXSSIZE || !json_parser_load_from_data (parser, data, (gssize) bytes, &inner)) {
    /* It cites the text, and may cut it within a character. */
    g_autofree char *cause = g_utf8_make_valid (inner ? inner->message : "too long", -1);
    ivl_fail (error, IVL_ERROR_BAD_MODEL, "%s: corrupt: %s", name, cause);
    return NULL;
  }
  JsonNode *root = json_parser_steal_root (parser);
  if (!root) {
    ivl_fail (error, IVL_ERROR_BAD_MODEL, "%s: empty", name);
    return NULL;
  }
  json_node_seal (root);
  if (count_members (root) != census.n_members) {
    json_node_unref (root);
    ivl_fail (error, IVL_ERROR_BAD_MODEL, "%s: corrupt: a key is given twice", name);
    return NULL;
  }
  return root;
}

JsonObject *
ivl_json_parse_object (const char *name, const char *data, gsize bytes, GError **error)
{
  JsonNode *root = ivl_json_parse (name, data, bytes, error);
  if (!root)
    return NULL;
  JsonObject *object = JSON_NODE_HOLDS_OBJECT (root) ? json_node_dup_object (root) : NULL;
  json_node_unref (root);
  if (!object)
    ivl_fail (error, IVL_ERROR_BAD_MODEL, "%s: corrupt: not an object", name);
  return object;
}
