#include "dmaframes.h"

#include "framemap.h"

#ifdef HAVE_DMABUF
#include <gst/allocators/gstdmabuf.h>

#include <sys/stat.h>
#include <unistd.h>
#endif

/* ---- caps ---- */

#if defined HAVE_DMABUF && GST_CHECK_VERSION (1, 24, 0)
#define DRM_LINEAR 0

static void
append_drm_caps (GstCaps *caps)
{
  GstCaps *drm = gst_caps_from_string ("video/x-raw(memory:DMABuf), format=DMA_DRM, width=" GST_VIDEO_SIZE_RANGE
      ", height=" GST_VIDEO_SIZE_RANGE ", framerate=" GST_VIDEO_FPS_RANGE);
  GValue names = G_VALUE_INIT, name = G_VALUE_INIT;
  guint n_formats;
  const GstVideoFormat *formats = gst_video_formats_raw (&n_formats);

  g_value_init (&names, GST_TYPE_LIST);
  g_value_init (&name, G_TYPE_STRING);
  for (guint i = 0; i < n_formats; i++) {
    guint32 fourcc = gst_video_dma_drm_fourcc_from_format (formats[i]);

    if (!fourcc)
      continue;
    g_value_take_string (&name, gst_video_dma_drm_fourcc_to_string (fourcc, DRM_LINEAR));
    gst_value_list_append_value (&names, &name);
  }
  gst_caps_set_value (drm, "drm-format", &names);
  g_value_unset (&name);
  g_value_unset (&names);
  gst_caps_append (caps, drm);
}
#endif

void
gst_internvl_dma_frames_append_caps (GstCaps *caps)
{
#ifdef HAVE_DMABUF
  gst_caps_append (caps, gst_caps_from_string (GST_VIDEO_CAPS_MAKE_WITH_FEATURES ("memory:DMABuf",
              GST_VIDEO_FORMATS_ALL)));
#if GST_CHECK_VERSION (1, 24, 0)
  append_drm_caps (caps);
#endif
#endif
}

gboolean
gst_internvl_dma_frames_parse_caps (GstVideoInfo *info, const GstCaps *caps)
{
#if GST_CHECK_VERSION (1, 24, 0)
  GstVideoInfoDmaDrm drm;

  if (gst_video_is_dma_drm_caps (caps))
    return gst_video_info_dma_drm_from_caps (&drm, caps) && gst_video_info_dma_drm_to_video_info (&drm, info);
#endif
  return gst_video_info_from_caps (info, caps);
}

GstBuffer *
gst_internvl_dma_frames_ref (const GstVideoInfo *info, GstBuffer *buffer)
{
#if GST_CHECK_VERSION (1, 24, 0)
  const GstVideoMeta *meta = gst_buffer_get_video_meta (buffer);

  if (meta && meta->format == GST_VIDEO_FORMAT_DMA_DRM) {
    GstBuffer *copy = gst_buffer_copy (buffer);

    /* Else its pool would have it again. */
    gst_buffer_add_parent_buffer_meta (copy, buffer);
    gst_buffer_get_video_meta (copy)->format = GST_VIDEO_INFO_FORMAT (info);
    return copy;
  }
#endif
  return gst_buffer_ref (buffer);
}

/* ---- frames ---- */

#ifdef HAVE_DMABUF

gboolean
gst_internvl_dma_frames_check (GstBuffer *buffer, GError **error)
{
  for (guint i = 0; i < gst_buffer_n_memory (buffer); i++) {
    GstMemory *memory = gst_buffer_peek_memory (buffer, i);
    struct stat status;

    if (!gst_is_fd_memory (memory))
      continue;
    int fd = gst_fd_memory_get_fd (memory);
    gint64 there = fstat (fd, &status) == 0 && S_ISREG (status.st_mode) ? status.st_size : lseek (fd, 0, SEEK_END);
    gsize offset, size = gst_memory_get_sizes (memory, &offset, NULL);
    /* What doesn't tell its size is no file, and can't be mapped beyond its end. */
    if (there >= 0 && (offset > (guint64) there || size > (guint64) there - offset)) {
      g_set_error (error, IVL_ERROR, IVL_ERROR_BAD_ARGUMENT,
          "a frame's memory says that it is bytes %" G_GSIZE_FORMAT " + %" G_GSIZE_FORMAT " of a file that has %"
          G_GINT64_FORMAT, offset, size, there);
      return FALSE;
    }
  }
  return TRUE;
}

