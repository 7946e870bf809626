#include "workerprivate.h"

#include <string.h>

#define GST_CAT_DEFAULT gst_internvl_debug

void
gst_internvl_job_free (GstInternvlJob *job)
{
  gst_clear_event (&job->event);
  gst_internvl_chunk_free (job->chunk);
  g_free (job->prompt);
  if (job->text)
    g_string_free (job->text, TRUE);
  ivl_session_unref (job->session);
  if (job->answer)
    ivl_answer_free (job->answer);
  g_clear_error (&job->error);
  g_free (job);
}

/* ---- life ---- */

GstInternvlWorker *
gst_internvl_worker_new (const GstInternvlWorkerFuncs *funcs, gpointer owner)
{
  GstInternvlWorker *worker = g_new0 (GstInternvlWorker, 1);

  worker->funcs = funcs;
  worker->owner = owner;
  g_mutex_init (&worker->lock);
  g_cond_init (&worker->work);
  g_cond_init (&worker->progress);
  g_queue_init (&worker->frames);
  g_queue_init (&worker->jobs);
  g_queue_init (&worker->questions);
  g_queue_init (&worker->abandoned);
  g_queue_init (&worker->trash);
  worker->client = ivl_client_new ();
  return worker;
}

void
gst_internvl_worker_free (GstInternvlWorker *worker)
{
  if (!worker)
    return;
  gst_internvl_worker_unload (worker);
  ivl_client_unref (worker->client);
  g_free (worker->previous);
  g_mutex_clear (&worker->lock);
  g_cond_clear (&worker->work);
  g_cond_clear (&worker->progress);
  g_free (worker);
}

void
gst_internvl_worker_unload (GstInternvlWorker *worker)
{
  g_assert (!worker->thread);
  g_clear_pointer (&worker->model, ivl_model_unref);
  g_clear_pointer (&worker->host, ivl_device_unref);
  g_clear_pointer (&worker->device, g_free);
  g_clear_pointer (&worker->path, g_free);
}

gboolean
gst_internvl_worker_start (GstInternvlWorker *worker, IvlDevice *host, const char *device, const char *path,
    IvlWeights weights, gboolean share, GError **error)
{
  g_assert (!worker->thread);
  if (worker->model && (host != worker->host || g_strcmp0 (device, worker->device) || g_strcmp0 (path, worker->path) ||
          weights != worker->weights || share != worker->share))
    gst_internvl_worker_unload (worker);
  if (host)
    ivl_device_ref (host);
  ivl_device_unref (worker->host);
  worker->host = host;
  g_free (worker->device);
  worker->device = g_strdup (device);
  g_free (worker->path);
  worker->path = g_strdup (path);
  worker->weights = weights;
  worker->share = share;

  worker->flushing = worker->quit = worker->told = FALSE;
  worker->state = worker->model ? MODEL_READY : MODEL_LOADING;
  worker->cancellable = g_cancellable_new ();
  worker->thread = g_thread_try_new ("internvl", gst_internvl_worker_thread, worker, error);
  if (!worker->thread) {
    g_clear_object (&worker->cancellable);
    g_prefix_error (error, "no thread for the model: ");
  }
  return worker->thread != NULL;
}

void
gst_internvl_worker_stop (GstInternvlWorker *worker)
{
  if (!worker->thread)
    return;
  gst_internvl_worker_set_flushing (worker, TRUE);
  g_cancellable_cancel (worker->cancellable);
  g_autoptr (IvlSession) session = NULL;
  g_mutex_lock (&worker->lock);
  worker->quit = TRUE;
  GstInternvlJob *question = g_queue_peek_head (&worker->questions);
  if (question && question->state == JOB_ASKED && question->session)
    session = ivl_session_ref (question->session);
  g_cond_signal (&worker->work);
  g_mutex_unlock (&worker->lock);
  if (session)
    ivl_session_cancel (session);
  g_thread_join (g_steal_pointer (&worker->thread));
  g_clear_object (&worker->cancellable);
}

void
gst_internvl_worker_reset_stats (GstInternvlWorker *worker)
{
  g_mutex_lock (&worker->lock);
  memset (&worker->stats, 0, sizeof worker->stats);
  g_clear_pointer (&worker->previous, g_free);
  worker->unseen = TRUE;
  g_mutex_unlock (&worker->lock);
}

