#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "texels.h"

/* How unlike two sets of tiles are: the largest sum of absolute differences of R, G and B over a patch. The largest
 * rather than the mean, so that something small that moves in a big still picture counts. A lane does a patch. */

layout (local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;

INPUT (0, first);
INPUT (1, second);
layout (binding = 2, std430) buffer Out { uint largest; };
layout (push_constant) uniform Push { IvlPushImageDifference p; };

void
main ()
{
  uint i = gl_GlobalInvocationID.x + gl_GlobalInvocationID.y * gl_NumWorkGroups.x * gl_WorkGroupSize.x;
  if (i >= p.patches)
    return;
  uint tile = i / (p.grid * p.grid), patch_index = i % (p.grid * p.grid);
  uint from = (tile * p.tile_size + patch_index / p.grid * p.patch_size) * p.tile_size
              + patch_index % p.grid * p.patch_size;
  uint sum = 0;
  for (uint y = 0; y < p.patch_size; y++)
    for (uint x = 0; x < p.patch_size; x++) {
      uint at = from + y * p.tile_size + x;
      uint a = LOAD (first, at >> 2)[at & 3], b = LOAD (second, at >> 2)[at & 3];
      for (uint c = 0; c < 24; c += 8)
        sum += abs (int ((a >> c) & 0xff) - int ((b >> c) & 0xff));
    }
  atomicMax (largest, sum);
}
