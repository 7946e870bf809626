#include "tools/synthetic.h"

#include <stdbool.h>

#include <string.h>

#include "base/error.h"

typedef struct {
  const char *name;
  bool big_vit; /* InternViT-6B */
  bool internlm2;
  guint hidden, layers, heads, kv_heads, intermediate, vocab;
  double theta;
} Size;

static const Size sizes[] = {
  { "1B", false, false, 896, 24, 14, 2, 4864, 151674, 1e6 },
  { "2B", false, true, 2048, 24, 16, 8, 8192, 92553, 1e6 },
  { "4B", false, false, 2048, 36, 16, 2, 11008, 151674, 1e6 },
  { "8B", false, true, 4096, 32, 32, 8, 14336, 92553, 1e6 },
  { "26B", true, true, 6144, 48, 48, 8, 16384, 92553, 5e7 },
  { "38B", true, false, 5120, 64, 40, 8, 27648, 151674, 1e6 },
  { "78B", true, false, 8192, 80, 64, 8, 29568, 151674, 1e6 },
  { "tiny", false, false, 128, 2, 4, 2, 256, 1024, 1e6 },
};

char *
ivl_synthetic_config_json (const char *name, GError **error)
{
  const Size *s = NULL;
  for (guint i = 0; i < G_N_ELEMENTS (sizes); i++)
    if (g_ascii_strcasecmp (sizes[i].name, name) == 0)
      s = &sizes[i];
  if (!s) {
    ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "No family member is called \"%s\"; there are 1B 2B 4B 8B 26B 38B 78B tiny",
              name);
    return NULL;
  }
  bool tiny = strcmp (s->name, "tiny") == 0;
  g_autofree char *vision = g_strdup_printf (
    "{\"model_type\": \"intern_vit_6b\", \"hidden_size\": %u, \"num_hidden_layers\": %u, \"num_attention_heads\": %u, "
    "\"intermediate_size\": %u, \"image_size\": %u, \"patch_size\": 14, \"norm_type\": \"%s\", \"qkv_bias\": %s, "
    "\"qk_normalization\": %s, \"layer_norm_eps\": 1e-6, \"hidden_act\": \"gelu\"}",
    s->big_vit ? 3200 : tiny ? 128 : 1024, s->big_vit ? 45 : tiny ? 2 : 24, s->big_vit ? 25 : tiny ? 2 : 16,
    s->big_vit ? 12800 : tiny ? 256 : 4096, tiny ? 112 : 448, s->big_vit ? "rms_norm" : "layer_norm",
    s->big_vit ? "false" : "true", s->big_vit ? "true" : "false");
  return g_strdup_printf (
    "{\"architectures\": [\"InternVLChatModel\"], \"model_type\": \"internvl_chat\", \"vision_config\": %s, "
    "\"llm_config\": {\"architectures\": [\"%s\"], \"hidden_size\": %u, \"num_hidden_layers\": %u, "
    "\"num_attention_heads\": %u, \"num_key_value_heads\": %u, \"intermediate_size\": %u, \"vocab_size\": %u, "
    "\"model_type\": \"%s\", \"rms_norm_eps\": %s, \"rope_theta\": %.1f, \"max_position_embeddings\": 32768, \"hidden_act\": \"silu\", "
    "\"bias\": false, \"tie_word_embeddings\": false}, "
    "\"force_image_size\": %u, \"downsample_ratio\": 0.5, \"select_layer\": -1, \"ps_version\": \"v2\", "
    "\"template\": \"internvl2_5\", \"dynamic_image_size\": true, \"use_thumbnail\": true, "
    "\"min_dynamic_patch\": 1, \"max_dynamic_patch\": 12, \"torch_dtype\": \"bfloat16\"}",
    vision, s->internlm2 ? "InternLM2ForCausalLM" : "Qwen2ForCausalLM", s->hidden, s->layers, s->heads, s->kv_heads,
    s->intermediate, s->vocab, s->internlm2 ? "internlm2" : "qwen2", s->internlm2 ? "1e-5" : "1e-6", s->theta,
    tiny ? 112 : 448);
}

