#include "model/config.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "model/gguf-model.h"
#include "tensor/gguf-pair.h"

#define MAX_CONFIG_BYTES (4u << 20)

/* Widths are walked eight elements at a time, and heads live in registers. */
#define WIDTH_MULTIPLE 8
#define MAX_HEAD_DIM 256

#define MAX_WIDTH (1u << 16)
#define MAX_INTERMEDIATE (1u << 20)
#define MAX_LAYERS 1024
#define MAX_HEADS 1024
#define MAX_GRID 255
#define MAX_VOCAB (1u << 22)
#define MAX_POSITION (1u << 24)
#define MAX_TILES 1024

/* ---- reading values ---- */

/* One object of config.json. The first error is kept: after it, getters return their default and do nothing, so that
 * a section is read from top to bottom and asked once whether it went well. */
typedef struct {
  const char *file;
  GError **error;
  gboolean ok;
} Reader;

typedef struct {
  Reader *reader;
  JsonObject *object;
  const char *path; /* "vision_config.", or "" */
} Section;

G_GNUC_PRINTF (4, 5)
static void
refuse (const Section *s, IvlErrorCode code, const char *key, const char *format, ...)
{
  if (!s->reader->ok)
    return;
  va_list args;
  va_start (args, format);
  g_autofree char *cause = g_strdup_vprintf (format, args);
  va_end (args);
  s->reader->ok = ivl_fail (s->reader->error, code, "%s: %s%s %s", s->reader->file, s->path, key, cause);
}

/* NULL for a key that is missing or null: both mean the default. */
static JsonNode *
get_node (const Section *s, const char *key)
{
  JsonNode *node = s->reader->ok ? json_object_get_member (s->object, key) : NULL;
  return node && !JSON_NODE_HOLDS_NULL (node) ? node : NULL;
}

/* The value as it stands in the file, short enough for a message. */
static char *
show (JsonNode *node)
{
  char *text = json_to_string (node, FALSE);
  if (g_utf8_strlen (text, -1) > 60) {
    char *cut = g_utf8_substring (text, 0, 57);
    g_free (text);
    text = g_strconcat (cut, "...", NULL);
    g_free (cut);
  }
  return text;
}

static gint64
node_int (const Section *s, const char *key, JsonNode *node, gint64 min, gint64 max)
{
  g_autofree char *text = show (node);
  if (json_node_get_value_type (node) != G_TYPE_INT64)
    refuse (s, IVL_ERROR_BAD_MODEL, key, "is %s, not an integer", text);
  else if (json_node_get_int (node) < min || json_node_get_int (node) > max)
    refuse (s, IVL_ERROR_BAD_MODEL, key, "is %s, not in %" G_GINT64_FORMAT "..%" G_GINT64_FORMAT, text, min, max);
  else
    return json_node_get_int (node);
  return min;
}

static gint64
get_int (const Section *s, const char *key, gint64 fallback, gint64 min, gint64 max)
{
  JsonNode *node = get_node (s, key);
  return node ? node_int (s, key, node, min, max) : fallback;
}

static guint
get_size (const Section *s, const char *key, guint fallback, guint max)
{
  guint value = (guint) get_int (s, key, fallback, 1, max);
  return s->reader->ok ? value : 1;
}

/* A width that kernels walk through. */
static guint
get_width (const Section *s, const char *key, guint fallback, guint max)
{
  guint value = get_size (s, key, fallback, max);
  if (value % WIDTH_MULTIPLE)
    refuse (s, IVL_ERROR_UNSUPPORTED, key, "is %u; this engine needs a multiple of %d", value, WIDTH_MULTIPLE);
  return value;
}

