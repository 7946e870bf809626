/* The element by itself: what comes out, policies, events, failures, states. */
#include "fixture.h"

#include <dlfcn.h>
#include <gst/video/video.h>

/* ---- what comes out ---- */

static void
test_all (void)
{
  Fixture f = { 0 };

  begin (&f, "policy=all", TRUE);
  play (&f);
  g_assert_cmpint (push_frames (&f, 24), ==, GST_FLOW_OK);
  gst_harness_push_event (f.h, gst_event_new_eos ());
  expect_text (&f, 0, GST_SECOND, "2 frames #020202 #070707");
  expect_text (&f, GST_SECOND, GST_SECOND, "2 frames #0c0c0c #111111");
  expect_text (&f, 2 * GST_SECOND, 4 * PERIOD, "1 frames #161616");
  /* Each buffer, in order, before EOS. */
  g_assert_cmpuint (gst_harness_buffers_received (f.h), ==, 24);
  for (guint i = 0; i < 24; i++) {
    GstBuffer *buffer = gst_harness_pull (f.h);
    g_assert_cmpuint (GST_BUFFER_PTS (buffer), ==, i * PERIOD);
    if (i == 23) {
      /* The last one carries what was answered last. */
      GstMeta *meta;
      gpointer state = NULL;
      guint64 chunk = G_MAXUINT64;
      while ((meta = gst_buffer_iterate_meta_filtered (buffer, &state, gst_meta_get_info ("internvl")->api)))
        chunk = test_get_uint64 (gst_custom_meta_get_structure ((GstCustomMeta *) meta), "chunk");
      g_assert_cmpuint (chunk, ==, 2);
    }
    gst_buffer_unref (buffer);
  }
  g_assert_cmpuint (get_stat (&f, "chunks"), ==, 3);
  g_assert_cmpuint (get_stat (&f, "dropped"), ==, 0);
  g_assert_cmpuint (get_stat (&f, "frames-encoded"), ==, 5);
  g_assert_cmpuint (get_stat (&f, "tokens"), ==, 15);
  finish (&f);
}

static void
test_result (void)
{
  Fixture f = { 0 };

  begin (&f, "policy=all prompt=\"from {start} to {end} at {frames}\" system-prompt=Short. temperature=0.5 top-k=3 "
      "top-p=0.9 seed=7 max-tokens=11 repetition-penalty=1.5 max-tiles=6", FALSE);
  play (&f);
  push_frames (&f, 11);
  GstStructure *result = wait_result (&f);
  g_assert_cmpstr (gst_structure_get_string (result, "text"), ==, "2 frames #020202 #070707");
  g_assert_cmpuint (test_get_uint64 (result, "timestamp"), ==, 0);
  g_assert_cmpuint (test_get_uint64 (result, "duration"), ==, GST_SECOND);
  g_assert_cmpuint (test_get_uint64 (result, "stream-time"), ==, 0);
  g_assert_cmpuint (test_get_uint64 (result, "running-time"), ==, 0);
  g_assert_cmpuint (test_get_uint64 (result, "chunk"), ==, 0);
  g_assert_cmpuint (test_get_uint64 (result, "dropped"), ==, 0);
  g_assert_true (gst_structure_has_field_typed (result, "latency", G_TYPE_UINT64));
  g_assert_true (gst_structure_has_field_typed (result, "stream-id", G_TYPE_STRING));
  g_assert_true (gst_structure_has_field_typed (result, "model", G_TYPE_STRING));
  g_assert_cmpstr (gst_structure_get_string (result, "prompt"), ==,
      "from 00:00:00.000 to 00:00:01.000 at 00:00:00.200, 00:00:00.700");
  g_assert_cmpstr (gst_structure_get_string (result, "finish"), ==, "stop");
  guint tokens;
  double confidence;
  g_assert_true (gst_structure_get_uint (result, "prompt-tokens", &tokens) && tokens == 522);
  g_assert_true (gst_structure_get_uint (result, "generated-tokens", &tokens) && tokens == 5);
  g_assert_true (gst_structure_get_double (result, "confidence", &confidence) && confidence == 0.5);
  const GValue *frames = gst_structure_get_value (result, "frames");
  g_assert_cmpuint (gst_value_array_get_size (frames), ==, 2);
  g_assert_cmpuint (g_value_get_uint64 (gst_value_array_get_value (frames, 1)), ==, 7 * PERIOD);
  gst_structure_free (result);

  const FakeQuestion *question = fake_engine_get_question (0);
  g_assert_cmpstr (question->system_prompt, ==, "Short.");
  g_assert_cmpint (question->media, ==, IVL_MEDIA_VIDEO);
  g_assert_cmpuint (question->max_tiles, ==, 6);
  g_assert_cmpfloat (question->params.temperature, ==, 0.5f);
  g_assert_cmpfloat (question->params.top_p, ==, 0.9f);
  g_assert_cmpuint (question->params.top_k, ==, 3);
  g_assert_cmpuint (question->params.seed, ==, 7);
  g_assert_cmpuint (question->params.max_tokens, ==, 11);
  g_assert_cmpfloat (question->params.repetition_penalty, ==, 1.5f);
  finish (&f);
}

