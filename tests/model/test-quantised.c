/* What 8 and 4 bits cost: logits and choices against the reference in f32, along the answers that the reference gave.
 * The golden models have random weights and few channels (56 to 128, two or three blocks a row), so their second choice
 * is often close: trained models keep more of their choices. Measured over the eleven: q8 0.029 to 0.058, 0.003 to 0.014
 * nats and 92 to 96 % of the choices, q4 0.37 to 0.51, 0.35 to 1.20 nats and 35 to 58 %; the tolerances leave half as much
 * again. */
#include "forward.h"

#include <math.h>
#include <string.h>

typedef struct {
  const char *name, *kind;
  int dtype;
  double error;     /* of the logits: root mean square of the difference over that of the reference */
  double loss;      /* nats a token: cross entropy to the reference's distribution, over that distribution's own */
  double agreement; /* of the choices, at least */
} Run;

typedef struct {
  double difference, size, loss;
  guint compared, steps, agreed;
} Tally;

/* log (sum of exp (logits)). */
static double
log_total (const float *logits, guint n)
{
  double most = -INFINITY, total = 0.;
  for (guint i = 0; i < n; i++)
    most = MAX (most, logits[i]);
  for (guint i = 0; i < n; i++)
    total += exp (logits[i] - most);
  return most + log (total);
}

static void
compare (const float *logits, const float *want, guint n, Tally *tally)
{
  double total = log_total (logits, n), want_total = log_total (want, n);
  for (guint i = 0; i < n; i++) {
    double v = want[i], d = logits[i] - v;
    tally->difference += d * d;
    tally->size += v * v;
    tally->loss += exp (v - want_total) * ((v - want_total) - (logits[i] - total));
  }
  tally->compared++;
}

static void
follow (Forward *f, JsonObject *turn, const Prompt *prompt, const float *want, Tally *tally)
{
  guint n_tokens, n_steps, vocab = f->config->text.vocab;
  g_autofree guint32 *tokens = golden_ints (turn, "token_ids", &n_tokens);
  g_autofree guint32 *steps = golden_ints (turn, "logit_steps", &n_steps);
  IvlSequence sequence;
  ivl_sequence_init (&sequence);
  forward_run (f, &sequence, prompt, 0, prompt->n_tokens, FORWARD_ROWS, NULL, NULL);
  for (guint t = 0, s = 0; t < n_tokens; t++) {
    g_autofree float *logits = forward_logits (f, 0);
    guint best = 0;
    for (guint i = 1; i < vocab; i++)
      if (logits[i] > logits[best])
        best = i;
    tally->steps++;
    tally->agreed += best == tokens[t];
    if (s < n_steps && steps[s] == t)
      compare (logits, want + (gsize) s++ * vocab, vocab, tally);
    forward_tokens (f, &sequence, &tokens[t], 1);
  }
  ivl_sequence_deinit (&sequence, &f->cache);
}

static void
test_quality (gconstpointer data)
{
  const Run *run = data;
  Forward f;
  forward_set_up (&f, run->name, run->dtype);
  Tally tally = { 0 };
  JsonArray *cases = json_object_get_array_member (f.golden->root, "cases");
  for (guint i = 0; i < json_array_get_length (cases); i++) {
    JsonObject *c = json_array_get_object_element (cases, i);
    const char *name = json_object_get_string_member (c, "name");
    /* One with a picture and one without; choices under a penalty are not the largest logit anyway. */
    if (strcmp (name, "still") != 0 && strcmp (name, "text") != 0)
      continue;
    g_autofree char *key = g_strconcat (name, ".0.logits", NULL);
    gsize n;
    g_autofree float *want = golden_floats (f.golden, key, &n);
    g_assert_nonnull (want);
    Embeddings images[8];
    guint n_images;
    Prompt prompt;
    forward_prompt (&f, c, 0, &prompt, images, &n_images);
    follow (&f, json_array_get_object_element (json_object_get_array_member (c, "turns"), 0), &prompt, want, &tally);
    prompt_clear (&prompt);
    for (guint k = 0; k < n_images; k++)
      embeddings_clear (&images[k]);
  }
  forward_tear_down (&f);
  g_assert_cmpuint (tally.steps, >, 0);
  g_assert_cmpuint (tally.compared, >, 0);
  double error = sqrt (tally.difference / tally.size), loss = tally.loss / tally.compared;
  double agreement = (double) tally.agreed / tally.steps;
  g_test_message ("%s, %s: logits off by %.4f, %.4f nats lost, %.1f %% of %u choices", run->name, run->kind, error, loss,
                  100. * agreement, tally.steps);
  g_assert_cmpfloat (error, <, run->error);
  g_assert_cmpfloat (loss, <, run->loss);
  g_assert_cmpfloat (agreement, >=, run->agreement);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_auto (GStrv) names = golden_names ();
  for (guint i = 0; names[i]; i++) {
    const Run runs[] = { { names[i], "q8", IVL_DTYPE_Q8, 0.09, 0.03, 0.85 },
                         { names[i], "q4", IVL_DTYPE_Q4, 0.75, 1.8, 0.25 } };
    for (guint r = 0; r < G_N_ELEMENTS (runs); r++) {
      g_autofree char *path = g_strdup_printf ("/quantised/%s/%s", names[i], runs[r].kind);
      g_test_add_data_func_full (path, g_memdup2 (&runs[r], sizeof runs[r]), test_quality, g_free);
    }
  }
  return g_test_run ();
}