static double
get_double (const Section *s, const char *key, double fallback, double min, double max)
{
  JsonNode *node = get_node (s, key);
  if (!node)
    return fallback;
  GType type = json_node_get_value_type (node);
  g_autofree char *text = show (node);
  /* Written so that a NaN fails, too. */
  if (type != G_TYPE_DOUBLE && type != G_TYPE_INT64)
    refuse (s, IVL_ERROR_BAD_MODEL, key, "is %s, not a number", text);
  else if (!(json_node_get_double (node) >= min && json_node_get_double (node) <= max))
    refuse (s, IVL_ERROR_BAD_MODEL, key, "is %s, not in %g..%g", text, min, max);
  else
    return json_node_get_double (node);
  return fallback;
}

static gboolean
get_bool (const Section *s, const char *key, gboolean fallback)
{
  JsonNode *node = get_node (s, key);
  if (!node)
    return fallback;
  if (json_node_get_value_type (node) == G_TYPE_BOOLEAN)
    return json_node_get_boolean (node);
  g_autofree char *text = show (node);
  refuse (s, IVL_ERROR_BAD_MODEL, key, "is %s, not true or false", text);
  return fallback;
}

/* Borrowed from the JSON. */
static const char *
get_string (const Section *s, const char *key, const char *fallback)
{
  JsonNode *node = get_node (s, key);
  if (!node)
    return fallback;
  if (json_node_get_value_type (node) == G_TYPE_STRING)
    return json_node_get_string (node);
  g_autofree char *text = show (node);
  refuse (s, IVL_ERROR_BAD_MODEL, key, "is %s, not a string", text);
  return fallback;
}

/* FALSE if there is no such object; one of another type is an error. */
static gboolean
get_section (const Section *s, const char *key, const char *path, Section *out)
{
  JsonNode *node = get_node (s, key);
  if (!node)
    return FALSE;
  if (!JSON_NODE_HOLDS_OBJECT (node)) {
    refuse (s, IVL_ERROR_BAD_MODEL, key, "isn't an object");
    return FALSE;
  }
  *out = (Section){ s->reader, json_node_get_object (node), path };
  return TRUE;
}

/* What the engine does in one way only. */
static void
need_string (const Section *s, const char *key, const char *fallback, const char *only)
{
  const char *value = get_string (s, key, fallback);
  if (s->reader->ok && strcmp (value, only) != 0) {
    g_autofree char *text = get_node (s, key) ? show (get_node (s, key)) : g_strdup (value);
    refuse (s, IVL_ERROR_UNSUPPORTED, key, "is %s; this engine does \"%s\" only", text, only);
  }
}

static void
need_bool (const Section *s, const char *key, gboolean fallback, gboolean only)
{
  if (get_bool (s, key, fallback) != only)
    refuse (s, IVL_ERROR_UNSUPPORTED, key, "is %s%s; this engine does %s only", only ? "false" : "true",
            get_node (s, key) ? "" : " by default", only ? "true" : "false");
}

static void
need_int (const Section *s, const char *key, gint64 fallback, gint64 only, const char *why)
{
  JsonNode *node = get_node (s, key);
  if (node && json_node_get_value_type (node) == G_TYPE_BOOLEAN && json_node_get_boolean (node) == only)
    return;
  gint64 value = get_int (s, key, fallback, G_MININT32, G_MAXINT32);
  if (s->reader->ok && value != only)
    refuse (s, IVL_ERROR_UNSUPPORTED, key, "is %" G_GINT64_FORMAT "; %s", value, why);
}

/* architectures[0], or NULL. */
static const char *
get_architecture (const Section *s)
{
  JsonNode *node = get_node (s, "architectures");
  if (!node)
    return NULL;
  JsonArray *array = JSON_NODE_HOLDS_ARRAY (node) ? json_node_get_array (node) : NULL;
  if (!array || json_array_get_length (array) == 0
      || json_node_get_value_type (json_array_get_element (array, 0)) != G_TYPE_STRING) {
    refuse (s, IVL_ERROR_BAD_MODEL, "architectures", "isn't a list of names");
    return NULL;
  }
  return json_array_get_string_element (array, 0);
}

