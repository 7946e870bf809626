#include "check.h"
#include "ref.h"

#include <math.h>
#include <string.h>

#include "model/quantise.h"

typedef struct {
  const char *name;
  gboolean bias, scale, add;
  IvlAct act;
  gboolean norm;
} Epilogue;

/* Every combination the models use, and each switch alone. */
static const Epilogue epilogues[] = {
  { "plain", FALSE, FALSE, FALSE, IVL_ACT_NONE },       { "bias", TRUE, FALSE, FALSE, IVL_ACT_NONE },
  { "bias gelu", TRUE, FALSE, FALSE, IVL_ACT_GELU },    { "bias scale add", TRUE, TRUE, TRUE, IVL_ACT_NONE },
  { "add", FALSE, FALSE, TRUE, IVL_ACT_NONE },          { "swiglu", FALSE, FALSE, FALSE, IVL_ACT_SWIGLU },
  { "bias swiglu", TRUE, FALSE, FALSE, IVL_ACT_SWIGLU }, { "scale gelu", FALSE, TRUE, FALSE, IVL_ACT_GELU },
  { "norm bias", TRUE, FALSE, FALSE, IVL_ACT_NONE, TRUE }, { "norm swiglu", FALSE, FALSE, FALSE, IVL_ACT_SWIGLU, TRUE },
};

/* The decoder's q, k and v, rotated and stored. */
typedef struct {
  guint m, heads, kv_heads, d, k;
  guint slice_n; /* 0: in one piece */
  gboolean bias;
} RopeSize;

typedef struct {
  IvlVkStream *stream;
  IvlWeight weight;
  IvlSpan slices[8];
  IvlRows x, y;
  guint m;
  IvlGemmChoice choice;
  IvlSpan bias, scale, norm;
  IvlRope rope;
  IvlGemmEpilogue epilogue;
} Args;

static void
record (gpointer data)
{
  Args *a = data;
  ivl_gemm_with (a->stream, &a->weight, a->x, a->m, a->y, &a->epilogue, a->choice);
}

typedef struct {
  guint m, n, k;
  guint slice_n;   /* 0: in one piece */
  double x_scale;
  double w_scale;
} Size;

static guint32
random_weight (Check *c, IvlDtype dtype, double scale)
{
  static const guint32 edges[3][6] = {
    { 0, 0x80000000, 0x3f800000, 0xc7000000, 0x00800000, 0x477fe000 },
    { 0, 0x8000, 0x3c00, 0xfbff, 0x0400, 0x7bff },
    { 0, 0x8000, 0x3f80, 0xc780, 0x0080, 0x477f },
  };
  if (check_below (c, 64) == 0)
    return edges[dtype][check_below (c, 6)];
  float v = (float) (scale * check_uniform (c, -1, 1));
  guint32 bits;
  memcpy (&bits, &v, 4);
  if (dtype == IVL_DTYPE_F32)
    return bits;
  if (dtype == IVL_DTYPE_BF16)
    return bits >> 16;
  /* Truncation, which is as good as rounding here; below the smallest normal number: zero. */
  int exponent = (int) (bits >> 23 & 255) - 112;
  if (exponent < 1)
    return 0;
  return (bits >> 16 & 0x8000) | (guint32) MIN (exponent, 30) << 10 | (bits >> 13 & 1023);
}

/* The panels of floats W, whose rows become what the quantised ones stand for. */
static guint8 *
pack_quantised (IvlDtype dtype, guint32 *w, guint first, guint n, guint k)
{
  guint8 *out = g_malloc0 (ivl_weight_slice_bytes (dtype, n, k));
  guint step = dtype == IVL_DTYPE_Q8 ? 8 : 4; /* bytes of eight values */
  guint blocks = (k + IVL_QUANT_BLOCK - 1) / IVL_QUANT_BLOCK, block_bytes = 16 * IVL_QUANT_SCALES + 4 * IVL_PANEL * step;
  for (guint i = 0; i < n; i++)
    for (guint b = 0; b < blocks; b++) {
      float *values = (float *) (w + (gsize) (first + i) * k + b * IVL_QUANT_BLOCK), exact[IVL_QUANT_BLOCK];
      guint here = MIN (k - b * IVL_QUANT_BLOCK, IVL_QUANT_BLOCK);
      guint16 scale;
      guint32 words[8];
      ivl_quantise_block (dtype, values, here, &scale, words);
      ivl_dequantise_block (dtype, scale, words, exact);
      memcpy (values, exact, here * sizeof *values);
      guint8 *block = out + ((gsize) (i / IVL_PANEL) * blocks + b) * block_bytes;
      memcpy (block + i % IVL_PANEL * 2, &scale, 2);
      for (guint s = 0; s < 4; s++)
        memcpy (block + 16 * IVL_QUANT_SCALES + (s * IVL_PANEL + i % IVL_PANEL) * step, (guint8 *) words + s * step, step);
    }
  return out;
}

