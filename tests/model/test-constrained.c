/* Constrained answers of whole models through the public API. The golden models' words mean nothing, which is as it
 * should be here: whatever they would rather say, the answers must be valid. */
#include "golden.h"

#include <internvl/internvl.h>
#include <math.h>
#include <string.h>

#include "../unit/schema-check.h"
#include "generate/engine.h"

static const char person[]
  = "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"maxLength\":12},\"tags\":{\"type\":\"array\","
    "\"items\":{\"enum\":[\"red\",\"reddish\",7,null]},\"minItems\":1,\"maxItems\":4},\"age\":{\"type\":\"integer\","
    "\"minimum\":0,\"maximum\":130},\"score\":{\"type\":\"number\"},\"ok\":{\"type\":\"boolean\"}},\"required\":[\"name\","
    "\"tags\",\"ok\"]}";

static const char *const schemas[] = {
  person,
  "{\"type\":\"string\"}",
  "{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{\"type\":\"number\"}},\"minItems\":2}",
};

static IvlModel *
load (const char *name, IvlDevice **device)
{
  g_autofree char *folder = golden_path ("models", name, NULL);
  g_autoptr (GError) error = NULL;
  *device = ivl_device_open (NULL, &error);
  g_assert_no_error (error);
  IvlModel *model = ivl_model_load (*device, folder, NULL, NULL, &error);
  g_assert_no_error (error);
  return model;
}

static IvlAnswer *
ask (IvlSession *session, const IvlQuestion *question)
{
  g_autoptr (GError) error = NULL;
  IvlAnswer *answer = ivl_session_ask (session, question, &error);
  g_assert_no_error (error);
  return answer;
}

static void
collect (const char *piece, gpointer text)
{
  g_string_append (text, piece);
}

static guint
least_tokens (const char *schema, IvlModel *model)
{
  g_autoptr (IvlConstraint) constraint = ivl_constraint_new (ivl_model_get_vocabulary (model), schema, NULL);
  g_assert_nonnull (constraint);
  return (guint) ivl_constraint_min_tokens (constraint);
}

static void
test_json (gconstpointer name)
{
  IvlDevice *device;
  IvlModel *model = load (name, &device);
  guint answers = 0, at_limit = 0;
  for (guint i = 0; i < G_N_ELEMENTS (schemas); i++) {
    guint least = least_tokens (schemas[i], model);
    static const guint spares[] = { 0, 1, 3, 8, 30 };
    for (guint s = 0; s < G_N_ELEMENTS (spares); s++)
      for (guint hot = 0; hot < 3; hot++) {
        g_autoptr (GError) error = NULL;
        IvlSession *session = ivl_session_new (model, &error);
        g_autoptr (GString) pieces = g_string_new (NULL);
        IvlQuestion question = { .prompt = "Who?", .params = IVL_GENERATE_PARAMS_INIT, .json_schema = schemas[i],
                                 .text_func = collect, .text_data = pieces };
        question.params.max_tokens = least + spares[s];
        question.params.temperature = hot;
        question.params.seed = 7 * s + hot;
        question.params.top_p = hot == 2 ? 0.9f : 1.f;
        question.params.repetition_penalty = hot == 1 ? 1.3f : 1.f;
        IvlAnswer *answer = ask (session, &question);
        schema_check (schemas[i], answer->text);
        g_assert_cmpstr (pieces->str, ==, answer->text);
        g_assert_cmpint (answer->finish, ==, IVL_FINISH_STOP);
        g_assert_cmpuint (answer->generated_tokens, <=, question.params.max_tokens);
        g_assert_cmpint (answer->choice, ==, -1);
        g_assert_null (answer->choice_probabilities);
        at_limit += answer->generated_tokens == question.params.max_tokens;
        answers++;
        ivl_answer_free (answer);
        ivl_session_unref (session);
      }
  }
  g_test_message ("%u answers, %u of them as long as allowed", answers, at_limit);
  ivl_model_unref (model);
  ivl_device_unref (device);
}

/* The probability of TEXT being the answer, by what the sampler says of a model that may only say just that: it has
 * one choice, and the confidence is the mean probability of its tokens. */
static double
confidence_of (IvlModel *model, const char *text)
{
  g_autoptr (GError) error = NULL;
  const char *const one[] = { text, NULL };
  IvlSession *session = ivl_session_new (model, &error);
  IvlQuestion question = { .prompt = "Is it?", .params = IVL_GENERATE_PARAMS_INIT, .choices = one };
  IvlAnswer *answer = ask (session, &question);
  g_assert_cmpstr (answer->text, ==, text);
  g_assert_cmpuint (answer->n_choices, ==, 1);
  g_assert_cmpfloat (answer->choice_probabilities[0], ==, 1.);
  double confidence = answer->confidence;
  ivl_answer_free (answer);
  ivl_session_unref (session);
  return confidence;
}

