/* Constrained answers without a model: the schema compiler, the acceptor, masks and random answers under them. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "generate/choices.h"
#include "generate/constraint.h"
#include "schema-check.h"

static const char *golden; /* folder */

/* ---- what is refused, and why ---- */

static const struct {
  const char *schema, *why;
} refused[] = {
  { "", "json_schema: " },
  { "x", "json_schema: " },
  { "{", "json_schema: " },
  { "[]", "#: a schema must be an object" },
  { "true", "#: a schema must be an object" },
  { "{\"type\":\"string\",\"type\":\"null\"}", "twice" },
  { "{}", "needs \"type\"" },
  { "{\"anyOf\":[{\"type\":\"null\"}]}", "\"anyOf\" is not supported" },
  { "{\"$ref\":\"#\"}", "\"$ref\" is not supported" },
  { "{\"type\":\"thing\"}", "\"type\" must be one of" },
  { "{\"type\":[\"string\",\"null\"]}", "\"type\" must be one of" },
  { "{\"type\":\"string\",\"pattern\":\"a*\"}", "\"pattern\" is not supported with string" },
  { "{\"type\":\"string\",\"format\":\"date\"}", "\"format\" is not supported" },
  { "{\"type\":\"string\",\"maxLength\":-1}", "\"maxLength\" must be an integer" },
  { "{\"type\":\"string\",\"maxLength\":1.5}", "\"maxLength\" must be an integer" },
  { "{\"type\":\"string\",\"maxLength\":\"1\"}", "\"maxLength\" must be an integer" },
  { "{\"type\":\"string\",\"maxLength\":1e30}", "\"maxLength\" must be an integer" },
  { "{\"type\":\"string\",\"minLength\":3,\"maxLength\":2}", "no value is valid" },
  { "{\"type\":\"string\",\"minLength\":100000000}", "shortest valid value" },
  { "{\"type\":\"string\",\"items\":{\"type\":\"null\"}}", "\"items\" is not supported with string" },
  { "{\"type\":\"number\",\"minimum\":0}", "\"minimum\" is not supported with number" },
  { "{\"type\":\"integer\",\"multipleOf\":2}", "\"multipleOf\" is not supported with integer" },
  { "{\"type\":\"integer\",\"minimum\":2,\"maximum\":1}", "leave no integer" },
  { "{\"type\":\"integer\",\"minimum\":1.5}", "\"minimum\" must be an integer" },
  { "{\"type\":\"array\"}", "needs \"items\"" },
  { "{\"type\":\"array\",\"items\":[]}", "#/items: a schema must be an object" },
  { "{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{\"type\":\"x\"}}}", "#/items/items: \"type\"" },
  { "{\"type\":\"array\",\"items\":{\"type\":\"null\"},\"uniqueItems\":true}", "\"uniqueItems\" is not supported" },
  { "{\"type\":\"array\",\"items\":{\"type\":\"null\"},\"minItems\":1000000000}", "shortest valid value" },
  { "{\"type\":\"object\",\"properties\":[]}", "\"properties\" must be an object" },
  { "{\"type\":\"object\",\"properties\":{\"a/b~\":{\"type\":\"null\",\"not\":{}}}}",
    "#/properties/a~1b~0: keyword \"not\"" },
  { "{\"type\":\"object\",\"properties\":{\"a\":3}}", "#/properties/a: a schema must be an object" },
  { "{\"type\":\"object\",\"required\":[\"a\"]}", "\"required\" names \"a\"" },
  { "{\"type\":\"object\",\"required\":\"a\"}", "\"required\" must be an array" },
  { "{\"type\":\"object\",\"required\":[3]}", "\"required\" must be an array" },
  { "{\"type\":\"object\",\"additionalProperties\":true}", "\"additionalProperties\" is supported as false only" },
  { "{\"type\":\"object\",\"patternProperties\":{}}", "\"patternProperties\" is not supported" },
  { "{\"enum\":[]}", "\"enum\" must be an array" },
  { "{\"enum\":3}", "\"enum\" must be an array" },
  { "{\"enum\":[1],\"maxLength\":3}", "\"maxLength\" is not supported with enum" },
  { "{\"enum\":[1],\"const\":1}", "\"enum\" is not supported with const" },
  { "{\"type\":\"string\",\"enum\":[\"a\",1]}", "#/enum/1: the value is not of \"type\" string" },
  { "{\"type\":\"string\",\"const\":1}", "#/const: the value is not of \"type\" string" },
  { "{\"const\":1e999}", "json_schema" },
  { "{\"const\":\"a\\u0000b\"}", "\\u0000 is not supported" },
  { "{\"const\":\"\\ud800\"}", "json_schema" },
  { "{\"const\":\"\xff\"}", "json_schema" },
};

