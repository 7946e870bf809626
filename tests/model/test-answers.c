/* Whole conversations through the public API against the reference: the text of every answer of every golden case,
 * its length, why it ended, how sure it was. Pictures, template, tokenizer, both models, sampling and stops at once. */
#include "golden.h"

#include <internvl/internvl.h>
#include <string.h>

typedef struct {
  const char *name;
  IvlWeights weights;
} Run;

static IvlAnswer *
ask (IvlModel *model, IvlSession *session, JsonObject *c, JsonObject *turn, guint index)
{
  g_autoptr (GError) error = NULL;
  JsonArray *names = json_object_get_array_member (turn, "pictures"), *stops = json_object_get_array_member (c, "stop");
  guint n = json_array_get_length (names), n_stops = json_array_get_length (stops);
  g_autofree IvlImage **images = g_new0 (IvlImage *, n + 1);
  for (guint i = 0; i < n; i++) {
    guint width, height;
    g_autofree guint8 *rgb = golden_picture (json_array_get_string_element (names, i), &width, &height);
    IvlPicture picture;
    ivl_picture_init_rgb (&picture, rgb, width, height, 3 * width);
    images[i] = ivl_image_new (model, &picture, (guint) json_object_get_int_member (turn, "max_tiles"), &error);
    g_assert_no_error (error);
  }
  g_autofree const char **stop = g_new0 (const char *, n_stops + 1);
  for (guint i = 0; i < n_stops; i++)
    stop[i] = json_array_get_string_element (stops, i);
  JsonNode *max_tokens = json_object_get_member (c, "max_tokens");
  IvlQuestion question = {
    .system_prompt = json_object_get_null_member (c, "system") ? NULL : json_object_get_string_member (c, "system"),
    .prompt = json_object_get_string_member (turn, "prompt"),
    .images = images,
    .n_images = n,
    .media = strcmp (json_object_get_string_member (turn, "media"), "video") == 0 ? IVL_MEDIA_VIDEO : IVL_MEDIA_IMAGES,
    .params = IVL_GENERATE_PARAMS_INIT,
  };
  question.params.max_tokens = (guint) (JSON_NODE_HOLDS_ARRAY (max_tokens)
                                          ? json_array_get_int_element (json_node_get_array (max_tokens), index)
                                          : json_node_get_int (max_tokens));
  question.params.repetition_penalty = (float) json_object_get_double_member (c, "repetition_penalty");
  question.params.stop = stop;
  IvlAnswer *answer = ivl_session_ask (session, &question, &error);
  g_assert_no_error (error);
  for (guint i = 0; i < n; i++)
    ivl_image_unref (images[i]);
  return answer;
}

static void
check_case (IvlModel *model, const char *name, JsonObject *c)
{
  const char *case_name = json_object_get_string_member (c, "name");
  /* The engine's penalty is over the answer alone; that over the whole context is checked with the sampler. */
  gboolean penalty = json_object_get_double_member (c, "repetition_penalty") != 1.;
  if (penalty && strcmp (json_object_get_string_member (c, "penalty_over"), "generated") != 0)
    return;
  g_autoptr (GError) error = NULL;
  IvlSession *session = ivl_session_new (model, &error);
  g_assert_no_error (error);
  JsonArray *turns = json_object_get_array_member (c, "turns");
  for (guint i = 0; i < json_array_get_length (turns); i++) {
    JsonObject *turn = json_array_get_object_element (turns, i);
    g_test_message ("%s/%s turn %u", name, case_name, i);
    IvlAnswer *answer = ask (model, session, c, turn, i);
    const char *finish = json_object_get_string_member (turn, "finish");
    g_assert_cmpstr (answer->text, ==, json_object_get_string_member (turn, "text_tags"));
    g_assert_cmpuint (answer->prompt_tokens, ==,
                      json_array_get_length (json_object_get_array_member (turn, "prompt_ids")));
    g_assert_cmpint (answer->finish, ==, strcmp (finish, "stop") == 0 ? IVL_FINISH_STOP : IVL_FINISH_LENGTH);
    if (answer->finish == IVL_FINISH_LENGTH) {
      g_assert_cmpuint (answer->generated_tokens, ==,
                        json_array_get_length (json_object_get_array_member (turn, "token_ids")));
      /* The golden confidence counts an end token and is taken before any penalty. */
      if (!penalty)
        g_assert_cmpfloat_with_epsilon (answer->confidence, json_object_get_double_member (turn, "confidence"), 1e-4);
    }
    /* A second turn must find the first in the cache: that its answer is right says that it may. */
    if (i > 0)
      g_assert_cmpuint (answer->prompt_tokens_reused, >, 0);
    ivl_answer_free (answer);
  }
  ivl_session_unref (session);
}

static void
test_answers (gconstpointer data)
{
  const Run *run = data;
  g_autoptr (Golden) golden = golden_open (run->name);
  g_autoptr (GError) error = NULL;
  IvlDevice *device = ivl_device_open (NULL, &error);
  g_assert_no_error (error);
  IvlModelParams params = { .weights = run->weights };
  IvlModel *model = ivl_model_load (device, golden->folder, &params, NULL, &error);
  g_assert_no_error (error);
  JsonArray *cases = json_object_get_array_member (golden->root, "cases");
  for (guint i = 0; i < json_array_get_length (cases); i++)
    check_case (model, run->name, json_array_get_object_element (cases, i));
  ivl_model_unref (model);
  ivl_device_unref (device);
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
