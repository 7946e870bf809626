#include "model/gguf-model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "tensor/gguf-pair.h"

/* ---- tensors ---- */

#define SPLIT(kind) "v.blk.*.attn_q." kind "|v.blk.*.attn_k." kind "|v.blk.*.attn_v." kind

static const char *const matrix_names[IVL_N_MATRICES] = {
  [IVL_MATRIX_VIT_PATCH] = "v.patch_embd.weight",
  [IVL_MATRIX_VIT_QKV] = SPLIT ("weight"),
  [IVL_MATRIX_VIT_PROJ] = "v.blk.*.attn_out.weight",
  [IVL_MATRIX_VIT_FC1] = "v.blk.*.ffn_up.weight",
  [IVL_MATRIX_VIT_FC2] = "v.blk.*.ffn_down.weight",
  [IVL_MATRIX_MLP1] = "mm.model.mlp.1.weight",
  [IVL_MATRIX_MLP3] = "mm.model.mlp.3.weight",
  [IVL_MATRIX_TEXT_EMBED] = "token_embd.weight",
  [IVL_MATRIX_TEXT_QKV] = "blk.*.attn_q.weight|blk.*.attn_k.weight|blk.*.attn_v.weight",
  [IVL_MATRIX_TEXT_O] = "blk.*.attn_output.weight",
  [IVL_MATRIX_TEXT_GATE] = "blk.*.ffn_gate.weight",
  [IVL_MATRIX_TEXT_UP] = "blk.*.ffn_up.weight",
  [IVL_MATRIX_TEXT_GATE_UP] = "blk.*.ffn_gate.weight|blk.*.ffn_up.weight",
  [IVL_MATRIX_TEXT_DOWN] = "blk.*.ffn_down.weight",
  [IVL_MATRIX_TEXT_HEAD] = "output.weight",
};

static const char *const vector_names[IVL_N_VECTORS] = {
  [IVL_VECTOR_VIT_CLASS] = "v.class_embd",
  [IVL_VECTOR_VIT_POSITION] = "v.position_embd.weight",
  [IVL_VECTOR_VIT_PATCH_BIAS] = "v.patch_embd.bias",
  [IVL_VECTOR_VIT_NORM1_WEIGHT] = "v.blk.*.ln1.weight",
  [IVL_VECTOR_VIT_NORM1_BIAS] = "v.blk.*.ln1.bias",
  [IVL_VECTOR_VIT_QKV_BIAS] = SPLIT ("bias"),
  [IVL_VECTOR_VIT_Q_NORM] = "v.blk.*.attn_q_norm.weight",
  [IVL_VECTOR_VIT_K_NORM] = "v.blk.*.attn_k_norm.weight",
  [IVL_VECTOR_VIT_PROJ_BIAS] = "v.blk.*.attn_out.bias",
  [IVL_VECTOR_VIT_LS1] = "v.blk.*.ls1.weight",
  [IVL_VECTOR_VIT_NORM2_WEIGHT] = "v.blk.*.ln2.weight",
  [IVL_VECTOR_VIT_NORM2_BIAS] = "v.blk.*.ln2.bias",
  [IVL_VECTOR_VIT_FC1_BIAS] = "v.blk.*.ffn_up.bias",
  [IVL_VECTOR_VIT_FC2_BIAS] = "v.blk.*.ffn_down.bias",
  [IVL_VECTOR_VIT_LS2] = "v.blk.*.ls2.weight",
  [IVL_VECTOR_MLP_NORM_WEIGHT] = "mm.model.mlp.0.weight",
  [IVL_VECTOR_MLP_NORM_BIAS] = "mm.model.mlp.0.bias",
  [IVL_VECTOR_MLP1_BIAS] = "mm.model.mlp.1.bias",
  [IVL_VECTOR_MLP3_BIAS] = "mm.model.mlp.3.bias",
  [IVL_VECTOR_TEXT_INPUT_NORM] = "blk.*.attn_norm.weight",
  [IVL_VECTOR_TEXT_QKV_BIAS] = "blk.*.attn_q.bias|blk.*.attn_k.bias|blk.*.attn_v.bias",
  [IVL_VECTOR_TEXT_POST_NORM] = "blk.*.ffn_norm.weight",
  [IVL_VECTOR_TEXT_FINAL_NORM] = "output_norm.weight",
};

