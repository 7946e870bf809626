/* From a checkpoint's rows to what lies on the device: matrices in panels (see push.h), vectors as f32. */
#ifndef IVL_MODEL_PACK_H
#define IVL_MODEL_PACK_H

#include "kernels/gemm.h"
#include "model/checkpoint.h"

/* Takes packed bytes of the matrix that is being packed, in order. */
typedef void (*IvlPackedFunc) (const void *data, gsize bytes, gpointer user_data);

/* Weights of one model: the arena they lie in, and the slices of the IvlWeights. */
typedef struct {
  IvlDevice *device;  /* borrowed */
  IvlVkStream *stream;
  IvlVkArena arena;
  GPtrArray *slices;  /* of IvlSpan arrays */
  GThreadPool *workers;
  guint16 largest;    /* magnitude of bf16 in the matrix under way */
  GCancellable *cancellable; /* borrowed, may be NULL */
  IvlPackedFunc packed;      /* may be NULL */
  gpointer packed_data;
  void (*read) (gpointer user_data); /* what was read of the source isn't needed any more; may be NULL */
  gpointer read_data;
} IvlPacker;

/* BLOCK_BYTES: size of the arena's blocks. */
gboolean ivl_packer_init (IvlPacker *packer, IvlDevice *device, guint64 block_bytes, GCancellable *cancellable,
                          GError **error);
void ivl_packer_deinit (IvlPacker *packer);
/* Bytes that ivl_pack_matrix takes. */
guint64 ivl_pack_matrix_bytes (const IvlMatrixSource *source, IvlDtype dtype);

/* Sets up WEIGHT but for its slices' spans. */
void ivl_pack_lay_out (IvlPacker *packer, const IvlMatrixSource *source, IvlDtype dtype, IvlWeight *weight);
/* A number that changes when packing to DTYPE comes to put other bytes, or puts them elsewhere. */
gboolean ivl_pack_fingerprint (IvlPacker *packer, IvlDtype dtype, guint64 *fingerprint, GError **error);
/* Converts to DTYPE (rounding to nearest even; quantising by blocks of a row) and refuses infinities and NaN by name. */
gboolean ivl_pack_matrix (IvlPacker *packer, const IvlMatrixSource *source, IvlDtype dtype, IvlWeight *weight,
                          GError **error);
gboolean ivl_pack_floats (IvlPacker *packer, const float *data, gsize n, IvlSpan *span, GError **error);

#endif
