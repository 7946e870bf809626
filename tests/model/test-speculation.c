/* Speculation: answers are those of a model that doesn't guess, whatever the question asks for, and guesses are counted.
 * That they are the reference's is in test-answers.c, that rows are bit by bit the same in test-batch.c. */
#include "ask.h"

#include <string.h>

#include "generate/draft.h"
#include "push.h"

typedef struct {
  IvlModel *plain, *guessing;
} Fixture;

static IvlModel *
load (gconstpointer name, IvlModelParams params)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *golden = golden_path ("..", "..", "models", "nano", NULL);
  g_autofree char *path = strcmp (name, "nano") == 0 ? g_steal_pointer (&golden) : golden_path ("models", name, NULL);
  IvlDevice *device = ivl_device_open (NULL, &error);
  g_assert_no_error (error);
  IvlModel *model = ivl_model_load (device, path, &params, NULL, &error);
  g_assert_no_error (error);
  ivl_device_unref (device);
  return model;
}

static void
set_up (Fixture *f, gconstpointer name)
{
  f->plain = load (name, (IvlModelParams){ .speculation = IVL_SPECULATION_OFF });
  f->guessing = load (name, (IvlModelParams){ .speculation = IVL_SPECULATION_ALWAYS });
}

static void
tear_down (Fixture *f, gconstpointer name)
{
  ivl_model_unref (f->plain);
  ivl_model_unref (f->guessing);
}

static void
assert_equal (const IvlAnswer *got, const IvlAnswer *want)
{
  g_assert_cmpstr (got->text, ==, want->text);
  g_assert_cmpint (got->finish, ==, want->finish);
  g_assert_cmpuint (got->generated_tokens, ==, want->generated_tokens);
  g_assert_cmpuint (got->prompt_tokens, ==, want->prompt_tokens);
  g_assert_true (got->confidence == want->confidence);
  g_assert_cmpuint (want->draft_tokens, ==, 0);
  g_assert_cmpuint (got->draft_tokens_held, <=, got->draft_tokens);
}

static IvlAnswer *
ask (IvlSession *session, const char *prompt, const IvlGenerateParams *params)
{
  g_autoptr (GError) error = NULL;
  IvlQuestion question = { .prompt = prompt, .params = *params };
  IvlAnswer *answer = ivl_session_ask (session, &question, &error);
  g_assert_no_error (error);
  return answer;
}

/* Each kind of question three times, the later times in view of the earlier answers, as conversations of two turns. */
static void
test_same (Fixture *f, gconstpointer name)
{
  static const char *const stop[] = { "e", NULL };
  static const IvlGenerateParams kinds[] = {
    { 40, 0.f, 1.f, 0, 0, 1.f, NULL },   { 1, 0.f, 1.f, 0, 0, 1.f, NULL },     { 2, 0.f, 1.f, 0, 0, 1.f, NULL },
    { 9, 0.f, 1.f, 0, 0, 1.f, NULL },    { 40, 0.f, 1.f, 0, 0, 1.3f, NULL },   { 40, 0.7f, 1.f, 0, 5, 1.f, NULL },
    { 40, 1.f, 0.9f, 20, 6, 1.1f, NULL }, { 40, 0.f, 1.f, 0, 0, 1.f, stop },
  };
  guint held = 0, guessed = 0;
  for (guint k = 0; k < G_N_ELEMENTS (kinds); k++)
    for (guint again = 0; again < 3; again++) {
      g_autoptr (GError) error = NULL;
      g_autoptr (IvlSession) plain = ivl_session_new (f->plain, &error), guessing = ivl_session_new (f->guessing, &error);
      static const char *const prompts[] = { "red red red red blue", "and then the red red red?" };
      for (guint turn = 0; turn < G_N_ELEMENTS (prompts); turn++) {
        g_autoptr (IvlAnswer) want = ask (plain, prompts[turn], &kinds[k]), got = ask (guessing, prompts[turn], &kinds[k]);
        assert_equal (got, want);
        held += got->draft_tokens_held;
        guessed += got->draft_tokens;
        /* The same seed again draws the same: all but the first token were said before. */
        if (again == 2 && kinds[k].max_tokens > 4 && got->generated_tokens > 4)
          g_assert_cmpuint (got->draft_tokens_held, >, 0);
        g_assert_cmpuint (got->draft_tokens_held, <=, got->generated_tokens);
      }
    }
  IvlModelStats stats;
  /* The last step is counted after its answer was handed out. */
  for (guint i = 0; i < 5000 && (ivl_model_get_stats (f->guessing, &stats), stats.draft_tokens != guessed); i++)
    g_usleep (1000);
  g_test_message ("%s: %u of %u guesses held", (const char *) name, held, guessed);
  g_assert_cmpuint (stats.draft_tokens, ==, guessed);
  g_assert_cmpuint (stats.draft_tokens_held, ==, held);
  ivl_model_get_stats (f->plain, &stats);
  g_assert_cmpuint (stats.draft_tokens, ==, 0);
}

