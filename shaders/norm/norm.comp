#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "texels.h"

/* LayerNorm and RMSNorm of float rows, f32 statistics in two passes. Rows can be picked by an index list, or be
 * made of four ViT tokens by pixel shuffle on the way in (internvl25: section 3.1).
 * LANE_PER_ROW: a lane owns a row; no barrier, best on software drivers and for many rows. Otherwise a workgroup
 * owns a row and reduces through shared memory. */

layout (local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout (constant_id = 1) const bool RMS = false;
layout (constant_id = 2) const bool HAS_BIAS = false;
layout (constant_id = 3) const uint PICK = 0; /* 0: row r, 1: row index[r], 2: pixel shuffle v2, 3: v1 */

FLOATS (0, x);
SMALL_FLOATS (1, weight);
SMALL_FLOATS (2, bias);
layout (binding = 3, std430) readonly buffer Index { uint index[]; };
layout (binding = 4, std430) writeonly buffer Y { vec4 y[]; };
layout (push_constant) uniform Push { IvlPushNorm p; };

uint source_rows[4];

void
find_source (uint r)
{
  if (PICK >= 2) {
    /* Output token r of a tile is (Y, X) of the halved grid; its four channel blocks are the patches
     * (2Y + dy, 2X + dx). v1 numbers the output tokens down the columns. */
    uint half_grid = p.grid / 2, per_tile = half_grid * half_grid;
    uint tile = r / per_tile, t = r % per_tile;
    uint gy = PICK == 2 ? t / half_grid : t % half_grid;
    uint gx = PICK == 2 ? t % half_grid : t / half_grid;
    uint first = tile * (p.grid * p.grid + 1) + 1 + 2 * gy * p.grid + 2 * gx;
    source_rows[0] = p.x_offset + first * p.x_pitch;
    source_rows[1] = p.x_offset + (first + 1) * p.x_pitch;
    source_rows[2] = p.x_offset + (first + p.grid) * p.x_pitch;
    source_rows[3] = p.x_offset + (first + p.grid + 1) * p.x_pitch;
  } else {
    source_rows[0] = p.x_offset + (PICK == 1 ? index[p.index_offset + r] : r) * p.x_pitch;
  }
}

vec4
load (uint i)
{
  if (PICK >= 2) {
    uint block = p.cols / 4;
    return LOAD (x, source_rows[i / block] + i % block);
  }
  return LOAD (x, source_rows[0] + i);
}

#ifdef LANE_PER_ROW
#define FIRST 0
#define STEP 1
float total (float v) { return v; }
#else
#define FIRST gl_LocalInvocationID.x
#define STEP gl_WorkGroupSize.x
shared float partial[gl_WorkGroupSize.x];

float
total (float v)
{
  barrier ();
  partial[gl_LocalInvocationID.x] = v;
  barrier ();
  float sum = 0.0;
  for (uint i = 0; i < gl_WorkGroupSize.x; i++)
    sum += partial[i];
  return sum;
}
#endif

void
main ()
{
#ifdef LANE_PER_ROW
  uint r = gl_GlobalInvocationID.x + gl_GlobalInvocationID.y * gl_NumWorkGroups.x * gl_WorkGroupSize.x;
  if (r >= p.rows)
    return;
#else
  uint r = gl_WorkGroupID.x + gl_WorkGroupID.y * gl_NumWorkGroups.x;
  if (r >= p.rows)
    return;
#endif
  find_source (r);
  /* p.cols counts vec4. */
  float n = float (p.cols) * 4.0;
  float mean = 0.0;
  if (!RMS) {
    vec4 sum = vec4 (0.0);
    for (uint i = FIRST; i < p.cols; i += STEP)
      sum += load (i);
    mean = total (sum.x + sum.y + sum.z + sum.w) / n;
  }
  vec4 squares = vec4 (0.0);
  for (uint i = FIRST; i < p.cols; i += STEP) {
    vec4 d = load (i) - mean;
    squares += d * d;
  }
  float inverse = 1.0 / sqrt (total (squares.x + squares.y + squares.z + squares.w) / n + p.eps);
  for (uint i = FIRST; i < p.cols; i += STEP) {
    vec4 v = (load (i) - mean) * inverse * LOAD_SMALL (weight, i);
    y[p.y_offset + r * p.y_pitch + i] = HAS_BIAS ? v + LOAD_SMALL (bias, i) : v;
  }
}
