#include "framemap.h"

#include <string.h>

/* Where component C of a pixel is, in the words of IvlPicture. FALSE if they have none for it. */
static gboolean
describe_component (const GstVideoFormatInfo *finfo, guint c, IvlPicture *picture, guint slot)
{
  guint offset = GST_VIDEO_FORMAT_INFO_POFFSET (finfo, c);
  guint shift = GST_VIDEO_FORMAT_INFO_SHIFT (finfo, c);
  guint depth = GST_VIDEO_FORMAT_INFO_DEPTH (finfo, c);
  gint pixel_stride = GST_VIDEO_FORMAT_INFO_PSTRIDE (finfo, c);
  gboolean little = GST_VIDEO_FORMAT_INFO_IS_LE (finfo);
  /* Samples of 9 bits and more, and those that share a word, are read as 16 bits. */
  gboolean wide = GST_VIDEO_FORMAT_INFO_BITS (finfo) > 8 || shift + depth > 8;

  if (depth == 0 || depth > 16 || pixel_stride <= 0 || pixel_stride > 255)
    return FALSE;
  /* In a word of more than 16 bits: the two bytes that the sample is in. */
  while (wide && little && shift + depth > 16 && shift >= 8) {
    offset++;
    shift -= 8;
  }
  /* GStreamer 1.22 has the V of P010, P012 and P016 one byte behind U. */
  if (wide && offset % 2 == 1 && pixel_stride == 4 && shift + depth == 16)
    offset++;
  if (shift + depth > 16 || offset > 255)
    return FALSE;

  picture->components[slot].plane = GST_VIDEO_FORMAT_INFO_PLANE (finfo, c);
  picture->components[slot].pixel_stride = pixel_stride;
  picture->components[slot].offset = offset;
  picture->components[slot].bytes = wide ? 2 : 1;
  picture->components[slot].big_endian = wide && !little;
  picture->components[slot].shift = shift;
  picture->components[slot].depth = depth;
  picture->components[slot].w_sub = GST_VIDEO_FORMAT_INFO_W_SUB (finfo, c);
  picture->components[slot].h_sub = GST_VIDEO_FORMAT_INFO_H_SUB (finfo, c);
  return TRUE;
}

static gboolean
describe_components (const GstVideoFormatInfo *finfo, IvlPicture *picture)
{
  gboolean gray = GST_VIDEO_FORMAT_INFO_IS_GRAY (finfo);

  if (GST_VIDEO_FORMAT_INFO_FLAGS (finfo) &
      (GST_VIDEO_FORMAT_FLAG_COMPLEX | GST_VIDEO_FORMAT_FLAG_TILED | GST_VIDEO_FORMAT_FLAG_PALETTE))
    return FALSE;
  if (!gray && GST_VIDEO_FORMAT_INFO_N_COMPONENTS (finfo) < 3)
    return FALSE;
  for (guint i = 0; i < 3; i++)
    if (!describe_component (finfo, gray ? 0 : i, picture, i))
      return FALSE;
  return TRUE;
}

static guint
read_sample (const IvlPicture *picture, guint c, const guint8 *plane, gint stride, guint x, guint y)
{
  const guint8 *p = plane + (y >> picture->components[c].h_sub) * stride +
      (x >> picture->components[c].w_sub) * picture->components[c].pixel_stride + picture->components[c].offset;
  guint raw = picture->components[c].bytes == 1 ? p[0] : picture->components[c].big_endian ? GST_READ_UINT16_BE (p) :
      GST_READ_UINT16_LE (p);

  return (raw >> picture->components[c].shift) & ((1u << picture->components[c].depth) - 1);
}

