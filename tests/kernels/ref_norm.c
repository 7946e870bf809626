#include "check.h"
#include "ref.h"

#include <math.h>
#include <string.h>

void
ref_norm (gboolean rms, double eps, const float *x, guint cols, const float *weight, const float *bias, double *y,
          double *allowed)
{
  double mean = 0, size = 0, variance = 0;
  for (guint i = 0; i < cols; i++) {
    mean += x[i] / (double) cols;
    size += fabs ((double) x[i]) / cols;
  }
  if (rms)
    mean = size = 0;
  for (guint i = 0; i < cols; i++)
    variance += (x[i] - mean) * (x[i] - mean) / cols;
  double inverse = 1 / sqrt (variance + eps);
  /* Sums of cols terms, each step rounded, in any order: the mean may be off by cols * 2^-24 of the mean size, the
   * variance by as much of itself, and by the mean's error squared. */
  double mean_error = (cols + 2) * CHECK_EPSILON * size;
  double variance_error = (cols + 6) * CHECK_EPSILON * variance + 2 * mean_error * sqrt (variance) + mean_error * mean_error;
  double inverse_error = 0.5 * inverse * variance_error / (variance + eps) + 6 * CHECK_EPSILON * inverse;
  for (guint i = 0; i < cols; i++) {
    double d = x[i] - mean, d_error = mean_error + CHECK_EPSILON * (fabs (d) + fabs (mean));
    double v = d * inverse * weight[i];
    allowed[i] = (d_error * (inverse + inverse_error) + fabs (d) * inverse_error) * fabs ((double) weight[i])
                 + 4 * CHECK_EPSILON * fabs (v);
    y[i] = v + (bias ? bias[i] : 0);
    allowed[i] += CHECK_EPSILON * fabs (y[i]) + 1e-37;
  }
}

void
ref_pixel_shuffle (const float *x, guint pitch, guint grid, guint c, guint r, gboolean v1, float *row)
{
  guint side = grid / 2, tile = r / (side * side), t = r % (side * side);
  guint big_y = v1 ? t % side : t / side, big_x = v1 ? t / side : t % side;
  for (guint dy = 0; dy < 2; dy++)
    for (guint dx = 0; dx < 2; dx++) {
      guint source = tile * (grid * grid + 1) + 1 + (2 * big_y + dy) * grid + 2 * big_x + dx;
      memcpy (row + (dy * 2 + dx) * c, x + (gsize) source * pitch, c * sizeof *row);
    }
}
