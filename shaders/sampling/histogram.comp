#version 450
#extension GL_GOOGLE_include_directive : require
#define LOGITS
#define ROWS 1
#include "common.h"

/* One digit of a search for the least logit that is kept: count (phase 0) or mass (phase 1) of a block's tokens by the
 * next eight bits of their keys, among those whose upper bits are the ones found so far. */

layout (binding = 3, std430) readonly buffer States { IvlSampleState states[]; };
layout (binding = 4, std430) writeonly buffer Histogram { uint histogram[]; }; /* [rows, blocks, 2, 256] */

shared uint bins[2 * 256]; /* counts, or masses' high halves; low halves */

void
main ()
{
  uint block = gl_WorkGroupID.x, row = gl_WorkGroupID.y, lane = gl_LocalInvocationID.x;
  IvlSampleRow r = load_row (row);
  if ((states[row].flags & STATE_DRAW) == 0 || (p.phase == 0 ? r.top_k == 0 : r.top_p == 0xffffffffu))
    return;
  uint prefix = states[row].prefix, threshold = states[row].threshold;
  float top = states[row].top;
  for (uint i = lane; i < 2 * 256; i += LANES)
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
      if (p.phase == 0) {
        atomicAdd (bins[bin], 1);
      } else if (key >= threshold) {
        uvec2 mass = mass_of (key, top, r.inverse_temperature);
        if (mass.x != 0)
          atomicAdd (bins[bin], mass.x);
        if (mass.y != 0)
          atomicAdd (bins[256 + bin], mass.y);
      }
    }
  }
  barrier ();
  for (uint i = lane; i < 256; i += LANES) {
    uint at = (row * p.blocks + block) * 2 * 256 + i;
    uvec2 amount = carry (uvec2 (bins[i], bins[256 + i]));
    histogram[at] = amount.x;
    if (p.phase == 1)
      histogram[at + 256] = amount.y;
  }
}
