#include "text/tokenizer-gguf.h"

#include <string.h>

#include "base/error.h"
#include "text/tokenizer-private.h"

/* Bits of the ModelProto's fields: number << 3 | wire type. See sentencepiece-model.c. */
enum { VARINT = 0, BYTES = 2, FIXED32 = 5 };

typedef struct {
  const IvlGguf *file;
  GStringChunk *strings;
  GPtrArray *tokens;
  double *types;      /* IvlSpType by id */
  GArray *added;      /* IvlAddedToken */
  const char *bos;    /* NULL: nothing is put in front */
  const char *eos[2]; /* NULL-terminated */
} Vocabulary;

static void
vocabulary_deinit (Vocabulary *self)
{
  g_clear_pointer (&self->tokens, g_ptr_array_unref);
  g_clear_pointer (&self->added, g_array_unref);
  g_clear_pointer (&self->strings, g_string_chunk_free);
  g_clear_pointer (&self->types, g_free);
}

static gboolean
bad (const Vocabulary *self, GError **error, const char *format, ...) G_GNUC_PRINTF (3, 4);

static gboolean
bad (const Vocabulary *self, GError **error, const char *format, ...)
{
  va_list args;
  va_start (args, format);
  g_autofree char *cause = g_strdup_vprintf (format, args);
  va_end (args);
  return ivl_tokenizer_fail (error, IVL_ERROR_BAD_MODEL, "%s: %s", ivl_gguf_get_name (self->file), cause);
}

/* The token that KEY names by id; NULL in *NAME if there is no such key. */
static gboolean
read_id (const Vocabulary *self, const char *key, const char **name, GError **error)
{
  guint64 id;
  *name = NULL;
  if (!ivl_gguf_has (self->file, key))
    return TRUE;
  if (!ivl_gguf_get_uint (self->file, key, &id, error))
    return FALSE;
  if (id >= self->tokens->len)
    return bad (self, error, "%s is %" G_GUINT64_FORMAT ", beyond the %u tokens", key, id, self->tokens->len);
  *name = self->tokens->pdata[id];
  return TRUE;
}

/* What Qwen2.5's tokenizer_config.json says isn't special; the converter takes any <|name|> for a control token. */
static gboolean
is_plain (const char *name)
{
  static const char *const names[] = { "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>",
                                       "<|fim_pad|>",    "<|repo_name|>",  "<|file_sep|>" };
  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    if (strcmp (name, names[i]) == 0)
      return TRUE;
  return FALSE;
}

static gboolean
read_vocabulary (Vocabulary *self, gboolean chars, GError **error)
{
  guint n;
  if (!(self->tokens = ivl_gguf_get_strings (self->file, "tokenizer.ggml.tokens", self->strings, error))
      || !(self->types = ivl_gguf_get_numbers (self->file, "tokenizer.ggml.token_type", &n, error)))
    return FALSE;
  if (n != self->tokens->len || n == 0 || n > IVL_MAX_TOKENS)
    return bad (self, error, "%u tokens with %u types", self->tokens->len, n);
  for (guint id = 0; id < n; id++) {
    const char *name = self->tokens->pdata[id];
    if (!(self->types[id] >= IVL_SP_NORMAL && self->types[id] <= IVL_SP_BYTE))
      return bad (self, error, "token %u is of type %g; there are types 1 to 6", id, self->types[id]);
    int type = (int) self->types[id];
    gboolean added = type == IVL_SP_CONTROL || type == IVL_SP_USER_DEFINED || (chars && type == IVL_SP_UNKNOWN);
    if (!added)
      continue;
    IvlAddedToken token = { name, id, type != IVL_SP_USER_DEFINED && (chars || !is_plain (name)), FALSE };
    g_array_append_val (self->added, token);
  }
  gboolean add_bos = chars; /* what llama.cpp takes for granted */
  if (ivl_gguf_has (self->file, "tokenizer.ggml.add_bos_token")
      && !ivl_gguf_get_bool (self->file, "tokenizer.ggml.add_bos_token", &add_bos, error))
    return FALSE;
  if (!read_id (self, "tokenizer.ggml.bos_token_id", &self->bos, error)
      || !read_id (self, "tokenizer.ggml.eos_token_id", &self->eos[0], error))
    return FALSE;
  if (!add_bos)
    self->bos = NULL;
  return TRUE;
}