/* An integer, or a list of two equal ones (height, width). */
static guint
get_square (const Section *s, const char *key, guint fallback, guint max)
{
  JsonNode *node = get_node (s, key);
  if (!node || !JSON_NODE_HOLDS_ARRAY (node))
    return get_size (s, key, fallback, max);
  JsonArray *array = json_node_get_array (node);
  g_autofree char *text = show (node);
  if (json_array_get_length (array) != 2) {
    refuse (s, IVL_ERROR_BAD_MODEL, key, "is %s, not one or two integers", text);
    return 1;
  }
  gint64 height = node_int (s, key, json_array_get_element (array, 0), 1, max);
  gint64 width = s->reader->ok ? node_int (s, key, json_array_get_element (array, 1), 1, max) : height;
  if (height != width)
    refuse (s, IVL_ERROR_UNSUPPORTED, key, "is %s; this engine does squares only", text);
  return (guint) height;
}

static guint
divide (const Section *s, const char *key, guint value, const char *by_key, guint by)
{
  if (value % by == 0)
    return value / by;
  refuse (s, IVL_ERROR_BAD_MODEL, key, "(%u) isn't a multiple of %s (%u)", value, by_key, by);
  return 1;
}

/* ---- sections ---- */

static void
check_head_dim (const Section *s, const char *key, guint head_dim)
{
  if (head_dim % WIDTH_MULTIPLE || head_dim > MAX_HEAD_DIM)
    refuse (s, IVL_ERROR_UNSUPPORTED, key, "makes heads of %u; this engine does multiples of %d up to %d", head_dim,
            WIDTH_MULTIPLE, MAX_HEAD_DIM);
}

static void
read_vision (const Section *s, IvlConfig *config, guint tile_size)
{
  gboolean hf = config->layout == IVL_LAYOUT_HF;
  /* Defaults of InternVisionConfig (the 6B of another generation) and InternVLVisionConfig. */
  config->vision.hidden = get_width (s, "hidden_size", hf ? 1024 : 3200, MAX_WIDTH);
  config->vision.layers = get_size (s, "num_hidden_layers", hf ? 24 : 48, MAX_LAYERS);
  config->vision.heads = get_size (s, "num_attention_heads", hf ? 16 : 25, MAX_HEADS);
  config->vision.intermediate = get_width (s, "intermediate_size", hf ? 4096 : 12800, MAX_INTERMEDIATE);
  config->vision.head_dim = divide (s, "hidden_size", config->vision.hidden, "num_attention_heads", config->vision.heads);
  check_head_dim (s, "num_attention_heads", config->vision.head_dim);
  config->vision.eps = get_double (s, "layer_norm_eps", 1e-6, 1e-12, 0.1);
  config->vision.qkv_bias = get_bool (s, hf ? "attention_bias" : "qkv_bias", FALSE);
  config->vision.qk_norm = get_bool (s, hf ? "use_qk_norm" : "qk_normalization", !hf);
  need_string (s, "hidden_act", "gelu", "gelu");
  need_int (s, "num_channels", 3, 3, "this engine does 3 only");
  need_bool (s, "use_absolute_position_embeddings", TRUE, TRUE);
  /* FALSE puts a LayerNorm behind the encoder. */
  need_bool (s, "use_mean_pooling", TRUE, TRUE);

  const char *norm = get_string (s, "norm_type", hf ? "layer_norm" : "rms_norm");
  if (s->reader->ok && strcmp (norm, "layer_norm") && strcmp (norm, "rms_norm")) {
    g_autofree char *text = show (get_node (s, "norm_type"));
    refuse (s, IVL_ERROR_UNSUPPORTED, "norm_type", "is %s; this engine does \"layer_norm\" and \"rms_norm\"", text);
  }
  config->vision.norm = norm && strcmp (norm, "rms_norm") == 0 ? IVL_NORM_RMS : IVL_NORM_LAYER;

  guint image_size = get_square (s, "image_size", hf ? 448 : 224, 1u << 16);
  config->vision.patch_size = get_square (s, "patch_size", 14, 256);
  config->vision.image_size = tile_size ? tile_size : image_size;
  guint table = divide (s, "image_size", image_size, "patch_size", config->vision.patch_size);
  config->vision.grid = divide (s, "image_size", config->vision.image_size, "patch_size", config->vision.patch_size);
  if (MAX (table, config->vision.grid) > MAX_GRID)
    refuse (s, IVL_ERROR_UNSUPPORTED, "image_size", "makes more than %d patches a side", MAX_GRID);
  else
    config->vision.n_positions = 1 + table * table;
}

