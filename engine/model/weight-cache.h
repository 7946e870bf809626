/* Converted weights kept on disk, so that a model's second start neither converts nor, on unified memory, copies them.
 *
 * Only conversions are kept: with a checkpoint's own type there is nothing to save. A file per checkpoint and type in the
 * cache folder (ivl_cache_folder), weights-KEY.bin, KEY being a hash of all that the bytes depend on: the checkpoint's
 * files (size, time of change, samples), the matrices, the type, and what packing makes of a probe. So nothing that has
 * become stale is ever found; it only gets old. Before a file is used its header must be, byte by byte, the one that would
 * be written now, and every matrix must have the hash that the header says: anything else is logged in one line and
 * converted anew. Files and folder must be the user's own (or root's), and not writable by others.
 *
 * A file is written beside, under a name of its own, and renamed when whole: processes that start together each write one,
 * and the last stays. When all would take more than IVL_WEIGHT_CACHE_BYTES, or leave less than IVL_WEIGHT_CACHE_SPARE of
 * the file system (a twentieth of a small one), those unused longest are deleted first, and what still doesn't fit isn't kept. Readers map files, and
 * keep what they mapped.
 *
 * Layout: struct Header, struct Entry a matrix (weight-cache.c), then the matrices as they lie on the device, in blocks
 * that can be imported (ivl_vk_buffer_import). Host byte order: such files don't travel. */
#ifndef IVL_MODEL_WEIGHT_CACHE_H
#define IVL_MODEL_WEIGHT_CACHE_H

#include "model/pack.h"

#define IVL_WEIGHT_CACHE_BYTES (64ull << 30)
#define IVL_WEIGHT_CACHE_SPARE (1ull << 30)

typedef struct {
  IvlMatrixId id;
  guint layer;
  const IvlMatrixSource *source;
  IvlDtype dtype;
} IvlCachedMatrix;

typedef struct IvlWeightCache IvlWeightCache;

/* MATRICES: of the model in the order of loading, N. NULL, without an error, if nothing is to be kept of it. */
IvlWeightCache *ivl_weight_cache_open (IvlPacker *packer, const IvlCheckpoint *checkpoint,
                                       const IvlCachedMatrix *matrices, guint n);
/* Whether there was a good file: then take () all, else write () while packing, and end with commit (). */
gboolean ivl_weight_cache_is_hit (const IvlWeightCache *self);
/* Gives the I-th matrix: mapped if the device does that, else copied. */
gboolean ivl_weight_cache_take (IvlWeightCache *self, guint i, IvlWeight *weight, GError **error);
/* The I-th matrix is about to be packed: what PACKER is told from now on is its bytes. */
void ivl_weight_cache_begin (IvlWeightCache *self, guint i);
/* All were packed: the file gets its name. Failures are logged; nothing depends on it. */
void ivl_weight_cache_commit (IvlWeightCache *self);
/* Bytes that the device reads from the mapping. */
guint64 ivl_weight_cache_mapped_bytes (const IvlWeightCache *self);
/* After what uses the weights is gone. NULL-safe. */
void ivl_weight_cache_free (IvlWeightCache *self);

#endif
