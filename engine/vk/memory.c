#include "vk/memory.h"

#include <string.h>

#define LEAST_MAX_ALLOCATION (1ull << 30) /* maxMemoryAllocationSize is never less */
#define ALIGNMENT 256u

static int
find_type (IvlDevice *device, guint32 allowed, IvlVkUse use)
{
  VkMemoryPropertyFlags need = 0, like = 0;
  switch (use) {
  case IVL_VK_DEVICE:
    like = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT;
    if (device->unified)
      need = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT;
    break;
  case IVL_VK_UPLOAD:
    need = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    break;
  case IVL_VK_READBACK:
    need = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT;
    like = VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
    break;
  }
  int fallback = -1;
  for (guint32 i = 0; i < device->memory.memoryTypeCount; i++) {
    VkMemoryPropertyFlags flags = device->memory.memoryTypes[i].propertyFlags;
    if (!(allowed & (1u << i)) || (flags & need) != need)
      continue;
    if ((flags & like) == like)
      return (int) i;
    if (fallback < 0)
      fallback = (int) i;
  }
  return fallback;
}

/* After memory was allocated, and before it is freed. */
static void
count_bytes (IvlVkBuffer *self, bool more)
{
  IvlDevice *device = self->device;
  g_mutex_lock (&device->memory_lock);
  if (more)
    self->serial = ++device->n_buffers;
  device->allocated_bytes = more ? device->allocated_bytes + self->size : device->allocated_bytes - self->size;
  device->peak_bytes = MAX (device->peak_bytes, device->allocated_bytes);
  g_mutex_unlock (&device->memory_lock);
}

IvlVkBuffer *
ivl_vk_buffer_new (IvlDevice *device, IvlVkUse use, VkDeviceSize size, GError **error)
{
  IvlVkBuffer *self = g_new0 (IvlVkBuffer, 1);
  self->device = ivl_device_ref (device);
  self->size = size = (MAX (size, 16) + ALIGNMENT - 1) & ~(VkDeviceSize) (ALIGNMENT - 1);
  g_mutex_init (&self->views_lock);
  VkBufferCreateInfo info = { .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                              .size = size,
                              .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_UNIFORM_TEXEL_BUFFER_BIT
                                       | VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT
                                       | (device->addresses ? VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT : 0) };
  VK_TRY (device, vkCreateBuffer (device->device, &info, NULL, &self->buffer));
  VkMemoryRequirements requirements;
  vkGetBufferMemoryRequirements (device->device, self->buffer, &requirements);
  int type = find_type (device, requirements.memoryTypeBits, use);
  if (type < 0) {
    ivl_fail (error, IVL_ERROR_UNSUPPORTED, "Vulkan device \"%s\" has no memory type for buffers of kind %d",
              device->name, use);
    goto fail;
  }
  VkMemoryAllocateFlagsInfo flags_info = { .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
                                           .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT };
  VkMemoryAllocateInfo allocate = { .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                    .pNext = device->addresses ? &flags_info : NULL,
                                    .allocationSize = requirements.size,
                                    .memoryTypeIndex = (guint32) type };
  VkResult result = vkAllocateMemory (device->device, &allocate, NULL, &self->memory);
  if (result < 0) {
    g_autofree char *need = ivl_format_bytes (size);
    g_autofree char *found = ivl_format_bytes (ivl_vk_available_bytes (device));
    ivl_fail (error, IVL_ERROR_OUT_OF_MEMORY,
              "Vulkan device \"%s\" has no room for %s (about %s there in all); free memory, or use a smaller "
              "model, context or weight type", device->name, need, found);
    goto fail;
  }
  static const char *const names[] = { [IVL_VK_DEVICE] = "device", [IVL_VK_UPLOAD] = "upload",
                                       [IVL_VK_READBACK] = "readback" };
  ivl_vk_set_name (device, VK_OBJECT_TYPE_BUFFER, (guint64) self->buffer, "internvl %s buffer", names[use]);
  count_bytes (self, true);
  VK_TRY (device, vkBindBufferMemory (device->device, self->buffer, self->memory, 0));
  if (device->addresses) {
    VkBufferDeviceAddressInfo address = { .sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO, .buffer = self->buffer };
    self->address = vkGetBufferDeviceAddress (device->device, &address);
  }
  VkMemoryPropertyFlags flags = device->memory.memoryTypes[type].propertyFlags;
  self->coherent = flags & VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
  if ((flags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT) && (use != IVL_VK_DEVICE || device->unified))
    VK_TRY (device, vkMapMemory (device->device, self->memory, 0, VK_WHOLE_SIZE, 0, &self->map));
  return self;
fail:
  ivl_vk_buffer_free (self);
  return NULL;
}

