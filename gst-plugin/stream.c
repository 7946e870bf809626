/* The streaming thread: frames to the sampler, video on, events in their place among video and text. */
#include "boxes.h"
#include "dmaframes.h"
#include "framemap.h"
#include "gstinternvlprivate.h"

#define GST_CAT_DEFAULT gst_internvl_debug

/* The sampler's time grows while the stream plays; backwards, it is counted from the segment's end. */
static GstClockTime
mirror (GstInternvl *self, GstClockTime time, GstClockTime duration)
{
  if (self->segment.rate > 0 || !GST_CLOCK_TIME_IS_VALID (self->segment.stop))
    return time;
  if (GST_CLOCK_TIME_IS_VALID (duration))
    time += duration;
  return self->segment.stop > time ? self->segment.stop - time : 0;
}

/* With sampling=scene. */
#define SCENE_DENSITY 4

/* Before anybody behind has the buffer, who may put other things into its images. */
static void
copy_on_device (GstInternvl *self, GstInternvlFrame *frame)
{
  g_autoptr (GError) error = NULL;

  frame->on_device = gst_internvl_vk_frames_has (frame->buffer);
  if (!frame->on_device || gst_internvl_worker_is_closed (self->worker))
    return;
  frame->picture = gst_internvl_vk_frames_copy (self->vk_frames, &frame->info, frame->buffer, self->host, &error);
  if (!frame->picture)
    GST_ELEMENT_WARNING (self, STREAM, DECODE, ("A frame can't be read: %s", error->message), (NULL));
}

static void
on_sampled (gpointer data, gpointer user_data)
{
  GstInternvl *self = user_data;
  GstInternvlFrame *frame = data;

  /* The worker may have the buffer and let go of it once it is told of the frame. */
  if (!frame->described) {
    frame->detections = gst_internvl_describe_regions (frame->buffer, GST_VIDEO_INFO_WIDTH (&frame->info),
        GST_VIDEO_INFO_HEIGHT (&frame->info));
    copy_on_device (self, frame);
  }
  frame->described = TRUE;

  if (self->ends_unseen && !frame->queued)
    frame->queued = frame->ready = TRUE;
  /* Of frames to choose from, as many are remembered as will be chosen. */
  if (gst_internvl_worker_add_frame (self->worker, frame) && self->n_sampled++ % self->density == 0)
    gst_internvl_remember_frame (self, frame);
}

static void
on_chunk (GstClockTime start, GstClockTime duration, GPtrArray *frames, guint n_wanted, gpointer user_data)
{
  GstInternvl *self = user_data;
  GstInternvlChunk *chunk = g_new0 (GstInternvlChunk, 1);
  const GstSegment *segment = &self->segment;

  chunk->index = self->next_index++;
  chunk->frames = frames;
  chunk->n_wanted = n_wanted;
  chunk->timestamp = mirror (self, start, duration);
  chunk->duration = duration;
  chunk->stream_time = gst_segment_to_stream_time (segment, GST_FORMAT_TIME, chunk->timestamp);
  chunk->stream_duration = duration * ABS (segment->applied_rate);
  chunk->running_time = gst_segment_to_running_time (segment, GST_FORMAT_TIME,
      segment->rate > 0 ? chunk->timestamp : MIN (chunk->timestamp + duration, segment->stop));
  chunk->text_pts = segment->applied_rate == 1.0 ? chunk->stream_time : chunk->timestamp;
  chunk->stream_id = g_strdup (self->stream_id);

  GST_OBJECT_LOCK (self);
  chunk->prompt = g_strdup (gst_internvl_settings_get_prompt (&self->settings));
  chunk->system_prompt = g_strdup (self->settings.system_prompt);
  chunk->params = self->settings.generate;
  if (self->settings.choices)
    chunk->choices = g_ptr_array_ref (self->settings.choices);
  chunk->json_schema = g_strdup (self->settings.json_schema);
  chunk->tokens = self->settings.tokens;
  chunk->alert_on = g_strdup (self->settings.alert_on);
  chunk->alert_hold = self->settings.alert_hold;
  chunk->max_latency = self->settings.max_latency;
  chunk->skip_still = self->settings.sampling == GST_INTERNVL_SAMPLING_MOTION;
  GST_OBJECT_UNLOCK (self);
  g_mutex_lock (&self->lock);
  chunk->epoch = self->epoch;
  g_mutex_unlock (&self->lock);

  GST_DEBUG_OBJECT (self, "chunk %" G_GUINT64_FORMAT ": %" GST_TIME_FORMAT " + %" GST_TIME_FORMAT ", %u frames",
      chunk->index, GST_TIME_ARGS (chunk->timestamp), GST_TIME_ARGS (duration), frames->len);
  gst_internvl_worker_add_chunk (self->worker, chunk);
}

