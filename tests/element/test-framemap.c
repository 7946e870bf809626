/* GstVideoFrame -> IvlPicture for every format that GstVideo has, against GstVideoConverter. */
#include "fake-engine.h"
#include "framemap.h"

#include <math.h>
#include <string.h>

/* Levels of 255. The converter works in 16 bits and widens shorter samples by repeating their bits: a limited-range
 * white of 235 becomes 235 * 257 rather than 235 * 256, which is 0.4 % of 1.16 times the range, and 2.1 times that
 * where chroma adds to it. */
#define TOLERANCE 2.6

static const struct
{
  guint width, height;
} sizes[] = { {32, 16}, {33, 17}, {1, 1}, {2, 3}, {97, 5} };

static GstBuffer *
random_buffer (const GstVideoInfo *info)
{
  GstBuffer *buffer = gst_buffer_new_allocate (NULL, GST_VIDEO_INFO_SIZE (info), NULL);
  GstMapInfo map;

  gst_buffer_map (buffer, &map, GST_MAP_WRITE);
  for (gsize i = 0; i < map.size; i++)
    map.data[i] = g_test_rand_int ();
  gst_buffer_unmap (buffer, &map);
  return buffer;
}

/* BUFFER as ARGB64, samples in native order. Of these two formats the converter leaves out the tiles that the picture ends
 * in: it is told that they are whole. */
static GstBuffer *
convert (const GstVideoInfo *of, GstBuffer *buffer, GstVideoInfo *out_info)
{
  GstVideoFrame in, out;
  GstVideoInfo whole = *of;
  const GstVideoInfo *info = &whole;

#if GST_CHECK_VERSION(1, 24, 0)
  if (GST_VIDEO_INFO_FORMAT (of) == GST_VIDEO_FORMAT_MT2110T || GST_VIDEO_INFO_FORMAT (of) == GST_VIDEO_FORMAT_MT2110R)
    whole.width = GST_ROUND_UP_16 (whole.width);
#endif
  gst_video_info_set_format (out_info, GST_VIDEO_FORMAT_ARGB64, GST_VIDEO_INFO_WIDTH (info),
      GST_VIDEO_INFO_HEIGHT (info));
  GstBuffer *result = gst_buffer_new_allocate (NULL, GST_VIDEO_INFO_SIZE (out_info), NULL);
  GstStructure *options = gst_structure_new ("options",
      GST_VIDEO_CONVERTER_OPT_DITHER_METHOD, GST_TYPE_VIDEO_DITHER_METHOD, GST_VIDEO_DITHER_NONE,
      GST_VIDEO_CONVERTER_OPT_CHROMA_MODE, GST_TYPE_VIDEO_CHROMA_MODE, GST_VIDEO_CHROMA_MODE_NONE, NULL);
  GstVideoConverter *converter = gst_video_converter_new (info, out_info, options);
  g_assert_nonnull (converter);
  g_assert_true (gst_video_frame_map (&in, info, buffer, GST_MAP_READ));
  g_assert_true (gst_video_frame_map (&out, out_info, result, GST_MAP_WRITE));
  gst_video_converter_frame (converter, &in, &out);
  gst_video_frame_unmap (&in);
  gst_video_frame_unmap (&out);
  gst_video_converter_free (converter);
  return result;
}

static void
compare (const GstVideoInfo *info, GstBuffer *buffer)
{
  GstInternvlMapping mapping;
  g_autoptr (GError) error = NULL;
  GstVideoInfo out_info;
  GstVideoFrame frame;

  gst_internvl_map (&mapping, info, buffer, &error);
  g_assert_no_error (error);
  GstBuffer *expected = convert (info, buffer, &out_info);
  g_assert_true (gst_video_frame_map (&frame, &out_info, expected, GST_MAP_READ));
  for (guint y = 0; y < mapping.picture.height; y++) {
    const guint16 *row = (const guint16 *) ((guint8 *) GST_VIDEO_FRAME_PLANE_DATA (&frame, 0) +
        y * GST_VIDEO_FRAME_PLANE_STRIDE (&frame, 0));
    for (guint x = 0; x < mapping.picture.width; x++) {
      double rgb[3];

      fake_picture_sample (&mapping.picture, x, y, rgb);
      for (guint c = 0; c < 3; c++)
        if (fabs (rgb[c] - row[4 * x + 1 + c] / 257.0) > TOLERANCE)
          g_error ("%s %ux%u %s: pixel %u,%u component %u is %.2f, expected %.2f", GST_VIDEO_INFO_NAME (info),
              mapping.picture.width, mapping.picture.height,
              gst_internvl_format_is_direct (info->finfo) ? "direct" : "unpacked", x, y, c, rgb[c],
              row[4 * x + 1 + c] / 257.0);
    }
  }
  gst_video_frame_unmap (&frame);
  gst_buffer_unref (expected);
  gst_internvl_unmap (&mapping);
}

