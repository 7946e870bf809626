/* config.json: the whole family, both layouts, and every value a hostile one may hold. */
#include "model/config.h"

#include <json-glib/json-glib.h>
#include <string.h>

#include "base/error.h"
#include "tensor-file.h"

/* ---- the family, as its config.json files say it ---- */

#define VISION_300M                                                                                                   \
  "\"vision_config\":{\"architectures\":[\"InternVisionModel\"],\"attention_dropout\":0.0,\"drop_path_rate\":0.0,"     \
  "\"dropout\":0.0,\"hidden_act\":\"gelu\",\"hidden_size\":1024,\"image_size\":448,\"initializer_factor\":1.0,"        \
  "\"initializer_range\":0.02,\"intermediate_size\":4096,\"layer_norm_eps\":1e-06,\"model_type\":\"intern_vit_6b\","   \
  "\"norm_type\":\"layer_norm\",\"num_attention_heads\":16,\"num_channels\":3,\"num_hidden_layers\":24,"               \
  "\"patch_size\":14,\"qk_normalization\":false,\"qkv_bias\":true,\"torch_dtype\":\"bfloat16\","                      \
  "\"use_flash_attn\":true}"
#define VISION_6B                                                                                                     \
  "\"vision_config\":{\"architectures\":[\"InternVisionModel\"],\"hidden_act\":\"gelu\",\"hidden_size\":3200,"         \
  "\"image_size\":448,\"intermediate_size\":12800,\"layer_norm_eps\":1e-06,\"model_type\":\"intern_vit_6b\","          \
  "\"norm_type\":\"rms_norm\",\"num_attention_heads\":25,\"num_channels\":3,\"num_hidden_layers\":45,"                 \
  "\"patch_size\":14,\"qk_normalization\":true,\"qkv_bias\":false,\"torch_dtype\":\"bfloat16\"}"
#define QWEN2(hidden, layers, heads, kv, ffn)                                                                         \
  "\"llm_config\":{\"architectures\":[\"Qwen2ForCausalLM\"],\"model_type\":\"qwen2\",\"hidden_act\":\"silu\","         \
  "\"hidden_size\":" #hidden ",\"num_hidden_layers\":" #layers ",\"num_attention_heads\":" #heads                      \
  ",\"num_key_value_heads\":" #kv ",\"intermediate_size\":" #ffn ",\"vocab_size\":151674,\"rms_norm_eps\":1e-06,"      \
  "\"rope_theta\":1000000.0,\"rope_scaling\":null,\"max_position_embeddings\":32768,\"sliding_window\":32768,"         \
  "\"use_sliding_window\":false,\"bos_token_id\":151643,\"eos_token_id\":151645,\"tie_word_embeddings\":false}"
#define INTERNLM2(hidden, layers, heads, kv, ffn, theta, factor)                                                      \
  "\"llm_config\":{\"architectures\":[\"InternLM2ForCausalLM\"],\"model_type\":\"internlm2\",\"hidden_act\":\"silu\"," \
  "\"bias\":false,\"hidden_size\":" #hidden ",\"num_hidden_layers\":" #layers ",\"num_attention_heads\":" #heads       \
  ",\"num_key_value_heads\":" #kv ",\"intermediate_size\":" #ffn ",\"vocab_size\":92553,\"rms_norm_eps\":1e-05,"       \
  "\"rope_theta\":" #theta ",\"rope_scaling\":{\"factor\":" #factor ",\"type\":\"dynamic\"},"                          \
  "\"max_position_embeddings\":32768,\"bos_token_id\":1,\"eos_token_id\":2,\"pad_token_id\":2}"
#define CHAT(vision, llm)                                                                                             \
  "{\"architectures\":[\"InternVLChatModel\"],\"auto_map\":{\"AutoConfig\":\"x.y\"},\"model_type\":\"internvl_chat\"," \
  "\"downsample_ratio\":0.5,\"dynamic_image_size\":true,\"force_image_size\":448,\"max_dynamic_patch\":12,"            \
  "\"min_dynamic_patch\":1,\"pad2square\":false,\"ps_version\":\"v2\",\"select_layer\":-1,"                            \
  "\"template\":\"internvl2_5\",\"torch_dtype\":\"bfloat16\",\"transformers_version\":null,"                          \
  "\"use_backbone_lora\":0,\"use_llm_lora\":0,\"use_thumbnail\":true," vision "," llm "}"

