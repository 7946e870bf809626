/* Questions in between, about the latest frames: the action signal "ask", and the custom event "internvl-ask" for those
 * who only have a pad. */
#include "gstinternvlprivate.h"

#define GST_CAT_DEFAULT gst_internvl_debug

#define ASK_EVENT "internvl-ask"

void
gst_internvl_remember_frame (GstInternvl *self, GstInternvlFrame *frame)
{
  GQueue old = G_QUEUE_INIT;

  GST_OBJECT_LOCK (self);
  guint most = self->settings.chunks.chunk_size;
  GST_OBJECT_UNLOCK (self);
  g_mutex_lock (&self->lock);
  self->recent_segment = self->segment;
  /* Overlapping chunks have the same ones. */
  if (!g_queue_find (&self->recent, frame))
    g_queue_push_tail (&self->recent, gst_internvl_frame_ref (frame));
  while (self->recent.length > most)
    g_queue_push_tail (&old, g_queue_pop_head (&self->recent));
  g_mutex_unlock (&self->lock);
  while ((frame = g_queue_pop_head (&old)))
    gst_internvl_worker_discard_frame (self->worker, frame);
}

void
gst_internvl_forget_frames (GstInternvl *self)
{
  GQueue frames;
  GstInternvlFrame *frame;

  g_mutex_lock (&self->lock);
  frames = self->recent;
  g_queue_init (&self->recent);
  g_mutex_unlock (&self->lock);
  while ((frame = g_queue_pop_head (&frames)))
    gst_internvl_frame_unref (frame);
}

gboolean
gst_internvl_ask (GstInternvl *self, const char *prompt, const char *id)
{
  if (!prompt || !g_utf8_validate (prompt, -1, NULL) || (id && !g_utf8_validate (id, -1, NULL)))
    return FALSE;

  GstInternvlChunk *chunk = g_new0 (GstInternvlChunk, 1);
  chunk->frames = g_ptr_array_new_with_free_func ((GDestroyNotify) gst_internvl_frame_unref);
  chunk->prompt = g_strdup (prompt);
  chunk->id = g_strdup (id ? id : "");
  GST_OBJECT_LOCK (self);
  chunk->system_prompt = g_strdup (self->settings.system_prompt);
  chunk->params = self->settings.generate;
  GST_OBJECT_UNLOCK (self);

  g_mutex_lock (&self->lock);
  for (GList *l = self->recent.head; l; l = l->next)
    g_ptr_array_add (chunk->frames, gst_internvl_frame_ref (l->data));
  if (chunk->frames->len > 0) {
    const GstInternvlFrame *first = self->recent.head->data, *last = self->recent.tail->data;
    const GstSegment *segment = &self->recent_segment;

    chunk->timestamp = MIN (first->timestamp, last->timestamp);
    chunk->duration = MAX (first->timestamp, last->timestamp) - chunk->timestamp;
    chunk->stream_time = gst_segment_to_stream_time (segment, GST_FORMAT_TIME, chunk->timestamp);
    chunk->stream_duration = chunk->duration * ABS (segment->applied_rate);
    chunk->running_time = gst_segment_to_running_time (segment, GST_FORMAT_TIME, first->timestamp);
  }
  g_mutex_unlock (&self->lock);
  if (chunk->frames->len == 0) {
    GST_INFO_OBJECT (self, "asked \"%s\" before there was anything to see", prompt);
    gst_internvl_chunk_free (chunk);
    return FALSE;
  }
  return gst_internvl_worker_add_question (self->worker, chunk);
}

gboolean
gst_internvl_take_ask_event (GstInternvl *self, GstEvent *event)
{
  if (!gst_event_has_name (event, ASK_EVENT))
    return FALSE;
  const GstStructure *structure = gst_event_get_structure (event);
  const char *id = gst_structure_get_string (structure, "id");
  if (!gst_internvl_ask (self, gst_structure_get_string (structure, "prompt"), id))
    GST_WARNING_OBJECT (self, "%" GST_PTR_FORMAT " can't be answered", event);
  gst_event_unref (event);
  return TRUE;
}

void
gst_internvl_replied (gpointer owner, const GstInternvlChunk *chunk, const char *prompt, const IvlAnswer *answer,
    const GError *error)
{
  GstInternvl *self = owner;
  GstStructure *structure;

  if (answer) {
    const GstInternvlFrame *last = g_ptr_array_index (chunk->frames, chunk->frames->len - 1);

    structure = gst_internvl_make_result (self, chunk, prompt, answer,
        (g_get_monotonic_time () - last->arrival) * GST_USECOND);
    gst_structure_remove_field (structure, "chunk");
    gst_structure_set (structure, "id", G_TYPE_STRING, chunk->id, NULL);
  } else {
    structure = gst_structure_new (GST_INTERNVL_META_NAME,
        "id", G_TYPE_STRING, chunk->id,
        "prompt", G_TYPE_STRING, prompt,
        "error", G_TYPE_STRING, error->message, NULL);
  }
  gst_element_post_message (GST_ELEMENT (self), gst_message_new_element (GST_OBJECT (self), structure));
}
