/* The element with the real engine and models/nano where life is rough: started and stopped a thousand times, taken out
 * while its chunk is decoded, flushed and seeked at random. Run with GST_TRACERS=leaks: no object may be left. */
#include "common.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *model;

static gsize
resident_bytes (void)
{
  g_autofree char *text = NULL;

  if (!g_file_get_contents ("/proc/self/statm", &text, NULL, NULL))
    return 0;
  const char *second = strchr (text, ' ');
  return second ? (gsize) g_ascii_strtoull (second, NULL, 10) * (gsize) sysconf (_SC_PAGESIZE) : 0;
}

/* Another element of the same model, so that the weights stay while the one under test comes and goes. */
static GstElement *
hold_model (void)
{
  GstElement *pipeline = test_launch ("videotestsrc num-buffers=4 ! video/x-raw,width=64,height=48,framerate=2/1 ! "
      "internvl model-path=%s max-tokens=2 ! fakesink", model);

  test_set_state (pipeline, GST_STATE_PLAYING);
  gst_message_unref (test_wait_message (pipeline, GST_MESSAGE_EOS));
  return pipeline;
}

static void
let_go (GstElement *pipeline)
{
  test_set_state (pipeline, GST_STATE_NULL);
  gst_object_unref (pipeline);
}

/* Ended at any of four moments: before a frame, with frames, with a chunk at the model, with all answered. */
static void
cycle (guint i)
{
  GstElement *pipeline = test_launch ("videotestsrc num-buffers=8 ! video/x-raw,width=64,height=48,framerate=4/1 ! "
      "internvl name=v model-path=%s chunk-duration=1000000000 chunk-size=2 max-tokens=4 ! fakesink "
      "v.text_src ! fakesink async=false", model);

  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  if (i % 4 == 1)
    gst_element_get_state (pipeline, NULL, NULL, GST_CLOCK_TIME_NONE);
  else if (i % 4 == 2)
    gst_structure_free (test_wait_result (pipeline));
  else if (i % 4 == 3)
    gst_message_unref (test_wait_message (pipeline, GST_MESSAGE_EOS));
  let_go (pipeline);
}

/* What is kept of every cycle grows in every window: a frame's pixels, 9 kB, would come to 1.8 MB in each. What the driver
 * compiles for a batch of a size that it had not seen, megabytes at a time, comes in some window or other. */
static void
test_cycles (void)
{
  enum { WINDOW = 200, WINDOWS = 4 };
  const gssize bound = 1500000;
  GstElement *holder = hold_model ();
  gssize least = G_MAXSSIZE, before = 0;

  for (guint i = 0; i <= WINDOWS; i++) {
    for (guint k = 0; k < WINDOW; k++)
      cycle (k);
    gssize after = (gssize) resident_bytes ();
    g_test_message ("%" G_GSSIZE_FORMAT " bytes resident after %u cycles", after, (i + 1) * WINDOW);
    if (i > 0)
      least = MIN (least, after - before);
    before = after;
  }
  let_go (holder);
#ifdef __SANITIZE_ADDRESS__
  return;                       /* keeps freed memory for a while; its own leak check says more */
#endif
  g_assert_cmpint (least, <, bound);
}

static void
test_removed_while_decoding (void)
{
  GstElement *holder = hold_model ();

  for (guint i = 0; i < 12; i++) {
    GstElement *pipeline = test_launch ("videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=30/1 ! "
        "tee name=t allow-not-linked=true t. ! queue ! fakesink sync=false t. ! queue name=q ! "
        "internvl name=v model-path=%s tokens=true chunk-duration=100000000 chunk-size=2 max-tokens=64 ! "
        "fakesink name=s sync=false", model);
    g_autoptr (GstElement) tee = gst_bin_get_by_name (GST_BIN (pipeline), "t");
    g_autoptr (GstElement) queue = gst_bin_get_by_name (GST_BIN (pipeline), "q");
    g_autoptr (GstElement) internvl = gst_bin_get_by_name (GST_BIN (pipeline), "v");
    g_autoptr (GstElement) sink = gst_bin_get_by_name (GST_BIN (pipeline), "s");
    g_autoptr (GstBus) bus = gst_element_get_bus (pipeline);

    gst_element_set_state (pipeline, GST_STATE_PLAYING);
    /* A piece of an answer: it is being decoded. */
    for (gboolean partial = FALSE; !partial;) {
      g_autoptr (GstMessage) message = test_wait_message (pipeline, GST_MESSAGE_ELEMENT);
      partial = gst_message_has_name (message, "internvl-tokens");
    }
    g_autoptr (GstPad) end = gst_element_get_static_pad (queue, "sink");
    g_autoptr (GstPad) from = gst_pad_get_peer (end);
    gst_pad_unlink (from, end);
    gst_element_release_request_pad (tee, from);
    GstElement *out[] = { queue, internvl, sink };
    for (guint k = 0; k < G_N_ELEMENTS (out); k++) {
      gst_object_ref (out[k]);
      g_assert_true (gst_bin_remove (GST_BIN (pipeline), out[k]));
      g_assert_cmpint (gst_element_set_state (out[k], GST_STATE_NULL), ==, GST_STATE_CHANGE_SUCCESS);
      gst_object_unref (out[k]);
    }
    /* The rest of the pipeline goes on. */
    g_autoptr (GstMessage) error = gst_bus_pop_filtered (bus, GST_MESSAGE_ERROR);
    g_assert_null (error);
    g_assert_cmpint (GST_STATE (pipeline), ==, GST_STATE_PLAYING);
    let_go (pipeline);
  }
  let_go (holder);
}

