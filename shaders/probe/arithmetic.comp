#version 450
#extension GL_EXT_control_flow_attributes : require

/* The device's peak of f32 multiply and add: 12 independent chains an invocation, in registers. That hides the latency
 * of a multiplication and an addition, and fits in 16 vector registers: with 16 chains a software driver spills and
 * reaches half. A turn is STEPS long, because within a loop such a driver selects each value by its execution mask; but
 * it also puts one chain after the other, and long ones of fma () then wait for themselves. So which is best differs.
 * 24 * STEPS operations a turn and invocation. */

layout (local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout (constant_id = 1) const bool FUSED = false;
layout (constant_id = 2) const uint STEPS = 64;
layout (binding = 0, std430) writeonly buffer Y { vec4 y[]; };
layout (push_constant) uniform Push { uint turns; } p;

void
main ()
{
  uint i = gl_GlobalInvocationID.x;
  float b = 1.0 - float (i) * 1e-9, c = float (i) * 1e-7;
  vec4 a0 = vec4 (0, 1, 2, 3) + c, a1 = a0 + 4.0, a2 = a0 + 8.0;
  for (uint t = 0; t < p.turns; t++) {
    [[unroll]] for (uint s = 0; s < STEPS; s++) {
      a0 = FUSED ? fma (a0, vec4 (b), vec4 (c)) : a0 * b + c;
      a1 = FUSED ? fma (a1, vec4 (b), vec4 (c)) : a1 * b + c;
      a2 = FUSED ? fma (a2, vec4 (b), vec4 (c)) : a2 * b + c;
    }
  }
  y[i] = a0 + a1 + a2;
}
