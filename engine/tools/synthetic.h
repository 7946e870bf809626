/* Checkpoints of the family's true shapes with seeded weights, made on the spot: what timing and the full-size check
 * run on where the real ones can't be had. The rule for the weights is that of tests/reference (README, "Full size"). */
#ifndef IVL_TOOLS_SYNTHETIC_H
#define IVL_TOOLS_SYNTHETIC_H

#include "model/checkpoint.h"

/* NAME: "1B", "2B", "4B", "8B", "26B", "38B", "78B", or "tiny" (a second's work). The config is the caller's. */
IvlConfig *ivl_synthetic_config (const char *name, GError **error);
/* BF16 weights in host memory, original layout. CONFIG is one of the above. */
IvlCheckpoint *ivl_synthetic_checkpoint (IvlConfig *config, GError **error);
/* Outputs of splitmix64 started at the FNV-1a hash of NAME. */
guint64 ivl_synthetic_seed (const char *name);
guint64 ivl_synthetic_random (guint64 seed, guint64 index);

#endif
