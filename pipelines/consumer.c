/* An application around the element: plays a video at its pace, prints what is said of it as it comes on the bus, with its
 * times, and takes each line of standard input for a question about what is seen just then.
 *
 *   consumer VIDEO-OR-URI [PROMPT]
 *
 * The model is that of the environment, INTERNVL_MODEL. Answers look like "12.0 s - 16.0 s: A cat sits down.", replies like
 * "12.0 s - 16.0 s, asked \"What colour is it?\": White.". Ends with the video, or at the first error with status 1.
 */
#include <gst/gst.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct {
  GMainLoop *loop;
  GstElement *pipeline, *internvl;
  guint n_open; /* questions without a reply */
  gboolean ended, failed;
} App;

static void
end_if_done (App *app)
{
  if (app->failed || (app->ended && !app->n_open))
    g_main_loop_quit (app->loop);
}

/* A result of a chunk of the video, or the reply to a question, which has an id. */
static void
print_result (App *app, const GstStructure *result)
{
  const char *text = gst_structure_get_string (result, "text"), *error = gst_structure_get_string (result, "error");
  const char *prompt = gst_structure_get_string (result, "prompt");
  gboolean reply = gst_structure_has_field (result, "id");
  guint64 time, duration;

  if (gst_structure_get_uint64 (result, "stream-time", &time) && gst_structure_get_uint64 (result, "duration", &duration))
    g_print ("%.1f s - %.1f s", (double) time / GST_SECOND, (double) (time + duration) / GST_SECOND);
  if (reply)
    g_print (", asked \"%s\"", prompt);
  g_print (": %s\n", text ? text : error);
  app->n_open -= reply;
  end_if_done (app);
}

static gboolean
on_message (GstBus *bus, GstMessage *message, gpointer data)
{
  g_autoptr (GError) error = NULL;
  App *app = data;

  switch (GST_MESSAGE_TYPE (message)) {
    case GST_MESSAGE_ELEMENT:
      if (gst_message_has_name (message, "internvl"))
        print_result (app, gst_message_get_structure (message));
      break;
    case GST_MESSAGE_WARNING:
      gst_message_parse_warning (message, &error, NULL);
      g_printerr ("Warning: %s\n", error->message);
      break;
    case GST_MESSAGE_ERROR:
      gst_message_parse_error (message, &error, NULL);
      g_printerr ("%s\n", error->message);
      app->failed = TRUE;
      end_if_done (app);
      break;
    case GST_MESSAGE_EOS:
      app->ended = TRUE;
      end_if_done (app);
      break;
    default:
      break;
  }
  return G_SOURCE_CONTINUE;
}

static gboolean
on_line (GIOChannel *input, GIOCondition condition, gpointer data)
{
  g_autofree char *line = NULL;
  App *app = data;
  gboolean taken;
  gsize end;

  if (g_io_channel_read_line (input, &line, NULL, &end, NULL) != G_IO_STATUS_NORMAL)
    return G_SOURCE_REMOVE;
  line[end] = '\0';
  /* The reply comes on the bus; the id tells which one it is if there are several. */
  g_signal_emit_by_name (app->internvl, "ask", line, "line", &taken);
  app->n_open += taken;
  if (!taken)
    g_print ("Nothing was seen yet; ask again.\n");
  return G_SOURCE_CONTINUE;
}

int
main (int argc, char **argv)
{
  g_autoptr (GError) error = NULL;
  App app = { 0 };

  gst_init (&argc, &argv);
  if (argc < 2 || argc > 3) {
    g_printerr ("Usage: %s VIDEO-OR-URI [PROMPT]\n", argv[0]);
    return EXIT_FAILURE;
  }
  g_autofree char *uri = gst_uri_is_valid (argv[1]) ? g_strdup (argv[1]) : gst_filename_to_uri (argv[1], &error);
  if (uri)
    app.pipeline = gst_parse_launch_full ("uridecodebin name=source ! videoconvert ! internvl name=v ! fakesink sync=true",
        NULL, GST_PARSE_FLAG_FATAL_ERRORS, &error);
  if (!app.pipeline) {
    g_printerr ("%s\n", error->message);
    return EXIT_FAILURE;
  }
  app.loop = g_main_loop_new (NULL, FALSE);
  app.internvl = gst_bin_get_by_name (GST_BIN (app.pipeline), "v");
  gst_child_proxy_set (GST_CHILD_PROXY (app.pipeline), "source::uri", uri, NULL);
  if (argc == 3)
    g_object_set (app.internvl, "prompt", argv[2], NULL);
  g_autoptr (GstBus) bus = gst_element_get_bus (app.pipeline);
  guint bus_watch = gst_bus_add_watch (bus, on_message, &app);
  GIOChannel *input = g_io_channel_unix_new (STDIN_FILENO);
  g_io_add_watch (input, G_IO_IN | G_IO_HUP, on_line, &app);

  gst_element_set_state (app.pipeline, GST_STATE_PLAYING);
  g_main_loop_run (app.loop);

  gst_element_set_state (app.pipeline, GST_STATE_NULL);
  g_source_remove (bus_watch);
  g_io_channel_unref (input);
  gst_object_unref (app.internvl);
  gst_object_unref (app.pipeline);
  g_main_loop_unref (app.loop);
  return app.failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
