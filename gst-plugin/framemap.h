/* GstVideoFrame -> IvlPicture.
 *
 * Formats whose components lie at constant strides are described where they are; others (v210, tiles, palettes, bits
 * across bytes) go through the format's own unpack function into 4 samples a pixel first. Both without a conversion of
 * colours: that is the device's work, with the matrix from the colorimetry of the caps.
 */
#pragma once

#include <gst/video/video.h>
#include <internvl/internvl.h>

G_BEGIN_DECLS

typedef struct {
  IvlPicture picture;   /* points into the frame or into unpacked */
  GstVideoFrame frame;
  guint8 *unpacked;
} GstInternvlMapping;

/* TRUE if frames of this format need no unpacking. */
gboolean gst_internvl_format_is_direct (const GstVideoFormatInfo *finfo);

/* What is seen of a frame, in its pixels: its crop meta's rectangle, or all. BUFFER may be NULL. */
GstVideoRectangle gst_internvl_seen_region (GstBuffer *buffer, const GstVideoInfo *info);

/* What is where in a frame of INFO: all of PICTURE but data and stride, with rows of whole pixels. BUFFER for its crop meta.
 * FALSE, with ERROR set, if its components are not at constant strides. */
gboolean gst_internvl_describe (const GstVideoInfo *info, GstBuffer *buffer, IvlPicture *picture, GError **error);

/* Sets row_bytes and rows of plane P of PICTURE, whose components and size are set, to what of it is read. */
void gst_internvl_measure_plane (IvlPicture *picture, guint p);

/* FALSE, with ERROR set, if BUFFER has a video meta that isn't one of such frames. */
gboolean gst_internvl_check_meta (const GstVideoInfo *info, GstBuffer *buffer, GError **error);

/* Maps BUFFER for reading, with its video and crop metas. On failure nothing is held and ERROR is set (IVL_ERROR).
 * Any thread. */
gboolean gst_internvl_map (GstInternvlMapping *mapping, const GstVideoInfo *info, GstBuffer *buffer, GError **error);
void gst_internvl_unmap (GstInternvlMapping *mapping);

G_END_DECLS
