/* What the worker does next, and what it won't do any more. With the lock, all of it. */
#include "scenes.h"
#include "workerprivate.h"

#include <string.h>

#define GST_CAT_DEFAULT gst_internvl_debug

guint
gst_internvl_worker_count_chunks (GstInternvlWorker *worker, JobState state)
{
  guint n = 0;

  for (GList *l = worker->jobs.head; l; l = l->next) {
    GstInternvlJob *job = l->data;
    n += job->chunk && job->state == state;
  }
  return n;
}

typedef enum
{
  FRAMES_PENDING,
  FRAMES_COMPLETE,
  FRAMES_SOME_LOST,
  FRAMES_ALL_LOST,
} FramesState;

static FramesState
frames_state (const GstInternvlChunk *chunk)
{
  guint n_images = 0;

  for (guint i = 0; i < chunk->frames->len; i++) {
    GstInternvlFrame *frame = g_ptr_array_index (chunk->frames, i);
    if (!frame->ready || frame->comparing)
      return FRAMES_PENDING;
    n_images += frame->image != NULL;
  }
  return n_images == 0 ? FRAMES_ALL_LOST : n_images < chunk->frames->len ? FRAMES_SOME_LOST : FRAMES_COMPLETE;
}

/* A chunk that won't be asked waits for its place in the queue without its frames. */
static void
drop (GstInternvlWorker *worker, GstInternvlJob *job)
{
  g_queue_push_tail (&worker->trash, job->chunk->frames);
  job->chunk->frames = g_ptr_array_new ();
  job->state = JOB_DONE;
  if (!job->still)
    worker->unseen = TRUE;
}

static gboolean
shows_motion (const GstInternvlChunk *chunk)
{
  for (guint i = 0; i < chunk->frames->len; i++)
    if (!((const GstInternvlFrame *) g_ptr_array_index (chunk->frames, i))->still)
      return TRUE;
  return FALSE;
}

static void
choose_frames (GstInternvlWorker *worker, GstInternvlChunk *chunk)
{
  GPtrArray *all = chunk->frames;

  if (all->len <= chunk->n_wanted)
    return;
  g_autofree gboolean *cuts = g_new (gboolean, all->len);
  g_autofree guint *chosen = g_new (guint, chunk->n_wanted);
  for (guint i = 0; i < all->len; i++)
    cuts[i] = ((const GstInternvlFrame *) g_ptr_array_index (all, i))->cut;
  guint n = gst_internvl_choose_frames (cuts, all->len, chunk->n_wanted, chosen);
  chunk->frames = g_ptr_array_new_full (n, (GDestroyNotify) gst_internvl_frame_unref);
  for (guint i = 0; i < n; i++)
    g_ptr_array_add (chunk->frames, gst_internvl_frame_ref (g_ptr_array_index (all, chosen[i])));
  g_queue_push_tail (&worker->trash, all);
}

/* Which of them show something, and by which frames; oldest first, since it depends on what is asked before. */
static void
settle_chunks (GstInternvlWorker *worker)
{
  for (GList *l = worker->jobs.head; l; l = l->next) {
    GstInternvlJob *job = l->data;

    if (!job->chunk || job->state != JOB_WAITING || job->settled)
      continue;
    FramesState state = frames_state (job->chunk);
    if (state == FRAMES_PENDING)
      return;
    if (state == FRAMES_ALL_LOST)
      continue;
    if (job->chunk->skip_still && !worker->unseen && !shows_motion (job->chunk)) {
      job->still = TRUE;
      drop (worker, job);
      continue;
    }
    choose_frames (worker, job->chunk);
    job->settled = TRUE;
    worker->unseen = FALSE;
  }
}

/* Whether it is not worth its frames' encoding any more. */
static gboolean
is_too_late (GstInternvlWorker *worker, const GstInternvlChunk *chunk)
{
  const GstInternvlFrame *last = g_ptr_array_index (chunk->frames, chunk->frames->len - 1);

  return worker->state == MODEL_FAILED || (chunk->max_latency &&
      (GstClockTime) (g_get_monotonic_time () - last->arrival) * GST_USECOND > chunk->max_latency);
}

GstInternvlJob *
gst_internvl_worker_next_chunk (GstInternvlWorker *worker)
{
  guint asked = 0;
  GstInternvlJob *next = NULL;

  settle_chunks (worker);
  /* Newest first: of those that wait only one stays. One that may turn out to show nothing takes nobody's place. */
  for (GList *l = worker->jobs.tail; l && worker->live; l = l->prev) {
    GstInternvlJob *job = l->data;
    if (!job->chunk || job->state != JOB_WAITING)
      continue;
    if (next || frames_state (job->chunk) >= FRAMES_SOME_LOST)
      drop (worker, job);
    else if (job->settled || !job->chunk->skip_still)
      next = job;
  }
  next = NULL;
  settle_chunks (worker);

  for (GList *l = worker->jobs.head; l && !next; l = l->next) {
    GstInternvlJob *job = l->data;

    if (!job->chunk)
      continue;
    asked += job->state == JOB_ASKED;
    if (job->state != JOB_WAITING)
      continue;
    if (is_too_late (worker, job->chunk)) {
      drop (worker, job);
      continue;
    }
    switch (frames_state (job->chunk)) {
      case FRAMES_PENDING:
        return NULL;
      case FRAMES_ALL_LOST:
        drop (worker, job);
        break;
      default:
        next = job;
    }
  }
  if (!next)
    return NULL;
  /* One that quotes the answer before it needs that. */
  guint most = worker->live || strstr (next->chunk->prompt, "{previous}") ? 1 : MAX_ASKED_ALL;
  for (GList *l = worker->jobs.head; most == 1 && l && l->data != next; l = l->next)
    if (((GstInternvlJob *) l->data)->chunk)
      return NULL;
  return asked < most ? next : NULL;
}

GstInternvlJob *
gst_internvl_worker_next_question (GstInternvlWorker *worker)
{
  GstInternvlJob *job = g_queue_peek_head (&worker->questions);

  if (!job || job->state != JOB_WAITING)
    return NULL;
  if (worker->quit || worker->state == MODEL_FAILED) {
    g_set_error (&job->error, IVL_ERROR, IVL_ERROR_CANCELLED, worker->quit ? "the stream was stopped" :
        "the model has failed");
  } else if (worker->state == MODEL_LOADING || frames_state (job->chunk) == FRAMES_PENDING) {
    return NULL;
  } else if (frames_state (job->chunk) == FRAMES_ALL_LOST) {
    g_set_error (&job->error, IVL_ERROR, IVL_ERROR_BAD_ARGUMENT, "none of the frames could be kept");
  } else {
    return job;
  }
  job->state = JOB_DONE;
  return NULL;
}
