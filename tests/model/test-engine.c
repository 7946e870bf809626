/* The public API under load: many sessions, models and threads at once, cancelling, full contexts and caches, sharing,
 * and objects given back at odd moments. Every answer that is let run must be the reference's. */
#include "ask.h"
#include "model/decoder.h"
#include "vk/pipeline.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAME "qwen2-ln-orig"
#define OTHER_NAME "internlm2-rms-orig"

static const char *const cases[] = { "text", "still", "video", "two_images", "system", "penalty_generated", "stop_string",
                                     "end_token", "marked_images" };

/* Answers that come on the scheduler's thread. */
typedef struct {
  GMutex lock;
  GCond changed;
  guint n_done;
} Inbox;

typedef struct {
  Inbox *inbox;
  IvlAnswer *answer;
  GError *error;
  guint place; /* 1: the first to be answered */
} Reply;

static void
inbox_init (Inbox *self)
{
  g_mutex_init (&self->lock);
  g_cond_init (&self->changed);
  self->n_done = 0;
}

static void
inbox_clear (Inbox *self)
{
  g_mutex_clear (&self->lock);
  g_cond_clear (&self->changed);
}

static void
inbox_wait (Inbox *self, guint n)
{
  g_mutex_lock (&self->lock);
  while (self->n_done < n)
    g_cond_wait (&self->changed, &self->lock);
  g_mutex_unlock (&self->lock);
}

static void
on_answer (IvlSession *session, IvlAnswer *answer, const GError *error, gpointer data)
{
  Reply *reply = data;
  Inbox *inbox = reply->inbox;
  g_mutex_lock (&inbox->lock);
  reply->answer = answer;
  reply->error = error ? g_error_copy (error) : NULL;
  reply->place = ++inbox->n_done;
  g_cond_broadcast (&inbox->changed);
  g_mutex_unlock (&inbox->lock);
}

static IvlSession *
new_session (IvlModel *model)
{
  g_autoptr (GError) error = NULL;
  IvlSession *session = ivl_session_new (model, &error);
  g_assert_no_error (error);
  return session;
}

static void
ask_async (IvlSession *session, const GoldenQuestion *q, Reply *reply)
{
  g_autoptr (GError) error = NULL;
  gboolean ok = ivl_session_ask_async (session, &q->question, on_answer, reply, &error);
  g_assert_no_error (error);
  g_assert_true (ok);
}

/* ---- many at once ---- */

static void
test_side_by_side (gconstpointer name)
{
  g_autoptr (Golden) golden = golden_open (name);
  IvlModel *model = golden_load (golden, NULL);
  enum { N = G_N_ELEMENTS (cases) };
  Inbox inbox;
  inbox_init (&inbox);
  Reply replies[N] = { 0 };
  GoldenQuestion questions[N];
  IvlSession *sessions[N];
  for (guint i = 0; i < N; i++) {
    golden_question_init (&questions[i], model, golden_case (golden, cases[i]), 0);
    sessions[i] = new_session (model);
    replies[i].inbox = &inbox;
    ask_async (sessions[i], &questions[i], &replies[i]);
  }
  inbox_wait (&inbox, N);
  for (guint i = 0; i < N; i++) {
    g_test_message ("%s beside others", cases[i]);
    g_assert_no_error (replies[i].error);
    golden_question_check (&questions[i], replies[i].answer);
    golden_question_clear (&questions[i]);
    ivl_session_unref (sessions[i]);
  }
  IvlModelStats stats;
  ivl_model_get_stats (model, &stats);
  /* They were batched, not one after the other. */
  g_assert_cmpuint (stats.generated_tokens, >, 3 * stats.decode_steps);
  inbox_clear (&inbox);
  ivl_model_unref (model);
}

typedef struct {
  IvlModel *model;
  const Golden *golden;
  guint number;
} Asker;

static gpointer
ask_in_thread (gpointer data)
{
  Asker *asker = data;
  for (guint i = 0; i < 2; i++)
    golden_ask (asker->model, golden_case (asker->golden, cases[(asker->number + 4 * i) % G_N_ELEMENTS (cases)]));
  return NULL;
}

static void
run_askers (Asker *askers, guint n)
{
  GThread *threads[32];
  for (guint i = 0; i < n; i++)
    threads[i] = g_thread_new ("asker", ask_in_thread, &askers[i]);
  for (guint i = 0; i < n; i++)
    g_thread_join (threads[i]);
}