static void
test_text_events (void)
{
  Fixture f = { 0 };
  const GstEventType expected[] = { GST_EVENT_STREAM_START, GST_EVENT_CAPS, GST_EVENT_SEGMENT, GST_EVENT_GAP };
  GstStreamFlags flags;
  GstCaps *caps;

  /* Before there is a model, a frame or an answer: sinks preroll on it. */
  fake_engine_hold_loading (TRUE);
  begin (&f, "policy=all", TRUE);
  play (&f);
  for (guint i = 0; i < G_N_ELEMENTS (expected); i++) {
    GstEvent *event = gst_harness_pull_event (f.text);
    g_assert_nonnull (event);
    g_assert_cmpint (GST_EVENT_TYPE (event), ==, expected[i]);
    if (i == 0) {
      gst_event_parse_stream_flags (event, &flags);
      g_assert_true (flags & GST_STREAM_FLAG_SPARSE);
    } else if (i == 1) {
      gst_event_parse_caps (event, &caps);
      g_assert_cmpstr (gst_structure_get_string (gst_caps_get_structure (caps, 0), "format"), ==, "utf8");
    }
    gst_event_unref (event);
  }
  fake_engine_hold_loading (FALSE);
  finish (&f);
}

static void
test_text_formats (void)
{
  static const struct
  {
    const char *property, *peer, *name, *format, *text;
  } cases[] = {
    {"", NULL, "text/x-raw", "utf8", "a < b"},
    {"", "text/x-raw, format={pango-markup, utf8}", "text/x-raw", "pango-markup", "a &lt; b"},
    {"", "text/x-raw, format=utf8", "text/x-raw", "utf8", "a < b"},
    {"text-format=pango-markup", NULL, "text/x-raw", "pango-markup", "a &lt; b"},
    {"text-format=utf8", "text/x-raw, format={pango-markup, utf8}", "text/x-raw", "utf8", "a < b"},
    {"text-format=json", NULL, "application/x-json", NULL, NULL},
    {"", "application/x-json", "application/x-json", NULL, NULL},
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    Fixture f = { 0 };
    g_autofree char *properties = g_strconcat ("policy=all ", cases[i].property, NULL);

    begin (&f, properties, TRUE);
    fake_engine_set_answer ("a < b");
    if (cases[i].peer)
      gst_harness_set_sink_caps_str (f.text, cases[i].peer);
    play (&f);
    push_frames (&f, 10);
    gst_harness_push_event (f.h, gst_event_new_eos ());
    GstBuffer *buffer = gst_harness_pull (f.text);
    GstCaps *caps = gst_pad_get_current_caps (f.text->sinkpad);
    const GstStructure *structure = gst_caps_get_structure (caps, 0);
    g_assert_true (gst_structure_has_name (structure, cases[i].name));
    g_assert_cmpstr (gst_structure_get_string (structure, "format"), ==, cases[i].format);
    if (cases[i].text) {
      g_assert_cmpint (gst_buffer_memcmp (buffer, 0, cases[i].text, strlen (cases[i].text)), ==, 0);
    } else {
      g_assert_cmpint (gst_buffer_memcmp (buffer, 0, "{\"text\":\"a < b\"", 15), ==, 0);
      g_assert_cmpint (gst_buffer_memcmp (buffer, gst_buffer_get_size (buffer) - 2, "}\n", 2), ==, 0);
    }
    gst_caps_unref (caps);
    gst_buffer_unref (buffer);
    finish (&f);
  }
}

static void
test_text_not_negotiable (void)
{
  Fixture f = { 0 };

  begin (&f, "policy=all text-format=json", TRUE);
  gst_harness_set_sink_caps_str (f.text, "text/x-raw, format=utf8");
  play (&f);
  expect_error (&f, GST_CORE_ERROR, GST_CORE_ERROR_NEGOTIATION, "text-format");
  finish (&f);
}

static void
test_boxes (void)
{
  Fixture f = { 0 };

  begin (&f, "policy=all", TRUE);
  fake_engine_set_answer ("<ref>ball</ref><box>[[0,0,500,1000]]</box>");
  play (&f);
  push_frames (&f, 10);
  gst_harness_push_event (f.h, gst_event_new_eos ());
  expect_text (&f, 0, GST_SECOND, "ball");
  g_autoptr (GstStructure) posted = wait_result (&f);
  const GValue *boxes = gst_structure_get_value (posted, "boxes");
  g_assert_true (GST_VALUE_HOLDS_ARRAY (boxes));
  g_assert_cmpuint (gst_value_array_get_size (boxes), ==, 1);
  const GstStructure *box = gst_value_get_structure (gst_value_array_get_value (boxes, 0));
  gint width;
  g_assert_cmpstr (gst_structure_get_string (box, "label"), ==, "ball");
  g_assert_true (gst_structure_get_int (box, "w", &width));
  g_assert_cmpint (width, ==, 8);
  for (guint i = 0; i < 10; i++) {
    GstBuffer *buffer = gst_harness_pull (f.h);
    GstVideoRegionOfInterestMeta *roi = gst_buffer_get_video_region_of_interest_meta_id (buffer, 0);
    if (i == 9) {
      g_assert_nonnull (roi);
      g_assert_cmpuint (roi->w, ==, 8);
      g_assert_cmpuint (roi->h, ==, 16);
    }
    gst_buffer_unref (buffer);
  }
  finish (&f);
}

/* ---- policies ---- */

