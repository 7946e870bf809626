/* The Vulkan device: choosing or importing one, what it can do, its buffers and its pipelines.
 * Private to the engine; kernels/ and model/ see Vulkan through vk/ only. */
#ifndef IVL_VK_DEVICE_H
#define IVL_VK_DEVICE_H

#include <stdbool.h>
#include <vulkan/vulkan.h>
#include "base/error.h"

struct IvlDevice {
  gint ref_count;
  VkInstance instance;
  VkPhysicalDevice physical;
  VkDevice device;
  VkQueue queue;
  guint32 queue_family;
  GMutex queue_lock;     /* of a queue of its own, or of a host's that needs none */
  IvlDeviceImport host;  /* when imported, else zeroed */
  bool imported;         /* instance and device belong to the host application */
  gint lost;             /* atomic; set by the first VK_ERROR_DEVICE_LOST, never cleared */

  char name[VK_MAX_PHYSICAL_DEVICE_NAME_SIZE];
  VkPhysicalDeviceProperties properties;
  VkPhysicalDeviceMemoryProperties memory;
  VkDriverId driver;
  guint mesa;            /* its major version, 0 where the driver isn't Mesa's */
  guint8 pipeline_uuid[VK_UUID_SIZE];
  guint32 subgroup_size; /* the driver's default */
  bool software;         /* runs on the host's cores */
  bool unified;          /* device memory is host memory: map instead of staging */
  bool subgroup_arithmetic;
  bool subgroup_ballot;
  bool fused;            /* a software driver whose fma () is one operation, and faster */
  bool texels;           /* bulk inputs are read faster through texel buffers: see ivl_vk_use_texels */
  bool addresses;        /* buffers have one; never on a host's device, whose features can't be seen, nor on GPUs */
  bool broadcasts;       /* what all lanes read alike is read faster by its address */
  guint processors;      /* of the host, to which a dispatch's workgroups are shared out before they run; 0: they aren't */
  bool host_import;      /* VK_EXT_external_memory_host */
  VkDeviceSize host_import_alignment;
  bool memory_budget;    /* VK_EXT_memory_budget */
  bool dmabuf;           /* buffers are imported from DMA-BUFs; never on a host's device, whose extensions can't be seen */
  bool dmabuf_dedicated; /* one memory for each of them */
  guint32 dmabuf_family; /* whose they are: VK_QUEUE_FAMILY_FOREIGN_EXT or _EXTERNAL */
  bool timestamps;
  /* Cooperative matrices of f16 with sums of f32, m x k times k x n, that suit shaders/gemm; 0: none, or not enabled. */
  guint32 coopmat_m, coopmat_n, coopmat_k;
  guint32 coopmat_lanes; /* four true subgroups, whatever subgroup_size was made */
  gpointer gemm_choices; /* atomic; of kernels/gemm-tune.c, borrowed */

  PFN_vkGetMemoryFdPropertiesKHR get_fd_properties; /* with dmabuf */
  PFN_vkSetDebugUtilsObjectNameEXT set_name; /* NULL: the instance doesn't know names */

  GMutex memory_lock;
  guint64 allocated_bytes, peak_bytes; /* of all buffers, now and at most */
  guint64 n_buffers;      /* made so far */

  GMutex pipeline_lock;
  GCond pipeline_made;           /* or failed */
  GHashTable *pipelines;         /* see pipeline.c */
  GThreadPool *pipeline_workers; /* NULL: nothing was prepared yet */
  VkPipelineCache pipeline_cache;
  bool pipeline_cache_dirty;
};

/* Converts a failed VkResult into ERROR and returns FALSE; marks the device lost where that is the cause. */
gboolean ivl_vk_fail (IvlDevice *device, VkResult result, const char *call, GError **error);

/* The name that tools and validation messages show for a Vulkan object. */
G_GNUC_PRINTF (4, 5)
void ivl_vk_set_name (IvlDevice *device, VkObjectType type, guint64 handle, const char *format, ...);

/* Round every vkQueueSubmit. */
void ivl_vk_lock_queue (IvlDevice *device);
void ivl_vk_unlock_queue (IvlDevice *device);

/* Runs CALL; on failure sets `error` and jumps to `fail`. */
#define VK_TRY(device, call)                                                                       \
  do {                                                                                             \
    VkResult vk_result_ = (call);                                                                  \
    if (vk_result_ < 0) {                                                                          \
      ivl_vk_fail (device, vk_result_, #call, error);                                              \
      goto fail;                                                                                   \
    }                                                                                              \
  } while (0)

/* Bytes that can still be allocated for weights and caches: the driver's budget where it tells one, the
 * host's available memory on software drivers (whose heap size is a made-up figure), else the largest
 * device-local heap. */
guint64 ivl_vk_available_bytes (IvlDevice *device);

/* Whether a kernel reads inputs of which the largest has BYTES through texel buffers, rather than storage buffers. FORCE:
 * -1 by device, 0 never, 1 wherever the device can. */
bool ivl_vk_use_texels (IvlDevice *device, VkDeviceSize bytes, int force);

/* ---- pipeline cache (pipeline.c) ---- */
void ivl_vk_pipelines_init (IvlDevice *device);
void ivl_vk_pipelines_deinit (IvlDevice *device);
/* Writes the driver's pipeline cache to disk if new pipelines were made. Failing to write is logged, not an error. */
void ivl_vk_pipelines_save (IvlDevice *device);

#endif
