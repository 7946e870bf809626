#include "model/quantise.h"

#include <math.h>
#include <string.h>

#define SCALE_FACTOR 64.f /* in what is stored; see IVL_Q8_UNIT */

guint16
ivl_to_f16 (float f)
{
  guint32 u;
  memcpy (&u, &f, 4);
  guint32 sign = (u >> 16) & 0x8000, magnitude = u & 0x7fffffff;
  if (magnitude >= 0x477ff000) /* rounds to 65520 or more: the largest finite value keeps the matrix usable */
    return (guint16) (sign | 0x7bff);
  if (magnitude < 0x38800000) { /* subnormal: let the float adder do the rounding */
    float a;
    memcpy (&a, &magnitude, 4);
    a += 0.5f;
    memcpy (&u, &a, 4);
    return (guint16) (sign | (u - 0x3f000000));
  }
  return (guint16) (sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13));
}

float
ivl_from_f16 (guint16 h)
{
  float value = (float) (h & 0x3ff);
  int exponent = h >> 10 & 31;
  value = exponent ? ldexpf (value + 1024.f, exponent - 25) : ldexpf (value, -24);
  return h & 0x8000 ? -value : value;
}

/* Rounds |f| < 2^22 to nearest even; unlike rintf (), loops over it become vector code everywhere. */
static inline float
round_small (float f)
{
  return f + 12582912.f - 12582912.f;
}

/* Steps that LARGEST shall be. More clips the few largest values and makes the others finer. With 8 bits nothing is to
 * be gained by that; with 4, the least sum of squares of a few tries is some 10 % below that of the best fixed one. */
static float
best_levels (IvlDtype dtype, const float *values, float largest)
{
  if (dtype == IVL_DTYPE_Q8)
    return 127.f;
  static const float tries[] = { 6.6f, 7.f, 7.5f, 8.f, 8.7f };
  float best = 0.f, least = INFINITY;
  for (guint c = 0; c < G_N_ELEMENTS (tries); c++) {
    float up = tries[c] / largest, sum = 0.f;
    for (guint i = 0; i < IVL_QUANT_BLOCK; i++) {
      float v = values[i] * up, r = round_small (v);
      r = r > 7.5f ? 7.5f : r < -7.5f ? -7.5f : r; /* on average: the range depends on the fraction */
      sum += (v - r) * (v - r);
    }
    sum /= up * up;
    if (sum < least) {
      least = sum;
      best = tries[c];
    }
  }
  return best;
}

void
ivl_quantise_block (IvlDtype dtype, const float *given, guint n, guint16 *scale, guint32 *words)
{
  guint bits = dtype == IVL_DTYPE_Q8 ? 8 : 4, per_word = 32 / bits;
  float values[IVL_QUANT_BLOCK] = { 0 }, largest = 0.f;
  memcpy (values, given, n * sizeof *values);
  for (guint i = 0; i < IVL_QUANT_BLOCK; i++)
    largest = MAX (largest, fabsf (values[i]));
  memset (words, 0, IVL_QUANT_BLOCK * bits / 8);
  *scale = largest > 0x1p-100f ? ivl_to_f16 (SCALE_FACTOR * largest / best_levels (dtype, values, largest)) : 0;
  if (*scale == 0)
    return;
  float up = SCALE_FACTOR / ivl_from_f16 (*scale);
  float most = (float) ((1 << (bits - 1)) - 1);
  for (guint i = 0; i < n; i++) {
    /* The bits below are a fraction of this value: round what is left. */
    guint at = i % per_word * bits;
    float below = (float) words[i / per_word] / (float) (1u << at);
    float level = values[i] * up - below;
    level = CLAMP (level, -most - 1.f, most);
    words[i / per_word] |= ((guint32) (gint32) round_small (level) & ((1u << bits) - 1)) << at;
  }
}

void
ivl_dequantise_block (IvlDtype dtype, guint16 scale, const guint32 *words, float *values)
{
  guint bits = dtype == IVL_DTYPE_Q8 ? 8 : 4, per_word = 32 / bits;
  float unit = ivl_from_f16 (scale) * (float) (dtype == IVL_DTYPE_Q8 ? IVL_Q8_UNIT : IVL_Q4_UNIT);
  for (guint i = 0; i < IVL_QUANT_BLOCK; i++)
    values[i] = (float) (gint32) (words[i / per_word] << (32 - bits - i % per_word * bits)) * unit;
}
