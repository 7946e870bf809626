/* Answers, dropped chunks and failures, as the worker has them: to the text pad, the bus, the video buffers to come and
 * the statistics. All on the worker's thread. */
#include "boxes.h"
#include "errors.h"
#include "gstinternvlprivate.h"

#define GST_CAT_DEFAULT gst_internvl_debug

/* The latency of the text is told anew when it grew by this. */
#define LATENCY_STEP (500 * GST_MSECOND)
/* A result is on every buffer of video: it should not be long. */
#define MAX_PROBABILITIES 256
/* With on-error=passthrough the same error is told again after this. */
#define WARNING_INTERVAL (30 * G_TIME_SPAN_SECOND)

static const char *
finish_name (IvlFinish finish)
{
  switch (finish) {
    case IVL_FINISH_STOP:
      return "stop";
    case IVL_FINISH_LENGTH:
      return "length";
    default:
      return "cancelled";
  }
}

GstStructure *
gst_internvl_make_result (GstInternvl *self, const GstInternvlChunk *chunk, const char *prompt, const IvlAnswer *answer,
    GstClockTime latency)
{
  GValue frames = G_VALUE_INIT, value = G_VALUE_INIT;
  GstInternvlWorkerStats stats;

  g_value_init (&frames, GST_TYPE_ARRAY);
  for (guint i = 0; i < chunk->frames->len; i++) {
    GstInternvlFrame *frame = g_ptr_array_index (chunk->frames, i);

    if (!frame->image)
      continue;
    g_value_init (&value, G_TYPE_UINT64);
    g_value_set_uint64 (&value, frame->timestamp);
    gst_value_array_append_and_take_value (&frames, &value);
  }
  gst_internvl_worker_get_stats (self->worker, &stats);

  g_mutex_lock (&self->lock);
  GstStructure *structure = gst_structure_new (GST_INTERNVL_META_NAME,
      "text", G_TYPE_STRING, answer->text,
      "timestamp", G_TYPE_UINT64, chunk->timestamp,
      "duration", G_TYPE_UINT64, chunk->duration,
      "stream-time", G_TYPE_UINT64, chunk->stream_time,
      "running-time", G_TYPE_UINT64, chunk->running_time,
      "stream-id", G_TYPE_STRING, chunk->stream_id,
      "chunk", G_TYPE_UINT64, chunk->index,
      "prompt", G_TYPE_STRING, prompt,
      "model", G_TYPE_STRING, self->model_name,
      "prompt-tokens", G_TYPE_UINT, answer->prompt_tokens,
      "generated-tokens", G_TYPE_UINT, answer->generated_tokens,
      "finish", G_TYPE_STRING, finish_name (answer->finish),
      "confidence", G_TYPE_DOUBLE, answer->confidence,
      "latency", G_TYPE_UINT64, latency,
      "dropped", G_TYPE_UINT64, stats.dropped, NULL);
  g_mutex_unlock (&self->lock);
  gst_structure_take_value (structure, "frames", &frames);
  const GstInternvlFrame *last = g_ptr_array_index (chunk->frames, chunk->frames->len - 1);
  gst_internvl_boxes_set (structure, answer->text, &last->region);
  if (answer->choice >= 0 && answer->choice_probabilities) {
    GValue probabilities = G_VALUE_INIT;

    gst_structure_set (structure, "choice", G_TYPE_INT, answer->choice, NULL);
    g_value_init (&probabilities, GST_TYPE_ARRAY);
    for (guint i = 0; i < answer->n_choices; i++) {
      g_value_init (&value, G_TYPE_DOUBLE);
      g_value_set_double (&value, answer->choice_probabilities[i]);
      gst_value_array_append_and_take_value (&probabilities, &value);
    }
    if (answer->n_choices <= MAX_PROBABILITIES)
      gst_structure_set_value (structure, "choice-probabilities", &probabilities);
    g_value_unset (&probabilities);
  }
  return structure;
}

static gboolean
is_current (GstInternvl *self, const GstInternvlChunk *chunk)
{
  return chunk->epoch == self->epoch;
}

