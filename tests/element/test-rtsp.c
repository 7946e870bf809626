/* A round trip over RTSP: a server in this process sends a file of H.264 on the loopback to rtspsrc and the element; the
 * network is cut, and comes back. */
#include "common.h"

#include <gst/rtsp-server/rtsp-server.h>

typedef struct {
  GMainContext *context;
  GMainLoop *loop;
  GThread *thread;
  GstRTSPServer *server;
  GstElement *pipeline;
  gint n_passed;                /* atomic; buffers on the src pad */
} Fixture;

/* A minute of video, which nobody waits for. */
static const char *
make_file (void)
{
  const char *path = test_path ("clip.mp4");
  GstElement *pipeline = test_launch ("videotestsrc pattern=ball num-buffers=1200 ! "
      "video/x-raw,format=I420,width=64,height=48,framerate=20/1 ! x264enc speed-preset=ultrafast key-int-max=10 ! mp4mux ! "
      "filesink location=%s", path);
  g_autoptr (GError) error = test_play (pipeline, NULL);

  g_assert_no_error (error);
  gst_object_unref (pipeline);
  return path;
}

/* NULL: the engine is the fake one. */
static const char *
real_model (void)
{
  return g_getenv ("INTERNVL_TEST_MODEL");
}

static gpointer
serve (gpointer data)
{
  Fixture *f = data;

  g_main_context_push_thread_default (f->context);
  g_main_loop_run (f->loop);
  g_main_context_pop_thread_default (f->context);
  return NULL;
}

static void
set_up (Fixture *f, gconstpointer data)
{
  f->context = g_main_context_new ();
  f->loop = g_main_loop_new (f->context, FALSE);
  f->server = gst_rtsp_server_new ();
  gst_rtsp_server_set_address (f->server, "127.0.0.1");
  /* Any free port. */
  gst_rtsp_server_set_service (f->server, "0");
  g_autoptr (GstRTSPMediaFactory) factory = gst_rtsp_media_factory_new ();
  g_autofree char *launch = g_strdup_printf ("( filesrc location=%s ! qtdemux ! h264parse ! "
      "rtph264pay name=pay0 pt=96 config-interval=-1 )", make_file ());
  gst_rtsp_media_factory_set_launch (factory, launch);
  g_autoptr (GstRTSPMountPoints) mounts = gst_rtsp_server_get_mount_points (f->server);
  gst_rtsp_mount_points_add_factory (mounts, "/camera", g_steal_pointer (&factory));
  g_assert_cmpuint (gst_rtsp_server_attach (f->server, f->context), >, 0);
  f->thread = g_thread_new ("rtsp-server", serve, f);
}

static GstRTSPFilterResult
remove_client (GstRTSPServer *server, GstRTSPClient *client, gpointer data)
{
  return GST_RTSP_FILTER_REMOVE;
}

static void
tear_down (Fixture *f, gconstpointer data)
{
  g_list_free (gst_rtsp_server_client_filter (f->server, remove_client, NULL));
  g_main_loop_quit (f->loop);
  g_thread_join (f->thread);
  g_object_unref (f->server);
  g_main_loop_unref (f->loop);
  g_main_context_unref (f->context);
}

static void
on_pad_added (GstElement *source, GstPad *pad, gpointer depay)
{
  g_autoptr (GstPad) sink = gst_element_get_static_pad (depay, "sink");

  g_assert_cmpint (gst_pad_link (pad, sink), ==, GST_PAD_LINK_OK);
}

static GstPadProbeReturn
count_buffer (GstPad *pad, GstPadProbeInfo *info, gpointer n_passed)
{
  g_atomic_int_inc ((gint *) n_passed);
  return GST_PAD_PROBE_OK;
}