static void
on_answer (IvlSession *session, IvlAnswer *answer, const GError *error, gpointer data)
{
  IvlAnswer **place = data;
  g_assert_no_error (error);
  *place = answer;
}

/* Side by side, with and without constraints, in a cache that is nearly full. */
static void
test_crowd (Fixture *f, gconstpointer name)
{
  static const char schema[] = "{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":3,\"maxItems\":6}";
  static const char *const choices[] = { "red", "reddish", "blue", NULL };
  IvlModel *tight = load (name, (IvlModelParams){ .speculation = IVL_SPECULATION_ALWAYS, .kv_bytes = 1 });
  IvlModel *models[] = { f->plain, f->guessing, tight };
  enum { N = 6 };
  IvlAnswer *answers[G_N_ELEMENTS (models)][N] = { { NULL } };
  for (guint m = 0; m < 2; m++)
    for (guint again = 0; again < 2; again++) {
      IvlSession *sessions[N];
      for (guint i = 0; i < N; i++) {
        g_autoptr (GError) error = NULL;
        sessions[i] = ivl_session_new (models[m], &error);
        IvlQuestion question = { .prompt = i % 2 ? "red red red red" : "What is it?", .params = IVL_GENERATE_PARAMS_INIT };
        question.params.max_tokens = 30 + i;
        if (i == 2)
          question.json_schema = schema;
        if (i == 3)
          question.choices = choices;
        g_clear_pointer (&answers[m][i], ivl_answer_free);
        g_assert_true (ivl_session_ask_async (sessions[i], &question, on_answer, &answers[m][i], &error));
      }
      /* A session answers one question at a time: the next one waits for what is under way. */
      for (guint i = 0; i < N; i++) {
        while (!g_atomic_pointer_get (&answers[m][i]))
          g_usleep (1000);
        ivl_session_unref (sessions[i]);
      }
    }
  for (guint i = 0; i < N; i++) {
    /* What runs beside may change last bits, and so the confidence; and the words only where two are as likely. */
    g_assert_cmpstr (answers[1][i]->text, ==, answers[0][i]->text);
    g_assert_cmpuint (answers[1][i]->generated_tokens, ==, answers[0][i]->generated_tokens);
    if (i == 2 || i == 3)
      g_assert_cmpuint (answers[1][i]->draft_tokens, ==, 0);
    ivl_answer_free (answers[0][i]);
    ivl_answer_free (answers[1][i]);
  }
  /* One page of cache: guesses must not take the room of what is known. */
  g_autoptr (GError) error = NULL;
  g_autoptr (IvlSession) a = ivl_session_new (tight, &error), b = ivl_session_new (f->plain, &error);
  IvlGenerateParams params = IVL_GENERATE_PARAMS_INIT;
  params.max_tokens = 2;
  IvlQuestion question = { .prompt = "a", .params = params, .system_prompt = "" };
  g_autoptr (IvlAnswer) got = ivl_session_ask (a, &question, &error);
  if (got) {
    g_autoptr (IvlAnswer) want = ivl_session_ask (b, &question, NULL);
    g_assert_cmpstr (got->text, ==, want->text);
  } else {
    g_assert_error (error, IVL_ERROR, IVL_ERROR_OUT_OF_MEMORY);
  }
  ivl_model_unref (tight);
}

/* ---- draft.c alone ---- */

static void
assert_guess (const IvlDraftMemory *memory, const guint32 *tokens, guint n, guint most, const guint32 *want, guint n_want)
{
  guint32 out[IVL_DRAFT_MAX + 1];
  out[most] = 12345;
  g_assert_cmpuint (ivl_draft_guess (memory, tokens, n, most, out), ==, n_want);
  g_assert_cmpint (memcmp (out, want, n_want * sizeof *want), ==, 0);
  g_assert_cmpuint (out[most], ==, 12345);
}

