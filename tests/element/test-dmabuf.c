/* Frames in DMABufs, with the real engine: answers as about the same frames in system memory. The files are memfds, which
 * can be mapped like what a device exports; a device that imports DMA-BUFs and doesn't take these maps them, too. */
#include "common.h"

#include <gst/allocators/gstdmabuf.h>
#include <gst/video/video.h>
#include <internvl/internvl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define N_FRAMES 6
#define PAGE 4096

typedef enum { SYSTEM, DMABUF, DRM } Caps;

typedef struct {
  const char *name;
  GstVideoFormat format;
  guint width, height;
  Caps caps;
  guint padding;                /* bytes behind each row */
  guint begin;                  /* bytes of the memory before the first row */
  guint skipped;                /* bytes of the file before the memory */
  gboolean apart;               /* a file a plane */
  gboolean bottom_up;
  gboolean drm_meta;            /* the meta leaves the format to the caps */
} Case;

static const Case cases[] = {
  {"rgba", GST_VIDEO_FORMAT_RGBA, 96, 64, DMABUF},
  {"nv12", GST_VIDEO_FORMAT_NV12, 100, 54, DMABUF},
  {"nv12-padded", GST_VIDEO_FORMAT_NV12, 97, 53, DMABUF, 31, 64, 4096},
  {"i420-apart", GST_VIDEO_FORMAT_I420, 97, 53, DMABUF, 7, 100, 0, TRUE},
  {"yuy2", GST_VIDEO_FORMAT_YUY2, 97, 53, DMABUF, 2, 3, 1},
  {"p010", GST_VIDEO_FORMAT_P010_10LE, 96, 54, DMABUF, 64},
  {"bottom-up", GST_VIDEO_FORMAT_RGBA, 96, 64, DMABUF, 16, 0, 0, FALSE, TRUE},
  {"system-caps", GST_VIDEO_FORMAT_NV12, 100, 54, SYSTEM, 28},
#if GST_CHECK_VERSION (1, 24, 0)
  {"drm", GST_VIDEO_FORMAT_NV12, 100, 54, DRM, 28},
  {"drm-meta", GST_VIDEO_FORMAT_BGRx, 96, 64, DRM, 64, 0, 0, FALSE, FALSE, TRUE},
#endif
};

static gint n_imported, n_mapped, n_passed, n_dmabufs;
static gboolean imports;

static void
count_lines (GstDebugCategory *category, GstDebugLevel level, const char *file, const char *function, gint line,
    GObject *object, GstDebugMessage *message, gpointer data)
{
  const char *text = gst_debug_message_get (message);

  if (strstr (text, "DMABufs are read by the device"))
    g_atomic_int_inc (&n_imported);
  else if (strstr (text, "DMABufs go through system memory"))
    g_atomic_int_inc (&n_mapped);
}

static GstPadProbeReturn
count_buffers (GstPad *pad, GstPadProbeInfo *info, gpointer data)
{
  GstBuffer *buffer = GST_PAD_PROBE_INFO_BUFFER (info);

  g_atomic_int_inc (&n_passed);
  if (gst_is_dmabuf_memory (gst_buffer_peek_memory (buffer, 0)))
    g_atomic_int_inc (&n_dmabufs);
  return GST_PAD_PROBE_OK;
}

/* ---- frames ---- */

static void
get_plane (const GstVideoInfo *info, guint p, guint *row_bytes, guint *rows)
{
  gint components[GST_VIDEO_MAX_COMPONENTS];

  gst_video_format_info_component (info->finfo, p, components);
  *row_bytes = GST_VIDEO_INFO_COMP_PSTRIDE (info, components[0]) * GST_VIDEO_INFO_COMP_WIDTH (info, components[0]);
  /* Two pixels with one chroma. */
  if (GST_VIDEO_INFO_FORMAT (info) == GST_VIDEO_FORMAT_YUY2)
    *row_bytes = (*row_bytes + 3) / 4 * 4;
  *rows = GST_VIDEO_INFO_COMP_HEIGHT (info, components[0]);
}

/* Something that moves, and differs from plane to plane. */
static guint8
sample (guint frame, guint p, guint x, guint y)
{
  guint inside = (x / 8 + y / 8 + frame) % 5 == 0;

  return (guint8) (inside ? 220 - 40 * p : (x * 3 + y * (5 + p) + frame * 17) & 127);
}

