/* From a checkpoint's rows to what lies on the device: matrices in panels (see push.h), vectors as f32. */
#ifndef IVL_MODEL_PACK_H
#define IVL_MODEL_PACK_H

#include "kernels/gemm.h"
#include "model/checkpoint.h"

/* Weights of one model: the arena they lie in, and the slices of the IvlWeights. */
typedef struct {
  IvlDevice *device;  /* borrowed */
  IvlVkStream *stream;
  IvlVkArena arena;
  GPtrArray *slices;  /* of IvlSpan arrays */
  GThreadPool *workers;
  GCancellable *cancellable; /* borrowed, may be NULL */
} IvlPacker;

/* BLOCK_BYTES: size of the arena's blocks. */
gboolean ivl_packer_init (IvlPacker *packer, IvlDevice *device, guint64 block_bytes, GCancellable *cancellable,
                          GError **error);
void ivl_packer_deinit (IvlPacker *packer);
/* Bytes that ivl_pack_matrix takes. */
guint64 ivl_pack_matrix_bytes (const IvlMatrixSource *source, IvlDtype dtype);

/* Converts to DTYPE (rounding to nearest even; quantising by blocks of a row) and refuses infinities and NaN by name. */
gboolean ivl_pack_matrix (IvlPacker *packer, const IvlMatrixSource *source, IvlDtype dtype, IvlWeight *weight,
                          GError **error);
gboolean ivl_pack_floats (IvlPacker *packer, const float *data, gsize n, IvlSpan *span, GError **error);

#endif
