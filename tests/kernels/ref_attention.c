#include "check.h"
#include "ref.h"

#include <math.h>

void
ref_attention (const float *q, const float *const *k, const float *const *v, guint n, guint d, double *out,
               double *allowed)
{
  g_autofree double *p = g_new (double, n), *e = g_new (double, n);
  double top = -INFINITY, top_error = 0, sum = 0;
  for (guint i = 0; i < n; i++) {
    double dot = 0, size = 0;
    for (guint c = 0; c < d; c++) {
      dot += (double) q[c] * k[i][c];
      size += fabs ((double) q[c] * k[i][c]);
    }
    p[i] = dot / sqrt (d);
    e[i] = (d + 4) * CHECK_EPSILON * size / sqrt (d);
    top = MAX (top, p[i]);
    top_error = MAX (top_error, e[i]);
  }
  for (guint i = 0; i < n; i++)
    sum += exp (p[i] - top);
  for (guint i = 0; i < n; i++) {
    /* An error of the score is a relative one of its weight; so are exp ()'s 3 + 2 |x| units, once for the weight and
     * once for what rescales it, and the running sums'. */
    double x = MIN (top - p[i], 100);
    e[i] = e[i] + top_error + (16 + 8 * x + n / 8.0 + 8) * CHECK_EPSILON;
    p[i] = exp (p[i] - top) / sum;
  }
  for (guint c = 0; c < d; c++) {
    double value = 0, error = 0, weight_error = 0;
    for (guint i = 0; i < n; i++) {
      value += p[i] * v[i][c];
      error += p[i] * fabs ((double) v[i][c]) * (e[i] + (n + 4) * CHECK_EPSILON);
      weight_error += p[i] * e[i];
    }
    out[c] = value;
    allowed[c] = error + (weight_error + n * CHECK_EPSILON) * fabs (value) + 1e-36;
  }
}

void
ref_rope (const float *x, guint d, const float *cos_sin, double *y)
{
  for (guint j = 0; j < d / 2; j++) {
    double a = x[j], b = x[j + d / 2], c = cos_sin[2 * j], s = cos_sin[2 * j + 1];
    y[j] = a * c - b * s;
    y[j + d / 2] = b * c + a * s;
  }
}
