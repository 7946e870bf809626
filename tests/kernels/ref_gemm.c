#include "check.h"
#include "ref.h"

#include <math.h>
#include <string.h>

double
ref_weight (IvlDtype dtype, guint32 bits)
{
  if (dtype == IVL_DTYPE_F16) {
    int exponent = (int) (bits >> 10 & 31), mantissa = (int) (bits & 1023);
    double v = exponent ? ldexp (1024 + mantissa, exponent - 25) : ldexp (mantissa, -24);
    return bits & 0x8000 ? -v : v;
  }
  float f;
  if (dtype == IVL_DTYPE_BF16)
    bits <<= 16;
  memcpy (&f, &bits, 4);
  return f;
}

guint8 *
ref_pack (IvlDtype dtype, const guint32 *bits, guint first, guint n, guint k)
{
  guint bytes = ivl_dtype_bytes (dtype), per_texel = 16 / bytes, texels = (k + 7) / 8 * 8 / per_texel;
  guint8 *out = g_malloc0 (ivl_weight_slice_bytes (dtype, n, k));
  for (guint i = 0; i < n; i++)
    for (guint j = 0; j < k; j++) {
      gsize texel = ((gsize) (i / IVL_PANEL) * texels + j / per_texel) * IVL_PANEL;
      texel += (i & 6) << 3 | (i >> 2 & 14) | (i & 1);
      memcpy (out + texel * 16 + j % per_texel * bytes, &bits[(gsize) (first + i) * k + j], bytes);
    }
  return out;
}

double
ref_gelu (double v)
{
  return 0.5 * v * (1 + erf (v * M_SQRT1_2));
}

double
ref_silu (double v)
{
  return v / (1 + exp (-v));
}

void
ref_gemm (IvlDtype dtype, const guint32 *w, guint n, guint k, const float *x, guint x_pitch, guint m,
          const float *bias, const float *scale, IvlAct act, const double *before, const RefRounding *rounding,
          double *y, double *allowed)
{
  g_autofree double *value = g_new (double, n), *error = g_new (double, n);
  g_autofree double *weights = g_new (double, (gsize) n * k);
  for (gsize i = 0; i < (gsize) n * k; i++)
    weights[i] = ref_weight (dtype, w[i]);
  guint columns = act == IVL_ACT_SWIGLU ? n / 2 : n;
  for (guint r = 0; r < m; r++) {
    for (guint i = 0; i < n; i++) {
      double sum = 0, size = 0, x_size = 0, w_size = 0;
      for (guint j = 0; j < k; j++) {
        double product = weights[(gsize) i * k + j] * x[(gsize) r * x_pitch + j];
        sum += product;
        size += fabs (product);
        x_size += fabs ((double) x[(gsize) r * x_pitch + j]);
        w_size += fabs (weights[(gsize) i * k + j]);
      }
      if (bias) {
        sum += bias[i];
        size += fabs ((double) bias[i]);
      }
      /* k products and k sums, each rounded, in whatever order: at most (k + 3) * 2^-24 of the sizes' sum; and what
       * may be lost where a subnormal is taken for zero. */
      double e = (k + 3) * CHECK_EPSILON * size + (k + 3) * 1.2e-38;
      e += rounding->relative * size + rounding->x_floor * w_size + rounding->w_floor * x_size;
      if (act == IVL_ACT_GELU) {
        /* |GELU'| < 1.13; the polynomial for erf is good to 1.5e-7, and exp () to 3 + 2 |x| units where it matters. */
        e = 1.13 * e + fabs (sum) * 5e-7;
        sum = ref_gelu (sum);
      }
      double s = scale ? scale[i] : 1;
      value[i] = sum * s;
      error[i] = e * fabs (s) + 2 * CHECK_EPSILON * fabs (value[i]);
    }
    for (guint i = 0; i < columns; i++) {
      double v = value[i], e = error[i];
      if (act == IVL_ACT_SWIGLU) {
        double gate = value[2 * i], up = value[2 * i + 1], g = ref_silu (gate);
        /* |SiLU'| < 1.1; Vulkan's exp () is good to 3 + 2 |x| units in the last place, its division to 2.5. */
        double g_error = 1.1 * error[2 * i] + fabs (g) * (12 + 4 * MIN (fabs (gate), 88)) * CHECK_EPSILON + 1e-37;
        v = g * up;
        e = g_error * fabs (up) + error[2 * i + 1] * (fabs (g) + g_error) + 2 * CHECK_EPSILON * fabs (v);
      }
      if (before) {
        v += before[(gsize) r * columns + i];
        e += CHECK_EPSILON * (fabs (v) + fabs (e));
      }
      y[(gsize) r * columns + i] = v;
      allowed[(gsize) r * columns + i] = e;
    }
  }
}
