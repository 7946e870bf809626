#include "kernels/embed.h"
#include "check.h"
#include "ref.h"

#include <math.h>
#include <string.h>

typedef struct {
  IvlVkStream *stream;
  IvlWeight table;
  IvlSpan slices[8], rows;
  guint n_rows;
  IvlRows x;
  int texels;
} Args;

static void
record (gpointer data)
{
  Args *a = data;
  ivl_embed_variant (a->stream, &a->table, a->rows, 1, a->n_rows, a->x, a->texels);
}

/* Exact: values are only unpacked. */
static void
run_embed (Check *c, Args *a, IvlDtype dtype, guint vocab, guint k, guint slice_n, guint n_rows)
{
  g_autofree guint32 *bits = g_new (guint32, (gsize) vocab * k);
  for (gsize i = 0; i < (gsize) vocab * k; i++) {
    /* Normal numbers of each type's middle range. */
    guint32 random = check_random (c);
    bits[i] = dtype == IVL_DTYPE_F16 ? (random & 0x83ff) | (8 + (random >> 16) % 16) << 10
                                     : (random & 0x807fffff) | (120 + (random >> 24) % 16) << 23;
    if (dtype == IVL_DTYPE_BF16)
      bits[i] >>= 16;
  }
  guint pitch = (k + 7) / 8 * 8 + 4;
  gsize x_floats = 4 + (gsize) n_rows * pitch;
  g_autofree float *x = check_random_floats (c, x_floats, 1);
  g_autofree IvlRow *rows = g_new0 (IvlRow, n_rows + 1);
  for (guint r = 0; r < n_rows; r++)
    rows[1 + r].token = check_below (c, 4) ? check_below (c, vocab) : r % 2 ? IVL_TOKEN_IMAGE : vocab - 1;
  a->stream = c->stream;
  a->n_rows = n_rows;
  a->table = (IvlWeight){ .dtype = dtype, .n = vocab, .k = k, .k_pad = (k + 7) / 8 * 8, .slice_n = slice_n,
                          .n_slices = (vocab + slice_n - 1) / slice_n, .slices = a->slices };
  for (guint i = 0; i < a->table.n_slices; i++) {
    guint n = MIN (slice_n, vocab - i * slice_n);
    g_autofree guint8 *packed = ref_pack (dtype, bits, i * slice_n, n, k);
    a->slices[i] = check_input (c, packed, ivl_weight_slice_bytes (dtype, n, k));
  }
  a->rows = check_input (c, rows, (n_rows + 1) * sizeof (IvlRow));
  a->x = (IvlRows){ check_output (c, x, x_floats * 4), 4, pitch };
  if (!check_run (c, record, a) || c->bench_only)
    return;
  guint k_pad = a->table.k_pad;
  g_autofree double *want = g_new0 (double, (gsize) n_rows * k_pad), *allowed = g_new0 (double, (gsize) n_rows * k_pad);
  for (guint r = 0; r < n_rows; r++) {
    if (rows[1 + r].token != IVL_TOKEN_IMAGE)
      ref_embed_row (dtype, bits, k, rows[1 + r].token, want + (gsize) r * k_pad);
    else
      for (guint j = 0; j < k_pad; j++)
        want[(gsize) r * k_pad + j] = (double) x[4 + (gsize) r * pitch + j];
  }
  check_rows (c, "x", a->x, x, n_rows, k_pad, want, allowed);
}

typedef struct {
  IvlVkStream *stream;
  IvlSpan patches, class_token, position, x;
  guint tiles, tokens, cols;
} TokenArgs;

static void
record_tokens (gpointer data)
{
  TokenArgs *a = data;
  ivl_vit_tokens (a->stream, a->patches, a->class_token, a->position, a->tiles, a->tokens, a->cols, a->x);
}

static void
run_tokens (Check *c, TokenArgs *a)
{
  gsize n = (gsize) a->tiles * a->tokens * a->cols, n_patches = (gsize) a->tiles * (a->tokens - 1) * a->cols;
  g_autofree float *patches = check_random_floats (c, n_patches, 1), *class_token = check_random_floats (c, a->cols, 1e6);
  g_autofree float *position = check_random_floats (c, (gsize) a->tokens * a->cols, 1);
  a->stream = c->stream;
  a->patches = check_input (c, patches, n_patches * 4);
  a->class_token = check_input (c, class_token, a->cols * 4);
  a->position = check_input (c, position, (gsize) a->tokens * a->cols * 4);
  a->x = check_output (c, NULL, n * 4);
  if (!check_run (c, record_tokens, a) || c->bench_only)
    return;
  g_autofree double *want = g_new (double, n), *allowed = g_new (double, n);
  for (guint r = 0; r < a->tiles * a->tokens; r++)
    ref_vit_token (patches, class_token, position, r / a->tokens, r % a->tokens, a->tokens, a->cols,
                   want + (gsize) r * a->cols);
  for (gsize i = 0; i < n; i++)
    allowed[i] = CHECK_EPSILON * fabs (want[i]); /* one sum, rounded */
  check_rows (c, "x", ivl_rows (a->x, a->cols), NULL, a->tiles * a->tokens, a->cols, want, allowed);
}

void
check_embed (Check *c)
{
  static const char *const kernels[][2] = { { "embed_f32_buffer", "embed_f32_texel" },
                                            { "embed_f16_buffer", "embed_f16_texel" },
                                            { "embed_bf16_buffer", "embed_bf16_texel" } };
  static const struct { guint vocab, k, slice_n, rows; } sizes[] = {
    { 1, 8, 64, 1 }, { 70, 24, 128, 9 }, { 300, 36, 64, 33 }, { 129, 896, 128, 5 },
  };
  for (guint i = 0; i < 2 * G_N_ELEMENTS (kernels); i++) {
    guint d = i / 2, texels = i % 2;
    for (guint s = 0; s < G_N_ELEMENTS (sizes); s++) {
      Args a = { .texels = (int) texels };
      if (!check_begin (c, kernels[d][texels], sizes[s].slice_n < sizes[s].vocab ? "in slices" : "in one piece",
                        "vocab=%u k=%u rows=%u", sizes[s].vocab, sizes[s].k, sizes[s].rows))
        continue;
      run_embed (c, &a, d, sizes[s].vocab, sizes[s].k, sizes[s].slice_n, sizes[s].rows);
      check_end (c);
    }
    Args a = { .texels = (int) texels };
    if (check_begin_bench (c, kernels[d][texels], "in one piece", "vocab=4096 k=896 rows=512")) {
      run_embed (c, &a, d, 4096, 896, 4096, 512);
      check_end (c);
    }
  }
  static const guint tokens[][3] = { { 1, 2, 4 }, { 3, 17, 12 }, { 2, 65, 100 } };
  for (guint s = 0; s < G_N_ELEMENTS (tokens); s++) {
    TokenArgs a = { .tiles = tokens[s][0], .tokens = tokens[s][1], .cols = tokens[s][2] };
    if (!check_begin (c, "vit_tokens", "", "tiles=%u tokens=%u cols=%u", a.tiles, a.tokens, a.cols))
      continue;
    run_tokens (c, &a);
    check_end (c);
  }
  TokenArgs a = { .tiles = 1, .tokens = 1025, .cols = 1024 };
  if (check_begin_bench (c, "vit_tokens", "", "tiles=1 tokens=1025 cols=1024")) {
    run_tokens (c, &a);
    check_end (c);
  }
}
