/* The element by itself: scenes and motion. */
#include "fixture.h"

/* Frames of one colour each; the chunk begins with the first. */
static void
push_levels (Fixture *f, const guint8 *levels, guint n)
{
  for (guint i = 0; i < n; i++) {
    GstBuffer *buffer = make_frame (f->next++);

    gst_buffer_memset (buffer, 0, levels[i], -1);
    g_assert_cmpint (gst_harness_push (f->h, buffer), ==, GST_FLOW_OK);
  }
}

/* N chunks of ten frames of LEVEL. */
static void
push_still (Fixture *f, guint8 level, guint n)
{
  guint8 levels[10];

  memset (levels, level, sizeof levels);
  for (guint i = 0; i < n; i++)
    push_levels (f, levels, 10);
}

static void
eos (Fixture *f)
{
  gst_harness_push_event (f->h, gst_event_new_eos ());
}

static void
expect_gap (Fixture *f, GstClockTime time, GstClockTime duration)
{
  GstEvent *event;
  GstClockTime timestamp, length;

  for (;;) {
    event = gst_harness_pull_event (f->text);
    g_assert_nonnull (event);
    if (GST_EVENT_TYPE (event) == GST_EVENT_GAP) {
      gst_event_parse_gap (event, &timestamp, &length);
      /* But for the one that lets sinks preroll. */
      if (GST_CLOCK_TIME_IS_VALID (length))
        break;
    }
    gst_event_unref (event);
  }
  g_assert_cmpuint (timestamp, ==, time);
  g_assert_cmpuint (length, ==, duration);
  gst_event_unref (event);
}

static void
test_motion (void)
{
  Fixture f = { 0 };

  begin (&f, "policy=all sampling=motion motion-threshold=20", TRUE);
  play (&f);
  push_still (&f, 50, 3);       /* the first is asked about whatever it shows */
  push_still (&f, 69, 1);       /* too little */
  push_still (&f, 90, 1);       /* enough, from one chunk to the next */
  push_still (&f, 90, 1);
  eos (&f);
  expect_text (&f, 0, GST_SECOND, "2 frames #323232 #323232");
  expect_text (&f, 4 * GST_SECOND, GST_SECOND, "2 frames #5a5a5a #5a5a5a");
  expect_gap (&f, GST_SECOND, GST_SECOND);
  expect_gap (&f, 2 * GST_SECOND, GST_SECOND);
  expect_gap (&f, 3 * GST_SECOND, GST_SECOND);
  expect_gap (&f, 5 * GST_SECOND, GST_SECOND);
  g_assert_cmpuint (get_stat (&f, "chunks"), ==, 2);
  g_assert_cmpuint (get_stat (&f, "skipped"), ==, 4);
  g_assert_cmpuint (get_stat (&f, "dropped"), ==, 0);
  /* What is skipped is not encoded. */
  g_assert_cmpuint (get_stat (&f, "frames-encoded"), ==, 4);
  FakeCounts counts;
  fake_engine_get_counts (&counts);
  g_assert_cmpuint (counts.prefetches, ==, 0);
  g_assert_cmpuint (gst_harness_buffers_received (f.h), ==, f.next);
  g_autoptr (GstStructure) first = wait_result (&f);
  g_autoptr (GstStructure) second = wait_result (&f);
  g_assert_cmpuint (test_get_uint64 (second, "chunk"), ==, 4);
  g_assert_cmpuint (test_get_uint64 (second, "dropped"), ==, 0);
  /* Nor is it a failing. */
  g_assert_null (gst_bus_pop_filtered (f.bus, GST_MESSAGE_QOS));
  finish (&f);
}

/* The threshold and the way of sampling change while playing. */
static void
test_motion_changes (void)
{
  Fixture f = { 0 };

  begin (&f, "policy=all sampling=motion motion-threshold=20", FALSE);
  play (&f);
  push_still (&f, 50, 2);
  eos (&f);
  g_assert_cmpuint (get_stat (&f, "skipped"), ==, 1);
  finish (&f);

  begin (&f, "policy=all sampling=motion motion-threshold=20", FALSE);
  play (&f);
  push_still (&f, 50, 1);
  g_object_set (f.element, "motion-threshold", 5.f, NULL);
  push_still (&f, 60, 1);
  gst_util_set_object_arg (G_OBJECT (f.element), "sampling", "uniform");
  push_still (&f, 60, 2);
  gst_util_set_object_arg (G_OBJECT (f.element), "sampling", "motion");
  push_still (&f, 60, 2);
  eos (&f);
  /* Of frames that nobody compared it isn't known: they are asked about. */
  g_assert_cmpuint (get_stat (&f, "chunks"), ==, 4);
  g_assert_cmpuint (get_stat (&f, "skipped"), ==, 2);
  finish (&f);
}