static gboolean
has_tensor (const IvlGguf *file, const char *name)
{
  IvlTensorView view;
  return ivl_gguf_lookup (file, name, &view);
}

/* Older converters left the vision encoder's q, k and v in one tensor. */
static gboolean
is_fused (const IvlGgufModel *self)
{
  return has_tensor (self->vision, "v.blk.0.attn_qkv.weight");
}

const char *
ivl_gguf_model_matrix_names (const IvlGgufModel *self, IvlMatrixId id)
{
  return id == IVL_MATRIX_VIT_QKV && is_fused (self) ? "v.blk.*.attn_qkv.weight" : matrix_names[id];
}

const char *
ivl_gguf_model_vector_names (const IvlGgufModel *self, IvlVectorId id)
{
  return id == IVL_VECTOR_VIT_QKV_BIAS && is_fused (self) ? "v.blk.*.attn_qkv.bias" : vector_names[id];
}

static const IvlGguf *
file_of (const IvlGgufModel *self, const char *name)
{
  return g_str_has_prefix (name, "v.") || g_str_has_prefix (name, "mm.") ? self->vision : self->text;
}

gboolean
ivl_gguf_model_lookup (const IvlGgufModel *self, const char *name, IvlTensorView *view)
{
  return ivl_gguf_lookup (file_of (self, name), name, view);
}

const char *
ivl_gguf_model_source (const IvlGgufModel *self, const char *name)
{
  return ivl_gguf_get_name (file_of (self, name));
}

/* ---- opening ---- */

IvlGgufModel *
ivl_gguf_model_new (IvlGguf *text, IvlGguf *vision)
{
  IvlGgufModel *self = g_new0 (IvlGgufModel, 1);
  *self = (IvlGgufModel){ text, vision };
  return self;
}

IvlGgufModel *
ivl_gguf_model_open (const char *path, GError **error)
{
  IvlGguf *text, *vision;
  return ivl_gguf_pair_open (path, &text, &vision, error) ? ivl_gguf_model_new (text, vision) : NULL;
}

void
ivl_gguf_model_free (IvlGgufModel *self)
{
  if (!self)
    return;
  ivl_gguf_free (self->text);
  ivl_gguf_free (self->vision);
  g_free (self);
}

/* ---- config ---- */

/* Writes a config.json out of one file's metadata, so that every number goes through the checks of config.c. After
 * the first error the rest does nothing. */
typedef struct {
  const IvlGguf *file;
  const char *prefix; /* "qwen2." */
  GString *json;
  GError **error;
  gboolean ok;
} Writer;

/* *VALUE stays as it is if the key is missing and isn't NEEDed. */
static gboolean
get_uint (Writer *w, const char *key, gboolean need, guint64 *value)
{
  g_autofree char *full = g_strconcat (w->prefix, key, NULL);
  if (!w->ok || (!need && !ivl_gguf_has (w->file, full)))
    return FALSE;
  w->ok = ivl_gguf_get_uint (w->file, full, value, w->error);
  if (w->ok && *value > G_MAXINT32)
    w->ok = ivl_fail (w->error, IVL_ERROR_BAD_MODEL, "%s: %s is %" G_GUINT64_FORMAT ": corrupt",
                      ivl_gguf_get_name (w->file), full, *value);
  return w->ok;
}

static void
put_uint (Writer *w, const char *name, guint64 value)
{
  g_string_append_printf (w->json, "\"%s\":%" G_GUINT64_FORMAT ",", name, value);
}

static void
copy_uint (Writer *w, const char *key, gboolean need, const char *name)
{
  guint64 value;
  if (get_uint (w, key, need, &value))
    put_uint (w, name, value);
}