/* On each edge, with the times of the chunk that makes it. */
static void
update_alert (GstInternvl *self, const GstInternvlChunk *chunk, const IvlAnswer *answer)
{
  if (answer->finish == IVL_FINISH_CANCELLED || !GST_CLOCK_TIME_IS_VALID (chunk->running_time))
    return;
  gboolean matched = chunk->alert_on && gst_internvl_alert_matches (answer->text, chunk->alert_on);
  GstInternvlAlertEdge edge = gst_internvl_alert_update (&self->alert, matched, chunk->running_time,
      chunk->running_time + chunk->duration, chunk->alert_on ? chunk->alert_hold : 0);

  if (edge != GST_INTERNVL_ALERT_NONE)
    gst_element_post_message (GST_ELEMENT (self), gst_message_new_element (GST_OBJECT (self),
            gst_structure_new ("internvl-alert",
                "state", G_TYPE_STRING, edge == GST_INTERNVL_ALERT_RAISED ? "raised" : "cleared",
                "text", G_TYPE_STRING, answer->text,
                "timestamp", G_TYPE_UINT64, chunk->timestamp,
                "duration", G_TYPE_UINT64, chunk->duration,
                "stream-time", G_TYPE_UINT64, chunk->stream_time,
                "running-time", G_TYPE_UINT64, chunk->running_time,
                "since", G_TYPE_UINT64, self->alert.since,
                "stream-id", G_TYPE_STRING, chunk->stream_id,
                "chunk", G_TYPE_UINT64, chunk->index, NULL)));
}

static void
on_answered (gpointer owner, const GstInternvlChunk *chunk, const char *prompt, const IvlAnswer *answer)
{
  GstInternvl *self = owner;
  const GstInternvlFrame *last = g_ptr_array_index (chunk->frames, chunk->frames->len - 1);
  GstClockTime latency = (g_get_monotonic_time () - last->arrival) * GST_USECOND;
  GstInternvlResult *result = gst_internvl_result_new (gst_internvl_make_result (self, chunk, prompt, answer, latency),
      chunk->text_pts, chunk->stream_duration);
  g_autoptr (GstInternvlTextPad) textpad = gst_internvl_ref_textpad (self);
  gboolean tell_latency = FALSE;

  GST_INFO_OBJECT (self, "chunk %" G_GUINT64_FORMAT " at %" GST_TIME_FORMAT " after %" G_GUINT64_FORMAT " ms: %s",
      chunk->index, GST_TIME_ARGS (chunk->stream_time), latency / GST_MSECOND, answer->text);

  g_mutex_lock (&self->lock);
  if (!is_current (self, chunk)) {
    g_mutex_unlock (&self->lock);
    gst_internvl_result_unref (result);
    return;
  }
  g_queue_push_tail (&self->results, gst_internvl_result_ref (result));
  gst_internvl_result_unref (self->latest);
  self->latest = gst_internvl_result_ref (result);
  if (textpad) {
    gst_internvl_text_pad_push_result (textpad, gst_internvl_result_ref (result));
    if (self->live_source && latency > self->answer_latency) {
      self->answer_latency = gst_util_uint64_scale_ceil (latency, 1, LATENCY_STEP) * LATENCY_STEP;
      tell_latency = TRUE;
    }
  }
  g_mutex_unlock (&self->lock);

  GST_OBJECT_LOCK (self);
  gboolean post = self->settings.post_messages;
  GST_OBJECT_UNLOCK (self);
  if (post)
    gst_element_post_message (GST_ELEMENT (self), gst_message_new_element (GST_OBJECT (self),
            gst_structure_copy (result->structure)));
  update_alert (self, chunk, answer);
  if (tell_latency)
    gst_element_post_message (GST_ELEMENT (self), gst_message_new_latency (GST_OBJECT (self)));
  g_object_notify_by_pspec (G_OBJECT (self), gst_internvl_stats_pspec ());
  gst_internvl_result_unref (result);
}

