/* Which frames of a recorded video stand for it (the reference's get_index). */
#ifndef IVL_IMAGE_FRAMES_H
#define IVL_IMAGE_FRAMES_H

#include <glib.h>

/* Fills INDICES [N] with the frames to take out of N_FRAMES: the middles of N equal stretches between START and END,
 * in seconds (-HUGE_VAL and HUGE_VAL for the whole). Frames may repeat if there are fewer than N. */
void ivl_frames_choose (guint n_frames, double fps, double start, double end, guint n, guint *indices);

#endif
