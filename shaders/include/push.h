/* Push constants of all kernels, included by both C and GLSL so that there is one copy. Offsets and pitches
 * count elements unless named otherwise; rows are [rows, pitch]. */
#ifndef IVL_PUSH_H
#define IVL_PUSH_H

#ifdef __STDC__
#include <stdint.h>
#define uint uint32_t
#endif

/* Weight panels: GEMM weights [N, K] are stored as [N/64][K/8][64] texels of eight 16-bit values along K (or
 * [N/64][K/4][64] of four 32-bit values), zero padded, so that a workgroup streams its columns in order. */
#define IVL_PANEL 64

/* y[m, n] (+)= scale[n] * act(x[m, :] . w[n, :] + bias[n]) */
struct IvlPushGemm {
  uint m, n, k;          /* k: padded to a multiple of 8 */
  uint x_offset, x_pitch; /* in vec4 */
  uint y_offset, y_pitch;
  uint n_base;           /* of this slice of the weights, into bias, scale and y */
};

#ifdef __STDC__
#undef uint
#endif
#endif
