/* Names and shapes are two tables below; what is in neither isn't read. */
#include "model/checkpoint.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "model/gguf-model.h"
#include "tensor/gguf-pair.h"
#include "tensor/gguf-quants.h"

#define MAX_NAME_PARTS IVL_MATRIX_MAX_PARTS

typedef enum { VISION, PROJECTOR, TEXT, HEAD, N_GROUPS } Group;

/* Sizes that the config gives. */
typedef enum { D_C, D_3C, D_4C, D_F, D_PATCH, D_POSITIONS, D_H, D_V, D_Q, D_QKV, D_f, D_2f } Dim;

typedef struct {
  IvlTensorView parts[MAX_NAME_PARTS];
  guint n_parts; /* 0: this model has no such vector */
  gsize n;       /* elements in the files */
} VectorSource;

struct IvlCheckpoint {
  const IvlConfig *config; /* borrowed */
  IvlSafetensors *files;   /* owned; NULL: gguf */
  IvlGgufModel *gguf;      /* owned; NULL: files */
  IvlMatrixSource *matrices[IVL_N_MATRICES]; /* one a layer, or one */
  VectorSource *vectors[IVL_N_VECTORS];
  const char *prefixes[N_GROUPS];
};

/* Names of vision and projector in the original layout and in -hf; of the text model as in Qwen2 and Llama, and as in
 * InternLM2. '*' is the layer; '|' separates the tensors that lie one after the other. */
typedef struct {
  Group group;
  gboolean per_layer;
  const char *names[2];
  Dim rows, cols;
} MatrixRow;

static const MatrixRow matrix_rows[IVL_N_MATRICES] = {
  [IVL_MATRIX_VIT_PATCH] = { VISION, FALSE, { "embeddings.patch_embedding.weight",
                                              "embeddings.patch_embeddings.projection.weight" }, D_C, D_PATCH },
  [IVL_MATRIX_VIT_QKV] = { VISION, TRUE, { "encoder.layers.*.attn.qkv.weight",
                                           "encoder.layer.*.attention.q_proj.weight|"
                                           "encoder.layer.*.attention.k_proj.weight|"
                                           "encoder.layer.*.attention.v_proj.weight" }, D_3C, D_C },
  [IVL_MATRIX_VIT_PROJ] = { VISION, TRUE, { "encoder.layers.*.attn.proj.weight",
                                            "encoder.layer.*.attention.projection_layer.weight" }, D_C, D_C },
  [IVL_MATRIX_VIT_FC1] = { VISION, TRUE, { "encoder.layers.*.mlp.fc1.weight",
                                           "encoder.layer.*.mlp.fc1.weight" }, D_F, D_C },
  [IVL_MATRIX_VIT_FC2] = { VISION, TRUE, { "encoder.layers.*.mlp.fc2.weight",
                                           "encoder.layer.*.mlp.fc2.weight" }, D_C, D_F },
  [IVL_MATRIX_MLP1] = { PROJECTOR, FALSE, { "1.weight", "linear_1.weight" }, D_H, D_4C },
  [IVL_MATRIX_MLP3] = { PROJECTOR, FALSE, { "3.weight", "linear_2.weight" }, D_H, D_H },
  [IVL_MATRIX_TEXT_EMBED] = { TEXT, FALSE, { "embed_tokens.weight", "tok_embeddings.weight" }, D_V, D_H },
  [IVL_MATRIX_TEXT_QKV] = { TEXT, TRUE, { "layers.*.self_attn.q_proj.weight|layers.*.self_attn.k_proj.weight|"
                                          "layers.*.self_attn.v_proj.weight",
                                          "layers.*.attention.wqkv.weight" }, D_QKV, D_H },
  [IVL_MATRIX_TEXT_O] = { TEXT, TRUE, { "layers.*.self_attn.o_proj.weight", "layers.*.attention.wo.weight" },
                          D_H, D_Q },
  [IVL_MATRIX_TEXT_GATE] = { TEXT, TRUE, { "layers.*.mlp.gate_proj.weight", "layers.*.feed_forward.w1.weight" },
                             D_f, D_H },
  [IVL_MATRIX_TEXT_UP] = { TEXT, TRUE, { "layers.*.mlp.up_proj.weight", "layers.*.feed_forward.w3.weight" },
                           D_f, D_H },
  [IVL_MATRIX_TEXT_GATE_UP] = { TEXT, TRUE, { "layers.*.mlp.gate_proj.weight|layers.*.mlp.up_proj.weight",
                                              "layers.*.feed_forward.w1.weight|layers.*.feed_forward.w3.weight" },
                                D_2f, D_H },
  [IVL_MATRIX_TEXT_DOWN] = { TEXT, TRUE, { "layers.*.mlp.down_proj.weight", "layers.*.feed_forward.w2.weight" },
                             D_H, D_f },
  [IVL_MATRIX_TEXT_HEAD] = { HEAD, FALSE, { "lm_head.weight", "output.weight" }, D_V, D_H },
};

