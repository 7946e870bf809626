#include "vkframes.h"

#include "framemap.h"

GST_DEBUG_CATEGORY_EXTERN (gst_internvl_debug);
#define GST_CAT_DEFAULT gst_internvl_debug

#ifdef HAVE_VULKAN_FRAMES
/* Its headers have a function whose declaration says nothing of its arguments. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wstrict-prototypes"
#include <gst/vulkan/vulkan.h>
#pragma GCC diagnostic pop

struct GstInternvlVkFrames
{
  GstElement *element;          /* borrowed */
  GMutex lock;
  GstVulkanInstance *instance;
  GstVulkanDevice *device;
  GstVulkanQueue *queue;        /* each object of a queue has a lock of its own: neighbours must share the object */

  /* The streaming thread's, or nobody's */
  IvlDevice *imported;          /* of imported_from */
  GstVulkanDevice *imported_from;       /* borrowed: imported keeps it */
  gboolean told;
};

GstInternvlVkFrames *
gst_internvl_vk_frames_new (GstElement *element)
{
  GstInternvlVkFrames *self = g_new0 (GstInternvlVkFrames, 1);

  self->element = element;
  g_mutex_init (&self->lock);
  return self;
}

void
gst_internvl_vk_frames_free (GstInternvlVkFrames *self)
{
  ivl_device_unref (self->imported);
  gst_clear_object (&self->queue);
  gst_clear_object (&self->device);
  gst_clear_object (&self->instance);
  g_mutex_clear (&self->lock);
  g_free (self);
}

/* ---- sharing the device ---- */

static GstVulkanDevice *
ref_device (GstInternvlVkFrames *self)
{
  g_mutex_lock (&self->lock);
  GstVulkanDevice *device = self->device ? gst_object_ref (self->device) : NULL;
  g_mutex_unlock (&self->lock);
  return device;
}

/* Takes DEVICE, unless there is one already. */
static void
set_device (GstInternvlVkFrames *self, GstVulkanDevice *device)
{
  g_mutex_lock (&self->lock);
  if (!self->device)
    self->device = g_steal_pointer (&device);
  g_mutex_unlock (&self->lock);
  gst_clear_object (&device);
}

void
gst_internvl_vk_frames_set_context (GstInternvlVkFrames *self, GstContext *context)
{
  GstVulkanInstance *instance = NULL;
  GstVulkanDevice *device = NULL;

  if (context && gst_context_get_vulkan_instance (context, &instance)) {
    g_mutex_lock (&self->lock);
    if (!self->instance)
      self->instance = g_steal_pointer (&instance);
    g_mutex_unlock (&self->lock);
    gst_clear_object (&instance);
  } else if (context && gst_context_get_vulkan_device (context, &device)) {
    set_device (self, device);
  }
}

gboolean
gst_internvl_vk_frames_handle_query (GstInternvlVkFrames *self, GstQuery *query)
{
  if (GST_QUERY_TYPE (query) != GST_QUERY_CONTEXT)
    return FALSE;
  GstVulkanDevice *device = ref_device (self);
  if (!device)
    return FALSE;
  g_mutex_lock (&self->lock);
  GstVulkanQueue *queue = self->queue ? gst_object_ref (self->queue) : NULL;
  g_mutex_unlock (&self->lock);
  gboolean handled = gst_vulkan_handle_context_query (self->element, query, NULL, device->instance, device) ||
      (queue && gst_vulkan_queue_handle_context_query (self->element, query, queue));
  gst_clear_object (&queue);
  gst_object_unref (device);
  return handled;
}

static gboolean
offers_images (GstPad *sinkpad)
{
  GstCaps *caps = gst_pad_peer_query_caps (sinkpad, NULL);
  gboolean found = FALSE;

  for (guint i = 0; caps && !gst_caps_is_any (caps) && !found && i < gst_caps_get_size (caps); i++) {
    GstCapsFeatures *features = gst_caps_get_features (caps, i);
    found = features && !gst_caps_features_is_any (features) &&
        gst_caps_features_contains (features, GST_CAPS_FEATURE_MEMORY_VULKAN_IMAGE);
  }
  gst_clear_caps (&caps);
  return found;
}

/* As gst-vulkan's own elements do: whoever comes first makes it, and the others ask. */
static gboolean
find_device (GstInternvlVkFrames *self)
{
  GstVulkanInstance *instance = NULL;
  GstVulkanDevice *device = ref_device (self);
  GError *error = NULL;

  if (device) {
    gst_object_unref (device);
    return TRUE;
  }
  if (gst_vulkan_device_run_context_query (self->element, &device)) {
    set_device (self, device);
    return TRUE;
  }
  g_mutex_lock (&self->lock);
  if (self->instance)
    instance = gst_object_ref (self->instance);
  g_mutex_unlock (&self->lock);
  if (!gst_vulkan_ensure_element_data (self->element, NULL, &instance) ||
      !gst_vulkan_instance_open (instance, &error)) {
    GST_WARNING_OBJECT (self->element, "no Vulkan instance for frames: %s", error ? error->message : "none found");
  } else {
    device = gst_vulkan_instance_create_device (instance, &error);
    if (device && gst_vulkan_device_open (device, &error))
      set_device (self, g_steal_pointer (&device));
    else
      GST_WARNING_OBJECT (self->element, "no Vulkan device for frames: %s", error ? error->message : "none found");
  }
  g_clear_error (&error);
  gst_clear_object (&device);
  gst_clear_object (&instance);
  device = ref_device (self);
  if (!device)
    return FALSE;
  gst_object_unref (device);
  return TRUE;
}

