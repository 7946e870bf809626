/* The acceptor of schema.h. Every step is decided by one byte; only a number doesn't say by itself where it ends, so it
 * stays open until a byte comes that can't be its own. */
#include "generate/schema.h"

#include <string.h>

/* Digits of numbers, so that they mean the same to whoever reads them. */
#define MAX_NUMBER_DIGITS 15
#define MAX_EXPONENT_DIGITS 2
#define MAX_INTEGER_DIGITS 18

typedef IvlSchemaNode Node;
typedef IvlSchemaFrame Frame;
typedef IvlSchemaState State;

/* STRING. value: characters so far, up to min if there is no max. */
enum {
  STRING_OPEN,
  STRING_CLEAN,
  STRING_ESCAPE,
  STRING_HEX,  /* first: the code so far; pos: digits so far */
  STRING_UTF8, /* first, at: what the next byte may be; pos: bytes to come */
};

/* OBJECT. first: properties before it are done; in KEY, pos bytes of the text of `at` are read. */
enum { OBJECT_OPEN, OBJECT_FIRST, OBJECT_COMMA, OBJECT_KEY, OBJECT_COLON, OBJECT_VALUE, OBJECT_AFTER };

/* ARRAY. value: items so far, up to min if there is no max. */
enum { ARRAY_OPEN, ARRAY_FIRST, ARRAY_COMMA, ARRAY_VALUE, ARRAY_AFTER };

/* INTEGER. value: magnitude; first: whether negative; pos: digits. */
enum { INTEGER_OPEN, INTEGER_MINUS, INTEGER_DIGITS };

/* NUMBER. pos: digits of the part. */
enum {
  NUMBER_OPEN,
  NUMBER_MINUS,
  NUMBER_ZERO,
  NUMBER_WHOLE,
  NUMBER_POINT,
  NUMBER_FRACTION,
  NUMBER_E,
  NUMBER_SIGN,
  NUMBER_EXPONENT,
};

typedef enum { NO, YES, POPPED /* and the byte is the parent's */ } Verdict;

static void
push (State *s, const Node *node, guint64 below)
{
  Frame *f = &s->frames[s->depth++];
  memset (f, 0, sizeof *f);
  f->node = node;
  f->below = below;
  if (node->kind == IVL_SCHEMA_LITERAL)
    f->at = node->n;
}

static Verdict
pop (State *s, Verdict verdict)
{
  s->depth--;
  return verdict;
}

/* ---- strings ---- */

static Verdict
begin_char (Frame *f)
{
  const Node *n = f->node;
  if (n->max == G_MAXUINT)
    f->value = MIN (f->value + 1, n->min);
  else if (f->value == n->max)
    return NO;
  else
    f->value++;
  return YES;
}

static Verdict
feed_string (State *s, Frame *f, guint8 b)
{
  switch (f->phase) {
  case STRING_OPEN:
    f->phase = STRING_CLEAN;
    return b == '"' ? YES : NO;
  case STRING_CLEAN:
    if (b == '"')
      return f->value >= f->node->min ? pop (s, YES) : NO;
    if (b < 0x20 || (b >= 0x80 && (b < 0xc2 || b > 0xf4)) || !begin_char (f))
      return NO;
    if (b == '\\') {
      f->phase = STRING_ESCAPE;
    } else if (b >= 0x80) {
      f->phase = STRING_UTF8;
      f->pos = b < 0xe0 ? 1 : b < 0xf0 ? 2 : 3;
      f->first = b == 0xe0 ? 0xa0 : b == 0xf0 ? 0x90 : 0x80;
      f->at = b == 0xed ? 0x9f : b == 0xf4 ? 0x8f : 0xbf;
    }
    return YES;
  case STRING_ESCAPE:
    if (!b || !strchr ("\"\\/bfnrtu", b))
      return NO;
    f->phase = b == 'u' ? STRING_HEX : STRING_CLEAN;
    return YES;
  case STRING_HEX: {
    int digit = g_ascii_xdigit_value ((char) b);
    if (digit < 0 || (f->pos == 1 && f->first == 0xd && digit > 7) || (f->pos == 3 && f->first == 0 && digit == 0))
      return NO;
    f->first = f->first << 4 | (guint) digit;
    if (++f->pos == 4) {
      f->phase = STRING_CLEAN;
      f->first = f->pos = 0;
    }
    return YES;
  }
  default:
    if (b < f->first || b > f->at)
      return NO;
    f->first = 0x80;
    f->at = 0xbf;
    if (--f->pos == 0) {
      f->phase = STRING_CLEAN;
      f->first = f->at = 0;
    }
    return YES;
  }
}

