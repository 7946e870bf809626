/* What is seen of a picture, as the real engine would see it. */
#include "fake-engine.h"

void
fake_picture_sample (const IvlPicture *picture, guint x, guint y, double rgb[3])
{
  double v[3];

  for (guint i = 0; i < 3; i++) {
    gsize column = x >> picture->components[i].w_sub, row = y >> picture->components[i].h_sub;
    guint plane = picture->components[i].plane, bytes = picture->components[i].bytes;
    gsize at = column * picture->components[i].pixel_stride + picture->components[i].offset;

    g_assert_cmpuint (plane, <, picture->n_planes);
    g_assert_cmpuint (at + bytes, <=, picture->planes[plane].row_bytes);
    g_assert_cmpuint (row, <, picture->planes[plane].rows);
    const guint8 *p = picture->planes[plane].data + (gssize) row * picture->planes[plane].stride + at;
    guint raw = bytes == 1 ? p[0] : picture->components[i].big_endian ? p[0] << 8 | p[1] : p[1] << 8 | p[0];
    guint max = (1u << picture->components[i].depth) - 1;
    v[i] = (double) ((raw >> picture->components[i].shift) & max) / max;
  }
  for (guint i = 0; i < 3; i++) {
    const float *m = picture->matrix[i];
    rgb[i] = CLAMP (m[0] * v[0] + m[1] * v[1] + m[2] * v[2] + m[3], 0, 1) * 255;
  }
}

void
fake_picture_mean (const IvlPicture *picture, guint8 color[3])
{
  guint x0 = picture->crop_x, y0 = picture->crop_y;
  guint w = picture->crop_width ? picture->crop_width : picture->width;
  guint h = picture->crop_height ? picture->crop_height : picture->height;
  double sum[3] = { 0 };

  for (guint i = 0; i < 64; i++) {
    double rgb[3];

    fake_picture_sample (picture, x0 + w * (2 * (i % 8) + 1) / 16, y0 + h * (2 * (i / 8) + 1) / 16, rgb);
    for (guint c = 0; c < 3; c++)
      sum[c] += rgb[c];
  }
  for (guint c = 0; c < 3; c++)
    color[c] = (guint8) (sum[c] / 64 + 0.5);
}
