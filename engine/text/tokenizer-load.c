/* From the files of a checkpoint folder to an IvlTokenizer. */
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "tensor/gguf-pair.h"
#include "text/json-get.h"
#include "text/tokenizer-gguf.h"
#include "text/tokenizer-private.h"

/* Qwen2's whole tokenizer.json has 7 MB. */
#define MAX_FILE_BYTES (128u << 20)

#define QWEN2_WORDS                                                                                                    \
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"    \
  "\\s+(?!\\S)|\\s+"

/* What the files round the vocabulary say. Strings are borrowed from the JSON trees, which FILES keeps. */
typedef struct {
  const char *folder;
  GPtrArray *trees;      /* JsonObject */
  GArray *added;         /* IvlAddedToken, each content once */
  GHashTable *by_name;   /* content -> index in added + 1 */
  GHashTable *specials;  /* set of names */
  gboolean know_special; /* a file lists which tokens are special */
  GPtrArray *ends;       /* eos_token names, NULL-terminated before use */
  const char *bos;
  int add_bos;           /* -1: not said */
} Extras;

static void
extras_init (Extras *self, const char *folder)
{
  *self = (Extras){ .folder = folder, .add_bos = -1 };
  self->trees = g_ptr_array_new_with_free_func ((GDestroyNotify) json_object_unref);
  self->added = g_array_new (FALSE, FALSE, sizeof (IvlAddedToken));
  self->by_name = g_hash_table_new (g_str_hash, g_str_equal);
  self->specials = g_hash_table_new (g_str_hash, g_str_equal);
  self->ends = g_ptr_array_new ();
}

static void
extras_deinit (Extras *self)
{
  g_ptr_array_unref (self->ends);
  g_hash_table_unref (self->specials);
  g_hash_table_unref (self->by_name);
  g_array_unref (self->added);
  g_ptr_array_unref (self->trees);
}

/* A file's object, kept as long as EXTRAS. */
static JsonObject *
load_json (Extras *extras, const char *name, GError **error)
{
  g_autofree char *path = g_build_filename (extras->folder, name, NULL);
  g_autoptr (GBytes) bytes = ivl_file_read (extras->folder, name, MAX_FILE_BYTES, error);
  if (!bytes)
    return NULL;
  gsize size;
  const char *text = g_bytes_get_data (bytes, &size);
  JsonObject *object = ivl_json_parse_object (path, text ? text : "", size, error);
  if (object)
    g_ptr_array_add (extras->trees, object);
  return object;
}

/* The same for a file that may be missing: then *OBJECT is NULL. */
static gboolean
load_optional (Extras *extras, const char *name, JsonObject **object, GError **error)
{
  *object = NULL;
  return !ivl_file_exists (extras->folder, name) || (*object = load_json (extras, name, error)) != NULL;
}

static gboolean
bad (const Extras *extras, const char *file, GError **error, const char *format, ...) G_GNUC_PRINTF (4, 5);

static gboolean
bad (const Extras *extras, const char *file, GError **error, const char *format, ...)
{
  va_list args;
  va_start (args, format);
  g_autofree char *what = g_strdup_vprintf (format, args);
  va_end (args);
  return ivl_tokenizer_fail (error, IVL_ERROR_BAD_MODEL, "%s" G_DIR_SEPARATOR_S "%s: %s", extras->folder, file, what);
}

static gboolean
note_added (Extras *self, const char *file, IvlAddedToken token, GError **error)
{
  guint at = GPOINTER_TO_UINT (g_hash_table_lookup (self->by_name, token.content));
  if (at > 0) {
    const IvlAddedToken *known = &g_array_index (self->added, IvlAddedToken, at - 1);
    if (known->id == token.id)
      return TRUE;
    return bad (self, file, error, "token \"%s\" has id %u here and id %u elsewhere", token.content, token.id,
                known->id);
  }
  g_array_append_val (self->added, token);
  g_hash_table_insert (self->by_name, (gpointer) token.content, GUINT_TO_POINTER (self->added->len));
  return TRUE;
}

