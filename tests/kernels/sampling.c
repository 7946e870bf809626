#include "check.h"
#include "ref.h"

#include <math.h>
#include <string.h>

#define ROWS 7

typedef struct {
  IvlVkStream *stream;
  IvlSampler sampler;
  IvlSpan logits;
  guint pitch, n;
  IvlSampleRequest requests[ROWS];
  int texels;
  guint32 context[40], *masks;
  GError *error;
} Args;

static void
record (gpointer data)
{
  Args *a = data;
  ivl_sampler_record_variant (&a->sampler, a->stream, a->logits, a->pitch, a->requests, a->n, a->texels, &a->error);
}

typedef struct {
  const char *name;
  float temperature, top_p;
  guint top_k;
  float penalty;
  gboolean mask;
} Mode;

static const Mode modes[] = {
  { "greedy", 0, 1, 0, 1, FALSE },          { "greedy penalty", 0, 1, 0, 1.3f, FALSE },
  { "greedy mask", 0, 1, 0, 1, TRUE },      { "temperature", 0.7f, 1, 0, 1, FALSE },
  { "top-k", 1.3f, 1, 5, 1, FALSE },        { "top-p", 0.8f, 0.9f, 0, 1, FALSE },
  { "top-k top-p", 0.7f, 0.95f, 50, 1.1f, FALSE }, { "all mask", 1, 0.5f, 20, 0.8f, TRUE },
  { "top-p zero", 1, 0, 0, 1, FALSE },      { "top-k one", 1, 1, 1, 1, FALSE },
};

typedef enum { RANDOM, PEAKED, TIES, LARGE, HOLES, BAD, N_INPUTS } Input;
static const char *const inputs[] = { "random", "peaked", "ties", "large", "holes", "bad" };

static void
fill (Check *c, Input input, float *row, guint vocab)
{
  for (guint i = 0; i < vocab; i++)
    switch (input) {
    case PEAKED:
      row[i] *= 8;
      break;
    case TIES:
      row[i] = (float) ((int) check_below (c, 7) - 3) * (check_below (c, 2) ? 1.f : -1.f); /* both zeros, too */
      break;
    case LARGE:
      row[i] *= 1e37f;
      break;
    case HOLES:
      if (check_below (c, 3))
        row[i] = -INFINITY;
      break;
    default:
      break;
    }
  if (input == BAD)
    row[check_below (c, vocab)] = check_below (c, 2) ? NAN : INFINITY;
}

/* The token must be the one at which the cumulated probability passes the random number; as that is summed in integers
 * of 2^-28 of the largest, on exp () of 3 + 2 |x| units, within 1e-5. */
static void
check_draw (Check *c, const RefSample *ref, guint vocab, const IvlSampleRequest *r, guint32 token)
{
  double u = ref_sample_random (r->seed, r->step), before = 0;
  if (ref->margin < 1e-5)
    return;
  for (guint i = 0; i < token && i < vocab; i++)
    before += ref->kept[i];
  if (token >= vocab || u < before - 1e-5 || u > before + ref->kept[token] + 1e-5 || ref->kept[token] == 0)
    check_fail (c, "token %u, of probability %g from %g on, drawn by %g", token, token < vocab ? ref->kept[token] : 0,
                before, u);
}

