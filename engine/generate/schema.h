/* A subset of JSON Schema, and a byte-level acceptor for the texts that it allows: a stack of frames, one per open
 * value, which says of each next byte whether some valid text still begins so, and how many bytes the shortest way to
 * the end has. Nothing here knows of tokens.
 *
 * The texts: compact JSON, with one space allowed after ':' and ','; properties in the schema's order, optional ones
 * may be missing; strings of valid UTF-8 without surrogate escapes and \u0000 (characters beyond U+FFFF stand for
 * themselves); integers of at most 2^53 - 1 unless the schema sets bounds; other numbers with at most 15 digits before
 * and behind the point and 2 in the exponent. */
#ifndef IVL_GENERATE_SCHEMA_H
#define IVL_GENERATE_SCHEMA_H

#include <glib.h>

/* Values within values. ivl_json_parse refuses texts that nest deeper, so no schema gets here. */
#define IVL_SCHEMA_MAX_DEPTH 32

typedef enum {
  IVL_SCHEMA_OBJECT,
  IVL_SCHEMA_ARRAY,
  IVL_SCHEMA_STRING,
  IVL_SCHEMA_INTEGER,
  IVL_SCHEMA_NUMBER,
  IVL_SCHEMA_LITERAL, /* one of some texts: enum, const, boolean, null */
} IvlSchemaKind;

typedef struct IvlSchemaNode IvlSchemaNode;

struct IvlSchemaNode {
  IvlSchemaKind kind;
  guint64 min_bytes;        /* of the shortest value */
  GPtrArray *texts;         /* char *. object: keys as `"key":`, in order; literal: values, sorted */
  GPtrArray *children;      /* borrowed nodes. object: values of the keys; array: the items' */
  guint n;                  /* of texts */
  guint *reach;             /* object, [n]: the last property that may come next when those before I are done */
  guint64 *rest;            /* object, [n + 1]: least bytes from behind a value to the end, properties before I done */
  guint min, max;           /* array: items; string: characters; max G_MAXUINT: any number */
  guint64 positive[2], negative[2]; /* integer: magnitudes allowed; first > last: none */
};

typedef struct {
  GPtrArray *nodes;         /* owned */
  const IvlSchemaNode *root;
} IvlSchema;

/* Compiles TEXT. Fails with IVL_ERROR_BAD_ARGUMENT, naming the place as a JSON pointer and the keyword: what isn't
 * understood is refused, never ignored (but for annotations such as title and description). */
IvlSchema *ivl_schema_new (const char *text, GError **error);
void ivl_schema_free (IvlSchema *schema); /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC (IvlSchema, ivl_schema_free)

/* What is known of an open value. Unused members are zero, so that equal states are equal bytes. */
typedef struct {
  const IvlSchemaNode *node;
  guint64 below;            /* least bytes that the values round this one need after it */
  guint64 value;            /* characters, items, or an integer's magnitude so far */
  guint32 phase, first, at, pos; /* see schema-accept.c */
} IvlSchemaFrame;

typedef struct {
  guint depth;              /* 0: the text is over */
  IvlSchemaFrame frames[IVL_SCHEMA_MAX_DEPTH];
} IvlSchemaState;

void ivl_schema_state_init (IvlSchemaState *state, const IvlSchema *schema);
void ivl_schema_state_copy (IvlSchemaState *to, const IvlSchemaState *from);
/* FALSE if no valid text goes on with BYTE; STATE is then of no use any more. */
gboolean ivl_schema_state_feed (IvlSchemaState *state, guint8 byte);
/* The length of the shortest end; 0 if the text so far is valid as it is. */
guint64 ivl_schema_state_min_bytes (const IvlSchemaState *state);
/* Whether a string's content goes on, between two characters; how many more it may have (G_MAXUINT: any number), and
 * how many it must. What bytes other than a quote may follow then depends on this alone. */
gboolean ivl_schema_state_in_string (const IvlSchemaState *state, guint *most, guint *least);

#endif