/* Counts in millions, to the digits of the specification's table of totals. */
static const struct {
  const char *name, *config, *described;
  double vision, projector, text, total, tolerance[4];
  guint64 kv_bytes;
  double rope_theta, rope_factor;
  guint32 eos;
} family[] = {
  { "1B", CHAT (VISION_300M, QWEN2 (896, 24, 14, 2, 4864)), "InternViT 24x1024 + Qwen2 24x896",
    304.0, 4.48, 629.7, 938, { .05, .005, .05, .5 }, 12288, 1e6, 1, 151645 },
  { "2B", CHAT (VISION_300M, INTERNLM2 (2048, 24, 16, 8, 8192, 1000000, 2.0)), "InternViT 24x1024 + InternLM2 24x2048",
    304.0, 12.60, 1889, 2206, { .05, .005, .5, .5 }, 98304, 1e6, 2, 2 },
  { "4B", CHAT (VISION_300M, QWEN2 (2048, 36, 16, 2, 11008)), "InternViT 24x1024 + Qwen2 36x2048",
    304.0, 12.60, 3396, 3713, { .05, .005, .5, .5 }, 36864, 1e6, 1, 151645 },
  { "8B", CHAT (VISION_300M, INTERNLM2 (4096, 32, 32, 8, 14336, 1000000, 2.0)), "InternViT 24x1024 + InternLM2 32x4096",
    304.0, 33.57, 7738, 8075, { .05, .005, .5, .5 }, 131072, 1e6, 2, 2 },
  { "26B", CHAT (VISION_6B, INTERNLM2 (6144, 48, 48, 8, 16384, 50000000, 2.5)), "InternViT 45x3200 + InternLM2 48x6144",
    5536, 116.4, 19860, 25510, { .5, .05, 5, 5 }, 196608, 5e7, 2.5, 2 },
  { "38B", CHAT (VISION_6B, QWEN2 (5120, 64, 40, 8, 27648)), "InternViT 45x3200 + Qwen2 64x5120",
    5536, 91.8, 32760, 38390, { .5, .05, 5, 5 }, 262144, 1e6, 1, 151645 },
  { "78B", CHAT (VISION_6B, QWEN2 (8192, 80, 64, 8, 29568)), "InternViT 45x3200 + Qwen2 80x8192",
    5536, 172.0, 72700, 78410, { .5, .05, 5, 5 }, 327680, 1e6, 1, 151645 },
};

static IvlConfig *
parse (const char *text, GError **error)
{
  return ivl_config_parse (text, strlen (text), NULL, 0, error);
}

static void
test_family (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (family); i++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (IvlConfig) config = parse (family[i].config, &error);
    g_assert_no_error (error);
    g_test_message ("%s", family[i].name);
    IvlParameterCount count = ivl_config_count (config);
    guint64 total = count.vision + count.projector + count.text;
    g_assert_cmpfloat_with_epsilon (count.vision / 1e6, family[i].vision, family[i].tolerance[0]);
    g_assert_cmpfloat_with_epsilon (count.projector / 1e6, family[i].projector, family[i].tolerance[1]);
    g_assert_cmpfloat_with_epsilon (count.text / 1e6, family[i].text, family[i].tolerance[2]);
    g_assert_cmpfloat_with_epsilon (total / 1e6, family[i].total, family[i].tolerance[3]);
    g_assert_cmpuint (ivl_config_weight_bytes (config, 2), ==, 2 * total);
    g_assert_cmpuint (ivl_config_kv_bytes_per_token (config, 2), ==, family[i].kv_bytes);
    g_autofree char *described = ivl_config_describe (config);
    g_assert_cmpstr (described, ==, family[i].described);

    gboolean big = i >= 4, internlm2 = family[i].eos == 2;
    g_assert_cmpint (config->layout, ==, IVL_LAYOUT_ORIGINAL);
    g_assert_cmpint (config->dtype, ==, IVL_TENSOR_BF16);
    g_assert_cmpint (config->vision.norm, ==, big ? IVL_NORM_RMS : IVL_NORM_LAYER);
    g_assert_cmpint (config->vision.qk_norm, ==, big);
    g_assert_cmpint (config->vision.qkv_bias, ==, !big);
    g_assert_cmpuint (config->vision.head_dim, ==, big ? 128 : 64);
    g_assert_cmpuint (config->vision.run_layers, ==, config->vision.layers);
    g_assert_cmpuint (config->vision.grid, ==, 32);
    g_assert_cmpuint (config->vision.n_positions, ==, 1025);
    g_assert_cmpuint (config->tile_tokens, ==, 256);
    g_assert_cmpuint (config->ps_version, ==, 2);
    g_assert_cmpint (config->text.arch, ==, internlm2 ? IVL_TEXT_INTERNLM2 : IVL_TEXT_QWEN2);
    g_assert_cmpuint (config->text.head_dim, ==, i == 0 ? 64 : 128);
    g_assert_cmpuint (config->text.vocab, ==, internlm2 ? 92553 : 151674);
    g_assert_cmpfloat (config->text.rms_eps, ==, internlm2 ? 1e-5 : 1e-6);
    g_assert_cmpfloat (config->text.rope_theta, ==, family[i].rope_theta);
    g_assert_cmpint (config->text.rope_scaling, ==, internlm2 ? IVL_ROPE_DYNAMIC : IVL_ROPE_PLAIN);
    g_assert_cmpfloat (config->text.rope_factor, ==, family[i].rope_factor);
    g_assert_cmpint (config->text.qkv_bias, ==, !internlm2);
    g_assert_false (config->text.tied || config->text.may_tie);
    g_assert_cmpuint (config->text.max_position, ==, 32768);
    g_assert_cmpuint (config->n_eos, ==, 1);
    g_assert_cmpuint (config->eos[0], ==, family[i].eos);
    g_assert_true (config->dynamic_image_size && config->use_thumbnail);
    g_assert_cmpuint (config->min_dynamic_patch, ==, 1);
    g_assert_cmpuint (config->max_dynamic_patch, ==, 12);
    g_assert_cmpstr (config->template_name, ==, "internvl2_5");
    g_assert_null (config->system_message);
  }
}

