/* From JSON Schema text to IvlSchemaNode: what is understood, and what the shortest value takes. */
#include "generate/schema.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/json.h"

/* Limits that no honest schema reaches; they bound what a step of the acceptor costs. */
#define MAX_SCHEMA_BYTES (1u << 20)
#define MAX_NODES 4096u
#define MAX_PROPERTIES 512u /* of one object */
#define MAX_LITERALS 4096u  /* of one enum */
#define MAX_LITERAL_BYTES 4096u
#define MAX_SHORTEST (1u << 20) /* bytes */
#define MAX_COUNT 1000000000u   /* minLength, maxItems, ... */

#define SAFE_INTEGER G_GINT64_CONSTANT (9007199254740991)
#define LARGEST_INTEGER G_GINT64_CONSTANT (999999999999999999)

typedef IvlSchemaNode Node;

typedef struct {
  IvlSchema *schema;
  GString *path; /* JSON pointer of what is being read */
  guint depth;
  GError **error;
} Compiler;

static gboolean bad (Compiler *c, const char *format, ...) G_GNUC_PRINTF (2, 3);

static gboolean
bad (Compiler *c, const char *format, ...)
{
  va_list args;
  va_start (args, format);
  g_autofree char *message = g_strdup_vprintf (format, args);
  va_end (args);
  /* Names are cut by bytes, maybe within a character. */
  g_autofree char *whole = g_strdup_printf ("json_schema: %.400s%s: %s", c->path->str, c->path->len > 400 ? "..." : "",
                                            message);
  g_autofree char *valid = g_utf8_make_valid (whole, -1);
  return ivl_fail (c->error, IVL_ERROR_BAD_ARGUMENT, "%s", valid);
}

static Node *compile (Compiler *c, JsonNode *json);

/* Goes down to KEY, and INDEX if that isn't -1; returns what to cut the path back to. */
static gsize
enter (Compiler *c, const char *key, int index)
{
  gsize before = c->path->len;
  g_string_append_c (c->path, '/');
  for (const char *p = key; *p; p++) {
    if (*p == '~')
      g_string_append (c->path, "~0");
    else if (*p == '/')
      g_string_append (c->path, "~1");
    else
      g_string_append_c (c->path, *p);
  }
  if (index >= 0)
    g_string_append_printf (c->path, "/%d", index);
  return before;
}

static Node *
new_node (Compiler *c, IvlSchemaKind kind)
{
  if (c->schema->nodes->len == MAX_NODES) {
    bad (c, "more than %u schemas within one", MAX_NODES);
    return NULL;
  }
  Node *node = g_new0 (Node, 1);
  node->kind = kind;
  node->texts = g_ptr_array_new_with_free_func (g_free);
  node->children = g_ptr_array_new ();
  g_ptr_array_add (c->schema->nodes, node);
  return node;
}

static void
node_free (gpointer data)
{
  Node *node = data;
  g_ptr_array_unref (node->texts);
  g_ptr_array_unref (node->children);
  g_free (node->reach);
  g_free (node->rest);
  g_free (node);
}

/* ---- keywords ---- */

static const char *const annotations[] = { "$schema", "$id", "$comment", "title", "description", "default", "examples",
                                           "deprecated", "readOnly", "writeOnly", NULL };

/* Refuses what is neither in KNOWN nor an annotation. */
static gboolean
check_keywords (Compiler *c, JsonObject *object, const char *what, const char *const *known)
{
  g_autoptr (GList) names = json_object_get_members (object);
  for (GList *l = names; l; l = l->next) {
    const char *name = l->data;
    if (g_strv_contains (known, name) || g_strv_contains (annotations, name) || strcmp (name, "type") == 0)
      continue;
    return bad (c, "keyword \"%.80s\" is not supported%s%s", name, *what ? " with " : "", what);
  }
  return TRUE;
}

/* A number without fraction, of type integer or, as 3.0 and 3e0 are, double. */
static gboolean
get_integer (JsonNode *node, gint64 *value)
{
  if (!JSON_NODE_HOLDS_VALUE (node))
    return FALSE;
  GType type = json_node_get_value_type (node);
  if (type == G_TYPE_INT64) {
    *value = json_node_get_int (node);
    return TRUE;
  }
  double real = json_node_get_double (node);
  if (type != G_TYPE_DOUBLE || !(fabs (real) <= (double) SAFE_INTEGER) || real != floor (real))
    return FALSE;
  *value = (gint64) real;
  return TRUE;
}

