#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "push.h"
#include "../gemm/common.h"

/* The variant for GPUs and few rows, bound by reading the weights: a panel a workgroup, a column a lane, so that lanes
 * read neighbouring texels; two halves of the workgroup, and the workgroups along z, take turns along K. The sums of
 * part z go to part z of y (see reduce.comp). No subgroup operation. */

#define LANES (2 * IVL_PANEL)

shared float sums[2][TM][IVL_PANEL];

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
  for (uint s = 2 * gl_WorkGroupID.z + half_id; s < steps; s += workers) {
    vec4 a, b;
    load_weights (panel, column, s, a, b);
    [[unroll]] for (int i = 0; i < TM; i++)
      acc[i] += dot (LOAD (x_data, x_row[i] + 2 * s), a) + dot (LOAD (x_data, x_row[i] + 2 * s + 1), b);
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
