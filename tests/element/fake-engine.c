#include "fake-engine.h"

#include <stdlib.h>
#include <string.h>

#define PATIENCE (60 * G_TIME_SPAN_SECOND)

struct IvlDevice
{
  gatomicrefcount refs;
};

struct IvlModel
{
  gatomicrefcount refs;
  char *path, *name, *key;      /* key: of a shared one */
  IvlModelStats stats;
  GThread *thread;
  GQueue questions;             /* of Question */
  GQueue changes;               /* of Change */
  gboolean quit;
};

struct IvlImage
{
  gatomicrefcount refs;
  guint8 color[3];              /* of the one that stands in, if reused */
  IvlModel *model;              /* borrowed */
  float threshold;
  gboolean reused, used, compared;
  guint max_tiles;
};

struct IvlSession
{
  gatomicrefcount refs;
  IvlModel *model;              /* borrowed, so that its thread never has the last reference */
  IvlClient *client;            /* borrowed: the worker's lives longer */
  gboolean busy, cancelled;
};

typedef struct
{
  IvlSession *session;
  guint index;
  gboolean begun;               /* its first word was told */
  GPtrArray *images;
  IvlAnswerFunc done;
  IvlTextFunc text_func;
  gpointer user_data, text_data;
} Question;

typedef struct
{
  IvlImage *image;
  IvlImageChange change;
  IvlChangeFunc done;
  gpointer user_data;
} Change;

static GMutex lock;
static GCond changed;
static GHashTable *shared;      /* key -> IvlModel, borrowed */
static gboolean initialised;

static struct
{
  char *answer;
  gboolean hold_loading, hold_answers, hold_images, hold_changes;
  gboolean changes_when_freed;
  guint changes_left;
  guint permits;
  guint delay_ms, load_ms;
  struct
  {
    gboolean set;
    IvlErrorCode code;
    guint after;
  } failures[FAKE_STAGES];
  GPtrArray *questions;         /* of FakeQuestion */
  FakeCounts counts;
  guint at_once;
} fake;

static const char *
env (const char *name, const char *fallback)
{
  const char *value = g_getenv (name);

  return value ? value : fallback;
}

static void
fake_question_free (gpointer data)
{
  FakeQuestion *question = data;

  g_free (question->prompt);
  g_free (question->system_prompt);
  g_free (question->json_schema);
  g_strfreev (question->choices);
  g_free (question);
}

/* With the lock. */
static void
init (void)
{
  if (initialised)
    return;
  initialised = TRUE;
  shared = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  fake.answer = g_strdup (env ("FAKE_INTERNVL_ANSWER", "{n} frames {colors}"));
  fake.delay_ms = atoi (env ("FAKE_INTERNVL_DELAY_MS", "0"));
  fake.load_ms = atoi (env ("FAKE_INTERNVL_LOAD_MS", "0"));
  fake.questions = g_ptr_array_new_with_free_func (fake_question_free);
}

static void
enter (void)
{
  g_mutex_lock (&lock);
  init ();
}

static void
leave (void)
{
  g_cond_broadcast (&changed);
  g_mutex_unlock (&lock);
}

GQuark
ivl_error_quark (void)
{
  return g_quark_from_static_string ("ivl-error-quark");
}

/* ---- the test's side ---- */

void
fake_engine_reset (void)
{
  enter ();
  FakeCounts *c = &fake.counts;
  if (c->devices_alive || c->models_alive || c->images_alive || c->sessions_alive || c->answers_alive)
    g_error ("alive: %u devices, %u models, %u images, %u sessions, %u answers", c->devices_alive, c->models_alive,
        c->images_alive, c->sessions_alive, c->answers_alive);
  g_free (fake.answer);
  g_ptr_array_unref (fake.questions);
  memset (&fake, 0, sizeof fake);
  g_hash_table_unref (shared);
  initialised = FALSE;
  init ();
  leave ();
}

