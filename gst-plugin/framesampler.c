#include "framesampler.h"

/* Frames a second where neither frame-rate nor chunk-duration says. */
#define DEFAULT_RATE 2
/* A time stamp that steps back by no more than this, or two frames, is jitter rather than a jump. */
#define JITTER (100 * GST_MSECOND)
/* Length of a frame when nothing tells it. */
#define UNKNOWN_PERIOD (GST_SECOND / 30)
/* Length of a window, at most: sums of times must not overflow. */
#define MAX_LENGTH (366 * 24 * 3600 * (guint64) GST_SECOND)
/* Windows that overlap, at most: shorter strides are lengthened. */
#define MAX_OVERLAP 64

typedef struct
{
  GstClockTime start, duration;
  guint n_wanted, n_points, next_point;
  GPtrArray *frames;
  gpointer first;               /* owned; the window's first frame, for want of a better one */
} Window;

struct GstInternvlSampler
{
  const GstInternvlSamplerFuncs *funcs;
  gpointer user_data;
  GstInternvlSamplerConfig config;
  GstClockTime period;

  gboolean running;             /* a frame was seen since the last break */
  gboolean begins;              /* the next window is the first */
  GstClockTime last, last_end;  /* of the last frame; last_end is last if its length is unknown */
  GstClockTime next_start;
  GstClockTime covered;         /* end of the last chunk of this run */
  GQueue windows;               /* of Window, by start */
};

void
gst_internvl_sampler_config_resolve (const GstInternvlSamplerConfig *config, GstClockTime *duration,
    guint *n_frames, GstClockTime *stride)
{
  gint rate_n = config->rate_n, rate_d = MAX (config->rate_d, 1);
  guint n = MAX (config->chunk_size, 1);
  GstClockTime length = config->chunk_duration;

  if (length == 0) {
    if (rate_n <= 0) {
      rate_n = DEFAULT_RATE;
      rate_d = 1;
    }
    length = MAX (gst_util_uint64_scale (n * GST_SECOND, rate_d, rate_n), 1);
  } else if (rate_n > 0) {
    guint64 at_rate = gst_util_uint64_scale_round (length, rate_n, rate_d * GST_SECOND);
    n = CLAMP (at_rate, 1, n);
  }

  length = MIN (length, MAX_LENGTH);
  if (duration)
    *duration = length;
  if (n_frames)
    *n_frames = n;
  if (stride)
    *stride = config->chunk_stride ? MAX (config->chunk_stride, length / MAX_OVERLAP + 1) : length;
}

GstInternvlSampler *
gst_internvl_sampler_new (const GstInternvlSamplerFuncs *funcs, gpointer user_data)
{
  GstInternvlSampler *sampler = g_new0 (GstInternvlSampler, 1);

  sampler->funcs = funcs;
  sampler->user_data = user_data;
  sampler->config.chunk_size = 8;
  sampler->config.rate_d = 1;
  sampler->period = GST_CLOCK_TIME_NONE;
  g_queue_init (&sampler->windows);
  return sampler;
}

static void
window_free (GstInternvlSampler *sampler, Window *window)
{
  if (window->first)
    sampler->funcs->unref (window->first);
  if (window->frames)
    g_ptr_array_unref (window->frames);
  g_free (window);
}

void
gst_internvl_sampler_reset (GstInternvlSampler *sampler)
{
  Window *window;

  while ((window = g_queue_pop_head (&sampler->windows)))
    window_free (sampler, window);
  sampler->running = FALSE;
  sampler->covered = 0;
}

void
gst_internvl_sampler_free (GstInternvlSampler *sampler)
{
  if (!sampler)
    return;
  gst_internvl_sampler_reset (sampler);
  g_free (sampler);
}

void
gst_internvl_sampler_configure (GstInternvlSampler *sampler, const GstInternvlSamplerConfig *config)
{
  sampler->config = *config;
}

void
gst_internvl_sampler_set_period (GstInternvlSampler *sampler, GstClockTime period)
{
  sampler->period = period;
}

static void
window_take (GstInternvlSampler *sampler, Window *window, gpointer frame)
{
  g_ptr_array_add (window->frames, sampler->funcs->ref (frame));
  g_clear_pointer (&window->first, sampler->funcs->unref);
  sampler->funcs->sampled (frame, sampler->user_data);
}

/* The oldest window becomes a chunk. */
static void
complete_head (GstInternvlSampler *sampler, GstClockTime duration)
{
  Window *window = g_queue_pop_head (&sampler->windows);

  if (window->frames->len == 0 && window->first) {
    gpointer first = sampler->funcs->ref (window->first);
    window_take (sampler, window, first);
    sampler->funcs->unref (first);
  }
  sampler->covered = window->start + duration;
  if (window->frames->len > 0)
    sampler->funcs->chunk (window->start, duration, g_steal_pointer (&window->frames), window->n_wanted,
        sampler->user_data);
  window_free (sampler, window);
}