static void
test_live_newest_wins (void)
{
  Fixture f = { 0 };
  FakeCounts counts;
  guint images = 0;

  begin (&f, "policy=live", TRUE);
  fake_engine_hold_answers (TRUE);
  play (&f);
  /* The model is there when the first one is asked. */
  do
    push_frames (&f, 10);
  while (f.next < 20 || (g_usleep (1000), fake_engine_get_counts (&(FakeCounts) { 0 }), get_stat (&f,
              "frames-encoded") < 2));
  g_assert_cmpint (push_frames (&f, 10), ==, GST_FLOW_OK);
  fake_engine_wait_asked (1);
  for (guint i = 0; i < 50; i++) {
    /* Video goes on with the model stuck. */
    guint before = gst_harness_buffers_received (f.h);
    g_assert_cmpint (push_frames (&f, 1), ==, GST_FLOW_OK);
    g_assert_cmpuint (gst_harness_buffers_received (f.h), ==, before + 1);
    /* Its frames are there, so that nothing but a newer one is in a chunk's way. */
    fake_engine_get_counts (&counts);
    if (i % 10 == 0)
      images = counts.images;
    for (guint wait = 0; i % 10 == 9 && wait < 1000 && counts.images < images + 2; wait++) {
      g_usleep (1000);
      fake_engine_get_counts (&counts);
    }
  }
  fake_engine_release_answers (1000);
  gst_harness_push_event (f.h, gst_event_new_eos ());

  /* Every chunk is accounted for, and the video isn't short of a frame. */
  guint64 chunks = get_stat (&f, "chunks"), dropped = get_stat (&f, "dropped");
  g_assert_cmpuint (gst_harness_buffers_received (f.h), ==, f.next);
  g_assert_cmpuint (chunks + dropped, ==, f.next / 10);
  g_assert_cmpuint (dropped, >=, 3);
  /* The one that was being answered, and the newest. */
  g_assert_cmpuint (chunks, <=, 2);
  fake_engine_get_counts (&counts);
  g_assert_cmpuint (counts.most_at_once, ==, 1);
  gst_message_unref (wait_message (&f, GST_MESSAGE_QOS));
  finish (&f);
}

static void
test_live_while_loading (void)
{
  Fixture f = { 0 };

  fake_engine_hold_loading (TRUE);      /* the harness starts the element */
  begin (&f, "policy=live", FALSE);
  play (&f);
  fake_engine_wait_loading (1);
  g_assert_cmpint (push_frames (&f, 100), ==, GST_FLOW_OK);
  g_assert_cmpuint (gst_harness_buffers_received (f.h), ==, 100);
  /* Nor are its buffers kept: the harness has them all. */
  for (guint i = 0; i < 90; i++) {
    GstBuffer *buffer = gst_harness_pull (f.h);
    g_assert_cmpint (GST_MINI_OBJECT_REFCOUNT_VALUE (buffer), ==, 1);
    gst_buffer_unref (buffer);
  }
  fake_engine_hold_loading (FALSE);
  gst_harness_push_event (f.h, gst_event_new_eos ());
  g_assert_cmpuint (get_stat (&f, "dropped"), >=, 9);
  finish (&f);
}

static void
test_live_stuck_worker (void)
{
  Fixture f = { 0 };

  begin (&f, "policy=live", FALSE);
  play (&f);
  push_frames (&f, 10);
  g_autoptr (GstStructure) result = NULL;
  while (get_stat (&f, "chunks") == 0 && get_stat (&f, "dropped") == 0)
    push_frames (&f, 10);
  fake_engine_hold_images (TRUE);
  g_assert_cmpint (push_frames (&f, 100), ==, GST_FLOW_OK);
  g_assert_cmpuint (gst_harness_buffers_received (f.h), ==, f.next);
  fake_engine_hold_images (FALSE);
  finish (&f);
}

static gpointer
push_thread (gpointer data)
{
  return GINT_TO_POINTER (push_frames (data, 200));
}

static void
test_back_pressure (void)
{
  Fixture f = { 0 };

  begin (&f, "policy=all", FALSE);
  fake_engine_hold_answers (TRUE);
  play (&f);
  GThread *thread = g_thread_new ("push", push_thread, &f);
  fake_engine_wait_asked (2);
  /* However slow the model, nothing is skipped and no more than a few chunks wait. */
  for (guint i = 1; i < 20; i++) {
    fake_engine_release_answers (1);
    g_autoptr (GstStructure) result = wait_result (&f);
    g_assert_cmpuint (test_get_uint64 (result, "chunk"), ==, i - 1);
    g_assert_cmpuint (gst_harness_buffers_received (f.h), <=, (i + 4) * 10);
  }
  fake_engine_release_answers (1);
  g_assert_cmpint (GPOINTER_TO_INT (g_thread_join (thread)), ==, GST_FLOW_OK);
  gst_harness_push_event (f.h, gst_event_new_eos ());
  g_assert_cmpuint (get_stat (&f, "chunks"), ==, 20);
  g_assert_cmpuint (get_stat (&f, "dropped"), ==, 0);
  finish (&f);
}

static void
test_previous (void)
{
  Fixture f = { 0 };

  begin (&f, "policy=all prompt=\"before: {previous}\"", FALSE);
  fake_engine_set_answer ("answer {i}");
  play (&f);
  push_frames (&f, 40);
  gst_harness_push_event (f.h, gst_event_new_eos ());
  g_assert_cmpstr (fake_engine_get_question (0)->prompt, ==, "before: ");
  g_assert_cmpstr (fake_engine_get_question (1)->prompt, ==, "before: answer 0");
  g_assert_cmpstr (fake_engine_get_question (3)->prompt, ==, "before: answer 2");
  FakeCounts counts;
  fake_engine_get_counts (&counts);
  g_assert_cmpuint (counts.most_at_once, ==, 1);
  finish (&f);
}

static void
test_overlap_encodes_once (void)
{
  Fixture f = { 0 };

  begin (&f, "policy=all chunk-stride=500000000", FALSE);
  play (&f);
  push_frames (&f, 30);
  gst_harness_push_event (f.h, gst_event_new_eos ());
  g_assert_cmpuint (get_stat (&f, "chunks"), ==, 5);
  g_assert_cmpuint (get_stat (&f, "frames-encoded"), ==, 6);
  g_assert_cmpuint (get_stat (&f, "frames-reused"), ==, 4);
  finish (&f);
}

/* ---- the text pad ---- */

static GstPadProbeReturn
block (GstPad *pad, GstPadProbeInfo *info, gpointer data)
{
  return GST_PAD_PROBE_OK;
}

