#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#ifdef ADDRESSES
#extension GL_EXT_buffer_reference : require
#endif
#if defined TEXELS || defined ADDRESSES
#define TURNS
#extension GL_KHR_shader_subgroup_ballot : require
#endif
#include "push.h"
#include "../gemm/common.h"

/* The registers-only variant: a lane owns TM rows x TN neighbouring columns; no shared memory, no barrier, no subgroup
 * operation, so it is correct on every device, and the fastest design on software drivers (loads bound it, so each is
 * 16 bytes). Whatever the tile, a result is summed in the same order, so that a row's values don't depend on its
 * neighbours. */

/* Not everywhere: where a driver makes two operations of fma (), it takes twice the time. f32 weights do without. */
layout (constant_id = 5) const bool FUSED = false;
#define MULTIPLY_ADD(a, x, w) (FUSED ? fma (x, w, a) : a + x * w)

/* Never true, K being a multiple of 8, which the compiler can't know. Without a branch before each column it works through a
 * step's fma () of all columns value by value of K, and every sum is loaded and stored each time: there are more of them
 * than registers. With it a sum's eight products follow each other: 16x16 on lavapipe 26.2 with 512-bit vectors, GFLOP a
 * CPU-second, f16 20 to 39, bf16 27 to 54, q8 21 to 47, q4 19 to 44. Smaller tiles of plain weights are slower with it. */
#ifdef QUANTS
#define SPLIT_ROWS 1
#else
#define SPLIT_ROWS 16
#endif
#define NEVER(j) (FUSED && TM >= SPLIT_ROWS && p.k == 8 * (j) + 1)

#if WTYPE == 0
#define K_PER_TEXEL 4
#else
#define K_PER_TEXEL 8
#endif