static void
test_refused (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (refused); i++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (IvlSchema) schema = ivl_schema_new (refused[i].schema, &error);
    if (schema || !error || !strstr (error->message, refused[i].why))
      g_error ("%s: %s", refused[i].schema, error ? error->message : "is taken");
    g_assert_error (error, IVL_ERROR, IVL_ERROR_BAD_ARGUMENT);
    g_assert_true (g_utf8_validate (error->message, -1, NULL));
  }
}

static void
test_hostile (void)
{
  GString *deep = g_string_new (NULL);
  for (guint i = 0; i < 100000; i++)
    g_string_append (deep, "{\"type\":\"array\",\"items\":");
  g_autoptr (GError) error = NULL;
  g_assert_null (ivl_schema_new (deep->str, &error));
  g_assert_error (error, IVL_ERROR, IVL_ERROR_BAD_ARGUMENT);
  g_clear_error (&error);
  /* As deep as there may be. */
  g_string_truncate (deep, 0);
  for (guint i = 0; i < IVL_SCHEMA_MAX_DEPTH - 1; i++)
    g_string_append (deep, "{\"type\":\"array\",\"items\":");
  g_string_append (deep, "{\"type\":\"null\"}");
  for (guint i = 0; i < IVL_SCHEMA_MAX_DEPTH - 1; i++)
    g_string_append (deep, "}");
  IvlSchema *schema = ivl_schema_new (deep->str, &error);
  g_assert_no_error (error);
  ivl_schema_free (schema);
  /* Each level doubles the shortest value. */
  g_string_assign (deep, "{\"type\":\"null\"}");
  for (guint i = 0; i < 20; i++) {
    g_autofree char *inner = g_strdup (deep->str);
    g_string_printf (deep, "{\"type\":\"array\",\"minItems\":2000000,\"items\":%s}", inner);
  }
  g_assert_null (ivl_schema_new (deep->str, &error));
  g_assert_error (error, IVL_ERROR, IVL_ERROR_BAD_ARGUMENT);
  g_clear_error (&error);
  g_string_assign (deep, "{\"type\":\"object\",\"properties\":{");
  for (guint i = 0; i < 600; i++)
    g_string_append_printf (deep, "%s\"p%u\":{\"type\":\"null\"}", i ? "," : "", i);
  g_string_append (deep, "}}");
  g_assert_null (ivl_schema_new (deep->str, &error));
  g_assert_nonnull (strstr (error->message, "600 members"));
  g_string_free (deep, TRUE);
}

/* ---- what is accepted ---- */

#define THREE "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"ab\":{\"type\":\"null\"},\"c\":{\"type\":\"boolean\"}},\"required\":[\"ab\"]}"
#define UP_TO_2 "{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":1,\"maxItems\":2}"
#define STRING_3 "{\"type\":\"string\",\"minLength\":1,\"maxLength\":3}"
#define INTEGER(low, high) "{\"type\":\"integer\",\"minimum\":" #low ",\"maximum\":" #high "}"

