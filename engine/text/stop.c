#include "text/stop.h"

#include <string.h>

struct IvlStopMatcher {
  GPtrArray *stops; /* char *, not empty */
  GString *held;
  gboolean found;
};

IvlStopMatcher *
ivl_stop_matcher_new (const char *const *stops)
{
  IvlStopMatcher *self = g_new0 (IvlStopMatcher, 1);
  self->stops = g_ptr_array_new_with_free_func (g_free);
  self->held = g_string_new (NULL);
  for (; stops && *stops; stops++)
    if (**stops)
      g_ptr_array_add (self->stops, g_strdup (*stops));
  return self;
}

void
ivl_stop_matcher_free (IvlStopMatcher *self)
{
  if (!self)
    return;
  g_ptr_array_unref (self->stops);
  g_string_free (self->held, TRUE);
  g_free (self);
}

/* Length of the longest end of TEXT that a stop string begins with. */
static gsize
open_end (const IvlStopMatcher *self, const char *text, gsize length)
{
  gsize longest = 0;
  for (guint i = 0; i < self->stops->len; i++) {
    const char *stop = self->stops->pdata[i];
    for (gsize n = MIN (strlen (stop) - 1, length); n > longest; n--)
      if (memcmp (text + length - n, stop, n) == 0)
        longest = n;
  }
  return longest;
}

gboolean
ivl_stop_matcher_feed (IvlStopMatcher *self, const char *text, gssize length, GString *out)
{
  if (self->found)
    return TRUE;
  g_string_append_len (self->held, text, length);
  const char *first = NULL;
  for (guint i = 0; i < self->stops->len; i++) {
    const char *stop = self->stops->pdata[i];
    const char *at = memmem (self->held->str, self->held->len, stop, strlen (stop));
    if (at && (!first || at < first))
      first = at;
  }
  self->found = first != NULL;
  gsize n = first ? (gsize) (first - self->held->str)
                  : self->held->len - open_end (self, self->held->str, self->held->len);
  g_string_append_len (out, self->held->str, (gssize) n);
  g_string_erase (self->held, 0, self->found ? -1 : (gssize) n);
  return self->found;
}

void
ivl_stop_matcher_flush (IvlStopMatcher *self, GString *out)
{
  g_string_append_len (out, self->held->str, (gssize) self->held->len);
  g_string_truncate (self->held, 0);
}