void
fake_engine_set_answer (const char *answer)
{
  enter ();
  g_free (fake.answer);
  fake.answer = g_strdup (answer);
  leave ();
}

void
fake_engine_hold_loading (gboolean hold)
{
  enter ();
  fake.hold_loading = hold;
  leave ();
}

void
fake_engine_hold_answers (gboolean hold)
{
  enter ();
  fake.hold_answers = hold;
  fake.permits = 0;
  leave ();
}

void
fake_engine_release_answers (guint count)
{
  enter ();
  fake.permits += count;
  leave ();
}

void
fake_engine_hold_images (gboolean hold)
{
  enter ();
  fake.hold_images = hold;
  leave ();
}

void
fake_engine_hold_changes (gboolean hold)
{
  enter ();
  fake.hold_changes = hold;
  leave ();
}

void
fake_engine_hold_changes_until_freed (void)
{
  enter ();
  fake.hold_changes = fake.changes_when_freed = TRUE;
  leave ();
}

void
fake_engine_fail (FakeStage stage, IvlErrorCode code, guint after)
{
  enter ();
  fake.failures[stage].set = TRUE;
  fake.failures[stage].code = code;
  fake.failures[stage].after = after;
  leave ();
}

static void
wait_for (const guint *counter, guint count, const char *what)
{
  gint64 end = g_get_monotonic_time () + PATIENCE;

  enter ();
  while (*counter < count)
    if (!g_cond_wait_until (&changed, &lock, end))
      g_error ("waited for %u %s in vain, there are %u", count, what, *counter);
  leave ();
}

void
fake_engine_wait_changes (guint count)
{
  wait_for (&fake.changes_left, count, "comparisons");
}

void
fake_engine_wait_loading (guint count)
{
  wait_for (&fake.counts.loads, count, "loads");
}

void
fake_engine_wait_asked (guint count)
{
  wait_for (&fake.counts.questions, count, "questions");
}

void
fake_engine_wait_answered (guint count)
{
  wait_for (&fake.counts.answers, count, "answers");
}

void
fake_engine_wait_images (guint count)
{
  wait_for (&fake.counts.images, count, "images");
}

const FakeQuestion *
fake_engine_get_question (guint i)
{
  enter ();
  g_assert_cmpuint (i, <, fake.questions->len);
  const FakeQuestion *question = g_ptr_array_index (fake.questions, i);
  leave ();
  return question;
}

void
fake_engine_get_counts (FakeCounts *counts)
{
  enter ();
  *counts = fake.counts;
  leave ();
}

/* With the lock. */
static gboolean
fails (FakeStage stage, GError **error)
{
  if (!fake.failures[stage].set || fake.failures[stage].after-- > 0)
    return FALSE;
  fake.failures[stage].set = FALSE;
  g_set_error (error, IVL_ERROR, fake.failures[stage].code, "made to fail at stage %d", stage);
  return TRUE;
}

/* ---- device and model ---- */

IvlDevice *
ivl_device_open (const char *name, GError **error)
{
  IvlDevice *device = NULL;

  if (!name || !*name)
    name = env ("INTERNVL_DEVICE", "cpu");
  enter ();
  if (fails (FAKE_DEVICE, error)) {
    /* said why */
  } else if (strcmp (name, "cpu") && strcmp (name, "gpu") && strcmp (name, "0")) {
    g_set_error (error, IVL_ERROR, IVL_ERROR_NO_DEVICE, "no Vulkan device is called \"%s\"", name);
  } else {
    device = g_new0 (IvlDevice, 1);
    g_atomic_ref_count_init (&device->refs);
    fake.counts.devices_alive++;
  }
  leave ();
  return device;
}

IvlDevice *
ivl_device_ref (IvlDevice *device)
{
  g_atomic_ref_count_inc (&device->refs);
  return device;
}

void
ivl_device_unref (IvlDevice *device)
{
  if (!device || !g_atomic_ref_count_dec (&device->refs))
    return;
  enter ();
  fake.counts.devices_alive--;
  leave ();
  g_free (device);
}

