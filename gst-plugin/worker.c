#include "worker.h"

#include "framemap.h"
#include "textout.h"

#include <string.h>

GST_DEBUG_CATEGORY_EXTERN (gst_internvl_debug);
#define GST_CAT_DEFAULT gst_internvl_debug

/* Frames that wait to be mapped, at most. They hold on to buffers, of which a source may have few. */
#define MAX_FRAMES 4
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
  char *prompt;
  GString *text;                /* so far, if wanted */
  gsize told;                   /* bytes of it */
  IvlSession *session;
  IvlAnswer *answer;
  GError *error;
} Job;

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
  GQueue jobs;                  /* of Job, in order */
  GQueue questions;             /* of Job, in between; one is asked at a time */
  GQueue abandoned;             /* of Job, asked and then flushed */
  GQueue trash;                 /* of GPtrArray of frames, for the thread to free without the lock */
  gboolean flushing, quit, live, passthrough;
  guint flushes;                /* tells what was begun before a flush from what came after */
  ModelState state;
  GCancellable *cancellable;
  char *previous;               /* the last answer */
  GstInternvlWorkerStats stats;
  IvlClient *client;            /* never changes */

  /* The thread's while it runs, else start's and unload's. */
  IvlModel *model;
  char *device, *path;
  gboolean share;
  IvlImage *last;               /* of the frame before, with a reuse threshold */
  guint last_flushes;           /* when it was made */
};

static void
job_free (Job *job)
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
  g_clear_pointer (&worker->device, g_free);
  g_clear_pointer (&worker->path, g_free);
}

static gpointer worker_thread (gpointer data);

