#include "kernels/embed.h"

#define LANES 64

void
ivl_embed (IvlVkStream *stream, const IvlWeight *table, IvlSpan rows, guint row_base, guint n_rows, IvlRows x)
{
  ivl_embed_variant (stream, table, rows, row_base, n_rows, x, -1);
}

void
ivl_embed_variant (IvlVkStream *stream, const IvlWeight *table, IvlSpan rows, guint row_base, guint n_rows, IvlRows x,
                   int texels)
{
  static const IvlKernelId kernels[][2] = {
    { IVL_K_EMBED_F32_BUFFER, IVL_K_EMBED_F32_TEXEL },
    { IVL_K_EMBED_F16_BUFFER, IVL_K_EMBED_F16_TEXEL },
    { IVL_K_EMBED_BF16_BUFFER, IVL_K_EMBED_BF16_TEXEL },
    { IVL_K_EMBED_Q8_BUFFER, IVL_K_EMBED_Q8_TEXEL },
  };
  IvlDevice *device = x.span.buffer->device;
  /* Of a quantised row: eight columns each, whatever they take. */
  guint row_texels = table->k_pad / (table->dtype == IVL_DTYPE_F32 ? 4 : 8);
  g_assert (table->dtype < G_N_ELEMENTS (kernels));
  for (guint s = 0; s < table->n_slices; s++) {
    struct IvlPushEmbed push = {
      .n_rows = n_rows, .row_base = row_base,
      .n_base = s * table->slice_n,
      .n = s + 1 < table->n_slices ? table->slice_n : table->n - s * table->slice_n,
      .texels = row_texels, .offset = (guint32) (x.offset / 4), .pitch = x.pitch / 4,
    };
    guint32 specs[] = { LANES };
    IvlSpan spans[] = { table->slices[s], rows, x.span };
    IvlKernelId kernel = kernels[table->dtype][ivl_vk_use_texels (device, spans[0].size, texels)];
    ivl_vk_dispatch (stream, kernel, specs, 1, spans, &push, sizeof push,
                     ivl_groups_for (device, (guint64) n_rows * row_texels, LANES));
  }
}

void
ivl_vit_tokens (IvlVkStream *stream, IvlSpan patches, IvlSpan class_token, IvlSpan position, guint tiles,
                guint tokens, guint cols, IvlSpan x)
{
  struct IvlPushVitTokens push = { tiles, tokens, cols / 4 };
  guint32 specs[] = { LANES };
  IvlSpan spans[] = { patches, class_token, position, x };
  ivl_vk_dispatch (stream, IVL_K_VIT_TOKENS, specs, 1, spans, &push, sizeof push,
                   ivl_groups_for (x.buffer->device, (guint64) tiles * tokens * (cols / 4), LANES));
}
