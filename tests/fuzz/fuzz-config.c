/* config.json out of any bytes; what follows a zero byte is generation_config.json. */
#include <stdint.h>
#include <string.h>

#include "base/error.h"
#include "model/config.h"

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  g_autoptr (GError) error = NULL;
  const uint8_t *zero = size ? memchr (data, 0, size) : NULL;
  gsize n = zero ? (gsize) (zero - data) : size;
  g_autoptr (IvlConfig) config = ivl_config_parse ((const char *) data, n, zero ? (const char *) zero + 1 : NULL,
                                                   zero ? size - n - 1 : 0, &error);
  g_assert ((config == NULL) == (error != NULL));
  if (!config) {
    g_assert (error->domain == IVL_ERROR && g_utf8_validate (error->message, -1, NULL));
    return 0;
  }
  /* What the engine divides by and allocates. */
  g_assert (config->vision.hidden % 8 == 0 && config->vision.head_dim * config->vision.heads == config->vision.hidden);
  g_assert (config->vision.head_dim % 8 == 0 && config->vision.head_dim <= 256);
  g_assert (config->vision.run_layers <= config->vision.layers);
  g_assert (config->vision.grid * config->vision.patch_size == config->vision.image_size);
  g_assert (config->tile_tokens > 0 && config->vision.n_positions > 1);
  g_assert (config->text.hidden % 8 == 0 && config->text.heads % config->text.kv_heads == 0);
  g_assert (config->text.head_dim % 8 == 0 && config->text.head_dim <= 256);
  g_assert (config->text.rope_theta >= 1 && config->text.rope_factor >= 1 && config->text.rms_eps > 0);
  g_assert (config->n_eos <= IVL_CONFIG_MAX_EOS);
  for (guint i = 0; i < config->n_eos; i++)
    g_assert (config->eos[i] < MAX (config->text.vocab, 3));
  g_assert (ivl_config_weight_bytes (config, 4) > 0 && ivl_config_kv_bytes_per_token (config, 4) > 0);
  g_autofree char *text = ivl_config_describe (config);
  g_assert (*text);
  return 0;
}
