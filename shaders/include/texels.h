/* Read-only inputs of 16-byte elements, through texel buffers or storage buffers: software drivers gather from the
 * former and load lane by lane from the latter, but a device need not take more than 65536 texels. */
#ifdef TEXELS
#define INPUT(slot, name) layout (binding = slot) uniform usamplerBuffer name
#define LOAD(name, i) texelFetch (name, int (i))
#else
#define INPUT(slot, name) layout (binding = slot, std430) readonly buffer Input##slot { uvec4 name[]; }
#define LOAD(name, i) name[i]
#endif
