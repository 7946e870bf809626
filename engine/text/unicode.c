#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>

gboolean
ivl_utf8_validate (const char *text, gsize length, gsize *offset)
{
  gsize at = 0;
  while (at < length) {
    const char *end;
    if (g_utf8_validate_len (text + at, length - at, &end))
      return TRUE;
    at = (gsize) (end - text);
    if (text[at] != '\0') {
      if (offset)
        *offset = at;
      return FALSE;
    }
    at++;
  }
  return TRUE;
}

/* ---- normal form C ---- */

static int
compare_marks (const void *a, const void *b)
{
  guint64 x = *(const guint64 *) a, y = *(const guint64 *) b;
  return x < y ? -1 : x > y;
}

/* Puts runs of combining marks in canonical order. */
static void
sort_marks (gunichar *text, gsize n)
{
  g_autoptr (GArray) keys = g_array_new (FALSE, FALSE, sizeof (guint64));
  for (gsize i = 0; i < n;) {
    if (g_unichar_combining_class (text[i]) == 0) {
      i++;
      continue;
    }
    gsize start = i;
    gboolean sorted = TRUE;
    for (int last = 0; i < n; i++) {
      int ccc = g_unichar_combining_class (text[i]);
      if (ccc == 0)
        break;
      sorted = sorted && ccc >= last;
      last = ccc;
    }
    if (sorted)
      continue;
    /* The order must be stable: class, then place; a character needs 21 bits. */
    g_array_set_size (keys, 0);
    for (gsize j = start; j < i; j++) {
      guint64 key = (guint64) g_unichar_combining_class (text[j]) << 56 | (guint64) (j - start) << 21 | text[j];
      g_array_append_val (keys, key);
    }
    qsort (keys->data, keys->len, sizeof (guint64), compare_marks);
    for (gsize j = start; j < i; j++)
      text[j] = (gunichar) (g_array_index (keys, guint64, j - start) & 0x1fffff);
  }
}

/* Canonical composition in place (Unicode 3.11, D117); returns the new length. */
static gsize
compose (gunichar *text, gsize n)
{
  gsize out = 0, starter = 0;
  gboolean have_starter = FALSE;
  int last = 0; /* class of the last character kept after the starter; 0: there is none */
  for (gsize i = 0; i < n; i++) {
    int ccc = g_unichar_combining_class (text[i]);
    gunichar composed;
    gboolean blocked = out > starter + 1 && (last == 0 || last >= ccc);
    if (have_starter && !blocked && g_unichar_compose (text[starter], text[i], &composed)) {
      text[starter] = composed;
      continue;
    }
    if (ccc == 0) {
      starter = out;
      have_starter = TRUE;
    }
    last = ccc;
    text[out++] = text[i];
  }
  return out;
}

char *
ivl_utf8_nfc (const char *text, gsize length, gsize *nfc_length)
{
  /* Below U+0300 (lead bytes up to 0xcb) nothing composes or decomposes into something else. */
  gsize i = 0;
  while (i < length && (guint8) text[i] < 0xcc)
    i++;
  if (i == length)
    return NULL;

  g_autoptr (GArray) wide = g_array_sized_new (FALSE, FALSE, sizeof (gunichar), length + 1);
  for (const char *p = text; p < text + length; p = g_utf8_next_char (p)) {
    gunichar parts[G_UNICHAR_MAX_DECOMPOSITION_LENGTH];
    gsize n = g_unichar_fully_decompose (g_utf8_get_char (p), FALSE, parts, G_N_ELEMENTS (parts));
    g_array_append_vals (wide, parts, (guint) n);
  }
  gunichar *buffer = (gunichar *) wide->data;
  sort_marks (buffer, wide->len);
  gsize n = compose (buffer, wide->len);

  GString *out = g_string_sized_new (length);
  for (gsize j = 0; j < n; j++)
    g_string_append_unichar (out, buffer[j]);
  *nfc_length = out->len;
  return g_string_free (out, FALSE);
}

