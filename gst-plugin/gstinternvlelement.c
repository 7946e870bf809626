/**
 * SECTION:element-internvl
 * @title: internvl
 * @short_description: describes video in words with InternVL 2.5, on any Vulkan device
 *
 * Video passes through unchanged. What is seen in it comes out as text: on the request pad `text_src`, on the bus as
 * element messages `internvl`, and on the video buffers as the custom meta `internvl`.
 *
 * A *chunk* is the run of video that one answer covers; its *frames* are those sampled from it, by time stamp. A chunk
 * has #GstInternvl:chunk-size frames, taken at #GstInternvl:frame-rate, and so lasts chunk-size / frame-rate: 4 s by
 * default. With #GstInternvl:chunk-duration set, its frames are spread evenly over that instead.
 * #GstInternvl:chunk-stride makes chunks overlap, or leaves video out.
 *
 * The model works beside the stream, never on its thread. #GstInternvl:policy says who waits for whom: with `all`
 * every chunk is answered and video waits if need be; with `live` video is never held back, and of the chunks that
 * came meanwhile the newest is asked. At the end of the stream the last, shorter chunk is answered first.
 *
 * One text buffer a chunk: its time stamp is the chunk's start and its duration the chunk's length, in stream time.
 * While it is not known what will be said, the pad sends a GAP event at the start of a segment (so that sinks can
 * preroll), and another for each chunk that was skipped.
 *
 * Each video buffer carries, as custom meta, the results that came since the buffer before it, or else the last one:
 * tell new ones by their field `chunk`. Boxes in an answer become GstVideoRegionOfInterestMeta.
 *
 * ## Examples
 * |[
 * gst-launch-1.0 filesrc location=clip.mp4 ! decodebin ! internvl model-path=InternVL2_5-1B name=v ! fakesink \
 *     v.text_src ! webvttenc ! filesink location=clip.vtt
 * ]| Timed captions of a file.
 * |[
 * gst-launch-1.0 -m v4l2src ! videoconvert ! internvl model-path=InternVL2_5-1B chunk-duration=2000000000 \
 *     prompt="What is the person doing? One short sentence." ! autovideosink
 * ]| A camera, with the answers as messages.
 * |[
 * gst-launch-1.0 rtspsrc location=rtsp://camera/1 ! decodebin ! internvl model-path=InternVL2_5-2B name=v \
 *     chunk-size=1 frame-rate=1/5 prompt="Is there a fire? Answer yes or no." ! fakesink \
 *     v.text_src ! application/x-json ! fdsink
 * ]| A question about one frame every five seconds, answers with all their data as JSON.
 */
#include "gstinternvlelement.h"

#include "errors.h"
#include "settings.h"
#include "textmeta.h"
#include "textout.h"
#include "textpad.h"
#include "worker.h"

#include <gst/video/video.h>

GST_DEBUG_CATEGORY (gst_internvl_debug);
#define GST_CAT_DEFAULT gst_internvl_debug

/* Results that wait for a text pad that doesn't get on, under `live`. */
#define MAX_LIVE_TEXTS 256
/* Buffers of the stream that are held on to at a time, beside those downstream has: frames to be read and one that
 * waits for the last answer. Pools are asked for that many more. */
#define BUFFERS_HELD 6
/* The latency of the text is told anew when it grew by this. */
#define LATENCY_STEP (500 * GST_MSECOND)

struct _GstInternvl
{
  GstElement parent;

  GstPad *sinkpad, *srcpad;
  GstInternvlWorker *worker;

  /* Under the object's lock */
  GstInternvlSettings settings;
  GstInternvlTextPad *textpad;  /* borrowed: the element has it */

  /* The streaming thread's */
  GstInternvlSampler *sampler;
  GstSegment segment;
  GstVideoInfo info;
  gboolean have_info, have_segment;
  gboolean started;             /* policy is known */
  gboolean live;
  GstBuffer *held;              /* kept back so that the last answer can ride on it; not when live */
  guint64 next_index;
  char *stream_id;

