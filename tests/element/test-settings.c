/* The element by itself: what changes while playing, what is said of it in queries, and results in all their forms. */
#include "fixture.h"

#include <json-glib/json-glib.h>
#include <math.h>

/* ---- what is set while playing ---- */

static void
test_change_prompt (void)
{
  Fixture f = { 0 };

  begin (&f, "policy=all prompt=one", FALSE);
  play (&f);
  push_frames (&f, 11);
  fake_engine_wait_asked (1);
  g_object_set (f.element, "prompt", "two", "max-tokens", 3, NULL);
  push_frames (&f, 10);
  fake_engine_wait_asked (2);
  g_assert_cmpstr (fake_engine_get_question (0)->prompt, ==, "one");
  g_assert_cmpstr (fake_engine_get_question (1)->prompt, ==, "two");
  g_assert_cmpuint (fake_engine_get_question (1)->params.max_tokens, ==, 3);
  /* One that can't be used changes nothing. */
  g_object_set (f.element, "prompt", "\xff", NULL);
  gst_message_unref (wait_message (&f, GST_MESSAGE_WARNING));
  g_object_set (f.element, "prompt-path", test_path ("none.txt"), NULL);
  gst_message_unref (wait_message (&f, GST_MESSAGE_WARNING));
  push_frames (&f, 10);
  fake_engine_wait_asked (3);
  g_assert_cmpstr (fake_engine_get_question (2)->prompt, ==, "two");
  g_assert_true (g_file_set_contents (test_path ("prompt.txt"), "three\n", -1, NULL));
  g_object_set (f.element, "prompt-path", test_path ("prompt.txt"), NULL);
  push_frames (&f, 10);
  fake_engine_wait_asked (4);
  g_assert_cmpstr (fake_engine_get_question (3)->prompt, ==, "three");
  finish (&f);
}

/* What is set together holds together, however long that takes. */
static void
test_change_together (void)
{
  Fixture f = { 0 };

  begin (&f, "policy=all prompt=one", FALSE);
  play (&f);
  push_frames (&f, 11);
  g_object_freeze_notify (G_OBJECT (f.element));
  g_object_set (f.element, "prompt", "two", NULL);
  g_autofree char *prompt = NULL;
  g_object_get (f.element, "prompt", &prompt, NULL);
  g_assert_cmpstr (prompt, ==, "two");
  push_frames (&f, 10);
  g_object_set (f.element, "max-tokens", 3, "system-prompt", "short", NULL);
  g_object_thaw_notify (G_OBJECT (f.element));
  push_frames (&f, 10);
  fake_engine_wait_asked (3);
  for (guint i = 0; i < 3; i++) {
    const FakeQuestion *question = fake_engine_get_question (i);
    g_assert_cmpstr (question->prompt, ==, i < 2 ? "one" : "two");
    g_assert_cmpuint (question->params.max_tokens, ==, i < 2 ? 256 : 3);
    g_assert_cmpstr (question->system_prompt, ==, i < 2 ? NULL : "short");
  }
  finish (&f);
}

static gpointer
set_thread (gpointer data)
{
  Fixture *f = data;

  for (guint i = 1; i < 20000; i++) {
    g_autofree char *prompt = g_strdup_printf ("%u", i);
    g_object_set (f->element, "prompt", prompt, "max-tokens", i, "seed", (guint64) i, NULL);
  }
  return NULL;
}

static void
test_change_race (void)
{
  Fixture f = { 0 };
  FakeCounts counts;

  begin (&f, "policy=all prompt=1 max-tokens=1 seed=1", FALSE);
  play (&f);
  GThread *thread = g_thread_new ("set", set_thread, &f);
  push_frames (&f, 500);
  g_thread_join (thread);
  gst_harness_push_event (f.h, gst_event_new_eos ());
  fake_engine_get_counts (&counts);
  g_assert_cmpuint (counts.questions, ==, 50);
  for (guint i = 0; i < counts.questions; i++) {
    const FakeQuestion *question = fake_engine_get_question (i);
    g_assert_cmpuint (question->params.max_tokens, ==, question->params.seed);
    g_assert_cmpuint (g_ascii_strtoull (question->prompt, NULL, 10), ==, question->params.seed);
  }
  finish (&f);
}