/* Reads a frame of noise both ways, as described and with the unpack function. */
static gboolean
description_holds (const GstVideoFormatInfo *finfo)
{
  enum { WIDTH = 16, HEIGHT = 8 };
  const GstVideoFormatInfo *to = gst_video_format_get_info (finfo->unpack_format);
  IvlPicture from_picture, to_picture;
  guint64 row[WIDTH];
  GstVideoInfo info;
  gpointer data[GST_VIDEO_MAX_PLANES];
  guint32 noise = 1;
  gboolean holds = TRUE;

  if (!finfo->unpack_func || !to || !describe_components (finfo, &from_picture) ||
      !describe_components (to, &to_picture) ||
      !gst_video_info_set_format (&info, GST_VIDEO_FORMAT_INFO_FORMAT (finfo), WIDTH, HEIGHT))
    return FALSE;
  g_autofree guint8 *bytes = g_malloc (GST_VIDEO_INFO_SIZE (&info));
  for (gsize i = 0; i < GST_VIDEO_INFO_SIZE (&info); i++)
    bytes[i] = (noise = noise * 1664525 + 1013904223) >> 24;
  for (guint p = 0; p < GST_VIDEO_INFO_N_PLANES (&info); p++)
    data[p] = bytes + GST_VIDEO_INFO_PLANE_OFFSET (&info, p);

  for (guint y = 0; y < HEIGHT && holds; y++) {
    finfo->unpack_func (finfo, GST_VIDEO_PACK_FLAG_NONE, row, data, info.stride, 0, y, WIDTH);
    for (guint x = 0; x < WIDTH; x++)
      for (guint c = 0; c < (GST_VIDEO_FORMAT_INFO_IS_GRAY (finfo) ? 1 : 3); c++) {
        guint plane = from_picture.components[c].plane;
        gint widened = to_picture.components[c].depth - from_picture.components[c].depth;
        guint ours = read_sample (&from_picture, c, data[plane], info.stride[plane], x, y);
        guint theirs = read_sample (&to_picture, c, (guint8 *) row, 0, x, 0);

        holds = holds && widened >= 0 && theirs >> widened == ours;
      }
  }
  return holds;
}

/* Some formats' descriptions say less than it takes, or are wrong (in GStreamer 1.22 Y210, Y410, Y412, v216, VYUY,
 * r210, RGB10A2): each is tried once before it is relied on. */
gboolean
gst_internvl_format_is_direct (const GstVideoFormatInfo *finfo)
{
  enum { UNKNOWN, DIRECT, UNPACKED };
  static gint known[512];
  guint format = GST_VIDEO_FORMAT_INFO_FORMAT (finfo);
  gint kind = format < G_N_ELEMENTS (known) ? g_atomic_int_get (&known[format]) : UNKNOWN;

  if (kind == UNKNOWN) {
    kind = description_holds (finfo) ? DIRECT : UNPACKED;
    if (format < G_N_ELEMENTS (known))
      g_atomic_int_set (&known[format], kind);
  }
  return kind == DIRECT;
}

/* Samples of FINFO (as value / max) to R'G'B' 0..1. */
static void
set_matrix (IvlPicture *picture, const GstVideoFormatInfo *finfo, const GstVideoColorimetry *colorimetry)
{
  gboolean rgb = GST_VIDEO_FORMAT_INFO_IS_RGB (finfo), gray = GST_VIDEO_FORMAT_INFO_IS_GRAY (finfo);
  GstVideoColorRange range = colorimetry->range;
  gint offset[GST_VIDEO_MAX_COMPONENTS], scale[GST_VIDEO_MAX_COMPONENTS];
  double rows[3][3] = { {1, 0, 0}, {0, 1, 0}, {0, 0, 1} };

  if (range == GST_VIDEO_COLOR_RANGE_UNKNOWN)
    range = rgb || gray ? GST_VIDEO_COLOR_RANGE_0_255 : GST_VIDEO_COLOR_RANGE_16_235;
  gst_video_color_range_offsets (range, finfo, offset, scale);

  if (!rgb && !gray) {
    double kr, kb;

    if (!gst_video_color_matrix_get_Kr_Kb (colorimetry->matrix, &kr, &kb))
      gst_video_color_matrix_get_Kr_Kb (GST_VIDEO_COLOR_MATRIX_BT601, &kr, &kb);
    const double kg = 1 - kr - kb;
    const double yuv[3][3] = {
      {1, 0, 2 * (1 - kr)},
      {1, -2 * (1 - kb) * kb / kg, -2 * (1 - kr) * kr / kg},
      {1, 2 * (1 - kb), 0},
    };
    memcpy (rows, yuv, sizeof rows);
  }

  for (guint i = 0; i < 3; i++) {
    double constant = 0;

    for (guint j = 0; j < 3; j++) {
      guint c = gray ? 0 : j;
      double max = (1 << picture->components[j].depth) - 1;

      picture->matrix[i][j] = rows[i][j] * max / scale[c];
      constant -= rows[i][j] * offset[c] / scale[c];
    }
    picture->matrix[i][3] = constant;
  }
}

