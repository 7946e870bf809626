#version 450
#extension GL_GOOGLE_include_directive : require
#define LOGITS
#define ROWS 1
#include "common.h"

/* Per block: largest logit, its first token, sum of exp relative to it, and whether there is a bad value. */

layout (binding = 3, std430) writeonly buffer Partials { uvec4 partials[]; };

shared uvec4 lanes[LANES];

/* (key, token, bits of the sum, bad) of A and B together. */
uvec4
merge (uvec4 a, uvec4 b)
{
  bool b_first = b.x > a.x || (b.x == a.x && b.y < a.y);
  uvec4 best = b_first ? b : a, other = b_first ? a : b;
  float sum = uintBitsToFloat (best.z);
  if (other.x > KEY_MINUS_INFINITY)
    sum += uintBitsToFloat (other.z) * exp (value_of (other.x) - value_of (best.x));
  return uvec4 (best.xy, floatBitsToUint (sum), a.w | b.w);
}

void
main ()
{
  uint block = gl_WorkGroupID.x, row = gl_WorkGroupID.y, lane = gl_LocalInvocationID.x;
  uint best = 0, token = 0xffffffffu, bad = 0;
  float sum = 0.0;
  for (uint i = 0; i < QUADS_PER_LANE; i++) {
    uint quad = block * BLOCK_QUADS + i * LANES + lane;
    uint allowed = load_allowed (row, quad);
    if (allowed == 0)
      continue;
    uvec4 bits = load_bits (row, quad);
    uint before = best;
    uvec4 keys;
    for (uint j = 0; j < 4; j++) {
      bool use = (allowed >> j & 1) != 0;
      keys[j] = use ? key_of (bits[j]) : 0;
      if (use && is_bad (bits[j]))
        bad = 1;
      if (keys[j] > best) {
        best = keys[j];
        token = quad * 4 + j;
      }
    }
    if (best <= KEY_MINUS_INFINITY || bad != 0)
      continue;
    float top = value_of (best);
    if (before != best)
      sum *= before > KEY_MINUS_INFINITY ? exp (value_of (before) - top) : 0.0;
    for (uint j = 0; j < 4; j++)
      sum += keys[j] > KEY_MINUS_INFINITY ? exp (value_of (keys[j]) - top) : 0.0;
  }
  lanes[lane] = uvec4 (best, token, floatBitsToUint (sum), bad);
  barrier ();
  if (lane != 0)
    return;
  uvec4 all = lanes[0];
  for (uint i = 1; i < LANES; i++)
    all = merge (all, lanes[i]);
  partials[row * p.blocks + block] = all;
}
