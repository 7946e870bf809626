/* Which frames of a chunk stand for it when there were cuts: pure logic. */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* CUTS: for each of N frames, whether a scene begins with it (the first one's doesn't matter). Writes the indices of the
 * frames to take, in order, to CHOSEN, which has room for WANTED (at least 1), and returns how many there are: N if that
 * is less. With at most WANTED scenes each of them gets frames, in proportion to its length, spread over it; of more, the
 * longest ones get their middle. */
guint gst_internvl_choose_frames (const gboolean *cuts, guint n, guint wanted, guint *chosen);

G_END_DECLS