/* An added token as an object: added_tokens_decoder's values and tokenizer.json's added_tokens. */
static gboolean
read_token (Extras *self, const char *file, JsonObject *object, guint32 id, GError **error)
{
  const char *content = ivl_json_get_string (object, "content");
  if (!content || !*content)
    return bad (self, file, error, "added token %u has no content", id);
  /* No tokenizer of this family has these; they'd change which text a token swallows. */
  static const char *const odd[] = { "lstrip", "rstrip", "single_word" };
  for (guint i = 0; i < G_N_ELEMENTS (odd); i++)
    if (ivl_json_get_boolean (object, odd[i], FALSE))
      return ivl_tokenizer_fail (error, IVL_ERROR_UNSUPPORTED, "%s" G_DIR_SEPARATOR_S "%s: added token \"%s\" sets \"%s\"",
                       self->folder, file, content, odd[i]);
  gboolean special = ivl_json_get_boolean (object, "special", FALSE);
  return note_added (self, file,
                     (IvlAddedToken){ content, id, special, ivl_json_get_boolean (object, "normalized", !special) },
                     error);
}

/* A token named in a configuration: a string, or an object with "content". */
static const char *
token_name (JsonNode *node)
{
  const char *name = ivl_json_node_string (node);
  return name ? name : ivl_json_get_string (ivl_json_node_object (node), "content");
}

/* bos_token, additional_special_tokens and the like, which both configuration files have. */
static void
read_names (Extras *self, JsonObject *object)
{
  static const char *const names[] = { "bos_token", "eos_token",  "unk_token", "pad_token",
                                       "sep_token", "cls_token", "mask_token" };
  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    const char *name = token_name (json_object_get_member (object, names[i]));
    if (!name || !*name)
      continue;
    g_hash_table_add (self->specials, (gpointer) name);
    self->know_special = TRUE;
    if (i == 0 && !self->bos)
      self->bos = name;
    if (i == 1)
      g_ptr_array_add (self->ends, (gpointer) name);
  }
  JsonArray *more = ivl_json_get_array (object, "additional_special_tokens");
  for (guint i = 0; more && i < json_array_get_length (more); i++) {
    const char *name = token_name (json_array_get_element (more, i));
    if (name && *name)
      g_hash_table_add (self->specials, (gpointer) name);
    self->know_special = TRUE;
  }
}

static gboolean
read_added_decoder (Extras *self, const char *file, JsonObject *decoder, GError **error)
{
  JsonObjectIter iter;
  const char *key;
  JsonNode *node;
  json_object_iter_init_ordered (&iter, decoder);
  while (json_object_iter_next_ordered (&iter, &key, &node)) {
    guint64 id;
    if (!g_ascii_string_to_unsigned (key, 10, 0, IVL_MAX_TOKENS - 1, &id, NULL))
      return bad (self, file, error, "\"%.32s\" in added_tokens_decoder is no token id", key);
    if (!read_token (self, file, ivl_json_node_object (node), (guint32) id, error))
      return FALSE;
  }
  return TRUE;
}

static gboolean
read_config (Extras *self, GError **error)
{
  const char *file = "tokenizer_config.json";
  JsonObject *config, *map;
  if (!load_optional (self, file, &config, error) || !load_optional (self, "special_tokens_map.json", &map, error))
    return FALSE;
  if (map)
    read_names (self, map);
  if (!config)
    return TRUE;
  read_names (self, config);
  if (ivl_json_has (config, "add_bos_token"))
    self->add_bos = ivl_json_get_boolean (config, "add_bos_token", FALSE);
  JsonObject *decoder = ivl_json_get_object (config, "added_tokens_decoder");
  return !decoder || read_added_decoder (self, file, decoder, error);
}

static gboolean
is_special_name (const Extras *self, const char *name)
{
  static const char *const known[] = { "<img>",   "</img>", "<IMG_CONTEXT>", "<quad>",       "</quad>",    "<ref>",
                                       "</ref>", "<box>",  "</box>",        "<|im_start|>", "<|im_end|>", "<|endoftext|>" };
  if (!self->know_special || g_hash_table_contains (self->specials, name))
    return TRUE;
  for (guint i = 0; i < G_N_ELEMENTS (known); i++)
    if (strcmp (name, known[i]) == 0)
      return TRUE;
  return FALSE;
}