const char *
ivl_device_get_name (IvlDevice *device)
{
  return "Fake device";
}

char **
ivl_device_list (GError **error)
{
  return g_strsplit ("Fake device", ",", -1);
}

static gpointer scheduler (gpointer data);

static gboolean
check_folder (const char *path, GError **error)
{
  g_autofree char *file = g_build_filename (path, "config.json", NULL);
  g_autofree char *content = NULL;

  if (!g_file_get_contents (file, &content, NULL, NULL)) {
    g_set_error (error, IVL_ERROR, IVL_ERROR_IO, "%s can't be read", file);
    return FALSE;
  }
  if (content[0] != '{') {
    g_set_error (error, IVL_ERROR, IVL_ERROR_BAD_MODEL, "%s is not JSON", file);
    return FALSE;
  }
  return TRUE;
}

static void
wake (GCancellable *cancellable, gpointer data)
{
  enter ();
  leave ();
}

IvlModel *
ivl_model_load (IvlDevice *device, const char *path, const IvlModelParams *params, GCancellable *cancellable,
    GError **error)
{
  IvlModel *model = NULL;
  gulong id = cancellable ? g_cancellable_connect (cancellable, G_CALLBACK (wake), NULL, NULL) : 0;

  enter ();
  fake.counts.loads++;
  fake.counts.weights = params ? params->weights : IVL_WEIGHTS_AUTO;
  g_cond_broadcast (&changed);
  gint64 end = g_get_monotonic_time () + fake.load_ms * G_TIME_SPAN_MILLISECOND;
  while (!g_cancellable_is_cancelled (cancellable) && (fake.hold_loading || g_get_monotonic_time () < end))
    g_cond_wait_until (&changed, &lock, fake.hold_loading ? g_get_monotonic_time () + PATIENCE : end);

  if (g_cancellable_is_cancelled (cancellable)) {
    g_set_error (error, IVL_ERROR, IVL_ERROR_CANCELLED, "loading was cancelled");
  } else if (!fails (FAKE_LOAD, error) && check_folder (path, error)) {
    model = g_new0 (IvlModel, 1);
    g_atomic_ref_count_init (&model->refs);
    model->path = g_strdup (path);
    model->name = g_path_get_basename (path);
    g_queue_init (&model->questions);
    g_queue_init (&model->changes);
    fake.counts.models_alive++;
    model->thread = g_thread_new ("fake-engine", scheduler, model);
  }
  leave ();
  if (cancellable)
    g_cancellable_disconnect (cancellable, id);
  return model;
}

IvlModel *
ivl_model_share (const char *device_name, const char *path, const IvlModelParams *params, GCancellable *cancellable,
    GError **error)
{
  g_autofree char *key = g_strdup_printf ("%s\n%s\n%d", device_name ? device_name : "", path,
      params ? (int) params->weights : 0);

  gulong id = cancellable ? g_cancellable_connect (cancellable, G_CALLBACK (wake), NULL, NULL) : 0;
  gpointer found = NULL;

  /* Who comes while another loads it waits, as with the real one. */
  enter ();
  while (g_hash_table_lookup_extended (shared, key, NULL, &found) && !found && !g_cancellable_is_cancelled (cancellable))
    g_cond_wait_until (&changed, &lock, g_get_monotonic_time () + PATIENCE);
  IvlModel *model = found;
  gboolean cancelled = !model && g_hash_table_contains (shared, key);
  if (model)
    ivl_model_ref (model);
  else if (!cancelled)
    g_hash_table_insert (shared, g_strdup (key), NULL);
  leave ();
  if (cancellable)
    g_cancellable_disconnect (cancellable, id);
  if (cancelled)
    g_set_error (error, IVL_ERROR, IVL_ERROR_CANCELLED, "loading was cancelled");
  if (model || cancelled)
    return model;

  IvlDevice *device = ivl_device_open (device_name, error);
  if (device)
    model = ivl_model_load (device, path, params, cancellable, error);
  ivl_device_unref (device);
  enter ();
  if (model) {
    model->key = g_strdup (key);
    g_hash_table_insert (shared, g_strdup (key), model);
  } else {
    g_hash_table_remove (shared, key);
  }
  leave ();
  return model;
}

