#include "check.h"
#include "ref.h"

#include <math.h>
#include <string.h>

typedef struct {
  IvlVkStream *stream;
  IvlAttention attention;
  IvlAttentionVariant variant;
  guint part;
} Args;

static void
record (gpointer data)
{
  Args *a = data;
  ivl_attention_with (a->stream, &a->attention, a->variant, a->part);
}

static void
random_magnitudes (Check *c, float *x, gsize n, float scale)
{
  for (gsize i = 0; i < n; i++)
    x[i] *= scale;
  if (n)
    x[check_below (c, (guint) MIN (n, G_MAXUINT))] *= 100;
}

/* Tiles of tokens that all see each other; q, k and v side by side as the vision encoder's projection leaves them. */
static void
run_full (Check *c, Args *a, guint tiles, guint tokens, guint heads, guint d, float scale)
{
  guint width = heads * d, pitch = 3 * width + 4, out_pitch = width + 8, rows = tiles * tokens;
  gsize in_floats = 4 + (gsize) rows * pitch, out_floats = 12 + (gsize) rows * out_pitch;
  g_autofree float *qkv = check_random_floats (c, in_floats, 1), *out = check_random_floats (c, out_floats, 1);
  random_magnitudes (c, qkv, in_floats, scale);
  guint item_rows = ivl_attention_rows (c->device, d, 1, tokens);
  g_autoptr (GArray) items = g_array_new (FALSE, TRUE, sizeof (IvlAttentionItem));
  g_array_set_size (items, 2);
  for (guint t = 0; t < tiles; t++)
    for (guint r = 0; r < tokens; r += item_rows) {
      IvlAttentionItem item = { t * tokens + r, MIN (item_rows, tokens - r), t * tokens, tokens };
      g_array_append_val (items, item);
    }
  IvlSpan in = check_input (c, qkv, in_floats * 4);
  a->stream = c->stream;
  a->attention = (IvlAttention){
    .heads = heads, .kv_heads = heads, .head_dim = d,
    .q = { in, 4, pitch }, .kv = { in, 4, pitch }, .k_column = width, .v_column = 2 * width,
    .out = { check_output (c, out, out_floats * 4), 12, out_pitch },
    .items = check_input (c, items->data, items->len * sizeof (IvlAttentionItem)), .item_base = 2,
    .n_items = items->len - 2, .max_rows = item_rows, .pages = in, .mean_kv = tokens, .n_rows = rows,
  };
  if (!check_run (c, record, a) || c->bench_only)
    return;
  g_autofree double *want = g_new (double, (gsize) rows * width), *allowed = g_new (double, (gsize) rows * width);
  g_autofree const float **k = g_new (const float *, tokens), **v = g_new (const float *, tokens);
  for (guint r = 0; r < rows; r++)
    for (guint h = 0; h < heads; h++) {
      for (guint i = 0; i < tokens; i++) {
        const float *row = qkv + 4 + (gsize) (r / tokens * tokens + i) * pitch;
        k[i] = row + width + h * d;
        v[i] = row + 2 * width + h * d;
      }
      ref_attention (qkv + 4 + (gsize) r * pitch + h * d, k, v, tokens, d, want + (gsize) r * width + h * d,
                     allowed + (gsize) r * width + h * d);
    }
  check_rows (c, "out", a->attention.out, out, rows, width, want, allowed);
}

typedef struct {
  guint before, n; /* tokens in the cache before this forward, and in it */
} Sequence;

