#include "model/vit.h"

#include "kernels/embed.h"

static guint
n_tokens (const IvlConfig *config)
{
  return 1 + config->vision.grid * config->vision.grid;
}

static guint
patch_pitch (const IvlConfig *config)
{
  guint k = 3 * config->vision.patch_size * config->vision.patch_size;
  return (k + 7) / 8 * 8;
}

static guint
wide_pitch (const IvlConfig *config)
{
  return MAX (3 * config->vision.hidden, config->vision.intermediate);
}

guint
ivl_vit_max_tiles (const IvlConfig *config, IvlDevice *device)
{
  guint64 per_tile = 4ull * n_tokens (config) * wide_pitch (config);
  guint64 tiles = device->properties.limits.maxStorageBufferRange / per_tile;
  return (guint) CLAMP (tiles, 1, 8);
}

gboolean
ivl_vit_run_init (IvlVitRun *run, const IvlVit *vit, IvlDevice *device, guint max_tiles, GError **error)
{
  const IvlConfig *config = vit->config;
  guint64 tokens = (guint64) max_tiles * n_tokens (config);
  guint64 visual = (guint64) max_tiles * config->tile_tokens;
  *run = (IvlVitRun){ .vit = vit, .device = device, .max_tiles = max_tiles };
  g_autofree IvlAttentionItem *items = NULL;
  ivl_vk_arena_init (&run->arena, device, IVL_VK_DEVICE, 1);
  /* h also holds the shuffled rows (the same number of floats, less the class tokens), wide the projector's. */
  guint64 wide = MAX (tokens * wide_pitch (config), visual * config->text.hidden);
  guint per_tile = n_tokens (config);
  run->item_rows = ivl_attention_rows (device, config->vision.head_dim, 1, per_tile);
  run->items_per_tile = (per_tile + run->item_rows - 1) / run->item_rows;
  items = g_new (IvlAttentionItem, (gsize) max_tiles * run->items_per_tile);
  const IvlVkPlanned planned[] = {
    { 4 * (tokens - max_tiles) * patch_pitch (config), &run->patches },
    { 4 * tokens * config->vision.hidden, &run->x },
    { 4 * tokens * config->vision.hidden, &run->h },
    { 4 * wide, &run->wide },
    { max_tiles * run->items_per_tile * sizeof *items, &run->items },
  };
  guint n = 0;
  for (guint t = 0; t < max_tiles; t++)
    for (guint row = 0; row < per_tile; row += run->item_rows)
      items[n++] = (IvlAttentionItem){ t * per_tile + row, MIN (run->item_rows, per_tile - row), t * per_tile, per_tile };
  IvlVkStream *stream = ivl_vk_stream_new (device, error);
  gboolean ok = stream && ivl_vk_arena_alloc_all (&run->arena, planned, G_N_ELEMENTS (planned), error)
                && ivl_vk_write (stream, run->items, items, n * sizeof *items, error);
  ivl_vk_stream_free (stream);
  if (!ok)
    ivl_vit_run_deinit (run);
  return ok;
}

void
ivl_vit_run_deinit (IvlVitRun *run)
{
  ivl_vk_arena_deinit (&run->arena);
}

guint
ivl_vit_n_steps (const IvlVit *vit)
{
  return vit->n_layers + 2;
}

static void
record_embedding (const IvlVitRun *run, IvlVkStream *stream, guint tiles)
{
  const IvlVit *vit = run->vit;
  guint width = vit->config->vision.hidden, tokens = n_tokens (vit->config);
  ivl_gemm (stream, &vit->patch, ivl_rows (run->patches, patch_pitch (vit->config)), tiles * (tokens - 1),
            ivl_rows (run->h, width), &(IvlGemmEpilogue){ .bias = &vit->patch_bias });
  ivl_vit_tokens (stream, run->h, vit->class_token, vit->position, tiles, tokens, width, run->x);
}