static gboolean
has_flags (GstVulkanQueue *queue, VkQueueFlags flags)
{
  return (queue->device->physical_device->queue_family_props[queue->family].queueFlags & flags) == flags;
}

static gboolean
take_compute_queue (GstVulkanDevice *device, GstVulkanQueue *queue, gpointer found)
{
  if (!has_flags (queue, VK_QUEUE_COMPUTE_BIT))
    return TRUE;
  gst_object_replace (found, GST_OBJECT (queue));
  return FALSE;
}

/* The neighbours' if it can compute. */
static GstVulkanQueue *
find_queue (GstInternvlVkFrames *self, GstVulkanDevice *device)
{
  GstVulkanQueue *queue = NULL;

  if (gst_vulkan_queue_run_context_query (self->element, &queue) &&
      (queue->device != device || !has_flags (queue, VK_QUEUE_COMPUTE_BIT)))
    gst_clear_object (&queue);
  if (!queue)
    gst_vulkan_device_foreach_queue (device, take_compute_queue, &queue);
  g_mutex_lock (&self->lock);
  if (queue && !self->queue && device == self->device && has_flags (queue, VK_QUEUE_GRAPHICS_BIT))
    self->queue = gst_object_ref (queue);
  g_mutex_unlock (&self->lock);
  return queue;
}

static void
lock_queue (gpointer queue)
{
  gst_vulkan_queue_submit_lock (queue);
}

static void
unlock_queue (gpointer queue)
{
  gst_vulkan_queue_submit_unlock (queue);
}

/* The queue has a reference to its device, and that to the instance. */
static void
release_queue (gpointer queue)
{
  gst_object_unref (queue);
}

static IvlDevice *
import_device (GstInternvlVkFrames *self, GstVulkanDevice *device, GError **error)
{
  GstVulkanQueue *queue = find_queue (self, device);

  if (!queue) {
    g_set_error (error, IVL_ERROR, IVL_ERROR_UNSUPPORTED, "the device of gst-vulkan has no queue for compute");
    return NULL;
  }
  IvlDeviceImport import = {
    .instance = device->instance->instance,.physical_device = gst_vulkan_device_get_physical_device (device),
    .device = device->device,.queue = queue->queue,.queue_family = queue->family,
    .lock_queue = lock_queue,.unlock_queue = unlock_queue,.release = release_queue,.data = queue
  };
  IvlDevice *imported = ivl_device_import (&import, error);
  if (!imported)
    gst_object_unref (queue);
  return imported;
}

static IvlDevice *
ref_imported (GstInternvlVkFrames *self, GstVulkanDevice *device, GError **error)
{
  if (!self->imported || self->imported_from != device) {
    g_clear_pointer (&self->imported, ivl_device_unref);
    self->imported_from = device;
    self->imported = import_device (self, device, error);
  }
  return self->imported ? ivl_device_ref (self->imported) : NULL;
}

IvlDevice *
gst_internvl_vk_frames_start (GstInternvlVkFrames *self, GstPad *sinkpad)
{
  g_autoptr (GError) error = NULL;

  self->told = FALSE;
  if (!offers_images (sinkpad) || !find_device (self))
    return NULL;
  GstVulkanDevice *device = ref_device (self);
  IvlDevice *imported = ref_imported (self, device, &error);
  gst_object_unref (device);
  if (!imported)
    GST_WARNING_OBJECT (self->element, "the model can't be on the device of the frames: %s", error->message);
  return imported;
}

/* ---- frames ---- */

gboolean
gst_internvl_vk_frames_has (GstBuffer *buffer)
{
  return gst_buffer_n_memory (buffer) > 0 && gst_is_vulkan_image_memory (gst_buffer_peek_memory (buffer, 0));
}

/* The memory of plane P, and what part of its image that is. */
static GstVulkanImageMemory *
find_plane (GstBuffer *buffer, const IvlPicture *layout, guint p, guint32 *aspect)
{
  gboolean multi = layout->n_planes > 1 && gst_buffer_n_memory (buffer) == 1;
  guint i = multi ? 0 : p;

  if (i >= gst_buffer_n_memory (buffer) || !gst_is_vulkan_image_memory (gst_buffer_peek_memory (buffer, i)))
    return NULL;
  *aspect = multi ? VK_IMAGE_ASPECT_PLANE_0_BIT << p : VK_IMAGE_ASPECT_COLOR_BIT;
  return (GstVulkanImageMemory *) gst_buffer_peek_memory (buffer, i);
}

