/* The logical tensors of a checkpoint: the same model in every layout reads the same, and what is missing, misshapen
 * or damaged is named. */
#include "model/checkpoint.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "tensor-file.h"

/* ---- a small model ---- */

#define C 16   /* vision: width, heads of 8, FFN */
#define F 24
#define H 32   /* text: width, 4 query and 2 kv heads of 8, FFN, vocabulary */
#define Q 32
#define K 16
#define FFN 40
#define V 11
#define LAYERS 2
#define PATCH 588
#define GRID 4

typedef struct {
  gboolean hf, newer; /* newer: the second generation of -hf prefixes */
  gboolean internlm2, rms, own_head;
  IvlTensorDtype dtype;
} Kind;

static const Kind kinds[] = {
  { .internlm2 = FALSE, .own_head = TRUE, .dtype = IVL_TENSOR_F32 },
  { .internlm2 = TRUE, .own_head = TRUE, .rms = TRUE, .dtype = IVL_TENSOR_BF16 },
  { .internlm2 = FALSE, .dtype = IVL_TENSOR_F16, .rms = TRUE },
  { .hf = TRUE, .own_head = TRUE, .dtype = IVL_TENSOR_BF16 },
  { .hf = TRUE, .newer = TRUE, .internlm2 = TRUE, .rms = TRUE, .own_head = TRUE, .dtype = IVL_TENSOR_F32 },
  { .hf = TRUE, .newer = TRUE, .dtype = IVL_TENSOR_F16 },
};

/* The logical matrices and vectors; the values of a tensor are made from these names. */
static const struct {
  const char *name;
  guint rows, cols;
} matrices[IVL_N_MATRICES] = {
  [IVL_MATRIX_VIT_PATCH] = { "patch", C, PATCH },
  [IVL_MATRIX_VIT_QKV] = { "vit-qkv", 3 * C, C },
  [IVL_MATRIX_VIT_PROJ] = { "vit-proj", C, C },
  [IVL_MATRIX_VIT_FC1] = { "vit-fc1", F, C },
  [IVL_MATRIX_VIT_FC2] = { "vit-fc2", C, F },
  [IVL_MATRIX_MLP1] = { "mlp1", H, 4 * C },
  [IVL_MATRIX_MLP3] = { "mlp3", H, H },
  [IVL_MATRIX_TEXT_EMBED] = { "embed", V, H },
  [IVL_MATRIX_TEXT_QKV] = { "qkv", Q + 2 * K, H },
  [IVL_MATRIX_TEXT_O] = { "o", H, Q },
  [IVL_MATRIX_TEXT_GATE] = { "gate", FFN, H },
  [IVL_MATRIX_TEXT_UP] = { "up", FFN, H },
  [IVL_MATRIX_TEXT_GATE_UP] = { NULL, 2 * FFN, H },
  [IVL_MATRIX_TEXT_DOWN] = { "down", H, FFN },
  [IVL_MATRIX_TEXT_HEAD] = { "head", V, H },
};

static const struct {
  const char *name;
  guint size;
} vectors[IVL_N_VECTORS] = {
  [IVL_VECTOR_VIT_CLASS] = { "class", C },
  [IVL_VECTOR_VIT_POSITION] = { "position", (1 + GRID * GRID) * C },
  [IVL_VECTOR_VIT_PATCH_BIAS] = { "patch-bias", C },
  [IVL_VECTOR_VIT_NORM1_WEIGHT] = { "norm1", C },
  [IVL_VECTOR_VIT_NORM1_BIAS] = { "norm1-bias", C },
  [IVL_VECTOR_VIT_QKV_BIAS] = { "vit-qkv-bias", 3 * C },
  [IVL_VECTOR_VIT_Q_NORM] = { "q-norm", C },
  [IVL_VECTOR_VIT_K_NORM] = { "k-norm", C },
  [IVL_VECTOR_VIT_PROJ_BIAS] = { "proj-bias", C },
  [IVL_VECTOR_VIT_LS1] = { "ls1", C },
  [IVL_VECTOR_VIT_NORM2_WEIGHT] = { "norm2", C },
  [IVL_VECTOR_VIT_NORM2_BIAS] = { "norm2-bias", C },
  [IVL_VECTOR_VIT_FC1_BIAS] = { "fc1-bias", F },
  [IVL_VECTOR_VIT_FC2_BIAS] = { "fc2-bias", C },
  [IVL_VECTOR_VIT_LS2] = { "ls2", C },
  [IVL_VECTOR_MLP_NORM_WEIGHT] = { "mlp-norm", 4 * C },
  [IVL_VECTOR_MLP_NORM_BIAS] = { "mlp-norm-bias", 4 * C },
  [IVL_VECTOR_MLP1_BIAS] = { "mlp1-bias", H },
  [IVL_VECTOR_MLP3_BIAS] = { "mlp3-bias", H },
  [IVL_VECTOR_TEXT_INPUT_NORM] = { "input-norm", H },
  [IVL_VECTOR_TEXT_QKV_BIAS] = { "qkv-bias", Q + 2 * K },
  [IVL_VECTOR_TEXT_POST_NORM] = { "post-norm", H },
  [IVL_VECTOR_TEXT_FINAL_NORM] = { "final-norm", H },
};

