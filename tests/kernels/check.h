/* What the checks of the kernel families share: cases, memory with guards round it, comparison, timing.
 *
 * A family's function walks its cases:
 *   if (check_begin (c, "norm_rows", "rms bias", "rows=%u cols=%u", rows, cols)) {
 *     IvlSpan x = check_input (c, data, bytes), y = check_output (c, NULL, bytes);
 *     check_run (c, record, &args);
 *     check_rows (c, ...);
 *     check_end (c);
 *   }
 * Tolerances are per element and absolute; each family states where they come from. */
#ifndef IVL_TESTS_CHECK_H
#define IVL_TESTS_CHECK_H

#include "kernels/gemm.h"

typedef struct {
  /* options */
  const char *kernel, *variant; /* globs, or NULL */
  guint64 seed;
  gboolean bench, list, verbose;
  gboolean quick;               /* leave out combinations that differ little but take long to compile */

  IvlDevice *device;
  IvlVkStream *stream;

  /* the case under way */
  char *case_kernel, *case_variant, *case_size;
  guint64 random;
  GPtrArray *buffers;
  gboolean failed, bench_only;
  void (*record) (gpointer data);
  gpointer record_data;
  double worst;                 /* error / tolerance */

  /* the (kernel, variant) under way, and sums */
  char *group;
  guint group_cases, group_failed;
  double group_worst;
  guint passed, failures, skipped;
} Check;

typedef void (*CheckRecord) (gpointer data);

/* Starts a case; FALSE if it isn't wanted. All random numbers of a case come from the seed and its names. */
gboolean check_begin (Check *c, const char *kernel, const char *variant, const char *size, ...) G_GNUC_PRINTF (4, 5);
/* As check_begin, for a case that is only timed: the comparisons below do nothing. */
gboolean check_begin_bench (Check *c, const char *kernel, const char *variant, const char *size, ...)
  G_GNUC_PRINTF (4, 5);
/* Guards and inputs must be as they were; with --bench, times what was recorded. */
void check_end (Check *c);
void check_skip (Check *c, const char *kernel, const char *variant, const char *reason);

guint32 check_random (Check *c);
double check_uniform (Check *c, double from, double to);
guint check_below (Check *c, guint n);
float *check_random_floats (Check *c, gsize n, double scale); /* about normal; free with g_free */

/* Memory with guards. Inputs have to stay as they are. Unset bytes are NaN as floats. */
IvlSpan check_input (Check *c, gconstpointer data, gsize bytes);
IvlSpan check_output (Check *c, gconstpointer data, gsize bytes);
/* Written by the host through *MAP before check_run, read by the kernels; not an output. */
IvlSpan check_upload (Check *c, gsize bytes, gpointer *map);
gpointer check_read (Check *c, IvlSpan span); /* free with g_free */

/* Records and runs; DATA must live until check_end. */
gboolean check_run (Check *c, CheckRecord record, gpointer data);

void check_fail (Check *c, const char *format, ...) G_GNUC_PRINTF (2, 3);
void check_floats (Check *c, const char *what, const float *got, const double *want, const double *allowed, gsize n);
/* Rows of a matrix in SPAN [rows, pitch] from OFFSET on: WANT and ALLOWED are dense [rows, cols]; everything round the
 * rows is as in BEFORE. */
void check_rows (Check *c, const char *what, IvlRows got, const float *before, guint rows, guint cols,
                 const double *want, const double *allowed);
void check_bytes (Check *c, const char *what, gconstpointer got, gconstpointer want, gsize bytes);

/* Prints what is due of the last group. */
void check_flush (Check *c);

/* The families. */
void check_gemm (Check *c);
void check_norm (Check *c);
void check_attention (Check *c);
void check_embed (Check *c);
void check_image (Check *c);
void check_sampling (Check *c);

/* What memory holds before anything is written: a NaN as f32, so that what is read without having been written shows. */
#define CHECK_PATTERN 0x7fc5a5a5u
#define CHECK_EPSILON 5.9604644775390625e-8 /* 2^-24: half a unit in the last place of an f32 */

#endif