void
gst_internvl_measure_plane (IvlPicture *picture, guint p)
{
  picture->planes[p].row_bytes = 0;
  picture->planes[p].rows = 0;
  for (guint i = 0; i < 3; i++) {
    if (picture->components[i].plane != p)
      continue;
    gsize columns = GST_VIDEO_SUB_SCALE (picture->components[i].w_sub, picture->width);
    guint lines = GST_VIDEO_SUB_SCALE (picture->components[i].h_sub, picture->height);

    picture->planes[p].row_bytes = MAX (picture->planes[p].row_bytes, (columns - 1) * picture->components[i].pixel_stride +
        picture->components[i].offset + picture->components[i].bytes);
    picture->planes[p].rows = MAX (picture->planes[p].rows, lines);
  }
}

/* The bytes that the components read from plane P must be inside of what was mapped: strides and offsets come from
 * metas, which anyone may write. */
static gboolean
set_plane (GstInternvlMapping *mapping, guint p, GError **error)
{
  const GstVideoFrame *frame = &mapping->frame;
  IvlPicture *picture = &mapping->picture;
  const GstMapInfo *map = &frame->map[frame->meta ? p : 0];
  const guint8 *data = GST_VIDEO_FRAME_PLANE_DATA (frame, p);
  gssize stride = GST_VIDEO_FRAME_PLANE_STRIDE (frame, p);

  gst_internvl_measure_plane (picture, p);
  gsize row_bytes = picture->planes[p].row_bytes;
  guint rows = picture->planes[p].rows;
  if (rows > 0) {
    gint64 first = data - map->data, last = first + (gint64) (rows - 1) * stride;

    if (!data || !map->data || MIN (first, last) < 0 || MAX (first, last) + (gint64) row_bytes > (gint64) map->size) {
      g_set_error (error, IVL_ERROR, IVL_ERROR_BAD_ARGUMENT,
          "plane %u of a %ux%u %s frame reaches outside of its buffer", p, picture->width, picture->height,
          GST_VIDEO_FORMAT_INFO_NAME (frame->info.finfo));
      return FALSE;
    }
  }
  picture->planes[p].data = data;
  picture->planes[p].stride = stride;
  return TRUE;
}

static gboolean
unpack (GstInternvlMapping *mapping, GError **error)
{
  GstVideoFrame *frame = &mapping->frame;
  IvlPicture *picture = &mapping->picture;
  const GstVideoFormatInfo *finfo = frame->info.finfo, *to;
  GstVideoPackFlags flags = GST_VIDEO_PACK_FLAG_NONE;

  if (!finfo->unpack_func || !(to = gst_video_format_get_info (finfo->unpack_format)) ||
      !describe_components (to, picture)) {
    g_set_error (error, IVL_ERROR, IVL_ERROR_UNSUPPORTED,
        "video format %s can't be read; put videoconvert in front", GST_VIDEO_FORMAT_INFO_NAME (finfo));
    return FALSE;
  }
  if (GST_VIDEO_FRAME_IS_INTERLACED (frame))
    flags |= GST_VIDEO_PACK_FLAG_INTERLACED;

  /* Whole tiles: the unpack functions of MT2110T and MT2110R leave out those that the picture ends in. */
  guint columns = picture->width, tile = GST_VIDEO_FORMAT_INFO_IS_TILED (finfo) ?
      GST_VIDEO_FORMAT_INFO_TILE_WIDTH (finfo, 0) : 0;
  if (tile > 0)
    columns = (columns + tile - 1) / tile * tile;
  gsize stride = (gsize) columns * GST_VIDEO_FORMAT_INFO_PSTRIDE (to, 0);
  if (!(mapping->unpacked = g_try_malloc_n (picture->height, stride))) {
    g_set_error (error, IVL_ERROR, IVL_ERROR_OUT_OF_MEMORY, "no memory for a %ux%u frame", picture->width,
        picture->height);
    return FALSE;
  }
  for (guint y = 0; y < picture->height; y++)
    finfo->unpack_func (finfo, flags, mapping->unpacked + y * stride, frame->data, frame->info.stride, 0, y,
        columns);

  picture->n_planes = 1;
  picture->planes[0].data = mapping->unpacked;
  picture->planes[0].stride = stride;
  picture->planes[0].row_bytes = stride;
  picture->planes[0].rows = picture->height;
  /* Palettes unpack to RGB whatever the flags of the format say. */
  set_matrix (picture, to, &frame->info.colorimetry);
  return TRUE;
}

