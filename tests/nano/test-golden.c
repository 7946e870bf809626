/* models/nano against transformers, token by token: tests/golden/nano, made by models/nano/train/golden.py, which
 * describes it.
 *
 *   test-golden MODEL GOLDEN */
#include <internvl/internvl.h>
#include <json-glib/json-glib.h>

#include "model/config.h"
#include "tensor/safetensors.h"
#include "text/chat.h"
#include "text/tokenizer.h"

static IvlModel *model;
static IvlConfig *config;
static IvlTokenizer *tokenizer;
static IvlChat *chat;
static IvlSafetensors *frames;

static GArray *
get_ids (JsonObject *object, const char *key)
{
  JsonArray *array = json_object_get_array_member (object, key);
  GArray *ids = g_array_new (FALSE, FALSE, sizeof (guint32));
  for (guint i = 0; i < json_array_get_length (array); i++) {
    guint32 id = (guint32) json_array_get_int_element (array, i);
    g_array_append_val (ids, id);
  }
  return ids;
}

static void
assert_same_ids (GArray *found, GArray *expected)
{
  g_assert_cmpmem (found->data, found->len * sizeof (guint32), expected->data, expected->len * sizeof (guint32));
}

static void
on_piece (const char *piece, gpointer pieces)
{
  g_ptr_array_add (pieces, g_strdup (piece));
}

/* The texts that tokens stand for, one by one. */
static GPtrArray *
get_pieces (GArray *ids)
{
  GPtrArray *pieces = g_ptr_array_new_with_free_func (g_free);
  IvlTextDecoder *decoder = ivl_text_decoder_new (tokenizer, IVL_DECODE_SKIP_SPECIAL | IVL_DECODE_KEEP_TAGS);
  for (guint i = 0; i < ids->len; i++) {
    g_autoptr (GString) piece = g_string_new (NULL);
    ivl_text_decoder_feed (decoder, g_array_index (ids, guint32, i), piece);
    if (piece->len)
      on_piece (piece->str, pieces);
  }
  ivl_text_decoder_free (decoder);
  return pieces;
}

static void
check_prompt (JsonObject *c, guint n_frames)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GArray) ids = g_array_new (FALSE, FALSE, sizeof (guint32)), expected = get_ids (c, "prompt");
  g_autofree guint *tiles = g_new (guint, n_frames);
  for (guint i = 0; i < n_frames; i++)
    tiles[i] = 1;
  IvlChatTurn turn = { .question = json_object_get_string_member (c, "question"), .question_length = -1,
                       .image_tiles = tiles, .n_images = n_frames, .media = IVL_MEDIA_VIDEO };
  ivl_chat_render (chat, config->system_message ? config->system_message : IVL_CHAT_DEFAULT_SYSTEM, &turn, 1, ids, &error);
  g_assert_no_error (error);
  assert_same_ids (ids, expected);
}

static void
test_answer (gconstpointer data)
{
  JsonObject *c = (JsonObject *) data;
  g_autoptr (GError) error = NULL;
  guint first = (guint) json_object_get_int_member (c, "first"), n = (guint) json_object_get_int_member (c, "frames");
  IvlTensorView view;
  g_assert_true (ivl_safetensors_lookup (frames, "frames", &view));
  guint height = (guint) view.shape[1], width = (guint) view.shape[2];
  g_assert_cmpuint (view.n_dims, ==, 4);
  g_assert_cmpuint (first + n, <=, view.shape[0]);
  check_prompt (c, n);

  g_autofree IvlImage **images = g_new (IvlImage *, n);
  for (guint i = 0; i < n; i++) {
    IvlPicture picture;
    ivl_picture_init_rgb (&picture, (const guint8 *) view.data + 3ull * width * height * (first + i), width, height, 3 * width);
    images[i] = ivl_image_new (model, &picture, 1, &error);
    g_assert_no_error (error);
  }
  g_autoptr (GPtrArray) pieces = g_ptr_array_new_with_free_func (g_free);
  IvlQuestion question = { .prompt = json_object_get_string_member (c, "question"), .images = images, .n_images = n,
                           .media = IVL_MEDIA_VIDEO, .params = IVL_GENERATE_PARAMS_INIT, .text_func = on_piece,
                           .text_data = pieces };
  question.params.max_tokens = 48;
  g_autoptr (IvlSession) session = ivl_session_new (model, &error);
  g_autoptr (IvlAnswer) answer = ivl_session_ask (session, &question, &error);
  g_assert_no_error (error);
  g_test_message ("%s: \"%s\": \"%s\" (margin %g)", json_object_get_string_member (c, "clip"), question.prompt, answer->text,
                  json_object_get_double_member (c, "margin"));
  g_autoptr (GArray) expected = get_ids (c, "answer");
  g_autoptr (GPtrArray) expected_pieces = get_pieces (expected);
  g_assert_cmpuint (answer->generated_tokens, ==, expected->len);
  g_assert_cmpuint (pieces->len, ==, expected_pieces->len);
  for (guint i = 0; i < pieces->len; i++)
    g_assert_cmpstr (pieces->pdata[i], ==, expected_pieces->pdata[i]);
  for (guint i = 0; i < n; i++)
    ivl_image_unref (images[i]);
}

int
main (int argc, char **argv)
{
  g_autoptr (GError) error = NULL;
  g_test_init (&argc, &argv, NULL);
  g_assert_cmpint (argc, ==, 3);
  config = ivl_config_load (argv[1], &error);
  g_assert_no_error (error);
  tokenizer = ivl_tokenizer_load (argv[1], &error);
  g_assert_no_error (error);
  chat = ivl_chat_new (tokenizer, config->tile_tokens, IVL_ENCODE_TAGS, &error);
  g_assert_no_error (error);

  g_autofree char *path = g_build_filename (argv[2], "frames.safetensors", NULL), *data = NULL;
  gsize size;
  g_assert_true (g_file_get_contents (path, &data, &size, NULL));
  g_autoptr (GBytes) bytes = g_bytes_new_static (data, size);
  frames = ivl_safetensors_new_from_bytes (bytes, "frames.safetensors", &error);
  g_assert_no_error (error);
  g_autofree char *answers = g_build_filename (argv[2], "answers.json", NULL);
  g_autoptr (JsonParser) parser = json_parser_new ();
  json_parser_load_from_file (parser, answers, &error);
  g_assert_no_error (error);

  model = ivl_model_share (NULL, argv[1], NULL, NULL, &error);
  g_assert_no_error (error);
  JsonArray *cases = json_node_get_array (json_parser_get_root (parser));
  for (guint i = 0; i < json_array_get_length (cases); i++) {
    JsonObject *c = json_array_get_object_element (cases, i);
    g_autofree char *name = g_strdup_printf ("/nano/golden/%u-%s", i, json_object_get_string_member (c, "clip"));
    g_test_add_data_func (name, c, test_answer);
  }
  int status = g_test_run ();
  ivl_model_unref (model);
  ivl_safetensors_free (frames);
  ivl_chat_free (chat);
  ivl_tokenizer_unref (tokenizer);
  ivl_config_free (config);
  return status;
}
