#include "generate/constraint.h"

#include <string.h>

#include "base/error.h"

/* Masks that are kept, 19 kB each for 151,000 tokens. Beyond, all are dropped: such schemas don't come back to the same
 * states. */
#define MAX_CACHED 128

/* What `inside` tokens leave open at most, beside the string itself: an escape of \uXXXX. */
#define MAX_OPEN_BYTES 5

typedef struct {
  guint64 need; /* what some of its tokens leave to do: with so many bytes left the mask holds */
  guint32 mask[];
} Cached;

struct IvlConstraint {
  IvlVocabulary *vocabulary;
  IvlSchema *schema;
  IvlSchemaState state;
  gboolean begun;
  guint mask_words;
  guint32 *mask;
  IvlSchemaState *trail; /* [max_bytes + 1]: states along a way through the trie */
  GHashTable *cache;     /* GBytes of a state's frames -> Cached */
  guint32 **inside;      /* [max_characters + 1]: string tokens of at most so many characters, or NULL */
};

IvlConstraint *
ivl_constraint_new (IvlVocabulary *vocabulary, const char *json_schema, GError **error)
{
  if (vocabulary->missing >= 0 || vocabulary->n_end_ids == 0) {
    ivl_fail (error, IVL_ERROR_UNSUPPORTED,
              "json_schema: this model's vocabulary has no token for the single byte 0x%02X, so that not every answer "
              "could be ended", MAX (vocabulary->missing, 0));
    return NULL;
  }
  IvlSchema *schema = ivl_schema_new (json_schema, error);
  if (!schema)
    return NULL;
  IvlConstraint *self = g_new0 (IvlConstraint, 1);
  self->vocabulary = ivl_vocabulary_ref (vocabulary);
  self->schema = schema;
  ivl_schema_state_init (&self->state, schema);
  self->mask_words = (vocabulary->n_vocab + 31) / 32;
  self->mask = g_new0 (guint32, self->mask_words);
  self->trail = g_new (IvlSchemaState, vocabulary->max_bytes + 1);
  self->cache = g_hash_table_new_full (g_bytes_hash, g_bytes_equal, (GDestroyNotify) g_bytes_unref, g_free);
  self->inside = g_new0 (guint32 *, vocabulary->max_characters + 1);
  return self;
}

void
ivl_constraint_free (IvlConstraint *self)
{
  if (!self)
    return;
  for (guint i = 0; i <= self->vocabulary->max_characters; i++)
    g_free (self->inside[i]);
  g_free (self->inside);
  g_hash_table_unref (self->cache);
  g_free (self->trail);
  g_free (self->mask);
  ivl_schema_free (self->schema);
  ivl_vocabulary_unref (self->vocabulary);
  g_free (self);
}

guint64
ivl_constraint_min_tokens (const IvlConstraint *self)
{
  return ivl_schema_state_min_bytes (&self->state);
}

gboolean
ivl_constraint_is_complete (const IvlConstraint *self)
{
  return ivl_schema_state_min_bytes (&self->state) == 0;
}

gboolean
ivl_constraint_is_over (const IvlConstraint *self)
{
  return self->state.depth == 0;
}

static inline void
allow (IvlConstraint *self, guint32 token)
{
  self->mask[token / 32] |= 1u << token % 32;
}

/* Allows the tokens below node FROM that go on from STATE and leave at most MOST bytes to do; returns what the worst of
 * all that go on leaves. */
static guint64
walk (IvlConstraint *self, const IvlSchemaState *state, guint32 from, guint64 most)
{
  const IvlVocabulary *v = self->vocabulary;
  guint base = v->nodes[from].depth;
  guint64 need = 0;
  ivl_schema_state_copy (&self->trail[base], state);
  for (guint32 i = from + 1; i < v->nodes[from].end;) {
    const IvlVocabularyNode *node = &v->nodes[i];
    IvlSchemaState *here = &self->trail[node->depth];
    ivl_schema_state_copy (here, &self->trail[node->depth - 1]);
    if (!ivl_schema_state_feed (here, node->byte)) {
      i = node->end;
      continue;
    }
    guint32 end = v->nodes[++i].first;
    if (end == node->first)
      continue;
    guint64 left = ivl_schema_state_min_bytes (here);
    need = MAX (need, left);
    for (guint32 t = node->first; t < end && left <= most; t++)
      allow (self, v->tokens[t]);
  }
  return need;
}