static void
test_blocked_text (void)
{
  Fixture f = { 0 };

  for (guint live = 0; live < 2; live++) {
    begin (&f, live ? "policy=live" : "policy=all", TRUE);
    GstPad *pad = gst_element_get_static_pad (f.element, "text_src");
    gulong id = gst_pad_add_probe (pad, GST_PAD_PROBE_TYPE_BLOCK_DOWNSTREAM, block, NULL, NULL);
    play (&f);
    g_assert_cmpint (push_frames (&f, 100), ==, GST_FLOW_OK);
    /* EOS waits for the answers, not for whoever reads them. */
    gst_harness_push_event (f.h, gst_event_new_eos ());
    g_assert_cmpuint (gst_harness_buffers_received (f.h), ==, 100);
    g_assert_cmpuint (gst_harness_buffers_received (f.text), ==, 0);
    if (!live) {
      gst_pad_remove_probe (pad, id);
      for (guint i = 0; i < 10; i++)
        gst_buffer_unref (gst_harness_pull (f.text));
    }
    gst_object_unref (pad);
    finish (&f);
  }
}

static void
test_text_pad_later (void)
{
  Fixture f = { 0 };

  begin (&f, "policy=all", FALSE);
  play (&f);
  push_frames (&f, 11);
  gst_structure_free (wait_result (&f));
  f.text = gst_harness_new_with_element (f.element, NULL, "text_src");
  g_assert_null (gst_element_request_pad (f.element, gst_element_get_pad_template (f.element, "text_src"), NULL,
          NULL));
  push_frames (&f, 10);
  expect_text (&f, GST_SECOND, GST_SECOND, "2 frames #0c0c0c #111111");
  /* And away again, with the stream running. */
  gst_harness_teardown (f.text);
  f.text = NULL;
  g_assert_cmpint (push_frames (&f, 20), ==, GST_FLOW_OK);
  f.text = gst_harness_new_with_element (f.element, NULL, "text_src");
  gst_harness_push_event (f.h, gst_event_new_eos ());
  GstEvent *event;
  do {
    event = gst_harness_pull_event (f.text);
    g_assert_nonnull (event);
    gst_event_unref (event);
  } while (GST_EVENT_TYPE (event) != GST_EVENT_EOS);
  finish (&f);
}

/* ---- events ---- */

static void
test_flush (void)
{
  Fixture f = { 0 };
  GstSegment segment;

  begin (&f, "policy=all", TRUE);
  fake_engine_hold_answers (TRUE);
  play (&f);
  push_frames (&f, 15);
  fake_engine_wait_asked (1);
  gst_harness_push_event (f.h, gst_event_new_flush_start ());
  /* Asked, and not wanted any more. */
  fake_engine_wait_answered (1);
  g_assert_true (fake_engine_get_question (0)->cancelled);
  gst_harness_push_event (f.h, gst_event_new_flush_stop (TRUE));
  gst_segment_init (&segment, GST_FORMAT_TIME);
  segment.start = segment.time = segment.position = 60 * GST_SECOND;
  gst_harness_push_event (f.h, gst_event_new_segment (&segment));
  fake_engine_hold_answers (FALSE);
  f.next = 600;
  push_frames (&f, 11);
  expect_text (&f, 60 * GST_SECOND, GST_SECOND, "2 frames #5a5a5a #5f5f5f");
  g_autoptr (GstStructure) result = wait_result (&f);
  g_assert_cmpuint (test_get_uint64 (result, "running-time"), ==, 0);
  g_assert_cmpuint (test_get_uint64 (result, "stream-time"), ==, 60 * GST_SECOND);
  finish (&f);
}

static void
test_flush_storm (void)
{
  Fixture f = { 0 };
  GstSegment segment;

  begin (&f, "policy=all", TRUE);
  play (&f);
  gst_segment_init (&segment, GST_FORMAT_TIME);
  for (guint i = 0; i < 200; i++) {
    push_frames (&f, g_random_int_range (0, 40));
    gst_harness_push_event (f.h, gst_event_new_flush_start ());
    gst_harness_push_event (f.h, gst_event_new_flush_stop (TRUE));
    gst_harness_push_event (f.h, gst_event_new_segment (&segment));
    f.next = 0;
  }
  finish (&f);
}

/* Stream time is what the text is stamped with, whatever the time stamps of the video. */
static void
test_segment (void)
{
  Fixture f = { 0 };
  GstSegment segment;

  begin (&f, "policy=all", TRUE);
  play (&f);
  push_frames (&f, 5);
  gst_segment_init (&segment, GST_FORMAT_TIME);
  segment.start = segment.position = 3600 * GST_SECOND;
  segment.time = 5 * GST_SECOND;
  segment.base = GST_SECOND;
  /* A new segment ends a chunk. */
  gst_harness_push_event (f.h, gst_event_new_segment (&segment));
  f.next = 36000 - 3;
  push_frames (&f, 14);
  gst_harness_push_event (f.h, gst_event_new_eos ());
  expect_text (&f, 0, 5 * PERIOD, "1 frames #020202");
  expect_text (&f, 5 * GST_SECOND, GST_SECOND, "2 frames #a2a2a2 #a7a7a7");
  expect_text (&f, 6 * GST_SECOND, PERIOD, "1 frames #aaaaaa");
  gst_structure_free (wait_result (&f));
  g_autoptr (GstStructure) result = wait_result (&f);
  g_assert_cmpuint (test_get_uint64 (result, "timestamp"), ==, 3600 * GST_SECOND);
  g_assert_cmpuint (test_get_uint64 (result, "stream-time"), ==, 5 * GST_SECOND);
  g_assert_cmpuint (test_get_uint64 (result, "running-time"), ==, GST_SECOND);
  finish (&f);
}

