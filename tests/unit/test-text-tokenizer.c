/* Tokenizers of both kinds from files made here: encoding, decoding, the vocabulary. */
#include <string.h>

#include "base/error.h"
#include "text-folder.h"
#include "text/bpe.h"
#include "text/unicode.h"

static IvlTokenizer *
load (const char *folder)
{
  GError *error = NULL;
  IvlTokenizer *tokenizer = ivl_tokenizer_load (folder, &error);
  g_assert_no_error (error);
  g_assert_nonnull (tokenizer);
  return tokenizer;
}

static IvlTokenizer *
load_qwen2 (void)
{
  g_autofree char *folder = folder_new ();
  text_write_qwen2 (folder);
  IvlTokenizer *tokenizer = load (folder);
  folder_remove (folder);
  return tokenizer;
}

static char *
decode (IvlTokenizer *tokenizer, const guint32 *ids, gsize n, IvlDecodeFlags flags)
{
  gsize length;
  char *text = ivl_tokenizer_decode (tokenizer, ids, n, flags, &length);
  /* One by one gives the same, and never half a sequence. */
  g_autoptr (IvlTextDecoder) decoder = ivl_text_decoder_new (tokenizer, flags);
  for (guint round = 0; round < 2; round++) {
    g_autoptr (GString) out = g_string_new (NULL);
    for (gsize i = 0; i < n; i++) {
      ivl_text_decoder_feed (decoder, ids[i], out);
      g_assert_true (ivl_utf8_validate (out->str, out->len, NULL));
    }
    ivl_text_decoder_flush (decoder, out);
    g_assert_cmpmem (out->str, out->len, text, length);
  }
  return text;
}

#define assert_decodes(tokenizer, flags, expected, ...)                                              \
  G_STMT_START                                                                                       \
  {                                                                                                  \
    const guint32 ids_[] = { __VA_ARGS__ };                                                          \
    g_autofree char *text_ = decode (tokenizer, ids_, G_N_ELEMENTS (ids_), flags);                   \
    g_assert_cmpstr (text_, ==, expected);                                                           \
  }                                                                                                  \
  G_STMT_END

/* ---- Unicode ---- */

static void
test_words (void)
{
  /* Cuts as transformers' Qwen2 pre-tokeniser makes them, "|" between. */
  static const char *const cases[] = {
    "Hello| world|!!", "a|'ſ|ſb", "it|'s|'LL|'x", "a|'rE|b", "x|1|2|3|abc", "a|    | b", "   \n| | x", "a|\n|b",
    "a|\r\n \t\n|  | b", "a|  ", "é|\xcc\x81\xcc\x81| b", "\xc2\xa0|\xe3\x80\x80x", "\xe2\x80\xa8|\xe2\x80\xa9x",
    "a|\x0b\x0c| b", "\xef\xbb\xbfx", " ...\n\n|x", "..|\t|..", "(a|(|1|)\n", "'| s", "中文|。字", "½|²|Ⅷ", "\x1c\x1d|a",
    " |\xc2\x85" "a", "'|1", "\t\n|'re", "🇩🇪👍🏽",
  };
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GString) whole = g_string_new (cases[i]), cut = g_string_new (NULL);
    g_string_replace (whole, "|", "", 0);
    for (gsize at = 0; at < whole->len;) {
      gsize n = ivl_qwen2_word (whole->str + at, whole->len - at);
      g_assert_cmpuint (n, >, 0);
      g_assert_cmpuint (n, <=, whole->len - at);
      g_string_append_printf (cut, "%s%.*s", at ? "|" : "", (int) n, whole->str + at);
      at += n;
    }
    g_assert_cmpstr (cut->str, ==, cases[i]);
  }
}

