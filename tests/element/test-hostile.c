/* The element with streams as they should not be. Every case has a defined end: what can be read is answered, what can't
 * is told, and no frame of the video is lost. Runs against the fake engine and, with INTERNVL_TEST_MODEL, the real one.
 */
#include "common.h"

#include <gst/check/gstharness.h>
#include <gst/video/video.h>
#include <string.h>

#define PERIOD (100 * GST_MSECOND)

static const char *model;
static gboolean real;

typedef struct
{
  GstElement *element;
  GstBus *bus;
  GstHarness *h;
  guint pushed;
} Case;

/* A chunk a frame, unless PROPERTIES say otherwise. */
static void
begin (Case *c, const char *properties)
{
  g_autofree char *launch = g_strdup_printf ("internvl model-path=%s policy=all max-tokens=2 chunk-size=1 "
      "chunk-duration=100000000 %s", model, properties);

  *c = (Case) { 0 };
  c->element = gst_object_ref_sink (gst_parse_launch (launch, NULL));
  c->bus = gst_bus_new ();
  gst_element_set_bus (c->element, c->bus);
  c->h = gst_harness_new_with_element (c->element, "sink", "src");
  gst_harness_play (c->h);
}

static void
set_caps (Case *c, GstVideoInfo *info)
{
  gst_harness_set_src_caps (c->h, gst_video_info_to_caps (info));
}

static void
set_format (Case *c, GstVideoInfo *info, GstVideoFormat format, guint width, guint height)
{
  g_assert_true (gst_video_info_set_format (info, format, width, height));
  info->fps_n = 10;
  info->fps_d = 1;
  set_caps (c, info);
}

static GstBuffer *
make (const GstVideoInfo *info)
{
  GstBuffer *buffer = gst_buffer_new_allocate (NULL, GST_VIDEO_INFO_SIZE (info), NULL);

  gst_buffer_memset (buffer, 0, 0x80, -1);
  return buffer;
}

static void
push (Case *c, GstBuffer *buffer)
{
  if (!GST_BUFFER_PTS_IS_VALID (buffer)) {
    GST_BUFFER_PTS (buffer) = c->pushed * PERIOD;
    GST_BUFFER_DURATION (buffer) = PERIOD;
  }
  c->pushed++;
  g_assert_cmpint (gst_harness_push (c->h, buffer), ==, GST_FLOW_OK);
}

static guint64
stat (Case *c, const char *name)
{
  g_autoptr (GstStructure) stats = NULL;

  g_object_get (c->element, "stats", &stats, NULL);
  return test_get_uint64 (stats, name);
}

static guint
count_messages (Case *c, GstMessageType type, const char *part)
{
  guint n = 0;
  GstMessage *message;

  while ((message = gst_bus_pop_filtered (c->bus, type))) {
    g_autoptr (GError) error = NULL;

    if (type == GST_MESSAGE_WARNING)
      gst_message_parse_warning (message, &error, NULL);
    else
      gst_message_parse_error (message, &error, NULL);
    if (!strstr (error->message, part))
      g_error ("\"%s\" doesn't say \"%s\"", error->message, part);
    gst_message_unref (message);
    n++;
  }
  return n;
}

/* Ends the stream: all of the video has come through, and each chunk is accounted for. */
static void
end (Case *c, guint chunks, guint dropped)
{
  gst_harness_push_event (c->h, gst_event_new_eos ());
  g_assert_cmpuint (gst_harness_buffers_received (c->h), ==, c->pushed);
  g_assert_cmpuint (stat (c, "chunks"), ==, chunks);
  g_assert_cmpuint (stat (c, "dropped"), ==, dropped);
}

static void
finish (Case *c)
{
  gst_harness_teardown (c->h);
  gst_element_set_state (c->element, GST_STATE_NULL);
  gst_bus_set_flushing (c->bus, TRUE);
  gst_element_set_bus (c->element, NULL);
  g_assert_cmpint (GST_OBJECT_REFCOUNT_VALUE (c->element), ==, 1);
  gst_object_unref (c->element);
  gst_object_unref (c->bus);
}

/* ---- sizes ---- */