/* select_layer and vision_feature_layer index [embeddings, after layer 0, ..., after layer L - 1]. */
static void
read_select_layer (const Section *s, const char *key, IvlConfig *config)
{
  int layers = (int) config->vision.layers;
  int select = (int) get_int (s, key, -1, -layers - 1, layers);
  config->vision.run_layers = (guint) (select < 0 ? layers + 1 + select : select);
}

/* Positions in the manner of transformers 4 (rope_theta, rope_scaling) or 5 (rope_parameters). */
static void
read_rope (const Section *s, IvlConfig *config)
{
  Section scaling;
  g_autofree char *path = g_strconcat (s->path, "rope_parameters.", NULL);
  g_autofree char *old_path = g_strconcat (s->path, "rope_scaling.", NULL);
  gboolean newer = get_section (s, "rope_parameters", path, &scaling);
  const Section *theta = newer && json_object_has_member (scaling.object, "rope_theta") ? &scaling : s;
  config->text.rope_theta = get_double (theta, "rope_theta", 1e4, 1, 1e12);
  config->text.rope_scaling = IVL_ROPE_PLAIN;
  config->text.rope_factor = 1;
  if (!newer && !get_section (s, "rope_scaling", old_path, &scaling))
    return;

  const char *key = json_object_has_member (scaling.object, "rope_type") ? "rope_type" : "type";
  const char *type = get_string (&scaling, key, newer ? "default" : NULL);
  if (!s->reader->ok)
    return;
  if (!type) {
    refuse (&scaling, IVL_ERROR_BAD_MODEL, key, "is missing");
    return;
  }
  if (get_double (&scaling, "partial_rotary_factor", 1, 0, 1) != 1)
    refuse (&scaling, IVL_ERROR_UNSUPPORTED, "partial_rotary_factor", "isn't 1");
  if (strcmp (type, "default") == 0)
    return;
  if (strcmp (type, "linear") == 0)
    config->text.rope_scaling = IVL_ROPE_LINEAR;
  else if (strcmp (type, "dynamic") == 0)
    config->text.rope_scaling = IVL_ROPE_DYNAMIC;
  else {
    g_autofree char *text = show (get_node (&scaling, key));
    refuse (&scaling, IVL_ERROR_UNSUPPORTED, key, "is %s; this engine does \"default\", \"linear\" and \"dynamic\"",
            text);
    return;
  }
  if (!get_node (&scaling, "factor"))
    refuse (&scaling, IVL_ERROR_BAD_MODEL, "factor", "is missing");
  config->text.rope_factor = get_double (&scaling, "factor", 1, 1, 1e4);
}

