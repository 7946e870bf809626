/* What the streaming thread hands to the worker: sampled frames, and the chunks they make up. */
#pragma once

#include <gst/video/video.h>
#include <internvl/internvl.h>

G_BEGIN_DECLS

/* A sampled frame. Belongs to one chunk, or to several that overlap; its image is made once. */
typedef struct {
  gatomicrefcount refs;
  GstBuffer *buffer;            /* NULL once there is an image */
  gboolean on_device;           /* in memory that can't be mapped */
  IvlDevicePicture *picture;    /* then: a copy on the device; needs the buffer until it is done. NULL: there is none */
  GstVideoInfo info;
  GstVideoRectangle region;     /* of the frame, that is seen */
  guint max_tiles;
  gboolean may_expire;          /* its chunk may come too late */
  float reuse_threshold;        /* to the frame before; 0: always encoded */
  gboolean compare;             /* with the frame before; with these thresholds */
  float motion_threshold, scene_threshold;
  char *detections;             /* what others saw in it, NULL: nothing */
  GstClockTime timestamp;       /* of the buffer, or what the sampler put in its place */
  gboolean described;           /* detections are known */
  gint64 arrival;               /* monotonic, us */
  /* The worker's: */
  IvlImage *image;              /* NULL and ready: lost */
  gboolean queued, ready;
  gboolean comparing;           /* ready, but for what comes next */
  gboolean still, cut;          /* it is the frame before again; a scene begins with it */
  gboolean linked;              /* to the frame that may stand in for it */
  guint uses;                   /* chunks that were asked with it */
  gboolean counted;             /* as encoded or reused */
} GstInternvlFrame;

/* Takes BUFFER. */
GstInternvlFrame *gst_internvl_frame_new (GstBuffer *buffer, const GstVideoInfo *info);
GstInternvlFrame *gst_internvl_frame_ref (GstInternvlFrame *frame);
void gst_internvl_frame_unref (GstInternvlFrame *frame);

/* A run of video that one answer covers, and what to ask about it. */
typedef struct {
  guint64 index;
  GPtrArray *frames;            /* of GstInternvlFrame */
  guint n_wanted;               /* of them, at most, chosen by scene */
  gboolean skip_still;          /* not asked about if nothing moves in it */
  GstClockTime timestamp, duration;     /* in the segment of the video */
  GstClockTime stream_time, stream_duration, running_time;
  GstClockTime text_pts;        /* in the segment of the text pad */
  char *stream_id;
  char *prompt;                 /* template; expanded when it is asked */
  char *system_prompt;          /* NULL: the model's */
  IvlGenerateParams params;
  gboolean tokens;              /* its text is wanted as it comes */
  GstClockTime max_latency;     /* from its last frame until it is asked; 0: any */
  GPtrArray *choices;           /* of char, NULL-terminated; NULL: anything may be said */
  char *json_schema;            /* NULL: need not be JSON */
  char *alert_on;               /* NULL: none */
  GstClockTime alert_hold;
  char *id;                     /* of a question in between, NULL for a chunk of the stream */
  guint epoch;                  /* the owner's: tells what was begun before a flush */
} GstInternvlChunk;
void gst_internvl_chunk_free (GstInternvlChunk *chunk);

G_END_DECLS
