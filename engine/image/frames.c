#include "image/frames.h"

#include <math.h>

void
ivl_frames_choose (guint n_frames, double fps, double start, double end, guint n, guint *indices)
{
  /* rint () rounds half to even, as Python's round () does. */
  double last = n_frames ? n_frames - 1 : 0;
  double from = CLAMP (rint (start * fps), 0, last);
  double to = MIN (rint (end * fps), last);
  double step = (to - from) / n;
  for (guint k = 0; k < n; k++)
    indices[k] = (guint) CLAMP (trunc (from + step / 2 + rint (step * k)), 0, last);
}