static void
fill (guint8 *data, gssize stride, guint row_bytes, guint rows, guint frame, guint p)
{
  for (guint y = 0; y < rows; y++)
    for (guint x = 0; x < row_bytes; x++)
      data[(gssize) y * stride + x] = sample (frame, p, x, y);
}

static GstBuffer *
make_plain (const GstVideoInfo *info, guint frame)
{
  GstBuffer *buffer = gst_buffer_new_allocate (NULL, GST_VIDEO_INFO_SIZE (info), NULL);
  GstMapInfo map;

  g_assert_true (gst_buffer_map (buffer, &map, GST_MAP_WRITE));
  for (guint p = 0; p < GST_VIDEO_INFO_N_PLANES (info); p++) {
    guint row_bytes, rows;
    get_plane (info, p, &row_bytes, &rows);
    fill (map.data + GST_VIDEO_INFO_PLANE_OFFSET (info, p), GST_VIDEO_INFO_PLANE_STRIDE (info, p), row_bytes, rows, frame, p);
  }
  gst_buffer_unmap (buffer, &map);
  return buffer;
}

/* A memory of BYTES in a file of them and SKIPPED, filled with what is not to be seen. */
static GstMemory *
make_memory (GstAllocator *allocator, gsize bytes, guint skipped, guint8 **data)
{
  gsize size = (skipped + bytes + PAGE - 1) / PAGE * PAGE;
  int fd = memfd_create ("frame", MFD_CLOEXEC);

  g_assert_cmpint (fd, >=, 0);
  g_assert_cmpint (ftruncate (fd, (off_t) size), ==, 0);
  guint8 *map = mmap (NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  g_assert_true (map != MAP_FAILED);
  memset (map, 0xa5, size);
  *data = map + skipped;
  GstMemory *memory = gst_dmabuf_allocator_alloc (allocator, fd, size);
  gst_memory_resize (memory, skipped, bytes);
  return memory;
}

static void
forget_memory (GstMemory *memory, guint8 *data)
{
  gsize offset, size;

  gst_memory_get_sizes (memory, &offset, &size);
  munmap (data - offset, size);
}

static GstBuffer *
make_dmabuf (GstAllocator *allocator, const Case *c, const GstVideoInfo *info, guint frame)
{
  gsize offsets[GST_VIDEO_MAX_PLANES] = { 0 }, begins[GST_VIDEO_MAX_PLANES], total = 0;
  gint strides[GST_VIDEO_MAX_PLANES] = { 0 };
  guint n_planes = GST_VIDEO_INFO_N_PLANES (info), row_bytes, rows;
  GstBuffer *buffer = gst_buffer_new ();
  GstMemory *memory = NULL;
  guint8 *data = NULL;
  gsize sizes[GST_VIDEO_MAX_PLANES];

  for (guint p = 0; p < n_planes; p++) {
    get_plane (info, p, &row_bytes, &rows);
    strides[p] = (gint) (row_bytes + c->padding);
    begins[p] = total + c->begin;
    sizes[p] = c->begin + (gsize) strides[p] * rows;
    total += sizes[p];
  }
  for (guint p = 0; p < n_planes; p++) {
    get_plane (info, p, &row_bytes, &rows);
    if (!memory || c->apart) {
      memory = make_memory (allocator, c->apart ? sizes[p] : total, c->skipped, &data);
      gst_buffer_append_memory (buffer, memory);
    }
    guint8 *top = data + (c->apart ? c->begin : begins[p]);
    offsets[p] = begins[p];
    if (c->bottom_up) {
      top += (gsize) strides[p] * (rows - 1);
      offsets[p] += (gsize) strides[p] * (rows - 1);
      strides[p] = -strides[p];
    }
    fill (top, strides[p], row_bytes, rows, frame, p);
    if (c->apart || p + 1 == n_planes)
      forget_memory (memory, data);
  }
  GstVideoFormat format = c->format;
#if GST_CHECK_VERSION (1, 24, 0)
  if (c->drm_meta)
    format = GST_VIDEO_FORMAT_DMA_DRM;
#endif
  gst_buffer_add_video_meta_full (buffer, GST_VIDEO_FRAME_FLAG_NONE, format, c->width, c->height, n_planes, offsets, strides);
  return buffer;
}

static GstCaps *
make_caps (const GstVideoInfo *info, Caps kind)
{
  GstCaps *caps;

#if GST_CHECK_VERSION (1, 24, 0)
  GstVideoInfoDmaDrm drm;
  if (kind == DRM) {
    g_assert_true (gst_video_info_dma_drm_from_video_info (&drm, info, 0));
    return gst_video_info_dma_drm_to_caps (&drm);
  }
#endif
  caps = gst_video_info_to_caps (info);
  if (kind != SYSTEM)
    gst_caps_set_features_simple (caps, gst_caps_features_new_single ("memory:DMABuf"));
  return caps;
}

/* ---- pipelines ---- */

typedef GstBuffer *(*MakeFunc) (GstAllocator *allocator, const Case *c, const GstVideoInfo *info, guint frame);

/* What is said of N_FRAMES; and that all of them came through. */
static char *
answers (const Case *c, Caps kind, MakeFunc make)
{
  g_autoptr (GString) all = g_string_new (NULL);
  g_autoptr (GPtrArray) results = test_structures_new ();
  g_autoptr (GstAllocator) allocator = gst_dmabuf_allocator_new ();
  GstFlowReturn flow;
  GstVideoInfo info;

  g_assert_true (gst_video_info_set_format (&info, c->format, c->width, c->height));
  GST_VIDEO_INFO_FPS_N (&info) = 10;
  GST_VIDEO_INFO_FPS_D (&info) = 1;
  g_autoptr (GstCaps) caps = make_caps (&info, kind);
  GstElement *pipeline = test_launch ("appsrc name=source format=time ! internvl name=v model-path=%s policy=all "
      "max-tokens=6 frame-rate=10/1 chunk-size=3 ! fakesink", g_getenv ("INTERNVL_TEST_MODEL"));
  g_autoptr (GstElement) source = gst_bin_get_by_name (GST_BIN (pipeline), "source");
  g_autoptr (GstElement) element = gst_bin_get_by_name (GST_BIN (pipeline), "v");
  g_autoptr (GstPad) pad = gst_element_get_static_pad (element, "src");
  n_imported = n_mapped = n_passed = n_dmabufs = 0;
  gst_pad_add_probe (pad, GST_PAD_PROBE_TYPE_BUFFER, count_buffers, NULL, NULL);
  g_object_set (source, "caps", caps, NULL);
  gst_element_set_state (pipeline, GST_STATE_PAUSED);
  for (guint i = 0; i < N_FRAMES; i++) {
    GstBuffer *buffer = make ? make (allocator, c, &info, i) : make_plain (&info, i);
    GST_BUFFER_PTS (buffer) = i * GST_SECOND / 10;
    GST_BUFFER_DURATION (buffer) = GST_SECOND / 10;
    g_signal_emit_by_name (source, "push-buffer", buffer, &flow);
    g_assert_cmpint (flow, ==, GST_FLOW_OK);
    gst_buffer_unref (buffer);
  }
  g_signal_emit_by_name (source, "end-of-stream", &flow);
  g_autoptr (GError) error = test_play (pipeline, results);
  g_assert_no_error (error);
  g_assert_cmpint (n_passed, ==, N_FRAMES);
  g_assert_cmpint (n_dmabufs, ==, make ? N_FRAMES : 0);
  gst_object_unref (g_steal_pointer (&pad));
  gst_object_unref (g_steal_pointer (&element));
  gst_object_unref (g_steal_pointer (&source));
  g_assert_cmpint (GST_OBJECT_REFCOUNT_VALUE (pipeline), ==, 1);
  gst_object_unref (pipeline);
  for (guint i = 0; i < results->len; i++) {
    g_autofree char *line = test_describe_answer (results->pdata[i]);
    g_string_append_printf (all, "%s\n", line);
  }
  return g_string_free (g_steal_pointer (&all), FALSE);
}

static guint
count_fds (void)
{
  guint n = 0;
  g_autoptr (GDir) dir = g_dir_open ("/proc/self/fd", 0, NULL);

  while (g_dir_read_name (dir))
    n++;
  return n;
}

static void
test_case (gconstpointer data)
{
  const Case *c = data;
  g_autofree char *expected = answers (c, SYSTEM, NULL);
  g_assert_cmpstr (expected, !=, "");
  g_assert_cmpint (n_imported + n_mapped, ==, 0);
  guint fds = count_fds ();
  g_autofree char *got = answers (c, c->caps, make_dmabuf);

  g_assert_cmpstr (got, ==, expected);
  g_assert_cmpint (n_imported, ==, imports);
  g_assert_cmpint (n_mapped, ==, !imports);
  g_assert_cmpuint (count_fds (), ==, fds);
}

/* ---- what can't be read ---- */

#if GST_CHECK_VERSION (1, 24, 0)
/* Tiled frames are left to those who know their tiles. */
static void
test_tiled (void)
{
  GstElement *element = gst_element_factory_make ("internvl", NULL);
  g_autoptr (GstPad) pad = gst_element_get_static_pad (element, "sink");
  static const char format[] = "video/x-raw(memory:DMABuf), format=DMA_DRM, width=64, height=64, framerate=10/1, "
      "drm-format=%s";
  g_autofree char *linear = g_strdup_printf (format, "NV12"), *tiled = g_strdup_printf (format, "NV12:0x0100000000000002");
  g_autoptr (GstCaps) good = gst_caps_from_string (linear), bad = gst_caps_from_string (tiled);

  g_assert_true (gst_pad_query_accept_caps (pad, good));
  g_assert_false (gst_pad_query_accept_caps (pad, bad));
  gst_object_unref (g_steal_pointer (&pad));
  gst_object_unref (element);
}
#endif

/* The file ends in mid-frame. */
static GstBuffer *
make_short (GstAllocator *allocator, const Case *c, const GstVideoInfo *info, guint frame)
{
  GstBuffer *buffer = make_dmabuf (allocator, c, info, frame);

  g_assert_cmpint (ftruncate (gst_dmabuf_memory_get_fd (gst_buffer_peek_memory (buffer, 0)), PAGE), ==, 0);
  return buffer;
}

/* The meta says that rows are where no memory is. */
static GstBuffer *
make_beyond (GstAllocator *allocator, const Case *c, const GstVideoInfo *info, guint frame)
{
  static const gsize offsets[] = { G_MAXSIZE, G_MAXSIZE / 2, 1 << 30, PAGE * 6, 0, 0 };
  static const gint strides[] = { 400, 400, 400, 400, G_MAXINT, G_MININT };
  GstBuffer *buffer = make_dmabuf (allocator, c, info, frame);
  GstVideoMeta *meta = gst_buffer_get_video_meta (buffer);

  meta->offset[0] = offsets[frame];
  meta->stride[0] = strides[frame];
  return buffer;
}

static void
test_unreadable (gconstpointer make)
{
  g_autofree char *got = answers (&cases[0], DMABUF, (MakeFunc) make);

  g_assert_cmpstr (got, ==, "");
}

int
main (int argc, char **argv)
{
  g_autoptr (GError) error = NULL;

  gst_init (&argc, &argv);
  g_test_init (&argc, &argv, NULL);
  gst_debug_remove_log_function (gst_debug_log_default);
  gst_debug_add_log_function (count_lines, NULL, NULL);
  gst_debug_set_threshold_for_name ("internvl*", GST_LEVEL_INFO);
  /* Kept for all pipelines, which share it. */
  g_autoptr (IvlModel) model = ivl_model_share (NULL, g_getenv ("INTERNVL_TEST_MODEL"), NULL, NULL, &error);
  g_assert_no_error (error);
  imports = ivl_device_imports_dmabuf (ivl_model_get_device (model));
  g_print ("# %s %s\n", ivl_device_get_name (ivl_model_get_device (model)), imports ? "imports DMA-BUFs" :
      "imports no DMA-BUFs: frames are mapped here");
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *path = g_strdup_printf ("/dmabuf/%s", cases[i].name);
    g_test_add_data_func (path, &cases[i], test_case);
  }
#if GST_CHECK_VERSION (1, 24, 0)
  g_test_add_func ("/dmabuf/tiled", test_tiled);
#endif
  g_test_add_data_func ("/dmabuf/short", make_short, test_unreadable);
  g_test_add_data_func ("/dmabuf/beyond", make_beyond, test_unreadable);
  return g_test_run ();
}
