/* A model in two GGUF files, as llama.cpp's converter writes them: a text model of architecture qwen2, internlm2 or
 * llama, and an mmproj with InternVL's vision encoder and projector.
 *
 * The config comes out as that of a folder in the original layout. What GGUF doesn't hold has the family's values:
 * ps_version v2, select_layer -1, template internvl2_5 with its own system message, a thumbnail, 1 to 12 tiles unless
 * clip.vision.preproc_min_tiles and preproc_max_tiles say otherwise, and for InternLM2 dynamic RoPE scaling by 2 (2.5
 * at width 6144), which the converter drops and which is the identity up to context_length. An output head that is
 * missing is the embedding. End tokens are those of tokenizer.ggml.eos_token_id and eot_token_id, and </s> of InternLM2
 * and Llama, which the converter replaces by <|im_end|>.
 *
 * Where llama.cpp's own inference departs from the reference this engine doesn't follow: GELU is by erf, and row 0 of
 * the position table belongs to the class token. */
#ifndef IVL_MODEL_GGUF_MODEL_H
#define IVL_MODEL_GGUF_MODEL_H

#include "model/checkpoint.h"
#include "tensor/gguf.h"

typedef struct {
  IvlGguf *text, *vision;
} IvlGgufModel;

IvlGgufModel *ivl_gguf_model_open (const char *path, GError **error); /* see tensor/gguf-pair.h */
/* Takes both over. */
IvlGgufModel *ivl_gguf_model_new (IvlGguf *text, IvlGguf *vision);
void ivl_gguf_model_free (IvlGgufModel *self); /* NULL-safe */
G_DEFINE_AUTOPTR_CLEANUP_FUNC (IvlGgufModel, ivl_gguf_model_free)

IvlConfig *ivl_gguf_model_config (const IvlGgufModel *self, GError **error);

/* Names of the tensors that make up a matrix or vector: '*' is the layer, '|' separates those that lie one after the
 * other. */
const char *ivl_gguf_model_matrix_names (const IvlGgufModel *self, IvlMatrixId id);
const char *ivl_gguf_model_vector_names (const IvlGgufModel *self, IvlVectorId id);
gboolean ivl_gguf_model_lookup (const IvlGgufModel *self, const char *name, IvlTensorView *view);
/* The file that should hold a tensor. Borrowed. */
const char *ivl_gguf_model_source (const IvlGgufModel *self, const char *name);

#endif
