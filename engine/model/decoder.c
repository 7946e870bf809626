#include "model/decoder.h"

#include <math.h>
#include <string.h>

#include "kernels/embed.h"

void
ivl_rope_table (const IvlConfig *config, guint n_positions, float *cos_sin)
{
  guint half = config->text.head_dim / 2;
  double theta = config->text.rope_theta;
  float divide = 1.f;
  if (config->text.rope_scaling == IVL_ROPE_LINEAR)
    divide = (float) config->text.rope_factor;
  /* Dynamic NTK depends on the length of the request in the reference; here it is fixed for the context that the
   * model was loaded with, and the identity up to max_position_embeddings. */
  if (config->text.rope_scaling == IVL_ROPE_DYNAMIC && n_positions > config->text.max_position) {
    double f = config->text.rope_factor, d = config->text.head_dim;
    theta *= pow (f * n_positions / config->text.max_position - (f - 1.), d / (d - 2.));
  }
  for (guint j = 0; j < half; j++) {
    float frequency = (float) (1. / pow (theta, 2. * j / config->text.head_dim));
    for (guint p = 0; p < n_positions; p++) {
      float angle = (float) p / divide * frequency;
      cos_sin[2 * ((gsize) p * half + j)] = (float) cos ((double) angle);
      cos_sin[2 * ((gsize) p * half + j) + 1] = (float) sin ((double) angle);
    }
  }
}

static guint
qkv_width (const IvlConfig *config)
{
  return (config->text.heads + 2 * config->text.kv_heads) * config->text.head_dim;
}

static guint
attention_width (const IvlConfig *config)
{
  return config->text.heads * config->text.head_dim;
}

gboolean
ivl_decoder_run_init (IvlDecoderRun *run, const IvlDecoder *decoder, IvlDevice *device, guint max_rows,
                      guint max_logits, guint max_context, GError **error)
{
  const IvlConfig *config = decoder->config;
  guint hidden = config->text.hidden;
  *run = (IvlDecoderRun){ .decoder = decoder, .device = device, .max_rows = max_rows, .max_logits = max_logits };
  run->logits_pitch = (config->text.vocab + 3) / 4 * 4;
  run->max_items = max_rows;
  run->max_page_entries = max_logits * ((max_context + IVL_KV_PAGE - 1) / IVL_KV_PAGE + 1);
  ivl_vk_arena_init (&run->arena, device, IVL_VK_DEVICE, 1);
  ivl_vk_arena_init (&run->host_arena, device, IVL_VK_UPLOAD, 1);
  guint64 h = MAX (hidden, attention_width (config));
  guint64 wide = MAX (qkv_width (config), config->text.intermediate);
  const IvlVkPlanned own[] = {
    { 4ull * max_rows * hidden, &run->x },
    { 4ull * max_rows * h, &run->h },
    { 4ull * max_rows * wide, &run->wide },
    { 4ull * max_logits * run->logits_pitch, &run->logits },
  };
  const IvlVkPlanned written[] = {
    { sizeof (IvlRow) * max_rows, &run->rows },
    { sizeof (IvlAttentionItem) * run->max_items, &run->items },
    { 4ull * run->max_page_entries, &run->pages },
    { 4ull * max_logits, &run->index },
  };
  if (ivl_vk_arena_alloc_all (&run->arena, own, G_N_ELEMENTS (own), error)
      && ivl_vk_arena_alloc_all (&run->host_arena, written, G_N_ELEMENTS (written), error))
    return TRUE;
  ivl_decoder_run_deinit (run);
  return FALSE;
}

void
ivl_decoder_run_deinit (IvlDecoderRun *run)
{
  ivl_vk_arena_deinit (&run->arena);
  ivl_vk_arena_deinit (&run->host_arena);
}

/* Keys of the longest item of one row, rounded up: what is recorded with it serves until it has grown past that. GPUs
 * share out the keys only beyond the first. */
#define KEYS_FIRST 128
#define KEYS_STEP 512

