/* A model's architecture, from its config.json alone: both folder layouts become this one page.
 *
 * Every number is checked when parsed: a wrong type or an impossible value is IVL_ERROR_BAD_MODEL, a valid one that
 * the engine doesn't do is IVL_ERROR_UNSUPPORTED; the message names the key and the value. Keys that are missing have
 * the defaults of the reference's configuration classes. */
#ifndef IVL_MODEL_CONFIG_H
#define IVL_MODEL_CONFIG_H

#include "tensor/dtype.h"

typedef enum {
  IVL_LAYOUT_ORIGINAL, /* InternVLChatModel: OpenGVLab's own */
  IVL_LAYOUT_HF,       /* InternVLForConditionalGeneration: transformers' own, "-hf" */
} IvlLayout;

typedef enum { IVL_NORM_LAYER, IVL_NORM_RMS } IvlNormKind;
typedef enum { IVL_TEXT_QWEN2, IVL_TEXT_INTERNLM2, IVL_TEXT_LLAMA } IvlTextArch;
typedef enum { IVL_ROPE_PLAIN, IVL_ROPE_LINEAR, IVL_ROPE_DYNAMIC } IvlRopeScaling;

#define IVL_CONFIG_MAX_EOS 16
/* LayerNorm of the projector: PyTorch's default, not in any file. */
#define IVL_PROJECTOR_EPS 1e-5

typedef struct {
  IvlLayout layout;
  IvlTensorDtype dtype; /* torch_dtype; OTHER when not said or not one of ours */

  struct {
    guint hidden;       /* C */
    guint layers;       /* in the checkpoint */
    guint run_layers;   /* to be run: select_layer -1 is all of them, -k leaves out the last k - 1 */
    guint heads;
    guint head_dim;     /* C / heads */
    guint intermediate; /* F */
    guint image_size;   /* side of a tile in pixels */
    guint patch_size;
    guint grid;         /* patches a side of a tile: image_size / patch_size */
    guint n_positions;  /* rows of the checkpoint's position table, 1 + square; differs from 1 + grid^2 only
                         * when force_image_size does, and then the table is interpolated at load */
    IvlNormKind norm;
    double eps;         /* of the norms, q and k norms too */
    gboolean qkv_bias;
    gboolean qk_norm;   /* RMSNorm over all heads of q and of k */
  } vision;

  guint downsample;     /* 2: pixel shuffle puts 2x2 patches side by side */
  guint ps_version;     /* pixel shuffle: 2; 1 leaves the tokens transposed, t = X * (grid / 2) + Y */
  guint tile_tokens;    /* visual tokens of a tile: (grid / downsample)^2 */

  struct {
    IvlTextArch arch;   /* LLAMA is InternLM2 in the -hf layout */
    guint hidden;       /* H */
    guint layers;
    guint heads;
    guint kv_heads;
    guint head_dim;     /* heads * head_dim need not be H */
    guint intermediate; /* F */
    guint vocab;        /* V */
    double rms_eps;
    double rope_theta;
    IvlRopeScaling rope_scaling;
    double rope_factor; /* 1 when PLAIN */
    guint max_position;
    gboolean qkv_bias;
    gboolean tied;      /* the output head is the embedding; see ivl_checkpoint_open, which settles it */
    gboolean may_tie;   /* the files may lack a head: some tie_word_embeddings is true */
  } text;

  guint min_dynamic_patch, max_dynamic_patch; /* tiles of a still */
  gboolean dynamic_image_size;                /* FALSE: one tile */
  gboolean use_thumbnail;

  char *template_name;  /* owned; NULL when not said (-hf has none) */
  char *system_message; /* owned; NULL: the template's own. May be "" */
  guint n_eos;
  guint32 eos[IVL_CONFIG_MAX_EOS]; /* end tokens of config.json and generation_config.json, each once */
} IvlConfig;

/* Reads config.json and, if there is one, generation_config.json of a checkpoint folder; or the metadata of GGUF files
 * (gguf-model.h). */
IvlConfig *ivl_config_load (const char *folder, GError **error);
/* The same from memory. GENERATION may be NULL. */
IvlConfig *ivl_config_parse (const char *config, gsize config_bytes, const char *generation, gsize generation_bytes,
                             GError **error);
void ivl_config_free (IvlConfig *config); /* NULL-safe */
G_DEFINE_AUTOPTR_CLEANUP_FUNC (IvlConfig, ivl_config_free)

/* Numbers of parameters that are loaded: vision counts run_layers, text counts the head unless tied. */
typedef struct {
  guint64 vision, projector, text;
} IvlParameterCount;
IvlParameterCount ivl_config_count (const IvlConfig *config);

/* All parameters at BYTES_PER_WEIGHT (2 for BF16). */
guint64 ivl_config_weight_bytes (const IvlConfig *config, guint bytes_per_weight);
/* KV cache of one token: 2 * layers * kv_heads * head_dim * BYTES_PER_VALUE. */
guint64 ivl_config_kv_bytes_per_token (const IvlConfig *config, guint bytes_per_value);

/* "InternViT 24x1024 + Qwen2 24x896"; newly allocated. */
char *ivl_config_describe (const IvlConfig *config);

#endif
