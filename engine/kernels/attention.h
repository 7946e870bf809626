/* Attention, RoPE and the KV cache's layout. */
#ifndef IVL_KERNELS_ATTENTION_H
#define IVL_KERNELS_ATTENTION_H

#include "kernels/gemm.h"

typedef struct IvlAttentionItem IvlAttentionItem;
typedef struct IvlRow IvlRow;

typedef struct {
  guint heads, kv_heads, head_dim;
  gboolean causal;  /* and paged: kv is one layer's cache, [slots, 2, kv_heads, head_dim] */
  IvlRows q;        /* heads side by side */
  IvlRows kv;
  guint k_column, v_column; /* floats from a kv row's start */
  IvlRows out;      /* [rows, heads * head_dim] */
  IvlSpan items;    /* IvlAttentionItem */
  guint item_base, n_items;
  guint max_rows;   /* of an item: what ivl_attention_rows gave when the items were cut */
  IvlSpan pages;    /* u32 page numbers; any span when not causal */
  double mean_kv;   /* keys a row, for the profile */
  guint max_kv;     /* of any item, or more; 0: not known. Lets GPUs share out the keys of items of one row */
  guint n_rows;     /* of all items, for the profile */
} IvlAttention;

/* Rows that one item may have, given how many rows there are to share out. Fewer, larger items read keys and values
 * less often. */
guint ivl_attention_rows (IvlDevice *device, guint head_dim, guint group, guint n_rows);
void ivl_attention (IvlVkStream *stream, const IvlAttention *args);

typedef enum {
  IVL_ATTENTION_BUFFER, /* registers only, reads storage buffers: right on every device */
  IVL_ATTENTION_TEXEL,  /* ... texel buffers, where they fit */
  IVL_ATTENTION_ADDRESS, /* ... keys and values by their address, where buffers have one */
  IVL_ATTENTION_GPU,    /* shared memory; head dims up to 128 */
} IvlAttentionVariant;

/* For checks and timing. PART: keys that a workgroup takes of an item of one row, a multiple of IVL_KV_PAGE, or 0. */
void ivl_attention_with (IvlVkStream *stream, const IvlAttention *args, IvlAttentionVariant variant, guint part);

/* Rotates q in QKV [n_rows, (heads + 2 kv_heads) * head_dim] and stores k and v into the cache. Of every head of q and k the
 * pairs that are rotated, (j, j + d / 2), come side by side; q and what is in the cache have each value in its place. For
 * where the matmul's epilogue can't (gemm.h). */
void ivl_rope_cache (IvlVkStream *stream, IvlRows qkv, guint n_rows, const IvlRope *rope);

#endif
