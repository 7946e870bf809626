/* C references of the kernels, in double unless bytes are asked for: written for clarity, from the formulas of the
 * model's specification, sharing nothing with the kernels but the layouts they have to read. */
#ifndef IVL_TESTS_REF_H
#define IVL_TESTS_REF_H

#include "kernels/attention.h"
#include "kernels/image.h"
#include "kernels/norm.h"
#include "kernels/sampling.h"

/* ---- gemm ---- */
double ref_weight (IvlDtype dtype, guint32 bits); /* the value of stored bits */
/* Panels of the rows [first, first + n) of BITS [.., k], zero padded: ivl_weight_slice_bytes of (dtype, n, k). */
guint8 *ref_pack (IvlDtype dtype, const guint32 *bits, guint first, guint n, guint k);
double ref_gelu (double v);
double ref_silu (double v);
/* What a variant loses of its inputs: of a product relative to it, and of x and w absolutely. */
typedef struct {
  double relative, x_floor, w_floor;
} RefRounding;
/* Y [m, n or n / 2], and the error that f32 in any order may have besides ROUNDING. BEFORE: what y held, when it is added
 * to. */
void ref_gemm (IvlDtype dtype, const guint32 *w, guint n, guint k, const float *x, guint x_pitch, guint m,
               const float *bias, const float *scale, IvlAct act, const double *before, const RefRounding *rounding,
               double *y, double *allowed);

/* ---- norm ---- */
void ref_norm (gboolean rms, double eps, const float *x, guint cols, const float *weight, const float *bias, double *y,
               double *allowed);
/* Row R, of 4 * C columns, of the pixel shuffle of X [tiles, 1 + grid^2, pitch]. */
void ref_pixel_shuffle (const float *x, guint pitch, guint grid, guint c, guint r, gboolean v1, float *row);

/* ---- attention ---- */
/* One query over N keys: K (i) and V (i) start at k + i * pitch (v likewise). */
void ref_attention (const float *q, const float *const *k, const float *const *v, guint n, guint d, double *out,
                    double *allowed);
/* A table of cos, sin [REF_ROPE_POSITIONS, d / 2]; free with g_free. */
#define REF_ROPE_POSITIONS 50
#define REF_ROPE_SLOTS 90
float *ref_rope_table (guint d);
/* One token's QKV [(heads + 2 kv_heads) * d], pairs (j, j + d / 2) of q and k side by side, each value known to ERROR: q
 * rotated into Q [heads * d], k and v into row->slot of CACHE [slots, 2, kv_heads, d], and what both may be off. */
void ref_rope_cache (const double *qkv, const double *error, guint heads, guint kv_heads, guint d, const IvlRow *row,
                     const float *table, double *q, double *q_allowed, double *cache, double *cache_allowed);

/* ---- embed ---- */
/* Row TOKEN of a table BITS [.., k]. */
void ref_embed_row (IvlDtype dtype, const guint32 *bits, guint k, guint token, double *row);
/* Class token or projected patch, plus its position. */
void ref_vit_token (const float *patches, const float *class_token, const float *position, guint tile, guint token,
                    guint tokens, guint cols, double *row);

/* ---- image ---- */
/* R, G, B of a pixel inside the crop. */
void ref_picture_pixel (const IvlPicture *p, guint x, guint y, guint8 rgb[3]);
/* Pillow's bicubic resize of RGB [h, w, 3] to [out_h, out_w, 3]; free with g_free. */
guint8 *ref_resize (const guint8 *rgb, guint w, guint h, guint out_w, guint out_h);
/* Histograms of luma of tiles of R | G << 8 | B << 16 [n_tiles, size, size], as ivl_image_record_luma. */
void ref_luma (const guint32 *tiles, guint n_tiles, guint size, guint32 *histograms);
void ref_tiling (guint w, guint h, guint size, guint max_tiles, guint *cols, guint *rows);

/* ---- sampling ---- */
typedef struct {
  gboolean valid;
  guint32 argmax;
  double *logits;      /* after penalty; -inf where masked */
  double *probability; /* softmax of these */
  double *kept;        /* what the draw chooses from; all zero if it is greedy */
  double margin;       /* how far the thresholds are from the next token, as probability; tiny: can't be compared */
} RefSample;
void ref_sample (RefSample *ref, const float *logits, guint vocab, const IvlSampleRequest *request);
void ref_sample_clear (RefSample *ref);
/* The random number in [0, 1) that belongs to a seed and a step. */
double ref_sample_random (guint64 seed, guint step);

#endif