static void
test_format (gconstpointer data)
{
  GstVideoFormat format = GPOINTER_TO_INT (data);

  for (guint i = 0; i < G_N_ELEMENTS (sizes); i++) {
    GstVideoInfo info;

    /* GStreamer's converter disagrees with its own unpack function there. */
    if (format == GST_VIDEO_FORMAT_VYUY && sizes[i].width % 2)
      continue;
    g_assert_true (gst_video_info_set_format (&info, format, sizes[i].width, sizes[i].height));
    GstBuffer *buffer = random_buffer (&info);
    compare (&info, buffer);
    if (GST_VIDEO_INFO_IS_YUV (&info)) {
      gst_video_colorimetry_from_string (&info.colorimetry, GST_VIDEO_COLORIMETRY_BT709);
      compare (&info, buffer);
      info.colorimetry.range = GST_VIDEO_COLOR_RANGE_0_255;
      compare (&info, buffer);
      gst_video_colorimetry_from_string (&info.colorimetry, GST_VIDEO_COLORIMETRY_BT2020);
      compare (&info, buffer);
    }
    gst_buffer_unref (buffer);
  }
}

/* What the unpack path costs should stay for those that need it. */
static void
test_common_are_direct (void)
{
  const GstVideoFormat formats[] = {
    GST_VIDEO_FORMAT_I420, GST_VIDEO_FORMAT_NV12, GST_VIDEO_FORMAT_NV21, GST_VIDEO_FORMAT_YUY2,
    GST_VIDEO_FORMAT_UYVY, GST_VIDEO_FORMAT_RGB, GST_VIDEO_FORMAT_BGR, GST_VIDEO_FORMAT_RGBA, GST_VIDEO_FORMAT_BGRx,
    GST_VIDEO_FORMAT_P010_10LE, GST_VIDEO_FORMAT_I420_10LE, GST_VIDEO_FORMAT_I420_10BE, GST_VIDEO_FORMAT_RGB16,
    GST_VIDEO_FORMAT_GRAY8, GST_VIDEO_FORMAT_GRAY16_LE, GST_VIDEO_FORMAT_Y444, GST_VIDEO_FORMAT_AYUV,
    GST_VIDEO_FORMAT_GBR, GST_VIDEO_FORMAT_Y41B, GST_VIDEO_FORMAT_YUV9,
  };

  for (guint i = 0; i < G_N_ELEMENTS (formats); i++)
    if (!gst_internvl_format_is_direct (gst_video_format_get_info (formats[i])))
      g_error ("%s is unpacked", gst_video_format_to_string (formats[i]));
}

static void
test_crop (void)
{
  GstVideoInfo info;
  GstInternvlMapping mapping;

  gst_video_info_set_format (&info, GST_VIDEO_FORMAT_I420, 32, 16);
  GstBuffer *buffer = random_buffer (&info);
  GstVideoCropMeta *crop = gst_buffer_add_video_crop_meta (buffer);
  crop->x = 4;
  crop->y = 2;
  crop->width = 8;
  crop->height = 100;
  g_assert_true (gst_internvl_map (&mapping, &info, buffer, NULL));
  g_assert_cmpuint (mapping.picture.width, ==, 32);
  g_assert_cmpuint (mapping.picture.crop_x, ==, 4);
  g_assert_cmpuint (mapping.picture.crop_y, ==, 2);
  g_assert_cmpuint (mapping.picture.crop_width, ==, 8);
  g_assert_cmpuint (mapping.picture.crop_height, ==, 14);
  gst_internvl_unmap (&mapping);
  /* One that lies outside says nothing. */
  crop->x = 32;
  g_assert_true (gst_internvl_map (&mapping, &info, buffer, NULL));
  g_assert_cmpuint (mapping.picture.crop_width, ==, 0);
  gst_internvl_unmap (&mapping);
  gst_buffer_unref (buffer);
}