/* The host's side of one forward: where every row goes, and who attends to what. */
typedef struct {
  guint n_rows, n_logits, n_pages;
  guint n_single, n_block; /* items of one row come first: they have a kernel of their own */
  guint block_rows;
  double single_kv, block_kv;
  guint single_most; /* keys of any item of one row, or a few more */
  guint block_n_rows;
  /* After the last layer only rows from the first one whose logits are wanted matter, so there the others leave their keys
   * and values and no more. Their items are the last of each kind. */
  guint first_wanted, wanted_single, wanted_block;
} Layout;

static gpointer
mapped (IvlSpan span)
{
  return (guint8 *) span.buffer->map + span.offset;
}

static gboolean
lay_out (IvlDecoderRun *run, const IvlDecoderJob *jobs, guint n_jobs, Layout *l, GError **error)
{
  const IvlConfig *config = run->decoder->config;
  guint group = config->text.heads / config->text.kv_heads;
  IvlRow *rows = mapped (run->rows);
  IvlAttentionItem *items = mapped (run->items);
  guint32 *pages = mapped (run->pages), *index = mapped (run->index);
  memset (l, 0, sizeof *l);
  guint most = 1;
  for (guint i = 0; i < n_jobs; i++) {
    if (jobs[i].one_by_one || jobs[i].n_tokens == 1)
      l->n_single += jobs[i].n_tokens;
    else
      most = MAX (most, jobs[i].n_tokens);
  }
  l->block_rows = ivl_attention_rows (run->device, config->text.head_dim, group, most);

  guint single = 0, block = l->n_single;
  for (guint i = 0; i < n_jobs; i++) {
    const IvlDecoderJob *job = &jobs[i];
    IvlSequence *sequence = job->sequence;
    guint first_page = l->n_pages;
    if (l->n_rows + job->n_tokens > run->max_rows || l->n_pages + sequence->pages->len > run->max_page_entries
        || l->n_logits + job->want_logits > run->max_logits)
      return ivl_fail (error, IVL_ERROR_INTERNAL, "decoder: a batch of %u jobs exceeds what was planned for", n_jobs);
    if (sequence->length + job->n_tokens > run->decoder->n_positions)
      return ivl_fail (error, IVL_ERROR_CONTEXT_FULL, "%u tokens exceed the context of %u",
                       sequence->length + job->n_tokens, run->decoder->n_positions);
    memcpy (pages + first_page, sequence->pages->data, sequence->pages->len * sizeof (guint32));
    l->n_pages += sequence->pages->len;
    for (guint t = 0; t < job->n_tokens; t++) {
      guint position = sequence->length + t;
      guint32 page = g_array_index (sequence->pages, guint32, position / IVL_KV_PAGE);
      rows[l->n_rows + t] = (IvlRow){ job->tokens[t], position, page * IVL_KV_PAGE + position % IVL_KV_PAGE, 0 };
    }
    gboolean alone = job->one_by_one || job->n_tokens == 1;
    guint step = alone ? 1 : l->block_rows;
    for (guint t = 0; t < job->n_tokens; t += step) {
      guint n = MIN (step, job->n_tokens - t);
      guint kv_len = sequence->length + t + 1;
      items[alone ? single++ : block++] = (IvlAttentionItem){ l->n_rows + t, n, first_page, kv_len };
      *(alone ? &l->single_kv : &l->block_kv) += (double) kv_len * n;
    }
    if (!alone)
      l->block_n_rows += job->n_tokens;
    for (guint t = job->n_tokens - job->want_logits; t < job->n_tokens; t++)
      index[l->n_logits++] = l->n_rows + t;
    l->n_rows += job->n_tokens;
  }
  l->n_block = block - l->n_single;
  l->first_wanted = l->n_logits ? index[0] : l->n_rows;
  for (guint i = 0; i < block; i++)
    if (items[i].row + items[i].n_rows > l->first_wanted)
      *(i < l->n_single ? &l->wanted_single : &l->wanted_block) += 1;
  for (guint i = 0; i < l->n_single; i++)
    l->single_most = MAX (l->single_most, items[i].kv_len);
  if (l->n_single)
    l->single_most = l->single_most <= KEYS_FIRST ? KEYS_FIRST
                                                  : (l->single_most + KEYS_STEP - 1) / KEYS_STEP * KEYS_STEP;
  ivl_vk_buffer_flush (run->rows.buffer);
  ivl_vk_buffer_flush (run->items.buffer);
  ivl_vk_buffer_flush (run->pages.buffer);
  ivl_vk_buffer_flush (run->index.buffer);
  return TRUE;
}

