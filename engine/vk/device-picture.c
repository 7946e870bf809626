#include "vk/device-picture.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/dma-buf.h>
#endif

#define ALIGN 768u      /* of planes: 256 for kernels, and any texel's size */
#define PITCH_ALIGN 48u /* of rows: whole texels of 1, 2, 3, 4, 6, 8, 12 and 16 bytes */
#define WAIT_NS (120ull * 1000000000ull)
#define WRITTEN_MS 10000 /* whoever writes a DMA-BUF has so long for it */

static guint64
align_up (guint64 value, guint64 to)
{
  return (value + to - 1) / to * to;
}

/* Bytes of a texel of FORMAT as a copy of ASPECT has it; 0: not one that pictures come in. */
static guint
texel_bytes (VkFormat format, VkImageAspectFlags aspect)
{
  bool chroma = aspect == VK_IMAGE_ASPECT_PLANE_1_BIT || aspect == VK_IMAGE_ASPECT_PLANE_2_BIT;
  switch (format) {
  case VK_FORMAT_R8_UNORM:
  case VK_FORMAT_G8_B8_R8_3PLANE_420_UNORM:
  case VK_FORMAT_G8_B8_R8_3PLANE_422_UNORM:
  case VK_FORMAT_G8_B8_R8_3PLANE_444_UNORM:
    return 1;
  case VK_FORMAT_R8G8_UNORM:
  case VK_FORMAT_R16_UNORM:
  case VK_FORMAT_R10X6_UNORM_PACK16:
  case VK_FORMAT_R12X4_UNORM_PACK16:
  case VK_FORMAT_R5G6B5_UNORM_PACK16:
  case VK_FORMAT_B5G6R5_UNORM_PACK16:
    return 2;
  case VK_FORMAT_R8G8B8_UNORM:
  case VK_FORMAT_R8G8B8_SRGB:
  case VK_FORMAT_B8G8R8_UNORM:
  case VK_FORMAT_B8G8R8_SRGB:
    return 3;
  case VK_FORMAT_R8G8B8A8_UNORM:
  case VK_FORMAT_R8G8B8A8_SRGB:
  case VK_FORMAT_B8G8R8A8_UNORM:
  case VK_FORMAT_B8G8R8A8_SRGB:
  case VK_FORMAT_A8B8G8R8_UNORM_PACK32:
  case VK_FORMAT_A8B8G8R8_SRGB_PACK32:
  case VK_FORMAT_A2R10G10B10_UNORM_PACK32:
  case VK_FORMAT_A2B10G10R10_UNORM_PACK32:
  case VK_FORMAT_R16G16_UNORM:
  case VK_FORMAT_R10X6G10X6_UNORM_2PACK16:
  case VK_FORMAT_R12X4G12X4_UNORM_2PACK16:
    return 4;
  case VK_FORMAT_R16G16B16A16_UNORM:
    return 8;
  case VK_FORMAT_G8_B8R8_2PLANE_420_UNORM:
  case VK_FORMAT_G8_B8R8_2PLANE_422_UNORM:
    return chroma ? 2 : 1;
  case VK_FORMAT_G10X6_B10X6R10X6_2PLANE_420_UNORM_3PACK16:
  case VK_FORMAT_G12X4_B12X4R12X4_2PLANE_420_UNORM_3PACK16:
  case VK_FORMAT_G16_B16R16_2PLANE_420_UNORM:
    return chroma ? 4 : 2;
  default:
    return 0;
  }
}

static IvlDevicePicture *
picture_alloc (IvlDevice *device, const IvlPicture *layout, bool readback, GError **error)
{
  if (layout->n_planes < 1 || layout->n_planes > 4) {
    ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "A picture of %u planes: it must have 1 to 4", layout->n_planes);
    return NULL;
  }
  if (g_atomic_int_get (&device->lost)) {
    ivl_vk_fail (device, VK_ERROR_DEVICE_LOST, "vkBeginCommandBuffer", error);
    return NULL;
  }
  IvlDevicePicture *self = g_new0 (IvlDevicePicture, 1);
  self->ref_count = 1;
  self->device = ivl_device_ref (device);
  self->layout = *layout;
  self->readback = readback;
  for (guint i = 0; i < G_N_ELEMENTS (self->fds); i++)
    self->fds[i] = -1;
  g_mutex_init (&self->lock);
  return self;
}

