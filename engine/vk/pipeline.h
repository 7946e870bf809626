/* Kernels: one row of shaders/meson.build each. From a row come the SPIR-V, the descriptor layout, the
 * barriers (by the access letters) and the debug name. Pipelines are made on first use per set of
 * specialization constants and shared by everything on the device. */
#ifndef IVL_VK_PIPELINE_H
#define IVL_VK_PIPELINE_H

#include "vk/memory.h"
#include "shader-table.h" /* enum IvlKernelId, generated */

#define IVL_MAX_BINDINGS 10
#define IVL_MAX_ADDRESSES 2 /* of them read by address: what there is room for behind push constants */
#define IVL_MAX_TEXELS 6 /* of them texel buffers: what descriptor pools are made for */
#define IVL_MAX_SPECS 12
#define IVL_PUSH_BYTES 128 /* what every Vulkan device has */

typedef struct {
  const char *name;
  /* A letter each: r, w, x = storage buffer read, written, both; u, f = texels uvec4, vec4, read; a = read by its address,
   * on devices whose buffers have one. */
  const char *bindings;
  const guint32 *spirv;
  gsize spirv_bytes;
  gboolean full_subgroups; /* no invocation of a subgroup may be missing, and their size is the driver's default */
} IvlKernel;

extern const IvlKernel ivl_kernels[IVL_N_KERNELS];

typedef struct {
  VkDescriptorSetLayout set_layout;
  VkPipelineLayout layout;
  VkPipeline pipeline;
} IvlVkPipeline;

/* SPECS are the values of specialization constants 0, 1, ...; constant 0 is the workgroup's x size in every
 * kernel. Compiling takes up to seconds on first use; several threads may compile different ones, and who wants one that
 * another has begun waits for it. */
const IvlVkPipeline *ivl_vk_pipeline_get (IvlDevice *device, IvlKernelId kernel, const guint32 *specs, guint n_specs,
                                          GError **error);
/* The same on a thread of the device's own, of which there are a few, unless somebody wants it before. What fails is tried
 * again, and told, by who wants it. */
void ivl_vk_pipeline_prepare (IvlDevice *device, IvlKernelId kernel, const guint32 *specs, guint n_specs);
/* What no thread has begun yet isn't prepared. */
void ivl_vk_pipelines_forget (IvlDevice *device);
/* For the end of the process: no device's threads begin another, and those that are at one have made it on return. FALSE: not
 * by UNTIL on the monotonic clock. */
bool ivl_vk_pipelines_halt (gint64 until);

#endif
