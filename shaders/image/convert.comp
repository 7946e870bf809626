#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "texels.h"

/* Samples of any layout to RGB, a byte each, in a uint per pixel (R lowest). Chroma is taken from the nearest sample.
 *   rgb = floor (clamp (((m0 * s0 + m1 * s1) + m2 * s2) + m3, 0, 255)), in this order, each step rounded to f32. */

layout (local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout (constant_id = 1) const uint WIDE = 0; /* bit c: component c has two bytes */
layout (constant_id = 2) const uint NEAR = 0; /* bit c: its samples of four pixels lie in at most two texels */

INPUT (0, samples0);
INPUT (1, samples1);
INPUT (2, samples2);
layout (binding = 3, std430) writeonly buffer Rgb { uvec4 rgb[]; };
layout (push_constant) uniform Push { IvlPushImageConvert p; };

/* A byte of a texel that AT is in, of two that are neighbours or the same. */
#define BYTE(first, second, start, at)                                                             \
  ((((at) >> 4) == (start) ? (first) : (second))[((at) >> 2) & 3] >> (((at) & 3) * 8) & 0xff)

/* The samples of four pixels. Loads bound this kernel, so where they are close together (bit c of NEAR) two do. */
#define DEFINE_SAMPLES(c)                                                                          \
  vec4                                                                                             \
  samples_of##c (uvec4 x, uint y)                                                                  \
  {                                                                                                \
    uint f = p.format[c];                                                                          \
    uint row = p.offset[c] + ((y + bitfieldExtract (f, 20, 4)) >> bitfieldExtract (f, 14, 2)) * p.pitch[c]; \
    uvec4 at = row + ((x + bitfieldExtract (f, 16, 4)) >> bitfieldExtract (f, 12, 2)) * (f & 0xff); \
    bool wide = (WIDE & (1u << c)) != 0, near = (NEAR & (1u << c)) != 0;                           \
    uvec4 first, second, v;                                                                        \
    if (near) {                                                                                    \
      first = LOAD (samples##c, at.x >> 4);                                                        \
      second = LOAD (samples##c, (at.w + uint (wide)) >> 4);                                       \
    }                                                                                              \
    for (int i = 0; i < 4; i++) {                                                                  \
      if (!near) {                                                                                 \
        first = LOAD (samples##c, at[i] >> 4);                                                     \
        second = wide ? LOAD (samples##c, (at[i] + 1) >> 4) : first;                               \
      }                                                                                            \
      uint start = (near ? at.x : at[i]) >> 4;                                                     \
      v[i] = BYTE (first, second, start, at[i]);                                                   \
      if (wide) {                                                                                  \
        uint next = BYTE (first, second, start, at[i] + 1);                                        \
        v[i] = bitfieldExtract (f, 24, 1) != 0 ? v[i] << 8 | next : next << 8 | v[i];              \
      }                                                                                            \
    }                                                                                              \
    return vec4 ((v >> bitfieldExtract (f, 8, 4)) & p.mask[c]);                                    \
  }
DEFINE_SAMPLES (0)
DEFINE_SAMPLES (1)
DEFINE_SAMPLES (2)

uvec4
mix3 (int row, vec4 s0, vec4 s1, vec4 s2)
{
  precise vec4 v = p.matrix[row * 4] * s0;
  precise vec4 v1 = p.matrix[row * 4 + 1] * s1;
  precise vec4 v2 = p.matrix[row * 4 + 2] * s2;
  v = v + v1;
  v = v + v2;
  v = v + p.matrix[row * 4 + 3];
  return uvec4 (clamp (v, 0.0, 255.0));
}

void
main ()
{
  uint quad = gl_GlobalInvocationID.x, y = gl_WorkGroupID.y;
  if (quad >= p.out_pitch)
    return;
  uvec4 x = min (quad * 4 + uvec4 (0, 1, 2, 3), uvec4 (p.cols - 1));
  vec4 s0 = samples_of0 (x, y), s1 = samples_of1 (x, y), s2 = samples_of2 (x, y);
  rgb[y * p.out_pitch + quad] = mix3 (0, s0, s1, s2) | mix3 (1, s0, s1, s2) << 8 | mix3 (2, s0, s1, s2) << 16;
}
