/* A checkpoint's weights by what they are for, whatever the file calls them.
 *
 * Hidden here: both name layouts, both generations of -hf prefixes and GGUF's names (gguf-model.h), fused or split q/k/v,
 * InternLM2's interleaved wqkv, the order of rotary pairs, quantised types, a tied head, a position table of another
 * size, and the spread over files. Opening maps the files and checks that every tensor the config asks for is there, in a
 * type and shape that fit; nothing is read or copied then.
 *
 * Matrices are packed for the device straight from the mapping, row by row, through IvlMatrixSource. Vectors are
 * small and come as floats.
 *
 * Threads: an opened IvlCheckpoint is immutable and may be read from any thread. */
#ifndef IVL_MODEL_CHECKPOINT_H
#define IVL_MODEL_CHECKPOINT_H

#include "model/config.h"
#include "tensor/gguf.h"
#include "tensor/safetensors.h"

/* C, F: width and intermediate size of the vision encoder; H, f: of the text model; V: vocabulary; Q = heads * d,
 * K = kv_heads * d. */
typedef enum {
  IVL_MATRIX_VIT_PATCH,    /* [C, 3 * patch^2], columns in the order channel, y, x */
  IVL_MATRIX_VIT_QKV,      /* [3C, C], rows q, k, v */
  IVL_MATRIX_VIT_PROJ,     /* [C, C] */
  IVL_MATRIX_VIT_FC1,      /* [F, C] */
  IVL_MATRIX_VIT_FC2,      /* [C, F] */
  IVL_MATRIX_MLP1,         /* [H, 4C] projector, first linear */
  IVL_MATRIX_MLP3,         /* [H, H]  projector, second linear */
  IVL_MATRIX_TEXT_EMBED,   /* [V, H] */
  IVL_MATRIX_TEXT_QKV,     /* [Q + 2K, H], rows q, k, v; a head's of q and k in the pairs that RoPE rotates, 0, d / 2, 1,
                            * d / 2 + 1, ... */
  IVL_MATRIX_TEXT_O,       /* [H, Q] */
  IVL_MATRIX_TEXT_GATE,    /* [f, H] */
  IVL_MATRIX_TEXT_UP,      /* [f, H] */
  IVL_MATRIX_TEXT_GATE_UP, /* [2f, H], rows gate 0, up 0, gate 1, up 1, ...: the two above, for a fused SwiGLU */
  IVL_MATRIX_TEXT_DOWN,    /* [H, f] */
  IVL_MATRIX_TEXT_HEAD,    /* [V, H]; the same source as the embedding when tied */
  IVL_N_MATRICES
} IvlMatrixId;

typedef enum {
  IVL_VECTOR_VIT_CLASS,        /* [C] */
  IVL_VECTOR_VIT_POSITION,     /* [(1 + grid^2) * C], interpolated if the checkpoint's grid is another */
  IVL_VECTOR_VIT_PATCH_BIAS,   /* [C] */
  IVL_VECTOR_VIT_NORM1_WEIGHT, /* [C] */
  IVL_VECTOR_VIT_NORM1_BIAS,   /* [C]; LayerNorm only */
  IVL_VECTOR_VIT_QKV_BIAS,     /* [3C]; with vision.qkv_bias only */
  IVL_VECTOR_VIT_Q_NORM,       /* [C]; with vision.qk_norm only */
  IVL_VECTOR_VIT_K_NORM,
  IVL_VECTOR_VIT_PROJ_BIAS,    /* [C] */
  IVL_VECTOR_VIT_LS1,          /* [C] */
  IVL_VECTOR_VIT_NORM2_WEIGHT,
  IVL_VECTOR_VIT_NORM2_BIAS,
  IVL_VECTOR_VIT_FC1_BIAS,     /* [F] */
  IVL_VECTOR_VIT_FC2_BIAS,     /* [C] */
  IVL_VECTOR_VIT_LS2,
  IVL_VECTOR_MLP_NORM_WEIGHT,  /* [4C] */
  IVL_VECTOR_MLP_NORM_BIAS,
  IVL_VECTOR_MLP1_BIAS,        /* [H] */
  IVL_VECTOR_MLP3_BIAS,        /* [H] */
  IVL_VECTOR_TEXT_INPUT_NORM,  /* [H] */
  IVL_VECTOR_TEXT_QKV_BIAS,    /* [Q + 2K], in the matrix' order; with text.qkv_bias only */
  IVL_VECTOR_TEXT_POST_NORM,   /* [H] */
  IVL_VECTOR_TEXT_FINAL_NORM,  /* [H] */
  IVL_N_VECTORS
} IvlVectorId;

