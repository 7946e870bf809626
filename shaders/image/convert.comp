#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "texels.h"

/* Samples of any layout to RGB, a byte each, in a uint per pixel (R lowest). Chroma is taken from the nearest sample.
 *   rgb = floor (clamp (((m0 * s0 + m1 * s1) + m2 * s2) + m3, 0, 255)), in this order, each step rounded to f32. */

layout (local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout (constant_id = 1) const uint WIDE = 0; /* bit c: component c has two bytes */

INPUT (0, samples0);
INPUT (1, samples1);
INPUT (2, samples2);
layout (binding = 3, std430) writeonly buffer Rgb { uvec4 rgb[]; };
layout (push_constant) uniform Push { IvlPushImageConvert p; };

#define BYTE(name, at) ((LOAD (name, (at) >> 4)[((at) >> 2) & 3] >> (((at) & 3) * 8)) & 0xff)

#define DEFINE_SAMPLE(c)                                                                           \
  float                                                                                            \
  sample##c (uint x, uint y)                                                                       \
  {                                                                                                \
    uint l = p.format[c];                                                                          \
    uint at = p.offset[c] + ((y + bitfieldExtract (l, 20, 4)) >> bitfieldExtract (l, 14, 2)) * p.pitch[c] \
              + ((x + bitfieldExtract (l, 16, 4)) >> bitfieldExtract (l, 12, 2)) * (l & 0xff);     \
    uint v = BYTE (samples##c, at);                                                                \
    if ((WIDE & (1u << c)) != 0) {                                                                 \
      uint next = BYTE (samples##c, at + 1);                                                       \
      v = bitfieldExtract (l, 24, 1) != 0 ? v << 8 | next : next << 8 | v;                         \
    }                                                                                              \
    return float ((v >> bitfieldExtract (l, 8, 4)) & p.mask[c]);                                   \
  }
DEFINE_SAMPLE (0)
DEFINE_SAMPLE (1)
DEFINE_SAMPLE (2)

uint
mix3 (int row, float s0, float s1, float s2)
{
  precise float v = p.matrix[row * 4] * s0;
  precise float v1 = p.matrix[row * 4 + 1] * s1;
  precise float v2 = p.matrix[row * 4 + 2] * s2;
  v = v + v1;
  v = v + v2;
  v = v + p.matrix[row * 4 + 3];
  return uint (clamp (v, 0.0, 255.0));
}

void
main ()
{
  uint quad = gl_GlobalInvocationID.x, y = gl_WorkGroupID.y;
  if (quad >= p.out_pitch)
    return;
  uvec4 result;
  for (int i = 0; i < 4; i++) {
    uint x = min (quad * 4 + i, p.cols - 1);
    float s0 = sample0 (x, y), s1 = sample1 (x, y), s2 = sample2 (x, y);
    result[i] = mix3 (0, s0, s1, s2) | mix3 (1, s0, s1, s2) << 8 | mix3 (2, s0, s1, s2) << 16;
  }
  rgb[y * p.out_pitch + quad] = result;
}