static void
read_text_arch (const Section *s, IvlConfig *config)
{
  static const struct {
    const char *class_name, *model_type;
    IvlTextArch arch;
  } known[] = {
    { "Qwen2ForCausalLM", "qwen2", IVL_TEXT_QWEN2 },
    { "InternLM2ForCausalLM", "internlm2", IVL_TEXT_INTERNLM2 },
    { "LlamaForCausalLM", "llama", IVL_TEXT_LLAMA },
  };
  /* The original layout goes by class, -hf by type; either may be all there is. */
  const char *class_name = get_architecture (s), *type = get_string (s, "model_type", NULL);
  gboolean hf = config->layout == IVL_LAYOUT_HF;
  if (!s->reader->ok)
    return;
  if (!class_name && !type && hf)
    type = "qwen2";
  gboolean by_class = class_name && !(hf && type);
  for (guint i = 0; i < G_N_ELEMENTS (known); i++)
    if (by_class ? strcmp (class_name, known[i].class_name) == 0 : type && strcmp (type, known[i].model_type) == 0) {
      config->text.arch = known[i].arch;
      if (hf && known[i].arch == IVL_TEXT_INTERNLM2)
        break;
      return;
    }
  if (!class_name && !type) {
    refuse (s, IVL_ERROR_BAD_MODEL, "architectures", "is missing");
    return;
  }
  g_autofree char *text = show (get_node (s, by_class ? "architectures" : "model_type"));
  refuse (s, IVL_ERROR_UNSUPPORTED, by_class ? "architectures" : "model_type",
          "is %s; this engine does Qwen2, InternLM2 and Llama", text);
}

static void
read_text (const Section *s, IvlConfig *config)
{
  read_text_arch (s, config);
  gboolean qwen2 = config->text.arch == IVL_TEXT_QWEN2, internlm2 = config->text.arch == IVL_TEXT_INTERNLM2;
  config->text.hidden = get_width (s, "hidden_size", 4096, MAX_WIDTH);
  config->text.layers = get_size (s, "num_hidden_layers", 32, MAX_LAYERS);
  config->text.heads = get_size (s, "num_attention_heads", 32, MAX_HEADS);
  config->text.kv_heads = get_size (s, "num_key_value_heads", qwen2 ? 32 : config->text.heads, MAX_HEADS);
  config->text.intermediate = get_width (s, "intermediate_size", qwen2 ? 22016 : 11008, MAX_INTERMEDIATE);
  config->text.vocab = get_size (s, "vocab_size", qwen2 ? 151936 : internlm2 ? 103168 : 32000, MAX_VOCAB);
  config->text.max_position = get_size (s, "max_position_embeddings", qwen2 ? 32768 : 2048, MAX_POSITION);
  config->text.rms_eps = get_double (s, "rms_norm_eps", 1e-6, 1e-12, 0.1);
  config->text.qkv_bias = qwen2;
  config->text.tied = get_bool (s, "tie_word_embeddings", FALSE);
  if (get_node (s, "head_dim"))
    config->text.head_dim = get_size (s, "head_dim", 0, MAX_WIDTH);
  else
    config->text.head_dim = divide (s, "hidden_size", config->text.hidden, "num_attention_heads", config->text.heads);
  check_head_dim (s, get_node (s, "head_dim") ? "head_dim" : "num_attention_heads", config->text.head_dim);
  if (config->text.heads % config->text.kv_heads)
    refuse (s, IVL_ERROR_UNSUPPORTED, "num_key_value_heads", "is %u; this engine needs a divisor of the %u heads",
            config->text.kv_heads, config->text.heads);
  need_string (s, "hidden_act", "silu", "silu");
  need_bool (s, "use_sliding_window", FALSE, FALSE);
  if (internlm2)
    need_bool (s, "bias", TRUE, FALSE);
  if (config->text.arch == IVL_TEXT_LLAMA) {
    need_bool (s, "attention_bias", FALSE, FALSE);
    need_bool (s, "mlp_bias", FALSE, FALSE);
  }
  read_rope (s, config);
}

static IvlTensorDtype
read_dtype (const Section *s)
{
  static const char *const names[] = { "float32", "float16", "bfloat16" };
  const char *name = get_string (s, "torch_dtype", NULL);
  if (!name)
    name = get_string (s, "dtype", NULL);
  for (guint i = 0; name && i < G_N_ELEMENTS (names); i++)
    if (g_str_equal (name, names[i]))
      return (IvlTensorDtype) i;
  return IVL_TENSOR_OTHER;
}

