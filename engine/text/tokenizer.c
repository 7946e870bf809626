/* The token table, added tokens and encoding. Decoding is in decoder.c, reading folders in tokenizer-load.c. */
#include "text/tokenizer-private.h"

#include <string.h>

#include "base/error.h"
#include "text/unicode.h"

#define META "\xe2\x96\x81" /* U+2581, SentencePiece's space */

/* Texts are held in arrays with 32-bit positions. */
#define MAX_TEXT_BYTES (256u << 20)

static const char *const tags[] = { "<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>" };

gboolean
ivl_tokenizer_fail (GError **error, int code, const char *format, ...)
{
  va_list args;
  va_start (args, format);
  g_autofree char *message = g_strdup_vprintf (format, args);
  va_end (args);
  g_autofree char *valid = g_utf8_make_valid (message, -1);
  return ivl_fail (error, (IvlErrorCode) code, "%s", valid);
}

/* ---- building ---- */

static void
trie_init (IvlTrie *self)
{
  gint32 none = -1;
  ivl_pair_map_init (&self->edges, 64);
  self->ends = g_array_new (FALSE, FALSE, sizeof (gint32));
  g_array_append_val (self->ends, none); /* the root */
  self->empty = TRUE;
}

static void
trie_add (IvlTrie *self, const char *name, guint32 id)
{
  guint32 node = 0;
  self->first[(guint8) name[0]] = 1;
  self->empty = FALSE;
  for (const char *p = name; *p; p++) {
    guint64 key = (guint64) node << 8 | (guint8) *p;
    const IvlPairEntry *edge = ivl_pair_map_find (&self->edges, key);
    if (edge) {
      node = edge->a;
    } else {
      gint32 none = -1;
      node = self->ends->len;
      ivl_pair_map_set (&self->edges, key, node, 0);
      g_array_append_val (self->ends, none);
    }
  }
  g_array_index (self->ends, gint32, node) = (gint32) id;
}

IvlTokenizer *
ivl_tokenizer_new (const char *origin)
{
  IvlTokenizer *self = g_new0 (IvlTokenizer, 1);
  g_atomic_ref_count_init (&self->ref_count);
  self->origin = g_strdup (origin);
  self->tokens = g_array_new (FALSE, TRUE, sizeof (IvlToken));
  self->bytes = g_byte_array_new ();
  self->names = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  trie_init (&self->raw);
  trie_init (&self->normalized);
  self->eos = g_array_new (FALSE, FALSE, sizeof (guint32));
  self->bos = self->unk = -1;
  memset (self->byte_ids, 0xff, sizeof self->byte_ids);
  return self;
}

IvlTokenizer *
ivl_tokenizer_ref (IvlTokenizer *self)
{
  g_atomic_ref_count_inc (&self->ref_count);
  return self;
}

void
ivl_tokenizer_unref (IvlTokenizer *self)
{
  if (!self || !g_atomic_ref_count_dec (&self->ref_count))
    return;
  ivl_sp_free (self->sp);
  ivl_bpe_deinit (&self->bpe);
  ivl_pair_map_deinit (&self->raw.edges);
  ivl_pair_map_deinit (&self->normalized.edges);
  g_array_unref (self->raw.ends);
  g_array_unref (self->normalized.ends);
  g_clear_pointer (&self->pieces, g_hash_table_unref);
  g_hash_table_unref (self->names);
  g_array_unref (self->tokens);
  g_array_unref (self->eos);
  g_byte_array_unref (self->bytes);
  g_free (self->origin);
  g_free (self);
}

static IvlToken *
token_at (const IvlTokenizer *self, guint32 id)
{
  return id < self->tokens->len ? &g_array_index (self->tokens, IvlToken, id) : NULL;
}