static gboolean
describe_plane (GstBuffer *buffer, const IvlPicture *layout, guint p, IvlPlaneImage *plane, GError **error)
{
  GstVulkanImageMemory *memory = find_plane (buffer, layout, p, &plane->aspect);

  if (!memory) {
    g_set_error (error, IVL_ERROR, IVL_ERROR_BAD_ARGUMENT, "plane %u of a %ux%u frame is no Vulkan image", p,
        layout->width, layout->height);
    return FALSE;
  }
  plane->image = (guint64) (gsize) memory->image;
  plane->format = memory->create_info.format;
  plane->width = memory->create_info.extent.width;
  plane->height = memory->create_info.extent.height;
  plane->layout = memory->barrier.image_layout;
  plane->queue_family = VK_QUEUE_FAMILY_IGNORED;
#if GST_CHECK_VERSION (1, 24, 0)
  if (memory->barrier.parent.queue && memory->create_info.sharingMode == VK_SHARING_MODE_EXCLUSIVE)
    plane->queue_family = memory->barrier.parent.queue->family;
#if GST_CHECK_VERSION (1, 29, 0)
  plane->semaphore = memory->barrier.parent.semaphore ? (guint64) (gsize) memory->barrier.parent.semaphore->handle : 0;
#else
  plane->semaphore = (guint64) (gsize) memory->barrier.parent.semaphore;
#endif
  plane->wait_value = memory->barrier.parent.semaphore_value;
  plane->signal_value = plane->wait_value + 1;
#endif
  return TRUE;
}

/* Where the images are now, for whoever uses them next. */
static void
update_planes (GstBuffer *buffer, const IvlPicture *layout, const IvlPlaneImage *planes)
{
#if GST_CHECK_VERSION (1, 24, 0)
  for (guint p = 0; p < layout->n_planes; p++) {
    guint32 aspect;
    GstVulkanImageMemory *memory = find_plane (buffer, layout, p, &aspect);

    if (planes[p].semaphore)
      memory->barrier.parent.semaphore_value = planes[p].signal_value;
  }
#endif
}

IvlDevicePicture *
gst_internvl_vk_frames_copy (GstInternvlVkFrames *self, const GstVideoInfo *info, GstBuffer *buffer,
    IvlDevice *model_device, GError **error)
{
  IvlPlaneImage planes[GST_VIDEO_MAX_PLANES] = { 0 };
  IvlPicture layout;

  if (!gst_internvl_describe (info, buffer, &layout, error))
    return NULL;
  for (guint p = 0; p < layout.n_planes; p++)
    if (!describe_plane (buffer, &layout, p, &planes[p], error))
      return NULL;
  GstVulkanDevice *gst_device = ((GstVulkanImageMemory *) gst_buffer_peek_memory (buffer, 0))->device;
  IvlDevice *device = ref_imported (self, gst_device, error);
  if (!device)
    return NULL;
  gboolean readback = device != model_device;
  if (readback && !self->told)
    GST_WARNING_OBJECT (self->element, "the model is on another device than the frames, which go through system memory");
  self->told = self->told || readback;
  IvlDevicePicture *picture = ivl_device_picture_new (device, &layout, planes, readback, error);
  ivl_device_unref (device);
  if (!picture)
    return NULL;
  update_planes (buffer, &layout, planes);
  /* vulkanupload (1.22 and 1.26) writes its next frame to where this one is still being uploaded from, if the device is that
   * much behind: its images hold what they should only if it can't go on until they do. Their semaphores know nothing of
   * that, and whether an upload is behind a frame can't be told. */
  if (!ivl_device_picture_wait (picture, error))
    g_clear_pointer (&picture, ivl_device_picture_unref);
  return picture;
}

#else

struct GstInternvlVkFrames
{
  char nothing;
};

GstInternvlVkFrames *
gst_internvl_vk_frames_new (GstElement *element)
{
  return g_new0 (GstInternvlVkFrames, 1);
}

void
gst_internvl_vk_frames_free (GstInternvlVkFrames *self)
{
  g_free (self);
}

IvlDevice *
gst_internvl_vk_frames_start (GstInternvlVkFrames *self, GstPad *sinkpad)
{
  return NULL;
}

void
gst_internvl_vk_frames_set_context (GstInternvlVkFrames *self, GstContext *context)
{
}

gboolean
gst_internvl_vk_frames_handle_query (GstInternvlVkFrames *self, GstQuery *query)
{
  return FALSE;
}

gboolean
gst_internvl_vk_frames_has (GstBuffer *buffer)
{
  return FALSE;
}

IvlDevicePicture *
gst_internvl_vk_frames_copy (GstInternvlVkFrames *self, const GstVideoInfo *info, GstBuffer *buffer,
    IvlDevice *model_device, GError **error)
{
  g_set_error (error, IVL_ERROR, IVL_ERROR_UNSUPPORTED, "built without vulkan-frames");
  return NULL;
}
#endif
