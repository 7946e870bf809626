#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "texels.h"

/* First pass of Pillow's resize: along the rows, rounded to bytes. A lane does one pixel. */

layout (local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;

INPUT (0, pixels);
INPUT (1, table); /* see IvlResizeAxis, align 4 */
layout (binding = 2, std430) writeonly buffer Out { uint result[]; };
layout (push_constant) uniform Push { IvlPushImageResize p; };

void
main ()
{
  uint x = gl_GlobalInvocationID.x, y = gl_WorkGroupID.y;
  if (x >= ((p.cols + 3) & ~3u))
    return;
  uint row = min (x, p.cols - 1) * (p.steps + 1);
  uint first = LOAD (table, row).x;
  ivec3 sum = ivec3 (1 << 21);
  for (uint s = 0; s < p.steps; s++) {
    uvec4 v = LOAD (pixels, p.in_offset + y * p.in_pitch + min (first + s, p.in_last));
    ivec4 w = ivec4 (LOAD (table, row + 1 + s));
    for (int i = 0; i < 4; i++)
      sum += ivec3 (v[i] & 0xff, (v[i] >> 8) & 0xff, (v[i] >> 16) & 0xff) * w[i];
  }
  uvec3 rgb = uvec3 (clamp (sum >> 22, ivec3 (0), ivec3 (255)));
  result[y * p.out_pitch * 4 + x] = rgb.r | rgb.g << 8 | rgb.b << 16;
}
