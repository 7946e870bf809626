/* Video in memory:VulkanImage, as gst-vulkan has it: the GstVulkanInstance and GstVulkanDevice that an element shares with
 * its neighbours, the engine on that device, and copies of frames for it.
 *
 * Built with the Meson feature vulkan-frames; without it, start finds nothing and such caps are not offered.
 */
#pragma once

#include <gst/video/video.h>
#include <internvl/internvl.h>

G_BEGIN_DECLS

#ifdef HAVE_VULKAN_FRAMES
/* What the engine reads of these: formats whose planes are images of one texel a sample. */
#define GST_INTERNVL_VK_CAPS "; video/x-raw(memory:VulkanImage), format=(string){ NV12, RGBA, BGRA, RGBx, BGRx, ARGB, ABGR, " \
  "xRGB, xBGR, RGB, BGR, I420, YV12, Y42B, Y444, P010_10LE, GRAY8 }, width=" GST_VIDEO_SIZE_RANGE ", height=" \
  GST_VIDEO_SIZE_RANGE ", framerate=" GST_VIDEO_FPS_RANGE
#else
#define GST_INTERNVL_VK_CAPS ""
#endif

typedef struct GstInternvlVkFrames GstInternvlVkFrames;

/* ELEMENT is borrowed. */
GstInternvlVkFrames *gst_internvl_vk_frames_new (GstElement *element);
void gst_internvl_vk_frames_free (GstInternvlVkFrames *frames);

/* Before the stream: if who is linked to SINKPAD may send Vulkan images, finds the device of the neighbours or else makes one
 * for them, and returns the engine's on it. NULL: none wanted, or none there, which is logged. */
IvlDevice *gst_internvl_vk_frames_start (GstInternvlVkFrames *frames, GstPad *sinkpad);

/* From the element's functions of these names, any thread. TRUE: QUERY is answered. */
void gst_internvl_vk_frames_set_context (GstInternvlVkFrames *frames, GstContext *context);
gboolean gst_internvl_vk_frames_handle_query (GstInternvlVkFrames *frames, GstQuery *query);

gboolean gst_internvl_vk_frames_has (GstBuffer *buffer);
/* Copies what is in BUFFER, of Vulkan images; on the streaming thread, before anybody behind has BUFFER, which must stay
 * until the copy is done. MODEL_DEVICE: as start returned it, or NULL: then, or if the images are on another device, the copy is
 * for reading back, which is logged once. */
IvlDevicePicture *gst_internvl_vk_frames_copy (GstInternvlVkFrames *frames, const GstVideoInfo *info, GstBuffer *buffer,
    IvlDevice *model_device, GError **error);

G_END_DECLS
