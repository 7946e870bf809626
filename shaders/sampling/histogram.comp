#version 450
#extension GL_GOOGLE_include_directive : require
#define LOGITS
#include "common.h"

/* One digit of a search for the least logit that is kept: count and mass of a block's tokens by the next eight bits of
 * their keys, among those whose upper bits are the ones found so far. */

layout (binding = 3, std430) readonly buffer States { IvlSampleState states[]; };
layout (binding = 4, std430) writeonly buffer Histogram { uint histogram[]; }; /* [rows, blocks, 3, 256] */

shared uint bins[3 * 256]; /* counts, masses' high halves, low halves */

void
main ()
{
  uint block = gl_WorkGroupID.x, row = gl_WorkGroupID.y, lane = gl_LocalInvocationID.x;
  IvlSampleRow r = rows[row];
  if ((states[row].flags & STATE_DRAW) == 0 || (p.phase == 0 ? r.top_k == 0 : r.top_p == 0xffffffffu))
    return;
  uint prefix = states[row].prefix;
  float top = states[row].top;
  for (uint i = lane; i < 3 * 256; i += LANES)
    bins[i] = 0;
  barrier ();
  uint shift = 24 - 8 * p.digit;
  for (uint i = 0; i < QUADS_PER_LANE; i++) {
    uint quad = block * BLOCK_QUADS + i * LANES + lane;
    uint allowed = load_allowed (row, quad);
    if (allowed == 0)
      continue;
    uvec4 bits = load_bits (row, quad);
    for (uint j = 0; j < 4; j++) {
      uint key = key_of (bits[j]);
      if ((allowed >> j & 1) == 0 || (p.digit > 0 && key >> (shift + 8) != prefix))
        continue;
      uint bin = key >> shift & 255;
      uvec2 mass = mass_of (key, top, r.inverse_temperature);
      if (p.phase == 0)
        atomicAdd (bins[bin], 1);
      if (mass.x != 0)
        atomicAdd (bins[256 + bin], mass.x);
      if (mass.y != 0)
        atomicAdd (bins[512 + bin], mass.y);
    }
  }
  barrier ();
  for (uint i = lane; i < 256; i += LANES) {
    uint at = (row * p.blocks + block) * 3 * 256 + i;
    uvec2 mass = carry (uvec2 (bins[256 + i], bins[512 + i]));
    histogram[at] = bins[i];
    histogram[at + 256] = mass.x;
    histogram[at + 512] = mass.y;
  }
}