static gboolean
get_count (Compiler *c, JsonObject *object, const char *name, guint *count)
{
  gint64 value;
  if (!json_object_has_member (object, name))
    return TRUE;
  if (!get_integer (json_object_get_member (object, name), &value) || value < 0 || value > MAX_COUNT)
    return bad (c, "\"%s\" must be an integer of 0 to %u", name, MAX_COUNT);
  *count = (guint) value;
  return TRUE;
}

static gboolean
get_counts (Compiler *c, JsonObject *object, const char *least, const char *most, Node *node)
{
  node->max = G_MAXUINT;
  if (!get_count (c, object, least, &node->min) || !get_count (c, object, most, &node->max))
    return FALSE;
  if (node->min > node->max)
    return bad (c, "\"%s\" is %u, more than \"%s\", %u: no value is valid", least, node->min, most, node->max);
  return TRUE;
}

/* ---- literals ---- */

static void
append_string (GString *out, const char *text)
{
  g_string_append_c (out, '"');
  for (const char *p = text; *p; p++) {
    if (*p == '"' || *p == '\\')
      g_string_append_printf (out, "\\%c", *p);
    else if ((guint8) *p < 0x20)
      g_string_append_printf (out, "\\u%04x", (guint8) *p);
    else
      g_string_append_c (out, *p);
  }
  g_string_append_c (out, '"');
}

static gint
compare_texts (gconstpointer a, gconstpointer b)
{
  return strcmp (*(const char *const *) a, *(const char *const *) b);
}

static gboolean
is_of_type (JsonNode *value, const char *type)
{
  gint64 integer;
  GType held = JSON_NODE_HOLDS_VALUE (value) ? json_node_get_value_type (value) : G_TYPE_INVALID;
  if (strcmp (type, "object") == 0)
    return JSON_NODE_HOLDS_OBJECT (value);
  if (strcmp (type, "array") == 0)
    return JSON_NODE_HOLDS_ARRAY (value);
  if (strcmp (type, "null") == 0)
    return JSON_NODE_HOLDS_NULL (value);
  if (strcmp (type, "string") == 0)
    return held == G_TYPE_STRING;
  if (strcmp (type, "boolean") == 0)
    return held == G_TYPE_BOOLEAN;
  if (strcmp (type, "integer") == 0)
    return get_integer (value, &integer);
  return held == G_TYPE_INT64 || held == G_TYPE_DOUBLE;
}

static gboolean
add_literal (Compiler *c, Node *node, JsonNode *value, const char *type)
{
  if (type && !is_of_type (value, type))
    return bad (c, "the value is not of \"type\" %s", type);
  /* json-glib's text of strings and odd numbers isn't JSON always: believe only what reads back as the same. */
  g_autofree char *text = NULL;
  if (JSON_NODE_HOLDS_VALUE (value) && json_node_get_value_type (value) == G_TYPE_STRING) {
    GString *out = g_string_new (NULL);
    append_string (out, json_node_get_string (value));
    text = g_string_free (out, FALSE);
  } else {
    text = json_to_string (value, FALSE);
  }
  gsize n = strlen (text);
  if (n > MAX_LITERAL_BYTES)
    return bad (c, "a value of %zu bytes; %u are the most", n, MAX_LITERAL_BYTES);
  JsonNode *back = ivl_json_parse ("value", text, n, NULL);
  gboolean same = back && json_node_equal (back, value);
  g_clear_pointer (&back, json_node_unref);
  if (!same)
    return bad (c, "the value can't be written exactly");
  g_ptr_array_add (node->texts, g_steal_pointer (&text));
  return TRUE;
}

static void
finish_literal (Node *node)
{
  g_ptr_array_sort (node->texts, compare_texts);
  for (guint i = node->texts->len; i-- > 1;)
    if (strcmp (node->texts->pdata[i], node->texts->pdata[i - 1]) == 0)
      g_ptr_array_remove_index (node->texts, i);
  node->n = node->texts->len;
  node->min_bytes = G_MAXUINT64;
  for (guint i = 0; i < node->n; i++)
    node->min_bytes = MIN (node->min_bytes, strlen (node->texts->pdata[i]));
}