  /* Under lock, which may be taken inside of the worker's lock, never the other way round */
  GMutex lock;
  guint epoch;                  /* counts flushes: results from before one are void */
  gboolean failed;
  GQueue results;               /* of GstInternvlResult, for the next buffer */
  GstInternvlResult *latest;
  GstEvent *text_stream_start, *text_segment, *text_eos;        /* for a pad that comes later */
  GstClockTime chunk_duration, answer_latency;
  char *model_name;
  guint32 seek_seqnum;
};

static GstStaticPadTemplate sink_template = GST_STATIC_PAD_TEMPLATE ("sink", GST_PAD_SINK, GST_PAD_ALWAYS,
    GST_STATIC_CAPS (GST_VIDEO_CAPS_MAKE (GST_VIDEO_FORMATS_ALL)));
static GstStaticPadTemplate src_template = GST_STATIC_PAD_TEMPLATE ("src", GST_PAD_SRC, GST_PAD_ALWAYS,
    GST_STATIC_CAPS (GST_VIDEO_CAPS_MAKE (GST_VIDEO_FORMATS_ALL)));
static GstStaticPadTemplate text_template = GST_STATIC_PAD_TEMPLATE ("text_src", GST_PAD_SRC, GST_PAD_REQUEST,
    GST_STATIC_CAPS ("text/x-raw, format=(string){ utf8, pango-markup }; application/x-json"));

#define gst_internvl_parent_class parent_class
G_DEFINE_TYPE (GstInternvl, gst_internvl, GST_TYPE_ELEMENT)
GST_ELEMENT_REGISTER_DEFINE (internvl, "internvl", GST_RANK_NONE, GST_TYPE_INTERNVL)

static GParamSpec *stats_pspec;

static GstInternvlTextPad *
ref_textpad (GstInternvl *self)
{
  GST_OBJECT_LOCK (self);
  GstInternvlTextPad *pad = self->textpad ? gst_object_ref (self->textpad) : NULL;
  GST_OBJECT_UNLOCK (self);
  return pad;
}

/* ---- results, on the worker's thread ---- */

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

static GstStructure *
make_structure (GstInternvl *self, const GstInternvlChunk *chunk, const char *prompt, const IvlAnswer *answer,
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
  return structure;
}

static gboolean
is_current (GstInternvl *self, const GstInternvlChunk *chunk)
{
  return chunk->epoch == self->epoch;
}