gboolean
ivl_tokenizer_set (IvlTokenizer *self, guint32 id, const void *bytes, gsize length, IvlTokenFlags flags,
                   GError **error)
{
  if (id >= IVL_MAX_TOKENS || length > G_MAXUINT32 - self->bytes->len)
    return ivl_tokenizer_fail (error, IVL_ERROR_BAD_MODEL, "%s: token id %u is beyond the %u that make sense", self->origin, id,
                     IVL_MAX_TOKENS);
  if (id >= self->tokens->len)
    g_array_set_size (self->tokens, id + 1);
  *token_at (self, id) = (IvlToken){ self->bytes->len, (guint32) length, IVL_TOKEN_USED | flags };
  g_byte_array_append (self->bytes, bytes, (guint) length);
  return TRUE;
}

static gboolean
add_one (IvlTokenizer *self, const IvlAddedToken *added, gboolean replace, GError **error)
{
  const char *content = added->content;
  gsize length = content ? strlen (content) : 0;
  if (length == 0 || length > IVL_MAX_ADDED_BYTES || !g_utf8_validate (content, (gssize) length, NULL))
    return ivl_tokenizer_fail (error, IVL_ERROR_BAD_MODEL, "%s: added token %u is empty, too long or not UTF-8", self->origin,
                     added->id);
  gint32 known = GPOINTER_TO_INT (g_hash_table_lookup (self->names, content)) - 1;
  if (known >= 0 && (guint32) known != added->id)
    return ivl_tokenizer_fail (error, IVL_ERROR_BAD_MODEL, "%s: added token \"%s\" has both id %d and id %u", self->origin,
                     content, known, added->id);
  const IvlToken *old = token_at (self, added->id);
  if (old && (old->flags & IVL_TOKEN_USED)) {
    gboolean same = old->length == length && memcmp (self->bytes->data + old->offset, content, length) == 0;
    if (!same && (!replace || (old->flags & IVL_TOKEN_ADDED)))
      return ivl_tokenizer_fail (error, IVL_ERROR_BAD_MODEL, "%s: added token \"%s\" has id %u, which belongs to \"%.*s\"",
                       self->origin, content, added->id, (int) MIN (old->length, 64),
                       (const char *) self->bytes->data + old->offset);
    if (known >= 0)
      return TRUE;
  }
  IvlTokenFlags flags = IVL_TOKEN_ADDED | (added->special ? IVL_TOKEN_SPECIAL : 0);
  for (guint i = 0; i < G_N_ELEMENTS (tags); i++)
    if (strcmp (content, tags[i]) == 0)
      flags |= IVL_TOKEN_TAG;
  if (!ivl_tokenizer_set (self, added->id, content, length, flags, error))
    return FALSE;
  g_hash_table_insert (self->names, g_strdup (content), GINT_TO_POINTER ((gint) added->id + 1));
  trie_add (added->normalized ? &self->normalized : &self->raw, content, added->id);
  return TRUE;
}

gboolean
ivl_tokenizer_add (IvlTokenizer *self, const IvlAddedToken *added, guint n_added, gboolean replace, GError **error)
{
  for (guint i = 0; i < n_added; i++)
    if (!add_one (self, &added[i], replace, error))
      return FALSE;
  return TRUE;
}

static void
add_end (IvlTokenizer *self, const char *name)
{
  gint32 id = name ? ivl_tokenizer_token_id (self, name) : -1;
  if (id < 0 || (token_at (self, (guint32) id)->flags & IVL_TOKEN_END))
    return;
  token_at (self, (guint32) id)->flags |= IVL_TOKEN_END;
  g_array_append_val (self->eos, id);
}

void
ivl_tokenizer_find_ends (IvlTokenizer *self, const char *const *names)
{
  add_end (self, "<|im_end|>");
  for (; names && *names; names++)
    add_end (self, *names);
}

/* ---- vocabularies from memory ---- */

/* GPT-2's byte to character table: printable bytes stand for themselves, the others follow U+0100 on. */
static void
fill_byte_chars (gunichar chars[256])
{
  gunichar next = 0x100;
  for (guint b = 0; b < 256; b++)
    chars[b] = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174 ? b : next++;
}