/* added_tokens.json: name -> id, without saying which are special. */
static gboolean
read_added (Extras *self, GError **error)
{
  const char *file = "added_tokens.json";
  JsonObject *object;
  if (!load_optional (self, file, &object, error))
    return FALSE;
  if (!object)
    return TRUE;
  JsonObjectIter iter;
  const char *name;
  JsonNode *node;
  json_object_iter_init_ordered (&iter, object);
  while (json_object_iter_next_ordered (&iter, &name, &node)) {
    guint32 id;
    if (!*name || !ivl_json_node_uint (node, IVL_MAX_TOKENS - 1, &id))
      return bad (self, file, error, "\"%.64s\" has no token id of 0 to %u", name, IVL_MAX_TOKENS - 1);
    gboolean special = is_special_name (self, name);
    if (!note_added (self, file, (IvlAddedToken){ name, id, special, FALSE }, error))
      return FALSE;
  }
  return TRUE;
}

static gboolean
read_added_array (Extras *self, const char *file, JsonObject *root, GError **error)
{
  JsonArray *array = ivl_json_get_array (root, "added_tokens");
  for (guint i = 0; array && i < json_array_get_length (array); i++) {
    JsonObject *token = ivl_json_node_object (json_array_get_element (array, i));
    guint32 id;
    if (!token || !ivl_json_node_uint (json_object_get_member (token, "id"), IVL_MAX_TOKENS - 1, &id))
      return bad (self, file, error, "added_tokens[%u] has no token id of 0 to %u", i, IVL_MAX_TOKENS - 1);
    if (!read_token (self, file, token, id, error))
      return FALSE;
  }
  return TRUE;
}

/* ---- BPE ---- */

/* {piece: id} -> pieces by id. */
static GPtrArray *
read_vocab (const Extras *extras, const char *file, JsonObject *vocab, GError **error)
{
  g_autoptr (GPtrArray) pieces = g_ptr_array_sized_new (json_object_get_size (vocab));
  JsonObjectIter iter;
  const char *piece;
  JsonNode *node;
  json_object_iter_init_ordered (&iter, vocab);
  while (json_object_iter_next_ordered (&iter, &piece, &node)) {
    guint32 id;
    if (!ivl_json_node_uint (node, IVL_MAX_TOKENS - 1, &id)) {
      bad (extras, file, error, "piece \"%.64s\" has no token id of 0 to %u", piece, IVL_MAX_TOKENS - 1);
      return NULL;
    }
    if (id >= pieces->len)
      g_ptr_array_set_size (pieces, (gint) id + 1);
    if (pieces->pdata[id]) {
      bad (extras, file, error, "id %u is given to both \"%.64s\" and \"%.64s\"", id, (char *) pieces->pdata[id],
           piece);
      return NULL;
    }
    pieces->pdata[id] = (gpointer) piece;
  }
  return g_steal_pointer (&pieces);
}

/* Cuts merges.txt in place into left, right, left, right ... */
static GPtrArray *
read_merges (const Extras *extras, const char *file, char *text, gsize size, GError **error)
{
  if (!g_utf8_validate_len (text, size, NULL)) {
    bad (extras, file, error, "not UTF-8 text");
    return NULL;
  }
  g_autoptr (GPtrArray) merges = g_ptr_array_new ();
  gsize number = 1;
  for (char *line = text, *next; line; line = next, number++) {
    next = strchr (line, '\n');
    if (next)
      *next++ = '\0';
    gsize length = strlen (line);
    if (length > 0 && line[length - 1] == '\r')
      line[--length] = '\0';
    if (length == 0 || g_str_has_prefix (line, "#version"))
      continue;
    char *space = strchr (line, ' ');
    if (!space || space == line || !space[1] || strchr (space + 1, ' ')) {
      bad (extras, file, error, "line %zu isn't two pieces with a space between: \"%.64s\"", number, line);
      return NULL;
    }
    *space = '\0';
    g_ptr_array_add (merges, line);
    g_ptr_array_add (merges, space + 1);
  }
  return g_steal_pointer (&merges);
}

