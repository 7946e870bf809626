#include "kernels/attention.h"

#include <math.h>

#define GPU_MOST_HEAD_DIM 128
/* Keys of one workgroup when a sequence decodes on a GPU: 4096 tokens of two kv heads are 64 workgroups. */
#define PART_KEYS 128

static guint
lanes_of (IvlDevice *device)
{
  return MIN (MAX (device->subgroup_size, 8), 128);
}

/* Queries a lane: as many as keep the accumulators (head_dim floats each) in fast memory. */
static guint
queries_per_lane (guint head_dim, guint n_queries, guint lanes)
{
  guint most = head_dim <= 64 ? 8 : head_dim <= 128 ? 4 : 2;
  while (most > 1 && n_queries <= lanes * (most / 2))
    most /= 2;
  return most;
}

guint
ivl_attention_rows (IvlDevice *device, guint head_dim, guint group, guint n_rows)
{
  guint lanes = lanes_of (device);
  guint queries = lanes * queries_per_lane (head_dim, n_rows * group, lanes);
  if (!device->software && head_dim <= GPU_MOST_HEAD_DIM)
    queries = IVL_ATTENTION_QUERIES;
  return MAX (queries / group, 1);
}

static struct IvlPushAttention
push_of (const IvlAttention *a)
{
  return (struct IvlPushAttention){
    .q_offset = (guint32) (a->q.offset / 4), .q_pitch = a->q.pitch / 4,
    .o_offset = (guint32) (a->out.offset / 4), .o_pitch = a->out.pitch / 4,
    .k_offset = (guint32) ((a->kv.offset + a->k_column) / 4), .v_offset = (guint32) ((a->kv.offset + a->v_column) / 4),
    .kv_pitch = a->kv.pitch / 4, .item_base = a->item_base,
    .scale = 1.f / sqrtf ((float) a->head_dim), .query_blocks = 1, .n_items = a->n_items,
  };
}

static void
note_work (IvlVkStream *stream, const IvlAttention *a)
{
  ivl_vk_note_work (stream, 4.0 * a->n_rows * a->heads * a->head_dim * a->mean_kv,
                    8.0 * a->n_items * a->kv_heads * a->head_dim * a->mean_kv);
}

static void
record_gpu (IvlVkStream *stream, const IvlAttention *a, guint part)
{
  IvlDevice *device = a->q.span.buffer->device;
  guint group = a->heads / a->kv_heads;
  struct IvlPushAttention push = push_of (a);
  push.query_blocks = (a->max_rows * group + IVL_ATTENTION_QUERIES - 1) / IVL_ATTENTION_QUERIES;
  IvlGroups groups = { a->n_items, a->kv_heads * push.query_blocks, 1 };
  IvlSpan scratch = a->out.span;
  if (part && a->causal && a->max_rows == 1 && a->max_kv > part && ivl_vk_scratch (stream, &scratch)) {
    guint64 part_bytes = 4ull * a->n_items * a->heads * (a->head_dim + 4);
    while ((a->max_kv + part - 1) / part * part_bytes > IVL_VK_SCRATCH_BYTES)
      part *= 2;
    groups.z = (a->max_kv + part - 1) / part;
    scratch.size = groups.z * part_bytes;
  }
  if (groups.z == 1) {
    part = 0;
    scratch = a->out.span;
  }
  guint32 specs[] = { IVL_ATTENTION_LANES, a->head_dim, group, a->causal, part };
  IvlSpan spans[] = { a->q.span, a->kv.span, a->items, a->pages, scratch };
  ivl_vk_dispatch (stream, a->head_dim <= 64 ? IVL_K_ATTENTION_GPU_D64 : IVL_K_ATTENTION_GPU_D128, specs,
                   G_N_ELEMENTS (specs), spans, &push, sizeof push, groups);
  note_work (stream, a);
  if (!part)
    return;
  guint32 merge_specs[] = { 64, a->head_dim, a->heads, part };
  IvlSpan merge_spans[] = { scratch, a->items, a->out.span };
  ivl_vk_dispatch (stream, IVL_K_ATTENTION_MERGE, merge_specs, G_N_ELEMENTS (merge_specs), merge_spans, &push, sizeof push,
                   ivl_groups_for (device, (guint64) a->n_items * a->heads * a->head_dim / 4, 64));
}

