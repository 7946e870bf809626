#version 450
#extension GL_GOOGLE_include_directive : require
#define ROWS 1
#include "common.h"

/* Repetition penalty, in place: a lane does one token of a row's context, each token once. */

layout (binding = 0, std430) buffer Logits { float logits[]; };
layout (binding = 2, std430) readonly buffer Ids { uint ids[]; };

void
main ()
{
  uint row = gl_WorkGroupID.y, i = gl_GlobalInvocationID.x;
  IvlSampleRow r = load_row (row);
  if (i >= r.n_ids)
    return;
  uint at = row * p.pitch * 4 + ids[r.first_id + i];
  float v = logits[at];
  logits[at] = v < 0.0 ? v * r.penalty : v / r.penalty;
}
