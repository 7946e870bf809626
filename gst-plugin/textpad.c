#include "textpad.h"

#include "errors.h"
#include "textout.h"

#include <string.h>

GST_DEBUG_CATEGORY_EXTERN (gst_internvl_debug);
#define GST_CAT_DEFAULT gst_internvl_debug

/* How long video may stand still, in microseconds, before the pad concludes that it waits for text. */
#define PATIENCE (1 * G_TIME_SPAN_SECOND)

/* One of the two. */
typedef struct
{
  GstEvent *event;
  GstInternvlResult *result;
} Item;

struct _GstInternvlTextPad
{
  GstPad parent;

  GMutex lock;
  GCond cond;
  GQueue items;
  guint n_results, limit;
  gboolean flushing;            /* also while inactive */
  GstFlowReturn flow;
  GstInternvlTextFormat format;
  GstInternvlTextExpected expected;
  gpointer owner;
  GstClockTime video;           /* as far as the video being pushed goes; NONE: none is */
  gint64 video_since;           /* monotonic */
  GstClockTime told;            /* as far as GAP events went, from the segment's start; NONE: don't */
  gboolean following;           /* tell of every frame */

  /* The task's. */
  GstInternvlTextFormat negotiated;     /* AUTO: not yet */
  gboolean discont;
};

G_DEFINE_TYPE (GstInternvlTextPad, gst_internvl_text_pad, GST_TYPE_PAD)

static void
item_free (Item *item)
{
  gst_clear_event (&item->event);
  gst_internvl_result_unref (item->result);
  g_free (item);
}

static void
set_flushing (GstInternvlTextPad *pad, gboolean flushing)
{
  GQueue items = G_QUEUE_INIT;
  Item *item;

  g_mutex_lock (&pad->lock);
  pad->flushing = flushing;
  pad->flow = flushing ? GST_FLOW_FLUSHING : GST_FLOW_OK;
  if (flushing) {
    items = pad->items;
    g_queue_init (&pad->items);
    pad->n_results = 0;
    pad->following = FALSE;
    pad->told = GST_CLOCK_TIME_NONE;
  }
  g_cond_signal (&pad->cond);
  g_mutex_unlock (&pad->lock);
  while ((item = g_queue_pop_head (&items)))
    item_free (item);
}

/* ---- the task ---- */

static gboolean
negotiate (GstInternvlTextPad *pad)
{
  g_mutex_lock (&pad->lock);
  GstInternvlTextFormat format = pad->format;
  g_mutex_unlock (&pad->lock);

  g_autoptr (GstCaps) allowed = gst_internvl_caps_of_text_format (format);
  g_autoptr (GstCaps) peer = gst_pad_peer_query_caps (GST_PAD (pad), NULL);
  /* Whoever has a preference knows better what it does with the text. */
  GstCaps *caps = gst_caps_is_any (peer) ? gst_caps_ref (allowed) :
      gst_caps_intersect_full (peer, allowed, GST_CAPS_INTERSECT_FIRST);

  if (gst_caps_is_empty (caps)) {
    g_autoptr (GstElement) element = gst_pad_get_parent_element (GST_PAD (pad));
    g_autofree char *ours = gst_caps_to_string (allowed), *theirs = gst_caps_to_string (peer);
    g_autoptr (GError) error = g_error_new (GST_CORE_ERROR, GST_CORE_ERROR_NEGOTIATION,
        "text-format allows %s, but what is linked to %s takes %s. Set text-format=auto, or link another element",
        ours, GST_PAD_NAME (pad), theirs);

    gst_caps_unref (caps);
    if (element)
      gst_internvl_post_error (element, error);
    return FALSE;
  }
  caps = gst_caps_fixate (caps);
  GST_DEBUG_OBJECT (pad, "caps %" GST_PTR_FORMAT, caps);
  pad->negotiated = gst_internvl_text_format_of_caps (caps);
  gst_pad_push_event (GST_PAD (pad), gst_event_new_caps (caps));
  gst_caps_unref (caps);
  return TRUE;
}