void
gst_internvl_worker_get_stats (GstInternvlWorker *worker, GstInternvlWorkerStats *stats)
{
  g_mutex_lock (&worker->lock);
  *stats = worker->stats;
  g_mutex_unlock (&worker->lock);
}

/* ---- the streaming thread's side ---- */

void
gst_internvl_worker_set_priority (GstInternvlWorker *worker, gint priority)
{
  ivl_client_set_priority (worker->client, priority);
}

void
gst_internvl_worker_set_live (GstInternvlWorker *worker, gboolean live)
{
  g_mutex_lock (&worker->lock);
  worker->live = live;
  g_cond_broadcast (&worker->progress);
  g_mutex_unlock (&worker->lock);
}

void
gst_internvl_worker_set_passthrough (GstInternvlWorker *worker, gboolean passthrough)
{
  g_assert (!worker->thread);
  worker->passthrough = passthrough;
}

void
gst_internvl_worker_set_flushing (GstInternvlWorker *worker, gboolean flushing)
{
  GPtrArray *sessions = g_ptr_array_new_with_free_func ((GDestroyNotify) ivl_session_unref);
  GQueue frames = G_QUEUE_INIT, jobs = G_QUEUE_INIT;
  GstInternvlFrame *frame;
  GstInternvlJob *job;

  g_mutex_lock (&worker->lock);
  worker->flushing = flushing;
  if (flushing) {
    worker->flushes++;
    worker->unseen = TRUE;
    g_clear_pointer (&worker->previous, g_free);
    while ((frame = g_queue_pop_head (&worker->frames))) {
      frame->ready = TRUE;
      g_queue_push_tail (&frames, frame);
    }
    while ((job = g_queue_pop_head (&worker->jobs))) {
      if (job->state == JOB_ASKED) {
        /* No session yet: the thread is about to ask, and will see the flush. */
        if (job->session)
          g_ptr_array_add (sessions, ivl_session_ref (job->session));
        g_queue_push_tail (&worker->abandoned, job);
      } else {
        g_queue_push_tail (&jobs, job);
      }
    }
  }
  g_cond_signal (&worker->work);
  g_cond_broadcast (&worker->progress);
  g_mutex_unlock (&worker->lock);

  /* The engine may call back from here, and that takes the lock. */
  for (guint i = 0; i < sessions->len; i++)
    ivl_session_cancel (g_ptr_array_index (sessions, i));
  g_ptr_array_unref (sessions);
  while ((frame = g_queue_pop_head (&frames)))
    gst_internvl_frame_unref (frame);
  while ((job = g_queue_pop_head (&jobs)))
    gst_internvl_job_free (job);
}

/* With the lock. */
static gboolean
is_open (GstInternvlWorker *worker)
{
  return worker->thread && !worker->flushing && !worker->quit &&
      (worker->state != MODEL_FAILED || worker->passthrough);
}

/* With the lock. */
static gboolean
is_full (GstInternvlWorker *worker)
{
  return worker->frames.length >= MAX_FRAMES || worker->n_comparing >= MAX_COMPARING;
}

/* With the lock. A live source can't wait, and the frames of a chunk that will come too late anyway are not worth its
 * buffers. */
static gboolean
is_closed (GstInternvlWorker *worker)
{
  return !is_open (worker) || worker->state == MODEL_FAILED || (worker->live && (worker->state == MODEL_LOADING ||
          is_full (worker)));
}

gboolean
gst_internvl_worker_is_closed (GstInternvlWorker *worker)
{
  g_mutex_lock (&worker->lock);
  gboolean closed = is_closed (worker);
  g_mutex_unlock (&worker->lock);
  return closed;
}

