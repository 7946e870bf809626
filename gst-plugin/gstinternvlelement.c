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
 * #GstInternvl:chunk-stride makes chunks overlap, or leaves video out. #GstInternvl:first-chunk-duration makes the first
 * one shorter, for an early answer.
 *
 * #GstInternvl:sampling says which frames these are. With `uniform` they are spread evenly. With `scene` four times as many
 * are looked at, cuts between them are found on the device from their histograms of luma (#GstInternvl:scene-threshold),
 * and each scene of the chunk gets frames by its length; of more scenes than chunk-size the longest get one. With `motion`
 * they are spread evenly, and a chunk is skipped if none of its frames differs from the one before it by
 * #GstInternvl:motion-threshold; the first chunk is asked about all the same, and so is one after a chunk that moved and was
 * dropped. Skipped chunks keep their index, are counted as `skipped` in #GstInternvl:stats, and stand as GAP events on
 * the text pad; they are no QoS matter. What is looked at and not chosen is not encoded.
 *
 * Elements that share a model take turns at it: #GstInternvl:priority makes the share of one larger.
 *
 * Properties that may change while playing hold for the chunk that is completed next, those of sampling for the one that
 * begins next. What one g_object_set() sets, or what is set between g_object_freeze_notify() and g_object_thaw_notify(),
 * holds together.
 *
 * The model works beside the stream, never on its thread. #GstInternvl:policy says who waits for whom: with `all`
 * every chunk is answered and video waits if need be; with `live` video is never held back, and of the chunks that
 * came meanwhile the newest is asked. At the end of the stream the last, shorter chunk is answered first.
 *
 * One text buffer a chunk: its time stamp is the chunk's start and its duration the chunk's length, in stream time.
 * While it is not known what will be said, the pad sends a GAP event at the start of a segment (so that sinks can
 * preroll), and another for each chunk that was dropped or skipped.
 *
 * Each video buffer carries, as custom meta, the results that came since the buffer before it, or else the last one:
 * tell new ones by their field `chunk`. Boxes in the newest answer (asked for with `<ref>something</ref>`) become
 * GstVideoRegionOfInterestMeta and, from GStreamer 1.24 on, object detections of a GstAnalyticsRelationMeta, which
 * objectdetectionoverlay draws. Both are of the kind `internvl`; what the model calls them is the field `label` of the
 * region's parameter `internvl`, and in the result's field `boxes`.
 *
 * An answer can be held to one of #GstInternvl:choices, with a probability for each, or to a
 * #GstInternvl:json-schema. While it is being written, #GstInternvl:tokens posts it as element messages
 * `internvl-tokens`. With #GstInternvl:alert-on the element message `internvl-alert` tells when answers begin to say
 * something (`state` is `raised`) and when they don't any more (`cleared`), with the times of that chunk and, as
 * `since`, the running time at which it was raised.
 *
 * The action signal #GstInternvl::ask asks something else about the latest sampled frames, beside the stream. The reply
 * is an element message `internvl` with the field `id` as it was given, and with `error` instead of `text` if there is
 * no answer. So does the custom event `internvl-ask` with the fields `prompt` and `id`, sent upstream or downstream to
 * one of the video pads.
 *
 * With #GstInternvl:on-error set to `passthrough` video goes on whatever happens to the model: what can't be answered
 * counts as dropped, and a warning says why. A chunk that is too late, by #GstInternvl:max-latency, is dropped, too. A
 * QoS message tells of each chunk that is dropped. A still camera costs next to nothing with a
 * #GstInternvl:reuse-threshold, and less with sampling=motion.
 *
 * Frames in `memory:VulkanImage` go to the encoder without a way through system memory, if the model is on their device:
 * that is so if upstream offers such caps, or the application sets the context `gst.vulkan.device`, before the element is
 * started, and #GstInternvl:device isn't set. It finds the device of its neighbours or makes one for them; elements on
 * the same device share one model there, which isn't the one that elements on a device of their own share. Else they are
 * read back, with a warning in the log. The device copies a sampled frame before it goes on, and the frame waits for that,
 * and so for what the model has the device do just then: vulkanupload would have overwritten what it uploads from with the
 * next frame. This ran with GStreamer 1.22 on Mesa 22.3 and with 1.26 on Mesa 25.0, on the software driver.
 *
 * Frames in `memory:DMABuf`, and in DMABufs under the caps of system memory, are copied by the device from where they are
 * if its driver has `VK_EXT_external_memory_dma_buf`; else they are mapped, with a warning in the log. Linear frames only:
 * caps of tiled ones are not accepted. The import ran on the software driver of Mesa 25.0 and 26.2 (GStreamer 1.26, with
 * `format=DMA_DRM` and without), the mapping on that of 22.3 (GStreamer 1.22).
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
 * ]| A question about one frame every five seconds, answers with all their data as JSON, a line each.
 * |[
 * gst-launch-1.0 -m rtspsrc location=rtsp://camera/1 ! decodebin ! internvl model-path=InternVL2_5-2B \
 *     chunk-size=1 frame-rate=1/2 prompt="Is there a person at the door?" choices="<yes,no>" alert-on=yes \
 *     alert-hold=10000000000 reuse-threshold=2 on-error=passthrough ! fakesink
 * ]| A watchman: one message when somebody comes, one when nobody was there for ten seconds.
 * |[
 * gst-launch-1.0 filesrc location=clip.mp4 ! decodebin ! videoconvert ! internvl model-path=InternVL2_5-1B \
 *     chunk-size=1 frame-rate=1/1 prompt="Please provide the bounding box coordinate of the region this sentence \
 *     describes: <ref>the red car</ref>" ! objectdetectionoverlay ! videoconvert ! autovideosink
 * ]| Where something is, drawn (GStreamer 1.24).
 * |[
 * gst-launch-1.0 filesrc location=clip.mp4 ! decodebin ! internvl model-path=InternVL2_5-1B name=v ! \
 *     queue max-size-time=0 max-size-bytes=0 max-size-buffers=0 ! x264enc ! matroskamux name=m ! \
 *     filesink location=captioned.mkv  v.text_src ! m.
 * ]| A file with captions as a subtitle track. The queue has room for a chunk of video, so that its text is there in
 * time; matroskamux does without, mp4mux doesn't.
 */