static const struct {
  const char *schema, *text;
  gboolean valid;
} texts[] = {
  { "{\"type\":\"null\"}", "null", TRUE },
  { "{\"type\":\"null\"}", "nul", FALSE },
  { "{\"type\":\"null\"}", "nulll", FALSE },
  { "{\"type\":\"null\"}", " null", FALSE },
  { "{\"type\":\"null\"}", "null ", FALSE },
  { "{\"type\":\"boolean\"}", "true", TRUE },
  { "{\"type\":\"boolean\"}", "false", TRUE },
  { "{\"type\":\"boolean\"}", "True", FALSE },
  { "{\"type\":\"object\"}", "{}", TRUE },
  { "{\"type\":\"object\"}", "{\"a\":1}", FALSE },
  { THREE, "{\"ab\":null}", TRUE },
  { THREE, "{\"a\":12,\"ab\":null,\"c\":true}", TRUE },
  { THREE, "{\"a\": 12, \"ab\": null, \"c\": true}", TRUE },
  { THREE, "{\"a\":  12, \"ab\": null}", FALSE },
  { THREE, "{\"a\" :12, \"ab\": null}", FALSE },
  { THREE, "{ \"ab\": null}", FALSE },
  { THREE, "{\"ab\": null }", FALSE },
  { THREE, "{\"ab\":null,}", FALSE },
  { THREE, "{\"a\":12}", FALSE },
  { THREE, "{}", FALSE },
  { THREE, "{\"c\":true,\"ab\":null}", FALSE },
  { THREE, "{\"ab\":null,\"ab\":null}", FALSE },
  { THREE, "{\"ab\":null,\"d\":null}", FALSE },
  { THREE, "{\"a\":12,\"c\":true}", FALSE },
  { UP_TO_2, "[]", FALSE },
  { UP_TO_2, "[1]", TRUE },
  { UP_TO_2, "[1, 2]", TRUE },
  { UP_TO_2, "[1,2,3]", FALSE },
  { UP_TO_2, "[1,]", FALSE },
  { UP_TO_2, "[,1]", FALSE },
  { UP_TO_2, "[-1]", TRUE },
  { "{\"type\":\"array\",\"items\":{\"type\":\"null\"},\"maxItems\":0}", "[]", TRUE },
  { "{\"type\":\"array\",\"items\":{\"type\":\"null\"},\"maxItems\":0}", "[null]", FALSE },
  { STRING_3, "\"\"", FALSE },
  { STRING_3, "\"a\"", TRUE },
  { STRING_3, "\"abc\"", TRUE },
  { STRING_3, "\"abcd\"", FALSE },
  { STRING_3, "\"\\n\\u00e9\\\"\"", TRUE },
  { STRING_3, "\"\xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80\"", TRUE },
  { STRING_3, "\"\xc3\"", FALSE },
  { STRING_3, "\"\xc0\x80\"", FALSE },
  { STRING_3, "\"\xed\xa0\x80\"", FALSE },
  { STRING_3, "\"\xf4\x90\x80\x80\"", FALSE },
  { STRING_3, "\"\xe0\x80\x80\"", FALSE },
  { STRING_3, "\"\\ud83d\"", FALSE },
  { STRING_3, "\"\\ud7ff\"", TRUE },
  { STRING_3, "\"\\u0000\"", FALSE },
  { STRING_3, "\"\\u0001\"", TRUE },
  { STRING_3, "\"\\x\"", FALSE },
  { STRING_3, "\"\n\"", FALSE },
  { "{\"type\":\"number\"}", "0", TRUE },
  { "{\"type\":\"number\"}", "-0.5", TRUE },
  { "{\"type\":\"number\"}", "12.25e-3", TRUE },
  { "{\"type\":\"number\"}", "1E+20", TRUE },
  { "{\"type\":\"number\"}", "1E+200", FALSE },
  { "{\"type\":\"number\"}", "01", FALSE },
  { "{\"type\":\"number\"}", "1.", FALSE },
  { "{\"type\":\"number\"}", ".5", FALSE },
  { "{\"type\":\"number\"}", "-", FALSE },
  { "{\"type\":\"number\"}", "1e", FALSE },
  { "{\"type\":\"number\"}", "1234567890123456", FALSE },
  { "{\"type\":\"integer\"}", "0", TRUE },
  { "{\"type\":\"integer\"}", "-0", FALSE },
  { "{\"type\":\"integer\"}", "-7", TRUE },
  { "{\"type\":\"integer\"}", "9007199254740991", TRUE },
  { "{\"type\":\"integer\"}", "9007199254740992", FALSE },
  { "{\"type\":\"integer\"}", "1.0", FALSE },
  { INTEGER (17, 123), "17", TRUE },
  { INTEGER (17, 123), "123", TRUE },
  { INTEGER (17, 123), "100", TRUE },
  { INTEGER (17, 123), "1", FALSE },
  { INTEGER (17, 123), "16", FALSE },
  { INTEGER (17, 123), "124", FALSE },
  { INTEGER (17, 123), "0", FALSE },
  { INTEGER (17, 123), "-17", FALSE },
  { INTEGER (-20, -3), "-3", TRUE },
  { INTEGER (-20, -3), "-20", TRUE },
  { INTEGER (-20, -3), "-2", FALSE },
  { INTEGER (-20, -3), "-21", FALSE },
  { INTEGER (-20, -3), "0", FALSE },
  { INTEGER (-20, -3), "3", FALSE },
  { INTEGER (-1, 0), "0", TRUE },
  { INTEGER (-1, 0), "-1", TRUE },
  { INTEGER (-1, 0), "1", FALSE },
  { INTEGER (1, 999999999999999999), "999999999999999999", TRUE },
  { "{\"enum\":[1,12,\"1\",null,[1, 2],{\"a\":1}]}", "1", TRUE },
  { "{\"enum\":[1,12,\"1\",null,[1, 2],{\"a\":1}]}", "12", TRUE },
  { "{\"enum\":[1,12,\"1\",null,[1, 2],{\"a\":1}]}", "\"1\"", TRUE },
  { "{\"enum\":[1,12,\"1\",null,[1, 2],{\"a\":1}]}", "[1,2]", TRUE },
  { "{\"enum\":[1,12,\"1\",null,[1, 2],{\"a\":1}]}", "{\"a\":1}", TRUE },
  { "{\"enum\":[1,12,\"1\",null,[1, 2],{\"a\":1}]}", "2", FALSE },
  { "{\"enum\":[1,12,\"1\",null,[1, 2],{\"a\":1}]}", "123", FALSE },
  { "{\"const\":\"a\\\"b\\u00e9\"}", "\"a\\\"b\xc3\xa9\"", TRUE },
  { "{\"type\":\"array\",\"items\":{\"enum\":[1,12]}}", "[1,12,1]", TRUE },
  { "{\"type\":\"array\",\"items\":{\"enum\":[1,12]}}", "[13]", FALSE },
};

