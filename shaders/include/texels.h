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