/* A source that is started again has new pads, which gst_parse_launch would link only once. */
static void
begin (Fixture *f)
{
  f->pipeline = test_launch ("rtspsrc name=source location=rtsp://127.0.0.1:%d/camera protocols=tcp latency=0 "
      "rtph264depay name=depay ! avdec_h264 ! internvl name=v model-path=%s chunk-size=2 frame-rate=4/1 ! fakesink sync=false",
      gst_rtsp_server_get_bound_port (f->server), real_model () ? real_model () : test_model_path ());
  g_autoptr (GstElement) source = gst_bin_get_by_name (GST_BIN (f->pipeline), "source");
  g_autoptr (GstElement) depay = gst_bin_get_by_name (GST_BIN (f->pipeline), "depay");
  g_signal_connect_object (source, "pad-added", G_CALLBACK (on_pad_added), depay, 0);
  g_autoptr (GstElement) element = gst_bin_get_by_name (GST_BIN (f->pipeline), "v");
  g_autoptr (GstPad) pad = gst_element_get_static_pad (element, "src");
  gst_pad_add_probe (pad, GST_PAD_PROBE_TYPE_BUFFER, count_buffer, &f->n_passed, NULL);
  g_assert_cmpint (gst_element_set_state (f->pipeline, GST_STATE_PLAYING), !=, GST_STATE_CHANGE_FAILURE);
}

/* N results, whose times grow and are within what has been played; and video goes on beside them, all that is spoken of. */
static guint64
expect_results (Fixture *f, guint n, char **stream_id)
{
  guint64 first = 0, last = 0, dropped = 0;
  const gint passed = g_atomic_int_get (&f->n_passed);

  for (guint i = 0; i < n; i++) {
    g_autoptr (GstStructure) result = test_wait_result (f->pipeline);
    guint64 time = test_get_uint64 (result, "running-time"), duration = test_get_uint64 (result, "duration");

    if (real_model ())
      g_assert_cmpstr (gst_structure_get_string (result, "text"), !=, "");
    else
      g_assert_true (g_str_has_prefix (gst_structure_get_string (result, "text"), "2 frames"));
    g_assert_cmpuint (duration, <=, GST_SECOND);
    if (i)
      g_assert_cmpuint (time, >=, last + duration);
    else
      g_assert_cmpuint (test_get_uint64 (result, "chunk"), <=, test_get_uint64 (result, "dropped"));
    first = i ? first : time;
    g_assert_cmpuint (test_get_uint64 (result, "dropped"), >=, dropped);
    dropped = test_get_uint64 (result, "dropped");
    last = time;
    g_free (*stream_id);
    *stream_id = g_strdup (gst_structure_get_string (result, "stream-id"));
    g_assert_nonnull (*stream_id);
  }
  /* 20 frames a second, of which decoding may lose a few. */
  g_assert_cmpint (g_atomic_int_get (&f->n_passed) - passed, >=, (gint) ((last - first) / (GST_SECOND / 20)) / 2);
  return last;
}

static void
test_round_trip (Fixture *f, gconstpointer data)
{
  g_autofree char *id = NULL, *id_after = NULL;

  begin (f);
  guint64 before = expect_results (f, 3, &id);

  /* The network is cut: the connections go. rtspsrc says so, one way or the other, which is the application's to see. */
  g_list_free (gst_rtsp_server_client_filter (f->server, remove_client, NULL));
  g_autoptr (GstMessage) end = test_wait_message (f->pipeline, GST_MESSAGE_EOS | GST_MESSAGE_ERROR);
  g_assert_nonnull (end);
  g_clear_pointer (&end, gst_message_unref);

  /* And comes back: the application starts its source again. Nothing of what was before is told any more. */
  test_set_state (f->pipeline, GST_STATE_READY);
  g_autoptr (GstBus) bus = gst_element_get_bus (f->pipeline);
  gst_bus_set_flushing (bus, TRUE);
  gst_bus_set_flushing (bus, FALSE);
  g_assert_cmpint (gst_element_set_state (f->pipeline, GST_STATE_PLAYING), !=, GST_STATE_CHANGE_FAILURE);
  guint64 after = expect_results (f, 3, &id_after);
  g_assert_cmpstr (id_after, ==, id);
  g_assert_cmpuint (after, <, before + 60 * GST_SECOND);

  gpointer element = gst_bin_get_by_name (GST_BIN (f->pipeline), "v");
  g_object_add_weak_pointer (element, &element);
  gst_object_unref (element);
  test_set_state (f->pipeline, GST_STATE_NULL);
  g_assert_cmpint (GST_OBJECT_REFCOUNT_VALUE (f->pipeline), ==, 1);
  gst_object_unref (f->pipeline);
  g_assert_null (element);
}

int
main (int argc, char **argv)
{
  gst_init (&argc, &argv);
  g_test_init (&argc, &argv, NULL);
  g_test_add ("/rtsp/round-trip", Fixture, NULL, set_up, test_round_trip, tear_down);
  return g_test_run ();
}
