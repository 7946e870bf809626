#include "textpad.h"

#include "errors.h"
#include "textout.h"

#include <string.h>

GST_DEBUG_CATEGORY_EXTERN (gst_internvl_debug);
#define GST_CAT_DEFAULT gst_internvl_debug

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
  char *out = pad->negotiated == GST_INTERNVL_TEXT_JSON ? gst_internvl_structure_to_json (result->structure) :
      gst_internvl_text_for_subtitles (text ? text : "", pad->negotiated);
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

static void
text_loop (gpointer data)
{
  GstInternvlTextPad *pad = data;
  GstFlowReturn flow = GST_FLOW_OK;

  g_mutex_lock (&pad->lock);
  while (!pad->flushing && g_queue_is_empty (&pad->items))
    g_cond_wait (&pad->cond, &pad->lock);
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
    g_queue_push_tail (&pad->items, item);
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
  gst_pad_set_activatemode_function (GST_PAD (pad), activate_mode);
}