static void
add_eos (const Section *s, const char *key, JsonNode *node, IvlConfig *config)
{
  gint64 id = node_int (s, key, node, G_MININT32, G_MAXINT32);
  /* Ids beyond the vocabulary can't be generated, and -1 stands for none. */
  if (!s->reader->ok || id < 0 || id >= config->text.vocab)
    return;
  for (guint i = 0; i < config->n_eos; i++)
    if (config->eos[i] == id)
      return;
  if (config->n_eos == IVL_CONFIG_MAX_EOS)
    refuse (s, IVL_ERROR_UNSUPPORTED, key, "has more than %d ids", IVL_CONFIG_MAX_EOS);
  else
    config->eos[config->n_eos++] = (guint32) id;
}

static void
read_eos (const Section *s, IvlConfig *config)
{
  const char *key = "eos_token_id";
  JsonNode *node = get_node (s, key);
  if (!node)
    return;
  if (!JSON_NODE_HOLDS_ARRAY (node)) {
    add_eos (s, key, node, config);
    return;
  }
  JsonArray *array = json_node_get_array (node);
  for (guint i = 0; i < json_array_get_length (array) && s->reader->ok; i++)
    add_eos (s, key, json_array_get_element (array, i), config);
}

/* ---- layouts ---- */

static void
read_original (const Section *s, const Section *vision, const Section *text, IvlConfig *config)
{
  need_int (s, "use_backbone_lora", 0, 0, "LoRA weights aren't merged by this engine: merge them into the model");
  need_int (s, "use_llm_lora", 0, 0, "LoRA weights aren't merged by this engine: merge them into the model");
  read_vision (vision, config, get_node (s, "force_image_size") ? get_size (s, "force_image_size", 0, 1u << 16) : 0);
  read_select_layer (s, "select_layer", config);
  read_text (text, config);

  const char *ps = get_string (s, "ps_version", "v1");
  config->ps_version = s->reader->ok && strcmp (ps, "v1") == 0 ? 1 : 2;
  if (s->reader->ok && config->ps_version == 2 && strcmp (ps, "v2") != 0) {
    g_autofree char *value = show (get_node (s, "ps_version"));
    refuse (s, IVL_ERROR_UNSUPPORTED, "ps_version", "is %s; this engine does \"v1\" and \"v2\"", value);
  }
  config->dynamic_image_size = get_bool (s, "dynamic_image_size", FALSE);
  config->use_thumbnail = get_bool (s, "use_thumbnail", FALSE);
  config->min_dynamic_patch = get_size (s, "min_dynamic_patch", 1, MAX_TILES);
  config->max_dynamic_patch = get_size (s, "max_dynamic_patch", 6, MAX_TILES);
  if (config->min_dynamic_patch > config->max_dynamic_patch)
    refuse (s, IVL_ERROR_BAD_MODEL, "min_dynamic_patch", "(%u) is above max_dynamic_patch (%u)",
            config->min_dynamic_patch, config->max_dynamic_patch);
  config->template_name = g_strdup (get_string (s, "template", NULL));
  config->system_message = g_strdup (get_string (s, "system_message", NULL));
  /* The class forces the outer value to false, so only the text model's own can mean anything. */
  config->text.may_tie = config->text.tied;
}

static void
read_hf (const Section *s, const Section *vision, const Section *text, IvlConfig *config)
{
  read_vision (vision, config, 0);
  read_select_layer (s, "vision_feature_layer", config);
  read_text (text, config);
  need_string (s, "vision_feature_select_strategy", "default", "default");
  need_string (s, "projector_hidden_act", "gelu", "gelu");
  config->ps_version = 2;
  /* These live in the processor's file, whose values are those of the family. */
  config->dynamic_image_size = TRUE;
  config->use_thumbnail = TRUE;
  config->min_dynamic_patch = 1;
  config->max_dynamic_patch = 12;
  config->text.may_tie = get_bool (s, "tie_word_embeddings", TRUE) || config->text.tied;
}

