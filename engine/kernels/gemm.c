#include "kernels/gemm.h"

#include <math.h>
#include <string.h>

#include "kernels/gemm-tune.h"

const char *const ivl_gemm_variant_names[IVL_N_GEMM_VARIANTS] = { "texel", "buffer", "address", "gpu", "coopmat" };

/* Registers only: on lavapipe 22.3 with bf16, GFLOP a CPU-second: m = 1 10.3 (1x4 3.2, 1x16 9.9), m = 2 15 (2x8 14), m = 4
 * 22 (4x8 18.5), m = 8 30 (8x8 26), m = 16 37 (16x8 31). One row reads 10 GB a CPU-second, two thirds of what a core can;
 * from four rows on, arithmetic and its instructions bound. Unrolling two steps changes nothing; fma () is for newer ones.
 * On 26.2 the same tiles are best: 16x16 42, 32x8 37, 24x16 39, 32x16 31, 8x32 36. Quantised, m = 1 is 5 to 14 % faster
 * with 1x16 than with 1x8 on both. With x by its address, 26.2, f16: 24x8 68 with 512-bit vectors and 43 with 256, 16x16 61
 * and 37, 20x8 65 and 38, 16x8 60, 28x8 64 and 43, 32x8 50; for 16 rows and k = 4864 16x8 59, 16x16 52. */