static gboolean
compile_literals (Compiler *c, JsonObject *object, Node *node, const char *type)
{
  gboolean is_const = json_object_has_member (object, "const");
  const char *keyword = is_const ? "const" : "enum";
  JsonNode *given = json_object_get_member (object, keyword);
  if (!check_keywords (c, object, keyword, (const char *const[]){ keyword, NULL }))
    return FALSE;
  if (is_const) {
    gsize before = enter (c, keyword, -1);
    if (!add_literal (c, node, given, type))
      return FALSE;
    g_string_truncate (c->path, before);
  } else {
    JsonArray *values = JSON_NODE_HOLDS_ARRAY (given) ? json_node_get_array (given) : NULL;
    guint n = values ? json_array_get_length (values) : 0;
    if (n == 0 || n > MAX_LITERALS)
      return bad (c, "\"enum\" must be an array of 1 to %u values", MAX_LITERALS);
    for (guint i = 0; i < n; i++) {
      gsize before = enter (c, keyword, (int) i);
      if (!add_literal (c, node, json_array_get_element (values, i), type))
        return FALSE;
      g_string_truncate (c->path, before);
    }
  }
  finish_literal (node);
  return TRUE;
}

static gboolean
compile_words (Compiler *c, JsonObject *object, Node *node, const char *type, const char *const *words)
{
  if (!check_keywords (c, object, type, (const char *const[]){ NULL }))
    return FALSE;
  for (; *words; words++)
    g_ptr_array_add (node->texts, g_strdup (*words));
  finish_literal (node);
  return TRUE;
}

/* ---- the types ---- */

static gboolean
get_properties (Compiler *c, JsonObject *object, GList **names, JsonObject **properties)
{
  JsonNode *given = json_object_get_member (object, "properties");
  *names = NULL;
  *properties = NULL;
  if (!given)
    return TRUE;
  if (!JSON_NODE_HOLDS_OBJECT (given))
    return bad (c, "\"properties\" must be an object");
  *properties = json_node_get_object (given);
  if (json_object_get_size (*properties) > MAX_PROPERTIES)
    return bad (c, "\"properties\" has %u members; %u are the most", json_object_get_size (*properties), MAX_PROPERTIES);
  *names = json_object_get_members (*properties);
  return TRUE;
}

static gboolean
get_required (Compiler *c, JsonObject *object, JsonObject *properties, GHashTable *required)
{
  JsonNode *given = json_object_get_member (object, "required");
  if (!given)
    return TRUE;
  if (!JSON_NODE_HOLDS_ARRAY (given))
    return bad (c, "\"required\" must be an array of names");
  JsonArray *array = json_node_get_array (given);
  for (guint i = 0; i < json_array_get_length (array); i++) {
    JsonNode *name = json_array_get_element (array, i);
    if (!JSON_NODE_HOLDS_VALUE (name) || json_node_get_value_type (name) != G_TYPE_STRING)
      return bad (c, "\"required\" must be an array of names");
    if (!properties || !json_object_has_member (properties, json_node_get_string (name)))
      return bad (c, "\"required\" names \"%.80s\", which is not in \"properties\"", json_node_get_string (name));
    g_hash_table_add (required, (gpointer) json_node_get_string (name));
  }
  return TRUE;
}

