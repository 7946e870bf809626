#version 450
#extension GL_GOOGLE_include_directive : require
#define LOGITS
#define ROWS 1
#include "common.h"

/* Mass of a block's tokens that are kept. */

layout (binding = 3, std430) readonly buffer States { IvlSampleState states[]; };
layout (binding = 4, std430) writeonly buffer Sums { uvec2 sums[]; };

shared uvec2 lanes[LANES];

void
main ()
{
  uint block = gl_WorkGroupID.x, row = gl_WorkGroupID.y, lane = gl_LocalInvocationID.x;
  IvlSampleState s = states[row];
  if ((s.flags & STATE_DRAW) == 0)
    return;
  float inverse_temperature = load_row (row).inverse_temperature;
  uvec2 sum = uvec2 (0);
  for (uint i = 0; i < QUADS_PER_LANE; i++) {
    uint quad = block * BLOCK_QUADS + i * LANES + lane;
    uint allowed = load_allowed (row, quad);
    if (allowed == 0)
      continue;
    uvec4 bits = load_bits (row, quad);
    for (uint j = 0; j < 4; j++) {
      uint key = key_of (bits[j]);
      if ((allowed >> j & 1) != 0 && key >= s.threshold)
        sum += mass_of (key, s.top, inverse_temperature);
    }
  }
  lanes[lane] = carry (sum);
  barrier ();
  if (lane != 0)
    return;
  sum = lanes[0];
  for (uint i = 1; i < LANES; i++)
    sum += lanes[i];
  sums[row * p.blocks + block] = carry (sum);
}