typedef enum { ALWAYS, IF_LAYER_NORM, IF_VIT_BIAS, IF_QK_NORM, IF_TEXT_BIAS } Condition;

typedef struct {
  Group group;
  gboolean per_layer;
  const char *names[2];
  Dim size;
  Condition condition;
} VectorRow;

#define VIT(original, hf) VISION, TRUE, { "encoder.layers.*." original, "encoder.layer.*." hf }

static const VectorRow vector_rows[IVL_N_VECTORS] = {
  [IVL_VECTOR_VIT_CLASS] = { VISION, FALSE, { "embeddings.class_embedding", "embeddings.cls_token" }, D_C },
  [IVL_VECTOR_VIT_POSITION] = { VISION, FALSE, { "embeddings.position_embedding", "embeddings.position_embeddings" },
                                D_POSITIONS },
  [IVL_VECTOR_VIT_PATCH_BIAS] = { VISION, FALSE, { "embeddings.patch_embedding.bias",
                                                   "embeddings.patch_embeddings.projection.bias" }, D_C },
  [IVL_VECTOR_VIT_NORM1_WEIGHT] = { VIT ("norm1.weight", "layernorm_before.weight"), D_C },
  [IVL_VECTOR_VIT_NORM1_BIAS] = { VIT ("norm1.bias", "layernorm_before.bias"), D_C, IF_LAYER_NORM },
  [IVL_VECTOR_VIT_QKV_BIAS] = { VIT ("attn.qkv.bias", "attention.q_proj.bias|encoder.layer.*.attention.k_proj.bias|"
                                                      "encoder.layer.*.attention.v_proj.bias"), D_3C, IF_VIT_BIAS },
  [IVL_VECTOR_VIT_Q_NORM] = { VIT ("attn.q_norm.weight", "attention.q_norm.weight"), D_C, IF_QK_NORM },
  [IVL_VECTOR_VIT_K_NORM] = { VIT ("attn.k_norm.weight", "attention.k_norm.weight"), D_C, IF_QK_NORM },
  [IVL_VECTOR_VIT_PROJ_BIAS] = { VIT ("attn.proj.bias", "attention.projection_layer.bias"), D_C },
  [IVL_VECTOR_VIT_LS1] = { VIT ("ls1", "lambda_1"), D_C },
  [IVL_VECTOR_VIT_NORM2_WEIGHT] = { VIT ("norm2.weight", "layernorm_after.weight"), D_C },
  [IVL_VECTOR_VIT_NORM2_BIAS] = { VIT ("norm2.bias", "layernorm_after.bias"), D_C, IF_LAYER_NORM },
  [IVL_VECTOR_VIT_FC1_BIAS] = { VIT ("mlp.fc1.bias", "mlp.fc1.bias"), D_F },
  [IVL_VECTOR_VIT_FC2_BIAS] = { VIT ("mlp.fc2.bias", "mlp.fc2.bias"), D_C },
  [IVL_VECTOR_VIT_LS2] = { VIT ("ls2", "lambda_2"), D_C },
  [IVL_VECTOR_MLP_NORM_WEIGHT] = { PROJECTOR, FALSE, { "0.weight", "layer_norm.weight" }, D_4C },
  [IVL_VECTOR_MLP_NORM_BIAS] = { PROJECTOR, FALSE, { "0.bias", "layer_norm.bias" }, D_4C },
  [IVL_VECTOR_MLP1_BIAS] = { PROJECTOR, FALSE, { "1.bias", "linear_1.bias" }, D_H },
  [IVL_VECTOR_MLP3_BIAS] = { PROJECTOR, FALSE, { "3.bias", "linear_2.bias" }, D_H },
  [IVL_VECTOR_TEXT_INPUT_NORM] = { TEXT, TRUE, { "layers.*.input_layernorm.weight",
                                                 "layers.*.attention_norm.weight" }, D_H },
  [IVL_VECTOR_TEXT_QKV_BIAS] = { TEXT, TRUE, { "layers.*.self_attn.q_proj.bias|layers.*.self_attn.k_proj.bias|"
                                               "layers.*.self_attn.v_proj.bias", NULL }, D_QKV, IF_TEXT_BIAS },
  [IVL_VECTOR_TEXT_POST_NORM] = { TEXT, TRUE, { "layers.*.post_attention_layernorm.weight",
                                                "layers.*.ffn_norm.weight" }, D_H },
  [IVL_VECTOR_TEXT_FINAL_NORM] = { TEXT, FALSE, { "norm.weight", "norm.weight" }, D_H },
};

