#include "image/resize.h"

#include <math.h>

#define SUPPORT 2.0

static double
bicubic (double x)
{
  const double a = -0.5;
  x = fabs (x);
  if (x < 1)
    return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2)
    return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

void
ivl_resize_axis_bounds (const IvlResizeAxis *self, guint o, guint *lo, guint *hi)
{
  double scale = (double) self->in / self->out;
  double support = SUPPORT * MAX (scale, 1.0);
  double center = (o + 0.5) * scale;
  *lo = (guint) MAX ((int) (center - support + 0.5), 0);
  *hi = (guint) MIN ((int) (center + support + 0.5), (int) self->in);
}

void
ivl_resize_axis_init (IvlResizeAxis *self, guint in, guint out, guint align)
{
  *self = (IvlResizeAxis){ in, out, align, 0 };
  for (guint o = 0; o < out; o++) {
    guint lo, hi;
    ivl_resize_axis_bounds (self, o, &lo, &hi);
    self->steps = MAX (self->steps, (hi - lo / align * align + 3) / 4);
  }
}

gsize
ivl_resize_axis_bytes (const IvlResizeAxis *self)
{
  return (gsize) self->out * (1 + self->steps) * 4 * sizeof (gint32);
}

void
ivl_resize_axis_fill (const IvlResizeAxis *self, gint32 *table)
{
  double scale = (double) self->in / self->out;
  double per_filter = 1.0 / MAX (scale, 1.0);
  g_autofree double *weights = g_new (double, self->steps * 4);
  for (guint o = 0; o < self->out; o++) {
    guint lo, hi;
    ivl_resize_axis_bounds (self, o, &lo, &hi);
    double center = (o + 0.5) * scale, sum = 0;
    for (guint i = lo; i < hi; i++)
      sum += weights[i - lo] = bicubic (((double) i - center + 0.5) * per_filter);
    guint first = lo / self->align;
    *table++ = (gint32) first;
    *table++ = 0;
    *table++ = 0;
    *table++ = 0;
    for (guint i = first * self->align, end = i + self->steps * 4; i < end; i++) {
      double w = i >= lo && i < hi ? weights[i - lo] : 0;
      if (sum != 0)
        w /= sum;
      *table++ = (gint32) (w * (1 << IVL_RESIZE_BITS) + (w < 0 ? -0.5 : 0.5));
    }
  }
}
