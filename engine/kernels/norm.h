/* LayerNorm and RMSNorm of rows. */
#ifndef IVL_KERNELS_NORM_H
#define IVL_KERNELS_NORM_H

#include "kernels/gemm.h"

typedef enum {
  IVL_PICK_ALL,
  IVL_PICK_INDEX,      /* row r of y is row index[r] of x */
  IVL_PICK_SHUFFLE_V2, /* four ViT tokens side by side; x holds [tiles, 1 + grid * grid] rows */
  IVL_PICK_SHUFFLE_V1,
} IvlPick;

typedef struct {
  gboolean rms;
  float eps;
  const IvlSpan *weight; /* f32 [cols] */
  const IvlSpan *bias;   /* f32 [cols], or NULL */
  IvlPick pick;
  const IvlSpan *index;  /* u32, for IVL_PICK_INDEX */
  guint index_offset;
  guint grid;            /* patches a side, for the shuffles */
} IvlNorm;

/* y[rows, cols] = norm (x); COLS is a multiple of 4 (of 4 * 4 for the shuffles). y may be x. */
void ivl_norm (IvlVkStream *stream, const IvlNorm *norm, IvlRows x, guint rows, guint cols, IvlRows y);
/* y = norm (x) . weight^T with EPILOGUE, by way of H where the matmul can't take the norm along. */
void ivl_norm_gemm (IvlVkStream *stream, const IvlNorm *norm, IvlRows x, guint rows, IvlRows h, const IvlWeight *weight,
                    IvlRows y, const IvlGemmEpilogue *epilogue);
/* For checks and timing: LANE_PER_ROW 0 no, 1 yes, -1 by device; TEXELS as in ivl_vk_use_texels. */
void ivl_norm_variant (IvlVkStream *stream, const IvlNorm *norm, IvlRows x, guint rows, guint cols, IvlRows y,
                       int lane_per_row, int texels);

#endif