static guint64
min_string (const Frame *f)
{
  guint64 rest = 1 + (f->value < f->node->min ? f->node->min - f->value : 0);
  switch (f->phase) {
  case STRING_OPEN:
    return rest + 1;
  case STRING_ESCAPE:
    return rest + 1;
  case STRING_HEX:
    return rest + 4 - f->pos;
  case STRING_UTF8:
    return rest + f->pos;
  default:
    return rest;
  }
}

/* ---- objects ---- */

static Verdict
feed_key (Frame *f, guint8 b)
{
  const Node *n = f->node;
  const char *so_far = f->pos ? n->texts->pdata[f->at] : "";
  if (f->first == n->n)
    return NO;
  for (guint i = f->pos ? f->at : f->first; i <= n->reach[f->first]; i++) {
    const char *text = n->texts->pdata[i];
    if (strncmp (text, so_far, f->pos) != 0 || (guint8) text[f->pos] != b)
      continue;
    f->phase = OBJECT_KEY;
    f->at = i;
    /* Keys end in `":`, so none is the beginning of another. */
    if (!text[++f->pos]) {
      f->phase = OBJECT_COLON;
      f->first = i + 1;
      f->pos = 0;
    }
    return YES;
  }
  return NO;
}

static Verdict
feed_object (State *s, Frame *f, guint8 b)
{
  const Node *n = f->node;
  switch (f->phase) {
  case OBJECT_OPEN:
    f->phase = OBJECT_FIRST;
    return b == '{' ? YES : NO;
  case OBJECT_FIRST:
    if (b == '}')
      return n->rest[0] == 1 ? pop (s, YES) : NO;
    return feed_key (f, b);
  case OBJECT_COMMA:
    if (b == ' ') {
      f->phase = OBJECT_KEY;
      return YES;
    }
    return feed_key (f, b);
  case OBJECT_KEY:
    return feed_key (f, b);
  case OBJECT_COLON:
    if (b == ' ') {
      f->phase = OBJECT_VALUE;
      return YES;
    }
    /* fall through */
  case OBJECT_VALUE: {
    const Node *child = n->children->pdata[f->at];
    f->phase = OBJECT_AFTER;
    f->at = 0;
    push (s, child, f->below + n->rest[f->first]);
    return POPPED;
  }
  default:
    if (b == '}')
      return n->rest[f->first] == 1 ? pop (s, YES) : NO;
    f->phase = OBJECT_COMMA;
    return b == ',' && f->first < n->n ? YES : NO;
  }
}

static guint64
min_key (const Frame *f)
{
  const Node *n = f->node;
  const char *so_far = f->pos ? n->texts->pdata[f->at] : "";
  guint64 least = G_MAXUINT64;
  for (guint i = f->pos ? f->at : f->first; i <= n->reach[f->first]; i++) {
    const char *text = n->texts->pdata[i];
    const Node *child = n->children->pdata[i];
    if (strncmp (text, so_far, f->pos) == 0)
      least = MIN (least, strlen (text) - f->pos + child->min_bytes + n->rest[i + 1]);
  }
  return least;
}

static guint64
min_object (const Frame *f)
{
  const Node *n = f->node;
  switch (f->phase) {
  case OBJECT_OPEN:
    return n->min_bytes;
  case OBJECT_FIRST:
    return n->min_bytes - 1;
  case OBJECT_COMMA:
  case OBJECT_KEY:
    return min_key (f);
  case OBJECT_COLON:
  case OBJECT_VALUE:
    return ((const Node *) n->children->pdata[f->at])->min_bytes + n->rest[f->first];
  default:
    return n->rest[f->first];
  }
}

/* ---- arrays ---- */

static guint64
min_after_item (const Node *n, guint64 items)
{
  return 1 + (items < n->min ? (n->min - items) * (1 + ((const Node *) n->children->pdata[0])->min_bytes) : 0);
}

static guint64
one_more (const Node *n, guint64 items)
{
  return n->max == G_MAXUINT ? MIN (items + 1, n->min) : items + 1;
}

