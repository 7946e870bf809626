/* The element by itself: what is asked and how, and what is saved. */
#include "fixture.h"

#include <gst/video/video.h>

/* ---- what is not computed ---- */

static void
test_reuse_threshold (void)
{
  Fixture f = { 0 };

  /* Sampled frames are 5 levels apart, and compared with the one that was encoded last. */
  begin (&f, "policy=all reuse-threshold=6", TRUE);
  play (&f);
  push_frames (&f, 21);
  expect_text (&f, 0, GST_SECOND, "2 frames #020202 #020202");
  expect_text (&f, GST_SECOND, GST_SECOND, "2 frames #0c0c0c #0c0c0c");
  g_object_set (f.element, "reuse-threshold", 0.f, NULL);
  push_frames (&f, 9);
  gst_harness_push_event (f.h, gst_event_new_eos ());
  expect_text (&f, 2 * GST_SECOND, GST_SECOND, "2 frames #161616 #1b1b1b");
  g_assert_cmpuint (get_stat (&f, "frames-encoded"), ==, 4);
  g_assert_cmpuint (get_stat (&f, "frames-reused"), ==, 2);
  finish (&f);
}

/* What was seen before a flush is not what comes after it. */
static void
test_reuse_flush (void)
{
  Fixture f = { 0 };
  GstSegment segment;

  begin (&f, "policy=all reuse-threshold=255", TRUE);
  play (&f);
  push_frames (&f, 11);
  expect_text (&f, 0, GST_SECOND, "2 frames #020202 #020202");
  gst_harness_push_event (f.h, gst_event_new_flush_start ());
  gst_harness_push_event (f.h, gst_event_new_flush_stop (TRUE));
  gst_segment_init (&segment, GST_FORMAT_TIME);
  gst_harness_push_event (f.h, gst_event_new_segment (&segment));
  f.next = 100;
  push_frames (&f, 11);
  expect_text (&f, 10 * GST_SECOND, GST_SECOND, "2 frames #666666 #666666");
  finish (&f);
}

int
main (int argc, char **argv)
{
  gst_init (&argc, &argv);
  g_test_init (&argc, &argv, NULL);
#define add(path, name) g_test_add_func ("/questions/" path, name)
  add ("reuse-threshold", test_reuse_threshold);
  add ("reuse-flush", test_reuse_flush);
  int status = g_test_run ();
  /* With GST_TRACERS=leaks it tells what is left. */
  gst_deinit ();
  return status;
}