static void
check_rope (Check *c, const Args *a, const RopeSize *rope, const IvlRow *rows, const float *table, const float *y,
            const float *cache, const double *qkv, const double *error)
{
  guint q = rope->heads * rope->d, width = q + 2 * rope->kv_heads * rope->d;
  gsize cache_floats = (gsize) REF_ROPE_SLOTS * 2 * rope->kv_heads * rope->d;
  g_autofree double *want = g_new (double, (gsize) rope->m * q), *allowed = g_new (double, (gsize) rope->m * q);
  g_autofree double *want_cache = g_new (double, cache_floats), *allowed_cache = g_new0 (double, cache_floats);
  for (gsize i = 0; i < cache_floats; i++)
    want_cache[i] = (double) cache[i];
  for (guint r = 0; r < rope->m; r++)
    ref_rope_cache (qkv + (gsize) r * width, error + (gsize) r * width, rope->heads, rope->kv_heads, rope->d,
                    &rows[a->rope.row_base + r], table, want + (gsize) r * q, allowed + (gsize) r * q, want_cache,
                    allowed_cache);
  check_rows (c, "q", a->y, y, rope->m, q, want, allowed);
  g_autofree float *got = check_read (c, a->rope.cache);
  check_floats (c, "cache", got, want_cache, allowed_cache, cache_floats);
}