/* What tensor_file_value makes the values of a logical tensor of. */
static char *
seed (const char *logical, guint layer)
{
  return g_strdup_printf ("%s %u", logical, layer);
}

/* What to do with one tensor while a model is written. */
typedef struct {
  const char *leave_out; /* full name */
  const char *grow;      /* one row more than it should have */
  int shards, shard;     /* writes every SHARDS-th tensor, from SHARD on; 0: all */
} Fault;

typedef struct {
  const Kind *kind;
  TensorFile *file;
  Fault fault;
  GPtrArray *names; /* of everything the model has */
} Writer;

/* Rows [FIRST, FIRST + ROWS) of a logical matrix, or elements of a vector with COLS 1, under NAME. ORDER: the logical
 * row of each row, or NULL. LEAD is put before the shape. */
static void
put_rows (Writer *w, const char *prefix, const char *name, guint layer, const char *logical, const char *lead,
          guint first, guint rows, guint cols, const guint *order)
{
  g_auto (GStrv) around = g_strsplit (name, "*", 2);
  g_autofree char *full = around[1] ? g_strdup_printf ("%s%s%u%s", prefix, around[0], layer, around[1])
                                    : g_strconcat (prefix, name, NULL);
  guint index = w->names->len;
  g_ptr_array_add (w->names, g_strdup (full));
  if (g_strcmp0 (full, w->fault.leave_out) == 0
      || (w->fault.shards && (int) index % w->fault.shards != w->fault.shard))
    return;
  guint more = g_strcmp0 (full, w->fault.grow) == 0;
  g_autofree float *values = g_new0 (float, (gsize) (rows + more) * cols);
  g_autofree char *name_of_values = seed (logical, layer);
  for (guint r = 0; r < rows; r++)
    for (guint c = 0; c < cols; c++)
      values[r * cols + c] = tensor_file_value (name_of_values, (gsize) ((order ? order[r] : r) + first) * cols + c);
  g_autofree char *shape = cols == 1       ? g_strdup_printf ("%s%u", lead, rows + more)
                           : cols == PATCH ? g_strdup_printf ("%ux3x14x14", rows + more)
                                           : g_strdup_printf ("%s%ux%u", lead, rows + more, cols);
  tensor_file_add (w->file, full, w->kind->dtype, shape, values);
}

static void
put_matrix (Writer *w, const char *prefix, const char *name, guint layer, IvlMatrixId id)
{
  put_rows (w, prefix, name, layer, matrices[id].name, "", 0, matrices[id].rows, matrices[id].cols, NULL);
}

static void
put_vector (Writer *w, const char *prefix, const char *name, guint layer, IvlVectorId id)
{
  put_rows (w, prefix, name, layer, vectors[id].name, "", 0, vectors[id].size, 1, NULL);
}

static void
put_vision_layer (Writer *w, const char *p, guint i)
{
  gboolean hf = w->kind->hf, rms = w->kind->rms;
#define N(original, hf_name) (hf ? "encoder.layer.*." hf_name : "encoder.layers.*." original)
  if (hf) {
    static const char *const parts[] = { "q", "k", "v" };
    for (guint k = 0; k < 3; k++) {
      g_autofree char *weight = g_strdup_printf ("encoder.layer.*.attention.%s_proj.weight", parts[k]);
      g_autofree char *bias = g_strdup_printf ("encoder.layer.*.attention.%s_proj.bias", parts[k]);
      put_rows (w, p, weight, i, "vit-qkv", "", k * C, C, C, NULL);
      if (!rms)
        put_rows (w, p, bias, i, "vit-qkv-bias", "", k * C, C, 1, NULL);
    }
  } else {
    put_matrix (w, p, "encoder.layers.*.attn.qkv.weight", i, IVL_MATRIX_VIT_QKV);
    if (!rms)
      put_vector (w, p, "encoder.layers.*.attn.qkv.bias", i, IVL_VECTOR_VIT_QKV_BIAS);
  }
  put_vector (w, p, N ("norm1.weight", "layernorm_before.weight"), i, IVL_VECTOR_VIT_NORM1_WEIGHT);
  put_vector (w, p, N ("norm2.weight", "layernorm_after.weight"), i, IVL_VECTOR_VIT_NORM2_WEIGHT);
  if (rms) {
    put_vector (w, p, N ("attn.q_norm.weight", "attention.q_norm.weight"), i, IVL_VECTOR_VIT_Q_NORM);
    put_vector (w, p, N ("attn.k_norm.weight", "attention.k_norm.weight"), i, IVL_VECTOR_VIT_K_NORM);
  } else {
    put_vector (w, p, N ("norm1.bias", "layernorm_before.bias"), i, IVL_VECTOR_VIT_NORM1_BIAS);
    put_vector (w, p, N ("norm2.bias", "layernorm_after.bias"), i, IVL_VECTOR_VIT_NORM2_BIAS);
  }
  put_matrix (w, p, N ("attn.proj.weight", "attention.projection_layer.weight"), i, IVL_MATRIX_VIT_PROJ);
  put_vector (w, p, N ("attn.proj.bias", "attention.projection_layer.bias"), i, IVL_VECTOR_VIT_PROJ_BIAS);
  put_matrix (w, p, N ("mlp.fc1.weight", "mlp.fc1.weight"), i, IVL_MATRIX_VIT_FC1);
  put_vector (w, p, N ("mlp.fc1.bias", "mlp.fc1.bias"), i, IVL_VECTOR_VIT_FC1_BIAS);
  put_matrix (w, p, N ("mlp.fc2.weight", "mlp.fc2.weight"), i, IVL_MATRIX_VIT_FC2);
  put_vector (w, p, N ("mlp.fc2.bias", "mlp.fc2.bias"), i, IVL_VECTOR_VIT_FC2_BIAS);
  put_vector (w, p, N ("ls1", "lambda_1"), i, IVL_VECTOR_VIT_LS1);
  put_vector (w, p, N ("ls2", "lambda_2"), i, IVL_VECTOR_VIT_LS2);
#undef N
}

