#include "text/json-get.h"

static JsonNode *
member (JsonObject *object, const char *name)
{
  return object ? json_object_get_member (object, name) : NULL;
}

static gboolean
holds (JsonNode *node, GType type)
{
  return node && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == type;
}

JsonObject *
ivl_json_node_object (JsonNode *node)
{
  return node && JSON_NODE_HOLDS_OBJECT (node) ? json_node_get_object (node) : NULL;
}

const char *
ivl_json_node_string (JsonNode *node)
{
  return holds (node, G_TYPE_STRING) ? json_node_get_string (node) : NULL;
}

gboolean
ivl_json_node_uint (JsonNode *node, guint32 max, guint32 *value)
{
  gint64 n = holds (node, G_TYPE_INT64) ? json_node_get_int (node) : -1;
  *value = (guint32) n;
  return n >= 0 && n <= max;
}

JsonObject *
ivl_json_get_object (JsonObject *object, const char *name)
{
  return ivl_json_node_object (member (object, name));
}

JsonArray *
ivl_json_get_array (JsonObject *object, const char *name)
{
  JsonNode *node = member (object, name);
  return node && JSON_NODE_HOLDS_ARRAY (node) ? json_node_get_array (node) : NULL;
}

const char *
ivl_json_get_string (JsonObject *object, const char *name)
{
  return ivl_json_node_string (member (object, name));
}

gboolean
ivl_json_get_boolean (JsonObject *object, const char *name, gboolean fallback)
{
  JsonNode *node = member (object, name);
  return holds (node, G_TYPE_BOOLEAN) ? json_node_get_boolean (node) : fallback;
}

gboolean
ivl_json_has (JsonObject *object, const char *name)
{
  JsonNode *node = member (object, name);
  return node && !JSON_NODE_HOLDS_NULL (node);
}
