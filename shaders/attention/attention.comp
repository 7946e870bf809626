#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#ifdef ADDRESSES
#extension GL_EXT_buffer_reference : require
#endif
#include "push.h"
#include "texels.h"

/* Attention with an online softmax, so that no score matrix exists: softmax (q . k^T * scale) . v.
 * Full over the tokens of a tile, or causal over a paged KV cache with grouped heads.
 * A lane owns TQ queries, a query being (row, head of the kv head's group); all lanes walk the same keys, TK at a
 * time, so that keys and values are loaded once per workgroup step. No shared memory, no subgroup operation.
 * Whatever TQ, a query's values are the same to the last bit. */

/* Small code counts more than fewer rescalings: 1025 tokens, head dim 64, TQ 8, lavapipe 26.2 with 512-bit vectors, GFLOP a
 * CPU-second: 2 keys 24, 4 28, 8 23, 16 24; with 256-bit vectors 14, 16, 14, 12. */
#define TK 4

layout (local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout (constant_id = 1) const uint D = 64;       /* head dim, a multiple of 4 */
layout (constant_id = 2) const uint GROUP = 1;    /* query heads per kv head */
layout (constant_id = 3) const bool CAUSAL = false; /* and paged */
layout (constant_id = 4) const bool FUSED = false;  /* as in gemm/gemm.comp */

#define D4 (D / 4)

/* Never true, a pitch being a head dim at least: as in gemm/gemm.comp. */
#define NEVER(c) (FUSED && p.kv_pitch == (c))

FLOATS (0, q_data);
BROADCAST_FLOATS (1, kv_data)
SMALL (2, items);
layout (binding = 3, std430) readonly buffer Pages { uint pages[]; };
layout (binding = 4, std430) writeonly buffer Out { vec4 o_data[]; };
layout (push_constant) uniform Push { IvlPushAttention p; ADDRESS (0, kv_data) };

void
main ()
{
  uvec4 words = LOAD_SMALL (items, p.item_base + gl_WorkGroupID.x);
  IvlAttentionItem item = IvlAttentionItem (words.x, words.y, words.z, words.w);
  uint kv_head = gl_WorkGroupID.y;
  uint lanes = gl_WorkGroupSize.x;
  uint n_queries = item.n_rows * GROUP;

  uint o_at[TQ], limit[TQ];
  vec4 q[TQ][D4], o[TQ][D4];
  float top[TQ], sum[TQ];
  uint longest = CAUSAL ? item.kv_len + item.n_rows - 1 : item.kv_len;
  [[unroll]] for (int t = 0; t < TQ; t++) {
    uint query = min (gl_LocalInvocationID.x + t * lanes, n_queries - 1);
    uint row = query / GROUP, head = kv_head * GROUP + query % GROUP;
    uint q_at = p.q_offset + (item.row + row) * p.q_pitch + head * D4;
    o_at[t] = p.o_offset + (item.row + row) * p.o_pitch + head * D4;
    limit[t] = CAUSAL ? item.kv_len + row : item.kv_len;
    top[t] = -3.0e38;
    sum[t] = 0.0;
    [[unroll]] for (uint c = 0; c < D4; c++) {
      q[t][c] = LOAD (q_data, q_at + c);
      o[t][c] = vec4 (0.0);
    }
  }

  for (uint j0 = 0; j0 < longest; j0 += TK) {
    /* A page holds a multiple of TK keys, so these TK are neighbours. Past the end the last one is loaded again: its
     * weight is zero, but zero times what memory happens to hold may not be. */
    uint k_at, first = min (j0, longest - 1); /* at the loop's end too: texels.h */
    if (CAUSAL)
      k_at = pages[item.kv + first / IVL_KV_PAGE] * IVL_KV_PAGE + first % IVL_KV_PAGE;
    else
      k_at = item.kv + first;
    uint last = k_at + (longest - 1 - first);
    uint row_at[TK];
    [[unroll]] for (uint j = 0; j < TK; j++)
      row_at[j] = min (k_at + j, last) * p.kv_pitch + kv_head * D4;

    float s[TQ][TK];
    [[unroll]] for (int t = 0; t < TQ; t++)
      [[unroll]] for (int j = 0; j < TK; j++)
        s[t][j] = 0.0;
    [[unroll]] for (uint c = 0; c < D4; c++) {
      if (NEVER (c))
        continue;
      /* All keys first, then query by query: each query's values stay in registers. */
      vec4 k[TK];
      [[unroll]] for (int j = 0; j < TK; j++)
        k[j] = LOAD_BROADCAST (kv_data, p.k_offset + row_at[j] + c);
      [[unroll]] for (int t = 0; t < TQ; t++) {
        vec4 x = q[t][c];
        [[unroll]] for (int j = 0; j < TK; j++)
          s[t][j] = FUSED ? fma (x.w, k[j].w, fma (x.z, k[j].z, fma (x.y, k[j].y, fma (x.x, k[j].x, s[t][j]))))
                          : s[t][j] + (x.x * k[j].x + x.y * k[j].y + x.z * k[j].z + x.w * k[j].w);
      }
    }
    float keep[TQ];
    [[unroll]] for (int t = 0; t < TQ; t++) {
      float best = top[t];
      [[unroll]] for (int j = 0; j < TK; j++) {
        s[t][j] = j0 + j < limit[t] ? s[t][j] * p.scale : -3.0e38;
        best = max (best, s[t][j]);
      }
      keep[t] = exp (top[t] - best);
      top[t] = best;
      float add = 0.0;
      [[unroll]] for (int j = 0; j < TK; j++) {
        s[t][j] = j0 + j < limit[t] ? exp (s[t][j] - best) : 0.0;
        add += s[t][j];
      }
      sum[t] = sum[t] * keep[t] + add;
    }
    [[unroll]] for (uint c = 0; c < D4; c++) {
      if (NEVER (c))
        continue;
      vec4 v[TK];
      [[unroll]] for (int j = 0; j < TK; j++)
        v[j] = LOAD_BROADCAST (kv_data, p.v_offset + row_at[j] + c);
      [[unroll]] for (int t = 0; t < TQ; t++) {
        vec4 add = o[t][c] * keep[t];
        [[unroll]] for (int j = 0; j < TK; j++)
          add = FUSED ? fma (vec4 (s[t][j]), v[j], add) : add + s[t][j] * v[j];
        o[t][c] = add;
      }
    }
  }

  [[unroll]] for (int t = 0; t < TQ; t++) {
    if (gl_LocalInvocationID.x + t * lanes >= n_queries)
      break;
    [[unroll]] for (uint c = 0; c < D4; c++)
      o_data[o_at[t] + c] = o[t][c] / sum[t];
  }
}