static void
put_text_layer (Writer *w, const char *p, guint i)
{
  gboolean fused = w->kind->internlm2 && !w->kind->hf;
#define N(qwen2, internlm2) (fused ? "layers.*." internlm2 : "layers.*." qwen2)
  if (fused) {
    /* Row (kvh * (g + 2) + j) * d + e: query head kvh * g + j, or the key, or the value of kv head kvh. */
    guint order[Q + 2 * K], n = 0, g = 2, d = 8;
    for (guint kvh = 0; kvh < 2; kvh++)
      for (guint j = 0; j < g + 2; j++)
        for (guint e = 0; e < d; e++)
          order[n++] = (j < g ? (kvh * g + j) * d : j == g ? Q + kvh * d : Q + K + kvh * d) + e;
    put_rows (w, p, "layers.*.attention.wqkv.weight", i, "qkv", "", 0, Q + 2 * K, H, order);
  } else {
    put_rows (w, p, "layers.*.self_attn.q_proj.weight", i, "qkv", "", 0, Q, H, NULL);
    put_rows (w, p, "layers.*.self_attn.k_proj.weight", i, "qkv", "", Q, K, H, NULL);
    put_rows (w, p, "layers.*.self_attn.v_proj.weight", i, "qkv", "", Q + K, K, H, NULL);
    if (!w->kind->internlm2) {
      put_rows (w, p, "layers.*.self_attn.q_proj.bias", i, "qkv-bias", "", 0, Q, 1, NULL);
      put_rows (w, p, "layers.*.self_attn.k_proj.bias", i, "qkv-bias", "", Q, K, 1, NULL);
      put_rows (w, p, "layers.*.self_attn.v_proj.bias", i, "qkv-bias", "", Q + K, K, 1, NULL);
    }
  }
  put_matrix (w, p, N ("self_attn.o_proj.weight", "attention.wo.weight"), i, IVL_MATRIX_TEXT_O);
  put_matrix (w, p, N ("mlp.gate_proj.weight", "feed_forward.w1.weight"), i, IVL_MATRIX_TEXT_GATE);
  put_matrix (w, p, N ("mlp.up_proj.weight", "feed_forward.w3.weight"), i, IVL_MATRIX_TEXT_UP);
  put_matrix (w, p, N ("mlp.down_proj.weight", "feed_forward.w2.weight"), i, IVL_MATRIX_TEXT_DOWN);
  put_vector (w, p, N ("input_layernorm.weight", "attention_norm.weight"), i, IVL_VECTOR_TEXT_INPUT_NORM);
  put_vector (w, p, N ("post_attention_layernorm.weight", "ffn_norm.weight"), i, IVL_VECTOR_TEXT_POST_NORM);
#undef N
}

static TensorFile *
write_model (const Kind *kind, Fault fault, GPtrArray *names)
{
  gboolean hf = kind->hf, fused = kind->internlm2 && !hf;
  const char *vision = !hf ? "vision_model." : kind->newer ? "model.vision_tower." : "vision_tower.";
  const char *projector = !hf ? "mlp1." : kind->newer ? "model.multi_modal_projector." : "multi_modal_projector.";
  const char *text = hf && kind->newer ? "model.language_model." : "language_model.model.";
  const char *head = hf && kind->newer ? "" : "language_model.";
  Writer w = { kind, tensor_file_new (), fault, names };

  put_rows (&w, vision, hf ? "embeddings.cls_token" : "embeddings.class_embedding", 0, "class", "1x1x", 0, C, 1, NULL);
  put_rows (&w, vision, hf ? "embeddings.position_embeddings" : "embeddings.position_embedding", 0, "position", "1x", 0,
            1 + GRID * GRID, C, NULL);
  const char *patch = hf ? "embeddings.patch_embeddings.projection" : "embeddings.patch_embedding";
  g_autofree char *patch_weight = g_strconcat (patch, ".weight", NULL);
  g_autofree char *patch_bias = g_strconcat (patch, ".bias", NULL);
  put_matrix (&w, vision, patch_weight, 0, IVL_MATRIX_VIT_PATCH);
  put_vector (&w, vision, patch_bias, 0, IVL_VECTOR_VIT_PATCH_BIAS);
  for (guint i = 0; i < LAYERS; i++)
    put_vision_layer (&w, vision, i);
  put_vector (&w, projector, hf ? "layer_norm.weight" : "0.weight", 0, IVL_VECTOR_MLP_NORM_WEIGHT);
  put_vector (&w, projector, hf ? "layer_norm.bias" : "0.bias", 0, IVL_VECTOR_MLP_NORM_BIAS);
  put_matrix (&w, projector, hf ? "linear_1.weight" : "1.weight", 0, IVL_MATRIX_MLP1);
  put_vector (&w, projector, hf ? "linear_1.bias" : "1.bias", 0, IVL_VECTOR_MLP1_BIAS);
  put_matrix (&w, projector, hf ? "linear_2.weight" : "3.weight", 0, IVL_MATRIX_MLP3);
  put_vector (&w, projector, hf ? "linear_2.bias" : "3.bias", 0, IVL_VECTOR_MLP3_BIAS);
  put_matrix (&w, text, fused ? "tok_embeddings.weight" : "embed_tokens.weight", 0, IVL_MATRIX_TEXT_EMBED);
  for (guint i = 0; i < LAYERS; i++)
    put_text_layer (&w, text, i);
  put_vector (&w, text, "norm.weight", 0, IVL_VECTOR_TEXT_FINAL_NORM);
  if (kind->own_head)
    put_matrix (&w, head, fused ? "output.weight" : "lm_head.weight", 0, IVL_MATRIX_TEXT_HEAD);
  return w.file;
}