static void
test_guess (void)
{
  IvlDraftMemory memory;
  ivl_draft_memory_init (&memory);
  const guint32 image = IVL_TOKEN_IMAGE;
  const guint32 none[] = { 1 }, fresh[] = { 1, 2, 3, 4 };
  assert_guess (&memory, none, 0, 3, NULL, 0);
  assert_guess (&memory, none, 1, 3, NULL, 0);
  assert_guess (&memory, fresh, 4, 3, NULL, 0);
  /* One token is too little; two are enough; the latest of equals; the longest of all. */
  const guint32 once[] = { 5, 6, 7, 1, 6 }, twice[] = { 5, 6, 7, 5, 6, 8, 9, 5, 6 };
  assert_guess (&memory, once, 5, 3, NULL, 0);
  assert_guess (&memory, twice, 9, 3, (const guint32[]){ 8, 9, 5 }, 3);
  assert_guess (&memory, twice, 9, 1, (const guint32[]){ 8 }, 1);
  const guint32 longest[] = { 4, 5, 6, 7, 5, 6, 8, 4, 5, 6 };
  assert_guess (&memory, longest, 10, 2, (const guint32[]){ 7, 5 }, 2);
  /* A run at the end may overlap with what it is found in. */
  const guint32 same[] = { 3, 3, 3, 3 };
  assert_guess (&memory, same, 4, 3, (const guint32[]){ 3 }, 1);
  /* Pictures are no words. */
  const guint32 pictures[] = { 5, 6, image, image, image, 5, 6 }, behind[] = { image, image, 7, image, image };
  assert_guess (&memory, pictures, 7, 3, NULL, 0);
  assert_guess (&memory, behind, 5, 3, NULL, 0);
  /* What was said before, found by the end of the prompt. */
  const guint32 said[] = { 50, 51, 20, 21, 10, 11, 12 }, next[] = { 60, 20, 21 }, on[] = { 60, 20, 21, 10, 11 };
  ivl_draft_memory_add (&memory, said, 7, 4);
  assert_guess (&memory, next, 3, 4, (const guint32[]){ 10, 11, 12 }, 3);
  assert_guess (&memory, on, 5, 4, (const guint32[]){ 12 }, 1);
  g_autofree guint32 *many = g_new (guint32, 20000);
  for (guint i = 0; i < 20000; i++)
    many[i] = i;
  ivl_draft_memory_add (&memory, many, 20000, 3);
  g_assert_cmpuint (memory.tokens->len, <=, 8192);
  g_assert_cmpuint (g_array_index (memory.tokens, guint32, memory.tokens->len - 1), ==, 19999);
  ivl_draft_memory_deinit (&memory);
}

/* Where rows cost nothing all is guessed, where they cost as much as steps nothing; off when guesses don't hold. */
static void
test_pays (void)
{
  IvlDraftCosts costs;
  ivl_draft_costs_init (&costs, 0.1);
  g_assert_cmpuint (ivl_draft_choose (&costs, 0, 0., 1., 7), ==, 0); /* nothing is known yet */
  for (guint i = 0; i < 4; i++)
    ivl_draft_costs_note (&costs, 1, i ? 100. : 100000.); /* the first one compiles */
  g_assert_cmpuint (ivl_draft_choose (&costs, 0, 0., 1., 7), ==, 7);
  g_assert_cmpuint (ivl_draft_choose (&costs, 0, 0., 0.7, 7), >, 0);
  g_assert_cmpuint (ivl_draft_choose (&costs, 0, 0., 0.05, 7), ==, 0);
  g_assert_cmpuint (ivl_draft_choose (&costs, 0, 0., 1., 0), ==, 0);
  for (guint rows = 2; rows <= 8; rows++)
    for (guint i = 0; i < 4; i++)
      ivl_draft_costs_note (&costs, rows, 100. * rows);
  g_assert_cmpuint (ivl_draft_choose (&costs, 0, 0., 0.95, 7), ==, 0);
  /* What was dear once is tried again. */
  for (guint i = 0; i < 2000; i++)
    ivl_draft_costs_note (&costs, 1, 100.);
  g_assert_cmpuint (ivl_draft_choose (&costs, 0, 0., 0.95, 7), >, 0);
  /* More rows than anything was made for. */
  ivl_draft_costs_note (&costs, 100000, 1.);
  g_assert_cmpuint (ivl_draft_choose (&costs, 100000, 1., 1., 7), ==, 0);
  double rate = 0.5;
  for (guint i = 0; i < 200; i++)
    rate = ivl_draft_rate (rate, FALSE);
  g_assert_cmpfloat (rate, <, 0.01);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  static const char *const names[] = { "qwen2-ln-orig", "internlm2-rms-orig", "nano" };
  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    g_autofree char *same = g_strdup_printf ("/speculation/%s/same", names[i]);
    g_autofree char *crowd = g_strdup_printf ("/speculation/%s/crowd", names[i]);
    g_test_add (same, Fixture, names[i], set_up, test_same, tear_down);
    g_test_add (crowd, Fixture, names[i], set_up, test_crowd, tear_down);
  }
  g_test_add_func ("/speculation/guess", test_guess);
  g_test_add_func ("/speculation/pays", test_pays);
  return g_test_run ();
}