/* Sequences of a decoder over a cache whose pages lie anywhere. */
static void
run_paged (Check *c, Args *a, const Sequence *sequences, guint n_sequences, guint heads, guint kv_heads, guint d,
           float scale)
{
  guint width = heads * d, kv_width = kv_heads * d, pitch = width + 2 * kv_width, rows = 0, n_pages = 0, most = 0, longest = 0;
  for (guint s = 0; s < n_sequences; s++) {
    rows += sequences[s].n;
    most = MAX (most, sequences[s].n);
    longest = MAX (longest, sequences[s].before + sequences[s].n);
    n_pages += (sequences[s].before + sequences[s].n + IVL_KV_PAGE - 1) / IVL_KV_PAGE;
  }
  gsize kv_floats = (gsize) (n_pages + 2) * IVL_KV_PAGE * 2 * kv_width, out_floats = (gsize) rows * width;
  g_autofree float *q = check_random_floats (c, (gsize) rows * pitch, 1);
  g_autofree float *kv = check_random_floats (c, kv_floats, 1), *out = check_random_floats (c, out_floats, 1);
  random_magnitudes (c, q, (gsize) rows * pitch, scale);
  random_magnitudes (c, kv, kv_floats, scale);
  g_autofree guint32 *pages = g_new (guint32, n_pages + 3);
  for (guint i = 0; i < n_pages + 2; i++)
    pages[i] = i;
  for (guint i = n_pages + 1; i > 0; i--) {
    guint j = check_below (c, i + 1);
    guint32 page = pages[i];
    pages[i] = pages[j];
    pages[j] = page;
  }
  /* What no token has been written to may hold anything, NaN too. */
  g_autofree gboolean *used = g_new0 (gboolean, (n_pages + 2) * IVL_KV_PAGE);
  for (guint s = 0, page = 1; s < n_sequences; s++) {
    guint length = sequences[s].before + sequences[s].n;
    for (guint i = 0; i < length; i++)
      used[pages[page + i / IVL_KV_PAGE] * IVL_KV_PAGE + i % IVL_KV_PAGE] = TRUE;
    page += (length + IVL_KV_PAGE - 1) / IVL_KV_PAGE;
  }
  for (gsize i = 0; i < kv_floats; i++)
    if (!used[i / (2 * kv_width)])
      kv[i] = NAN;
  guint item_rows = ivl_attention_rows (c->device, d, heads / kv_heads, most);
  g_autoptr (GArray) items = g_array_new (FALSE, TRUE, sizeof (IvlAttentionItem));
  double keys = 0;
  for (guint s = 0, row = 0, page = 1; s < n_sequences; s++) {
    for (guint r = 0; r < sequences[s].n; r += item_rows) {
      IvlAttentionItem item = { row + r, MIN (item_rows, sequences[s].n - r), page, sequences[s].before + r + 1 };
      g_array_append_val (items, item);
    }
    row += sequences[s].n;
    page += (sequences[s].before + sequences[s].n + IVL_KV_PAGE - 1) / IVL_KV_PAGE;
    keys += sequences[s].n * (sequences[s].before + 0.5 * sequences[s].n);
  }
  a->stream = c->stream;
  a->attention = (IvlAttention){
    .heads = heads, .kv_heads = kv_heads, .head_dim = d, .causal = TRUE,
    .q = ivl_rows (check_input (c, q, (gsize) rows * pitch * 4), pitch),
    .kv = ivl_rows (check_input (c, kv, kv_floats * 4), 2 * kv_width), .k_column = 0, .v_column = kv_width,
    .out = ivl_rows (check_output (c, out, out_floats * 4), width),
    .items = check_input (c, items->data, items->len * sizeof (IvlAttentionItem)), .n_items = items->len,
    .max_rows = item_rows, .pages = check_input (c, pages, (n_pages + 2) * 4), .mean_kv = keys / rows, .max_kv = longest, .n_rows = rows,
  };
  if (!check_run (c, record, a) || c->bench_only)
    return;
  g_autofree double *want = g_new (double, out_floats), *allowed = g_new (double, out_floats);
  for (guint s = 0, row = 0, page = 1; s < n_sequences; s++) {
    guint length = sequences[s].before + sequences[s].n;
    g_autofree const float **k = g_new (const float *, length), **v = g_new (const float *, length);
    for (guint r = 0; r < sequences[s].n; r++)
      for (guint h = 0; h < heads; h++) {
        guint n = sequences[s].before + r + 1;
        for (guint i = 0; i < n; i++) {
          gsize slot = (gsize) pages[page + i / IVL_KV_PAGE] * IVL_KV_PAGE + i % IVL_KV_PAGE;
          k[i] = kv + slot * 2 * kv_width + h / (heads / kv_heads) * d;
          v[i] = k[i] + kv_width;
        }
        gsize at = (gsize) (row + r) * width + h * d;
        ref_attention (q + (gsize) (row + r) * pitch + h * d, k, v, n, d, want + at, allowed + at);
      }
    row += sequences[s].n;
    page += (length + IVL_KV_PAGE - 1) / IVL_KV_PAGE;
  }
  check_rows (c, "out", a->attention.out, out, rows, width, want, allowed);
}

