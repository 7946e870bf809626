/* Tokenizers and chat template against what the reference implementation gives: tests/golden (see its README.md). The
 * cases of Qwen's real vocabulary need that vocabulary: INTERNVL_TEST_QWEN_TOKENIZER names its folder. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "text-folder.h"
#include "text/chat.h"
#include "text/json-get.h"
#include "text/stop.h"
#include "text/unicode.h"

static const char *golden; /* folder */

static char *
read_file (const char *folder, const char *name, gsize *n)
{
  g_autofree char *path = g_build_filename (golden, folder, name, NULL);
  g_autoptr (GError) error = NULL;
  char *text;
  if (!g_file_get_contents (path, &text, n, &error))
    g_error ("%s", error->message);
  return text;
}

static IvlTokenizer *
load (const char *folder)
{
  GError *error = NULL;
  IvlTokenizer *tokenizer = ivl_tokenizer_load (folder, &error);
  g_assert_no_error (error);
  return tokenizer;
}

/* ---- tokenizer/NAME.jsonl ----
 * Lines of flat objects. json-glib would end strings at the U+0000 that some of them have. */

static const char *
read_string (const char *p, GString *out)
{
  g_assert_cmpint (*p, ==, '"');
  g_string_truncate (out, 0);
  for (p++; *p != '"'; p++) {
    if (*p != '\\') {
      g_string_append_c (out, *p);
      continue;
    }
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    p++;
    const char *plain = strchr (from, *p);
    g_assert_true (*p && (plain || *p == 'u'));
    if (plain) {
      g_string_append_c (out, to[plain - from]);
      continue;
    }
    gunichar c = 0;
    for (guint i = 0; i < 4; i++)
      c = c << 4 | (gunichar) g_ascii_xdigit_value (*++p);
    if (c == 0)
      g_string_append_len (out, "", 1);
    else
      g_string_append_unichar (out, c);
  }
  return p + 1;
}

static const char *
read_ids (const char *p, GArray *out)
{
  g_array_set_size (out, 0);
  g_assert_cmpint (*p, ==, '[');
  for (p++; *p != ']';) {
    char *end;
    guint32 id = (guint32) strtoul (p, &end, 10);
    g_assert_true (end > p);
    g_array_append_val (out, id);
    p = end + strspn (end, ", ");
  }
  return p + 1;
}

typedef struct {
  GString *text, *text_tags;
  GArray *ids;
} Line;

static void
read_line (const char *p, Line *line)
{
  g_autoptr (GString) key = g_string_new (NULL);
  for (p = strchr (p, '"'); *p == '"';) {
    p = read_string (p, key);
    p += strspn (p, ": ");
    if (strcmp (key->str, "ids") == 0)
      p = read_ids (p, line->ids);
    else
      p = read_string (p, strcmp (key->str, "text") == 0 ? line->text : line->text_tags);
    p += strspn (p, ", ");
  }
  g_assert_cmpint (*p, ==, '}');
}

static void
check_decoding (IvlTokenizer *tokenizer, const Line *line, IvlDecodeFlags flags, const GString *expected)
{
  gsize n;
  const guint32 *ids = (const guint32 *) line->ids->data;
  g_autofree char *whole = ivl_tokenizer_decode (tokenizer, ids, line->ids->len, flags, &n);
  g_assert_cmpmem (whole, n, expected->str, expected->len);
  g_autoptr (IvlTextDecoder) decoder = ivl_text_decoder_new (tokenizer, flags);
  g_autoptr (GString) out = g_string_new (NULL);
  for (guint i = 0; i < line->ids->len; i++) {
    ivl_text_decoder_feed (decoder, ids[i], out);
    g_assert_true (ivl_utf8_validate (out->str, out->len, NULL));
  }
  ivl_text_decoder_flush (decoder, out);
  g_assert_cmpmem (out->str, out->len, expected->str, expected->len);
}