IvlModel *
ivl_model_ref (IvlModel *model)
{
  g_atomic_ref_count_inc (&model->refs);
  return model;
}

void
ivl_model_unref (IvlModel *model)
{
  if (!model)
    return;
  enter ();
  gboolean last = g_atomic_ref_count_dec (&model->refs);
  if (last) {
    /* Somebody may have loaded another under the same name at the same time. */
    if (model->key && g_hash_table_lookup (shared, model->key) == model)
      g_hash_table_remove (shared, model->key);
    model->quit = TRUE;
    fake.counts.models_alive--;
  }
  leave ();
  if (!last)
    return;
  g_assert (model->thread != g_thread_self ());
  g_thread_join (model->thread);
  g_free (model->path);
  g_free (model->name);
  g_free (model->key);
  g_free (model);
}

void
ivl_model_get_info (IvlModel *model, IvlModelInfo *info)
{
  *info = (IvlModelInfo) { model->name, "none", 448, 256, 8192, 1000, 1 << 20 };
}

void
ivl_model_get_stats (IvlModel *model, IvlModelStats *stats)
{
  enter ();
  *stats = model->stats;
  leave ();
}

/* ---- pictures ---- */

IvlImage *
ivl_image_new (IvlModel *model, const IvlPicture *picture, guint max_tiles, GError **error)
{
  return ivl_image_new_after (model, picture, max_tiles, NULL, 0, error);
}

static gint
difference_of (const IvlImage *a, const IvlImage *b)
{
  gint difference = 0;

  for (guint i = 0; i < 3; i++)
    difference = MAX (difference, ABS (a->color[i] - b->color[i]));
  return difference;
}

/* With the lock. */
static void
set_previous (IvlImage *image, const IvlImage *previous)
{
  if (!previous || difference_of (image, previous) >= image->threshold)
    return;
  memcpy (image->color, previous->color, sizeof image->color);
  image->reused = TRUE;
}

void
ivl_image_set_previous (IvlImage *image, IvlImage *previous)
{
  enter ();
  set_previous (image, previous);
  leave ();
}

/* Of one colour, so that it is all another or not at all; how much by how much lighter it is. */
void
ivl_image_compare_async (IvlImage *image, IvlImage *previous, IvlChangeFunc done, gpointer user_data)
{
  Change *change = g_new0 (Change, 1);

  enter ();
  g_assert (!image->used && !image->compared && (!previous || previous->compared));
  image->compared = TRUE;
  gint difference = previous ? difference_of (image, previous) : 255;
  change->image = ivl_image_ref (image);
  change->change = (IvlImageChange) { difference, difference / 255.f };
  change->done = done;
  change->user_data = user_data;
  g_queue_push_tail (&image->model->changes, change);
  fake.changes_left++;
  leave ();
}

IvlImage *
ivl_image_new_after (IvlModel *model, const IvlPicture *picture, guint max_tiles, IvlImage *previous, float threshold,
    GError **error)
{
  IvlImage *image = NULL;

  enter ();
  while (fake.hold_images)
    g_cond_wait (&changed, &lock);
  if (!fails (FAKE_IMAGE, error)) {
    image = g_new0 (IvlImage, 1);
    g_atomic_ref_count_init (&image->refs);
    image->max_tiles = max_tiles;
    fake_picture_mean (picture, image->color);
    image->model = model;
    image->threshold = threshold;
    set_previous (image, previous);
    fake.counts.images++;
    fake.counts.images_alive++;
  }
  leave ();
  return image;
}

gboolean
ivl_image_is_reused (IvlImage *image)
{
  enter ();
  g_assert (image->used);
  gboolean reused = image->reused;
  leave ();
  return reused;
}