/* Merges of a tokenizer.json: "left right" or ["left", "right"]. TEXTS gets what must live as long as the result. */
static GPtrArray *
read_merge_array (const Extras *extras, const char *file, JsonArray *array, GPtrArray *texts, GError **error)
{
  g_autoptr (GPtrArray) merges = g_ptr_array_new ();
  for (guint i = 0; i < json_array_get_length (array); i++) {
    JsonNode *node = json_array_get_element (array, i);
    const char *left = NULL, *right = NULL;
    const char *line = ivl_json_node_string (node);
    if (line) {
      char *copy = g_strdup (line), *space = strchr (copy, ' ');
      g_ptr_array_add (texts, copy);
      if (space && !strchr (space + 1, ' ')) {
        *space = '\0';
        left = copy;
        right = space + 1;
      }
    } else if (JSON_NODE_HOLDS_ARRAY (node) && json_array_get_length (json_node_get_array (node)) == 2) {
      left = ivl_json_node_string (json_array_get_element (json_node_get_array (node), 0));
      right = ivl_json_node_string (json_array_get_element (json_node_get_array (node), 1));
    }
    if (!left || !*left || !right || !*right) {
      bad (extras, file, error, "merge %u isn't two pieces", i + 1);
      return NULL;
    }
    g_ptr_array_add (merges, (gpointer) left);
    g_ptr_array_add (merges, (gpointer) right);
  }
  return g_steal_pointer (&merges);
}

static IvlTokenizer *
build_bpe (Extras *extras, const char *file, IvlBpeKind kind, IvlPrefix prefix, GPtrArray *pieces, GPtrArray *merges,
           GError **error)
{
  g_autofree char *origin = g_build_filename (extras->folder, file, NULL);
  g_ptr_array_add (extras->ends, NULL);
  gboolean add_bos = extras->add_bos >= 0 ? extras->add_bos : kind == IVL_BPE_CHARS;
  IvlBpeSource source = {
    .origin = origin,
    .kind = kind,
    .prefix = prefix,
    .pieces = (const char *const *) pieces->pdata,
    .n_pieces = pieces->len,
    .merges = (const char *const *) merges->pdata,
    .n_merges = merges->len / 2,
    .added = (const IvlAddedToken *) extras->added->data,
    .n_added = extras->added->len,
    .bos = add_bos ? extras->bos : NULL,
    .eos = (const char *const *) extras->ends->pdata,
  };
  return ivl_tokenizer_new_bpe (&source, error);
}

static IvlTokenizer *
load_vocab_and_merges (Extras *extras, GError **error)
{
  JsonObject *vocab = load_json (extras, "vocab.json", error), *root = NULL;
  if (!vocab || !read_added (extras, error))
    return NULL;
  if (extras->added->len == 0) /* then only tokenizer.json can hold them */
    if (!load_optional (extras, "tokenizer.json", &root, error)
        || (root && !read_added_array (extras, "tokenizer.json", root, error)))
      return NULL;
  g_autoptr (GBytes) bytes = ivl_file_read (extras->folder, "merges.txt", MAX_FILE_BYTES, error);
  if (!bytes)
    return NULL;
  gsize size;
  const char *data = g_bytes_get_data (bytes, &size);
  g_autofree char *text = g_malloc (size + 1);
  if (size > 0)
    memcpy (text, data, size);
  text[size] = '\0';
  g_autoptr (GPtrArray) pieces = read_vocab (extras, "vocab.json", vocab, error);
  if (!pieces)
    return NULL;
  g_autoptr (GPtrArray) merges = read_merges (extras, "merges.txt", text, size, error);
  if (!merges)
    return NULL;
  return build_bpe (extras, "vocab.json", IVL_BPE_BYTES, IVL_PREFIX_NEVER, pieces, merges, error);
}

