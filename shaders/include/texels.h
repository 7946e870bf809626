/* Read-only inputs of 16-byte elements.
 * INPUT (LOAD: uvec4) and FLOATS (LOAD: vec4): bulk data, through texel buffers in the TEXELS variant, else through
 * storage buffers: some software drivers gather from the former and load lane by lane from the latter, but a device
 * need not take more than 65536 texels.
 * SMALL and SMALL_FLOATS: at most 65536 elements, through texel buffers in all variants, because a device need not take
 * more than four storage buffers. */
#define SMALL(slot, name) layout (binding = slot) uniform usamplerBuffer name
#define SMALL_FLOATS(slot, name) layout (binding = slot) uniform samplerBuffer name
#define LOAD_SMALL(name, i) texelFetch (name, int (i))
#ifdef TEXELS
#define INPUT(slot, name) SMALL (slot, name)
#define FLOATS(slot, name) SMALL_FLOATS (slot, name)
#define LOAD(name, i) LOAD_SMALL (name, i)
#else
#define INPUT(slot, name) layout (binding = slot, std430) readonly buffer Input##slot { uvec4 name[]; }
#define FLOATS(slot, name) layout (binding = slot, std430) readonly buffer Input##slot { vec4 name[]; }
#define LOAD(name, i) name[i]
#endif

/* What is read at the same index by all lanes. In the ADDRESSES variant it is read by the buffer's address, which stands in
 * the push constants, ADDRESS being the block's last: lavapipe then loads a value and broadcasts it, instead of asking for
 * each whether it lies in the buffer. Nobody asks, so an index must be within even in the pass that finds a loop at its
 * end: no lane takes part in the rest of that, but such loads are done. */
#ifdef ADDRESSES
layout (buffer_reference, std430, buffer_reference_align = 16) readonly buffer Floats { vec4 at[]; };
#define BROADCAST_FLOATS(slot, name)
#define ADDRESS(i, name) layout (offset = IVL_PUSH_ADDRESSES + 8 * (i)) Floats name##_address;
#define LOAD_BROADCAST(name, i) name##_address.at[i]
#else
#define BROADCAST_FLOATS(slot, name) FLOATS (slot, name);
#define ADDRESS(i, name)
#define LOAD_BROADCAST(name, i) LOAD (name, i)
#endif