/* Prefixes by group: the original layout's, then those of -hf, newer first. */
static const char *const original_prefixes[N_GROUPS]
  = { "vision_model.", "mlp1.", "language_model.model.", "language_model." };
static const char *const hf_prefixes[2][N_GROUPS] = {
  { "model.vision_tower.", "model.multi_modal_projector.", "model.language_model.", "" },
  { "vision_tower.", "multi_modal_projector.", "language_model.model.", "language_model." },
};
static guint
dim (const IvlConfig *config, Dim d)
{
  guint q = config->text.heads * config->text.head_dim, kv = config->text.kv_heads * config->text.head_dim;
  switch (d) {
  case D_C:
    return config->vision.hidden;
  case D_3C:
    return 3 * config->vision.hidden;
  case D_4C:
    return config->vision.hidden * config->downsample * config->downsample;
  case D_F:
    return config->vision.intermediate;
  case D_PATCH:
    return 3 * config->vision.patch_size * config->vision.patch_size;
  case D_POSITIONS:
    return config->vision.n_positions;
  case D_H:
    return config->text.hidden;
  case D_V:
    return config->text.vocab;
  case D_Q:
    return q;
  case D_QKV:
    return q + 2 * kv;
  case D_f:
    return config->text.intermediate;
  case D_2f:
    return 2 * config->text.intermediate;
  }
  g_assert_not_reached ();
}

/* Rows of the I-th of the N_PARTS tensors that make up SIZE rows. */
static guint
part_rows (const IvlConfig *config, Dim size, guint n_parts, guint i)
{
  if (n_parts == 1)
    return dim (config, size);
  if (size == D_QKV)
    return i == 0 ? dim (config, D_Q) : config->text.kv_heads * config->text.head_dim;
  return dim (config, size) / n_parts;
}

static gboolean
holds (const IvlConfig *config, Condition condition)
{
  switch (condition) {
  case ALWAYS:
    return TRUE;
  case IF_LAYER_NORM:
    return config->vision.norm == IVL_NORM_LAYER;
  case IF_VIT_BIAS:
    return config->vision.qkv_bias;
  case IF_QK_NORM:
    return config->vision.qk_norm;
  case IF_TEXT_BIAS:
    return config->text.qkv_bias;
  }
  g_assert_not_reached ();
}

static guint
n_layers (const IvlConfig *config, Group group, gboolean per_layer)
{
  return !per_layer ? 1 : group == VISION ? config->vision.run_layers : config->text.layers;
}

/* ---- finding tensors ---- */

static const char *
pick_name (const IvlConfig *config, Group group, const char *const names[2])
{
  if (group == TEXT || group == HEAD)
    return names[config->text.arch == IVL_TEXT_INTERNLM2];
  return names[config->layout == IVL_LAYOUT_HF];
}