/* Begins the commands of the copy. */
static VkCommandBuffer
begin (IvlDevicePicture *self, guint64 bytes, GError **error)
{
  IvlDevice *device = self->device;
  VkCommandBuffer commands = VK_NULL_HANDLE;
  if (!(self->buffer = ivl_vk_buffer_new (device, self->readback ? IVL_VK_READBACK : IVL_VK_DEVICE, bytes, error)))
    return VK_NULL_HANDLE;
  VkCommandPoolCreateInfo pool = { .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                   .flags = VK_COMMAND_POOL_CREATE_TRANSIENT_BIT,
                                   .queueFamilyIndex = device->queue_family };
  VK_TRY (device, vkCreateCommandPool (device->device, &pool, NULL, &self->pool));
  VkCommandBufferAllocateInfo allocate = { .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                           .commandPool = self->pool,
                                           .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                                           .commandBufferCount = 1 };
  VK_TRY (device, vkAllocateCommandBuffers (device->device, &allocate, &commands));
  VkCommandBufferBeginInfo info = { .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                    .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT };
  VK_TRY (device, vkBeginCommandBuffer (commands, &info));
  return commands;
fail:
  return VK_NULL_HANDLE;
}

static gboolean
submit (IvlDevicePicture *self, VkCommandBuffer commands, VkSubmitInfo *info, GError **error)
{
  IvlDevice *device = self->device;
  VkMemoryBarrier barrier = { .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
                              .srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT,
                              .dstAccessMask = VK_ACCESS_HOST_READ_BIT };
  if (self->readback)
    vkCmdPipelineBarrier (commands, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &barrier, 0, NULL,
                          0, NULL);
  VK_TRY (device, vkEndCommandBuffer (commands));
  VkFenceCreateInfo fence = { .sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO };
  VK_TRY (device, vkCreateFence (device->device, &fence, NULL, &self->fence));
  info->sType = VK_STRUCTURE_TYPE_SUBMIT_INFO;
  info->commandBufferCount = 1;
  info->pCommandBuffers = &commands;
  ivl_vk_lock_queue (device);
  VkResult result = vkQueueSubmit (device->queue, 1, info, self->fence);
  ivl_vk_unlock_queue (device);
  if (result < 0) {
    vkDestroyFence (device->device, self->fence, NULL);
    self->fence = VK_NULL_HANDLE;
  }
  VK_TRY (device, result);
  return TRUE;
fail:
  return FALSE;
}

/* ---- from images ---- */

static bool
is_readable (VkImageLayout layout)
{
  return layout == VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL || layout == VK_IMAGE_LAYOUT_GENERAL;
}

/* Puts the planes behind each other. */
static gboolean
place_planes (IvlDevicePicture *self, const IvlPlaneImage *images, guint64 *bytes, GError **error)
{
  *bytes = 0;
  for (guint i = 0; i < self->layout.n_planes; i++) {
    gsize row_bytes = self->layout.planes[i].row_bytes;
    guint texel = texel_bytes (images[i].format, images[i].aspect);
    if (!texel || !row_bytes || row_bytes % texel || !self->layout.planes[i].rows)
      return ivl_fail (error, IVL_ERROR_UNSUPPORTED,
                       "Plane %u of a picture: rows of %" G_GSIZE_FORMAT " bytes in an image of VkFormat %u", i, row_bytes,
                       images[i].format);
    if (row_bytes / texel > images[i].width || self->layout.planes[i].rows > images[i].height)
      return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT,
                       "Plane %u of a picture: %u rows of %" G_GSIZE_FORMAT " bytes aren't in an image of %u x %u texels", i,
                       self->layout.planes[i].rows, row_bytes, images[i].width, images[i].height);
    if (!images[i].image || images[i].layout == VK_IMAGE_LAYOUT_UNDEFINED)
      return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "Plane %u of a picture: %s", i,
                       images[i].image ? "its image holds nothing yet" : "no image");
    self->places[i] = (IvlPlanePlace){ *bytes, align_up (row_bytes, PITCH_ALIGN) };
    *bytes = align_up (*bytes + (guint64) self->places[i].pitch * self->layout.planes[i].rows, ALIGN);
  }
  return TRUE;
}

