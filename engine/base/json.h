/* json-glib for texts that nobody vouches for. */
#ifndef IVL_BASE_JSON_H
#define IVL_BASE_JSON_H

#include <json-glib/json-glib.h>

#define IVL_JSON_MAX_DEPTH 32
#define IVL_JSON_MAX_VALUES (2u << 20) /* a tokenizer.json of 150,000 words has 0.6 million */

/* Parses strict JSON and refuses what json-glib takes or stumbles over: nesting beyond IVL_JSON_MAX_DEPTH (it
 * recurses), more than IVL_JSON_MAX_VALUES values, lone surrogates and bad escapes (they come out as invalid UTF-8, or
 * as other text), comments and assignments, integers beyond 18 digits (they would wrap), keys given twice (the last
 * would win). NAME stands in messages. The error is IVL_ERROR_BAD_MODEL. Free with json_node_unref. */
JsonNode *ivl_json_parse (const char *name, const char *data, gsize bytes, GError **error);

/* As above, and the root must be an object. Free with json_object_unref. */
JsonObject *ivl_json_parse_object (const char *name, const char *data, gsize bytes, GError **error);

#endif
