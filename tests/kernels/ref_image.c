#include "ref.h"

#include <math.h>

static guint
sample (const IvlPicture *p, guint c, guint x, guint y)
{
  const guint8 *at = p->planes[p->components[c].plane].data
                     + (gssize) (y >> p->components[c].h_sub) * p->planes[p->components[c].plane].stride
                     + p->components[c].offset + (x >> p->components[c].w_sub) * p->components[c].pixel_stride;
  guint v = at[0];
  if (p->components[c].bytes == 2)
    v = p->components[c].big_endian ? (guint) at[0] << 8 | at[1] : (guint) at[1] << 8 | at[0];
  return (v >> p->components[c].shift) & ((1u << p->components[c].depth) - 1);
}

/* In f32, a step at a time, as shaders/image/convert.comp says. */
void
ref_picture_pixel (const IvlPicture *p, guint x, guint y, guint8 rgb[3])
{
  for (guint i = 0; i < 3; i++) {
    volatile float v = 0;
    for (guint c = 0; c < 3; c++) {
      float factor = (float) (p->matrix[i][c] * 255.0 / ((1u << p->components[c].depth) - 1));
      volatile float product = factor * (float) sample (p, c, p->crop_x + x, p->crop_y + y);
      v = c ? v + product : product;
    }
    v = v + (float) (p->matrix[i][3] * 255.0 + 0.5);
    rgb[i] = (guint8) CLAMP (v, 0.f, 255.f);
  }
}

static double
bicubic (double x)
{
  const double a = -0.5;
  x = x < 0 ? -x : x;
  if (x < 1)
    return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

/* One axis: IN elements STEP apart to OUT elements OUT_STEP apart, for one line. */
static void
resize_line (const guint8 *in, guint n_in, gsize step, guint8 *out, guint n_out, gsize out_step)
{
  double scale = (double) n_in / n_out, filter_scale = scale < 1 ? 1 : scale, support = 2 * filter_scale;
  g_autofree double *w = g_new (double, (gsize) ceil (support) * 2 + 2);
  for (guint o = 0; o < n_out; o++) {
    double center = (o + 0.5) * scale, total = 0;
    int from = (int) (center - support + 0.5), to = (int) (center + support + 0.5);
    from = MAX (from, 0);
    to = MIN (to, (int) n_in);
    for (int i = from; i < to; i++)
      total += w[i - from] = bicubic ((i - center + 0.5) * (1 / filter_scale));
    for (guint c = 0; c < 3; c++) {
      gint64 sum = 1 << 21;
      for (int i = from; i < to; i++) {
        double fixed = w[i - from] / total * (1 << 22);
        sum += (gint64) (int) (fixed < 0 ? fixed - 0.5 : fixed + 0.5) * in[(gsize) i * step + c];
      }
      sum >>= 22;
      out[(gsize) o * out_step + c] = (guint8) CLAMP (sum, 0, 255);
    }
  }
}

guint8 *
ref_resize (const guint8 *rgb, guint w, guint h, guint out_w, guint out_h)
{
  guint8 *wide = g_malloc ((gsize) out_w * h * 3), *out = g_malloc ((gsize) out_w * out_h * 3);
  for (guint y = 0; y < h; y++)
    resize_line (rgb + (gsize) y * w * 3, w, 3, wide + (gsize) y * out_w * 3, out_w, 3);
  for (guint x = 0; x < out_w; x++)
    resize_line (wide + (gsize) x * 3, h, (gsize) out_w * 3, out + (gsize) x * 3, out_h, (gsize) out_w * 3);
  g_free (wide);
  return out;
}

void
ref_luma (const guint32 *tiles, guint n_tiles, guint size, guint32 *histograms)
{
  for (guint t = 0; t < n_tiles; t++)
    for (guint y = 0; y < size; y++)
      for (guint x = 0; x < size; x++) {
        guint32 rgb = tiles[((gsize) t * size + y) * size + x];
        guint level = (77 * (rgb & 255) + 150 * (rgb >> 8 & 255) + 29 * (rgb >> 16 & 255)) / 256;
        guint bx = 0, by = 0;
        while (x >= (bx + 1) * size / IVL_LUMA_BLOCKS)
          bx++;
        while (y >= (by + 1) * size / IVL_LUMA_BLOCKS)
          by++;
        guint32 *bins = histograms + ((t * IVL_LUMA_BLOCKS + by) * IVL_LUMA_BLOCKS + bx) * IVL_LUMA_BINS;
        bins[level / IVL_LUMA_STEP] += IVL_LUMA_STEP - level % IVL_LUMA_STEP;
        bins[level / IVL_LUMA_STEP + 1] += level % IVL_LUMA_STEP;
      }
}

void
ref_tiling (guint w, guint h, guint size, guint max_tiles, guint *cols, guint *rows)
{
  double best = INFINITY;
  *cols = *rows = 1;
  for (guint n = 1; n <= max_tiles; n++)
    for (guint i = 1; i <= n; i++)
      for (guint j = 1; i * j <= n; j++) {
        double difference = fabs ((double) w / h - (double) i / j);
        if (i * j == n && (difference < best || (difference == best && (double) w * h > 0.5 * size * size * n))) {
          best = difference;
          *cols = i;
          *rows = j;
        }
      }
}
