/* Who shares a model takes turns: a client that asks a lot doesn't hold up one that asks little, and shares follow
 * priorities. Scheduler and encoder are held while questions queue up, so that the order of answers is known. */
#include "golden.h"

#include <internvl/internvl.h>
#include <string.h>

#define MAX_ASKED 32

typedef struct {
  IvlModel *model;
  IvlClient *busy, *other;
  GMutex lock;
  GCond changed;
  gboolean gate_reached, encoder_held, gate_open;
  guint n_asked, n_done;
  const IvlClient *order[MAX_ASKED]; /* of answers */
  guint64 tiles_at[MAX_ASKED];       /* encoded when it came */
  guint8 *rgb;
  guint side;
} Fixture;

static void
set_up (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *path = golden_path ("models", "qwen2-ln-orig", NULL);
  IvlDevice *device = ivl_device_open (NULL, &error);
  g_assert_no_error (error);
  f->model = ivl_model_load (device, path, &(IvlModelParams){ .max_sessions = GPOINTER_TO_UINT (data) }, NULL, &error);
  g_assert_no_error (error);
  ivl_device_unref (device);
  f->busy = ivl_client_new ();
  f->other = ivl_client_new ();
  g_mutex_init (&f->lock);
  g_cond_init (&f->changed);
  guint height;
  f->rgb = golden_picture ("square112", &f->side, &height);
}

static void
tear_down (Fixture *f, gconstpointer data)
{
  g_free (f->rgb);
  ivl_client_unref (f->busy);
  ivl_client_unref (f->other);
  g_mutex_clear (&f->lock);
  g_cond_clear (&f->changed);
  ivl_model_unref (f->model);
}

/* No two are alike: nothing of their prompts is shared. */
static IvlImage *
make (Fixture *f)
{
  g_autoptr (GError) error = NULL;
  IvlPicture picture;
  ivl_picture_init_rgb (&picture, f->rgb, f->side, f->side, 3 * f->side);
  IvlImage *image = ivl_image_new (f->model, &picture, 1, &error);
  g_assert_no_error (error);
  return image;
}

/* Holds the thread that comes here until open_gate; REACHED tells that it is there. */
static void
wait_at_gate (Fixture *f, gboolean *reached)
{
  g_mutex_lock (&f->lock);
  *reached = TRUE;
  g_cond_broadcast (&f->changed);
  while (!f->gate_open)
    g_cond_wait (&f->changed, &f->lock);
  g_mutex_unlock (&f->lock);
}

static void
on_gate_text (const char *piece, gpointer data)
{
  Fixture *f = data;
  wait_at_gate (f, &f->gate_reached);
}

static void
on_gate_done (IvlSession *session, IvlAnswer *answer, const GError *error, gpointer data)
{
  g_assert_no_error (error);
  ivl_answer_free (answer);
}

static void
on_gate_change (IvlImage *image, const IvlImageChange *change, const GError *error, gpointer data)
{
  Fixture *f = data;
  g_assert_no_error (error);
  wait_at_gate (f, &f->encoder_held);
}

/* Holds the scheduler and the encoder until open_gate. */
static void
close_gate (Fixture *f)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (IvlSession) session = ivl_session_new (f->model, &error);
  IvlQuestion question = { .prompt = "What is it?", .text_func = on_gate_text, .text_data = f,
                           .params = IVL_GENERATE_PARAMS_INIT };
  question.params.max_tokens = 4;
  g_autoptr (IvlImage) image = make (f);
  ivl_image_compare_async (image, NULL, on_gate_change, f);
  g_assert_true (ivl_session_ask_async (session, &question, on_gate_done, f, &error));
  g_mutex_lock (&f->lock);
  while (!f->gate_reached || !f->encoder_held)
    g_cond_wait (&f->changed, &f->lock);
  g_mutex_unlock (&f->lock);
}

static void
open_gate (Fixture *f)
{
  g_mutex_lock (&f->lock);
  f->gate_open = TRUE;
  g_cond_broadcast (&f->changed);
  while (f->n_done < f->n_asked)
    g_cond_wait (&f->changed, &f->lock);
  g_mutex_unlock (&f->lock);
}