#include "dmaframes.h"
#include "errors.h"
#include "gstinternvlprivate.h"
#include "textout.h"

GST_DEBUG_CATEGORY (gst_internvl_debug);
#define GST_CAT_DEFAULT gst_internvl_debug

/* Buffers of the stream that are held on to at a time, beside those downstream has: frames to be read and one that
 * waits for the last answer. Pools are asked for that many more. */
#define BUFFERS_HELD 6

static GstStaticPadTemplate text_template = GST_STATIC_PAD_TEMPLATE ("text_src", GST_PAD_SRC, GST_PAD_REQUEST,
    GST_STATIC_CAPS ("text/x-raw, format=(string){ utf8, pango-markup }; application/x-json"));

#define gst_internvl_parent_class parent_class
G_DEFINE_TYPE (GstInternvl, gst_internvl, GST_TYPE_ELEMENT)
GST_ELEMENT_REGISTER_DEFINE (internvl, "internvl", GST_RANK_NONE, GST_TYPE_INTERNVL)

GstInternvlTextPad *
gst_internvl_ref_textpad (GstInternvl *self)
{
  GST_OBJECT_LOCK (self);
  GstInternvlTextPad *pad = self->textpad ? gst_object_ref (self->textpad) : NULL;
  GST_OBJECT_UNLOCK (self);
  return pad;
}

/* ---- events from downstream ---- */

/* A seek is sent to every sink, and comes up here from each: once is enough. Whether the text is late is nobody's
 * business upstream. */
static gboolean
gst_internvl_src_event (GstPad *pad, GstObject *parent, GstEvent *event)
{
  GstInternvl *self = GST_INTERNVL (parent);
  gboolean seen = FALSE;

  if (gst_internvl_take_ask_event (self, event))
    return TRUE;
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
    gst_internvl_release_held (self);
  if (gst_internvl_vk_frames_handle_query (self->vk_frames, query))
    return TRUE;
  return gst_pad_query_default (pad, parent, query);
}

