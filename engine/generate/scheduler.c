/* The scheduler thread: takes up requests, forms batches, turns logits into text, hands answers back. */
#include "generate/engine.h"

#include <string.h>

/* Prompt tokens of one forward when somebody who decodes would wait for them: as many as IVL_TURN_NS allows. */
#define CHUNK_BESIDE_DECODING 128
#define LARGEST_CHUNK_BESIDE_DECODING 256
/* Tiles of matmuls have so many rows, or halves or doubles of it. */
#define ROWS_TOGETHER 16

typedef struct {
  IvlModel *model;
  GPtrArray *active; /* IvlRequest *, in order of arrival */
} Scheduler;

/* ---- the end of a request ---- */

static void
report_choice (IvlAnswer *answer, const IvlChoices *choices)
{
  guint n = answer->n_choices = ivl_choices_get_n (choices), chosen = ivl_choices_get_chosen (choices);
  answer->choice = (gint) chosen;
  answer->choice_probabilities = g_memdup2 (ivl_choices_get_probabilities (choices), n * sizeof (double));
  g_free (answer->text);
  answer->text = g_strdup (ivl_choices_get_text (choices, chosen));
}

static void
finish (Scheduler *s, IvlRequest *request, IvlFinish how, GError *error)
{
  IvlSession *session = request->session;
  g_ptr_array_remove (s->active, request);

  IvlAnswer *answer = NULL;
  if (!error) {
    GString *tail = g_string_new (NULL);
    {
      g_autoptr (GString) held = g_string_new (NULL);
      ivl_text_decoder_flush (request->decoder, held);
      ivl_stop_matcher_feed (request->matcher, held->str, (gssize) held->len, tail);
      ivl_stop_matcher_flush (request->matcher, tail);
    }
    if (tail->len && request->text_func)
      request->text_func (tail->str, request->text_data);
    g_string_append (request->answer, tail->str);
    g_string_free (tail, TRUE);
    gint64 now = g_get_monotonic_time ();
    gint64 encoded = request->encoded_us ? request->encoded_us : now;
    gint64 prefilled = request->prefilled_us ? request->prefilled_us : now;
    answer = g_new0 (IvlAnswer, 1);
    answer->text = g_strstrip (g_strdup (request->answer->str));
    answer->finish = how;
    answer->prompt_tokens = request->n_prompt;
    answer->prompt_tokens_reused = request->n_reused;
    answer->generated_tokens = request->n_generated;
    answer->draft_tokens = request->n_drafted;
    answer->draft_tokens_held = request->n_held;
    answer->confidence = request->n_generated ? request->probability_sum / request->n_generated : 0.;
    answer->encode_ns = (guint64) (encoded - request->submitted_us) * 1000;
    answer->prefill_ns = (guint64) MAX (prefilled - encoded, 0) * 1000;
    answer->decode_ns = (guint64) MAX (now - prefilled, 0) * 1000;
    answer->choice = -1;
    if (request->choices && how == IVL_FINISH_STOP)
      report_choice (answer, request->choices);
  }

  g_mutex_lock (&s->model->kv_lock);
  g_queue_unlink (&s->model->sessions, &session->link);
  g_queue_push_tail_link (&s->model->sessions, &session->link);
  if (answer && request->begun)
    ivl_prefix_cache_remember (&s->model->prefixes, &s->model->kv, &session->sequence,
                               (const guint64 *) request->keys->data, request->n_prompt, s->model->max_sessions);
  g_mutex_unlock (&s->model->kv_lock);
  if (answer && request->n_generated)
    ivl_draft_memory_add (&s->model->said, (const guint32 *) request->tokens->data, request->tokens->len,
                          request->n_prompt);
  ivl_session_take_answer (session, request, answer);
  /* Nothing of the request may be left when DONE is called: a blocking caller frees everything right after it. */
  g_mutex_lock (&s->model->lock);
  ivl_model_tell (s->model); /* to itself: there is a place free */
  g_mutex_unlock (&s->model->lock);
  IvlAnswerFunc done = request->done;
  gpointer data = request->done_data;
  bool owned = request->owns_session;
  request->owns_session = false;
  ivl_request_free (request);
  done (session, answer, error, data);
  g_clear_error (&error);
  if (owned)
    ivl_session_unref (session);
}

/* ---- the beginning ---- */

