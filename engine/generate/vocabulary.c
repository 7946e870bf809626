#include "generate/vocabulary.h"

#include <string.h>

#include "generate/schema.h"

typedef struct {
  const guint8 *bytes;
  guint32 length, token;
} Entry;

static int
compare_entries (gconstpointer a, gconstpointer b)
{
  const Entry *x = a, *y = b;
  int order = memcmp (x->bytes, y->bytes, MIN (x->length, y->length));
  if (order == 0)
    order = x->length < y->length ? -1 : x->length > y->length;
  return order ? order : x->token < y->token ? -1 : x->token > y->token;
}

static gboolean
is_end (const IvlVocabulary *self, guint32 id)
{
  for (guint i = 0; i < self->n_end_ids; i++)
    if (self->end_ids[i] == id)
      return TRUE;
  return FALSE;
}

static GArray *
collect (IvlVocabulary *self)
{
  GArray *entries = g_array_new (FALSE, FALSE, sizeof (Entry));
  guint n = MIN (ivl_tokenizer_get_n_tokens (self->tokenizer), self->n_vocab);
  for (guint32 id = 0; id < n; id++) {
    IvlTokenFlags flags = ivl_tokenizer_token_flags (self->tokenizer, id);
    gsize length;
    const guint8 *bytes = ivl_tokenizer_token_bytes (self->tokenizer, id, &length);
    if (!(flags & IVL_TOKEN_USED) || (flags & ~IVL_TOKEN_USED) || length == 0 || length > IVL_VOCABULARY_MAX_BYTES
        || is_end (self, id))
      continue;
    Entry entry = { bytes, (guint32) length, id };
    g_array_append_val (entries, entry);
    self->max_bytes = MAX (self->max_bytes, (guint) length);
  }
  g_array_sort (entries, compare_entries);
  return entries;
}

static void
build_trie (IvlVocabulary *self, const GArray *entries)
{
  GArray *nodes = g_array_new (FALSE, FALSE, sizeof (IvlVocabularyNode));
  guint32 open[IVL_VOCABULARY_MAX_BYTES + 1]; /* nodes on the way to the last token */
  guint depth = 0;
  IvlVocabularyNode root = { 0 };
  g_array_append_val (nodes, root);
  open[0] = 0;
  self->tokens = g_new (guint32, entries->len + 1);
  self->n_tokens = entries->len;
  const Entry *last = NULL;
  for (guint i = 0; i < entries->len; i++) {
    const Entry *entry = &g_array_index (entries, Entry, i);
    guint common = 0;
    while (last && common < MIN (last->length, entry->length) && last->bytes[common] == entry->bytes[common])
      common++;
    for (; depth > common; depth--)
      g_array_index (nodes, IvlVocabularyNode, open[depth]).end = nodes->len;
    for (; depth < entry->length; depth++) {
      IvlVocabularyNode node = { 0, i, entry->bytes[depth], (guint8) (depth + 1) };
      open[depth + 1] = nodes->len;
      g_array_append_val (nodes, node);
    }
    self->tokens[i] = entry->token;
    last = entry;
  }
  for (; depth > 0; depth--)
    g_array_index (nodes, IvlVocabularyNode, open[depth]).end = nodes->len;
  self->n_nodes = nodes->len;
  g_array_index (nodes, IvlVocabularyNode, 0).end = nodes->len;
  IvlVocabularyNode sentinel = { nodes->len, entries->len, 0, 0 };
  g_array_append_val (nodes, sentinel);
  self->nodes = (IvlVocabularyNode *) (void *) g_array_free (nodes, FALSE);
}

/* Constrained answers are closed byte by byte where they must: which byte can't be? */
static gint16
find_missing (const IvlVocabulary *self)
{
  gboolean found[256] = { FALSE };
  for (guint i = 1; i < self->n_nodes; i++)
    if (self->nodes[i].depth == 1 && self->nodes[i + 1].first > self->nodes[i].first)
      found[self->nodes[i].byte] = TRUE;
  for (gint16 b = 0x20; b < 256; b++)
    if (!found[b] && b != 0x7f && b != 0xc0 && b != 0xc1 && b < 0xf5)
      return b;
  return -1;
}

/* What every token is within a string, by the acceptor itself. */
static void
sort_out_string_tokens (IvlVocabulary *self, const GArray *entries)
{
  g_autoptr (IvlSchema) schema = ivl_schema_new ("{\"type\":\"string\",\"maxLength\":1000}", NULL);
  g_assert (schema);
  self->inside = g_new (IvlStringToken, entries->len);
  self->closing = g_new (IvlStringToken, entries->len);
  IvlSchemaState start, state;
  ivl_schema_state_init (&start, schema);
  ivl_schema_state_feed (&start, '"');
  for (guint i = 0; i < entries->len; i++) {
    const Entry *entry = &g_array_index (entries, Entry, i);
    guint at = 0;
    ivl_schema_state_copy (&state, &start);
    IvlStringToken token = { entry->token, 0, 0 };
    for (; at < entry->length && ivl_schema_state_feed (&state, entry->bytes[at]); at++)
      if (state.depth == 0)
        break;
      else
        token.characters = (guint8) state.frames[0].value;
    token.quote = (guint8) at;
    if (at == entry->length) {
      self->inside[self->n_inside++] = token;
      self->max_characters = MAX (self->max_characters, token.characters);
    } else if (state.depth == 0) {
      self->closing[self->n_closing++] = token;
    }
  }
}

IvlVocabulary *
ivl_vocabulary_new (IvlTokenizer *tokenizer, guint n_vocab, const guint32 *end_ids, guint n_end_ids)
{
  IvlVocabulary *self = g_new0 (IvlVocabulary, 1);
  g_atomic_ref_count_init (&self->ref_count);
  self->tokenizer = ivl_tokenizer_ref (tokenizer);
  self->n_vocab = n_vocab;
  self->end_ids = g_memdup2 (end_ids, n_end_ids * sizeof *end_ids);
  self->n_end_ids = n_end_ids;
  GArray *entries = collect (self);
  build_trie (self, entries);
  self->missing = find_missing (self);
  sort_out_string_tokens (self, entries);
  for (guint i = 0; i < entries->len; i++) {
    const Entry *entry = &g_array_index (entries, Entry, i);
    if (entry->length == 1 && entry->bytes[0] == ' ') {
      gsize n;
      g_autofree char *text = ivl_tokenizer_decode (tokenizer, &entry->token, 1, IVL_DECODE_ALL, &n);
      self->first_space_lost = n == 0;
    }
  }
  g_array_unref (entries);
  return self;
}

IvlVocabulary *
ivl_vocabulary_ref (IvlVocabulary *self)
{
  g_atomic_ref_count_inc (&self->ref_count);
  return self;
}

void
ivl_vocabulary_unref (IvlVocabulary *self)
{
  if (!self || !g_atomic_ref_count_dec (&self->ref_count))
    return;
  ivl_tokenizer_unref (self->tokenizer);
  g_free (self->nodes);
  g_free (self->tokens);
  g_free (self->end_ids);
  g_free (self->inside);
  g_free (self->closing);
  g_free (self);
}
