#version 450

/* The device's peak of f32 multiply and add: 24 independent chains an invocation, in registers. 48 operations a turn
 * and invocation. */

layout (local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout (binding = 0, std430) writeonly buffer Y { vec4 y[]; };
layout (push_constant) uniform Push { uint turns; } p;

void
main ()
{
  uint i = gl_GlobalInvocationID.x;
  float b = 1.0 - float (i) * 1e-9, c = float (i) * 1e-7;
  vec4 a0 = vec4 (0, 1, 2, 3) + c, a1 = a0 + 4.0, a2 = a0 + 8.0, a3 = a0 + 12.0, a4 = a0 + 16.0, a5 = a0 + 20.0;
  for (uint t = 0; t < p.turns; t++) {
    a0 = a0 * b + c;
    a1 = a1 * b + c;
    a2 = a2 * b + c;
    a3 = a3 * b + c;
    a4 = a4 * b + c;
    a5 = a5 * b + c;
  }
  y[i] = a0 + a1 + a2 + a3 + a4 + a5;
}