/* Keeps the cached beginning that the request's prompt shares with its session's last, or with any that was read lately;
 * at least one token must be run for its logits. The images are ready: whose embeddings they use is known. */
static void
begin (Scheduler *s, IvlRequest *request)
{
  IvlModel *model = s->model;
  IvlSession *session = request->session;
  request->begun = true;
  request->draft_rate = model->draft_rate;
  ivl_request_settle_keys (request);
  const guint64 *keys = (const guint64 *) request->keys->data;
  guint same = 0, most = MIN (session->cached->len, request->n_prompt - 1);
  while (same < most
         && g_array_index (session->cached, guint64, same) == g_array_index (request->keys, guint64, same))
    same++;
  g_mutex_lock (&model->kv_lock);
  ivl_sequence_truncate (&session->sequence, &model->kv, MIN (same, session->sequence.length));
  if (ivl_prefix_cache_match (&model->prefixes, keys, request->n_prompt - 1) > session->sequence.length) {
    ivl_sequence_truncate (&session->sequence, &model->kv, 0);
    ivl_prefix_cache_share (&model->prefixes, &model->kv, keys, request->n_prompt - 1, &session->sequence);
  }
  g_mutex_unlock (&model->kv_lock);
  request->n_reused = session->sequence.length;
  g_mutex_lock (&model->lock);
  model->stats.prompt_tokens_reused += request->n_reused;
  g_mutex_unlock (&model->lock);
}

static void
take_up (Scheduler *s)
{
  IvlModel *model = s->model;
  while (s->active->len < model->max_sessions) {
    GList *next = NULL;
    g_mutex_lock (&model->lock);
    for (GList *link = model->arrivals.head; link; link = link->next) {
      const IvlRequest *request = link->data, *best = next ? next->data : NULL;
      if (!best || ivl_client_used (request->client, TURN_PROMPT) < ivl_client_used (best->client, TURN_PROMPT))
        next = link;
    }
    IvlRequest *request = next ? next->data : NULL;
    if (request)
      g_queue_delete_link (&model->arrivals, next);
    g_mutex_unlock (&model->lock);
    if (!request)
      return;
    g_ptr_array_add (s->active, request);
  }
}

/* Whether all images are encoded; ends the request if one failed. */
static bool
check_images (Scheduler *s, IvlRequest *request)
{
  IvlModel *model = s->model;
  if (request->begun)
    return true;
  GError *error = NULL;
  bool ready = true;
  g_mutex_lock (&model->lock);
  for (guint i = 0; i < request->images->len && !error; i++) {
    IvlImage *image = request->images->pdata[i];
    if (image->state == IMAGE_FAILED)
      error = g_error_copy (image->error);
    ready = ready && image->state == IMAGE_READY;
  }
  g_mutex_unlock (&model->lock);
  if (error) {
    finish (s, request, IVL_FINISH_STOP, error);
    return false;
  }
  if (ready) {
    request->encoded_us = g_get_monotonic_time ();
    begin (s, request);
  }
  return ready;
}

/* ---- one forward ---- */

typedef struct {
  IvlRequest *request;
  IvlDecoderJob job;
  IvlRows *image_rows;
  guint n_drafts; /* last tokens of the job, guessed; not among the request's */
  guint32 guess[IVL_DRAFT_MAX];
  guint n_guess;  /* at least n_drafts: what else was guessed, but not worth running */
} Entry;

static IvlRows *
image_rows_for (IvlModel *model, IvlRequest *request, guint first, guint n)
{
  guint hidden = model->config->text.hidden, count = 0;
  const guint32 *tokens = (const guint32 *) request->tokens->data + first;
  for (guint i = 0; i < n; i++)
    count += tokens[i] == IVL_TOKEN_IMAGE;
  if (!count)
    return NULL;
  IvlRows *rows = g_new (IvlRows, count);
  /* Rows of all images are numbered one after the other. */
  guint row = request->image_before[first], image = 0;
  guint rows_of = 0;
  for (guint i = 0; i < count; i++, row++) {
    for (;;) {
      IvlImage *at = request->images->pdata[image];
      guint n_rows = at->n_tiles * model->config->tile_tokens;
      if (row < rows_of + n_rows) {
        IvlVkBuffer *from = ivl_image_source (at)->embeddings;
        rows[i] = (IvlRows){ { from, 0, from->size }, (guint64) (row - rows_of) * hidden, hidden };
        break;
      }
      rows_of += n_rows;
      image++;
    }
  }
  return rows;
}