static void
check_result (Check *c, const float *logits, guint vocab, const IvlSampleRequest *r, IvlSample got)
{
  RefSample ref;
  ref_sample (&ref, logits, vocab, r);
  if (!ref.valid || got.token == IVL_SAMPLE_INVALID) {
    if (ref.valid || got.token != IVL_SAMPLE_INVALID)
      check_fail (c, "token %u for a row that is %s", got.token, ref.valid ? "valid" : "not");
  } else {
    if (r->temperature < 1e-5f) {
      /* A penalty divides, which Vulkan does to 2.5 units in the last place: near-equals may change places. */
      double best = ref.logits[ref.argmax], error = r->repetition_penalty != 1 ? 4e-7 * fabs (best) : 0;
      if (got.token != ref.argmax && !(got.token < vocab && best - ref.logits[got.token] <= error && error > 0))
        check_fail (c, "token %u, must be %u", got.token, ref.argmax);
    } else {
      check_draw (c, &ref, vocab, r, got.token);
    }
    /* exp () to 3 + 2 |x| units, and a penalised logit x to 2.5 of its own. */
    if (got.token < vocab) {
      double p = ref.probability[got.token], size = fabs (ref.logits[got.token]) + fabs (ref.logits[ref.argmax]);
      double allowed = p * MIN (1e-5 + 8e-7 * size, 1) + 1e-9;
      check_floats (c, "probability", &got.probability, &p, &allowed, 1);
    }
  }
  ref_sample_clear (&ref);
}

static void
run_case (Check *c, Args *a, const Mode *mode, Input input, guint vocab)
{
  guint32 *context = a->context, *masks = a->masks = g_new0 (guint32, (gsize) ROWS * ((vocab + 31) / 32));
  /* Rows that can be bound alone, or as close as they may be. */
  a->pitch = check_below (c, 2) ? (vocab + 63) / 64 * 64 : (vocab + 3) / 4 * 4;
  g_autofree float *logits = check_random_floats (c, (gsize) a->pitch * a->n, 4);
  for (guint i = 0; i < G_N_ELEMENTS (a->context); i++)
    context[i] = check_below (c, 4) ? check_below (c, vocab) : i % 2 ? context[i / 2] : 0xffffffffu;
  for (guint i = 0; i < ROWS * ((vocab + 31) / 32); i++)
    masks[i] = check_random (c) & check_random (c);
  for (guint r = 0; r < a->n; r++) {
    fill (c, input, logits + (gsize) r * a->pitch, vocab);
    /* Beyond the vocabulary anything may stand, numbers or not. */
    for (guint i = vocab; i < a->pitch; i++)
      logits[(gsize) r * a->pitch + i] = i % 2 ? NAN : INFINITY;
    guint32 *mask = masks + (gsize) r * ((vocab + 31) / 32);
    a->requests[r] = (IvlSampleRequest){
      .temperature = mode->temperature, .top_p = mode->top_p, .top_k = mode->top_k,
      .seed = check_random (c) | (guint64) check_random (c) << 32, .step = check_below (c, 1000),
      .repetition_penalty = mode->penalty, .context = context, .n_context = check_below (c, G_N_ELEMENTS (a->context) + 1),
      .allowed = mode->mask ? mask : NULL,
    };
  }
  /* A greedy row among others, and no token allowed. */
  if (a->n > 2)
    a->requests[1].temperature = 0;
  if (a->n > 3 && mode->mask)
    memset (masks + (gsize) 3 * ((vocab + 31) / 32), 0, (vocab + 31) / 32 * 4);
  a->stream = c->stream;
  a->logits = mode->penalty != 1 ? check_output (c, logits, (gsize) a->pitch * a->n * 4)
                                 : check_input (c, logits, (gsize) a->pitch * a->n * 4);
  IvlSample got[ROWS], again[ROWS];
  if (!check_run (c, record, a) || !ivl_sampler_read (&a->sampler, got, a->n, &a->error))
    return;
  for (guint r = 0; r < a->n && !c->bench_only; r++)
    check_result (c, logits + (gsize) r * a->pitch, vocab, &a->requests[r], got[r]);

  /* The same alone as in a batch. */
  if (a->n > 1 && mode->penalty == 1) {
    IvlSpan all = a->logits;
    guint last = a->n - 1, n = a->n;
    IvlSampleRequest first = a->requests[0];
    if ((guint64) last * a->pitch * 4 % 256 == 0) {
      a->n = 1;
      a->requests[0] = a->requests[last];
      a->logits.offset += (guint64) last * a->pitch * 4;
      if (check_run (c, record, a) && ivl_sampler_read (&a->sampler, again, 1, &a->error))
        check_bytes (c, "sample of a row alone", &again[0], &got[last], sizeof got[last]);
      a->requests[0] = first;
      a->logits = all;
      a->n = n;
    }
  }
}