/* In order of start, also when a later window was made shorter and is complete before an older one. */
static void
complete_until (GstInternvlSampler *sampler, GstClockTime time)
{
  Window *window;

  while ((window = g_queue_peek_head (&sampler->windows)) && window->start + window->duration <= time)
    complete_head (sampler, window->duration);
}

void
gst_internvl_sampler_advance (GstInternvlSampler *sampler, GstClockTime time)
{
  complete_until (sampler, time);
}

void
gst_internvl_sampler_finish (GstInternvlSampler *sampler)
{
  Window *window;

  if (sampler->running)
    complete_until (sampler, sampler->last_end);
  window = g_queue_peek_head (&sampler->windows);
  if (window && (sampler->covered == 0 || sampler->last_end > sampler->covered)) {
    GstClockTime duration = window->duration;

    /* A single frame of unknown length, as a still picture, stands for the whole window. */
    if (sampler->last_end > window->start)
      duration = MIN (duration, sampler->last_end - window->start);
    complete_head (sampler, duration);
  }
  gst_internvl_sampler_reset (sampler);
}

static void
open_windows (GstInternvlSampler *sampler, GstClockTime pts)
{
  GstClockTime duration, stride;
  guint n_wanted;

  gst_internvl_sampler_config_resolve (&sampler->config, &duration, &n_wanted, &stride);
  if (sampler->begins && sampler->config.first_duration > 0 && sampler->config.first_duration < duration) {
    /* The next one begins where this one ends, or sooner as they all do. */
    stride = stride > duration ? stride : MIN (stride, sampler->config.first_duration);
    n_wanted = MAX (gst_util_uint64_scale_round (n_wanted, sampler->config.first_duration, duration), 1);
    duration = sampler->config.first_duration;
  }
  sampler->begins = FALSE;
  while (sampler->next_start <= pts) {
    GstClockTime start = sampler->next_start;

    if (pts - start >= MAX (duration, stride)) {
      /* A hole with room for a whole chunk, or more: nothing to be in step with any longer. */
      sampler->next_start = pts;
      continue;
    }
    sampler->next_start = start + stride;
    /* Past its end (strides longer than chunks), or the next one would have just the same frames. */
    if (pts - start >= MIN (duration, stride))
      continue;

    Window *window = g_new0 (Window, 1);
    window->start = start;
    window->duration = duration;
    window->n_wanted = n_wanted;
    window->n_points = n_wanted * MAX (sampler->config.density, 1);
    window->frames = g_ptr_array_new_with_free_func (sampler->funcs->unref);
    g_queue_push_tail (&sampler->windows, window);
  }
}

/* FRAME is on display from its time to END. */
static void
offer (GstInternvlSampler *sampler, Window *window, gpointer frame, GstClockTime end)
{
  gboolean take = FALSE;

  while (window->next_point < window->n_points) {
    GstClockTime middle = window->start +
        gst_util_uint64_scale (window->duration, 2 * window->next_point + 1, 2 * window->n_points);
    if (middle >= end)
      break;
    window->next_point++;
    take = TRUE;
  }
  if (take)
    window_take (sampler, window, frame);
  else if (window->frames->len == 0 && !window->first)
    window->first = sampler->funcs->ref (frame);
}

GstClockTime
gst_internvl_sampler_guess_time (GstInternvlSampler *sampler, GstClockTime duration)
{
  if (!sampler->running)
    return 0;
  if (sampler->last_end > sampler->last)
    return sampler->last_end;
  return sampler->last + (GST_CLOCK_TIME_IS_VALID (duration) && duration > 0 ? duration : UNKNOWN_PERIOD);
}

void
gst_internvl_sampler_push (GstInternvlSampler *sampler, gpointer frame, GstClockTime pts, GstClockTime duration)
{
  if (pts > GST_INTERNVL_SAMPLER_MAX_TIME)
    return;
  if (!GST_CLOCK_TIME_IS_VALID (duration) || duration == 0 || duration > GST_INTERNVL_SAMPLER_MAX_TIME)
    duration = sampler->period;

  if (sampler->running && pts < sampler->last) {
    GstClockTime jitter = GST_CLOCK_TIME_IS_VALID (duration) ? MAX (2 * duration, JITTER) : JITTER;

    if (sampler->last - pts <= jitter)
      return;
    gst_internvl_sampler_finish (sampler);
  }
  if (!GST_CLOCK_TIME_IS_VALID (duration))
    duration = sampler->running ? pts - sampler->last : 0;

  complete_until (sampler, pts);
  if (!sampler->running) {
    sampler->running = sampler->begins = TRUE;
    sampler->next_start = pts;
  }
  open_windows (sampler, pts);
  sampler->last = pts;
  sampler->last_end = pts + duration;

  for (GList *l = sampler->windows.head; l; l = l->next)
    offer (sampler, l->data, frame, pts + MAX (duration, 1));

  if (sampler->config.eager) {
    Window *window;
    while ((window = g_queue_peek_head (&sampler->windows)) && window->next_point == window->n_points)
      complete_head (sampler, window->duration);
  }
}