static void
on_partial (gpointer owner, const GstInternvlPartial *partial)
{
  GstInternvl *self = owner;

  g_mutex_lock (&self->lock);
  gboolean current = partial->epoch == self->epoch;
  g_mutex_unlock (&self->lock);
  if (current)
    gst_element_post_message (GST_ELEMENT (self), gst_message_new_element (GST_OBJECT (self),
            gst_structure_new ("internvl-tokens",
                "text", G_TYPE_STRING, partial->text,
                "piece", G_TYPE_STRING, partial->piece,
                "chunk", G_TYPE_UINT64, partial->chunk,
                "timestamp", G_TYPE_UINT64, partial->timestamp,
                "stream-id", G_TYPE_STRING, partial->stream_id, NULL)));
}

/* There is no text for CHUNK. FALSE if nobody is to know. */
static gboolean
push_gap (GstInternvl *self, const GstInternvlChunk *chunk)
{
  g_autoptr (GstInternvlTextPad) textpad = gst_internvl_ref_textpad (self);

  g_mutex_lock (&self->lock);
  gboolean current = is_current (self, chunk);
  if (current && textpad)
    gst_internvl_text_pad_push_event (textpad, gst_internvl_text_gap (chunk->text_pts, chunk->stream_duration));
  g_mutex_unlock (&self->lock);
  return current;
}

static void
on_skipped (gpointer owner, const GstInternvlChunk *chunk)
{
  GstInternvl *self = owner;

  if (!push_gap (self, chunk))
    return;
  GST_DEBUG_OBJECT (self, "nothing moves in chunk %" G_GUINT64_FORMAT " at %" GST_TIME_FORMAT, chunk->index,
      GST_TIME_ARGS (chunk->stream_time));
  g_object_notify_by_pspec (G_OBJECT (self), gst_internvl_stats_pspec ());
}

static void
on_dropped (gpointer owner, const GstInternvlChunk *chunk)
{
  GstInternvl *self = owner;
  GstInternvlWorkerStats stats;

  if (!push_gap (self, chunk))
    return;
  g_mutex_lock (&self->lock);
  gboolean live = self->live;
  g_mutex_unlock (&self->lock);
  GST_INFO_OBJECT (self, "chunk %" G_GUINT64_FORMAT " at %" GST_TIME_FORMAT " is dropped", chunk->index,
      GST_TIME_ARGS (chunk->stream_time));
  gst_internvl_worker_get_stats (self->worker, &stats);
  GstMessage *qos = gst_message_new_qos (GST_OBJECT (self), live, chunk->running_time, chunk->stream_time,
      chunk->timestamp, chunk->duration);
  gst_message_set_qos_stats (qos, GST_FORMAT_BUFFERS, stats.chunks, stats.dropped);
  gst_element_post_message (GST_ELEMENT (self), qos);
  g_object_notify_by_pspec (G_OBJECT (self), gst_internvl_stats_pspec ());
}

static void
on_event (gpointer owner, GstEvent *event)
{
  GstInternvl *self = owner;
  g_autoptr (GstInternvlTextPad) textpad = gst_internvl_ref_textpad (self);

  g_mutex_lock (&self->lock);
  switch (GST_EVENT_TYPE (event)) {
    case GST_EVENT_STREAM_START:
      gst_clear_event (&self->text_eos);
      break;
    case GST_EVENT_SEGMENT:
      gst_event_replace (&self->text_segment, event);
      break;
    case GST_EVENT_EOS:
      gst_event_replace (&self->text_eos, event);
      break;
    default:
      break;
  }
  if (textpad)
    gst_internvl_text_pad_push_event (textpad, event);
  else
    gst_event_unref (event);
  g_mutex_unlock (&self->lock);
}

static void
on_loaded (gpointer owner, const IvlModelInfo *info)
{
  GstInternvl *self = owner;

  g_mutex_lock (&self->lock);
  g_free (self->model_name);
  self->model_name = g_strdup (info->name);
  self->fresh = TRUE;
  g_mutex_unlock (&self->lock);
}

static void
on_frame_failed (gpointer owner, const GError *error)
{
  GST_ELEMENT_WARNING (GST_ELEMENT (owner), STREAM, DECODE, ("A frame can't be read: %s", error->message), (NULL));
}

