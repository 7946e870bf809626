#version 450
#extension GL_GOOGLE_include_directive : require
#define ROWS 0
#include "common.h"

/* The blocks of a row together: the answer of greedy rows, the starting state of the others. A lane does a row. */

layout (binding = 1, std430) readonly buffer Partials { uvec4 partials[]; };
layout (binding = 2, std430) writeonly buffer States { IvlSampleState states[]; };
layout (binding = 3, std430) writeonly buffer Results { uvec2 results[]; };

void
main ()
{
  uint row = gl_GlobalInvocationID.x;
  if (row >= p.n_rows)
    return;
  uint best = 0, token = 0xffffffffu, bad = 0;
  for (uint b = 0; b < p.blocks; b++) {
    uvec4 part = partials[row * p.blocks + b];
    bad |= part.w;
    if (part.x > best || (part.x == best && part.y < token)) {
      best = part.x;
      token = part.y;
    }
  }
  bool valid = bad == 0 && best > KEY_MINUS_INFINITY;
  float top = valid ? value_of (best) : 0.0, sum = 0.0;
  for (uint b = 0; b < p.blocks && valid; b++) {
    uvec4 part = partials[row * p.blocks + b];
    if (part.x > KEY_MINUS_INFINITY)
      sum += uintBitsToFloat (part.z) * exp (value_of (part.x) - top);
  }
  bool draw = valid && load_row (row).inverse_temperature > 0.0;
  states[row] = IvlSampleState (draw ? STATE_DRAW : 0, top, sum, 0, 0, 0, 0, 0);
  results[row] = valid ? uvec2 (token, floatBitsToUint (1.0 / sum)) : uvec2 (0xffffffffu, 0);
}