static void
gst_internvl_set_context (GstElement *element, GstContext *context)
{
  gst_internvl_vk_frames_set_context (GST_INTERNVL (element)->vk_frames, context);
  GST_ELEMENT_CLASS (parent_class)->set_context (element, context);
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

/* Under `live` video goes straight through. Else a buffer is kept until the next one, so that the last can carry the last
 * answer; and what back-pressure makes of a live source nobody can say. */
static gboolean
query_video_latency (GstInternvl *self, GstQuery *query)
{
  GstClockTime min, max;
  gboolean live;

  if (!gst_pad_peer_query (self->sinkpad, query))
    return FALSE;
  gst_query_parse_latency (query, &live, &min, &max);
  GST_OBJECT_LOCK (self);
  gboolean keeps = self->settings.policy == GST_INTERNVL_POLICY_ALL;
  GST_OBJECT_UNLOCK (self);
  if (live && keeps) {
    g_mutex_lock (&self->lock);
    GstClockTime period = self->period;
    g_mutex_unlock (&self->lock);
    gst_query_set_latency (query, live, min + period, GST_CLOCK_TIME_IS_VALID (max) ? max + period : max);
  }
  return TRUE;
}

static gboolean
gst_internvl_src_query (GstPad *pad, GstObject *parent, GstQuery *query)
{
  if (GST_QUERY_TYPE (query) == GST_QUERY_LATENCY)
    return query_video_latency (GST_INTERNVL (parent), query);
  if (gst_internvl_vk_frames_handle_query (GST_INTERNVL (parent)->vk_frames, query))
    return TRUE;
  return gst_pad_query_default (pad, parent, query);
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
    gst_internvl_text_pad_push_event (textpad, gst_internvl_first_gap (self->text_segment));
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

/* With wanted_lock. */
static void
take_wanted (GstInternvl *self)
{
  GstInternvlSettings settings = { 0 };

  gst_internvl_settings_copy (&settings, &self->wanted);
  GST_OBJECT_LOCK (self);
  GstInternvlSettings old = self->settings;
  self->settings = settings;
  GST_OBJECT_UNLOCK (self);
  gst_internvl_settings_clear (&old);
}

static gboolean
check_settings (GstInternvl *self)
{
  g_autoptr (GError) error = NULL;

  g_mutex_lock (&self->wanted_lock);
  gboolean ok = gst_internvl_settings_check (&self->wanted, &error);
  gboolean passthrough = self->wanted.on_error == GST_INTERNVL_ON_ERROR_PASSTHROUGH;
  g_autofree char *odd = gst_internvl_settings_find_odd_time (&self->wanted);
  take_wanted (self);
  g_mutex_unlock (&self->wanted_lock);
  if (odd)
    GST_ELEMENT_WARNING (self, LIBRARY, SETTINGS, ("%s.", odd), (NULL));
  if (!ok && passthrough)
    gst_internvl_post_warning (GST_ELEMENT (self), error, 0);
  else if (!ok)
    gst_internvl_post_error (GST_ELEMENT (self), error);
  return ok || passthrough;
}

static gboolean
start (GstInternvl *self)
{
  g_autoptr (GError) error = NULL;

  self->started = FALSE;
  self->next_index = 0;
  self->alert = (GstInternvlAlert) { 0 };
  g_mutex_lock (&self->lock);
  self->failed = FALSE;
  self->warned = 0;
  self->warnings_suppressed = 0;
  self->live = self->live_source = self->fresh = FALSE;
  self->answer_latency = 0;
  g_mutex_unlock (&self->lock);
  gst_internvl_forget_stream (self);
  gst_internvl_worker_reset_stats (self->worker);

  GST_OBJECT_LOCK (self);
  g_autofree char *path = gst_internvl_settings_get_model_path (&self->settings);
  g_autofree char *device = g_strdup (self->settings.device);
  gboolean share = self->settings.share;
  IvlWeights weights = self->settings.weights;
  self->passthrough = self->settings.on_error == GST_INTERNVL_ON_ERROR_PASSTHROUGH;
  GST_OBJECT_UNLOCK (self);
  gst_internvl_worker_set_passthrough (self->worker, self->passthrough);
  /* A device that is asked for by name is an own one, and frames of others come to it through system memory. */
  ivl_device_unref (self->host);
  self->host = device ? NULL : gst_internvl_vk_frames_start (self->vk_frames, self->sinkpad);
  if (gst_internvl_worker_start (self->worker, self->host, device, path, weights, share, &error))
    return TRUE;
  gst_internvl_post_error (GST_ELEMENT (self), error);
  return FALSE;
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
      if (!start (self))
        return GST_STATE_CHANGE_FAILURE;
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
      gst_internvl_forget_stream (self);
      self->have_info = self->seen_caps = FALSE;
      g_mutex_lock (&self->lock);
      gst_clear_event (&self->text_stream_start);
      g_mutex_unlock (&self->lock);
      break;
    case GST_STATE_CHANGE_READY_TO_NULL:
      gst_internvl_worker_unload (self->worker);
      g_clear_pointer (&self->host, ivl_device_unref);
      break;
    default:
      break;
  }
  return ret;
}

/* ---- properties, life ---- */

static void
gst_internvl_set_property (GObject *object, guint id, const GValue *value, GParamSpec *pspec)
{
  GstInternvl *self = GST_INTERNVL (object);
  g_autoptr (GError) error = NULL;

  g_mutex_lock (&self->wanted_lock);
  gboolean known = gst_internvl_settings_set (&self->wanted, id, value);
  /* In NULL it is told when the element is started. */
  if (GST_STATE (self) > GST_STATE_NULL)
    error = gst_internvl_settings_take_error (&self->wanted);
  g_mutex_unlock (&self->wanted_lock);

  if (!known)
    G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
  if (error)
    GST_ELEMENT_WARNING (self, LIBRARY, SETTINGS, ("%s; what was set before stays.", error->message), (NULL));
}

/* Comes once for all that a g_object_set () sets, or that is set between g_object_freeze_notify () and _thaw_notify ():
 * so no chunk gets a part of it. */
static void
gst_internvl_dispatch_properties_changed (GObject *object, guint n, GParamSpec **pspecs)
{
  GstInternvl *self = GST_INTERNVL (object);
  gboolean set = FALSE;

  for (guint i = 0; i < n; i++)
    set = set || (pspecs[i]->owner_type == GST_TYPE_INTERNVL && pspecs[i] != gst_internvl_stats_pspec ());
  if (set) {
    g_mutex_lock (&self->wanted_lock);
    GstInternvlTextFormat format = self->wanted.text_format;
    gint priority = self->wanted.priority;
    take_wanted (self);
    g_mutex_unlock (&self->wanted_lock);

    gst_internvl_worker_set_priority (self->worker, priority);
    g_autoptr (GstInternvlTextPad) textpad = gst_internvl_ref_textpad (self);
    if (textpad)
      gst_internvl_text_pad_set_format (textpad, format);
  }
  G_OBJECT_CLASS (parent_class)->dispatch_properties_changed (object, n, pspecs);
}

static void
gst_internvl_get_property (GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  GstInternvl *self = GST_INTERNVL (object);

  if (id == GST_INTERNVL_PROP_STATS) {
    g_value_take_boxed (value, gst_internvl_make_stats (self));
    return;
  }
  g_mutex_lock (&self->wanted_lock);
  gboolean known = gst_internvl_settings_get (&self->wanted, id, value);
  g_mutex_unlock (&self->wanted_lock);
  if (!known)
    G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
}

static void
gst_internvl_finalize (GObject *object)
{
  GstInternvl *self = GST_INTERNVL (object);

  gst_internvl_worker_stop (self->worker);
  gst_internvl_forget_stream (self);
  gst_internvl_worker_free (self->worker);
  ivl_device_unref (self->host);
  gst_internvl_vk_frames_free (self->vk_frames);
  gst_internvl_sampler_free (self->sampler);
  gst_clear_event (&self->text_stream_start);
  g_free (self->stream_id);
  g_free (self->model_name);
  gst_internvl_settings_clear (&self->settings);
  gst_internvl_settings_clear (&self->wanted);
  g_mutex_clear (&self->lock);
  g_mutex_clear (&self->wanted_lock);
  G_OBJECT_CLASS (parent_class)->finalize (object);
}

static void
add_video_template (GstElementClass *klass, const char *name, GstPadDirection direction)
{
  GstCaps *caps = gst_caps_from_string (GST_VIDEO_CAPS_MAKE (GST_VIDEO_FORMATS_ALL) GST_INTERNVL_VK_CAPS);

  gst_internvl_dma_frames_append_caps (caps);
  gst_element_class_add_pad_template (klass, gst_pad_template_new (name, direction, GST_PAD_ALWAYS, caps));
  gst_caps_unref (caps);
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
  object_class->dispatch_properties_changed = gst_internvl_dispatch_properties_changed;
  object_class->finalize = gst_internvl_finalize;
  element_class->change_state = gst_internvl_change_state;
  element_class->request_new_pad = gst_internvl_request_new_pad;
  element_class->release_pad = gst_internvl_release_pad;
  element_class->set_context = gst_internvl_set_context;

  gst_internvl_settings_install (object_class);
  g_object_class_install_property (object_class, GST_INTERNVL_PROP_STATS, gst_internvl_stats_pspec ());

  /**
   * GstInternvl::ask:
   * @prompt: the question, with the same templates as the property
   * @id: what the reply is to be known by
   *
   * Asks about the latest sampled frames, as many as a chunk has, beside the stream. The reply is an element message
   * `internvl` with the field `id`, and `error` if there is no answer.
   *
   * Returns: %FALSE if there are no frames yet, and there will be no reply
   */
  g_signal_new_class_handler ("ask", G_TYPE_FROM_CLASS (klass), G_SIGNAL_RUN_LAST | G_SIGNAL_ACTION,
      G_CALLBACK (gst_internvl_ask), NULL, NULL, NULL, G_TYPE_BOOLEAN, 2, G_TYPE_STRING, G_TYPE_STRING);

  add_video_template (element_class, "sink", GST_PAD_SINK);
  add_video_template (element_class, "src", GST_PAD_SRC);
  gst_element_class_add_static_pad_template_with_gtype (element_class, &text_template, GST_TYPE_INTERNVL_TEXT_PAD);
  gst_element_class_set_static_metadata (element_class, "InternVL video captioner", "Filter/Analyzer/Video",
      "Answers a question about each stretch of a video with InternVL 2.5, on any Vulkan device: timed text on "
      "text_src, element messages, and metas on the video, which passes through", "The internvl developers");
  gst_type_mark_as_plugin_api (gst_internvl_policy_get_type (), 0);
  gst_type_mark_as_plugin_api (gst_internvl_text_format_get_type (), 0);
  gst_type_mark_as_plugin_api (gst_internvl_weights_get_type (), 0);
  gst_type_mark_as_plugin_api (gst_internvl_sampling_get_type (), 0);
  gst_type_mark_as_plugin_api (gst_internvl_on_error_get_type (), 0);
  gst_type_mark_as_plugin_api (GST_TYPE_INTERNVL_TEXT_PAD, 0);
}

static void
gst_internvl_init (GstInternvl *self)
{
  g_mutex_init (&self->lock);
  g_mutex_init (&self->wanted_lock);
  g_queue_init (&self->results);
  g_queue_init (&self->recent);
  g_queue_init (&self->held_events);
  gst_segment_init (&self->segment, GST_FORMAT_TIME);
  gst_internvl_settings_init (&self->settings);
  gst_internvl_settings_init (&self->wanted);
  self->worker = gst_internvl_worker_new (&gst_internvl_worker_funcs, self);
  self->vk_frames = gst_internvl_vk_frames_new (GST_ELEMENT (self));
  self->sampler = gst_internvl_sampler_new (&gst_internvl_sampler_funcs, self);

  self->sinkpad = gst_pad_new_from_template (gst_element_get_pad_template (GST_ELEMENT (self), "sink"), "sink");
  gst_pad_set_chain_function (self->sinkpad, gst_internvl_chain);
  gst_pad_set_event_function (self->sinkpad, gst_internvl_sink_event);
  gst_pad_set_query_function (self->sinkpad, gst_internvl_sink_query);
  gst_pad_set_iterate_internal_links_function (self->sinkpad, gst_internvl_iterate_links);
  GST_PAD_SET_PROXY_CAPS (self->sinkpad);
  GST_PAD_SET_PROXY_SCHEDULING (self->sinkpad);
  gst_element_add_pad (GST_ELEMENT (self), self->sinkpad);

  self->srcpad = gst_pad_new_from_template (gst_element_get_pad_template (GST_ELEMENT (self), "src"), "src");
  gst_pad_set_event_function (self->srcpad, gst_internvl_src_event);
  gst_pad_set_query_function (self->srcpad, gst_internvl_src_query);
  gst_pad_set_iterate_internal_links_function (self->srcpad, gst_internvl_iterate_links);
  GST_PAD_SET_PROXY_CAPS (self->srcpad);
  gst_element_add_pad (GST_ELEMENT (self), self->srcpad);
}