/* Floats are written with the fewest digits that make them: 1e-6 and not 9.99999997e-07, as config.json has it. */
static void
copy_float (Writer *w, const char *key, gboolean need, const char *name)
{
  g_autofree char *full = g_strconcat (w->prefix, key, NULL);
  char text[G_ASCII_DTOSTR_BUF_SIZE], format[] = "%.6g";
  double value;
  if (!w->ok || (!need && !ivl_gguf_has (w->file, full)))
    return;
  if (!(w->ok = ivl_gguf_get_double (w->file, full, &value, w->error)))
    return;
  for (; format[2] <= '9'; format[2]++) {
    g_ascii_formatd (text, sizeof text, format, value);
    if ((float) g_ascii_strtod (text, NULL) == (float) value)
      break;
  }
  g_string_append_printf (w->json, "\"%s\":%s,", name, text);
}

static void
end_object (Writer *w)
{
  if (w->json->str[w->json->len - 1] == ',')
    g_string_truncate (w->json, w->json->len - 1);
  g_string_append (w->json, "},");
}

static void
unsupported (Writer *w, const char *key, const char *cause)
{
  if (w->ok)
    w->ok = ivl_fail (w->error, IVL_ERROR_UNSUPPORTED, "%s: %s%s %s", ivl_gguf_get_name (w->file), w->prefix, key,
                      cause);
}

static char *
get_string (Writer *w, const char *key)
{
  g_autofree char *full = g_strconcat (w->prefix, key, NULL);
  if (!w->ok || !ivl_gguf_has (w->file, full))
    return NULL;
  char *text = ivl_gguf_get_string (w->file, full, w->error);
  w->ok = text != NULL;
  return text;
}

static void
write_rope (Writer *w, gboolean internlm2)
{
  g_autofree char *type = get_string (w, "rope.scaling.type");
  IvlTensorView view;
  copy_float (w, "rope.freq_base", FALSE, "rope_theta");
  if (ivl_gguf_lookup (w->file, "rope_freqs.weight", &view))
    unsupported (w, "", "model scales RoPE by a table (rope_freqs.weight); no InternVL 2.5 does");
  if (type && strcmp (type, "linear") == 0) {
    g_string_append (w->json, "\"rope_scaling\":{\"type\":\"linear\",");
    copy_float (w, "rope.scaling.factor", TRUE, "factor");
    end_object (w);
  } else if (type && strcmp (type, "none") != 0) {
    unsupported (w, "rope.scaling.type", "is neither \"linear\" nor \"none\"");
  } else if (!type && internlm2) {
    guint64 width = 0;
    get_uint (w, "embedding_length", TRUE, &width);
    g_string_append_printf (w->json, "\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":%s},",
                            width == 6144 ? "2.5" : "2.0");
  }
}

static void
write_eos (Writer *w, gboolean sentencepiece)
{
  static const char *const keys[] = { "tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id" };
  const char *prefix = w->prefix;
  guint64 id;
  w->prefix = "";
  g_string_append (w->json, "\"eos_token_id\":[");
  for (guint i = 0; i < G_N_ELEMENTS (keys); i++)
    if (get_uint (w, keys[i], FALSE, &id))
      g_string_append_printf (w->json, "%" G_GUINT64_FORMAT ",", id);
  g_autoptr (GStringChunk) chunk = g_string_chunk_new (1 << 16);
  g_autoptr (GPtrArray) tokens = NULL;
  if (w->ok && sentencepiece) {
    tokens = ivl_gguf_get_strings (w->file, "tokenizer.ggml.tokens", chunk, w->error);
    w->ok = tokens != NULL;
    for (guint i = 0; tokens && i < tokens->len; i++)
      if (strcmp (tokens->pdata[i], "</s>") == 0)
        g_string_append_printf (w->json, "%u,", i);
  }
  if (w->json->str[w->json->len - 1] == ',')
    g_string_truncate (w->json, w->json->len - 1);
  g_string_append (w->json, "],");
  w->prefix = prefix;
}