/* Bytes of a piece spelled in GPT-2's characters; a piece with any other character means its UTF-8. */
static void
unspell (const char *piece, const gint16 *byte_of, GByteArray *out)
{
  g_byte_array_set_size (out, 0);
  for (const char *p = piece; *p; p = g_utf8_next_char (p)) {
    gunichar c = g_utf8_get_char (p);
    if (c >= 0x200 || byte_of[c] < 0) {
      g_byte_array_set_size (out, 0);
      g_byte_array_append (out, (const guint8 *) piece, (guint) strlen (piece));
      return;
    }
    guint8 byte = (guint8) byte_of[c];
    g_byte_array_append (out, &byte, 1);
  }
}

/* Value of "<0xHH>", else -1. */
static int
byte_piece (const char *piece)
{
  if (strlen (piece) != 6 || memcmp (piece, "<0x", 3) != 0 || piece[5] != '>' || !g_ascii_isxdigit (piece[3])
      || !g_ascii_isxdigit (piece[4]))
    return -1;
  return g_ascii_xdigit_value (piece[3]) * 16 + g_ascii_xdigit_value (piece[4]);
}

static gboolean
add_pieces (IvlTokenizer *self, const IvlBpeSource *source, GHashTable *ids, GError **error)
{
  gunichar chars[256];
  gint16 byte_of[0x200];
  memset (byte_of, 0xff, sizeof byte_of);
  fill_byte_chars (chars);
  for (guint b = 0; b < 256; b++)
    byte_of[chars[b]] = (gint16) b;

  g_autoptr (GByteArray) raw = g_byte_array_new ();
  for (guint32 id = 0; id < source->n_pieces; id++) {
    const char *piece = source->pieces[id];
    if (!piece)
      continue;
    if (!*piece && source->kind == IVL_BPE_CHARS) {
      /* InternLM2's piece U+0000: in a C string it can only be the empty one. */
      g_hash_table_insert (self->pieces, GUINT_TO_POINTER (0), GUINT_TO_POINTER (id + 1));
      if (!ivl_tokenizer_set (self, id, "", 1, 0, error))
        return FALSE;
      continue;
    }
    if (!*piece || !g_utf8_validate (piece, -1, NULL))
      return ivl_tokenizer_fail (error, IVL_ERROR_BAD_MODEL, "%s: piece %u is empty or not UTF-8", self->origin, id);
    if (!g_hash_table_insert (ids, (gpointer) piece, GUINT_TO_POINTER (id + 1)))
      return ivl_tokenizer_fail (error, IVL_ERROR_BAD_MODEL, "%s: piece \"%s\" appears twice, the second time with id %u",
                       self->origin, piece, id);
    int byte = -1;
    if (source->kind == IVL_BPE_BYTES) {
      unspell (piece, byte_of, raw);
      if (raw->len == 1 && g_utf8_strlen (piece, -1) == 1)
        byte = raw->data[0];
    } else {
      byte = byte_piece (piece);
      g_autoptr (GString) text = g_string_new (piece);
      g_string_replace (text, META, " ", 0);
      g_byte_array_set_size (raw, 0);
      if (byte >= 0)
        g_byte_array_append (raw, (guint8[]){ (guint8) byte }, 1);
      else
        g_byte_array_append (raw, (const guint8 *) text->str, (guint) text->len);
      if (*g_utf8_next_char (piece) == '\0')
        g_hash_table_insert (self->pieces, GUINT_TO_POINTER (g_utf8_get_char (piece)), GUINT_TO_POINTER (id + 1));
    }
    if (byte >= 0)
      self->byte_ids[byte] = id;
    if (!ivl_tokenizer_set (self, id, raw->data, raw->len, 0, error))
      return FALSE;
  }
  for (guint b = 0; b < 256; b++)
    if (self->byte_ids[b] == G_MAXUINT32)
      return ivl_tokenizer_fail (error, IVL_ERROR_BAD_MODEL, "%s: the vocabulary has no token for the single byte 0x%02X",
                       self->origin, b);
  return TRUE;
}

