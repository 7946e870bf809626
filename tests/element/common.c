#include "common.h"

#include <glib/gstdio.h>

#define PATIENCE (400 * GST_SECOND)

static char *folder;

static void
remove_folder (void)
{
  GDir *dir = g_dir_open (folder, 0, NULL);
  const char *name;

  while (dir && (name = g_dir_read_name (dir))) {
    g_autofree char *path = g_build_filename (folder, name, NULL);
    g_remove (path);
  }
  g_clear_pointer (&dir, g_dir_close);
  g_rmdir (folder);
}

const char *
test_path (const char *name)
{
  if (!folder) {
    folder = g_dir_make_tmp ("internvl-test-XXXXXX", NULL);
    g_assert_nonnull (folder);
    atexit (remove_folder);
  }
  g_autofree char *path = g_build_filename (folder, name, NULL);
  return g_intern_string (path);
}

const char *
test_model_path (void)
{
  const char *config = test_path ("config.json");

  if (!g_file_test (config, G_FILE_TEST_EXISTS))
    g_assert_true (g_file_set_contents (config, "{}", -1, NULL));
  return folder;
}

GstElement *
test_launch (const char *format, ...)
{
  g_autoptr (GError) error = NULL;
  va_list args;

  va_start (args, format);
  g_autofree char *description = g_strdup_vprintf (format, args);
  va_end (args);
  GstElement *pipeline = gst_parse_launch_full (description, NULL, GST_PARSE_FLAG_FATAL_ERRORS, &error);
  if (!pipeline)
    g_error ("%s: %s", description, error->message);
  return pipeline;
}

GPtrArray *
test_structures_new (void)
{
  return g_ptr_array_new_with_free_func ((GDestroyNotify) gst_structure_free);
}

GError *
test_play (GstElement *pipeline, GPtrArray *collected)
{
  g_autoptr (GstBus) bus = gst_element_get_bus (pipeline);
  GError *error = NULL;
  gboolean done = FALSE;

  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  while (!done) {
    GstMessage *message = gst_bus_timed_pop_filtered (bus, PATIENCE,
        GST_MESSAGE_EOS | GST_MESSAGE_ERROR | GST_MESSAGE_ELEMENT);

    if (!message) {
      GST_DEBUG_BIN_TO_DOT_FILE (GST_BIN (pipeline), GST_DEBUG_GRAPH_SHOW_ALL, "stuck");
      g_error ("the pipeline is stuck");
    }
    switch (GST_MESSAGE_TYPE (message)) {
      case GST_MESSAGE_EOS:
        done = TRUE;
        break;
      case GST_MESSAGE_ERROR:
        gst_message_parse_error (message, &error, NULL);
        done = TRUE;
        break;
      default:
        if (collected && gst_message_has_name (message, "internvl"))
          g_ptr_array_add (collected, gst_structure_copy (gst_message_get_structure (message)));
    }
    gst_message_unref (message);
  }
  gst_element_set_state (pipeline, GST_STATE_NULL);
  return error;
}

GstMessage *
test_wait_message (GstElement *pipeline, GstMessageType types)
{
  g_autoptr (GstBus) bus = gst_element_get_bus (pipeline);
  GstMessage *message = gst_bus_timed_pop_filtered (bus, PATIENCE, types | GST_MESSAGE_ERROR);

  if (!message)
    g_error ("waited for %s in vain", gst_message_type_get_name (types));
  if (GST_MESSAGE_TYPE (message) == GST_MESSAGE_ERROR && !(types & GST_MESSAGE_ERROR)) {
    g_autoptr (GError) error = NULL;
    gst_message_parse_error (message, &error, NULL);
    g_error ("%s", error->message);
  }
  return message;
}

GstStructure *
test_wait_result (GstElement *pipeline)
{
  for (;;) {
    g_autoptr (GstMessage) message = test_wait_message (pipeline, GST_MESSAGE_ELEMENT);
    if (gst_message_has_name (message, "internvl"))
      return gst_structure_copy (gst_message_get_structure (message));
  }
}

void
test_set_state (GstElement *pipeline, GstState state)
{
  if (gst_element_set_state (pipeline, state) == GST_STATE_CHANGE_ASYNC)
    g_assert_cmpint (gst_element_get_state (pipeline, NULL, NULL, PATIENCE), !=, GST_STATE_CHANGE_ASYNC);
  g_assert_cmpint (GST_STATE (pipeline), ==, state);
}

guint64
test_get_uint64 (const GstStructure *structure, const char *field)
{
  guint64 value;

  if (!gst_structure_get_uint64 (structure, field, &value))
    g_error ("no field %s in %s", field, gst_structure_get_name (structure));
  return value;
}

char *
test_describe_answer (const GstStructure *result)
{
  double confidence;

  g_assert_true (gst_structure_get_double (result, "confidence", &confidence));
  return g_strdup_printf ("%" G_GUINT64_FORMAT " %s (%.17g)", test_get_uint64 (result, "chunk"),
      gst_structure_get_string (result, "text"), confidence);
}
