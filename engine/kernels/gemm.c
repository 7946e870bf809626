#include "kernels/gemm.h"

/* Rows x columns of a lane. On lavapipe 22.3 with bf16, GFLOP a CPU-second: m = 1 10.3 (1x4 3.2, 1x16 9.9), m = 2 15
 * (2x8 14), m = 4 22 (4x8 18.5), m = 8 30 (8x8 26), m = 16 37 (16x8 31). One row reads 10 GB a CPU-second, two thirds of
 * what a core can; from four rows on, arithmetic bounds (its ceiling is 42-48). Unrolling two steps changes nothing. */
static const struct {
  guint tm, tn;
  IvlKernelId texel[IVL_N_DTYPES], buffer[IVL_N_DTYPES];
} tiles[] = {
#define KERNELS(TILE, HOW)                                                                         \
  {                                                                                                \
    IVL_K_GEMM_F32_##TILE##_##HOW, IVL_K_GEMM_F16_##TILE##_##HOW, IVL_K_GEMM_BF16_##TILE##_##HOW,  \
      IVL_K_GEMM_Q8_##TILE##_##HOW, IVL_K_GEMM_Q4_##TILE##_##HOW,                                  \
  }
#define TILE(TM, TN) { TM, TN, KERNELS (TM##X##TN, TEXEL), KERNELS (TM##X##TN, BUFFER) }
  TILE (1, 8), TILE (2, 16), TILE (4, 16), TILE (8, 16), TILE (16, 16),
#undef TILE
#undef KERNELS
};

gsize
ivl_weight_panel_bytes (IvlDtype dtype, guint k)
{
  gsize blocks = (k + IVL_QUANT_BLOCK - 1) / IVL_QUANT_BLOCK;
  if (ivl_dtype_is_quantised (dtype))
    return 16 * blocks * (dtype == IVL_DTYPE_Q8 ? IVL_Q8_BLOCK_TEXELS : IVL_Q4_BLOCK_TEXELS);
  return (gsize) IVL_PANEL * ((k + 7) / 8 * 8) * ivl_dtype_bytes (dtype);
}

guint64
ivl_weight_slice_bytes (IvlDtype dtype, guint n, guint k)
{
  guint64 panels = (n + IVL_PANEL - 1) / IVL_PANEL;
  return panels * ivl_weight_panel_bytes (dtype, k);
}

/* Texel buffers are gathered from where storage buffers are read lane by lane: twice as fast on lavapipe of Mesa 22.3. Newer
 * ones, which tell their true version, gather from both and broadcast what a storage buffer has at a uniform index: m = 16
 * 42 GFLOP a CPU-second against 21 from texels (26.2). */
static gboolean
prefers_texels (const IvlDevice *device)
{
  return device->driver == VK_DRIVER_ID_MESA_LLVMPIPE && device->properties.driverVersion < VK_MAKE_API_VERSION (0, 23, 0, 0);
}

void
ivl_gemm (IvlVkStream *stream, const IvlWeight *weight, IvlRows x, guint m, IvlRows y,
          const IvlGemmEpilogue *epilogue)
{
  ivl_gemm_variant (stream, weight, x, m, y, epilogue, 0, -1);
}

void
ivl_gemm_variant (IvlVkStream *stream, const IvlWeight *w, IvlRows x, guint m, IvlRows y,
                  const IvlGemmEpilogue *epilogue, guint tile_m, int texels)
{
  IvlDevice *device = x.span.buffer->device;
  if (tile_m == 0)
    tile_m = m > 8 ? 16 : m > 4 ? 8 : m > 2 ? 4 : m;
  guint t = 0;
  while (tiles[t].tm != tile_m)
    t++;
  guint lanes = MIN (MAX (device->subgroup_size, 8), IVL_PANEL);

  for (guint s = 0; s < w->n_slices; s++) {
    guint n = s + 1 < w->n_slices ? w->slice_n : w->n - s * w->slice_n;
    gboolean use_texels = (texels < 0 ? prefers_texels (device) : texels)
                          && MAX (x.span.size, w->slices[s].size) / 16
                                 <= device->properties.limits.maxTexelBufferElements;
    struct IvlPushGemm push = {
      .m = m, .n = n, .k = w->k_pad,
      .x_offset = (guint32) (x.offset / 4), .x_pitch = x.pitch / 4,
      .y_offset = (guint32) y.offset, .y_pitch = y.pitch,
      .n_base = s * w->slice_n,
    };
    guint32 specs[] = { lanes, epilogue->bias != NULL, epilogue->act, epilogue->scale != NULL, epilogue->add };
    IvlSpan unused = { x.span.buffer, x.span.offset, 16 };
    IvlSpan spans[] = { x.span, w->slices[s], epilogue->bias ? *epilogue->bias : unused,
                        epilogue->scale ? *epilogue->scale : unused, y.span };
    IvlGroups groups = { (m + tile_m - 1) / tile_m, (n + lanes * tiles[t].tn - 1) / (lanes * tiles[t].tn), 1 };
    ivl_vk_dispatch (stream, (use_texels ? tiles[t].texel : tiles[t].buffer)[w->dtype], specs, G_N_ELEMENTS (specs),
                     spans, &push, sizeof push, groups);
    ivl_vk_note_work (stream, 2.0 * m * n * w->k,
                      (double) w->slices[s].size + 4.0 * m * (w->k + (double) n));
  }
}