/* Barriers of the images that need one: to where they can be read, or BACK. */
static void
record_barriers (IvlDevicePicture *self, VkCommandBuffer commands, IvlPlaneImage *images, bool back)
{
  VkImageMemoryBarrier barriers[4];
  guint n = 0;
  for (guint i = 0; i < self->layout.n_planes; i++) {
    bool seen = false;
    for (guint j = 0; j < i; j++)
      seen = seen || images[j].image == images[i].image;
    if (seen)
      continue;
    VkImageLayout layout = images[i].layout;
    VkImageLayout reading = is_readable (layout) ? layout : VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL;
    bool foreign = images[i].queue_family != VK_QUEUE_FAMILY_IGNORED
                   && images[i].queue_family != self->device->queue_family;
    if (back && reading == layout)
      continue;
    barriers[n++] = (VkImageMemoryBarrier){
      .sType = VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER,
      .srcAccessMask = back ? 0 : VK_ACCESS_MEMORY_WRITE_BIT,
      .dstAccessMask = back ? VK_ACCESS_MEMORY_READ_BIT | VK_ACCESS_MEMORY_WRITE_BIT : VK_ACCESS_TRANSFER_READ_BIT,
      .oldLayout = back ? reading : layout,
      .newLayout = back ? layout : reading,
      .srcQueueFamilyIndex = !back && foreign ? images[i].queue_family : VK_QUEUE_FAMILY_IGNORED,
      .dstQueueFamilyIndex = !back && foreign ? self->device->queue_family : VK_QUEUE_FAMILY_IGNORED,
      .image = (VkImage) images[i].image,
      .subresourceRange = { VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1 },
    };
  }
  if (n)
    vkCmdPipelineBarrier (commands, back ? VK_PIPELINE_STAGE_TRANSFER_BIT : VK_PIPELINE_STAGE_ALL_COMMANDS_BIT,
                          back ? VK_PIPELINE_STAGE_ALL_COMMANDS_BIT : VK_PIPELINE_STAGE_TRANSFER_BIT, 0, 0, NULL, 0, NULL, n,
                          barriers);
}

static void
record_image_copy (IvlDevicePicture *self, VkCommandBuffer commands, const IvlPlaneImage *image, guint plane)
{
  guint texel = texel_bytes (image->format, image->aspect);
  VkBufferImageCopy region = {
    .bufferOffset = self->places[plane].offset,
    .bufferRowLength = (guint32) (self->places[plane].pitch / texel),
    .imageSubresource = { image->aspect, 0, 0, 1 },
    .imageExtent = { (guint32) (self->layout.planes[plane].row_bytes / texel), self->layout.planes[plane].rows, 1 },
  };
  vkCmdCopyImageToBuffer (commands, (VkImage) image->image,
                          is_readable (image->layout) ? image->layout : VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL,
                          self->buffer->buffer, 1, &region);
}

