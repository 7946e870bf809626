/* Shared by the sampling kernels. A row of logits is cut into blocks of IVL_SAMPLE_BLOCK; a workgroup of
 * IVL_SAMPLE_LANES does a block. Whatever is summed is summed in an order that depends on the vocabulary alone, so
 * that an answer repeats; masses are integers, so that all passes agree on them. */
#include "push.h"
#include "texels.h"

layout (local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout (push_constant) uniform Push { IvlPushSampling p; };

#define LANES IVL_SAMPLE_LANES
#define BLOCK_QUADS (IVL_SAMPLE_BLOCK / 4)
#define QUADS_PER_LANE (BLOCK_QUADS / LANES)

#define ROW_MASKED 1u  /* IvlSampleRow.flags */
#define STATE_DRAW 1u  /* IvlSampleState.flags: a valid row that isn't greedy */

/* Float bits to integers in the same order, from 1 up; 0 is below all. The zeros are equal. */
uint
key_of (uint bits)
{
  if (bits == 0x80000000u)
    bits = 0;
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

float
value_of (uint key)
{
  return uintBitsToFloat ((key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key);
}

#define KEY_MINUS_INFINITY 0x007fffffu

/* NaN or plus infinity: no distribution. */
bool
is_bad (uint bits)
{
  return (bits & 0x7fffffffu) > 0x7f800000u || bits == 0x7f800000u;
}

/* Probability relative to the row's largest, as an integer of 1 << 28 in base 1 << 15: (high, low). Sums of up to 2^19
 * of these don't overflow. */
uvec2
mass_of (uint key, float top, float inverse_temperature)
{
  if (key <= KEY_MINUS_INFINITY)
    return uvec2 (0);
  precise float x = (value_of (key) - top) * inverse_temperature;
  precise float scaled = exp (min (x, 0.0)) * 268435456.0;
  precise float rounded = scaled + 0.5;
  uint w = uint (rounded);
  return uvec2 (w >> 15, w & 0x7fff);
}

uvec2
carry (uvec2 m)
{
  return uvec2 (m.x + (m.y >> 15), m.y & 0x7fff);
}

bool
less (uvec2 a, uvec2 b)
{
  return a.x < b.x || (a.x == b.x && a.y < b.y);
}

uvec2
minus (uvec2 a, uvec2 b)
{
  return a.y < b.y ? uvec2 (a.x - b.x - 1, a.y + 0x8000 - b.y) : a - b;
}

/* floor (u * m / 2^64), u = (high, low) words. */
uvec2
scale (uvec2 u, uvec2 m)
{
  uint m0 = m.x << 15 | m.y, m1 = m.x >> 17;
  uint a1, a0, b1, b0, c1, c0, d1, d0, k1, k2, k3;
  umulExtended (u.x, m1, a1, a0);
  umulExtended (u.x, m0, b1, b0);
  umulExtended (u.y, m1, c1, c0);
  umulExtended (u.y, m0, d1, d0);
  uint low = uaddCarry (uaddCarry (b0, c0, k1), d1, k2);
  uint up = k1 + k2;
  uint r0 = uaddCarry (a0, b1, k1);
  r0 = uaddCarry (r0, c1, k2);
  r0 = uaddCarry (r0, up, k3);
  uint r1 = a1 + k1 + k2 + k3;
  return uvec2 (r1 << 17 | r0 >> 15, r0 & 0x7fff);
}

#ifdef ROWS
SMALL (ROWS, rows); /* IvlSampleRow */

IvlSampleRow
load_row (uint row)
{
  uvec4 a = LOAD_SMALL (rows, 3 * row), b = LOAD_SMALL (rows, 3 * row + 1), c = LOAD_SMALL (rows, 3 * row + 2);
  return IvlSampleRow (a.x, uintBitsToFloat (a.y), a.z, a.w, b.x, b.y, b.z, uintBitsToFloat (b.w), c.x, c.y, uint[2] (0, 0));
}
#endif

#ifdef LOGITS
/* Reads through the bindings of kernels that walk the logits. */
INPUT (0, logits);
layout (binding = 2, std430) readonly buffer Masks { uint masks[]; };

uvec4
load_bits (uint row, uint quad)
{
  return LOAD (logits, row * p.pitch + quad);
}

/* Which of a quad's four tokens exist and may be chosen, a bit each. */
uint
load_allowed (uint row, uint quad)
{
  uint n = p.vocab - min (quad * 4, p.vocab);
  uint bits = n >= 4 ? 15u : (1u << n) - 1;
  if (n > 0 && (LOAD_SMALL (rows, 3 * row).x & ROW_MASKED) != 0)
    bits &= masks[row * p.mask_words + quad / 8] >> (quad % 8 * 4);
  return bits;
}
#endif
