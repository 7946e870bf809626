#include "tensor/dtype.h"

#include <string.h>

#include "tensor/gguf-quants.h"

gsize
ivl_tensor_dtype_bytes (IvlTensorDtype dtype)
{
  static const gsize bytes[] = { 4, 2, 2, 0 };
  return dtype < G_N_ELEMENTS (bytes) ? bytes[dtype] : 0;
}

gsize
ivl_tensor_run_bytes (IvlTensorDtype dtype, gsize n)
{
  return n / ivl_quant_block (dtype) * ivl_quant_block_bytes (dtype);
}

const char *
ivl_tensor_dtype_name (IvlTensorDtype dtype)
{
  static const char *const names[] = { "F32", "F16", "BF16", "other" };
  return ivl_quant_is (dtype) ? ivl_quant_name (dtype) : names[dtype];
}

static float
float_of_bits (guint32 bits)
{
  float value;
  memcpy (&value, &bits, sizeof value);
  return value;
}

static float
f16_to_f32 (guint16 h)
{
  guint32 sign = (guint32) (h & 0x8000) << 16;
  guint32 exponent = h >> 10 & 31, mantissa = h & 0x3ff;
  if (exponent == 31)
    return float_of_bits (sign | 0x7f800000 | mantissa << 13);
  if (exponent == 0) {
    float subnormal = (float) mantissa * 0x1p-24f;
    return sign ? -subnormal : subnormal;
  }
  return float_of_bits (sign | (exponent + 112) << 23 | mantissa << 13);
}

void
ivl_tensor_to_f32 (IvlTensorDtype dtype, const void *src, float *dst, gsize n)
{
  const guint8 *p = src;
  guint16 bits;
  if (n == 0) /* then either pointer may be NULL, which memcpy forbids */
    return;
  switch (dtype) {
  case IVL_TENSOR_F32:
    memcpy (dst, src, n * sizeof *dst);
    break;
  case IVL_TENSOR_F16:
    for (gsize i = 0; i < n; i++) {
      memcpy (&bits, p + 2 * i, 2);
      dst[i] = f16_to_f32 (bits);
    }
    break;
  case IVL_TENSOR_BF16:
    for (gsize i = 0; i < n; i++) {
      memcpy (&bits, p + 2 * i, 2);
      dst[i] = float_of_bits ((guint32) bits << 16);
    }
    break;
  case IVL_TENSOR_OTHER:
    g_assert_not_reached ();
  default:
    ivl_quant_to_f32 (dtype, src, dst, n);
  }
}

gsize
ivl_tensor_first_nonfinite (IvlTensorDtype dtype, const void *src, gsize n)
{
  /* An element isn't finite when its exponent is all ones; adding one to such an exponent, and only then, carries
   * into the sign bit, which was masked off. Elements lie side by side in a word without touching each other. */
  static const struct {
    guint64 exponent, one, sign;
  } masks[] = {
    { 0x7f8000007f800000, 0x0080000000800000, 0x8000000080000000 },
    { 0x7c007c007c007c00, 0x0400040004000400, 0x8000800080008000 },
    { 0x7f807f807f807f80, 0x0080008000800080, 0x8000800080008000 },
  };
  if (ivl_quant_is (dtype))
    return ivl_quant_first_nonfinite (dtype, src, n);
  g_assert (dtype < IVL_TENSOR_OTHER);
  const guint8 *p = src;
  gsize size = ivl_tensor_dtype_bytes (dtype), per_word = 8 / size, i = 0;
  guint64 word;
  for (; i + per_word <= n; i += per_word) {
    memcpy (&word, p + i * size, 8);
    if (((word & masks[dtype].exponent) + masks[dtype].one) & masks[dtype].sign)
      break;
  }
  for (; i < n; i++) {
    word = 0;
    memcpy (&word, p + i * size, size);
    if (((word & masks[dtype].exponent) + masks[dtype].one) & masks[dtype].sign) {
      /* Only the element itself was read: the rest of the word is zero and can't carry. */
      return i;
    }
  }
  return n;
}