IvlDevicePicture *
ivl_device_picture_new (IvlDevice *device, const IvlPicture *layout, IvlPlaneImage *images, gboolean readback,
                        GError **error)
{
  VkSemaphore semaphores[4];
  guint64 waits[4], signals[4];
  VkPipelineStageFlags stages[4];
  guint n_semaphores = 0;
  guint64 bytes;
  IvlDevicePicture *self = picture_alloc (device, layout, readback, error);
  VkCommandBuffer commands;
  if (!self || !place_planes (self, images, &bytes, error) || !(commands = begin (self, bytes, error)))
    goto fail;
  for (guint i = 0; i < layout->n_planes; i++) {
    /* A layout that an image can't go back to. */
    if (images[i].layout == VK_IMAGE_LAYOUT_PREINITIALIZED) {
      ivl_fail (error, IVL_ERROR_UNSUPPORTED, "Plane %u of a picture: its image is preinitialized", i);
      goto fail;
    }
    bool seen = !images[i].semaphore;
    for (guint j = 0; j < n_semaphores; j++)
      seen = seen || semaphores[j] == (VkSemaphore) images[i].semaphore;
    if (seen)
      continue;
    semaphores[n_semaphores] = (VkSemaphore) images[i].semaphore;
    waits[n_semaphores] = images[i].wait_value;
    signals[n_semaphores] = images[i].signal_value;
    stages[n_semaphores++] = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
  }
  record_barriers (self, commands, images, false);
  for (guint i = 0; i < layout->n_planes; i++)
    record_image_copy (self, commands, &images[i], i);
  record_barriers (self, commands, images, true);
  VkTimelineSemaphoreSubmitInfo timeline = { .sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
                                             .waitSemaphoreValueCount = n_semaphores,
                                             .pWaitSemaphoreValues = waits,
                                             .signalSemaphoreValueCount = n_semaphores,
                                             .pSignalSemaphoreValues = signals };
  VkSubmitInfo info = { .pNext = n_semaphores ? &timeline : NULL,
                        .waitSemaphoreCount = n_semaphores,
                        .pWaitSemaphores = semaphores,
                        .pWaitDstStageMask = stages,
                        .signalSemaphoreCount = n_semaphores,
                        .pSignalSemaphores = semaphores };
  if (!submit (self, commands, &info, error))
    goto fail;
  for (guint i = 0; i < layout->n_planes; i++)
    if (images[i].queue_family != VK_QUEUE_FAMILY_IGNORED)
      images[i].queue_family = device->queue_family;
  return self;
fail:
  ivl_device_picture_unref (self);
  return NULL;
}

/* ---- from DMA-BUFs ---- */

/* -1: unknown. */
static gint64
fd_bytes (int fd)
{
  struct stat status;
  if (fstat (fd, &status) == 0 && S_ISREG (status.st_mode))
    return status.st_size;
  return lseek (fd, 0, SEEK_END);
}

/* The fences of those who write it, of which Vulkan knows nothing. */
static gboolean
wait_written (int fd, GError **error)
{
  struct pollfd wait = { .fd = fd, .events = POLLIN };
  int n;
  do
    n = poll (&wait, 1, WRITTEN_MS);
  while (n < 0 && errno == EINTR);
  if (n == 0)
    return ivl_fail (error, IVL_ERROR_IO, "A DMA-BUF wasn't written within %d s", WRITTEN_MS / 1000);
  if (n < 0 || !(wait.revents & POLLIN))
    return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "A DMA-BUF can't be waited for: %s",
                     n < 0 ? g_strerror (errno) : "no such file");
  return TRUE;
}

/* Tells the DMA-BUF that the host's cores begin or end to read it. Other kinds of files know nothing of that. */
static void
sync_cores (int fd, bool end)
{
#ifdef __linux__
  struct dma_buf_sync sync = { DMA_BUF_SYNC_READ | (end ? DMA_BUF_SYNC_END : DMA_BUF_SYNC_START) };
  while (ioctl (fd, DMA_BUF_IOCTL_SYNC, &sync) < 0 && (errno == EINTR || errno == EAGAIN)) {
  }
#endif
}

static gboolean
fail_import (IvlDevicePicture *self, VkResult result, const char *why, GError **error)
{
  if (result == VK_ERROR_DEVICE_LOST)
    return ivl_vk_fail (self->device, result, why, error);
  return ivl_fail (error, IVL_ERROR_UNSUPPORTED, "Vulkan device \"%s\" can't read a DMA-BUF: %s (%d)", self->device->name,
                   why, result);
}