/* As set_plane for what an unpack function may read, which is whole rows, and in tiles whole tiles. */
static gboolean
check_planes (const GstVideoFrame *frame, GError **error)
{
  const GstVideoInfo *info = &frame->info;
  GstVideoInfo plain;

  gst_video_info_set_format (&plain, GST_VIDEO_INFO_FORMAT (info), GST_VIDEO_INFO_WIDTH (info),
      GST_VIDEO_INFO_HEIGHT (info));
  for (guint p = 0; p < GST_VIDEO_INFO_N_PLANES (info); p++) {
    const GstMapInfo *map = &frame->map[frame->meta ? p : 0];
    gint64 stride = GST_VIDEO_INFO_PLANE_STRIDE (info, p), plain_stride = GST_VIDEO_INFO_PLANE_STRIDE (&plain, p);
    gint64 end = p + 1 < GST_VIDEO_INFO_N_PLANES (info) ? GST_VIDEO_INFO_PLANE_OFFSET (&plain, p + 1) :
        GST_VIDEO_INFO_SIZE (&plain);
    gint64 bytes = end - GST_VIDEO_INFO_PLANE_OFFSET (&plain, p);
    gint64 first = (const guint8 *) frame->data[p] - map->data, last = first;
    gboolean enough = TRUE;

    if (GST_VIDEO_FORMAT_INFO_IS_TILED (info->finfo)) {
      enough = GST_VIDEO_TILE_X_TILES (stride) >= GST_VIDEO_TILE_X_TILES (plain_stride) &&
          GST_VIDEO_TILE_Y_TILES (stride) >= GST_VIDEO_TILE_Y_TILES (plain_stride);
      bytes = bytes * GST_VIDEO_TILE_X_TILES (stride) * GST_VIDEO_TILE_Y_TILES (stride) /
          MAX (GST_VIDEO_TILE_X_TILES (plain_stride) * GST_VIDEO_TILE_Y_TILES (plain_stride), 1);
    } else if (plain_stride > 0) {
      last = first + (bytes / plain_stride - 1) * stride;
      bytes = plain_stride;
    }
    if (!enough || !frame->data[p] || !map->data || MIN (first, last) < 0 ||
        MAX (first, last) + bytes > (gint64) map->size) {
      g_set_error (error, IVL_ERROR, IVL_ERROR_BAD_ARGUMENT,
          "plane %u of a %dx%d %s frame reaches outside of its buffer", p, GST_VIDEO_INFO_WIDTH (info),
          GST_VIDEO_INFO_HEIGHT (info), GST_VIDEO_INFO_NAME (info));
      return FALSE;
    }
  }
  return TRUE;
}

GstVideoRectangle
gst_internvl_seen_region (GstBuffer *buffer, const GstVideoInfo *info)
{
  const GstVideoCropMeta *crop = buffer ? gst_buffer_get_video_crop_meta (buffer) : NULL;
  guint width = GST_VIDEO_INFO_WIDTH (info), height = GST_VIDEO_INFO_HEIGHT (info);

  if (!crop || crop->x >= width || crop->y >= height || !crop->width || !crop->height)
    return (GstVideoRectangle) { 0, 0, width, height };
  return (GstVideoRectangle) { crop->x, crop->y, MIN (crop->width, width - crop->x),
    MIN (crop->height, height - crop->y)};
}

static void
set_crop (IvlPicture *picture, const GstVideoInfo *info, GstBuffer *buffer)
{
  GstVideoRectangle region = gst_internvl_seen_region (buffer, info);

  if (region.w == (gint) picture->width && region.h == (gint) picture->height)
    return;
  picture->crop_x = region.x;
  picture->crop_y = region.y;
  picture->crop_width = region.w;
  picture->crop_height = region.h;
}

