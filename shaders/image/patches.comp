#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "texels.h"

/* Tiles to the rows that the patch embedding multiplies: columns in the order of the checkpoint's convolution
 * (channel, y, x), zeros behind them. Levels are normalised by a table made on the host, because Vulkan's division
 * isn't exact. A lane does four columns. */

layout (local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;

INPUT (0, tiles);
INPUT (1, levels); /* per byte: float bits for R, G, B */
layout (binding = 2, std430) writeonly buffer Out { float patches[]; };
layout (push_constant) uniform Push { IvlPushImagePatches p; };

void
main ()
{
  uint i = gl_GlobalInvocationID.x + gl_GlobalInvocationID.y * gl_NumWorkGroups.x * gl_WorkGroupSize.x;
  if (i >= p.rows * p.quads)
    return;
  uint row = i / p.quads, col = i % p.quads * 4;
  uint tile = row / (p.grid * p.grid), patch_index = row % (p.grid * p.grid);
  uint area = p.patch_size * p.patch_size;
  uint from = ((p.tile_base + tile) * p.tile_size + patch_index / p.grid * p.patch_size) * p.tile_size
              + patch_index % p.grid * p.patch_size;
  uint c = col / area, ky = col % area / p.patch_size, kx = col % p.patch_size;
  uint to = p.out_offset + row * p.out_pitch + col;
  for (uint j = 0; j < 4; j++) {
    float v = 0.0;
    if (c < 3) {
      uint at = from + ky * p.tile_size + kx;
      uint level = (LOAD (tiles, at >> 2)[at & 3] >> (8 * c)) & 0xff;
      v = uintBitsToFloat (LOAD (levels, level)[c]);
    }
    patches[to + j] = v;
    if (++kx == p.patch_size) {
      kx = 0;
      if (++ky == p.patch_size) {
        ky = 0;
        c++;
      }
    }
  }
}
