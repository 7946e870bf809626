/* The worker's thread: loads the model, makes images, asks, delivers. */
#include "dmaframes.h"
#include "framemap.h"
#include "textout.h"
#include "workerprivate.h"

#define GST_CAT_DEFAULT gst_internvl_debug

static void
fail (GstInternvlWorker *worker, const GError *error)
{
  GST_WARNING ("%s", error->message);
  g_mutex_lock (&worker->lock);
  gboolean first = worker->state != MODEL_FAILED && !worker->quit;
  g_mutex_unlock (&worker->lock);
  /* The message goes out before the stream can end with an error: else that would be blamed on others. */
  if (first && worker->passthrough)
    worker->funcs->warned (worker->owner, error);
  else if (first)
    worker->funcs->failed (worker->owner, error);
  g_mutex_lock (&worker->lock);
  if (!worker->passthrough || !worker->model || g_error_matches (error, IVL_ERROR, IVL_ERROR_DEVICE_LOST))
    worker->state = MODEL_FAILED;
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
  GST_INFO ("loading %s on %s", worker->path, worker->host ? "the device of the frames" :
      worker->device ? worker->device : "the default device");
  const IvlModelParams params = {.weights = worker->weights };
  if (worker->share && worker->host) {
    worker->model = ivl_model_share_on (worker->host, worker->path, &params, worker->cancellable, &error);
  } else if (worker->share) {
    worker->model = ivl_model_share (worker->device, worker->path, &params, worker->cancellable, &error);
  } else {
    IvlDevice *device = worker->host ? ivl_device_ref (worker->host) : ivl_device_open (worker->device, &error);
    if (device)
      worker->model = ivl_model_load (device, worker->path, &params, worker->cancellable, &error);
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
  GstInternvlJob *job = user_data;

  g_mutex_lock (&job->worker->lock);
  g_string_append (job->text, piece);
  g_cond_signal (&job->worker->work);
  g_mutex_unlock (&job->worker->lock);
}

static void
on_done (IvlSession *session, IvlAnswer *answer, const GError *error, gpointer user_data)
{
  GstInternvlJob *job = user_data;
  GstInternvlWorker *worker = job->worker;

  g_mutex_lock (&worker->lock);
  job->answer = answer;
  job->error = error ? g_error_copy (error) : NULL;
  job->state = JOB_DONE;
  g_cond_signal (&worker->work);
  g_mutex_unlock (&worker->lock);
}

/* What may stand in for the next frame like it is what was asked for last, not what was seen last: that may never be
 * encoded. In the order of the stream, before IMAGE is asked for. Without the lock. */
static void
link_image (GstInternvlWorker *worker, GstInternvlFrame *frame, guint flushes)
{
  if (!frame->image || frame->linked)
    return;
  frame->linked = TRUE;
  if (frame->reuse_threshold == 0 || flushes != worker->last_flushes)
    g_clear_pointer (&worker->last, ivl_image_unref);
  if (frame->reuse_threshold == 0)
    return;
  ivl_image_set_previous (frame->image, worker->last);
  ivl_image_unref (worker->last);
  worker->last = ivl_image_ref (frame->image);
  worker->last_flushes = flushes;
}

/* With the lock. Whether a frame with a reuse threshold is encoded is known later. */
static void
count_asked (GstInternvlWorker *worker, GstInternvlFrame *frame)
{
  if (!frame->image || frame->counted || frame->reuse_threshold > 0)
    return;
  frame->counted = TRUE;
  worker->stats.frames_encoded++;
}

typedef struct
{
  GstInternvlWorker *worker;    /* borrowed: its thread waits for all that are compared */
  GstInternvlFrame *frame;      /* owned */
  gboolean first;               /* there is nothing before it: all is new, and no cut */
} Comparison;

/* On the engine's thread. */
static void
on_change (IvlImage *image, const IvlImageChange *change, const GError *error, gpointer user_data)
{
  Comparison *comparison = user_data;
  GstInternvlWorker *worker = comparison->worker;
  GstInternvlFrame *frame = comparison->frame;

  g_mutex_lock (&worker->lock);
  if (change) {
    frame->still = change->motion < frame->motion_threshold;
    frame->cut = change->scene > frame->scene_threshold;
    worker->stats.cuts += frame->cut && !comparison->first;
  } else if (!worker->compare_error) {
    worker->compare_error = g_error_copy (error);
  }
  frame->comparing = FALSE;
  worker->n_comparing--;
  g_queue_push_tail (&worker->trash, g_ptr_array_new_with_free_func ((GDestroyNotify) gst_internvl_frame_unref));
  g_ptr_array_add (worker->trash.tail->data, frame);
  g_cond_signal (&worker->work);
  g_cond_broadcast (&worker->progress);
  g_mutex_unlock (&worker->lock);
  g_free (comparison);
}

/* Without the lock; FRAME is marked as being compared already. */
static void
compare (GstInternvlWorker *worker, GstInternvlFrame *frame, guint flushes)
{
  Comparison *comparison = g_new (Comparison, 1);

  if (flushes != worker->seen_flushes)
    g_clear_pointer (&worker->seen, ivl_image_unref);
  *comparison = (Comparison) { worker, gst_internvl_frame_ref (frame), worker->seen == NULL };
  /* Before a callback that may let go of it. */
  IvlImage *before = worker->seen;
  worker->seen = ivl_image_ref (frame->image);
  worker->seen_flushes = flushes;
  ivl_image_compare_async (worker->seen, before, on_change, comparison);
  ivl_image_unref (before);
}

/* A frame in DMABufs, read by the device from there. NULL: it is to be mapped, or what is in ERROR. */
static IvlDevicePicture *
import_frame (GstInternvlWorker *worker, GstInternvlFrame *frame, GError **error)
{
  g_autoptr (GError) why = NULL;

  if (!gst_internvl_dma_frames_check (frame->buffer, error) || !gst_internvl_dma_frames_has (frame->buffer))
    return NULL;
  IvlDevicePicture *picture = gst_internvl_dma_frames_copy (&frame->info, frame->buffer,
      ivl_model_get_device (worker->model), &why);
  if (!picture && !g_error_matches (why, IVL_ERROR, IVL_ERROR_UNSUPPORTED)) {
    g_propagate_error (error, g_steal_pointer (&why));
    return NULL;
  }
  if (!worker->told && picture)
    GST_INFO_OBJECT (worker->owner, "frames in DMABufs are read by the device from there");
  else if (!worker->told)
    GST_WARNING_OBJECT (worker->owner, "frames in DMABufs go through system memory: %s", why->message);
  worker->told = TRUE;
  return picture;
}

/* NULL: it can't be read, which is told, or what is in ERROR. */
static IvlImage *
image_of (GstInternvlWorker *worker, GstInternvlFrame *frame, GError **error)
{
  g_autoptr (IvlDevicePicture) picture = g_steal_pointer (&frame->picture);
  g_autoptr (GError) unreadable = NULL;
  GstInternvlMapping mapping;
  IvlPicture read_back;
  IvlImage *image = NULL;

  if (!frame->on_device)
    picture = import_frame (worker, frame, &unreadable);
  if (frame->on_device && !picture) {
    GST_LOG ("frame %" GST_TIME_FORMAT " wasn't copied", GST_TIME_ARGS (frame->timestamp));
  } else if (picture && ivl_device_picture_get_device (picture) == ivl_model_get_device (worker->model)) {
    image = ivl_image_new_from_device (worker->model, picture, frame->max_tiles, NULL, frame->reuse_threshold, error);
  } else if (picture) {
    if (ivl_device_picture_get (picture, &read_back, error))
      image = ivl_image_new_after (worker->model, &read_back, frame->max_tiles, NULL, frame->reuse_threshold, error);
  } else if (!unreadable && gst_internvl_map (&mapping, &frame->info, frame->buffer, &unreadable)) {
    image = ivl_image_new_after (worker->model, &mapping.picture, frame->max_tiles, NULL, frame->reuse_threshold, error);
    gst_internvl_unmap (&mapping);
  }
  if (unreadable)
    worker->funcs->frame_failed (worker->owner, unreadable);
  /* The frame's images may be another frame's after this. */
  if (picture && !ivl_device_picture_wait (picture, image ? error : NULL))
    g_clear_pointer (&image, ivl_image_unref);
  return image;
}

static void
make_image (GstInternvlWorker *worker, GstInternvlFrame *frame, gboolean prefetch)
{
  g_autoptr (GError) error = NULL;
  IvlImage *image = NULL;

  g_mutex_lock (&worker->lock);
  guint flushes = worker->flushes;
  g_mutex_unlock (&worker->lock);
  gboolean lost = worker->state == MODEL_FAILED;
  if (lost) {
    GST_LOG ("frame %" GST_TIME_FORMAT " comes after a failure", GST_TIME_ARGS (frame->timestamp));
  } else if (!(image = image_of (worker, frame, &error)) && error) {
    fail (worker, error);
  }
  g_mutex_lock (&worker->lock);
  frame->image = image;
  frame->comparing = image && frame->compare;
  worker->n_comparing += frame->comparing;
  g_mutex_unlock (&worker->lock);
  if (image && frame->compare) {
    compare (worker, frame, flushes);
  } else if (image && prefetch) {
    link_image (worker, frame, flushes);
    ivl_image_prefetch (image, worker->client);
  }
  g_mutex_lock (&worker->lock);
  frame->ready = TRUE;
  if (prefetch && !frame->compare)
    count_asked (worker, frame);
  GstBuffer *buffer = g_steal_pointer (&frame->buffer);
  g_cond_broadcast (&worker->progress);
  g_mutex_unlock (&worker->lock);
  gst_buffer_unref (buffer);
}

/* Without the lock; JOB is JOB_ASKED already, so that a flush leaves it to us. */
static void
ask (GstInternvlWorker *worker, GstInternvlJob *job, guint flushes, const char *previous)
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
    link_image (worker, frame, flushes);
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
  GstInternvlJob *job = g_queue_peek_head (&worker->jobs);
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
      worker->stats.prompt_tokens_reused += answer->prompt_tokens_reused;
      worker->stats.draft_tokens += answer->draft_tokens;
      worker->stats.draft_tokens_held += answer->draft_tokens_held;
      worker->stats.encode_ns += answer->encode_ns;
      worker->stats.prefill_ns += answer->prefill_ns;
      worker->stats.decode_ns += answer->decode_ns;
      g_free (worker->previous);
      worker->previous = g_strdup (answer->text);
    } else if (job->still) {
      worker->stats.skipped++;
    } else {
      worker->stats.dropped++;
      worker->unseen = TRUE;
    }
    gboolean still = job->still;
    g_mutex_unlock (&worker->lock);
    if (answer)
      worker->funcs->answered (worker->owner, chunk, prompt, answer);
    else if (still)
      worker->funcs->skipped (worker->owner, chunk);
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
    gst_internvl_job_free (job);
    if (error)
      fail (worker, error);
    g_mutex_lock (&worker->lock);
  }
  g_clear_error (&error);
  g_cond_broadcast (&worker->progress);
}

