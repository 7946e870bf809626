/* All of a model's weights on the device, by the checkpoint's logical names. */
#ifndef IVL_MODEL_WEIGHTS_H
#define IVL_MODEL_WEIGHTS_H

#include "model/decoder.h"
#include "model/pack.h"
#include "model/vit.h"
#include "model/weight-cache.h"

typedef struct {
  IvlPacker packer; /* owns the memory, together with */
  IvlWeightCache *cache; /* what was converted once, or NULL */
  IvlVit vit;
  IvlDecoder decoder;
  guint64 bytes;
} IvlModelWeights;

/* What loading will take on the device, without reading any weight. */
guint64 ivl_weights_estimate (const IvlCheckpoint *checkpoint, const IvlConfig *config, int dtype);

/* Converts once, and takes what was converted from the cache folder afterwards (weight-cache.h).
 * DTYPE: an IvlDtype, or -1 for each matrix's own. CONFIG is borrowed for the weights' life, CHECKPOINT for the
 * call. POSITIONS: of the RoPE table. */
gboolean ivl_weights_load (IvlModelWeights *weights, IvlDevice *device, const IvlCheckpoint *checkpoint,
                           const IvlConfig *config, int dtype, guint positions, GCancellable *cancellable,
                           GError **error);
/* Everything as it will be loaded, but with PLACEHOLDER, which outlives it, in place of all memory: to be recorded on
 * streams that plan. */
gboolean ivl_weights_lay_out (IvlModelWeights *weights, IvlDevice *device, const IvlCheckpoint *checkpoint,
                              const IvlConfig *config, int dtype, guint positions, IvlVkBuffer *placeholder, GError **error);
void ivl_weights_deinit (IvlModelWeights *weights);

#endif