/* Frequencies of many draws from a few tokens against their probabilities: chi-square of 9 degrees of freedom, whose
 * value passes 50 once in 10 million times. */
static void
check_frequencies (Check *c, int texels, const char *kernel)
{
  enum { VOCAB = 10, DRAWS = 700 };
  if (!check_begin (c, kernel, "frequencies", "%u draws of %u", DRAWS * ROWS, VOCAB))
    return;
  Args a = { .stream = c->stream, .pitch = 12, .n = ROWS, .texels = texels };
  float logits[ROWS * 12] = { 0 };
  guint counts[VOCAB] = { 0 };
  RefSample ref;
  for (guint i = 0; i < G_N_ELEMENTS (logits); i++)
    logits[i] = (float) (i % 12) * 0.3f;
  a.logits = check_input (c, logits, sizeof logits);
  if (!ivl_sampler_init (&a.sampler, c->device, VOCAB, ROWS, 16, &a.error))
    g_error ("%s", a.error->message);
  guint64 seed = (guint64) check_random (c) << 32 | check_random (c);
  for (guint i = 0; i < DRAWS && !c->failed; i++) {
    IvlSample got[ROWS];
    for (guint r = 0; r < ROWS; r++)
      a.requests[r] = (IvlSampleRequest){ .temperature = 1.5f, .top_p = 1, .seed = seed + r, .step = i,
                                          .repetition_penalty = 1 };
    if (check_run (c, record, &a) && ivl_sampler_read (&a.sampler, got, ROWS, &a.error))
      for (guint r = 0; r < ROWS; r++)
        counts[MIN (got[r].token, VOCAB - 1)]++;
  }
  ref_sample (&ref, logits, VOCAB, &a.requests[0]);
  double chi = 0;
  for (guint i = 0; i < VOCAB; i++) {
    double expected = ref.kept[i] * DRAWS * ROWS;
    chi += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  ref_sample_clear (&ref);
  if (chi > 50)
    check_fail (c, "frequencies are off: chi-square %.1f", chi);
  c->record = NULL;
  check_end (c);
  ivl_sampler_deinit (&a.sampler);
}

void
check_sampling (Check *c)
{
  static const guint vocabs[] = { 1, 37, 4096, 4101, 20000 };
  for (int texels = 0; texels <= 1; texels++) {
    const char *kernel = texels ? "sampling_texel" : "sampling_buffer";
    if (texels && c->device->properties.limits.maxTexelBufferElements < 1u << 20) {
      check_skip (c, kernel, "*", "the device takes few texels");
      continue;
    }
    for (guint m = 0; m < G_N_ELEMENTS (modes); m++)
      for (guint v = 0; v <= G_N_ELEMENTS (vocabs); v++)
        for (Input input = 0; input < N_INPUTS; input++) {
          gboolean timed = v == G_N_ELEMENTS (vocabs);
          guint vocab = timed ? 151674 : vocabs[v], n = timed || v == 0 ? 1 : v == 1 ? ROWS : 2 + v % 2;
          if ((timed && input > PEAKED)
              || !(timed ? check_begin_bench : check_begin) (c, kernel, modes[m].name, "vocab=%u rows=%u %s", vocab, n,
                                                             inputs[input]))
            continue;
          Args a = { .n = n, .texels = texels };
          if (!ivl_sampler_init (&a.sampler, c->device, vocab, ROWS, 64, &a.error))
            g_error ("%s", a.error->message);
          run_case (c, &a, &modes[m], input, vocab);
          if (a.error)
            check_fail (c, "%s", a.error->message);
          check_end (c);
          g_clear_error (&a.error);
          g_free (a.masks);
          ivl_sampler_deinit (&a.sampler);
        }
    check_frequencies (c, texels, kernel);
  }
}