static GstBuffer *
make_buffer (GstInternvlTextPad *pad, const GstInternvlResult *result)
{
  const char *text = gst_structure_get_string (result->structure, "text");
  char *out;

  if (pad->negotiated == GST_INTERNVL_TEXT_JSON) {
    /* A line each: written to a file or a pipe they can be told apart. */
    g_autofree char *json = gst_internvl_structure_to_json (result->structure);
    out = g_strconcat (json, "\n", NULL);
  } else {
    out = gst_internvl_text_for_subtitles (text ? text : "", pad->negotiated);
  }
  gsize size = strlen (out);
  /* A terminating zero behind the end, as other elements that make text do for those who read it as a string. */
  GstBuffer *buffer = gst_buffer_new_wrapped_full (0, out, size + 1, 0, size, out, g_free);

  GST_BUFFER_PTS (buffer) = result->text_pts;
  GST_BUFFER_DURATION (buffer) = result->text_duration;
  if (pad->discont)
    GST_BUFFER_FLAG_SET (buffer, GST_BUFFER_FLAG_DISCONT);
  pad->discont = FALSE;
  return buffer;
}

GstEvent *
gst_internvl_text_gap (GstClockTime time, GstClockTime duration)
{
  GstEvent *gap = gst_event_new_gap (time, duration);

  /* matroskamux writes others as empty subtitles since GStreamer 1.26. */
  gst_event_set_gap_flags (gap, GST_GAP_FLAG_MISSING_DATA);
  return gap;
}

/* With the lock. A point rather than all of what there isn't: muxers go by where a gap begins. */
static void
queue_gap (GstInternvlTextPad *pad, GstClockTime time)
{
  Item *item = g_new0 (Item, 1);

  item->event = gst_internvl_text_gap (time, GST_CLOCK_TIME_NONE);
  g_queue_push_tail (&pad->items, item);
}

/* With the lock: up to where video has come there is no text. */
static void
tell_video (GstInternvlTextPad *pad)
{
  if (!GST_CLOCK_TIME_IS_VALID (pad->told) || pad->told >= pad->video)
    return;
  queue_gap (pad, pad->video);
  pad->told = pad->video;
}

/* With the lock, which is let go of meanwhile. */
static void
wait_for_item (GstInternvlTextPad *pad)
{
  while (!pad->flushing && g_queue_is_empty (&pad->items)) {
    if (pad->following) {
      g_cond_wait (&pad->cond, &pad->lock);
      continue;
    }
    /* A look once a second is cheaper than being woken for each frame. */
    gint64 now = g_get_monotonic_time ();
    gboolean moving = !GST_CLOCK_TIME_IS_VALID (pad->video) || now < pad->video_since + PATIENCE;
    if (moving) {
      g_cond_wait_until (&pad->cond, &pad->lock, now + PATIENCE / 2);
      continue;
    }
    /* The owner's locks may be held by who calls us with ours wanted. */
    g_mutex_unlock (&pad->lock);
    gboolean expected = pad->expected && pad->expected (pad->owner);
    g_mutex_lock (&pad->lock);
    if (expected) {
      pad->video_since = g_get_monotonic_time ();
    } else if (GST_CLOCK_TIME_IS_VALID (pad->video) && !pad->flushing) {
      GST_INFO_OBJECT (pad, "video waits for text: telling that there is none yet. A queue that holds a chunk of "
          "video, between the element and what waits, would have it in time");
      pad->following = TRUE;
      tell_video (pad);
    }
  }
}

