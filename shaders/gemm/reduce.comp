#version 450
#extension GL_GOOGLE_include_directive : require
#define PARTS
#define WTYPE 0
#include "push.h"
#include "../gemm/common.h"

/* Adds up the parts of a matmul that was split along K, in order, and does its epilogue. p.k: parts, of p.m rows each;
 * p.x_pitch: floats. A lane has two columns. */
void
main ()
{
  uint pairs = (p.n + 1) / 2;
  uint id = (gl_WorkGroupID.x + gl_WorkGroupID.y * gl_NumWorkGroups.x) * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
  uint m = id / pairs, n = id % pairs * 2;
  if (m >= p.m)
    return;
  vec2 sum = vec2 (0.0);
  for (uint part = 0; part < p.k; part++) {
    uint at = (part * p.m + m) * p.x_pitch + n;
    sum += vec2 (parts[at], parts[at + 1]);
  }
  put (m, n, activate (sum.x, n), activate (sum.y, n + 1));
}