static Verdict
feed_array (State *s, Frame *f, guint8 b)
{
  const Node *n = f->node;
  switch (f->phase) {
  case ARRAY_OPEN:
    f->phase = ARRAY_FIRST;
    return b == '[' ? YES : NO;
  case ARRAY_FIRST:
    if (b == ']')
      return n->min == 0 ? pop (s, YES) : NO;
    if (n->max == 0)
      return NO;
    break;
  case ARRAY_COMMA:
    if (b == ' ') {
      f->phase = ARRAY_VALUE;
      return YES;
    }
    break;
  case ARRAY_VALUE:
    break;
  default:
    if (b == ']')
      return f->value >= n->min ? pop (s, YES) : NO;
    f->phase = ARRAY_COMMA;
    return b == ',' && (n->max == G_MAXUINT || f->value < n->max) ? YES : NO;
  }
  f->phase = ARRAY_AFTER;
  f->value = one_more (n, f->value);
  push (s, n->children->pdata[0], f->below + min_after_item (n, f->value));
  return POPPED;
}

static guint64
min_array (const Frame *f)
{
  const Node *n = f->node;
  switch (f->phase) {
  case ARRAY_OPEN:
    return n->min_bytes;
  case ARRAY_FIRST:
    return n->min_bytes - 1;
  case ARRAY_COMMA:
  case ARRAY_VALUE:
    return ((const Node *) n->children->pdata[0])->min_bytes + min_after_item (n, one_more (n, f->value));
  default:
    return min_after_item (n, f->value);
  }
}

/* ---- numbers ---- */

/* Digits that must be added to VALUE, of DIGITS digits, to come into [first, last]; -1 if it can't. */
static int
digits_to_range (const guint64 range[2], guint64 value, guint digits)
{
  guint64 low = value, high = value;
  for (int more = 0; digits + (guint) more <= MAX_INTEGER_DIGITS; more++) {
    if (low <= range[1] && high >= range[0])
      return more;
    /* A zero stands alone. */
    if (value == 0 || low > range[1])
      return -1;
    low *= 10;
    high = high * 10 + 9;
  }
  return -1;
}

static int
digits_of_range (const guint64 range[2])
{
  int least = range[0] <= range[1] && range[0] == 0 ? 1 : -1;
  for (guint64 digit = 1; digit < 10; digit++) {
    int more = digits_to_range (range, digit, 1);
    if (more >= 0 && (least < 0 || more + 1 < least))
      least = more + 1;
  }
  return least;
}

static Verdict
feed_integer (State *s, Frame *f, guint8 b)
{
  const Node *n = f->node;
  const guint64 *range = f->first ? n->negative : n->positive;
  if (f->phase == INTEGER_OPEN && b == '-') {
    f->phase = INTEGER_MINUS;
    f->first = 1;
    return n->negative[0] <= n->negative[1] ? YES : NO;
  }
  if (!g_ascii_isdigit (b)) {
    gboolean done = f->phase == INTEGER_DIGITS && f->value >= range[0] && f->value <= range[1];
    return done ? pop (s, POPPED) : NO;
  }
  if (f->pos == MAX_INTEGER_DIGITS || (f->pos && f->value == 0))
    return NO;
  f->phase = INTEGER_DIGITS;
  f->value = f->value * 10 + (b - '0');
  f->pos++;
  return digits_to_range (range, f->value, f->pos) >= 0 ? YES : NO;
}

static guint64
min_integer (const Frame *f)
{
  const Node *n = f->node;
  switch (f->phase) {
  case INTEGER_OPEN:
    return n->min_bytes;
  case INTEGER_MINUS:
    return (guint64) digits_of_range (n->negative);
  default:
    return (guint64) digits_to_range (f->first ? n->negative : n->positive, f->value, f->pos);
  }
}

static Verdict
number_goes (Frame *f, guint phase)
{
  f->pos = f->phase == phase ? f->pos + 1 : 1;
  f->phase = phase;
  return YES;
}

