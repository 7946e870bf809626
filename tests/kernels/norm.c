#include "check.h"
#include "ref.h"

#include <string.h>

typedef struct {
  IvlVkStream *stream;
  IvlNorm norm;
  IvlSpan weight, bias, index;
  IvlRows x, y;
  guint rows, cols;
  int by_lane, texels;
} Args;

static void
record (gpointer data)
{
  Args *a = data;
  ivl_norm_variant (a->stream, &a->norm, a->x, a->rows, a->cols, a->y, a->by_lane, a->texels);
}

typedef enum { RANDOM, LARGE, CONSTANT, OFFSET, ZERO, N_INPUTS } Input;

static void
fill (Check *c, Input input, float *x, gsize n)
{
  for (gsize i = 0; i < n; i++)
    switch (input) {
    case LARGE:
      x[i] *= 1e15f; /* squares stay below the largest f32 */
      break;
    case CONSTANT:
      x[i] = 3;
      break;
    case OFFSET:
      x[i] += 1000;
      break;
    case ZERO:
      x[i] = 0;
      break;
    default:
      break;
    }
}

static void
run_case (Check *c, Args *a, IvlPick pick, gboolean in_place, Input input, guint grid)
{
  gboolean shuffle = pick == IVL_PICK_SHUFFLE_V1 || pick == IVL_PICK_SHUFFLE_V2;
  guint in_cols = shuffle ? a->cols / 4 : a->cols;
  guint in_rows = shuffle ? a->rows / (grid * grid / 4) * (grid * grid + 1) : pick == IVL_PICK_INDEX ? a->rows + 5 : a->rows;
  guint x_pitch = in_cols + 4, y_pitch = in_place ? x_pitch : a->cols + 8;
  guint64 x_offset = 4, y_offset = in_place ? 4 : 12;
  gsize x_floats = x_offset + (gsize) in_rows * x_pitch, y_floats = y_offset + (gsize) a->rows * y_pitch;
  g_autofree float *x = check_random_floats (c, x_floats, 1), *y = check_random_floats (c, y_floats, 1);
  fill (c, input, x, x_floats);
  g_autofree float *weight = check_random_floats (c, a->cols, 1), *bias = check_random_floats (c, a->cols, 1);
  g_autofree guint32 *index = g_new0 (guint32, a->rows + 3);
  for (guint i = 0; i < a->rows; i++)
    index[3 + i] = check_below (c, in_rows);

  a->stream = c->stream;
  a->weight = check_input (c, weight, a->cols * 4);
  a->bias = check_input (c, bias, a->cols * 4);
  a->index = check_input (c, index, (a->rows + 3) * 4);
  a->norm.weight = &a->weight;
  gboolean with_bias = a->norm.bias != NULL;
  a->norm.bias = with_bias ? &a->bias : NULL;
  a->norm.pick = pick;
  a->norm.index = &a->index;
  a->norm.index_offset = 3;
  a->norm.grid = grid;
  a->x = (IvlRows){ in_place ? check_output (c, x, x_floats * 4) : check_input (c, x, x_floats * 4), x_offset, x_pitch };
  a->y = in_place ? a->x : (IvlRows){ check_output (c, y, y_floats * 4), y_offset, y_pitch };
  if (!check_run (c, record, a) || c->bench_only)
    return;

  gsize n = (gsize) a->rows * a->cols;
  g_autofree double *want = g_new (double, n), *allowed = g_new (double, n);
  g_autofree float *row = g_new (float, a->cols);
  for (guint r = 0; r < a->rows; r++) {
    if (shuffle)
      ref_pixel_shuffle (x + x_offset, x_pitch, grid, in_cols, r, pick == IVL_PICK_SHUFFLE_V1, row);
    else
      memcpy (row, x + x_offset + (gsize) (pick == IVL_PICK_INDEX ? index[3 + r] : r) * x_pitch, a->cols * sizeof *row);
    ref_norm (a->norm.rms, (double) a->norm.eps, row, a->cols, weight, with_bias ? bias : NULL, want + (gsize) r * a->cols,
              allowed + (gsize) r * a->cols);
  }
  check_rows (c, "y", a->y, in_place ? x : y, a->rows, a->cols, want, allowed);
}

void
check_norm (Check *c)
{
  static const char *const picks[] = { "", " by index", " shuffle v2", " shuffle v1" };
  static const char *const inputs[] = { "random", "large", "constant", "offset", "zero" };
  static const IvlSpan present;
  for (int how = 0; how < 4; how++)
    for (guint rms = 0; rms <= 1; rms++)
      for (guint bias = 0; bias <= 1; bias++)
        for (guint pick = 0; pick < G_N_ELEMENTS (picks); pick++) {
          static const char *const kernels[] = { "norm_shared_buffer", "norm_rows_buffer", "norm_shared_texel", "norm_rows_texel" };
          const char *kernel = kernels[how];
          int by_lane = how & 1, texels = how >> 1;
          g_autofree char *variant = g_strdup_printf ("%s%s%s", rms ? "rms" : "layer", bias ? " bias" : "", picks[pick]);
          gboolean shuffle = pick >= IVL_PICK_SHUFFLE_V2;
          static const guint sizes[][2] = { { 1, 4 }, { 3, 12 }, { 37, 100 }, { 70, 264 }, { 2, 3200 } };
          for (guint s = 0; s < G_N_ELEMENTS (sizes); s++)
            for (Input input = 0; input < N_INPUTS; input++) {
              Args a = { .by_lane = by_lane, .texels = texels, .norm = { .rms = (gboolean) rms, .eps = 1e-6f, .bias = bias ? &present : NULL } };
              guint grid = 2 * (s % 3 + 1);
              a.rows = shuffle ? grid * grid / 4 * (s == 2 ? 3 : 1) : sizes[s][0];
              a.cols = shuffle ? (sizes[s][1] + 15) / 16 * 16 : sizes[s][1];
              gboolean in_place = pick == IVL_PICK_ALL && s % 2;
              if (!check_begin (c, kernel, variant, "rows=%u cols=%u %s%s", a.rows, a.cols, inputs[input],
                                in_place ? " in place" : ""))
                continue;
              run_case (c, &a, pick, in_place, input, grid);
              check_end (c);
            }
          Args a = { .by_lane = by_lane, .texels = texels, .norm = { .rms = (gboolean) rms, .eps = 1e-6f, .bias = bias ? &present : NULL } };
          a.rows = shuffle ? 256 : 1025;
          a.cols = shuffle ? 4096 : 1024;
          if (check_begin_bench (c, kernel, variant, "rows=%u cols=%u", a.rows, a.cols)) {
            run_case (c, &a, pick, FALSE, RANDOM, shuffle ? 32 : 0);
            check_end (c);
          }
        }
}