/* ---- the -hf layout ---- */

/* As transformers 4 wrote the 2B. */
static const char hf_4[] =
  "{\"architectures\":[\"InternVLForConditionalGeneration\"],\"downsample_ratio\":0.5,\"image_seq_length\":256,"
  "\"image_token_id\":92546,\"model_type\":\"internvl\",\"projector_hidden_act\":\"gelu\",\"torch_dtype\":\"bfloat16\","
  "\"vision_feature_layer\":-1,\"vision_feature_select_strategy\":\"default\","
  "\"text_config\":{\"attention_bias\":false,\"hidden_act\":\"silu\",\"hidden_size\":2048,\"intermediate_size\":8192,"
  "\"max_position_embeddings\":32768,\"mlp_bias\":false,\"model_type\":\"llama\",\"num_attention_heads\":16,"
  "\"num_hidden_layers\":24,\"num_key_value_heads\":8,\"head_dim\":128,\"rms_norm_eps\":1e-05,\"rope_scaling\":"
  "{\"factor\":2.0,\"rope_type\":\"dynamic\"},\"rope_theta\":1000000,\"vocab_size\":92553,\"eos_token_id\":[92542,2],"
  "\"tie_word_embeddings\":false},"
  "\"vision_config\":{\"attention_bias\":true,\"hidden_size\":1024,\"image_size\":[448,448],\"intermediate_size\":4096,"
  "\"layer_norm_eps\":1e-06,\"model_type\":\"internvl_vision\",\"norm_type\":\"layer_norm\",\"num_attention_heads\":16,"
  "\"num_hidden_layers\":24,\"patch_size\":[14,14],\"use_qk_norm\":false,\"use_mean_pooling\":true,"
  "\"use_absolute_position_embeddings\":true}}";

/* As transformers 5 does: other names, and only what differs from the classes' defaults. */
static const char hf_5[] =
  "{\"architectures\":[\"InternVLForConditionalGeneration\"],\"dtype\":\"float16\",\"model_type\":\"internvl\","
  "\"tie_word_embeddings\":false,"
  "\"text_config\":{\"model_type\":\"llama\",\"intermediate_size\":14336,\"num_key_value_heads\":8,"
  "\"vocab_size\":92553,\"max_position_embeddings\":32768,"
  "\"rope_parameters\":{\"rope_theta\":50000.0,\"rope_type\":\"linear\",\"factor\":2}},"
  "\"vision_config\":{\"model_type\":\"internvl_vision\",\"attention_bias\":true}}";

