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

float *
ref_rope_table (guint d)
{
  guint half = d / 2;
  float *table = g_new (float, REF_ROPE_POSITIONS * d);
  for (guint p = 0; p < REF_ROPE_POSITIONS; p++)
    for (guint j = 0; j < half; j++) {
      double angle = p * pow (10000, -2.0 * j / d);
      table[(p * half + j) * 2] = (float) cos (angle);
      table[(p * half + j) * 2 + 1] = (float) sin (angle);
    }
  return table;
}

void
ref_rope_cache (const double *qkv, const double *error, guint heads, guint kv_heads, guint d, const IvlRow *row,
                const float *table, double *q, double *q_allowed, double *cache, double *cache_allowed)
{
  gsize slot = (gsize) row->slot * 2 * kv_heads * d;
  for (guint h = 0; h < heads + 2 * kv_heads; h++) {
    const double *x = qkv + h * d, *e = error + h * d;
    double *y = h < heads ? q + h * d : cache + slot + (h - heads) * d;
    double *allowed = h < heads ? q_allowed + h * d : cache_allowed + slot + (h - heads) * d;
    for (guint j = 0; j < d / 2; j++) {
      if (h >= heads + kv_heads) {
        y[2 * j] = x[2 * j];
        y[2 * j + 1] = x[2 * j + 1];
        allowed[2 * j] = e[2 * j];
        allowed[2 * j + 1] = e[2 * j + 1];
        continue;
      }
      /* Two products and a sum, each rounded: 3 * 2^-24 of the sizes. */
      double a = x[2 * j], b = x[2 * j + 1], size = 3 * CHECK_EPSILON * (fabs (a) + fabs (b)) + e[2 * j] + e[2 * j + 1];
      double c = table[(row->position * (d / 2) + j) * 2], s = table[(row->position * (d / 2) + j) * 2 + 1];
      y[j] = a * c - b * s;
      y[j + d / 2] = b * c + a * s;
      allowed[j] = allowed[j + d / 2] = size;
    }
  }
}
