/* The element's thread beside the stream: loads the model, turns sampled frames into images, asks, and delivers the
 * answers in order.
 *
 * The streaming thread hands over frames as they are sampled and chunks as they are complete, and is only ever
 * held by gst_internvl_worker_wait_room and _drain. Text events travel through the same queue, so that they keep
 * their place among the answers.
 *
 *   frames -> [map, ivl_image_new]     chunks, events -> [wait for frames, ask, wait for answer, deliver]
 *
 * All functions may be called from any thread, but the worker must be stopped before its owner goes away.
 */
#pragma once

#include "chunk.h"

G_BEGIN_DECLS

typedef struct {
  guint64 chunks, dropped;      /* answered, skipped */
  guint64 skipped;              /* since nothing moved */
  guint64 cuts;                 /* between scenes */
  guint64 frames_encoded, frames_reused;
  guint64 prompt_tokens, generated_tokens;
  guint64 prompt_tokens_reused; /* of those: known from prompts before */
  guint64 draft_tokens, draft_tokens_held;      /* guessed, and guessed right */
  guint64 encode_ns, prefill_ns, decode_ns;     /* sums over the answers */
} GstInternvlWorkerStats;

/* What is known of an answer that is still being written. */
typedef struct {
  guint64 chunk;
  GstClockTime timestamp;
  char *stream_id;
  guint epoch;
  char *text;
  const char *piece;            /* end of text that was not told before */
} GstInternvlPartial;

typedef struct {
  /* The model is there. */
  void (*loaded) (gpointer owner, const IvlModelInfo *info);
  /* CHUNK (borrowed) was answered. PROMPT as it was asked. */
  void (*answered) (gpointer owner, const GstInternvlChunk *chunk, const char *prompt, const IvlAnswer *answer);
  /* There is more of an answer, if the chunk says that this is wanted. */
  void (*partial) (gpointer owner, const GstInternvlPartial *partial);
  /* A question in between: with an answer or an error. */
  void (*replied) (gpointer owner, const GstInternvlChunk *chunk, const char *prompt, const IvlAnswer *answer,
      const GError *error);
  /* CHUNK (borrowed) was not answered, since there was no time for it or it could not be. */
  void (*dropped) (gpointer owner, const GstInternvlChunk *chunk);
  /* Nor was this one, since nothing moves in it. */
  void (*skipped) (gpointer owner, const GstInternvlChunk *chunk);
  /* An event (transfer full) whose turn it is; may be called on the streaming thread, must not block. */
  void (*event) (gpointer owner, GstEvent *event);
  /* A frame can't be read; the chunk goes on without. */
  void (*frame_failed) (gpointer owner, const GError *error);
  /* Nothing more will come: wait_room and drain return FALSE from now on. */
  void (*failed) (gpointer owner, const GError *error);
  /* Instead, if it passes through: what it was about is skipped. */
  void (*warned) (gpointer owner, const GError *error);
} GstInternvlWorkerFuncs;

typedef struct GstInternvlWorker GstInternvlWorker;

/* FUNCS and OWNER are borrowed. */
GstInternvlWorker *gst_internvl_worker_new (const GstInternvlWorkerFuncs *funcs, gpointer owner);
void gst_internvl_worker_free (GstInternvlWorker *worker);      /* stopped; NULL is fine */

/* Starts the thread, and loading unless that very model is there from before; on HOST unless that is NULL. FALSE, with ERROR
 * set, if there is no thread to be had. */
gboolean gst_internvl_worker_start (GstInternvlWorker *worker, IvlDevice *host, const char *device, const char *path,
    IvlWeights weights, gboolean share, GError **error);
/* Cancels what is under way, and forgets it; returns when the thread has ended and the engine has let go of every
 * question. The model stays. */
void gst_internvl_worker_stop (GstInternvlWorker *worker);
/* Lets go of the model. Only while stopped. */
void gst_internvl_worker_unload (GstInternvlWorker *worker);

/* FLUSHING: forgets frames, chunks and events, cancels questions, and makes wait_room and drain return FALSE at once.
 * Then off again. */
void gst_internvl_worker_set_flushing (GstInternvlWorker *worker, gboolean flushing);
/* LIVE: newest chunk wins. Else all of them are asked. */
void gst_internvl_worker_set_live (GstInternvlWorker *worker, gboolean live);

/* Of the stream, among those that share the model: see ivl_client_set_priority. */
void gst_internvl_worker_set_priority (GstInternvlWorker *worker, gint priority);

/* PASSTHROUGH: an error drops the chunks that it is about, at worst all that come, and is otherwise of no consequence.
 * Else it is the end. Only while stopped. */
void gst_internvl_worker_set_passthrough (GstInternvlWorker *worker, gboolean passthrough);

/* Takes a reference, unless FRAME is here already. FALSE: it is lost, since there was no room. */
gboolean gst_internvl_worker_add_frame (GstInternvlWorker *worker, GstInternvlFrame *frame);
/* Takes FRAME, to be let go of on the worker's thread: what belongs to it is the device's. */
void gst_internvl_worker_discard_frame (GstInternvlWorker *worker, GstInternvlFrame *frame);
/* Whether a frame added now would be lost. */
gboolean gst_internvl_worker_is_closed (GstInternvlWorker *worker);
/* Takes CHUNK, whose frames were added. */
void gst_internvl_worker_add_chunk (GstInternvlWorker *worker, GstInternvlChunk *chunk);
/* Takes CHUNK, which has an id: a question in between the chunks, whose frames were added before. It waits for no
 * chunk, survives a flush, is never dropped, and gets one reply: an error if the worker stops. FALSE: it is stopped
 * already. */
gboolean gst_internvl_worker_add_question (GstInternvlWorker *worker, GstInternvlChunk *chunk);
/* Takes EVENT. */
void gst_internvl_worker_add_event (GstInternvlWorker *worker, GstEvent *event);

/* Unless live, waits until there is room for more. FALSE if flushing or failed. */
gboolean gst_internvl_worker_wait_room (GstInternvlWorker *worker);
/* Waits until all that was added has been delivered. FALSE if flushing or failed. */
gboolean gst_internvl_worker_drain (GstInternvlWorker *worker);

/* An answer is on its way: a chunk is complete and not delivered yet. */
gboolean gst_internvl_worker_is_busy (GstInternvlWorker *worker);

void gst_internvl_worker_get_stats (GstInternvlWorker *worker, GstInternvlWorkerStats *stats);
/* Chunks and stats count from 0 again, {previous} is empty. Only while stopped. */
void gst_internvl_worker_reset_stats (GstInternvlWorker *worker);

G_END_DECLS
