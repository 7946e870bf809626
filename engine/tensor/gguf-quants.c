#include "tensor/gguf-quants.h"

#include <string.h>

static const struct {
  const char *name;
  guint16 block, bytes;
  gint16 scales[2]; /* where the block's f16 are; -1: there is none */
} formats[] = {
  [IVL_TENSOR_Q4_0 - IVL_TENSOR_Q4_0] = { "Q4_0", 32, 18, { 0, -1 } },
  [IVL_TENSOR_Q4_1 - IVL_TENSOR_Q4_0] = { "Q4_1", 32, 20, { 0, 2 } },
  [IVL_TENSOR_Q5_0 - IVL_TENSOR_Q4_0] = { "Q5_0", 32, 22, { 0, -1 } },
  [IVL_TENSOR_Q5_1 - IVL_TENSOR_Q4_0] = { "Q5_1", 32, 24, { 0, 2 } },
  [IVL_TENSOR_Q8_0 - IVL_TENSOR_Q4_0] = { "Q8_0", 32, 34, { 0, -1 } },
  [IVL_TENSOR_Q4_K - IVL_TENSOR_Q4_0] = { "Q4_K", 256, 144, { 0, 2 } },
  [IVL_TENSOR_Q5_K - IVL_TENSOR_Q4_0] = { "Q5_K", 256, 176, { 0, 2 } },
  [IVL_TENSOR_Q6_K - IVL_TENSOR_Q4_0] = { "Q6_K", 256, 210, { 208, -1 } },
};

gboolean
ivl_quant_is (IvlTensorDtype dtype)
{
  return dtype >= IVL_TENSOR_Q4_0 && dtype < IVL_TENSOR_Q4_0 + (int) G_N_ELEMENTS (formats);
}

gsize
ivl_quant_block (IvlTensorDtype dtype)
{
  return ivl_quant_is (dtype) ? formats[dtype - IVL_TENSOR_Q4_0].block : 1;
}

gsize
ivl_quant_block_bytes (IvlTensorDtype dtype)
{
  return ivl_quant_is (dtype) ? formats[dtype - IVL_TENSOR_Q4_0].bytes : ivl_tensor_dtype_bytes (dtype);
}

const char *
ivl_quant_name (IvlTensorDtype dtype)
{
  g_assert (ivl_quant_is (dtype));
  return formats[dtype - IVL_TENSOR_Q4_0].name;
}

static float
half_at (const guint8 *p)
{
  float value;
  ivl_tensor_to_f32 (IVL_TENSOR_F16, p, &value, 1);
  return value;
}

/* Q4_0, Q4_1, Q5_0, Q5_1: what differs is the minimum, the fifth bits and the zero point. */
static void
nibbles (const guint8 *p, gboolean minimum, gboolean fifth, float *y)
{
  float d = half_at (p), m = minimum ? half_at (p + 2) : 0;
  int zero = minimum ? 0 : fifth ? 16 : 8;
  guint32 high = 0;
  p += minimum ? 4 : 2;
  if (fifth) {
    memcpy (&high, p, 4);
    high = GUINT32_FROM_LE (high);
    p += 4;
  }
  for (guint j = 0; j < 16; j++) {
    int low = (int) ((p[j] & 15u) | (high >> j & 1) << 4), top = (int) ((p[j] >> 4u) | (high >> (j + 16) & 1) << 4);
    y[j] = (float) (low - zero) * d;
    y[j + 16] = (float) (top - zero) * d;
    if (minimum) {
      y[j] += m;
      y[j + 16] += m;
    }
  }
}

/* Scale and minimum I of a K block's twelve bytes: the first four of each in the low six bits of bytes 0 to 7, the
 * others in nibbles of bytes 8 to 11 with their top bits above those. */