/* The first BYTES of FD become sources[I]. */
static gboolean
import_fd (IvlDevicePicture *self, guint i, int fd, guint64 bytes, guint64 fd_size, GError **error)
{
  const VkExternalMemoryHandleTypeFlagBits kind = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT;
  IvlDevice *device = self->device;
  VkExternalMemoryBufferCreateInfo external = { .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO,
                                                .handleTypes = kind };
  VkBufferCreateInfo info = { .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                              .pNext = &external,
                              .size = bytes,
                              .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT };
  VkResult result = vkCreateBuffer (device->device, &info, NULL, &self->sources[i]);
  if (result < 0)
    return fail_import (self, result, "vkCreateBuffer", error);
  ivl_vk_set_name (device, VK_OBJECT_TYPE_BUFFER, (guint64) self->sources[i], "internvl DMA-BUF");
  VkMemoryRequirements requirements;
  vkGetBufferMemoryRequirements (device->device, self->sources[i], &requirements);
  VkMemoryFdPropertiesKHR properties = { .sType = VK_STRUCTURE_TYPE_MEMORY_FD_PROPERTIES_KHR };
  result = device->get_fd_properties (device->device, kind, fd, &properties);
  if (result < 0)
    return fail_import (self, result, "vkGetMemoryFdPropertiesKHR", error);
  guint32 types = properties.memoryTypeBits & requirements.memoryTypeBits;
  if (!types || requirements.size > fd_size)
    return fail_import (self, VK_SUCCESS, types ? "it is too small" : "it has no type of memory in common with it", error);
  int own = fcntl (fd, F_DUPFD_CLOEXEC, 0);
  if (own < 0)
    return ivl_fail (error, IVL_ERROR_IO, "A DMA-BUF can't be kept open: %s", g_strerror (errno));
  VkMemoryDedicatedAllocateInfo dedicated = { .sType = VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO,
                                              .buffer = self->sources[i] };
  VkImportMemoryFdInfoKHR import = { .sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR,
                                     .pNext = device->dmabuf_dedicated ? &dedicated : NULL,
                                     .handleType = kind,
                                     .fd = own };
  VkMemoryAllocateInfo allocate = { .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                    .pNext = &import,
                                    .allocationSize = requirements.size,
                                    .memoryTypeIndex = (guint32) g_bit_nth_lsf (types, -1) };
  result = vkAllocateMemory (device->device, &allocate, NULL, &self->memories[i]);
  if (result < 0) {
    close (own);
    return fail_import (self, result, "vkAllocateMemory", error);
  }
  result = vkBindBufferMemory (device->device, self->sources[i], self->memories[i], 0);
  if (result < 0)
    return fail_import (self, result, "vkBindBufferMemory", error);
  if (device->software && (self->fds[i] = fcntl (fd, F_DUPFD_CLOEXEC, 0)) >= 0)
    sync_cores (self->fds[i], false);
  return TRUE;
}

/* Checks plane I, and says in END where what is read of it ends. */
static gboolean
check_plane (const IvlPicture *layout, const IvlPlaneDmabuf *plane, guint i, guint64 fd_size, guint64 *end, GError **error)
{
  gsize row_bytes = layout->planes[i].row_bytes;
  gint64 reach, first, last;
  bool over = !row_bytes || plane->offset > fd_size
              || __builtin_mul_overflow ((gint64) layout->planes[i].rows - 1, (gint64) plane->stride, &reach)
              || __builtin_add_overflow ((gint64) plane->offset, reach, &last);
  first = (gint64) plane->offset;
  if (over || MIN (first, last) < 0 || row_bytes > fd_size || (guint64) MAX (first, last) > fd_size - row_bytes)
    return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT,
                     "Plane %u of a picture: %u rows of %" G_GSIZE_FORMAT " bytes, %" G_GSSIZE_FORMAT " apart, from %"
                     G_GUINT64_FORMAT " on aren't in a DMA-BUF of %" G_GUINT64_FORMAT " bytes", i,
                     layout->planes[i].rows, row_bytes, plane->stride, plane->offset, fd_size);
  *end = (guint64) MAX (first, last) + row_bytes;
  return TRUE;
}