static void
test_every_frame_another (void)
{
  static const struct
  {
    GstVideoFormat format;
    guint width, height;
  } frames[] = {
    {GST_VIDEO_FORMAT_I420, 1, 1}, {GST_VIDEO_FORMAT_RGB, 1, 1}, {GST_VIDEO_FORMAT_NV12, 17, 3},
    {GST_VIDEO_FORMAT_YUY2, 3, 17}, {GST_VIDEO_FORMAT_v210, 7, 5}, {GST_VIDEO_FORMAT_I420_10LE, 33, 31},
    {GST_VIDEO_FORMAT_GRAY8, 1, 1000}, {GST_VIDEO_FORMAT_Y41B, 5, 1}, {GST_VIDEO_FORMAT_RGB16, 2, 9},
    {GST_VIDEO_FORMAT_NV12_4L4, 13, 11}, {GST_VIDEO_FORMAT_YUV9, 3, 3}, {GST_VIDEO_FORMAT_ARGB64, 1, 2},
  };
  Case c;

  begin (&c, "");
  for (guint i = 0; i < G_N_ELEMENTS (frames); i++) {
    GstVideoInfo info;

    set_format (&c, &info, frames[i].format, frames[i].width, frames[i].height);
    push (&c, make (&info));
  }
  end (&c, G_N_ELEMENTS (frames), 0);
  g_assert_cmpuint (count_messages (&c, GST_MESSAGE_WARNING, ""), ==, 0);
  finish (&c);

  /* All in one chunk, compared with each other and encoded only if unlike. */
  begin (&c, "chunk-size=12 chunk-duration=1200000000 sampling=motion reuse-threshold=2");
  for (guint i = 0; i < G_N_ELEMENTS (frames); i++) {
    GstVideoInfo info;

    set_format (&c, &info, frames[i].format, frames[i].width, frames[i].height);
    push (&c, make (&info));
  }
  end (&c, 1, 0);
  g_assert_cmpuint (stat (&c, "frames-encoded") + stat (&c, "frames-reused"), ==, G_N_ELEMENTS (frames));
  finish (&c);
}

static void
test_large (void)
{
  GstVideoInfo info;
  Case c;

  begin (&c, "");
  set_format (&c, &info, GST_VIDEO_FORMAT_I420, 7680, 4320);
  push (&c, make (&info));
  end (&c, 1, 0);
  finish (&c);
  if (!real)
    return;
  /* More than the engine takes. */
  begin (&c, "on-error=passthrough");
  set_format (&c, &info, GST_VIDEO_FORMAT_GRAY8, 20000, 2);
  push (&c, make (&info));
  set_format (&c, &info, GST_VIDEO_FORMAT_GRAY8, 16384, 2);
  push (&c, make (&info));
  end (&c, 1, 1);
  g_assert_cmpuint (count_messages (&c, GST_MESSAGE_WARNING, "sides must be 1 to 16384"), ==, 1);
  finish (&c);
  begin (&c, "");
  set_format (&c, &info, GST_VIDEO_FORMAT_GRAY8, 20000, 2);
  while (gst_harness_push (c.h, make (&info)) == GST_FLOW_OK);
  g_assert_cmpuint (count_messages (&c, GST_MESSAGE_ERROR, "sides must be 1 to 16384"), ==, 1);
  finish (&c);
}

