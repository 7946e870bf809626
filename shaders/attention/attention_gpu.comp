#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "push.h"
#include "texels.h"

/* Attention for GPUs: as attention.comp, but a workgroup shares QUERIES queries of one kv head, TEAM lanes each, and
 * what it reads of keys. KEYS keys a time, MOST_D: the largest head dim. No subgroup operation, so any subgroup size.
 * PART > 0: workgroups with another z take other PARTs of the keys of an item of one row, so that a long context keeps
 * the whole device busy; attention_merge.comp puts them together. How keys are cut depends on a row's own length
 * alone: its result doesn't change with what else is in the batch. */

layout (local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout (constant_id = 1) const uint D = 64;
layout (constant_id = 2) const uint GROUP = 1;
layout (constant_id = 3) const bool CAUSAL = false;
layout (constant_id = 4) const uint PART = 0;

#define TEAM (IVL_ATTENTION_LANES / IVL_ATTENTION_QUERIES)
#define QUERIES IVL_ATTENTION_QUERIES
#define LANES IVL_ATTENTION_LANES
#define D4 (D / 4)
#define CHUNK 16 /* quads of a key that are in shared memory at a time */
#define OWN ((MOST_D / 4 + TEAM - 1) / TEAM)

FLOATS (0, q_data);
FLOATS (1, kv_data);
SMALL (2, items);
layout (binding = 3, std430) readonly buffer Pages { uint pages[]; };
layout (binding = 4, std430) writeonly buffer Out { vec4 o_data[]; };
layout (push_constant) uniform Push { IvlPushAttention p; };

/* A quad more a row: neighbours in a column fall into different banks. */
shared vec4 q_tile[QUERIES][MOST_D / 4 + 1];
shared vec4 k_tile[KEYS][CHUNK + 1];
shared float weights[QUERIES][KEYS + 1];

void
main ()
{
  uint lane = gl_LocalInvocationID.x, mine = lane / TEAM, member = lane % TEAM;
  uint kv_head = gl_WorkGroupID.y / p.query_blocks, first_query = gl_WorkGroupID.y % p.query_blocks * QUERIES;
  uvec4 words = LOAD_SMALL (items, p.item_base + gl_WorkGroupID.x);
  IvlAttentionItem item = IvlAttentionItem (words.x, words.y, words.z, words.w);
  uint n_queries = item.n_rows * GROUP;
  if (first_query >= n_queries)
    return;
  uint last_query = min (first_query + QUERIES, n_queries) - 1;
  uint from = PART * gl_WorkGroupID.z, to = CAUSAL ? item.kv_len + last_query / GROUP : item.kv_len;
  uint past = to - 1;
  if (PART > 0)
    to = min (to, from + PART);
  if (from >= to)
    return;

  uint query = min (first_query + mine, last_query);
  uint limit = CAUSAL ? item.kv_len + query / GROUP : item.kv_len;
  for (uint i = lane; i < QUERIES * D4; i += LANES) {
    uint other = min (first_query + i / D4, last_query);
    q_tile[i / D4][i % D4] = LOAD (q_data, p.q_offset + (item.row + other / GROUP) * p.q_pitch
                                             + (kv_head * GROUP + other % GROUP) * D4 + i % D4);
  }
  vec4 o[OWN];
  [[unroll]] for (uint i = 0; i < OWN; i++)
    o[i] = vec4 (0.0);
  float top = -3.0e38, sum = 0.0;

  for (uint j0 = from; j0 < to; j0 += KEYS) {
    /* A page holds a multiple of KEYS, so these are neighbours; past the end the last one is read again. */
    uint k_at = CAUSAL ? pages[item.kv + j0 / IVL_KV_PAGE] * IVL_KV_PAGE + j0 % IVL_KV_PAGE : item.kv + j0;
    uint last = k_at + (past - j0);
    float s[KEYS / TEAM];
    [[unroll]] for (uint i = 0; i < KEYS / TEAM; i++)
      s[i] = 0.0;
    for (uint c0 = 0; c0 < D4; c0 += CHUNK) {
      barrier ();
      for (uint i = lane; i < KEYS * CHUNK; i += LANES) {
        uint c = c0 + i % CHUNK;
        if (c < D4)
          k_tile[i / CHUNK][i % CHUNK] = LOAD (kv_data, p.k_offset + min (k_at + i / CHUNK, last) * p.kv_pitch
                                                          + kv_head * D4 + c);
      }
      barrier ();
      uint n = min (CHUNK, D4 - c0);
      for (uint c = 0; c < n; c++) {
        vec4 q = q_tile[mine][c0 + c];
        [[unroll]] for (uint i = 0; i < KEYS / TEAM; i++)
          s[i] += dot (q, k_tile[member + TEAM * i][c]);
      }
    }
    [[unroll]] for (uint i = 0; i < KEYS / TEAM; i++) {
      uint j = member + TEAM * i;
      s[i] = j0 + j < min (limit, to) ? s[i] * p.scale : -3.0e38;
      weights[mine][j] = s[i];
    }
    barrier ();
    float best = top;
    for (uint j = 0; j < KEYS; j++)
      best = max (best, weights[mine][j]);
    barrier ();
    [[unroll]] for (uint i = 0; i < KEYS / TEAM; i++) {
      uint j = member + TEAM * i;
      weights[mine][j] = j0 + j < min (limit, to) ? exp (s[i] - best) : 0.0;
    }
    barrier ();
    float keep = exp (top - best), add = 0.0;
    top = best;
    for (uint j = 0; j < KEYS; j++)
      add += weights[mine][j];
    sum = sum * keep + add;
    [[unroll]] for (uint i = 0; i < OWN; i++)
      o[i] *= keep;
    /* Values come from memory: members read neighbouring quads, and teams the same ones. */
    for (uint j = 0; j < KEYS; j++) {
      float w = weights[mine][j];
      uint row = p.v_offset + min (k_at + j, last) * p.kv_pitch + kv_head * D4;
      [[unroll]] for (uint i = 0; i < OWN; i++) {
        uint c = member + TEAM * i;
        if (c < D4)
          o[i] += w * LOAD (kv_data, row + c);
      }
    }
  }

  if (first_query + mine > last_query)
    return;
  if (PART > 0) {
    uint heads = gl_NumWorkGroups.y / p.query_blocks * GROUP;
    uint slot = (gl_WorkGroupID.z * gl_NumWorkGroups.x + gl_WorkGroupID.x) * heads + kv_head * GROUP + query;
    uint at = slot * (D4 + 1);
    [[unroll]] for (uint i = 0; i < OWN; i++)
      if (member + TEAM * i < D4)
        o_data[at + member + TEAM * i] = o[i];
    if (member == 0)
      o_data[at + D4] = vec4 (top, sum, 0.0, 0.0);
    return;
  }
  uint at = p.o_offset + (item.row + query / GROUP) * p.o_pitch + (kv_head * GROUP + query % GROUP) * D4;
  [[unroll]] for (uint i = 0; i < OWN; i++)
    if (member + TEAM * i < D4)
      o_data[at + member + TEAM * i] = o[i] / sum;
}
