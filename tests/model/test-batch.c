/* What a sequence computes must not depend on what runs beside it, nor on how its prompt is cut, nor on where its pages
 * lie: tiles alone and side by side, prompts alone and in a batch, whole and in chunks, before and after the cache has
 * grown, with a shared beginning, after truncation. */
#include "forward.h"

#include <string.h>

/* Kernels come in variants by the number of rows, and each adds up in its own order. Where the same variants run, results
 * must be equal bit by bit; elsewhere they may differ as two orders of f32 sums do (see test-forward.c). */
#define TOLERANCE 1e-5

typedef struct {
  Forward f;
  Embeddings images[8];
  guint n_images;
  Prompt prompt;
} Fixture;

static void
set_up (Fixture *x, gconstpointer name)
{
  forward_set_up (&x->f, name, -1);
  forward_prompt (&x->f, golden_case (x->f.golden, "two_images"), 0, &x->prompt, x->images, &x->n_images);
}

static void
tear_down (Fixture *x, gconstpointer name)
{
  prompt_clear (&x->prompt);
  for (guint i = 0; i < x->n_images; i++)
    embeddings_clear (&x->images[i]);
  /* All pages must have come back. */
  g_assert_cmpuint (x->f.cache.free_pages->len, ==, x->f.cache.n_pages);
  forward_tear_down (&x->f);
}

static void
assert_same (Fixture *x, const char *what, const float *a, const float *b, gsize n)
{
  if (memcmp (a, b, n * sizeof *a) != 0)
    g_error ("%s: %s differs, by %g", x->f.golden->name, what, golden_difference (a, b, n));
}

static void
assert_near (Fixture *x, const char *what, const float *a, const float *b, gsize n)
{
  double difference = golden_difference (a, b, n);
  g_test_message ("%s: %s differs by %.2g", x->f.golden->name, what, difference);
  g_assert_cmpfloat (difference, <, TOLERANCE);
}

static float *
whole_prompt (Fixture *x, guint step)
{
  IvlSequence sequence;
  ivl_sequence_init (&sequence);
  forward_run (&x->f, &sequence, &x->prompt, 0, x->prompt.n_tokens, step, NULL, NULL);
  ivl_sequence_deinit (&sequence, &x->f.cache);
  return forward_logits (&x->f, 0);
}

static void
test_tiles (Fixture *x, gconstpointer name)
{
  float *results[2];
  gsize n = 0;
  for (guint i = 0; i < 2; i++) {
    Embeddings out;
    forward_encode (&x->f, "wide200x150", 6, i ? FORWARD_TILES : 1, &out, NULL, NULL);
    n = (gsize) out.rows * x->f.config->text.hidden;
    results[i] = forward_read (&x->f, (IvlSpan){ out.buffer, 0, out.buffer->size }, 0, n);
    embeddings_clear (&out);
  }
  assert_same (x, "a tile beside others", results[1], results[0], n);
  g_free (results[0]);
  g_free (results[1]);
}

static void
test_chunks (Fixture *x, gconstpointer name)
{
  guint vocab = x->f.config->text.vocab;
  g_autofree float *whole = whole_prompt (x, FORWARD_ROWS), *again = whole_prompt (x, FORWARD_ROWS);
  /* The second time the cache has grown, and other pages are taken. */
  assert_same (x, "the same prompt again", again, whole, vocab);
  static const guint steps[] = { 1, 2, 5, 17, 48, 63 };
  for (guint i = 0; i < G_N_ELEMENTS (steps); i++) {
    g_autofree float *cut = whole_prompt (x, steps[i]);
    g_autofree char *what = g_strdup_printf ("a prompt in chunks of %u", steps[i]);
    assert_near (x, what, cut, whole, vocab);
  }
}