static char *
full_name (const IvlCheckpoint *self, Group group, const char *name, guint layer)
{
  const char *star = strchr (name, '*');
  return star ? g_strdup_printf ("%s%.*s%u%s", self->prefixes[group], (int) (star - name), name, layer, star + 1)
              : g_strconcat (self->prefixes[group], name, NULL);
}

/* Leading dimensions of 1 don't count: the class embedding is [1, 1, C]. */
static gboolean
same_shape (const IvlTensorView *view, const guint64 *shape, guint n_dims)
{
  guint skip = 0;
  while (skip < view->n_dims && view->shape[skip] == 1)
    skip++;
  return view->n_dims - skip == n_dims && memcmp (view->shape + skip, shape, n_dims * sizeof *shape) == 0;
}

static gboolean
look_up (const IvlCheckpoint *self, const char *name, IvlTensorView *view)
{
  return self->gguf ? ivl_gguf_model_lookup (self->gguf, name, view) : ivl_safetensors_lookup (self->files, name, view);
}

static gboolean
find (const IvlCheckpoint *self, Group group, const char *short_name, guint layer, const guint64 *shape, guint n_dims,
      IvlTensorView *view, GError **error)
{
  g_autofree char *name = full_name (self, group, short_name, layer);
  if (!look_up (self, name, view))
    return ivl_fail (error, IVL_ERROR_BAD_MODEL, "%s: %s is missing: the file is incomplete, or %s of another model",
                     self->gguf ? ivl_gguf_model_source (self->gguf, name) : ivl_safetensors_source (self->files), name,
                     self->gguf ? "its metadata are" : "config.json is");
  if (view->dtype == IVL_TENSOR_OTHER)
    return ivl_fail (error, IVL_ERROR_UNSUPPORTED, "%s: %s: dtype %s; this engine reads F32, F16%s", view->file, name,
                     view->dtype_name,
                     self->gguf ? ", BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K and Q6_K" : " and BF16");
  if (!same_shape (view, shape, n_dims)) {
    g_autofree char *is = ivl_tensor_shape_string (view->shape, view->n_dims);
    g_autofree char *expected = ivl_tensor_shape_string (shape, n_dims);
    return ivl_fail (error, IVL_ERROR_BAD_MODEL, "%s: %s: shape %s, expected %s by %s", view->file, name, is, expected,
                     self->gguf ? "the metadata" : "config.json");
  }
  return TRUE;
}

/* q rows of all heads, then k, then v, out of InternLM2's fused rows: for every kv head its queries, its key, its
 * value. */
static void
split_wqkv (const IvlConfig *config, IvlMatrixSource *src)
{
  guint d = config->text.head_dim, kv_heads = config->text.kv_heads;
  guint group = config->text.heads / kv_heads, stride = (group + 2) * d;
  IvlMatrixPart part = src->parts[0];
  src->n_parts = 3;
  for (guint i = 0; i < 3; i++) {
    part.base = i == 0 ? 0 : (group + i - 1) * d;
    part.block = i == 0 ? group * d : d;
    part.stride = stride;
    part.rows = kv_heads * part.block;
    part.first_row = i == 0 ? 0 : src->parts[i - 1].first_row + src->parts[i - 1].rows;
    part.half = i < 2 ? d / 2 : 0;
    src->parts[i] = part;
  }
}

static IvlTensorDtype
common_dtype (IvlTensorDtype a, IvlTensorDtype b)
{
  gboolean small = (ivl_quant_is (a) || a == IVL_TENSOR_F16) && (ivl_quant_is (b) || b == IVL_TENSOR_F16);
  return a == b ? a : small ? IVL_TENSOR_F16 : IVL_TENSOR_F32;
}

