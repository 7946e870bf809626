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

/* Until the clock that tells the age of things has moved. */
static void
let_time_pass (void)
{
  gint64 now = g_get_monotonic_time ();

  while (g_get_monotonic_time () <= now + 1);
}

static void
test_max_latency (void)
{
  Fixture f = { 0 };
  FakeCounts counts;

  fake_engine_hold_loading (TRUE);
  begin (&f, "policy=all max-latency=1", TRUE);
  play (&f);
  g_assert_cmpint (push_frames (&f, 11), ==, GST_FLOW_OK);
  let_time_pass ();
  fake_engine_hold_loading (FALSE);
  GstMessage *qos = wait_message (&f, GST_MESSAGE_QOS);
  guint64 time, duration, dropped;
  gst_message_parse_qos (qos, NULL, NULL, &time, NULL, &duration);
  gst_message_parse_qos_stats (qos, NULL, NULL, &dropped);
  gst_message_unref (qos);
  g_assert_cmpuint (time, ==, 0);
  g_assert_cmpuint (duration, ==, GST_SECOND);
  g_assert_cmpuint (dropped, ==, 1);
  fake_engine_get_counts (&counts);
  g_assert_cmpuint (counts.questions, ==, 0);
  /* From the next chunk on. */
  g_object_set (f.element, "max-latency", GST_SECOND * 3600, NULL);
  push_frames (&f, 10);
  expect_text (&f, GST_SECOND, GST_SECOND, "2 frames #0c0c0c #111111");
  g_assert_cmpuint (get_stat (&f, "dropped"), ==, 1);
  finish (&f);
}

/* ---- while it is written ---- */

static GstStructure *
wait_element_message (Fixture *f, const char *name)
{
  GstMessage *message = wait_message (f, GST_MESSAGE_ELEMENT);

  if (!gst_message_has_name (message, name))
    g_error ("a message %s rather than %s", gst_structure_get_name (gst_message_get_structure (message)), name);
  GstStructure *structure = gst_structure_copy (gst_message_get_structure (message));
  gst_message_unref (message);
  return structure;
}

static void
test_tokens (void)
{
  Fixture f = { 0 };
  GstStructure *message;

  begin (&f, "policy=all tokens=true", FALSE);
  fake_engine_hold_answers (TRUE);
  play (&f);
  push_frames (&f, 11);
  message = wait_element_message (&f, "internvl-tokens");
  g_assert_cmpstr (gst_structure_get_string (message, "text"), ==, "2");
  g_assert_cmpstr (gst_structure_get_string (message, "piece"), ==, "2");
  g_assert_cmpuint (test_get_uint64 (message, "chunk"), ==, 0);
  g_assert_cmpuint (test_get_uint64 (message, "timestamp"), ==, 0);
  g_assert_true (gst_structure_has_field_typed (message, "stream-id", G_TYPE_STRING));
  gst_structure_free (message);
  fake_engine_release_answers (1);
  message = wait_element_message (&f, "internvl-tokens");
  g_assert_cmpstr (gst_structure_get_string (message, "text"), ==, "2 frames #020202 #070707");
  g_assert_cmpstr (gst_structure_get_string (message, "piece"), ==, " frames #020202 #070707");
  gst_structure_free (message);
  gst_structure_free (wait_result (&f));
  /* And no more of them. */
  g_object_set (f.element, "tokens", FALSE, NULL);
  push_frames (&f, 10);
  fake_engine_release_answers (1);
  gst_structure_free (wait_result (&f));
  finish (&f);
}