static void
test_reverse (void)
{
  Fixture f = { 0 };
  GstSegment segment;

  begin (&f, "policy=all", TRUE);
  play (&f);
  gst_segment_init (&segment, GST_FORMAT_TIME);
  segment.rate = -1;
  segment.stop = 2 * GST_SECOND;
  gst_harness_push_event (f.h, gst_event_new_segment (&segment));
  for (guint i = 20; i-- > 0;)
    gst_harness_push (f.h, make_frame (i));
  gst_harness_push_event (f.h, gst_event_new_eos ());
  expect_text (&f, GST_SECOND, GST_SECOND, "2 frames #111111 #0c0c0c");
  expect_text (&f, 0, GST_SECOND, "2 frames #070707 #020202");
  finish (&f);
}

static void
test_caps_change (void)
{
  Fixture f = { 0 };

  begin (&f, "policy=all", TRUE);
  play (&f);
  push_frames (&f, 5);
  /* In mid-chunk: it has frames of both kinds. */
  gst_harness_set_src_caps_str (f.h, "video/x-raw, format=GRAY8, width=3, height=5, framerate=10/1");
  for (guint i = 5; i < 10; i++) {
    GstBuffer *buffer = gst_buffer_new_allocate (NULL, 4 * 5, NULL);
    gst_buffer_memset (buffer, 0, 100 + i, -1);
    GST_BUFFER_PTS (buffer) = i * PERIOD;
    GST_BUFFER_DURATION (buffer) = PERIOD;
    g_assert_cmpint (gst_harness_push (f.h, buffer), ==, GST_FLOW_OK);
  }
  gst_harness_push_event (f.h, gst_event_new_eos ());
  expect_text (&f, 0, GST_SECOND, "2 frames #020202 #6b6b6b");
  finish (&f);
}

static void
test_broken_frame (void)
{
  Fixture f = { 0 };

  begin (&f, "policy=all", TRUE);
  play (&f);
  for (guint i = 0; i < 10; i++) {
    GstBuffer *buffer = make_frame (i);
    if (i == 2)
      gst_buffer_set_size (buffer, 10);
    g_assert_cmpint (gst_harness_push (f.h, buffer), ==, GST_FLOW_OK);
  }
  gst_harness_push_event (f.h, gst_event_new_eos ());
  expect_text (&f, 0, GST_SECOND, "1 frames #070707");
  gst_message_unref (wait_message (&f, GST_MESSAGE_WARNING));
  g_assert_cmpuint (gst_harness_buffers_received (f.h), ==, 10);
  finish (&f);
}

/* Caps that no frame can have: an error or a refusal, and the element lives. */
static void
test_odd_caps (void)
{
  static const char *const odd[] = {
    "video/x-raw, format=RGB, width=2147483647, height=2147483647, framerate=10/1",
    "video/x-raw, format=RGB, width=0, height=0, framerate=10/1",
    "video/x-raw, format=RGB, width=-1, height=16, framerate=10/1",
    "video/x-raw, format=no-such-format, width=16, height=16, framerate=10/1",
    "video/x-raw, width=16, height=16, framerate=10/1",
    "video/x-raw, format=RGB, framerate=10/1",
    "video/x-raw, format=RGB, width=16, height=16, framerate=10/0",
    "audio/x-raw, format=S16LE, rate=48000, channels=2",
  };

  for (guint i = 0; i < G_N_ELEMENTS (odd); i++) {
    Fixture f = { 0 };
    GstCaps *caps = gst_caps_from_string (odd[i]);

    begin (&f, "policy=all", FALSE);
    play (&f);
    if (!caps)                  /* not even caps */
      caps = gst_caps_new_empty_simple ("video/x-raw");
    g_test_message ("%s", odd[i]);
    gst_harness_push_event (f.h, gst_event_new_caps (caps));
    gst_caps_unref (caps);
    g_assert_cmpint (push_frames (&f, 1), ==, GST_FLOW_NOT_NEGOTIATED);
    /* Good ones mend it. */
    gst_harness_set_src_caps_str (f.h, CAPS);
    g_assert_cmpint (push_frames (&f, 15), ==, GST_FLOW_OK);
    gst_message_unref (wait_message (&f, GST_MESSAGE_ELEMENT));
    finish (&f);
  }
}

static void
test_upstream_events (void)
{
  Fixture f = { 0 };
  GstPad *text;

  begin (&f, "policy=all", TRUE);
  play (&f);
  text = gst_element_get_static_pad (f.element, "text_src");
  GstEvent *seek = gst_event_new_seek (1, GST_FORMAT_TIME, GST_SEEK_FLAG_FLUSH, GST_SEEK_TYPE_SET, 0,
      GST_SEEK_TYPE_NONE, 0);
  /* A seek that both sinks send goes up once. */
  guint before = gst_harness_upstream_events_received (f.h);
  gst_harness_push_upstream_event (f.h, gst_event_ref (seek));
  gst_pad_send_event (text, gst_event_ref (seek));
  g_assert_cmpuint (gst_harness_upstream_events_received (f.h), ==, before + 1);
  gst_event_unref (seek);
  /* Late text is no reason to skip video. */
  gst_pad_send_event (text, gst_event_new_qos (GST_QOS_TYPE_UNDERFLOW, 0.1, 5, 0));
  g_assert_cmpuint (gst_harness_upstream_events_received (f.h), ==, before + 1);
  gst_harness_push_upstream_event (f.h, gst_event_new_qos (GST_QOS_TYPE_UNDERFLOW, 0.1, 5, 0));
  g_assert_cmpuint (gst_harness_upstream_events_received (f.h), ==, before + 2);
  gst_object_unref (text);
  finish (&f);
}

/* ---- failures ---- */