#define IVL_MATRIX_MAX_PARTS 3

/* A run of logical rows out of one tensor: row i of the part is row base + (i / block) * stride + i % block of the
 * tensor. A plain tensor has block = rows. HALF, if not 0: of every run of 2 * half rows, which a block
 * holds whole, the part has the two halves in turns, 0, half, 1, half + 1, ... */
typedef struct {
  IvlTensorView tensor;
  guint first_row; /* of the matrix; not used when interleaved */
  guint rows;
  guint base, block, stride;
  guint half;
} IvlMatrixPart;

typedef struct {
  guint rows, cols;
  IvlTensorDtype dtype; /* of all parts; when they differ F16 if all are that or quantised, else F32 */
  gboolean interleaved; /* row r is row r / n_parts of part r % n_parts, instead of one part after the other */
  guint n_parts;
  IvlMatrixPart parts[IVL_MATRIX_MAX_PARTS];
} IvlMatrixSource;

/* COLS elements of DTYPE, borrowed from the mapping, in any alignment. R is below SRC's rows. */
const void *ivl_matrix_source_row (const IvlMatrixSource *src, guint r, IvlTensorDtype *dtype);
/* The same as floats. */
void ivl_matrix_source_row_f32 (const IvlMatrixSource *src, guint r, float *out);
/* FALSE and IVL_ERROR_BAD_MODEL naming tensor, row and column if row R holds an infinity or NaN. For whoever packs
 * rows: the row is about to be read anyway. */
gboolean ivl_matrix_source_check_row (const IvlMatrixSource *src, guint r, GError **error);

typedef struct IvlCheckpoint IvlCheckpoint;

/* CONFIG is borrowed and must outlive the checkpoint; its text.tied becomes what the files say: a head that is there
 * is used, one that is missing is the embedding if text.may_tie, else an error. Tensors that the model doesn't need
 * are ignored, but LoRA ones are refused: the reference would add them. */
IvlCheckpoint *ivl_checkpoint_open (const char *path, IvlConfig *config, GError **error);
/* As above from weights that are open; takes them over, also on failure. */
IvlCheckpoint *ivl_checkpoint_new (IvlSafetensors *weights, IvlConfig *config, GError **error);
/* The same from GGUF files. */
IvlCheckpoint *ivl_checkpoint_new_gguf (IvlGguf *text, IvlGguf *vision, IvlConfig *config, GError **error);
void ivl_checkpoint_free (IvlCheckpoint *self); /* NULL-safe */
G_DEFINE_AUTOPTR_CLEANUP_FUNC (IvlCheckpoint, ivl_checkpoint_free)

/* Borrowed, valid as long as the checkpoint. LAYER is 0 for what isn't part of a layer; vision layers go up to
 * vision.run_layers. Every matrix exists in every model. */
const IvlMatrixSource *ivl_checkpoint_matrix (const IvlCheckpoint *self, IvlMatrixId id, guint layer);

/* Elements of a vector; 0 if this model has none. */
gsize ivl_checkpoint_vector_size (const IvlCheckpoint *self, IvlVectorId id, guint layer);
/* Converts a vector of N elements, which must be its size. Fails with IVL_ERROR_BAD_MODEL on infinities and NaN. */
gboolean ivl_checkpoint_vector (const IvlCheckpoint *self, IvlVectorId id, guint layer, float *out, gsize n,
                                GError **error);

/* Whether every file still has the size that was validated. */
gboolean ivl_checkpoint_check_unchanged (const IvlCheckpoint *self, GError **error);
/* Adds what identifies the files to SUM; FALSE if they are no files. */
gboolean ivl_checkpoint_identify (const IvlCheckpoint *self, GChecksum *sum);
/* Gives back the memory that was read of the mappings; what is read later comes again. */
void ivl_checkpoint_release_pages (const IvlCheckpoint *self);
/* The files behind the views, NULL for GGUF. Borrowed. */
const IvlSafetensors *ivl_checkpoint_files (const IvlCheckpoint *self);

#endif
