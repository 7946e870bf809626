/* Reader of safetensors folders: model.safetensors, or the shards that model.safetensors.index.json lists.
 *
 * Files are memory-mapped, headers are read and validated when opened: sizes against the file, shape times element
 * size against the byte range, ranges against each other. After that, every view that lookup hands out lies inside
 * its mapping. A tensor of an element type that the engine can't compute with is only an error for whoever needs it.
 *
 * Residual risk: a file that somebody truncates in place while it is mapped ends the process with SIGBUS, as with any
 * mapping. Headers are read with pread, so that a file shrinking during open is an error, and
 * ivl_safetensors_check_unchanged narrows the window; replacing a file by rename, as downloaders do, is safe.
 *
 * Threads: an opened IvlSafetensors is immutable and may be read from any thread. */
#ifndef IVL_TENSOR_SAFETENSORS_H
#define IVL_TENSOR_SAFETENSORS_H

#include "tensor/dtype.h"

#define IVL_TENSOR_MAX_DIMS 8

/* Everything is borrowed from the IvlSafetensors. */
typedef struct {
  const char *name;
  const char *file;       /* shard's name, without folder */
  IvlTensorDtype dtype;
  const char *dtype_name; /* as the file spells it */
  guint n_dims;           /* 0: one element */
  guint64 shape[IVL_TENSOR_MAX_DIMS];
  const void *data;       /* row-major, little-endian, NOT aligned: read with memcpy */
  gsize bytes;
} IvlTensorView;

typedef struct IvlSafetensors IvlSafetensors;

/* Opens the weights of a folder; model.safetensors is preferred to an index, as in the reference. */
IvlSafetensors *ivl_safetensors_open (const char *folder, GError **error);
/* One file in memory, for tests; NAME stands in messages. Takes its own reference of BYTES. */
IvlSafetensors *ivl_safetensors_new_from_bytes (GBytes *bytes, const char *name, GError **error);
void ivl_safetensors_free (IvlSafetensors *self); /* NULL-safe */
G_DEFINE_AUTOPTR_CLEANUP_FUNC (IvlSafetensors, ivl_safetensors_free)

gboolean ivl_safetensors_lookup (const IvlSafetensors *self, const char *name, IvlTensorView *view);

/* Tensors in the order of files and of bytes in them: reading in this order reads the disk forwards. */
guint ivl_safetensors_n_tensors (const IvlSafetensors *self);
void ivl_safetensors_nth (const IvlSafetensors *self, guint i, IvlTensorView *view);

/* What a message about a missing tensor should name: "model.safetensors" or the index. Borrowed. */
const char *ivl_safetensors_source (const IvlSafetensors *self);

/* Whether every mapped file still has the size that was validated. */
gboolean ivl_safetensors_check_unchanged (const IvlSafetensors *self, GError **error);

/* Adds what identifies the files (ivl_file_identify) to SUM; FALSE if that can't be told, as of bytes in memory. */
gboolean ivl_safetensors_identify (const IvlSafetensors *self, GChecksum *sum);
/* Gives back the memory that the mapping's pages take; they come again when they are read. */
void ivl_safetensors_release_pages (const IvlSafetensors *self);

/* "4096x2048"; "scalar" for no dimensions. Newly allocated. */
char *ivl_tensor_shape_string (const guint64 *shape, guint n_dims);

#endif