/* ---- words ---- */

typedef enum { LETTER, NUMBER, SPACE, NEWLINE, OTHER } Class;

static Class
classify (gunichar c)
{
  if (c < 0x80) {
    if (g_ascii_isalpha (c))
      return LETTER;
    if (g_ascii_isdigit (c))
      return NUMBER;
    if (c == '\n' || c == '\r')
      return NEWLINE;
    return c == ' ' || (c >= 9 && c <= 13) ? SPACE : OTHER;
  }
  switch (g_unichar_type (c)) {
  case G_UNICODE_UPPERCASE_LETTER:
  case G_UNICODE_LOWERCASE_LETTER:
  case G_UNICODE_TITLECASE_LETTER:
  case G_UNICODE_MODIFIER_LETTER:
  case G_UNICODE_OTHER_LETTER:
    return LETTER;
  case G_UNICODE_DECIMAL_NUMBER:
  case G_UNICODE_LETTER_NUMBER:
  case G_UNICODE_OTHER_NUMBER:
    return NUMBER;
  case G_UNICODE_SPACE_SEPARATOR:
  case G_UNICODE_LINE_SEPARATOR:
  case G_UNICODE_PARAGRAPH_SEPARATOR:
    return SPACE;
  default:
    return c == 0x85 ? SPACE : OTHER; /* White_Space beyond the separators */
  }
}

static gboolean
is_space (Class class)
{
  return class == SPACE || class == NEWLINE;
}

/* Class of the character at P, or OTHER at END with *NEXT = P. */
static Class
class_at (const char *p, const char *end, const char **next)
{
  if (p >= end) {
    *next = p;
    return OTHER;
  }
  *next = g_utf8_next_char (p);
  return classify (g_utf8_get_char (p));
}

/* 's 't 'm 'd 're 've 'll in any case; U+017F is an s. */
static gsize
contraction (const char *p, gsize length)
{
  if (length < 2 || p[0] != '\'')
    return 0;
  char a = g_ascii_tolower (p[1]);
  if (a == 's' || a == 't' || a == 'm' || a == 'd')
    return 2;
  if (length < 3)
    return 0;
  if ((guint8) p[1] == 0xc5 && (guint8) p[2] == 0xbf)
    return 3;
  char b = g_ascii_tolower (p[2]);
  return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

static const char *
skip_letters (const char *p, const char *end)
{
  const char *next;
  while (p < end && class_at (p, end, &next) == LETTER)
    p = next;
  return p;
}

gsize
ivl_qwen2_word (const char *text, gsize length)
{
  const char *end = text + length, *next, *after;
  gsize n = contraction (text, length);
  if (n > 0)
    return n;

  Class first = class_at (text, end, &next);
  if (first == LETTER)
    return (gsize) (skip_letters (next, end) - text);
  if (first == NUMBER)
    return (gsize) (next - text);
  if (first != NEWLINE && next < end && class_at (next, end, &after) == LETTER)
    return (gsize) (skip_letters (after, end) - text);

  /* ` ?[^\s\p{L}\p{N}]+[\r\n]*` */
  const char *p = text[0] == ' ' ? next : text, *start = p;
  while (p < end && class_at (p, end, &after) == OTHER)
    p = after;
  if (p > start) {
    while (p < end && (*p == '\r' || *p == '\n'))
      p++;
    return (gsize) (p - text);
  }

  /* Only white space is left: up to its last line break if it has one, else all of it at the end of the
   * text, else all but the last character (the next word may want it) unless that is the only one. */
  const char *newline = NULL, *last = text;
  for (p = text; p < end; p = after) {
    Class class = class_at (p, end, &after);
    if (!is_space (class))
      break;
    if (class == NEWLINE)
      newline = after;
    last = p;
  }
  if (newline)
    return (gsize) (newline - text);
  return (gsize) ((p == end || last == text ? p : last) - text);
}