static gboolean
compile_object (Compiler *c, JsonObject *object, Node *node)
{
  static const char *const known[] = { "properties", "required", "additionalProperties", NULL };
  g_autoptr (GList) names = NULL;
  g_autoptr (GHashTable) required = g_hash_table_new (g_str_hash, g_str_equal);
  JsonObject *properties;
  if (!check_keywords (c, object, "object", known))
    return FALSE;
  JsonNode *more = json_object_get_member (object, "additionalProperties");
  if (more
      && !(JSON_NODE_HOLDS_VALUE (more) && json_node_get_value_type (more) == G_TYPE_BOOLEAN
           && !json_node_get_boolean (more)))
    return bad (c, "\"additionalProperties\" is supported as false only, which is the default here");
  if (!get_properties (c, object, &names, &properties) || !get_required (c, object, properties, required))
    return FALSE;

  g_autoptr (GArray) needed = g_array_new (FALSE, FALSE, sizeof (gboolean));
  for (GList *l = names; l; l = l->next) {
    gsize before = enter (c, "properties", -1);
    enter (c, l->data, -1);
    Node *child = compile (c, json_object_get_member (properties, l->data));
    if (!child)
      return FALSE;
    g_string_truncate (c->path, before);
    GString *key = g_string_new (NULL);
    append_string (key, l->data);
    g_string_append_c (key, ':');
    g_ptr_array_add (node->texts, g_string_free (key, FALSE));
    g_ptr_array_add (node->children, child);
    gboolean need = g_hash_table_contains (required, l->data);
    g_array_append_val (needed, need);
  }
  guint n = node->n = node->texts->len;
  node->reach = g_new0 (guint, n + 1);
  node->rest = g_new0 (guint64, n + 1);
  node->rest[n] = 1;
  for (guint i = n; i-- > 0;) {
    gboolean need = g_array_index (needed, gboolean, i);
    const Node *child = node->children->pdata[i];
    node->reach[i] = need || i + 1 == n ? i : node->reach[i + 1];
    node->rest[i] = node->rest[i + 1] + (need ? 1 + strlen (node->texts->pdata[i]) + child->min_bytes : 0);
  }
  /* The first property has no comma before it. */
  node->min_bytes = 1 + node->rest[0] - (node->rest[0] > 1);
  return TRUE;
}

static gboolean
compile_array (Compiler *c, JsonObject *object, Node *node)
{
  static const char *const known[] = { "items", "minItems", "maxItems", NULL };
  if (!check_keywords (c, object, "array", known) || !get_counts (c, object, "minItems", "maxItems", node))
    return FALSE;
  if (!json_object_has_member (object, "items"))
    return bad (c, "an array needs \"items\"");
  gsize before = enter (c, "items", -1);
  Node *items = compile (c, json_object_get_member (object, "items"));
  if (!items)
    return FALSE;
  g_string_truncate (c->path, before);
  g_ptr_array_add (node->children, items);
  node->min_bytes = 2 + (node->min ? node->min * (1 + items->min_bytes) - 1 : 0);
  return TRUE;
}

static gboolean
compile_string (Compiler *c, JsonObject *object, Node *node)
{
  static const char *const known[] = { "minLength", "maxLength", NULL };
  if (!check_keywords (c, object, "string", known) || !get_counts (c, object, "minLength", "maxLength", node))
    return FALSE;
  node->min_bytes = 2 + (guint64) node->min;
  return TRUE;
}

static gboolean
get_bound (Compiler *c, JsonObject *object, const char *name, gint64 *bound)
{
  if (!json_object_has_member (object, name))
    return TRUE;
  if (!get_integer (json_object_get_member (object, name), bound) || *bound > LARGEST_INTEGER
      || *bound < -LARGEST_INTEGER)
    return bad (c, "\"%s\" must be an integer of at most 18 digits", name);
  return TRUE;
}

static guint64
shortest_integer (const Node *node)
{
  guint64 digits = 1, limit = 10;
  if (node->positive[0] <= node->positive[1]) {
    for (; node->positive[0] >= limit; limit *= 10)
      digits++;
    /* A minus sign never makes a number of fewer characters than one digit. */
    if (digits == 1 || node->negative[0] > node->negative[1])
      return digits;
  }
  guint64 negative = 2;
  for (limit = 10; node->negative[0] >= limit; limit *= 10)
    negative++;
  return node->positive[0] <= node->positive[1] ? MIN (digits, negative) : negative;
}

static gboolean
compile_integer (Compiler *c, JsonObject *object, Node *node)
{
  static const char *const known[] = { "minimum", "maximum", NULL };
  gint64 low = -SAFE_INTEGER, high = SAFE_INTEGER;
  if (!check_keywords (c, object, "integer", known) || !get_bound (c, object, "minimum", &low)
      || !get_bound (c, object, "maximum", &high))
    return FALSE;
  if (low > high)
    return bad (c, "\"minimum\" and \"maximum\" leave no integer (what isn't given is 2^53 - 1)");
  node->positive[0] = (guint64) MAX (low, 0);
  node->positive[1] = (guint64) MAX (high, 0);
  if (high < 0)
    node->positive[0] = 1, node->positive[1] = 0;
  node->negative[0] = (guint64) MAX (-high, 1);
  node->negative[1] = (guint64) MAX (-low, 0);
  node->min_bytes = shortest_integer (node);
  return TRUE;
}