static gboolean
resolve_matrix (const IvlCheckpoint *self, IvlMatrixId id, guint layer, IvlMatrixSource *src, GError **error)
{
  const IvlConfig *config = self->config;
  const MatrixRow *row = &matrix_rows[id];
  const char *joined = self->gguf ? ivl_gguf_model_matrix_names (self->gguf, id)
                                  : pick_name (config, row->group, row->names);
  g_auto (GStrv) names = g_strsplit (joined, "|", MAX_NAME_PARTS);
  *src = (IvlMatrixSource){ .rows = dim (config, row->rows), .cols = dim (config, row->cols),
                            .n_parts = g_strv_length (names), .interleaved = id == IVL_MATRIX_TEXT_GATE_UP };
  guint first_row = 0;
  for (guint i = 0; i < src->n_parts; i++) {
    guint rows = part_rows (config, row->rows, src->n_parts, i), patch = config->vision.patch_size;
    guint64 flat[] = { rows, src->cols }, convolution[] = { rows, 3, patch, patch };
    gboolean is_patch = id == IVL_MATRIX_VIT_PATCH;
    IvlMatrixPart *part = &src->parts[i];
    *part = (IvlMatrixPart){ .first_row = first_row, .rows = rows, .block = rows };
    if (!find (self, row->group, names[i], layer, is_patch ? convolution : flat, is_patch ? 4 : 2, &part->tensor, error))
      return FALSE;
    first_row += rows;
    src->dtype = i == 0 ? part->tensor.dtype : common_dtype (src->dtype, part->tensor.dtype);
    /* With models other than Qwen2 llama.cpp rotates neighbours, too: its converter has put the rows in pairs. */
    if (id == IVL_MATRIX_TEXT_QKV && i < 2 && !(self->gguf && config->text.arch != IVL_TEXT_QWEN2))
      part->half = config->text.head_dim / 2;
  }
  if (id == IVL_MATRIX_TEXT_QKV && config->text.arch == IVL_TEXT_INTERNLM2 && !self->gguf)
    split_wqkv (config, src);
  return TRUE;
}

static gboolean
resolve_vector (const IvlCheckpoint *self, IvlVectorId id, guint layer, VectorSource *src, GError **error)
{
  const IvlConfig *config = self->config;
  const VectorRow *row = &vector_rows[id];
  *src = (VectorSource){ 0 };
  if (!holds (config, row->condition))
    return TRUE;
  const char *joined = self->gguf ? ivl_gguf_model_vector_names (self->gguf, id)
                                  : pick_name (config, row->group, row->names);
  g_auto (GStrv) names = g_strsplit (joined, "|", MAX_NAME_PARTS);
  src->n_parts = g_strv_length (names);
  for (guint i = 0; i < src->n_parts; i++) {
    guint64 shape[] = { part_rows (config, row->size, src->n_parts, i), config->vision.hidden };
    guint n_dims = id == IVL_VECTOR_VIT_POSITION ? 2 : 1;
    if (!find (self, row->group, names[i], layer, shape, n_dims, &src->parts[i], error))
      return FALSE;
    src->n += shape[0] * (n_dims == 2 ? shape[1] : 1);
  }
  return TRUE;
}

static gboolean
any_name_starts (const IvlCheckpoint *self, const char *prefix)
{
  IvlTensorView view;
  for (guint i = 0; i < ivl_safetensors_n_tensors (self->files); i++) {
    ivl_safetensors_nth (self->files, i, &view);
    if (g_str_has_prefix (view.name, prefix))
      return TRUE;
  }
  return FALSE;
}

static void
choose_prefixes (IvlCheckpoint *self)
{
  for (guint group = 0; group < N_GROUPS; group++) {
    if (self->gguf) {
      self->prefixes[group] = "";
      continue;
    }
    if (self->config->layout == IVL_LAYOUT_ORIGINAL) {
      self->prefixes[group] = original_prefixes[group];
      continue;
    }
    /* The older head is told by its text model: it may be missing itself. */
    gboolean older = any_name_starts (self, hf_prefixes[1][group == HEAD ? TEXT : group]);
    self->prefixes[group] = hf_prefixes[older][group];
  }
}