static void
text_loop (gpointer data)
{
  GstInternvlTextPad *pad = data;
  GstFlowReturn flow = GST_FLOW_OK;

  g_mutex_lock (&pad->lock);
  wait_for_item (pad);
  if (pad->flushing) {
    g_mutex_unlock (&pad->lock);
    gst_pad_pause_task (GST_PAD (pad));
    return;
  }
  Item *item = g_queue_pop_head (&pad->items);
  pad->n_results -= item->result != NULL;
  g_mutex_unlock (&pad->lock);

  gboolean reconfigure = gst_pad_check_reconfigure (GST_PAD (pad));
  gboolean needs_caps = item->result || GST_EVENT_TYPE (item->event) > GST_EVENT_CAPS;
  if (item->event && GST_EVENT_TYPE (item->event) == GST_EVENT_STREAM_START)
    pad->negotiated = GST_INTERNVL_TEXT_AUTO;
  else if (reconfigure)
    needs_caps = TRUE;

  if (needs_caps && (pad->negotiated == GST_INTERNVL_TEXT_AUTO || reconfigure) && !negotiate (pad))
    flow = GST_FLOW_NOT_NEGOTIATED;
  else if (item->event)
    gst_pad_push_event (GST_PAD (pad), g_steal_pointer (&item->event));
  else
    flow = gst_pad_push (GST_PAD (pad), make_buffer (pad, item->result));
  item_free (item);

  if (flow != GST_FLOW_OK)
    GST_DEBUG_OBJECT (pad, "push: %s", gst_flow_get_name (flow));
  g_mutex_lock (&pad->lock);
  if (!pad->flushing)
    pad->flow = flow;
  g_mutex_unlock (&pad->lock);
  /* Downstream has said on the bus what is wrong with it, and video goes on; nobody there is no reason to stop
   * either, the next buffer may find somebody. */
}

static gboolean
activate_mode (GstPad *gstpad, GstObject *parent, GstPadMode mode, gboolean active)
{
  GstInternvlTextPad *pad = GST_INTERNVL_TEXT_PAD (gstpad);

  if (mode != GST_PAD_MODE_PUSH)
    return FALSE;
  set_flushing (pad, !active);
  if (!active)
    return gst_pad_stop_task (gstpad);
  pad->negotiated = GST_INTERNVL_TEXT_AUTO;
  pad->discont = TRUE;
  return gst_pad_start_task (gstpad, text_loop, pad, NULL);
}

/* ---- the element's side ---- */

static void
push (GstInternvlTextPad *pad, GstEvent *event, GstInternvlResult *result)
{
  Item *item = g_new0 (Item, 1), *dropped = NULL;

  item->event = event;
  item->result = result;
  g_mutex_lock (&pad->lock);
  if (pad->flushing) {
    dropped = item;
  } else {
    if (result && pad->limit && pad->n_results >= pad->limit) {
      for (GList *l = pad->items.head; l && !dropped; l = l->next)
        if (((Item *) l->data)->result) {
          dropped = l->data;
          g_queue_delete_link (&pad->items, l);
          break;
        }
      pad->n_results--;
    }
    pad->n_results += result != NULL;
    if (event && GST_EVENT_TYPE (event) == GST_EVENT_SEGMENT) {
      const GstSegment *segment;
      gst_event_parse_segment (event, &segment);
      /* Backwards there is nothing to tell: those who wait for text by its time go forward. */
      pad->told = segment->rate > 0 ? segment->position : GST_CLOCK_TIME_NONE;
    }
    g_queue_push_tail (&pad->items, item);
    /* A text takes the others' idea of how far text has come back to its own time. */
    if (result && pad->following && GST_CLOCK_TIME_IS_VALID (pad->told))
      queue_gap (pad, pad->told);
    g_cond_signal (&pad->cond);
  }
  g_mutex_unlock (&pad->lock);
  if (dropped)
    item_free (dropped);
}

void
gst_internvl_text_pad_push_event (GstInternvlTextPad *pad, GstEvent *event)
{
  push (pad, event, NULL);
}

void
gst_internvl_text_pad_push_result (GstInternvlTextPad *pad, GstInternvlResult *result)
{
  push (pad, NULL, result);
}