static GBytes *
model_bytes (const Kind *kind, Fault fault)
{
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (TensorFile) file = write_model (kind, fault, names);
  return tensor_file_finish (file);
}

/* EXTRA: more of the outermost object, ending in a comma; may be "". */
static char *
config_text (const Kind *kind, guint image_size, const char *extra)
{
  const char *tie = kind->own_head ? "false" : "true";
  g_autofree char *text = g_strdup_printf (
    "{\"architectures\":[\"%s\"],\"model_type\":\"%s\",\"hidden_size\":%d,\"num_hidden_layers\":%d,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"intermediate_size\":%d,\"vocab_size\":%d,\"bias\":false,"
    "\"tie_word_embeddings\":%s}",
    !kind->internlm2 ? "Qwen2ForCausalLM" : kind->hf ? "LlamaForCausalLM" : "InternLM2ForCausalLM",
    !kind->internlm2 ? "qwen2" : kind->hf ? "llama" : "internlm2", H, LAYERS, FFN, V, tie);
  return g_strdup_printf (
    "{%s\"architectures\":[\"%s\"],\"%s\":%s,\"vision_config\":{\"hidden_size\":%d,\"num_hidden_layers\":%d,"
    "\"num_attention_heads\":2,\"intermediate_size\":%d,\"image_size\":%u,\"patch_size\":14,\"norm_type\":\"%s\","
    "\"%s\":%s,\"%s\":%s}}",
    extra, kind->hf ? "InternVLForConditionalGeneration" : "InternVLChatModel", kind->hf ? "text_config" : "llm_config",
    text, C, LAYERS, F, image_size, kind->rms ? "rms_norm" : "layer_norm", kind->hf ? "attention_bias" : "qkv_bias",
    kind->rms ? "false" : "true", kind->hf ? "use_qk_norm" : "qk_normalization", kind->rms ? "true" : "false");
}

static IvlConfig *
make_config (const Kind *kind, const char *extra)
{
  GError *error = NULL;
  g_autofree char *text = config_text (kind, 14 * GRID, extra);
  IvlConfig *config = ivl_config_parse (text, strlen (text), NULL, 0, &error);
  g_assert_no_error (error);
  return config;
}

static IvlCheckpoint *
open_bytes (GBytes *bytes, IvlConfig *config, GError **error)
{
  IvlSafetensors *files = ivl_safetensors_new_from_bytes (bytes, "model.safetensors", error);
  return files ? ivl_checkpoint_new (files, config, error) : NULL;
}

/* ---- reading it ---- */

static guint
layers_of_matrix (guint id)
{
  return (id >= IVL_MATRIX_VIT_QKV && id <= IVL_MATRIX_VIT_FC2)
             || (id >= IVL_MATRIX_TEXT_QKV && id <= IVL_MATRIX_TEXT_DOWN)
           ? LAYERS
           : 1;
}

static guint
layers_of_vector (guint id)
{
  return (id >= IVL_VECTOR_VIT_NORM1_WEIGHT && id <= IVL_VECTOR_VIT_LS2)
             || (id >= IVL_VECTOR_TEXT_INPUT_NORM && id <= IVL_VECTOR_TEXT_POST_NORM)
           ? LAYERS
           : 1;
}

/* The logical row of row R of q, k and v: heads of q and k have the pairs that are rotated side by side. */
static guint
qkv_row (guint r)
{
  const guint d = 8;
  return r < Q + K ? r / d * d + r % d / 2 + r % 2 * (d / 2) : r;
}

