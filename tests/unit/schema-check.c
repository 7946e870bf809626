#include "schema-check.h"

#include <math.h>
#include <string.h>

static gboolean valid (JsonObject *schema, JsonNode *value);

static gboolean
is_integer (JsonNode *value)
{
  return JSON_NODE_HOLDS_VALUE (value) && json_node_get_value_type (value) == G_TYPE_INT64;
}

static gboolean
in_range (JsonObject *schema, const char *least, const char *most, gint64 n)
{
  return (!json_object_has_member (schema, least) || n >= json_object_get_int_member (schema, least))
         && (!json_object_has_member (schema, most) || n <= json_object_get_int_member (schema, most));
}

static gboolean
valid_object (JsonObject *schema, JsonNode *value)
{
  if (!JSON_NODE_HOLDS_OBJECT (value))
    return FALSE;
  JsonObject *object = json_node_get_object (value);
  JsonObject *properties
    = json_object_has_member (schema, "properties") ? json_object_get_object_member (schema, "properties") : NULL;
  g_autoptr (GList) order = properties ? json_object_get_members (properties) : NULL;
  g_autoptr (GList) found = json_object_get_members (object);
  GList *next = order;
  for (GList *l = found; l; l = l->next) {
    while (next && strcmp (next->data, l->data) != 0)
      next = next->next;
    if (!next || !valid (json_object_get_object_member (properties, l->data), json_object_get_member (object, l->data)))
      return FALSE;
    next = next->next;
  }
  if (json_object_has_member (schema, "required")) {
    JsonArray *required = json_object_get_array_member (schema, "required");
    for (guint i = 0; i < json_array_get_length (required); i++)
      if (!json_object_has_member (object, json_array_get_string_element (required, i)))
        return FALSE;
  }
  return TRUE;
}

static gboolean
valid_array (JsonObject *schema, JsonNode *value)
{
  if (!JSON_NODE_HOLDS_ARRAY (value))
    return FALSE;
  JsonArray *array = json_node_get_array (value);
  for (guint i = 0; i < json_array_get_length (array); i++)
    if (!valid (json_object_get_object_member (schema, "items"), json_array_get_element (array, i)))
      return FALSE;
  return in_range (schema, "minItems", "maxItems", json_array_get_length (array));
}

static gboolean
valid (JsonObject *schema, JsonNode *value)
{
  if (json_object_has_member (schema, "const"))
    return json_node_equal (json_object_get_member (schema, "const"), value);
  if (json_object_has_member (schema, "enum")) {
    JsonArray *values = json_object_get_array_member (schema, "enum");
    for (guint i = 0; i < json_array_get_length (values); i++)
      if (json_node_equal (json_array_get_element (values, i), value))
        return TRUE;
    return FALSE;
  }
  const char *type = json_object_get_string_member (schema, "type");
  if (strcmp (type, "object") == 0)
    return valid_object (schema, value);
  if (strcmp (type, "array") == 0)
    return valid_array (schema, value);
  if (strcmp (type, "null") == 0)
    return JSON_NODE_HOLDS_NULL (value);
  if (!JSON_NODE_HOLDS_VALUE (value))
    return FALSE;
  GType held = json_node_get_value_type (value);
  if (strcmp (type, "string") == 0)
    return held == G_TYPE_STRING && g_utf8_validate (json_node_get_string (value), -1, NULL)
           && in_range (schema, "minLength", "maxLength", g_utf8_strlen (json_node_get_string (value), -1));
  if (strcmp (type, "boolean") == 0)
    return held == G_TYPE_BOOLEAN;
  if (strcmp (type, "integer") == 0)
    return is_integer (value) && in_range (schema, "minimum", "maximum", json_node_get_int (value));
  g_assert_cmpstr (type, ==, "number");
  return is_integer (value) || (held == G_TYPE_DOUBLE && isfinite (json_node_get_double (value)));
}

void
schema_check (const char *schema, const char *text)
{
  g_autoptr (JsonParser) rules = json_parser_new (), parser = json_parser_new ();
  g_autoptr (GError) error = NULL;
  g_assert_true (json_parser_load_from_data (rules, schema, -1, &error));
  if (!g_utf8_validate (text, -1, NULL) || !json_parser_load_from_data (parser, text, -1, &error)
      || !json_parser_get_root (parser)
      || !valid (json_node_get_object (json_parser_get_root (rules)), json_parser_get_root (parser)))
    g_error ("<<%s>> is not valid for %s: %s", text, schema, error ? error->message : "contradicts it");
}
