/* Which shader a matmul takes on this device, found once by timing and kept in the cache folder.
 *
 * The choice is one per device, driver, weight type and class of rows, for the whole process: the first call for a type
 * settles it, from the file gemm-UUID-DRIVER.ini, else by timing, else by default, and it doesn't change any more, so that
 * all sessions of a process add up in the same order. Thread-safe. */
#ifndef IVL_KERNELS_GEMM_TUNE_H
#define IVL_KERNELS_GEMM_TUNE_H

#include "kernels/gemm.h"

/* WEIGHT: a typical matrix of its type, on the device. Small ones (IVL_GEMM_TUNE_WEIGHTS) aren't worth the time: for them
 * the file or the defaults serve. Does nothing when INTERNVL_GEMM or INTERNVL_DEBUG is set. Failures are logged, and leave the defaults. */
#define IVL_GEMM_TUNE_WEIGHTS (1u << 20)
void ivl_gemm_tune (IvlDevice *device, IvlVkStream *stream, const IvlWeight *weight);

/* The shader for M rows of DTYPE that was chosen, or -1. */
int ivl_gemm_tuned (IvlDevice *device, IvlDtype dtype, guint m);

#endif
