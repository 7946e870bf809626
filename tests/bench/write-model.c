/* Writes models of the family's true shapes with seeded weights, for timing beside other programs: a checkpoint folder,
 * or a GGUF text model and its mmproj file with the same values. Its vocabulary has the true size; the words are made
 * up, and so is what the model says.
 *
 *   write-model SHAPE TYPE folder OUT       config.json, model.safetensors, tokenizer files
 *   write-model SHAPE TYPE gguf OUT         OUT/model.gguf, OUT/mmproj.gguf; SHAPE must be one with Qwen2
 *
 * TYPE is f16 or bf16; the values are those of BF16 in both. Vectors in GGUF are F32, as llama.cpp's converter has it. */
#include <errno.h>
#include <glib/gstdio.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "model/config.h"
#include "model/quantise.h"
#include "tensor/dtype.h"
#include "tools/synthetic.h"

#define CHUNK 65536 /* values converted at a time */
#define ALIGNMENT 32

typedef struct {
  FILE *file;
  char *path;
  guint64 at;
  gboolean ok;
} Out;

static gboolean
out_open (Out *out, const char *folder, const char *name, GError **error)
{
  *out = (Out){ .path = g_build_filename (folder, name, NULL), .ok = TRUE };
  out->file = fopen (out->path, "wb");
  return out->file || ivl_fail (error, IVL_ERROR_IO, "%s: %s", out->path, g_strerror (errno));
}

static void
put (Out *out, const void *data, gsize bytes)
{
  out->ok = out->ok && fwrite (data, 1, bytes, out->file) == bytes;
  out->at += bytes;
}

static gboolean
out_close (Out *out, GError **error)
{
  int code = errno;
  gboolean closed = fclose (out->file) == 0;
  gboolean ok = (out->ok && closed)
                || ivl_fail (error, IVL_ERROR_IO, "%s: %s", out->path, g_strerror (closed ? code : errno));
  g_free (out->path);
  return ok;
}

static void
put_u32 (Out *out, guint32 value)
{
  value = GUINT32_TO_LE (value);
  put (out, &value, 4);
}

static void
put_u64 (Out *out, guint64 value)
{
  value = GUINT64_TO_LE (value);
  put (out, &value, 8);
}

static void
put_string (Out *out, const char *text)
{
  put_u64 (out, strlen (text));
  put (out, text, strlen (text));
}

static void
pad (Out *out)
{
  static const guint8 zeros[ALIGNMENT];
  put (out, zeros, (ALIGNMENT - out->at % ALIGNMENT) % ALIGNMENT);
}

/* N values of a tensor from FIRST on. */
static void
put_values (Out *out, const char *name, guint64 first, guint64 n, IvlTensorDtype dtype)
{
  g_autofree guint16 *bits = g_new (guint16, CHUNK);
  g_autofree float *values = g_new (float, CHUNK);
  for (guint64 done = 0; done < n && out->ok; done += CHUNK) {
    gsize count = (gsize) MIN (CHUNK, n - done);
    ivl_synthetic_values (name, first + done, count, bits);
    if (dtype == IVL_TENSOR_BF16) {
      put (out, bits, 2 * count);
      continue;
    }
    ivl_tensor_to_f32 (IVL_TENSOR_BF16, bits, values, count);
    for (gsize i = 0; dtype == IVL_TENSOR_F16 && i < count; i++)
      bits[i] = ivl_to_f16 (values[i]);
    put (out, dtype == IVL_TENSOR_F16 ? (const void *) bits : values, (dtype == IVL_TENSOR_F16 ? 2 : 4) * count);
  }
}

/* ---- vocabulary: 256 bytes, made-up words, the names that Qwen2.5 and InternVL add ---- */

static const char *const added[] = {
  "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
  "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
  "<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>",
  "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<img>", "</img>", "<IMG_CONTEXT>", "<quad>",
  "</quad>", "<ref>", "</ref>", "<box>", "</box>",
};

static gboolean
is_special (const char *name)
{
  return !strstr (name, "tool_call") && !strstr (name, "fim_") && !strstr (name, "repo_name") && !strstr (name, "file_sep");
}

typedef struct {
  GPtrArray *tokens; /* char *, all of them in order */
  GPtrArray *merges; /* "left right" */
} Vocabulary;