/* FROM: the first row that is needed afterwards. */
static void
record_layer (const IvlDecoderRun *run, IvlKvCache *cache, IvlVkStream *stream, guint i, guint from, const Layout *l)
{
  const IvlDecoder *decoder = run->decoder;
  const IvlConfig *config = decoder->config;
  const IvlDecoderLayer *layer = &decoder->layers[i];
  guint hidden = config->text.hidden, d = config->text.head_dim;
  IvlRows x = ivl_rows (run->x, hidden), h = ivl_rows (run->h, hidden);
  IvlRows qkv = ivl_rows (run->wide, qkv_width (config)), wide = ivl_rows (run->wide, config->text.intermediate);
  IvlRows attended = ivl_rows (run->h, attention_width (config));
  IvlSpan kv = { cache->layers[i], 0, cache->layers[i]->size };

  IvlNorm norm = { .rms = TRUE, .eps = (float) config->text.rms_eps, .weight = &layer->input_norm };
  IvlRope rope = { config->text.heads, config->text.kv_heads, d, run->rows, 0, decoder->rope, kv };
  gboolean fused = ivl_gemm_takes_rope (run->device, &rope);
  ivl_norm_gemm (stream, &norm, x, l->n_rows, h, &layer->qkv, qkv,
                 &(IvlGemmEpilogue){ .bias = layer->qkv_bias.buffer ? &layer->qkv_bias : NULL,
                                     .rope = fused ? &rope : NULL });
  if (!fused)
    ivl_rope_cache (stream, qkv, l->n_rows, &rope);
  if (from == l->n_rows)
    return;
  guint n_single = from ? l->wanted_single : l->n_single, n_block = from ? l->wanted_block : l->n_block;
  IvlAttention attention = {
    .heads = config->text.heads, .kv_heads = config->text.kv_heads, .head_dim = d, .causal = TRUE,
    .q = qkv, .kv = ivl_rows (kv, 2 * config->text.kv_heads * d), .v_column = config->text.kv_heads * d,
    .out = attended, .items = run->items, .pages = run->pages,
  };
  if (n_single) {
    attention.item_base = l->n_single - n_single;
    attention.n_items = attention.n_rows = n_single;
    attention.max_rows = 1;
    attention.mean_kv = l->single_kv / l->n_single;
    attention.max_kv = l->single_most;
    ivl_attention (stream, &attention);
  }
  if (n_block) {
    attention.max_kv = 0;
    attention.item_base = l->n_single + l->n_block - n_block;
    attention.n_items = n_block;
    attention.n_rows = MIN (l->block_n_rows, n_block * l->block_rows);
    attention.max_rows = l->block_rows;
    attention.mean_kv = l->block_kv / l->block_n_rows;
    ivl_attention (stream, &attention);
  }
  guint rows = l->n_rows - from;
  attended.offset += (guint64) from * attended.pitch;
  x.offset += (guint64) from * x.pitch;
  ivl_gemm (stream, &layer->o, attended, rows, x, &(IvlGemmEpilogue){ .add = TRUE });

  norm.weight = &layer->post_norm;
  ivl_norm_gemm (stream, &norm, x, rows, h, &layer->gate_up, wide, &(IvlGemmEpilogue){ .act = IVL_ACT_SWIGLU });
  ivl_gemm (stream, &layer->down, wide, rows, x, &(IvlGemmEpilogue){ .add = TRUE });
}

static void
record_embedding (const IvlDecoderRun *run, IvlVkStream *stream, const IvlDecoderJob *jobs, guint n_jobs,
                  const Layout *l)
{
  guint hidden = run->decoder->config->text.hidden;
  ivl_embed (stream, &run->decoder->embed, run->rows, 0, l->n_rows, ivl_rows (run->x, hidden));
  guint row = 0;
  for (guint i = 0; i < n_jobs; i++) {
    guint image = 0;
    for (guint t = 0; t < jobs[i].n_tokens;) {
      if (jobs[i].tokens[t] != IVL_TOKEN_IMAGE) {
        t++;
        continue;
      }
      /* Rows of one tile lie one after the other: copy each run at once. */
      const IvlRows *from = &jobs[i].image_rows[image];
      guint n = 1;
      while (t + n < jobs[i].n_tokens && jobs[i].tokens[t + n] == IVL_TOKEN_IMAGE
             && from[n].span.buffer == from->span.buffer && from[n].span.offset == from->span.offset
             && from[n].offset == from->offset + (guint64) n * hidden)
        n++;
      ivl_vk_copy (stream, (IvlSpan){ from->span.buffer, from->span.offset + 4 * from->offset, 4ull * n * hidden },
                   (IvlSpan){ run->x.buffer, run->x.offset + 4ull * (row + t) * hidden, 4ull * n * hidden },
                   4ull * n * hidden);
      t += n;
      image += n;
    }
    row += jobs[i].n_tokens;
  }
}

