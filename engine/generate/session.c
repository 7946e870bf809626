/* IvlSession: a conversation, and the way of a question into the scheduler. */
#include "generate/engine.h"

#include <string.h>

IvlSession *
ivl_session_new (IvlModel *model, GError **error)
{
  if (!model) {
    ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "ivl_session_new: no model given");
    return NULL;
  }
  IvlSession *self = g_new0 (IvlSession, 1);
  self->ref_count = 1;
  self->model = ivl_model_ref (model);
  self->client = ivl_client_new ();
  g_mutex_init (&self->lock);
  ivl_sequence_init (&self->sequence);
  self->cached = g_array_new (FALSE, FALSE, sizeof (guint64));
  self->history = g_array_new (FALSE, FALSE, sizeof (guint32));
  self->images = g_ptr_array_new_with_free_func ((GDestroyNotify) ivl_image_unref);
  self->link.data = self;
  g_mutex_lock (&model->kv_lock);
  g_queue_push_tail_link (&model->sessions, &self->link);
  g_mutex_unlock (&model->kv_lock);
  return self;
}

IvlSession *
ivl_session_ref (IvlSession *self)
{
  g_atomic_int_inc (&self->ref_count);
  return self;
}

void
ivl_session_unref (IvlSession *self)
{
  if (!self || !g_atomic_int_dec_and_test (&self->ref_count))
    return;
  g_mutex_lock (&self->model->kv_lock);
  g_queue_unlink (&self->model->sessions, &self->link);
  ivl_sequence_deinit (&self->sequence, &self->model->kv);
  g_mutex_unlock (&self->model->kv_lock);
  g_array_unref (self->cached);
  g_array_unref (self->history);
  g_ptr_array_unref (self->images);
  g_mutex_clear (&self->lock);
  ivl_client_unref (self->client);
  ivl_model_unref (self->model);
  g_free (self);
}

void
ivl_session_set_client (IvlSession *self, IvlClient *client)
{
  ivl_client_ref (client);
  g_mutex_lock (&self->lock);
  IvlClient *old = self->client;
  self->client = client;
  g_mutex_unlock (&self->lock);
  ivl_client_unref (old);
}

/* ---- a question ---- */

static gboolean
check_params (const IvlQuestion *question, GError **error)
{
  const IvlGenerateParams *p = &question->params;
  if (!question->prompt)
    return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "A question needs a prompt");
  if (p->max_tokens == 0)
    return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "max_tokens is 0: at least one token must be allowed");
  if (!(p->temperature >= 0.f && p->temperature <= 100.f))
    return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "temperature is %g, must be in 0 ... 100", (double) p->temperature);
  if (!(p->top_p > 0.f && p->top_p <= 1.f))
    return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "top_p is %g, must be above 0 and at most 1", (double) p->top_p);
  if (!(p->repetition_penalty > 0.f && p->repetition_penalty <= 100.f))
    return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "repetition_penalty is %g, must be above 0 and at most 100",
                     (double) p->repetition_penalty);
  if (question->choices && question->json_schema)
    return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "choices and json_schema exclude each other");
  if ((question->choices || question->json_schema) && p->stop && *p->stop)
    return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "Stop strings could cut an answer that choices or json_schema ask for");
  for (guint i = 0; i < question->n_images; i++)
    if (!question->images || !question->images[i])
      return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "Image %u of the question is missing", i);
  return TRUE;
}

/* The whole conversation as the template's ids. Earlier answers stand as the tokens that the model chose, so what is
 * cached of them stays good. */
static gboolean
render (IvlSession *self, const IvlQuestion *question, GArray *ids, GError **error)
{
  const IvlModel *model = self->model;
  g_autofree guint *tiles = g_new (guint, question->n_images);
  for (guint i = 0; i < question->n_images; i++)
    tiles[i] = question->images[i]->n_tiles;
  IvlChatTurn turn = { .question = question->prompt, .question_length = -1, .image_tiles = tiles,
                       .n_images = question->n_images, .media = question->media };
  if (self->history->len == 0)
    return ivl_chat_render (model->chat, question->system_prompt ? question->system_prompt : model->system_prompt, &turn,
                            1, ids, error);
  g_array_append_vals (ids, self->history->data, self->history->len);
  return ivl_chat_continue (model->chat, FALSE, &turn, ids, error);
}