static void
test_texts (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (texts); i++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (IvlSchema) schema = ivl_schema_new (texts[i].schema, &error);
    g_assert_no_error (error);
    IvlSchemaState state;
    ivl_schema_state_init (&state, schema);
    gboolean ok = TRUE;
    for (const char *p = texts[i].text; ok && *p; p++) {
      guint64 before = ivl_schema_state_min_bytes (&state);
      ok = ivl_schema_state_feed (&state, (guint8) *p);
      /* No byte brings the end nearer by more than one. */
      g_assert_true (!ok || ivl_schema_state_min_bytes (&state) + 1 >= before);
    }
    ok = ok && ivl_schema_state_min_bytes (&state) == 0;
    if (ok != texts[i].valid)
      g_error ("%s: <<%s>> is %s", texts[i].schema, texts[i].text, ok ? "taken" : "refused");
    if (ok)
      schema_check (texts[i].schema, texts[i].text);
  }
}

/* ---- answers by chance ---- */

static const char *const schemas[] = {
  "{\"type\":\"null\"}",
  "{\"type\":\"string\"}",
  STRING_3,
  "{\"type\":\"string\",\"minLength\":5,\"maxLength\":40}",
  "{\"type\":\"number\"}",
  "{\"type\":\"integer\"}",
  INTEGER (-117, 2099),
  "{\"enum\":[1,12,\"yes\",\"yesterday\",\"\xe4\xb8\xad\\n\",null,[1, 2],{\"a\":1.5}]}",
  THREE,
  "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"maxLength\":4},\"minItems\":2,\"maxItems\":5}",
  "{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{\"type\":\"number\"}}}}",
  "{\"type\":\"object\",\"properties\":{\"title\":{\"type\":\"string\",\"maxLength\":30},\"people\":{\"type\":\"array\","
  "\"items\":{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"age\":{\"type\":\"integer\","
  "\"minimum\":0,\"maximum\":130},\"big\":{\"type\":\"object\",\"properties\":{\"some quite long key\":{\"type\":"
  "\"boolean\"}},\"required\":[\"some quite long key\"]}},\"required\":[\"name\"]},\"maxItems\":3},\"mood\":{\"enum\":"
  "[\"good\",\"bad\",\"go\"]},\"score\":{\"type\":\"number\"}},\"required\":[\"title\",\"mood\"],"
  "\"additionalProperties\":false}",
};

static IvlVocabulary *
load (const char *name)
{
  g_autofree char *folder = name[0] == '/' ? g_strdup (name) : g_build_filename (golden, "models", name, NULL);
  g_autoptr (GError) error = NULL;
  g_autoptr (IvlTokenizer) tokenizer = ivl_tokenizer_load (folder, &error);
  g_assert_no_error (error);
  guint n;
  const guint32 *ends = ivl_tokenizer_get_eos (tokenizer, &n);
  return ivl_vocabulary_new (tokenizer, ivl_tokenizer_get_n_tokens (tokenizer) + 13, ends, n);
}