static gboolean
is_type (JsonObject *object, const char *type)
{
  return g_strcmp0 (ivl_json_get_string (object, "type"), type) == 0;
}

/* Member I of a Sequence's list NAME, or OBJECT itself for 0 if it is no Sequence. */
static JsonObject *
stage (JsonObject *object, const char *name, guint i)
{
  if (!is_type (object, "Sequence"))
    return i == 0 ? object : NULL;
  JsonArray *array = ivl_json_get_array (object, name);
  return array && i < json_array_get_length (array) ? ivl_json_node_object (json_array_get_element (array, i)) : NULL;
}

/* Whether normaliser and pre-tokeniser are Qwen2's. */
static gboolean
is_qwen2 (JsonObject *root)
{
  JsonObject *normalizer = ivl_json_get_object (root, "normalizer");
  JsonObject *pre = ivl_json_get_object (root, "pre_tokenizer");
  JsonObject *split = stage (pre, "pretokenizers", 0), *bytes = stage (pre, "pretokenizers", 1);
  const char *regex = ivl_json_get_string (ivl_json_get_object (split, "pattern"), "Regex");
  return is_type (stage (normalizer, "normalizers", 0), "NFC") && !stage (normalizer, "normalizers", 1)
         && is_type (split, "Split") && g_strcmp0 (regex, QWEN2_WORDS) == 0
         && g_strcmp0 (ivl_json_get_string (split, "behavior"), "Isolated") == 0
         && !ivl_json_get_boolean (split, "invert", FALSE) && is_type (bytes, "ByteLevel")
         && !ivl_json_get_boolean (bytes, "add_prefix_space", TRUE) && !ivl_json_get_boolean (bytes, "use_regex", TRUE)
         && !stage (pre, "pretokenizers", 2);
}

/* Whether they are those of a converted SentencePiece model: spaces become U+2581 in one of two ways, once. */
static gboolean
is_metaspace (JsonObject *root, IvlPrefix *prefix)
{
  JsonObject *normalizer = ivl_json_get_object (root, "normalizer");
  JsonObject *pre = ivl_json_get_object (root, "pre_tokenizer");
  *prefix = IVL_PREFIX_NEVER;
  if (pre && !normalizer) {
    const char *scheme = ivl_json_get_string (pre, "prepend_scheme");
    if (!scheme)
      scheme = ivl_json_get_boolean (pre, "add_prefix_space", TRUE) ? "always" : "never";
    *prefix = strcmp (scheme, "always") == 0  ? IVL_PREFIX_ALWAYS
              : strcmp (scheme, "first") == 0 ? IVL_PREFIX_FIRST
                                              : IVL_PREFIX_NEVER;
    return is_type (pre, "Metaspace") && !ivl_json_get_boolean (pre, "split", TRUE)
           && g_strcmp0 (ivl_json_get_string (pre, "replacement"), "\xe2\x96\x81") == 0;
  }
  JsonObject *replace = stage (normalizer, "normalizers", 0);
  return !pre && is_type (replace, "Replace") && !stage (normalizer, "normalizers", 1)
         && g_strcmp0 (ivl_json_get_string (ivl_json_get_object (replace, "pattern"), "String"), " ") == 0
         && g_strcmp0 (ivl_json_get_string (replace, "content"), "\xe2\x96\x81") == 0;
}