static void
expect_refused (const char *properties, GQuark domain, gint code, const char *part)
{
  g_autofree char *launch = g_strconcat ("internvl ", properties, NULL);
  GstElement *element = gst_object_ref_sink (gst_parse_launch (launch, NULL));
  Fixture f = {.element = element,.bus = gst_bus_new () };

  gst_element_set_bus (element, f.bus);
  g_assert_cmpint (gst_element_set_state (element, GST_STATE_READY), ==, GST_STATE_CHANGE_FAILURE);
  expect_error (&f, domain, code, part);
  gst_element_set_state (element, GST_STATE_NULL);
  gst_element_set_bus (element, NULL);
  gst_object_unref (element);
  gst_object_unref (f.bus);
}

static void
test_no_model (void)
{
  g_unsetenv ("INTERNVL_MODEL");
  expect_refused ("", GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_OPEN_READ, "huggingface-cli download");
  expect_refused ("model-path=/nowhere/at/all", GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_OPEN_READ, "/nowhere/at/all");
  expect_refused ("model-path=/tmp", GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_OPEN_READ, "config.json");
  g_autofree char *prompt = g_strdup_printf ("model-path=%s prompt-path=/nowhere.txt", test_model_path ());
  expect_refused (prompt, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND, "/nowhere.txt");
  g_autofree char *utf8 = g_strdup_printf ("model-path=%s prompt=\"\xff\"", test_model_path ());
  GstElement *element = gst_element_factory_make ("internvl", NULL);
  g_object_set (element, "model-path", test_model_path (), "prompt", "\xff", NULL);
  g_assert_cmpint (gst_element_set_state (element, GST_STATE_READY), ==, GST_STATE_CHANGE_FAILURE);
  gst_element_set_state (element, GST_STATE_NULL);
  gst_object_unref (element);

  g_setenv ("INTERNVL_MODEL", test_model_path (), TRUE);
  element = gst_element_factory_make ("internvl", NULL);
  g_assert_cmpint (gst_element_set_state (element, GST_STATE_READY), ==, GST_STATE_CHANGE_SUCCESS);
  gst_element_set_state (element, GST_STATE_NULL);
  gst_object_unref (element);
  g_unsetenv ("INTERNVL_MODEL");
}

static gint no_threads;

/* In GLib's place, for all of the process. */
GThread *
g_thread_try_new (const char *name, GThreadFunc func, gpointer data, GError **error)
{
  GThread *(*real) (const char *, GThreadFunc, gpointer, GError **) = dlsym (RTLD_NEXT, "g_thread_try_new");

  if (!g_atomic_int_get (&no_threads) || g_strcmp0 (name, "internvl"))
    return real (name, func, data, error);
  g_set_error_literal (error, G_THREAD_ERROR, G_THREAD_ERROR_AGAIN, "none left");
  return NULL;
}

static void
test_no_thread (void)
{
  Fixture f = {.element = gst_element_factory_make ("internvl", NULL),.bus = gst_bus_new () };

  gst_object_ref_sink (f.element);
  g_object_set (f.element, "model-path", test_model_path (), NULL);
  gst_element_set_bus (f.element, f.bus);
  g_atomic_int_set (&no_threads, 1);
  g_assert_cmpint (gst_element_set_state (f.element, GST_STATE_PAUSED), ==, GST_STATE_CHANGE_FAILURE);
  expect_error (&f, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_FAILED, "raise the limit of processes");
  /* Once there is one, it plays. */
  g_atomic_int_set (&no_threads, 0);
  g_assert_cmpint (gst_element_set_state (f.element, GST_STATE_PAUSED), !=, GST_STATE_CHANGE_FAILURE);
  gst_element_set_state (f.element, GST_STATE_NULL);
  gst_element_set_bus (f.element, NULL);
  gst_object_unref (f.element);
  gst_object_unref (f.bus);
}

static void
expect_failure (FakeStage stage, IvlErrorCode code, const char *properties, GQuark domain, gint expected,
    const char *part)
{
  Fixture f = { 0 };
  g_autofree char *all = g_strconcat ("policy=all ", properties, NULL);

  if (stage < FAKE_STAGES)
    fake_engine_fail (stage, code, 0);
  begin (&f, all, TRUE);
  play (&f);
  while (push_frames (&f, 1) == GST_FLOW_OK);
  expect_error (&f, domain, expected, part);
  /* And again, now that it is well: a failure leaves nothing behind. */
  if (stage < FAKE_STAGES) {
    gst_element_set_state (f.element, GST_STATE_READY);
    gst_element_set_state (f.element, GST_STATE_PLAYING);
    f.next = 0;
    gst_harness_push_event (f.h, gst_event_new_stream_start ("again"));
    gst_harness_set_src_caps_str (f.h, CAPS);
    GstSegment segment;
    gst_segment_init (&segment, GST_FORMAT_TIME);
    gst_harness_push_event (f.h, gst_event_new_segment (&segment));
    g_assert_cmpint (push_frames (&f, 11), ==, GST_FLOW_OK);
    expect_text (&f, 0, GST_SECOND, "2 frames #020202 #070707");
  }
  finish (&f);
}

static void
test_failures (void)
{
  expect_failure (FAKE_DEVICE, IVL_ERROR_NO_DEVICE, "", GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND,
      "mesa-vulkan-drivers");
  expect_failure (FAKE_STAGES, 0, "device=missing", GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND, "missing");
  expect_failure (FAKE_STAGES, 0, "device=missing share=false", GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND,
      "missing");
  expect_failure (FAKE_LOAD, IVL_ERROR_BAD_MODEL, "", GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_OPEN_READ,
      "made to fail");
  expect_failure (FAKE_LOAD, IVL_ERROR_OUT_OF_MEMORY, "share=false", GST_RESOURCE_ERROR,
      GST_RESOURCE_ERROR_NO_SPACE_LEFT, "smaller model");
  expect_failure (FAKE_IMAGE, IVL_ERROR_UNSUPPORTED, "", GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_FAILED,
      "made to fail");
  expect_failure (FAKE_SESSION, IVL_ERROR_OUT_OF_MEMORY, "", GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NO_SPACE_LEFT,
      "fewer streams");
  expect_failure (FAKE_ASK, IVL_ERROR_CONTEXT_FULL, "", GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_SETTINGS,
      "chunk-size");
  expect_failure (FAKE_ANSWER, IVL_ERROR_DEVICE_LOST, "", GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_FAILED,
      "reset the device");
}