/* What the mask must be: the definition, token by token. */
static void
check_mask (const IvlVocabulary *v, const IvlSchemaState *state, gboolean begun, guint budget, const guint32 *mask)
{
  for (guint32 id = 0; id < v->n_vocab; id++) {
    gboolean allowed = mask[id / 32] >> id % 32 & 1, expected;
    IvlTokenFlags flags = ivl_tokenizer_token_flags (v->tokenizer, id);
    gsize n;
    const guint8 *bytes = ivl_tokenizer_token_bytes (v->tokenizer, id, &n);
    if (flags & IVL_TOKEN_END) {
      expected = ivl_schema_state_min_bytes (state) == 0;
    } else if (flags != IVL_TOKEN_USED || n == 0 || budget == 0) {
      expected = FALSE;
    } else {
      IvlSchemaState after;
      ivl_schema_state_copy (&after, state);
      gsize at = !begun && v->first_space_lost && bytes[0] == ' ';
      expected = at < n;
      for (; expected && at < n; at++)
        expected = ivl_schema_state_feed (&after, bytes[at]);
      expected = expected && ivl_schema_state_min_bytes (&after) < budget;
    }
    if (allowed != expected)
      g_error ("token %u <<%.*s>> is %s, %u left", id, (int) n, (const char *) bytes, allowed ? "allowed" : "not allowed",
               budget);
  }
}

static guint32
choose (const IvlVocabulary *v, const guint32 *mask, GRand *rand)
{
  guint n = 0;
  guint32 chosen = G_MAXUINT32;
  for (guint w = 0; w < (v->n_vocab + 31) / 32; w++)
    for (guint32 bits = mask[w]; bits; bits &= bits - 1) {
      guint32 id = 32 * w + (guint32) __builtin_ctz (bits);
      /* What is no plain text gets its share, or strings would never end. */
      gsize length;
      const guint8 *bytes = ivl_tokenizer_token_bytes (v->tokenizer, id, &length);
      guint weight = length && memchr ("\"{}[],\\", bytes[0], 7) ? 20 : 1;
      n += weight;
      if ((guint) g_rand_int_range (rand, 0, (gint32) n) < weight)
        chosen = id;
    }
  g_assert_cmpuint (chosen, !=, G_MAXUINT32);
  return chosen;
}

static char *
answer (IvlVocabulary *v, const char *schema, int spare, gboolean check, GRand *rand, gint64 *worst_us, guint *n_masks)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (IvlConstraint) constraint = ivl_constraint_new (v, schema, &error);
  g_assert_no_error (error);
  g_autoptr (IvlSchema) compiled = ivl_schema_new (schema, NULL);
  IvlSchemaState state;
  ivl_schema_state_init (&state, compiled);
  g_autoptr (IvlTextDecoder) decoder = ivl_text_decoder_new (v->tokenizer, IVL_DECODE_SKIP_SPECIAL);
  g_autoptr (GString) text = g_string_new (NULL);
  guint left = (guint) ((int) ivl_constraint_min_tokens (constraint) + spare);
  gboolean begun = FALSE;
  while (left > 0 && !ivl_constraint_is_over (constraint)) {
    gint64 start = g_get_monotonic_time ();
    const guint32 *mask = ivl_constraint_mask (constraint, left);
    *worst_us = MAX (*worst_us, g_get_monotonic_time () - start);
    ++*n_masks;
    if (check)
      check_mask (v, &state, begun, left, mask);
    guint32 id = choose (v, mask, rand);
    if (ivl_tokenizer_token_flags (v->tokenizer, id) & IVL_TOKEN_END) {
      g_assert_true (ivl_constraint_is_complete (constraint));
      break;
    }
    g_assert_true (ivl_constraint_accept (constraint, id));
    ivl_text_decoder_feed (decoder, id, text);
    gsize n, at;
    const guint8 *bytes = ivl_tokenizer_token_bytes (v->tokenizer, id, &n);
    for (at = !begun && v->first_space_lost && bytes[0] == ' '; at < n; at++)
      g_assert_true (ivl_schema_state_feed (&state, bytes[at]));
    begun = TRUE;
    left--;
  }
  g_assert_true (ivl_constraint_is_complete (constraint));
  gsize certain = text->len;
  ivl_text_decoder_flush (decoder, text);
  g_assert_cmpuint (text->len, ==, certain);
  return g_string_free (g_steal_pointer (&text), FALSE);
}