/* Imports what planes are in, each file once; OWNERS: whose source a plane is in. */
static gboolean
import_planes (IvlDevicePicture *self, const IvlPlaneDmabuf *planes, guint owners[4], GError **error)
{
  guint64 ends[4] = { 0 };
  gint64 sizes[4];
  for (guint i = 0; i < self->layout.n_planes; i++) {
    guint64 end = 0;
    owners[i] = i;
    if (!self->layout.planes[i].rows)
      continue;
    for (guint j = i; j-- > 0;)
      if (self->layout.planes[j].rows && planes[j].fd == planes[i].fd)
        owners[i] = j;
    sizes[i] = fd_bytes (planes[i].fd);
    if (sizes[i] < 0)
      return ivl_fail (error, IVL_ERROR_UNSUPPORTED, "A DMA-BUF doesn't tell its size: %s", g_strerror (errno));
    if (!check_plane (&self->layout, &planes[i], i, (guint64) sizes[i], &end, error))
      return FALSE;
    ends[owners[i]] = MAX (ends[owners[i]], end);
  }
  for (guint i = 0; i < self->layout.n_planes; i++)
    if (owners[i] == i && self->layout.planes[i].rows
        && !(wait_written (planes[i].fd, error)
             && import_fd (self, i, planes[i].fd, ends[i], (guint64) sizes[i], error)))
      return FALSE;
  return TRUE;
}

/* From whoever has the DMA-BUFs to us, or BACK. */
static void
record_ownership (IvlDevicePicture *self, VkCommandBuffer commands, bool back)
{
  IvlDevice *device = self->device;
  VkBufferMemoryBarrier barriers[4];
  guint n = 0;
  for (guint i = 0; i < G_N_ELEMENTS (self->sources); i++)
    if (self->sources[i])
      barriers[n++] = (VkBufferMemoryBarrier){
        .sType = VK_STRUCTURE_TYPE_BUFFER_MEMORY_BARRIER,
        .dstAccessMask = back ? 0 : VK_ACCESS_TRANSFER_READ_BIT,
        .srcQueueFamilyIndex = back ? device->queue_family : device->dmabuf_family,
        .dstQueueFamilyIndex = back ? device->dmabuf_family : device->queue_family,
        .buffer = self->sources[i],
        .size = VK_WHOLE_SIZE,
      };
  vkCmdPipelineBarrier (commands, back ? VK_PIPELINE_STAGE_TRANSFER_BIT : VK_PIPELINE_STAGE_TOP_OF_PIPE_BIT,
                        back ? VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT : VK_PIPELINE_STAGE_TRANSFER_BIT, 0, 0, NULL, n,
                        barriers, 0, NULL);
}

/* In one piece if its rows lie as they may for the kernels, else row by row. */
static void
record_plane_copy (IvlDevicePicture *self, VkCommandBuffer commands, VkBuffer source, const IvlPlaneDmabuf *plane, guint i)
{
  const IvlPlanePlace *place = &self->places[i];
  gsize row_bytes = self->layout.planes[i].row_bytes;
  guint rows = self->layout.planes[i].rows;
  bool whole = plane->stride == (gssize) place->pitch;
  g_autofree VkBufferCopy *regions = g_new (VkBufferCopy, whole ? 1 : rows);
  regions[0] = (VkBufferCopy){ plane->offset, place->offset, (rows - 1) * place->pitch + row_bytes };
  for (guint y = 0; y < rows && !whole; y++)
    regions[y] = (VkBufferCopy){ (guint64) ((gint64) plane->offset + (gint64) y * plane->stride),
                                 place->offset + (guint64) y * place->pitch, row_bytes };
  vkCmdCopyBuffer (commands, source, self->buffer->buffer, whole ? 1 : rows, regions);
}