/* With the lock. One that has text that wasn't told. */
static GstInternvlJob *
find_partial (GstInternvlWorker *worker)
{
  for (GList *l = worker->jobs.head; l; l = l->next) {
    GstInternvlJob *job = l->data;
    if (job->text && job->text->len > job->told)
      return job;
  }
  return NULL;
}

/* With the lock, which is let go of meanwhile: then a flush may free the job. */
static void
deliver_partial (GstInternvlWorker *worker, GstInternvlJob *job)
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

static gboolean
question_is_done (GstInternvlWorker *worker)
{
  GstInternvlJob *head = g_queue_peek_head (&worker->questions);

  return head && head->state == JOB_DONE;
}

/* With the lock, which is let go of meanwhile. */
static void
deliver_question (GstInternvlWorker *worker)
{
  GstInternvlJob *job = g_queue_peek_head (&worker->questions);

  g_mutex_unlock (&worker->lock);
  worker->funcs->replied (worker->owner, job->chunk, job->prompt ? job->prompt : job->chunk->prompt, job->answer,
      job->error);
  g_mutex_lock (&worker->lock);
  g_queue_pop_head (&worker->questions);
  g_cond_broadcast (&worker->progress);
  g_mutex_unlock (&worker->lock);
  gst_internvl_job_free (job);
  g_mutex_lock (&worker->lock);
}

