/* The device's own limits, so that a kernel's figures can be put beside them: f32 arithmetic in registers, and reading
 * of a buffer larger than caches. What a shader gets at best, not what a data sheet says. */
#include "tools/bench.h"

#define STEPS 65536        /* of an invocation of probe/arithmetic.comp, of 24 operations */
#define READ_BYTES (96u << 20)
#define READ_TEXELS 256    /* of an invocation */
#define RUNS 5

/* The quickest of RUNS, in seconds; 0 with ERROR set. */
static double
best_time (Bench *b, IvlKernelId kernel, const guint32 *specs, guint n_specs, guint invocations, const IvlSpan *spans,
           guint32 push, GError **error)
{
  double best = 0;
  for (guint r = 0; r < RUNS + 1; r++) {
    if (!ivl_vk_begin (b->stream, error))
      return 0;
    ivl_vk_dispatch (b->stream, kernel, specs, n_specs, spans, &push, sizeof push,
                     (IvlGroups){ invocations / specs[0], 1, 1 });
    BenchTime start = bench_now ();
    if (!ivl_vk_run (b->stream, error))
      return 0;
    BenchTime took = bench_since (start);
    /* A software driver keeps all cores busy; what others took of them meanwhile isn't its limit. */
    double seconds = b->device->software ? MIN (took.wall, took.cpu / g_get_num_processors ()) : took.wall;
    if (r > 0 && (best == 0 || seconds < best))
      best = seconds;
  }
  return best;
}

gboolean
bench_peak (Bench *b, const char *name, GError **error)
{
  BenchTime start = bench_now ();
  guint lanes = MAX (b->device->subgroup_size, 1), cores = b->device->software ? g_get_num_processors () : 512;
  guint workers = lanes * cores * 16, readers = READ_BYTES / 16 / READ_TEXELS / lanes * lanes;
  g_autoptr (IvlVkBuffer) x = ivl_vk_buffer_new (b->device, IVL_VK_DEVICE, READ_BYTES, error);
  g_autoptr (IvlVkBuffer) y
    = x ? ivl_vk_buffer_new (b->device, IVL_VK_DEVICE, 16ull * MAX (workers, readers), error) : NULL;
  if (!y || !ivl_vk_begin (b->stream, error))
    return FALSE;
  ivl_vk_fill (b->stream, (IvlSpan){ x, 0, READ_BYTES }, 0x3f800000);
  if (!ivl_vk_run (b->stream, error))
    return FALSE;
  IvlSpan out = { y, 0, y->size }, spans[] = { { x, 0, READ_BYTES }, out };
  /* Fused or not, and steps a turn. */
  static const guint32 forms[][2] = { { FALSE, 64 }, { TRUE, 16 }, { TRUE, 32 } };
  double seconds;
  for (guint f = 0; f < G_N_ELEMENTS (forms); f++) {
    guint32 specs[] = { lanes, forms[f][0], forms[f][1] };
    seconds = best_time (b, IVL_K_PROBE_ARITHMETIC, specs, 3, workers, &out, STEPS / specs[2], error);
    if (seconds == 0)
      return FALSE;
    b->peak_flops = MAX (b->peak_flops, 24.0 * STEPS * workers / seconds);
  }
  gboolean texels = READ_BYTES / 16 <= b->device->properties.limits.maxTexelBufferElements;
  for (guint t = 0; t < (texels ? 2 : 1); t++) {
    IvlKernelId kernel = t ? IVL_K_PROBE_READ_TEXEL : IVL_K_PROBE_READ_BUFFER;
    seconds = best_time (b, kernel, &lanes, 1, readers, spans, READ_TEXELS, error);
    if (seconds == 0)
      return FALSE;
    b->peak_bytes = MAX (b->peak_bytes, 16.0 * READ_TEXELS * readers / seconds);
  }
  JsonObject *peak = json_object_new ();
  json_object_set_double_member (peak, "gflops", b->peak_flops / 1e9);
  json_object_set_double_member (peak, "gb_per_s", b->peak_bytes / 1e9);
  json_object_set_object_member (b->out, "peak", peak);
  bench_put (b, name, b->peak_flops / 1e9, "GFLOP/s in registers", bench_since (start), RUNS);
  bench_put (b, "peak-read", b->peak_bytes / 1e9, "GB/s read", bench_since (start), RUNS);
  return TRUE;
}