void
gst_internvl_worker_start (GstInternvlWorker *worker, const char *device, const char *path, gboolean share)
{
  g_assert (!worker->thread);
  if (worker->model && (g_strcmp0 (device, worker->device) || g_strcmp0 (path, worker->path) ||
          share != worker->share))
    gst_internvl_worker_unload (worker);
  g_free (worker->device);
  worker->device = g_strdup (device);
  g_free (worker->path);
  worker->path = g_strdup (path);
  worker->share = share;

  worker->flushing = worker->quit = FALSE;
  worker->state = worker->model ? MODEL_READY : MODEL_LOADING;
  worker->cancellable = g_cancellable_new ();
  worker->thread = g_thread_new ("internvl", worker_thread, worker);
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
  Job *question = g_queue_peek_head (&worker->questions);
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
  Job *job;

  g_mutex_lock (&worker->lock);
  worker->flushing = flushing;
  if (flushing) {
    worker->flushes++;
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
    job_free (job);
}

/* With the lock. */
static gboolean
is_open (GstInternvlWorker *worker)
{
  return worker->thread && !worker->flushing && !worker->quit &&
      (worker->state != MODEL_FAILED || worker->passthrough);
}

gboolean
gst_internvl_worker_add_frame (GstInternvlWorker *worker, GstInternvlFrame *frame)
{
  GstBuffer *lost = NULL;

  g_mutex_lock (&worker->lock);
  if (!frame->queued) {
    frame->queued = TRUE;
    /* A live source can't wait, and the frames of a chunk that will come too late anyway are not worth its
     * buffers. */
    if (!is_open (worker) || worker->state == MODEL_FAILED || (worker->live && (worker->state == MODEL_LOADING ||
                worker->frames.length >= MAX_FRAMES))) {
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

static void
add_job (GstInternvlWorker *worker, GstInternvlChunk *chunk, GstEvent *event)
{
  g_mutex_lock (&worker->lock);
  if (event && !worker->flushing && g_queue_is_empty (&worker->jobs)) {
    /* With the lock, so that nothing overtakes it. This is what lets the pad of the text start while the model is
     * still being loaded. */
    worker->funcs->event (worker->owner, g_steal_pointer (&event));
  } else if (is_open (worker)) {
    Job *job = g_new0 (Job, 1);
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
    Job *job = g_new0 (Job, 1);
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

static guint
count_chunks (GstInternvlWorker *worker, JobState state)
{
  guint n = 0;

  for (GList *l = worker->jobs.head; l; l = l->next) {
    Job *job = l->data;
    n += job->chunk && job->state == state;
  }
  return n;
}

gboolean
gst_internvl_worker_wait_room (GstInternvlWorker *worker)
{
  gboolean open;

  g_mutex_lock (&worker->lock);
  while ((open = is_open (worker)) && !worker->live && (worker->frames.length >= MAX_FRAMES ||
          count_chunks (worker, JOB_WAITING) + count_chunks (worker, JOB_ASKED) >= MAX_CHUNKS_ALL))
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

/* ---- the thread ---- */

static void
fail (GstInternvlWorker *worker, const GError *error)
{
  GST_WARNING ("%s", error->message);
  g_mutex_lock (&worker->lock);
  gboolean first = worker->state != MODEL_FAILED && !worker->quit;
  if (!worker->passthrough || !worker->model || g_error_matches (error, IVL_ERROR, IVL_ERROR_DEVICE_LOST))
    worker->state = MODEL_FAILED;
  g_mutex_unlock (&worker->lock);
  /* The message goes out before the stream ends with an error: else that would be blamed on others. */
  if (first && worker->passthrough)
    worker->funcs->warned (worker->owner, error);
  else if (first)
    worker->funcs->failed (worker->owner, error);
  g_mutex_lock (&worker->lock);
  g_cond_broadcast (&worker->progress);
  g_mutex_unlock (&worker->lock);
}

static void
load (GstInternvlWorker *worker)
{
  g_autoptr (GError) error = NULL;
  gint64 begin = g_get_monotonic_time ();

  if (!worker->path) {
    g_set_error_literal (&error, IVL_ERROR, IVL_ERROR_BAD_MODEL, "No model is set");
    fail (worker, error);
    return;
  }
  GST_INFO ("loading %s on %s", worker->path, worker->device ? worker->device : "the default device");
  if (worker->share) {
    worker->model = ivl_model_share (worker->device, worker->path, NULL, worker->cancellable, &error);
  } else {
    IvlDevice *device = ivl_device_open (worker->device, &error);
    if (device)
      worker->model = ivl_model_load (device, worker->path, NULL, worker->cancellable, &error);
    ivl_device_unref (device);
  }
  if (!worker->model) {
    if (!g_cancellable_is_cancelled (worker->cancellable))
      fail (worker, error);
    return;
  }
  IvlModelInfo info;
  ivl_model_get_info (worker->model, &info);
  GST_INFO ("loaded %s (%s) in %" G_GINT64_FORMAT " ms", info.name, info.architecture,
      (g_get_monotonic_time () - begin) / 1000);
  worker->funcs->loaded (worker->owner, &info);
  g_mutex_lock (&worker->lock);
  worker->state = MODEL_READY;
  g_cond_broadcast (&worker->progress);
  g_mutex_unlock (&worker->lock);
}

/* On the engine's thread, as on_done. */
static void
on_text (const char *piece, gpointer user_data)
{
  Job *job = user_data;

  g_mutex_lock (&job->worker->lock);
  g_string_append (job->text, piece);
  g_cond_signal (&job->worker->work);
  g_mutex_unlock (&job->worker->lock);
}

static void
on_done (IvlSession *session, IvlAnswer *answer, const GError *error, gpointer user_data)
{
  Job *job = user_data;
  GstInternvlWorker *worker = job->worker;

  g_mutex_lock (&worker->lock);
  job->answer = answer;
  job->error = error ? g_error_copy (error) : NULL;
  job->state = JOB_DONE;
  g_cond_signal (&worker->work);
  g_mutex_unlock (&worker->lock);
}

static void
make_image (GstInternvlWorker *worker, GstInternvlFrame *frame, gboolean prefetch)
{
  g_autoptr (GError) error = NULL;
  GstInternvlMapping mapping;
  IvlImage *image = NULL;

  g_mutex_lock (&worker->lock);
  guint flushes = worker->flushes;
  g_mutex_unlock (&worker->lock);
  gboolean lost = worker->state == MODEL_FAILED;
  if (frame->reuse_threshold == 0 || flushes != worker->last_flushes)
    g_clear_pointer (&worker->last, ivl_image_unref);
  if (lost) {
    GST_LOG ("frame %" GST_TIME_FORMAT " comes after a failure", GST_TIME_ARGS (frame->timestamp));
  } else if (!gst_internvl_map (&mapping, &frame->info, frame->buffer, &error)) {
    worker->funcs->frame_failed (worker->owner, error);
  } else {
    image = ivl_image_new_after (worker->model, &mapping.picture, frame->max_tiles, worker->last,
        frame->reuse_threshold, &error);
    gst_internvl_unmap (&mapping);
    if (!image)
      fail (worker, error);
    else if (prefetch)
      ivl_image_prefetch (image, worker->client);
  }
  if (image && frame->reuse_threshold > 0) {
    ivl_image_unref (worker->last);
    worker->last = ivl_image_ref (image);
    worker->last_flushes = flushes;
  }
  g_mutex_lock (&worker->lock);
  frame->image = image;
  frame->ready = TRUE;
  if (image && frame->reuse_threshold == 0) {
    worker->stats.frames_encoded++;
    frame->counted = TRUE;
  }
  GstBuffer *buffer = g_steal_pointer (&frame->buffer);
  g_cond_broadcast (&worker->progress);
  g_mutex_unlock (&worker->lock);
  gst_buffer_unref (buffer);
}

typedef enum
{
  FRAMES_PENDING,
  FRAMES_COMPLETE,
  FRAMES_SOME_LOST,
  FRAMES_ALL_LOST,
} FramesState;

/* With the lock. */
static FramesState
frames_state (const GstInternvlChunk *chunk)
{
  guint n_images = 0;

  for (guint i = 0; i < chunk->frames->len; i++) {
    GstInternvlFrame *frame = g_ptr_array_index (chunk->frames, i);
    if (!frame->ready)
      return FRAMES_PENDING;
    n_images += frame->image != NULL;
  }
  return n_images == 0 ? FRAMES_ALL_LOST : n_images < chunk->frames->len ? FRAMES_SOME_LOST : FRAMES_COMPLETE;
}

/* With the lock. A chunk that won't be asked waits for its place in the queue without its frames. */
static void
drop (GstInternvlWorker *worker, Job *job)
{
  g_queue_push_tail (&worker->trash, job->chunk->frames);
  job->chunk->frames = g_ptr_array_new ();
  job->state = JOB_DONE;
}

/* Without the lock; JOB is JOB_ASKED already, so that a flush leaves it to us. */
static void
ask (GstInternvlWorker *worker, Job *job, guint flushes, const char *previous)
{
  GstInternvlChunk *chunk = job->chunk;
  guint n = chunk->frames->len;
  g_autofree IvlImage **images = g_new (IvlImage *, n);
  g_autofree GstClockTime *times = g_new (GstClockTime, n);
  g_autofree const char **detections = g_new (const char *, n);
  g_autoptr (GError) error = NULL;
  IvlQuestion question = { 0 };
  /* Once it is asked, an answer and a flush may free the job. */
  const gboolean between = chunk->id != NULL;

  for (guint i = 0; i < n; i++) {
    GstInternvlFrame *frame = g_ptr_array_index (chunk->frames, i);

    times[i] = chunk->stream_time + (frame->timestamp - chunk->timestamp);
    detections[i] = frame->detections;
    if (frame->image)
      images[question.n_images++] = frame->image;
  }
  GstClockTime start = chunk->stream_time;
  job->prompt = gst_internvl_expand_prompt (chunk->prompt, start, start + chunk->stream_duration, times,
      detections, n, previous);
  question.system_prompt = chunk->system_prompt;
  question.prompt = job->prompt;
  question.images = images;
  question.media = IVL_MEDIA_VIDEO;
  question.params = chunk->params;
  question.choices = chunk->choices ? (const char *const *) chunk->choices->pdata : NULL;
  question.json_schema = chunk->json_schema;
  if (chunk->tokens) {
    job->text = g_string_new (NULL);
    question.text_func = on_text;
    question.text_data = job;
  }

  GST_DEBUG ("asking about chunk %" G_GUINT64_FORMAT " (%u frames)", chunk->index, question.n_images);
  IvlSession *session = ivl_session_new (worker->model, &error);
  if (session) {
    ivl_session_set_client (session, worker->client);
    g_mutex_lock (&worker->lock);
    job->session = ivl_session_ref (session);
    g_mutex_unlock (&worker->lock);
  }
  if (!session || !ivl_session_ask_async (session, &question, on_done, job, &error)) {
    g_mutex_lock (&worker->lock);
    job->error = g_steal_pointer (&error);
    job->state = JOB_DONE;
  } else {
    g_mutex_lock (&worker->lock);
  }
  /* A flush in the meantime, or the end, may have come too early to cancel it. */
  gboolean cancel = between ? worker->quit : flushes != worker->flushes;
  g_mutex_unlock (&worker->lock);
  if (cancel && session)
    ivl_session_cancel (session);
  ivl_session_unref (session);
}

/* With the lock. Whether a frame was like the one before is known with the first answer about it. */
static void
count_frames (GstInternvlWorker *worker, const GstInternvlChunk *chunk)
{
  for (guint i = 0; i < chunk->frames->len; i++) {
    GstInternvlFrame *frame = g_ptr_array_index (chunk->frames, i);

    if (!frame->image || frame->counted)
      continue;
    frame->counted = TRUE;
    if (ivl_image_is_reused (frame->image))
      worker->stats.frames_reused++;
    else
      worker->stats.frames_encoded++;
  }
}

/* Hands on what is at the head of the queue. With the lock, which is let go of meanwhile. The job stays at the head
 * until it is delivered: whoever sees an empty queue knows that nothing is under way. */
static void
deliver_head (GstInternvlWorker *worker)
{
  Job *job = g_queue_peek_head (&worker->jobs);
  guint flushes = worker->flushes;
  GError *error = NULL;

  if (job->event) {
    worker->funcs->event (worker->owner, g_steal_pointer (&job->event));
  } else if (job->error && !worker->passthrough) {
    error = g_steal_pointer (&job->error);
  } else {
    error = g_steal_pointer (&job->error);
    /* A flush may free the job as soon as the lock is free. */
    GstInternvlChunk *chunk = g_steal_pointer (&job->chunk);
    IvlAnswer *answer = g_steal_pointer (&job->answer);
    g_autofree char *prompt = g_steal_pointer (&job->prompt);

    if (answer) {
      count_frames (worker, chunk);
      worker->stats.chunks++;
      worker->stats.prompt_tokens += answer->prompt_tokens;
      worker->stats.generated_tokens += answer->generated_tokens;
      worker->stats.encode_ns += answer->encode_ns;
      worker->stats.prefill_ns += answer->prefill_ns;
      worker->stats.decode_ns += answer->decode_ns;
      g_free (worker->previous);
      worker->previous = g_strdup (answer->text);
    } else {
      worker->stats.dropped++;
    }
    g_mutex_unlock (&worker->lock);
    if (answer)
      worker->funcs->answered (worker->owner, chunk, prompt, answer);
    else
      worker->funcs->dropped (worker->owner, chunk);
    gst_internvl_chunk_free (chunk);
    if (answer)
      ivl_answer_free (answer);
    g_mutex_lock (&worker->lock);
  }

  if (flushes == worker->flushes) {
    g_queue_pop_head (&worker->jobs);
    g_mutex_unlock (&worker->lock);
    job_free (job);
    if (error)
      fail (worker, error);
    g_mutex_lock (&worker->lock);
  }
  g_clear_error (&error);
  g_cond_broadcast (&worker->progress);
}

/* With the lock. Whether it is not worth its frames' encoding any more. */
static gboolean
is_too_late (GstInternvlWorker *worker, const GstInternvlChunk *chunk)
{
  const GstInternvlFrame *last = g_ptr_array_index (chunk->frames, chunk->frames->len - 1);

  return worker->state == MODEL_FAILED || (chunk->max_latency &&
      (GstClockTime) (g_get_monotonic_time () - last->arrival) * GST_USECOND > chunk->max_latency);
}

/* With the lock. The next chunk to ask, its frames ready; those that needn't be asked any more become done. */
static Job *
next_to_ask (GstInternvlWorker *worker)
{
  guint asked = 0;
  Job *next = NULL;

  /* Newest first: of those that wait only one stays. */
  for (GList *l = worker->jobs.tail; l && worker->live; l = l->prev) {
    Job *job = l->data;
    if (!job->chunk || job->state != JOB_WAITING)
      continue;
    if (next || frames_state (job->chunk) >= FRAMES_SOME_LOST)
      drop (worker, job);
    else
      next = job;
  }
  next = NULL;

  for (GList *l = worker->jobs.head; l && !next; l = l->next) {
    Job *job = l->data;

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
    if (((Job *) l->data)->chunk)
      return NULL;
  return asked < most ? next : NULL;
}

/* With the lock. One that has text that wasn't told. */
static Job *
find_partial (GstInternvlWorker *worker)
{
  for (GList *l = worker->jobs.head; l; l = l->next) {
    Job *job = l->data;
    if (job->text && job->text->len > job->told)
      return job;
  }
  return NULL;
}

/* With the lock, which is let go of meanwhile: then a flush may free the job. */
static void
deliver_partial (GstInternvlWorker *worker, Job *job)
{
  GstInternvlPartial partial = {
    .chunk = job->chunk->index,.timestamp = job->chunk->timestamp,.stream_id = g_strdup (job->chunk->stream_id),
    .epoch = job->chunk->epoch,.text = g_strdup (job->text->str)
  };

  partial.piece = partial.text + job->told;
  job->told = job->text->len;
  g_mutex_unlock (&worker->lock);
  worker->funcs->partial (worker->owner, &partial);
  g_free (partial.stream_id);
  g_free (partial.text);
  g_mutex_lock (&worker->lock);
}

/* With the lock. The question in between that is to be asked now. One that can't be becomes done. */
static Job *
next_question (GstInternvlWorker *worker)
{
  Job *job = g_queue_peek_head (&worker->questions);

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

static gboolean
question_is_done (GstInternvlWorker *worker)
{
  Job *head = g_queue_peek_head (&worker->questions);

  return head && head->state == JOB_DONE;
}

/* With the lock, which is let go of meanwhile. */
static void
deliver_question (GstInternvlWorker *worker)
{
  Job *job = g_queue_peek_head (&worker->questions);

  g_mutex_unlock (&worker->lock);
  worker->funcs->replied (worker->owner, job->chunk, job->prompt ? job->prompt : job->chunk->prompt, job->answer,
      job->error);
  g_mutex_lock (&worker->lock);
  g_queue_pop_head (&worker->questions);
  g_cond_broadcast (&worker->progress);
  g_mutex_unlock (&worker->lock);
  job_free (job);
  g_mutex_lock (&worker->lock);
}

/* With the lock, which is let go of meanwhile. */
static void
ask_next (GstInternvlWorker *worker, Job *job)
{
  g_autofree char *previous = g_strdup (worker->previous);
  guint flushes = worker->flushes;

  job->state = JOB_ASKED;
  g_mutex_unlock (&worker->lock);
  ask (worker, job, flushes, previous);
  g_mutex_lock (&worker->lock);
}

static gboolean
head_is_done (GstInternvlWorker *worker)
{
  Job *head = g_queue_peek_head (&worker->jobs);

  return head && (head->event || head->state == JOB_DONE);
}

/* With the lock, which is let go of meanwhile. */
static void
reap (GstInternvlWorker *worker)
{
  GPtrArray *frames;

  while ((frames = g_queue_pop_head (&worker->trash))) {
    g_mutex_unlock (&worker->lock);
    g_ptr_array_unref (frames);
    g_mutex_lock (&worker->lock);
  }
  GList *l = worker->abandoned.head;
  while (l) {
    GList *next = l->next;
    Job *job = l->data;
    if (job->state == JOB_DONE) {
      g_queue_delete_link (&worker->abandoned, l);
      g_mutex_unlock (&worker->lock);
      job_free (job);
      g_mutex_lock (&worker->lock);
      next = worker->abandoned.head;
    }
    l = next;
  }
}

static gpointer
worker_thread (gpointer data)
{
  GstInternvlWorker *worker = data;
  Job *job;

  if (!worker->model)
    load (worker);

  g_mutex_lock (&worker->lock);
  for (;;) {
    reap (worker);
    if (worker->quit && g_queue_is_empty (&worker->abandoned) && g_queue_is_empty (&worker->questions))
      break;
    job = next_question (worker);
    if (question_is_done (worker)) {
      deliver_question (worker);
    } else if (job && !worker->flushing) {
      ask_next (worker, job);
    } else if (worker->quit || worker->flushing || (worker->state != MODEL_READY && !worker->passthrough)) {
      g_cond_wait (&worker->work, &worker->lock);
    } else if ((job = find_partial (worker))) {
      deliver_partial (worker, job);
    } else if (head_is_done (worker)) {
      deliver_head (worker);
    } else if (!g_queue_is_empty (&worker->frames)) {
      GstInternvlFrame *frame = g_queue_pop_head (&worker->frames);
      /* While a chunk waits for its turn, the device has more urgent work. */
      gboolean prefetch = (!worker->live && !frame->may_expire) || count_chunks (worker, JOB_WAITING) == 0;

      g_mutex_unlock (&worker->lock);
      make_image (worker, frame, prefetch);
      gst_internvl_frame_unref (frame);
      g_mutex_lock (&worker->lock);
    } else if ((job = next_to_ask (worker))) {
      for (guint i = 0; i < job->chunk->frames->len; i++) {
        GstInternvlFrame *frame = g_ptr_array_index (job->chunk->frames, i);
        if (frame->image && frame->uses++ > 0)
          worker->stats.frames_reused++;
      }
      ask_next (worker, job);
    } else if (!head_is_done (worker) && !find_partial (worker) && !question_is_done (worker)) {
      g_cond_wait (&worker->work, &worker->lock);
    }
  }
  g_mutex_unlock (&worker->lock);
  g_clear_pointer (&worker->last, ivl_image_unref);
  return NULL;
}
