/* Tokenizer files that are cut off, corrupt or lying: each a clear error, nothing leaked. */
#include <glib/gstdio.h>
#include <string.h>

#include "base/error.h"
#include "text-folder.h"
#include "text/tokenizer-private.h"

typedef struct {
  const char *name, *file, *text; /* a file put into a good folder; NULL text: removed */
  int code; /* IvlErrorCode */
  const char *message;
} Case;

/* A good byte vocabulary stands for "@". */
static const Case qwen2_cases[] = {
  { "no-vocab", "vocab.json", NULL, IVL_ERROR_BAD_MODEL, "no tokenizer" },
  { "no-merges", "merges.txt", NULL, IVL_ERROR_BAD_MODEL, "merges.txt: No such file" },
  { "empty-vocab", "vocab.json", "", IVL_ERROR_BAD_MODEL, "vocab.json: " },
  { "cut-vocab", "vocab.json", "{\"a\":1,\"b\"", IVL_ERROR_BAD_MODEL, "vocab.json: corrupt" },
  { "array-vocab", "vocab.json", "[1,2]", IVL_ERROR_BAD_MODEL, "not an object" },
  { "utf8-vocab", "vocab.json", "{\"\xff\":1}", IVL_ERROR_BAD_MODEL, "not UTF-8 at byte 2" },
  { "surrogate-vocab", "vocab.json", "{\"\\ud800\":1}", IVL_ERROR_BAD_MODEL, "vocab.json: corrupt" },
  { "few-pieces", "vocab.json", "{\"a\":0}", IVL_ERROR_BAD_MODEL, "no token for the single byte 0x00" },
  { "string-id", "vocab.json", "{\"a\":\"1\"}", IVL_ERROR_BAD_MODEL, "piece \"a\" has no token id of 0 to" },
  { "object-id", "vocab.json", "{\"a\":{}}", IVL_ERROR_BAD_MODEL, "piece \"a\" has no token id" },
  { "null-id", "vocab.json", "{\"a\":null}", IVL_ERROR_BAD_MODEL, "piece \"a\" has no token id" },
  { "double-id", "vocab.json", "{\"a\":1.5}", IVL_ERROR_BAD_MODEL, "piece \"a\" has no token id" },
  { "negative-id", "vocab.json", "{\"a\":-1}", IVL_ERROR_BAD_MODEL, "piece \"a\" has no token id" },
  { "huge-id", "vocab.json", "{\"a\":4194304}", IVL_ERROR_BAD_MODEL, "piece \"a\" has no token id" },
  { "wrapping-id", "vocab.json", "{\"a\":4294967296}", IVL_ERROR_BAD_MODEL, "piece \"a\" has no token id" },
  { "same-id", "vocab.json", "{\"a\":7,\"b\":7}", IVL_ERROR_BAD_MODEL, "id 7 is given to both \"a\" and \"b\"" },
  { "same-piece", "vocab.json", "{\"a\":7,\"a\":8}", IVL_ERROR_BAD_MODEL, "a key is given twice" },
  { "empty-piece", "vocab.json", "{\"\":7}", IVL_ERROR_BAD_MODEL, "piece 7 is empty" },
  { "merge-one", "merges.txt", "#version: 0.2\nhe\n", IVL_ERROR_BAD_MODEL, "merges.txt: line 2 isn't two pieces" },
  { "merge-three", "merges.txt", "h e\na b c\n", IVL_ERROR_BAD_MODEL, "merges.txt: line 2 isn't two pieces" },
  { "merge-half", "merges.txt", "h \n", IVL_ERROR_BAD_MODEL, "line 1 isn't two pieces" },
  { "merge-unknown", "merges.txt", "h xyz\n", IVL_ERROR_BAD_MODEL, "merge 1 (\"h\" + \"xyz\") names \"xyz\", which isn't" },
  { "merge-result", "merges.txt", "h e\nh h\n", IVL_ERROR_BAD_MODEL, "merge 2 (\"h\" + \"h\") names \"hh\"" },
  { "merge-utf8", "merges.txt", "h \xc3\n", IVL_ERROR_BAD_MODEL, "merges.txt: not UTF-8" },
  { "added-type", "added_tokens.json", "{\"<x>\":[]}", IVL_ERROR_BAD_MODEL, "added_tokens.json: \"<x>\" has no token id" },
  { "added-empty", "added_tokens.json", "{\"\":300}", IVL_ERROR_BAD_MODEL, "\"\" has no token id" },
  { "added-clash", "added_tokens.json", "{\"<img>\":999}", IVL_ERROR_BAD_MODEL, "\"<img>\" has id 999 here and id 268" },
  { "added-taken", "added_tokens.json", "{\"<x>\":268}", IVL_ERROR_BAD_MODEL, "has id 268, which belongs to \"<img>\"" },
  { "added-over-piece", "added_tokens.json", "{\"<x>\":97}", IVL_ERROR_BAD_MODEL, "has id 97, which belongs to \"a\"" },
  { "added-over-byte", "added_tokens.json", "{\"<x>\":211}", IVL_ERROR_BAD_MODEL, "belongs to \"\xef\xbf\xbd\"" },
  { "config-array", "tokenizer_config.json", "[]", IVL_ERROR_BAD_MODEL, "tokenizer_config.json: corrupt: not an object" },
  { "config-key", "tokenizer_config.json", "{\"added_tokens_decoder\":{\"x\":{}}}", IVL_ERROR_BAD_MODEL,
    "\"x\" in added_tokens_decoder is no token id" },
  { "config-big", "tokenizer_config.json", "{\"added_tokens_decoder\":{\"99999999999\":{}}}", IVL_ERROR_BAD_MODEL,
    "in added_tokens_decoder is no token id" },
  { "config-content", "tokenizer_config.json", "{\"added_tokens_decoder\":{\"300\":7}}", IVL_ERROR_BAD_MODEL,
    "added token 300 has no content" },
  { "config-strip", "tokenizer_config.json",
    "{\"added_tokens_decoder\":{\"300\":{\"content\":\"<x>\",\"lstrip\":true}}}", IVL_ERROR_UNSUPPORTED,
    "added token \"<x>\" sets \"lstrip\"" },
  { "config-twice", "tokenizer_config.json",
    "{\"added_tokens_decoder\":{\"300\":{\"content\":\"<x>\"},\"301\":{\"content\":\"<x>\"}}}", IVL_ERROR_BAD_MODEL,
    "\"<x>\" has id 301 here and id 300" },
  { "config-bos", "tokenizer_config.json", "{\"add_bos_token\":true,\"bos_token\":\"<none>\"}", IVL_ERROR_BAD_MODEL,
    "no begin token \"<none>\"" },
  { "map-deep", "special_tokens_map.json",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", IVL_ERROR_BAD_MODEL,
    "special_tokens_map.json: corrupt: nested too deeply" },
};