/* An early answer: about the first frames there are that can be asked about. */
static void
test_first_chunk (void)
{
  Fixture f = { 0 };

  begin (&f, "policy=all first-chunk-duration=300000000", TRUE);
  play (&f);
  push_frames (&f, 24);
  gst_harness_push_event (f.h, gst_event_new_eos ());
  expect_text (&f, 0, 3 * PERIOD, "1 frames #010101");
  expect_text (&f, 3 * PERIOD, GST_SECOND, "2 frames #050505 #0a0a0a");
  expect_text (&f, 13 * PERIOD, GST_SECOND, "2 frames #0f0f0f #141414");
  expect_text (&f, 23 * PERIOD, PERIOD, "1 frames #171717");
  finish (&f);

  fake_engine_hold_loading (TRUE);
  begin (&f, "policy=live first-chunk-duration=300000000 chunk-duration=100000000000", TRUE);
  play (&f);
  push_frames (&f, 50);
  fake_engine_hold_loading (FALSE);
  /* It is not known to the stream at once. */
  for (guint i = 0; i < 1000 && get_stat (&f, "chunks") == 0; i++) {
    push_frames (&f, 1);
    g_usleep (10000);
  }
  g_assert_cmpuint (get_stat (&f, "chunks"), >=, 1);
  g_autoptr (GstStructure) result = wait_result (&f);
  g_assert_cmpuint (test_get_uint64 (result, "duration"), ==, 3 * PERIOD);
  finish (&f);
}

/* ---- latency ---- */

static void
test_latency (void)
{
  Fixture f = { 0 };
  GstClockTime min, max;
  gboolean live;

  begin (&f, "policy=live", TRUE);
  play (&f);
  gst_harness_set_upstream_latency (f.h, 20 * GST_MSECOND);
  GstQuery *query = gst_query_new_latency ();
  g_assert_true (gst_pad_peer_query (f.h->sinkpad, query));
  gst_query_parse_latency (query, &live, &min, &max);
  g_assert_cmpuint (min, ==, 20 * GST_MSECOND);
  g_assert_true (gst_pad_peer_query (f.text->sinkpad, query));
  gst_query_parse_latency (query, &live, &min, &max);
  g_assert_true (live);
  g_assert_cmpuint (min, ==, 1020 * GST_MSECOND);
  /* Once it is known how long answers take, in steps; told on the bus. */
  push_frames (&f, 10);
  while (get_stat (&f, "chunks") == 0)
    push_frames (&f, 10);
  gst_message_unref (wait_message (&f, GST_MESSAGE_LATENCY));
  g_assert_true (gst_pad_peer_query (f.text->sinkpad, query));
  gst_query_parse_latency (query, &live, &min, &max);
  g_assert_cmpuint (min, >=, 1520 * GST_MSECOND);
  g_assert_cmpuint ((min - 20 * GST_MSECOND) % (500 * GST_MSECOND), ==, 0);
  GstClockTime before = min;
  g_object_set (f.element, "chunk-duration", 3 * GST_SECOND, NULL);
  g_assert_true (gst_pad_peer_query (f.text->sinkpad, query));
  gst_query_parse_latency (query, &live, &min, &max);
  g_assert_cmpuint (min, >=, before + 2 * GST_SECOND);
  gst_query_unref (query);
  finish (&f);

  /* Under all a buffer is kept until the next comes. */
  begin (&f, "policy=all", FALSE);
  play (&f);
  gst_harness_set_upstream_latency (f.h, 20 * GST_MSECOND);
  query = gst_query_new_latency ();
  g_assert_true (gst_pad_peer_query (f.h->sinkpad, query));
  gst_query_parse_latency (query, &live, &min, &max);
  g_assert_cmpuint (min, ==, 20 * GST_MSECOND + PERIOD);
  gst_query_unref (query);
  finish (&f);
}

/* ---- results ---- */

