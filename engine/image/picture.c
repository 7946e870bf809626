/* Filling IvlPicture: matrices of the common colour encodings. */
#include <internvl/internvl.h>

#include <math.h>
#include <string.h>

void
ivl_picture_set_rgb_matrix (IvlPicture *picture)
{
  for (guint i = 0; i < 3; i++)
    for (guint j = 0; j < 4; j++)
      picture->matrix[i][j] = i == j;
}

void
ivl_picture_set_yuv_matrix (IvlPicture *picture, double kr, double kb, gboolean full_range, guint depth)
{
  /* A sample s = value / top; Y' = (value - black) / luma is s * y_gain + y_add, and so for chroma. */
  double top = ldexp (1, (int) depth) - 1, unit = ldexp (1, (int) depth - 8);
  double black = full_range ? 0 : 16 * unit, luma = full_range ? top : 219 * unit;
  double middle = 128 * unit, chroma = full_range ? top : 224 * unit;
  double y_gain = top / luma, y_add = -black / luma;
  double c_gain = top / chroma, c_add = -middle / chroma;
  double kg = 1 - kr - kb;
  double cb[3] = { 0, -2 * kb * (1 - kb) / kg, 2 * (1 - kb) };
  double cr[3] = { 2 * (1 - kr), -2 * kr * (1 - kr) / kg, 0 };
  for (guint i = 0; i < 3; i++) {
    picture->matrix[i][0] = (float) y_gain;
    picture->matrix[i][1] = (float) (cb[i] * c_gain);
    picture->matrix[i][2] = (float) (cr[i] * c_gain);
    picture->matrix[i][3] = (float) (y_add + (cb[i] + cr[i]) * c_add);
  }
}

void
ivl_picture_init_rgb (IvlPicture *picture, const guint8 *data, guint width, guint height, gsize stride)
{
  memset (picture, 0, sizeof *picture);
  picture->n_planes = 1;
  picture->planes[0].data = data;
  picture->planes[0].stride = (gssize) stride;
  picture->planes[0].row_bytes = 3 * (gsize) width;
  picture->planes[0].rows = height;
  picture->width = width;
  picture->height = height;
  for (guint8 c = 0; c < 3; c++) {
    picture->components[c].pixel_stride = 3;
    picture->components[c].offset = c;
    picture->components[c].bytes = 1;
    picture->components[c].depth = 8;
  }
  ivl_picture_set_rgb_matrix (picture);
}
