#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.h"

/* The other half of a digit: which bin holds the last token that is needed. Phase 0 needs top_k tokens, phase 1 top_p
 * of the mass that phase 0 left. A workgroup does a row. */

layout (binding = 0, std430) readonly buffer Rows { IvlSampleRow rows[]; };
layout (binding = 1, std430) readonly buffer Histogram { uint histogram[]; };
layout (binding = 2, std430) buffer States { IvlSampleState states[]; };

shared uvec3 bins[256];

void
main ()
{
  uint row = gl_WorkGroupID.x, lane = gl_LocalInvocationID.x;
  IvlSampleRow r = rows[row];
  if ((states[row].flags & STATE_DRAW) == 0 || (p.phase == 0 ? r.top_k == 0 : r.top_p == 0xffffffffu))
    return;
  for (uint i = lane; i < 256; i += LANES) {
    uvec3 sum = uvec3 (0);
    for (uint b = 0; b < p.blocks; b++) {
      uint at = (row * p.blocks + b) * 3 * 256 + i;
      sum += uvec3 (histogram[at], histogram[at + 256], histogram[at + 512]);
    }
    sum.yz = carry (sum.yz);
    bins[i] = sum;
  }
  barrier ();
  if (lane != 0)
    return;

  IvlSampleState s = states[row];
  uvec2 left = uvec2 (s.left_high, s.left_low), kept = uvec2 (s.kept_high, s.kept_low);
  if (p.digit == 0) {
    if (p.phase == 0) {
      left = uvec2 (0, r.top_k);
    } else {
      uvec2 all = kept;
      if (r.top_k == 0) {
        for (uint i = 0; i < 256; i++)
          all = carry (all + bins[i].yz);
      }
      left = scale (uvec2 (r.top_p, 0), all);
      if (left == uvec2 (0))
        left.y = 1;
    }
    kept = uvec2 (0);
    s.prefix = 0;
  }
  uint bin = 255;
  for (;; bin--) {
    uvec2 amount = p.phase == 0 ? uvec2 (0, bins[bin].x) : bins[bin].yz;
    /* Bin 0 takes what is left in any case. */
    if (bin == 0 || !(p.phase == 0 ? amount.y < left.y : less (amount, left)))
      break;
    left = p.phase == 0 ? left - amount : minus (left, amount);
    kept = carry (kept + bins[bin].yz);
  }
  s.prefix = s.prefix << 8 | bin;
  if (p.digit == 3) {
    kept = carry (kept + bins[bin].yz);
    s.threshold = max (s.threshold, s.prefix);
  }
  s.left_high = left.x;
  s.left_low = left.y;
  s.kept_high = kept.x;
  s.kept_low = kept.y;
  states[row] = s;
}
