/* Whole pipelines, as users write them. Knows nothing of the engine: with INTERNVL_TEST_MODEL set to a model's folder
 * and GST_PLUGIN_PATH to the real plugin, the same tests run against the real one, and what an answer says isn't
 * looked at.
 */
#include "common.h"

#include <gst/video/video.h>
#include <string.h>

static const char *model;
static gboolean real;

/* Ten seconds of H.264, ten frames a second. */
static const char *
clip (void)
{
  const char *path = test_path ("clip.mp4");

  if (!g_file_test (path, G_FILE_TEST_EXISTS)) {
    GstElement *pipeline = test_launch ("videotestsrc num-buffers=100 pattern=ball ! "
        "video/x-raw, width=64, height=48, framerate=10/1 ! x264enc ! h264parse ! mp4mux ! filesink location=%s", path);
    g_assert_no_error (test_play (pipeline, NULL));
    gst_object_unref (pipeline);
  }
  return path;
}

/* Few and short, so that the real engine gets through on a CPU. */
#define SETTINGS "model-path=%s max-tokens=8 chunk-size=2 chunk-duration=4000000000"

static char *
read_file (const char *path)
{
  char *content = NULL;

  g_assert_true (g_file_get_contents (path, &content, NULL, NULL));
  return content;
}

static void
expect_play (GstElement *pipeline, GPtrArray *results)
{
  g_autoptr (GError) error = test_play (pipeline, results);

  g_assert_no_error (error);
  gst_object_unref (pipeline);
}

static void
expect_results (GPtrArray *results)
{
  static const guint64 times[] = { 0, 4, 8 }, durations[] = { 4, 4, 2 };

  g_assert_cmpuint (results->len, ==, 3);
  for (guint i = 0; i < 3; i++) {
    const GstStructure *result = g_ptr_array_index (results, i);
    g_assert_cmpuint (test_get_uint64 (result, "stream-time"), ==, times[i] * GST_SECOND);
    g_assert_cmpuint (test_get_uint64 (result, "duration"), ==, durations[i] * GST_SECOND);
    g_assert_cmpuint (test_get_uint64 (result, "chunk"), ==, i);
    g_assert_nonnull (gst_structure_get_string (result, "text"));
    g_assert_cmpstr (gst_structure_get_string (result, "prompt"), ==, "Describe this video.");
    if (!real)
      g_assert_true (g_str_has_prefix (gst_structure_get_string (result, "text"), i < 2 ? "2 frames #" :
              "1 frames #"));
  }
}

/* The line of the README, without a queue anywhere. */
static void
test_webvtt (void)
{
  g_autoptr (GPtrArray) results = test_structures_new ();
  const char *out = test_path ("out.vtt");

  expect_play (test_launch ("filesrc location=%s ! decodebin ! internvl " SETTINGS " name=v ! fakesink  "
          "v.text_src ! webvttenc ! filesink location=%s", clip (), model, out), results);
  expect_results (results);
  g_autofree char *vtt = read_file (out);
  g_assert_true (g_str_has_prefix (vtt, "WEBVTT\n"));
  const char *p = vtt;
  for (guint i = 0; i < 3; i++) {
    static const char *times[] = { "00:00:00.000 --> 00:00:04.000\n", "00:00:04.000 --> 00:00:08.000\n",
      "00:00:08.000 --> 00:00:10.000\n"
    };
    p = strstr (p, times[i]);
    g_assert_nonnull (p);
  }
}

static void
test_srt (void)
{
  const char *out = test_path ("out.srt");

  expect_play (test_launch ("filesrc location=%s ! decodebin ! internvl " SETTINGS " name=v ! fakesink sync=false  "
          "v.text_src ! srtenc ! filesink location=%s", clip (), model, out), NULL);
  g_autofree char *srt = read_file (out);
  g_assert_nonnull (strstr (srt, "1\n00:00:00,000 --> 00:00:04,000\n"));
  g_assert_nonnull (strstr (srt, "3\n00:00:08,000 --> 00:00:10,000\n"));
}

static void
on_text (GstElement *sink, GstBuffer *buffer, GstPad *pad, gpointer out)
{
  GstMapInfo map;

  gst_buffer_map (buffer, &map, GST_MAP_READ);
  g_string_append_printf (out, "%u+%u %.*s\n", (guint) (GST_BUFFER_PTS (buffer) / GST_MSECOND),
      (guint) (GST_BUFFER_DURATION (buffer) / GST_MSECOND), (int) MIN (map.size, 9), map.data);
  gst_buffer_unmap (buffer, &map);
}

