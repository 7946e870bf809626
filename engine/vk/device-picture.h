/* Pictures that come in the device's memory, or in memory that it can read: copied by the device into a buffer of the
 * engine's, from which the image kernels read as from an upload. See internvl.h for the functions. */
#ifndef IVL_VK_DEVICE_PICTURE_H
#define IVL_VK_DEVICE_PICTURE_H

#include "vk/memory.h"

/* Where a plane's first row is in a buffer, and how far it is to the next. */
typedef struct {
  guint64 offset; /* bytes, a multiple of 256 */
  gsize pitch;    /* bytes */
} IvlPlanePlace;

struct IvlDevicePicture {
  gint ref_count;
  IvlDevice *device;
  IvlPicture layout;        /* of the host's; planes without data */
  IvlPlanePlace places[4];
  IvlVkBuffer *buffer;
  bool readback;

  GMutex lock;              /* for what follows: they go once the copy is done */
  VkCommandPool pool;       /* VK_NULL_HANDLE: done */
  VkFence fence;
  VkBuffer sources[4];      /* imported */
  VkDeviceMemory memories[4];
  int fds[4];               /* of those, read by the host's cores; -1: none */
};

#endif
