/* Checkpoints of the family's true shapes with seeded weights, made on the spot: what timing and the full-size check
 * run on where the real ones can't be had. The rule for the weights is that of tests/reference (README, "Full size"). */
#ifndef IVL_TOOLS_SYNTHETIC_H
#define IVL_TOOLS_SYNTHETIC_H

#include "model/checkpoint.h"

/* NAME: "1B", "2B", "4B", "8B", "26B", "38B", "78B", or "tiny" (a second's work). The config is the caller's. */
IvlConfig *ivl_synthetic_config (const char *name, GError **error);
/* The same as the text of a config.json; free with g_free. */
char *ivl_synthetic_config_json (const char *name, GError **error);
/* BF16 weights in host memory, original layout. CONFIG is one of the above. */
IvlCheckpoint *ivl_synthetic_checkpoint (IvlConfig *config, GError **error);

/* ---- the parts, for whoever writes files ---- */

typedef struct {
  char *name; /* of the original layout */
  guint n_dims, dims[4];
  guint64 n; /* values */
} IvlSyntheticTensor;
/* Of IvlSyntheticTensor, in the order of the file. */
GArray *ivl_synthetic_tensors (const IvlConfig *config);
/* Bytes of all of them in 16 bits. */
guint64 ivl_synthetic_bytes (const GArray *tensors);
/* The JSON header of a safetensors file that holds them in DTYPE (of 16 bits), padded to a multiple of 8 bytes. */
char *ivl_synthetic_header (const GArray *tensors, const char *dtype);
/* Values FIRST to FIRST + N - 1 of the tensor called NAME, in BF16. */
void ivl_synthetic_values (const char *name, guint64 first, gsize n, guint16 *out);
/* Outputs of splitmix64 started at the FNV-1a hash of NAME. */
guint64 ivl_synthetic_seed (const char *name);
guint64 ivl_synthetic_random (guint64 seed, guint64 index);

#endif