static gboolean
add_merges (IvlTokenizer *self, const IvlBpeSource *source, GHashTable *ids, GError **error)
{
  g_autoptr (GString) joined = g_string_new (NULL);
  for (guint32 rank = 0; rank < source->n_merges; rank++) {
    const char *left = source->merges[2 * (gsize) rank], *right = source->merges[2 * (gsize) rank + 1];
    g_string_assign (joined, left);
    g_string_append (joined, right);
    const char *names[3] = { left, right, joined->str };
    guint32 found[3];
    for (guint i = 0; i < 3; i++) {
      found[i] = GPOINTER_TO_UINT (g_hash_table_lookup (ids, names[i]));
      if (found[i]-- == 0)
        return ivl_tokenizer_fail (error, IVL_ERROR_BAD_MODEL,
                         "%s: merge %u (\"%.64s\" + \"%.64s\") names \"%.64s\", which isn't in the vocabulary",
                         self->origin, rank + 1, left, right, names[i]);
    }
    ivl_bpe_add (&self->bpe, found[0], found[1], rank, found[2]);
  }
  return TRUE;
}

IvlTokenizer *
ivl_tokenizer_new_bpe (const IvlBpeSource *source, GError **error)
{
  g_autoptr (IvlTokenizer) self = ivl_tokenizer_new (source->origin);
  g_autoptr (GHashTable) ids = g_hash_table_new (g_str_hash, g_str_equal);
  self->kind = source->kind;
  self->prefix = source->prefix;
  if (self->kind == IVL_BPE_CHARS) {
    self->pieces = g_hash_table_new (NULL, NULL);
    self->bytes_alone = TRUE;
    self->strip_first_space = self->prefix != IVL_PREFIX_NEVER;
  }
  ivl_bpe_init (&self->bpe, source->n_merges);
  if (!add_pieces (self, source, ids, error) || !add_merges (self, source, ids, error)
      || !ivl_tokenizer_add (self, source->added, source->n_added, FALSE, error))
    return NULL;
  if (source->bos) {
    self->bos = ivl_tokenizer_token_id (self, source->bos);
    if (self->bos < 0) {
      ivl_tokenizer_fail (error, IVL_ERROR_BAD_MODEL, "%s: there is no begin token \"%s\"", self->origin, source->bos);
      return NULL;
    }
  }
  ivl_tokenizer_find_ends (self, source->eos);
  return g_steal_pointer (&self);
}

/* ---- encoding ---- */

typedef struct {
  const IvlTokenizer *self;
  IvlEncodeFlags flags;
  GArray *ids;
  GArray *symbols; /* guint32: the piece at hand */
  IvlBpeScratch scratch;
  gboolean first;  /* nothing came before this text */
  GError **error;
} Encoder;

static void
append (Encoder *e, guint32 id)
{
  g_array_append_val (e->ids, id);
}

static void
flush_symbols (Encoder *e)
{
  gsize n = ivl_bpe_apply (&e->self->bpe, &e->scratch, (guint32 *) e->symbols->data, e->symbols->len);
  g_array_append_vals (e->ids, e->symbols->data, (guint) n);
  g_array_set_size (e->symbols, 0);
}

static void
encode_bytes (Encoder *e, const char *text, gsize length)
{
  while (length > 0) {
    gsize n = ivl_qwen2_word (text, length);
    g_array_set_size (e->symbols, (guint) n);
    for (gsize i = 0; i < n; i++)
      g_array_index (e->symbols, guint32, i) = e->self->byte_ids[(guint8) text[i]];
    flush_symbols (e);
    text += n;
    length -= n;
  }
}

static void
push_char (Encoder *e, const char *p, gsize length)
{
  guint32 id = GPOINTER_TO_UINT (g_hash_table_lookup (e->self->pieces, GUINT_TO_POINTER (g_utf8_get_char (p))));
  if (id-- > 0) {
    g_array_append_val (e->symbols, id);
    return;
  }
  for (gsize i = 0; i < length; i++)
    g_array_append_val (e->symbols, e->self->byte_ids[(guint8) p[i]]);
}