const GstInternvlSamplerFuncs gst_internvl_sampler_funcs = {
  .ref = (gpointer (*)(gpointer)) gst_internvl_frame_ref,
  .unref = (void (*)(gpointer)) gst_internvl_frame_unref,
  .sampled = on_sampled,
  .chunk = on_chunk,
};

static void
start_stream (GstInternvl *self)
{
  GstInternvlPolicy policy;
  gboolean live_source = FALSE, live;

  GST_OBJECT_LOCK (self);
  policy = self->settings.policy;
  GST_OBJECT_UNLOCK (self);
  GstQuery *query = gst_query_new_latency ();
  if (gst_pad_peer_query (self->sinkpad, query))
    gst_query_parse_latency (query, &live_source, NULL, NULL);
  gst_query_unref (query);
  live = policy == GST_INTERNVL_POLICY_AUTO ? live_source : policy == GST_INTERNVL_POLICY_LIVE;
  GST_INFO_OBJECT (self, "policy %s", live ? "live" : "all");

  g_mutex_lock (&self->lock);
  self->live = live;
  self->live_source = live_source;
  g_mutex_unlock (&self->lock);
  gst_internvl_worker_set_live (self->worker, live);
  g_autoptr (GstInternvlTextPad) textpad = gst_internvl_ref_textpad (self);
  if (textpad)
    gst_internvl_text_pad_set_limit (textpad, live ? MAX_LIVE_TEXTS : 0);
  self->started = TRUE;
}

static void
sample (GstInternvl *self, GstBuffer *buffer)
{
  GstClockTime time = GST_BUFFER_PTS_IS_VALID (buffer) ? GST_BUFFER_PTS (buffer) : GST_BUFFER_DTS (buffer);
  GstClockTime duration = GST_BUFFER_DURATION (buffer), media_time;
  GstInternvlSamplerConfig config;
  guint max_tiles;
  float reuse_threshold, motion_threshold, scene_threshold;
  GstInternvlSampling sampling;
  gboolean may_expire;

  GST_OBJECT_LOCK (self);
  config = self->settings.chunks;
  max_tiles = self->settings.max_tiles;
  reuse_threshold = self->settings.reuse_threshold;
  motion_threshold = self->settings.motion_threshold;
  scene_threshold = self->settings.scene_threshold;
  sampling = self->settings.sampling;
  may_expire = self->settings.max_latency != 0;
  GST_OBJECT_UNLOCK (self);
  config.eager = self->live;
  config.density = self->density = sampling == GST_INTERNVL_SAMPLING_SCENE ? SCENE_DENSITY : 1;
  gst_internvl_sampler_configure (self->sampler, &config);
  g_mutex_lock (&self->lock);
  gboolean fresh = self->fresh;
  self->fresh = FALSE;
  g_mutex_unlock (&self->lock);
  /* Nothing of the chunk under way was kept while the model was being loaded; the first that is should be early. */
  if (fresh && self->live && config.first_duration > 0) {
    self->ends_unseen = TRUE;
    gst_internvl_sampler_finish (self->sampler);
    self->ends_unseen = FALSE;
  }

  if (GST_CLOCK_TIME_IS_VALID (duration) && duration > GST_INTERNVL_SAMPLER_MAX_TIME)
    duration = GST_CLOCK_TIME_NONE;
  if (GST_CLOCK_TIME_IS_VALID (time) && time > GST_INTERNVL_SAMPLER_MAX_TIME) {
    GST_LOG_OBJECT (self, "a frame at %" GST_TIME_FORMAT " is passed over", GST_TIME_ARGS (time));
    return;
  }
  if (GST_CLOCK_TIME_IS_VALID (time)) {
    guint64 from, to;

    /* What is outside of the segment isn't shown. */
    if (!gst_segment_clip (&self->segment, GST_FORMAT_TIME, time,
            GST_CLOCK_TIME_IS_VALID (duration) ? time + duration : GST_CLOCK_TIME_NONE, &from, &to))
      return;
    if (GST_CLOCK_TIME_IS_VALID (duration))
      duration = to - from;
    time = from;
    media_time = mirror (self, time, duration);
  } else {
    media_time = gst_internvl_sampler_guess_time (self->sampler, duration);
    time = mirror (self, media_time, duration);
  }

  GstInternvlFrame *frame = gst_internvl_frame_new (gst_internvl_dma_frames_ref (&self->info, buffer), &self->info);
  frame->timestamp = time;
  frame->max_tiles = max_tiles;
  frame->reuse_threshold = reuse_threshold;
  frame->compare = sampling != GST_INTERNVL_SAMPLING_UNIFORM;
  frame->motion_threshold = motion_threshold;
  frame->scene_threshold = scene_threshold;
  frame->may_expire = may_expire;
  frame->arrival = g_get_monotonic_time ();
  gst_internvl_sampler_push (self->sampler, frame, media_time, duration);
  gst_internvl_frame_unref (frame);
}