/* Three sequences of equal length side by side, then one that decodes beside one that prefills. */
static void
test_batch (Fixture *x, gconstpointer name)
{
  Forward *f = &x->f;
  guint vocab = f->config->text.vocab;
  enum { N = 3, ROWS = FORWARD_ROWS / N };
  float *alone[N], *token_alone[N];
  guint first[N], begun = MIN (33, x->prompt.n_tokens - ROWS * N);
  g_assert_cmpuint (begun, >, 8);
  for (guint i = 0; i < N; i++) {
    first[i] = x->prompt.n_tokens - ROWS * (i + 1);
    IvlSequence sequence;
    ivl_sequence_init (&sequence);
    forward_run (f, &sequence, &x->prompt, 0, first[i], FORWARD_ROWS, NULL, NULL);
    forward_run (f, &sequence, &x->prompt, first[i], first[i] + ROWS, ROWS, NULL, NULL);
    alone[i] = forward_logits (f, 0);
    forward_tokens (f, &sequence, &(guint32){ 40 + i }, 1);
    token_alone[i] = forward_logits (f, 0);
    ivl_sequence_deinit (&sequence, &f->cache);
  }
  IvlSequence sequences[N];
  IvlDecoderJob jobs[N];
  for (guint i = 0; i < N; i++) {
    ivl_sequence_init (&sequences[i]);
    forward_run (f, &sequences[i], &x->prompt, 0, first[i], FORWARD_ROWS, NULL, NULL);
    jobs[i] = prompt_job (&x->prompt, &sequences[i], first[i], ROWS, TRUE);
  }
  forward_jobs (f, jobs, N, NULL, NULL);
  for (guint i = 0; i < N; i++) {
    g_autofree float *got = forward_logits (f, i);
    assert_same (x, "a prompt beside others", got, alone[i], vocab);
  }
  /* One token each, the middle one absent, and the first's place taken by a prompt chunk of the third. */
  guint32 tokens[] = { 40, 41, 42 };
  jobs[0] = (IvlDecoderJob){ &sequences[1], &tokens[1], 1, NULL, TRUE };
  jobs[1] = (IvlDecoderJob){ &sequences[0], &tokens[0], 1, NULL, TRUE };
  ivl_sequence_truncate (&sequences[2], &f->cache, 0);
  jobs[2] = prompt_job (&x->prompt, &sequences[2], 0, begun, FALSE);
  forward_jobs (f, jobs, N, NULL, NULL);
  g_autofree float *second = forward_logits (f, 0), *zeroth = forward_logits (f, 1);
  assert_near (x, "a token beside a prompt", second, token_alone[1], vocab);
  assert_near (x, "a token beside a prompt", zeroth, token_alone[0], vocab);
  /* The chunk that ran beside them must go on as any other. */
  forward_run (f, &sequences[2], &x->prompt, begun, first[2], FORWARD_ROWS, NULL, NULL);
  forward_run (f, &sequences[2], &x->prompt, first[2], first[2] + ROWS, ROWS, NULL, NULL);
  g_autofree float *third = forward_logits (f, 0);
  assert_near (x, "a prompt begun beside tokens", third, alone[2], vocab);
  for (guint i = 0; i < N; i++) {
    ivl_sequence_deinit (&sequences[i], &f->cache);
    g_free (alone[i]);
    g_free (token_alone[i]);
  }
}

/* A second sequence on the first one's pages, while the first goes on; then the first goes away. */
static void
test_share (Fixture *x, gconstpointer name)
{
  Forward *f = &x->f;
  guint vocab = f->config->text.vocab, n = x->prompt.n_tokens;
  g_autofree float *whole = whole_prompt (x, FORWARD_ROWS);
  IvlSequence one, two, three;
  ivl_sequence_init (&one);
  ivl_sequence_init (&two);
  ivl_sequence_init (&three);
  forward_run (f, &one, &x->prompt, 0, n, FORWARD_ROWS, NULL, NULL);
  guint shared = ivl_sequence_share (&two, &f->cache, &one, n - 1);
  g_assert_cmpuint (shared, ==, (n - 1) / IVL_KV_PAGE * IVL_KV_PAGE);
  g_assert_cmpuint (shared, >, 0);
  g_assert_cmpuint (ivl_sequence_share (&three, &f->cache, &one, IVL_KV_PAGE - 1), ==, 0);

  /* Other tokens behind the shared beginning: the first must not notice. */
  guint32 others[20];
  for (guint i = 0; i < G_N_ELEMENTS (others); i++)
    others[i] = 30 + i;
  forward_tokens (f, &two, others, G_N_ELEMENTS (others));
  forward_tokens (f, &one, others, 1);
  g_autofree float *beside = forward_logits (f, 0);
  ivl_sequence_truncate (&one, &f->cache, n);
  forward_tokens (f, &one, others, 1);
  g_autofree float *after = forward_logits (f, 0);
  assert_same (x, "a token after truncation", after, beside, vocab);

  /* Truncation into a shared page lets go of it whole; what is written then must not show in the other. */
  ivl_sequence_truncate (&two, &f->cache, shared);
  ivl_sequence_truncate (&one, &f->cache, shared - 3);
  g_assert_cmpuint (one.length, ==, shared - IVL_KV_PAGE);
  guint32 spoil[IVL_KV_PAGE];
  for (guint i = 0; i < IVL_KV_PAGE; i++)
    spoil[i] = 20 + i % 200;
  for (guint i = 0; i < IVL_KV_PAGE; i += FORWARD_ROWS)
    forward_tokens (f, &one, spoil + i, MIN (FORWARD_ROWS, IVL_KV_PAGE - i));
  ivl_sequence_deinit (&one, &f->cache);
  forward_run (f, &two, &x->prompt, shared, n, FORWARD_ROWS, NULL, NULL);
  g_autofree float *got = forward_logits (f, 0);
  assert_near (x, "a prompt on shared pages", got, whole, vocab);
  ivl_sequence_deinit (&two, &f->cache);
  ivl_sequence_deinit (&three, &f->cache);
}