typedef struct {
  Fixture *f;
  const IvlClient *client;
} Asked;

static void
on_answer (IvlSession *session, IvlAnswer *answer, const GError *error, gpointer data)
{
  Asked *asked = data;
  Fixture *f = asked->f;
  IvlModelStats stats;
  g_assert_no_error (error);
  ivl_answer_free (answer);
  ivl_model_get_stats (f->model, &stats);
  g_mutex_lock (&f->lock);
  f->tiles_at[f->n_done] = stats.tiles_encoded;
  f->order[f->n_done++] = asked->client;
  g_cond_broadcast (&f->changed);
  g_mutex_unlock (&f->lock);
  g_free (asked);
}

static void
ask (Fixture *f, IvlClient *client)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (IvlSession) session = ivl_session_new (f->model, &error);
  g_autoptr (IvlImage) image = make (f);
  IvlQuestion question = { .prompt = "What is it?", .images = &image, .n_images = 1,
                           .params = IVL_GENERATE_PARAMS_INIT };
  question.params.max_tokens = 2;
  Asked *asked = g_new (Asked, 1);
  *asked = (Asked){ f, client };
  ivl_session_set_client (session, client);
  g_assert_cmpuint (f->n_asked++, <, MAX_ASKED);
  g_assert_true (ivl_session_ask_async (session, &question, on_answer, asked, &error));
}

static guint
count (Fixture *f, const IvlClient *client, guint first_n)
{
  guint n = 0;
  for (guint i = 0; i < first_n; i++)
    n += f->order[i] == client;
  return n;
}

/* Eight questions wait when one comes that has two. */
static void
test_turns (Fixture *f, gconstpointer data)
{
  close_gate (f);
  for (guint i = 0; i < 8; i++)
    ask (f, f->busy);
  for (guint i = 0; i < 2; i++)
    ask (f, f->other);
  open_gate (f);
  g_assert_cmpuint (count (f, f->other, 4), ==, 2);
}

static void
test_priority (Fixture *f, gconstpointer data)
{
  ivl_client_set_priority (f->other, 2);
  close_gate (f);
  for (guint i = 0; i < 16; i++)
    ask (f, i % 2 ? f->other : f->busy);
  open_gate (f);
  /* Four to one, and the one isn't left out. */
  g_assert_cmpuint (count (f, f->other, 10), ==, 8);
  g_assert_cmpuint (count (f, f->busy, 5), >=, 1);
}

/* What was idle for long has no claim on all the time since. */
static void
test_rest (Fixture *f, gconstpointer data)
{
  for (guint i = 0; i < 6; i++)
    ask (f, f->busy);
  g_mutex_lock (&f->lock);
  while (f->n_done < f->n_asked)
    g_cond_wait (&f->changed, &f->lock);
  f->n_asked = f->n_done = 0;
  g_mutex_unlock (&f->lock);
  close_gate (f);
  for (guint i = 0; i < 6; i++)
    ask (f, f->other);
  for (guint i = 0; i < 2; i++)
    ask (f, f->busy);
  open_gate (f);
  g_assert_cmpuint (count (f, f->busy, 5), ==, 2);
}

/* Pictures that are asked for ahead of questions wait their turn as well, and tiles of both are encoded side by side. */
static void
test_encoder (Fixture *f, gconstpointer data)
{
  IvlImage *ahead[40];
  IvlModelStats before, stats;
  close_gate (f);
  ivl_model_get_stats (f->model, &before);
  for (guint i = 0; i < G_N_ELEMENTS (ahead); i++) {
    ahead[i] = make (f);
    ivl_image_prefetch (ahead[i], f->busy);
  }
  ask (f, f->other);
  open_gate (f);
  g_assert_cmpuint (f->tiles_at[0] - before.tiles_encoded, <, G_N_ELEMENTS (ahead));
  for (guint i = 0; i < 2; i++)
    ask (f, f->busy);
  open_gate (f);
  ivl_model_get_stats (f->model, &stats);
  g_assert_cmpuint (stats.tiles_encoded - before.tiles_encoded, ==, G_N_ELEMENTS (ahead) + 3);
  g_assert_cmpuint (stats.encode_batches - before.encode_batches, <=, G_N_ELEMENTS (ahead) / 4);
  for (guint i = 0; i < G_N_ELEMENTS (ahead); i++)
    ivl_image_unref (ahead[i]);
}