IvlDevicePicture *
ivl_device_picture_new_from_dmabuf (IvlDevice *device, const IvlPicture *layout, const IvlPlaneDmabuf *planes,
                                    gboolean readback, GError **error)
{
  VkCommandBuffer commands;
  VkSubmitInfo info = { 0 };
  guint owners[4];
  guint64 bytes = 0;
  if (!device->dmabuf) {
    ivl_fail (error, IVL_ERROR_UNSUPPORTED, "Vulkan device \"%s\" doesn't read DMA-BUFs%s", device->name,
              device->imported ? " as its host has made it" : "");
    return NULL;
  }
  IvlDevicePicture *self = picture_alloc (device, layout, readback, error);
  if (!self || !import_planes (self, planes, owners, error))
    goto fail;
  for (guint i = 0; i < layout->n_planes; i++) {
    gsize row_bytes = layout->planes[i].row_bytes;
    gsize pitch = align_up (row_bytes, PITCH_ALIGN);
    /* As it is, if that is good for the kernels and no waste. */
    if (planes[i].stride > 0 && planes[i].stride % PITCH_ALIGN == 0 && (gsize) planes[i].stride >= row_bytes
        && (gsize) planes[i].stride <= 2 * pitch)
      pitch = (gsize) planes[i].stride;
    self->places[i] = (IvlPlanePlace){ bytes, pitch };
    bytes = align_up (bytes + (guint64) pitch * layout->planes[i].rows, ALIGN);
  }
  if (!(commands = begin (self, bytes, error)))
    goto fail;
  record_ownership (self, commands, false);
  for (guint i = 0; i < layout->n_planes; i++)
    if (layout->planes[i].rows)
      record_plane_copy (self, commands, self->sources[owners[i]], &planes[i], i);
  record_ownership (self, commands, true);
  if (!submit (self, commands, &info, error))
    goto fail;
  return self;
fail:
  ivl_device_picture_unref (self);
  return NULL;
}

/* ---- life ---- */

static void
release_transients (IvlDevicePicture *self)
{
  VkDevice device = self->device->device;
  vkDestroyFence (device, self->fence, NULL);
  vkDestroyCommandPool (device, self->pool, NULL);
  self->fence = VK_NULL_HANDLE;
  self->pool = VK_NULL_HANDLE;
  for (guint i = 0; i < G_N_ELEMENTS (self->sources); i++) {
    vkDestroyBuffer (device, self->sources[i], NULL);
    vkFreeMemory (device, self->memories[i], NULL);
    self->sources[i] = VK_NULL_HANDLE;
    self->memories[i] = VK_NULL_HANDLE;
    if (self->fds[i] >= 0) {
      sync_cores (self->fds[i], true);
      close (self->fds[i]);
      self->fds[i] = -1;
    }
  }
}

gboolean
ivl_device_picture_wait (IvlDevicePicture *self, GError **error)
{
  VkResult result = VK_SUCCESS;
  g_mutex_lock (&self->lock);
  if (self->fence) {
    do
      result = vkWaitForFences (self->device->device, 1, &self->fence, VK_TRUE, WAIT_NS);
    while (result == VK_TIMEOUT && !g_atomic_int_get (&self->device->lost));
    if (result == VK_TIMEOUT)
      result = VK_ERROR_DEVICE_LOST;
  }
  release_transients (self);
  g_mutex_unlock (&self->lock);
  return result >= 0 || ivl_vk_fail (self->device, result, "vkWaitForFences", error);
}

gboolean
ivl_device_picture_get (IvlDevicePicture *self, IvlPicture *picture, GError **error)
{
  if (!self->readback)
    return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "ivl_device_picture_get: it wasn't made for reading back");
  if (!ivl_device_picture_wait (self, error))
    return FALSE;
  ivl_vk_buffer_invalidate (self->buffer);
  *picture = self->layout;
  for (guint i = 0; i < picture->n_planes; i++) {
    picture->planes[i].data = (const guint8 *) self->buffer->map + self->places[i].offset;
    picture->planes[i].stride = (gssize) self->places[i].pitch;
  }
  return TRUE;
}

IvlDevice *
ivl_device_picture_get_device (IvlDevicePicture *self)
{
  return self->device;
}

IvlDevicePicture *
ivl_device_picture_ref (IvlDevicePicture *self)
{
  g_atomic_int_inc (&self->ref_count);
  return self;
}

void
ivl_device_picture_unref (IvlDevicePicture *self)
{
  if (!self || !g_atomic_int_dec_and_test (&self->ref_count))
    return;
  ivl_device_picture_wait (self, NULL);
  ivl_vk_buffer_free (self->buffer);
  g_mutex_clear (&self->lock);
  ivl_device_unref (self->device);
  g_free (self);
}