static GstBuffer *
attach_results (GstInternvl *self, GstBuffer *buffer)
{
  GQueue results = G_QUEUE_INIT;
  GstInternvlResult *result;

  g_mutex_lock (&self->lock);
  results = self->results;
  g_queue_init (&self->results);
  if (g_queue_is_empty (&results) && self->latest)
    g_queue_push_tail (&results, gst_internvl_result_ref (self->latest));
  g_mutex_unlock (&self->lock);

  if (!g_queue_is_empty (&results))
    buffer = gst_buffer_make_writable (buffer);
  while ((result = g_queue_pop_head (&results))) {
    gst_internvl_meta_add (buffer, result->structure);
    /* Of several that came at once the boxes of the newest are those to be drawn. */
    if (g_queue_is_empty (&results)) {
      GstVideoRectangle region = gst_internvl_seen_region (buffer, &self->info);
      gst_internvl_boxes_attach (result->structure, buffer, &region);
    }
    gst_internvl_result_unref (result);
  }
  return buffer;
}

/* Takes BUFFER. */
static GstFlowReturn
push_video (GstInternvl *self, GstBuffer *buffer)
{
  g_autoptr (GstInternvlTextPad) textpad = gst_internvl_ref_textpad (self);
  GstClockTime end = GST_BUFFER_PTS (buffer);

  if (textpad && GST_CLOCK_TIME_IS_VALID (end)) {
    if (GST_BUFFER_DURATION_IS_VALID (buffer))
      end += GST_BUFFER_DURATION (buffer);
    if (self->segment.applied_rate == 1.0)
      end = gst_segment_to_stream_time (&self->segment, GST_FORMAT_TIME, end);
    gst_internvl_text_pad_video_begins (textpad, end);
  }
  GstFlowReturn flow = gst_pad_push (self->srcpad, attach_results (self, buffer));
  if (textpad)
    gst_internvl_text_pad_video_ended (textpad);
  /* Whoever only wants the text needn't link the video. */
  if (flow == GST_FLOW_NOT_LINKED && textpad && gst_pad_is_linked (GST_PAD (textpad)))
    flow = GST_FLOW_OK;
  return flow;
}

static GstFlowReturn
release_held (GstInternvl *self)
{
  GstFlowReturn flow = GST_FLOW_OK;
  GstEvent *event;

  if (self->held)
    flow = push_video (self, g_steal_pointer (&self->held));
  while ((event = g_queue_pop_head (&self->held_events)))
    gst_pad_push_event (self->srcpad, event);
  return flow;
}

