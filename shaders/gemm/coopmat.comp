#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#pragma use_vulkan_memory_model
#include "push.h"
#include "../gemm/common.h"

/* The variant for devices with cooperative matrices, of f16 with sums of f32: 64 x 64 outputs a workgroup of four
 * subgroups, each a quarter. Tiles of 32 along K go through shared memory.
 *
 * x keeps its precision: it is taken as high + low / 2^10, both f16, and multiplied twice. It is scaled by 2^-3 first, so
 * that values up to 524,000 fit; beyond, results are infinite or NaN, never plausible. bf16 weights are scaled by a power
 * of two that the host takes from the largest one, which leaves their eight bits whole unless they are 2^-30 of it; weights of
 * 8 and 4 bits are rounded to f16, which is finer than they are. */

layout (constant_id = 5) const uint CM = 8; /* the device's matrices: CM x CK times CK x CN; each divides 32 */
layout (constant_id = 7) const uint CN = 8;
layout (constant_id = 8) const uint CK = 8;

#define BM 64
#define BN 64
#define BK 32
#define QUARTER 32
#define LOW 1024.0
#define LEAST 0.00006103515625
#define X_DOWN 0.125

shared f16vec4 x_high[BM * BK / 4], x_low[BM * BK / 4]; /* [m][k] */
shared f16vec4 w_tile[BN * BK / 4];                     /* [n][k] */
shared float out_tile[4 * QUARTER * 8];                 /* a matrix a subgroup */

void
main ()
{
  uint lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x;
  uint m0 = gl_WorkGroupID.x * BM, n0 = gl_WorkGroupID.y * BN;
  uint steps = p.k / 8;
  uint all_tiles = (steps + BK / 8 - 1) / (BK / 8);
  uint per_part = (all_tiles + gl_NumWorkGroups.z - 1) / gl_NumWorkGroups.z;
  uint first = min (gl_WorkGroupID.z * per_part, all_tiles), end = min (first + per_part, all_tiles);
  uint quarter_m = gl_SubgroupID / 2 * QUARTER, quarter_n = gl_SubgroupID % 2 * QUARTER;

  coopmat<float, gl_ScopeSubgroup, CM, CN, gl_MatrixUseAccumulator> high[(QUARTER / CM) * (QUARTER / CN)];
  coopmat<float, gl_ScopeSubgroup, CM, CN, gl_MatrixUseAccumulator> low[(QUARTER / CM) * (QUARTER / CN)];
  for (uint i = 0; i < (QUARTER / CM) * (QUARTER / CN); i++) {
    high[i] = coopmat<float, gl_ScopeSubgroup, CM, CN, gl_MatrixUseAccumulator> (0.0);
    low[i] = coopmat<float, gl_ScopeSubgroup, CM, CN, gl_MatrixUseAccumulator> (0.0);
  }

  for (uint t = first; t < end; t++) {
    barrier ();
    for (uint i = lane; i < BM * BK / 4; i += lanes) {
      uint row = i / (BK / 4), quad = t * (BK / 4) + i % (BK / 4);
      vec4 v = quad < p.k / 4 ? LOAD (x_data, p.x_offset + min (m0 + row, p.m - 1) * p.x_pitch + quad) * X_DOWN : vec4 (0.0);
      /* By its bits, since compilers take a conversion there and back for nothing. Below 2^-14, where f16 loses bits and
       * devices may flush it, all goes to the low part. */
      vec4 h = mix (uintBitsToFloat (floatBitsToUint (v) & 0xffffe000u), vec4 (0.0), lessThan (abs (v), vec4 (LEAST)));
      x_high[i] = f16vec4 (h);
      x_low[i] = f16vec4 ((v - h) * LOW);
    }
    for (uint i = lane; i < BN * BK / 8; i += lanes) {
      uint column = i % BN, step = t * (BK / 8) + i / BN;
      vec4 a = vec4 (0.0), b = vec4 (0.0);
      if (step < steps)
        load_weights (min (n0, p.n - 1) / IVL_PANEL, column, step, a, b);
      w_tile[column * (BK / 4) + i / BN * 2] = f16vec4 (a * p.w_up);
      w_tile[column * (BK / 4) + i / BN * 2 + 1] = f16vec4 (b * p.w_up);
    }
    barrier ();
    for (uint k = 0; k < BK / CK; k++)
      for (uint j = 0; j < QUARTER / CN; j++) {
        coopmat<float16_t, gl_ScopeSubgroup, CK, CN, gl_MatrixUseB> w;
        coopMatLoad (w, w_tile, (quarter_n + j * CN) * (BK / 4) + k * CK / 4, BK / 4, gl_CooperativeMatrixLayoutColumnMajor);
        for (uint i = 0; i < QUARTER / CM; i++) {
          uint at = (quarter_m + i * CM) * (BK / 4) + k * CK / 4;
          coopmat<float16_t, gl_ScopeSubgroup, CM, CK, gl_MatrixUseA> x;
          coopMatLoad (x, x_high, at, BK / 4, gl_CooperativeMatrixLayoutRowMajor);
          high[i * (QUARTER / CN) + j] = coopMatMulAdd (x, w, high[i * (QUARTER / CN) + j]);
          coopMatLoad (x, x_low, at, BK / 4, gl_CooperativeMatrixLayoutRowMajor);
          low[i * (QUARTER / CN) + j] = coopMatMulAdd (x, w, low[i * (QUARTER / CN) + j]);
        }
      }
  }

  /* Matrix by matrix through shared memory, since which lane holds what is the device's business. */
  float up = 1.0 / (p.w_up * X_DOWN);
  uint own = gl_SubgroupID * QUARTER * 8;
  uint part = gl_WorkGroupID.z * p.m;
  for (uint i = 0; i < QUARTER / CM; i++)
    for (uint j = 0; j < QUARTER / CN; j++) {
      uint f = i * (QUARTER / CN) + j;
      coopmat<float, gl_ScopeSubgroup, CM, CN, gl_MatrixUseAccumulator> sum = (high[f] + low[f] * (1.0 / LOW)) * up;
      barrier ();
      coopMatStore (sum, out_tile, own, CN, gl_CooperativeMatrixLayoutRowMajor);
      barrier ();
      for (uint pair = gl_SubgroupInvocationID; pair < CM * CN / 2; pair += gl_SubgroupSize) {
        uint row = pair / (CN / 2), column = pair % (CN / 2) * 2;
        uint m = m0 + quarter_m + i * CM + row, n = n0 + quarter_n + j * CN + column;
        if (m < p.m)
          put (part + m, n, activate (out_tile[own + row * CN + column], n),
               activate (out_tile[own + row * CN + column + 1], n + 1));
      }
    }
}