static void
check_lines (IvlTokenizer *tokenizer, const char *name, gboolean decode)
{
  gsize n;
  g_autofree char *file = g_strconcat (name, decode ? "-decode.jsonl" : ".jsonl", NULL);
  g_autofree char *text = read_file ("tokenizer", file, &n);
  Line line = { g_string_new (NULL), g_string_new (NULL), g_array_new (FALSE, FALSE, sizeof (guint32)) };
  g_autoptr (GArray) ids = g_array_new (FALSE, FALSE, sizeof (guint32));
  guint number = 0;
  for (char *p = text, *next; *p; p = next + 1) {
    next = strchr (p, '\n');
    g_assert_nonnull (next);
    *next = '\0';
    read_line (p, &line);
    number++;
    if (decode) {
      check_decoding (tokenizer, &line, IVL_DECODE_SKIP_SPECIAL, line.text);
      check_decoding (tokenizer, &line, IVL_DECODE_SKIP_SPECIAL | IVL_DECODE_KEEP_TAGS, line.text_tags);
      continue;
    }
    g_array_set_size (ids, 0);
    GError *error = NULL;
    g_assert_true (ivl_tokenizer_encode (tokenizer, line.text->str, (gssize) line.text->len, IVL_ENCODE_SPECIAL, ids,
                                         &error));
    g_assert_no_error (error);
    if (ids->len != line.ids->len || (ids->len && memcmp (ids->data, line.ids->data, 4 * ids->len) != 0)) {
      g_autofree char *found = text_ids (ids), *expected = text_ids (line.ids);
      g_error ("%s:%u: %s: %s instead of %s", file, number, p, found, expected);
    }
  }
  g_test_message ("%s: %u cases", file, number);
  g_assert_cmpuint (number, >, 100);
  g_string_free (line.text, TRUE);
  g_string_free (line.text_tags, TRUE);
  g_array_unref (line.ids);
}

typedef struct {
  const char *model, *cases;
  gboolean decode;
} Vocabulary;

/* -hf folders with a tokenizer.json alone decode like the others as long as the bytes are UTF-8; see decoder.c. */
static const Vocabulary vocabularies[] = {
  { "qwen2-ln-orig", "qwen2-small", TRUE },
  { "qwen2-rms-hf2-sharded", "qwen2-small", TRUE },
  { "internlm2-rms-orig", "internlm2-small", TRUE },
  { "internlm2-rms-hf1-sharded", "internlm2-small", TRUE },
  { "internlm2-ln-hf2", "internlm2-small", TRUE },
};

static void
test_vocabulary (gconstpointer data)
{
  const Vocabulary *vocabulary = data;
  g_autofree char *folder = g_build_filename (golden, "models", vocabulary->model, NULL);
  g_autoptr (IvlTokenizer) tokenizer = load (folder);
  check_lines (tokenizer, vocabulary->cases, FALSE);
  if (vocabulary->decode)
    check_lines (tokenizer, vocabulary->cases, TRUE);
}

static void
test_qwen2 (void)
{
  const char *folder = g_getenv ("INTERNVL_TEST_QWEN_TOKENIZER");
  if (!folder || !*folder) {
    g_test_skip ("INTERNVL_TEST_QWEN_TOKENIZER names no folder with Qwen's vocabulary");
    return;
  }
  g_autoptr (IvlTokenizer) tokenizer = load (folder);
  g_assert_cmpuint (ivl_tokenizer_get_n_tokens (tokenizer), ==, 151674);
  g_assert_cmpint (ivl_tokenizer_token_id (tokenizer, "<IMG_CONTEXT>"), ==, 151667);
  check_lines (tokenizer, "qwen2", FALSE);
  check_lines (tokenizer, "qwen2", TRUE);
}

/* ---- values/NAME.json: prompts and answers ---- */

static void
read_json_ids (JsonObject *object, const char *name, GArray *out)
{
  JsonArray *array = ivl_json_get_array (object, name);
  g_assert_nonnull (array);
  g_array_set_size (out, 0);
  for (guint i = 0; i < json_array_get_length (array); i++) {
    guint32 id;
    g_assert_true (ivl_json_node_uint (json_array_get_element (array, i), G_MAXINT32, &id));
    g_array_append_val (out, id);
  }
}

