#include "model/weights.h"

#include <string.h>

#include "kernels/gemm-tune.h"

/* Arena blocks: big enough to be few, small enough that the last one's rest is no waste to speak of. */
#define BLOCK_BYTES (128ull << 20)
#define SMALL_BLOCK_BYTES (4ull << 20)

typedef struct {
  IvlModelWeights *weights;
  const IvlCheckpoint *checkpoint;
  int dtype;
  GArray *matrices; /* IvlCachedMatrix, in the order of loading */
  guint next;
  IvlVkBuffer *placeholder; /* NULL: weights are loaded; else only laid out, and this stands for all of them */
  GError **error;
} Loader;

/* Quantised, the vision tower, the projector and what turns tokens to and from states stay at 8 bits: they are small
 * beside the layers (or decide every token), and errors there are seen by all layers. The patch embedding, whose rows
 * are pixels, is not worth quantising. */
static IvlDtype
matrix_dtype (const IvlMatrixSource *source, IvlMatrixId id, int dtype)
{
  gboolean text_layer = id >= IVL_MATRIX_TEXT_QKV && id <= IVL_MATRIX_TEXT_DOWN;
  if (dtype >= 0 && ivl_dtype_is_quantised ((IvlDtype) dtype)) {
    if (id == IVL_MATRIX_VIT_PATCH)
      return IVL_DTYPE_F16;
    return text_layer ? (IvlDtype) dtype : IVL_DTYPE_Q8;
  }
  if (dtype >= 0)
    return (IvlDtype) dtype;
  return source->dtype <= IVL_TENSOR_BF16 ? (IvlDtype) source->dtype : IVL_DTYPE_F16; /* quantised ones */
}

static gboolean
matrix (Loader *l, IvlMatrixId id, guint layer, IvlWeight *weight)
{
  guint i = l->next++;
  const IvlCachedMatrix *m = &g_array_index (l->matrices, IvlCachedMatrix, i);
  IvlWeightCache *cache = l->weights->cache;
  g_assert (i < l->matrices->len && m->id == id && m->layer == layer);
  if (l->placeholder) {
    ivl_pack_lay_out (&l->weights->packer, m->source, m->dtype, weight);
    weight->largest = 1; /* likelier than what cooperative matrices can't take */
    for (guint s = 0; s < weight->n_slices; s++) {
      guint rows = MIN (weight->slice_n, weight->n - s * weight->slice_n);
      weight->slices[s] = (IvlSpan){ l->placeholder, 0, ivl_weight_slice_bytes (m->dtype, rows, weight->k) };
    }
    return TRUE;
  }
  /* Reading a mapped file beyond an end that it has got meanwhile kills the process: look as late as can be. */
  if (!ivl_checkpoint_check_unchanged (l->checkpoint, l->error))
    return FALSE;
  if (cache && ivl_weight_cache_is_hit (cache))
    return ivl_weight_cache_take (cache, i, weight, l->error);
  if (cache)
    ivl_weight_cache_begin (cache, i);
  return ivl_pack_matrix (&l->weights->packer, m->source, m->dtype, weight, l->error);
}

/* Else all that was read of the files would count as memory of this process beside the weights made of it. */
static void
on_read (gpointer data)
{
  ivl_checkpoint_release_pages (((Loader *) data)->checkpoint);
}

static void
add_matrix (Loader *l, IvlMatrixId id, guint layer)
{
  const IvlMatrixSource *source = ivl_checkpoint_matrix (l->checkpoint, id, layer);
  IvlCachedMatrix m = { id, layer, source, matrix_dtype (source, id, l->dtype) };
  g_array_append_val (l->matrices, m);
}

/* As load_vit and load_decoder take them. */
static void
list_matrices (Loader *l, const IvlConfig *config)
{
  static const IvlMatrixId vit[] = { IVL_MATRIX_VIT_QKV, IVL_MATRIX_VIT_PROJ, IVL_MATRIX_VIT_FC1, IVL_MATRIX_VIT_FC2 };
  static const IvlMatrixId text[] = { IVL_MATRIX_TEXT_QKV, IVL_MATRIX_TEXT_O, IVL_MATRIX_TEXT_GATE_UP,
                                      IVL_MATRIX_TEXT_DOWN };
  l->matrices = g_array_new (FALSE, TRUE, sizeof (IvlCachedMatrix));
  add_matrix (l, IVL_MATRIX_VIT_PATCH, 0);
  for (guint i = 0; i < config->vision.run_layers; i++)
    for (guint m = 0; m < G_N_ELEMENTS (vit); m++)
      add_matrix (l, vit[m], i);
  add_matrix (l, IVL_MATRIX_MLP1, 0);
  add_matrix (l, IVL_MATRIX_MLP3, 0);
  add_matrix (l, IVL_MATRIX_TEXT_EMBED, 0);
  for (guint i = 0; i < config->text.layers; i++)
    for (guint m = 0; m < G_N_ELEMENTS (text); m++)
      add_matrix (l, text[m], i);
  if (!config->text.tied)
    add_matrix (l, IVL_MATRIX_TEXT_HEAD, 0);
}