gboolean
gst_internvl_dma_frames_has (GstBuffer *buffer)
{
  return gst_buffer_n_memory (buffer) > 0 && gst_is_dmabuf_memory (gst_buffer_peek_memory (buffer, 0));
}

/* Where the rows of plane P are, of which LAYOUT says how many there are. */
static gboolean
find_plane (const GstVideoInfo *info, GstBuffer *buffer, const IvlPicture *layout, guint p, IvlPlaneDmabuf *plane,
    GError **error)
{
  const GstVideoMeta *meta = gst_buffer_get_video_meta (buffer);
  gsize row_bytes = layout->planes[p].row_bytes, total = gst_buffer_get_size (buffer);
  gsize begin = meta ? meta->offset[p] : GST_VIDEO_INFO_PLANE_OFFSET (info, p);
  gint stride = meta ? meta->stride[p] : GST_VIDEO_INFO_PLANE_STRIDE (info, p);
  gint64 reach = (gint64) (layout->planes[p].rows - 1) * stride;
  gint64 lowest = (gint64) begin + MIN (reach, 0), highest = (gint64) begin + MAX (reach, 0);
  guint index, n;
  gsize skip, offset;

  if (begin > total || lowest < 0 || row_bytes > total || (guint64) highest > total - row_bytes) {
    g_set_error (error, IVL_ERROR, IVL_ERROR_BAD_ARGUMENT, "plane %u of a %ux%u %s frame reaches outside of its buffer",
        p, layout->width, layout->height, GST_VIDEO_INFO_NAME (info));
    return FALSE;
  }
  if (!gst_buffer_find_memory (buffer, lowest, highest - lowest + row_bytes, &index, &n, &skip) || n != 1 ||
      !gst_is_dmabuf_memory (gst_buffer_peek_memory (buffer, index))) {
    g_set_error (error, IVL_ERROR, IVL_ERROR_UNSUPPORTED, "plane %u of a %ux%u %s frame isn't in one DMABuf", p,
        layout->width, layout->height, GST_VIDEO_INFO_NAME (info));
    return FALSE;
  }
  GstMemory *memory = gst_buffer_peek_memory (buffer, index);
  gst_memory_get_sizes (memory, &offset, NULL);
  plane->fd = gst_dmabuf_memory_get_fd (memory);
  plane->offset = offset + skip + (begin - lowest);
  plane->stride = stride;
  return TRUE;
}

IvlDevicePicture *
gst_internvl_dma_frames_copy (const GstVideoInfo *info, GstBuffer *buffer, IvlDevice *device, GError **error)
{
  const GstVideoMeta *meta = gst_buffer_get_video_meta (buffer);
  IvlPlaneDmabuf planes[GST_VIDEO_MAX_PLANES] = { 0 };
  GstVideoInfo whole = *info;
  IvlPicture layout;

  if (!gst_internvl_check_meta (info, buffer, error))
    return NULL;
  /* As gst_video_frame_map has it. */
  if (meta) {
    GST_VIDEO_INFO_WIDTH (&whole) = meta->width;
    GST_VIDEO_INFO_HEIGHT (&whole) = meta->height;
  }
  if (!gst_internvl_describe (&whole, buffer, &layout, error))
    return NULL;
  for (guint p = 0; p < layout.n_planes; p++) {
    gst_internvl_measure_plane (&layout, p);
    if (layout.planes[p].rows && !find_plane (info, buffer, &layout, p, &planes[p], error))
      return NULL;
  }
  return ivl_device_picture_new_from_dmabuf (device, &layout, planes, FALSE, error);
}

#else

gboolean
gst_internvl_dma_frames_check (GstBuffer *buffer, GError **error)
{
  return TRUE;
}

gboolean
gst_internvl_dma_frames_has (GstBuffer *buffer)
{
  return FALSE;
}

IvlDevicePicture *
gst_internvl_dma_frames_copy (const GstVideoInfo *info, GstBuffer *buffer, IvlDevice *device, GError **error)
{
  g_set_error (error, IVL_ERROR, IVL_ERROR_UNSUPPORTED, "built without dmabuf");
  return NULL;
}
#endif