/* Of a forward of single rows that all want logits, nothing but counts is in the commands: tokens, positions, pages and
 * lengths are in RUN's host-visible spans. */
static gboolean
is_decode_step (const IvlDecoderJob *jobs, guint n_jobs, const Layout *l)
{
  if (!l->n_rows || l->n_single != l->n_rows || l->n_logits != l->n_rows)
    return FALSE;
  for (guint i = 0; i < n_jobs; i++)
    for (guint t = 0; t < jobs[i].n_tokens; t++)
      if (jobs[i].tokens[t] == IVL_TOKEN_IMAGE)
        return FALSE;
  return TRUE;
}

static gboolean
show (IvlVkStream *stream, IvlDecoderTap tap, gpointer data, guint layer, IvlRows x, guint rows, GError **error)
{
  if (!ivl_vk_run (stream, error))
    return FALSE;
  tap (layer, x, rows, data);
  return ivl_vk_begin (stream, error);
}

static gboolean
record_all (const IvlDecoderRun *run, IvlKvCache *cache, IvlVkStream *stream, const IvlDecoderJob *jobs, guint n_jobs,
            const Layout *l, IvlDecoderTap tap, gpointer tap_data, GError **error)
{
  const IvlConfig *config = run->decoder->config;
  guint hidden = config->text.hidden;
  IvlRows x = ivl_rows (run->x, hidden);
  record_embedding (run, stream, jobs, n_jobs, l);
  if (tap && !show (stream, tap, tap_data, 0, x, l->n_rows, error))
    return FALSE;
  for (guint i = 0; i < config->text.layers; i++) {
    record_layer (run, cache, stream, i, !tap && i + 1 == config->text.layers ? l->first_wanted : 0, l);
    if (tap && !show (stream, tap, tap_data, i + 1, x, l->n_rows, error))
      return FALSE;
  }
  if (l->n_logits) {
    IvlNorm norm = { .rms = TRUE, .eps = (float) config->text.rms_eps, .weight = &run->decoder->norm,
                     .pick = IVL_PICK_INDEX, .index = &run->index };
    ivl_norm (stream, &norm, x, l->n_logits, hidden, ivl_rows (run->h, hidden));
    ivl_gemm (stream, &run->decoder->head, ivl_rows (run->h, hidden), l->n_logits,
              ivl_rows (run->logits, run->logits_pitch), &(IvlGemmEpilogue){ 0 });
  }
  return TRUE;
}

gboolean
ivl_decoder_record (IvlDecoderRun *run, IvlKvCache *cache, IvlVkStream *stream, const IvlDecoderJob *jobs,
                    guint n_jobs, IvlDecoderTap tap, gpointer tap_data, GError **error)
{
  Layout l;
  if (!lay_out (run, jobs, n_jobs, &l, error))
    return FALSE;
  if (!tap && is_decode_step (jobs, n_jobs, &l)) {
    guint64 key[] = { run->x.buffer->serial, cache->layers[0]->serial, l.n_rows, l.single_most };
    if (!ivl_vk_replay (stream, key, sizeof key)) {
      record_all (run, cache, stream, jobs, n_jobs, &l, NULL, NULL, NULL);
      ivl_vk_replay_end (stream);
    }
  } else if (!record_all (run, cache, stream, jobs, n_jobs, &l, tap, tap_data, error)) {
    return FALSE;
  }
  for (guint i = 0; i < n_jobs; i++)
    jobs[i].sequence->length += jobs[i].n_tokens;
  return TRUE;
}