static void
test_nfc (void)
{
  static const gunichar alphabet[] = { 'a', 'e', 'o', 0xe9, 0x41, 0x300, 0x301, 0x323, 0x327, 0x338, 0x344, 0x345,
                                       0x3b1, 0xf71, 0xf72, 0xf73, 0xf74, 0x93c, 0x915, 0x958, 0x1100, 0x1161, 0x11a8,
                                       0xac00, 0x212b, 0x1e69, 0xfb1d, 0x1d15e, 0x2f800, 0x9c7, 0x9be, '>' };
  for (guint i = 0; i < 20000; i++) {
    g_autoptr (GString) text = g_string_new (NULL);
    for (gint n = g_test_rand_int_range (0, 12); n > 0; n--)
      g_string_append_unichar (text, alphabet[g_test_rand_int_range (0, G_N_ELEMENTS (alphabet))]);
    gsize length = text->len;
    g_autofree char *nfc = ivl_utf8_nfc (text->str, text->len, &length);
    g_autofree char *glib = g_utf8_normalize (text->str, -1, G_NORMALIZE_NFC);
    const char *found = nfc ? nfc : text->str;
    g_assert_cmpmem (found, length, glib, strlen (glib));
  }
  /* Half a million marks that must change places, or compositions: not in quadratic time. */
  for (guint kind = 0; kind < 2; kind++) {
    g_autoptr (GString) text = g_string_new ("a");
    for (guint i = 0; i < 250000; i++)
      g_string_append (text, kind ? "e\xcc\x81" : "\xcc\x81\xcc\xa3");
    gsize length;
    gint64 start = g_get_monotonic_time ();
    g_autofree char *nfc = ivl_utf8_nfc (text->str, text->len, &length);
    g_assert_cmpint (g_get_monotonic_time () - start, <, 20 * G_USEC_PER_SEC);
    g_assert_cmpuint (length, ==, kind ? 1 + 2 * 250000 : text->len);
    g_assert_true (g_str_has_prefix (nfc, kind ? "a\xc3\xa9\xc3\xa9" : "\xe1\xba\xa1\xcc\xa3\xcc\xa3"));
  }
}

static void
test_validate (void)
{
  gsize at = 99;
  g_assert_true (ivl_utf8_validate ("a\0b", 3, NULL));
  g_assert_true (ivl_utf8_validate ("", 0, NULL));
  g_assert_false (ivl_utf8_validate ("a\0\xc3", 3, &at));
  g_assert_cmpuint (at, ==, 2);
  g_assert_false (ivl_utf8_validate ("\xed\xa0\x80", 3, &at));
}

/* ---- merging ---- */

/* Joins the first of the best pairs, again and again. */
static gsize
merge_slowly (const IvlBpe *bpe, guint32 *ids, gsize n)
{
  for (;;) {
    gsize best = n;
    guint32 rank = G_MAXUINT32, merged = 0;
    for (gsize i = 0; i + 1 < n; i++) {
      const IvlPairEntry *merge = ivl_pair_map_find (&bpe->merges, (guint64) ids[i] << 32 | ids[i + 1]);
      if (merge && merge->a < rank) {
        best = i;
        rank = merge->a;
        merged = merge->b;
      }
    }
    if (best == n)
      return n;
    ids[best] = merged;
    memmove (ids + best + 1, ids + best + 2, (n - best - 2) * sizeof *ids);
    n--;
  }
}

static void
test_merge_order (void)
{
  IvlBpeScratch scratch = { NULL };
  for (guint round = 0; round < 300; round++) {
    IvlBpe bpe;
    ivl_bpe_init (&bpe, 4);
    guint32 next = 4;
    for (guint rank = 0; rank < 60; rank++) {
      guint32 left = (guint32) g_test_rand_int_range (0, (gint32) next),
              right = (guint32) g_test_rand_int_range (0, (gint32) next);
      if (!ivl_pair_map_find (&bpe.merges, (guint64) left << 32 | right))
        ivl_bpe_add (&bpe, left, right, rank, next++);
    }
    for (guint i = 0; i < 20; i++) {
      guint32 fast[64], slow[64];
      gsize n = (gsize) g_test_rand_int_range (0, 64);
      for (gsize k = 0; k < n; k++)
        fast[k] = slow[k] = (guint32) g_test_rand_int_range (0, 4);
      gsize n_fast = ivl_bpe_apply (&bpe, &scratch, fast, n), n_slow = merge_slowly (&bpe, slow, n);
      g_assert_cmpmem (fast, n_fast * 4, slow, n_slow * 4);
    }
    ivl_bpe_deinit (&bpe);
  }
  ivl_bpe_scratch_deinit (&scratch);
}

