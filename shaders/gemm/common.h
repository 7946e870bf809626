/* What the variants of the matmul share: constants, bindings, the layout of weights (push.h) and the epilogue
 *   y = act (x . w^T + bias) * scale (+ y)
 * WTYPE: 0 f32, 1 f16, 2 bf16, 3 q8, 4 q4. TEXELS: x and w are read through texel buffers. ADDRESSES: x by its address.
 * PARTS: x is what a split matmul left, as floats. ROPE: the decoder's q, k and v, of which a head of q and k has the pairs
 * (j, j + d/2) side by side. Instead of the rest of the epilogue q is rotated, and rotated k and plain v go to the KV cache,
 * each value in its place; see rope/rope_cache.comp, which does the same to what is in y. */

#include "texels.h"

layout (local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout (constant_id = 1) const bool HAS_BIAS = false;
#ifdef ROPE
layout (constant_id = 2) const uint D = 64;
layout (constant_id = 3) const uint HEADS = 1;
layout (constant_id = 4) const uint KV_HEADS = 1;
#else
layout (constant_id = 2) const uint ACT = 0;       /* 0 none, 1 GELU, 2 SwiGLU on column pairs (gate, up) */
layout (constant_id = 3) const bool HAS_SCALE = false;
layout (constant_id = 4) const bool ADD = false;   /* to what y holds */
#endif

#ifdef PARTS
layout (binding = 0, std430) readonly buffer X { float parts[]; };
#else
BROADCAST_FLOATS (0, x_data)
INPUT (1, w_data);
#endif
SMALL_FLOATS (2, bias);
SMALL_FLOATS (3, scale);
#ifdef ROPE
layout (binding = 4, std430) writeonly buffer Y { float y[]; };
SMALL (5, rows);           /* an IvlRow a texel */
layout (binding = 6, std430) writeonly buffer Cache { float cache[]; };
SMALL_FLOATS (7, cos_sin); /* two pairs a texel */
#define TURNS_SLOT 8
#else
layout (binding = 4, std430) buffer Y { float y[]; };
#define TURNS_SLOT 5
#endif
#ifdef TURNS
layout (binding = TURNS_SLOT, std430) buffer Turns { uint next_turn, workgroups_done; };
#endif
layout (push_constant) uniform Push { IvlPushGemm p; ADDRESS (0, x_data) };

#if WTYPE >= 3
#define QUANTS (WTYPE == 3 ? 2 : 4)    /* columns whose next eight values share a texel */
#define QUANT_TEXELS (IVL_PANEL / QUANTS)
#define QUANT_UNIT (WTYPE == 3 ? IVL_Q8_UNIT : IVL_Q4_UNIT)
#define BLOCK_TEXELS (WTYPE == 3 ? IVL_Q8_BLOCK_TEXELS : IVL_Q4_BLOCK_TEXELS)
#endif

#ifdef ROPE
float
activate (float sum, uint n)
{
  uint column = p.n_base + min (n, p.n - 1);
  return HAS_BIAS ? sum + LOAD_SMALL (bias, column / 4)[column % 4] : sum;
}

void
put (uint m, uint n, float a, float b)
{
  if (n >= p.n)
    return;
  uvec4 row = LOAD_SMALL (rows, p.row_base + m);
  uint position = row.y, slot = row.z;
  uint column = p.n_base + n, head = column / D, first = column, second = column + 1;
  if (head < HEADS + KV_HEADS) {
    uint j = column % D / 2, pair = position * (D / 2) + j;
    vec4 two = LOAD_SMALL (cos_sin, pair / 2);
    vec2 t = pair % 2 == 0 ? two.xy : two.zw;
    float rotated = a * t.x - b * t.y;
    b = b * t.x + a * t.y;
    a = rotated;
    first = head * D + j;
    second = first + D / 2;
  }
  if (head < HEADS) {
    uint to = p.y_offset + m * p.y_pitch;
    y[to + first] = a;
    y[to + second] = b;
  } else {
    uint to = slot * (2 * KV_HEADS * D) - HEADS * D;
    cache[to + first] = a;
    cache[to + second] = b;
  }
}

#else
float
gelu (float v)
{
  /* erf by Abramowitz and Stegun 7.1.26: |error| < 1.5e-7, well under the reference's own rounding. */
  float z = abs (v) * 0.70710678118654752;
  float t = 1.0 / (1.0 + 0.3275911 * z);
  float poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  float e = 1.0 - poly * exp (-z * z);
  return 0.5 * v * (1.0 + (v < 0.0 ? -e : e));
}

/* The sum of column N with all that is done to a column alone. */
float
activate (float sum, uint n)
{
  uint column = p.n_base + min (n, p.n - 1);
  float v = HAS_BIAS ? sum + LOAD_SMALL (bias, column / 4)[column % 4] : sum;
  v = ACT == 1 ? gelu (v) : v;
  return HAS_SCALE ? v * LOAD_SMALL (scale, column / 4)[column % 4] : v;
}

/* Two neighbouring columns, N even, after activate (). */
void
put (uint m, uint n, float a, float b)
{
  uint row = p.y_offset + m * p.y_pitch;
  if (ACT == 2) {
    if (n < p.n)
      y[row + (p.n_base + n) / 2] = a / (1.0 + exp (-a)) * b;
    return;
  }
  uint at = row + p.n_base + n;
  if (n < p.n)
    y[at] = ADD ? y[at] + a : a;
  if (n + 1 < p.n)
    y[at + 1] = ADD ? y[at + 1] + b : b;
}
#endif

#ifndef PARTS
/* Weights 8 * STEP to 8 * STEP + 7 along K of one column of a panel. */
void
load_weights (uint panel, uint column, uint step, out vec4 a, out vec4 b)
{
#if WTYPE == 0
  uint at = (panel * (p.k / 4) + 2 * step) * IVL_PANEL + IVL_PANEL_TEXEL (column);
  a = uintBitsToFloat (LOAD (w_data, at));
  b = uintBitsToFloat (LOAD (w_data, at + IVL_PANEL));
#elif WTYPE == 1
  uvec4 q = LOAD (w_data, (panel * (p.k / 8) + step) * IVL_PANEL + IVL_PANEL_TEXEL (column));
  a = vec4 (unpackHalf2x16 (q.x), unpackHalf2x16 (q.y));
  b = vec4 (unpackHalf2x16 (q.z), unpackHalf2x16 (q.w));
#elif WTYPE == 2
  uvec4 q = LOAD (w_data, (panel * (p.k / 8) + step) * IVL_PANEL + IVL_PANEL_TEXEL (column));
  a = uintBitsToFloat (uvec4 (q.x << 16, q.x & 0xffff0000u, q.y << 16, q.y & 0xffff0000u));
  b = uintBitsToFloat (uvec4 (q.z << 16, q.z & 0xffff0000u, q.w << 16, q.w & 0xffff0000u));
#else
  uint block = (panel * ((p.k + IVL_QUANT_BLOCK - 1) / IVL_QUANT_BLOCK) + step / 4) * BLOCK_TEXELS;
  float unit = unpackHalf2x16 (LOAD (w_data, block + column / 8)[column % 8 / 2])[column % 2] * QUANT_UNIT;
  uvec4 q = LOAD (w_data, block + IVL_QUANT_SCALES + step % 4 * QUANT_TEXELS + column / QUANTS);
#if WTYPE == 3
  uint qa = column % 2 == 0 ? q.x : q.z, qb = column % 2 == 0 ? q.y : q.w;
  a = vec4 (ivec4 (qa << 24, qa << 16, qa << 8, qa)) * unit;
  b = vec4 (ivec4 (qb << 24, qb << 16, qb << 8, qb)) * unit;
#else
  uint q8 = q[column % 4];
  a = vec4 (ivec4 (q8 << 28, q8 << 24, q8 << 20, q8 << 16)) * unit;
  b = vec4 (ivec4 (q8 << 12, q8 << 8, q8 << 4, q8)) * unit;
#endif
#endif
}
#endif