static bool
is_active (Scheduler *s, const IvlSession *session)
{
  for (guint i = 0; i < s->active->len; i++)
    if (((IvlRequest *) s->active->pdata[i])->session == session)
      return true;
  return false;
}

/* Takes what is cached of the conversation that has been idle longest; it will be read again with its next question. */
static bool
reclaim_idle (Scheduler *s)
{
  for (GList *link = s->model->sessions.head; link; link = link->next) {
    IvlSession *session = link->data;
    if (session->sequence.pages->len == 0 || is_active (s, session))
      continue;
    ivl_sequence_truncate (&session->sequence, &s->model->kv, 0);
    return true;
  }
  return false;
}

/* Takes the pages of the last half-read prompt but KEEP's; it will be read again. */
static bool
reclaim_half_read (Scheduler *s, const IvlRequest *keep)
{
  for (guint i = s->active->len; i-- > 0;) {
    IvlRequest *request = s->active->pdata[i];
    if (request == keep || request->state != REQUEST_PREFILL || request->session->sequence.pages->len == 0)
      continue;
    ivl_sequence_truncate (&request->session->sequence, &s->model->kv, 0);
    request->n_reused = 0;
    return true;
  }
  return false;
}

/* At the cost of idle conversations, and with HALF_READ of prompts that are being read, too: none may be in the batch. */
static gboolean
reserve (Scheduler *s, IvlRequest *request, guint n, bool half_read, GError **error)
{
  IvlModel *model = s->model;
  GError *e = NULL;
  g_mutex_lock (&model->kv_lock);
  gboolean ok;
  while (!(ok = ivl_sequence_reserve (&request->session->sequence, &model->kv, model->stream, n, &e))
         && g_error_matches (e, IVL_ERROR, IVL_ERROR_OUT_OF_MEMORY)
         && (ivl_prefix_cache_reclaim (&model->prefixes, &model->kv) || reclaim_idle (s) || (half_read && reclaim_half_read (s, request))))
    g_clear_error (&e);
  g_mutex_unlock (&model->kv_lock);
  if (!ok)
    g_propagate_error (error, e);
  return ok;
}

/* Adds N tokens of REQUEST to the batch; false if there is no room for them in the KV cache now. */
static bool
add_entry (Scheduler *s, GArray *entries, IvlRequest *request, guint n)
{
  IvlModel *model = s->model;
  IvlSequence *sequence = &request->session->sequence;
  GError *error = NULL;
  /* Those that decode are put into the batch before any prompt is. */
  if (!reserve (s, request, n, request->state == REQUEST_DECODE, &error)) {
    /* Others will finish and give pages back; alone, it is the end. */
    bool wait = g_error_matches (error, IVL_ERROR, IVL_ERROR_OUT_OF_MEMORY) && s->active->len > 1
                && request->state == REQUEST_PREFILL;
    if (wait)
      g_clear_error (&error);
    else
      finish (s, request, IVL_FINISH_STOP, error);
    return false;
  }
  guint first = sequence->length;
  Entry entry = { .request = request, .image_rows = image_rows_for (model, request, first, n) };
  entry.job = (IvlDecoderJob){ .sequence = sequence,
                               .tokens = (const guint32 *) request->tokens->data + first,
                               .n_tokens = n,
                               .image_rows = entry.image_rows,
                               .want_logits = first + n == request->tokens->len };
  g_array_append_val (entries, entry);
  return true;
}

/* ---- guesses, see draft.h ---- */

/* Guesses of ENTRY's next tokens, beside ROWS rows that bring TOKENS tokens; at most MOST. */
static void
draft (Scheduler *s, Entry *entry, guint rows, double tokens, guint most)
{
  IvlModel *model = s->model;
  IvlRequest *request = entry->request;
  IvlSequence *sequence = &request->session->sequence;
  if (request->choices || request->constraint || entry->job.n_tokens != 1 || !entry->job.want_logits)
    return;
  most = MIN (MIN (most, IVL_DRAFT_MAX), ivl_request_max_tokens (request) - request->n_generated - 1);
  entry->n_guess = ivl_draft_guess (&model->said, (const guint32 *) request->tokens->data, request->tokens->len, most,
                                    entry->guess);
  guint n = entry->n_guess;
  if (model->speculation == IVL_SPECULATION_AUTO)
    n = ivl_draft_choose (&model->draft_costs, rows, tokens, request->draft_rate, n);
  /* Guesses take nobody's room. */
  g_mutex_lock (&model->kv_lock);
  n = MIN (n, (sequence->pages->len + model->kv.free_pages->len) * IVL_KV_PAGE - sequence->length - 1);
  bool ok = n > 0 && ivl_sequence_reserve (sequence, &model->kv, model->stream, 1 + n, NULL);
  g_mutex_unlock (&model->kv_lock);
  if (!ok)
    return;
  entry->n_drafts = n;
  g_array_append_vals (request->tokens, entry->guess, n);
  entry->job.tokens = (const guint32 *) request->tokens->data + sequence->length;
  entry->job.n_tokens = entry->job.want_logits = 1 + n;
  entry->job.one_by_one = TRUE;
}