#define MODEL(vocab, merges) "{\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":" vocab ",\"merges\":" merges "}," META "}"
#define META "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"▁\",\"prepend_scheme\":\"never\",\"split\":false}"

static const Case json_cases[] = {
  { "empty", "tokenizer.json", "{}", IVL_ERROR_BAD_MODEL, "tokenizer.json: there is no model" },
  { "model-type", "tokenizer.json", "{\"model\":[]}", IVL_ERROR_BAD_MODEL, "there is no model" },
  { "vocab-type", "tokenizer.json", MODEL ("[]", "[]"), IVL_ERROR_BAD_MODEL, "there is no model" },
  { "merges-type", "tokenizer.json", MODEL ("{}", "{}"), IVL_ERROR_BAD_MODEL, "there is no model" },
  { "unigram", "tokenizer.json", "{\"model\":{\"type\":\"Unigram\"}}", IVL_ERROR_UNSUPPORTED, "type \"Unigram\"" },
  { "type-type", "tokenizer.json", "{\"model\":{\"type\":7}}", IVL_ERROR_UNSUPPORTED, "type \"?\"" },
  { "stages", "tokenizer.json", "{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", IVL_ERROR_UNSUPPORTED,
    "neither those of Qwen2" },
  { "stages-type", "tokenizer.json",
    "{\"normalizer\":[],\"pre_tokenizer\":7,\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}",
    IVL_ERROR_UNSUPPORTED, "neither those of Qwen2" },
  { "dropout", "tokenizer.json",
    "{" META ",\"model\":{\"dropout\":0.1,\"byte_fallback\":true,\"vocab\":{},\"merges\":[]}}", IVL_ERROR_UNSUPPORTED,
    "neither those of Qwen2" },
  { "no-bytes", "tokenizer.json", MODEL ("{\"a\":0}", "[]"), IVL_ERROR_BAD_MODEL, "no token for the single byte 0x00" },
  { "merge-number", "tokenizer.json", MODEL ("@", "[7]"), IVL_ERROR_BAD_MODEL, "merge 1 isn't two pieces" },
  { "merge-null", "tokenizer.json", MODEL ("@", "[null]"), IVL_ERROR_BAD_MODEL, "merge 1 isn't two pieces" },
  { "merge-string", "tokenizer.json", MODEL ("@", "[\"ab\"]"), IVL_ERROR_BAD_MODEL, "merge 1 isn't two pieces" },
  { "merge-pair", "tokenizer.json", MODEL ("@", "[[\"a\",7]]"), IVL_ERROR_BAD_MODEL, "merge 1 isn't two pieces" },
  { "merge-long", "tokenizer.json", MODEL ("@", "[[\"a\",\"b\",\"c\"]]"), IVL_ERROR_BAD_MODEL, "merge 1 isn't two" },
  { "merge-unknown", "tokenizer.json", MODEL ("@", "[[\"a\",\"b\"]]"), IVL_ERROR_BAD_MODEL, "isn't in the vocabulary" },
  { "added-id", "tokenizer.json", "{\"added_tokens\":[{\"content\":\"x\"}]}", IVL_ERROR_BAD_MODEL,
    "added_tokens[0] has no token id" },
  { "added-type", "tokenizer.json", "{\"added_tokens\":[7]}", IVL_ERROR_BAD_MODEL, "added_tokens[0] has no token id" },
  { "added-content", "tokenizer.json", "{\"added_tokens\":[{\"id\":1,\"content\":null}]}", IVL_ERROR_BAD_MODEL,
    "added token 1 has no content" },
};