static void
expect_same_value (const char *field, const GValue *value, JsonNode *node)
{
  if (G_VALUE_HOLDS_STRING (value)) {
    g_assert_cmpstr (json_node_get_string (node), ==, g_value_get_string (value));
  } else if (G_VALUE_HOLDS_UINT64 (value)) {
    g_assert_cmpuint (json_node_get_int (node), ==, g_value_get_uint64 (value));
  } else if (G_VALUE_HOLDS_UINT (value)) {
    g_assert_cmpuint (json_node_get_int (node), ==, g_value_get_uint (value));
  } else if (G_VALUE_HOLDS_INT (value)) {
    g_assert_cmpint (json_node_get_int (node), ==, g_value_get_int (value));
  } else if (G_VALUE_HOLDS_DOUBLE (value)) {
    g_assert_cmpfloat (fabs (json_node_get_double (node) - g_value_get_double (value)), <, 1e-12);
  } else if (GST_VALUE_HOLDS_ARRAY (value)) {
    JsonArray *array = json_node_get_array (node);

    g_assert_cmpuint (json_array_get_length (array), ==, gst_value_array_get_size (value));
    for (guint i = 0; i < json_array_get_length (array); i++)
      expect_same_value (field, gst_value_array_get_value (value, i), json_array_get_element (array, i));
  } else {
    g_error ("%s is a %s", field, G_VALUE_TYPE_NAME (value));
  }
}

/* One shape everywhere: the message, the meta and the JSON of a chunk have the same fields with the same values. */
static void
test_result_shapes (void)
{
  static const struct
  {
    const char *name;
    GType type;
  } fields[] = {
    {"text", G_TYPE_STRING}, {"timestamp", G_TYPE_UINT64}, {"duration", G_TYPE_UINT64},
    {"stream-time", G_TYPE_UINT64}, {"running-time", G_TYPE_UINT64}, {"stream-id", G_TYPE_STRING},
    {"chunk", G_TYPE_UINT64}, {"prompt", G_TYPE_STRING}, {"model", G_TYPE_STRING}, {"prompt-tokens", G_TYPE_UINT},
    {"generated-tokens", G_TYPE_UINT}, {"finish", G_TYPE_STRING}, {"confidence", G_TYPE_DOUBLE},
    {"latency", G_TYPE_UINT64}, {"dropped", G_TYPE_UINT64}, {"frames", G_TYPE_INVALID},
    {"choice", G_TYPE_INT}, {"choice-probabilities", G_TYPE_INVALID},
  };
  Fixture f = { 0 };
  GstSegment segment;

  begin (&f, "policy=all text-format=json choices=<\"a\\ \\\"b\\\"\",c>", TRUE);
  play (&f);
  gst_segment_init (&segment, GST_FORMAT_TIME);
  segment.start = segment.position = 60 * GST_SECOND;
  segment.time = 5 * GST_SECOND;
  segment.base = GST_SECOND;
  gst_harness_push_event (f.h, gst_event_new_segment (&segment));
  f.next = 600;
  push_frames (&f, 10);
  gst_harness_push_event (f.h, gst_event_new_eos ());

  g_autoptr (GstStructure) message = wait_result (&f);
  GstBuffer *text = gst_harness_pull (f.text), *video = NULL;
  for (guint i = 0; i < 10; i++) {
    gst_clear_buffer (&video);
    video = gst_harness_pull (f.h);
  }
  GstCustomMeta *custom = gst_buffer_get_custom_meta (video, "internvl");
  g_assert_nonnull (custom);
  const GstStructure *meta = gst_custom_meta_get_structure (custom);
  GstMapInfo map;
  gst_buffer_map (text, &map, GST_MAP_READ);
  g_autoptr (JsonParser) parser = json_parser_new ();
  g_assert_true (json_parser_load_from_data (parser, (const char *) map.data, map.size, NULL));
  JsonObject *json = json_node_get_object (json_parser_get_root (parser));
  gst_buffer_unmap (text, &map);

  g_assert_true (gst_structure_has_name (message, "internvl"));
  g_assert_true (gst_structure_has_name (meta, "internvl"));
  g_assert_cmpint (gst_structure_n_fields (message), ==, G_N_ELEMENTS (fields));
  g_assert_cmpint (gst_structure_n_fields (meta), ==, G_N_ELEMENTS (fields));
  g_assert_cmpuint (json_object_get_size (json), ==, G_N_ELEMENTS (fields));
  for (guint i = 0; i < G_N_ELEMENTS (fields); i++) {
    const GValue *value = gst_structure_get_value (message, fields[i].name);

    g_assert_nonnull (value);
    g_assert_true (G_VALUE_HOLDS (value, fields[i].type == G_TYPE_INVALID ? GST_TYPE_ARRAY : fields[i].type));
    g_assert_cmpint (gst_value_compare (value, gst_structure_get_value (meta, fields[i].name)), ==, GST_VALUE_EQUAL);
    g_assert_true (json_object_has_member (json, fields[i].name));
    expect_same_value (fields[i].name, value, json_object_get_member (json, fields[i].name));
  }
  g_assert_cmpuint (test_get_uint64 (message, "timestamp"), ==, 60 * GST_SECOND);
  g_assert_cmpuint (test_get_uint64 (message, "stream-time"), ==, 5 * GST_SECOND);
  g_assert_cmpuint (test_get_uint64 (message, "running-time"), ==, GST_SECOND);
  /* Stream time. */
  g_assert_cmpuint (GST_BUFFER_PTS (text), ==, 5 * GST_SECOND);
  g_assert_cmpuint (GST_BUFFER_DURATION (text), ==, GST_SECOND);
  gst_buffer_unref (text);
  gst_buffer_unref (video);
  finish (&f);
}

