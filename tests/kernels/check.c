#include "check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define GUARD_BYTES 1024
#define BENCH_US 300000
#define BENCH_MAX 200

typedef struct {
  IvlVkBuffer *buffer;
  gsize bytes;
  guint8 *before; /* of an input: must stay */
} Guarded;

static void
guarded_free (gpointer data)
{
  Guarded *g = data;
  ivl_vk_buffer_free (g->buffer);
  g_free (g->before);
  g_free (g);
}

static guint64
hash_string (guint64 h, const char *s)
{
  for (; *s; s++)
    h = (h ^ (guint8) *s) * 0x100000001b3ull;
  return h;
}

guint32
check_random (Check *c)
{
  /* splitmix64 */
  guint64 z = c->random += 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return (guint32) ((z ^ (z >> 31)) >> 32);
}

double
check_uniform (Check *c, double from, double to)
{
  return from + (to - from) * (check_random (c) / 4294967296.0);
}

guint
check_below (Check *c, guint n)
{
  return (guint) ((guint64) check_random (c) * n >> 32);
}

float *
check_random_floats (Check *c, gsize n, double scale)
{
  float *data = g_new (float, MAX (n, 1));
  for (gsize i = 0; i < n; i++)
    data[i] = (float) (scale * (check_uniform (c, -1, 1) + check_uniform (c, -1, 1) + check_uniform (c, -1, 1)));
  return data;
}

static void
flush_group (Check *c)
{
  if (c->group && c->group_cases && !c->bench && !c->list) {
    printf ("%-48s %4u cases, ", c->group, c->group_cases);
    if (c->group_failed)
      printf ("%u FAILED\n", c->group_failed);
    else if (c->group_worst > 0)
      printf ("error at most %.2g of the tolerance\n", c->group_worst);
    else
      printf ("exact\n");
    fflush (stdout);
  }
  g_clear_pointer (&c->group, g_free);
  c->group_cases = c->group_failed = 0;
  c->group_worst = 0;
}

static gboolean
wanted (Check *c, const char *kernel, const char *variant)
{
  return (!c->kernel || g_pattern_match_simple (c->kernel, kernel))
         && (!c->variant || g_pattern_match_simple (c->variant, variant));
}

static gboolean
begin (Check *c, const char *kernel, const char *variant, const char *format, va_list args)
{
  if (!wanted (c, kernel, variant))
    return FALSE;
  g_autofree char *group = g_strdup_printf ("%s %s", kernel, variant);
  if (g_strcmp0 (group, c->group) != 0) {
    flush_group (c);
    c->group = g_steal_pointer (&group);
    if (c->list)
      printf ("%s\n", c->group);
  }
  if (c->list)
    return FALSE;
  c->case_kernel = g_strdup (kernel);
  c->case_variant = g_strdup (variant);
  c->case_size = g_strdup_vprintf (format, args);
  c->random = hash_string (hash_string (hash_string (c->seed ^ 0xcbf29ce484222325ull, kernel), variant), c->case_size);
  c->buffers = g_ptr_array_new_with_free_func (guarded_free);
  c->failed = c->bench_only = FALSE;
  c->record = NULL;
  c->worst = 0;
  return TRUE;
}

gboolean
check_begin (Check *c, const char *kernel, const char *variant, const char *size, ...)
{
  va_list args;
  va_start (args, size);
  gboolean result = begin (c, kernel, variant, size, args);
  va_end (args);
  return result;
}

gboolean
check_begin_bench (Check *c, const char *kernel, const char *variant, const char *size, ...)
{
  if (!c->bench)
    return FALSE;
  va_list args;
  va_start (args, size);
  gboolean result = begin (c, kernel, variant, size, args);
  va_end (args);
  if (result)
    c->bench_only = TRUE;
  return result;
}

void
check_skip (Check *c, const char *kernel, const char *variant, const char *reason)
{
  if (!wanted (c, kernel, variant) || c->list)
    return;
  flush_group (c);
  printf ("%s %s: skipped: %s\n", kernel, variant, reason);
  c->skipped++;
}

void
check_fail (Check *c, const char *format, ...)
{
  va_list args;
  va_start (args, format);
  g_autofree char *message = g_strdup_vprintf (format, args);
  va_end (args);
  if (!c->failed)
    printf ("FAILED %s %s, %s: %s\n", c->case_kernel, c->case_variant, c->case_size, message);
  c->failed = TRUE;
}

static void
die (Check *c, const char *what, GError *error)
{
  g_error ("%s %s, %s: %s: %s", c->case_kernel, c->case_variant, c->case_size, what, error->message);
}