static void
test_hf (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (IvlConfig) old = parse (hf_4, &error);
  g_assert_no_error (error);
  g_autoptr (IvlConfig) original = parse (family[1].config, &error);
  g_assert_no_error (error);
  g_assert_cmpint (old->layout, ==, IVL_LAYOUT_HF);
  g_assert_cmpint (old->text.arch, ==, IVL_TEXT_LLAMA);
  g_assert_cmpmem (&old->vision, sizeof old->vision, &original->vision, sizeof original->vision);
  g_assert_cmpuint (ivl_config_weight_bytes (old, 1), ==, ivl_config_weight_bytes (original, 1));
  g_assert_cmpint (old->text.rope_scaling, ==, IVL_ROPE_DYNAMIC);
  g_assert_cmpfloat (old->text.rope_theta, ==, 1e6);
  g_assert_cmpuint (old->n_eos, ==, 2);
  g_assert_cmpuint (old->eos[0], ==, 92542);
  g_assert_false (old->text.tied);
  g_assert_true (old->text.may_tie); /* the outer default */
  g_assert_null (old->template_name);
  g_assert_cmpuint (old->max_dynamic_patch, ==, 12);

  g_autoptr (IvlConfig) new = parse (hf_5, &error);
  g_assert_no_error (error);
  g_assert_cmpint (new->dtype, ==, IVL_TENSOR_F16);
  g_assert_cmpuint (new->text.hidden, ==, 4096);
  g_assert_cmpuint (new->text.layers, ==, 32);
  g_assert_cmpuint (new->text.head_dim, ==, 128);
  g_assert_cmpint (new->text.rope_scaling, ==, IVL_ROPE_LINEAR);
  g_assert_cmpfloat (new->text.rope_factor, ==, 2);
  g_assert_cmpfloat (new->text.rope_theta, ==, 5e4);
  g_assert_false (new->text.may_tie);
  g_assert_cmpuint (new->n_eos, ==, 1);
  g_assert_cmpuint (new->eos[0], ==, 2);
  g_assert_cmpuint (new->vision.hidden, ==, 1024);
  g_assert_cmpuint (new->vision.layers, ==, 24);
  g_assert_cmpint (new->vision.norm, ==, IVL_NORM_LAYER);
}

static void
test_generation (void)
{
  g_autoptr (GError) error = NULL;
  const char *text = family[0].config;
  static const struct {
    const char *generation, *cause;
    guint n_eos;
  } cases[] = {
    { "{}", NULL, 1 },
    { "{\"eos_token_id\":null}", NULL, 1 },
    { "{\"eos_token_id\":151645}", NULL, 1 },
    { "{\"eos_token_id\":[151645,151643,-1,999999]}", NULL, 2 },
    { "{\"eos_token_id\":\"x\"}", "generation_config.json: eos_token_id is \"x\"", 0 },
    { "{\"eos_token_id\":[1.5]}", "not an integer", 0 },
    { "{\"eos_token_id\":[null]}", "not an integer", 0 },
    { "{\"eos_token_id\":{}}", "not an integer", 0 },
    { "{\"eos_token_id\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}", "more than 16", 0 },
    { "[]", "not an object", 0 },
    { "", "empty", 0 },
  };
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (IvlConfig) config
      = ivl_config_parse (text, strlen (text), cases[i].generation, strlen (cases[i].generation), &error);
    if (cases[i].cause) {
      g_assert_null (config);
      g_assert_nonnull (strstr (error->message, cases[i].cause));
      g_clear_error (&error);
    } else {
      g_assert_no_error (error);
      g_assert_cmpuint (config->n_eos, ==, cases[i].n_eos);
    }
  }
}

/* ---- single values ---- */

/* TEXT with the value at the path "a.b" set to VALUE (JSON), or taken out if that is NULL. */
static char *
edit (const char *text, const char *path, const char *value)
{
  g_autoptr (JsonNode) root = json_from_string (text, NULL);
  g_auto (GStrv) keys = g_strsplit (path, ".", 2);
  JsonObject *object = json_node_get_object (root);
  if (keys[1])
    object = json_object_get_object_member (object, keys[0]);
  const char *key = keys[1] ? keys[1] : keys[0];
  if (!value) {
    json_object_remove_member (object, key);
    return json_to_string (root, FALSE);
  }
  /* Through a mark, because JSON values are to arrive as they are written. */
  json_object_set_string_member (object, key, "@@");
  g_autofree char *marked = json_to_string (root, FALSE);
  g_auto (GStrv) around = g_strsplit (marked, "\"@@\"", 2);
  return g_strconcat (around[0], value, around[1], NULL);
}

#define BAD IVL_ERROR_BAD_MODEL
#define UNSUP IVL_ERROR_UNSUPPORTED