static void
read_layout (const Section *s, Section *vision, Section *text, IvlConfig *config)
{
  const char *class_name = get_architecture (s), *type = get_string (s, "model_type", NULL);
  gboolean original = json_object_has_member (s->object, "llm_config");
  config->layout = original ? IVL_LAYOUT_ORIGINAL : IVL_LAYOUT_HF;
  const char *expected_class = original ? "InternVLChatModel" : "InternVLForConditionalGeneration";
  const char *expected_type = original ? "internvl_chat" : "internvl";
  if (!s->reader->ok)
    return;
  gboolean wrong_class = class_name && strcmp (class_name, expected_class) != 0;
  if (wrong_class || (type && strcmp (type, expected_type) != 0) || (!class_name && !type)) {
    const char *key = wrong_class ? "architectures" : "model_type";
    g_autofree char *value = get_node (s, key) ? show (get_node (s, key)) : g_strdup ("missing");
    refuse (s, IVL_ERROR_UNSUPPORTED, key, "is %s; this engine runs InternVLChatModel (with llm_config) and "
            "InternVLForConditionalGeneration (with text_config)", value);
    return;
  }
  if (!get_section (s, "vision_config", "vision_config.", vision))
    refuse (s, IVL_ERROR_BAD_MODEL, "vision_config", "is missing");
  if (!get_section (s, original ? "llm_config" : "text_config", original ? "llm_config." : "text_config.", text))
    refuse (s, IVL_ERROR_BAD_MODEL, original ? "llm_config" : "text_config", "is missing");
}

static void
read_config (const Section *s, IvlConfig *config)
{
  Section vision, text;
  read_layout (s, &vision, &text, config);
  if (!s->reader->ok)
    return;
  if (config->layout == IVL_LAYOUT_ORIGINAL)
    read_original (s, &vision, &text, config);
  else
    read_hf (s, &vision, &text, config);

  if (get_double (s, "downsample_ratio", 0.5, 0, 1e3) != 0.5) {
    g_autofree char *value = show (get_node (s, "downsample_ratio"));
    refuse (s, IVL_ERROR_UNSUPPORTED, "downsample_ratio", "is %s; this engine does 0.5 only", value);
  }
  config->downsample = 2;
  if (config->vision.grid % config->downsample)
    refuse (&vision, IVL_ERROR_UNSUPPORTED, "image_size", "makes %u patches a side; this engine needs an even number",
            config->vision.grid);
  guint side = config->vision.grid / config->downsample;
  config->tile_tokens = side * side;
  if (get_int (s, "image_seq_length", config->tile_tokens, 1, G_MAXINT32) != config->tile_tokens)
    refuse (s, IVL_ERROR_BAD_MODEL, "image_seq_length", "contradicts the %u tokens that image_size and patch_size make",
            config->tile_tokens);

  config->dtype = read_dtype (s);
  if (config->dtype == IVL_TENSOR_OTHER)
    config->dtype = read_dtype (&text);
  read_eos (s, config);
  read_eos (&text, config);
  /* What the classes of InternLM2 and Llama have, and files saved as differences leave out. */
  if (config->text.arch != IVL_TEXT_QWEN2 && !json_object_has_member (text.object, "eos_token_id")
      && config->n_eos == 0)
    config->eos[config->n_eos++] = 2;
}

IvlConfig *
ivl_config_parse (const char *config_text, gsize config_bytes, const char *generation, gsize generation_bytes,
                  GError **error)
{
  g_autoptr (JsonObject) root = ivl_json_parse_object ("config.json", config_text, config_bytes, error);
  if (!root)
    return NULL;
  g_autoptr (IvlConfig) config = g_new0 (IvlConfig, 1);
  Reader reader = { "config.json", error, TRUE };
  Section top = { &reader, root, "" };
  read_config (&top, config);
  if (!reader.ok)
    return NULL;
  if (generation) {
    reader.file = "generation_config.json";
    g_autoptr (JsonObject) object = ivl_json_parse_object (reader.file, generation, generation_bytes, error);
    if (!object)
      return NULL;
    top.object = object;
    read_eos (&top, config);
    if (!reader.ok)
      return NULL;
  }
  return g_steal_pointer (&config);
}

