/* The forward passes against the reference, value by value: all tensors of tests/golden/values, and the greedy tokens
 * of one case with the argmax taken on the host. */
#include "forward.h"

#include <math.h>
#include <string.h>

/* Weights in f32 or in the folder's own type are those of the reference exactly: what remains is the order of f32 sums.
 * Measured: 1.1e-5 of the largest value at worst (states), 6e-6 (logits). 1e-4 is what the project promises for logits;
 * states are held to less, so that a mistake that hardly shows in the logits is found where it is made. */
#define TOLERANCE_STATES 3e-5
#define TOLERANCE_LOGITS 1e-4

/* Weights rounded to fewer bits than they have: each is off by up to u of itself, u = 2^-8 (bf16) or 2^-11 (f16), u / sqrt 3
 * in the mean square. The errors of a row's products are independent, so a matmul's output is off by about u / sqrt 3 of its
 * deviation, and the errors of n matmuls in a row add up by their squares: sqrt n. Logits depend on 4 matmuls a layer and
 * 4 more (patches, projector, head): n = 20 with two and two layers. The largest of 500 errors is about 3.5 deviations,
 * the largest value about 3, so in terms of that: 1.2 sqrt (20 / 3) u = 3 u. Attention that was made peaked on purpose
 * (see tests/reference/README.md) enlarges what goes into its exponent: another factor, AMPLIFY.
 * Measured: 0.7 and 0.5 of the tolerance. */
#define AMPLIFY 4.
#define TOLERANCE_ROUNDED(u) (3. * AMPLIFY * (u))

typedef struct {
  const char *name; /* borrowed */
  int dtype;
  double states, logits;
} Run;

static void
check (const Run *run, const char *what, const float *got, const float *want, gsize n, double tolerance)
{
  double difference = golden_difference (got, want, n);
  g_test_message ("%s: %s differs by %.2g", run->name, what, difference);
  if (!(difference < tolerance))
    g_error ("%s: %s differs by %g, tolerance %g", run->name, what, difference, tolerance);
}

/* ---- vision ---- */

typedef struct {
  const Run *run;
  guint tile, checked;
} VisionCheck;

static void
layer_norm (float *row, guint n, const float *weight, const float *bias, double eps)
{
  double mean = 0., variance = 0.;
  for (guint i = 0; i < n; i++)
    mean += row[i];
  mean /= n;
  for (guint i = 0; i < n; i++)
    variance += (row[i] - mean) * (row[i] - mean);
  variance /= n;
  for (guint i = 0; i < n; i++)
    row[i] = (float) ((row[i] - mean) / sqrt (variance + eps) * weight[i] + bias[i]);
}

static void
vision_tap (Forward *f, guint step, guint first, guint tiles, gpointer data)
{
  VisionCheck *c = data;
  if (c->tile < first || c->tile >= first + tiles)
    return;
  guint tokens = 1 + f->config->vision.grid * f->config->vision.grid, width = f->config->vision.hidden;
  gsize n;
  if (step <= f->weights.vit.n_layers) {
    g_autofree char *name = step ? g_strdup_printf ("vision.block.%u", step - 1) : g_strdup ("vision.embeddings");
    g_autofree float *want = golden_floats (f->golden, name, &n);
    if (!want)
      return;
    g_assert_cmpuint (n, ==, (gsize) tokens * width);
    g_autofree float *got = forward_read (f, f->vit.x, (c->tile - first) * n, n);
    check (c->run, name, got, want, n, c->run->states);
    c->checked++;
    return;
  }
  /* The engine shuffles while it reads for the projector's LayerNorm: what can be seen is the result of both. */
  g_autofree float *want = golden_floats (f->golden, "vision.shuffled", &n);
  guint rows = f->config->tile_tokens, wide = 4 * width;
  g_assert_cmpuint (n, ==, (gsize) rows * wide);
  g_autofree float *weight = forward_read (f, f->weights.vit.mlp_norm_weight, 0, wide);
  g_autofree float *bias = forward_read (f, f->weights.vit.mlp_norm_bias, 0, wide);
  for (guint r = 0; r < rows; r++)
    layer_norm (want + (gsize) r * wide, wide, weight, bias, IVL_PROJECTOR_EPS);
  g_autofree float *got = forward_read (f, f->vit.h, (c->tile - first) * n, n);
  check (c->run, "vision.shuffled", got, want, n, c->run->states);
  c->checked++;
}