/* With the lock, which is let go of meanwhile. */
static void
ask_next (GstInternvlWorker *worker, GstInternvlJob *job)
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
  GstInternvlJob *head = g_queue_peek_head (&worker->jobs);

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
    GstInternvlJob *job = l->data;
    if (job->state == JOB_DONE) {
      g_queue_delete_link (&worker->abandoned, l);
      g_mutex_unlock (&worker->lock);
      gst_internvl_job_free (job);
      g_mutex_lock (&worker->lock);
      next = worker->abandoned.head;
    }
    l = next;
  }
}

/* With the lock. What came to be freed while it was let go of is freed first: nobody may signal any more. */
static void
wait_for_work (GstInternvlWorker *worker)
{
  if (g_queue_is_empty (&worker->trash))
    g_cond_wait (&worker->work, &worker->lock);
}

gpointer
gst_internvl_worker_thread (gpointer data)
{
  GstInternvlWorker *worker = data;
  GstInternvlJob *job;

  if (!worker->model)
    load (worker);

  g_mutex_lock (&worker->lock);
  for (;;) {
    reap (worker);
    if (worker->quit && g_queue_is_empty (&worker->abandoned) && g_queue_is_empty (&worker->questions) &&
        worker->n_comparing == 0 && g_queue_is_empty (&worker->trash))
      break;
    if (worker->compare_error) {
      g_autoptr (GError) error = g_steal_pointer (&worker->compare_error);

      g_mutex_unlock (&worker->lock);
      fail (worker, error);
      g_mutex_lock (&worker->lock);
      continue;
    }
    job = gst_internvl_worker_next_question (worker);
    if (question_is_done (worker)) {
      deliver_question (worker);
    } else if (job && !worker->flushing) {
      ask_next (worker, job);
    } else if (worker->quit || worker->flushing || (worker->state != MODEL_READY && !worker->passthrough)) {
      wait_for_work (worker);
    } else if ((job = find_partial (worker))) {
      deliver_partial (worker, job);
    } else if (head_is_done (worker)) {
      deliver_head (worker);
    } else if (!g_queue_is_empty (&worker->frames)) {
      GstInternvlFrame *frame = g_queue_pop_head (&worker->frames);
      /* While a chunk waits for its turn, the device has more urgent work. */
      gboolean prefetch = (!worker->live && !frame->may_expire) || gst_internvl_worker_count_chunks (worker, JOB_WAITING) == 0;

      g_mutex_unlock (&worker->lock);
      make_image (worker, frame, prefetch);
      gst_internvl_frame_unref (frame);
      g_mutex_lock (&worker->lock);
    } else if ((job = gst_internvl_worker_next_chunk (worker))) {
      for (guint i = 0; i < job->chunk->frames->len; i++) {
        GstInternvlFrame *frame = g_ptr_array_index (job->chunk->frames, i);
        count_asked (worker, frame);
        if (frame->image && frame->uses++ > 0)
          worker->stats.frames_reused++;
      }
      ask_next (worker, job);
    } else if (!head_is_done (worker) && !find_partial (worker) && !question_is_done (worker)) {
      wait_for_work (worker);
    }
  }
  g_mutex_unlock (&worker->lock);
  g_clear_pointer (&worker->last, ivl_image_unref);
  g_clear_pointer (&worker->seen, ivl_image_unref);
  return NULL;
}