static void
test_alert (void)
{
  static const struct
  {
    const char *answer, *state;
    guint64 since;
  } chunks[] = {
    {"No.", NULL, 0}, {"Yes, a fire.", "raised", 1}, {"yes", NULL, 0}, {"No", NULL, 0}, {"YES!", NULL, 0},
    {"no", NULL, 0}, {"Yesterday", "cleared", 1}, {"no", NULL, 0}, {"yes", "raised", 8},
  };
  Fixture f = { 0 };

  begin (&f, "policy=all alert-on=yes alert-hold=2000000000", FALSE);
  play (&f);
  for (guint i = 0; i < G_N_ELEMENTS (chunks); i++) {
    fake_engine_set_answer (chunks[i].answer);
    push_frames (&f, i ? 10 : 11);
    gst_structure_free (wait_result (&f));
    if (chunks[i].state) {
      GstStructure *alert = wait_element_message (&f, "internvl-alert");
      g_assert_cmpstr (gst_structure_get_string (alert, "state"), ==, chunks[i].state);
      g_assert_cmpstr (gst_structure_get_string (alert, "text"), ==, chunks[i].answer);
      g_assert_cmpuint (test_get_uint64 (alert, "running-time"), ==, i * GST_SECOND);
      g_assert_cmpuint (test_get_uint64 (alert, "stream-time"), ==, i * GST_SECOND);
      g_assert_cmpuint (test_get_uint64 (alert, "since"), ==, chunks[i].since * GST_SECOND);
      g_assert_cmpuint (test_get_uint64 (alert, "chunk"), ==, i);
      gst_structure_free (alert);
    }
  }
  /* Nobody asks for it any more. */
  g_object_set (f.element, "alert-on", NULL, NULL);
  push_frames (&f, 10);
  gst_structure_free (wait_result (&f));
  GstStructure *alert = wait_element_message (&f, "internvl-alert");
  g_assert_cmpstr (gst_structure_get_string (alert, "state"), ==, "cleared");
  gst_structure_free (alert);
  finish (&f);
}

/* ---- what others saw ---- */

static void
test_detections (void)
{
  Fixture f = { 0 };

  begin (&f, "policy=all prompt={detections} chunk-stride=500000000", FALSE);
  play (&f);
  for (guint i = 0; i < 21; i++) {
    GstBuffer *buffer = make_frame (i);

    if (i == 7) {
      gst_buffer_add_video_region_of_interest_meta (buffer, "person", 0, 4, 8, 8);
      gst_buffer_add_video_region_of_interest_meta (buffer, "car", 12, 12, G_MAXUINT, 4);
    }
    g_assert_cmpint (gst_harness_push (f.h, buffer), ==, GST_FLOW_OK);
  }
  fake_engine_wait_asked (3);
  const char *seen = "00:00:00.700: person [0, 250, 500, 750], car [750, 750, 1000, 1000]";
  g_assert_cmpstr (fake_engine_get_question (0)->prompt, ==, seen);
  g_assert_cmpstr (fake_engine_get_question (1)->prompt, ==, seen);
  g_assert_cmpstr (fake_engine_get_question (2)->prompt, ==, "none");
  finish (&f);
}

/* ---- constrained answers ---- */

static void
test_choices (void)
{
  Fixture f = { 0 };
  double probability;
  int choice;

  begin (&f, "policy=all choices=<no,\"can\\'t\\ tell\",yes>", FALSE);
  play (&f);
  push_frames (&f, 11);
  GstStructure *result = wait_result (&f);
  g_assert_cmpstr (gst_structure_get_string (result, "text"), ==, "yes");
  g_assert_true (gst_structure_get_int (result, "choice", &choice));
  g_assert_cmpint (choice, ==, 2);
  const GValue *probabilities = gst_structure_get_value (result, "choice-probabilities");
  g_assert_cmpuint (gst_value_array_get_size (probabilities), ==, 3);
  probability = g_value_get_double (gst_value_array_get_value (probabilities, 2));
  g_assert_cmpfloat (probability, ==, 0.75);
  gst_structure_free (result);
  const FakeQuestion *question = fake_engine_get_question (0);
  g_assert_cmpuint (g_strv_length (question->choices), ==, 3);
  g_assert_cmpstr (question->choices[1], ==, "can't tell");

  /* One that can't be used changes nothing. */
  gst_util_set_object_arg (G_OBJECT (f.element), "choices", "<a,b,a>");
  gst_message_unref (wait_message (&f, GST_MESSAGE_WARNING));
  gst_util_set_object_arg (G_OBJECT (f.element), "choices", "<a,\"\">");
  gst_message_unref (wait_message (&f, GST_MESSAGE_WARNING));
  g_object_set (f.element, "json-schema", "{}", NULL);
  gst_message_unref (wait_message (&f, GST_MESSAGE_WARNING));
  GValue value = G_VALUE_INIT;
  g_value_init (&value, GST_TYPE_ARRAY);
  g_object_get_property (G_OBJECT (f.element), "choices", &value);
  g_assert_cmpuint (gst_value_array_get_size (&value), ==, 3);
  g_value_reset (&value);
  /* None. */
  g_object_set_property (G_OBJECT (f.element), "choices", &value);
  g_value_unset (&value);
  push_frames (&f, 10);
  result = wait_result (&f);
  g_assert_false (gst_structure_has_field (result, "choice"));
  gst_structure_free (result);
  g_assert_null (fake_engine_get_question (1)->choices);
  finish (&f);
}