static void
test_walks (gconstpointer name)
{
  g_autoptr (IvlVocabulary) v = load (name);
  g_autoptr (GRand) rand = g_rand_new_with_seed (20261123);
  static const int spares[] = { 0, 1, 2, 5, 9, 20, 60, 200 };
  gboolean large = v->n_vocab > 10000;
  guint walks = 0, n_masks = 0, longest = 0;
  gint64 worst_us = 0;
  for (guint i = 0; i < G_N_ELEMENTS (schemas); i++)
    for (guint s = 0; s < G_N_ELEMENTS (spares); s++)
      for (guint turn = 0; turn < (large ? 2 : 30); turn++) {
        g_autofree char *text = answer (v, schemas[i], spares[s], turn < (large ? 1 : 3), rand, &worst_us, &n_masks);
        schema_check (schemas[i], text);
        JsonNode *strict = ivl_json_parse ("answer", text, strlen (text), NULL);
        g_assert_nonnull (strict);
        json_node_unref (strict);
        longest = MAX (longest, (guint) strlen (text));
        walks++;
      }
  g_test_message ("%s: %u tokens, %u answers, the longest of %u bytes; %u masks, the slowest in %" G_GINT64_FORMAT " us",
                  (const char *) name, v->n_vocab, walks, longest, n_masks, worst_us);
}

/* Half an answer as a model may give it; for the time that a mask takes. */
static void
test_speed (gconstpointer name)
{
  gint64 start = g_get_monotonic_time ();
  g_autoptr (IvlVocabulary) v = load (name);
  g_test_message ("%u tokens, %u nodes, loaded and built in %.0f ms", v->n_vocab, v->n_nodes,
                  (double) (g_get_monotonic_time () - start) / 1000);
  g_autoptr (GError) error = NULL;
  g_autoptr (IvlConstraint) constraint = ivl_constraint_new (v, schemas[G_N_ELEMENTS (schemas) - 1], &error);
  g_assert_no_error (error);
  g_autoptr (GArray) ids = g_array_new (FALSE, FALSE, sizeof (guint32));
  g_assert_true (ivl_tokenizer_encode (v->tokenizer,
                                       "{\"title\": \"Two people on a bridge\", \"people\": [{\"name\": \"Anna\", \"age\": "
                                       "31}, {\"name\": \"Bo \\\"the\\\" Cat\"}], \"mood\": \"good\", \"score\": 0.25}",
                                       -1, IVL_ENCODE_LITERAL, ids, &error));
  gint64 sum = 0, worst = 0;
  for (guint i = 0; i < ids->len; i++) {
    guint32 id = g_array_index (ids, guint32, i);
    start = g_get_monotonic_time ();
    const guint32 *mask = ivl_constraint_mask (constraint, 500);
    gint64 us = g_get_monotonic_time () - start;
    sum += us;
    worst = MAX (worst, us);
    g_assert_true (mask[id / 32] >> id % 32 & 1);
    g_assert_true (ivl_constraint_accept (constraint, id));
  }
  g_assert_true (ivl_constraint_is_over (constraint));
  g_test_message ("%u masks, %.0f us each, at most %" G_GINT64_FORMAT " us", ids->len, (double) sum / ids->len, worst);
}

/* ---- choices ---- */

/* Logits of a model that depends on all tokens before. */
static void
fake_logits (const guint32 *tokens, guint n, float *logits, guint n_vocab)
{
  guint64 hash = 88172645463325252ull;
  for (guint i = 0; i < n; i++)
    hash = (hash ^ tokens[i]) * 0x9e3779b97f4a7c15ull;
  for (guint i = 0; i < n_vocab; i++) {
    guint64 z = (hash + i) * 0xbf58476d1ce4e5b9ull;
    logits[i] = (float) ((z ^ z >> 31) >> 40) / 2097152.f; /* 0 ... 8 */
  }
}

static double
log_softmax (const float *logits, guint n, guint32 id)
{
  double sum = 0;
  for (guint i = 0; i < n; i++)
    sum += exp ((double) logits[i]);
  return (double) logits[id] - log (sum);
}

static guint
decide (IvlChoices *choices, guint n_vocab)
{
  guint32 path[4096];
  guint depth = 0, n = 0, steps = 0;
  guint32 token;
  g_autofree float *logits = g_new (float, n_vocab);
  g_autoptr (GError) error = NULL;
  for (fake_logits (path, 0, logits, n_vocab); ivl_choices_step (choices, logits, &depth, &token, &error);
       fake_logits (path, n, logits, n_vocab)) {
    g_assert_cmpuint (depth, <=, n);
    path[depth] = token;
    n = depth + 1;
    steps++;
  }
  g_assert_no_error (error);
  return steps;
}

