#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.h"

/* Repetition penalty, in place: a lane does one token of a row's context, each token once. */

layout (binding = 0, std430) buffer Logits { float logits[]; };
layout (binding = 1, std430) readonly buffer Rows { IvlSampleRow rows[]; };
layout (binding = 2, std430) readonly buffer Ids { uint ids[]; };

void
main ()
{
  uint row = gl_WorkGroupID.y, i = gl_GlobalInvocationID.x;
  if (i >= rows[row].n_ids)
    return;
  uint at = row * p.pitch * 4 + ids[rows[row].first_id + i];
  float v = logits[at];
  logits[at] = v < 0.0 ? v * rows[row].penalty : v / rows[row].penalty;
}