static void
test_long_word (void)
{
  g_autoptr (IvlTokenizer) tokenizer = load_qwen2 ();
  g_autoptr (GString) word = g_string_new (NULL);
  while (word->len < 1 << 20)
    g_string_append (word, "hello");
  g_autoptr (GArray) ids = g_array_new (FALSE, FALSE, sizeof (guint32));
  gint64 start = g_get_monotonic_time ();
  g_assert_true (ivl_tokenizer_encode (tokenizer, word->str, (gssize) word->len, IVL_ENCODE_SPECIAL, ids, NULL));
  g_assert_cmpint (g_get_monotonic_time () - start, <, 20 * G_USEC_PER_SEC);
  g_assert_cmpuint (ids->len, ==, word->len / 5);
  for (guint i = 0; i < ids->len; i++)
    g_assert_cmpuint (g_array_index (ids, guint32, i), ==, 259);
}

/* ---- Qwen2 ---- */

static void
test_qwen2 (void)
{
  g_autoptr (IvlTokenizer) tokenizer = load_qwen2 ();
  text_assert_encodes (tokenizer, "", IVL_ENCODE_SPECIAL, "");
  text_assert_encodes (tokenizer, "hello world", IVL_ENCODE_LITERAL, "259 264");
  text_assert_encodes (tokenizer, "hello  world", IVL_ENCODE_LITERAL, "259 32 264");
  text_assert_encodes (tokenizer, "hell", IVL_ENCODE_BOS, "258"); /* Qwen2 has no begin token */
  text_assert_encodes (tokenizer, "e\xcc\x81", IVL_ENCODE_LITERAL, "195 169"); /* composed */

  /* Special, tags and literal. */
  text_assert_encodes (tokenizer, "<|im_end|>he<ref>", IVL_ENCODE_SPECIAL, "267 256 273");
  text_assert_encodes (tokenizer, "<box>he<img>", IVL_ENCODE_TAGS, "275 256 60 105 109 103 62");
  text_assert_encodes (tokenizer, "<ref>", IVL_ENCODE_LITERAL, "60 114 101 102 62");
  text_assert_encodes (tokenizer, "<<ref>", IVL_ENCODE_SPECIAL, "60 273");
  text_assert_encodes (tokenizer, "<ref<ref>", IVL_ENCODE_SPECIAL, "60 114 101 102 273");
  /* U+0338 behind ">" composes, but not with an added token's. */
  text_assert_encodes (tokenizer, "<ref>\xcc\xb8", IVL_ENCODE_SPECIAL, "273 204 184");

  g_assert_cmpuint (ivl_tokenizer_get_n_tokens (tokenizer), ==, 278);
  g_assert_cmpint (ivl_tokenizer_token_id (tokenizer, "<IMG_CONTEXT>"), ==, 270);
  g_assert_cmpint (ivl_tokenizer_token_id (tokenizer, " world"), ==, 264);
  g_assert_cmpint (ivl_tokenizer_token_id (tokenizer, "nothing"), ==, -1);
  g_assert_cmpint (ivl_tokenizer_get_bos (tokenizer), ==, -1);
  guint n;
  const guint32 *eos = ivl_tokenizer_get_eos (tokenizer, &n);
  g_assert_cmpuint (n, ==, 1);
  g_assert_cmpuint (eos[0], ==, 267);
  g_assert_cmpuint (ivl_tokenizer_token_flags (tokenizer, 267), ==,
                    IVL_TOKEN_USED | IVL_TOKEN_ADDED | IVL_TOKEN_SPECIAL | IVL_TOKEN_END);
  g_assert_cmpuint (ivl_tokenizer_token_flags (tokenizer, 273), ==,
                    IVL_TOKEN_USED | IVL_TOKEN_ADDED | IVL_TOKEN_SPECIAL | IVL_TOKEN_TAG);
  g_assert_cmpuint (ivl_tokenizer_token_flags (tokenizer, 277), ==, IVL_TOKEN_USED | IVL_TOKEN_ADDED);
  g_assert_cmpuint (ivl_tokenizer_token_flags (tokenizer, 278), ==, 0);
  gsize length;
  const guint8 *bytes = ivl_tokenizer_token_bytes (tokenizer, 264, &length);
  g_assert_cmpmem (bytes, length, " world", 6);
  bytes = ivl_tokenizer_token_bytes (tokenizer, 0xff, &length);
  g_assert_cmpmem (bytes, length, "\xff", 1);
  g_assert_nonnull (ivl_tokenizer_token_bytes (tokenizer, G_MAXUINT32, &length));
  g_assert_cmpuint (length, ==, 0);
}