static void
test_many_choices (void)
{
  Fixture f = { 0 };
  GValue value = G_VALUE_INIT;

  begin (&f, "policy=all", FALSE);
  g_value_init (&value, GST_TYPE_ARRAY);
  for (guint i = 0; i < 10000; i++) {
    GValue item = G_VALUE_INIT;
    g_value_init (&item, G_TYPE_STRING);
    g_value_take_string (&item, g_strdup_printf ("choice %u", i));
    gst_value_array_append_and_take_value (&value, &item);
  }
  g_object_set_property (G_OBJECT (f.element), "choices", &value);
  g_value_unset (&value);
  play (&f);
  push_frames (&f, 11);
  GstStructure *result = wait_result (&f);
  g_assert_cmpstr (gst_structure_get_string (result, "text"), ==, "choice 2");
  g_assert_false (gst_structure_has_field (result, "choice-probabilities"));
  gst_structure_free (result);
  finish (&f);
}

static void
test_json_schema (void)
{
  Fixture f = { 0 };

  begin (&f, "policy=all", FALSE);
  g_object_set (f.element, "json-schema", "{\"type\": \"boolean\"}", NULL);
  play (&f);
  push_frames (&f, 11);
  gst_structure_free (wait_result (&f));
  g_assert_cmpstr (fake_engine_get_question (0)->json_schema, ==, "{\"type\": \"boolean\"}");
  static const char *wrong[] = { "{", "[]", "\"type\"", "\xff" };
  for (guint i = 0; i < G_N_ELEMENTS (wrong); i++) {
    g_object_set (f.element, "json-schema", wrong[i], NULL);
    gst_message_unref (wait_message (&f, GST_MESSAGE_WARNING));
  }
  push_frames (&f, 10);
  gst_structure_free (wait_result (&f));
  g_assert_cmpstr (fake_engine_get_question (1)->json_schema, ==, "{\"type\": \"boolean\"}");
  g_object_set (f.element, "json-schema", NULL, NULL);
  push_frames (&f, 10);
  gst_structure_free (wait_result (&f));
  g_assert_null (fake_engine_get_question (2)->json_schema);
  finish (&f);
}

/* ---- among others ---- */

static void
test_priority (void)
{
  Fixture f = { 0 };

  begin (&f, "policy=all priority=3", FALSE);
  play (&f);
  push_frames (&f, 11);
  gst_structure_free (wait_result (&f));
  g_assert_cmpint (fake_engine_get_question (0)->priority, ==, 3);
  g_object_set (f.element, "priority", -2, NULL);
  push_frames (&f, 10);
  gst_structure_free (wait_result (&f));
  g_assert_cmpint (fake_engine_get_question (1)->priority, ==, -2);
  finish (&f);
}

/* ---- questions in between ---- */

static gboolean
ask (Fixture *f, const char *prompt, const char *id)
{
  gboolean asked;

  g_signal_emit_by_name (f->element, "ask", prompt, id, &asked);
  return asked;
}

static void
expect_reply (Fixture *f, const char *id, const char *text)
{
  GstStructure *reply = wait_result (f);

  g_assert_cmpstr (gst_structure_get_string (reply, "id"), ==, id);
  g_assert_cmpstr (gst_structure_get_string (reply, "text"), ==, text);
  g_assert_cmpint (gst_structure_has_field (reply, "error"), ==, text == NULL);
  g_assert_false (gst_structure_has_field (reply, "chunk"));
  gst_structure_free (reply);
}

static void
test_ask (void)
{
  Fixture f = { 0 };

  begin (&f, "policy=all post-messages=false", TRUE);
  fake_engine_set_answer ("{prompt} {colors}");
  play (&f);
  g_assert_false (ask (&f, "What?", "0"));
  push_frames (&f, 8);
  g_assert_false (ask (&f, "\xff", "0"));
  g_assert_true (ask (&f, "Who?", "a"));
  expect_reply (&f, "a", "Who? #020202 #070707");
  push_frames (&f, 10);
  /* From both sides. */
  gst_pad_send_event (GST_PAD_PEER (f.h->sinkpad), gst_event_new_custom (GST_EVENT_CUSTOM_UPSTREAM,
          gst_structure_new ("internvl-ask", "prompt", G_TYPE_STRING, "Up?", "id", G_TYPE_STRING, "b", NULL)));
  expect_reply (&f, "b", "Up? #0c0c0c #111111");
  gst_harness_push_event (f.h, gst_event_new_custom (GST_EVENT_CUSTOM_DOWNSTREAM,
          gst_structure_new ("internvl-ask", "prompt", G_TYPE_STRING, "Down?", NULL)));
  expect_reply (&f, "", "Down? #0c0c0c #111111");
  gst_harness_push_event (f.h, gst_event_new_custom (GST_EVENT_CUSTOM_DOWNSTREAM,
          gst_structure_new ("internvl-ask", "id", G_TYPE_STRING, "no prompt", NULL)));
  /* Chunks are answered as if nothing had been. */
  fake_engine_set_answer ("chunk");
  gst_harness_push_event (f.h, gst_event_new_eos ());
  g_assert_cmpuint (get_stat (&f, "chunks"), ==, 2);
  finish (&f);
}