static void
encode_chars (Encoder *e, const char *text, gsize length)
{
  IvlPrefix prefix = e->self->prefix;
  gboolean has_space = text[0] == ' ' || (length >= 3 && memcmp (text, META, 3) == 0);
  if (!has_space && (prefix == IVL_PREFIX_ALWAYS || (prefix == IVL_PREFIX_FIRST && e->first)))
    push_char (e, META, 3);
  for (const char *p = text, *next; p < text + length; p = next) {
    next = g_utf8_next_char (p);
    if (*p == ' ')
      push_char (e, META, 3);
    else
      push_char (e, p, (gsize) (next - p));
  }
  flush_symbols (e);
}

/* The ids that stand in for a piece which text must not produce: its characters one by one. */
static void
spell_out (Encoder *e, const char *piece, gsize length)
{
  const IvlTokenizer *self = e->self;
  for (const char *p = piece, *next; p < piece + length; p = next) {
    next = g_utf8_next_char (p);
    gint32 id = ivl_sp_piece_id (self->sp, p, (gsize) (next - p));
    if (id >= 0 && id != self->unk) {
      append (e, (guint32) id);
    } else if (self->byte_ids[(guint8) *p] != G_MAXUINT32) {
      for (; p < next; p++)
        append (e, self->byte_ids[(guint8) *p]);
    } else if (self->unk >= 0) {
      append (e, (guint32) self->unk);
    }
  }
}

static gboolean
encode_sp (Encoder *e, const char *text, gsize length)
{
  const IvlTokenizer *self = e->self;
  g_autofree char *why = NULL;
  g_array_set_size (e->symbols, 0);
  if (!ivl_sp_encode (self->sp, text, length, e->symbols, &why))
    /* Only a contradictory model can do this, by a normalisation table that makes text no text. */
    return ivl_tokenizer_fail (e->error, IVL_ERROR_BAD_MODEL, "%s: SentencePiece can't encode %zu bytes of text: %s", self->origin,
                     length, why ? why : "no reason given");
  for (guint i = 0; i < e->symbols->len; i++) {
    guint32 id = g_array_index (e->symbols, guint32, i);
    const IvlToken *token = token_at (self, id);
    /* InternLM2's placeholders are pieces of their own, "[UNUSED_TOKEN_145]" being the id of <|im_end|>. */
    if (token && (token->flags & IVL_TOKEN_ADDED) && id != (guint32) self->unk && !(e->flags & IVL_ENCODE_SPECIAL)) {
      gsize n;
      const char *piece = ivl_sp_get_piece (self->sp, id, &n);
      spell_out (e, piece, n);
    } else {
      append (e, id);
    }
  }
  return TRUE;
}

/* First and longest token of TRIE at or after FROM; its end, or 0 if there is none. */
static gsize
find_added (const Encoder *e, const IvlTrie *trie, const char *text, gsize length, gsize from, gsize *start,
            guint32 *id)
{
  if (trie->empty || !(e->flags & (IVL_ENCODE_SPECIAL | IVL_ENCODE_TAGS)))
    return 0;
  for (gsize i = from; i < length; i++) {
    if (!trie->first[(guint8) text[i]])
      continue;
    gsize end = 0;
    guint32 node = 0;
    for (gsize j = i; j < length; j++) {
      const IvlPairEntry *edge = ivl_pair_map_find (&trie->edges, (guint64) node << 8 | (guint8) text[j]);
      if (!edge)
        break;
      node = edge->a;
      gint32 found = g_array_index (trie->ends, gint32, node);
      if (found < 0)
        continue;
      if (!(e->flags & IVL_ENCODE_SPECIAL) && !(token_at (e->self, (guint32) found)->flags & IVL_TOKEN_TAG))
        continue;
      end = j + 1;
      *id = (guint32) found;
    }
    if (end > 0) {
      *start = i;
      return end;
    }
  }
  return 0;
}

typedef gboolean (*EncodeRun) (Encoder *e, const char *text, gsize length);

