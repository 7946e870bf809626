#version 450
#extension GL_GOOGLE_include_directive : require
#define LOGITS
#define ROWS 1
#include "common.h"

/* Draws a token: the first, in order of the ids, at which the running mass of those kept exceeds a random part of it
 * all. A workgroup does a row; the random number depends on seed and step alone. */

SMALL (3, states); /* IvlSampleState */
layout (binding = 4, std430) readonly buffer Sums { uvec2 sums[]; };
layout (binding = 5, std430) writeonly buffer Results { uvec2 results[]; };

shared uint chosen_block;
shared uvec2 chosen_left;
shared uvec2 lanes[LANES];

/* Jarzynski and Olano, Hash Functions for GPU Rendering, 2020: pcg3d. */
uvec3
hash (uvec3 v)
{
  v = v * 1664525u + 1013904223u;
  v.x += v.y * v.z;
  v.y += v.z * v.x;
  v.z += v.x * v.y;
  v ^= v >> 16u;
  v.x += v.y * v.z;
  v.y += v.z * v.x;
  v.z += v.x * v.y;
  return v;
}

/* 0 if the token can't be chosen. */
uint
key_at (uint row, uint token)
{
  uint quad = token / 4, j = token % 4;
  return (load_allowed (row, quad) >> j & 1) != 0 ? key_of (load_bits (row, quad)[j]) : 0;
}

void
main ()
{
  uint row = gl_WorkGroupID.x, lane = gl_LocalInvocationID.x;
  uvec4 state = LOAD_SMALL (states, 2 * row);
  if ((state.x & STATE_DRAW) == 0)
    return;
  float top = uintBitsToFloat (state.y), all_mass = uintBitsToFloat (state.z);
  uint threshold = state.w;
  IvlSampleRow r = load_row (row);
  if (lane == 0) {
    uvec2 all = uvec2 (0);
    for (uint b = 0; b < p.blocks; b++)
      all = carry (all + sums[row * p.blocks + b]);
    uvec2 left = scale (hash (uvec3 (r.seed_low, r.seed_high, r.step)).xy, all);
    uint b = 0;
    for (; b + 1 < p.blocks && !less (left, sums[row * p.blocks + b]); b++)
      left = minus (left, sums[row * p.blocks + b]);
    chosen_block = b;
    chosen_left = left;
  }
  barrier ();
  /* Here a lane's tokens are neighbours, so that lanes are in order of the ids. */
  uint first = chosen_block * BLOCK_QUADS + lane * QUADS_PER_LANE;
  uvec2 sum = uvec2 (0);
  for (uint i = 0; i < QUADS_PER_LANE * 4; i++) {
    uint key = key_at (row, first * 4 + i);
    if (key > 0 && key >= threshold)
      sum += mass_of (key, top, r.inverse_temperature);
  }
  lanes[lane] = carry (sum);
  barrier ();
  uvec2 left = chosen_left;
  for (uint i = 0; i < lane; i++) {
    if (less (left, lanes[i]))
      return;
    left = minus (left, lanes[i]);
  }
  if (!less (left, lanes[lane]))
    return;
  for (uint i = 0; i < QUADS_PER_LANE * 4; i++) {
    uint key = key_at (row, first * 4 + i);
    if (key == 0 || key < threshold)
      continue;
    uvec2 mass = mass_of (key, top, r.inverse_temperature);
    if (less (left, mass)) {
      results[row] = uvec2 (first * 4 + i, floatBitsToUint (exp (value_of (key) - top) / all_mass));
      return;
    }
    left = minus (left, mass);
  }
}