/* States and seeks at random, also from another thread than the stream's; in the end it still answers to the last. */
static void
test_storm (void)
{
  GstElement *holder = hold_model ();
  GstElement *pipeline = test_launch ("videotestsrc num-buffers=40 ! video/x-raw,width=64,height=48,framerate=10/1 ! "
      "internvl name=v model-path=%s chunk-duration=1000000000 chunk-size=2 max-tokens=4 policy=all ! fakesink name=s "
      "v.text_src ! fakesink async=false", model);
  static const GstState states[] = { GST_STATE_NULL, GST_STATE_READY, GST_STATE_PAUSED, GST_STATE_PLAYING };

  for (guint i = 0; i < 150; i++) {
    GstState state = states[g_test_rand_int_range (0, 4)];
    g_assert_cmpint (gst_element_set_state (pipeline, state), !=, GST_STATE_CHANGE_FAILURE);
    if (g_test_rand_int_range (0, 2))
      g_assert_cmpint (gst_element_get_state (pipeline, NULL, NULL, 60 * GST_SECOND), !=, GST_STATE_CHANGE_FAILURE);
    for (gint k = g_test_rand_int_range (0, 4); k > 0 && state >= GST_STATE_PAUSED; k--)
      gst_element_seek_simple (pipeline, GST_FORMAT_TIME, GST_SEEK_FLAG_FLUSH,
          (gint64) g_test_rand_int_range (0, 4) * GST_SECOND);
  }
  test_set_state (pipeline, GST_STATE_NULL);
  g_autoptr (GPtrArray) results = test_structures_new ();
  g_autoptr (GError) error = test_play (pipeline, results);
  g_assert_no_error (error);
  g_assert_cmpuint (results->len, ==, 4);
  let_go (pipeline);
  let_go (holder);
}

/* With GST_TRACERS=leaks: GStreamer's objects that are alive. */
static void
test_leaks (void)
{
  GList *tracers = gst_tracing_get_active_tracers ();
  GstTracer *leaks = NULL;

  for (GList *l = tracers; l; l = l->next)
    if (strcmp (G_OBJECT_TYPE_NAME (l->data), "GstLeaksTracer") == 0)
      leaks = l->data;
  if (!leaks) {
    g_test_skip ("GST_TRACERS=leaks is not set");
  } else {
    GstStructure *info = NULL;
    g_signal_emit_by_name (leaks, "get-live-objects", &info);
    const GValue *list = gst_structure_get_value (info, "live-objects-list");
    guint n = gst_value_list_get_size (list);
    for (guint i = 0; i < n; i++) {
      const GstStructure *one = gst_value_get_structure (gst_value_list_get_value (list, i));
      g_autofree char *text = gst_structure_to_string (one);
      g_test_message ("alive: %s", text);
    }
    gst_structure_free (info);
    g_assert_cmpuint (n, ==, 0);
  }
  g_list_free_full (tracers, gst_object_unref);
}

int
main (int argc, char **argv)
{
  gst_init (&argc, &argv);
  g_test_init (&argc, &argv, NULL);
  model = g_getenv ("INTERNVL_TEST_MODEL");
  g_assert_nonnull (model);
  g_test_add_func ("/storms/cycles", test_cycles);
  g_test_add_func ("/storms/removed-while-decoding", test_removed_while_decoding);
  g_test_add_func ("/storms/storm", test_storm);
  g_test_add_func ("/storms/leaks", test_leaks);
  return g_test_run ();
}
