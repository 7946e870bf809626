/* Blocks of quantised weights as they lie in GGUF files, made floats again.
 *
 *   type   elements  bytes  layout
 *   Q4_0      32      18    f16 d; 16 bytes of nibbles, element j low and j + 16 high: d * (q - 8)
 *   Q4_1      32      20    f16 d, m; nibbles: d * q + m
 *   Q5_0      32      22    f16 d; u32 of fifth bits; nibbles: d * (q - 16)
 *   Q5_1      32      24    f16 d, m; fifth bits; nibbles: d * q + m
 *   Q8_0      32      34    f16 d; 32 signed bytes: d * q
 *   Q4_K     256     144    f16 d, dmin; 8 scales and 8 minima of 6 bits in 12 bytes; nibbles: d * s * q - dmin * m
 *   Q5_K     256     176    as Q4_K with 32 bytes of fifth bits before the nibbles
 *   Q6_K     256     210    128 bytes of low nibbles, 64 of high pairs, 16 signed scales, f16 d: d * s * (q - 32)
 *
 * Products are formed in the order of the reference (scale times scale first), so that results are its bits. */
#ifndef IVL_TENSOR_GGUF_QUANTS_H
#define IVL_TENSOR_GGUF_QUANTS_H

#include "tensor/dtype.h"

gboolean ivl_quant_is (IvlTensorDtype dtype);
/* Elements and bytes of a block; 1 and the element's size for types that have no blocks. */
gsize ivl_quant_block (IvlTensorDtype dtype);
gsize ivl_quant_block_bytes (IvlTensorDtype dtype);
const char *ivl_quant_name (IvlTensorDtype dtype); /* quantised types only, as the next two */
/* N elements, whole blocks, at SRC, in any alignment. */
void ivl_quant_to_f32 (IvlTensorDtype dtype, const void *src, float *dst, gsize n);
/* Index of the first element of the first block whose scale is an infinity or NaN; N if there is none. Finite scales
 * make finite elements. */
gsize ivl_quant_first_nonfinite (IvlTensorDtype dtype, const void *src, gsize n);

#endif