static Guarded *
allocate (Check *c, IvlVkUse use, gconstpointer data, gsize bytes)
{
  Guarded *g = g_new0 (Guarded, 1);
  GError *error = NULL;
  gsize all = GUARD_BYTES + (bytes + 255) / 256 * 256 + GUARD_BYTES;
  if (!(g->buffer = ivl_vk_buffer_new (c->device, use, all, &error)))
    die (c, "no memory", error);
  g->bytes = bytes;
  g_autofree guint32 *fill = g_new (guint32, all / 4);
  for (gsize i = 0; i < all / 4; i++)
    fill[i] = CHECK_PATTERN;
  if (data)
    memcpy ((guint8 *) fill + GUARD_BYTES, data, bytes);
  if (!ivl_vk_write (c->stream, (IvlSpan){ g->buffer, 0, g->buffer->size }, fill, all, &error))
    die (c, "write", error);
  g_ptr_array_add (c->buffers, g);
  return g;
}

static IvlSpan
span_of (const Guarded *g)
{
  /* Some drivers drop what goes past a binding, so half of the guard is bound, too. */
  return (IvlSpan){ g->buffer, GUARD_BYTES, (g->bytes + 15) / 16 * 16 + GUARD_BYTES / 2 };
}

static gsize
data_bytes (Check *c, IvlVkBuffer *buffer)
{
  for (guint i = 0; i < c->buffers->len; i++)
    if (((Guarded *) c->buffers->pdata[i])->buffer == buffer)
      return ((Guarded *) c->buffers->pdata[i])->bytes;
  return 0;
}

IvlSpan
check_input (Check *c, gconstpointer data, gsize bytes)
{
  Guarded *g = allocate (c, IVL_VK_DEVICE, data, bytes);
  g->before = g_memdup2 (data, bytes);
  return span_of (g);
}

IvlSpan
check_output (Check *c, gconstpointer data, gsize bytes)
{
  return span_of (allocate (c, IVL_VK_DEVICE, data, bytes));
}

IvlSpan
check_upload (Check *c, gsize bytes, gpointer *map)
{
  Guarded *g = allocate (c, IVL_VK_UPLOAD, NULL, bytes);
  *map = (guint8 *) g->buffer->map + GUARD_BYTES;
  return span_of (g);
}

gpointer
check_read (Check *c, IvlSpan span)
{
  GError *error = NULL;
  gpointer data = g_malloc (span.size);
  if (!ivl_vk_read (c->stream, span, data, span.size, &error))
    die (c, "read", error);
  return data;
}

gboolean
check_run (Check *c, CheckRecord record, gpointer data)
{
  g_autoptr (GError) error = NULL;
  c->record = record;
  c->record_data = data;
  if (!ivl_vk_begin (c->stream, &error)) {
    check_fail (c, "%s", error->message);
    return FALSE;
  }
  record (data);
  if (!ivl_vk_run (c->stream, &error)) {
    check_fail (c, "%s", error->message);
    return FALSE;
  }
  return TRUE;
}

static void
check_guards (Check *c)
{
  for (guint i = 0; i < c->buffers->len; i++) {
    Guarded *g = c->buffers->pdata[i];
    g_autofree guint8 *now = check_read (c, (IvlSpan){ g->buffer, 0, g->buffer->size });
    for (gsize at = 0; at < g->buffer->size; at++) {
      if (at >= GUARD_BYTES && at < GUARD_BYTES + g->bytes)
        continue;
      if (now[at] != (guint8) (CHECK_PATTERN >> at % 4 * 8)) {
        check_fail (c, "buffer %u of %" G_GSIZE_FORMAT " bytes: wrote at byte %" G_GSSIZE_FORMAT, i, g->bytes,
                    (gssize) at - GUARD_BYTES);
        break;
      }
    }
    if (g->before && memcmp (now + GUARD_BYTES, g->before, g->bytes) != 0)
      check_fail (c, "buffer %u is an input and was changed", i);
  }
}

/* Microseconds of all threads of the process, the software driver's included. */
static double
cpu_time (void)
{
  struct timespec t;
  clock_gettime (CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double) t.tv_sec * 1e6 + (double) t.tv_nsec / 1e3;
}

