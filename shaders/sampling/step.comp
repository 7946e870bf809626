#version 450
#extension GL_GOOGLE_include_directive : require
#define ROWS 0
#include "common.h"

/* The other half of a digit: which bin holds the last token that is needed. Phase 0 needs top_k tokens, phase 1 top_p
 * of the mass that phase 0 left. A workgroup does a row. */

layout (binding = 1, std430) readonly buffer Histogram { uint histogram[]; };
layout (binding = 2, std430) buffer States { IvlSampleState states[]; };

shared uvec2 bins[256]; /* counts in x, or masses */

void
main ()
{
  uint row = gl_WorkGroupID.x, lane = gl_LocalInvocationID.x;
  IvlSampleRow r = load_row (row);
  if ((states[row].flags & STATE_DRAW) == 0 || (p.phase == 0 ? r.top_k == 0 : r.top_p == 0xffffffffu))
    return;
  for (uint i = lane; i < 256; i += LANES) {
    uvec2 sum = uvec2 (0);
    for (uint b = 0; b < p.blocks; b++) {
      uint at = (row * p.blocks + b) * 2 * 256 + i;
      sum.x += histogram[at];
      if (p.phase == 1)
        sum.y += histogram[at + 256];
    }
    bins[i] = carry (sum);
  }
  barrier ();
  if (lane != 0)
    return;

  IvlSampleState s = states[row];
  uvec2 left = uvec2 (s.left_high, s.left_low);
  if (p.digit == 0) {
    if (p.phase == 0) {
      left = uvec2 (r.top_k, 0);
    } else {
      uvec2 all = uvec2 (0);
      for (uint i = 0; i < 256; i++)
        all = carry (all + bins[i]);
      left = scale (uvec2 (r.top_p, 0), all);
      if (left == uvec2 (0))
        left.y = 1;
    }
    s.prefix = 0;
  }
  uint bin = 255;
  /* Bin 0 takes what is left in any case. */
  for (; bin > 0 && less (bins[bin], left); bin--)
    left = minus (left, bins[bin]);
  s.prefix = s.prefix << 8 | bin;
  if (p.digit == 3)
    s.threshold = max (s.threshold, s.prefix);
  s.left_high = left.x;
  s.left_low = left.y;
  states[row] = s;
}