static void
test_choices (gconstpointer name)
{
  static const char *const list[] = { "yes", "no", "yes and no", "yesterday, ", "maybe", "\xe4\xb8\xad", NULL };
  IvlDevice *device;
  IvlModel *model = load (name, &device);
  g_autoptr (GError) error = NULL;
  IvlSession *session = ivl_session_new (model, &error);
  g_autoptr (GString) pieces = g_string_new (NULL);
  IvlQuestion question = { .prompt = "Is it?", .params = IVL_GENERATE_PARAMS_INIT, .choices = list,
                           .text_func = collect, .text_data = pieces };
  IvlAnswer *first = ask (session, &question);
  double sum = 0.;
  g_assert_cmpuint (first->n_choices, ==, G_N_ELEMENTS (list) - 1);
  g_assert_cmpstr (first->text, ==, list[first->choice]);
  g_assert_cmpstr (pieces->str, ==, first->text);
  g_assert_cmpint (first->finish, ==, IVL_FINISH_STOP);
  for (guint i = 0; i < first->n_choices; i++) {
    g_assert_cmpfloat (first->choice_probabilities[i], <=, first->choice_probabilities[first->choice]);
    sum += first->choice_probabilities[i];
  }
  g_assert_cmpfloat_with_epsilon (sum, 1., 1e-9);
  g_assert_cmpfloat_with_epsilon (first->confidence, confidence_of (model, first->text), 1e-4);

  /* The order of the choices means nothing. */
  const char *turned[G_N_ELEMENTS (list)] = { NULL };
  for (guint i = 0; i < first->n_choices; i++)
    turned[i] = list[first->n_choices - 1 - i];
  IvlSession *other = ivl_session_new (model, &error);
  question.choices = turned;
  question.text_func = NULL;
  IvlAnswer *second = ask (other, &question);
  for (guint i = 0; i < first->n_choices; i++)
    g_assert_cmpfloat_with_epsilon (second->choice_probabilities[i],
                                    first->choice_probabilities[first->n_choices - 1 - i], 1e-6);
  ivl_answer_free (second);

  /* The conversation goes on with the choice in it, and as if it had been generated: nothing of what else was tried is
   * left in the cache. */
  IvlQuestion next = { .prompt = "Why?", .params = IVL_GENERATE_PARAMS_INIT };
  next.params.max_tokens = 12;
  IvlAnswer *a = ask (session, &next), *b = ask (other, &next);
  g_assert_cmpstr (a->text, ==, b->text);
  const char *const same[] = { first->text, NULL };
  IvlSession *third = ivl_session_new (model, &error);
  question.choices = same;
  ivl_answer_free (ask (third, &question));
  IvlAnswer *c = ask (third, &next);
  g_assert_cmpstr (a->text, ==, c->text);
  g_assert_cmpuint (a->prompt_tokens_reused, >, 0);
  ivl_answer_free (a);
  ivl_answer_free (b);
  ivl_answer_free (c);
  ivl_session_unref (third);
  ivl_session_unref (other);
  ivl_session_unref (session);
  ivl_answer_free (first);
  ivl_model_unref (model);
  ivl_device_unref (device);
}

/* What a free answer begins with must be the likeliest choice of one token each, and the two ways of deciding agree. */
static void
test_choices_many (gconstpointer name)
{
  IvlDevice *device;
  IvlModel *model = load (name, &device);
  g_autoptr (GError) error = NULL;
  g_auto (GStrv) list = g_new0 (char *, 10001);
  for (guint i = 0; i < 10000; i++)
    list[i] = g_strdup_printf ("%04u of many", i);
  for (guint hot = 0; hot < 2; hot++) {
    IvlSession *session = ivl_session_new (model, &error);
    IvlQuestion question = { .prompt = "Which?", .params = IVL_GENERATE_PARAMS_INIT,
                             .choices = (const char *const *) list };
    question.params.temperature = hot;
    IvlAnswer *answer = ask (session, &question);
    double sum = 0.;
    g_assert_cmpuint (answer->n_choices, ==, 10000);
    g_assert_cmpstr (answer->text, ==, list[answer->choice]);
    for (guint i = 0; i < answer->n_choices; i++)
      sum += answer->choice_probabilities[i];
    g_assert_cmpfloat_with_epsilon (sum, 1., 1e-9);
    ivl_answer_free (answer);
    ivl_session_unref (session);
  }
  ivl_model_unref (model);
  ivl_device_unref (device);
}

static void
on_answer (IvlSession *session, IvlAnswer *answer, const GError *error, gpointer data)
{
  g_assert_no_error (error);
  g_async_queue_push (data, answer);
}