static void
check_matrix (const IvlCheckpoint *checkpoint, guint id, guint layer, const Kind *kind)
{
  const IvlMatrixSource *source = ivl_checkpoint_matrix (checkpoint, id, layer);
  g_assert_cmpuint (source->rows, ==, matrices[id].rows);
  g_assert_cmpuint (source->cols, ==, matrices[id].cols);
  g_assert_cmpint (source->dtype, ==, kind->dtype);
  float row[PATCH];
  for (guint r = 0; r < source->rows; r++) {
    IvlTensorDtype dtype;
    const char *logical = id == IVL_MATRIX_TEXT_GATE_UP             ? (r % 2 ? "up" : "gate")
                          : id == IVL_MATRIX_TEXT_HEAD && !kind->own_head ? "embed"
                                                                    : matrices[id].name;
    guint logical_row = id == IVL_MATRIX_TEXT_GATE_UP ? r / 2 : id == IVL_MATRIX_TEXT_QKV ? qkv_row (r) : r;
    g_autofree char *name = seed (logical, layer);
    g_assert_nonnull (ivl_matrix_source_row (source, r, &dtype));
    g_assert_cmpint (dtype, ==, kind->dtype);
    g_assert_true (ivl_matrix_source_check_row (source, r, NULL));
    ivl_matrix_source_row_f32 (source, r, row);
    for (guint c = 0; c < source->cols; c++)
      g_assert_cmpfloat (row[c], ==, tensor_file_value (name, (gsize) logical_row * source->cols + c));
  }
}

static gboolean
has_vector (const Kind *kind, guint id)
{
  switch (id) {
  case IVL_VECTOR_VIT_NORM1_BIAS:
  case IVL_VECTOR_VIT_NORM2_BIAS:
  case IVL_VECTOR_VIT_QKV_BIAS:
    return !kind->rms;
  case IVL_VECTOR_VIT_Q_NORM:
  case IVL_VECTOR_VIT_K_NORM:
    return kind->rms;
  case IVL_VECTOR_TEXT_QKV_BIAS:
    return !kind->internlm2;
  default:
    return TRUE;
  }
}

static void
check_model (const IvlCheckpoint *checkpoint, const Kind *kind)
{
  for (guint id = 0; id < IVL_N_MATRICES; id++)
    for (guint i = 0; i < layers_of_matrix (id); i++)
      check_matrix (checkpoint, id, i, kind);
  for (guint id = 0; id < IVL_N_VECTORS; id++)
    for (guint i = 0; i < layers_of_vector (id); i++) {
      GError *error = NULL;
      gsize n = ivl_checkpoint_vector_size (checkpoint, id, i);
      g_assert_cmpuint (n, ==, has_vector (kind, id) ? vectors[id].size : 0);
      g_autofree float *out = g_new (float, n + 1);
      g_autofree char *name = seed (vectors[id].name, i);
      out[n] = 42;
      if (n && !ivl_checkpoint_vector (checkpoint, id, i, out, n, &error))
        g_assert_no_error (error);
      for (gsize e = 0; e < n; e++)
        g_assert_cmpfloat (out[e], ==, tensor_file_value (name, id == IVL_VECTOR_TEXT_QKV_BIAS ? qkv_row ((guint) e) : e));
      g_assert_cmpfloat (out[n], ==, 42);
    }
}

static void
test_layouts (void)
{
  for (guint k = 0; k < G_N_ELEMENTS (kinds); k++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (GBytes) bytes = model_bytes (&kinds[k], (Fault){ 0 });
    g_autoptr (IvlConfig) config = make_config (&kinds[k], "");
    g_autoptr (IvlCheckpoint) checkpoint = open_bytes (bytes, config, &error);
    g_assert_no_error (error);
    check_model (checkpoint, &kinds[k]);
    g_assert_cmpint (config->text.tied, ==, !kinds[k].own_head);
    if (!kinds[k].own_head)
      g_assert_true (ivl_checkpoint_matrix (checkpoint, IVL_MATRIX_TEXT_HEAD, 0)->parts[0].tensor.data
                     == ivl_checkpoint_matrix (checkpoint, IVL_MATRIX_TEXT_EMBED, 0)->parts[0].tensor.data);
    /* All of the file and nothing else is what the config counts. */
    guint64 elements = 0;
    const IvlSafetensors *files = ivl_checkpoint_files (checkpoint);
    for (guint i = 0; i < ivl_safetensors_n_tensors (files); i++) {
      IvlTensorView view;
      ivl_safetensors_nth (files, i, &view);
      elements += view.bytes / ivl_tensor_dtype_bytes (view.dtype);
    }
    g_assert_cmpuint (elements, ==, ivl_config_weight_bytes (config, 1));
  }
}

static void
test_shards (void)
{
  const Kind *kind = &kinds[1];
  g_autoptr (GError) error = NULL;
  g_autofree char *folder = folder_new ();
  g_autoptr (GString) index = g_string_new ("{\"weight_map\":{");
  g_autoptr (GPtrArray) names = NULL;
  for (int s = 0; s < 3; s++) {
    g_clear_pointer (&names, g_ptr_array_unref);
    names = g_ptr_array_new_with_free_func (g_free);
    g_autoptr (TensorFile) file = write_model (kind, (Fault){ .shards = 3, .shard = s }, names);
    g_autoptr (GBytes) bytes = tensor_file_finish (file);
    g_autofree char *name = g_strdup_printf ("model-%05d-of-00003.safetensors", s + 1);
    folder_write_bytes (folder, name, bytes);
  }
  for (guint i = 0; i < names->len; i++)
    g_string_append_printf (index, "%s\"%s\":\"model-%05u-of-00003.safetensors\"", i ? "," : "",
                            (char *) g_ptr_array_index (names, i), i % 3 + 1);
  g_string_append (index, "}}");
  folder_write (folder, "model.safetensors.index.json", index->str, -1);
  g_autofree char *text = config_text (kind, 14 * GRID, "");
  folder_write (folder, "config.json", text, -1);

  g_autoptr (IvlConfig) config = ivl_config_load (folder, &error);
  g_assert_no_error (error);
  IvlCheckpoint *checkpoint = ivl_checkpoint_open (folder, config, &error);
  g_assert_no_error (error);
  check_model (checkpoint, kind);
  ivl_checkpoint_free (checkpoint);

  g_autofree char *second = g_build_filename (folder, "model-00002-of-00003.safetensors", NULL);
  g_assert_cmpint (unlink (second), ==, 0);
  g_assert_null (ivl_checkpoint_open (folder, config, &error));
  assert_error_is (error, IVL_ERROR_BAD_MODEL, "model-00002-of-00003.safetensors: missing from");
  folder_remove (folder);
}