const IvlGemmShader ivl_gemm_shaders[] = {
#define ALL(NAME)                                                                                          \
  {                                                                                                        \
    IVL_K_GEMM_F32_##NAME, IVL_K_GEMM_F16_##NAME, IVL_K_GEMM_BF16_##NAME, IVL_K_GEMM_Q8_##NAME,            \
      IVL_K_GEMM_Q4_##NAME,                                                                                \
  }
#define PLAIN(NAME)                                                                                        \
  {                                                                                                        \
    IVL_K_GEMM_F32_##NAME, IVL_K_GEMM_F16_##NAME, IVL_K_GEMM_BF16_##NAME, IVL_N_KERNELS, IVL_N_KERNELS,    \
  }
#define QUANTISED(NAME)                                                                                    \
  {                                                                                                        \
    IVL_N_KERNELS, IVL_N_KERNELS, IVL_N_KERNELS, IVL_K_GEMM_Q8_##NAME, IVL_K_GEMM_Q4_##NAME,               \
  }
#define KERNELS(TYPES, NAME) TYPES (NAME), TYPES (NAME##_ROPE)
#define REGISTERS(TYPES, ROWS, COLUMNS)                                                                    \
  { IVL_GEMM_TEXEL, ROWS, COLUMNS, 0, 0, KERNELS (TYPES, ROWS##X##COLUMNS##_TEXEL) },                      \
  { IVL_GEMM_BUFFER, ROWS, COLUMNS, 0, 0, KERNELS (TYPES, ROWS##X##COLUMNS##_BUFFER) }
  REGISTERS (PLAIN, 1, 8), REGISTERS (QUANTISED, 1, 16), REGISTERS (ALL, 2, 16), REGISTERS (ALL, 4, 16),
  REGISTERS (ALL, 8, 16), REGISTERS (ALL, 16, 16),
#undef REGISTERS
#define ADDRESS(TYPES, ROWS, COLUMNS)                                                                      \
  { IVL_GEMM_ADDRESS, ROWS, COLUMNS, 0, 0, KERNELS (TYPES, ROWS##X##COLUMNS##_ADDRESS) }
  ADDRESS (PLAIN, 1, 8), ADDRESS (QUANTISED, 1, 16), ADDRESS (ALL, 2, 16), ADDRESS (ALL, 4, 16), ADDRESS (PLAIN, 8, 8),
  ADDRESS (QUANTISED, 8, 16), ADDRESS (PLAIN, 16, 8), ADDRESS (QUANTISED, 16, 16), ADDRESS (ALL, 24, 8),
#undef ADDRESS
#undef PLAIN
#undef QUANTISED
#define VECTOR(ROWS) { IVL_GEMM_GPU, ROWS, IVL_PANEL, 2 * IVL_PANEL, 8 * ROWS * IVL_PANEL, KERNELS (ALL, ROWS##X64_GPU) }
  VECTOR (1), VECTOR (4), VECTOR (8), VECTOR (16),
#undef VECTOR
#define TILED(ROWS, COLUMNS, LANES)                                                                        \
  { IVL_GEMM_GPU, ROWS, COLUMNS, LANES, 2 * 16 * 4 * (ROWS + COLUMNS), KERNELS (ALL, ROWS##X##COLUMNS##_GPU) }
  TILED (32, 64, 128), TILED (64, 64, 128), TILED (128, 128, 256),
#undef TILED
#undef KERNELS
#undef ALL
#if IVL_COOPMAT_SHADERS
  { IVL_GEMM_COOPMAT, 64, 64, 4, 16384,
    { IVL_N_KERNELS, IVL_K_GEMM_F16_64X64_COOPMAT, IVL_K_GEMM_BF16_64X64_COOPMAT, IVL_K_GEMM_Q8_64X64_COOPMAT,
      IVL_K_GEMM_Q4_64X64_COOPMAT },
    { IVL_N_KERNELS, IVL_K_GEMM_F16_64X64_COOPMAT_ROPE, IVL_K_GEMM_BF16_64X64_COOPMAT_ROPE,
      IVL_K_GEMM_Q8_64X64_COOPMAT_ROPE, IVL_K_GEMM_Q4_64X64_COOPMAT_ROPE } },
#endif
};
const guint ivl_n_gemm_shaders = G_N_ELEMENTS (ivl_gemm_shaders);

gboolean
ivl_gemm_is_vector (const IvlGemmShader *shader)
{
  return shader->variant == IVL_GEMM_GPU && shader->rows <= IVL_GEMM_VECTOR_ROWS;
}

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

static guint
workgroup_lanes (const IvlDevice *device, const IvlGemmShader *shader)
{
  if (shader->variant == IVL_GEMM_COOPMAT)
    return device->coopmat_lanes;
  return shader->lanes ? shader->lanes : MIN (MAX (device->subgroup_size, 8), IVL_PANEL);
}

/* Workgroups may take turns at tiles (gemm/gemm.comp), for which a subgroup broadcasts. */
static gboolean
has_turns (const IvlGemmShader *shader)
{
  return shader->variant == IVL_GEMM_TEXEL || shader->variant == IVL_GEMM_ADDRESS;
}

gboolean
ivl_gemm_can_norm (const IvlGemmShader *shader, const IvlWeight *weight)
{
  return ivl_gemm_is_vector (shader) && weight->k == weight->k_pad;
}

const char *
ivl_gemm_lacks (const IvlDevice *device, const IvlGemmShader *shader, const IvlWeight *weight)
{
  const VkPhysicalDeviceLimits *limits = &device->properties.limits;
  if (shader->kernels[weight->dtype] == IVL_N_KERNELS)
    return "not for this type of weights";
  if (shader->variant == IVL_GEMM_TEXEL && limits->maxTexelBufferElements < 1u << 20)
    return "the device takes few texels";
  if (shader->variant != IVL_GEMM_TEXEL
      && ivl_weight_slice_bytes (weight->dtype, MIN (weight->n, weight->slice_n), weight->k) > limits->maxStorageBufferRange)
    return "the weights were cut for texel buffers";
  if (shader->variant == IVL_GEMM_ADDRESS && !device->addresses)
    return "the device's buffers have no addresses";
  if (has_turns (shader) && !device->subgroup_ballot)
    return "the device's subgroups don't broadcast";
  if (shader->variant == IVL_GEMM_COOPMAT && !device->coopmat_m)
    return "the device offers no suitable cooperative matrices";
  if (shader->variant == IVL_GEMM_COOPMAT && device->driver == VK_DRIVER_ID_MESA_LLVMPIPE && device->coopmat_lanes != 4 * 8)
    return "lavapipe's cooperative matrices crash unless its vectors have 256 bits"; /* 26.2.6, while compiling */
  if (shader->variant == IVL_GEMM_COOPMAT && weight->dtype == IVL_DTYPE_BF16 && !(weight->largest > 0))
    return "the weights' range isn't known";
  guint lanes = workgroup_lanes (device, shader);
  if (lanes > limits->maxComputeWorkGroupInvocations || lanes > limits->maxComputeWorkGroupSize[0])
    return "the device's workgroups are too small";
  if (shader->shared_bytes > limits->maxComputeSharedMemorySize)
    return "the device has too little shared memory";
  return NULL;
}

/* Brings the largest weight to 2^15 at most, the least one as far from f16's subnormals as that allows. The scales of
 * quantised weights bound them by 131008. */
static float
weight_up (const IvlWeight *weight)
{
  if (ivl_dtype_is_quantised (weight->dtype))
    return 0.5f;
  if (weight->dtype != IVL_DTYPE_BF16 || !(weight->largest > 0))
    return 1.f;
  return ldexpf (1.f, CLAMP (14 - ilogbf (weight->largest), -100, 100));
}

static IvlGemmVariant
preferred_variant (const IvlDevice *device)
{
  const char *forced = g_getenv ("INTERNVL_GEMM");
  for (guint v = 0; forced && v < IVL_N_GEMM_VARIANTS; v++)
    if (strcmp (forced, ivl_gemm_variant_names[v]) == 0)
      return v;
  if (!device->software)
    return IVL_GEMM_GPU; /* cooperative matrices when named, or found faster by gemm-tune.c */
  return device->texels ? IVL_GEMM_TEXEL : device->broadcasts ? IVL_GEMM_ADDRESS : IVL_GEMM_BUFFER;
}

static guint
padded (guint m, guint rows)
{
  return (m + rows - 1) / rows * rows;
}

/* Rows of the tile that wastes least; for GPUs large tiles only where there are enough of them to keep it busy. */
static guint
tile_rows (IvlGemmVariant variant, guint m, guint n)
{
  /* A row takes 24x8 7/8 of the time of the tiles of 16 rows. */
  if (variant == IVL_GEMM_ADDRESS && 7 * padded (m, 24) < 8 * padded (m, 16))
    return 24;
  if (variant < IVL_GEMM_GPU)
    return m > 8 ? 16 : m > 4 ? 8 : m > 2 ? 4 : m;
  if (m <= IVL_GEMM_VECTOR_ROWS)
    return m > 8 ? IVL_GEMM_VECTOR_ROWS : m > 4 ? 8 : m > 1 ? 4 : 1;
  if ((guint64) m * n >= 128 * 128 * 64)
    return 128;
  return m > 32 ? 64 : 32;
}

#define GPU_GROUPS 256      /* workgroups that keep a GPU busy; more parts than that cost more than they bring */
#define GPU_PART_K 256      /* least share of a sum */
#define GPU_MOST_PARTS 16

IvlGemmChoice
ivl_gemm_parts (const IvlWeight *weight, guint shader, guint m)
{
  const IvlGemmShader *s = &ivl_gemm_shaders[shader];
  guint n = MIN (weight->n, weight->slice_n);
  guint64 groups = (n + s->columns - 1) / s->columns;
  /* For few rows the weight's shape alone decides: a row's sum must not depend on how many others there are. */
  if (ivl_gemm_is_vector (s))
    m = MAX (m, IVL_GEMM_VECTOR_ROWS);
  else
    groups *= (m + s->rows - 1) / s->rows;
  guint parts = (guint) MIN (MIN (GPU_GROUPS / MAX (groups, 1), weight->k / GPU_PART_K), GPU_MOST_PARTS);
  while (parts > 1 && 4ull * parts * m * ((n + 3) / 4 * 4) > IVL_VK_SCRATCH_BYTES)
    parts--;
  return (IvlGemmChoice){ shader, s->variant >= IVL_GEMM_GPU ? MAX (parts, 1) : 1 };
}

IvlGemmChoice
ivl_gemm_choose (IvlDevice *device, const IvlWeight *weight, guint m)
{
  int tuned = ivl_gemm_tuned (device, weight->dtype, m);
  if (tuned >= 0 && !ivl_gemm_lacks (device, &ivl_gemm_shaders[tuned], weight))
    return ivl_gemm_parts (weight, (guint) tuned, m);
  guint n = MIN (weight->n, weight->slice_n);
  IvlGemmVariant variant = preferred_variant (device);
  guint rows = tile_rows (variant, m, n);
  guint best = 0;
  for (guint i = 0; i < ivl_n_gemm_shaders; i++) {
    const IvlGemmShader *s = &ivl_gemm_shaders[i];
    /* Cooperative matrices are for more rows than their least tile would waste; what they can't do, shared memory does. */
    gboolean fits = s->variant == IVL_GEMM_COOPMAT ? m > 16 : s->rows <= rows;
    if ((s->variant == variant || (variant == IVL_GEMM_COOPMAT && s->variant == IVL_GEMM_GPU)) && fits
        && !ivl_gemm_lacks (device, s, weight))
      best = i;
  }
  return ivl_gemm_parts (weight, best, m);
}

gboolean
ivl_gemm_norms (IvlDevice *device, const IvlWeight *weight, guint m)
{
  return ivl_gemm_can_norm (&ivl_gemm_shaders[ivl_gemm_choose (device, weight, m).shader], weight);
}

void
ivl_gemm (IvlVkStream *stream, const IvlWeight *weight, IvlRows x, guint m, IvlRows y,
          const IvlGemmEpilogue *epilogue)
{
  ivl_gemm_with (stream, weight, x, m, y, epilogue, ivl_gemm_choose (x.span.buffer->device, weight, m));
}

gboolean
ivl_gemm_takes_rope (const IvlDevice *device, const IvlRope *rope)
{
  return MAX (rope->table.size, rope->rows.size) / 16 <= device->properties.limits.maxTexelBufferElements;
}

#define REDUCE_LANES 64

/* The parts in SCRATCH, [parts, m, pitch], into y with the epilogue. */
static void
reduce (IvlVkStream *stream, IvlKernelId kernel, IvlSpan *spans, const guint32 *specs, const struct IvlPushGemm *whole,
        IvlSpan scratch, guint pitch, guint parts)
{
  IvlDevice *device = scratch.buffer->device;
  struct IvlPushGemm push = *whole;
  push.k = parts;
  push.x_offset = 0;
  push.x_pitch = pitch;
  guint32 own[] = { REDUCE_LANES, specs[1], specs[2], specs[3], specs[4] };
  spans[0] = spans[1] = scratch;
  ivl_vk_dispatch (stream, kernel, own, G_N_ELEMENTS (own), spans, &push, sizeof push,
                   ivl_groups_for (device, (guint64) push.m * ((push.n + 1) / 2), REDUCE_LANES));
}

/* Workgroups that take turns at TILES: each processor's could do them all. */
static guint
turn_groups (const IvlDevice *device, guint tiles, guint k)
{
  return MIN (tiles, device->processors * ((tiles - 1) / IVL_TURNS (k) + 1));
}

void
ivl_gemm_with (IvlVkStream *stream, const IvlWeight *w, IvlRows x, guint m, IvlRows y,
               const IvlGemmEpilogue *epilogue, IvlGemmChoice choice)
{
  IvlDevice *device = x.span.buffer->device;
  const IvlGemmShader *chosen = &ivl_gemm_shaders[choice.shader];
  g_assert (!epilogue->norm || (!epilogue->scale && ivl_gemm_can_norm (chosen, w)));
  const IvlRope *rope = epilogue->rope;
  for (guint s = 0; s < w->n_slices; s++) {
    const IvlGemmShader *shader = chosen;
    guint64 texels = MAX (x.span.size, w->slices[s].size) / 16;
    if (shader->variant == IVL_GEMM_TEXEL && texels > device->properties.limits.maxTexelBufferElements)
      shader++; /* the same tile, from storage buffers */
    guint lanes = workgroup_lanes (device, shader);
    guint columns = shader->lanes ? shader->columns : lanes * shader->columns;
    guint n = s + 1 < w->n_slices ? w->slice_n : w->n - s * w->slice_n;
    struct IvlPushGemm push = {
      .m = m, .n = n, .k = w->k_pad,
      .x_offset = (guint32) (x.offset / 4), .x_pitch = x.pitch / 4,
      .y_offset = (guint32) y.offset, .y_pitch = y.pitch,
      .n_base = s * w->slice_n,
      .w_up = weight_up (w), .eps = epilogue->norm_eps,
      .row_base = rope ? rope->row_base : 0,
    };
    gboolean coopmat = shader->variant == IVL_GEMM_COOPMAT;
    IvlSpan unused = { x.span.buffer, x.span.offset, 16 }, turns = unused;
    gboolean takes_turns = has_turns (shader) && device->processors && lanes == device->subgroup_size
                           && ivl_vk_turns (stream, &turns);
    guint32 specs[] = { lanes, epilogue->bias != NULL, epilogue->act, epilogue->scale != NULL, epilogue->add,
                        coopmat ? device->coopmat_m : device->fused,
                        takes_turns || epilogue->norm, device->coopmat_n, device->coopmat_k };
    if (rope) {
      specs[2] = rope->head_dim;
      specs[3] = rope->heads;
      specs[4] = rope->kv_heads;
    }
    guint n_specs = coopmat ? 9 : 7;
    guint32 no_epilogue[G_N_ELEMENTS (specs)] = { lanes };
    memcpy (no_epilogue + 5, specs + 5, 4 * sizeof *specs);
    IvlSpan factors = epilogue->norm ? *epilogue->norm : epilogue->scale ? *epilogue->scale : unused;
    IvlSpan spans[] = { x.span, w->slices[s], epilogue->bias ? *epilogue->bias : unused, factors, y.span,
                        rope ? rope->rows : turns, rope ? rope->cache : unused, rope ? rope->table : unused, turns };
    IvlGroups groups = { (m + shader->rows - 1) / shader->rows, (n + columns - 1) / columns, choice.parts };
    if (takes_turns)
      groups = (IvlGroups){ turn_groups (device, groups.x * groups.y, w->k_pad), 1, 1 };
    IvlSpan scratch;
    if (groups.z > 1 && !ivl_vk_scratch (stream, &scratch))
      groups.z = 1;
    if (groups.z > 1) {
      struct IvlPushGemm part = push;
      guint pitch = (n + 3) / 4 * 4;
      part.n_base = part.y_offset = 0;
      part.y_pitch = pitch;
      scratch.size = 4ull * groups.z * m * pitch;
      IvlSpan part_spans[] = { x.span, w->slices[s], unused, factors, scratch };
      ivl_vk_dispatch (stream, shader->kernels[w->dtype], no_epilogue, n_specs, part_spans, &part,
                       sizeof part, groups);
      ivl_vk_note_work (stream, 2.0 * m * n * w->k, (double) w->slices[s].size + 4.0 * m * w->k);
      reduce (stream, rope ? IVL_K_GEMM_REDUCE_ROPE : IVL_K_GEMM_REDUCE, spans, specs, &push, scratch, pitch, groups.z);
      ivl_vk_note_work (stream, 0, 4.0 * m * n);
    } else {
      ivl_vk_dispatch (stream, (rope ? shader->rope_kernels : shader->kernels)[w->dtype], specs, n_specs, spans, &push,
                       sizeof push, groups);
      ivl_vk_note_work (stream, 2.0 * m * n * w->k, (double) w->slices[s].size + 4.0 * m * (w->k + (double) n));
    }
  }
}
