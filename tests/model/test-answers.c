/* Whole conversations through the public API against the reference: the text of every answer of every golden case,
 * its length, why it ended, how sure it was. Pictures, template, tokenizer, both models, sampling and stops at once. */
#include "ask.h"

typedef struct {
  const char *name;
  IvlWeights weights;
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
  IvlModel *model = golden_load (golden, &(IvlModelParams){ .weights = run->weights });
  JsonArray *cases = json_object_get_array_member (golden->root, "cases");
  for (guint i = 0; i < json_array_get_length (cases); i++)
    check_case (model, run->name, json_array_get_object_element (cases, i));
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
      IvlWeights weights;
    } kinds[] = { { "own", IVL_WEIGHTS_AUTO }, { "f32", IVL_WEIGHTS_F32 } };
    for (guint k = 0; k < G_N_ELEMENTS (kinds); k++) {
      g_autofree char *path = g_strdup_printf ("/answers/%s/%s", names[i], kinds[k].name);
      Run *run = g_new (Run, 1);
      *run = (Run){ names[i], kinds[k].weights };
      g_test_add_data_func_full (path, run, test_answers, g_free);
    }
  }
  return g_test_run ();
}