/* It doesn't wait for a chunk that is being answered, nor one for it; EOS waits for it. */
static void
test_ask_beside (void)
{
  Fixture f = { 0 };
  FakeCounts counts;

  begin (&f, "policy=live post-messages=false", FALSE);
  fake_engine_hold_answers (TRUE);
  play (&f);
  do
    push_frames (&f, 10);
  while (get_stat (&f, "frames-encoded") < 2);
  fake_engine_wait_asked (1);
  g_assert_true (ask (&f, "Now?", "n"));
  fake_engine_wait_asked (2);
  fake_engine_get_counts (&counts);
  g_assert_cmpuint (counts.most_at_once, ==, 2);
  g_assert_cmpstr (fake_engine_get_question (1)->prompt, ==, "Now?");
  fake_engine_release_answers (1000);
  gst_harness_push_event (f.h, gst_event_new_eos ());
  GstStructure *reply = wait_result (&f);
  g_assert_cmpstr (gst_structure_get_string (reply, "id"), ==, "n");
  gst_structure_free (reply);
  finish (&f);
}

static void
test_ask_ends (void)
{
  Fixture f = { 0 };

  /* A failed one is its own affair. */
  begin (&f, "policy=all post-messages=false", FALSE);
  play (&f);
  push_frames (&f, 8);
  fake_engine_fail (FAKE_ASK, IVL_ERROR_CONTEXT_FULL, 0);
  g_assert_true (ask (&f, "Long?", "l"));
  expect_reply (&f, "l", NULL);
  /* Frames that are gone with a flush can't be asked about; what was asked before it is answered. */
  fake_engine_hold_answers (TRUE);
  g_assert_true (ask (&f, "Before?", "before"));
  fake_engine_wait_asked (1);
  gst_harness_push_event (f.h, gst_event_new_flush_start ());
  gst_harness_push_event (f.h, gst_event_new_flush_stop (TRUE));
  g_assert_false (ask (&f, "After?", "after"));
  fake_engine_hold_answers (FALSE);
  expect_reply (&f, "before", "2 frames #020202 #070707");
  /* The end of the element is the end of them: each has its reply. */
  GstSegment segment;
  gst_segment_init (&segment, GST_FORMAT_TIME);
  gst_harness_push_event (f.h, gst_event_new_segment (&segment));
  push_frames (&f, 8);
  fake_engine_hold_answers (TRUE);
  g_assert_true (ask (&f, "One?", "1"));
  g_assert_true (ask (&f, "Two?", "2"));
  fake_engine_wait_asked (2);
  gst_element_set_state (f.element, GST_STATE_READY);
  GstStructure *reply = wait_result (&f);
  g_assert_cmpstr (gst_structure_get_string (reply, "id"), ==, "1");
  g_assert_cmpstr (gst_structure_get_string (reply, "finish"), ==, "cancelled");
  gst_structure_free (reply);
  expect_reply (&f, "2", NULL);
  g_assert_false (ask (&f, "Three?", "3"));
  finish (&f);
}

/* ---- video goes on ---- */

