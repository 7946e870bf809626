/* Buffers and the memory behind them. A buffer owns one allocation; many tensors share one buffer through
 * an arena. Thread-safe as long as each object is used by one thread at a time. */
#ifndef IVL_VK_MEMORY_H
#define IVL_VK_MEMORY_H

#include "vk/device.h"

typedef enum {
  IVL_VK_DEVICE,   /* for kernels; mapped only on unified devices */
  IVL_VK_UPLOAD,   /* written by the host in order, read by kernels or copies */
  IVL_VK_READBACK, /* written by kernels or copies, read by the host */
} IvlVkUse;

typedef struct {
  IvlDevice *device; /* owned reference */
  VkBuffer buffer;
  VkDeviceMemory memory;
  VkDeviceSize size;
  VkDeviceAddress address; /* where the device's buffers have one and this isn't the host's own memory, else 0 */
  guint64 serial;    /* of no other buffer of the device, ever */
  void *map;         /* host address, or NULL */
  bool coherent;
  GHashTable *views; /* texel views, see ivl_vk_buffer_view */
  GMutex views_lock;
} IvlVkBuffer;

IvlVkBuffer *ivl_vk_buffer_new (IvlDevice *device, IvlVkUse use, VkDeviceSize size, GError **error);
/* A buffer over SIZE bytes of the host's own memory at DATA, which stay the caller's and must outlive it: for reading by
 * kernels, on unified devices. NULL without an error where the device or driver doesn't do that with this memory. */
IvlVkBuffer *ivl_vk_buffer_import (IvlDevice *device, void *data, VkDeviceSize size);
/* The caller makes sure that no submission uses it any more. NULL-safe. */
void ivl_vk_buffer_free (IvlVkBuffer *buffer);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (IvlVkBuffer, ivl_vk_buffer_free)

/* For memory that isn't host-coherent: after host writes, before host reads. */
void ivl_vk_buffer_flush (IvlVkBuffer *buffer);
void ivl_vk_buffer_invalidate (IvlVkBuffer *buffer);

/* A view of [offset, offset + size) as texels of 16 bytes, kept until the buffer goes. VK_NULL_HANDLE when the
 * device's limits forbid it. FORMAT is R32G32B32A32_UINT or _SFLOAT. */
VkBufferView ivl_vk_buffer_view (IvlVkBuffer *buffer, VkFormat format, VkDeviceSize offset, VkDeviceSize size);

/* A part of a buffer: what kernels are given. */
typedef struct {
  IvlVkBuffer *buffer;
  VkDeviceSize offset, size;
} IvlSpan;

/* Hands out spans of big buffers; frees them all at once. Alignment is 256 bytes, which satisfies every
 * device's storage and texel offset alignment. */
typedef struct {
  IvlDevice *device;
  IvlVkUse use;
  VkDeviceSize block_size;
  GPtrArray *blocks; /* of IvlVkBuffer, owned */
  GArray *used;      /* VkDeviceSize of each block; the first with room is taken, so that small spans fill gaps */
  VkDeviceSize total;
} IvlVkArena;

void ivl_vk_arena_init (IvlVkArena *arena, IvlDevice *device, IvlVkUse use, VkDeviceSize block_size);
void ivl_vk_arena_deinit (IvlVkArena *arena);
gboolean ivl_vk_arena_alloc (IvlVkArena *arena, VkDeviceSize size, IvlSpan *span, GError **error);

typedef struct {
  VkDeviceSize size;
  IvlSpan *span; /* filled */
} IvlVkPlanned;
/* All that live together, side by side in one buffer where a device must allow so large a one. */
gboolean ivl_vk_arena_alloc_all (IvlVkArena *arena, const IvlVkPlanned *planned, guint n, GError **error);

#endif
