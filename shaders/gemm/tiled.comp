#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "push.h"
#include "../gemm/common.h"

/* The variant for GPUs: BM x BN outputs a workgroup of LANES, each lane TM x TN of them. Tiles of 16 along K go through
 * shared memory as f32, the next one being fetched into registers while the last is multiplied. No subgroup operation.
 * gl_WorkGroupID.z: part of K, whose sums go to part z of y (see reduce.comp). A result is summed along K in order. */

#define BK 16
#define X_LOADS (BM * BK / 4 / LANES)
#if BM * BK / 4 % LANES != 0 || BN * BK / 8 != LANES || BM * BN != TM * TN * LANES
#error "tile and lanes don't fit"
#endif

shared vec4 x_tile[2][BK][BM / 4];
shared vec4 w_tile[2][BK][BN / 4];

void
main ()
{
  uint lane = gl_LocalInvocationID.x;
  uint m0 = gl_WorkGroupID.x * BM, n0 = gl_WorkGroupID.y * BN;
  uint steps = p.k / 8;
  uint all_tiles = (steps + 1) / 2, per_part = (all_tiles + gl_NumWorkGroups.z - 1) / gl_NumWorkGroups.z;
  uint first = min (gl_WorkGroupID.z * per_part, all_tiles), tiles = min (per_part, all_tiles - first);

  /* Neighbouring lanes take neighbouring columns of weights, which lie side by side, and neighbouring rows of x, whose
   * other values the cache keeps for the lanes further on. */
  uint w_column = lane % BN, w_step = lane / BN;
  uint panel = min (n0 + w_column, p.n - 1) / IVL_PANEL, panel_column = w_column % IVL_PANEL;
  uint x_row[X_LOADS];
  [[unroll]] for (int l = 0; l < X_LOADS; l++)
    x_row[l] = p.x_offset + min (m0 + (lane + l * LANES) % BM, p.m - 1) * p.x_pitch;

  uint tx = lane % (BN / TN), ty = lane / (BN / TN);
  vec4 acc[TM][TN / 4];
  [[unroll]] for (int i = 0; i < TM; i++)
    [[unroll]] for (int j = 0; j < TN / 4; j++)
      acc[i][j] = vec4 (0.0);

  vec4 x_next[X_LOADS], w_a, w_b;
  for (uint t = 0; t <= tiles; t++) {
    if (t < tiles) {
      [[unroll]] for (int l = 0; l < X_LOADS; l++) {
        uint quad = (first + t) * (BK / 4) + (lane + l * LANES) / BM;
        x_next[l] = quad < p.k / 4 ? LOAD (x_data, x_row[l] + quad) : vec4 (0.0);
      }
      uint step = (first + t) * (BK / 8) + w_step;
      w_a = w_b = vec4 (0.0);
      if (step < steps)
        load_weights (panel, panel_column, step, w_a, w_b);
    }
    if (t > 0) {
      uint from = (t - 1) % 2;
      [[unroll]] for (int k = 0; k < BK; k++) {
        vec4 xv[TM / 4], wv[TN / 4];
        [[unroll]] for (int i = 0; i < TM / 4; i++)
          xv[i] = x_tile[from][k][ty * (TM / 4) + i];
        [[unroll]] for (int j = 0; j < TN / 4; j++)
          wv[j] = w_tile[from][k][tx + j * (BN / TN)];
        [[unroll]] for (int i = 0; i < TM; i++)
          [[unroll]] for (int j = 0; j < TN / 4; j++)
            acc[i][j] += xv[i / 4][i % 4] * wv[j];
      }
    }
    if (t < tiles) {
      uint to = t % 2;
      [[unroll]] for (int l = 0; l < X_LOADS; l++) {
        uint row = (lane + l * LANES) % BM, quad = (lane + l * LANES) / BM;
        [[unroll]] for (int c = 0; c < 4; c++)
          x_tile[to][4 * quad + c][row / 4][row % 4] = x_next[l][c];
      }
      [[unroll]] for (int c = 0; c < 4; c++) {
        w_tile[to][8 * w_step + c][w_column / 4][w_column % 4] = w_a[c];
        w_tile[to][8 * w_step + 4 + c][w_column / 4][w_column % 4] = w_b[c];
      }
      memoryBarrierShared ();
      barrier ();
    }
  }

  uint part = gl_WorkGroupID.z * p.m;
  [[unroll]] for (int i = 0; i < TM; i++) {
    uint m = m0 + ty * TM + i;
    if (m >= p.m)
      break;
    [[unroll]] for (int j = 0; j < TN / 4; j++) {
      uint n = n0 + 4 * (tx + j * (BN / TN));
      vec4 v = acc[i][j];
      put (part + m, n, activate (v.x, n), activate (v.y, n + 1));
      put (part + m, n + 2, activate (v.z, n + 2), activate (v.w, n + 3));
    }
  }
}