static void
scale_and_min (const guint8 *s, guint i, guint *scale, guint *min)
{
  if (i < 4) {
    *scale = s[i] & 63;
    *min = s[i + 4] & 63;
  } else {
    *scale = (s[i + 4] & 15u) | (guint) (s[i - 4] >> 6) << 4;
    *min = (guint) (s[i + 4] >> 4) | (guint) (s[i] >> 6) << 4;
  }
}

static void
block_q4_5_k (const guint8 *p, gboolean fifth, float *y)
{
  float d = half_at (p), dmin = half_at (p + 2);
  const guint8 *scales = p + 4, *high = p + 16, *q = fifth ? p + 48 : p + 16;
  for (guint i = 0; i < 8; i++) {
    guint scale, min;
    scale_and_min (scales, i, &scale, &min);
    float a = d * (float) scale, b = dmin * (float) min;
    for (guint j = 0; j < 32; j++) {
      guint value = i % 2 ? q[j] >> 4 : q[j] & 15u;
      if (fifth)
        value |= (high[j] >> i & 1u) << 4;
      y[32 * i + j] = a * (float) value - b;
    }
    if (i % 2)
      q += 32;
  }
}

static void
block_q6_k (const guint8 *p, float *y)
{
  float d = half_at (p + 208);
  for (guint n = 0; n < 2; n++, y += 128) {
    const guint8 *low = p + 64 * n, *high = p + 128 + 32 * n;
    const gint8 *scales = (const gint8 *) p + 192 + 8 * n;
    for (guint i = 0; i < 128; i++) {
      guint quarter = i / 32, j = i % 32;
      guint nibble = quarter < 2 ? low[j + 32 * quarter] & 15u : (guint) low[j + 32 * (quarter - 2)] >> 4;
      int value = (int) (nibble | (high[j] >> (2 * quarter) & 3u) << 4) - 32;
      y[i] = d * (float) scales[i / 16] * (float) value;
    }
  }
}

void
ivl_quant_to_f32 (IvlTensorDtype dtype, const void *src, float *dst, gsize n)
{
  const guint8 *p = src;
  gsize block = ivl_quant_block (dtype), bytes = ivl_quant_block_bytes (dtype);
  g_assert (ivl_quant_is (dtype) && n % block == 0);
  for (gsize i = 0; i < n; i += block, p += bytes, dst += block)
    switch (dtype) {
    case IVL_TENSOR_Q4_0:
      nibbles (p, FALSE, FALSE, dst);
      break;
    case IVL_TENSOR_Q4_1:
      nibbles (p, TRUE, FALSE, dst);
      break;
    case IVL_TENSOR_Q5_0:
      nibbles (p, FALSE, TRUE, dst);
      break;
    case IVL_TENSOR_Q5_1:
      nibbles (p, TRUE, TRUE, dst);
      break;
    case IVL_TENSOR_Q8_0: {
      float d = half_at (p);
      for (guint j = 0; j < 32; j++)
        dst[j] = (float) (gint8) p[2 + j] * d;
      break;
    }
    case IVL_TENSOR_Q4_K:
      block_q4_5_k (p, FALSE, dst);
      break;
    case IVL_TENSOR_Q5_K:
      block_q4_5_k (p, TRUE, dst);
      break;
    case IVL_TENSOR_Q6_K:
      block_q6_k (p, dst);
      break;
    default:
      g_assert_not_reached ();
    }
}

gsize
ivl_quant_first_nonfinite (IvlTensorDtype dtype, const void *src, gsize n)
{
  g_assert (ivl_quant_is (dtype));
  const guint8 *p = src;
  const gint16 *scales = formats[dtype - IVL_TENSOR_Q4_0].scales;
  gsize block = ivl_quant_block (dtype), bytes = ivl_quant_block_bytes (dtype);
  for (gsize i = 0; i < n; i += block, p += bytes)
    for (guint s = 0; s < 2 && scales[s] >= 0; s++)
      if ((p[scales[s] + 1] & 0x7c) == 0x7c)
        return i;
  return n;
}