static void
on_notify (GObject *element, GParamSpec *pspec, gpointer data)
{
  g_atomic_int_inc ((gint *) data);
}

/* All that the contract names, told whenever it changes. */
static void
test_stats (void)
{
  static const char *counts[] = { "chunks", "dropped", "skipped", "cuts", "frames-encoded", "frames-reused",
    "prompt-tokens", "tokens", "prompt-tokens-reused", "draft-tokens", "draft-tokens-held"
  };
  static const char *rates[] = { "tokens-per-second", "encode-ms", "prefill-ms", "decode-ms" };
  static const double expected[] = { 1000, 1, 2, 5 };
  g_autoptr (GstStructure) stats = NULL;
  Fixture f = { 0 };
  gint notified = 0;

  begin (&f, "policy=all", FALSE);
  g_signal_connect (f.element, "notify::stats", G_CALLBACK (on_notify), &notified);
  play (&f);
  push_frames (&f, 20);
  gst_harness_push_event (f.h, gst_event_new_eos ());
  g_assert_cmpint (g_atomic_int_get (&notified), ==, 2);
  g_object_get (f.element, "stats", &stats, NULL);
  g_assert_cmpint (gst_structure_n_fields (stats), ==, G_N_ELEMENTS (counts) + G_N_ELEMENTS (rates));
  for (guint i = 0; i < G_N_ELEMENTS (counts); i++)
    g_assert_true (gst_structure_has_field_typed (stats, counts[i], G_TYPE_UINT64));
  g_assert_cmpuint (test_get_uint64 (stats, "chunks"), ==, 2);
  g_assert_cmpuint (test_get_uint64 (stats, "tokens"), ==, 10);
  g_assert_cmpuint (test_get_uint64 (stats, "prompt-tokens"), ==, 2 * 522);
  g_assert_cmpuint (test_get_uint64 (stats, "prompt-tokens-reused"), ==, 2 * 7);
  g_assert_cmpuint (test_get_uint64 (stats, "draft-tokens"), ==, 2 * 4);
  g_assert_cmpuint (test_get_uint64 (stats, "draft-tokens-held"), ==, 2 * 3);
  for (guint i = 0; i < G_N_ELEMENTS (rates); i++) {
    double value;

    g_assert_true (gst_structure_get_double (stats, rates[i], &value));
    g_assert_cmpfloat (value, ==, expected[i]);
  }
  finish (&f);
}