gboolean
gst_internvl_worker_add_frame (GstInternvlWorker *worker, GstInternvlFrame *frame)
{
  GstBuffer *lost = NULL;

  g_mutex_lock (&worker->lock);
  if (!frame->queued) {
    frame->queued = TRUE;
    if (is_closed (worker)) {
      GST_LOG ("frame %" GST_TIME_FORMAT " is lost", GST_TIME_ARGS (frame->timestamp));
      frame->ready = TRUE;
      lost = g_steal_pointer (&frame->buffer);
    } else {
      g_queue_push_tail (&worker->frames, gst_internvl_frame_ref (frame));
      g_cond_signal (&worker->work);
    }
  }
  gboolean kept = !frame->ready || frame->image;
  g_mutex_unlock (&worker->lock);
  gst_clear_buffer (&lost);
  return kept;
}

void
gst_internvl_worker_discard_frame (GstInternvlWorker *worker, GstInternvlFrame *frame)
{
  g_mutex_lock (&worker->lock);
  if (worker->thread && !worker->quit) {
    GPtrArray *frames = g_ptr_array_new_with_free_func ((GDestroyNotify) gst_internvl_frame_unref);

    g_ptr_array_add (frames, g_steal_pointer (&frame));
    g_queue_push_tail (&worker->trash, frames);
    g_cond_signal (&worker->work);
  }
  g_mutex_unlock (&worker->lock);
  gst_internvl_frame_unref (frame);
}

static void
add_job (GstInternvlWorker *worker, GstInternvlChunk *chunk, GstEvent *event)
{
  g_mutex_lock (&worker->lock);
  if (event && !worker->flushing && g_queue_is_empty (&worker->jobs)) {
    /* With the lock, so that nothing overtakes it. This is what lets the pad of the text start while the model is
     * still being loaded. */
    worker->funcs->event (worker->owner, g_steal_pointer (&event));
  } else if (is_open (worker)) {
    GstInternvlJob *job = g_new0 (GstInternvlJob, 1);
    job->worker = worker;
    job->chunk = g_steal_pointer (&chunk);
    job->event = g_steal_pointer (&event);
    g_queue_push_tail (&worker->jobs, job);
    g_cond_signal (&worker->work);
  }
  g_mutex_unlock (&worker->lock);
  gst_internvl_chunk_free (chunk);
  gst_clear_event (&event);
}

void
gst_internvl_worker_add_chunk (GstInternvlWorker *worker, GstInternvlChunk *chunk)
{
  add_job (worker, chunk, NULL);
}

gboolean
gst_internvl_worker_add_question (GstInternvlWorker *worker, GstInternvlChunk *chunk)
{
  g_mutex_lock (&worker->lock);
  gboolean open = worker->thread && !worker->quit;
  if (open) {
    GstInternvlJob *job = g_new0 (GstInternvlJob, 1);
    job->worker = worker;
    job->chunk = g_steal_pointer (&chunk);
    g_queue_push_tail (&worker->questions, job);
    g_cond_signal (&worker->work);
  }
  g_mutex_unlock (&worker->lock);
  gst_internvl_chunk_free (chunk);
  return open;
}

void
gst_internvl_worker_add_event (GstInternvlWorker *worker, GstEvent *event)
{
  add_job (worker, NULL, event);
}

gboolean
gst_internvl_worker_wait_room (GstInternvlWorker *worker)
{
  gboolean open;

  g_mutex_lock (&worker->lock);
  while ((open = is_open (worker)) && !worker->live && (is_full (worker) ||
          gst_internvl_worker_count_chunks (worker, JOB_WAITING) + gst_internvl_worker_count_chunks (worker, JOB_ASKED) >= MAX_CHUNKS_ALL))
    g_cond_wait (&worker->progress, &worker->lock);
  g_mutex_unlock (&worker->lock);
  return open;
}

gboolean
gst_internvl_worker_drain (GstInternvlWorker *worker)
{
  gboolean open;

  g_mutex_lock (&worker->lock);
  while ((open = is_open (worker)) && !(g_queue_is_empty (&worker->jobs) && g_queue_is_empty (&worker->questions)))
    g_cond_wait (&worker->progress, &worker->lock);
  g_mutex_unlock (&worker->lock);
  return open;
}

gboolean
gst_internvl_worker_is_busy (GstInternvlWorker *worker)
{
  g_mutex_lock (&worker->lock);
  gboolean busy = !g_queue_is_empty (&worker->jobs);
  g_mutex_unlock (&worker->lock);
  return busy;
}