/* From the template's ids to what the decoder takes: image rows in place, and keys to recognise what is cached. In the
 * first N_HISTORY they are in place already: the template's id there is a word that the model said. */
static gboolean
lay_out_prompt (IvlRequest *request, IvlModel *model, guint n_history, GError **error)
{
  guint32 image_id = ivl_chat_get_image_id (model->chat);
  guint n = request->tokens->len, rows = 0, image = 0, row = 0;
  request->n_prompt = n;
  request->image_before = g_new (guint, n + 1);
  g_array_set_size (request->keys, n);
  for (guint i = 0; i < n; i++) {
    guint32 *token = &g_array_index (request->tokens, guint32, i);
    guint64 key = *token;
    request->image_before[i] = rows;
    if (*token == (i < n_history ? IVL_TOKEN_IMAGE : image_id)) {
      IvlImage *at = image < request->images->len ? request->images->pdata[image] : NULL;
      if (!at)
        return ivl_fail (error, IVL_ERROR_INTERNAL, "more image positions than image tokens");
      key = (at->serial << 20 | row) | 1ull << 63;
      *token = IVL_TOKEN_IMAGE;
      rows++;
      if (++row == at->n_tiles * model->config->tile_tokens) {
        row = 0;
        image++;
      }
    } else if (*token >= model->config->text.vocab) {
      return ivl_fail (error, IVL_ERROR_BAD_MODEL,
                       "The tokenizer gives token %u, but config.json says vocab_size %u: the folder's files don't "
                       "belong together", *token, model->config->text.vocab);
    }
    g_array_index (request->keys, guint64, i) = key;
  }
  request->image_before[n] = rows;
  if (image != request->images->len)
    return ivl_fail (error, IVL_ERROR_INTERNAL, "fewer image positions than image tokens");
  return TRUE;
}

static gboolean
constrain (IvlRequest *request, IvlModel *model, const IvlQuestion *question, GError **error)
{
  guint room = ivl_request_max_tokens (request);
  if (question->choices) {
    IvlVocabulary *v = ivl_model_get_vocabulary (model);
    IvlChoicesParams params = { v->end_ids, v->n_end_ids, v->n_vocab, room, request->params.temperature,
                                request->params.seed };
    request->choices = ivl_choices_new (model->tokenizer, question->choices, &params, error);
    /* What the sampler makes of the logits isn't used; it must leave them as they are. */
    request->params.temperature = 0.f;
    request->params.repetition_penalty = 1.f;
    return request->choices != NULL;
  }
  if (!question->json_schema)
    return TRUE;
  request->constraint = ivl_constraint_new (ivl_model_get_vocabulary (model), question->json_schema, error);
  if (!request->constraint)
    return FALSE;
  guint64 need = ivl_constraint_min_tokens (request->constraint);
  if (need > room)
    return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT,
                     "json_schema: the shortest valid answer may take %" G_GUINT64_FORMAT " tokens, but there is room for %u "
                     "(max_tokens, or what the prompt leaves of the context)", need, room);
  return TRUE;
}

void
ivl_request_settle_keys (IvlRequest *self)
{
  guint image = 0, row = 0;
  for (guint i = 0; i < self->n_prompt; i++) {
    if (g_array_index (self->tokens, guint32, i) != IVL_TOKEN_IMAGE)
      continue;
    IvlImage *at = self->images->pdata[image];
    g_array_index (self->keys, guint64, i) = (ivl_image_source (at)->serial << 20 | row) | 1ull << 63;
    if (++row == at->n_tiles * at->model->config->tile_tokens) {
      row = 0;
      image++;
    }
  }
}