static void
test_interlaced (void)
{
  static const char *modes[] = { "interleaved", "mixed" };
  static const GstVideoFormat formats[] = { GST_VIDEO_FORMAT_I420, GST_VIDEO_FORMAT_v210, GST_VIDEO_FORMAT_NV12 };
  static const GstVideoBufferFlags flags[] = { 0, GST_VIDEO_BUFFER_FLAG_INTERLACED | GST_VIDEO_BUFFER_FLAG_TFF,
    GST_VIDEO_BUFFER_FLAG_INTERLACED, GST_VIDEO_BUFFER_FLAG_INTERLACED | GST_VIDEO_BUFFER_FLAG_RFF |
        GST_VIDEO_BUFFER_FLAG_ONEFIELD
  };

  for (guint m = 0; m < G_N_ELEMENTS (modes); m++) {
    Case c;

    begin (&c, "chunk-size=24 chunk-duration=2400000000");
    for (guint i = 0; i < G_N_ELEMENTS (formats); i++)
      for (guint odd = 0; odd < 2; odd++)
        for (guint k = 0; k < G_N_ELEMENTS (flags); k++) {
          GstVideoInfo info;

          gst_video_info_set_interlaced_format (&info, formats[i], m ? GST_VIDEO_INTERLACE_MODE_MIXED :
              GST_VIDEO_INTERLACE_MODE_INTERLEAVED, 16 + odd, 18 + odd);
          info.fps_n = 10;
          g_autoptr (GstCaps) caps = gst_video_info_to_caps (&info);
          g_assert_cmpstr (gst_structure_get_string (gst_caps_get_structure (caps, 0), "interlace-mode"), ==, modes[m]);
          set_caps (&c, &info);
          GstBuffer *buffer = make (&info);
          GST_BUFFER_FLAG_SET (buffer, flags[k]);
          push (&c, buffer);
        }
    end (&c, 1, 0);
    g_assert_cmpuint (stat (&c, "frames-encoded"), ==, c.pushed);
    g_assert_cmpuint (count_messages (&c, GST_MESSAGE_WARNING, ""), ==, 0);
    finish (&c);
  }
}

/* ---- buffers ---- */

static GstBuffer *
make_with_meta (const GstVideoInfo *info, guint n_planes, const gsize * offset, const gint * stride, gsize size)
{
  GstBuffer *buffer = gst_buffer_new_allocate (NULL, size, NULL);

  gst_buffer_memset (buffer, 0, 0x80, -1);
  gst_buffer_add_video_meta_full (buffer, 0, GST_VIDEO_INFO_FORMAT (info), GST_VIDEO_INFO_WIDTH (info),
      GST_VIDEO_INFO_HEIGHT (info), n_planes, (gsize *) offset, (gint *) stride);
  return buffer;
}

/* Odd, padded, reversed and overlapping planes are read; planes that aren't there are told. */
static void
test_planes (void)
{
  const gsize plain[4] = { 0, 256, 320 }, padded[4] = { 5, 700, 1001 }, bottom[4] = { 15 * 16, 256 + 7 * 8, 320 + 7 * 8 },
      same[4] = { 0, 0, 0 }, outside[4] = { 0, 256, 1 << 20 };
  const gint tight[4] = { 16, 8, 8 }, odd[4] = { 41, 23, 19 }, negative[4] = { -16, -8, -8 }, zero[4] = { 0, 0, 0 },
      huge[4] = { G_MAXINT, G_MININT, 8 };
  GstVideoInfo info;
  Case c;

  begin (&c, "");
  set_format (&c, &info, GST_VIDEO_FORMAT_I420, 16, 16);
  push (&c, make_with_meta (&info, 3, plain, tight, 384));
  push (&c, make_with_meta (&info, 3, padded, odd, 1200));
  push (&c, make_with_meta (&info, 3, bottom, negative, 384));
  push (&c, make_with_meta (&info, 3, same, zero, 16));
  end (&c, 4, 0);
  g_assert_cmpuint (count_messages (&c, GST_MESSAGE_WARNING, ""), ==, 0);
  finish (&c);

  begin (&c, "");
  set_format (&c, &info, GST_VIDEO_FORMAT_I420, 16, 16);
  push (&c, make_with_meta (&info, 3, outside, tight, 384));
  push (&c, make_with_meta (&info, 3, plain, huge, 384));
  push (&c, make_with_meta (&info, 3, plain, negative, 384));
  push (&c, make_with_meta (&info, 3, plain, tight, 256));      /* luma alone */
  push (&c, make_with_meta (&info, 1, plain, tight, 384));
  push (&c, gst_buffer_new ());
  push (&c, gst_buffer_new_allocate (NULL, 383, NULL));
  push (&c, make (&info));
  end (&c, 1, 7);
  g_assert_cmpuint (count_messages (&c, GST_MESSAGE_WARNING, "frame"), ==, 7);
  finish (&c);
}