static void
record_registers (IvlVkStream *stream, const IvlAttention *a, IvlAttentionVariant variant)
{
#define KERNELS(QUERIES)                                                                                   \
  {                                                                                                        \
    [IVL_ATTENTION_BUFFER] = IVL_K_ATTENTION_##QUERIES##_BUFFER,                                           \
    [IVL_ATTENTION_TEXEL] = IVL_K_ATTENTION_##QUERIES##_TEXEL,                                             \
    [IVL_ATTENTION_ADDRESS] = IVL_K_ATTENTION_##QUERIES##_ADDRESS,                                         \
  }
  static const IvlKernelId kernels[][IVL_ATTENTION_GPU] = { KERNELS (Q1), KERNELS (Q2), KERNELS (Q4), KERNELS (Q8) };
#undef KERNELS
  IvlDevice *device = a->q.span.buffer->device;
  guint lanes = lanes_of (device);
  guint group = a->heads / a->kv_heads;
  guint most = queries_per_lane (a->head_dim, a->max_rows * group, lanes);
  /* A group of more heads than lanes * queries: widen the workgroup instead. */
  while (lanes * most < a->max_rows * group)
    lanes *= 2;
  IvlKernelId kernel = kernels[g_bit_storage (most) - 1][variant];
  struct IvlPushAttention push = push_of (a);
  guint32 specs[] = { lanes, a->head_dim, group, a->causal, device->fused };
  IvlSpan spans[] = { a->q.span, a->kv.span, a->items, a->pages, a->out.span };
  ivl_vk_dispatch (stream, kernel, specs, G_N_ELEMENTS (specs), spans, &push, sizeof push,
                   (IvlGroups){ a->n_items, a->kv_heads, 1 });
  note_work (stream, a);
}

void
ivl_attention (IvlVkStream *stream, const IvlAttention *a)
{
  IvlDevice *device = a->q.span.buffer->device;
  IvlAttentionVariant variant = !device->software    ? IVL_ATTENTION_GPU
                                : device->broadcasts ? IVL_ATTENTION_ADDRESS
                                : device->texels     ? IVL_ATTENTION_TEXEL
                                                     : IVL_ATTENTION_BUFFER;
  ivl_attention_with (stream, a, variant, PART_KEYS);
}

void
ivl_attention_with (IvlVkStream *stream, const IvlAttention *a, IvlAttentionVariant variant, guint part)
{
  IvlDevice *device = a->q.span.buffer->device;
  if (variant == IVL_ATTENTION_GPU && a->head_dim <= GPU_MOST_HEAD_DIM) {
    record_gpu (stream, a, part);
    return;
  }
  bool can = variant == IVL_ATTENTION_TEXEL     ? ivl_vk_use_texels (device, MAX (a->q.span.size, a->kv.span.size), 1)
             : variant == IVL_ATTENTION_ADDRESS ? device->addresses
                                                : false;
  record_registers (stream, a, can ? variant : IVL_ATTENTION_BUFFER);
}

void
ivl_rope_cache (IvlVkStream *stream, IvlRows qkv, guint n_rows, const IvlRope *rope)
{
  struct IvlPushRope push = { .n_rows = n_rows, .row_base = rope->row_base, .offset = (guint32) qkv.offset,
                              .pitch = qkv.pitch };
  guint half = rope->head_dim / 2, lanes = MAX (64 / half, 1) * half;
  guint32 specs[] = { lanes, rope->head_dim, rope->heads, rope->kv_heads };
  IvlSpan spans[] = { qkv.span, rope->rows, rope->table, rope->cache };
  ivl_vk_dispatch (stream, IVL_K_ROPE_CACHE, specs, G_N_ELEMENTS (specs), spans, &push, sizeof push,
                   ivl_groups_for (qkv.span.buffer->device,
                                   (guint64) n_rows * (rope->heads + 2 * rope->kv_heads) * half, lanes));
}