static Verdict
feed_number (State *s, Frame *f, guint8 b)
{
  gboolean digit = g_ascii_isdigit (b);
  switch (f->phase) {
  case NUMBER_OPEN:
    if (b == '-')
      return number_goes (f, NUMBER_MINUS);
    /* fall through */
  case NUMBER_MINUS:
    return digit ? number_goes (f, b == '0' ? NUMBER_ZERO : NUMBER_WHOLE) : NO;
  case NUMBER_WHOLE:
    if (digit)
      return f->pos < MAX_NUMBER_DIGITS ? number_goes (f, NUMBER_WHOLE) : NO;
    /* fall through */
  case NUMBER_ZERO:
    if (b == '.')
      return number_goes (f, NUMBER_POINT);
    break;
  case NUMBER_POINT:
    return digit ? number_goes (f, NUMBER_FRACTION) : NO;
  case NUMBER_FRACTION:
    if (digit)
      return f->pos < MAX_NUMBER_DIGITS ? number_goes (f, NUMBER_FRACTION) : NO;
    break;
  case NUMBER_E:
    if (b == '+' || b == '-')
      return number_goes (f, NUMBER_SIGN);
    /* fall through */
  case NUMBER_SIGN:
    return digit ? number_goes (f, NUMBER_EXPONENT) : NO;
  default:
    if (digit)
      return f->pos < MAX_EXPONENT_DIGITS ? number_goes (f, NUMBER_EXPONENT) : NO;
    return pop (s, POPPED);
  }
  if (b == 'e' || b == 'E')
    return number_goes (f, NUMBER_E);
  return digit ? NO : pop (s, POPPED);
}

static guint64
min_number (const Frame *f)
{
  switch (f->phase) {
  case NUMBER_OPEN:
  case NUMBER_MINUS:
  case NUMBER_POINT:
  case NUMBER_E:
  case NUMBER_SIGN:
    return 1;
  default:
    return 0;
  }
}

/* ---- literals ---- */

/* Texts [first, at) begin with what is read. */
static Verdict
feed_literal (State *s, Frame *f, guint8 b)
{
  const char *const *texts = (const char *const *) f->node->texts->pdata;
  guint low = f->first;
  gboolean complete = f->pos && !texts[low][f->pos];
  while (low < f->at && (guint8) texts[low][f->pos] != b)
    low++;
  guint high = low;
  while (high < f->at && (guint8) texts[high][f->pos] == b)
    high++;
  if (!b || low == high)
    return complete ? pop (s, POPPED) : NO;
  f->first = low;
  f->at = high;
  f->pos++;
  return high - low == 1 && !texts[low][f->pos] ? pop (s, YES) : YES;
}

static guint64
min_literal (const Frame *f)
{
  guint64 least = G_MAXUINT64;
  for (guint i = f->first; i < f->at; i++)
    least = MIN (least, strlen (f->node->texts->pdata[i]));
  return least - f->pos;
}

/* ---- all ---- */

void
ivl_schema_state_init (State *self, const IvlSchema *schema)
{
  self->depth = 0;
  push (self, schema->root, 0);
}

void
ivl_schema_state_copy (State *to, const State *from)
{
  to->depth = from->depth;
  memcpy (to->frames, from->frames, from->depth * sizeof *from->frames);
}

gboolean
ivl_schema_state_feed (State *self, guint8 b)
{
  Verdict verdict = POPPED;
  while (verdict == POPPED && self->depth) {
    Frame *f = &self->frames[self->depth - 1];
    switch (f->node->kind) {
    case IVL_SCHEMA_OBJECT:
      verdict = feed_object (self, f, b);
      break;
    case IVL_SCHEMA_ARRAY:
      verdict = feed_array (self, f, b);
      break;
    case IVL_SCHEMA_STRING:
      verdict = feed_string (self, f, b);
      break;
    case IVL_SCHEMA_INTEGER:
      verdict = feed_integer (self, f, b);
      break;
    case IVL_SCHEMA_NUMBER:
      verdict = feed_number (self, f, b);
      break;
    case IVL_SCHEMA_LITERAL:
      verdict = feed_literal (self, f, b);
      break;
    }
  }
  return verdict == YES;
}

guint64
ivl_schema_state_min_bytes (const State *self)
{
  if (self->depth == 0)
    return 0;
  const Frame *f = &self->frames[self->depth - 1];
  static guint64 (*const least[]) (const Frame *) = { min_object,  min_array,  min_string,
                                                      min_integer, min_number, min_literal };
  return f->below + least[f->node->kind] (f);
}

gboolean
ivl_schema_state_in_string (const State *self, guint *most, guint *least)
{
  if (self->depth == 0)
    return FALSE;
  const Frame *f = &self->frames[self->depth - 1];
  if (f->node->kind != IVL_SCHEMA_STRING || f->phase != STRING_CLEAN)
    return FALSE;
  *most = f->node->max == G_MAXUINT ? G_MAXUINT : f->node->max - (guint) f->value;
  *least = f->value < f->node->min ? f->node->min - (guint) f->value : 0;
  return TRUE;
}