static IvlTokenizer *
load_tokenizer_json (Extras *extras, GError **error)
{
  const char *file = "tokenizer.json";
  JsonObject *root = load_json (extras, file, error);
  if (!root || !read_added_array (extras, file, root, error) || !read_added (extras, error))
    return NULL;
  JsonObject *model = ivl_json_get_object (root, "model");
  JsonObject *vocab = ivl_json_get_object (model, "vocab");
  JsonArray *array = ivl_json_get_array (model, "merges");
  if (ivl_json_has (model, "type") && !is_type (model, "BPE")) {
    const char *type = ivl_json_get_string (model, "type");
    ivl_tokenizer_fail (error, IVL_ERROR_UNSUPPORTED, "%s/%s: a model of type \"%s\"; InternVL 2.5 uses BPE", extras->folder, file,
              type ? type : "?");
    return NULL;
  }
  if (!vocab || !array) {
    bad (extras, file, error, "there is no model with \"vocab\" and \"merges\"");
    return NULL;
  }
  IvlPrefix prefix = IVL_PREFIX_NEVER;
  gboolean chars = ivl_json_get_boolean (model, "byte_fallback", FALSE);
  const char *start = ivl_json_get_string (model, "continuing_subword_prefix");
  const char *end = ivl_json_get_string (model, "end_of_word_suffix");
  if ((chars ? !is_metaspace (root, &prefix) : !is_qwen2 (root)) || (start && *start) || (end && *end)
      || ivl_json_has (model, "dropout") || ivl_json_get_boolean (model, "ignore_merges", FALSE)) {
    ivl_tokenizer_fail (error, IVL_ERROR_UNSUPPORTED,
              "%s/%s: its normalizer, pre_tokenizer or model options are neither those of Qwen2 nor of a converted "
              "SentencePiece model",
              extras->folder, file);
    return NULL;
  }
  g_autoptr (GPtrArray) texts = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (GPtrArray) pieces = read_vocab (extras, file, vocab, error);
  if (!pieces)
    return NULL;
  g_autoptr (GPtrArray) merges = read_merge_array (extras, file, array, texts, error);
  if (!merges)
    return NULL;
  return build_bpe (extras, file, chars ? IVL_BPE_CHARS : IVL_BPE_BYTES, prefix, pieces, merges, error);
}

/* ---- SentencePiece ---- */

static gboolean
set_sp_pieces (IvlTokenizer *self, const IvlSpModel *model, GError **error)
{
  for (guint32 id = 0; id < model->pieces->len; id++) {
    const IvlSpPiece *piece = &g_array_index (model->pieces, IvlSpPiece, id);
    g_autoptr (GString) text = g_string_new_len (piece->piece, (gssize) piece->length);
    IvlTokenFlags flags = 0;
    if (piece->type == IVL_SP_BYTE) {
      guint8 byte = (guint8) (g_ascii_xdigit_value (text->str[3]) * 16 + g_ascii_xdigit_value (text->str[4]));
      g_string_truncate (text, 0);
      g_string_append_c (text, (char) byte);
      self->byte_ids[byte] = id;
    } else if (piece->type == IVL_SP_CONTROL || piece->type == IVL_SP_UNKNOWN) {
      flags = IVL_TOKEN_SPECIAL;
    } else {
      g_string_replace (text, "\xe2\x96\x81", " ", 0);
    }
    if (!ivl_tokenizer_set (self, id, text->str, text->len, flags, error))
      return FALSE;
  }
  return TRUE;
}

IvlTokenizer *
ivl_tokenizer_new_sp (const guint8 *data, gsize size, const char *origin, const IvlSpModel *model,
                      const IvlAddedToken *added, guint n_added, GError **error)
{
  g_autoptr (IvlTokenizer) self = ivl_tokenizer_new (origin);
  g_autofree char *why = NULL;
  self->sp = ivl_sp_new (data, size, &why);
  if (!self->sp || ivl_sp_get_n_pieces (self->sp) != model->pieces->len) {
    ivl_tokenizer_fail (error, IVL_ERROR_BAD_MODEL, "%s: SentencePiece refuses it: %s", origin,
                        why ? why : "pieces don't match");
    return NULL;
  }
  self->bytes_alone = TRUE;
  self->strip_first_space = model->add_dummy_prefix;
  self->unk = model->unk;
  if (!set_sp_pieces (self, model, error) || !ivl_tokenizer_add (self, added, n_added, TRUE, error))
    return NULL;
  return g_steal_pointer (&self);
}