/* Set before the start, in any order among others that are fine: the start tells, and none is forgotten over another. */
static void
test_wrong_before_start (void)
{
  static const struct
  {
    const char *properties, *part;
  } cases[] = {
    {"choices=<a,a> prompt=fine", "choices hold one twice"},
    {"prompt=fine choices=<a,a>", "choices hold one twice"},
    {"json-schema=[] alert-on=yes system-prompt=fine", "json-schema is not an object"},
    {"choices=<a,b> json-schema={} prompt=fine", "choices: empty those first"},
    {"json-schema={} choices=<a,b> alert-on=yes", "json-schema: unset that first"},
    {"prompt-path=/nowhere.txt prompt=fine", "/nowhere.txt"},
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    Fixture f = {.bus = gst_bus_new () };
    g_autofree char *launch = g_strdup_printf ("internvl model-path=%s %s", test_model_path (), cases[i].properties);

    f.element = gst_object_ref_sink (gst_parse_launch (launch, NULL));
    gst_element_set_bus (f.element, f.bus);
    g_assert_cmpint (gst_element_set_state (f.element, GST_STATE_READY), ==, GST_STATE_CHANGE_FAILURE);
    g_autoptr (GstMessage) message = wait_message (&f, GST_MESSAGE_ERROR);
    g_autoptr (GError) error = NULL;
    gst_message_parse_error (message, &error, NULL);
    if (!strstr (error->message, cases[i].part))
      g_error ("\"%s\" doesn't say \"%s\"", error->message, cases[i].part);
    gst_element_set_state (f.element, GST_STATE_NULL);
    gst_element_set_bus (f.element, NULL);
    gst_object_unref (f.element);
    gst_object_unref (f.bus);
  }

  /* Two at once; with both mended, it starts. */
  GstElement *element = gst_object_ref_sink (gst_element_factory_make ("internvl", NULL));
  g_object_set (element, "model-path", test_model_path (), "json-schema", "{", "alert-on", "\xff", NULL);
  g_object_set (element, "alert-on", "yes", NULL);
  g_assert_cmpint (gst_element_set_state (element, GST_STATE_READY), ==, GST_STATE_CHANGE_FAILURE);
  g_object_set (element, "json-schema", "{}", NULL);
  g_assert_cmpint (gst_element_set_state (element, GST_STATE_READY), ==, GST_STATE_CHANGE_SUCCESS);
  gst_element_set_state (element, GST_STATE_NULL);
  gst_object_unref (element);
}

/* Seconds, where nanoseconds are wanted: taken as they are, and told. */
static void
test_odd_times (void)
{
  static const char *names[] = { "chunk-duration", "chunk-stride", "first-chunk-duration", "alert-hold" };

  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    for (guint odd = 0; odd < 2; odd++) {
      Fixture f = { 0 };
      g_autofree char *properties = g_strdup_printf ("policy=all %s=%s", names[i], odd ? "4" : "1000000");

      begin (&f, properties, FALSE);
      GstMessage *message = gst_bus_pop_filtered (f.bus, GST_MESSAGE_WARNING);
      g_assert_cmpint (message != NULL, ==, odd);
      if (odd) {
        g_autoptr (GError) error = NULL;
        gst_message_parse_warning (message, &error, NULL);
        g_assert_true (g_str_has_prefix (error->message, names[i]));
        gst_message_unref (message);
      }
      finish (&f);
    }
}

int
main (int argc, char **argv)
{
  gst_init (&argc, &argv);
  g_test_init (&argc, &argv, NULL);
#define add(path, name) g_test_add_func ("/settings/" path, name)
  add ("change-prompt", test_change_prompt);
  add ("change-together", test_change_together);
  add ("change-race", test_change_race);
  add ("first-chunk", test_first_chunk);
  add ("latency", test_latency);
  add ("result-shapes", test_result_shapes);
  add ("stats", test_stats);
  add ("wrong-before-start", test_wrong_before_start);
  add ("odd-times", test_odd_times);
  int status = g_test_run ();
  gst_deinit ();
  return status;
}