static void
write_text (Writer *w)
{
  static const struct {
    const char *name, *prefix, *class_name;
  } known[] = {
    { "qwen2", "qwen2.", "Qwen2ForCausalLM" },
    { "internlm2", "internlm2.", "InternLM2ForCausalLM" },
    { "llama", "llama.", "LlamaForCausalLM" },
  };
  g_autofree char *architecture = get_string (w, "general.architecture");
  guint i = 0;
  while (i < G_N_ELEMENTS (known) && g_strcmp0 (architecture, known[i].name) != 0)
    i++;
  if (i == G_N_ELEMENTS (known)) {
    g_autofree char *cause = g_strdup_printf ("is \"%.40s\"; this engine does qwen2, internlm2 and llama",
                                              architecture ? architecture : "");
    unsupported (w, "general.architecture", cause);
    return;
  }
  w->prefix = known[i].prefix;
  g_string_append_printf (w->json, "\"architectures\":[\"%s\"],\"bias\":false,\"tie_word_embeddings\":true,",
                          known[i].class_name);
  copy_uint (w, "embedding_length", TRUE, "hidden_size");
  copy_uint (w, "block_count", TRUE, "num_hidden_layers");
  copy_uint (w, "attention.head_count", TRUE, "num_attention_heads");
  copy_uint (w, "attention.head_count_kv", FALSE, "num_key_value_heads");
  guint64 heads = 0;
  /* Qwen2's class has a default of its own; a GGUF without the key has as many as heads. */
  if (i == 0 && !ivl_gguf_has (w->file, "qwen2.attention.head_count_kv")
      && get_uint (w, "attention.head_count", TRUE, &heads))
    put_uint (w, "num_key_value_heads", heads);
  copy_uint (w, "attention.key_length", FALSE, "head_dim");
  copy_uint (w, "feed_forward_length", TRUE, "intermediate_size");
  copy_uint (w, "context_length", TRUE, "max_position_embeddings");
  copy_float (w, "attention.layer_norm_rms_epsilon", TRUE, "rms_norm_eps");
  write_rope (w, i == 1);
  IvlTensorView embed;
  if (w->ok && (!ivl_gguf_lookup (w->file, "token_embd.weight", &embed) || embed.n_dims != 2
                || embed.shape[0] > G_MAXINT32))
    w->ok = ivl_fail (w->error, IVL_ERROR_BAD_MODEL, "%s: token_embd.weight is missing or no matrix: incomplete",
                      ivl_gguf_get_name (w->file));
  if (w->ok)
    put_uint (w, "vocab_size", embed.shape[0]);
  write_eos (w, i > 0);
  w->prefix = "";
}

/* The engine normalises by ImageNet's mean and deviation alone. */
static void
check_colours (Writer *w, const char *key, const double expected[3])
{
  g_autofree char *full = g_strconcat (w->prefix, key, NULL);
  guint n = 0;
  if (!w->ok || !ivl_gguf_has (w->file, full))
    return;
  g_autofree double *values = ivl_gguf_get_numbers (w->file, full, &n, w->error);
  w->ok = values != NULL;
  for (guint i = 0; values && i < 3; i++)
    if (n != 3 || !(fabs (values[i] - expected[i]) < 1e-3)) {
      unsupported (w, key, "isn't that of InternVL");
      return;
    }
}

static void
check_flag (Writer *w, const char *key, gboolean only)
{
  gboolean value = only;
  if (!w->ok || !ivl_gguf_has (w->file, key))
    return;
  w->ok = ivl_gguf_get_bool (w->file, key, &value, w->error);
  if (w->ok && value != only)
    w->ok = ivl_fail (w->error, IVL_ERROR_UNSUPPORTED, "%s: %s is %s; this engine does %s only",
                      ivl_gguf_get_name (w->file), key, value ? "true" : "false", only ? "true" : "false");
}