void
gst_internvl_text_pad_flush (GstInternvlTextPad *pad, GstEvent *event)
{
  if (GST_EVENT_TYPE (event) == GST_EVENT_FLUSH_START) {
    set_flushing (pad, TRUE);
    gst_pad_push_event (GST_PAD (pad), event);
    /* Returns when the task is out of its loop: downstream flushes by now, so nothing keeps it there. */
    gst_pad_pause_task (GST_PAD (pad));
    return;
  }
  gst_pad_push_event (GST_PAD (pad), event);
  pad->discont = TRUE;
  if (gst_pad_is_active (GST_PAD (pad))) {
    set_flushing (pad, FALSE);
    gst_pad_start_task (GST_PAD (pad), text_loop, pad, NULL);
  }
}

void
gst_internvl_text_pad_set_format (GstInternvlTextPad *pad, GstInternvlTextFormat format)
{
  g_mutex_lock (&pad->lock);
  gboolean changed = pad->format != format;
  pad->format = format;
  g_mutex_unlock (&pad->lock);
  if (changed)
    gst_pad_mark_reconfigure (GST_PAD (pad));
}

void
gst_internvl_text_pad_set_limit (GstInternvlTextPad *pad, guint limit)
{
  g_mutex_lock (&pad->lock);
  pad->limit = limit;
  g_mutex_unlock (&pad->lock);
}

void
gst_internvl_text_pad_set_expected (GstInternvlTextPad *pad, GstInternvlTextExpected expected, gpointer owner)
{
  pad->expected = expected;
  pad->owner = owner;
}

void
gst_internvl_text_pad_video_begins (GstInternvlTextPad *pad, GstClockTime time)
{
  if (!GST_CLOCK_TIME_IS_VALID (time))
    return;
  g_mutex_lock (&pad->lock);
  pad->video = time;
  pad->video_since = g_get_monotonic_time ();
  if (pad->following && !pad->flushing) {
    tell_video (pad);
    g_cond_signal (&pad->cond);
  }
  g_mutex_unlock (&pad->lock);
}

void
gst_internvl_text_pad_video_ended (GstInternvlTextPad *pad)
{
  g_mutex_lock (&pad->lock);
  pad->video = GST_CLOCK_TIME_NONE;
  g_mutex_unlock (&pad->lock);
}

GstFlowReturn
gst_internvl_text_pad_get_flow (GstInternvlTextPad *pad)
{
  g_mutex_lock (&pad->lock);
  GstFlowReturn flow = pad->flow;
  g_mutex_unlock (&pad->lock);
  return flow;
}

GstInternvlTextPad *
gst_internvl_text_pad_new (GstPadTemplate *templ, const char *name)
{
  return g_object_new (GST_TYPE_INTERNVL_TEXT_PAD, "name", name, "direction", GST_PAD_SRC, "template", templ, NULL);
}

static void
gst_internvl_text_pad_finalize (GObject *object)
{
  GstInternvlTextPad *pad = GST_INTERNVL_TEXT_PAD (object);

  set_flushing (pad, TRUE);
  g_mutex_clear (&pad->lock);
  g_cond_clear (&pad->cond);
  G_OBJECT_CLASS (gst_internvl_text_pad_parent_class)->finalize (object);
}

static void
gst_internvl_text_pad_class_init (GstInternvlTextPadClass *klass)
{
  G_OBJECT_CLASS (klass)->finalize = gst_internvl_text_pad_finalize;
}

static void
gst_internvl_text_pad_init (GstInternvlTextPad *pad)
{
  g_mutex_init (&pad->lock);
  g_cond_init (&pad->cond);
  g_queue_init (&pad->items);
  pad->flushing = TRUE;
  pad->flow = GST_FLOW_FLUSHING;
  pad->video = pad->told = GST_CLOCK_TIME_NONE;
  gst_pad_set_activatemode_function (GST_PAD (pad), activate_mode);
}
