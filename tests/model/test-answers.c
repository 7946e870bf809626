/* Whole conversations through the public API against the reference: the text of every answer of every golden case,
 * its length, why it ended, how sure it was. Pictures, template, tokenizer, both models, sampling and stops at once. */
#include "ask.h"

typedef struct {
  const char *name;
  IvlModelParams params;
} Run;

static void
check_case (IvlModel *model, const char *name, JsonObject *c)
{
  /* A penalty over the whole context is checked with the sampler. */
  if (!golden_case_is_askable (c))
    return;
  g_autoptr (GError) error = NULL;
  IvlSession *session = ivl_session_new (model, &error);
  g_assert_no_error (error);
  for (guint i = 0; i < json_array_get_length (json_object_get_array_member (c, "turns")); i++) {
    g_test_message ("%s/%s turn %u", name, json_object_get_string_member (c, "name"), i);
    GoldenQuestion q;
    golden_question_init (&q, model, c, i);
    IvlAnswer *answer = ivl_session_ask (session, &q.question, &error);
    g_assert_no_error (error);
    /* A second turn must find the first in the cache: that its answer is right says that it may. */
    if (i > 0)
      g_assert_cmpuint (answer->prompt_tokens_reused, >, 0);
    golden_question_check (&q, answer);
    golden_question_clear (&q);
  }
  ivl_session_unref (session);
}

static void
test_answers (gconstpointer data)
{
  const Run *run = data;
  g_autoptr (Golden) golden = golden_open (run->name);
  IvlModel *model = golden_load (golden, &run->params);
  JsonArray *cases = json_object_get_array_member (golden->root, "cases");
  /* Once more where the first answers are guesses for the second. */
  for (guint again = 0; again < (run->params.speculation == IVL_SPECULATION_ALWAYS ? 2 : 1); again++)
    for (guint i = 0; i < json_array_get_length (cases); i++)
      check_case (model, run->name, json_array_get_object_element (cases, i));
  IvlModelStats stats;
  ivl_model_get_stats (model, &stats);
  if (run->params.speculation == IVL_SPECULATION_ALWAYS) {
    g_test_message ("%s: %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT " guesses held, %" G_GUINT64_FORMAT " tokens in %"
                    G_GUINT64_FORMAT " steps", run->name, stats.draft_tokens_held, stats.draft_tokens,
                    stats.generated_tokens, stats.decode_steps);
    g_assert_cmpuint (stats.draft_tokens_held, >, 0);
    g_assert_cmpuint (stats.draft_tokens_held, <=, stats.draft_tokens);
    g_assert_cmpuint (stats.generated_tokens, ==, stats.decode_steps + stats.draft_tokens_held);
  } else {
    g_assert_cmpuint (stats.generated_tokens, >=, stats.decode_steps);
  }
  ivl_model_unref (model);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_auto (GStrv) names = golden_names ();
  for (guint i = 0; names[i]; i++) {
    static const struct {
      const char *name;
      IvlModelParams params;
    } kinds[] = { { "own", { 0 } },
                  { "f32", { .weights = IVL_WEIGHTS_F32 } },
                  { "guessed", { .speculation = IVL_SPECULATION_ALWAYS } } };
    for (guint k = 0; k < G_N_ELEMENTS (kinds); k++) {
      /* Guesses don't depend on the architecture: every third model will do. */
      if (kinds[k].params.speculation == IVL_SPECULATION_ALWAYS && i % 3 != 0)
        continue;
      g_autofree char *path = g_strdup_printf ("/answers/%s/%s", names[i], kinds[k].name);
      Run *run = g_new (Run, 1);
      *run = (Run){ names[i], kinds[k].params };
      g_test_add_data_func_full (path, run, test_answers, g_free);
    }
  }
  return g_test_run ();
}
