/* soak MINUTES STREAMS MODEL: live streams that share one model, with prompts that change and streams that restart, and
 * what became of them. Exits 1 if memory grew, or a stream fell silent or didn't stop. Not a test of the suite: it takes its
 * time. */
#include <gst/gst.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
  guint index;
  GstElement *pipeline, *internvl;
  gint64 entered_us;      /* when the buffer now inside came in; streaming thread only */
  guint answers, restarts;
  guint64 dropped, dropped_before;
} Stream;

static GMutex delays_lock;
static GArray *delays; /* guint32, us spent in the element by each buffer */

typedef struct {
  guint64 resident, used; /* bytes; used: handed out by the allocator */
} Memory;

/* Frames of sizes that come and go leave holes in the heap, which are given back first: what is looked for is memory that
 * someone holds on to. */
static Memory
memory_now (void)
{
  malloc_trim (0);
  struct mallinfo2 info = mallinfo2 ();
  Memory memory = { .used = info.uordblks + info.hblkhd };
  unsigned long total = 0, resident = 0;
  FILE *file = fopen ("/proc/self/statm", "r");
  if (file) {
    if (fscanf (file, "%lu %lu", &total, &resident) != 2)
      resident = 0;
    fclose (file);
  }
  memory.resident = (guint64) resident * (guint64) sysconf (_SC_PAGESIZE);
  return memory;
}

static GstPadProbeReturn
on_enter (GstPad *pad, GstPadProbeInfo *info, gpointer data)
{
  ((Stream *) data)->entered_us = g_get_monotonic_time ();
  return GST_PAD_PROBE_OK;
}

static GstPadProbeReturn
on_leave (GstPad *pad, GstPadProbeInfo *info, gpointer data)
{
  guint32 delay = (guint32) (g_get_monotonic_time () - ((Stream *) data)->entered_us);
  g_mutex_lock (&delays_lock);
  g_array_append_val (delays, delay);
  g_mutex_unlock (&delays_lock);
  return GST_PAD_PROBE_OK;
}

static GstBusSyncReply
on_message (GstBus *bus, GstMessage *message, gpointer data)
{
  Stream *stream = data;
  if (GST_MESSAGE_TYPE (message) == GST_MESSAGE_ERROR) {
    GError *error = NULL;
    gst_message_parse_error (message, &error, NULL);
    fprintf (stderr, "stream %u: %s\n", stream->index, error->message);
    exit (1);
  }
  if (GST_MESSAGE_TYPE (message) == GST_MESSAGE_ELEMENT
      && gst_message_has_name (message, "internvl")) {
    g_atomic_int_inc (&stream->answers);
    gst_structure_get_uint64 (gst_message_get_structure (message), "dropped", &stream->dropped);
  }
  gst_message_unref (message);
  return GST_BUS_DROP;
}

static void
stream_start (Stream *stream, const char *model)
{
  static const char *const rates[] = { "30/1", "25/1", "15/1", "7/1" };
  g_autoptr (GError) error = NULL;
  g_autofree char *text = g_strdup_printf (
    "videotestsrc is-live=true pattern=%s ! video/x-raw,width=%u,height=%u,framerate=%s "
    "! internvl name=v model-path=\"%s\" chunk-duration=2000000000 chunk-size=4 max-tokens=32 ! fakesink sync=true",
    g_random_boolean () ? "ball" : "smpte", 160 + 32 * g_random_int_range (0, 16), 120 + 16 * g_random_int_range (0, 16),
    rates[g_random_int_range (0, G_N_ELEMENTS (rates))], model);
  stream->pipeline = gst_parse_launch (text, &error);
  if (!stream->pipeline)
    g_error ("%s", error->message);
  stream->internvl = gst_bin_get_by_name (GST_BIN (stream->pipeline), "v");
  g_autoptr (GstPad) sink = gst_element_get_static_pad (stream->internvl, "sink");
  g_autoptr (GstPad) src = gst_element_get_static_pad (stream->internvl, "src");
  gst_pad_add_probe (sink, GST_PAD_PROBE_TYPE_BUFFER, on_enter, stream, NULL);
  gst_pad_add_probe (src, GST_PAD_PROBE_TYPE_BUFFER, on_leave, stream, NULL);
  g_autoptr (GstBus) bus = gst_element_get_bus (stream->pipeline);
  gst_bus_set_sync_handler (bus, on_message, stream, NULL);
  gst_element_set_state (stream->pipeline, GST_STATE_PLAYING);
}

#define STOP_SECONDS 60