static gboolean
refuse_lora (const IvlCheckpoint *self, GError **error)
{
  IvlTensorView view;
  for (guint i = 0; self->files && i < ivl_safetensors_n_tensors (self->files); i++) {
    ivl_safetensors_nth (self->files, i, &view);
    if (strstr (view.name, "lora_"))
      return ivl_fail (error, IVL_ERROR_UNSUPPORTED, "%s: %s: LoRA weights aren't merged by this engine: merge them "
                       "into the model", view.file, view.name);
  }
  return TRUE;
}

/* ---- opening ---- */

static gboolean
settle_head (IvlCheckpoint *self, IvlConfig *config)
{
  IvlTensorView view;
  const MatrixRow *row = &matrix_rows[IVL_MATRIX_TEXT_HEAD];
  const char *short_name = self->gguf ? ivl_gguf_model_matrix_names (self->gguf, IVL_MATRIX_TEXT_HEAD)
                                      : pick_name (config, HEAD, row->names);
  g_autofree char *name = full_name (self, HEAD, short_name, 0);
  config->text.tied = config->text.may_tie && !look_up (self, name, &view);
  return config->text.tied;
}

static IvlCheckpoint *
checkpoint_new (IvlSafetensors *weights, IvlGgufModel *gguf, IvlConfig *config, GError **error)
{
  g_autoptr (IvlCheckpoint) self = g_new0 (IvlCheckpoint, 1);
  self->files = weights;
  self->gguf = gguf;
  self->config = config;
  choose_prefixes (self);
  gboolean tied = settle_head (self, config);
  if (!refuse_lora (self, error))
    return NULL;

  for (guint id = 0; id < IVL_N_MATRICES; id++) {
    guint n = n_layers (config, matrix_rows[id].group, matrix_rows[id].per_layer);
    self->matrices[id] = g_new (IvlMatrixSource, n);
    if (id == IVL_MATRIX_TEXT_HEAD && tied)
      self->matrices[id][0] = self->matrices[IVL_MATRIX_TEXT_EMBED][0];
    else
      for (guint i = 0; i < n; i++)
        if (!resolve_matrix (self, id, i, &self->matrices[id][i], error))
          return NULL;
  }
  for (guint id = 0; id < IVL_N_VECTORS; id++) {
    guint n = n_layers (config, vector_rows[id].group, vector_rows[id].per_layer);
    self->vectors[id] = g_new (VectorSource, n);
    for (guint i = 0; i < n; i++)
      if (!resolve_vector (self, id, i, &self->vectors[id][i], error))
        return NULL;
  }
  return g_steal_pointer (&self);
}

IvlCheckpoint *
ivl_checkpoint_new (IvlSafetensors *weights, IvlConfig *config, GError **error)
{
  return checkpoint_new (weights, NULL, config, error);
}

IvlCheckpoint *
ivl_checkpoint_new_gguf (IvlGguf *text, IvlGguf *vision, IvlConfig *config, GError **error)
{
  return checkpoint_new (NULL, ivl_gguf_model_new (text, vision), config, error);
}

IvlCheckpoint *
ivl_checkpoint_open (const char *path, IvlConfig *config, GError **error)
{
  if (ivl_gguf_pair_is (path)) {
    IvlGgufModel *gguf = ivl_gguf_model_open (path, error);
    return gguf ? checkpoint_new (NULL, gguf, config, error) : NULL;
  }
  IvlSafetensors *weights = ivl_safetensors_open (path, error);
  return weights ? ivl_checkpoint_new (weights, config, error) : NULL;
}

void
ivl_checkpoint_free (IvlCheckpoint *self)
{
  if (!self)
    return;
  for (guint i = 0; i < IVL_N_MATRICES; i++)
    g_free (self->matrices[i]);
  for (guint i = 0; i < IVL_N_VECTORS; i++)
    g_free (self->vectors[i]);
  ivl_safetensors_free (self->files);
  ivl_gguf_model_free (self->gguf);
  g_free (self);
}

gboolean
ivl_checkpoint_check_unchanged (const IvlCheckpoint *self, GError **error)
{
  if (self->gguf)
    return ivl_gguf_check_unchanged (self->gguf->text, error) && ivl_gguf_check_unchanged (self->gguf->vision, error);
  return ivl_safetensors_check_unchanged (self->files, error);
}