/* ROPE: or NULL. */
static void
run_case (Check *c, Args *a, IvlDtype dtype, const Epilogue *e, const Size *s, const RopeSize *rope)
{
  guint k_pad = (s->k + 7) / 8 * 8, x_pitch = k_pad + 4, columns = e->act == IVL_ACT_SWIGLU ? s->n / 2 : s->n;
  guint y_pitch = (columns + 3) / 4 * 4 + 4;
  g_autofree guint32 *w = g_new (guint32, (gsize) s->n * s->k);
  for (gsize i = 0; i < (gsize) s->n * s->k; i++)
    w[i] = random_weight (c, ivl_dtype_is_quantised (dtype) ? IVL_DTYPE_F32 : dtype, s->w_scale);
  g_autofree float *x = check_random_floats (c, (gsize) s->m * x_pitch, s->x_scale);
  for (guint r = 0; r < s->m; r++)
    for (guint j = s->k; j < k_pad; j++)
      x[r * x_pitch + j] = 0;
  g_autofree float *bias = check_random_floats (c, s->n, s->x_scale);
  g_autofree float *scale = check_random_floats (c, s->n, 0.5);
  guint64 y_offset = 8;
  gsize y_floats = y_offset + (gsize) s->m * y_pitch;
  g_autofree float *y = check_random_floats (c, y_floats, s->x_scale);

  a->stream = c->stream;
  a->m = s->m;
  a->weight = (IvlWeight){ .dtype = dtype, .n = s->n, .k = s->k, .k_pad = k_pad, .slices = a->slices };
  if (dtype == IVL_DTYPE_BF16)
    for (gsize i = 0; i < (gsize) s->n * s->k; i++)
      a->weight.largest = MAX (a->weight.largest, (float) fabs (ref_weight (dtype, w[i])));
  a->weight.slice_n = s->slice_n ? s->slice_n : (s->n + IVL_PANEL - 1) / IVL_PANEL * IVL_PANEL;
  a->weight.n_slices = (s->n + a->weight.slice_n - 1) / a->weight.slice_n;
  for (guint i = 0; i < a->weight.n_slices; i++) {
    guint first = i * a->weight.slice_n, n = MIN (a->weight.slice_n, s->n - first);
    g_autofree guint8 *packed = ivl_dtype_is_quantised (dtype) ? pack_quantised (dtype, w, first, n, s->k)
                                                              : ref_pack (dtype, w, first, n, s->k);
    a->slices[i] = check_input (c, packed, ivl_weight_slice_bytes (dtype, n, s->k));
  }
  a->x = ivl_rows (check_input (c, x, (gsize) s->m * x_pitch * 4), x_pitch);
  a->y = (IvlRows){ check_output (c, y, y_floats * 4), y_offset, y_pitch };
  a->bias = check_input (c, bias, s->n * 4);
  a->scale = check_input (c, scale, s->n * 4);
  a->epilogue = (IvlGemmEpilogue){ .bias = e->bias ? &a->bias : NULL, .scale = e->scale ? &a->scale : NULL, .act = e->act,
                                   .add = e->add };
  g_autofree float *norm = NULL;
  if (e->norm) {
    norm = check_random_floats (c, s->k, 2);
    a->norm = check_input (c, norm, s->k * 4);
    a->epilogue.norm = &a->norm;
    a->epilogue.norm_eps = 1e-6f;
  }
  g_autofree IvlRow *rows = NULL;
  g_autofree float *table = NULL, *cache = NULL;
  if (rope) {
    const guint row_base = 3;
    rows = g_new0 (IvlRow, s->m + row_base);
    for (guint r = 0; r < s->m; r++) {
      rows[row_base + r].position = check_below (c, REF_ROPE_POSITIONS);
      rows[row_base + r].slot = (r * 7 + 3) % REF_ROPE_SLOTS;
    }
    table = ref_rope_table (rope->d);
    gsize cache_floats = (gsize) REF_ROPE_SLOTS * 2 * rope->kv_heads * rope->d;
    cache = check_random_floats (c, cache_floats, 1);
    a->rope = (IvlRope){ rope->heads, rope->kv_heads, rope->d, check_input (c, rows, (s->m + row_base) * sizeof *rows),
                         row_base, check_input (c, table, REF_ROPE_POSITIONS * rope->d * 4),
                         check_output (c, cache, cache_floats * 4) };
    a->epilogue.rope = &a->rope;
  }
  if (!check_run (c, record, a) || c->bench_only)
    return;

  g_autofree double *want = g_new (double, (gsize) s->m * columns), *allowed = g_new (double, (gsize) s->m * columns);
  g_autofree double *before = g_new (double, (gsize) s->m * columns);
  for (guint r = 0; r < s->m; r++)
    for (guint j = 0; j < columns; j++)
      before[r * columns + j] = y[y_offset + r * y_pitch + j];
  /* Cooperative matrices: x is two f16 of 11 bits, the second 2^-10 of the first, or where 2^-3 x is below 2^-14, one;
   * bf16 has its bits kept down to the least f16 of the scaled weights, q8 and q4 are rounded to 11 bits. */
  RefRounding rounding = { 0 };
  if (ivl_gemm_shaders[a->choice.shader].variant == IVL_GEMM_COOPMAT) {
    rounding.relative = ldexp (1, -21) + (ivl_dtype_is_quantised (dtype) ? ldexp (1, -11) : 0);
    rounding.x_floor = ldexp (1, -14 - 11 + 3);
    rounding.w_floor = dtype == IVL_DTYPE_BF16 ? ldexp (1, -25 - 14 + ilogbf (a->weight.largest))
                       : dtype == IVL_DTYPE_F16 ? 0
                                                : ldexp (1, -24);
  }
  if (e->norm) {
    g_autofree double *row = g_new (double, s->k), *row_allowed = g_new (double, s->k);
    for (guint r = 0; r < s->m; r++) {
      ref_norm (TRUE, a->epilogue.norm_eps, x + (gsize) r * x_pitch, s->k, norm, NULL, row, row_allowed);
      for (guint j = 0; j < s->k; j++)
        x[(gsize) r * x_pitch + j] = (float) row[j];
    }
    /* Half of what the sum of squares may be off by; a root, a division, products and roundings. */
    rounding.relative += (s->k / 2. + 12) * CHECK_EPSILON;
  }
  ref_gemm (ivl_dtype_is_quantised (dtype) ? IVL_DTYPE_F32 : dtype, w, s->n, s->k, x, x_pitch, s->m, e->bias ? bias : NULL, e->scale ? scale : NULL, e->act,
            e->add ? before : NULL, &rounding, want, allowed);
  if (rope)
    check_rope (c, a, rope, rows, table, y, cache, want, allowed);
  else
    check_rows (c, "y", a->y, y, s->m, columns, want, allowed);
}

