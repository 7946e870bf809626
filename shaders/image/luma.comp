#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "texels.h"

/* Histograms of luma, one for each of IVL_LUMA_BLOCKS x IVL_LUMA_BLOCKS parts of every tile, so that where the light is
 * counts too: what moves within a part changes little, a cut changes most of them. A level counts for both bins that it
 * lies between, by how near they are: noise at the edge of a bin moves next to nothing. A workgroup does a part. */

layout (local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;

INPUT (0, tiles);
layout (binding = 1, std430) writeonly buffer Out { uint histograms[]; };
layout (push_constant) uniform Push { IvlPushImageLuma p; };

shared uint bins[IVL_LUMA_BINS];

void
main ()
{
  uint part = gl_WorkGroupID.x, lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x;
  uint tile = part / (IVL_LUMA_BLOCKS * IVL_LUMA_BLOCKS), block = part % (IVL_LUMA_BLOCKS * IVL_LUMA_BLOCKS);
  uint x0 = block % IVL_LUMA_BLOCKS * p.tile_size / IVL_LUMA_BLOCKS;
  uint x1 = (block % IVL_LUMA_BLOCKS + 1) * p.tile_size / IVL_LUMA_BLOCKS;
  uint y0 = block / IVL_LUMA_BLOCKS * p.tile_size / IVL_LUMA_BLOCKS;
  uint y1 = (block / IVL_LUMA_BLOCKS + 1) * p.tile_size / IVL_LUMA_BLOCKS;
  for (uint i = lane; i < IVL_LUMA_BINS; i += lanes)
    bins[i] = 0;
  barrier ();
  uint width = x1 - x0, n = width * (y1 - y0);
  for (uint i = lane; i < n; i += lanes) {
    uint at = (tile * p.tile_size + y0 + i / width) * p.tile_size + x0 + i % width;
    uint rgb = LOAD (tiles, at >> 2)[at & 3];
    uint level = (77 * (rgb & 0xff) + 150 * (rgb >> 8 & 0xff) + 29 * (rgb >> 16 & 0xff)) >> 8;
    atomicAdd (bins[level / IVL_LUMA_STEP], IVL_LUMA_STEP - level % IVL_LUMA_STEP);
    atomicAdd (bins[level / IVL_LUMA_STEP + 1], level % IVL_LUMA_STEP);
  }
  barrier ();
  for (uint i = lane; i < IVL_LUMA_BINS; i += lanes)
    histograms[part * IVL_LUMA_BINS + i] = bins[i];
}