static void
expect_failure (const char *folder, int code, const char *message)
{
  GError *error = NULL;
  IvlTokenizer *tokenizer = ivl_tokenizer_load (folder, &error);
  g_assert_null (tokenizer);
  assert_error_is (error, code, message);
}

static void
remove_file (const char *folder, const char *name)
{
  g_autofree char *path = g_build_filename (folder, name, NULL);
  g_assert_cmpint (g_remove (path), ==, 0);
}

static void
test_qwen2_case (gconstpointer data)
{
  const Case *c = data;
  g_autofree char *folder = folder_new ();
  text_write_qwen2 (folder);
  if (c->text)
    folder_write (folder, c->file, c->text, -1);
  else
    remove_file (folder, c->file);
  expect_failure (folder, c->code, c->message);
  folder_remove (folder);
}

static void
test_json_case (gconstpointer data)
{
  const Case *c = data;
  g_autofree char *folder = folder_new (), *vocab = text_vocab_json (TRUE, NULL);
  g_autoptr (GString) text = g_string_new (c->text);
  g_string_replace (text, "@", vocab, 1);
  folder_write (folder, c->file, text->str, (gssize) text->len);
  expect_failure (folder, c->code, c->message);
  folder_remove (folder);
}

static void
test_folder (void)
{
  expect_failure ("/nonexistent/folder", IVL_ERROR_BAD_MODEL, "/nonexistent/folder: no tokenizer");
  g_autofree char *folder = folder_new ();
  expect_failure (folder, IVL_ERROR_BAD_MODEL, "no tokenizer: a checkpoint has tokenizer.model, or vocab.json");
  folder_remove (folder);
}