/* A meta of another size than the caps', as after a change that a frame was early or late for. */
static void
test_meta_of_another_size (void)
{
  const gsize offset[4] = { 0 };
  const gint stride[4] = { 24 };
  GstVideoInfo info, other;
  Case c;

  begin (&c, "");
  gst_video_info_set_format (&other, GST_VIDEO_FORMAT_RGB, 8, 8);
  set_format (&c, &info, GST_VIDEO_FORMAT_RGB, 16, 16);
  push (&c, make_with_meta (&other, 1, offset, stride, 192));
  push (&c, make (&info));
  end (&c, 1, 1);
  g_assert_cmpuint (count_messages (&c, GST_MESSAGE_WARNING, "meta says 8x8"), ==, 1);
  finish (&c);
}

/* A file as it is, say: no caps at all. */
static void
test_no_caps (void)
{
  for (guint passthrough = 0; passthrough < 2; passthrough++) {
    GstSegment segment;
    Case c;

    begin (&c, passthrough ? "on-error=passthrough" : "");
    gst_segment_init (&segment, GST_FORMAT_BYTES);
    GstPad *sink = gst_element_get_static_pad (c.element, "sink");
    gst_pad_send_event (sink, gst_event_new_stream_start ("file"));
    gst_pad_send_event (sink, gst_event_new_segment (&segment));
    g_assert_cmpint (gst_pad_chain (sink, gst_buffer_new_allocate (NULL, 100, NULL)), ==,
        passthrough ? GST_FLOW_OK : GST_FLOW_NOT_NEGOTIATED);
    g_assert_cmpuint (gst_harness_buffers_received (c.h), ==, passthrough);
    g_assert_cmpuint (count_messages (&c, GST_MESSAGE_ERROR, "decodebin"), ==, !passthrough);
    gst_object_unref (sink);
    finish (&c);
  }
}

/* ---- time ---- */

static void
test_times (void)
{
  static const GstClockTime times[] = { 0, 50, 51, 52, 1000, 900, 5000, 5001, 100000, 0, 10, G_MAXUINT64 / GST_MSECOND, 20,
    3600000, 3600100, 3600050, 3600200
  };
  GstVideoInfo info;
  Case c;

  if (real)                     /* is the element's alone */
    return;
  for (guint durations = 0; durations < 2; durations++) {
    begin (&c, "");
    gst_video_info_set_format (&info, GST_VIDEO_FORMAT_RGB, 8, 8);
    info.fps_n = 0;
    info.fps_d = 1;
    set_caps (&c, &info);
    for (guint i = 0; i < G_N_ELEMENTS (times); i++) {
      GstBuffer *buffer = make (&info);

      GST_BUFFER_PTS (buffer) = times[i] == G_MAXUINT64 / GST_MSECOND ? G_MAXUINT64 - 2 : times[i] * GST_MSECOND;
      GST_BUFFER_DURATION (buffer) = !durations ? GST_CLOCK_TIME_NONE : i == 3 ? G_MAXUINT64 - 1 : 10 * GST_MSECOND;
      push (&c, buffer);
    }
    gst_harness_push_event (c.h, gst_event_new_gap (200000 * GST_SECOND, G_MAXUINT64 - 1));
    gst_harness_push_event (c.h, gst_event_new_eos ());
    g_assert_cmpuint (gst_harness_buffers_received (c.h), ==, c.pushed);
    g_assert_cmpuint (stat (&c, "chunks"), >=, 6);
    g_assert_cmpuint (stat (&c, "dropped"), ==, 0);
    finish (&c);
  }

  /* None at all, and no frame rate. */
  begin (&c, "");
  gst_video_info_set_format (&info, GST_VIDEO_FORMAT_RGB, 8, 8);
  info.fps_n = 0;
  set_caps (&c, &info);
  for (guint i = 0; i < 30; i++) {
    c.pushed++;
    g_assert_cmpint (gst_harness_push (c.h, make (&info)), ==, GST_FLOW_OK);
  }
  gst_harness_push_event (c.h, gst_event_new_eos ());
  g_assert_cmpuint (gst_harness_buffers_received (c.h), ==, 30);
  /* As if it were 30 a second. */
  g_assert_cmpuint (stat (&c, "chunks"), ==, 10);
  finish (&c);
}

/* ---- questions ---- */