gboolean
ivl_checkpoint_identify (const IvlCheckpoint *self, GChecksum *sum)
{
  if (self->gguf)
    return ivl_gguf_identify (self->gguf->text, sum) && ivl_gguf_identify (self->gguf->vision, sum);
  return ivl_safetensors_identify (self->files, sum);
}

void
ivl_checkpoint_release_pages (const IvlCheckpoint *self)
{
  if (self->files)
    ivl_safetensors_release_pages (self->files);
  if (self->gguf) {
    ivl_gguf_release_pages (self->gguf->text);
    ivl_gguf_release_pages (self->gguf->vision);
  }
}

const IvlSafetensors *
ivl_checkpoint_files (const IvlCheckpoint *self)
{
  return self->files;
}

/* ---- matrices ---- */

const IvlMatrixSource *
ivl_checkpoint_matrix (const IvlCheckpoint *self, IvlMatrixId id, guint layer)
{
  g_assert (id < IVL_N_MATRICES);
  g_assert (layer < n_layers (self->config, matrix_rows[id].group, matrix_rows[id].per_layer));
  return &self->matrices[id][layer];
}

static const IvlMatrixPart *
locate (const IvlMatrixSource *src, guint r, guint *tensor_row)
{
  const IvlMatrixPart *part = src->parts;
  g_assert (r < src->rows);
  if (src->interleaved) {
    part += r % src->n_parts;
    r /= src->n_parts;
  } else {
    while (r >= part->first_row + part->rows)
      part++;
    r -= part->first_row;
  }
  if (part->half) {
    guint within = r % (2 * part->half);
    r += within / 2 + within % 2 * part->half - within;
  }
  *tensor_row = part->base + r / part->block * part->stride + r % part->block;
  return part;
}

const void *
ivl_matrix_source_row (const IvlMatrixSource *src, guint r, IvlTensorDtype *dtype)
{
  guint row;
  const IvlMatrixPart *part = locate (src, r, &row);
  *dtype = part->tensor.dtype;
  return (const guint8 *) part->tensor.data + row * ivl_tensor_run_bytes (*dtype, src->cols);
}

void
ivl_matrix_source_row_f32 (const IvlMatrixSource *src, guint r, float *out)
{
  IvlTensorDtype dtype;
  const void *row = ivl_matrix_source_row (src, r, &dtype);
  ivl_tensor_to_f32 (dtype, row, out, src->cols);
}

static gboolean
fail_nonfinite (const IvlTensorView *tensor, const char *place, GError **error)
{
  return ivl_fail (error, IVL_ERROR_BAD_MODEL, "%s: %s: NaN or infinity at %s: the weights are damaged; download them "
                   "again", tensor->file, tensor->name, place);
}

gboolean
ivl_matrix_source_check_row (const IvlMatrixSource *src, guint r, GError **error)
{
  IvlTensorDtype dtype;
  const void *row = ivl_matrix_source_row (src, r, &dtype);
  gsize column = ivl_tensor_first_nonfinite (dtype, row, src->cols);
  if (G_LIKELY (column == src->cols))
    return TRUE;
  guint tensor_row;
  const IvlMatrixPart *part = locate (src, r, &tensor_row);
  g_autofree char *place = g_strdup_printf ("row %u, column %zu", tensor_row, column);
  return fail_nonfinite (&part->tensor, place, error);
}

/* ---- vectors ---- */

/* Weights of the four neighbours of a point at fraction T: cubic convolution with PyTorch's a = -0.75. */
static void
cubic_weights (double t, double w[4])
{
  const double a = -0.75;
  double far = 1 + t, near = t;
  for (guint i = 0; i < 2; i++) {
    w[i ? 3 : 0] = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a;
    w[i ? 2 : 1] = ((a + 2) * near - (a + 3)) * near * near + 1;
    far = 2 - t;
    near = 1 - t;
  }
}

/* One axis: for each of N_OUT points the first of four neighbours and their weights. align_corners=false, no
 * antialias; neighbours beyond the edge are the edge. */
