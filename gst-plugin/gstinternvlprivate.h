/* What the element's own files share: gstinternvlelement.c (pads, queries, states, properties), stream.c (the streaming
 * thread: chain and events), results.c (the worker's thread: answers to everybody who wants them). */
#pragma once

#include "alert.h"
#include "gstinternvlelement.h"
#include "settings.h"
#include "textmeta.h"
#include "textpad.h"
#include "vkframes.h"
#include "worker.h"

#include <gst/video/video.h>

G_BEGIN_DECLS

GST_DEBUG_CATEGORY_EXTERN (gst_internvl_debug);

/* Results that wait for a text pad that doesn't get on, under `live`. */
#define MAX_LIVE_TEXTS 256

struct _GstInternvl
{
  GstElement parent;

  /* Under a lock of its own, which may be held while files are read; the object's may be taken inside */
  GMutex wanted_lock;
  GstInternvlSettings wanted;   /* as the properties are: settings, but for what is being set just now */

  GstPad *sinkpad, *srcpad;
  GstInternvlWorker *worker;
  GstInternvlVkFrames *vk_frames;
  IvlDevice *host;              /* of the frames, and then of the model; NULL: its own. Set when started */

  /* Under the object's lock */
  GstInternvlSettings settings; /* in force */
  GstInternvlTextPad *textpad;  /* borrowed: the element has it */

  /* The streaming thread's */
  GstInternvlSampler *sampler;
  GstSegment segment;
  GstVideoInfo info;
  gboolean have_info, have_segment;
  gboolean seen_caps;           /* good ones or not */
  gboolean passthrough;         /* on-error, since the start */
  gboolean started;             /* policy is known */
  gboolean live;
  GstBuffer *held;              /* kept back so that the last answer can ride on it; not when live */
  GQueue held_events;           /* that came after it */
  guint64 next_index;
  guint density;                /* frames looked at for each that is wanted */
  guint64 n_sampled;
  gboolean ends_unseen;         /* the chunk that is being ended: what is sampled now counts as lost */
  char *stream_id;

  GstInternvlAlert alert;       /* the worker's thread's */

  /* Under lock, which may be taken inside of the worker's lock, never the other way round */
  GMutex lock;
  guint epoch;                  /* counts flushes: results from before one are void */
  gboolean failed;
  gint64 warned;                /* when, monotonic us; 0: not since the start */
  GQuark warned_domain;
  gint warned_code;
  guint warnings_suppressed;
  GQueue results;               /* of GstInternvlResult, for the next buffer */
  GstInternvlResult *latest;
  GstEvent *text_stream_start, *text_segment, *text_eos;        /* for a pad that comes later */
  GQueue recent;                /* of GstInternvlFrame, the last ones sampled */
  GstSegment recent_segment;    /* theirs */
  GstClockTime answer_latency;
  GstClockTime period;          /* of the video's frames; 0: unknown */
  gboolean live_source;
  gboolean fresh;               /* the model has come, and nobody looked at the stream since */
  char *model_name;
  guint32 seek_seqnum;
};

/* Takes a reference; NULL if nobody asked for the pad. */
GstInternvlTextPad *gst_internvl_ref_textpad (GstInternvl *self);

/* results.c */
extern const GstInternvlWorkerFuncs gst_internvl_worker_funcs;
GstStructure *gst_internvl_make_result (GstInternvl *self, const GstInternvlChunk *chunk, const char *prompt,
    const IvlAnswer *answer, GstClockTime latency);
GParamSpec *gst_internvl_stats_pspec (void);
GstStructure *gst_internvl_make_stats (GstInternvl *self);

/* ask.c */
/* Asks about the latest frames; the reply is posted on the bus. FALSE: there are none, or PROMPT is not a text. Any
 * thread. */
gboolean gst_internvl_ask (GstInternvl *self, const char *prompt, const char *id);
/* Takes EVENT if it is "internvl-ask". */
gboolean gst_internvl_take_ask_event (GstInternvl *self, GstEvent *event);
void gst_internvl_replied (gpointer owner, const GstInternvlChunk *chunk, const char *prompt,
    const IvlAnswer *answer, const GError *error);
void gst_internvl_remember_frame (GstInternvl *self, GstInternvlFrame *frame);
void gst_internvl_forget_frames (GstInternvl *self);

/* stream.c */
extern const GstInternvlSamplerFuncs gst_internvl_sampler_funcs;
GstFlowReturn gst_internvl_chain (GstPad *pad, GstObject *parent, GstBuffer *buffer);
gboolean gst_internvl_sink_event (GstPad *pad, GstObject *parent, GstEvent *event);
/* Pushes what is kept back for the last answer. On the streaming thread. */
void gst_internvl_release_held (GstInternvl *self);
/* Forgets what the streaming thread and the worker know of the stream. Neither of them may be running. */
void gst_internvl_forget_stream (GstInternvl *self);
/* The GAP event that lets whoever is behind the text pad start; SEGMENT_EVENT is the pad's. */
GstEvent *gst_internvl_first_gap (GstEvent *segment_event);

G_END_DECLS