static void
test_bottom_up (void)
{
  GstVideoInfo info;
  GstInternvlMapping mapping;
  gsize offset[GST_VIDEO_MAX_PLANES] = { 7 * 64 };
  gint stride[GST_VIDEO_MAX_PLANES] = { -64 };
  double rgb[3];

  gst_video_info_set_format (&info, GST_VIDEO_FORMAT_RGBx, 16, 8);
  GstBuffer *buffer = gst_buffer_new_allocate (NULL, 8 * 64, NULL);
  for (guint y = 0; y < 8; y++)
    gst_buffer_memset (buffer, y * 64, 10 * y, 64);
  gst_buffer_add_video_meta_full (buffer, 0, GST_VIDEO_FORMAT_RGBx, 16, 8, 1, offset, stride);
  g_assert_true (gst_internvl_map (&mapping, &info, buffer, NULL));
  fake_picture_sample (&mapping.picture, 3, 0, rgb);
  g_assert_cmpfloat_with_epsilon (rgb[0], 70, 0.01);
  fake_picture_sample (&mapping.picture, 15, 7, rgb);
  g_assert_cmpfloat_with_epsilon (rgb[2], 0, 0.01);
  gst_internvl_unmap (&mapping);
  gst_buffer_unref (buffer);
}

static void
expect_refused (const GstVideoInfo *info, GstBuffer *buffer)
{
  GstInternvlMapping mapping;
  g_autoptr (GError) error = NULL;

  g_assert_false (gst_internvl_map (&mapping, info, buffer, &error));
  g_assert_error (error, IVL_ERROR, IVL_ERROR_BAD_ARGUMENT);
}

static void
test_corrupt (void)
{
  const GstVideoFormat formats[] = {
    GST_VIDEO_FORMAT_I420, GST_VIDEO_FORMAT_v210, GST_VIDEO_FORMAT_NV12_4L4, GST_VIDEO_FORMAT_RGB8P,
  };

  for (guint i = 0; i < G_N_ELEMENTS (formats); i++) {
    GstVideoInfo info;
    gsize offset[GST_VIDEO_MAX_PLANES];
    gint stride[GST_VIDEO_MAX_PLANES];

    gst_video_info_set_format (&info, formats[i], 64, 32);
    GstBuffer *buffer = gst_buffer_new_allocate (NULL, GST_VIDEO_INFO_SIZE (&info) - 1, NULL);
    expect_refused (&info, buffer);
    gst_buffer_unref (buffer);

    /* Metas that lie about a buffer. */
    for (guint k = 0; k < 3; k++) {
      buffer = gst_buffer_new_allocate (NULL, GST_VIDEO_INFO_SIZE (&info), NULL);
      gst_buffer_memset (buffer, 0, 0, -1);
      memcpy (offset, info.offset, sizeof offset);
      memcpy (stride, info.stride, sizeof stride);
      if (k == 0)
        stride[0] *= 2;
      else if (k == 1)
        offset[0] = GST_VIDEO_INFO_SIZE (&info) - 8;
      else
        stride[0] = -stride[0];
      /* Fewer tiles than the picture has. */
      if (k == 2 && GST_VIDEO_FORMAT_INFO_IS_TILED (info.finfo))
        stride[0] = GST_VIDEO_TILE_MAKE_STRIDE (GST_VIDEO_TILE_X_TILES (info.stride[0]) - 1,
            GST_VIDEO_TILE_Y_TILES (info.stride[0]));
      if (k == 0 && GST_VIDEO_FORMAT_INFO_IS_TILED (info.finfo))
        stride[0] = GST_VIDEO_TILE_MAKE_STRIDE (GST_VIDEO_TILE_X_TILES (info.stride[0]) * 2,
            GST_VIDEO_TILE_Y_TILES (info.stride[0]) * 4);
      gst_buffer_add_video_meta_full (buffer, 0, formats[i], 64, 32, GST_VIDEO_INFO_N_PLANES (&info), offset,
          stride);
      expect_refused (&info, buffer);
      gst_buffer_unref (buffer);
    }
  }
}

int
main (int argc, char **argv)
{
  gst_init (&argc, &argv);
  g_test_init (&argc, &argv, NULL);

  g_autoptr (GstCaps) caps = gst_caps_from_string (GST_VIDEO_CAPS_MAKE (GST_VIDEO_FORMATS_ALL));
  const GValue *list = gst_structure_get_value (gst_caps_get_structure (caps, 0), "format");
  for (guint i = 0; i < gst_value_list_get_size (list); i++) {
    const char *name = g_value_get_string (gst_value_list_get_value (list, i));
    g_autofree char *path = g_strdup_printf ("/framemap/format/%s", name);
    g_test_add_data_func (path, GINT_TO_POINTER (gst_video_format_from_string (name)), test_format);
  }
  g_test_add_func ("/framemap/common-are-direct", test_common_are_direct);
  g_test_add_func ("/framemap/crop", test_crop);
  g_test_add_func ("/framemap/bottom-up", test_bottom_up);
  g_test_add_func ("/framemap/corrupt", test_corrupt);
  return g_test_run ();
}
