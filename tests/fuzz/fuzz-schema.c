/* JSON Schemas of any content. What compiles must lead to valid JSON whatever is chosen, within the budget. */
#include <stdint.h>
#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "generate/constraint.h"

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

/* Answers that need more aren't walked to their end. */
#define MAX_TOKENS 3000

static IvlVocabulary *
new_vocabulary (void)
{
  static const char *const words[] = { "\":", "\", \"", "\"}", "{\"", "[[", "]]", "],", "\": \"", "true", "null", "12", ",-",
                                       "0.", "\\\"", "\\u00", "ab", "a\"", "\xc3\xa9", "\xe4\xb8\xad\xe6\x96\x87", "e+",
                                       "\xe2\x96\x81", "\xe2\x96\x81{", "}}", "\"a\":" };
  const char *pieces[256 + G_N_ELEMENTS (words)];
  static char bytes[256][8];
  for (guint b = 0; b < 256; b++) {
    g_snprintf (bytes[b], sizeof bytes[b], "<0x%02X>", b);
    pieces[b] = bytes[b];
  }
  memcpy (pieces + 256, words, sizeof words);
  IvlAddedToken end = { "<|im_end|>", G_N_ELEMENTS (pieces), TRUE, FALSE };
  IvlBpeSource source = { .origin = "fuzz", .kind = IVL_BPE_CHARS, .prefix = IVL_PREFIX_FIRST, .pieces = pieces,
                          .n_pieces = G_N_ELEMENTS (pieces), .added = &end, .n_added = 1 };
  GError *error = NULL;
  IvlTokenizer *tokenizer = ivl_tokenizer_new_bpe (&source, &error);
  g_assert_no_error (error);
  IvlVocabulary *vocabulary = ivl_vocabulary_new (tokenizer, end.id + 1, &end.id, 1);
  ivl_tokenizer_unref (tokenizer);
  return vocabulary;
}

static guint32
choose (const IvlVocabulary *v, const guint32 *mask, guint64 *random)
{
  guint32 first = (guint32) ((*random = *random * 6364136223846793005ull + 1442695040888963407ull) >> 33) % v->n_vocab;
  for (guint32 i = 0; i < v->n_vocab; i++) {
    guint32 id = (first + i) % v->n_vocab;
    if (mask[id / 32] >> id % 32 & 1)
      return id;
  }
  g_assert_not_reached ();
}

static void
walk (IvlVocabulary *v, const char *schema, guint spare, guint64 random)
{
  GError *error = NULL;
  g_autoptr (IvlConstraint) constraint = ivl_constraint_new (v, schema, &error);
  if (!constraint) {
    g_assert_error (error, IVL_ERROR, IVL_ERROR_BAD_ARGUMENT);
    g_assert_true (g_utf8_validate (error->message, -1, NULL));
    g_error_free (error);
    return;
  }
  guint64 least = ivl_constraint_min_tokens (constraint);
  if (least > MAX_TOKENS)
    return;
  g_autoptr (IvlTextDecoder) decoder = ivl_text_decoder_new (v->tokenizer, IVL_DECODE_SKIP_SPECIAL);
  g_autoptr (GString) text = g_string_new (NULL);
  for (guint left = (guint) least + spare; left && !ivl_constraint_is_over (constraint); left--) {
    guint32 id = choose (v, ivl_constraint_mask (constraint, left), &random);
    if (id == v->end_ids[0])
      break;
    g_assert_true (ivl_constraint_accept (constraint, id));
    ivl_text_decoder_feed (decoder, id, text);
  }
  g_assert_true (ivl_constraint_is_complete (constraint));
  JsonNode *json = ivl_json_parse ("answer", text->str, text->len, &error);
  g_assert_no_error (error);
  json_node_unref (json);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  static IvlVocabulary *v;
  if (!v)
    v = new_vocabulary ();
  g_autofree char *schema = g_strndup ((const char *) data, size);
  guint64 random = g_str_hash (schema);
  walk (v, schema, 0, random);
  walk (v, schema, 3, random + 1);
  walk (v, schema, 100, random + 2);
  return 0;
}
