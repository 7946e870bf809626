/* streams MODEL STREAMS SECONDS share|copies: how many answers a minute the streams of one process get, what CPU time
 * each takes (all of the process: videos and drivers too) and what memory, with one model for all or a copy for each.
 * Prints one line of JSON. tests/bench/streams.sh makes the table. */
#include <gst/gst.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

typedef struct {
  gint answers;  /* atomic */
  gint failed;   /* atomic */
} Counts;

static GstBusSyncReply
on_message (GstBus *bus, GstMessage *message, gpointer data)
{
  Counts *counts = data;
  if (GST_MESSAGE_TYPE (message) == GST_MESSAGE_ERROR) {
    GError *error = NULL;
    gst_message_parse_error (message, &error, NULL);
    fprintf (stderr, "%s\n", error->message);
    g_error_free (error);
    g_atomic_int_set (&counts->failed, 1);
  } else if (GST_MESSAGE_TYPE (message) == GST_MESSAGE_ELEMENT && gst_message_has_name (message, "internvl")) {
    g_atomic_int_inc (&counts->answers);
  }
  gst_message_unref (message);
  return GST_BUS_DROP;
}

static double
peak_mb (void)
{
  g_autofree char *status = NULL;
  g_file_get_contents ("/proc/self/status", &status, NULL, NULL);
  const char *line = status ? strstr (status, "VmHWM:") : NULL;
  return line ? g_ascii_strtod (line + strlen ("VmHWM:"), NULL) / 1000 : 0;
}

/* User and system time of the process. */
static double
cpu_ms (void)
{
  struct rusage usage;
  getrusage (RUSAGE_SELF, &usage);
  return (double) (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e3
         + (double) (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e3;
}

int
main (int argc, char **argv)
{
  gst_init (&argc, &argv);
  if (argc != 5 || (strcmp (argv[4], "share") && strcmp (argv[4], "copies"))) {
    fprintf (stderr, "usage: streams MODEL STREAMS SECONDS share|copies\n");
    return 2;
  }
  guint n = (guint) CLAMP (atoi (argv[2]), 1, 64);
  double seconds = atof (argv[3]);
  Counts counts = { 0 };
  g_autofree GstElement **pipelines = g_new0 (GstElement *, n);
  for (guint i = 0; i < n; i++) {
    g_autoptr (GError) error = NULL;
    /* As fast as they are answered, each chunk once; no two streams show the same. */
    g_autofree char *text = g_strdup_printf (
      "videotestsrc pattern=ball animation-mode=frames motion=%s foreground-color=%u ! "
      "video/x-raw,width=320,height=240,framerate=8/1 ! internvl model-path=\"%s\" share=%s policy=all "
      "chunk-duration=2000000000 chunk-size=4 max-tokens=32 ! fakesink", i % 2 ? "sweep" : "wavy",
      0xff000000u | i * 0x0f1f2fu, argv[1], strcmp (argv[4], "share") ? "false" : "true");
    pipelines[i] = gst_parse_launch (text, &error);
    if (!pipelines[i]) {
      fprintf (stderr, "%s\n", error->message);
      return 1;
    }
    g_autoptr (GstBus) bus = gst_element_get_bus (pipelines[i]);
    gst_bus_set_sync_handler (bus, on_message, &counts, NULL);
    gst_element_set_state (pipelines[i], GST_STATE_PLAYING);
  }
  /* Until all have loaded and compiled. */
  while (g_atomic_int_get (&counts.answers) < (gint) (2 * n) && !g_atomic_int_get (&counts.failed))
    g_usleep (10000);
  gint first = g_atomic_int_get (&counts.answers);
  gint64 start = g_get_monotonic_time ();
  double cpu = cpu_ms ();
  while (g_get_monotonic_time () - start < (gint64) (seconds * 1e6) && !g_atomic_int_get (&counts.failed))
    g_usleep (10000);
  double minutes = (double) (g_get_monotonic_time () - start) / 60e6;
  gint answers = g_atomic_int_get (&counts.answers) - first;
  cpu = cpu_ms () - cpu;
  double peak = peak_mb ();
  for (guint i = 0; i < n; i++) {
    gst_element_set_state (pipelines[i], GST_STATE_NULL);
    gst_object_unref (pipelines[i]);
  }
  printf ("{\"streams\": %u, \"model\": \"%s\", \"answers_per_minute\": %.1f, \"cpu_ms_an_answer\": %.1f, \"peak_mb\": %.1f}\n",
          n, argv[4], answers / minutes, cpu / MAX (answers, 1), peak);
  return g_atomic_int_get (&counts.failed);
}