static void
assert_same_ids (GArray *found, GArray *expected, const char *what)
{
  g_autofree char *a = text_ids (found), *b = text_ids (expected);
  if (strcmp (a, b) != 0)
    g_error ("%s: %s instead of %s", what, a, b);
}

/* What a session makes of the generated ids. */
static void
check_answer (IvlTokenizer *tokenizer, JsonObject *object, GArray *generated, JsonArray *stops)
{
  for (guint tags = 0; tags < 2; tags++) {
    const char *expected = ivl_json_get_string (object, tags ? "text_tags" : "text");
    g_autoptr (GPtrArray) list = g_ptr_array_new ();
    for (guint i = 0; stops && i < json_array_get_length (stops); i++)
      g_ptr_array_add (list, (gpointer) json_array_get_string_element (stops, i));
    g_ptr_array_add (list, NULL);
    g_autoptr (IvlStopMatcher) matcher = ivl_stop_matcher_new ((const char *const *) list->pdata);
    g_autoptr (IvlTextDecoder) decoder
      = ivl_text_decoder_new (tokenizer, IVL_DECODE_SKIP_SPECIAL | (tags ? IVL_DECODE_KEEP_TAGS : 0));
    g_autoptr (GString) piece = g_string_new (NULL), answer = g_string_new (NULL);
    for (guint i = 0; i <= generated->len; i++) {
      g_string_truncate (piece, 0);
      if (i < generated->len)
        ivl_text_decoder_feed (decoder, g_array_index (generated, guint32, i), piece);
      else
        ivl_text_decoder_flush (decoder, piece);
      ivl_stop_matcher_feed (matcher, piece->str, (gssize) piece->len, answer);
    }
    ivl_stop_matcher_flush (matcher, answer);
    g_assert_cmpstr (g_strstrip (answer->str), ==, expected);
  }
}

/* CHAT parses nothing in text, as a server should; REFERENCE everything, as the reference does. That matters to answers,
 * which may hold the name of an added token that isn't special: such a conversation only grows the right way. */
static void
check_case (IvlTokenizer *tokenizer, const IvlChat *chat, const IvlChat *reference, const char *default_system,
            JsonObject *object)
{
  const char *system = ivl_json_get_string (object, "system");
  JsonArray *array = ivl_json_get_array (object, "turns");
  guint n = json_array_get_length (array);
  IvlChatTurn turns[4] = { { NULL } };
  g_autoptr (GPtrArray) tiles = g_ptr_array_new_with_free_func ((GDestroyNotify) g_array_unref);
  g_autoptr (GArray) grown = g_array_new (FALSE, FALSE, sizeof (guint32));
  g_autoptr (GArray) found = g_array_new (FALSE, FALSE, sizeof (guint32));
  g_autoptr (GArray) expected = g_array_new (FALSE, FALSE, sizeof (guint32));
  g_autoptr (GArray) generated = g_array_new (FALSE, FALSE, sizeof (guint32));
  GError *error = NULL;
  g_assert_cmpuint (n, <=, G_N_ELEMENTS (turns));
  if (!system)
    system = default_system;
  for (guint i = 0; i < n; i++) {
    JsonObject *turn = json_array_get_object_element (array, i);
    g_autofree char *what = g_strdup_printf ("%s, turn %u", ivl_json_get_string (object, "name"), i + 1);
    g_ptr_array_add (tiles, g_array_new (FALSE, FALSE, sizeof (guint32)));
    read_json_ids (turn, "tiles", tiles->pdata[i]);
    turns[i] = (IvlChatTurn){ ivl_json_get_string (turn, "prompt"), -1,
                              (const guint *) ((GArray *) tiles->pdata[i])->data, ((GArray *) tiles->pdata[i])->len,
                              g_strcmp0 (ivl_json_get_string (turn, "media"), "video") == 0 ? IVL_MEDIA_VIDEO
                                                                                            : IVL_MEDIA_IMAGES };
    read_json_ids (turn, "prompt_ids", expected);
    for (guint k = i > 0; k < 2; k++) {
      g_array_set_size (found, 0);
      g_assert_true (ivl_chat_render (k ? reference : chat, system, turns, i + 1, found, &error));
      g_assert_no_error (error);
      assert_same_ids (found, expected, what);
    }

    /* The same, grown by what was generated. */
    if (i == 0) {
      g_array_append_vals (grown, found->data, found->len);
    } else {
      gboolean ended = g_array_index (grown, guint32, grown->len - 1) == ivl_chat_get_end_id (chat);
      g_assert_true (ivl_chat_continue (chat, ended, &turns[i], grown, &error));
      g_assert_no_error (error);
      assert_same_ids (grown, expected, what);
    }
    read_json_ids (turn, "token_ids", generated);
    g_array_append_vals (grown, generated->data, generated->len);
    check_answer (tokenizer, turn, generated, ivl_json_get_array (object, "stop"));
    turns[i].answer = ivl_json_get_string (turn, "text");
  }
}

