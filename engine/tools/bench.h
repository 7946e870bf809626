/* internvl-bench: what its files share. bench.c has the options and the order of things, bench-rows.c what is timed,
 * bench-start.c the way to the first token, bench-stream.c chunks of video, bench-peak.c the device's own limits, bench-compare.c two results side by
 * side. A result is a JSON object:
 *
 *   version 1; date, device, driver, api, software, subgroup_size, cpu; model, weights, weights_bytes;
 *   peak: { gflops, gb_per_s }
 *   rows: { NAME: { value, unit, seconds, cpu_seconds, runs, logits_hash, gflops, gb_per_s, matmul_gflops,
 *                   matmul_peak_share, reading_peak_share,
 *                   kernels: [ { name, calls, ms, share, gflops, gb_per_s, peak_share } ] } }
 *   memory: { host_peak_bytes, device_peak_bytes }
 *
 * seconds and cpu_seconds are of the row's best run; kernels are there with --profile, and of all runs; peak_share is of
 * whichever limit is nearer, arithmetic or reading. The other three, with peak before, are of the best run: what its matmuls
 * reached, and all of it read. */
#ifndef IVL_TOOLS_BENCH_H
#define IVL_TOOLS_BENCH_H

#include <json-glib/json-glib.h>

#include "model/weights.h"

typedef struct {
  const char *model, *shape, *device_name; /* borrowed; model NULL: seeded weights of SHAPE */
  int dtype;           /* IvlDtype, or -1 */
  const char *weights; /* its name */
  guint repeats, decode_tokens;
  guint positions;     /* of the RoPE table */
  gboolean profile;
  gboolean quiet;      /* rows are run, and told nobody */

  IvlDevice *device;
  IvlConfig *config;
  IvlModelWeights weights_on_device;
  gboolean loaded;
  IvlVkStream *stream;
  double peak_flops, peak_bytes; /* a second; 0: not measured */
  JsonObject *out, *rows;
} Bench;

/* Wall and CPU time (user and system, all threads of the process), in seconds. */
typedef struct {
  double wall, cpu;
} BenchTime;
BenchTime bench_now (void);
BenchTime bench_since (BenchTime start);

/* ROW is the row's object, owned by RESULT from then on. Prints a line. */
JsonObject *bench_put (Bench *b, const char *name, double value, const char *unit, BenchTime best, guint runs);
void bench_put_hash (Bench *b, JsonObject *row, const float *data, gsize n);

/* Opens device and model if that isn't done. */
gboolean bench_load (Bench *b, GError **error);

/* ---- rows ---- */

typedef enum {
  BENCH_PEAK,
  BENCH_START,      /* once, with the pipeline caches as they are */
  BENCH_START_TEXT, /* the same, without a picture; needs --model, as do the next three */
  BENCH_STILL,      /* a camera that sees nothing new, with a threshold for reuse */
  BENCH_OVERLAP,    /* chunks that share half their frames */
  BENCH_APART,      /* the same chunks, nothing reused */
  BENCH_START_COLD, /* caches empty */
  BENCH_START_WARM, /* a second time */
  BENCH_TILES,
  BENCH_PREFILL,
  BENCH_DECODE,
} BenchKind;

typedef struct {
  BenchKind kind;
  guint n;     /* tiles; tokens of the prompt; tokens in the context; chunks */
  guint batch; /* sequences */
} BenchRow;

gboolean bench_row_parse (const char *name, BenchRow *row, GError **error);
gboolean bench_row_run (Bench *b, const BenchRow *row, const char *name, GError **error);

gboolean bench_start (Bench *b, BenchKind kind, const char *name, GError **error);
/* The public API on the files of --model. */
IvlModel *bench_open_model (Bench *b, GError **error);
/* One tile, from the family of pictures that are alike; SEED says which. */
IvlImage *bench_make_image (IvlModel *model, guint seed, IvlImage *previous, float threshold, GError **error);
gboolean bench_ask (IvlModel *model, IvlImage *const *images, guint n, guint tokens, GError **error);
gboolean bench_stream (Bench *b, const BenchRow *row, const char *name, GError **error);
gboolean bench_peak (Bench *b, const char *name, GError **error);

/* Prints A and B, files of results, side by side. */
gboolean bench_compare (const char *a, const char *b, GError **error);

#endif