IvlVkBuffer *
ivl_vk_buffer_import (IvlDevice *device, void *data, VkDeviceSize size)
{
  const VkExternalMemoryHandleTypeFlagBits kind = VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT;
  if (!device->unified || !device->host_import || (guintptr) data % device->host_import_alignment
      || size % device->host_import_alignment)
    return NULL;
  PFN_vkGetMemoryHostPointerPropertiesEXT get_properties = (PFN_vkGetMemoryHostPointerPropertiesEXT)
    vkGetDeviceProcAddr (device->device, "vkGetMemoryHostPointerPropertiesEXT");
  VkMemoryHostPointerPropertiesEXT properties = { .sType = VK_STRUCTURE_TYPE_MEMORY_HOST_POINTER_PROPERTIES_EXT };
  if (!get_properties || get_properties (device->device, kind, data, &properties) != VK_SUCCESS)
    return NULL;
  IvlVkBuffer *self = g_new0 (IvlVkBuffer, 1);
  self->device = ivl_device_ref (device);
  self->size = size;
  g_mutex_init (&self->views_lock);
  VkExternalMemoryBufferCreateInfo external = { .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO,
                                                .handleTypes = kind };
  VkBufferCreateInfo info = { .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                              .pNext = &external,
                              .size = size,
                              .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_UNIFORM_TEXEL_BUFFER_BIT
                                       | VK_BUFFER_USAGE_TRANSFER_SRC_BIT };
  VkMemoryRequirements requirements;
  if (vkCreateBuffer (device->device, &info, NULL, &self->buffer) != VK_SUCCESS)
    goto fail;
  vkGetBufferMemoryRequirements (device->device, self->buffer, &requirements);
  int type = find_type (device, requirements.memoryTypeBits & properties.memoryTypeBits, IVL_VK_DEVICE);
  if (type < 0 || requirements.size > size)
    goto fail;
  VkImportMemoryHostPointerInfoEXT import = { .sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_HOST_POINTER_INFO_EXT,
                                              .handleType = kind,
                                              .pHostPointer = data };
  VkMemoryAllocateInfo allocate = { .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                    .pNext = &import,
                                    .allocationSize = size,
                                    .memoryTypeIndex = (guint32) type };
  if (vkAllocateMemory (device->device, &allocate, NULL, &self->memory) != VK_SUCCESS)
    goto fail;
  count_bytes (self, true);
  if (vkBindBufferMemory (device->device, self->buffer, self->memory, 0) != VK_SUCCESS)
    goto fail;
  self->map = data;
  self->coherent = true; /* nobody writes it any more */
  return self;
fail:
  ivl_vk_buffer_free (self);
  return NULL;
}

void
ivl_vk_buffer_free (IvlVkBuffer *self)
{
  if (!self)
    return;
  VkDevice device = self->device->device;
  if (self->views) {
    GHashTableIter iter;
    gpointer view;
    g_hash_table_iter_init (&iter, self->views);
    while (g_hash_table_iter_next (&iter, NULL, &view))
      vkDestroyBufferView (device, (VkBufferView) view, NULL);
    g_hash_table_unref (self->views);
  }
  if (self->memory)
    count_bytes (self, false);
  vkDestroyBuffer (device, self->buffer, NULL);
  vkFreeMemory (device, self->memory, NULL);
  g_mutex_clear (&self->views_lock);
  ivl_device_unref (self->device);
  g_free (self);
}

static VkMappedMemoryRange
whole_range (IvlVkBuffer *self)
{
  return (VkMappedMemoryRange){ .sType = VK_STRUCTURE_TYPE_MAPPED_MEMORY_RANGE,
                                .memory = self->memory,
                                .size = VK_WHOLE_SIZE };
}

void
ivl_vk_buffer_flush (IvlVkBuffer *self)
{
  VkMappedMemoryRange range = whole_range (self);
  if (self->map && !self->coherent)
    vkFlushMappedMemoryRanges (self->device->device, 1, &range);
}

void
ivl_vk_buffer_invalidate (IvlVkBuffer *self)
{
  VkMappedMemoryRange range = whole_range (self);
  if (self->map && !self->coherent)
    vkInvalidateMappedMemoryRanges (self->device->device, 1, &range);
}