static void
assert_same_set (JsonObject *root, const char *name, const guint32 *ids, guint n)
{
  g_autoptr (GArray) expected = g_array_new (FALSE, FALSE, sizeof (guint32));
  read_json_ids (root, name, expected);
  g_assert_cmpuint (n, ==, expected->len);
  for (guint i = 0; i < n; i++) {
    gboolean there = FALSE;
    for (guint k = 0; k < n; k++)
      there = there || g_array_index (expected, guint32, k) == ids[i];
    g_assert_true (there);
  }
}

static void
test_prompts (gconstpointer data)
{
  const char *file = data;
  gsize n;
  GError *error = NULL;
  g_autofree char *text = read_file ("values", file, &n);
  g_autoptr (JsonObject) root = ivl_json_parse_object (file, text, n, &error);
  g_assert_no_error (error);
  g_autofree char *folder = g_build_filename (golden, "models", ivl_json_get_string (root, "model"), NULL);
  g_autoptr (IvlTokenizer) tokenizer = load (folder);
  g_autoptr (IvlChat) chat
    = ivl_chat_new (tokenizer, (guint) json_object_get_int_member (root, "tokens_per_tile"), IVL_ENCODE_LITERAL, &error);
  g_assert_no_error (error);
  g_autoptr (IvlChat) reference
    = ivl_chat_new (tokenizer, (guint) json_object_get_int_member (root, "tokens_per_tile"), IVL_ENCODE_SPECIAL, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (ivl_chat_get_image_id (chat), ==, json_object_get_int_member (root, "image_token_id"));
  guint n_eos;
  const guint32 *eos = ivl_tokenizer_get_eos (tokenizer, &n_eos);
  assert_same_set (root, "stop_ids", eos, n_eos);
  guint32 bos = (guint32) ivl_tokenizer_get_bos (tokenizer);
  assert_same_set (root, "bos_ids", &bos, ivl_tokenizer_get_bos (tokenizer) >= 0);

  JsonArray *cases = ivl_json_get_array (root, "cases");
  const char *system = ivl_json_get_string (root, "default_system");
  g_assert_cmpuint (json_array_get_length (cases), >, 0);
  for (guint i = 0; i < json_array_get_length (cases); i++)
    check_case (tokenizer, chat, reference, system, json_array_get_object_element (cases, i));
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  golden = argc > 1 ? argv[1] : "tests/golden";
  for (guint i = 0; i < G_N_ELEMENTS (vocabularies); i++) {
    g_autofree char *path = g_strconcat ("/text/golden/vocabulary/", vocabularies[i].model, NULL);
    g_test_add_data_func (path, &vocabularies[i], test_vocabulary);
  }
  g_test_add_func ("/text/golden/vocabulary/qwen2", test_qwen2);
  g_autofree char *values = g_build_filename (golden, "values", NULL);
  GDir *dir = g_dir_open (values, 0, NULL);
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);
  for (const char *name; dir && (name = g_dir_read_name (dir));)
    if (g_str_has_suffix (name, ".json"))
      g_ptr_array_add (names, g_strdup (name));
  g_clear_pointer (&dir, g_dir_close);
  for (guint i = 0; i < names->len; i++) {
    g_autofree char *path = g_strconcat ("/text/golden/prompts/", names->pdata[i], NULL);
    g_test_add_data_func (path, names->pdata[i], test_prompts);
  }
  return g_test_run ();
}
