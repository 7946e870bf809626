#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "texels.h"

/* The parts that attention_gpu.comp left, [part, item, head, D / 4 + 1] quads of which the last holds the largest score and
 * the sum relative to it, into the output. A lane does a quad. */

layout (local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout (constant_id = 1) const uint D = 64;
layout (constant_id = 2) const uint HEADS = 1;
layout (constant_id = 3) const uint PART = 1;

#define D4 (D / 4)

layout (binding = 0, std430) readonly buffer Parts { vec4 parts[]; };
SMALL (1, items);
layout (binding = 2, std430) writeonly buffer Out { vec4 o_data[]; };
layout (push_constant) uniform Push { IvlPushAttention p; };

void
main ()
{
  uint id = gl_GlobalInvocationID.x + gl_GlobalInvocationID.y * gl_NumWorkGroups.x * gl_WorkGroupSize.x;
  uint c = id % D4, head = id / D4 % HEADS, i = id / D4 / HEADS;
  if (i >= p.n_items)
    return;
  uvec4 item = LOAD_SMALL (items, p.item_base + i); /* row, 1, pages, kv_len */
  uint n = (item.w + PART - 1) / PART;
  float top = -3.0e38, sum = 0.0;
  for (uint part = 0; part < n; part++)
    top = max (top, parts[((part * p.n_items + i) * HEADS + head) * (D4 + 1) + D4].x);
  vec4 o = vec4 (0.0);
  for (uint part = 0; part < n; part++) {
    uint at = ((part * p.n_items + i) * HEADS + head) * (D4 + 1);
    float w = exp (parts[at + D4].x - top);
    sum += w * parts[at + D4].y;
    o += w * parts[at + c];
  }
  o_data[p.o_offset + item.x * p.o_pitch + head * D4 + c] = o / sum;
}