IvlImage *
ivl_image_ref (IvlImage *image)
{
  g_atomic_ref_count_inc (&image->refs);
  return image;
}

void
ivl_image_unref (IvlImage *image)
{
  if (!image || !g_atomic_ref_count_dec (&image->refs))
    return;
  enter ();
  fake.counts.images_alive--;
  leave ();
  g_free (image);
}

void
ivl_image_prefetch (IvlImage *image, IvlClient *client)
{
  enter ();
  fake.counts.prefetches++;
  leave ();
}

/* ---- clients ---- */

struct IvlClient
{
  gatomicrefcount refs;
  gint priority;
};

IvlClient *
ivl_client_new (void)
{
  IvlClient *client = g_new0 (IvlClient, 1);

  g_atomic_ref_count_init (&client->refs);
  return client;
}

IvlClient *
ivl_client_ref (IvlClient *client)
{
  g_atomic_ref_count_inc (&client->refs);
  return client;
}

void
ivl_client_unref (IvlClient *client)
{
  if (client && g_atomic_ref_count_dec (&client->refs))
    g_free (client);
}

void
ivl_client_set_priority (IvlClient *client, gint priority)
{
  enter ();
  client->priority = priority;
  leave ();
}

void
ivl_session_set_client (IvlSession *session, IvlClient *client)
{
  enter ();
  session->client = client;
  leave ();
}

guint
ivl_image_get_n_tiles (IvlImage *image)
{
  return 1;
}

/* ---- questions ---- */

IvlSession *
ivl_session_new (IvlModel *model, GError **error)
{
  IvlSession *session = NULL;

  enter ();
  if (!fails (FAKE_SESSION, error)) {
    session = g_new0 (IvlSession, 1);
    g_atomic_ref_count_init (&session->refs);
    session->model = model;
    fake.counts.sessions_alive++;
  }
  leave ();
  return session;
}

IvlSession *
ivl_session_ref (IvlSession *session)
{
  g_atomic_ref_count_inc (&session->refs);
  return session;
}

void
ivl_session_unref (IvlSession *session)
{
  if (!session || !g_atomic_ref_count_dec (&session->refs))
    return;
  enter ();
  fake.counts.sessions_alive--;
  leave ();
  g_free (session);
}

void
ivl_answer_free (IvlAnswer *answer)
{
  if (!answer)
    return;
  enter ();
  fake.counts.answers_alive--;
  if (fake.changes_when_freed) {
    fake.hold_changes = fake.changes_when_freed = FALSE;
    g_cond_broadcast (&changed);
    while (fake.changes_left)
      g_cond_wait (&changed, &lock);
  }
  leave ();
  g_free (answer->text);
  g_free (answer->choice_probabilities);
  g_free (answer);
}

gboolean
ivl_session_ask_async (IvlSession *session, const IvlQuestion *question, IvlAnswerFunc done, gpointer user_data,
    GError **error)
{
  gboolean ok = FALSE;

  enter ();
  if (fails (FAKE_ASK, error)) {
    /* said why */
  } else if (session->busy) {
    g_set_error (error, IVL_ERROR, IVL_ERROR_BAD_ARGUMENT, "a question is under way");
  } else if (!g_utf8_validate (question->prompt, -1, NULL)) {
    g_set_error (error, IVL_ERROR, IVL_ERROR_BAD_ARGUMENT, "the prompt is not valid UTF-8");
  } else {
    Question *q = g_new0 (Question, 1);
    FakeQuestion *record = g_new0 (FakeQuestion, 1);

    q->session = session;
    g_atomic_ref_count_inc (&session->refs);
    q->index = fake.questions->len;
    q->images = g_ptr_array_new_with_free_func ((GDestroyNotify) ivl_image_unref);
    for (guint i = 0; i < question->n_images; i++)
      g_ptr_array_add (q->images, ivl_image_ref (question->images[i]));
    q->done = done;
    q->user_data = user_data;
    q->text_func = question->text_func;
    q->text_data = question->text_data;
    record->n_images = question->n_images;
    record->max_tiles = question->n_images ? question->images[0]->max_tiles : 0;
    record->prompt = g_strdup (question->prompt);
    record->system_prompt = g_strdup (question->system_prompt);
    record->json_schema = g_strdup (question->json_schema);
    record->choices = g_strdupv ((char **) question->choices);
    record->params = question->params;
    record->priority = session->client ? session->client->priority : 0;
    record->media = question->media;
    g_ptr_array_add (fake.questions, record);
    g_queue_push_tail (&session->model->questions, q);
    session->busy = TRUE;
    session->cancelled = FALSE;
    fake.counts.questions++;
    fake.at_once++;
    fake.counts.most_at_once = MAX (fake.counts.most_at_once, fake.at_once);
    ok = TRUE;
  }
  leave ();
  return ok;
}