void
gst_internvl_release_held (GstInternvl *self)
{
  release_held (self);
}

/* Those that come between the last frame and EOS (tags, mostly) must not send it off without the last answer. Takes
 * EVENT if it can wait. */
static gboolean
hold_event (GstInternvl *self, GstEvent *event)
{
  switch (GST_EVENT_TYPE (event)) {
    case GST_EVENT_TAG:
    case GST_EVENT_TOC:
    case GST_EVENT_SINK_MESSAGE:
    case GST_EVENT_STREAM_GROUP_DONE:
    case GST_EVENT_CUSTOM_DOWNSTREAM:
    case GST_EVENT_CUSTOM_DOWNSTREAM_STICKY:
      if (!self->held)
        return FALSE;
      g_queue_push_tail (&self->held_events, event);
      return TRUE;
    default:
      return FALSE;
  }
}

static gboolean
has_failed (GstInternvl *self)
{
  g_mutex_lock (&self->lock);
  gboolean failed = self->failed;
  g_mutex_unlock (&self->lock);
  return failed;
}

GstFlowReturn
gst_internvl_chain (GstPad *pad, GstObject *parent, GstBuffer *buffer)
{
  GstInternvl *self = GST_INTERNVL (parent);
  GstFlowReturn flow = GST_FLOW_OK;

  if (!self->have_info) {
    if (self->passthrough)
      return push_video (self, buffer);
    gst_buffer_unref (buffer);
    /* Bad caps were told already. */
    if (!self->seen_caps)
      GST_ELEMENT_ERROR (self, CORE, NEGOTIATION, ("The stream doesn't say what it is; put decodebin in front."),
          ("no caps before the first buffer"));
    return GST_FLOW_NOT_NEGOTIATED;
  }
  if (!self->started)
    start_stream (self);

  sample (self, buffer);
  if (!gst_internvl_worker_wait_room (self->worker)) {
    gst_buffer_unref (buffer);
    return has_failed (self) ? GST_FLOW_ERROR : GST_FLOW_FLUSHING;
  }
  if (self->live)
    return push_video (self, buffer);
  flow = release_held (self);
  if (flow == GST_FLOW_OK)
    self->held = buffer;
  else
    gst_buffer_unref (buffer);
  return flow;
}

/* ---- events ---- */

static GstEvent *
text_stream_start (GstEvent *event)
{
  const char *stream_id;
  guint group_id;

  gst_event_parse_stream_start (event, &stream_id);
  g_autofree char *text_id = g_strconcat (stream_id, "/internvl", NULL);
  GstEvent *text = gst_event_new_stream_start (text_id);
  gst_event_set_stream_flags (text, GST_STREAM_FLAG_SPARSE);
  if (gst_event_parse_group_id (event, &group_id))
    gst_event_set_group_id (text, group_id);
  gst_event_set_seqnum (text, gst_event_get_seqnum (event));
  return text;
}

/* The video's segment moved so that time stamps in it are stream time: writers of subtitles take them as they are.
 * Running time stays. */
static GstEvent *
text_segment (const GstSegment *video, guint32 seqnum)
{
  GstSegment segment = *video;

  if (video->applied_rate == 1.0) {
    segment.start = gst_segment_to_stream_time (video, GST_FORMAT_TIME, video->start);
    segment.time = segment.start;
    if (GST_CLOCK_TIME_IS_VALID (video->stop))
      segment.stop = segment.start + (video->stop - video->start);
  }
  segment.position = segment.rate > 0 || !GST_CLOCK_TIME_IS_VALID (segment.stop) ? segment.start : segment.stop;
  GstEvent *event = gst_event_new_segment (&segment);
  gst_event_set_seqnum (event, seqnum);
  return event;
}

GstEvent *
gst_internvl_first_gap (GstEvent *segment_event)
{
  const GstSegment *segment;

  gst_event_parse_segment (segment_event, &segment);
  return gst_internvl_text_gap (segment->position, GST_CLOCK_TIME_NONE);
}