static void
vocabulary_init (Vocabulary *self, guint size)
{
  self->tokens = g_ptr_array_new_with_free_func (g_free);
  self->merges = g_ptr_array_new_with_free_func (g_free);
  /* Bytes as GPT-2 writes them: printable ones as they are and first, the others from U+0100 on. */
  for (guint pass = 0, other = 0; pass < 2; pass++)
    for (guint b = 0; b < 256; b++) {
      gboolean printable = (b > 32 && b < 127) || (b > 160 && b != 173);
      char text[8] = { 0 };
      if (printable != (pass == 0))
        continue;
      g_unichar_to_utf8 (printable ? b : 256 + other++, text);
      g_ptr_array_add (self->tokens, g_strdup (text));
    }
  guint words = size - G_N_ELEMENTS (added), begin = self->tokens->len;
  for (guint first = 0; first < 27 && self->tokens->len < words; first++)
    for (char c = 'a'; c <= 'z' && self->tokens->len < words; c++) {
      g_autofree char *letter = first < 26 ? g_strdup_printf ("%c", 'a' + first) : g_strdup ("\u0120");
      g_ptr_array_add (self->tokens, g_strdup_printf ("%s%c", letter, c));
      g_ptr_array_add (self->merges, g_strdup_printf ("%s %c", letter, c));
    }
  /* Each word so far with each letter behind it, and so on. */
  for (guint i = begin; self->tokens->len < words; i++)
    for (char c = 'a'; c <= 'z' && self->tokens->len < words; c++) {
      const char *word = self->tokens->pdata[i];
      g_ptr_array_add (self->merges, g_strdup_printf ("%s %c", word, c));
      g_ptr_array_add (self->tokens, g_strdup_printf ("%s%c", word, c));
    }
  for (guint i = 0; i < G_N_ELEMENTS (added); i++)
    g_ptr_array_add (self->tokens, g_strdup (added[i]));
}

static void
vocabulary_deinit (Vocabulary *self)
{
  g_ptr_array_unref (self->tokens);
  g_ptr_array_unref (self->merges);
}

/* ---- folder ---- */

static gboolean
write_text (const char *folder, const char *name, const char *text, GError **error)
{
  g_autofree char *path = g_build_filename (folder, name, NULL);
  return g_file_set_contents (path, text, -1, error);
}

static gboolean
write_tokenizer (const char *folder, const Vocabulary *v, GError **error)
{
  guint words = v->tokens->len - G_N_ELEMENTS (added);
  g_autoptr (GString) vocab = g_string_new ("{"), merges = g_string_new ("#version: 0.2\n");
  g_autoptr (GString) names = g_string_new ("{"), config = g_string_new ("{\"tokenizer_class\": \"Qwen2Tokenizer\", "
                                                                         "\"add_bos_token\": false, "
                                                                         "\"eos_token\": \"<|im_end|>\", "
                                                                         "\"added_tokens_decoder\": {");
  for (guint i = 0; i < words; i++) {
    const char *token = v->tokens->pdata[i];
    g_string_append_printf (vocab, "%s\"%s%s\": %u", i ? ", " : "", *token == '"' || *token == '\\' ? "\\" : "", token, i);
  }
  for (guint i = 0; i < v->merges->len; i++)
    g_string_append_printf (merges, "%s\n", (char *) v->merges->pdata[i]);
  for (guint i = 0; i < G_N_ELEMENTS (added); i++) {
    g_string_append_printf (names, "%s\"%s\": %u", i ? ", " : "", added[i], words + i);
    g_string_append_printf (config, "%s\"%u\": {\"content\": \"%s\", \"special\": %s}", i ? ", " : "", words + i, added[i],
                            is_special (added[i]) ? "true" : "false");
  }
  g_string_append_c (vocab, '}');
  g_string_append_c (names, '}');
  g_string_append (config, "}}");
  return write_text (folder, "vocab.json", vocab->str, error) && write_text (folder, "merges.txt", merges->str, error)
         && write_text (folder, "added_tokens.json", names->str, error)
         && write_text (folder, "tokenizer_config.json", config->str, error);
}

static gboolean
write_folder (const char *folder, const char *shape, const IvlConfig *config, IvlTensorDtype dtype, GError **error)
{
  Out out;
  g_autofree char *json = ivl_synthetic_config_json (shape, error);
  g_autoptr (GArray) tensors = ivl_synthetic_tensors (config);
  if (!json || !write_text (folder, "config.json", json, error) || !out_open (&out, folder, "model.safetensors", error))
    return FALSE;
  g_autofree char *header = ivl_synthetic_header (tensors, dtype == IVL_TENSOR_F16 ? "F16" : "BF16");
  put_string (&out, header);
  for (guint i = 0; i < tensors->len; i++) {
    const IvlSyntheticTensor *tensor = &g_array_index (tensors, IvlSyntheticTensor, i);
    put_values (&out, tensor->name, 0, tensor->n, dtype);
  }
  if (!out_close (&out, error))
    return FALSE;
  Vocabulary vocabulary;
  vocabulary_init (&vocabulary, config->text.vocab);
  gboolean ok = write_tokenizer (folder, &vocabulary, error);
  vocabulary_deinit (&vocabulary);
  return ok;
}