/* ENTRIES: of ROWS tokens, all of requests that decode. Returns how many rows guesses add. */
static guint
draft_all (Scheduler *s, GArray *entries, guint rows)
{
  IvlModel *model = s->model;
  double tokens = entries->len;
  guint added = 0, budget = MIN (IVL_DRAFT_ROWS, model->decoder_run.max_rows - rows);
  if (model->speculation == IVL_SPECULATION_OFF)
    return 0;
  for (guint i = 0; i < entries->len; i++) {
    Entry *entry = &g_array_index (entries, Entry, i);
    draft (s, entry, rows + added - 1, tokens - 1., budget - added);
    added += entry->n_drafts;
    double holds = 1.;
    for (guint k = 0; k < entry->n_drafts; k++)
      tokens += holds *= entry->request->draft_rate;
  }
  return added;
}

/* Takes the guesses off the request again; SAMPLES is what the model says in their stead, NULL: nothing. Returns how many
 * held. */
static guint
settle_drafts (Scheduler *s, Entry *entry, const IvlSample *samples)
{
  IvlModel *model = s->model;
  IvlRequest *request = entry->request;
  IvlSequence *sequence = &request->session->sequence;
  guint held = 0, known = request->tokens->len - entry->n_drafts;
  while (samples && held < entry->n_drafts && samples[held].token == entry->guess[held])
    held++;
  /* What was guessed and not run tells something as well. */
  guint tried = held < entry->n_drafts ? held + 1 : MIN (held + 1, entry->n_guess);
  for (guint i = 0; samples && i < tried; i++)
    request->draft_rate = ivl_draft_rate (request->draft_rate, samples[i].token == entry->guess[i]);
  model->draft_rate = request->draft_rate;
  request->n_drafted += entry->n_drafts;
  g_array_set_size (request->tokens, known);
  if (held < entry->n_drafts) {
    g_mutex_lock (&model->kv_lock);
    ivl_sequence_truncate (sequence, &model->kv, MIN (sequence->length, known + held));
    g_mutex_unlock (&model->kv_lock);
  }
  return held;
}

static gint
compare_turns (gconstpointer a, gconstpointer b)
{
  const IvlRequest *first = *(IvlRequest *const *) a, *second = *(IvlRequest *const *) b;
  double x = ivl_client_used (first->client, TURN_PROMPT), y = ivl_client_used (second->client, TURN_PROMPT);
  return x < y ? -1 : x > y;
}

/* Prompt tokens of a forward in which ROWS belong to others who decode. */
static guint
chunk_beside (const IvlModel *model, guint rows)
{
  double most = model->prompt_ns > 0. ? IVL_TURN_NS / model->prompt_ns : 0.;
  guint n = (guint) CLAMP (most, CHUNK_BESIDE_DECODING, LARGEST_CHUNK_BESIDE_DECODING);
  return (rows + n) / ROWS_TOGETHER * ROWS_TOGETHER - rows;
}

static int
wanted_rank (const IvlDecoderJob *job)
{
  return job->want_logits == job->n_tokens ? 2 : job->want_logits ? 1 : 0;
}

/* Rows whose logits are wanted last: the decoder leaves those before them out of its last layer. */
static int
compare_wanted (gconstpointer a, gconstpointer b)
{
  return wanted_rank (&((const Entry *) a)->job) - wanted_rank (&((const Entry *) b)->job);
}

