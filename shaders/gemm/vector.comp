#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "push.h"
#include "../gemm/common.h"

/* The variant for GPUs and few rows, bound by reading the weights: a panel a workgroup, a column a lane, so that lanes
 * read neighbouring texels; two halves of the workgroup, and the workgroups along z, take turns along K. The sums of
 * part z go to part z of y (see reduce.comp). No subgroup operation. */

#define LANES (2 * IVL_PANEL)

/* Rows of x go in by their RMSNorm, whose weight is in the scale's place: what norm.comp would have written. */
layout (constant_id = 6) const bool NORM = false;

shared float sums[2][TM][IVL_PANEL];
shared float inverse[TM];

/* As the shared variant of norm.comp does it, with the lanes of half a workgroup. */
void
find_inverse (uint lane, uint half_id, uint x_row[TM])
{
  for (uint i = half_id; i < TM; i += 2) {
    vec4 squares = vec4 (0.0);
    for (uint j = lane % IVL_PANEL; j < p.k / 4; j += IVL_PANEL) {
      vec4 v = LOAD (x_data, x_row[i] + j);
      squares += v * v;
    }
    sums[0][i][lane % IVL_PANEL] = squares.x + squares.y + squares.z + squares.w;
  }
  memoryBarrierShared ();
  barrier ();
  if (lane < TM) {
    float sum = 0.0;
    for (uint j = 0; j < IVL_PANEL; j++)
      sum += sums[0][lane][j];
    inverse[lane] = 1.0 / sqrt (sum / float (p.k) + p.eps);
  }
  memoryBarrierShared ();
  barrier ();
}

void
main ()
{
  uint lane = gl_LocalInvocationID.x, column = lane % IVL_PANEL, half_id = lane / IVL_PANEL;
  uint m0 = gl_WorkGroupID.x * TM, panel = gl_WorkGroupID.y;
  uint steps = p.k / 8, workers = 2 * gl_NumWorkGroups.z;
  uint x_row[TM];
  float acc[TM];
  [[unroll]] for (int i = 0; i < TM; i++) {
    x_row[i] = p.x_offset + min (m0 + i, p.m - 1) * p.x_pitch;
    acc[i] = 0.0;
  }
  if (NORM)
    find_inverse (lane, half_id, x_row);
  for (uint s = 2 * gl_WorkGroupID.z + half_id; s < steps; s += workers) {
    vec4 a, b, norm_a, norm_b;
    load_weights (panel, column, s, a, b);
    if (NORM) {
      norm_a = LOAD_SMALL (scale, 2 * s);
      norm_b = LOAD_SMALL (scale, 2 * s + 1);
    }
    [[unroll]] for (int i = 0; i < TM; i++) {
      vec4 xa = LOAD (x_data, x_row[i] + 2 * s), xb = LOAD (x_data, x_row[i] + 2 * s + 1);
      if (NORM) {
        xa = xa * inverse[i] * norm_a;
        xb = xb * inverse[i] * norm_b;
      }
      acc[i] += dot (xa, a) + dot (xb, b);
    }
  }
  [[unroll]] for (int i = 0; i < TM; i++)
    sums[half_id][i][column] = acc[i];
  memoryBarrierShared ();
  barrier ();

  uint part = gl_WorkGroupID.z * p.m;
  for (uint pair = lane; pair < TM * IVL_PANEL / 2; pair += LANES) {
    uint i = pair / (IVL_PANEL / 2), c = pair % (IVL_PANEL / 2) * 2, n = panel * IVL_PANEL + c;
    if (m0 + i < p.m)
      put (part + m0 + i, n, activate (sums[0][i][c] + sums[1][i][c], n),
           activate (sums[0][i][c + 1] + sums[1][i][c + 1], n + 1));
  }
}
