#include "ask.h"

#include <string.h>

gboolean
golden_case_is_askable (JsonObject *c)
{
  return json_object_get_double_member (c, "repetition_penalty") == 1.
         || strcmp (json_object_get_string_member (c, "penalty_over"), "generated") == 0;
}

void
golden_question_init (GoldenQuestion *self, IvlModel *model, JsonObject *c, guint index)
{
  g_autoptr (GError) error = NULL;
  JsonObject *turn = json_array_get_object_element (json_object_get_array_member (c, "turns"), index);
  JsonArray *names = json_object_get_array_member (turn, "pictures"), *stops = json_object_get_array_member (c, "stop");
  guint n = json_array_get_length (names), n_stops = json_array_get_length (stops);
  *self = (GoldenQuestion){ .turn = turn, .stop = g_new0 (const char *, n_stops + 1) };
  g_assert_cmpuint (n, <=, G_N_ELEMENTS (self->images));
  for (guint i = 0; i < n; i++) {
    guint width, height;
    g_autofree guint8 *rgb = golden_picture (json_array_get_string_element (names, i), &width, &height);
    IvlPicture picture;
    ivl_picture_init_rgb (&picture, rgb, width, height, 3 * width);
    self->images[i] = ivl_image_new (model, &picture, (guint) json_object_get_int_member (turn, "max_tiles"), &error);
    g_assert_no_error (error);
  }
  for (guint i = 0; i < n_stops; i++)
    self->stop[i] = json_array_get_string_element (stops, i);
  JsonNode *max_tokens = json_object_get_member (c, "max_tokens");
  self->question = (IvlQuestion){
    .system_prompt = json_object_get_null_member (c, "system") ? NULL : json_object_get_string_member (c, "system"),
    .prompt = json_object_get_string_member (turn, "prompt"),
    .images = self->images,
    .n_images = n,
    .media = strcmp (json_object_get_string_member (turn, "media"), "video") == 0 ? IVL_MEDIA_VIDEO : IVL_MEDIA_IMAGES,
    .params = IVL_GENERATE_PARAMS_INIT,
  };
  self->question.params.max_tokens
    = (guint) (JSON_NODE_HOLDS_ARRAY (max_tokens) ? json_array_get_int_element (json_node_get_array (max_tokens), index)
                                                  : json_node_get_int (max_tokens));
  self->question.params.repetition_penalty = (float) json_object_get_double_member (c, "repetition_penalty");
  self->question.params.stop = self->stop;
}

void
golden_question_clear (GoldenQuestion *self)
{
  for (guint i = 0; i < self->question.n_images; i++)
    ivl_image_unref (self->images[i]);
  g_clear_pointer (&self->stop, g_free);
}

void
golden_question_check (const GoldenQuestion *self, IvlAnswer *answer)
{
  const char *finish = json_object_get_string_member (self->turn, "finish");
  g_assert_nonnull (answer);
  g_assert_cmpstr (answer->text, ==, json_object_get_string_member (self->turn, "text_tags"));
  g_assert_cmpuint (answer->prompt_tokens, ==,
                    json_array_get_length (json_object_get_array_member (self->turn, "prompt_ids")));
  g_assert_cmpint (answer->finish, ==, strcmp (finish, "stop") == 0 ? IVL_FINISH_STOP : IVL_FINISH_LENGTH);
  if (answer->finish == IVL_FINISH_LENGTH) {
    g_assert_cmpuint (answer->generated_tokens, ==,
                      json_array_get_length (json_object_get_array_member (self->turn, "token_ids")));
    /* The golden confidence counts an end token and is taken before any penalty. */
    if (self->question.params.repetition_penalty == 1.f)
      g_assert_cmpfloat_with_epsilon (answer->confidence, json_object_get_double_member (self->turn, "confidence"), 1e-4);
  }
  ivl_answer_free (answer);
}

IvlModel *
golden_load (const Golden *golden, const IvlModelParams *params)
{
  g_autoptr (GError) error = NULL;
  IvlDevice *device = ivl_device_open (NULL, &error);
  g_assert_no_error (error);
  IvlModel *model = ivl_model_load (device, golden->folder, params, NULL, &error);
  g_assert_no_error (error);
  ivl_device_unref (device);
  return model;
}

void
golden_ask (IvlModel *model, JsonObject *c)
{
  g_autoptr (GError) error = NULL;
  GoldenQuestion q;
  golden_question_init (&q, model, c, 0);
  IvlSession *session = ivl_session_new (model, &error);
  g_assert_no_error (error);
  IvlAnswer *answer = ivl_session_ask (session, &q.question, &error);
  g_assert_no_error (error);
  golden_question_check (&q, answer);
  ivl_session_unref (session);
  golden_question_clear (&q);
}
