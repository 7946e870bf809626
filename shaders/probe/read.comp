#version 450

/* The device's peak of reading: an invocation sums `texels` of 16 bytes, one subgroup's side by side, and writes one. */

layout (local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
#ifdef TEXELS
layout (binding = 0) uniform usamplerBuffer x;
#define LOAD(i) texelFetch (x, int (i))
#else
layout (binding = 0, std430) readonly buffer X { uvec4 x[]; };
#define LOAD(i) x[i]
#endif
layout (binding = 1, std430) writeonly buffer Y { uvec4 y[]; };
layout (push_constant) uniform Push { uint texels; } p;

void
main ()
{
  uint at = gl_WorkGroupID.x * gl_WorkGroupSize.x * p.texels + gl_LocalInvocationID.x;
  uvec4 sum0 = uvec4 (0), sum1 = sum0, sum2 = sum0, sum3 = sum0;
  for (uint t = 0; t < p.texels; t += 4, at += 4 * gl_WorkGroupSize.x) {
    sum0 ^= LOAD (at);
    sum1 ^= LOAD (at + gl_WorkGroupSize.x);
    sum2 ^= LOAD (at + 2 * gl_WorkGroupSize.x);
    sum3 ^= LOAD (at + 3 * gl_WorkGroupSize.x);
  }
  y[gl_GlobalInvocationID.x] = sum0 ^ sum1 ^ sum2 ^ sum3;
}