/* Leaves SPAN without a buffer if this model has no such vector. */
static gboolean
vector (Loader *l, IvlVectorId id, guint layer, IvlSpan *span)
{
  gsize n = ivl_checkpoint_vector_size (l->checkpoint, id, layer);
  if (n == 0)
    return TRUE;
  if (l->placeholder) {
    *span = (IvlSpan){ l->placeholder, 0, n * sizeof (float) };
    return TRUE;
  }
  g_autofree float *values = g_new (float, n);
  return ivl_checkpoint_vector (l->checkpoint, id, layer, values, n, l->error)
         && ivl_pack_floats (&l->weights->packer, values, n, span, l->error);
}

static gboolean
load_vit (Loader *l, const IvlConfig *config)
{
  IvlVit *vit = &l->weights->vit;
  vit->config = config;
  vit->n_layers = config->vision.run_layers;
  vit->layers = g_new0 (IvlVitLayer, vit->n_layers);
  if (!matrix (l, IVL_MATRIX_VIT_PATCH, 0, &vit->patch) || !vector (l, IVL_VECTOR_VIT_PATCH_BIAS, 0, &vit->patch_bias)
      || !vector (l, IVL_VECTOR_VIT_CLASS, 0, &vit->class_token)
      || !vector (l, IVL_VECTOR_VIT_POSITION, 0, &vit->position))
    return FALSE;
  for (guint i = 0; i < vit->n_layers; i++) {
    IvlVitLayer *layer = &vit->layers[i];
    if (!vector (l, IVL_VECTOR_VIT_NORM1_WEIGHT, i, &layer->norm1_weight)
        || !vector (l, IVL_VECTOR_VIT_NORM1_BIAS, i, &layer->norm1_bias)
        || !matrix (l, IVL_MATRIX_VIT_QKV, i, &layer->qkv) || !vector (l, IVL_VECTOR_VIT_QKV_BIAS, i, &layer->qkv_bias)
        || !vector (l, IVL_VECTOR_VIT_Q_NORM, i, &layer->q_norm)
        || !vector (l, IVL_VECTOR_VIT_K_NORM, i, &layer->k_norm)
        || !matrix (l, IVL_MATRIX_VIT_PROJ, i, &layer->proj)
        || !vector (l, IVL_VECTOR_VIT_PROJ_BIAS, i, &layer->proj_bias) || !vector (l, IVL_VECTOR_VIT_LS1, i, &layer->ls1)
        || !vector (l, IVL_VECTOR_VIT_NORM2_WEIGHT, i, &layer->norm2_weight)
        || !vector (l, IVL_VECTOR_VIT_NORM2_BIAS, i, &layer->norm2_bias)
        || !matrix (l, IVL_MATRIX_VIT_FC1, i, &layer->fc1) || !vector (l, IVL_VECTOR_VIT_FC1_BIAS, i, &layer->fc1_bias)
        || !matrix (l, IVL_MATRIX_VIT_FC2, i, &layer->fc2) || !vector (l, IVL_VECTOR_VIT_FC2_BIAS, i, &layer->fc2_bias)
        || !vector (l, IVL_VECTOR_VIT_LS2, i, &layer->ls2))
      return FALSE;
  }
  return vector (l, IVL_VECTOR_MLP_NORM_WEIGHT, 0, &vit->mlp_norm_weight)
         && vector (l, IVL_VECTOR_MLP_NORM_BIAS, 0, &vit->mlp_norm_bias) && matrix (l, IVL_MATRIX_MLP1, 0, &vit->mlp1)
         && vector (l, IVL_VECTOR_MLP1_BIAS, 0, &vit->mlp1_bias) && matrix (l, IVL_MATRIX_MLP3, 0, &vit->mlp3)
         && vector (l, IVL_VECTOR_MLP3_BIAS, 0, &vit->mlp3_bias);
}