/* ---- GGUF ---- */

enum { GGUF_U32 = 4, GGUF_F32 = 6, GGUF_BOOL = 7, GGUF_STRING = 8, GGUF_ARRAY = 9 };
enum { GGML_F32 = 0, GGML_F16 = 1, GGML_BF16 = 30 };
enum { TOKEN_NORMAL = 1, TOKEN_CONTROL = 3, TOKEN_USER_DEFINED = 4 };

/* Metadata is counted before it is written: with no file, puts only count. */
typedef struct {
  Out *out;
  gboolean dry;
  guint64 n;
} Meta;

static gboolean
key (Meta *m, const char *name, guint32 type)
{
  m->n++;
  if (m->dry)
    return FALSE;
  put_string (m->out, name);
  put_u32 (m->out, type);
  return TRUE;
}

static void
meta_u32 (Meta *m, const char *name, guint32 value)
{
  if (key (m, name, GGUF_U32))
    put_u32 (m->out, value);
}

static void
meta_f32 (Meta *m, const char *name, double value)
{
  float f = (float) value;
  guint32 bits;
  memcpy (&bits, &f, 4);
  if (key (m, name, GGUF_F32))
    put_u32 (m->out, bits);
}

static void
meta_bool (Meta *m, const char *name, guint8 value)
{
  if (key (m, name, GGUF_BOOL))
    put (m->out, &value, 1);
}

static void
meta_string (Meta *m, const char *name, const char *value)
{
  if (key (m, name, GGUF_STRING))
    put_string (m->out, value);
}

static gboolean
meta_array (Meta *m, const char *name, guint32 type, guint64 n)
{
  if (!key (m, name, GGUF_ARRAY))
    return FALSE;
  put_u32 (m->out, type);
  put_u64 (m->out, n);
  return TRUE;
}

static void
meta_colours (Meta *m, const char *name, const float values[3])
{
  if (meta_array (m, name, GGUF_F32, 3))
    put (m->out, values, 12);
}

static void
text_meta (Meta *m, const IvlConfig *config, const Vocabulary *v)
{
  guint words = v->tokens->len - G_N_ELEMENTS (added);
  meta_string (m, "general.architecture", "qwen2");
  meta_string (m, "general.name", "synthetic");
  meta_u32 (m, "qwen2.context_length", config->text.max_position);
  meta_u32 (m, "qwen2.embedding_length", config->text.hidden);
  meta_u32 (m, "qwen2.block_count", config->text.layers);
  meta_u32 (m, "qwen2.feed_forward_length", config->text.intermediate);
  meta_u32 (m, "qwen2.attention.head_count", config->text.heads);
  meta_u32 (m, "qwen2.attention.head_count_kv", config->text.kv_heads);
  meta_f32 (m, "qwen2.attention.layer_norm_rms_epsilon", config->text.rms_eps);
  meta_f32 (m, "qwen2.rope.freq_base", config->text.rope_theta);
  meta_string (m, "tokenizer.ggml.model", "gpt2");
  meta_string (m, "tokenizer.ggml.pre", "qwen2");
  if (meta_array (m, "tokenizer.ggml.tokens", GGUF_STRING, v->tokens->len))
    for (guint i = 0; i < v->tokens->len; i++)
      put_string (m->out, v->tokens->pdata[i]);
  if (meta_array (m, "tokenizer.ggml.token_type", GGUF_U32 + 1, v->tokens->len))
    for (guint i = 0; i < v->tokens->len; i++)
      put_u32 (m->out, i < words                                ? TOKEN_NORMAL
                       : g_str_has_prefix (added[i - words], "<|") || is_special (added[i - words]) ? TOKEN_CONTROL
                                                                                                   : TOKEN_USER_DEFINED);
  if (meta_array (m, "tokenizer.ggml.merges", GGUF_STRING, v->merges->len))
    for (guint i = 0; i < v->merges->len; i++)
      put_string (m->out, v->merges->pdata[i]);
  meta_u32 (m, "tokenizer.ggml.bos_token_id", words);
  meta_u32 (m, "tokenizer.ggml.eos_token_id", words + 2);
  meta_bool (m, "tokenizer.ggml.add_bos_token", 0);
  meta_string (m, "tokenizer.chat_template",
               "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + "
               "'<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}");
}