static IvlRequest *
make_request (IvlSession *self, const IvlQuestion *question, GError **error)
{
  IvlModel *model = self->model;
  IvlRequest *request = g_new0 (IvlRequest, 1);
  request->session = self;
  request->params = question->params;
  request->stop = g_strdupv ((char **) question->params.stop);
  request->params.stop = NULL;
  request->text_func = question->text_func;
  request->text_data = question->text_data;
  request->tokens = g_array_new (FALSE, FALSE, sizeof (guint32));
  request->keys = g_array_new (FALSE, FALSE, sizeof (guint64));
  request->images = g_ptr_array_new_with_free_func ((GDestroyNotify) ivl_image_unref);
  request->decoder = ivl_text_decoder_new (model->tokenizer,
                                           IVL_DECODE_SKIP_SPECIAL | IVL_DECODE_KEEP_TAGS | IVL_DECODE_NO_NUL);
  request->matcher = ivl_stop_matcher_new ((const char *const *) request->stop);
  request->answer = g_string_new (NULL);
  for (guint i = 0; i < self->images->len; i++)
    g_ptr_array_add (request->images, ivl_image_ref (self->images->pdata[i]));
  for (guint i = 0; i < question->n_images; i++) {
    if (question->images[i]->model != model) {
      ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "Image %u belongs to another model than the session", i);
      goto fail;
    }
    g_ptr_array_add (request->images, ivl_image_ref (question->images[i]));
  }
  if (!render (self, question, request->tokens, error)
      || !lay_out_prompt (request, model, self->history->len, error))
    goto fail;
  if (request->n_prompt >= model->context_tokens) {
    ivl_fail (error, IVL_ERROR_CONTEXT_FULL,
              "The prompt has %u tokens, the context %u: use fewer frames, tiles or turns, a shorter text, or a larger "
              "context_tokens", request->n_prompt, model->context_tokens);
    goto fail;
  }
  if (!constrain (request, model, question, error))
    goto fail;
  return request;
fail:
  ivl_request_free (request);
  return NULL;
}

static gboolean
submit (IvlSession *self, const IvlQuestion *question, IvlAnswerFunc done, gpointer user_data, bool own_session,
        GError **error)
{
  IvlModel *model = self->model;
  if (!check_params (question, error))
    return FALSE;
  g_mutex_lock (&self->lock);
  if (self->busy) {
    g_mutex_unlock (&self->lock);
    return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "The session still answers another question; one at a time");
  }
  IvlRequest *request = make_request (self, question, error);
  if (!request) {
    g_mutex_unlock (&self->lock);
    return FALSE;
  }
  if (own_session)
    ivl_session_ref (self);
  request->owns_session = own_session;
  request->client = ivl_client_ref (self->client);
  request->done = done;
  request->done_data = user_data;
  request->submitted_us = g_get_monotonic_time ();
  self->busy = request;
  g_mutex_unlock (&self->lock);

  g_mutex_lock (&model->lock);
  for (guint i = 0; i < request->images->len; i++)
    ivl_image_queue (request->images->pdata[i], request->client);
  g_queue_push_tail (&model->arrivals, request);
  ivl_model_tell (model);
  g_mutex_unlock (&model->lock);
  return TRUE;
}

gboolean
ivl_session_ask_async (IvlSession *self, const IvlQuestion *question, IvlAnswerFunc done, gpointer user_data,
                       GError **error)
{
  return submit (self, question, done, user_data, true, error);
}

