/* Members of JSON objects by type; for files of strangers, so a wrong type is no complaint but nothing found. */
#ifndef IVL_TEXT_JSON_GET_H
#define IVL_TEXT_JSON_GET_H

#include <json-glib/json-glib.h>

/* Each NULL, FALSE or FALLBACK if OBJECT or NODE (may be NULL) has nothing of that type. Borrowed. */
JsonObject *ivl_json_get_object (JsonObject *object, const char *name);
JsonArray *ivl_json_get_array (JsonObject *object, const char *name);
const char *ivl_json_get_string (JsonObject *object, const char *name);
gboolean ivl_json_get_boolean (JsonObject *object, const char *name, gboolean fallback);
gboolean ivl_json_has (JsonObject *object, const char *name); /* and it isn't null */
JsonObject *ivl_json_node_object (JsonNode *node);
const char *ivl_json_node_string (JsonNode *node);
/* An integer of 0 to MAX. */
gboolean ivl_json_node_uint (JsonNode *node, guint32 max, guint32 *value);

#endif