/* ---- states ---- */

static void
test_states (void)
{
  Fixture f = { 0 };

  begin (&f, "policy=all", TRUE);
  for (guint i = 0; i < 200; i++) {
    static const GstState states[] = { GST_STATE_NULL, GST_STATE_READY, GST_STATE_PAUSED, GST_STATE_PLAYING };
    GstState state = states[g_random_int_range (0, 4)];

    fake_engine_hold_answers (g_random_int_range (0, 4) == 0);
    fake_engine_hold_loading (g_random_int_range (0, 8) == 0);
    g_assert_cmpint (gst_element_set_state (f.element, state), !=, GST_STATE_CHANGE_FAILURE);
    if (state >= GST_STATE_PAUSED) {
      GstSegment segment;
      gst_harness_push_event (f.h, gst_event_new_stream_start ("again"));
      gst_harness_set_src_caps_str (f.h, CAPS);
      gst_segment_init (&segment, GST_FORMAT_TIME);
      gst_harness_push_event (f.h, gst_event_new_segment (&segment));
      f.next = 0;
      /* Fewer than would wait for the model. */
      push_frames (&f, g_random_int_range (0, 15));
      /* They would, sooner or later, if it went on like this. */
      gst_element_set_state (f.element, g_random_boolean () ? GST_STATE_READY : GST_STATE_NULL);
    }
  }
  fake_engine_hold_answers (FALSE);
  fake_engine_hold_loading (FALSE);
  finish (&f);
}

/* Another type of weights is another model; the same one stays over a stop. */
static void
test_weights (void)
{
  static const struct { const char *name; IvlWeights weights; } types[] = {
    { "auto", IVL_WEIGHTS_AUTO }, { "f16", IVL_WEIGHTS_F16 }, { "bf16", IVL_WEIGHTS_BF16 }, { "q8", IVL_WEIGHTS_Q8 },
    { "q4", IVL_WEIGHTS_Q4 },
  };
  for (guint share = 0; share < 2; share++) {
    Fixture f = { 0 };
    FakeCounts counts;

    begin (&f, share ? "policy=all weights=q4" : "policy=all weights=q4 share=false", TRUE);
    fake_engine_wait_loading (1);
    for (guint i = 0; i < G_N_ELEMENTS (types); i++) {
      gst_element_set_state (f.element, GST_STATE_READY);
      gst_util_set_object_arg (G_OBJECT (f.element), "weights", types[i].name);
      gst_element_set_state (f.element, GST_STATE_PLAYING);
      fake_engine_wait_loading (2 + i);
      fake_engine_get_counts (&counts);
      g_assert_cmpint (counts.weights, ==, types[i].weights);
    }
    fake_engine_get_counts (&counts);
    g_assert_cmpuint (counts.loads, ==, 1 + G_N_ELEMENTS (types));
    finish (&f);
  }
}

static void
test_stop_while_loading (void)
{
  Fixture f = { 0 };

  fake_engine_hold_loading (TRUE);
  begin (&f, "policy=all", TRUE);
  play (&f);
  fake_engine_wait_loading (1);
  GThread *thread = g_thread_new ("push", push_thread, &f);
  g_assert_cmpint (gst_element_set_state (f.element, GST_STATE_READY), ==, GST_STATE_CHANGE_SUCCESS);
  g_assert_cmpint (GPOINTER_TO_INT (g_thread_join (thread)), ==, GST_FLOW_FLUSHING);
  finish (&f);
}

static gpointer
eos_thread (gpointer data)
{
  Fixture *f = data;

  return GINT_TO_POINTER (gst_harness_push_event (f->h, gst_event_new_eos ()));
}

static void
test_stop_while_draining (void)
{
  Fixture f = { 0 };

  begin (&f, "policy=all", TRUE);
  fake_engine_hold_answers (TRUE);
  play (&f);
  push_frames (&f, 15);
  GThread *thread = g_thread_new ("eos", eos_thread, &f);
  fake_engine_wait_asked (2);
  gst_element_set_state (f.element, GST_STATE_READY);
  g_thread_join (thread);
  finish (&f);
}

static void
test_model_is_kept (void)
{
  Fixture f = { 0 };
  FakeCounts counts;

  begin (&f, "policy=all", FALSE);
  for (guint i = 0; i < 3; i++) {
    gst_element_set_state (f.element, GST_STATE_PAUSED);
    fake_engine_wait_loading (1);
    gst_harness_push_event (f.h, gst_event_new_stream_start ("again"));
    gst_harness_set_src_caps_str (f.h, CAPS);
    GstSegment segment;
    gst_segment_init (&segment, GST_FORMAT_TIME);
    gst_harness_push_event (f.h, gst_event_new_segment (&segment));
    f.next = 0;
    push_frames (&f, 11);
    g_autoptr (GstStructure) result = wait_result (&f);
    /* All counts begin anew. */
    g_assert_cmpuint (test_get_uint64 (result, "chunk"), ==, 0);
    gst_element_set_state (f.element, GST_STATE_READY);
  }
  fake_engine_get_counts (&counts);
  g_assert_cmpuint (counts.loads, ==, 1);
  g_assert_cmpuint (counts.models_alive, ==, 1);
  gst_element_set_state (f.element, GST_STATE_NULL);
  fake_engine_get_counts (&counts);
  g_assert_cmpuint (counts.models_alive, ==, 0);
  finish (&f);
}