static const guint32 *
inside_mask (IvlConstraint *self, guint most)
{
  const IvlVocabulary *v = self->vocabulary;
  most = MIN (most, v->max_characters);
  if (!self->inside[most]) {
    guint32 *mask = self->inside[most] = g_new0 (guint32, self->mask_words);
    for (guint i = 0; i < v->n_inside; i++)
      if (v->inside[i].characters <= most)
        mask[v->inside[i].token / 32] |= 1u << v->inside[i].token % 32;
  }
  return self->inside[most];
}

/* Most of a vocabulary may go on a string, whatever is round it; only the tokens that end it need to be tried. FALSE if
 * the budget is too tight for such a sweeping permission. */
static gboolean
mask_in_string (IvlConstraint *self, guint64 left)
{
  const IvlVocabulary *v = self->vocabulary;
  guint most, least;
  if (!ivl_schema_state_in_string (&self->state, &most, &least)
      || ivl_schema_state_min_bytes (&self->state) + MAX_OPEN_BYTES > left)
    return FALSE;
  memcpy (self->mask, inside_mask (self, most), self->mask_words * sizeof *self->mask);
  IvlSchemaState *state = &self->trail[0];
  for (guint i = 0; i < v->n_closing; i++) {
    const IvlStringToken *token = &v->closing[i];
    if (token->characters > most || token->characters < least)
      continue;
    gsize n;
    const guint8 *bytes = ivl_tokenizer_token_bytes (v->tokenizer, token->token, &n);
    /* The characters before the quote are fine, and leave nothing else behind. */
    ivl_schema_state_copy (state, &self->state);
    state->depth--;
    gboolean ok = TRUE;
    for (gsize at = token->quote + 1u; ok && at < n; at++)
      ok = ivl_schema_state_feed (state, bytes[at]);
    if (ok && ivl_schema_state_min_bytes (state) <= left)
      allow (self, token->token);
  }
  return TRUE;
}

static GBytes *
state_key (const IvlSchemaState *state)
{
  return g_bytes_new (state->frames, state->depth * sizeof *state->frames);
}

static void
mask_by_walk (IvlConstraint *self, guint64 left)
{
  gsize bytes = self->mask_words * sizeof *self->mask;
  g_autoptr (GBytes) key = state_key (&self->state);
  const Cached *cached = g_hash_table_lookup (self->cache, key);
  if (cached && cached->need <= left) {
    memcpy (self->mask, cached->mask, bytes);
    return;
  }
  memset (self->mask, 0, bytes);
  guint64 need = walk (self, &self->state, 0, left);
  if (need > left)
    return; /* of use for this budget only */
  if (g_hash_table_size (self->cache) == MAX_CACHED)
    g_hash_table_remove_all (self->cache);
  Cached *fresh = g_malloc (sizeof *fresh + bytes);
  fresh->need = need;
  memcpy (fresh->mask, self->mask, bytes);
  g_hash_table_insert (self->cache, g_steal_pointer (&key), fresh);
}

/* The first token's space isn't text: " {" begins like "{". */
static void
mask_first_space (IvlConstraint *self, guint64 left)
{
  const IvlVocabulary *v = self->vocabulary;
  for (guint32 i = 1; i < v->n_nodes; i = v->nodes[i].end)
    if (v->nodes[i].byte == ' ')
      walk (self, &self->state, i, left);
}

const guint32 *
ivl_constraint_mask (IvlConstraint *self, guint budget)
{
  const IvlVocabulary *v = self->vocabulary;
  guint64 left = budget ? budget - 1 : 0;
  if (budget == 0)
    memset (self->mask, 0, self->mask_words * sizeof *self->mask);
  else if (!mask_in_string (self, left))
    mask_by_walk (self, left);
  if (!self->begun && v->first_space_lost && budget)
    mask_first_space (self, left);
  if (ivl_constraint_is_complete (self))
    for (guint i = 0; i < v->n_end_ids; i++)
      if (v->end_ids[i] < v->n_vocab)
        allow (self, v->end_ids[i]);
  return self->mask;
}

gboolean
ivl_constraint_accept (IvlConstraint *self, guint32 token)
{
  const IvlVocabulary *v = self->vocabulary;
  IvlTokenFlags flags = ivl_tokenizer_token_flags (v->tokenizer, token);
  gsize n, at = 0;
  const guint8 *bytes = ivl_tokenizer_token_bytes (v->tokenizer, token, &n);
  if (token >= v->n_vocab || flags != IVL_TOKEN_USED || n == 0)
    return FALSE;
  if (!self->begun && v->first_space_lost && bytes[0] == ' ')
    at++;
  self->begun = TRUE;
  for (; at < n; at++)
    if (!ivl_schema_state_feed (&self->state, bytes[at]))
      return FALSE;
  return TRUE;
}