static const struct Case {
  const char *path, *value;
  int code; /* -1: fine */
  const char *cause;
} original_cases[] = {
  /* Which model it is. */
  { "architectures", "[\"LlavaForConditionalGeneration\"]", UNSUP, "architectures is [\"LlavaFor" },
  { "architectures", "[]", BAD, "architectures" },
  { "architectures", "\"InternVLChatModel\"", BAD, "architectures" },
  { "architectures", "[1]", BAD, "architectures" },
  { "architectures", NULL, -1, NULL },
  { "model_type", NULL, -1, NULL },
  { "model_type", "\"internvl\"", UNSUP, "model_type is \"internvl\"" },
  { "llm_config", NULL, UNSUP, "InternVLChatModel" },
  { "llm_config", "{}", BAD, "llm_config.architectures is missing" },
  { "llm_config", "[]", BAD, "llm_config isn't an object" },
  { "vision_config", NULL, BAD, "vision_config is missing" },
  { "vision_config", "null", BAD, "vision_config is missing" },
  { "llm_config.architectures", "[\"Phi3ForCausalLM\"]", UNSUP, "llm_config.architectures is [\"Phi3ForCausalLM\"]" },
  { "llm_config.architectures", NULL, -1, NULL }, /* model_type says it */
  /* Widths. */
  { "vision_config.hidden_size", "0", BAD, "config.json: vision_config.hidden_size is 0, not in 1..65536" },
  { "vision_config.hidden_size", "-1024", BAD, "is -1024" },
  { "vision_config.hidden_size", "1000000000", BAD, "is 1000000000" },
  { "vision_config.hidden_size", "99999999999999999999", BAD, "18 digits" },
  { "vision_config.hidden_size", "1024.0", BAD, "is 1024.0, not an integer" },
  { "vision_config.hidden_size", "\"1024\"", BAD, "is \"1024\", not an integer" },
  { "vision_config.hidden_size", "true", BAD, "is true, not an integer" },
  { "vision_config.hidden_size", "[1024]", BAD, "not an integer" },
  { "vision_config.hidden_size", "{}", BAD, "not an integer" },
  { "vision_config.hidden_size", "1020", UNSUP, "hidden_size is 1020; this engine needs a multiple of 8" },
  { "vision_config.hidden_size", "1032", BAD, "isn't a multiple of num_attention_heads (16)" },
  { "vision_config.num_attention_heads", "0", BAD, "is 0" },
  { "vision_config.num_attention_heads", "3", BAD, "isn't a multiple" },
  { "vision_config.num_attention_heads", "2", UNSUP, "heads of 512" },
  { "vision_config.num_attention_heads", "256", UNSUP, "heads of 4" },
  { "vision_config.num_hidden_layers", "0", BAD, "is 0" },
  { "vision_config.num_hidden_layers", "1025", BAD, "is 1025" },
  { "vision_config.num_hidden_layers", "null", -1, NULL }, /* the class's default */
  { "vision_config.intermediate_size", "4097", UNSUP, "4097" },
  { "vision_config.intermediate_size", "-8", BAD, "-8" },
  { "llm_config.hidden_size", "900", UNSUP, "900" },
  { "llm_config.hidden_size", "888", BAD, "llm_config.hidden_size (888) isn't a multiple of num_attention_heads (14)" },
  { "llm_config.head_dim", "64", -1, NULL },
  { "llm_config.head_dim", "264", UNSUP, "llm_config.head_dim makes heads of 264" },
  { "llm_config.head_dim", "0", BAD, "llm_config.head_dim is 0" },
  { "llm_config.num_key_value_heads", "4", UNSUP, "llm_config.num_key_value_heads is 4" },
  { "llm_config.num_key_value_heads", "28", UNSUP, "is 28" },
  { "llm_config.num_key_value_heads", "-2", BAD, "is -2" },
  { "llm_config.num_hidden_layers", "100000", BAD, "is 100000" },
  { "llm_config.intermediate_size", "4868", UNSUP, "4868" },
  { "llm_config.intermediate_size", "1e3", BAD, "not an integer" },
  { "llm_config.vocab_size", "0", BAD, "vocab_size is 0" },
  { "llm_config.vocab_size", "2147483648", BAD, "2147483648" },
  { "llm_config.max_position_embeddings", "0", BAD, "max_position_embeddings is 0" },
  /* Reals. */
  { "vision_config.layer_norm_eps", "0", BAD, "layer_norm_eps is 0" },
  { "vision_config.layer_norm_eps", "-1e-6", BAD, "layer_norm_eps" },
  { "vision_config.layer_norm_eps", "1e999", BAD, "layer_norm_eps" },
  { "vision_config.layer_norm_eps", "\"1e-6\"", BAD, "not a number" },
  { "llm_config.rms_norm_eps", "true", BAD, "not a number" },
  { "llm_config.rope_theta", "10000", -1, NULL },
  { "llm_config.rope_theta", "0", BAD, "rope_theta is 0" },
  { "llm_config.rope_theta", "-1e6", BAD, "rope_theta" },
  /* What is done in one way only. */
  { "vision_config.hidden_act", "\"quick_gelu\"", UNSUP, "vision_config.hidden_act is \"quick_gelu\"" },
  { "vision_config.hidden_act", "7", BAD, "not a string" },
  { "vision_config.norm_type", "\"batch_norm\"", UNSUP, "vision_config.norm_type is \"batch_norm\"" },
  { "vision_config.num_channels", "4", UNSUP, "num_channels is 4" },
  { "vision_config.qkv_bias", "1", BAD, "not true or false" },
  { "llm_config.hidden_act", "\"gelu\"", UNSUP, "llm_config.hidden_act is \"gelu\"" },
  { "llm_config.use_sliding_window", "true", UNSUP, "use_sliding_window is true" },
  { "llm_config.rope_scaling", "{\"type\":\"yarn\",\"factor\":4.0}", UNSUP, "rope_scaling.type is \"yarn\"" },
  { "llm_config.rope_scaling", "{\"rope_type\":\"llama3\",\"factor\":4.0}", UNSUP, "rope_type is \"llama3\"" },
  { "llm_config.rope_scaling", "{\"factor\":4.0}", BAD, "rope_scaling.type is missing" },
  { "llm_config.rope_scaling", "{\"type\":\"linear\"}", BAD, "rope_scaling.factor is missing" },
  { "llm_config.rope_scaling", "{\"type\":\"linear\",\"factor\":0.5}", BAD, "rope_scaling.factor is 0.5" },
  { "llm_config.rope_scaling", "{\"type\":\"dynamic\",\"factor\":-2}", BAD, "rope_scaling.factor is -2" },
  { "llm_config.rope_scaling", "{\"type\":2,\"factor\":2.0}", BAD, "rope_scaling.type is 2" },
  { "llm_config.rope_scaling", "2", BAD, "rope_scaling isn't an object" },
  { "llm_config.rope_scaling", "{\"type\":\"default\"}", -1, NULL },
  { "llm_config.rope_scaling", "{\"type\":\"linear\",\"factor\":2,\"partial_rotary_factor\":0.5}", UNSUP,
    "partial_rotary" },
  { "use_backbone_lora", "16", UNSUP, "use_backbone_lora is 16; LoRA" },
  { "use_llm_lora", "8", UNSUP, "use_llm_lora is 8; LoRA" },
  { "use_llm_lora", "false", -1, NULL },
  { "ps_version", "\"v3\"", UNSUP, "ps_version is \"v3\"" },
  { "ps_version", "2", BAD, "not a string" },
  { "downsample_ratio", "0.25", UNSUP, "downsample_ratio is 0.25" },
  { "downsample_ratio", "0", UNSUP, "downsample_ratio is 0" },
  /* Pictures. */
  { "force_image_size", "0", BAD, "force_image_size is 0" },
  { "force_image_size", "450", BAD, "isn't a multiple of patch_size (14)" },
  { "force_image_size", "70", UNSUP, "5 patches a side" },
  { "force_image_size", "28000", UNSUP, "patches a side" },
  { "vision_config.image_size", "[448,448]", -1, NULL },
  { "vision_config.image_size", "[448,224]", UNSUP, "squares only" },
  { "vision_config.image_size", "[448]", BAD, "one or two integers" },
  { "vision_config.image_size", "[448,\"448\"]", BAD, "not an integer" },
  { "vision_config.patch_size", "0", BAD, "patch_size is 0" },
  { "min_dynamic_patch", "13", BAD, "min_dynamic_patch (13) is above" },
  { "max_dynamic_patch", "0", BAD, "max_dynamic_patch is 0" },
  { "max_dynamic_patch", "1000000", BAD, "max_dynamic_patch" },
  { "use_thumbnail", "\"yes\"", BAD, "use_thumbnail is \"yes\"" },
  { "select_layer", "-26", BAD, "select_layer is -26" },
  { "select_layer", "25", BAD, "select_layer is 25" },
  { "select_layer", "-1.5", BAD, "not an integer" },
  { "template", "5", BAD, "template is 5" },
  { "system_message", "[]", BAD, "system_message" },
  { "torch_dtype", "\"float8\"", -1, NULL },
  { "torch_dtype", "16", BAD, "torch_dtype is 16" },
  { "llm_config.eos_token_id", "[]", -1, NULL },
  { "llm_config.eos_token_id", "\"</s>\"", BAD, "eos_token_id is \"</s>\"" },
  { "template", "\"" "\xe6\xb8\xa9" "\"", -1, NULL },
}, hf_cases[] = {
  { "architectures", "[\"InternVLChatModel\"]", UNSUP, "architectures is" },
  { "text_config", NULL, BAD, "text_config is missing" },
  { "text_config.model_type", NULL, -1, NULL }, /* qwen2 by default */
  { "text_config.model_type", "\"internlm2\"", UNSUP, "text_config.model_type is \"internlm2\"" },
  { "text_config.model_type", "\"gpt_oss\"", UNSUP, "text_config.model_type is \"gpt_oss\"" },
  { "text_config.attention_bias", "true", UNSUP, "text_config.attention_bias is true" },
  { "text_config.mlp_bias", "true", UNSUP, "text_config.mlp_bias is true" },
  { "text_config.head_dim", "96", -1, NULL },
  { "vision_config.use_mean_pooling", "false", UNSUP, "use_mean_pooling is false" },
  { "vision_config.use_absolute_position_embeddings", "false", UNSUP, "use_absolute_position_embeddings is false" },
  { "vision_feature_select_strategy", "\"full\"", UNSUP, "vision_feature_select_strategy is \"full\"" },
  { "vision_feature_layer", "[-1,-2]", BAD, "vision_feature_layer is [-1,-2]" },
  { "projector_hidden_act", "\"relu\"", UNSUP, "projector_hidden_act is \"relu\"" },
  { "image_seq_length", "64", BAD, "image_seq_length contradicts the 256" },
};