static void
test_long_added (void)
{
  g_autofree char *folder = folder_new (), *name = g_strnfill (IVL_MAX_ADDED_BYTES + 1, 'x');
  g_autofree char *json = g_strdup_printf ("{\"%s\":300}", name);
  text_write_qwen2 (folder);
  folder_write (folder, "added_tokens.json", json, -1);
  expect_failure (folder, IVL_ERROR_BAD_MODEL, "added token 300 is empty, too long");
  folder_remove (folder);
}

/* Cut anywhere, a file gives an error or (behind the last bracket) the tokenizer. */
static void
test_cut (void)
{
  static const char *const names[] = { "vocab.json", "tokenizer_config.json", "merges.txt" };
  g_autofree char *folder = folder_new ();
  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    text_write_qwen2 (folder);
    g_autofree char *path = g_build_filename (folder, names[i], NULL);
    g_autofree char *text = NULL;
    gsize n;
    g_assert_true (g_file_get_contents (path, &text, &n, NULL));
    for (gsize cut = 0; cut < n; cut += 1 + n / 150) {
      folder_write (folder, names[i], text, (gssize) cut);
      GError *error = NULL;
      g_autoptr (IvlTokenizer) tokenizer = ivl_tokenizer_load (folder, &error);
      g_assert_true ((tokenizer != NULL) == (error == NULL));
      if (i < 2)
        g_assert_error (error, IVL_ERROR, IVL_ERROR_BAD_MODEL);
      g_clear_error (&error);
    }
  }
  folder_remove (folder);
}

/* ---- SentencePiece ---- */

typedef enum { SP_GOOD, SP_UNIGRAM, SP_NO_PIECES, SP_EMPTY_PIECE, SP_LONG_PIECE, SP_BAD_UTF8, SP_BAD_BYTE, SP_NO_UNKNOWN,
               SP_TWO_UNKNOWN, SP_MISSING_BYTE, SP_SAME_PIECE, SP_BAD_TYPE, SP_NUL_CONTROL, SP_NUL_USER } SpFault;

static const struct {
  const char *name;
  SpFault fault;
  int code; /* IvlErrorCode */
  const char *message;
} sp_cases[] = {
  { "unigram", SP_UNIGRAM, IVL_ERROR_UNSUPPORTED, "SentencePiece model of type 1" },
  { "no-pieces", SP_NO_PIECES, IVL_ERROR_BAD_MODEL, "it has no pieces" },
  { "empty-piece", SP_EMPTY_PIECE, IVL_ERROR_BAD_MODEL, "piece 259 is empty" },
  { "long-piece", SP_LONG_PIECE, IVL_ERROR_BAD_MODEL, "piece 259 is longer than 1024 bytes" },
  { "bad-utf8", SP_BAD_UTF8, IVL_ERROR_BAD_MODEL, "piece 259 isn't UTF-8" },
  { "bad-byte", SP_BAD_BYTE, IVL_ERROR_BAD_MODEL, "piece 259 is of type byte but isn't spelled <0xHH>" },
  { "no-unknown", SP_NO_UNKNOWN, IVL_ERROR_BAD_MODEL, "0 pieces of type unknown" },
  { "two-unknown", SP_TWO_UNKNOWN, IVL_ERROR_BAD_MODEL, "2 pieces of type unknown" },
  { "missing-byte", SP_MISSING_BYTE, IVL_ERROR_BAD_MODEL, "byte fallback with 0 of 256" },
  { "same-piece", SP_SAME_PIECE, IVL_ERROR_BAD_MODEL, "SentencePiece refuses it" },
  { "bad-type", SP_BAD_TYPE, IVL_ERROR_BAD_MODEL, "corrupt at byte" },
  { "nul-control", SP_NUL_CONTROL, IVL_ERROR_BAD_MODEL, "piece 259 has a NUL character" },
  { "nul-user", SP_NUL_USER, IVL_ERROR_BAD_MODEL, "piece 259 has a NUL character" },
};

