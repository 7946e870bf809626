/* Which frames of a stream a chunk is made of: pure logic over time stamps, no GstElement and no pixels.
 *
 * Time here is any clock that grows while the stream plays (the element feeds it the segment's position). The
 * stream is cut into windows, one per chunk: the first begins with the first frame, each next one a stride later.
 * A window is divided into as many equal parts as it has frames, and the frame on display at the middle of each
 * part is taken, once. The first window of all may be shorter, with as many fewer frames. Frames without a time stamp follow the one before at the nominal rate. A jump backward ends
 * the window and begins anew; after a hole longer than a window the next one begins with the first frame after it.
 *
 * Not thread-safe: belongs to the streaming thread.
 */
#pragma once

#include <gst/gst.h>

G_BEGIN_DECLS

typedef struct GstInternvlSampler GstInternvlSampler;

typedef struct {
  guint chunk_size;               /* frames of a window, at most; at least 1 */
  gint rate_n, rate_d;            /* frames a second, at most; 0/1: whatever chunk_size gives, or 2/1 */
  GstClockTime chunk_duration;    /* 0: chunk_size / rate */
  GstClockTime chunk_stride;      /* 0: the duration */
  gboolean eager;                 /* complete a window with its last frame rather than with its end */
  GstClockTime first_duration;    /* of the first window where the stream begins, or begins anew; 0: as the others */
  guint density;                  /* this many times as many frames are taken, for others to choose from; 0: as 1 */
} GstInternvlSamplerConfig;

/* What CONFIG comes to: length of a window, frames in it, distance to the next. Any of the results may be NULL. */
void gst_internvl_sampler_config_resolve (const GstInternvlSamplerConfig *config, GstClockTime *duration,
    guint *n_frames, GstClockTime *stride);

typedef struct {
  gpointer (*ref) (gpointer frame);
  void (*unref) (gpointer frame);
  /* FRAME will be part of a chunk. May be called more than once for a frame of overlapping windows. */
  void (*sampled) (gpointer frame, gpointer user_data);
  /* A window is complete. FRAMES (transfer full) has one element at least, and unrefs them. N_WANTED: how many it was to
   * have, without the density. */
  void (*chunk) (GstClockTime start, GstClockTime duration, GPtrArray *frames, guint n_wanted, gpointer user_data);
} GstInternvlSamplerFuncs;

/* FUNCS is borrowed. */
GstInternvlSampler *gst_internvl_sampler_new (const GstInternvlSamplerFuncs *funcs, gpointer user_data);
void gst_internvl_sampler_free (GstInternvlSampler *sampler);

/* Holds from the next window on. */
void gst_internvl_sampler_configure (GstInternvlSampler *sampler, const GstInternvlSamplerConfig *config);
/* Nominal length of a frame, for those that don't say; GST_CLOCK_TIME_NONE: unknown. */
void gst_internvl_sampler_set_period (GstInternvlSampler *sampler, GstClockTime period);

/* The time of the next frame if it has none of its own. DURATION may be GST_CLOCK_TIME_NONE. */
GstClockTime gst_internvl_sampler_guess_time (GstInternvlSampler *sampler, GstClockTime duration);
/* Times and lengths beyond this, some 146 years, can't be meant: such frames are passed over. */
#define GST_INTERNVL_SAMPLER_MAX_TIME (G_MAXINT64 / 2)
/* The next frame (borrowed). DURATION may be GST_CLOCK_TIME_NONE. */
void gst_internvl_sampler_push (GstInternvlSampler *sampler, gpointer frame, GstClockTime pts,
    GstClockTime duration);
/* There are no frames before TIME. */
void gst_internvl_sampler_advance (GstInternvlSampler *sampler, GstClockTime time);
/* The stream ends or breaks here: what there is of a window becomes a shorter chunk, and the next push begins anew.
 * Of overlapping windows only the oldest, which holds the others, and only if the chunk before doesn't hold it. */
void gst_internvl_sampler_finish (GstInternvlSampler *sampler);
/* Forgets everything but the configuration. */
void gst_internvl_sampler_reset (GstInternvlSampler *sampler);

G_END_DECLS
