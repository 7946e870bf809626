/* Weights of 8 and 4 bits, in blocks of 32 along K with one scale (layout: push.h). */
#ifndef IVL_MODEL_QUANTISE_H
#define IVL_MODEL_QUANTISE_H

#include "kernels/gemm.h"

/* Round to nearest even; beyond the largest finite value, to that. */
guint16 ivl_to_f16 (float f);
float ivl_from_f16 (guint16 h);

/* One block: N <= IVL_QUANT_BLOCK finite VALUES, the rest of the block being zero. SCALE as it is stored. WORDS: 8 of
 * q8, 4 of q4; words of which no value is given are zero, and so is what they stand for. */
void ivl_quantise_block (IvlDtype dtype, const float *values, guint n, guint16 *scale, guint32 *words);
/* What the kernels make of it: exactly, but for the last bit of q4's fractions. VALUES: IVL_QUANT_BLOCK. */
void ivl_dequantise_block (IvlDtype dtype, guint16 scale, const guint32 *words, float *values);

#endif
