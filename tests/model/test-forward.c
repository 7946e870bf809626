/* The forward passes against the reference, layer by layer: vision blocks, projector, decoder layers, logits, and 64
 * greedy tokens with the argmax taken on the host. Through the engine's private functions. */
#include "golden.h"

#include <string.h>

#include "model/weights.h"

/* The weights are those of the folder, in f32 or the folder's own type, which holds them exactly: what remains is the
 * order of f32 sums. A relative error of 1e-4 of the largest value is a thousand f32 roundings. */
#define TOLERANCE 1e-4

typedef struct {
  Golden *golden;
  IvlDevice *device;
  IvlVkStream *stream;
  IvlConfig *config;
  IvlCheckpoint *checkpoint;
  IvlModelWeights weights;
  IvlDecoderRun run;
  IvlKvCache cache;
} Fixture;

static void
set_up (Fixture *f, const char *name, int dtype)
{
  g_autoptr (GError) error = NULL;
  f->golden = golden_open (name);
  f->device = ivl_device_open (NULL, &error);
  g_assert_no_error (error);
  f->stream = ivl_vk_stream_new (f->device, &error);
  g_assert_no_error (error);
  f->config = ivl_config_load (f->golden->folder, &error);
  g_assert_no_error (error);
  f->checkpoint = ivl_checkpoint_open (f->golden->folder, f->config, &error);
  g_assert_no_error (error);
  ivl_weights_load (&f->weights, f->device, f->checkpoint, f->config, dtype, 2048, NULL, &error);
  g_assert_no_error (error);
  ivl_decoder_run_init (&f->run, &f->weights.decoder, f->device, 64, 4, 2048, &error);
  g_assert_no_error (error);
  /* One page to begin with, so that growth is part of the test. */
  ivl_kv_cache_init (&f->cache, &f->weights.decoder, f->device, 1, 256, &error);
  g_assert_no_error (error);
}

static void
tear_down (Fixture *f)
{
  ivl_kv_cache_deinit (&f->cache);
  ivl_decoder_run_deinit (&f->run);
  ivl_vk_stream_free (f->stream);
  ivl_weights_deinit (&f->weights);
  ivl_checkpoint_free (f->checkpoint);
  ivl_config_free (f->config);
  ivl_device_unref (f->device);
  golden_free (f->golden);
}

static JsonObject *
find_turn (const Golden *golden, const char *name, guint turn)
{
  JsonArray *cases = json_object_get_array_member (golden->root, "cases");
  for (guint i = 0; i < json_array_get_length (cases); i++) {
    JsonObject *c = json_array_get_object_element (cases, i);
    if (strcmp (json_object_get_string_member (c, "name"), name) == 0)
      return json_array_get_object_element (json_object_get_array_member (c, "turns"), turn);
  }
  g_assert_not_reached ();
}

static guint32 *
ints (JsonObject *object, const char *key, guint *n)
{
  JsonArray *array = json_object_get_array_member (object, key);
  *n = json_array_get_length (array);
  guint32 *out = g_new (guint32, *n + 1);
  for (guint i = 0; i < *n; i++)
    out[i] = (guint32) json_array_get_int_element (array, i);
  return out;
}

/* Runs N tokens in chunks of at most STEP and reads the last one's logits. */
static void
run_tokens (Fixture *f, IvlSequence *sequence, const guint32 *tokens, guint n, guint step, float *logits)
{
  g_autoptr (GError) error = NULL;
  for (guint at = 0; at < n; at += step) {
    guint m = MIN (step, n - at);
    IvlDecoderJob job = { sequence, tokens + at, m, NULL, at + m == n };
    ivl_sequence_reserve (sequence, &f->cache, f->stream, m, &error);
    g_assert_no_error (error);
    g_assert_true (ivl_vk_begin (f->stream, &error));
    ivl_decoder_record (&f->run, &f->cache, f->stream, &job, 1, NULL, NULL, &error);
    g_assert_no_error (error);
    ivl_vk_run (f->stream, &error);
    g_assert_no_error (error);
  }
  ivl_vk_read (f->stream, f->run.logits, logits, f->config->text.vocab * sizeof *logits, &error);
  g_assert_no_error (error);
}

static void
check_text (const char *name, int dtype)
{
  Fixture f = { 0 };
  set_up (&f, name, dtype);
  JsonObject *turn = find_turn (f.golden, "text", 0);
  guint n_prompt, n_tokens, n_steps;
  g_autofree guint32 *prompt = ints (turn, "prompt_ids", &n_prompt);
  g_autofree guint32 *tokens = ints (turn, "token_ids", &n_tokens);
  g_autofree guint32 *steps = ints (turn, "logit_steps", &n_steps);
  gsize n_logits;
  g_autofree float *expected = golden_floats (f.golden, "text.0.logits", &n_logits);
  guint vocab = f.config->text.vocab;
  g_assert_cmpuint (n_logits, ==, (gsize) n_steps * vocab);

  g_autofree float *logits = g_new (float, vocab);
  IvlSequence sequence;
  ivl_sequence_init (&sequence);
  run_tokens (&f, &sequence, prompt, n_prompt, 50, logits);
  for (guint t = 0, at = 0; t < n_tokens; t++) {
    if (at < n_steps && steps[at] == t) {
      double difference = golden_difference (logits, expected + (gsize) at * vocab, vocab);
      g_test_message ("%s: logits of step %u differ by %.2g", name, t, difference);
      g_assert_cmpfloat (difference, <, TOLERANCE);
      at++;
    }
    guint best = 0;
    for (guint i = 1; i < vocab; i++)
      if (logits[i] > logits[best])
        best = i;
    g_assert_cmpuint (best, ==, tokens[t]);
    run_tokens (&f, &sequence, &tokens[t], 1, 1, logits);
  }
  ivl_sequence_deinit (&sequence, &f.cache);
  tear_down (&f);
}

static void
test_text_own (gconstpointer name)
{
  check_text (name, -1);
}

static void
test_text_f32 (gconstpointer name)
{
  check_text (name, IVL_DTYPE_F32);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_auto (GStrv) names = golden_names ();
  for (guint i = 0; names[i]; i++) {
    g_autofree char *own = g_strdup_printf ("/forward/%s/text/own", names[i]);
    g_autofree char *f32 = g_strdup_printf ("/forward/%s/text/f32", names[i]);
    g_test_add_data_func (own, names[i], test_text_own);
    g_test_add_data_func (f32, names[i], test_text_f32);
  }
  return g_test_run ();
}
