/* InternViT and the projector: tiles in, one embedding row per visual token out.
 *
 *   patches [T * grid^2, 3 * patch^2] -> patch embedding + class token + positions -> x [T, N, C], N = 1 + grid^2
 *   L x: x += ls1 * proj (attention (norm1 (x)));  x += ls2 * fc2 (GELU (fc1 (norm2 (x))))
 *   drop class token, pixel shuffle -> [T, N' = (grid / 2)^2, 4C] -> LayerNorm -> linear -> GELU -> linear -> [T, N', H]
 *
 * Source: arXiv 2412.05271 section 2; checkpoint prefixes vision_model. and mlp1. (vision_tower,
 * multi_modal_projector in -hf folders). */
#ifndef IVL_MODEL_VIT_H
#define IVL_MODEL_VIT_H

#include "kernels/attention.h"
#include "kernels/norm.h"
#include "model/config.h"

typedef struct {
  IvlSpan norm1_weight, norm1_bias; /* [C]; bias only for LayerNorm */
  IvlWeight qkv;                    /* [3C, C] */
  IvlSpan qkv_bias;                 /* [3C], or no buffer */
  IvlSpan q_norm, k_norm;           /* [C], or no buffer */
  IvlWeight proj;                   /* [C, C] */
  IvlSpan proj_bias, ls1;           /* [C] */
  IvlSpan norm2_weight, norm2_bias;
  IvlWeight fc1;                    /* [F, C] */
  IvlSpan fc1_bias;                 /* [F] */
  IvlWeight fc2;                    /* [C, F] */
  IvlSpan fc2_bias, ls2;            /* [C] */
} IvlVitLayer;

/* Weights; the spans are borrowed from the model's arena. */
typedef struct {
  const IvlConfig *config;          /* borrowed */
  IvlWeight patch;                  /* [C, 3 * patch^2] */
  IvlSpan patch_bias;               /* [C] */
  IvlSpan class_token;              /* [C] */
  IvlSpan position;                 /* [N, C] */
  IvlVitLayer *layers;              /* [config's layers that are run] */
  guint n_layers;
  IvlSpan mlp_norm_weight, mlp_norm_bias; /* [4C] */
  IvlWeight mlp1, mlp3;             /* [H, 4C], [H, H] */
  IvlSpan mlp1_bias, mlp3_bias;     /* [H] */
} IvlVit;

/* Activations of up to max_tiles tiles that are encoded side by side. */
typedef struct {
  const IvlVit *vit;
  IvlDevice *device;                /* borrowed */
  guint max_tiles;
  IvlVkArena arena;
  IvlSpan patches;                  /* [T * grid^2, k_pad]; written by the caller before step 0 */
  IvlSpan x, h, wide;
  IvlSpan items;                    /* attention work, uploaded at init */
  guint item_rows, items_per_tile;
} IvlVitRun;

gboolean ivl_vit_run_init (IvlVitRun *run, const IvlVit *vit, IvlDevice *device, guint max_tiles, GError **error);
void ivl_vit_run_deinit (IvlVitRun *run);
/* The most tiles one run can hold: bounded by what a storage buffer may be. */
guint ivl_vit_max_tiles (const IvlConfig *config, IvlDevice *device);

/* A forward is n_layers + 2 steps (embedding, each layer, projector), so that the caller can do other work in
 * between. OUT: [tiles * N', H], dense, written by the last step. */
guint ivl_vit_n_steps (const IvlVit *vit);
void ivl_vit_record_step (const IvlVitRun *run, IvlVkStream *stream, guint step, guint tiles, IvlSpan out);

#endif