static GArray *
form_batch (Scheduler *s)
{
  IvlModel *model = s->model;
  GArray *entries = g_array_new (FALSE, FALSE, sizeof (Entry));
  /* Whoever can't go on ends while being looked at, so walk over a copy. */
  g_autoptr (GPtrArray) all = g_ptr_array_copy (s->active, NULL, NULL);
  guint rows = 0;
  for (guint i = 0; i < all->len; i++) {
    IvlRequest *request = all->pdata[i];
    /* One, but for choices that went back into a page which somebody shares. */
    guint n = request->tokens->len - request->session->sequence.length;
    if (request->state == REQUEST_DECODE && rows + n <= model->decoder_run.max_rows
        && add_entry (s, entries, request, n))
      rows += n;
  }
  rows += draft_all (s, entries, rows);
  guint budget = model->decoder_run.max_rows - rows;
  if (rows)
    budget = MIN (budget, chunk_beside (model, rows));
  /* Not of those that ended just now. */
  g_autoptr (GPtrArray) waiting = g_ptr_array_copy (s->active, NULL, NULL);
  g_mutex_lock (&model->lock);
  g_ptr_array_sort (waiting, compare_turns);
  g_mutex_unlock (&model->lock);
  for (guint i = 0; i < waiting->len && budget; i++) {
    IvlRequest *request = waiting->pdata[i];
    if (!g_ptr_array_find (s->active, request, NULL) || request->state == REQUEST_DECODE || !check_images (s, request))
      continue;
    guint n = MIN (request->n_prompt - request->session->sequence.length, budget);
    if (!add_entry (s, entries, request, n))
      continue;
    budget -= n;
    g_mutex_lock (&model->lock);
    ivl_client_charge (model, request->client, TURN_PROMPT, n);
    g_mutex_unlock (&model->lock);
  }
  g_array_sort (entries, compare_wanted);
  return entries;
}

/* Half-read prompts can hold all pages between them and wait for each other: the first gets what it needs for the rest of
 * its own, or ends. False if there are none: who is active waits for images. */
static bool
resolve_deadlock (Scheduler *s)
{
  for (guint i = 0; i < s->active->len; i++) {
    IvlRequest *request = s->active->pdata[i];
    GError *error = NULL;
    if (!request->begun || request->state != REQUEST_PREFILL)
      continue;
    if (!reserve (s, request, request->n_prompt - request->session->sequence.length, true, &error))
      finish (s, request, IVL_FINISH_STOP, error);
    return true;
  }
  return false;
}

/* Forgets all but the prompt and DEPTH tokens behind it. */
static void
rewind_to (Scheduler *s, IvlRequest *request, guint depth)
{
  IvlModel *model = s->model;
  IvlSequence *sequence = &request->session->sequence;
  guint length = request->n_prompt + depth;
  g_array_set_size (request->tokens, length);
  g_array_set_size (request->keys, length);
  g_mutex_lock (&model->kv_lock);
  if (sequence->length > length)
    ivl_sequence_truncate (sequence, &model->kv, length);
  g_mutex_unlock (&model->kv_lock);
}

static void
add_token (IvlRequest *request, guint32 token)
{
  guint64 key = token;
  g_array_append_val (request->tokens, token);
  g_array_append_val (request->keys, key);
}

/* Goes on with what the choices want to know, or ends. ROW: of the logits. */
static void
step_choices (Scheduler *s, IvlRequest *request, guint row)
{
  IvlModel *model = s->model;
  IvlChoices *choices = request->choices;
  guint n = model->config->text.vocab, depth;
  guint32 token;
  GError *error = NULL;
  g_autofree float *logits = g_new (float, n);
  IvlSpan span = model->decoder_run.logits;
  span.offset += 4ull * row * model->decoder_run.logits_pitch;
  span.size = 4ull * n;
  if (!ivl_vk_read (model->stream, span, logits, span.size, &error)) {
    finish (s, request, IVL_FINISH_STOP, error);
    return;
  }
  if (ivl_choices_step (choices, logits, &depth, &token, &error)) {
    rewind_to (s, request, depth);
    add_token (request, token);
    request->state = REQUEST_DECODE;
    return;
  }
  if (error) {
    finish (s, request, IVL_FINISH_STOP, error);
    return;
  }
  rewind_to (s, request, 0);
  double confidence;
  const guint32 *tokens = ivl_choices_get_tokens (choices, &request->n_generated, &confidence);
  for (guint i = 0; i < request->n_generated; i++)
    add_token (request, tokens[i]);
  request->probability_sum = confidence * request->n_generated;
  const char *text = ivl_choices_get_text (choices, ivl_choices_get_chosen (choices));
  g_string_append (request->answer, text);
  if (request->text_func)
    request->text_func (text, request->text_data);
  finish (s, request, IVL_FINISH_STOP, NULL);
}