static void
vision_meta (Meta *m, const IvlConfig *config, const Vocabulary *unused)
{
  static const float mean[] = { 0.485f, 0.456f, 0.406f }, deviation[] = { 0.229f, 0.224f, 0.225f };
  meta_string (m, "general.architecture", "clip");
  meta_bool (m, "clip.has_vision_encoder", 1);
  meta_string (m, "clip.projector_type", "internvl");
  meta_bool (m, "clip.use_gelu", 1);
  meta_u32 (m, "clip.vision.image_size", config->vision.image_size);
  meta_u32 (m, "clip.vision.patch_size", config->vision.patch_size);
  meta_u32 (m, "clip.vision.embedding_length", config->vision.hidden);
  meta_u32 (m, "clip.vision.feed_forward_length", config->vision.intermediate);
  meta_u32 (m, "clip.vision.block_count", config->vision.layers);
  meta_u32 (m, "clip.vision.attention.head_count", config->vision.heads);
  meta_f32 (m, "clip.vision.attention.layer_norm_epsilon", config->vision.eps);
  meta_u32 (m, "clip.vision.projection_dim", config->text.hidden);
  meta_colours (m, "clip.vision.image_mean", mean);
  meta_colours (m, "clip.vision.image_std", deviation);
  meta_u32 (m, "clip.vision.projector.scale_factor", 2);
}

/* Endings and beginnings of names, ours and GGUF's. */
static const char *const names[][2] = {
  { "language_model.model.embed_tokens.", "token_embd." }, { "language_model.model.norm.", "output_norm." },
  { "language_model.lm_head.", "output." }, { "language_model.model.layers.", "blk." },
  { "self_attn.q_proj", "attn_q" }, { "self_attn.k_proj", "attn_k" }, { "self_attn.v_proj", "attn_v" },
  { "self_attn.o_proj", "attn_output" }, { "mlp.gate_proj", "ffn_gate" }, { "mlp.up_proj", "ffn_up" },
  { "mlp.down_proj", "ffn_down" }, { "input_layernorm", "attn_norm" }, { "post_attention_layernorm", "ffn_norm" },
  { "vision_model.embeddings.class_embedding", "v.class_embd" },
  { "vision_model.embeddings.position_embedding", "v.position_embd.weight" },
  { "vision_model.embeddings.patch_embedding.", "v.patch_embd." }, { "vision_model.encoder.layers.", "v.blk." },
  { "attn.proj", "attn_out" }, { ".norm1.", ".ln1." }, { ".norm2.", ".ln2." }, { ".ls1", ".ls1.weight" },
  { ".ls2", ".ls2.weight" }, { "mlp.fc1", "ffn_up" }, { "mlp.fc2", "ffn_down" }, { "attn.qkv", "attn_%c" },
};

typedef struct {
  const IvlSyntheticTensor *source;
  char *name;
  guint64 first, n;
  guint n_dims, dims[4];
  guint32 type;
} Entry;

static void
add_entries (GArray *entries, const IvlSyntheticTensor *source, guint32 type)
{
  g_autoptr (GString) name = g_string_new (g_str_has_prefix (source->name, "mlp1.") ? "mm.model.mlp." : "");
  g_string_append (name, source->name + (name->len ? 5 : 0));
  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    g_string_replace (name, names[i][0], names[i][1], 1);
  char *part = strstr (name->str, "%c");
  guint parts = part ? 3 : 1;
  for (guint i = 0; i < parts; i++) {
    if (part)
      memcpy (part, "qkv" + i, 1), part[1] = '\0';
    Entry e = { source, NULL, i * (source->n / parts), source->n / parts, source->n_dims, { 0 }, type };
    /* "q" and what came behind "%c" */
    e.name = part ? g_strconcat (name->str, part + 2, NULL) : g_strdup (name->str);
    memcpy (e.dims, source->dims, sizeof e.dims);
    e.dims[0] /= parts;
    gboolean table = strcmp (e.name, "v.position_embd.weight") == 0;
    if (table || strcmp (e.name, "v.class_embd") == 0) { /* [1, 1, C] and [1, N, C] without the ones */
      e.n_dims = table ? 2 : 1;
      memmove (e.dims, e.dims + (table ? 1 : 2), e.n_dims * sizeof *e.dims);
    }
    /* The converter has vectors in F32, and the patch embedding where it can't be F16. */
    if (e.n_dims == 1 || table || (e.n_dims == 4 && type == GGML_BF16))
      e.type = GGML_F32;
    g_array_append_val (entries, e);
  }
}