static void
on_alarm (int signal_number)
{
  static const char message[] = "soak: a stream did not stop\n";
  _exit (write (STDERR_FILENO, message, sizeof message - 1) ? 1 : 2);
}

static void
stream_stop (Stream *stream)
{
  alarm (STOP_SECONDS);
  gst_element_set_state (stream->pipeline, GST_STATE_NULL);
  alarm (0);
  stream->dropped_before += stream->dropped;
  stream->dropped = 0;
  g_clear_object (&stream->internvl);
  g_clear_object (&stream->pipeline);
}

static int
compare_delays (const void *a, const void *b)
{
  guint32 x = *(const guint32 *) a, y = *(const guint32 *) b;
  return x < y ? -1 : x > y;
}

int
main (int argc, char **argv)
{
  static const char *const prompts[] = { "Describe this video.", "What is the background?", "What color is it?",
                                         "Is there a circle?" };
  /* An arena for each of the threads that come and go takes its time to fill: that is not what is looked for. */
  mallopt (M_ARENA_MAX, 1);
  signal (SIGALRM, on_alarm);
  gst_init (&argc, &argv);
  if (argc != 4) {
    fprintf (stderr, "usage: soak MINUTES STREAMS MODEL\n");
    return 2;
  }
  double seconds = atof (argv[1]) * 60;
  guint n = (guint) CLAMP (atoi (argv[2]), 1, 64);
  delays = g_array_new (FALSE, FALSE, sizeof (guint32));
  g_autofree Stream *streams = g_new0 (Stream, n);
  for (guint i = 0; i < n; i++) {
    streams[i].index = i;
    stream_start (&streams[i], argv[3]);
  }
  /* Memory settles while pipelines are compiled, and while batches of each size come for the first time. */
  double settle = MAX (MIN (30., seconds / 4), seconds / 10);
  g_usleep ((gulong) (settle * 1e6));
  Memory at_start = memory_now (), at_middle = { 0 };
  gint64 end = g_get_monotonic_time () + (gint64) ((seconds - settle) * 1e6);
  gint64 middle = end - (gint64) (seconds / 2 * 1e6);
  while (g_get_monotonic_time () < end) {
    g_usleep (500000);
    if (!at_middle.used && g_get_monotonic_time () >= middle)
      at_middle = memory_now ();
    Stream *stream = &streams[g_random_int_range (0, (gint32) n)];
    if (g_random_int_range (0, 8) == 0) {
      stream_stop (stream);
      stream->restarts++;
      stream_start (stream, argv[3]);
    } else {
      g_object_set (stream->internvl, "prompt", prompts[g_random_int_range (0, G_N_ELEMENTS (prompts))], "priority",
                    g_random_int_range (-2, 3), "sampling", g_random_int_range (0, 3), NULL);
    }
  }
  Memory at_end = memory_now ();
  guint64 dropped = 0;
  guint answers = 0, restarts = 0, silent = 0;
  for (guint i = 0; i < n; i++) {
    stream_stop (&streams[i]);
    answers += streams[i].answers;
    restarts += streams[i].restarts;
    dropped += streams[i].dropped_before;
    silent += streams[i].answers == 0;
  }
  qsort (delays->data, delays->len, sizeof (guint32), compare_delays);
  const guint32 *d = (const guint32 *) delays->data;
  guint last = MAX (delays->len, 1) - 1;
  printf ("soak: %u streams, %.1f min, %u buffers, %u answers, %" G_GUINT64_FORMAT " chunks dropped, %u restarts\n", n,
          seconds / 60, delays->len, answers, dropped, restarts);
  if (delays->len)
    printf ("soak: time in the element: p50 %u us, p99 %u us, max %u us\n", d[delays->len / 2],
            d[(guint) ((double) last * 0.99)], d[last]);
  printf ("soak: resident %.1f MB after %.0f s, %.1f MB half way, %.1f MB at the end; of the allocator %.1f, %.1f, %.1f, of "
          "which %.1f MB are this program's samples\n",
          (double) at_start.resident / 1e6, settle, (double) at_middle.resident / 1e6, (double) at_end.resident / 1e6,
          (double) at_start.used / 1e6, (double) at_middle.used / 1e6, (double) at_end.used / 1e6,
          (double) delays->len * 4 / 1e6);
  g_array_unref (delays);
  gst_deinit ();
  /* A tenth, and the allocator's own play. */
  gboolean grew = (double) at_end.resident > 1.1 * (double) at_start.resident + 32e6;
  printf ("soak: %s\n", grew ? "memory grew" : silent ? "a stream fell silent" : "passed");
  return grew || silent;
}