/* More askers than the model takes at a time. */
static void
test_threads (gconstpointer data)
{
  g_autoptr (Golden) golden = golden_open (NAME);
  IvlModel *model = golden_load (golden, &(IvlModelParams){ .max_sessions = 5 });
  Asker askers[16];
  for (guint i = 0; i < 16; i++)
    askers[i] = (Asker){ model, golden, i };
  run_askers (askers, 16);
  ivl_model_unref (model);
}

static void
test_two_models (gconstpointer data)
{
  g_autoptr (Golden) one = golden_open (NAME), two = golden_open (OTHER_NAME);
  IvlModel *models[2] = { golden_load (one, NULL), golden_load (two, NULL) };
  Asker askers[4];
  for (guint i = 0; i < 4; i++)
    askers[i] = (Asker){ models[i % 2], i % 2 ? two : one, i };
  run_askers (askers, 4);
  ivl_model_unref (models[0]);
  ivl_model_unref (models[1]);
}

static void
test_shared_images (gconstpointer data)
{
  g_autoptr (Golden) golden = golden_open (NAME);
  IvlModel *model = golden_load (golden, NULL);
  enum { N = 4 };
  Inbox inbox;
  inbox_init (&inbox);
  Reply replies[N] = { 0 };
  IvlSession *sessions[N];
  GoldenQuestion q;
  golden_question_init (&q, model, golden_case (golden, "still"), 0);
  ivl_image_prefetch (q.images[0], NULL);
  ivl_image_prefetch (q.images[0], NULL);
  for (guint i = 0; i < N; i++) {
    sessions[i] = new_session (model);
    replies[i].inbox = &inbox;
    ask_async (sessions[i], &q, &replies[i]);
  }
  inbox_wait (&inbox, N);
  for (guint i = 0; i < N; i++) {
    g_assert_no_error (replies[i].error);
    golden_question_check (&q, replies[i].answer);
    ivl_session_unref (sessions[i]);
  }
  IvlModelStats stats;
  ivl_model_get_stats (model, &stats);
  g_assert_cmpuint (stats.tiles_encoded, ==, ivl_image_get_n_tiles (q.images[0]));
  golden_question_clear (&q);
  inbox_clear (&inbox);
  ivl_model_unref (model);
}

/* Drawn answers depend on the seed, not on who else is served. */
static void
test_seed (gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (Golden) golden = golden_open (NAME);
  IvlModel *model = golden_load (golden, NULL);
  enum { N = 4 };
  static const guint64 seeds[N] = { 7, 7, 8, 7 };
  GoldenQuestion q;
  golden_question_init (&q, model, golden_case (golden, "text"), 0);
  q.question.params.temperature = 1.f;
  q.question.params.top_p = 0.95f;
  q.question.params.top_k = 50;
  q.question.params.seed = 7;
  IvlSession *session = new_session (model);
  IvlAnswer *alone = ivl_session_ask (session, &q.question, &error);
  g_assert_no_error (error);
  ivl_session_unref (session);

  Inbox inbox;
  inbox_init (&inbox);
  Reply replies[N] = { 0 };
  IvlSession *sessions[N];
  for (guint i = 0; i < N; i++) {
    sessions[i] = new_session (model);
    replies[i].inbox = &inbox;
    q.question.params.seed = seeds[i];
    ask_async (sessions[i], &q, &replies[i]);
  }
  inbox_wait (&inbox, N);
  for (guint i = 0; i < N; i++) {
    g_assert_no_error (replies[i].error);
    if (seeds[i] == 7)
      g_assert_cmpstr (replies[i].answer->text, ==, alone->text);
    else
      g_assert_cmpstr (replies[i].answer->text, !=, alone->text);
    ivl_answer_free (replies[i].answer);
    ivl_session_unref (sessions[i]);
  }
  ivl_answer_free (alone);
  golden_question_clear (&q);
  inbox_clear (&inbox);
  ivl_model_unref (model);
}

/* ---- cancelling ---- */

typedef struct {
  IvlSession *session;
  guint pieces, cancel_after;
  GString *text;
} Listener;

static void
on_text (const char *piece, gpointer data)
{
  Listener *l = data;
  g_assert_true (g_utf8_validate (piece, -1, NULL));
  g_string_append (l->text, piece);
  if (++l->pieces == l->cancel_after)
    ivl_session_cancel (l->session);
}

