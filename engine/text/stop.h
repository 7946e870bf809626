/* Finds the first of some strings in text that comes piece by piece. */
#ifndef IVL_TEXT_STOP_H
#define IVL_TEXT_STOP_H

#include <glib.h>

G_BEGIN_DECLS

typedef struct IvlStopMatcher IvlStopMatcher;

/* STOPS: NULL, or a NULL-terminated list, copied; empty strings are ignored. */
IvlStopMatcher *ivl_stop_matcher_new (const char *const *stops);
void ivl_stop_matcher_free (IvlStopMatcher *self); /* NULL is fine */

/* Takes whole UTF-8 characters (LENGTH bytes; -1: NUL-terminated) and appends to OUT what can't be part of a stop string
 * any more; the rest is held back. TRUE once a stop string is complete: OUT then has the text before it, and all
 * further text is ignored. */
gboolean ivl_stop_matcher_feed (IvlStopMatcher *self, const char *text, gssize length, GString *out);
/* The text is over: appends what was held back. */
void ivl_stop_matcher_flush (IvlStopMatcher *self, GString *out);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (IvlStopMatcher, ivl_stop_matcher_free)

G_END_DECLS

#endif
