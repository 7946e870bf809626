/* Element types of a checkpoint's tensors, as they lie in the file (the device's own are IvlDtype). */
#ifndef IVL_TENSOR_DTYPE_H
#define IVL_TENSOR_DTYPE_H

#include <glib.h>

/* The first three have the values of IvlDtype. */
typedef enum {
  IVL_TENSOR_F32,
  IVL_TENSOR_F16,
  IVL_TENSOR_BF16,
  IVL_TENSOR_OTHER, /* any other type of the format: can be listed, not computed with */
  /* GGUF's quantised types, in blocks: see gguf-quants.h. Far from the others, whose values are IvlDtype's. */
  IVL_TENSOR_Q4_0 = 64,
  IVL_TENSOR_Q4_1,
  IVL_TENSOR_Q5_0,
  IVL_TENSOR_Q5_1,
  IVL_TENSOR_Q8_0,
  IVL_TENSOR_Q4_K,
  IVL_TENSOR_Q5_K,
  IVL_TENSOR_Q6_K,
} IvlTensorDtype;

/* Bytes of an element; 0 for OTHER and quantised types. */
gsize ivl_tensor_dtype_bytes (IvlTensorDtype dtype);
/* Bytes of N elements, whole blocks if quantised. */
gsize ivl_tensor_run_bytes (IvlTensorDtype dtype, gsize n);
const char *ivl_tensor_dtype_name (IvlTensorDtype dtype); /* as safetensors spells it */

/* Exact conversion of N elements (whole blocks) at SRC, in any alignment. Subnormals, infinities and NaN are kept. */
void ivl_tensor_to_f32 (IvlTensorDtype dtype, const void *src, float *dst, gsize n);

/* Index of the first infinity or NaN among N elements at SRC, in any alignment; N if there is none; of a
 * quantised type the first of the block. Reads exponent bits only, eight bytes at a time: cheap beside the copy of a
 * row to the device. */
gsize ivl_tensor_first_nonfinite (IvlTensorDtype dtype, const void *src, gsize n);

#endif