static gboolean
compile_typed (Compiler *c, JsonObject *object, Node *node, const char *type)
{
  switch (node->kind) {
  case IVL_SCHEMA_OBJECT:
    return compile_object (c, object, node);
  case IVL_SCHEMA_ARRAY:
    return compile_array (c, object, node);
  case IVL_SCHEMA_STRING:
    return compile_string (c, object, node);
  case IVL_SCHEMA_INTEGER:
    return compile_integer (c, object, node);
  case IVL_SCHEMA_NUMBER:
    node->min_bytes = 1;
    return check_keywords (c, object, "number", (const char *const[]){ NULL });
  default:
    return compile_words (c, object, node, type,
                          strcmp (type, "null") == 0 ? (const char *const[]){ "null", NULL }
                                                     : (const char *const[]){ "false", "true", NULL });
  }
}

static Node *
compile (Compiler *c, JsonNode *json)
{
  static const struct {
    const char *name;
    IvlSchemaKind kind;
  } types[] = { { "object", IVL_SCHEMA_OBJECT },   { "array", IVL_SCHEMA_ARRAY },   { "string", IVL_SCHEMA_STRING },
                { "integer", IVL_SCHEMA_INTEGER }, { "number", IVL_SCHEMA_NUMBER }, { "boolean", IVL_SCHEMA_LITERAL },
                { "null", IVL_SCHEMA_LITERAL } };
  JsonObject *object = JSON_NODE_HOLDS_OBJECT (json) ? json_node_get_object (json) : NULL;
  if (!object) {
    bad (c, "a schema must be an object");
    return NULL;
  }
  if (c->depth == IVL_SCHEMA_MAX_DEPTH) {
    bad (c, "nested too deeply");
    return NULL;
  }
  gboolean literal = json_object_has_member (object, "enum") || json_object_has_member (object, "const");
  JsonNode *type_node = json_object_get_member (object, "type");
  const char *type = NULL;
  guint t = 0;
  if (type_node) {
    if (JSON_NODE_HOLDS_VALUE (type_node) && json_node_get_value_type (type_node) == G_TYPE_STRING)
      type = json_node_get_string (type_node);
    while (type && t < G_N_ELEMENTS (types) && strcmp (types[t].name, type) != 0)
      t++;
    if (!type || t == G_N_ELEMENTS (types)) {
      bad (c, "\"type\" must be one of object, array, string, integer, number, boolean, null");
      return NULL;
    }
  } else if (!literal) {
    /* Names a keyword that is the reason, if there is one. */
    if (check_keywords (c, object, "", (const char *const[]){ NULL }))
      bad (c, "a schema needs \"type\", \"enum\" or \"const\"");
    return NULL;
  }
  Node *node = new_node (c, literal ? IVL_SCHEMA_LITERAL : types[t].kind);
  if (!node)
    return NULL;
  c->depth++;
  gboolean ok = literal ? compile_literals (c, object, node, type) : compile_typed (c, object, node, type);
  c->depth--;
  if (ok && node->min_bytes > MAX_SHORTEST)
    ok = bad (c, "the shortest valid value has more than %u bytes", MAX_SHORTEST);
  return ok ? node : NULL;
}

IvlSchema *
ivl_schema_new (const char *text, GError **error)
{
  gsize n = strlen (text);
  if (n > MAX_SCHEMA_BYTES) {
    ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "json_schema: %zu bytes; %u are the most", n, MAX_SCHEMA_BYTES);
    return NULL;
  }
  /* json-glib ends strings there, so that a name or a value would be another. */
  if (strstr (text, "\\u0000")) {
    ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "json_schema: \\u0000 is not supported");
    return NULL;
  }
  g_autoptr (GError) inner = NULL;
  JsonNode *json = ivl_json_parse ("json_schema", text, n, &inner);
  if (!json) {
    ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "%s", inner->message);
    return NULL;
  }
  IvlSchema *self = g_new0 (IvlSchema, 1);
  self->nodes = g_ptr_array_new_with_free_func (node_free);
  Compiler c = { self, g_string_new ("#"), 0, error };
  self->root = compile (&c, json);
  g_string_free (c.path, TRUE);
  json_node_unref (json);
  if (!self->root)
    g_clear_pointer (&self, ivl_schema_free);
  return self;
}

void
ivl_schema_free (IvlSchema *self)
{
  if (!self)
    return;
  g_ptr_array_unref (self->nodes);
  g_free (self);
}