static IvlChoices *
new_choices (const IvlVocabulary *v, const char *const *list, float temperature, guint64 seed, GError **error)
{
  IvlChoicesParams params = { v->end_ids, v->n_end_ids, v->n_vocab, 100, temperature, seed };
  return ivl_choices_new (v->tokenizer, list, &params, error);
}

static void
test_choices_exact (gconstpointer name)
{
  static const char *const list[] = { "yes", "no", "yes, but", "yesterday", "a dog", "a cat", "a", "\xe4\xb8\xad", "The end.", NULL };
  g_autoptr (IvlVocabulary) v = load (name);
  g_autoptr (GError) error = NULL;
  g_autoptr (IvlChoices) choices = new_choices (v, list, 0.f, 0, &error);
  g_assert_no_error (error);
  g_assert_true (ivl_choices_is_exact (choices));
  decide (choices, v->n_vocab);
  const double *p = ivl_choices_get_probabilities (choices);
  double expected[G_N_ELEMENTS (list)], sum = 0., total = 0.;
  g_autofree float *logits = g_new (float, v->n_vocab);
  guint best = 0;
  for (guint i = 0; list[i]; i++) {
    g_autoptr (GArray) ids = g_array_new (FALSE, FALSE, sizeof (guint32)), before = g_array_new (FALSE, FALSE, sizeof (guint32));
    g_autofree char *line = g_strconcat ("\n", list[i], NULL);
    g_assert_true (ivl_tokenizer_encode (v->tokenizer, line, -1, IVL_ENCODE_LITERAL, ids, NULL));
    g_assert_true (ivl_tokenizer_encode (v->tokenizer, "\n", -1, IVL_ENCODE_LITERAL, before, NULL));
    g_array_remove_range (ids, 0, before->len);
    double log_p = 0.;
    for (guint t = 0; t < ids->len; t++) {
      fake_logits ((guint32 *) (void *) ids->data, t, logits, v->n_vocab);
      log_p += log_softmax (logits, v->n_vocab, g_array_index (ids, guint32, t));
    }
    fake_logits ((guint32 *) (void *) ids->data, ids->len, logits, v->n_vocab);
    double end = 0.;
    for (guint e = 0; e < v->n_end_ids; e++)
      end += exp (log_softmax (logits, v->n_vocab, v->end_ids[e]));
    expected[i] = exp (log_p) * end;
    total += expected[i];
    best = expected[i] > expected[best] ? i : best;
  }
  for (guint i = 0; list[i]; i++) {
    g_assert_cmpfloat_with_epsilon (p[i], expected[i] / total, 1e-9);
    sum += p[i];
  }
  g_assert_cmpfloat_with_epsilon (sum, 1., 1e-12);
  g_assert_cmpuint (ivl_choices_get_chosen (choices), ==, best);
  guint n;
  double confidence;
  const guint32 *tokens = ivl_choices_get_tokens (choices, &n, &confidence);
  g_autofree char *text = ivl_tokenizer_decode (v->tokenizer, tokens, n, IVL_DECODE_ALL, NULL);
  g_assert_cmpstr (text, ==, list[best]);
  g_assert_true (confidence > 0. && confidence <= 1.);

  /* Drawn as often as it is probable. */
  guint counts[G_N_ELEMENTS (list)] = { 0 };
  for (guint seed = 0; seed < 2000; seed++) {
    g_autoptr (IvlChoices) drawn = new_choices (v, list, 1.f, seed, &error);
    decide (drawn, v->n_vocab);
    counts[ivl_choices_get_chosen (drawn)]++;
  }
  for (guint i = 0; list[i]; i++)
    g_assert_cmpfloat_with_epsilon (counts[i] / 2000., p[i], 5. * sqrt (p[i] * (1. - p[i]) / 2000.) + 1e-3);
}

