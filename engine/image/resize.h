/* Coefficients of Pillow's 8-bit bicubic resize with antialiasing, one axis at a time. Same integers, so the same
 * pixels: internvl25 section 5.2. */
#ifndef IVL_IMAGE_RESIZE_H
#define IVL_IMAGE_RESIZE_H

#include <glib.h>

/* Weights are integers of 1 << IVL_RESIZE_BITS. */
#define IVL_RESIZE_BITS 22

/* A table row per output element: (first, 0, 0, 0), then `steps` quads of weights for the source elements from
 * first * align on; zero where there is no tap, also past the source's end. */
typedef struct {
  guint in, out;
  guint align; /* 1: any element may be first; 4: quads of elements are read, `first` counts quads */
  guint steps;
} IvlResizeAxis;

void ivl_resize_axis_init (IvlResizeAxis *axis, guint in, guint out, guint align);
/* Source elements [*LO, *HI) go into output element O. */
void ivl_resize_axis_bounds (const IvlResizeAxis *axis, guint o, guint *lo, guint *hi);
gsize ivl_resize_axis_bytes (const IvlResizeAxis *axis);
/* Written front to back and never read: TABLE may be write-combined memory. */
void ivl_resize_axis_fill (const IvlResizeAxis *axis, gint32 *table);

#endif