static void
write_vision (Writer *w)
{
  static const double mean[] = { 0.485, 0.456, 0.406 }, deviation[] = { 0.229, 0.224, 0.225 };
  w->prefix = "clip.";
  g_autofree char *projector = get_string (w, "projector_type");
  w->prefix = "clip.vision.";
  if (!projector)
    projector = get_string (w, "projector_type");
  if (w->ok && g_strcmp0 (projector, "internvl") != 0)
    w->ok = ivl_fail (w->error, IVL_ERROR_UNSUPPORTED, "%s: its projector_type is \"%.40s\", not \"internvl\"",
                      ivl_gguf_get_name (w->file), projector ? projector : "");
  check_flag (w, "clip.use_gelu", TRUE);
  check_flag (w, "clip.use_silu", FALSE);
  check_colours (w, "image_mean", mean);
  check_colours (w, "image_std", deviation);

  copy_uint (w, "embedding_length", TRUE, "hidden_size");
  copy_uint (w, "block_count", TRUE, "num_hidden_layers");
  copy_uint (w, "attention.head_count", TRUE, "num_attention_heads");
  copy_uint (w, "feed_forward_length", TRUE, "intermediate_size");
  copy_float (w, "attention.layer_norm_epsilon", TRUE, "layer_norm_eps");
  copy_uint (w, "patch_size", TRUE, "patch_size");
  /* None of these is written; the tensors tell. */
  g_string_append_printf (w->json, "\"norm_type\":\"%s\",\"qkv_bias\":%s,\"qk_normalization\":%s,",
                          has_tensor (w->file, "v.blk.0.ln1.bias") ? "layer_norm" : "rms_norm",
                          has_tensor (w->file, "v.blk.0.attn_q.bias") || has_tensor (w->file, "v.blk.0.attn_qkv.bias")
                            ? "true" : "false",
                          has_tensor (w->file, "v.blk.0.attn_q_norm.weight") ? "true" : "false");

  /* The table's own image size may be another than that of the tiles. */
  IvlTensorView table;
  guint64 patch = 0, rows = 0;
  get_uint (w, "patch_size", TRUE, &patch);
  if (w->ok && ivl_gguf_lookup (w->file, "v.position_embd.weight", &table) && table.n_dims >= 2)
    rows = table.shape[table.n_dims - 2];
  guint64 side = rows > 1 && rows < 1u << 20 ? (guint64) lround (sqrt ((double) rows - 1)) : 0;
  if (w->ok && (!side || rows != 1 + side * side))
    w->ok = ivl_fail (w->error, IVL_ERROR_BAD_MODEL, "%s: v.position_embd.weight is missing, or doesn't have a row for "
                      "the class token and each patch of a square", ivl_gguf_get_name (w->file));
  if (w->ok)
    put_uint (w, "image_size", side * MIN (patch, 65536));
}

static void
write_tiling (Writer *w)
{
  guint64 scale = 2, least = 1, most = 12;
  w->prefix = "clip.vision.";
  get_uint (w, "projector.scale_factor", FALSE, &scale);
  if (scale != 2)
    unsupported (w, "projector.scale_factor", "isn't 2");
  get_uint (w, "preproc_min_tiles", FALSE, &least);
  get_uint (w, "preproc_max_tiles", FALSE, &most);
  put_uint (w, "min_dynamic_patch", least);
  put_uint (w, "max_dynamic_patch", most);
  copy_uint (w, "image_size", TRUE, "force_image_size");
}

IvlConfig *
ivl_gguf_model_config (const IvlGgufModel *self, GError **error)
{
  g_autoptr (GString) json = g_string_new ("{\"architectures\":[\"InternVLChatModel\"],\"llm_config\":{");
  Writer text = { self->text, "", json, error, TRUE };
  write_text (&text);
  if (!text.ok)
    return NULL;
  end_object (&text);
  g_string_append (json, "\"vision_config\":{");
  Writer vision = { self->vision, "clip.", json, error, TRUE };
  write_vision (&vision);
  if (!vision.ok)
    return NULL;
  end_object (&vision);
  write_tiling (&vision);
  if (!vision.ok)
    return NULL;
  g_string_append (json, "\"downsample_ratio\":0.5,\"ps_version\":\"v2\",\"select_layer\":-1,"
                   "\"template\":\"internvl2_5\",\"dynamic_image_size\":true,\"use_thumbnail\":true}");
  g_autoptr (GError) inner = NULL;
  IvlConfig *config = ivl_config_parse (json->str, json->len, NULL, 0, &inner);
  if (!config) {
    ivl_fail (error, (IvlErrorCode) inner->code, "%s and %s, their metadata read as %s", ivl_gguf_get_name (self->text),
              ivl_gguf_get_name (self->vision), inner->message);
    return NULL;
  }
  IvlTensorView embed;
  if (ivl_gguf_lookup (self->text, "token_embd.weight", &embed))
    config->dtype = embed.dtype <= IVL_TENSOR_BF16 ? embed.dtype : IVL_TENSOR_OTHER;
  return config;
}
