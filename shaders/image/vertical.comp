#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "texels.h"

/* Second pass of Pillow's resize: down the columns, and into tiles [tile, tile_size, tile_size]. A lane does four
 * neighbouring pixels. */

layout (local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;

INPUT (0, pixels);
INPUT (1, table); /* see IvlResizeAxis, align 1 */
layout (binding = 2, std430) writeonly buffer Tiles { uint tiles[]; };
layout (push_constant) uniform Push { IvlPushImageResize p; };

void
main ()
{
  uint quad = gl_GlobalInvocationID.x, y = p.row_base + gl_WorkGroupID.y;
  if (quad * 4 >= p.cols)
    return;
  uint row = y * (p.steps + 1);
  uint first = LOAD (table, row).x - p.in_base;
  ivec4 r = ivec4 (1 << 21), g = r, b = r;
  for (uint s = 0; s < p.steps; s++) {
    ivec4 w = ivec4 (LOAD (table, row + 1 + s));
    for (int i = 0; i < 4; i++) {
      uvec4 v = LOAD (pixels, p.in_offset + min (first + 4 * s + i, p.in_last) * p.in_pitch + quad);
      r += ivec4 (v & 0xff) * w[i];
      g += ivec4 ((v >> 8) & 0xff) * w[i];
      b += ivec4 ((v >> 16) & 0xff) * w[i];
    }
  }
  const ivec4 black = ivec4 (0), white = ivec4 (255);
  uvec4 rgb = uvec4 (clamp (r >> 22, black, white)) | uvec4 (clamp (g >> 22, black, white)) << 8
              | uvec4 (clamp (b >> 22, black, white)) << 16;
  uint x = quad * 4, tile_x = x / p.tile_size, at_x = x % p.tile_size;
  uint tile_row = p.tile_base + y / p.tile_size * p.grid_cols, at_y = y % p.tile_size;
  for (uint i = 0; i < 4 && x + i < p.cols; i++) {
    tiles[((tile_row + tile_x) * p.tile_size + at_y) * p.tile_size + at_x] = rgb[i];
    if (++at_x == p.tile_size) {
      at_x = 0;
      tile_x++;
    }
  }
}