static void
expect_passthrough (FakeStage stage, IvlErrorCode code, const char *properties, guint chunks)
{
  Fixture f = { 0 };
  g_autofree char *all = g_strconcat ("policy=all on-error=passthrough ", properties, NULL);
  g_autoptr (GError) warning = NULL;
  GstEvent *event;

  if (stage < FAKE_STAGES)
    fake_engine_fail (stage, code, 0);
  begin (&f, all, TRUE);
  play (&f);
  g_assert_cmpint (push_frames (&f, 40), ==, GST_FLOW_OK);
  g_assert_true (gst_harness_push_event (f.h, gst_event_new_eos ()));
  g_assert_cmpuint (gst_harness_buffers_received (f.h), ==, 40);
  g_assert_cmpuint (get_stat (&f, "chunks"), ==, chunks);
  g_assert_cmpuint (get_stat (&f, "dropped"), ==, 4 - chunks);
  GstMessage *message = wait_message (&f, GST_MESSAGE_WARNING);
  gst_message_parse_warning (message, &warning, NULL);
  gst_message_unref (message);
  g_assert_nonnull (strstr (warning->message, stage < FAKE_STAGES ? "made to fail" : "missing"));
  /* Once, and no error. */
  g_assert_null (gst_bus_pop_filtered (f.bus, GST_MESSAGE_WARNING | GST_MESSAGE_ERROR));
  for (gboolean eos = FALSE; !eos;) {
    event = gst_harness_pull_event (f.text);
    g_assert_nonnull (event);
    eos = GST_EVENT_TYPE (event) == GST_EVENT_EOS;
    gst_event_unref (event);
  }
  finish (&f);
}

static void
test_passthrough (void)
{
  /* The model is not there: nothing is answered. */
  expect_passthrough (FAKE_DEVICE, IVL_ERROR_NO_DEVICE, "", 0);
  expect_passthrough (FAKE_STAGES, 0, "device=missing share=false", 0);
  expect_passthrough (FAKE_LOAD, IVL_ERROR_BAD_MODEL, "", 0);
  /* A frame, a chunk. */
  expect_passthrough (FAKE_IMAGE, IVL_ERROR_UNSUPPORTED, "", 4);
  expect_passthrough (FAKE_SESSION, IVL_ERROR_OUT_OF_MEMORY, "", 3);
  expect_passthrough (FAKE_ASK, IVL_ERROR_CONTEXT_FULL, "", 3);
  expect_passthrough (FAKE_ANSWER, IVL_ERROR_INTERNAL, "", 3);
}

static void
test_passthrough_device_lost (void)
{
  Fixture f = { 0 };

  fake_engine_fail (FAKE_ANSWER, IVL_ERROR_DEVICE_LOST, 1);
  begin (&f, "policy=live on-error=passthrough", FALSE);
  play (&f);
  GstMessage *warning = NULL;
  while (!(warning = gst_bus_pop_filtered (f.bus, GST_MESSAGE_WARNING | GST_MESSAGE_ERROR)))
    g_assert_cmpint (push_frames (&f, 10), ==, GST_FLOW_OK);
  g_assert_cmpint (GST_MESSAGE_TYPE (warning), ==, GST_MESSAGE_WARNING);
  gst_message_unref (warning);
  g_assert_cmpint (push_frames (&f, 50), ==, GST_FLOW_OK);
  g_assert_true (gst_harness_push_event (f.h, gst_event_new_eos ()));
  g_assert_cmpuint (get_stat (&f, "chunks"), ==, 1);
  g_assert_cmpuint (gst_harness_buffers_received (f.h), ==, f.next);
  finish (&f);
}

static void
test_passthrough_no_model (void)
{
  GstElement *element = gst_object_ref_sink (gst_parse_launch ("internvl on-error=passthrough", NULL));

  g_unsetenv ("INTERNVL_MODEL");
  g_assert_cmpint (gst_element_set_state (element, GST_STATE_PLAYING), ==, GST_STATE_CHANGE_SUCCESS);
  gst_element_set_state (element, GST_STATE_NULL);
  gst_object_unref (element);
  fake_engine_reset ();
}

int
main (int argc, char **argv)
{
  gst_init (&argc, &argv);
  g_test_init (&argc, &argv, NULL);
#define add(path, name) g_test_add_func ("/questions/" path, name)
  add ("reuse-threshold", test_reuse_threshold);
  add ("reuse-flush", test_reuse_flush);
  add ("max-latency", test_max_latency);
  add ("tokens", test_tokens);
  add ("alert", test_alert);
  add ("detections", test_detections);
  add ("choices", test_choices);
  add ("choices/many", test_many_choices);
  add ("json-schema", test_json_schema);
  add ("priority", test_priority);
  add ("ask", test_ask);
  add ("ask/beside", test_ask_beside);
  add ("ask/ends", test_ask_ends);
  add ("passthrough", test_passthrough);
  add ("passthrough/device-lost", test_passthrough_device_lost);
  add ("passthrough/no-model", test_passthrough_no_model);
  int status = g_test_run ();
  /* With GST_TRACERS=leaks it tells what is left. */
  gst_deinit ();
  return status;
}