static gboolean
load_decoder (Loader *l, const IvlConfig *config, guint positions)
{
  IvlDecoder *decoder = &l->weights->decoder;
  decoder->config = config;
  decoder->n_positions = positions;
  decoder->layers = g_new0 (IvlDecoderLayer, config->text.layers);
  if (!matrix (l, IVL_MATRIX_TEXT_EMBED, 0, &decoder->embed))
    return FALSE;
  for (guint i = 0; i < config->text.layers; i++) {
    IvlDecoderLayer *layer = &decoder->layers[i];
    if (!vector (l, IVL_VECTOR_TEXT_INPUT_NORM, i, &layer->input_norm)
        || !matrix (l, IVL_MATRIX_TEXT_QKV, i, &layer->qkv) || !vector (l, IVL_VECTOR_TEXT_QKV_BIAS, i, &layer->qkv_bias)
        || !matrix (l, IVL_MATRIX_TEXT_O, i, &layer->o) || !vector (l, IVL_VECTOR_TEXT_POST_NORM, i, &layer->post_norm)
        || !matrix (l, IVL_MATRIX_TEXT_GATE_UP, i, &layer->gate_up)
        || !matrix (l, IVL_MATRIX_TEXT_DOWN, i, &layer->down))
      return FALSE;
  }
  if (config->text.tied)
    decoder->head = decoder->embed;
  else if (!matrix (l, IVL_MATRIX_TEXT_HEAD, 0, &decoder->head))
    return FALSE;
  gsize n = (gsize) positions * config->text.head_dim;
  if (l->placeholder) {
    decoder->rope = (IvlSpan){ l->placeholder, 0, n * sizeof (float) };
    return vector (l, IVL_VECTOR_TEXT_FINAL_NORM, 0, &decoder->norm);
  }
  g_autofree float *table = g_new (float, n);
  ivl_rope_table (config, positions, table);
  return vector (l, IVL_VECTOR_TEXT_FINAL_NORM, 0, &decoder->norm)
         && ivl_pack_floats (&l->weights->packer, table, n, &decoder->rope, l->error);
}

guint64
ivl_weights_estimate (const IvlCheckpoint *checkpoint, const IvlConfig *config, int dtype)
{
  guint64 bytes = 0;
  Loader l = { .checkpoint = checkpoint, .dtype = dtype };
  list_matrices (&l, config);
  for (guint i = 0; i < l.matrices->len; i++) {
    const IvlCachedMatrix *m = &g_array_index (l.matrices, IvlCachedMatrix, i);
    bytes += ivl_pack_matrix_bytes (m->source, m->dtype);
  }
  g_array_unref (l.matrices);
  return bytes;
}

gboolean
ivl_weights_lay_out (IvlModelWeights *weights, IvlDevice *device, const IvlCheckpoint *checkpoint, const IvlConfig *config,
                     int dtype, guint positions, IvlVkBuffer *placeholder, GError **error)
{
  memset (weights, 0, sizeof *weights);
  weights->packer.device = device;
  weights->packer.slices = g_ptr_array_new_with_free_func (g_free);
  Loader loader = { .weights = weights, .checkpoint = checkpoint, .dtype = dtype, .placeholder = placeholder,
                    .error = error };
  list_matrices (&loader, config);
  gboolean ok = load_vit (&loader, config) && load_decoder (&loader, config, positions);
  g_array_unref (loader.matrices);
  if (!ok)
    ivl_weights_deinit (weights);
  return ok;
}

gboolean
ivl_weights_load (IvlModelWeights *weights, IvlDevice *device, const IvlCheckpoint *checkpoint,
                  const IvlConfig *config, int dtype, guint positions, GCancellable *cancellable, GError **error)
{
  memset (weights, 0, sizeof *weights);
  guint64 estimate = ivl_weights_estimate (checkpoint, config, dtype);
  if (!ivl_packer_init (&weights->packer, device, CLAMP (estimate / 8, 1 << 20, BLOCK_BYTES), cancellable, error))
    return FALSE;
  Loader loader = { .weights = weights, .checkpoint = checkpoint, .dtype = dtype, .error = error };
  list_matrices (&loader, config);
  weights->packer.read = on_read;
  weights->packer.read_data = &loader;
  weights->cache = ivl_weight_cache_open (&weights->packer, checkpoint,
                                          (const IvlCachedMatrix *) loader.matrices->data, loader.matrices->len);
  /* Of what is mapped nothing goes into the arena but vectors. */
  if (weights->cache && ivl_weight_cache_mapped_bytes (weights->cache))
    weights->packer.arena.block_size = MIN (weights->packer.arena.block_size, SMALL_BLOCK_BYTES);
  gboolean ok = load_vit (&loader, config) && load_decoder (&loader, config, positions)
                && ivl_checkpoint_check_unchanged (checkpoint, error) && ivl_vk_wait (weights->packer.stream, 0, error);
  g_array_unref (loader.matrices);
  weights->packer.read = NULL;
  if (!ok) {
    ivl_weights_deinit (weights);
    return FALSE;
  }
  weights->bytes = weights->packer.arena.total;
  if (weights->cache) {
    ivl_weight_cache_commit (weights->cache);
    weights->bytes += ivl_weight_cache_mapped_bytes (weights->cache);
  }
  /* Once a type; these three have all types that a model can mix. */
  ivl_gemm_tune (device, weights->packer.stream, &weights->decoder.layers[0].gate_up);
  ivl_gemm_tune (device, weights->packer.stream, &weights->vit.layers[0].fc1);
  ivl_gemm_tune (device, weights->packer.stream, &weights->decoder.head);
  return TRUE;
}

void
ivl_weights_deinit (IvlModelWeights *weights)
{
  g_clear_pointer (&weights->vit.layers, g_free);
  g_clear_pointer (&weights->decoder.layers, g_free);
  ivl_packer_deinit (&weights->packer);
  g_clear_pointer (&weights->cache, ivl_weight_cache_free);
}