/* One shader in PARTS: heads that a panel, a slice, a lane's columns or a workgroup don't end with. */
static void
check_rope_cases (Check *c, guint shader, IvlDtype dtype, guint parts, const char *kernel)
{
  static const RopeSize sizes[] = {
    { 1, 14, 2, 64, 40, 0, TRUE },    { 5, 16, 8, 128, 24, 0, FALSE },  { 17, 3, 1, 64, 37, 128, TRUE },
    { 67, 3, 1, 24, 264, 64, FALSE }, { 3, 4, 4, 16, 72, 0, TRUE },     { 9, 1, 1, 8, 8, 0, FALSE },
    { 4, 5, 1, 72, 72, 64, TRUE },
  };
  for (guint i = 0; i < G_N_ELEMENTS (sizes); i++) {
    const RopeSize *s = &sizes[i];
    /* Each size is a pipeline: then one for half of the kernels, of every variant and type. */
    if (c->quick && ((dtype + shader) % 2 || (i + dtype + shader / 2) % G_N_ELEMENTS (sizes)))
      continue;
    if (!check_begin (c, kernel, "rope", "m=%u heads=%u/%u d=%u k=%u%s", s->m, s->heads, s->kv_heads, s->d, s->k,
                      s->bias ? " bias" : ""))
      continue;
    Args a = { .choice = { shader, parts } };
    /* Like the models, with the norm where that is folded in, too. */
    const IvlWeight shape = { .k = s->k, .k_pad = (s->k + 7) / 8 * 8 };
    Epilogue e = { "rope", s->bias, FALSE, FALSE, IVL_ACT_NONE, ivl_gemm_can_norm (&ivl_gemm_shaders[shader], &shape) };
    Size size = { s->m, (s->heads + 2 * s->kv_heads) * s->d, s->k, s->slice_n, 1, 1 };
    run_case (c, &a, dtype, &e, &size, s);
    check_end (c);
  }
}

void
check_gemm (Check *c)
{
  /* Odd and even, below and above a tile, a panel and a workgroup; large and tiny magnitudes. */
  static const Size sizes[] = {
    { 1, 1, 1, 0, 1, 1 },      { 3, 66, 20, 0, 1, 1 },      { 19, 130, 72, 64, 1, 1 },
    { 17, 58, 37, 0, 3e4, 100 }, { 5, 258, 16, 128, 1e-3, 1e-2 },
    { 130, 196, 264, 128, 1, 1 },
  };
  static const Size timed[] = { { 1, 4864, 896, 0, 1, 1 }, { 16, 4864, 896, 0, 1, 1 }, { 256, 4096, 1024, 0, 1, 1 } };
  static const char *const dtypes[] = { "f32", "f16", "bf16", "q8", "q4" };
  for (guint d = 0; d < G_N_ELEMENTS (dtypes); d++)
    for (guint t = 0; t < ivl_n_gemm_shaders; t++) {
      const IvlGemmShader *shader = &ivl_gemm_shaders[t];
      const char *lacks = ivl_gemm_lacks (c->device, shader, &(IvlWeight){ .dtype = d, .largest = 1 });
      if (shader->kernels[d] == IVL_N_KERNELS)
        continue;
      /* Sums in one part and, where that can be, in three: an odd share of K, and one that is empty where K is small. */
      for (guint parts = 1; parts <= (shader->variant >= IVL_GEMM_GPU ? 3 : 1); parts += 2) {
        g_autofree char *kernel = g_strconcat (ivl_kernels[shader->kernels[d]].name, parts > 1 ? "_split" : "", NULL);
        if (lacks) {
          check_skip (c, kernel, "*", lacks);
          continue;
        }
        for (guint e = 0; e < G_N_ELEMENTS (epilogues); e++) {
          /* Every epilogue with every type, and nearly every tile; fewer where a driver compiles long what it never takes. */
          gboolean rare = shader->variant == IVL_GEMM_ADDRESS && !c->device->broadcasts;
          if (c->quick && (e + d + t + parts / 2) % (rare ? 8 : shader->variant >= IVL_GEMM_GPU ? 5 : 3))
            continue;
          for (guint s = 0; s < G_N_ELEMENTS (sizes) + G_N_ELEMENTS (timed); s++) {
            gboolean is_timed = s >= G_N_ELEMENTS (sizes);
            Size size = is_timed ? timed[s - G_N_ELEMENTS (sizes)] : sizes[s];
            Args a = { .choice = { t, parts } };
            if (epilogues[e].act == IVL_ACT_SWIGLU)
              size.n += size.n % 2;
            if (epilogues[e].norm && !ivl_gemm_can_norm (shader, &(IvlWeight){ .k = size.k, .k_pad = (size.k + 7) / 8 * 8 }))
              continue;
            if (is_timed && (strcmp (epilogues[e].name, "bias") != 0 || size.m < shader->rows))
              continue;
            if (!(is_timed ? check_begin_bench : check_begin) (c, kernel, epilogues[e].name, "m=%u n=%u k=%u", size.m,
                                                               size.n, size.k))
              continue;
            run_case (c, &a, d, &epilogues[e], &size, NULL);
            check_end (c);
          }
        }
        g_autofree char *rope = g_strconcat (ivl_kernels[shader->rope_kernels[d]].name, parts > 1 ? "_split" : "", NULL);
        check_rope_cases (c, t, d, parts, rope);
      }
    }
}