static void
test_decode (void)
{
  g_autoptr (IvlTokenizer) tokenizer = load_qwen2 ();
  assert_decodes (tokenizer, IVL_DECODE_ALL, "hello world<|im_end|>", 259, 264, 267);
  assert_decodes (tokenizer, IVL_DECODE_SKIP_SPECIAL, "hello world<tool_call>", 259, 267, 264, 277, 273, 9999);
  assert_decodes (tokenizer, IVL_DECODE_SKIP_SPECIAL | IVL_DECODE_KEEP_TAGS, "<ref>he</ref>", 266, 273, 256, 274, 267);
  assert_decodes (tokenizer, IVL_DECODE_ALL, "é中😀", 0xc3, 0xa9, 0xe4, 0xb8, 0xad, 0xf0, 0x9f, 0x98, 0x80);
  /* As Python's errors="replace": one U+FFFD for the longest start of a sequence. */
  assert_decodes (tokenizer, IVL_DECODE_ALL, "\xef\xbf\xbd", 0xe4, 0xb8);
  assert_decodes (tokenizer, IVL_DECODE_ALL, "\xef\xbf\xbdhe", 0xf0, 0x9f, 0x98, 256);
  assert_decodes (tokenizer, IVL_DECODE_ALL, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", 0xed, 0xa0, 0x80);
  assert_decodes (tokenizer, IVL_DECODE_ALL, "\xef\xbf\xbd\xef\xbf\xbd", 0xc0, 0xaf);
  assert_decodes (tokenizer, IVL_DECODE_ALL, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", 0xf4, 0x90, 0x80, 0x80);
  assert_decodes (tokenizer, IVL_DECODE_ALL, "\xef\xbf\xbdé", 0xe4, 0xc3, 0xa9);
  /* A special token that is left out doesn't cut a sequence. */
  assert_decodes (tokenizer, IVL_DECODE_SKIP_SPECIAL, "é", 0xc3, 267, 0xa9);
}

static void
test_bad_text (void)
{
  g_autoptr (IvlTokenizer) tokenizer = load_qwen2 ();
  g_autoptr (GArray) ids = g_array_new (FALSE, FALSE, sizeof (guint32));
  GError *error = NULL;
  g_assert_false (ivl_tokenizer_encode (tokenizer, "ab\xff", -1, IVL_ENCODE_SPECIAL, ids, &error));
  assert_error_is (error, IVL_ERROR_BAD_ARGUMENT, "byte 0xFF at 2");
  g_assert_cmpuint (ids->len, ==, 0);
  g_assert_true (ivl_tokenizer_encode (tokenizer, "a\0b", 3, IVL_ENCODE_SPECIAL, ids, &error));
  g_assert_no_error (error);
  g_assert_cmpuint (ids->len, ==, 3);
}

/* ---- tokenizer.json ---- */

#define QWEN2_STAGES                                                                                                   \
  "\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\"," \
  "\"pattern\":{\"Regex\":\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| "            \
  "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},\"behavior\":\"Isolated\","    \
  "\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}]},"

static void
test_json_bytes (void)
{
  static const char *const extra[] = { "he", "ll", NULL };
  for (guint pairs = 0; pairs < 2; pairs++) {
    g_autofree char *folder = folder_new (), *vocab = text_vocab_json (FALSE, extra);
    g_autofree char *json = g_strdup_printf (
      "{\"version\":\"1.0\"," QWEN2_STAGES "\"added_tokens\":[{\"id\":258,\"content\":\"<|im_end|>\",\"special\":true},"
      "{\"id\":259,\"content\":\"\xc3\xa9>\",\"special\":false,\"normalized\":true}],"
      "\"model\":{\"type\":\"BPE\",\"byte_fallback\":false,\"vocab\":%s,\"merges\":%s}}",
      vocab, pairs ? "[[\"h\",\"e\"],[\"l\",\"l\"]]" : "[\"h e\",\"l l\"]");
    folder_write (folder, "tokenizer.json", json, -1);
    g_autoptr (IvlTokenizer) tokenizer = load (folder);
    text_assert_encodes (tokenizer, "hell<|im_end|>", IVL_ENCODE_SPECIAL, "256 257 258");
    /* 259 is looked for after normalisation, 258 before. */
    text_assert_encodes (tokenizer, "e\xcc\x81>", IVL_ENCODE_SPECIAL, "259");
    text_assert_encodes (tokenizer, "e\xcc\x81>\xcc\xb8", IVL_ENCODE_SPECIAL, "195 169 226 137 175");
    folder_remove (folder);
  }
}

static void
test_json_chars (void)
{
  static const char *const extra[] = { "▁", "a", "b", "ab", "▁ab", "<s>", NULL }; /* 256 .. 261 */
  static const struct {
    const char *scheme, *ids;
  } cases[] = {
    { "never", "259 260 261 259" },
    { "first", "260 260 261 259" },
    { "always", "260 260 261 260" },
  };
  g_autofree char *vocab = text_vocab_json (TRUE, extra);
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *folder = folder_new ();
    g_autofree char *json = g_strdup_printf (
      "{\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"▁\",\"prepend_scheme\":\"%s\","
      "\"split\":false},\"added_tokens\":[{\"id\":261,\"content\":\"<s>\",\"special\":true}],\"model\":{\"type\":\"BPE\","
      "\"byte_fallback\":true,\"vocab\":%s,\"merges\":[\"a b\",\"▁ ab\"]}}",
      cases[i].scheme, vocab);
    folder_write (folder, "tokenizer.json", json, -1);
    folder_write (folder, "tokenizer_config.json", "{\"bos_token\":\"<s>\",\"add_bos_token\":true}", -1);
    g_autoptr (IvlTokenizer) tokenizer = load (folder);
    text_assert_encodes (tokenizer, "ab ab<s>ab", IVL_ENCODE_SPECIAL, cases[i].ids);
    if (i == 0) {
      text_assert_encodes (tokenizer, "ab", IVL_ENCODE_BOS, "261 259");
      text_assert_encodes (tokenizer, "aé", IVL_ENCODE_SPECIAL, "257 195 169");
      text_assert_encodes (tokenizer, "<0x41>", IVL_ENCODE_SPECIAL, "60 48 120 52 49 62");
      assert_decodes (tokenizer, IVL_DECODE_ALL, "ab abé", 259, 260, 195, 169);
    }
    if (i == 2)
      assert_decodes (tokenizer, IVL_DECODE_ALL, "ab ab", 260, 260);
    folder_remove (folder);
  }
}

/* ---- SentencePiece ---- */

static void
test_sentencepiece (void)
{
  g_autoptr (GByteArray) model = text_sp_new ();
  text_sp_add_basics (model);
  static const char *const pieces[] = { "▁", "a", "b", "ab", "▁ab" }; /* 259 .. 263 */
  for (guint i = 0; i < G_N_ELEMENTS (pieces); i++)
    text_sp_add (model, pieces[i], i < 3 ? -100.f : -(float) i, 1);
  text_sp_add (model, "[UNUSED_TOKEN_145]", 0, 4); /* 264 */
  text_sp_finish (model, 2, FALSE, NULL, 0);
  g_autofree char *folder = folder_new ();
  folder_write (folder, "tokenizer.model", model->data, model->len);
  folder_write (folder, "added_tokens.json", "{\"<img>\":265,\"<ref>\":266}", -1);
  folder_write (folder, "tokenizer_config.json",
                "{\"add_bos_token\":true,\"added_tokens_decoder\":{\"264\":{\"content\":\"<|im_end|>\",\"special\":true}}}",
                -1);
  g_autoptr (IvlTokenizer) tokenizer = load (folder);
  g_assert_cmpuint (ivl_tokenizer_get_n_tokens (tokenizer), ==, 267);
  text_assert_encodes (tokenizer, "ab ab  ab", IVL_ENCODE_LITERAL, "262 263 259 263");
  text_assert_encodes (tokenizer, "ab", IVL_ENCODE_BOS, "1 262");
  text_assert_encodes (tokenizer, "a\n\xc3\xa9", IVL_ENCODE_LITERAL, "260 13 198 172");
  text_assert_encodes (tokenizer, "ab<|im_end|>ab<s>", IVL_ENCODE_SPECIAL, "262 264 262 1");
  text_assert_encodes (tokenizer, "<ref>", IVL_ENCODE_TAGS, "266");
  /* Nobody's text is the end token, under neither of its names. */
  for (guint i = 0; i < 2; i++) {
    g_autoptr (GArray) ids = g_array_new (FALSE, FALSE, sizeof (guint32));
    const char *text = i ? "a[UNUSED_TOKEN_145]" : "a<|im_end|>";
    g_assert_true (ivl_tokenizer_encode (tokenizer, text, -1, i ? IVL_ENCODE_TAGS : IVL_ENCODE_LITERAL, ids, NULL));
    for (guint k = 0; k < ids->len; k++)
      g_assert_cmpuint (g_array_index (ids, guint32, k), !=, 264);
    g_autofree char *back = decode (tokenizer, (const guint32 *) ids->data, ids->len, IVL_DECODE_ALL);
    g_assert_cmpstr (back, ==, text);
  }
  guint n;
  const guint32 *eos = ivl_tokenizer_get_eos (tokenizer, &n);
  g_assert_cmpuint (n, ==, 2);
  g_assert_cmpuint (eos[0], ==, 264);
  g_assert_cmpuint (eos[1], ==, 2);
  /* SentencePiece replaces each byte that is no UTF-8 by itself. */
  assert_decodes (tokenizer, IVL_DECODE_ALL, "\xef\xbf\xbd\xef\xbf\xbd" "ab", 3 + 0xe4, 3 + 0xb8, 262);
  assert_decodes (tokenizer, IVL_DECODE_SKIP_SPECIAL, " ab é", 263, 2, 259, 3 + 0xc3, 3 + 0xa9);
  folder_remove (folder);
}

/* InternLM2's vocabulary has U+0000 as a piece, in tokenizer.model and as "\u0000" in tokenizer.json. */
static void
test_nul_piece (void)
{
  enum { A = 260, NUL = 261 };
  g_autoptr (GByteArray) model = text_sp_new ();
  text_sp_add_basics (model);
  text_sp_add (model, "▁", -1, 1);
  text_sp_add (model, "a", -2, 1);
  text_sp_add_bytes (model, "", 1, -3, 1);
  text_sp_finish (model, 2, FALSE, NULL, 0);
  for (guint i = 0; i < 2; i++) {
    g_autofree char *folder = folder_new ();
    if (i == 0) {
      folder_write (folder, "tokenizer.model", model->data, model->len);
      folder_write (folder, "tokenizer_config.json", "{\"add_bos_token\":false}", -1);
    } else {
      g_autofree char *vocab = text_vocab_json (TRUE, (const char *[]){ "▁", "b", "c", "d", "a", NULL });
      vocab[strlen (vocab) - 1] = '\0';
      g_autofree char *json = g_strdup_printf (
        "{\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"▁\",\"prepend_scheme\":\"never\","
        "\"split\":false},\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":%s,\"\\u0000\":%d},\"merges\":[]}}",
        vocab, NUL);
      folder_write (folder, "tokenizer.json", json, -1);
    }
    g_autoptr (IvlTokenizer) tokenizer = load (folder);
    text_assert_encodes (tokenizer, "aa", IVL_ENCODE_LITERAL, "260 260");
    g_autoptr (GArray) ids = g_array_new (FALSE, FALSE, sizeof (guint32));
    g_assert_true (ivl_tokenizer_encode (tokenizer, "a\0a", 3, IVL_ENCODE_LITERAL, ids, NULL));
    g_autofree char *found = text_ids (ids);
    g_assert_cmpstr (found, ==, "260 261 260");
    /* As the reference has it, and as an answer does, which is a C string. */
    gsize n;
    g_autofree char *back = ivl_tokenizer_decode (tokenizer, (guint32[]){ A, NUL, A }, 3, IVL_DECODE_ALL, &n);
    g_assert_cmpmem (back, n, "a\0a", 3);
    assert_decodes (tokenizer, IVL_DECODE_NO_NUL, "a\xef\xbf\xbd" "a", A, NUL, A);
    folder_remove (folder);
  }
}

static void
test_dummy_prefix (void)
{
  g_autoptr (GByteArray) model = text_sp_new ();
  text_sp_add_basics (model);
  text_sp_add (model, "▁", -100, 1);
  text_sp_add (model, "a", -101, 1);
  text_sp_add (model, "▁a", -1, 1); /* 261 */
  text_sp_finish (model, 2, TRUE, NULL, 0);
  g_autofree char *folder = folder_new ();
  folder_write (folder, "tokenizer.model", model->data, model->len);
  folder_write (folder, "tokenizer_config.json", "{\"add_bos_token\":false}", -1);
  g_autoptr (IvlTokenizer) tokenizer = load (folder);
  text_assert_encodes (tokenizer, "a a", IVL_ENCODE_BOS, "261 261");
  assert_decodes (tokenizer, IVL_DECODE_ALL, "a a", 261, 261);
  folder_remove (folder);
}

/* ---- from memory ---- */

static void
test_memory (void)
{
  g_autofree char *storage = g_malloc (256 * 4);
  const char *pieces[257];
  gunichar next = 0x100;
  for (guint b = 0; b < 256; b++) {
    gboolean printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    char *piece = storage + 4 * b;
    piece[g_unichar_to_utf8 (printable ? b : next++, piece)] = '\0';
    pieces[b] = piece;
  }
  pieces[256] = "ab";
  IvlBpeSource source = {
    .origin = "model.gguf",
    .pieces = pieces,
    .n_pieces = 257,
    .merges = (const char *[]){ "a", "b" },
    .n_merges = 1,
    .added = (IvlAddedToken[]){ { "<s>", 300, TRUE, FALSE } },
    .n_added = 1,
    .bos = "<s>",
    .eos = (const char *[]){ "<s>", "<missing>", NULL },
  };
  GError *error = NULL;
  g_autoptr (IvlTokenizer) tokenizer = ivl_tokenizer_new_bpe (&source, &error);
  g_assert_no_error (error);
  text_assert_encodes (tokenizer, "abc<s>", IVL_ENCODE_SPECIAL | IVL_ENCODE_BOS, "300 256 99 300");
  g_assert_cmpuint (ivl_tokenizer_token_flags (tokenizer, 299), ==, 0); /* a hole */
  assert_decodes (tokenizer, IVL_DECODE_ALL, "ab<s>", 256, 299, 300);

  source.bos = "<begin>";
  g_assert_null (ivl_tokenizer_new_bpe (&source, &error));
  assert_error_is (error, IVL_ERROR_BAD_MODEL, "model.gguf: there is no begin token \"<begin>\"");
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/text/unicode/words", test_words);
  g_test_add_func ("/text/unicode/nfc", test_nfc);
  g_test_add_func ("/text/unicode/validate", test_validate);
  g_test_add_func ("/text/bpe/order", test_merge_order);
  g_test_add_func ("/text/bpe/long-word", test_long_word);
  g_test_add_func ("/text/tokenizer/qwen2", test_qwen2);
  g_test_add_func ("/text/tokenizer/decode", test_decode);
  g_test_add_func ("/text/tokenizer/bad-text", test_bad_text);
  g_test_add_func ("/text/tokenizer/json-bytes", test_json_bytes);
  g_test_add_func ("/text/tokenizer/json-chars", test_json_chars);
  g_test_add_func ("/text/tokenizer/sentencepiece", test_sentencepiece);
  g_test_add_func ("/text/tokenizer/nul-piece", test_nul_piece);
  g_test_add_func ("/text/tokenizer/dummy-prefix", test_dummy_prefix);
  g_test_add_func ("/text/tokenizer/memory", test_memory);
  return g_test_run ();
}
