#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"

/* After the fused q/k/v projection, where its epilogue couldn't do this (see gemm/common.h): rotates q in place, and puts
 * rotated k and plain v into the KV cache. Heads of q and k come with the pairs (j, j + d/2) side by side, and leave with
 * each value in its place. cos and sin come from a table made at load, because the precision that Vulkan asks of sin () is
 * far too low for angles of thousands of radians. A lane does one pair, a workgroup whole heads. */

layout (local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in; /* a multiple of D / 2 */
layout (constant_id = 1) const uint D = 64;
layout (constant_id = 2) const uint HEADS = 1;
layout (constant_id = 3) const uint KV_HEADS = 1;

layout (binding = 0, std430) buffer Qkv { float qkv[]; };
layout (binding = 1, std430) readonly buffer Rows { IvlRow rows[]; };
layout (binding = 2, std430) readonly buffer Table { vec2 cos_sin[]; };
layout (binding = 3, std430) writeonly buffer Cache { float cache[]; };
layout (push_constant) uniform Push { IvlPushRope p; };

void
main ()
{
  const uint half_d = D / 2;
  const uint per_row = (HEADS + 2 * KV_HEADS) * half_d;
  uint i = gl_LocalInvocationID.x + (gl_WorkGroupID.x + gl_WorkGroupID.y * gl_NumWorkGroups.x) * gl_WorkGroupSize.x;
  uint r = min (i / per_row, p.n_rows - 1), h = i % per_row / half_d, j = i % half_d;
  bool rotates = h < HEADS + KV_HEADS;
  uint head = p.offset + r * p.pitch + h * D;
  uint first = rotates ? 2 * j : j, second = rotates ? 2 * j + 1 : j + half_d;
  float a = qkv[head + first], b = qkv[head + second];
  IvlRow row = rows[p.row_base + r];
  if (rotates) {
    vec2 t = cos_sin[row.position * half_d + j];
    float rotated = a * t.x - b * t.y;
    b = b * t.x + a * t.y;
    a = rotated;
  }
  /* A head's values are read before any is overwritten. */
  memoryBarrierBuffer ();
  barrier ();
  if (i >= p.n_rows * per_row)
    return;
  if (h < HEADS) {
    qkv[head + j] = a;
    qkv[head + j + half_d] = b;
  } else {
    uint to = row.slot * (2 * KV_HEADS * D) + (h - HEADS) * D + j;
    cache[to] = a;
    cache[to + half_d] = b;
  }
}
