/* Video in DMABufs: the caps of it, and copies that the device makes from where the frames are. Also of frames that come in
 * DMABufs under the caps of system memory, as some sources have it.
 *
 * Built with the Meson feature dmabuf; without it, such frames are mapped like all others.
 */
#pragma once

#include <gst/video/video.h>
#include <internvl/internvl.h>

G_BEGIN_DECLS

/* Appends to CAPS those in memory:DMABuf: by the format's own name and, since GStreamer 1.24, by DRM's. Both are of linear
 * frames: tiled ones neither device nor host would understand. */
void gst_internvl_dma_frames_append_caps (GstCaps *caps);

/* gst_video_info_from_caps that also understands format=DMA_DRM, if linear. */
gboolean gst_internvl_dma_frames_parse_caps (GstVideoInfo *info, const GstCaps *caps);

/* A reference to BUFFER of INFO; or a copy of it over the same memory, if its meta leaves the format to DRM. */
GstBuffer *gst_internvl_dma_frames_ref (const GstVideoInfo *info, GstBuffer *buffer);

/* FALSE, with ERROR set, if a memory of BUFFER says that it has more than its file: reading that would be fatal. */
gboolean gst_internvl_dma_frames_check (GstBuffer *buffer, GError **error);

gboolean gst_internvl_dma_frames_has (GstBuffer *buffer);
/* Has DEVICE copy the frame in BUFFER, which must stay until that is done. Any thread; may wait for whoever writes the frame.
 * IVL_ERROR_UNSUPPORTED: it is to be mapped. */
IvlDevicePicture *gst_internvl_dma_frames_copy (const GstVideoInfo *info, GstBuffer *buffer, IvlDevice *device,
    GError **error);

G_END_DECLS
