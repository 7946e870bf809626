/* What the worker's own files share: worker.c (what others call), workerthread.c (the thread), workernext.c (what it does
 * next). Nobody else includes it. */
#pragma once

#include "worker.h"

G_BEGIN_DECLS

GST_DEBUG_CATEGORY_EXTERN (gst_internvl_debug);

/* Frames that wait to be mapped, at most. They hold on to buffers, of which a source may have few. */
#define MAX_FRAMES 4
/* Frames at the device, to be compared, at most: it is behind, then. */
#define MAX_COMPARING 16
/* Questions at the model at a time under `all`: two, so that one is prefilled or encoded while the other is decoded.
 * Under `live` one, since a second would make both late. */
#define MAX_ASKED_ALL 2
/* Chunks under way under `all` before the stream is held: those asked, and one to follow. */
#define MAX_CHUNKS_ALL (MAX_ASKED_ALL + 1)

typedef enum
{
  JOB_WAITING,                  /* for its frames and its turn */
  JOB_ASKED,
  JOB_DONE,
} JobState;

/* A chunk or an event in the queue. While asked, the engine's callback has it too; the worker's thread frees it. */
typedef struct
{
  GstInternvlWorker *worker;    /* borrowed: stop waits for all that were asked */
  GstEvent *event;
  GstInternvlChunk *chunk;
  JobState state;
  gboolean settled;             /* its frames are chosen, and show something */
  gboolean still;               /* they don't: done, skipped */
  char *prompt;
  GString *text;                /* so far, if wanted */
  gsize told;                   /* bytes of it */
  IvlSession *session;
  IvlAnswer *answer;
  GError *error;
} GstInternvlJob;

typedef enum
{
  MODEL_LOADING,
  MODEL_READY,
  MODEL_FAILED,
} ModelState;

struct GstInternvlWorker
{
  const GstInternvlWorkerFuncs *funcs;
  gpointer owner;
  GThread *thread;

  GMutex lock;
  GCond work;                   /* for the thread */
  GCond progress;               /* for those who wait for it */
  GQueue frames;                /* of GstInternvlFrame, to be mapped */
  GQueue jobs;                  /* of GstInternvlJob, in order */
  GQueue questions;             /* of GstInternvlJob, in between; one is asked at a time */
  GQueue abandoned;             /* of GstInternvlJob, asked and then flushed */
  GQueue trash;                 /* of GPtrArray of frames, for the thread to free without the lock */
  gboolean flushing, quit, live, passthrough;
  guint flushes;                /* tells what was begun before a flush from what came after */
  ModelState state;
  GCancellable *cancellable;
  char *previous;               /* the last answer */
  guint n_comparing;            /* frames at the device, to be compared */
  GError *compare_error;        /* that comparing met with, not told yet */
  gboolean unseen;              /* something moved, or may have, in a chunk that was dropped */
  GstInternvlWorkerStats stats;
  IvlClient *client;            /* never changes */

  /* The thread's while it runs, else start's and unload's. */
  IvlModel *model;
  IvlDevice *host;              /* that the model is to be on; NULL: device says */
  char *device, *path;
  IvlWeights weights;
  gboolean share;
  IvlImage *last;               /* asked for, with a reuse threshold; stands in for the next one like it */
  guint last_flushes;           /* when it was */
  IvlImage *seen;               /* of the frame before, to compare the next one with */
  guint seen_flushes;           /* when it was made */
  gboolean told;                /* how frames in DMABufs are read, since the start */
};

void gst_internvl_job_free (GstInternvlJob *job);

/* workerthread.c */
gpointer gst_internvl_worker_thread (gpointer worker);

/* workernext.c; all with the lock. */
guint gst_internvl_worker_count_chunks (GstInternvlWorker *worker, JobState state);
/* The next chunk to ask, its frames ready; those that needn't be asked any more become done. */
GstInternvlJob *gst_internvl_worker_next_chunk (GstInternvlWorker *worker);
/* The question in between that is to be asked now. One that can't be becomes done. */
GstInternvlJob *gst_internvl_worker_next_question (GstInternvlWorker *worker);

G_END_DECLS