/* Without any one tensor, with any one of another shape or type, with one bad number in any: its name is said. */
static void
test_each_tensor (void)
{
  for (guint k = 0; k < G_N_ELEMENTS (kinds); k++) {
    const Kind *kind = &kinds[k];
    g_autoptr (GError) error = NULL;
    g_autoptr (IvlConfig) config = make_config (kind, "\"tie_word_embeddings\":false,");
    g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);
    g_autoptr (TensorFile) file = write_model (kind, (Fault){ 0 }, names);
    g_autoptr (GBytes) good = tensor_file_finish (file);
    gsize size;
    const char *data = g_bytes_get_data (good, &size);
    for (guint i = 0; i < names->len; i++) {
      const char *name = g_ptr_array_index (names, i);
      g_autofree char *missing = g_strconcat ("model.safetensors: ", name, " is missing", NULL);
      g_autoptr (GBytes) without = model_bytes (kind, (Fault){ .leave_out = name });
      g_assert_null (open_bytes (without, config, &error));
      assert_error_is (error, IVL_ERROR_BAD_MODEL, missing);

      g_autofree char *shape = g_strconcat ("model.safetensors: ", name, ": shape ", NULL);
      g_autoptr (GBytes) grown = model_bytes (kind, (Fault){ .grow = name });
      g_assert_null (open_bytes (grown, config, &error));
      assert_error_is (error, IVL_ERROR_BAD_MODEL, shape);

      if (kind->dtype == IVL_TENSOR_F32) {
        g_autofree char *entry = g_strdup_printf ("\"%s\":{\"dtype\":\"F32\"", name);
        g_autofree char *dtype = g_strconcat ("model.safetensors: ", name, ": dtype I32", NULL);
        g_autofree char *copy = g_memdup2 (data, size);
        char *at = memmem (copy, size, entry, strlen (entry));
        at[strlen (entry) - 4] = 'I';
        g_autoptr (GBytes) other = g_bytes_new_static (copy, size);
        g_assert_null (open_bytes (other, config, &error));
        assert_error_is (error, IVL_ERROR_UNSUPPORTED, dtype);
      }
    }
  }
}

/* Reads everything; FALSE at the first bad number. */
static gboolean
read_all (const IvlCheckpoint *checkpoint, GError **error)
{
  for (guint id = 0; id < IVL_N_MATRICES; id++)
    for (guint i = 0; i < layers_of_matrix (id); i++) {
      const IvlMatrixSource *source = ivl_checkpoint_matrix (checkpoint, id, i);
      for (guint r = 0; r < source->rows; r++)
        if (!ivl_matrix_source_check_row (source, r, error))
          return FALSE;
    }
  for (guint id = 0; id < IVL_N_VECTORS; id++)
    for (guint i = 0; i < layers_of_vector (id); i++) {
      gsize n = ivl_checkpoint_vector_size (checkpoint, id, i);
      g_autofree float *out = g_new (float, n + 1);
      if (n && !ivl_checkpoint_vector (checkpoint, id, i, out, n, error))
        return FALSE;
    }
  return TRUE;
}

static void
test_nonfinite (void)
{
  for (guint k = 0; k < G_N_ELEMENTS (kinds); k++) {
    const Kind *kind = &kinds[k];
    g_autoptr (GError) error = NULL;
    g_autoptr (IvlConfig) config = make_config (kind, "");
    g_autoptr (GBytes) good = model_bytes (kind, (Fault){ 0 });
    gsize size, element = ivl_tensor_dtype_bytes (kind->dtype);
    const guint8 *data = g_bytes_get_data (good, &size);
    g_autofree guint8 *copy = g_memdup2 (data, size);
    g_autoptr (GBytes) bytes = g_bytes_new_static (copy, size);
    g_autoptr (IvlCheckpoint) checkpoint = open_bytes (bytes, config, &error);
    g_assert_no_error (error);
    g_assert_true (read_all (checkpoint, &error));
    static const guint32 bad[] = { 0x7fc00000, 0xfc00, 0x7fc0 }; /* by IvlTensorDtype */
    const IvlSafetensors *files = ivl_checkpoint_files (checkpoint);
    for (guint i = 0; i < ivl_safetensors_n_tensors (files); i++) {
      IvlTensorView view;
      ivl_safetensors_nth (files, i, &view);
      g_autofree char *cause = g_strconcat (view.name, ": NaN or infinity at ", NULL);
      gsize n = view.bytes / element, places[] = { 0, n / 2, n - 1 };
      for (guint p = 0; p < G_N_ELEMENTS (places); p++) {
        guint8 *at = copy + ((const guint8 *) view.data - copy) + places[p] * element, saved[4];
        memcpy (saved, at, element);
        memcpy (at, &bad[kind->dtype], element);
        g_assert_false (read_all (checkpoint, &error));
        assert_error_is (error, IVL_ERROR_BAD_MODEL, cause);
        memcpy (at, saved, element);
      }
    }
  }
}