/* What moved in a chunk that was dropped is seen in the next, also if that is still. */
static void
test_motion_unseen (void)
{
  Fixture f = { 0 };

  begin (&f, "policy=all sampling=motion", TRUE);
  play (&f);
  push_still (&f, 50, 1);
  push_levels (&f, (const guint8[]) { 50 }, 1);
  expect_text (&f, 0, GST_SECOND, "2 frames #323232 #323232");
  fake_engine_hold_changes (TRUE);
  g_object_set (f.element, "max-latency", (guint64) 1, NULL);
  push_levels (&f, (const guint8[]) { 50, 200, 200, 200, 200, 200, 200, 200, 200 }, 9);
  push_levels (&f, (const guint8[]) { 200 }, 1);
  g_object_set (f.element, "max-latency", (guint64) 0, NULL);
  g_usleep (1000);
  fake_engine_hold_changes (FALSE);
  push_levels (&f, (const guint8[]) { 200, 200, 200, 200, 200, 200, 200, 200, 200 }, 9);
  push_still (&f, 200, 1);
  eos (&f);
  expect_text (&f, 2 * GST_SECOND, GST_SECOND, "2 frames #c8c8c8 #c8c8c8");
  g_assert_cmpuint (get_stat (&f, "chunks"), ==, 2);
  g_assert_cmpuint (get_stat (&f, "dropped"), ==, 1);
  g_assert_cmpuint (get_stat (&f, "skipped"), ==, 1);
  finish (&f);
}

/* The video is not held up by what waits to be compared, and a still chunk takes no moving one's place. */
static void
test_motion_live (void)
{
  Fixture f = { 0 };

  begin (&f, "policy=live sampling=motion", FALSE);
  play (&f);
  push_still (&f, 10, 1);
  while (get_stat (&f, "chunks") == 0)
    push_still (&f, 10, 1);
  fake_engine_hold_changes (TRUE);
  guint before = gst_harness_buffers_received (f.h);
  push_still (&f, 200, 30);
  g_assert_cmpuint (gst_harness_buffers_received (f.h), ==, before + 300);
  fake_engine_hold_changes (FALSE);
  eos (&f);
  guint64 chunks = get_stat (&f, "chunks"), dropped = get_stat (&f, "dropped"), skipped = get_stat (&f, "skipped");
  g_assert_cmpuint (chunks, >=, 2);
  g_assert_cmpuint (chunks + dropped + skipped, ==, f.next / 10);
  g_assert_cmpuint (gst_harness_buffers_received (f.h), ==, f.next);
  finish (&f);
}

/* A flush, the end, and an error, while frames are being compared. */
static void
test_interrupted (void)
{
  Fixture f = { 0 };
  GstSegment segment;

  begin (&f, "policy=all sampling=motion", TRUE);
  fake_engine_hold_changes (TRUE);
  play (&f);
  push_still (&f, 10, 1);
  gst_harness_push_event (f.h, gst_event_new_flush_start ());
  gst_harness_push_event (f.h, gst_event_new_flush_stop (TRUE));
  gst_segment_init (&segment, GST_FORMAT_TIME);
  gst_harness_push_event (f.h, gst_event_new_segment (&segment));
  fake_engine_hold_changes (FALSE);
  f.next = 100;
  /* The first after a flush is asked about. */
  push_still (&f, 10, 2);
  eos (&f);
  expect_text (&f, 10 * GST_SECOND, GST_SECOND, "2 frames #0a0a0a #0a0a0a");
  g_assert_cmpuint (get_stat (&f, "skipped"), ==, 1);
  finish (&f);

  begin (&f, "policy=all sampling=scene on-error=passthrough", FALSE);
  fake_engine_fail (FAKE_CHANGE, IVL_ERROR_OUT_OF_MEMORY, 1);
  play (&f);
  push_still (&f, 10, 2);
  eos (&f);
  gst_message_unref (wait_message (&f, GST_MESSAGE_WARNING));
  g_assert_cmpuint (get_stat (&f, "chunks"), ==, 2);
  finish (&f);

  begin (&f, "policy=all sampling=scene", FALSE);
  fake_engine_fail (FAKE_CHANGE, IVL_ERROR_DEVICE_LOST, 1);
  play (&f);
  while (gst_harness_push (f.h, make_frame (f.next++)) == GST_FLOW_OK);
  expect_error (&f, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_FAILED, "made to fail");
  finish (&f);
}