/* Tile ACROSS, DOWN of y, a workgroup's columns wide. */
void
multiply (uint across, uint down)
{
  uint n0 = (down * gl_WorkGroupSize.x + gl_LocalInvocationID.x) * TN;
  uint m0 = across * TM;
  if (n0 >= p.n)
    return;
  uint steps = p.k / K_PER_TEXEL;
#ifdef QUANTS
  uint blocks = (p.k + IVL_QUANT_BLOCK - 1) / IVL_QUANT_BLOCK;
  uint w_index = (n0 / IVL_PANEL) * blocks * BLOCK_TEXELS;
#else
  uint w_index = (n0 / IVL_PANEL) * steps * IVL_PANEL + IVL_PANEL_TEXEL (n0 % IVL_PANEL);
#endif

  uint x_index[TM];
  float acc[TM][TN];
  [[unroll]] for (int i = 0; i < TM; i++) {
    x_index[i] = p.x_offset + min (m0 + i, p.m - 1) * p.x_pitch;
    [[unroll]] for (int j = 0; j < TN; j++)
      acc[i][j] = 0.0;
  }

#ifdef QUANTS
  /* The scale goes on sums of eight products instead of on every weight: 5 to 20 % faster at m = 1, 11 % at m = 16. */
  for (uint block = 0; block < blocks; block++) {
    float unit[TN];
    [[unroll]] for (int j = 0; j < TN; j += 8) {
      uvec4 q = LOAD (w_data, w_index + (n0 % IVL_PANEL + j) / 8);
      [[unroll]] for (int c = 0; c < 4; c++) {
        vec2 pair = unpackHalf2x16 (q[c]);
        unit[j + 2 * c] = pair.x * QUANT_UNIT;
        unit[j + 2 * c + 1] = pair.y * QUANT_UNIT;
      }
    }
    w_index += IVL_QUANT_SCALES;
    uint end = min (4 * block + 4, steps);
    for (uint s = 4 * block; s < end; s++) {
      uint at = min (s, steps - 1); /* at the loop's end too: texels.h */
      vec4 xa[TM], xb[TM];
      [[unroll]] for (int i = 0; i < TM; i++) {
        xa[i] = LOAD_BROADCAST (x_data, x_index[i] + 2 * at);
        xb[i] = LOAD_BROADCAST (x_data, x_index[i] + 2 * at + 1);
      }
      [[unroll]] for (int j0 = 0; j0 < TN; j0 += QUANTS) {
        uvec4 q = LOAD (w_data, w_index + (n0 % IVL_PANEL + j0) / QUANTS);
        [[unroll]] for (int c = 0; c < QUANTS; c++) {
          int j = j0 + c;
          if (NEVER (j))
            continue;
#if WTYPE == 3
          uint qa = q[2 * c], qb = q[2 * c + 1];
          vec4 wa = vec4 (ivec4 (qa << 24, qa << 16, qa << 8, qa));
          vec4 wb = vec4 (ivec4 (qb << 24, qb << 16, qb << 8, qb));
#else
          uint q8 = q[c];
          vec4 wa = vec4 (ivec4 (q8 << 28, q8 << 24, q8 << 20, q8 << 16));
          vec4 wb = vec4 (ivec4 (q8 << 12, q8 << 8, q8 << 4, q8));
#endif
          [[unroll]] for (int i = 0; i < TM; i++) {
            float a = xa[i].x * wa.x;
            a = MULTIPLY_ADD (a, xa[i].y, wa.y);
            a = MULTIPLY_ADD (a, xa[i].z, wa.z);
            a = MULTIPLY_ADD (a, xa[i].w, wa.w);
            a = MULTIPLY_ADD (a, xb[i].x, wb.x);
            a = MULTIPLY_ADD (a, xb[i].y, wb.y);
            a = MULTIPLY_ADD (a, xb[i].z, wb.z);
            a = MULTIPLY_ADD (a, xb[i].w, wb.w);
            acc[i][j] = MULTIPLY_ADD (acc[i][j], a, unit[j]);
          }
        }
      }
      w_index += QUANT_TEXELS;
    }
  }
#else
  for (uint s = 0; s < steps; s++) {
    uint at = min (s, steps - 1); /* at the loop's end too: texels.h */
#if WTYPE == 0
    vec4 xv[TM];
    [[unroll]] for (int i = 0; i < TM; i++)
      xv[i] = LOAD_BROADCAST (x_data, x_index[i] + at);
    [[unroll]] for (int j = 0; j < TN; j++) {
      vec4 w = uintBitsToFloat (LOAD (w_data, w_index + IVL_PANEL_TEXEL (j)));
      [[unroll]] for (int i = 0; i < TM; i++)
        acc[i][j] += xv[i].x * w.x + xv[i].y * w.y + xv[i].z * w.z + xv[i].w * w.w;
    }
#else
    vec4 xa[TM], xb[TM];
    [[unroll]] for (int i = 0; i < TM; i++) {
      xa[i] = LOAD_BROADCAST (x_data, x_index[i] + 2 * at);
      xb[i] = LOAD_BROADCAST (x_data, x_index[i] + 2 * at + 1);
    }
    [[unroll]] for (int j = 0; j < TN; j++) {
      if (NEVER (j))
        continue;
      uvec4 q = LOAD (w_data, w_index + IVL_PANEL_TEXEL (j));
#if WTYPE == 1
      vec2 w0 = unpackHalf2x16 (q.x), w1 = unpackHalf2x16 (q.y), w2 = unpackHalf2x16 (q.z), w3 = unpackHalf2x16 (q.w);
#else
      vec2 w0 = uintBitsToFloat (uvec2 (q.x << 16, q.x & 0xffff0000u));
      vec2 w1 = uintBitsToFloat (uvec2 (q.y << 16, q.y & 0xffff0000u));
      vec2 w2 = uintBitsToFloat (uvec2 (q.z << 16, q.z & 0xffff0000u));
      vec2 w3 = uintBitsToFloat (uvec2 (q.w << 16, q.w & 0xffff0000u));
#endif
      [[unroll]] for (int i = 0; i < TM; i++) {
        float a = acc[i][j];
        a = MULTIPLY_ADD (a, xa[i].x, w0.x);
        a = MULTIPLY_ADD (a, xa[i].y, w0.y);
        a = MULTIPLY_ADD (a, xa[i].z, w1.x);
        a = MULTIPLY_ADD (a, xa[i].w, w1.y);
        a = MULTIPLY_ADD (a, xb[i].x, w2.x);
        a = MULTIPLY_ADD (a, xb[i].y, w2.y);
        a = MULTIPLY_ADD (a, xb[i].z, w3.x);
        a = MULTIPLY_ADD (a, xb[i].w, w3.y);
        acc[i][j] = a;
      }
    }
#endif
    w_index += IVL_PANEL;
  }
#endif

  [[unroll]] for (int i = 0; i < TM; i++) {
    if (m0 + i >= p.m)
      break;
    [[unroll]] for (int j = 0; j < TN; j += 2)
      put (m0 + i, n0 + j, activate (acc[i][j], n0 + j), activate (acc[i][j + 1], n0 + j + 1));
  }
}

#ifdef TURNS
/* lavapipe gives each of its threads an equal share of the workgroups beforehand, so that all wait for one whose processor
 * is busy with something else. Where a subgroup is a workgroup, there are few of them, and each takes the next tile until
 * none is left, or until it took IVL_TURNS: 24x8 beside one busy thread on two processors 34 ms instead of 46. The last one
 * makes the counters zero again. */
layout (constant_id = 6) const bool TAKES_TURNS = false;

uint
take_turn ()
{
  uint turn = 0;
  if (subgroupElect ())
    turn = atomicAdd (next_turn, 1);
  return subgroupBroadcastFirst (turn);
}
#endif

void
main ()
{
#ifdef TURNS
  if (TAKES_TURNS) {
    uint columns = gl_WorkGroupSize.x * TN;
    uint across = (p.m + TM - 1) / TM, down = (p.n + columns - 1) / columns;
    for (uint left = IVL_TURNS (p.k); left > 0; left--) {
      uint turn = take_turn ();
      if (turn >= across * down)
        break;
      multiply (turn % across, turn / across);
    }
    if (subgroupElect () && atomicAdd (workgroups_done, 1) == gl_NumWorkGroups.x - 1)
      next_turn = workgroups_done = 0;
    return;
  }
#endif
  multiply (gl_WorkGroupID.x, gl_WorkGroupID.y);
}