static gboolean
write_gguf (const char *folder, const char *file, const IvlConfig *config, const Vocabulary *v, guint32 type,
            void (*meta) (Meta *, const IvlConfig *, const Vocabulary *), GError **error)
{
  gboolean text = meta == text_meta;
  g_autoptr (GArray) tensors = ivl_synthetic_tensors (config);
  g_autoptr (GArray) entries = g_array_new (FALSE, FALSE, sizeof (Entry));
  for (guint i = 0; i < tensors->len; i++) {
    const IvlSyntheticTensor *tensor = &g_array_index (tensors, IvlSyntheticTensor, i);
    if (g_str_has_prefix (tensor->name, "language_model.") == text)
      add_entries (entries, tensor, type);
  }
  Out out;
  if (!out_open (&out, folder, file, error))
    return FALSE;
  Meta m = { &out, TRUE, 0 };
  meta (&m, config, v);
  put (&out, "GGUF", 4);
  put_u32 (&out, 3);
  put_u64 (&out, entries->len);
  put_u64 (&out, m.n);
  m.dry = FALSE;
  meta (&m, config, v);
  guint64 offset = 0;
  for (guint i = 0; i < entries->len; i++) {
    const Entry *e = &g_array_index (entries, Entry, i);
    put_string (&out, e->name);
    put_u32 (&out, e->n_dims);
    for (guint d = e->n_dims; d > 0; d--)
      put_u64 (&out, e->dims[d - 1]);
    put_u32 (&out, e->type);
    put_u64 (&out, offset);
    offset += (e->n * (e->type == GGML_F32 ? 4 : 2) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  }
  pad (&out);
  for (guint i = 0; i < entries->len; i++) {
    Entry *e = &g_array_index (entries, Entry, i);
    put_values (&out, e->source->name, e->first, e->n,
                e->type == GGML_F32 ? IVL_TENSOR_F32 : e->type == GGML_F16 ? IVL_TENSOR_F16 : IVL_TENSOR_BF16);
    pad (&out);
    g_free (e->name);
  }
  return out_close (&out, error);
}

static gboolean
write_pair (const char *folder, const IvlConfig *config, IvlTensorDtype dtype, GError **error)
{
  if (config->text.arch != IVL_TEXT_QWEN2 || config->vision.norm != IVL_NORM_LAYER)
    return ivl_fail (error, IVL_ERROR_UNSUPPORTED, "GGUF files are written for InternViT-300M with Qwen2: 1B, 4B, tiny");
  guint32 type = dtype == IVL_TENSOR_F16 ? GGML_F16 : GGML_BF16;
  Vocabulary vocabulary;
  vocabulary_init (&vocabulary, config->text.vocab);
  gboolean ok = write_gguf (folder, "model.gguf", config, &vocabulary, type, text_meta, error)
                && write_gguf (folder, "mmproj.gguf", config, &vocabulary, type, vision_meta, error);
  vocabulary_deinit (&vocabulary);
  return ok;
}

int
main (int argc, char **argv)
{
  g_autoptr (GError) error = NULL;
  gboolean gguf = argc == 5 && strcmp (argv[3], "gguf") == 0, f16 = argc == 5 && strcmp (argv[2], "f16") == 0;
  if (argc != 5 || (!gguf && strcmp (argv[3], "folder") != 0) || (!f16 && strcmp (argv[2], "bf16") != 0)) {
    fprintf (stderr, "usage: write-model SHAPE f16|bf16 folder|gguf OUT\n");
    return 2;
  }
  IvlTensorDtype dtype = f16 ? IVL_TENSOR_F16 : IVL_TENSOR_BF16;
  IvlConfig *config = ivl_synthetic_config (argv[1], &error);
  gboolean ok = config != NULL;
  if (ok && g_mkdir_with_parents (argv[4], 0755) != 0)
    ok = ivl_fail (&error, IVL_ERROR_IO, "%s: %s", argv[4], g_strerror (errno));
  ok = ok && (gguf ? write_pair (argv[4], config, dtype, &error) : write_folder (argv[4], argv[1], config, dtype, &error));
  if (!ok)
    fprintf (stderr, "write-model: %s\n", error->message);
  ivl_config_free (config);
  return ok ? 0 : 1;
}