static void
test_other_tensors (void)
{
  const Kind *kind = &kinds[0];
  g_autoptr (GError) error = NULL;
  g_autoptr (IvlConfig) config = make_config (kind, "");
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (TensorFile) file = write_model (kind, (Fault){ 0 }, names);
  tensor_file_add (file, "language_model.model.layers.0.self_attn.rotary_emb.inv_freq", IVL_TENSOR_F32, "4", NULL);
  tensor_file_add (file, "vision_model.encoder.layers.2.ls1", IVL_TENSOR_F32, "9x9", NULL);
  g_autoptr (GBytes) bytes = tensor_file_finish (file);
  IvlCheckpoint *checkpoint = open_bytes (bytes, config, &error);
  g_assert_no_error (error);
  check_model (checkpoint, kind);
  ivl_checkpoint_free (checkpoint);

  tensor_file_add (file, "language_model.model.layers.0.self_attn.q_proj.lora_A.default.weight", IVL_TENSOR_F32, "4",
                   NULL);
  g_autoptr (GBytes) lora = tensor_file_finish (file);
  g_assert_null (open_bytes (lora, config, &error));
  assert_error_is (error, IVL_ERROR_UNSUPPORTED, "q_proj.lora_A.default.weight: LoRA");
}

static void
test_head (void)
{
  g_autoptr (GError) error = NULL;
  /* A head that is there is used, whatever the flags say. */
  Kind kind = kinds[3];
  g_autoptr (IvlConfig) config = make_config (&kind, "\"tie_word_embeddings\":true,");
  g_assert_true (config->text.may_tie && !config->text.tied);
  g_autoptr (GBytes) bytes = model_bytes (&kind, (Fault){ 0 });
  g_autoptr (IvlCheckpoint) own = open_bytes (bytes, config, &error);
  g_assert_no_error (error);
  g_assert_false (config->text.tied);
  check_model (own, &kind);
  /* One that isn't may be missing by the outer flag of -hf alone, */
  kind.own_head = FALSE;
  g_autoptr (GBytes) headless = model_bytes (&kind, (Fault){ 0 });
  g_autoptr (IvlCheckpoint) tied = open_bytes (headless, config, &error);
  g_assert_no_error (error);
  g_assert_true (config->text.tied);
  check_model (tied, &kind);
  /* but not without any flag. */
  kind.own_head = TRUE;
  g_autoptr (IvlConfig) strict = make_config (&kind, "\"tie_word_embeddings\":false,");
  g_assert_null (open_bytes (headless, strict, &error));
  assert_error_is (error, IVL_ERROR_BAD_MODEL, "language_model.lm_head.weight is missing");
}

