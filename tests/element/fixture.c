#include "fixture.h"

void
begin (Fixture *f, const char *properties, gboolean with_text)
{
  g_autofree char *launch = g_strdup_printf ("internvl model-path=%s chunk-size=2 frame-rate=2/1 %s",
      test_model_path (), properties);

  f->element = gst_parse_launch (launch, NULL);
  g_assert_nonnull (f->element);
  gst_object_ref_sink (f->element);
  f->bus = gst_bus_new ();
  gst_element_set_bus (f->element, f->bus);
  f->h = gst_harness_new_with_element (f->element, "sink", "src");
  if (with_text)
    f->text = gst_harness_new_with_element (f->element, NULL, "text_src");
  f->next = 0;
}

void
play (Fixture *f)
{
  gst_harness_play (f->h);
  gst_harness_set_src_caps_str (f->h, CAPS);
}

void
finish (Fixture *f)
{
  if (f->text)
    gst_harness_teardown (f->text);
  gst_harness_teardown (f->h);
  gst_element_set_state (f->element, GST_STATE_NULL);
  gst_bus_set_flushing (f->bus, TRUE);
  gst_element_set_bus (f->element, NULL);
  g_assert_cmpint (GST_OBJECT_REFCOUNT_VALUE (f->element), ==, 1);
  gst_object_unref (f->element);
  gst_object_unref (f->bus);
  *f = (Fixture) { 0 };
  /* Aborts if anything of the engine's is alive. */
  fake_engine_reset ();
}

GstBuffer *
make_frame (guint number)
{
  GstBuffer *buffer = gst_buffer_new_allocate (NULL, 16 * 16 * 3, NULL);

  gst_buffer_memset (buffer, 0, number, -1);
  GST_BUFFER_PTS (buffer) = number * PERIOD;
  GST_BUFFER_DURATION (buffer) = PERIOD;
  return buffer;
}

GstFlowReturn
push_frames (Fixture *f, guint count)
{
  GstFlowReturn flow = GST_FLOW_OK;

  for (guint i = 0; i < count && flow == GST_FLOW_OK; i++)
    flow = gst_harness_push (f->h, make_frame (f->next++));
  return flow;
}

void
expect_text (Fixture *f, GstClockTime pts, GstClockTime duration, const char *text)
{
  GstBuffer *buffer = gst_harness_pull (f->text);
  GstMapInfo map;

  g_assert_nonnull (buffer);
  gst_buffer_map (buffer, &map, GST_MAP_READ);
  g_autofree char *found = g_strndup ((const char *) map.data, map.size);
  gst_buffer_unmap (buffer, &map);
  g_assert_cmpstr (found, ==, text);
  g_assert_cmpuint (GST_BUFFER_PTS (buffer), ==, pts);
  g_assert_cmpuint (GST_BUFFER_DURATION (buffer), ==, duration);
  gst_buffer_unref (buffer);
}

GstMessage *
wait_message (Fixture *f, GstMessageType type)
{
  GstMessage *message = gst_bus_timed_pop_filtered (f->bus, 60 * GST_SECOND, type);

  g_assert_nonnull (message);
  return message;
}

GstStructure *
wait_result (Fixture *f)
{
  g_autoptr (GstMessage) message = wait_message (f, GST_MESSAGE_ELEMENT);

  g_assert_true (gst_message_has_name (message, "internvl"));
  return gst_structure_copy (gst_message_get_structure (message));
}

void
expect_error (Fixture *f, GQuark domain, gint code, const char *part)
{
  g_autoptr (GstMessage) message = wait_message (f, GST_MESSAGE_ERROR);
  g_autoptr (GError) error = NULL;

  gst_message_parse_error (message, &error, NULL);
  g_assert_error (error, domain, code);
  if (!strstr (error->message, part))
    g_error ("\"%s\" doesn't say \"%s\"", error->message, part);
}

guint64
get_stat (Fixture *f, const char *name)
{
  g_autoptr (GstStructure) stats = NULL;

  g_object_get (f->element, "stats", &stats, NULL);
  return test_get_uint64 (stats, name);
}
