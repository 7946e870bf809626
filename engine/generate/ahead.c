/* Pipelines made while weights load: what answers will need is recorded on a stream that only plans, with weights that have
 * shapes and no values. */
#include "generate/engine.h"

/* Tokens of the forwards that are recorded after a longest one: other numbers take other tiles, and long sequences that
 * decode other kernels than short ones. */
static const guint more_tokens[] = { 24, 1 };

static gboolean
plan_images (const IvlModelWeights *weights, IvlDevice *device, IvlVkStream *stream, GError **error)
{
  IvlVitRun run = { 0 };
  IvlVkBuffer *out = NULL;
  const IvlConfig *config = weights->vit.config;
  gboolean ok = ivl_vit_run_init (&run, &weights->vit, device, 1, error)
                && (out = ivl_vk_buffer_new (device, IVL_VK_DEVICE, 4ull * config->tile_tokens * config->text.hidden, error));
  for (guint i = 0; ok && i < ivl_vit_n_steps (&weights->vit); i++)
    ivl_vit_record_step (&run, stream, i, 1, (IvlSpan){ out, 0, out->size });
  ivl_vk_buffer_free (out);
  ivl_vit_run_deinit (&run);
  return ok;
}

static gboolean
plan_text (const IvlModelWeights *weights, IvlDevice *device, IvlVkStream *stream, guint max_rows, GError **error)
{
  IvlDecoderRun run = { 0 };
  IvlKvCache cache = { 0 };
  IvlSampler sampler = { 0 };
  const IvlConfig *config = weights->decoder.config;
  guint left = weights->decoder.n_positions, pages = MIN (left, max_rows + 32) / IVL_KV_PAGE + 1;
  g_autofree guint32 *tokens = g_new0 (guint32, max_rows);
  IvlSequence sequence;
  ivl_sequence_init (&sequence);
  gboolean ok = ivl_decoder_run_init (&run, &weights->decoder, device, max_rows, 1, max_rows + 32, error)
                && ivl_kv_cache_init (&cache, &weights->decoder, device, pages, pages, error)
                && ivl_sampler_init (&sampler, device, config->text.vocab, 1, 1, error);
  for (guint i = 0; ok && left && i <= G_N_ELEMENTS (more_tokens); i++) {
    guint n = MIN (left, i == 0 ? max_rows : more_tokens[i - 1]);
    left -= n;
    ok = ivl_sequence_reserve (&sequence, &cache, stream, n, error)
         && ivl_decoder_record (&run, &cache, stream, &(IvlDecoderJob){ &sequence, tokens, n, NULL, 1, FALSE }, 1, NULL, NULL,
                                error)
         && ivl_sampler_record (&sampler, stream, run.logits, run.logits_pitch,
                                &(IvlSampleRequest){ .top_p = 1, .repetition_penalty = 1 }, 1, error);
  }
  ivl_sequence_deinit (&sequence, &cache);
  ivl_sampler_deinit (&sampler);
  ivl_kv_cache_deinit (&cache);
  ivl_decoder_run_deinit (&run);
  return ok;
}

void
ivl_model_prepare_pipelines (IvlModel *self, const IvlCheckpoint *checkpoint, int dtype, guint max_rows)
{
  IvlModelWeights weights;
  g_autoptr (GError) error = NULL;
  g_autoptr (IvlVkBuffer) placeholder = ivl_vk_buffer_new (self->device, IVL_VK_DEVICE, 16, &error);
  if (!placeholder
      || !ivl_weights_lay_out (&weights, self->device, checkpoint, self->config, dtype, self->context_tokens, placeholder,
                               &error)) {
    g_debug ("no pipelines made ahead: %s", error->message);
    return;
  }
  IvlVkStream *stream = ivl_vk_stream_new_plan (self->device);
  if (!plan_images (&weights, self->device, stream, &error) || !plan_text (&weights, self->device, stream, max_rows, &error))
    g_debug ("not all pipelines made ahead: %s", error->message);
  ivl_vk_stream_free (stream);
  ivl_weights_deinit (&weights);
}