static void
bench (Check *c)
{
  g_autoptr (GError) error = NULL;
  gint64 start = g_get_monotonic_time (), wall = 0;
  double cpu = INFINITY;
  guint runs = 0;
  ivl_vk_stream_set_profiling (c->stream, true);
  do {
    if (!ivl_vk_begin (c->stream, &error))
      break;
    c->record (c->record_data);
    gint64 before = g_get_monotonic_time ();
    double cpu_before = cpu_time ();
    if (!ivl_vk_run (c->stream, &error))
      break;
    wall += g_get_monotonic_time () - before;
    cpu = MIN (cpu, cpu_time () - cpu_before);
    runs++;
  } while (runs < BENCH_MAX && g_get_monotonic_time () - start < BENCH_US);
  GHashTableIter iter;
  gpointer value;
  guint64 ns = 0;
  double flops = 0, bytes = 0;
  g_hash_table_iter_init (&iter, ivl_vk_stream_get_profile (c->stream));
  while (g_hash_table_iter_next (&iter, NULL, &value)) {
    IvlVkProfile *p = value;
    ns += p->ns;
    flops += p->flops;
    bytes += p->bytes;
  }
  if (error) {
    check_fail (c, "%s", error->message);
  } else {
    double us = ns ? (double) ns / 1e3 / runs : (double) wall / runs;
    printf ("%-14s %-34s %-32s %10.1f us%s", c->case_kernel, c->case_variant, c->case_size, us, ns ? "" : " (wall)");
    if (ns)
      printf (" %7.2f GB/s %7.2f GFLOP/s", bytes / (double) ns, flops / (double) ns);
    /* On a busy machine the least CPU time is what can be compared; "a CPU-s" are per second of it. */
    if (c->device->software)
      printf ("; least %.1f CPU-us, %.2f GB, %.2f GFLOP a CPU-s", cpu, bytes / runs / cpu / 1e3,
              flops / runs / cpu / 1e3);
    printf ("\n");
    fflush (stdout);
  }
  ivl_vk_stream_set_profiling (c->stream, false);
}

void
check_end (Check *c)
{
  check_guards (c);
  if (c->bench && !c->failed && c->record)
    bench (c);
  if (c->verbose && !c->bench)
    printf ("%s %s, %s: %s, error %.2g of the tolerance\n", c->case_kernel, c->case_variant, c->case_size,
            c->failed ? "FAILED" : "ok", c->worst);
  c->group_cases++;
  c->group_failed += c->failed;
  c->group_worst = MAX (c->group_worst, c->worst);
  if (c->failed)
    c->failures++;
  else
    c->passed++;
  g_clear_pointer (&c->buffers, g_ptr_array_unref);
  g_clear_pointer (&c->case_kernel, g_free);
  g_clear_pointer (&c->case_variant, g_free);
  g_clear_pointer (&c->case_size, g_free);
}

static void
compare (Check *c, const char *what, gsize index, float got, double want, double allowed)
{
  if (isnan (want) ? isnan (got) : (isinf (want) && got == (float) want))
    return;
  double error = fabs (got - want);
  if (!(error <= allowed))
    check_fail (c, "%s[%" G_GSIZE_FORMAT "] is %.9g, must be %.9g +- %.3g", what, index, (double) got, want, allowed);
  if (allowed > 0 && error / allowed > c->worst)
    c->worst = error / allowed;
}

void
check_floats (Check *c, const char *what, const float *got, const double *want, const double *allowed, gsize n)
{
  for (gsize i = 0; i < n && !c->bench_only; i++)
    compare (c, what, i, got[i], want[i], allowed[i]);
}

void
check_rows (Check *c, const char *what, IvlRows rows, const float *before, guint n_rows, guint cols,
            const double *want, const double *allowed)
{
  if (c->bench_only)
    return;
  g_autofree float *got = check_read (c, rows.span);
  gsize end = data_bytes (c, rows.span.buffer) / 4;
  for (gsize i = 0; i < end; i++) {
    gsize row = i < rows.offset ? n_rows : (i - rows.offset) / rows.pitch;
    gsize col = i < rows.offset ? 0 : (i - rows.offset) % rows.pitch;
    if (row < n_rows && col < cols)
      compare (c, what, row * cols + col, got[i], want[row * cols + col], allowed[row * cols + col]);
    else if (before && memcmp (&got[i], &before[i], 4) != 0)
      check_fail (c, "%s: wrote outside of the rows, at float %" G_GSIZE_FORMAT, what, i);
  }
}

void
check_bytes (Check *c, const char *what, gconstpointer got, gconstpointer want, gsize bytes)
{
  const guint8 *a = got, *b = want;
  for (gsize i = 0; i < bytes && !c->bench_only; i++)
    if (a[i] != b[i]) {
      check_fail (c, "%s: byte %" G_GSIZE_FORMAT " is %u, must be %u", what, i, a[i], b[i]);
      return;
    }
}

void
check_flush (Check *c)
{
  flush_group (c);
}
