/* Push constants of all kernels, included by both C and GLSL so that there is one copy. Offsets and pitches
 * count elements unless named otherwise; rows are [rows, pitch]. */
#ifndef IVL_PUSH_H
#define IVL_PUSH_H

#ifdef __STDC__
#include <stdint.h>
#define uint uint32_t
#endif

/* Where the addresses lie of what a kernel reads by them, 8 bytes each, in the order of their bindings (texels.h). */
#define IVL_PUSH_ADDRESSES 112

/* Weight panels: GEMM weights [N, K] are stored as [N/64][K/8][64] texels of eight 16-bit values along K (or
 * [N/64][K/4][64] of four 32-bit values), zero padded, so that a workgroup streams its columns in order. Of the 64, first
 * come columns 0 and 1 of every eight, then 2 and 3 and so on, so that lanes of eight columns read neighbouring cache
 * lines: column N of a panel lies at IVL_PANEL_TEXEL (N). */
#define IVL_PANEL 64
#define IVL_PANEL_TEXEL(n) ((n) % 8 / 2 * 16 + (n) / 8 * 2 + (n) % 2)

/* Quantised weights: blocks of 32 values along K with one scale. A panel is [K/32] blocks of 8 texels of scales (f16, a
 * component's low half is the even column) and four steps of eight values along K: q8 [32] texels of two columns, two
 * words each; q4 [16] texels of four columns, a word each. Earlier values lie in lower bits. A value is what its word,
 * shifted until its bits are on top, is as a signed integer, times unit and scale: the bits below it (its predecessors')
 * stay in as a fraction that packing reckons with, which saves a mask or a second shift a value. */
#define IVL_QUANT_BLOCK 32
#define IVL_QUANT_SCALES 8
#define IVL_Q8_BLOCK_TEXELS (IVL_QUANT_SCALES + 4 * IVL_PANEL / 2)
#define IVL_Q4_BLOCK_TEXELS (IVL_QUANT_SCALES + 4 * IVL_PANEL / 4)
#define IVL_Q8_UNIT (1.0 / 1073741824.0)   /* 2^-24, and 2^-6: scales are stored 64 times too large, clear of subnormals */
#define IVL_Q4_UNIT (1.0 / 17179869184.0)  /* 2^-28 and 2^-6 */

/* y[m, n] (+)= scale[n] * act(x[m, :] . w[n, :] + bias[n]) */
struct IvlPushGemm {
  uint m, n, k;          /* k: padded to a multiple of 8 */
  uint x_offset, x_pitch; /* in vec4 */
  uint y_offset, y_pitch;
  uint n_base;           /* of this slice of the weights, into bias, scale and y */
  float w_up;            /* cooperative matrices: a power of two that brings the weights into the range of f16 */
  float eps;             /* of the norm of x, where it is folded in */
  uint row_base;         /* with RoPE: the IvlRow of row 0 */
};

/* Tiles that a workgroup may take one after the other (gemm/gemm.comp). lavapipe ends all loops of an invocation once they
 * made 65,535 passes in all, without a word (22.3; LP_MAX_TGSI_LOOP_ITERATIONS); a tile is k / 4 of them at most. */
#define IVL_TURNS(k) ((k) / 4 < 59998 ? 60000 / ((k) / 4 + 2) : 1)

/* Pitches, cols and offsets in vec4. */
struct IvlPushNorm {
  uint rows, cols;
  uint x_offset, x_pitch;
  uint y_offset, y_pitch;
  uint index_offset;
  uint grid; /* patches a side, for the pixel shuffle */
  float eps;
};

/* Tokens per page of the KV cache; a multiple of the keys that attention takes at a time. */
#define IVL_KV_PAGE 32

/* Rows of one sequence (or tile) that attend together. */
struct IvlAttentionItem {
  uint row, n_rows; /* of q and the output */
  uint kv;          /* causal: first entry in the page list; full: first row of k and v */
  uint kv_len;      /* keys seen by the first row; each later row sees one more if causal */
};

/* Offsets and pitches in vec4. */
struct IvlPushAttention {
  uint q_offset, q_pitch;
  uint o_offset, o_pitch;
  uint k_offset, v_offset, kv_pitch;
  uint item_base;
  float scale;
  uint query_blocks;    /* attention_gpu: workgroups along y for each kv head */
  uint n_items;         /* attention_merge */
};