/* ---- prompts beside answers ---- */

typedef struct {
  Fixture *f;
  gint pieces;          /* of the answer that is being written */
  gint at_first;        /* so many there were when the long prompt's answer began */
  gint n_done;
  guint prompt_tokens;
} Beside;

static void
on_written (const char *piece, gpointer data)
{
  Beside *beside = data;
  if (beside->pieces++ == 0)
    on_gate_text (piece, beside->f);
}

static void
on_begun (const char *piece, gpointer data)
{
  Beside *beside = data;
  if (!beside->at_first)
    beside->at_first = beside->pieces;
}

static void
on_both_done (IvlSession *session, IvlAnswer *answer, const GError *error, gpointer data)
{
  Beside *beside = data;
  g_assert_no_error (error);
  g_mutex_lock (&beside->f->lock);
  beside->prompt_tokens = MAX (beside->prompt_tokens, answer->prompt_tokens - answer->prompt_tokens_reused);
  beside->n_done++;
  g_cond_broadcast (&beside->f->changed);
  g_mutex_unlock (&beside->f->lock);
  ivl_answer_free (answer);
}

/* An answer goes on, a token a piece, while a long prompt is read in pieces beside it. */
static void
test_prefill (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (IvlSession) writer = ivl_session_new (f->model, &error), reader = ivl_session_new (f->model, &error);
  Beside beside = { .f = f };
  IvlQuestion question = { .prompt = "What is it?", .text_func = on_written, .text_data = &beside,
                           .params = IVL_GENERATE_PARAMS_INIT };
  question.json_schema = "{\"type\": \"array\", \"items\": {\"type\": \"boolean\"}, \"minItems\": 100, \"maxItems\": 100}";
  question.params.max_tokens = 800;
  g_assert_true (ivl_session_ask_async (writer, &question, on_both_done, &beside, &error));
  g_mutex_lock (&f->lock);
  while (!f->gate_reached)
    g_cond_wait (&f->changed, &f->lock);
  g_mutex_unlock (&f->lock);

  g_autoptr (GString) prompt = g_string_new (NULL);
  for (guint i = 0; i < 200; i++)
    g_string_append_printf (prompt, "word %u, ", i);
  IvlQuestion other = { .prompt = prompt->str, .text_func = on_begun, .text_data = &beside,
                        .params = IVL_GENERATE_PARAMS_INIT };
  other.json_schema = "{\"type\": \"boolean\"}";
  other.params.max_tokens = 8;
  g_assert_true (ivl_session_ask_async (reader, &other, on_both_done, &beside, &error));
  g_mutex_lock (&f->lock);
  f->gate_open = TRUE;
  g_cond_broadcast (&f->changed);
  while (beside.n_done < 2)
    g_cond_wait (&f->changed, &f->lock);
  g_mutex_unlock (&f->lock);
  g_test_message ("%u prompt tokens, %d tokens meanwhile", beside.prompt_tokens, beside.at_first);
  g_assert_cmpuint (beside.prompt_tokens, >, 600);
  /* 256 tokens of the prompt at a time, see scheduler.c; 128 on slow devices. */
  g_assert_cmpint (beside.at_first, >=, (gint) (beside.prompt_tokens / 256));
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  /* One at a time, so that the order of answers is that of the turns. */
  g_test_add ("/fair/turns", Fixture, GUINT_TO_POINTER (1), set_up, test_turns, tear_down);
  g_test_add ("/fair/priority", Fixture, GUINT_TO_POINTER (1), set_up, test_priority, tear_down);
  g_test_add ("/fair/rest", Fixture, GUINT_TO_POINTER (1), set_up, test_rest, tear_down);
  g_test_add ("/fair/encoder", Fixture, GUINT_TO_POINTER (4), set_up, test_encoder, tear_down);
  g_test_add ("/fair/prefill", Fixture, GUINT_TO_POINTER (4), set_up, test_prefill, tear_down);
  return g_test_run ();
}
