/* Reader of GGUF files, versions 2 and 3, little-endian: typed metadata and tensors, as llama.cpp writes them.
 *
 * The file is memory-mapped; header, every metadata value and every tensor's entry are validated when opened: counts and
 * lengths against the file, dimensions against block sizes, byte ranges against the file and each other. After that
 * every view lies inside the mapping. A tensor of a type that the engine can't compute with is only an error for
 * whoever needs it. Residual risk: as in safetensors.h.
 *
 * Layout: "GGUF", u32 version, u64 tensors, u64 values; values: key, u32 type, value; tensors: name, u32 dimensions,
 * u64 each (the fastest first), u32 type, u64 offset; then, aligned to general.alignment (32), the data. A string is a
 * u64 length and bytes; an array is u32 type, u64 count and elements.
 *
 * Threads: an opened IvlGguf is immutable and may be read from any thread. */
#ifndef IVL_TENSOR_GGUF_H
#define IVL_TENSOR_GGUF_H

#include "tensor/safetensors.h"

typedef struct IvlGguf IvlGguf;

IvlGguf *ivl_gguf_open (const char *folder, const char *name, GError **error);
/* One file in memory; NAME stands in messages. Takes its own reference of BYTES. */
IvlGguf *ivl_gguf_new_from_bytes (GBytes *bytes, const char *name, GError **error);
void ivl_gguf_free (IvlGguf *self); /* NULL-safe */
G_DEFINE_AUTOPTR_CLEANUP_FUNC (IvlGguf, ivl_gguf_free)

const char *ivl_gguf_get_name (const IvlGguf *self); /* borrowed; UTF-8 */
/* Whether the file still has the size that was validated. */
gboolean ivl_gguf_check_unchanged (const IvlGguf *self, GError **error);

/* As those of safetensors.h. */
gboolean ivl_gguf_identify (const IvlGguf *self, GChecksum *sum);
void ivl_gguf_release_pages (const IvlGguf *self);

/* ---- metadata ---- */

gboolean ivl_gguf_has (const IvlGguf *self, const char *key);
guint ivl_gguf_n_values (const IvlGguf *self);
const char *ivl_gguf_nth_key (const IvlGguf *self, guint i); /* borrowed */

/* Each fails with IVL_ERROR_BAD_MODEL naming the key if it is missing, of another type, or not representable. */
gboolean ivl_gguf_get_uint (const IvlGguf *self, const char *key, guint64 *value, GError **error); /* any integer type */
gboolean ivl_gguf_get_double (const IvlGguf *self, const char *key, double *value, GError **error); /* any number */
gboolean ivl_gguf_get_bool (const IvlGguf *self, const char *key, gboolean *value, GError **error);
/* Free with g_free. UTF-8 without U+0000. */
char *ivl_gguf_get_string (const IvlGguf *self, const char *key, GError **error);
/* Arrays. Numbers of any type come as doubles (g_free); strings as pointers into CHUNK, UTF-8 without U+0000. */
double *ivl_gguf_get_numbers (const IvlGguf *self, const char *key, guint *n, GError **error);
GPtrArray *ivl_gguf_get_strings (const IvlGguf *self, const char *key, GStringChunk *chunk, GError **error);

/* ---- tensors ---- */

/* Views have dimensions in the order of safetensors, the fastest last. */
gboolean ivl_gguf_lookup (const IvlGguf *self, const char *name, IvlTensorView *view);
guint ivl_gguf_n_tensors (const IvlGguf *self);
void ivl_gguf_nth (const IvlGguf *self, guint i, IvlTensorView *view); /* in the order of their bytes */

#endif