static void
check_cases (const char *text, const struct Case *cases, guint n)
{
  for (guint i = 0; i < n; i++) {
    g_autoptr (GError) error = NULL;
    g_autofree char *edited = edit (text, cases[i].path, cases[i].value);
    g_autoptr (IvlConfig) config = parse (edited, &error);
    g_test_message ("%s = %s", cases[i].path, cases[i].value);
    if (cases[i].code < 0) {
      g_assert_no_error (error);
      g_assert_nonnull (config);
    } else {
      g_assert_null (config);
      assert_error_is (error, cases[i].code, cases[i].cause);
    }
  }
}

static void
test_values (void)
{
  check_cases (family[0].config, original_cases, G_N_ELEMENTS (original_cases));
  check_cases (hf_4, hf_cases, G_N_ELEMENTS (hf_cases));
  static const struct Case internlm2[] = {
    { "llm_config.bias", "true", UNSUP, "llm_config.bias is true" },
    { "llm_config.bias", NULL, UNSUP, "llm_config.bias is true by default" },
  };
  check_cases (family[1].config, internlm2, G_N_ELEMENTS (internlm2));
}

/* Every key of the two layouts takes every kind of value: never a crash, and an error exactly when there is none. */
static void
test_any_value (void)
{
  static const char *const values[] = { NULL, "null", "true", "0", "-1", "3", "999999999999999999", "1e-300", "1e999",
                                        "\"\"", "\"x\"", "[]", "[[]]", "{}", "[1,1]" };
  const char *const texts[] = { family[0].config, family[1].config, hf_4, hf_5 };
  for (guint t = 0; t < G_N_ELEMENTS (texts); t++) {
    g_autoptr (JsonNode) root = json_from_string (texts[t], NULL);
    g_autoptr (GPtrArray) paths = g_ptr_array_new_with_free_func (g_free);
    g_autoptr (GList) keys = json_object_get_members (json_node_get_object (root));
    for (GList *l = keys; l; l = l->next) {
      g_ptr_array_add (paths, g_strdup (l->data));
      JsonNode *node = json_object_get_member (json_node_get_object (root), l->data);
      if (!JSON_NODE_HOLDS_OBJECT (node))
        continue;
      g_autoptr (GList) inner = json_object_get_members (json_node_get_object (node));
      for (GList *k = inner; k; k = k->next)
        g_ptr_array_add (paths, g_strdup_printf ("%s.%s", (char *) l->data, (char *) k->data));
    }
    for (guint p = 0; p < paths->len; p++)
      for (guint v = 0; v < G_N_ELEMENTS (values); v++) {
        g_autoptr (GError) error = NULL;
        g_autofree char *edited = edit (texts[t], g_ptr_array_index (paths, p), values[v]);
        g_autoptr (IvlConfig) config = parse (edited, &error);
        g_assert_true ((config != NULL) == (error == NULL));
        if (config)
          g_assert_cmpuint (ivl_config_weight_bytes (config, 2), >, 0);
      }
  }
}