static void
cubic_axis (guint n_in, guint n_out, int *first, double (*weights)[4])
{
  for (guint i = 0; i < n_out; i++) {
    double x = (i + 0.5) * n_in / n_out - 0.5;
    first[i] = (int) floor (x) - 1;
    cubic_weights (x - floor (x), weights[i]);
  }
}

/* TABLE [1 + from^2, width] -> OUT [1 + to^2, width]; the class token's row stays as it is. */
static void
resize_positions (const float *table, guint from, float *out, guint to, guint width)
{
  g_autofree int *first = g_new (int, to);
  double (*weights)[4] = g_malloc (to * sizeof *weights);
  cubic_axis (from, to, first, weights);
  memcpy (out, table, width * sizeof *out);
  for (guint y = 0; y < to; y++)
    for (guint x = 0; x < to; x++)
      for (guint c = 0; c < width; c++) {
        double sum = 0;
        for (int i = 0; i < 4; i++) {
          double line = 0;
          gsize row = (gsize) CLAMP (first[y] + i, 0, (int) from - 1) * from;
          for (int j = 0; j < 4; j++) {
            gsize column = (gsize) CLAMP (first[x] + j, 0, (int) from - 1);
            line += weights[x][j] * table[(1 + row + column) * width + c];
          }
          sum += weights[y][i] * line;
        }
        out[(1 + (gsize) y * to + x) * width + c] = (float) sum;
      }
  g_free (weights);
}

static const VectorSource *
vector_at (const IvlCheckpoint *self, IvlVectorId id, guint layer)
{
  g_assert (id < IVL_N_VECTORS);
  g_assert (layer < n_layers (self->config, vector_rows[id].group, vector_rows[id].per_layer));
  return &self->vectors[id][layer];
}

static gboolean
is_resized (const IvlConfig *config, IvlVectorId id)
{
  return id == IVL_VECTOR_VIT_POSITION && config->vision.n_positions != 1 + config->vision.grid * config->vision.grid;
}

gsize
ivl_checkpoint_vector_size (const IvlCheckpoint *self, IvlVectorId id, guint layer)
{
  guint grid = self->config->vision.grid;
  if (is_resized (self->config, id))
    return (gsize) (1 + grid * grid) * self->config->vision.hidden;
  return vector_at (self, id, layer)->n;
}

/* Of N heads of D, each: 0, d / 2, 1, d / 2 + 1, ... */
static void
pair_up (float *heads, guint n, guint d)
{
  g_autofree float *head = g_new (float, d);
  for (; n > 0; n--, heads += d) {
    memcpy (head, heads, d * sizeof *head);
    for (guint i = 0; i < d; i++)
      heads[i] = head[i / 2 + i % 2 * (d / 2)];
  }
}

gboolean
ivl_checkpoint_vector (const IvlCheckpoint *self, IvlVectorId id, guint layer, float *out, gsize n, GError **error)
{
  const VectorSource *src = vector_at (self, id, layer);
  const IvlConfig *config = self->config;
  g_assert (src->n_parts > 0 && n == ivl_checkpoint_vector_size (self, id, layer));
  g_autofree float *stored = is_resized (config, id) ? g_new (float, src->n) : NULL;
  float *to = stored ? stored : out;
  for (guint i = 0; i < src->n_parts; i++) {
    const IvlTensorView *part = &src->parts[i];
    gsize part_n = part->bytes / ivl_quant_block_bytes (part->dtype) * ivl_quant_block (part->dtype);
    gsize bad = ivl_tensor_first_nonfinite (part->dtype, part->data, part_n);
    if (bad < part_n) {
      g_autofree char *place = g_strdup_printf ("element %zu", bad);
      return fail_nonfinite (part, place, error);
    }
    ivl_tensor_to_f32 (part->dtype, part->data, to, part_n);
    to += part_n;
  }
  if (id == IVL_VECTOR_TEXT_QKV_BIAS)
    pair_up (out, config->text.heads + config->text.kv_heads, config->text.head_dim);
  if (stored)
    resize_positions (stored, (guint) lround (sqrt (config->vision.n_positions - 1.)), out, config->vision.grid,
                      config->vision.hidden);
  return TRUE;
}
