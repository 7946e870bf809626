#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"

/* x[tile, 0] = class token, x[tile, 1 + patch] = projected patch; plus the position embedding, whose row 0 is the
 * class token's. A lane does four channels of a token. */

layout (local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;

layout (binding = 0, std430) readonly buffer Patches { vec4 patches[]; };
layout (binding = 1, std430) readonly buffer Class { vec4 class_token[]; };
layout (binding = 2, std430) readonly buffer Position { vec4 position[]; };
layout (binding = 3, std430) writeonly buffer X { vec4 x[]; };
layout (push_constant) uniform Push { IvlPushVitTokens p; };

void
main ()
{
  uint i = gl_GlobalInvocationID.x + gl_GlobalInvocationID.y * gl_NumWorkGroups.x * gl_WorkGroupSize.x;
  if (i >= p.tiles * p.tokens * p.cols)
    return;
  uint c = i % p.cols, row = i / p.cols, token = row % p.tokens, tile = row / p.tokens;
  vec4 v = token == 0 ? class_token[c] : patches[(tile * (p.tokens - 1) + token - 1) * p.cols + c];
  x[row * p.cols + c] = v + position[token * p.cols + c];
}