typedef struct {
  IvlVkStream *stream;
  IvlRows qkv;
  guint n_rows, heads, kv_heads, d;
  IvlRope rope;
} RopeArgs;

static void
record_rope (gpointer data)
{
  RopeArgs *a = data;
  ivl_rope_cache (a->stream, a->qkv, a->n_rows, &a->rope);
}

static void
run_rope (Check *c, RopeArgs *a)
{
  guint half = a->d / 2, width = (a->heads + 2 * a->kv_heads) * a->d, pitch = width + 4, kv_width = 2 * a->kv_heads * a->d;
  gsize qkv_floats = 4 + (gsize) a->n_rows * pitch, cache_floats = (gsize) REF_ROPE_SLOTS * kv_width;
  g_autofree float *qkv = check_random_floats (c, qkv_floats, 1), *cache = check_random_floats (c, cache_floats, 1);
  g_autofree float *table = ref_rope_table (a->d);
  g_autofree IvlRow *rows = g_new0 (IvlRow, a->n_rows + 2);
  for (guint r = 0; r < a->n_rows; r++) {
    rows[2 + r].position = check_below (c, REF_ROPE_POSITIONS);
    rows[2 + r].slot = (r * 7 + 3) % REF_ROPE_SLOTS;
  }
  a->stream = c->stream;
  a->qkv = (IvlRows){ check_output (c, qkv, qkv_floats * 4), 4, pitch };
  a->rope = (IvlRope){ a->heads, a->kv_heads, a->d, check_input (c, rows, (a->n_rows + 2) * sizeof (IvlRow)), 2,
                       check_input (c, table, REF_ROPE_POSITIONS * half * 8), check_output (c, cache, cache_floats * 4) };
  if (!check_run (c, record_rope, a) || c->bench_only)
    return;
  g_autofree double *want = g_new (double, (gsize) a->n_rows * width), *allowed = g_new0 (double, (gsize) a->n_rows * width);
  g_autofree double *want_cache = g_new (double, cache_floats), *allowed_cache = g_new0 (double, cache_floats);
  for (gsize i = 0; i < cache_floats; i++)
    want_cache[i] = (double) cache[i];
  for (guint r = 0; r < a->n_rows; r++) {
    g_autofree double *values = g_new (double, width), *exact = g_new0 (double, width);
    for (guint i = 0; i < width; i++)
      values[i] = want[(gsize) r * width + i] = (double) qkv[4 + (gsize) r * pitch + i];
    ref_rope_cache (values, exact, a->heads, a->kv_heads, a->d, &rows[2 + r], table, want + (gsize) r * width,
                    allowed + (gsize) r * width, want_cache, allowed_cache);
  }
  check_rows (c, "qkv", a->qkv, qkv, a->n_rows, width, want, allowed);
  g_autofree float *got = check_read (c, a->rope.cache);
  check_floats (c, "cache", got, want_cache, allowed_cache, cache_floats);
}

static const struct { guint heads, kv_heads, d; } grouped[] = {
  { 14, 2, 64 }, { 16, 8, 128 }, { 7, 1, 32 }, { 4, 4, 16 }, { 6, 2, 8 }, { 40, 1, 16 },
};