static void
check_vision (Forward *f, const Run *run)
{
  JsonObject *root = f->golden->root;
  VisionCheck c = { run, (guint) json_object_get_int_member (root, "vision_tile"), 0 };
  Embeddings out;
  forward_encode (f, json_object_get_string_member (root, "vision_picture"),
                  (guint) json_object_get_int_member (root, "vision_max_tiles"), FORWARD_TILES, &out, vision_tap, &c);
  g_assert_cmpuint (c.checked, ==, f->weights.vit.n_layers + 2);
  gsize n;
  g_autofree float *want = golden_floats (f->golden, "vision.projected", &n);
  g_autofree float *got = forward_read (f, (IvlSpan){ out.buffer, 0, out.buffer->size }, c.tile * n, n);
  check (run, "vision.projected", got, want, n, run->states);
  embeddings_clear (&out);
}

static void
check_projected (Forward *f, const Run *run, const char *name, const Embeddings *images, guint n_images)
{
  g_autofree char *key = g_strconcat (name, ".projected", NULL);
  gsize n, at = 0;
  g_autofree float *want = golden_floats (f->golden, key, &n);
  if (!want)
    return;
  for (guint i = 0; i < n_images; i++) {
    gsize here = (gsize) images[i].rows * f->config->text.hidden;
    g_autofree float *got = forward_read (f, (IvlSpan){ images[i].buffer, 0, images[i].buffer->size }, 0, here);
    g_assert_cmpuint (at + here, <=, n);
    check (run, key, got, want + at, here, run->states);
    at += here;
  }
  g_assert_cmpuint (at, ==, n);
}

/* ---- text ---- */

typedef struct {
  Forward *f;
  guint first;    /* position of the chunk's first row */
  guint layers, positions;
  float *states;  /* [layers + 1, positions, H] */
} HiddenTap;

static void
hidden_tap (guint layer, IvlRows x, guint rows, gpointer data)
{
  HiddenTap *t = data;
  guint hidden = t->f->config->text.hidden;
  g_autofree float *got = forward_read (t->f, x.span, x.offset, (gsize) rows * hidden);
  memcpy (t->states + ((gsize) layer * t->positions + t->first) * hidden, got, 4ull * rows * hidden);
  if (layer == t->layers)
    t->first += rows;
}

static void
check_hidden (Forward *f, const Run *run, JsonObject *turn, const Prompt *prompt)
{
  guint n_at, hidden = f->config->text.hidden, layers = f->config->text.layers;
  g_autofree guint32 *at = golden_ints (turn, "hidden_positions", &n_at);
  HiddenTap tap = { f, 0, layers, prompt->n_tokens, g_new (float, (gsize) (layers + 1) * prompt->n_tokens * hidden) };
  IvlSequence sequence;
  ivl_sequence_init (&sequence);
  forward_run (f, &sequence, prompt, 0, prompt->n_tokens, FORWARD_ROWS, hidden_tap, &tap);
  ivl_sequence_deinit (&sequence, &f->cache);
  g_assert_cmpuint (tap.first, ==, prompt->n_tokens);

  g_autofree float *weight = forward_read (f, f->weights.decoder.norm, 0, hidden);
  g_autofree float *got = g_new (float, (gsize) n_at * hidden);
  for (guint layer = 0; layer <= layers + 1; layer++) {
    g_autofree char *name = layer == 0           ? g_strdup ("still.hidden.embeddings")
                            : layer > layers     ? g_strdup ("still.hidden.final_norm")
                                                 : g_strdup_printf ("still.hidden.layer.%u", layer - 1);
    gsize n;
    g_autofree float *want = golden_floats (f->golden, name, &n);
    g_assert_nonnull (want);
    g_assert_cmpuint (n, ==, (gsize) n_at * hidden);
    for (guint i = 0; i < n_at; i++) {
      float *row = got + (gsize) i * hidden;
      memcpy (row, tap.states + ((gsize) MIN (layer, layers) * prompt->n_tokens + at[i]) * hidden, 4ull * hidden);
      /* The device norms the rows that want logits only. */
      double sum = 0.;
      for (guint k = 0; layer > layers && k < hidden; k++)
        sum += (double) row[k] * row[k];
      double scale = 1. / sqrt (sum / hidden + f->config->text.rms_eps);
      for (guint k = 0; layer > layers && k < hidden; k++)
        row[k] = (float) (row[k] * scale * weight[k]);
    }
    check (run, name, got, want, n, run->states);
  }
  g_free (tap.states);
}