/* Takes one generated token; true if the request goes on. */
static bool
accept_token (Scheduler *s, IvlRequest *request, IvlSample sample)
{
  IvlModel *model = s->model;
  if (sample.token == IVL_SAMPLE_INVALID) {
    GError *error = NULL;
    ivl_fail (&error, IVL_ERROR_BAD_MODEL,
              "The model computed values that are no numbers: its weights are damaged, or overflow the chosen weight "
              "type; try weights of another type (bf16 or f32)");
    finish (s, request, IVL_FINISH_STOP, error);
    return false;
  }
  if (g_hash_table_contains (model->stop_ids, GUINT_TO_POINTER (sample.token))) {
    finish (s, request, IVL_FINISH_STOP, NULL);
    return false;
  }
  request->state = REQUEST_DECODE;
  request->n_generated++;
  request->probability_sum += sample.probability;
  add_token (request, sample.token);
  if (request->constraint && !ivl_constraint_accept (request->constraint, sample.token)) {
    GError *error = NULL;
    ivl_fail (&error, IVL_ERROR_INTERNAL, "token %u was generated where json_schema doesn't allow it", sample.token);
    finish (s, request, IVL_FINISH_STOP, error);
    return false;
  }

  g_autoptr (GString) piece = g_string_new (NULL), text = g_string_new (NULL);
  ivl_text_decoder_feed (request->decoder, sample.token, piece);
  gboolean stop = ivl_stop_matcher_feed (request->matcher, piece->str, (gssize) piece->len, text);
  g_string_append (request->answer, text->str);
  if (text->len && request->text_func)
    request->text_func (text->str, request->text_data);
  if (stop) {
    request->cut_short = true;
    finish (s, request, IVL_FINISH_STOP, NULL);
    return false;
  }
  bool full = request->n_generated >= ivl_request_max_tokens (request);
  if (request->constraint && (ivl_constraint_is_over (request->constraint)
                              || (full && ivl_constraint_is_complete (request->constraint)))) {
    finish (s, request, IVL_FINISH_STOP, NULL);
    return false;
  }
  if (full) {
    finish (s, request, IVL_FINISH_LENGTH, NULL);
    return false;
  }
  return true;
}

static const guint32 *
allowed_tokens (IvlRequest *request)
{
  if (!request->constraint)
    return NULL;
  return ivl_constraint_mask (request->constraint, ivl_request_max_tokens (request) - request->n_generated);
}

/* NS: what the device took. */
static gboolean
forward (Scheduler *s, GArray *entries, IvlSample *samples, guint64 *ns, GError **error)
{
  IvlModel *model = s->model;
  g_autofree IvlDecoderJob *jobs = g_new (IvlDecoderJob, entries->len);
  g_autofree IvlSampleRequest *wanted = g_new (IvlSampleRequest, entries->len + IVL_DRAFT_ROWS);
  guint n_wanted = 0;
  for (guint i = 0; i < entries->len; i++) {
    Entry *entry = &g_array_index (entries, Entry, i);
    jobs[i] = entry->job;
    for (guint r = 0; r < entry->job.want_logits; r++) {
      const IvlGenerateParams *p = &entry->request->params;
      wanted[n_wanted++] = (IvlSampleRequest){
        .temperature = p->temperature, .top_p = p->top_p, .top_k = p->top_k, .seed = p->seed,
        .step = entry->request->n_generated + r, .repetition_penalty = p->repetition_penalty,
        /* The reference's chat () hands generate () embeddings, so its penalty sees the answer alone. */
        .context = (const guint32 *) entry->request->tokens->data + entry->request->n_prompt,
        .n_context = entry->request->tokens->len - entry->n_drafts + r - entry->request->n_prompt,
        .allowed = allowed_tokens (entry->request),
      };
    }
  }
  if (!ivl_vk_begin (model->stream, error))
    return FALSE;
  if (!ivl_decoder_record (&model->decoder_run, &model->kv, model->stream, jobs, entries->len, NULL, NULL, error)) {
    ivl_vk_discard (model->stream);
    return FALSE;
  }
  return ivl_sampler_record (&model->sampler, model->stream, model->decoder_run.logits, model->decoder_run.logits_pitch,
                             wanted, n_wanted, error)
         && ivl_vk_run_timed (model->stream, ns, error) && ivl_sampler_read (&model->sampler, samples, n_wanted, error);
}