static void
read_subtitles (const char *path, const char *demuxer)
{
  g_autoptr (GString) out = g_string_new (NULL);
  GstElement *pipeline = test_launch ("filesrc location=%s ! %s name=d  d.subtitle_0 ! queue ! fakesink name=text "
      "signal-handoffs=true  d.video_0 ! queue ! fakesink", path, demuxer);
  g_autoptr (GstElement) sink = gst_bin_get_by_name (GST_BIN (pipeline), "text");

  g_signal_connect (sink, "handoff", G_CALLBACK (on_text), out);
  expect_play (pipeline, NULL);
  if (!real)
    g_assert_cmpstr (out->str, ==, "0+4000 2 frames \n4000+4000 2 frames \n8000+2000 1 frames \n");
  else
    g_assert_nonnull (strstr (out->str, "8000+2000 "));
}

static void
test_matroska (void)
{
  const char *out = test_path ("out.mkv");

  expect_play (test_launch ("filesrc location=%s ! decodebin ! internvl " SETTINGS " name=v ! "
          "queue max-size-time=0 max-size-bytes=0 max-size-buffers=0 ! x264enc ! matroskamux name=m ! "
          "filesink location=%s  v.text_src ! m.", clip (), model, out), NULL);
  read_subtitles (out, "matroskademux");
}

/* Without a queue the muxer waits for text, the text for video, and the video for the muxer. */
static void
test_matroska_no_queue (void)
{
  const char *out = test_path ("out2.mkv");

  expect_play (test_launch ("filesrc location=%s ! decodebin ! internvl " SETTINGS " name=v ! "
          "x264enc tune=zerolatency ! matroskamux name=m ! filesink location=%s  v.text_src ! m.", clip (), model,
          out), NULL);
  read_subtitles (out, "matroskademux");
}

static void
test_mp4 (void)
{
  const char *out = test_path ("out.mp4");

  expect_play (test_launch ("filesrc location=%s ! decodebin ! internvl " SETTINGS " name=v ! "
          "queue max-size-time=0 max-size-bytes=0 max-size-buffers=0 ! x264enc ! mp4mux name=m ! "
          "filesink location=%s  v.text_src ! m.", clip (), model, out), NULL);
  read_subtitles (out, "qtdemux");
}

static void
test_text_only (void)
{
  g_autoptr (GPtrArray) results = test_structures_new ();

  expect_play (test_launch ("filesrc location=%s ! decodebin ! internvl " SETTINGS " name=v  "
          "v.text_src ! fakesink", clip (), model), results);
  expect_results (results);
}

static void
test_live (void)
{
  g_autoptr (GPtrArray) results = test_structures_new ();
  GstElement *pipeline = test_launch ("videotestsrc is-live=true num-buffers=40 ! "
      "video/x-raw, width=32, height=32, framerate=40/1 ! internvl model-path=%s chunk-size=1 frame-rate=10/1 "
      "max-tokens=1 name=v ! fakesink name=video  v.text_src ! fakesink", model);
  g_autoptr (GstElement) element = gst_bin_get_by_name (GST_BIN (pipeline), "v");
  g_autoptr (GstElement) sink = gst_bin_get_by_name (GST_BIN (pipeline), "video");
  g_autoptr (GstStructure) stats = NULL;
  g_autoptr (GError) error = NULL;

  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  g_autoptr (GstMessage) eos = test_wait_message (pipeline, GST_MESSAGE_EOS);
  g_object_get (element, "stats", &stats, NULL);
  g_assert_cmpuint (test_get_uint64 (stats, "chunks") + test_get_uint64 (stats, "dropped"), ==, 10);
  /* Every frame arrived. */
  g_autoptr (GstStructure) rendered = NULL;
  g_object_get (sink, "stats", &rendered, NULL);
  g_assert_cmpuint (test_get_uint64 (rendered, "rendered") + test_get_uint64 (rendered, "dropped"), ==, 40);
  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_object_unref (pipeline);
}