static void
record_layer (const IvlVitRun *run, IvlVkStream *stream, const IvlVitLayer *layer, guint tiles)
{
  const IvlConfig *config = run->vit->config;
  guint width = config->vision.hidden;
  guint rows = tiles * n_tokens (config);
  gboolean rms = config->vision.norm == IVL_NORM_RMS;
  IvlRows x = ivl_rows (run->x, width), h = ivl_rows (run->h, width);
  IvlRows qkv = ivl_rows (run->wide, 3 * width), wide = ivl_rows (run->wide, config->vision.intermediate);

  IvlNorm norm = { .rms = rms, .eps = (float) config->vision.eps, .weight = &layer->norm1_weight,
                   .bias = layer->norm1_bias.buffer ? &layer->norm1_bias : NULL };
  ivl_norm (stream, &norm, x, rows, width, h);
  ivl_gemm (stream, &layer->qkv, h, rows, qkv,
            &(IvlGemmEpilogue){ .bias = layer->qkv_bias.buffer ? &layer->qkv_bias : NULL });
  if (layer->q_norm.buffer) {
    /* Over the whole width, all heads together. */
    IvlNorm qk = { .rms = TRUE, .eps = (float) config->vision.eps, .weight = &layer->q_norm };
    IvlRows k = qkv;
    k.offset += width;
    ivl_norm (stream, &qk, qkv, rows, width, qkv);
    qk.weight = &layer->k_norm;
    ivl_norm (stream, &qk, k, rows, width, k);
  }
  ivl_attention (stream, &(IvlAttention){ .heads = config->vision.heads, .kv_heads = config->vision.heads,
                                          .head_dim = config->vision.head_dim, .q = qkv, .kv = qkv,
                                          .k_column = width, .v_column = 2 * width, .out = h, .items = run->items,
                                          .n_items = tiles * run->items_per_tile, .max_rows = run->item_rows,
                                          .pages = run->items, .mean_kv = n_tokens (config), .n_rows = rows });
  ivl_gemm (stream, &layer->proj, h, rows, x,
            &(IvlGemmEpilogue){ .bias = &layer->proj_bias, .scale = &layer->ls1, .add = TRUE });

  norm.weight = &layer->norm2_weight;
  norm.bias = layer->norm2_bias.buffer ? &layer->norm2_bias : NULL;
  ivl_norm (stream, &norm, x, rows, width, h);
  ivl_gemm (stream, &layer->fc1, h, rows, wide, &(IvlGemmEpilogue){ .bias = &layer->fc1_bias, .act = IVL_ACT_GELU });
  ivl_gemm (stream, &layer->fc2, wide, rows, x,
            &(IvlGemmEpilogue){ .bias = &layer->fc2_bias, .scale = &layer->ls2, .add = TRUE });
}

static void
record_projector (const IvlVitRun *run, IvlVkStream *stream, guint tiles, IvlSpan out)
{
  const IvlVit *vit = run->vit;
  const IvlConfig *config = vit->config;
  guint rows = tiles * config->tile_tokens, width = 4 * config->vision.hidden, hidden = config->text.hidden;
  IvlNorm norm = { .eps = 1e-5f, .weight = &vit->mlp_norm_weight, .bias = &vit->mlp_norm_bias,
                   .pick = config->ps_version == 1 ? IVL_PICK_SHUFFLE_V1 : IVL_PICK_SHUFFLE_V2,
                   .grid = config->vision.grid };
  ivl_norm (stream, &norm, ivl_rows (run->x, config->vision.hidden), rows, width, ivl_rows (run->h, width));
  ivl_gemm (stream, &vit->mlp1, ivl_rows (run->h, width), rows, ivl_rows (run->wide, hidden),
            &(IvlGemmEpilogue){ .bias = &vit->mlp1_bias, .act = IVL_ACT_GELU });
  ivl_gemm (stream, &vit->mlp3, ivl_rows (run->wide, hidden), rows, ivl_rows (out, hidden),
            &(IvlGemmEpilogue){ .bias = &vit->mlp3_bias });
}

void
ivl_vit_record_step (const IvlVitRun *run, IvlVkStream *stream, guint step, guint tiles, IvlSpan out)
{
  g_assert (tiles > 0 && tiles <= run->max_tiles);
  if (step == 0)
    record_embedding (run, stream, tiles);
  else if (step <= run->vit->n_layers)
    record_layer (run, stream, &run->vit->layers[step - 1], tiles);
  else
    record_projector (run, stream, tiles, out);
}