static void
on_failed (gpointer owner, const GError *error)
{
  GstInternvl *self = owner;

  g_mutex_lock (&self->lock);
  self->failed = TRUE;
  g_mutex_unlock (&self->lock);
  gst_internvl_post_error (GST_ELEMENT (self), error);
}

static void
on_warned (gpointer owner, const GError *error)
{
  GstInternvl *self = owner;
  gint64 now = g_get_monotonic_time ();

  g_mutex_lock (&self->lock);
  gboolean again = self->warned && now - self->warned < WARNING_INTERVAL && error->domain == self->warned_domain &&
      error->code == self->warned_code;
  guint suppressed = self->warnings_suppressed;
  if (again) {
    self->warnings_suppressed++;
  } else {
    self->warned = now;
    self->warned_domain = error->domain;
    self->warned_code = error->code;
    self->warnings_suppressed = 0;
  }
  g_mutex_unlock (&self->lock);
  if (!again)
    gst_internvl_post_warning (GST_ELEMENT (self), error, suppressed);
}

const GstInternvlWorkerFuncs gst_internvl_worker_funcs = {
  .loaded = on_loaded,
  .answered = on_answered,
  .partial = on_partial,
  .replied = gst_internvl_replied,
  .dropped = on_dropped,
  .skipped = on_skipped,
  .event = on_event,
  .frame_failed = on_frame_failed,
  .failed = on_failed,
  .warned = on_warned,
};

GstStructure *
gst_internvl_make_stats (GstInternvl *self)
{
  GstInternvlWorkerStats stats;

  gst_internvl_worker_get_stats (self->worker, &stats);
  const double answers = MAX (stats.chunks, 1);
  return gst_structure_new ("internvl-stats",
      "chunks", G_TYPE_UINT64, stats.chunks,
      "dropped", G_TYPE_UINT64, stats.dropped,
      "skipped", G_TYPE_UINT64, stats.skipped,
      "cuts", G_TYPE_UINT64, stats.cuts,
      "frames-encoded", G_TYPE_UINT64, stats.frames_encoded,
      "frames-reused", G_TYPE_UINT64, stats.frames_reused,
      "prompt-tokens", G_TYPE_UINT64, stats.prompt_tokens,
      "prompt-tokens-reused", G_TYPE_UINT64, stats.prompt_tokens_reused,
      "tokens", G_TYPE_UINT64, stats.generated_tokens,
      "draft-tokens", G_TYPE_UINT64, stats.draft_tokens,
      "draft-tokens-held", G_TYPE_UINT64, stats.draft_tokens_held,
      "tokens-per-second", G_TYPE_DOUBLE,
      stats.decode_ns ? stats.generated_tokens * 1e9 / stats.decode_ns : 0.0,
      "encode-ms", G_TYPE_DOUBLE, stats.encode_ns / 1e6 / answers,
      "prefill-ms", G_TYPE_DOUBLE, stats.prefill_ns / 1e6 / answers,
      "decode-ms", G_TYPE_DOUBLE, stats.decode_ns / 1e6 / answers, NULL);
}

/* The element's class has it for as long as the process lives. */
GParamSpec *
gst_internvl_stats_pspec (void)
{
  static gsize pspec = 0;

  if (g_once_init_enter (&pspec)) {
    GParamSpec *made = g_param_spec_boxed ("stats", "Statistics",
        "Since the start: chunks answered, dropped, and skipped (nothing moved), cuts, frames-encoded and frames-reused, "
        "prompt-tokens, prompt-tokens-reused (read with a prompt before) and tokens, draft-tokens and draft-tokens-held "
        "(guessed, and guessed right), tokens-per-second, and the mean encode-ms, prefill-ms and decode-ms of an answer. "
        "Notified with each chunk",
        GST_TYPE_STRUCTURE, G_PARAM_READABLE | G_PARAM_STATIC_STRINGS);
    g_once_init_leave (&pspec, (gsize) made);
  }
  return (GParamSpec *) pspec;
}