void
ivl_session_take_answer (IvlSession *self, IvlRequest *request, const IvlAnswer *answer)
{
  g_mutex_lock (&self->lock);
  self->busy = NULL;
  /* What is cached stays valid whatever the end was: the next question keeps what agrees with it. Before it began, a
   * question has cached nothing: the sequence is still that of the one before. */
  if (request->begun) {
    g_array_set_size (self->cached, 0);
    g_array_append_vals (self->cached, request->keys->data, MIN (self->sequence.length, request->keys->len));
  }
  if (answer && answer->finish != IVL_FINISH_CANCELLED) {
    g_array_set_size (self->history, 0);
    g_array_append_vals (self->history, request->tokens->data,
                         request->n_prompt + (request->cut_short ? 0 : request->n_generated));
    /* An answer that a stop string cut goes on as it was given, not as it was generated. */
    if (request->cut_short)
      ivl_tokenizer_encode (self->model->tokenizer, answer->text, -1, IVL_ENCODE_TAGS, self->history, NULL);
    g_ptr_array_unref (self->images);
    self->images = g_ptr_array_ref (request->images);
  }
  g_mutex_unlock (&self->lock);
}

void
ivl_request_free (IvlRequest *self)
{
  if (!self)
    return;
  g_strfreev (self->stop);
  g_clear_pointer (&self->tokens, g_array_unref);
  g_clear_pointer (&self->keys, g_array_unref);
  g_clear_pointer (&self->images, g_ptr_array_unref);
  g_free (self->image_before);
  g_clear_pointer (&self->decoder, ivl_text_decoder_free);
  g_clear_pointer (&self->matcher, ivl_stop_matcher_free);
  ivl_constraint_free (self->constraint);
  ivl_choices_free (self->choices);
  if (self->answer)
    g_string_free (self->answer, TRUE);
  ivl_client_unref (self->client);
  if (self->owns_session)
    ivl_session_unref (self->session);
  g_free (self);
}

void
ivl_session_cancel (IvlSession *self)
{
  g_mutex_lock (&self->lock);
  if (self->busy)
    g_atomic_int_set (&self->busy->cancelled, 1);
  g_mutex_unlock (&self->lock);
  g_mutex_lock (&self->model->lock);
  ivl_model_tell (self->model);
  g_mutex_unlock (&self->model->lock);
}

gboolean
ivl_session_reset (IvlSession *self, GError **error)
{
  g_mutex_lock (&self->lock);
  bool busy = self->busy != NULL;
  if (!busy) {
    g_array_set_size (self->history, 0);
    g_ptr_array_unref (self->images);
    self->images = g_ptr_array_new_with_free_func ((GDestroyNotify) ivl_image_unref);
    /* The cached tokens stay: the next conversation may begin with the same ones. */
  }
  g_mutex_unlock (&self->lock);
  return !busy || ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "The session still answers a question; cancel it first");
}

/* ---- blocking ---- */

typedef struct {
  GMutex lock;
  GCond answered;
  gboolean done;
  IvlAnswer *answer;
  GError *error;
} Wait;

static void
wake_up (IvlSession *session, IvlAnswer *answer, const GError *error, gpointer data)
{
  Wait *wait = data;
  g_mutex_lock (&wait->lock);
  wait->answer = answer;
  wait->error = error ? g_error_copy (error) : NULL;
  wait->done = TRUE;
  g_cond_signal (&wait->answered);
  g_mutex_unlock (&wait->lock);
}

IvlAnswer *
ivl_session_ask (IvlSession *self, const IvlQuestion *question, GError **error)
{
  Wait wait = { 0 };
  g_mutex_init (&wait.lock);
  g_cond_init (&wait.answered);
  if (submit (self, question, wake_up, &wait, false, error)) {
    g_mutex_lock (&wait.lock);
    while (!wait.done)
      g_cond_wait (&wait.answered, &wait.lock);
    g_mutex_unlock (&wait.lock);
    if (wait.error)
      g_propagate_error (error, wait.error);
  }
  g_mutex_clear (&wait.lock);
  g_cond_clear (&wait.answered);
  return wait.answer;
}

void
ivl_answer_free (IvlAnswer *self)
{
  if (!self)
    return;
  g_free (self->text);
  g_free (self->choice_probabilities);
  g_free (self);
}