/* attention_gpu.comp: lanes of a workgroup and the queries that they share, what every device takes. */
#define IVL_ATTENTION_LANES 128
#define IVL_ATTENTION_QUERIES 16

/* One token's place in a forward pass of the decoder. */
struct IvlRow {
  uint token;
  uint position;
  uint slot; /* row of the KV cache */
  uint unused;
};
#define IVL_TOKEN_IMAGE 0xffffffffu

struct IvlPushRope {
  uint n_rows, row_base;
  uint offset, pitch; /* of qkv */
};

struct IvlPushEmbed {
  uint n_rows, row_base;
  uint n_base, n;      /* tokens of this slice of the table */
  uint texels;         /* of 16 bytes in a row of the table */
  uint offset, pitch;  /* of x, in vec4 */
};

struct IvlPushVitTokens {
  uint tiles, tokens, cols; /* cols in vec4 */
};

/* ---- images ---- */

/* Rows of a picture to RGB8, four pixels a lane. Per component: where its samples are in its binding, in bytes. */
struct IvlPushImageConvert {
  uint offset[3], pitch[3];
  uint format[3];      /* pixel stride | shift << 8 | w_sub << 12 | h_sub << 14 | x phase << 16 | y phase << 20 |
                        * big endian << 24 */
  uint mask[3];
  float matrix[12];    /* of 255 and 1 / (2^depth - 1); its last column has 0.5 on top */
  uint cols, rows;     /* pixels */
  uint out_pitch;      /* quads of pixels */
};

/* One axis of a resize, for output columns [0, cols) and rows [row_base, row_base + rows). */
struct IvlPushImageResize {
  uint cols, rows, row_base;
  uint steps;          /* quads of weights a table row */
  uint in_offset, in_pitch, in_last; /* quads of pixels; the last quad (horizontal) or row (vertical) there is */
  uint in_base;        /* vertical: the row at in_offset */
  uint out_pitch;      /* horizontal: quads of pixels */
  uint tile_size, grid_cols, tile_base; /* vertical: output goes to tile tile_base + row * grid_cols + col */
};

struct IvlPushImagePatches {
  uint tile_base, rows; /* rows: patches in all */
  uint tile_size, patch_size, grid;
  uint quads;          /* of columns that are written: k_pad / 4 */
  uint out_offset, out_pitch; /* floats */
};

/* Histograms of luma [tiles * blocks^2, bins]; levels are a step from a bin to the next. */
#define IVL_LUMA_BLOCKS 4
#define IVL_LUMA_STEP 16
#define IVL_LUMA_BINS 17

struct IvlPushImageLuma {
  uint tile_size;
};

/* ---- sampling ---- */

#define IVL_SAMPLE_LANES 64
#define IVL_SAMPLE_BLOCK 4096 /* logits of a workgroup; a multiple of 4 * IVL_SAMPLE_LANES */

struct IvlSampleRow {
  uint flags;                /* 1: only the tokens in its mask */
  float inverse_temperature; /* 0: greedy */
  uint top_k;                /* 0: off */
  uint top_p;                /* of 2^32; 0xffffffff: off */
  uint seed_low, seed_high, step;
  float penalty;
  uint first_id, n_ids;      /* tokens that are penalised, each once */
  uint unused[2];            /* to whole texels */
};

struct IvlSampleState {
  uint flags;                /* 1: to be drawn */
  float top, sum;            /* largest logit; sum of exp relative to it */
  uint threshold;            /* key of the least logit that is kept */
  uint prefix;               /* upper bits of the threshold that is being searched */
  uint left_high, left_low;  /* count or mass that the search still has to find */
  uint unused;
};

struct IvlPushSampling {
  uint vocab, pitch;         /* pitch: quads of logits */
  uint blocks, n_rows;
  uint mask_words;           /* of a row */
  uint phase, digit;
};

struct IvlPushImageDifference {
  uint patches;          /* of all tiles */
  uint tile_size, patch_size, grid;
};

#ifdef __STDC__
#undef uint
#endif
#endif