static void
on_answered (gpointer owner, const GstInternvlChunk *chunk, const char *prompt, const IvlAnswer *answer)
{
  GstInternvl *self = owner;
  const GstInternvlFrame *last = g_ptr_array_index (chunk->frames, chunk->frames->len - 1);
  GstClockTime latency = (g_get_monotonic_time () - last->arrival) * GST_USECOND;
  GstInternvlResult *result = gst_internvl_result_new (make_structure (self, chunk, prompt, answer, latency),
      chunk->text_pts, chunk->stream_duration);
  g_autoptr (GstInternvlTextPad) textpad = ref_textpad (self);
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
    if (self->live && latency > self->answer_latency) {
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
  if (tell_latency)
    gst_element_post_message (GST_ELEMENT (self), gst_message_new_latency (GST_OBJECT (self)));
  g_object_notify_by_pspec (G_OBJECT (self), stats_pspec);
  gst_internvl_result_unref (result);
}

static void
on_dropped (gpointer owner, const GstInternvlChunk *chunk)
{
  GstInternvl *self = owner;
  g_autoptr (GstInternvlTextPad) textpad = ref_textpad (self);
  GstInternvlWorkerStats stats;

  g_mutex_lock (&self->lock);
  gboolean current = is_current (self, chunk), live = self->live;
  if (current && textpad)
    gst_internvl_text_pad_push_event (textpad, gst_event_new_gap (chunk->text_pts, chunk->stream_duration));
  g_mutex_unlock (&self->lock);
  if (!current)
    return;

  GST_INFO_OBJECT (self, "chunk %" G_GUINT64_FORMAT " at %" GST_TIME_FORMAT " is dropped", chunk->index,
      GST_TIME_ARGS (chunk->stream_time));
  gst_internvl_worker_get_stats (self->worker, &stats);
  GstMessage *qos = gst_message_new_qos (GST_OBJECT (self), live, chunk->running_time, chunk->stream_time,
      chunk->timestamp, chunk->duration);
  gst_message_set_qos_stats (qos, GST_FORMAT_BUFFERS, stats.chunks, stats.dropped);
  gst_element_post_message (GST_ELEMENT (self), qos);
  g_object_notify_by_pspec (G_OBJECT (self), stats_pspec);
}

static void
on_event (gpointer owner, GstEvent *event)
{
  GstInternvl *self = owner;
  g_autoptr (GstInternvlTextPad) textpad = ref_textpad (self);

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

static const GstInternvlWorkerFuncs worker_funcs = {
  .loaded = on_loaded,
  .answered = on_answered,
  .dropped = on_dropped,
  .event = on_event,
  .frame_failed = on_frame_failed,
  .failed = on_failed,
};

/* ---- the streaming thread ---- */

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

static void
on_sampled (gpointer frame, gpointer user_data)
{
  GstInternvl *self = user_data;

  gst_internvl_worker_add_frame (self->worker, frame);
}

static void
on_chunk (GstClockTime start, GstClockTime duration, GPtrArray *frames, gpointer user_data)
{
  GstInternvl *self = user_data;
  GstInternvlChunk *chunk = g_new0 (GstInternvlChunk, 1);
  const GstSegment *segment = &self->segment;

  chunk->index = self->next_index++;
  chunk->frames = frames;
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
  GST_OBJECT_UNLOCK (self);
  g_mutex_lock (&self->lock);
  chunk->epoch = self->epoch;
  g_mutex_unlock (&self->lock);

  GST_DEBUG_OBJECT (self, "chunk %" G_GUINT64_FORMAT ": %" GST_TIME_FORMAT " + %" GST_TIME_FORMAT ", %u frames",
      chunk->index, GST_TIME_ARGS (chunk->timestamp), GST_TIME_ARGS (duration), frames->len);
  gst_internvl_worker_add_chunk (self->worker, chunk);
}

static const GstInternvlSamplerFuncs sampler_funcs = {
  .ref = (gpointer (*)(gpointer)) gst_internvl_frame_ref,
  .unref = (void (*)(gpointer)) gst_internvl_frame_unref,
  .sampled = on_sampled,
  .chunk = on_chunk,
};

static void
start_stream (GstInternvl *self)
{
  GstInternvlPolicy policy;
  gboolean live = FALSE;

  GST_OBJECT_LOCK (self);
  policy = self->settings.policy;
  GST_OBJECT_UNLOCK (self);
  if (policy == GST_INTERNVL_POLICY_AUTO) {
    GstQuery *query = gst_query_new_latency ();

    if (gst_pad_peer_query (self->sinkpad, query))
      gst_query_parse_latency (query, &live, NULL, NULL);
    gst_query_unref (query);
  } else {
    live = policy == GST_INTERNVL_POLICY_LIVE;
  }
  GST_INFO_OBJECT (self, "policy %s", live ? "live" : "all");

  g_mutex_lock (&self->lock);
  self->live = live;
  g_mutex_unlock (&self->lock);
  gst_internvl_worker_set_live (self->worker, live);
  g_autoptr (GstInternvlTextPad) textpad = ref_textpad (self);
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

  GST_OBJECT_LOCK (self);
  config = self->settings.chunks;
  max_tiles = self->settings.max_tiles;
  GST_OBJECT_UNLOCK (self);
  config.eager = self->live;
  gst_internvl_sampler_configure (self->sampler, &config);
  g_mutex_lock (&self->lock);
  gst_internvl_sampler_config_resolve (&config, &self->chunk_duration, NULL, NULL);
  g_mutex_unlock (&self->lock);

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

  GstInternvlFrame *frame = gst_internvl_frame_new (gst_buffer_ref (buffer), &self->info);
  frame->timestamp = time;
  frame->max_tiles = max_tiles;
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
    gst_internvl_meta_add (buffer, result->structure, GST_VIDEO_INFO_WIDTH (&self->info),
        GST_VIDEO_INFO_HEIGHT (&self->info));
    gst_internvl_result_unref (result);
  }
  return buffer;
}

/* Takes BUFFER. */
static GstFlowReturn
push_video (GstInternvl *self, GstBuffer *buffer)
{
  g_autoptr (GstInternvlTextPad) textpad = ref_textpad (self);
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

static void
release_held (GstInternvl *self)
{
  if (self->held)
    push_video (self, g_steal_pointer (&self->held));
}

static gboolean
has_failed (GstInternvl *self)
{
  g_mutex_lock (&self->lock);
  gboolean failed = self->failed;
  g_mutex_unlock (&self->lock);
  return failed;
}

static GstFlowReturn
gst_internvl_chain (GstPad *pad, GstObject *parent, GstBuffer *buffer)
{
  GstInternvl *self = GST_INTERNVL (parent);
  GstFlowReturn flow = GST_FLOW_OK;

  if (!self->have_info) {
    gst_buffer_unref (buffer);
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
  if (self->held)
    flow = push_video (self, g_steal_pointer (&self->held));
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

static GstEvent *
first_gap (GstEvent *segment_event)
{
  const GstSegment *segment;

  gst_event_parse_segment (segment_event, &segment);
  return gst_event_new_gap (segment->position, GST_CLOCK_TIME_NONE);
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
    GstEvent *gap = first_gap (text);
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
  if (!gst_video_info_from_caps (&info, caps)) {
    GST_ELEMENT_ERROR (self, STREAM, FORMAT, ("These are not caps of raw video; put videoconvert in front."),
        ("%" GST_PTR_FORMAT, caps));
    return FALSE;
  }
  self->info = info;
  self->have_info = TRUE;
  gst_internvl_sampler_set_period (self->sampler, GST_VIDEO_INFO_FPS_N (&info) > 0 ?
      gst_util_uint64_scale_int (GST_SECOND, GST_VIDEO_INFO_FPS_D (&info), GST_VIDEO_INFO_FPS_N (&info)) :
      GST_CLOCK_TIME_NONE);
  return TRUE;
}

/* What the streaming thread and the worker know of the stream. Neither of them may be running. */
static void
forget_stream (GstInternvl *self)
{
  GstInternvlResult *result;

  gst_internvl_sampler_reset (self->sampler);
  gst_clear_buffer (&self->held);
  gst_segment_init (&self->segment, GST_FORMAT_TIME);
  self->have_segment = FALSE;

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
  g_autoptr (GstInternvlTextPad) textpad = ref_textpad (self);

  if (textpad)
    gst_internvl_text_pad_flush (textpad, event);
  else
    gst_event_unref (event);
}

/* The stream goes on after a flush, also if its start was still in a queue when that was flushed. */
static void
restore_stream_start (GstInternvl *self)
{
  g_autoptr (GstInternvlTextPad) textpad = ref_textpad (self);

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

static gboolean
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
      forget_stream (self);
      flush_text (self, event);
      gst_internvl_worker_set_flushing (self->worker, FALSE);
      restore_stream_start (self);
      return TRUE;
    default:
      break;
  }
  if (GST_EVENT_IS_SERIALIZED (event) && GST_EVENT_TYPE (event) != GST_EVENT_EOS &&
      GST_EVENT_TYPE (event) != GST_EVENT_SEGMENT_DONE)
    release_held (self);

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
      release_held (self);
      break;
    default:
      break;
  }
  /* Not to the text pad, as the default would. */
  return gst_pad_push_event (self->srcpad, event);
}

/* A seek is sent to every sink, and comes up here from each: once is enough. Whether the text is late is nobody's
 * business upstream. */
static gboolean
gst_internvl_src_event (GstPad *pad, GstObject *parent, GstEvent *event)
{
  GstInternvl *self = GST_INTERNVL (parent);
  gboolean seen = FALSE;

  if (GST_EVENT_TYPE (event) == GST_EVENT_SEEK) {
    g_mutex_lock (&self->lock);
    seen = self->seek_seqnum == gst_event_get_seqnum (event);
    self->seek_seqnum = gst_event_get_seqnum (event);
    g_mutex_unlock (&self->lock);
  } else if (pad != self->srcpad) {
    seen = GST_EVENT_TYPE (event) == GST_EVENT_QOS || GST_EVENT_TYPE (event) == GST_EVENT_LATENCY ||
        GST_EVENT_TYPE (event) == GST_EVENT_RECONFIGURE;
  }
  if (seen) {
    gst_event_unref (event);
    return TRUE;
  }
  return gst_pad_push_event (self->sinkpad, event);
}

/* ---- queries ---- */

/* Buffers go through, so what downstream says holds; it only isn't told of those that are held on to here. */
static gboolean
propose_allocation (GstInternvl *self, GstQuery *query)
{
  if (!gst_pad_peer_query (self->srcpad, query)) {
    if (gst_pad_is_linked (self->srcpad))
      return FALSE;
    gst_query_add_allocation_meta (query, GST_VIDEO_META_API_TYPE, NULL);
    return TRUE;
  }
  for (guint i = 0; i < gst_query_get_n_allocation_pools (query); i++) {
    GstBufferPool *pool;
    guint size, min, max;

    gst_query_parse_nth_allocation_pool (query, i, &pool, &size, &min, &max);
    if (max > 0)
      max = max > G_MAXUINT - BUFFERS_HELD ? G_MAXUINT : max + BUFFERS_HELD;
    gst_query_set_nth_allocation_pool (query, i, pool, size, min + BUFFERS_HELD, max);
    if (pool)
      gst_object_unref (pool);
  }
  return TRUE;
}

static gboolean
gst_internvl_sink_query (GstPad *pad, GstObject *parent, GstQuery *query)
{
  GstInternvl *self = GST_INTERNVL (parent);

  if (GST_QUERY_TYPE (query) == GST_QUERY_ALLOCATION)
    return propose_allocation (self, query);
  if (GST_QUERY_TYPE (query) == GST_QUERY_DRAIN)
    release_held (self);
  return gst_pad_query_default (pad, parent, query);
}

static gboolean
query_text_caps (GstInternvl *self, GstQuery *query)
{
  GstCaps *filter;

  GST_OBJECT_LOCK (self);
  GstCaps *caps = gst_internvl_caps_of_text_format (self->settings.text_format);
  GST_OBJECT_UNLOCK (self);
  gst_query_parse_caps (query, &filter);
  if (filter) {
    GstCaps *both = gst_caps_intersect_full (filter, caps, GST_CAPS_INTERSECT_FIRST);
    gst_caps_unref (caps);
    caps = both;
  }
  gst_query_set_caps_result (query, caps);
  gst_caps_unref (caps);
  return TRUE;
}

/* A text is stamped with its chunk's start, and can't come before the chunk's end. */
static gboolean
query_text_latency (GstInternvl *self, GstQuery *query)
{
  GstClockTime min, max;
  gboolean live;

  if (!gst_pad_peer_query (self->sinkpad, query))
    return FALSE;
  gst_query_parse_latency (query, &live, &min, &max);
  if (live) {
    GstInternvlSamplerConfig config;

    GST_OBJECT_LOCK (self);
    config = self->settings.chunks;
    GST_OBJECT_UNLOCK (self);
    GstClockTime duration;
    gst_internvl_sampler_config_resolve (&config, &duration, NULL, NULL);
    g_mutex_lock (&self->lock);
    min += duration + self->answer_latency;
    g_mutex_unlock (&self->lock);
    /* Texts wait in a queue of their own. */
    gst_query_set_latency (query, live, min, GST_CLOCK_TIME_NONE);
  }
  return TRUE;
}

static gboolean
gst_internvl_text_query (GstPad *pad, GstObject *parent, GstQuery *query)
{
  GstInternvl *self = GST_INTERNVL (parent);

  switch (GST_QUERY_TYPE (query)) {
    case GST_QUERY_CAPS:
      return query_text_caps (self, query);
    case GST_QUERY_LATENCY:
      return query_text_latency (self, query);
    default:
      return gst_pad_query_default (pad, parent, query);
  }
}

/* Video goes with video: caps must not be asked of the text pad. */
static GstIterator *
gst_internvl_iterate_links (GstPad *pad, GstObject *parent)
{
  GstInternvl *self = GST_INTERNVL (parent);
  GValue value = G_VALUE_INIT;

  g_value_init (&value, GST_TYPE_PAD);
  g_value_set_object (&value, pad == self->sinkpad ? self->srcpad : self->sinkpad);
  GstIterator *iterator = gst_iterator_new_single (GST_TYPE_PAD, &value);
  g_value_unset (&value);
  return iterator;
}

/* ---- the text pad ---- */

static gboolean
text_is_expected (gpointer owner)
{
  return gst_internvl_worker_is_busy (GST_INTERNVL (owner)->worker);
}

static GstPad *
gst_internvl_request_new_pad (GstElement *element, GstPadTemplate *templ, const gchar *name, const GstCaps *caps)
{
  GstInternvl *self = GST_INTERNVL (element);

  GST_OBJECT_LOCK (self);
  gboolean taken = self->textpad != NULL;
  GstInternvlTextFormat format = self->settings.text_format;
  GST_OBJECT_UNLOCK (self);
  if (taken) {
    GST_WARNING_OBJECT (self, "there is one text pad only; use tee behind it");
    return NULL;
  }

  GstInternvlTextPad *textpad = gst_internvl_text_pad_new (templ, "text_src");
  GstPad *pad = GST_PAD (textpad);
  gst_pad_set_event_function (pad, gst_internvl_src_event);
  gst_pad_set_query_function (pad, gst_internvl_text_query);
  gst_pad_set_iterate_internal_links_function (pad, gst_internvl_iterate_links);
  gst_pad_use_fixed_caps (pad);
  gst_internvl_text_pad_set_expected (textpad, text_is_expected, self);
  gst_internvl_text_pad_set_format (textpad, format);
  gst_internvl_text_pad_set_limit (textpad, self->live ? MAX_LIVE_TEXTS : 0);

  if (!gst_element_add_pad (element, pad))
    return NULL;
  /* In a stream that runs already, from here on and with what came before. */
  g_mutex_lock (&self->lock);
  if (gst_pad_is_active (self->sinkpad))
    gst_pad_set_active (pad, TRUE);
  if (self->text_stream_start)
    gst_internvl_text_pad_push_event (textpad, gst_event_ref (self->text_stream_start));
  if (self->text_segment) {
    gst_internvl_text_pad_push_event (textpad, gst_event_ref (self->text_segment));
    gst_internvl_text_pad_push_event (textpad, first_gap (self->text_segment));
  }
  if (self->text_eos)
    gst_internvl_text_pad_push_event (textpad, gst_event_ref (self->text_eos));
  GST_OBJECT_LOCK (self);
  self->textpad = textpad;
  GST_OBJECT_UNLOCK (self);
  g_mutex_unlock (&self->lock);
  return pad;
}

static void
gst_internvl_release_pad (GstElement *element, GstPad *pad)
{
  GstInternvl *self = GST_INTERNVL (element);

  g_mutex_lock (&self->lock);
  GST_OBJECT_LOCK (self);
  self->textpad = NULL;
  GST_OBJECT_UNLOCK (self);
  g_mutex_unlock (&self->lock);
  /* Its task may be deep in a sink that waits. */
  if (gst_pad_is_active (pad))
    gst_pad_push_event (pad, gst_event_new_flush_start ());
  gst_pad_set_active (pad, FALSE);
  gst_element_remove_pad (element, pad);
}

/* ---- states ---- */

static gboolean
check_settings (GstInternvl *self)
{
  g_autoptr (GError) error = NULL;

  GST_OBJECT_LOCK (self);
  gboolean ok = gst_internvl_settings_check (&self->settings, &error);
  GST_OBJECT_UNLOCK (self);
  if (!ok)
    gst_internvl_post_error (GST_ELEMENT (self), error);
  return ok;
}

static void
start (GstInternvl *self)
{
  self->started = FALSE;
  self->next_index = 0;
  g_mutex_lock (&self->lock);
  self->failed = FALSE;
  self->live = FALSE;
  self->answer_latency = 0;
  g_mutex_unlock (&self->lock);
  forget_stream (self);
  gst_internvl_worker_reset_stats (self->worker);

  GST_OBJECT_LOCK (self);
  g_autofree char *path = gst_internvl_settings_get_model_path (&self->settings);
  g_autofree char *device = g_strdup (self->settings.device);
  gboolean share = self->settings.share;
  GST_OBJECT_UNLOCK (self);
  gst_internvl_worker_start (self->worker, device, path, share);
}

static GstStateChangeReturn
gst_internvl_change_state (GstElement *element, GstStateChange transition)
{
  GstInternvl *self = GST_INTERNVL (element);

  switch (transition) {
    case GST_STATE_CHANGE_NULL_TO_READY:
      if (!check_settings (self))
        return GST_STATE_CHANGE_FAILURE;
      break;
    case GST_STATE_CHANGE_READY_TO_PAUSED:
      start (self);
      break;
    case GST_STATE_CHANGE_PAUSED_TO_READY:
      /* The streaming thread may be waiting for the worker; the pads can only be closed once it is out. */
      g_mutex_lock (&self->lock);
      self->epoch++;
      g_mutex_unlock (&self->lock);
      gst_internvl_worker_set_flushing (self->worker, TRUE);
      break;
    default:
      break;
  }

  GstStateChangeReturn ret = GST_ELEMENT_CLASS (parent_class)->change_state (element, transition);

  switch (transition) {
    case GST_STATE_CHANGE_READY_TO_PAUSED:
      if (ret == GST_STATE_CHANGE_FAILURE)
        gst_internvl_worker_stop (self->worker);
      break;
    case GST_STATE_CHANGE_PAUSED_TO_READY:
      gst_internvl_worker_stop (self->worker);
      forget_stream (self);
      self->have_info = FALSE;
      g_mutex_lock (&self->lock);
      gst_clear_event (&self->text_stream_start);
      g_mutex_unlock (&self->lock);
      break;
    case GST_STATE_CHANGE_READY_TO_NULL:
      gst_internvl_worker_unload (self->worker);
      break;
    default:
      break;
  }
  return ret;
}

/* ---- properties, life ---- */

static GstStructure *
make_stats (GstInternvl *self)
{
  GstInternvlWorkerStats stats;

  gst_internvl_worker_get_stats (self->worker, &stats);
  const double answers = MAX (stats.chunks, 1);
  return gst_structure_new ("internvl-stats",
      "chunks", G_TYPE_UINT64, stats.chunks,
      "dropped", G_TYPE_UINT64, stats.dropped,
      "frames-encoded", G_TYPE_UINT64, stats.frames_encoded,
      "frames-reused", G_TYPE_UINT64, stats.frames_reused,
      "prompt-tokens", G_TYPE_UINT64, stats.prompt_tokens,
      "tokens", G_TYPE_UINT64, stats.generated_tokens,
      "tokens-per-second", G_TYPE_DOUBLE,
      stats.decode_ns ? stats.generated_tokens * 1e9 / stats.decode_ns : 0.0,
      "encode-ms", G_TYPE_DOUBLE, stats.encode_ns / 1e6 / answers,
      "prefill-ms", G_TYPE_DOUBLE, stats.prefill_ns / 1e6 / answers,
      "decode-ms", G_TYPE_DOUBLE, stats.decode_ns / 1e6 / answers, NULL);
}

static void
gst_internvl_set_property (GObject *object, guint id, const GValue *value, GParamSpec *pspec)
{
  GstInternvl *self = GST_INTERNVL (object);
  g_autoptr (GError) error = NULL;

  GST_OBJECT_LOCK (self);
  gboolean known = gst_internvl_settings_set (&self->settings, id, value);
  GstInternvlTextFormat format = self->settings.text_format;
  /* In NULL it is told when the element is started. */
  if (self->settings.error && GST_STATE (self) > GST_STATE_NULL)
    error = g_steal_pointer (&self->settings.error);
  GST_OBJECT_UNLOCK (self);

  if (!known)
    G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
  if (error)
    GST_ELEMENT_WARNING (self, LIBRARY, SETTINGS, ("%s; what was set before stays.", error->message), (NULL));
  g_autoptr (GstInternvlTextPad) textpad = ref_textpad (self);
  if (textpad)
    gst_internvl_text_pad_set_format (textpad, format);
}

static void
gst_internvl_get_property (GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  GstInternvl *self = GST_INTERNVL (object);

  if (id == GST_INTERNVL_PROP_STATS) {
    g_value_take_boxed (value, make_stats (self));
    return;
  }
  GST_OBJECT_LOCK (self);
  gboolean known = gst_internvl_settings_get (&self->settings, id, value);
  GST_OBJECT_UNLOCK (self);
  if (!known)
    G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
}

static void
gst_internvl_finalize (GObject *object)
{
  GstInternvl *self = GST_INTERNVL (object);

  gst_internvl_worker_stop (self->worker);
  forget_stream (self);
  gst_internvl_worker_free (self->worker);
  gst_internvl_sampler_free (self->sampler);
  gst_clear_event (&self->text_stream_start);
  g_free (self->stream_id);
  g_free (self->model_name);
  gst_internvl_settings_clear (&self->settings);
  g_mutex_clear (&self->lock);
  G_OBJECT_CLASS (parent_class)->finalize (object);
}

static void
gst_internvl_class_init (GstInternvlClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS (klass);
  GstElementClass *element_class = GST_ELEMENT_CLASS (klass);

  GST_DEBUG_CATEGORY_INIT (gst_internvl_debug, "internvl", 0, "video to text with InternVL");
  gst_internvl_meta_register ();

  object_class->set_property = gst_internvl_set_property;
  object_class->get_property = gst_internvl_get_property;
  object_class->finalize = gst_internvl_finalize;
  element_class->change_state = gst_internvl_change_state;
  element_class->request_new_pad = gst_internvl_request_new_pad;
  element_class->release_pad = gst_internvl_release_pad;

  gst_internvl_settings_install (object_class);
  stats_pspec = g_param_spec_boxed ("stats", "Statistics",
      "Since the start: chunks answered and dropped, frames encoded and reused, prompt-tokens and tokens, "
      "tokens-per-second, and the mean encode-ms, prefill-ms and decode-ms of an answer. Notified with each answer",
      GST_TYPE_STRUCTURE, G_PARAM_READABLE | G_PARAM_STATIC_STRINGS);
  g_object_class_install_property (object_class, GST_INTERNVL_PROP_STATS, stats_pspec);

  gst_element_class_add_static_pad_template (element_class, &sink_template);
  gst_element_class_add_static_pad_template (element_class, &src_template);
  gst_element_class_add_static_pad_template_with_gtype (element_class, &text_template, GST_TYPE_INTERNVL_TEXT_PAD);
  gst_element_class_set_static_metadata (element_class, "InternVL video captioner", "Filter/Analyzer/Video",
      "Answers a question about each stretch of a video with InternVL 2.5, on any Vulkan device: timed text on "
      "text_src, element messages, and metas on the video, which passes through", "The internvl developers");
  gst_type_mark_as_plugin_api (gst_internvl_policy_get_type (), 0);
  gst_type_mark_as_plugin_api (gst_internvl_text_format_get_type (), 0);
  gst_type_mark_as_plugin_api (gst_internvl_sampling_get_type (), 0);
  gst_type_mark_as_plugin_api (GST_TYPE_INTERNVL_TEXT_PAD, 0);
}

static void
gst_internvl_init (GstInternvl *self)
{
  g_mutex_init (&self->lock);
  g_queue_init (&self->results);
  gst_segment_init (&self->segment, GST_FORMAT_TIME);
  gst_internvl_settings_init (&self->settings);
  self->worker = gst_internvl_worker_new (&worker_funcs, self);
  self->sampler = gst_internvl_sampler_new (&sampler_funcs, self);

  self->sinkpad = gst_pad_new_from_static_template (&sink_template, "sink");
  gst_pad_set_chain_function (self->sinkpad, gst_internvl_chain);
  gst_pad_set_event_function (self->sinkpad, gst_internvl_sink_event);
  gst_pad_set_query_function (self->sinkpad, gst_internvl_sink_query);
  gst_pad_set_iterate_internal_links_function (self->sinkpad, gst_internvl_iterate_links);
  GST_PAD_SET_PROXY_CAPS (self->sinkpad);
  GST_PAD_SET_PROXY_SCHEDULING (self->sinkpad);
  gst_element_add_pad (GST_ELEMENT (self), self->sinkpad);

  self->srcpad = gst_pad_new_from_static_template (&src_template, "src");
  gst_pad_set_event_function (self->srcpad, gst_internvl_src_event);
  gst_pad_set_iterate_internal_links_function (self->srcpad, gst_internvl_iterate_links);
  GST_PAD_SET_PROXY_CAPS (self->srcpad);
  gst_element_add_pad (GST_ELEMENT (self), self->srcpad);
}