/* Cuts TEXT at the tokens of TRIE, and hands the runs between them on. */
static gboolean
encode_cut (Encoder *e, const IvlTrie *trie, const char *text, gsize length, EncodeRun run)
{
  for (gsize at = 0; at < length;) {
    gsize start = length;
    guint32 id = 0;
    gsize end = find_added (e, trie, text, length, at, &start, &id);
    if (start > at && !run (e, text + at, start - at))
      return FALSE;
    e->first = FALSE;
    if (end == 0)
      break;
    append (e, id);
    at = end;
  }
  return TRUE;
}

static gboolean
encode_normalized (Encoder *e, const char *text, gsize length)
{
  if (e->self->sp)
    return encode_sp (e, text, length);
  if (e->self->kind == IVL_BPE_CHARS)
    encode_chars (e, text, length);
  else
    encode_bytes (e, text, length);
  return TRUE;
}

static gboolean
encode_raw (Encoder *e, const char *text, gsize length)
{
  g_autofree char *nfc = NULL;
  if (!e->self->sp && e->self->kind == IVL_BPE_BYTES)
    nfc = ivl_utf8_nfc (text, length, &length);
  return encode_cut (e, &e->self->normalized, nfc ? nfc : text, length, encode_normalized);
}

gboolean
ivl_tokenizer_encode (const IvlTokenizer *self, const char *text, gssize length, IvlEncodeFlags flags, GArray *ids,
                      GError **error)
{
  gsize n = length < 0 ? strlen (text) : (gsize) length, bad;
  if (n > MAX_TEXT_BYTES)
    return ivl_tokenizer_fail (error, IVL_ERROR_BAD_ARGUMENT, "a text of %zu bytes is too long; %u are the most", n,
                     MAX_TEXT_BYTES);
  if (!ivl_utf8_validate (text, n, &bad))
    return ivl_tokenizer_fail (error, IVL_ERROR_BAD_ARGUMENT, "text isn't valid UTF-8: byte 0x%02X at %zu", (guint8) text[bad],
                     bad);
  guint before = ids->len;
  Encoder e = { self, flags, ids, g_array_new (FALSE, FALSE, sizeof (guint32)), { NULL }, before == 0, error };
  if ((flags & IVL_ENCODE_BOS) && self->bos >= 0)
    append (&e, (guint32) self->bos);
  gboolean fine = encode_cut (&e, &self->raw, text, n, encode_raw);
  if (!fine)
    g_array_set_size (ids, before);
  g_array_unref (e.symbols);
  ivl_bpe_scratch_deinit (&e.scratch);
  return fine;
}

/* ---- the vocabulary ---- */

guint
ivl_tokenizer_get_n_tokens (const IvlTokenizer *self)
{
  return self->tokens->len;
}

gint32
ivl_tokenizer_token_id (const IvlTokenizer *self, const char *name)
{
  gint32 id = GPOINTER_TO_INT (g_hash_table_lookup (self->names, name)) - 1;
  gsize length = strlen (name);
  for (guint32 i = 0; id < 0 && i < self->tokens->len; i++) {
    const IvlToken *token = token_at (self, i);
    if ((token->flags & IVL_TOKEN_USED) && token->length == length
        && memcmp (self->bytes->data + token->offset, name, length) == 0)
      id = (gint32) i;
  }
  return id;
}

IvlTokenFlags
ivl_tokenizer_token_flags (const IvlTokenizer *self, guint32 id)
{
  const IvlToken *token = token_at (self, id);
  return token ? token->flags : 0;
}

const guint8 *
ivl_tokenizer_token_bytes (const IvlTokenizer *self, guint32 id, gsize *length)
{
  const IvlToken *token = token_at (self, id);
  *length = token ? token->length : 0;
  return token && token->length ? self->bytes->data + token->offset : (const guint8 *) "";
}

const guint32 *
ivl_tokenizer_get_eos (const IvlTokenizer *self, guint *n)
{
  *n = self->eos->len;
  return (const guint32 *) self->eos->data;
}

gint32
ivl_tokenizer_get_bos (const IvlTokenizer *self)
{
  return self->bos;
}