static void
test_meaning (void)
{
  static const struct {
    int select;
    guint run;
  } layers[] = { { -1, 24 }, { -2, 23 }, { -4, 21 }, { 24, 24 }, { 23, 23 }, { 0, 0 }, { -25, 0 } };
  g_autoptr (GError) error = NULL;
  for (guint i = 0; i < G_N_ELEMENTS (layers); i++) {
    g_autofree char *value = g_strdup_printf ("%d", layers[i].select);
    g_autofree char *text = edit (family[0].config, "select_layer", value);
    g_autoptr (IvlConfig) config = parse (text, &error);
    g_assert_no_error (error);
    g_assert_cmpuint (config->vision.run_layers, ==, layers[i].run);
    g_assert_cmpuint (config->vision.layers, ==, 24);
  }

  g_autofree char *v1 = edit (family[0].config, "ps_version", NULL);
  g_autofree char *smaller = edit (v1, "force_image_size", "224");
  g_autofree char *spoken = edit (smaller, "system_message", "\"Be brief.\"");
  g_autofree char *tied = edit (spoken, "llm_config.tie_word_embeddings", "true");
  g_autoptr (IvlConfig) config = parse (tied, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (config->ps_version, ==, 1);
  g_assert_cmpuint (config->vision.image_size, ==, 224);
  g_assert_cmpuint (config->vision.grid, ==, 16);
  g_assert_cmpuint (config->vision.n_positions, ==, 1025); /* the checkpoint's table stays that of image_size */
  g_assert_cmpuint (config->tile_tokens, ==, 64);
  g_assert_cmpstr (config->system_message, ==, "Be brief.");
  g_assert_true (config->text.tied && config->text.may_tie);
  g_autoptr (IvlConfig) whole = parse (family[0].config, &error);
  g_assert_cmpuint (ivl_config_count (whole).text - ivl_config_count (config).text, ==, 151674u * 896);

  /* The outer flag of this layout means nothing. */
  g_autofree char *outer = edit (family[0].config, "tie_word_embeddings", "true");
  g_autoptr (IvlConfig) not_tied = parse (outer, &error);
  g_assert_no_error (error);
  g_assert_false (not_tied->text.tied || not_tied->text.may_tie);
}

static void
test_truncated (void)
{
  for (gsize n = 0; n < strlen (hf_4); n++) {
    g_autoptr (GError) error = NULL;
    g_autofree char *copy = n ? g_memdup2 (hf_4, n) : g_malloc (1);
    g_assert_null (ivl_config_parse (copy, n, NULL, 0, &error));
    assert_error_is (error, IVL_ERROR_BAD_MODEL, "config.json: ");
  }
}

static void
test_load (void)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *folder = folder_new ();
  g_assert_null (ivl_config_load (folder, &error));
  assert_error_is (error, IVL_ERROR_BAD_MODEL, "config.json");
  folder_write (folder, "config.json", family[0].config, -1);
  g_autoptr (IvlConfig) config = ivl_config_load (folder, &error);
  g_assert_no_error (error);
  folder_write (folder, "generation_config.json", "{\"eos_token_id\":[7,151645]}", -1);
  g_autoptr (IvlConfig) both = ivl_config_load (folder, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (config->n_eos, ==, 1);
  g_assert_cmpuint (both->n_eos, ==, 2);
  g_assert_cmpuint (both->eos[1], ==, 7);
  folder_write (folder, "generation_config.json", "{", -1);
  g_assert_null (ivl_config_load (folder, &error));
  assert_error_is (error, IVL_ERROR_BAD_MODEL, "generation_config.json: ");
  g_autofree char *big = g_strnfill (5 << 20, ' ');
  folder_write (folder, "config.json", big, -1);
  g_assert_null (ivl_config_load (folder, &error));
  assert_error_is (error, IVL_ERROR_BAD_MODEL, "config.json: 5242880 bytes");
  folder_remove (folder);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/config/family", test_family);
  g_test_add_func ("/config/hf", test_hf);
  g_test_add_func ("/config/generation", test_generation);
  g_test_add_func ("/config/values", test_values);
  g_test_add_func ("/config/any-value", test_any_value);
  g_test_add_func ("/config/meaning", test_meaning);
  g_test_add_func ("/config/truncated", test_truncated);
  g_test_add_func ("/config/load", test_load);
  return g_test_run ();
}