static bool
run_forward (Scheduler *s)
{
  IvlModel *model = s->model;
  GArray *entries = form_batch (s);
  if (entries->len == 0) {
    g_array_unref (entries);
    return false;
  }
  GError *error = NULL;
  g_autofree IvlSample *samples = g_new0 (IvlSample, entries->len + IVL_DRAFT_ROWS);
  guint64 ns = 0;
  gboolean ok = forward (s, entries, samples, &ns, &error);

  guint decoded = 0, prefilled = 0, rows = 0, drafted = 0, held_in_all = 0;
  for (guint i = 0, sample = 0; i < entries->len; i++) {
    Entry *entry = &g_array_index (entries, Entry, i);
    IvlRequest *request = entry->request;
    bool generated = entry->job.want_logits;
    guint held = settle_drafts (s, entry, ok ? samples + sample : NULL);
    drafted += entry->n_drafts;
    rows += entry->job.n_tokens;
    if (request->state == REQUEST_DECODE)
      decoded++;
    else
      prefilled += entry->job.n_tokens;
    if (!ok) {
      finish (s, request, IVL_FINISH_STOP, g_error_copy (error));
    } else if (generated) {
      if (!request->prefilled_us)
        request->prefilled_us = g_get_monotonic_time ();
      if (request->choices)
        step_choices (s, request, sample);
      else
        /* What comes after the end isn't said, however right it was guessed. */
        for (guint k = 0; accept_token (s, request, samples[sample + k]) && k < held; k++) {
          request->n_held++;
          held_in_all++;
          decoded++;
        }
      sample += entry->job.want_logits;
    }
    g_free (entry->image_rows);
  }
  g_clear_error (&error);
  g_array_unref (entries);
  if (ok && !prefilled)
    ivl_draft_costs_note (&model->draft_costs, rows, (double) ns);
  else if (ok && prefilled >= CHUNK_BESIDE_DECODING / 2)
    model->prompt_ns = ivl_ns_lately (model->prompt_ns, (double) ns / rows);

  g_mutex_lock (&model->lock);
  model->stats.draft_tokens += drafted;
  model->stats.draft_tokens_held += held_in_all;
  model->stats.prompt_tokens += prefilled;
  model->stats.generated_tokens += decoded;
  if (prefilled)
    model->stats.prefill_ns += ns;
  else
    model->stats.decode_ns += ns;
  model->stats.decode_steps += decoded > 0;
  g_mutex_unlock (&model->lock);
  return true;
}

/* ---- the loop ---- */

static void
drop_cancelled (Scheduler *s)
{
  IvlModel *model = s->model;
  GQueue waiting = G_QUEUE_INIT;
  g_mutex_lock (&model->lock);
  for (GList *link = model->arrivals.head, *next; link; link = next) {
    next = link->next;
    if (g_atomic_int_get (&((IvlRequest *) link->data)->cancelled)) {
      g_queue_unlink (&model->arrivals, link);
      g_queue_push_tail_link (&waiting, link);
    }
  }
  g_mutex_unlock (&model->lock);
  for (IvlRequest *request; (request = g_queue_pop_head (&waiting));)
    finish (s, request, IVL_FINISH_CANCELLED, NULL);
  for (guint i = 0; i < s->active->len;) {
    IvlRequest *request = s->active->pdata[i];
    if (g_atomic_int_get (&request->cancelled))
      finish (s, request, IVL_FINISH_CANCELLED, NULL);
    else
      i++;
  }
}

void
ivl_scheduler_run (IvlModel *model)
{
  Scheduler s = { .model = model, .active = g_ptr_array_new () };
  for (bool quit = false; !quit;) {
    g_mutex_lock (&model->lock);
    guint64 seen = model->news;
    quit = model->halt;
    g_mutex_unlock (&model->lock);
    if (quit)
      break;
    take_up (&s);
    drop_cancelled (&s);
    if (run_forward (&s) || resolve_deadlock (&s))
      continue;
    g_mutex_lock (&model->lock);
    while (!model->quit && !model->halt && model->news == seen)
      g_cond_wait (&model->wake, &model->lock);
    quit = model->quit;
    g_mutex_unlock (&model->lock);
  }
  g_ptr_array_unref (s.active);
}