void
ivl_session_cancel (IvlSession *session)
{
  enter ();
  if (session->busy && !session->cancelled) {
    session->cancelled = TRUE;
    fake.counts.cancels++;
  }
  leave ();
}

gboolean
ivl_session_reset (IvlSession *session, GError **error)
{
  return TRUE;
}

typedef struct
{
  GMutex lock;
  GCond cond;
  gboolean done;
  IvlAnswer *answer;
  GError *error;
} Blocking;

static void
blocking_done (IvlSession *session, IvlAnswer *answer, const GError *error, gpointer user_data)
{
  Blocking *blocking = user_data;

  g_mutex_lock (&blocking->lock);
  blocking->answer = answer;
  blocking->error = error ? g_error_copy (error) : NULL;
  blocking->done = TRUE;
  g_cond_signal (&blocking->cond);
  g_mutex_unlock (&blocking->lock);
}

IvlAnswer *
ivl_session_ask (IvlSession *session, const IvlQuestion *question, GError **error)
{
  Blocking blocking = { 0 };

  g_mutex_init (&blocking.lock);
  g_cond_init (&blocking.cond);
  if (ivl_session_ask_async (session, question, blocking_done, &blocking, error)) {
    g_mutex_lock (&blocking.lock);
    while (!blocking.done)
      g_cond_wait (&blocking.cond, &blocking.lock);
    g_mutex_unlock (&blocking.lock);
    if (blocking.error)
      g_propagate_error (error, blocking.error);
  }
  g_mutex_clear (&blocking.lock);
  g_cond_clear (&blocking.cond);
  return blocking.answer;
}

static char *
write_answer (const Question *q, const FakeQuestion *record)
{
  GString *out = g_string_new (fake.answer);
  g_autofree char *n = g_strdup_printf ("%u", q->images->len), *i = g_strdup_printf ("%u", q->index);
  GString *colors = g_string_new (NULL);

  for (guint k = 0; k < q->images->len; k++) {
    IvlImage *image = g_ptr_array_index (q->images, k);
    image->used = TRUE;
    g_string_append_printf (colors, "%s#%02x%02x%02x", k ? " " : "", image->color[0], image->color[1],
        image->color[2]);
  }
  g_string_replace (out, "{n}", n, 0);
  g_string_replace (out, "{i}", i, 0);
  g_string_replace (out, "{colors}", colors->str, 0);
  g_string_replace (out, "{prompt}", record->prompt, 0);
  g_string_free (colors, TRUE);
  return g_string_free (out, FALSE);
}

/* With the lock. The first question that may end now: cancelled, or let through. */
static GList *
find_ready (IvlModel *model)
{
  for (GList *l = model->questions.head; l; l = l->next) {
    Question *q = l->data;
    if (q->session->cancelled || model->quit)
      return l;
  }
  return fake.hold_answers && fake.permits == 0 ? NULL : model->questions.head;
}