static void
set_segment (GstInternvl *self, GstEvent *event)
{
  const GstSegment *given;
  GstSegment segment;

  gst_event_parse_segment (event, &given);
  segment = *given;
  if (segment.format != GST_FORMAT_TIME) {
    GST_DEBUG_OBJECT (self, "segment isn't in time: taken as starting at 0");
    gst_segment_init (&segment, GST_FORMAT_TIME);
  }
  /* One that only moves the end, as some sources send it, changes nothing for the chunks. */
  gboolean same = self->have_segment && segment.rate == self->segment.rate &&
      segment.applied_rate == self->segment.applied_rate && segment.start == self->segment.start &&
      segment.time == self->segment.time && segment.base == self->segment.base &&
      segment.offset == self->segment.offset;
  if (!same)
    gst_internvl_sampler_finish (self->sampler);
  self->segment = segment;
  self->have_segment = TRUE;
  if (!same) {
    GstEvent *text = text_segment (&segment, gst_event_get_seqnum (event));
    GstEvent *gap = gst_internvl_first_gap (text);
    gst_internvl_worker_add_event (self->worker, text);
    gst_internvl_worker_add_event (self->worker, gap);
  }
}

static gboolean
set_caps (GstInternvl *self, GstEvent *event)
{
  GstVideoInfo info;
  GstCaps *caps;

  gst_event_parse_caps (event, &caps);
  self->seen_caps = TRUE;
  const gboolean video = gst_internvl_dma_frames_parse_caps (&info, caps);
  if (!video || GST_VIDEO_INFO_WIDTH (&info) <= 0 || GST_VIDEO_INFO_HEIGHT (&info) <= 0) {
    const char *why = video ? "Frames without a pixel have nothing to be asked about; look at what is in front."
        : "These are not caps of raw video; put videoconvert in front.";

    self->have_info = FALSE;
    if (self->passthrough) {
      GST_ELEMENT_WARNING (self, STREAM, FORMAT, ("%s", why), ("%" GST_PTR_FORMAT, caps));
      return TRUE;
    }
    GST_ELEMENT_ERROR (self, STREAM, FORMAT, ("%s", why), ("%" GST_PTR_FORMAT, caps));
    return FALSE;
  }
  self->info = info;
  self->have_info = TRUE;
  GstClockTime period = GST_VIDEO_INFO_FPS_N (&info) <= 0 ? 0 :
      gst_util_uint64_scale_int (GST_SECOND, GST_VIDEO_INFO_FPS_D (&info), GST_VIDEO_INFO_FPS_N (&info));
  g_mutex_lock (&self->lock);
  self->period = period;
  g_mutex_unlock (&self->lock);
  gst_internvl_sampler_set_period (self->sampler, period > 0 ? period : GST_CLOCK_TIME_NONE);
  return TRUE;
}

void
gst_internvl_forget_stream (GstInternvl *self)
{
  GstInternvlResult *result;
  GstEvent *event;

  gst_internvl_sampler_reset (self->sampler);
  gst_clear_buffer (&self->held);
  while ((event = g_queue_pop_head (&self->held_events))) {
    if (GST_EVENT_IS_STICKY (event))
      gst_pad_store_sticky_event (self->srcpad, event);
    gst_event_unref (event);
  }
  gst_segment_init (&self->segment, GST_FORMAT_TIME);
  self->have_segment = FALSE;

  gst_internvl_forget_frames (self);
  g_mutex_lock (&self->lock);
  while ((result = g_queue_pop_head (&self->results)))
    gst_internvl_result_unref (result);
  g_clear_pointer (&self->latest, gst_internvl_result_unref);
  gst_clear_event (&self->text_segment);
  gst_clear_event (&self->text_eos);
  g_mutex_unlock (&self->lock);
}

static void
flush_text (GstInternvl *self, GstEvent *event)
{
  g_autoptr (GstInternvlTextPad) textpad = gst_internvl_ref_textpad (self);

  if (textpad)
    gst_internvl_text_pad_flush (textpad, event);
  else
    gst_event_unref (event);
}