static void
check_variant (Check *c, const char *kernel, IvlAttentionVariant variant, guint part)
{
  static const struct { guint tiles, tokens, heads, d; } full[] = {
    { 1, 1, 1, 4 }, { 2, 17, 3, 64 }, { 3, 37, 2, 32 }, { 1, 130, 1, 128 }, { 2, 50, 5, 12 }, { 1, 65, 2, 80 },
  };
  static const struct { const char *name; guint n; Sequence s[4]; } batches[] = {
    { "one token", 1, { { 0, 1 } } },
    { "decode of 4", 4, { { 31, 1 }, { 32, 1 }, { 7, 1 }, { 100, 1 } } },
    { "prefill", 1, { { 0, 45 } } },
    { "long decode of 3", 3, { { 700, 1 }, { 3, 1 }, { 33, 1 } } },
    { "mixed", 4, { { 64, 1 }, { 0, 33 }, { 20, 50 }, { 95, 1 } } },
  };
  static const struct { const char *name; float scale; } scales[] = { { "", 1 }, { " large", 30 }, { " small", 1e-4f } };
  /* Half of the shapes where a driver compiles long what it never takes. */
  guint step = c->quick && variant == IVL_ATTENTION_ADDRESS && !c->device->broadcasts ? 2 : 1;
  for (guint i = 0; i < G_N_ELEMENTS (scales); i++) {
    for (guint f = 0; f < G_N_ELEMENTS (full); f += step) {
      Args a = { .variant = variant, .part = part };
      if (!check_begin (c, kernel, "full", "tiles=%u tokens=%u heads=%u d=%u%s", full[f].tiles, full[f].tokens,
                        full[f].heads, full[f].d, scales[i].name))
        continue;
      run_full (c, &a, full[f].tiles, full[f].tokens, full[f].heads, full[f].d, scales[i].scale);
      check_end (c);
    }
  }
  for (guint i = 0; i < G_N_ELEMENTS (scales); i++)
    for (guint g = 0; g < G_N_ELEMENTS (grouped); g += step)
      for (guint b = 0; b < G_N_ELEMENTS (batches); b++) {
        Args a = { .variant = variant, .part = part };
        if (!check_begin (c, kernel, "causal paged", "%s heads=%u/%u d=%u%s", batches[b].name, grouped[g].heads,
                          grouped[g].kv_heads, grouped[g].d, scales[i].name))
          continue;
        run_paged (c, &a, batches[b].s, batches[b].n, grouped[g].heads, grouped[g].kv_heads, grouped[g].d,
                   scales[i].scale);
        check_end (c);
      }
  Args a = { .variant = variant, .part = part };
  if (check_begin_bench (c, kernel, "full", "tiles=1 tokens=1025 heads=16 d=64")) {
    run_full (c, &a, 1, 1025, 16, 64, 1);
    check_end (c);
  }
  if (check_begin_bench (c, kernel, "causal paged", "prefill 512 heads=14/2 d=64")) {
    run_paged (c, &a, &(Sequence){ 0, 512 }, 1, 14, 2, 64, 1);
    check_end (c);
  }
  if (check_begin_bench (c, kernel, "causal paged", "decode at 2000 heads=14/2 d=64")) {
    run_paged (c, &a, &(Sequence){ 2000, 1 }, 1, 14, 2, 64, 1);
    check_end (c);
  }
}

void
check_attention (Check *c)
{
  check_variant (c, "attention_buffer", IVL_ATTENTION_BUFFER, 0);
  if (c->device->properties.limits.maxTexelBufferElements < 1u << 20)
    check_skip (c, "attention_texel", "*", "the device takes few texels");
  else
    check_variant (c, "attention_texel", IVL_ATTENTION_TEXEL, 0);
  if (c->device->addresses)
    check_variant (c, "attention_address", IVL_ATTENTION_ADDRESS, 0);
  else
    check_skip (c, "attention_address", "*", "the device's buffers have no addresses");
  check_variant (c, "attention_gpu", IVL_ATTENTION_GPU, 0);
  check_variant (c, "attention_gpu_parts", IVL_ATTENTION_GPU, 32);
  /* Besides, halves of heads that aren't powers of two, or are larger than the workgroup usually is. */
  static const guint more[][3] = { { 3, 1, 24 }, { 5, 2, 80 }, { 2, 1, 256 } };
  for (guint g = 0; g < G_N_ELEMENTS (grouped) + G_N_ELEMENTS (more); g++)
    for (guint rows = 1; rows < 80; rows = rows * 3 + 2) {
      const guint *other = more[MAX (g, G_N_ELEMENTS (grouped)) - G_N_ELEMENTS (grouped)];
      RopeArgs rope = { .n_rows = rows, .heads = other[0], .kv_heads = other[1], .d = other[2] };
      if (g < G_N_ELEMENTS (grouped))
        rope = (RopeArgs){ .n_rows = rows, .heads = grouped[g].heads, .kv_heads = grouped[g].kv_heads, .d = grouped[g].d };
      if (!check_begin (c, "rope_cache", "", "rows=%u heads=%u/%u d=%u", rows, rope.heads, rope.kv_heads, rope.d))
        continue;
      run_rope (c, &rope);
      check_end (c);
    }
}