/* ---- byte-level BPE ---- */

static gboolean
check_pre (const Vocabulary *self, GError **error)
{
  const char *key = "tokenizer.ggml.pre";
  g_autofree char *pre = ivl_gguf_get_string (self->file, key, error);
  if (!pre)
    return FALSE;
  if (strcmp (pre, "qwen2") == 0)
    return TRUE;
  return ivl_tokenizer_fail (error, IVL_ERROR_UNSUPPORTED, "%s: %s is \"%.40s\"; this engine does \"qwen2\"",
                             ivl_gguf_get_name (self->file), key, pre);
}

static IvlTokenizer *
load_bytes (Vocabulary *self, GError **error)
{
  if (!check_pre (self, error) || !read_vocabulary (self, FALSE, error))
    return NULL;
  g_autoptr (GPtrArray) lines = ivl_gguf_get_strings (self->file, "tokenizer.ggml.merges", self->strings, error);
  if (!lines)
    return NULL;
  g_autoptr (GPtrArray) merges = g_ptr_array_sized_new (2 * lines->len);
  for (guint i = 0; i < lines->len; i++) {
    char *line = lines->pdata[i], *space = strchr (line, ' ');
    if (!space || space == line || !space[1] || strchr (space + 1, ' ')) {
      bad (self, error, "tokenizer.ggml.merges: merge %u isn't two pieces", i + 1);
      return NULL;
    }
    *space = '\0';
    g_ptr_array_add (merges, line);
    g_ptr_array_add (merges, space + 1);
  }
  g_autofree const char **pieces = g_new0 (const char *, self->tokens->len);
  for (guint id = 0; id < self->tokens->len; id++)
    if (self->types[id] == IVL_SP_NORMAL)
      pieces[id] = self->tokens->pdata[id];
  IvlBpeSource source = {
    .origin = ivl_gguf_get_name (self->file),
    .kind = IVL_BPE_BYTES,
    .pieces = pieces,
    .n_pieces = self->tokens->len,
    .merges = (const char *const *) merges->pdata,
    .n_merges = lines->len,
    .added = (const IvlAddedToken *) self->added->data,
    .n_added = self->added->len,
    .bos = self->bos,
    .eos = self->eos,
  };
  return ivl_tokenizer_new_bpe (&source, error);
}

/* ---- SentencePiece ---- */

static void
put_varint (GByteArray *out, guint64 value)
{
  for (; value >= 0x80; value >>= 7)
    g_byte_array_append (out, (guint8[]){ (guint8) (value | 0x80) }, 1);
  g_byte_array_append (out, (guint8[]){ (guint8) value }, 1);
}

static void
put_number (GByteArray *out, guint field, guint64 value)
{
  put_varint (out, field << 3 | VARINT);
  put_varint (out, value);
}

static void
put_bytes (GByteArray *out, guint field, gconstpointer data, gsize n)
{
  put_varint (out, field << 3 | BYTES);
  put_varint (out, n);
  g_byte_array_append (out, data, (guint) n);
}

static void
put_piece (GByteArray *out, GByteArray *scratch, const char *name, float score, int type)
{
  guint32 bits;
  memcpy (&bits, &score, sizeof bits);
  bits = GUINT32_TO_LE (bits);
  g_byte_array_set_size (scratch, 0);
  put_bytes (scratch, 1, name, strlen (name));
  put_varint (scratch, 2 << 3 | FIXED32);
  g_byte_array_append (scratch, (const guint8 *) &bits, sizeof bits);
  put_number (scratch, 3, (guint64) type);
  put_bytes (out, 1, scratch->data, scratch->len);
}

/* Pieces that no text becomes keep their id under a name of their own: InternLM2's U+0000, which the converter writes
 * as an emoji that is a piece already, and empty ones. */