static GByteArray *
sp_model (SpFault fault, gconstpointer charsmap, gsize n_charsmap)
{
  GByteArray *model = text_sp_new ();
  g_autofree char *long_piece = g_strnfill (1025, 'x');
  if (fault == SP_MISSING_BYTE)
    text_sp_add (model, "<unk>", 0, 2);
  else if (fault == SP_NO_UNKNOWN)
    text_sp_add (model, "a", 0, 1);
  else if (fault != SP_NO_PIECES)
    text_sp_add_basics (model);
  if (fault == SP_EMPTY_PIECE)
    text_sp_add (model, "", 0, 1);
  else if (fault == SP_LONG_PIECE)
    text_sp_add (model, long_piece, 0, 1);
  else if (fault == SP_BAD_UTF8)
    text_sp_add (model, "\xc3", 0, 1);
  else if (fault == SP_BAD_BYTE)
    text_sp_add (model, "<0xZZ>", 0, 6);
  else if (fault == SP_TWO_UNKNOWN)
    text_sp_add (model, "?", 0, 2);
  else if (fault == SP_BAD_TYPE)
    text_sp_add (model, "?", 0, 77);
  else if (fault == SP_NUL_CONTROL || fault == SP_NUL_USER)
    text_sp_add_bytes (model, "a\0b", 3, 0, fault == SP_NUL_USER ? 4 : 3);
  if (fault == SP_SAME_PIECE) {
    text_sp_add (model, "a", 0, 1);
    text_sp_add (model, "a", 0, 1);
  }
  text_sp_finish (model, fault == SP_UNIGRAM ? 1 : 2, FALSE, charsmap, n_charsmap);
  return model;
}

static void
test_sp_faults (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (sp_cases); i++) {
    g_autofree char *folder = folder_new ();
    g_autoptr (GByteArray) model = sp_model (sp_cases[i].fault, NULL, 0);
    folder_write (folder, "tokenizer.model", model->data, model->len);
    expect_failure (folder, sp_cases[i].code, sp_cases[i].message);
    folder_remove (folder);
  }
}

static void
test_sp_added (void)
{
  g_autofree char *folder = folder_new ();
  g_autoptr (GByteArray) model = sp_model (SP_GOOD, NULL, 0);
  folder_write (folder, "tokenizer.model", model->data, model->len);
  folder_write (folder, "added_tokens.json", "{\"<a>\":300,\"<b>\":300}", -1);
  expect_failure (folder, IVL_ERROR_BAD_MODEL, "added token \"<b>\" has id 300, which belongs to \"<a>\"");
  folder_write (folder, "added_tokens.json", "{\"<a>\":4194304}", -1);
  expect_failure (folder, IVL_ERROR_BAD_MODEL, "\"<a>\" has no token id");
  folder_remove (folder);
}