typedef struct {
  VkFormat format;
  VkDeviceSize offset, size;
} ViewKey;

static guint
view_hash (gconstpointer p)
{
  const ViewKey *key = p;
  guint64 h = key->offset * 0x9E3779B97F4A7C15ull ^ key->size * 0xC2B2AE3D27D4EB4Full ^ (guint64) key->format;
  return (guint) (h ^ (h >> 32));
}

static gboolean
view_equal (gconstpointer a, gconstpointer b)
{
  const ViewKey *x = a, *y = b;
  return x->format == y->format && x->offset == y->offset && x->size == y->size;
}

VkBufferView
ivl_vk_buffer_view (IvlVkBuffer *self, VkFormat format, VkDeviceSize offset, VkDeviceSize size)
{
  const VkPhysicalDeviceLimits *limits = &self->device->properties.limits;
  if (size / 16 > limits->maxTexelBufferElements || offset % MAX (limits->minTexelBufferOffsetAlignment, 1))
    return VK_NULL_HANDLE;
  ViewKey key = { format, offset, size & ~(VkDeviceSize) 15 };
  g_mutex_lock (&self->views_lock);
  if (!self->views)
    self->views = g_hash_table_new_full (view_hash, view_equal, g_free, NULL);
  VkBufferView view = g_hash_table_lookup (self->views, &key);
  if (!view) {
    VkBufferViewCreateInfo info = { .sType = VK_STRUCTURE_TYPE_BUFFER_VIEW_CREATE_INFO,
                                    .buffer = self->buffer,
                                    .format = format,
                                    .offset = offset,
                                    .range = key.size };
    if (vkCreateBufferView (self->device->device, &info, NULL, &view) == VK_SUCCESS)
      g_hash_table_insert (self->views, g_memdup2 (&key, sizeof key), (gpointer) view);
    else
      view = VK_NULL_HANDLE;
  }
  g_mutex_unlock (&self->views_lock);
  return view;
}

void
ivl_vk_arena_init (IvlVkArena *self, IvlDevice *device, IvlVkUse use, VkDeviceSize block_size)
{
  *self = (IvlVkArena){ .device = device, .use = use, .block_size = block_size };
  self->blocks = g_ptr_array_new_with_free_func ((GDestroyNotify) ivl_vk_buffer_free);
  self->used = g_array_new (FALSE, TRUE, sizeof (VkDeviceSize));
}

void
ivl_vk_arena_deinit (IvlVkArena *self)
{
  g_clear_pointer (&self->blocks, g_ptr_array_unref);
  g_clear_pointer (&self->used, g_array_unref);
}

static VkDeviceSize
aligned (VkDeviceSize size)
{
  return (MAX (size, 16) + ALIGNMENT - 1) & ~(VkDeviceSize) (ALIGNMENT - 1);
}

/* LEAST: bytes of a block that has to be made. */
static gboolean
alloc (IvlVkArena *self, VkDeviceSize size, VkDeviceSize least, IvlSpan *span, GError **error)
{
  size = aligned (size);
  guint i = 0;
  while (i < self->blocks->len
         && g_array_index (self->used, VkDeviceSize, i) + size > ((IvlVkBuffer *) self->blocks->pdata[i])->size)
    i++;
  if (i == self->blocks->len) {
    IvlVkBuffer *fresh = ivl_vk_buffer_new (self->device, self->use, MAX (size, least), error);
    if (!fresh)
      return FALSE;
    g_ptr_array_add (self->blocks, fresh);
    g_array_set_size (self->used, self->blocks->len);
    self->total += fresh->size;
  }
  VkDeviceSize *used = &g_array_index (self->used, VkDeviceSize, i);
  *span = (IvlSpan){ self->blocks->pdata[i], *used, size };
  *used += size;
  return TRUE;
}

gboolean
ivl_vk_arena_alloc (IvlVkArena *self, VkDeviceSize size, IvlSpan *span, GError **error)
{
  return alloc (self, size, self->block_size, span, error);
}

gboolean
ivl_vk_arena_alloc_all (IvlVkArena *self, const IvlVkPlanned *planned, guint n, GError **error)
{
  VkDeviceSize total = 0, least = self->block_size;
  for (guint i = 0; i < n; i++)
    total += aligned (planned[i].size);
  if (total <= LEAST_MAX_ALLOCATION)
    least = MAX (least, total);
  for (guint i = 0; i < n; i++)
    if (!alloc (self, planned[i].size, least, planned[i].span, error))
      return FALSE;
  return TRUE;
}