static gboolean
write_pieces (const Vocabulary *self, GByteArray *out, guint *n_bytes, GError **error)
{
  guint n;
  g_autofree double *scores = ivl_gguf_get_numbers (self->file, "tokenizer.ggml.scores", &n, error);
  if (!scores)
    return FALSE;
  if (n != self->tokens->len)
    return bad (self, error, "%u tokens with %u scores", self->tokens->len, n);
  g_autoptr (GHashTable) seen = g_hash_table_new (g_str_hash, g_str_equal);
  g_autoptr (GByteArray) scratch = g_byte_array_new ();
  for (guint id = 0; id < n; id++) {
    const char *name = self->tokens->pdata[id];
    int type = (int) self->types[id];
    g_autofree char *own = NULL;
    if (!(scores[id] >= -G_MAXFLOAT && scores[id] <= G_MAXFLOAT))
      return bad (self, error, "token %u has no finite score", id);
    *n_bytes += type == IVL_SP_BYTE;
    /* Added tokens are cut out of a text before: to SentencePiece they mean nothing. */
    if (type == IVL_SP_USER_DEFINED)
      type = IVL_SP_CONTROL;
    if (!*name || (type == IVL_SP_NORMAL && !g_hash_table_add (seen, (gpointer) name))) {
      name = own = g_strdup_printf ("<|unused %u|>", id);
      type = IVL_SP_CONTROL;
    }
    put_piece (out, scratch, name, (float) scores[id], type);
  }
  return TRUE;
}

static gboolean
write_model (const Vocabulary *self, GByteArray *out, GError **error)
{
  guint n_bytes = 0;
  gboolean prefix = TRUE, collapse = FALSE;
  static const char *const flags[] = { "tokenizer.ggml.add_space_prefix", "tokenizer.ggml.remove_extra_whitespaces" };
  gboolean *values[] = { &prefix, &collapse };
  for (guint i = 0; i < G_N_ELEMENTS (flags); i++)
    if (ivl_gguf_has (self->file, flags[i]) && !ivl_gguf_get_bool (self->file, flags[i], values[i], error))
      return FALSE;
  if (!write_pieces (self, out, &n_bytes, error))
    return FALSE;

  g_autoptr (GByteArray) spec = g_byte_array_new ();
  put_number (spec, 3, 2); /* BPE */
  put_number (spec, 35, n_bytes == 256);
  for (guint id = 0; id < self->tokens->len; id++)
    if (self->types[id] == IVL_SP_UNKNOWN)
      put_number (spec, 40, id);
  put_bytes (out, 2, spec->data, spec->len);
  g_byte_array_set_size (spec, 0);
  put_bytes (spec, 1, "identity", 8);
  put_number (spec, 3, prefix != FALSE);
  put_number (spec, 4, collapse != FALSE);
  put_number (spec, 5, 1); /* spaces become U+2581 */
  put_bytes (out, 3, spec->data, spec->len);
  return TRUE;
}

static IvlTokenizer *
load_chars (Vocabulary *self, GError **error)
{
  g_autoptr (GByteArray) proto = g_byte_array_new ();
  if (!read_vocabulary (self, TRUE, error) || !write_model (self, proto, error))
    return NULL;
  IvlSpModel model;
  const char *name = ivl_gguf_get_name (self->file);
  if (!ivl_sp_model_parse (&model, proto->data, proto->len, name, error))
    return NULL;
  g_autoptr (IvlTokenizer) tokenizer
    = ivl_tokenizer_new_sp (proto->data, proto->len, name, &model, (const IvlAddedToken *) self->added->data,
                            self->added->len, error);
  ivl_sp_model_deinit (&model);
  if (!tokenizer)
    return NULL;
  if (self->bos)
    tokenizer->bos = ivl_tokenizer_token_id (tokenizer, self->bos);
  ivl_tokenizer_find_ends (tokenizer, self->eos);
  return g_steal_pointer (&tokenizer);
}

IvlTokenizer *
ivl_tokenizer_new_from_gguf (const IvlGguf *file, GError **error)
{
  g_autofree char *model = ivl_gguf_get_string (file, "tokenizer.ggml.model", error);
  if (!model)
    return NULL;
  gboolean bytes = strcmp (model, "gpt2") == 0;
  if (!bytes && strcmp (model, "llama") != 0) {
    ivl_tokenizer_fail (error, IVL_ERROR_UNSUPPORTED,
                        "%s: tokenizer.ggml.model is \"%.40s\"; this engine does \"gpt2\" and \"llama\"",
                        ivl_gguf_get_name (file), model);
    return NULL;
  }
  Vocabulary vocabulary = { .file = file, .strings = g_string_chunk_new (1 << 16),
                            .added = g_array_new (FALSE, FALSE, sizeof (IvlAddedToken)) };
  IvlTokenizer *self = bytes ? load_bytes (&vocabulary, error) : load_chars (&vocabulary, error);
  vocabulary_deinit (&vocabulary);
  return self;
}