static void
test_wrong_schema (void)
{
  GstVideoInfo info;
  Case c;

  if (!real)
    return;
  begin (&c, "on-error=passthrough");
  g_object_set (c.element, "json-schema", "{\"type\": \"string\", \"pattern\": \"a*\"}", NULL);
  set_format (&c, &info, GST_VIDEO_FORMAT_RGB, 8, 8);
  push (&c, make (&info));
  push (&c, make (&info));
  g_object_set (c.element, "json-schema", "{\"type\": \"boolean\"}", "max-tokens", 16, NULL);
  push (&c, make (&info));
  gst_harness_push_event (c.h, gst_event_new_eos ());
  g_assert_cmpuint (gst_harness_buffers_received (c.h), ==, 3);
  g_assert_cmpuint (stat (&c, "chunks"), >=, 1);
  g_assert_cmpuint (stat (&c, "dropped"), >=, 1);
  g_assert_cmpuint (count_messages (&c, GST_MESSAGE_WARNING, "pattern"), ==, 1);
  finish (&c);

  begin (&c, "");
  g_object_set (c.element, "json-schema", "{\"type\": \"no such\"}", NULL);
  set_format (&c, &info, GST_VIDEO_FORMAT_RGB, 8, 8);
  while (gst_harness_push (c.h, make (&info)) == GST_FLOW_OK);
  g_assert_cmpuint (count_messages (&c, GST_MESSAGE_ERROR, "json_schema"), ==, 1);
  finish (&c);
}

static void
test_many_choices (void)
{
  GValue value = G_VALUE_INIT;
  GstVideoInfo info;
  Case c;
  gint choice;

  begin (&c, "max-tokens=32");
  g_value_init (&value, GST_TYPE_ARRAY);
  for (guint i = 0; i < 10000; i++) {
    GValue item = G_VALUE_INIT;

    g_value_init (&item, G_TYPE_STRING);
    g_value_take_string (&item, g_strdup_printf ("choice %u", i));
    gst_value_array_append_and_take_value (&value, &item);
  }
  g_object_set_property (G_OBJECT (c.element), "choices", &value);
  g_value_unset (&value);
  set_format (&c, &info, GST_VIDEO_FORMAT_RGB, 8, 8);
  push (&c, make (&info));
  end (&c, 1, 0);
  GstMessage *message = gst_bus_pop_filtered (c.bus, GST_MESSAGE_ELEMENT);
  const GstStructure *result = gst_message_get_structure (message);
  g_assert_true (gst_structure_get_int (result, "choice", &choice));
  g_autofree char *expected = g_strdup_printf ("choice %d", choice);
  g_assert_cmpstr (gst_structure_get_string (result, "text"), ==, expected);
  gst_message_unref (message);
  finish (&c);
}

static void
test_templates (void)
{
  static const char *prompts[] = { "{nobody}", "{", "}{", "{start", "{{start}}", "{\"a\": {end}}", "" };
  GstVideoInfo info;
  Case c;

  begin (&c, "");
  set_format (&c, &info, GST_VIDEO_FORMAT_RGB, 8, 8);
  for (guint i = 0; i < G_N_ELEMENTS (prompts); i++) {
    g_object_set (c.element, "prompt", prompts[i], NULL);
    push (&c, make (&info));
  }
  end (&c, c.pushed, 0);
  g_assert_cmpuint (count_messages (&c, GST_MESSAGE_WARNING, ""), ==, 0);
  finish (&c);
}

int
main (int argc, char **argv)
{
  gst_init (&argc, &argv);
  g_test_init (&argc, &argv, NULL);
  model = g_getenv ("INTERNVL_TEST_MODEL");
  real = model && *model;
  if (!real)
    model = test_model_path ();
#define add(path, name) g_test_add_func ("/hostile/" path, name)
  add ("every-frame-another", test_every_frame_another);
  add ("large", test_large);
  add ("interlaced", test_interlaced);
  add ("planes", test_planes);
  add ("meta-of-another-size", test_meta_of_another_size);
  add ("no-caps", test_no_caps);
  add ("times", test_times);
  add ("wrong-schema", test_wrong_schema);
  add ("many-choices", test_many_choices);
  add ("templates", test_templates);
  int status = g_test_run ();
  gst_deinit ();
  return status;
}