/* Guessed tokens in one forward, as speculation runs them: each row is what it would be had its token come alone, and
 * those that were guessed wrong leave nothing behind. */
static void
test_one_by_one (Fixture *x, gconstpointer name)
{
  Forward *f = &x->f;
  guint vocab = f->config->text.vocab, n = MIN (x->prompt.n_tokens, FORWARD_ROWS);
  guint32 tokens[FORWARD_LOGITS];
  float *alone[FORWARD_LOGITS];
  IvlSequence sequence;
  ivl_sequence_init (&sequence);
  forward_run (f, &sequence, &x->prompt, 0, n, FORWARD_ROWS, NULL, NULL);
  for (guint i = 0; i < FORWARD_LOGITS; i++) {
    tokens[i] = 30 + 7 * i;
    forward_tokens (f, &sequence, &tokens[i], 1);
    alone[i] = forward_logits (f, 0);
  }
  for (guint m = 2; m <= FORWARD_LOGITS; m++)
    for (guint right = 1; right <= m; right++) {
      guint32 guessed[FORWARD_LOGITS];
      for (guint i = 0; i < m; i++)
        guessed[i] = i < right ? tokens[i] : 99;
      ivl_sequence_truncate (&sequence, &f->cache, n);
      IvlDecoderJob job = { &sequence, guessed, m, NULL, m, TRUE };
      forward_jobs (f, &job, 1, NULL, NULL);
      for (guint i = 0; i < right; i++) {
        g_autofree float *got = forward_logits (f, i);
        assert_same (x, "a token among guessed ones", got, alone[i], vocab);
      }
      if (right == FORWARD_LOGITS)
        continue;
      ivl_sequence_truncate (&sequence, &f->cache, n + right);
      forward_tokens (f, &sequence, &tokens[right], 1);
      g_autofree float *after = forward_logits (f, 0);
      assert_same (x, "a token after wrong guesses", after, alone[right], vocab);
    }
  ivl_sequence_deinit (&sequence, &f->cache);
  for (guint i = 0; i < FORWARD_LOGITS; i++)
    g_free (alone[i]);
}

/* A full pool refuses and changes nothing. */
static void
test_full (Fixture *x, gconstpointer name)
{
  Forward *f = &x->f;
  IvlSequence sequences[FORWARD_CONTEXT / IVL_KV_PAGE];
  g_autoptr (GError) error = NULL;
  guint max = f->cache.max_pages, taken = 0;
  f->cache.max_pages = f->cache.n_pages + 2;
  ivl_sequence_init (&sequences[0]);
  ivl_sequence_init (&sequences[1]);
  g_assert_true (ivl_sequence_reserve (&sequences[0], &f->cache, f->stream, f->cache.max_pages * IVL_KV_PAGE, &error));
  g_assert_no_error (error);
  taken = sequences[0].pages->len;
  g_assert_false (ivl_sequence_reserve (&sequences[1], &f->cache, f->stream, 1, &error));
  g_assert_error (error, IVL_ERROR, IVL_ERROR_OUT_OF_MEMORY);
  g_assert_cmpuint (sequences[1].pages->len, ==, 0);
  g_clear_error (&error);
  g_assert_false (ivl_sequence_reserve (&sequences[0], &f->cache, f->stream, taken * IVL_KV_PAGE + 1, &error));
  g_assert_error (error, IVL_ERROR, IVL_ERROR_OUT_OF_MEMORY);
  g_assert_cmpuint (sequences[0].pages->len, ==, taken);
  ivl_sequence_deinit (&sequences[0], &f->cache);
  g_assert_true (ivl_sequence_reserve (&sequences[1], &f->cache, f->stream, 1, NULL));
  ivl_sequence_deinit (&sequences[1], &f->cache);
  f->cache.max_pages = max;
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  /* Both vision encoders, both decoders, two head sizes. */
  static const char *const names[] = { "qwen2-ln-orig", "internlm2-rms-orig", "qwen2-rms-hf2-sharded" };
  static const struct {
    const char *name;
    void (*run) (Fixture *, gconstpointer);
  } tests[] = { { "tiles", test_tiles }, { "chunks", test_chunks }, { "batch", test_batch }, { "share", test_share },
                { "one-by-one", test_one_by_one }, { "full", test_full } };
  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    for (guint t = 0; t < G_N_ELEMENTS (tests); t++) {
      g_autofree char *path = g_strdup_printf ("/batch/%s/%s", names[i], tests[t].name);
      g_test_add (path, Fixture, names[i], set_up, tests[t].run, tear_down);
    }
  return g_test_run ();
}