static void
test_select_layer (void)
{
  const Kind *kind = &kinds[0];
  g_autoptr (GError) error = NULL;
  g_autoptr (IvlConfig) config = make_config (kind, "\"select_layer\":-2,");
  /* The layer that isn't run may be missing. */
  g_autoptr (GBytes) bytes = model_bytes (kind, (Fault){ .leave_out = "vision_model.encoder.layers.1.ls1" });
  g_autoptr (IvlCheckpoint) checkpoint = open_bytes (bytes, config, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (config->vision.run_layers, ==, 1);
  check_matrix (checkpoint, IVL_MATRIX_VIT_QKV, 0, kind);
}

/* A matrix whose parts differ in type is read row by row. */
static void
test_mixed_types (void)
{
  Kind kind = kinds[0];
  g_autoptr (GError) error = NULL;
  const char *name = "language_model.model.layers.1.self_attn.k_proj.weight";
  g_autoptr (IvlConfig) config = make_config (&kind, "");
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (TensorFile) file = write_model (&kind, (Fault){ .leave_out = name }, names);
  tensor_file_add (file, name, IVL_TENSOR_F16, "16x32", NULL);
  g_autoptr (GBytes) bytes = tensor_file_finish (file);
  g_autoptr (IvlCheckpoint) checkpoint = open_bytes (bytes, config, &error);
  g_assert_no_error (error);
  const IvlMatrixSource *source = ivl_checkpoint_matrix (checkpoint, IVL_MATRIX_TEXT_QKV, 1);
  IvlTensorDtype dtype;
  float row[H];
  g_assert_cmpint (source->dtype, ==, IVL_TENSOR_F32);
  ivl_matrix_source_row (source, Q - 1, &dtype);
  g_assert_cmpint (dtype, ==, IVL_TENSOR_F32);
  ivl_matrix_source_row (source, Q, &dtype);
  g_assert_cmpint (dtype, ==, IVL_TENSOR_F16);
  ivl_matrix_source_row_f32 (source, Q + 1, row);
  for (guint c = 0; c < H; c++)
    g_assert_cmpfloat (row[c], ==, tensor_file_value (name, (qkv_row (Q + 1) - Q) * H + c));
}

/* torch.nn.functional.interpolate (table, mode="bicubic", align_corners=False), table[i] = ((37 i) % 101 - 50) / 16 */
static const float from_4_to_6[36] = {
  -3.58073f, -2.49191f, -0.3772675f, 1.817375f, -0.2128432f, -3.149779f, -2.18375f, -0.3449097f, 1.023112f,
  -0.1845707f, -0.7234497f, -0.7367147f, 0.4350878f, 1.527307f, 1.418205f, -1.318455f, -1.096499f, 0.3172653f,
  2.988527f, 0.6784211f, -0.9596583f, 0.8539154f, -0.7179543f, -2.963751f, 1.462504f, 0.6437378f, -0.2335065f,
  -0.2137583f, -1.091003f, -1.90977f, -1.166272f, 0.9386326f, 1.488417f, -2.151395f, -1.60161f, 0.5032939f,
};
static const float from_6_to_4[16] = {
  -2.450917f, 1.913556f, -2.213117f, 0.8154793f, -0.3818226f, -0.682951f, 0.5685616f, -1.068444f,
  1.286341f, -0.3454638f, 0.8982468f, -0.9130039f, 1.840112f, 0.7466459f, -1.524015f, 1.330336f,
};

static void
check_resized (guint from, guint to, const float *expected)
{
  const Kind *kind = &kinds[0];
  g_autoptr (GError) error = NULL;
  const char *name = "vision_model.embeddings.position_embedding";
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (TensorFile) file = write_model (kind, (Fault){ .leave_out = name }, names);
  /* Channel c is c + 1 times the first; the class token's row is 7. */
  g_autofree float *table = g_new (float, (1 + from * from) * C);
  for (guint i = 0; i <= from * from; i++)
    for (guint c = 0; c < C; c++)
      table[i * C + c] = i == 0 ? 7.f : (float) ((int) ((i - 1) * 37 % 101) - 50) / 16.f * (float) (c + 1);
  g_autofree char *shape = g_strdup_printf ("1x%ux%d", 1 + from * from, C);
  tensor_file_add (file, name, IVL_TENSOR_F32, shape, table);
  g_autoptr (GBytes) bytes = tensor_file_finish (file);

  g_autofree char *force = g_strdup_printf ("\"force_image_size\":%u,", 14 * to);
  g_autofree char *text = config_text (kind, 14 * from, force);
  g_autoptr (IvlConfig) config = ivl_config_parse (text, strlen (text), NULL, 0, &error);
  g_assert_no_error (error);
  g_autoptr (IvlCheckpoint) checkpoint = open_bytes (bytes, config, &error);
  g_assert_no_error (error);
  gsize n = ivl_checkpoint_vector_size (checkpoint, IVL_VECTOR_VIT_POSITION, 0);
  g_assert_cmpuint (n, ==, (1 + to * to) * C);
  g_autofree float *out = g_new (float, n);
  g_assert_true (ivl_checkpoint_vector (checkpoint, IVL_VECTOR_VIT_POSITION, 0, out, n, &error));
  for (guint i = 0; i <= to * to; i++)
    for (guint c = 0; c < C; c++)
      g_assert_cmpfloat_with_epsilon (out[i * C + c], i == 0 ? 7.f : expected[i - 1] * (float) (c + 1), 4e-6 * (c + 1));
}

static void
test_positions (void)
{
  check_resized (4, 6, from_4_to_6);
  check_resized (6, 4, from_6_to_4);
  /* The table must be that of image_size. */
  const Kind *kind = &kinds[0];
  g_autoptr (GError) error = NULL;
  g_autofree char *text = config_text (kind, 14 * (GRID + 2), "");
  g_autoptr (IvlConfig) config = ivl_config_parse (text, strlen (text), NULL, 0, &error);
  g_autoptr (GBytes) bytes = model_bytes (kind, (Fault){ 0 });
  g_assert_null (open_bytes (bytes, config, &error));
  assert_error_is (error, IVL_ERROR_BAD_MODEL, "position_embedding: shape 1x17x16, expected 37x16");
}

/* Names of one layout with the config of the other. */
static void
test_wrong_layout (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GBytes) original = model_bytes (&kinds[0], (Fault){ 0 });
  g_autoptr (IvlConfig) hf = make_config (&kinds[3], "");
  g_assert_null (open_bytes (original, hf, &error));
  assert_error_is (error, IVL_ERROR_BAD_MODEL, "model.vision_tower.embeddings.patch_embeddings.projection.weight is");
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/checkpoint/layouts", test_layouts);
  g_test_add_func ("/checkpoint/shards", test_shards);
  g_test_add_func ("/checkpoint/each-tensor", test_each_tensor);
  g_test_add_func ("/checkpoint/nonfinite", test_nonfinite);
  g_test_add_func ("/checkpoint/other-tensors", test_other_tensors);
  g_test_add_func ("/checkpoint/head", test_head);
  g_test_add_func ("/checkpoint/select-layer", test_select_layer);
  g_test_add_func ("/checkpoint/mixed-types", test_mixed_types);
  g_test_add_func ("/checkpoint/positions", test_positions);
  g_test_add_func ("/checkpoint/wrong-layout", test_wrong_layout);
  return g_test_run ();
}