/* The stream goes on after a flush, also if its start was still in a queue when that was flushed. */
static void
restore_stream_start (GstInternvl *self)
{
  g_autoptr (GstInternvlTextPad) textpad = gst_internvl_ref_textpad (self);

  if (!textpad)
    return;
  GstEvent *there = gst_pad_get_sticky_event (GST_PAD (textpad), GST_EVENT_STREAM_START, 0);
  g_mutex_lock (&self->lock);
  GstEvent *wanted = self->text_stream_start ? gst_event_ref (self->text_stream_start) : NULL;
  g_mutex_unlock (&self->lock);
  if (wanted && wanted != there)
    gst_internvl_worker_add_event (self->worker, gst_event_ref (wanted));
  gst_clear_event (&wanted);
  gst_clear_event (&there);
}

/* Answers all there is before EVENT (borrowed), an EOS or SEGMENT_DONE, goes on. */
static gboolean
drain (GstInternvl *self, GstEvent *event)
{
  gst_internvl_sampler_finish (self->sampler);
  if (!gst_internvl_worker_drain (self->worker))
    return FALSE;
  gst_internvl_worker_add_event (self->worker, gst_event_ref (event));
  return TRUE;
}

gboolean
gst_internvl_sink_event (GstPad *pad, GstObject *parent, GstEvent *event)
{
  GstInternvl *self = GST_INTERNVL (parent);
  GstClockTime time, duration;
  const char *stream_id;
  GstEvent *text;

  GST_DEBUG_OBJECT (self, "%" GST_PTR_FORMAT, event);
  switch (GST_EVENT_TYPE (event)) {
    case GST_EVENT_FLUSH_START:
      g_mutex_lock (&self->lock);
      self->epoch++;
      g_mutex_unlock (&self->lock);
      gst_internvl_worker_set_flushing (self->worker, TRUE);
      gst_pad_push_event (self->srcpad, gst_event_ref (event));
      flush_text (self, event);
      return TRUE;
    case GST_EVENT_FLUSH_STOP:
      gst_pad_push_event (self->srcpad, gst_event_ref (event));
      gst_internvl_forget_stream (self);
      flush_text (self, event);
      gst_internvl_worker_set_flushing (self->worker, FALSE);
      restore_stream_start (self);
      return TRUE;
    default:
      break;
  }
  if (gst_internvl_take_ask_event (self, event))
    return TRUE;
  if (hold_event (self, event))
    return TRUE;
  if (GST_EVENT_IS_SERIALIZED (event) && GST_EVENT_TYPE (event) != GST_EVENT_EOS &&
      GST_EVENT_TYPE (event) != GST_EVENT_SEGMENT_DONE)
    gst_internvl_release_held (self);

  switch (GST_EVENT_TYPE (event)) {
    case GST_EVENT_STREAM_START:
      gst_event_parse_stream_start (event, &stream_id);
      g_free (self->stream_id);
      self->stream_id = g_strdup (stream_id);
      text = text_stream_start (event);
      g_mutex_lock (&self->lock);
      gst_event_replace (&self->text_stream_start, text);
      g_mutex_unlock (&self->lock);
      gst_internvl_worker_add_event (self->worker, text);
      break;
    case GST_EVENT_CAPS:
      if (!set_caps (self, event)) {
        gst_event_unref (event);
        return FALSE;
      }
      break;
    case GST_EVENT_SEGMENT:
      set_segment (self, event);
      break;
    case GST_EVENT_GAP:
      gst_event_parse_gap (event, &time, &duration);
      if (self->segment.rate > 0 && GST_CLOCK_TIME_IS_VALID (time))
        gst_internvl_sampler_advance (self->sampler, GST_CLOCK_TIME_IS_VALID (duration) ? time + duration : time);
      break;
    case GST_EVENT_EOS:
    case GST_EVENT_SEGMENT_DONE:
      if (!drain (self, event) && !has_failed (self)) {
        gst_event_unref (event);
        return FALSE;
      }
      gst_internvl_release_held (self);
      break;
    default:
      break;
  }
  /* Not to the text pad, as the default would. */
  return gst_pad_push_event (self->srcpad, event);
}