static void
test_seek (void)
{
  GstElement *pipeline = test_launch ("filesrc location=%s ! decodebin ! internvl " SETTINGS " name=v ! fakesink  "
      "v.text_src ! fakesink", clip (), model);

  test_set_state (pipeline, GST_STATE_PAUSED);
  for (guint i = 0; i < 3; i++) {
    g_assert_true (gst_element_seek (pipeline, 1, GST_FORMAT_TIME, GST_SEEK_FLAG_FLUSH | GST_SEEK_FLAG_ACCURATE,
            GST_SEEK_TYPE_SET, 7 * GST_SECOND, GST_SEEK_TYPE_NONE, 0));
    g_assert_cmpint (gst_element_get_state (pipeline, NULL, NULL, 60 * GST_SECOND), ==, GST_STATE_CHANGE_SUCCESS);
  }
  g_autoptr (GPtrArray) results = test_structures_new ();
  g_autoptr (GError) error = test_play (pipeline, results);
  g_assert_no_error (error);
  g_assert_cmpuint (results->len, >=, 1);
  const GstStructure *last = g_ptr_array_index (results, results->len - 1);
  g_assert_cmpuint (test_get_uint64 (last, "stream-time"), ==, 7 * GST_SECOND);
  g_assert_cmpuint (test_get_uint64 (last, "duration"), ==, 3 * GST_SECOND);
  g_assert_cmpuint (test_get_uint64 (last, "running-time"), ==, 0);
  gst_object_unref (pipeline);
}

/* The size changes between two files, in mid-chunk. */
static void
test_caps_change (void)
{
  g_autoptr (GPtrArray) results = test_structures_new ();

  expect_play (test_launch ("concat name=c ! internvl model-path=%s max-tokens=2 chunk-size=2 frame-rate=1/1 ! fakesink  "
          "videotestsrc num-buffers=15 ! video/x-raw, format=I420, width=64, height=48, framerate=10/1 ! c.  "
          "videotestsrc num-buffers=15 ! video/x-raw, format=YUY2, width=33, height=17, framerate=10/1 ! c.", model),
      results);
  g_assert_cmpuint (results->len, ==, 2);
  g_assert_cmpuint (test_get_uint64 (g_ptr_array_index (results, 0), "duration"), ==, 1500 * GST_MSECOND);
  g_assert_cmpuint (test_get_uint64 (g_ptr_array_index (results, 1), "duration"), ==, 1500 * GST_MSECOND);
  g_assert_cmpuint (test_get_uint64 (g_ptr_array_index (results, 1), "running-time"), ==, 1500 * GST_MSECOND);
}

/* What stands still is asked about once; what blinks is all cuts. */
static void
test_sampling (void)
{
  static const char *launch = "videotestsrc num-buffers=40 pattern=%s ! video/x-raw, width=64, height=48, framerate=10/1 ! "
      "internvl name=v model-path=%s max-tokens=2 chunk-size=2 frame-rate=2/1 sampling=%s ! fakesink";

  for (guint blinks = 0; blinks < 2; blinks++) {
    g_autoptr (GPtrArray) results = test_structures_new ();
    g_autoptr (GstStructure) stats = NULL;
    GstElement *pipeline = test_launch (launch, blinks ? "blink" : "smpte75", model, blinks ? "scene" : "motion");
    g_autoptr (GstElement) element = gst_bin_get_by_name (GST_BIN (pipeline), "v");
    g_autoptr (GError) error = test_play (pipeline, results);

    g_assert_no_error (error);
    g_object_get (element, "stats", &stats, NULL);
    g_assert_cmpuint (results->len, ==, blinks ? 4 : 1);
    g_assert_cmpuint (test_get_uint64 (stats, "skipped"), ==, blinks ? 0 : 3);
    g_assert_cmpuint (test_get_uint64 (stats, "frames-encoded"), ==, blinks ? 8 : 2);
    if (blinks)
      g_assert_cmpuint (test_get_uint64 (stats, "cuts"), >=, 8);
    else
      g_assert_cmpuint (test_get_uint64 (stats, "cuts"), ==, 0);
    gst_object_unref (pipeline);
  }
}

static void
test_still (void)
{
  g_autoptr (GPtrArray) results = test_structures_new ();
  const char *png = test_path ("still.png");

  expect_play (test_launch ("videotestsrc num-buffers=1 ! pngenc ! filesink location=%s", png), NULL);
  expect_play (test_launch ("filesrc location=%s ! pngdec ! internvl model-path=%s max-tokens=2 ! fakesink", png,
          model), results);
  g_assert_cmpuint (results->len, ==, 1);
}