/* The last comparison ends while the thread that waits for it frees a cancelled answer. */
static void
test_compared_while_freeing (void)
{
  Fixture f = { 0 };

  begin (&f, "policy=all sampling=motion", FALSE);
  fake_engine_hold_answers (TRUE);
  play (&f);
  push_still (&f, 10, 2);
  fake_engine_wait_asked (1);
  fake_engine_hold_changes_until_freed ();
  push_still (&f, 200, 1);
  fake_engine_wait_changes (1);
  finish (&f);
}

static void
test_scene (void)
{
  Fixture f = { 0 };

  /* Eight are looked at for two that are wanted: frames 0, 1, 3, 4, 5, 6, 8, 9. */
  begin (&f, "policy=all sampling=scene scene-threshold=0.3", TRUE);
  play (&f);
  push_levels (&f, (const guint8[]) { 10, 10, 10, 10, 10, 10, 10, 10, 10, 200 }, 10);
  push_levels (&f, (const guint8[]) { 200, 201, 202, 203, 204, 205, 206, 207, 208, 209 }, 10);
  /* More scenes than frames that are wanted: the longest. */
  push_levels (&f, (const guint8[]) { 0, 100, 200, 200, 200, 200, 100, 0, 0, 0 }, 10);
  eos (&f);
  expect_text (&f, 0, GST_SECOND, "2 frames #0a0a0a #c8c8c8");
  expect_text (&f, GST_SECOND, GST_SECOND, "2 frames #cbcbcb #d0d0d0");
  expect_text (&f, 2 * GST_SECOND, GST_SECOND, "2 frames #c8c8c8 #000000");
  g_assert_cmpuint (get_stat (&f, "chunks"), ==, 3);
  g_assert_cmpuint (get_stat (&f, "cuts"), ==, 1 + 1 + 4);
  /* Only what was chosen. */
  g_assert_cmpuint (get_stat (&f, "frames-encoded"), ==, 6);
  g_autoptr (GstStructure) first = wait_result (&f);
  const GValue *frames = gst_structure_get_value (first, "frames");
  g_assert_cmpuint (gst_value_array_get_size (frames), ==, 2);
  g_assert_cmpuint (g_value_get_uint64 (gst_value_array_get_value (frames, 1)), ==, 9 * PERIOD);
  finish (&f);
}

/* Back to uniform in mid-chunk: a chunk never has more frames than it was to have. */
static void
test_scene_off (void)
{
  Fixture f = { 0 };

  begin (&f, "policy=all sampling=scene", FALSE);
  play (&f);
  push_still (&f, 10, 1);
  push_levels (&f, (const guint8[]) { 10, 10, 10, 10, 10 }, 5);
  gst_util_set_object_arg (G_OBJECT (f.element), "sampling", "uniform");
  push_levels (&f, (const guint8[]) { 10, 10, 10, 10, 10 }, 5);
  push_still (&f, 10, 1);
  eos (&f);
  g_assert_cmpuint (get_stat (&f, "chunks"), ==, 3);
  for (guint i = 0; i < 3; i++)
    g_assert_cmpuint (fake_engine_get_question (i)->n_images, ==, 2);
  finish (&f);
}

int
main (int argc, char **argv)
{
  gst_init (&argc, &argv);
  g_test_init (&argc, &argv, NULL);
#define add(path, name) g_test_add_func ("/sampling/" path, name)
  add ("motion", test_motion);
  add ("motion/changes", test_motion_changes);
  add ("motion/unseen", test_motion_unseen);
  add ("motion/live", test_motion_live);
  add ("interrupted", test_interrupted);
  add ("compared-while-freeing", test_compared_while_freeing);
  add ("scene", test_scene);
  add ("scene/off", test_scene_off);
  int status = g_test_run ();
  gst_deinit ();
  return status;
}