/* What GstVideoFrame takes for granted. */
gboolean
gst_internvl_check_meta (const GstVideoInfo *info, GstBuffer *buffer, GError **error)
{
  const GstVideoMeta *meta = gst_buffer_get_video_meta (buffer);

  if (!meta || (meta->format == GST_VIDEO_INFO_FORMAT (info) && meta->n_planes == GST_VIDEO_INFO_N_PLANES (info) &&
          meta->width >= (guint) GST_VIDEO_INFO_WIDTH (info) && meta->height >= (guint) GST_VIDEO_INFO_HEIGHT (info)))
    return TRUE;
  g_set_error (error, IVL_ERROR, IVL_ERROR_BAD_ARGUMENT,
      "a frame's meta says %ux%u %s in %u planes, its caps %dx%d %s in %u", meta->width, meta->height,
      gst_video_format_to_string (meta->format), meta->n_planes, GST_VIDEO_INFO_WIDTH (info),
      GST_VIDEO_INFO_HEIGHT (info), GST_VIDEO_INFO_NAME (info), GST_VIDEO_INFO_N_PLANES (info));
  return FALSE;
}

gboolean
gst_internvl_describe (const GstVideoInfo *info, GstBuffer *buffer, IvlPicture *picture, GError **error)
{
  memset (picture, 0, sizeof *picture);
  if (!gst_internvl_format_is_direct (info->finfo) || !describe_components (info->finfo, picture)) {
    g_set_error (error, IVL_ERROR, IVL_ERROR_UNSUPPORTED, "%s frames can't be read on the device",
        GST_VIDEO_INFO_NAME (info));
    return FALSE;
  }
  picture->width = GST_VIDEO_INFO_WIDTH (info);
  picture->height = GST_VIDEO_INFO_HEIGHT (info);
  picture->n_planes = GST_VIDEO_INFO_N_PLANES (info);
  set_matrix (picture, info->finfo, &info->colorimetry);
  for (guint i = 0; i < 3; i++) {
    guint p = picture->components[i].plane;
    gsize columns = GST_VIDEO_SUB_SCALE (picture->components[i].w_sub, picture->width);
    guint rows = GST_VIDEO_SUB_SCALE (picture->components[i].h_sub, picture->height);

    picture->planes[p].row_bytes = columns * picture->components[i].pixel_stride;
    picture->planes[p].rows = rows;
  }
  set_crop (picture, info, buffer);
  return TRUE;
}

gboolean
gst_internvl_map (GstInternvlMapping *mapping, const GstVideoInfo *info, GstBuffer *buffer, GError **error)
{
  IvlPicture *picture = &mapping->picture;
  gboolean ok = TRUE;

  memset (mapping, 0, sizeof *mapping);
  if (!gst_internvl_check_meta (info, buffer, error))
    return FALSE;
  if (!gst_video_frame_map (&mapping->frame, info, buffer, GST_MAP_READ)) {
    g_set_error (error, IVL_ERROR, IVL_ERROR_BAD_ARGUMENT,
        "a buffer of %" G_GSIZE_FORMAT " bytes doesn't hold the %dx%d %s frame of its caps",
        gst_buffer_get_size (buffer), GST_VIDEO_INFO_WIDTH (info), GST_VIDEO_INFO_HEIGHT (info),
        GST_VIDEO_INFO_NAME (info));
    memset (mapping, 0, sizeof *mapping);
    return FALSE;
  }

  picture->width = GST_VIDEO_FRAME_WIDTH (&mapping->frame);
  picture->height = GST_VIDEO_FRAME_HEIGHT (&mapping->frame);
  if (gst_internvl_format_is_direct (mapping->frame.info.finfo) &&
      describe_components (mapping->frame.info.finfo, picture)) {
    picture->n_planes = GST_VIDEO_FRAME_N_PLANES (&mapping->frame);
    set_matrix (picture, mapping->frame.info.finfo, &mapping->frame.info.colorimetry);
    for (guint p = 0; ok && p < picture->n_planes; p++)
      ok = set_plane (mapping, p, error);
  } else {
    ok = check_planes (&mapping->frame, error) && unpack (mapping, error);
  }
  if (ok)
    set_crop (picture, &mapping->frame.info, buffer);
  else
    gst_internvl_unmap (mapping);
  return ok;
}

void
gst_internvl_unmap (GstInternvlMapping *mapping)
{
  if (mapping->frame.buffer)
    gst_video_frame_unmap (&mapping->frame);
  g_free (mapping->unpacked);
  memset (mapping, 0, sizeof *mapping);
}