/* What is on the video: each result, in order, none before its time; the last one on the last buffer. */
static void
on_video (GstElement *sink, GstBuffer *buffer, GstPad *pad, gpointer seen)
{
  gpointer state = NULL;
  GstMeta *meta;

  while ((meta = gst_buffer_iterate_meta_filtered (buffer, &state, gst_meta_get_info ("internvl")->api))) {
    const GstStructure *result = gst_custom_meta_get_structure ((GstCustomMeta *) meta);
    guint64 *next = seen, chunk = test_get_uint64 (result, "chunk");
    g_assert_true (chunk == *next || chunk + 1 == *next);
    *next = chunk + 1;
    g_assert_cmpuint (test_get_uint64 (result, "timestamp"), <=, GST_BUFFER_PTS (buffer));
  }
}

static void
test_meta (void)
{
  guint64 next = 0;
  GstElement *pipeline = test_launch ("filesrc location=%s ! decodebin ! internvl " SETTINGS " ! videoconvert ! "
      "fakesink name=video signal-handoffs=true", clip (), model);
  g_autoptr (GstElement) sink = gst_bin_get_by_name (GST_BIN (pipeline), "video");

  g_signal_connect (sink, "handoff", G_CALLBACK (on_video), &next);
  expect_play (pipeline, NULL);
  g_assert_cmpuint (next, ==, 3);
}

/* So that the stream has all the time to end with an error of its own first. */
static GstBusSyncReply
dawdle (GstBus *bus, GstMessage *message, gpointer data)
{
  if (GST_MESSAGE_TYPE (message) == GST_MESSAGE_ERROR && g_str_equal (GST_MESSAGE_SRC_NAME (message), "v"))
    g_usleep (300000);
  return GST_BUS_PASS;
}

static void
test_wrong_model (void)
{
  g_assert_true (g_file_set_contents (test_path ("config.json"), "not JSON", -1, NULL));
  for (guint text = 0; text < 2; text++) {
    GstElement *pipeline = test_launch ("videotestsrc ! internvl model-path=%s name=v ! fakesink %s",
        test_model_path (), text ? "v.text_src ! fakesink" : "");
    g_autoptr (GstBus) bus = gst_element_get_bus (pipeline);
    gst_bus_set_sync_handler (bus, dawdle, NULL, NULL);
    g_autoptr (GError) error = test_play (pipeline, NULL);

    g_assert_error (error, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_OPEN_READ);
    gst_object_unref (pipeline);
  }
  g_assert_true (g_file_set_contents (test_path ("config.json"), "{}", -1, NULL));
}

static void
test_missing_device (void)
{
  GstElement *pipeline = test_launch ("videotestsrc ! internvl model-path=%s device=no-such-thing ! fakesink", model);
  g_autoptr (GError) error = test_play (pipeline, NULL);

  g_assert_error (error, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND);
  gst_object_unref (pipeline);
}

static void
test_two (void)
{
  g_autoptr (GPtrArray) results = test_structures_new ();

  expect_play (test_launch ("filesrc location=%s ! decodebin ! tee name=t  "
          "t. ! queue ! internvl " SETTINGS " ! fakesink  t. ! queue ! internvl " SETTINGS " ! fakesink", clip (), model,
          model), results);
  g_assert_cmpuint (results->len, ==, 6);
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
#define add(path, name) g_test_add_func ("/pipeline/" path, name)
  add ("webvtt", test_webvtt);
  add ("srt", test_srt);
  add ("matroska", test_matroska);
  add ("matroska-no-queue", test_matroska_no_queue);
  add ("mp4", test_mp4);
  add ("text-only", test_text_only);
  add ("live", test_live);
  add ("seek", test_seek);
  add ("caps-change", test_caps_change);
  add ("sampling", test_sampling);
  add ("still", test_still);
  add ("meta", test_meta);
  add ("two", test_two);
  add ("missing-device", test_missing_device);
  add ("wrong-model", test_wrong_model);
  int status = g_test_run ();
  /* With GST_TRACERS=leaks it tells what is left. */
  gst_deinit ();
  return status;
}