/* Normalisation tables that lead the library out of their bounds. */
static void
test_sp_charsmap (void)
{
  enum { TRIE = 1024 };
  struct {
    guint32 trie_bytes, units[256];
    char strings[8];
  } map;
  const struct {
    guint32 trie_bytes, at, unit;
    char last;
    const char *message; /* NULL: fine */
  } cases[] = {
    { TRIE, 0, 0, 0, NULL },
    { TRIE, 0, 256u << 10, 0, "outside its trie" },
    { TRIE, 0, (1u << 10) | (1u << 9), 0, "outside its trie" },
    { TRIE, 97, 0xfffffu << 10, 0, "outside its trie" },
    { TRIE, 97, 1u << 8, 0, "outside its strings" }, /* its leaf is itself, 0x100 */
    { TRIE, 0, 0, 'x', "doesn't end its last string" },
    { TRIE + 4, 0, 0, 0, "impossible size" },
    { 0xfffffc00, 0, 0, 0, "impossible size" },
    { 0, 0, 0, 0, "impossible size" },
  };
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    memset (&map, 0, sizeof map);
    map.trie_bytes = cases[i].trie_bytes;
    map.units[cases[i].at] = cases[i].unit;
    map.strings[7] = cases[i].last;
    g_autofree char *folder = folder_new ();
    g_autoptr (GByteArray) model = sp_model (SP_GOOD, &map, sizeof map);
    folder_write (folder, "tokenizer.model", model->data, model->len);
    if (cases[i].message) {
      expect_failure (folder, IVL_ERROR_BAD_MODEL, cases[i].message);
    } else {
      GError *error = NULL;
      g_autoptr (IvlTokenizer) tokenizer = ivl_tokenizer_load (folder, &error);
      g_assert_no_error (error);
      text_assert_encodes (tokenizer, "ab", IVL_ENCODE_LITERAL, "100 101");
    }
    folder_remove (folder);
  }
}

/* Cut and with bytes changed: an error, or a tokenizer that works. */
static void
test_sp_mutations (void)
{
  g_autofree char *folder = folder_new ();
  g_autoptr (GByteArray) model = sp_model (SP_GOOD, NULL, 0);
  for (guint i = 0; i < 1500; i++) {
    g_autofree guint8 *data = g_memdup2 (model->data, model->len);
    gsize n = i % 3 == 0 ? (gsize) g_test_rand_int_range (0, (gint32) model->len) : model->len;
    for (guint k = 0; i % 3 != 0 && k < 3; k++)
      data[g_test_rand_int_range (0, (gint32) model->len)] = (guint8) g_test_rand_int_range (0, 256);
    folder_write (folder, "tokenizer.model", data, (gssize) n);
    GError *error = NULL;
    g_autoptr (IvlTokenizer) tokenizer = ivl_tokenizer_load (folder, &error);
    g_assert_true ((tokenizer != NULL) == (error == NULL));
    if (tokenizer) {
      g_autoptr (GArray) ids = g_array_new (FALSE, FALSE, sizeof (guint32));
      ivl_tokenizer_encode (tokenizer, "a b\xc3\xa9<s>\n", -1, IVL_ENCODE_SPECIAL | IVL_ENCODE_BOS, ids, NULL);
      g_free (ivl_tokenizer_decode (tokenizer, (const guint32 *) ids->data, ids->len, 0, NULL));
    }
    g_clear_error (&error);
  }
  folder_remove (folder);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/text/hostile/folder", test_folder);
  for (guint i = 0; i < G_N_ELEMENTS (qwen2_cases); i++) {
    g_autofree char *path = g_strconcat ("/text/hostile/qwen2/", qwen2_cases[i].name, NULL);
    g_test_add_data_func (path, &qwen2_cases[i], test_qwen2_case);
  }
  for (guint i = 0; i < G_N_ELEMENTS (json_cases); i++) {
    g_autofree char *path = g_strconcat ("/text/hostile/json/", json_cases[i].name, NULL);
    g_test_add_data_func (path, &json_cases[i], test_json_case);
  }
  g_test_add_func ("/text/hostile/long-added", test_long_added);
  g_test_add_func ("/text/hostile/cut", test_cut);
  g_test_add_func ("/text/hostile/sp/faults", test_sp_faults);
  g_test_add_func ("/text/hostile/sp/added", test_sp_added);
  g_test_add_func ("/text/hostile/sp/charsmap", test_sp_charsmap);
  g_test_add_func ("/text/hostile/sp/mutations", test_sp_mutations);
  return g_test_run ();
}