IvlConfig *
ivl_config_load (const char *folder, GError **error)
{
  const char *optional = "generation_config.json";
  if (ivl_gguf_pair_is (folder)) {
    g_autoptr (IvlGgufModel) model = ivl_gguf_model_open (folder, error);
    return model ? ivl_gguf_model_config (model, error) : NULL;
  }
  g_autoptr (GBytes) generation = NULL;
  g_autoptr (GBytes) text = ivl_file_read (folder, "config.json", MAX_CONFIG_BYTES, error);
  if (!text)
    return NULL;
  if (ivl_file_exists (folder, optional) && !(generation = ivl_file_read (folder, optional, MAX_CONFIG_BYTES, error)))
    return NULL;
  return ivl_config_parse (g_bytes_get_data (text, NULL), g_bytes_get_size (text),
                           generation ? g_bytes_get_data (generation, NULL) : NULL,
                           generation ? g_bytes_get_size (generation) : 0, error);
}

void
ivl_config_free (IvlConfig *config)
{
  if (!config)
    return;
  g_free (config->template_name);
  g_free (config->system_message);
  g_free (config);
}

/* ---- sizes ---- */

IvlParameterCount
ivl_config_count (const IvlConfig *config)
{
  guint64 c = config->vision.hidden, f = config->vision.intermediate, h = config->text.hidden;
  guint64 norm = config->vision.norm == IVL_NORM_LAYER ? 2 * c : c;
  guint64 layer = 2 * norm + 2 * c                                                    /* norms, LayerScale */
                  + 3 * c * c + (config->vision.qkv_bias ? 3 * c : 0)                 /* qkv */
                  + (config->vision.qk_norm ? 2 * c : 0) + c * c + c                  /* proj */
                  + 2 * c * f + f + c;                                                /* fc1, fc2 */
  guint64 patch = 3ull * config->vision.patch_size * config->vision.patch_size;
  IvlParameterCount count;
  count.vision = config->vision.run_layers * layer + c * patch + c + c + config->vision.n_positions * c;

  guint64 wide = c * config->downsample * config->downsample;
  count.projector = 2 * wide + wide * h + h + h * h + h;

  guint64 q = (guint64) config->text.heads * config->text.head_dim;
  guint64 kv = (guint64) config->text.kv_heads * config->text.head_dim;
  guint64 text_layer = 2 * h + (q + 2 * kv) * h + (config->text.qkv_bias ? q + 2 * kv : 0) + q * h
                       + 3 * h * config->text.intermediate;
  guint64 table = (guint64) config->text.vocab * h;
  count.text = config->text.layers * text_layer + h + (config->text.tied ? table : 2 * table);
  return count;
}

guint64
ivl_config_weight_bytes (const IvlConfig *config, guint bytes_per_weight)
{
  IvlParameterCount count = ivl_config_count (config);
  return (count.vision + count.projector + count.text) * bytes_per_weight;
}

guint64
ivl_config_kv_bytes_per_token (const IvlConfig *config, guint bytes_per_value)
{
  return 2ull * config->text.layers * config->text.kv_heads * config->text.head_dim * bytes_per_value;
}

char *
ivl_config_describe (const IvlConfig *config)
{
  static const char *const names[] = { "Qwen2", "InternLM2", "Llama" };
  return g_strdup_printf ("InternViT %ux%u + %s %ux%u", config->vision.layers, config->vision.hidden,
                          names[config->text.arch], config->text.layers, config->text.hidden);
}