IvlConfig *
ivl_synthetic_config (const char *name, GError **error)
{
  g_autofree char *json = ivl_synthetic_config_json (name, error);
  return json ? ivl_config_parse (json, strlen (json), NULL, 0, error) : NULL;
}

/* ---- weights ---- */

guint64
ivl_synthetic_seed (const char *name)
{
  guint64 h = 0xcbf29ce484222325ull;
  for (; *name; name++)
    h = (h ^ (guint8) *name) * 0x100000001b3ull;
  return h;
}

guint64
ivl_synthetic_random (guint64 seed, guint64 index)
{
  guint64 z = seed + (index + 1) * 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

/* First match decides: ending of the tensor's name -> middle and half width of its values. */
static const struct {
  const char *ending;
  double middle, width;
} rules[] = {
  { "norm1.weight", 1, 0.25 }, { "norm2.weight", 1, 0.25 }, { "norm1.bias", 0, 0.125 }, { "norm2.bias", 0, 0.125 },
  { "mlp1.0.weight", 1, 0.25 }, { "mlp1.0.bias", 0, 0.125 }, { "layernorm.weight", 1, 0.25 },
  { "model.norm.weight", 1, 0.25 }, { "ls1", 0.25, 0.25 }, { "ls2", 0.25, 0.25 }, { "class_embedding", 0, 0.5 },
  { "position_embedding", 0, 0.5 }, { "embed_tokens.weight", 0, 0.5 }, { "k_proj.bias", 0, 4.0 },
  { "q_proj.bias", 0, 0.5 }, { "v_proj.bias", 0, 0.25 }, { ".bias", 0, 0.0625 }, { "fc2.weight", 0, 0.03125 },
  { "mlp1.1.weight", 0, 0.03125 }, { "down_proj.weight", 0, 0.03125 }, { "lm_head.weight", 0, 0.1875 },
  /* not in the full-size check, which is of the 1B */
  { "_norm.weight", 1, 0.25 }, { "tok_embeddings.weight", 0, 0.5 }, { "w2.weight", 0, 0.03125 },
  { "output.weight", 0, 0.1875 }, { ".weight", 0, 0.0625 },
};

typedef struct {
  GArray *tensors; /* IvlSyntheticTensor */
} Builder;

static void add (Builder *b, guint n_dims, const guint *dims, const char *format, ...) G_GNUC_PRINTF (4, 5);

static void
add (Builder *b, guint n_dims, const guint *dims, const char *format, ...)
{
  va_list args;
  va_start (args, format);
  IvlSyntheticTensor tensor = { .name = g_strdup_vprintf (format, args), .n_dims = n_dims, .n = 1 };
  va_end (args);
  for (guint i = 0; i < n_dims; i++) {
    tensor.dims[i] = dims[i];
    tensor.n *= dims[i];
  }
  g_array_append_val (b->tensors, tensor);
}

#define VECTOR(n, ...) add (b, 1, (guint[]){ n }, __VA_ARGS__)
#define MATRIX(n, k, ...) add (b, 2, (guint[]){ n, k }, __VA_ARGS__)

static void
add_vision (Builder *b, const IvlConfig *config)
{
  guint c = config->vision.hidden, f = config->vision.intermediate, h = config->text.hidden;
  bool layer_norm = config->vision.norm == IVL_NORM_LAYER;
  add (b, 3, (guint[]){ 1, 1, c }, "vision_model.embeddings.class_embedding");
  add (b, 3, (guint[]){ 1, config->vision.n_positions, c }, "vision_model.embeddings.position_embedding");
  add (b, 4, (guint[]){ c, 3, config->vision.patch_size, config->vision.patch_size },
       "vision_model.embeddings.patch_embedding.weight");
  VECTOR (c, "vision_model.embeddings.patch_embedding.bias");
  for (guint i = 0; i < config->vision.layers; i++) {
    g_autofree char *p = g_strdup_printf ("vision_model.encoder.layers.%u.", i);
    for (guint k = 1; k <= 2; k++) {
      VECTOR (c, "%snorm%u.weight", p, k);
      if (layer_norm)
        VECTOR (c, "%snorm%u.bias", p, k);
      VECTOR (c, "%sls%u", p, k);
    }
    MATRIX (3 * c, c, "%sattn.qkv.weight", p);
    if (config->vision.qkv_bias)
      VECTOR (3 * c, "%sattn.qkv.bias", p);
    if (config->vision.qk_norm) {
      VECTOR (c, "%sattn.q_norm.weight", p);
      VECTOR (c, "%sattn.k_norm.weight", p);
    }
    MATRIX (c, c, "%sattn.proj.weight", p);
    VECTOR (c, "%sattn.proj.bias", p);
    MATRIX (f, c, "%smlp.fc1.weight", p);
    VECTOR (f, "%smlp.fc1.bias", p);
    MATRIX (c, f, "%smlp.fc2.weight", p);
    VECTOR (c, "%smlp.fc2.bias", p);
  }
  VECTOR (4 * c, "mlp1.0.weight");
  VECTOR (4 * c, "mlp1.0.bias");
  MATRIX (h, 4 * c, "mlp1.1.weight");
  VECTOR (h, "mlp1.1.bias");
  MATRIX (h, h, "mlp1.3.weight");
  VECTOR (h, "mlp1.3.bias");
}

static void
add_text (Builder *b, const IvlConfig *config)
{
  guint h = config->text.hidden, f = config->text.intermediate, d = config->text.head_dim, v = config->text.vocab;
  guint q = config->text.heads * d, k = config->text.kv_heads * d;
  bool internlm2 = config->text.arch == IVL_TEXT_INTERNLM2;
  MATRIX (v, h, "language_model.model.%s.weight", internlm2 ? "tok_embeddings" : "embed_tokens");
  for (guint i = 0; i < config->text.layers; i++) {
    g_autofree char *p = g_strdup_printf ("language_model.model.layers.%u.", i);
    if (internlm2) {
      VECTOR (h, "%sattention_norm.weight", p);
      VECTOR (h, "%sffn_norm.weight", p);
      MATRIX (q + 2 * k, h, "%sattention.wqkv.weight", p);
      MATRIX (h, q, "%sattention.wo.weight", p);
      MATRIX (f, h, "%sfeed_forward.w1.weight", p);
      MATRIX (f, h, "%sfeed_forward.w3.weight", p);
      MATRIX (h, f, "%sfeed_forward.w2.weight", p);
      continue;
    }
    VECTOR (h, "%sinput_layernorm.weight", p);
    VECTOR (h, "%spost_attention_layernorm.weight", p);
    MATRIX (q, h, "%sself_attn.q_proj.weight", p);
    VECTOR (q, "%sself_attn.q_proj.bias", p);
    MATRIX (k, h, "%sself_attn.k_proj.weight", p);
    VECTOR (k, "%sself_attn.k_proj.bias", p);
    MATRIX (k, h, "%sself_attn.v_proj.weight", p);
    VECTOR (k, "%sself_attn.v_proj.bias", p);
    MATRIX (h, q, "%sself_attn.o_proj.weight", p);
    MATRIX (f, h, "%smlp.gate_proj.weight", p);
    MATRIX (f, h, "%smlp.up_proj.weight", p);
    MATRIX (h, f, "%smlp.down_proj.weight", p);
  }
  VECTOR (h, "language_model.model.norm.weight");
  MATRIX (v, h, "language_model.%s.weight", internlm2 ? "output" : "lm_head");
}

static void
tensor_clear (gpointer data)
{
  g_free (((IvlSyntheticTensor *) data)->name);
}

GArray *
ivl_synthetic_tensors (const IvlConfig *config)
{
  Builder b = { g_array_new (FALSE, FALSE, sizeof (IvlSyntheticTensor)) };
  g_array_set_clear_func (b.tensors, tensor_clear);
  add_vision (&b, config);
  add_text (&b, config);
  return b.tensors;
}

void
ivl_synthetic_values (const char *name, guint64 first, gsize n, guint16 *out)
{
  guint rule = 0;
  while (!g_str_has_suffix (name, rules[rule].ending))
    rule++;
  double middle = rules[rule].middle, step = rules[rule].width / (1 << 23);
  guint64 seed = ivl_synthetic_seed (name);
  for (gsize i = 0; i < n; i++) {
    gint64 t = (gint64) (ivl_synthetic_random (seed, first + i) >> 40) - (1 << 23);
    float value = (float) (middle + (double) t * step);
    guint32 bits;
    memcpy (&bits, &value, 4);
    out[i] = (guint16) ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
  }
}

char *
ivl_synthetic_header (const GArray *tensors, const char *dtype)
{
  g_autoptr (GString) header = g_string_new ("{");
  guint64 offset = 0;
  for (guint i = 0; i < tensors->len; i++) {
    const IvlSyntheticTensor *tensor = &g_array_index (tensors, IvlSyntheticTensor, i);
    g_string_append_printf (header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", i ? "," : "", tensor->name, dtype);
    for (guint d = 0; d < tensor->n_dims; d++)
      g_string_append_printf (header, "%s%u", d ? "," : "", tensor->dims[d]);
    g_string_append_printf (header, "],\"data_offsets\":[%" G_GUINT64_FORMAT ",%" G_GUINT64_FORMAT "]}", offset,
                            offset + 2 * tensor->n);
    offset += 2 * tensor->n;
  }
  g_string_append_c (header, '}');
  while (header->len % 8)
    g_string_append_c (header, ' ');
  return g_strdup (header->str);
}

typedef struct {
  const char *name;
  gsize n;
  guint16 *out;
} Fill;

static void
fill (gpointer data, gpointer user_data)
{
  Fill *job = data;
  ivl_synthetic_values (job->name, 0, job->n, job->out);
  g_free (job);
}

IvlCheckpoint *
ivl_synthetic_checkpoint (IvlConfig *config, GError **error)
{
  g_autoptr (GArray) tensors = ivl_synthetic_tensors (config);
  g_autofree char *header = ivl_synthetic_header (tensors, "BF16");
  guint64 bytes = ivl_synthetic_bytes (tensors);
  gsize header_size = strlen (header), size = 8 + header_size + bytes;
  guint8 *file = g_try_malloc (size);
  if (!file) {
    g_autofree char *text = ivl_format_bytes (size);
    ivl_fail (error, IVL_ERROR_OUT_OF_MEMORY, "No room for %s of weights in host memory", text);
    return NULL;
  }
  guint64 header_bytes = GUINT64_TO_LE (header_size);
  memcpy (file, &header_bytes, 8);
  memcpy (file + 8, header, header_size);
  GThreadPool *pool = g_thread_pool_new (fill, NULL, (gint) g_get_num_processors (), FALSE, NULL);
  guint16 *out = (guint16 *) (file + 8 + header_size);
  for (guint i = 0; i < tensors->len; i++) {
    const IvlSyntheticTensor *tensor = &g_array_index (tensors, IvlSyntheticTensor, i);
    Fill *job = g_new (Fill, 1);
    *job = (Fill){ tensor->name, tensor->n, out };
    g_thread_pool_push (pool, job, NULL);
    out += tensor->n;
  }
  g_thread_pool_free (pool, FALSE, TRUE);
  g_autoptr (GBytes) contents = g_bytes_new_take (file, size);
  IvlSafetensors *weights = ivl_safetensors_new_from_bytes (contents, "synthetic weights", error);
  return weights ? ivl_checkpoint_new (weights, config, error) : NULL;
}

guint64
ivl_synthetic_bytes (const GArray *tensors)
{
  guint64 bytes = 0;
  for (guint i = 0; i < tensors->len; i++)
    bytes += 2 * g_array_index (tensors, IvlSyntheticTensor, i).n;
  return bytes;
}