static void
test_cancel (gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (Golden) golden = golden_open (NAME);
  IvlModel *model = golden_load (golden, NULL);
  IvlSession *session = new_session (model);
  ivl_session_cancel (session); /* nothing to cancel */
  GoldenQuestion q;
  golden_question_init (&q, model, golden_case (golden, "text"), 0);

  /* While decoding: at most one token more. */
  Listener listener = { session, 0, 5, g_string_new (NULL) };
  q.question.text_func = on_text;
  q.question.text_data = &listener;
  IvlAnswer *answer = ivl_session_ask (session, &q.question, &error);
  g_assert_no_error (error);
  g_assert_cmpint (answer->finish, ==, IVL_FINISH_CANCELLED);
  g_assert_cmpuint (answer->generated_tokens, <, 20);
  g_autofree char *said = g_strstrip (g_strdup (listener.text->str));
  g_assert_cmpstr (answer->text, ==, said);
  g_assert_true (g_str_has_prefix (json_object_get_string_member (q.turn, "text_tags"), answer->text));
  ivl_answer_free (answer);

  /* The conversation is as before, and what was cached of the prompt is used. */
  listener.cancel_after = 0;
  g_string_truncate (listener.text, 0);
  answer = ivl_session_ask (session, &q.question, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (answer->prompt_tokens_reused, ==, answer->prompt_tokens - 1);
  g_strstrip (listener.text->str);
  g_assert_cmpstr (listener.text->str, ==, answer->text);
  golden_question_check (&q, answer);
  g_string_free (listener.text, TRUE);
  ivl_session_unref (session);

  /* At any other moment: wherever it strikes, the answer is a beginning of the whole one and the session lives on. */
  for (guint delay = 0; delay < 12; delay++) {
    Inbox inbox;
    inbox_init (&inbox);
    Reply reply = { &inbox };
    GoldenQuestion still;
    golden_question_init (&still, model, golden_case (golden, "still"), 0);
    session = new_session (model);
    ask_async (session, &still, &reply);
    g_usleep (delay * 2000);
    ivl_session_cancel (session);
    inbox_wait (&inbox, 1);
    g_assert_no_error (reply.error);
    g_assert_true (reply.answer->finish == IVL_FINISH_CANCELLED || reply.answer->finish == IVL_FINISH_LENGTH);
    if (reply.answer->finish == IVL_FINISH_CANCELLED)
      g_assert_true (g_str_has_prefix (json_object_get_string_member (still.turn, "text_tags"), reply.answer->text));
    ivl_answer_free (reply.answer);
    ivl_session_reset (session, &error);
    g_assert_no_error (error);
    if (delay % 4 == 0) {
      answer = ivl_session_ask (session, &still.question, &error);
      g_assert_no_error (error);
      golden_question_check (&still, answer);
    }
    golden_question_clear (&still);
    ivl_session_unref (session);
    inbox_clear (&inbox);
  }
  golden_question_clear (&q);
  ivl_model_unref (model);
}

/* A question that waits for its turn must not wait for it to be cancelled. */
static void
test_cancel_waiting (gconstpointer data)
{
  g_autoptr (Golden) golden = golden_open (NAME);
  IvlModel *model = golden_load (golden, &(IvlModelParams){ .max_sessions = 1 });
  Inbox inbox;
  inbox_init (&inbox);
  Reply first = { &inbox }, second = { &inbox };
  IvlSession *sessions[] = { new_session (model), new_session (model) };
  GoldenQuestion q;
  golden_question_init (&q, model, golden_case (golden, "text"), 0);
  q.question.params.max_tokens = 1500;
  ask_async (sessions[0], &q, &first);
  ask_async (sessions[1], &q, &second);
  ivl_session_cancel (sessions[1]);
  inbox_wait (&inbox, 1);
  g_assert_cmpuint (second.place, ==, 1);
  g_assert_cmpint (second.answer->finish, ==, IVL_FINISH_CANCELLED);
  g_assert_cmpuint (second.answer->generated_tokens, ==, 0);
  ivl_session_cancel (sessions[0]);
  inbox_wait (&inbox, 2);
  ivl_answer_free (first.answer);
  ivl_answer_free (second.answer);
  for (guint i = 0; i < 2; i++)
    ivl_session_unref (sessions[i]);
  golden_question_clear (&q);
  inbox_clear (&inbox);
  ivl_model_unref (model);
}

/* ---- full ---- */

static void
test_context_full (gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (Golden) golden = golden_open (NAME);
  JsonObject *c = golden_case (golden, "text");
  guint n_prompt;
  g_autofree guint32 *ids
    = golden_ints (json_array_get_object_element (json_object_get_array_member (c, "turns"), 0), "prompt_ids", &n_prompt);

  IvlModel *model = golden_load (golden, &(IvlModelParams){ .context_tokens = n_prompt });
  IvlSession *session = new_session (model);
  GoldenQuestion q;
  golden_question_init (&q, model, c, 0);
  g_assert_null (ivl_session_ask (session, &q.question, &error));
  g_assert_error (error, IVL_ERROR, IVL_ERROR_CONTEXT_FULL);
  g_test_message ("%s", error->message);
  g_clear_error (&error);
  golden_question_clear (&q);
  ivl_session_unref (session);
  ivl_model_unref (model);

  model = golden_load (golden, &(IvlModelParams){ .context_tokens = n_prompt + 5 });
  session = new_session (model);
  golden_question_init (&q, model, c, 0);
  for (guint i = 0; i < 2; i++) {
    IvlAnswer *answer = ivl_session_ask (session, &q.question, &error);
    g_assert_no_error (error);
    g_assert_cmpint (answer->finish, ==, IVL_FINISH_LENGTH);
    g_assert_cmpuint (answer->generated_tokens, ==, 5);
    g_assert_true (g_str_has_prefix (json_object_get_string_member (q.turn, "text_tags"), answer->text));
    ivl_answer_free (answer);
    /* No room for another turn; a new conversation has it. */
    g_assert_null (ivl_session_ask (session, &q.question, &error));
    g_assert_error (error, IVL_ERROR, IVL_ERROR_CONTEXT_FULL);
    g_clear_error (&error);
    ivl_session_reset (session, &error);
    g_assert_no_error (error);
  }
  golden_question_clear (&q);
  ivl_session_unref (session);
  ivl_model_unref (model);
}

/* PAGES of KV cache for N askers of the same question: all end, each with the right answer or a clear error. Returns how
 * many got an answer. */
static guint
ask_with_pages (const Golden *golden, guint pages, guint n)
{
  guint64 page_bytes;
  {
    g_autoptr (GError) error = NULL;
    IvlConfig *config = ivl_config_load (golden->folder, &error);
    g_assert_no_error (error);
    page_bytes = ivl_kv_page_bytes (config);
    ivl_config_free (config);
  }
  IvlModel *model = golden_load (golden, &(IvlModelParams){ .kv_bytes = pages * page_bytes });
  Inbox inbox;
  inbox_init (&inbox);
  Reply replies[8] = { 0 };
  IvlSession *sessions[8];
  GoldenQuestion q;
  golden_question_init (&q, model, golden_case (golden, "text"), 0);
  for (guint i = 0; i < n; i++) {
    sessions[i] = new_session (model);
    replies[i].inbox = &inbox;
    ask_async (sessions[i], &q, &replies[i]);
  }
  inbox_wait (&inbox, n);
  guint answered = 0;
  for (guint i = 0; i < n; i++) {
    if (replies[i].error) {
      g_assert_error (replies[i].error, IVL_ERROR, IVL_ERROR_OUT_OF_MEMORY);
      g_assert_nonnull (strstr (replies[i].error->message, "kv_bytes"));
      g_clear_error (&replies[i].error);
    } else {
      golden_question_check (&q, replies[i].answer);
      answered++;
    }
    ivl_session_unref (sessions[i]);
  }
  /* What the others gave back is enough again. */
  if (answered)
    golden_ask (model, golden_case (golden, "text"));
  golden_question_clear (&q);
  inbox_clear (&inbox);
  ivl_model_unref (model);
  return answered;
}

static void
test_cache_full (gconstpointer data)
{
  g_autoptr (Golden) golden = golden_open (NAME);
  /* 163 + 64 tokens take 8 pages. Too few for anybody, for one at a time, for two, for all. */
  static const struct {
    guint pages, askers, least;
  } runs[] = { { 1, 1, 0 }, { 3, 2, 0 }, { 3, 4, 0 }, { 6, 3, 0 }, { 8, 1, 1 }, { 8, 3, 3 }, { 9, 4, 4 }, { 17, 3, 1 }, { 40, 5, 5 } };
  for (guint i = 0; i < G_N_ELEMENTS (runs); i++) {
    guint n = ask_with_pages (golden, runs[i].pages, runs[i].askers);
    g_test_message ("%u pages: %u of %u answered", runs[i].pages, n, runs[i].askers);
    g_assert_cmpuint (n, >=, runs[i].least);
  }
}

/* ---- one question at a time ---- */

static void
test_busy (gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (Golden) golden = golden_open (NAME);
  IvlModel *model = golden_load (golden, NULL);
  Inbox inbox;
  inbox_init (&inbox);
  Reply reply = { &inbox };
  IvlSession *session = new_session (model);
  GoldenQuestion q;
  golden_question_init (&q, model, golden_case (golden, "text"), 0);
  q.question.params.max_tokens = 1500;
  ask_async (session, &q, &reply);
  g_assert_null (ivl_session_ask (session, &q.question, &error));
  g_assert_error (error, IVL_ERROR, IVL_ERROR_BAD_ARGUMENT);
  g_clear_error (&error);
  g_assert_false (ivl_session_reset (session, &error));
  g_assert_error (error, IVL_ERROR, IVL_ERROR_BAD_ARGUMENT);
  g_clear_error (&error);
  ivl_session_cancel (session);
  inbox_wait (&inbox, 1);
  ivl_answer_free (reply.answer);
  g_assert_true (ivl_session_reset (session, &error));
  /* Another conversation in the same session: nothing of the first may show. */
  GoldenQuestion other;
  golden_question_init (&other, model, golden_case (golden, "two_images"), 0);
  IvlAnswer *answer = ivl_session_ask (session, &other.question, &error);
  g_assert_no_error (error);
  golden_question_check (&other, answer);
  g_assert_true (ivl_session_reset (session, &error));
  q.question.params.max_tokens = 64;
  answer = ivl_session_ask (session, &q.question, &error);
  g_assert_no_error (error);
  golden_question_check (&q, answer);
  golden_question_clear (&q);
  golden_question_clear (&other);
  ivl_session_unref (session);
  inbox_clear (&inbox);
  ivl_model_unref (model);
}

/* ---- the last references ---- */

typedef struct {
  Inbox *inbox;
  IvlModel *model;
  IvlSession *session;
  GoldenQuestion q;
} Last;

static void
drop_everything (IvlSession *session, IvlAnswer *answer, const GError *error, gpointer data)
{
  Last *last = data;
  g_assert_no_error (error);
  golden_question_check (&last->q, answer);
  ivl_session_unref (last->session);
  golden_question_clear (&last->q);
  ivl_model_unref (last->model);
  g_mutex_lock (&last->inbox->lock);
  last->inbox->n_done++;
  g_cond_signal (&last->inbox->changed);
  g_mutex_unlock (&last->inbox->lock);
}

static void
test_unref_in_callback (gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (Golden) golden = golden_open (NAME);
  for (guint i = 0; i < 5; i++) {
    Inbox inbox;
    inbox_init (&inbox);
    Last last = { .inbox = &inbox, .model = golden_load (golden, NULL) };
    IvlModel *waiting = i == 4 ? ivl_model_ref (last.model) : NULL;
    last.session = new_session (last.model);
    golden_question_init (&last.q, last.model, golden_case (golden, "video"), 0);
    g_assert_true (ivl_session_ask_async (last.session, &last.q.question, drop_everything, &last, &error));
    inbox_wait (&inbox, 1);
    inbox_clear (&inbox);
    ivl_model_unref_wait (waiting);
  }
  /* And at once, with the question under way: it goes on by its own references. */
  Inbox inbox;
  inbox_init (&inbox);
  Reply reply = { &inbox };
  IvlModel *model = golden_load (golden, NULL);
  IvlSession *session = new_session (model);
  GoldenQuestion q;
  golden_question_init (&q, model, golden_case (golden, "video"), 0);
  ask_async (session, &q, &reply);
  golden_question_clear (&q);
  ivl_session_unref (session);
  ivl_model_unref (model);
  inbox_wait (&inbox, 1);
  g_assert_no_error (reply.error);
  g_assert_cmpstr (reply.answer->text, ==, json_object_get_string_member (q.turn, "text_tags"));
  ivl_answer_free (reply.answer);
  inbox_clear (&inbox);
}

/* ---- the end of the process ---- */

static bool
has_model_threads (void)
{
  bool found = false;
  GDir *dir = g_dir_open ("/proc/self/task", 0, NULL);
  const char *name;
  while (dir && (name = g_dir_read_name (dir))) {
    g_autofree char *path = g_build_filename ("/proc/self/task", name, "comm", NULL), *comm = NULL;
    found = found || (g_file_get_contents (path, &comm, NULL, NULL) && g_str_has_prefix (comm, "internvl"));
  }
  if (dir)
    g_dir_close (dir);
  return found;
}

/* Registered before the library, so called after it. */
static void
check_threads (void)
{
  /* The validation layer makes threads in vkQueueSubmit, which have the name of ours and don't end. */
  if (g_getenv ("VK_INSTANCE_LAYERS"))
    return;
  for (guint i = 0; has_model_threads (); i++) {
    if (i == 1000)
      _exit (1);
    g_usleep (10000); /* they have nothing left to do but to end */
  }
}

/* What is under way then is given up; the driver would be taken down under it. */
static void
test_exit (gconstpointer data)
{
  if (!g_test_subprocess ()) {
    g_test_trap_subprocess (NULL, 0, 0);
    g_test_trap_assert_passed ();
    return;
  }
  g_autoptr (Golden) golden = golden_open (NAME);
  static Inbox inbox;
  static Reply replies[4];
  bool drop = GPOINTER_TO_INT (data);
  atexit (check_threads);
  inbox_init (&inbox);
  IvlModel *model = golden_load (golden, NULL);
  GoldenQuestion q;
  golden_question_init (&q, model, golden_case (golden, "video"), 0);
  q.question.params.max_tokens = 1500;
  for (guint i = 0; i < G_N_ELEMENTS (replies); i++) {
    IvlSession *session = new_session (model);
    replies[i].inbox = &inbox;
    ask_async (session, &q, &replies[i]);
    if (drop)
      ivl_session_cancel (session);
    ivl_session_unref (session);
  }
  golden_question_clear (&q);
  ivl_model_unref (model);
  if (drop)
    inbox_wait (&inbox, G_N_ELEMENTS (replies));
  g_clear_pointer (&golden, golden_free); /* exit doesn't come back for it */
  exit (0);
}

/* As check_threads. */
static void
check_pipelines (void)
{
  if (!ivl_vk_pipelines_halt (0))
    _exit (1);
}

/* With pipelines still being made ahead for it, which are none of its threads'. */
static void
test_exit_loaded (void)
{
  if (!g_test_subprocess ()) {
    g_autoptr (GError) error = NULL;
    g_autofree char *cache = g_dir_make_tmp ("internvl-exit-XXXXXX", &error);
    g_assert_no_error (error);
    g_autofree char *before = g_strdup (g_getenv ("INTERNVL_CACHE"));
    g_setenv ("INTERNVL_CACHE", cache, TRUE);
    for (guint i = 0; i < 3; i++) {
      g_test_trap_subprocess (NULL, 0, 0);
      g_test_trap_assert_passed ();
    }
    if (before)
      g_setenv ("INTERNVL_CACHE", before, TRUE);
    else
      g_unsetenv ("INTERNVL_CACHE");
    g_assert_cmpint (rmdir (cache), ==, 0); /* nobody got as far as to keep them */
    return;
  }
  g_autoptr (Golden) golden = golden_open (NAME);
  atexit (check_pipelines);
  golden_load (golden, NULL);
  g_clear_pointer (&golden, golden_free);
  exit (0);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_data_func ("/engine/side-by-side/qwen2", NAME, test_side_by_side);
  g_test_add_data_func ("/engine/side-by-side/internlm2", OTHER_NAME, test_side_by_side);
  g_test_add_data_func ("/engine/threads", NULL, test_threads);
  g_test_add_data_func ("/engine/two-models", NULL, test_two_models);
  g_test_add_data_func ("/engine/shared-images", NULL, test_shared_images);
  g_test_add_data_func ("/engine/seed", NULL, test_seed);
  g_test_add_data_func ("/engine/cancel", NULL, test_cancel);
  g_test_add_data_func ("/engine/cancel-waiting", NULL, test_cancel_waiting);
  g_test_add_data_func ("/engine/context-full", NULL, test_context_full);
  g_test_add_data_func ("/engine/cache-full", NULL, test_cache_full);
  g_test_add_data_func ("/engine/busy", NULL, test_busy);
  g_test_add_data_func ("/engine/unref-in-callback", NULL, test_unref_in_callback);
  g_test_add_data_func ("/engine/exit/while-answering", GINT_TO_POINTER (FALSE), test_exit);
  g_test_add_func ("/engine/exit/loaded", test_exit_loaded);
  g_test_add_data_func ("/engine/exit/while-freeing", GINT_TO_POINTER (TRUE), test_exit);
  return g_test_run ();
}
