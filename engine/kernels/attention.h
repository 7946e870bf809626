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
  guint n_rows;     /* of all items, for the profile */
} IvlAttention;

/* Rows that one item may have, given how many rows there are to share out. Fewer, larger items read keys and values
 * less often. */
guint ivl_attention_rows (IvlDevice *device, guint head_dim, guint group, guint n_rows);
void ivl_attention (IvlVkStream *stream, const IvlAttention *args);
/* For checks and timing: TEXELS as in ivl_vk_use_texels. */
void ivl_attention_variant (IvlVkStream *stream, const IvlAttention *args, int texels);

/* Rotates q in QKV [n_rows, (heads + 2 kv_heads) * head_dim] and stores k and v into CACHE.
 * ROWS: IvlRow, from row_base on. TABLE: cos, sin pairs [positions, head_dim / 2]. */
void ivl_rope_cache (IvlVkStream *stream, IvlRows qkv, guint n_rows, guint heads, guint kv_heads, guint head_dim,
                     IvlSpan rows, guint row_base, IvlSpan table, IvlSpan cache);

#endif