static void
test_choices_many (gconstpointer name)
{
  g_autoptr (IvlVocabulary) v = load (name);
  g_autoptr (GError) error = NULL;
  g_auto (GStrv) list = g_new0 (char *, 10001);
  for (guint i = 0; i < 10000; i++)
    list[i] = g_strdup_printf ("choice %u of many", i);
  gint64 start = g_get_monotonic_time ();
  g_autoptr (IvlChoices) choices = new_choices (v, (const char *const *) list, 0.f, 0, &error);
  g_assert_no_error (error);
  gint64 made = g_get_monotonic_time ();
  g_assert_false (ivl_choices_is_exact (choices));
  guint steps = decide (choices, v->n_vocab);
  g_test_message ("10000 choices: made in %.1f ms, decided in %u steps of %.2f ms", (double) (made - start) / 1000, steps,
                  (double) (g_get_monotonic_time () - made) / 1000 / (steps + 1));
  guint n;
  double confidence, sum = 0.;
  const guint32 *tokens = ivl_choices_get_tokens (choices, &n, &confidence);
  g_assert_cmpuint (steps, <=, n);
  g_autofree char *text = ivl_tokenizer_decode (v->tokenizer, tokens, n, IVL_DECODE_ALL, NULL);
  g_assert_cmpstr (text, ==, list[ivl_choices_get_chosen (choices)]);
  for (guint i = 0; i < 10000; i++)
    sum += ivl_choices_get_probabilities (choices)[i];
  g_assert_cmpfloat_with_epsilon (sum, 1., 1e-9);
}

static void
test_choices_refused (void)
{
  g_autoptr (IvlVocabulary) v = load ("qwen2-ln-orig");
  g_autofree char *endless = g_strnfill (IVL_CHOICES_MAX_BYTES + 1, 'a'), *wordy = g_strnfill (4000, '.');
  for (guint i = 1; i < 4000; i += 2)
    wordy[i] = ' ';
  const struct {
    const char *list[4], *why;
  } cases[] = {
    { { NULL }, "empty" },
    { { "a", "", NULL }, "choices[1] is empty" },
    { { "a", " \n", NULL }, "choices[1] is empty" },
    { { "a", "b", "a", NULL }, "choices[0] and choices[2] are the same" },
    { { "\xc3\xa9", "e\xcc\x81", NULL }, "the same to the model's tokenizer" },
    { { "a", "\xff", NULL }, "choices[1] isn't valid UTF-8" },
    { { "a", endless, NULL }, "choices[1] is longer" },
    { { "a", wordy, NULL }, "room for 100 only" },
  };
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    g_assert_null (new_choices (v, cases[i].list, 0.f, 0, &error));
    g_assert_error (error, IVL_ERROR, IVL_ERROR_BAD_ARGUMENT);
    if (!strstr (error->message, cases[i].why))
      g_error ("%s", error->message);
  }
  const char *const one[] = { "a", "b", NULL };
  g_autoptr (GError) error = NULL;
  g_autoptr (IvlChoices) choices = new_choices (v, one, 0.f, 0, &error);
  g_autofree float *logits = g_new0 (float, v->n_vocab);
  logits[7] = NAN;
  guint depth;
  guint32 token;
  g_assert_false (ivl_choices_step (choices, logits, &depth, &token, &error));
  g_assert_error (error, IVL_ERROR, IVL_ERROR_BAD_MODEL);
}

int
main (int argc, char **argv)
{
  golden = argc > 1 ? argv[1] : "tests/golden";
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/constraint/schema/refused", test_refused);
  g_test_add_func ("/constraint/schema/hostile", test_hostile);
  g_test_add_func ("/constraint/schema/texts", test_texts);
  g_test_add_func ("/constraint/choices/refused", test_choices_refused);
  /* Byte-level BPE, SentencePiece and its tokenizer.json; Qwen's real vocabulary if there is one. */
  const char *names[] = { "qwen2-ln-orig", "internlm2-rms-orig", "internlm2-ln-hf2",
                          g_getenv ("INTERNVL_TEST_QWEN_TOKENIZER") };
  for (guint i = 0; i < G_N_ELEMENTS (names) && names[i]; i++) {
    static const struct {
      const char *what;
      GTestDataFunc run;
    } tests[] = { { "walks", test_walks },
                  { "speed", test_speed },
                  { "choices/exact", test_choices_exact },
                  { "choices/many", test_choices_many } };
    for (guint t = 0; t < G_N_ELEMENTS (tests); t++) {
      g_autofree char *path = g_strdup_printf ("/constraint/%s/%s", tests[t].what, names[i][0] == '/' ? "real" : names[i]);
      g_test_add_data_func (path, names[i], tests[t].run);
    }
  }
  return g_test_run ();
}