static GstPadProbeReturn
on_stream_start (GstPad *pad, GstPadProbeInfo *info, gpointer stream_id)
{
  const char *id;

  if (GST_EVENT_TYPE (GST_PAD_PROBE_INFO_EVENT (info)) == GST_EVENT_STREAM_START) {
    gst_event_parse_stream_start (GST_PAD_PROBE_INFO_EVENT (info), &id);
    g_free (*(char **) stream_id);
    *(char **) stream_id = g_strdup (id);
  }
  return GST_PAD_PROBE_OK;
}

/* Sixteen cameras in a program: one model, and each has its own answers, of its own colour, at its own times. */
static void
test_many_share (void)
{
  enum { STREAMS = 16, CHUNKS = 3 };
  g_autoptr (GString) launch = g_string_new (NULL);
  g_autoptr (GPtrArray) results = test_structures_new ();
  char *stream_ids[STREAMS] = { NULL };
  guint seen[STREAMS] = { 0 };
  FakeCounts counts;

  fake_engine_set_answer ("{prompt} {colors}");
  for (guint i = 0; i < STREAMS; i++)
    g_string_append_printf (launch, "videotestsrc num-buffers=%u timestamp-offset=%" G_GUINT64_FORMAT " pattern=solid-color "
        "foreground-color=%u ! %s ! internvl name=v%u model-path=%s policy=all frame-rate=2/1 chunk-size=2 prompt=camera-%u ! "
        "fakesink sync=false  ", CHUNKS * 10, i * GST_SECOND, 0xff000000u + i * 0x0a0a0au, CAPS, i, test_model_path (), i);
  GstElement *pipeline = test_launch ("%s", launch->str);
  for (guint i = 0; i < STREAMS; i++) {
    g_autofree char *name = g_strdup_printf ("v%u", i);
    g_autoptr (GstElement) element = gst_bin_get_by_name (GST_BIN (pipeline), name);
    g_autoptr (GstPad) pad = gst_element_get_static_pad (element, "sink");
    gst_pad_add_probe (pad, GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM, on_stream_start, &stream_ids[i], NULL);
  }
  /* All are there, and wait for the one that loads. */
  fake_engine_hold_loading (TRUE);
  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  fake_engine_wait_loading (1);
  fake_engine_hold_loading (FALSE);
  g_assert_no_error (test_play (pipeline, results));

  fake_engine_get_counts (&counts);
  g_assert_cmpuint (counts.loads, ==, 1);
  g_assert_cmpuint (results->len, ==, STREAMS * CHUNKS);
  for (guint r = 0; r < results->len; r++) {
    const GstStructure *result = g_ptr_array_index (results, r);
    guint i = 0;
    while (i < STREAMS && g_strcmp0 (stream_ids[i], gst_structure_get_string (result, "stream-id")) != 0)
      i++;
    g_assert_cmpuint (i, <, STREAMS);
    g_autofree char *text = g_strdup_printf ("camera-%u #%02x%02x%02x #%02x%02x%02x", i, i * 10, i * 10, i * 10, i * 10, i * 10,
        i * 10);
    g_assert_cmpstr (gst_structure_get_string (result, "text"), ==, text);
    g_assert_cmpuint (test_get_uint64 (result, "chunk"), ==, seen[i]);
    g_assert_cmpuint (test_get_uint64 (result, "stream-time"), ==, (i + seen[i]) * GST_SECOND);
    g_assert_cmpuint (test_get_uint64 (result, "duration"), ==, GST_SECOND);
    seen[i]++;
  }
  for (guint i = 0; i < STREAMS; i++) {
    g_assert_cmpuint (seen[i], ==, CHUNKS);
    g_free (stream_ids[i]);
  }
  gst_object_unref (pipeline);
  fake_engine_reset ();
}

int
main (int argc, char **argv)
{
  gst_init (&argc, &argv);
  g_test_init (&argc, &argv, NULL);
#define add(path, name) g_test_add_func ("/element/" path, name)
  add ("all", test_all);
  add ("result", test_result);
  add ("text-events", test_text_events);
  add ("text-formats", test_text_formats);
  add ("text-not-negotiable", test_text_not_negotiable);
  add ("boxes", test_boxes);
  add ("live/newest-wins", test_live_newest_wins);
  add ("live/while-loading", test_live_while_loading);
  add ("live/stuck-worker", test_live_stuck_worker);
  add ("back-pressure", test_back_pressure);
  add ("previous", test_previous);
  add ("overlap", test_overlap_encodes_once);
  add ("blocked-text", test_blocked_text);
  add ("text-pad-later", test_text_pad_later);
  add ("flush", test_flush);
  add ("flush-storm", test_flush_storm);
  add ("segment", test_segment);
  add ("reverse", test_reverse);
  add ("caps-change", test_caps_change);
  add ("broken-frame", test_broken_frame);
  add ("odd-caps", test_odd_caps);
  add ("upstream-events", test_upstream_events);
  add ("no-model", test_no_model);
  add ("no-thread", test_no_thread);
  add ("failures", test_failures);
  add ("states", test_states);
  add ("weights", test_weights);
  add ("stop-while-loading", test_stop_while_loading);
  add ("stop-while-draining", test_stop_while_draining);
  add ("model-is-kept", test_model_is_kept);
  add ("many-share", test_many_share);
  int status = g_test_run ();
  /* With GST_TRACERS=leaks it tells what is left. */
  gst_deinit ();
  return status;
}