/* Feeds the reference's own tokens, in one forward from one golden step to the next. */
static void
check_logits (Forward *f, const Run *run, const char *name, guint index, JsonObject *turn, const Prompt *prompt)
{
  g_autofree char *key = g_strdup_printf ("%s.%u.logits", name, index);
  guint n_tokens, n_steps, vocab = f->config->text.vocab;
  g_autofree guint32 *tokens = golden_ints (turn, "token_ids", &n_tokens);
  g_autofree guint32 *steps = golden_ints (turn, "logit_steps", &n_steps);
  gsize n;
  g_autofree float *want = golden_floats (f->golden, key, &n);
  g_assert_nonnull (want);
  g_assert_cmpuint (n, ==, (gsize) n_steps * vocab);
  IvlSequence sequence;
  ivl_sequence_init (&sequence);
  forward_run (f, &sequence, prompt, 0, prompt->n_tokens, 50, NULL, NULL);
  guint done = 0;
  for (guint s = 0; s < n_steps; s++) {
    if (steps[s] > done)
      forward_tokens (f, &sequence, tokens + done, steps[s] - done);
    done = steps[s];
    g_autofree float *got = forward_logits (f, 0);
    g_autofree char *what = g_strdup_printf ("%s, step %u", key, done);
    check (run, what, got, want + (gsize) s * vocab, vocab, run->logits);
  }
  ivl_sequence_deinit (&sequence, &f->cache);
}

/* One token at a time, as answers are made, each as the reference chose it. */
static void
check_greedy (Forward *f, JsonObject *turn, const Prompt *prompt)
{
  guint n_tokens, vocab = f->config->text.vocab;
  g_autofree guint32 *tokens = golden_ints (turn, "token_ids", &n_tokens);
  IvlSequence sequence;
  ivl_sequence_init (&sequence);
  forward_run (f, &sequence, prompt, 0, prompt->n_tokens, FORWARD_ROWS, NULL, NULL);
  for (guint t = 0; t < n_tokens; t++) {
    g_autofree float *logits = forward_logits (f, 0);
    guint best = 0;
    for (guint i = 1; i < vocab; i++)
      if (logits[i] > logits[best])
        best = i;
    g_assert_cmpuint (best, ==, tokens[t]);
    forward_tokens (f, &sequence, &tokens[t], 1);
  }
  ivl_sequence_deinit (&sequence, &f->cache);
}

static void
test_values (gconstpointer data)
{
  const Run *run = data;
  Forward f;
  forward_set_up (&f, run->name, run->dtype);
  check_vision (&f, run);
  JsonArray *cases = json_object_get_array_member (f.golden->root, "cases");
  for (guint i = 0; i < json_array_get_length (cases); i++) {
    JsonObject *c = json_array_get_object_element (cases, i);
    const char *name = json_object_get_string_member (c, "name");
    JsonArray *turns = json_object_get_array_member (c, "turns");
    for (guint t = 0; t < json_array_get_length (turns); t++) {
      JsonObject *turn = json_array_get_object_element (turns, t);
      Embeddings images[8];
      guint n_images;
      Prompt prompt;
      forward_prompt (&f, c, t, &prompt, images, &n_images);
      if (t == 0)
        check_projected (&f, run, name, images, n_images);
      if (json_object_has_member (turn, "hidden_positions"))
        check_hidden (&f, run, turn, &prompt);
      check_logits (&f, run, name, t, turn, &prompt);
      if (strcmp (name, "text") == 0 && run->logits == TOLERANCE_LOGITS)
        check_greedy (&f, turn, &prompt);
      prompt_clear (&prompt);
      for (guint k = 0; k < n_images; k++)
        embeddings_clear (&images[k]);
    }
  }
  forward_tear_down (&f);
}

static void
add (const char *name, const char *kind, int dtype, double states, double logits)
{
  g_autofree char *path = g_strdup_printf ("/forward/%s/%s", name, kind);
  Run *run = g_new (Run, 1);
  *run = (Run){ name, dtype, states, logits };
  g_test_add_data_func_full (path, run, test_values, g_free);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_auto (GStrv) names = golden_names ();
  for (guint i = 0; names[i]; i++) {
    g_autofree char *folder = golden_path ("models", names[i], NULL);
    g_autoptr (GError) error = NULL;
    g_autoptr (IvlConfig) config = ivl_config_load (folder, &error);
    g_assert_no_error (error);
    add (names[i], "own", -1, TOLERANCE_STATES, TOLERANCE_LOGITS);
    if (config->dtype != IVL_TENSOR_F32) {
      add (names[i], "f32", IVL_DTYPE_F32, TOLERANCE_STATES, TOLERANCE_LOGITS);
      continue;
    }
    add (names[i], "f16", IVL_DTYPE_F16, TOLERANCE_ROUNDED (0x1p-11), TOLERANCE_ROUNDED (0x1p-11));
    add (names[i], "bf16", IVL_DTYPE_BF16, TOLERANCE_ROUNDED (0x1p-8), TOLERANCE_ROUNDED (0x1p-8));
  }
  return g_test_run ();
}
