#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "texels.h"

/* x[r, :] = embedding[token of row r, :], from weight panels. Rows whose token is outside this slice of the table
 * are left alone; so are image positions (token IVL_TOKEN_IMAGE), whose rows are copied in.
 * WTYPE as in gemm.comp. A lane does eight (four for f32) columns of a row. */

layout (local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;

INPUT (0, w_data);
layout (binding = 1, std430) readonly buffer Rows { IvlRow rows[]; };
layout (binding = 2, std430) writeonly buffer X { vec4 x[]; };
layout (push_constant) uniform Push { IvlPushEmbed p; };

void
main ()
{
  uint i = gl_GlobalInvocationID.x + gl_GlobalInvocationID.y * gl_NumWorkGroups.x * gl_WorkGroupSize.x;
  if (i >= p.n_rows * p.texels)
    return;
  uint r = i / p.texels, c = i % p.texels;
  uint token = rows[p.row_base + r].token;
  if (token < p.n_base || token - p.n_base >= p.n)
    return;
  uint n = token - p.n_base;
#if WTYPE == 3
  uint blocks = (p.texels + 3) / 4;
  uint at = (n / IVL_PANEL * blocks + c / 4) * IVL_Q8_BLOCK_TEXELS;
  n %= IVL_PANEL;
  vec2 scales = unpackHalf2x16 (LOAD (w_data, at + n / 8)[n / 2 % 4]);
  float unit = scales[n % 2] * IVL_Q8_UNIT;
  uvec4 q = LOAD (w_data, at + IVL_QUANT_SCALES + (c % 4 * IVL_PANEL + n) / 2);
  q.xy = n % 2 == 0 ? q.xy : q.zw;
  x[p.offset + r * p.pitch + 2 * c] = vec4 (ivec4 (q.x << 24, q.x << 16, q.x << 8, q.x)) * unit;
  x[p.offset + r * p.pitch + 2 * c + 1] = vec4 (ivec4 (q.y << 24, q.y << 16, q.y << 8, q.y)) * unit;
#else
  uvec4 q = LOAD (w_data, ((n / IVL_PANEL) * p.texels + c) * IVL_PANEL + IVL_PANEL_TEXEL (n % IVL_PANEL));
#endif
#if WTYPE == 0
  x[p.offset + r * p.pitch + c] = uintBitsToFloat (q);
#elif WTYPE <= 2
#if WTYPE == 1
  vec4 a = vec4 (unpackHalf2x16 (q.x), unpackHalf2x16 (q.y));
  vec4 b = vec4 (unpackHalf2x16 (q.z), unpackHalf2x16 (q.w));
#else
  vec4 a = uintBitsToFloat (uvec4 (q.x << 16, q.x & 0xffff0000u, q.y << 16, q.y & 0xffff0000u));
  vec4 b = uintBitsToFloat (uvec4 (q.z << 16, q.z & 0xffff0000u, q.w << 16, q.w & 0xffff0000u));
#endif
  x[p.offset + r * p.pitch + 2 * c] = a;
  x[p.offset + r * p.pitch + 2 * c + 1] = b;
#endif
}