/* Unknown, begin and end pieces count as added tokens even if no file lists them. */
static gboolean
add_sp_controls (IvlTokenizer *self, Extras *extras, const IvlSpModel *model, GError **error)
{
  gint32 ids[] = { model->unk, model->bos, model->eos };
  for (guint i = 0; i < G_N_ELEMENTS (ids); i++) {
    if (ids[i] < 0)
      continue;
    const IvlSpPiece *piece = &g_array_index (model->pieces, IvlSpPiece, (guint) ids[i]);
    g_autofree char *name = g_strndup (piece->piece, piece->length);
    if (ivl_tokenizer_token_flags (self, (guint32) ids[i]) & IVL_TOKEN_ADDED)
      continue;
    if (piece->type != IVL_SP_CONTROL && piece->type != IVL_SP_UNKNOWN)
      continue;
    if (g_hash_table_contains (extras->by_name, name))
      continue;
    if (!ivl_tokenizer_add (self, &(IvlAddedToken){ name, (guint32) ids[i], TRUE, FALSE }, 1, TRUE, error))
      return FALSE;
  }
  return TRUE;
}

static IvlTokenizer *
load_sentencepiece (Extras *extras, GError **error)
{
  g_autofree char *path = g_build_filename (extras->folder, "tokenizer.model", NULL);
  g_autoptr (GBytes) bytes = ivl_file_read (extras->folder, "tokenizer.model", MAX_FILE_BYTES, error);
  gsize size = 0;
  const guint8 *data = bytes ? g_bytes_get_data (bytes, &size) : NULL;
  IvlSpModel model;
  if (!bytes || !read_added (extras, error) || !ivl_sp_model_parse (&model, data, size, path, error))
    return NULL;

  for (guint i = 0; i < extras->added->len; i++) /* the reference has no normaliser before the cut */
    g_array_index (extras->added, IvlAddedToken, i).normalized = FALSE;
  g_autofree char *eos = NULL;
  g_autoptr (IvlTokenizer) self
    = ivl_tokenizer_new_sp (data, size, path, &model, (const IvlAddedToken *) extras->added->data, extras->added->len,
                            error);
  if (!self || !add_sp_controls (self, extras, &model, error))
    goto fail;
  if (extras->add_bos != 0)
    self->bos = model.bos;
  if (extras->ends->len == 0 && model.eos >= 0) {
    const IvlSpPiece *piece = &g_array_index (model.pieces, IvlSpPiece, (guint) model.eos);
    eos = g_strndup (piece->piece, piece->length);
    g_ptr_array_add (extras->ends, eos);
  }
  g_ptr_array_add (extras->ends, NULL);
  ivl_tokenizer_find_ends (self, (const char *const *) extras->ends->pdata);
  ivl_sp_model_deinit (&model);
  return g_steal_pointer (&self);

fail:
  ivl_sp_model_deinit (&model);
  return NULL;
}

IvlTokenizer *
ivl_tokenizer_load (const char *folder, GError **error)
{
  if (ivl_gguf_pair_is (folder)) {
    IvlGguf *file;
    if (!ivl_gguf_pair_open (folder, &file, NULL, error))
      return NULL;
    IvlTokenizer *tokenizer = ivl_tokenizer_new_from_gguf (file, error);
    ivl_gguf_free (file);
    return tokenizer;
  }
  gboolean has_vocab = ivl_file_exists (folder, "vocab.json"), has_json = ivl_file_exists (folder, "tokenizer.json");
  IvlTokenizer *self = NULL;
  Extras extras;
  extras_init (&extras, folder);
  if (!read_config (&extras, error))
    goto out;
  if (ivl_file_exists (folder, "tokenizer.model"))
    self = load_sentencepiece (&extras, error);
  else if (has_vocab && (!has_json || ivl_file_exists (folder, "merges.txt")))
    self = load_vocab_and_merges (&extras, error);
  else if (has_json)
    self = load_tokenizer_json (&extras, error);
  else
    ivl_tokenizer_fail (error, IVL_ERROR_BAD_MODEL,
              "%s: no tokenizer: a checkpoint has tokenizer.model, or vocab.json and merges.txt, or tokenizer.json",
              folder);
out:
  extras_deinit (&extras);
  return self;
}