/* Together in one batch, each gets what it gets alone; a cancelled one says so. */
static void
test_together (gconstpointer name)
{
  static const char *const list[] = { "yes", "no", "perhaps", "perhaps not", NULL };
  IvlDevice *device;
  IvlModel *model = load (name, &device);
  g_autoptr (GError) error = NULL;
  IvlQuestion questions[] = {
    { .prompt = "Is it?", .params = IVL_GENERATE_PARAMS_INIT, .choices = list },
    { .prompt = "Who?", .params = IVL_GENERATE_PARAMS_INIT, .json_schema = person },
    { .prompt = "What?", .params = IVL_GENERATE_PARAMS_INIT },
    { .prompt = "Who?", .params = IVL_GENERATE_PARAMS_INIT, .json_schema = schemas[1] },
  };
  enum { N = G_N_ELEMENTS (questions) };
  IvlSession *sessions[N];
  IvlAnswer *alone[N];
  GAsyncQueue *queues[N];
  for (guint i = 0; i < N; i++) {
    questions[i].params.max_tokens = 90;
    IvlSession *session = ivl_session_new (model, &error);
    alone[i] = ask (session, &questions[i]);
    ivl_session_unref (session);
    sessions[i] = ivl_session_new (model, &error);
    queues[i] = g_async_queue_new ();
  }
  for (guint i = 0; i < N; i++) {
    g_assert_true (ivl_session_ask_async (sessions[i], &questions[i], on_answer, queues[i], &error));
    g_assert_no_error (error);
  }
  for (guint i = 0; i < N; i++) {
    IvlAnswer *answer = g_async_queue_pop (queues[i]);
    g_assert_cmpstr (answer->text, ==, alone[i]->text);
    g_assert_cmpint (answer->choice, ==, alone[i]->choice);
    ivl_answer_free (answer);
    ivl_answer_free (alone[i]);
  }
  g_assert_true (ivl_session_ask_async (sessions[0], &questions[0], on_answer, queues[0], &error));
  ivl_session_cancel (sessions[0]);
  IvlAnswer *answer = g_async_queue_pop (queues[0]);
  if (answer->finish == IVL_FINISH_CANCELLED) {
    g_assert_cmpint (answer->choice, ==, -1);
    g_assert_cmpstr (answer->text, ==, "");
  }
  ivl_answer_free (answer);
  for (guint i = 0; i < N; i++) {
    ivl_session_unref (sessions[i]);
    g_async_queue_unref (queues[i]);
  }
  ivl_model_unref (model);
  ivl_device_unref (device);
}

static void
refuse (IvlSession *session, const IvlQuestion *question, const char *why)
{
  g_autoptr (GError) error = NULL;
  g_assert_null (ivl_session_ask (session, question, &error));
  g_assert_error (error, IVL_ERROR, IVL_ERROR_BAD_ARGUMENT);
  if (!strstr (error->message, why))
    g_error ("%s", error->message);
}

static void
test_refused (void)
{
  IvlDevice *device;
  IvlModel *model = load ("qwen2-ln-orig", &device);
  g_autoptr (GError) error = NULL;
  IvlSession *session = ivl_session_new (model, &error);
  static const char *const list[] = { "yes", "no", NULL }, *const twice[] = { "yes", "yes", NULL };
  IvlQuestion question = { .prompt = "Who?", .params = IVL_GENERATE_PARAMS_INIT, .json_schema = person, .choices = list };
  refuse (session, &question, "exclude each other");
  question.choices = NULL;
  question.params.max_tokens = least_tokens (person, model) - 1;
  refuse (session, &question, "shortest valid answer");
  question.params.max_tokens = 100;
  question.params.stop = list;
  refuse (session, &question, "Stop strings");
  question.params.stop = NULL;
  question.json_schema = "{\"type\":\"string\",\"pattern\":\".\"}";
  refuse (session, &question, "#: keyword \"pattern\"");
  question.json_schema = NULL;
  question.choices = twice;
  refuse (session, &question, "are the same");
  question.choices = list + 2;
  refuse (session, &question, "the list is empty");
  /* And the session is none the worse for it. */
  question.choices = list;
  ivl_answer_free (ask (session, &question));
  ivl_session_unref (session);
  ivl_model_unref (model);
  ivl_device_unref (device);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/constrained/refused", test_refused);
  static const char *const names[] = { "qwen2-ln-orig", "qwen2tied-ln-hf2-sharded", "internlm2-rms-orig", "internlm2-ln-hf2" };
  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    static const struct {
      const char *what;
      GTestDataFunc run;
    } tests[] = { { "json", test_json },
                  { "choices", test_choices },
                  { "many", test_choices_many },
                  { "together", test_together } };
    for (guint t = 0; t < G_N_ELEMENTS (tests); t++) {
      g_autofree char *path = g_strdup_printf ("/constrained/%s/%s", tests[t].what, names[i]);
      g_test_add_data_func (path, names[i], tests[t].run);
    }
  }
  return g_test_run ();
}
