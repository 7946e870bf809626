#include "kernels/norm.h"

/* Lanes of a workgroup that shares a row: enough to read memory in wide runs, few enough for a serial sum. */
#define SHARED_LANES 64

void
ivl_norm (IvlVkStream *stream, const IvlNorm *norm, IvlRows x, guint rows, guint cols, IvlRows y)
{
  ivl_norm_variant (stream, norm, x, rows, cols, y, -1, -1);
}

void
ivl_norm_variant (IvlVkStream *stream, const IvlNorm *norm, IvlRows x, guint rows, guint cols, IvlRows y,
                  int lane_per_row, int texels)
{
  static const IvlKernelId kernels[2][2] = { { IVL_K_NORM_SHARED_BUFFER, IVL_K_NORM_SHARED_TEXEL },
                                             { IVL_K_NORM_ROWS_BUFFER, IVL_K_NORM_ROWS_TEXEL } };
  IvlDevice *device = x.span.buffer->device;
  guint by_lane = lane_per_row < 0 ? device->software : lane_per_row != 0;
  struct IvlPushNorm push = {
    .rows = rows, .cols = cols / 4,
    .x_offset = (guint32) (x.offset / 4), .x_pitch = x.pitch / 4,
    .y_offset = (guint32) (y.offset / 4), .y_pitch = y.pitch / 4,
    .index_offset = norm->index_offset, .grid = norm->grid, .eps = norm->eps,
  };
  guint lanes = by_lane ? MAX (device->subgroup_size, 8) : SHARED_LANES;
  guint32 specs[] = { lanes, norm->rms, norm->bias != NULL, norm->pick };
  IvlSpan spans[] = { x.span, *norm->weight, norm->bias ? *norm->bias : *norm->weight,
                      norm->index ? *norm->index : *norm->weight, y.span };
  IvlGroups grid = ivl_groups_for (device, rows, by_lane ? lanes : 1);
  ivl_vk_dispatch (stream, kernels[by_lane][ivl_vk_use_texels (device, x.span.size, texels)], specs, G_N_ELEMENTS (specs),
                   spans, &push, sizeof push, grid);
  ivl_vk_note_work (stream, 7.0 * rows * cols, 8.0 * rows * cols);
}

void
ivl_norm_gemm (IvlVkStream *stream, const IvlNorm *norm, IvlRows x, guint rows, IvlRows h, const IvlWeight *weight,
               IvlRows y, const IvlGemmEpilogue *epilogue)
{
  gboolean fold = norm->rms && !norm->bias && norm->pick == IVL_PICK_ALL && !epilogue->scale
                  && ivl_gemm_norms (x.span.buffer->device, weight, rows);
  if (!fold) {
    ivl_norm (stream, norm, x, rows, weight->k, h);
    ivl_gemm (stream, weight, h, rows, y, epilogue);
    return;
  }
  IvlGemmEpilogue whole = *epilogue;
  whole.norm = norm->weight;
  whole.norm_eps = norm->eps;
  ivl_gemm (stream, weight, x, rows, y, &whole);
}