/* The first word of each answer, whether it may end or not. With the lock, which is let go of meanwhile. */
static void
tell_first_words (IvlModel *model)
{
  for (GList *l = model->questions.head; l; l = l->next) {
    Question *q = l->data;

    if (q->begun || !q->text_func)
      continue;
    q->begun = TRUE;
    g_autofree char *text = write_answer (q, g_ptr_array_index (fake.questions, q->index));
    text[strcspn (text, " ")] = '\0';
    g_mutex_unlock (&lock);
    q->text_func (text, q->text_data);
    g_mutex_lock (&lock);
  }
}

/* With the lock, which is let go of meanwhile. */
static void
tell_changes (IvlModel *model)
{
  Change *change;

  while (!fake.hold_changes && (change = g_queue_pop_head (&model->changes))) {
    g_autoptr (GError) error = NULL;
    gboolean ok = !fails (FAKE_CHANGE, &error);
    g_mutex_unlock (&lock);
    change->done (change->image, ok ? &change->change : NULL, error, change->user_data);
    ivl_image_unref (change->image);
    g_free (change);
    g_mutex_lock (&lock);
    fake.changes_left--;
    g_cond_broadcast (&changed);
  }
}

static gpointer
scheduler (gpointer data)
{
  IvlModel *model = data;

  enter ();
  for (;;) {
    tell_changes (model);
    tell_first_words (model);
    GList *link = find_ready (model);

    if (!link) {
      if (model->quit)
        break;
      g_cond_wait (&changed, &lock);
      continue;
    }
    Question *q = link->data;
    FakeQuestion *record = g_ptr_array_index (fake.questions, q->index);
    gint64 end = g_get_monotonic_time () + fake.delay_ms * G_TIME_SPAN_MILLISECOND;
    g_queue_delete_link (&model->questions, link);
    while (!q->session->cancelled && !model->quit && g_get_monotonic_time () < end)
      g_cond_wait_until (&changed, &lock, end);

    g_autoptr (GError) error = NULL;
    IvlAnswer *answer = NULL;
    record->cancelled = q->session->cancelled;
    if (!record->cancelled && fake.hold_answers)
      fake.permits--;
    if (model->quit) {
      g_set_error (&error, IVL_ERROR, IVL_ERROR_CANCELLED, "the model is gone");
    } else if (record->cancelled || !fails (FAKE_ANSWER, &error)) {
      answer = g_new0 (IvlAnswer, 1);
      answer->text = write_answer (q, record);
      answer->choice = -1;
      if (record->choices && !record->cancelled) {
        answer->n_choices = g_strv_length (record->choices);
        answer->choice = q->images->len % answer->n_choices;
        answer->choice_probabilities = g_new (double, answer->n_choices);
        for (guint i = 0; i < answer->n_choices; i++)
          answer->choice_probabilities[i] = i == (guint) answer->choice ? 0.75 : 0.25 / (answer->n_choices - 1);
        g_free (answer->text);
        answer->text = g_strdup (record->choices[answer->choice]);
      }
      answer->finish = record->cancelled ? IVL_FINISH_CANCELLED : IVL_FINISH_STOP;
      answer->prompt_tokens = 256 * q->images->len + 10;
      answer->generated_tokens = 5;
      answer->prompt_tokens_reused = 7;
      answer->draft_tokens = 4;
      answer->draft_tokens_held = 3;
      answer->confidence = 0.5;
      answer->encode_ns = 1000000;
      answer->prefill_ns = 2000000;
      answer->decode_ns = 5000000;
      record->finish = answer->finish;
      fake.counts.answers_alive++;
      model->stats.generated_tokens += 5;
    }
    q->session->busy = FALSE;
    fake.at_once--;
    g_mutex_unlock (&lock);

    if (answer && q->text_func)
      q->text_func (answer->text + strcspn (answer->text, " "), q->text_data);
    q->done (q->session, answer, error, q->user_data);

    g_mutex_lock (&lock);
    GPtrArray *images = q->images;
    IvlSession *session = q->session;
    g_free (q);
    fake.counts.answers++;
    leave ();
    g_ptr_array_unref (images);
    ivl_session_unref (session);
    enter ();
  }
  leave ();
  return NULL;
}
