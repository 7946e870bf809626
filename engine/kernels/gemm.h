/* Matrix products with weights: y (+)= scale * act (norm (x) . w^T + bias), fused. */
#ifndef IVL_KERNELS_GEMM_H
#define IVL_KERNELS_GEMM_H

#include "vk/command.h"
#include "push.h"

/* Q8, Q4: blocks of 32 along K with an f16 scale, 8.5 and 4.5 bits a weight; see push.h. */
typedef enum { IVL_DTYPE_F32, IVL_DTYPE_F16, IVL_DTYPE_BF16, IVL_DTYPE_Q8, IVL_DTYPE_Q4, IVL_N_DTYPES } IvlDtype;

static inline gboolean
ivl_dtype_is_quantised (IvlDtype dtype)
{
  return dtype >= IVL_DTYPE_Q8;
}

/* Of a value; not for quantised types. */
static inline guint
ivl_dtype_bytes (IvlDtype dtype)
{
  return dtype == IVL_DTYPE_F32 ? 4 : 2;
}

/* A float matrix [rows, pitch] on the device. Rows start at multiples of 16 bytes; pitch is a multiple of 4. */
typedef struct {
  IvlSpan span;
  guint64 offset; /* floats, to row 0 */
  guint pitch;    /* floats */
} IvlRows;

static inline IvlRows
ivl_rows (IvlSpan span, guint pitch)
{
  return (IvlRows){ span, 0, pitch };
}

/* A weight [n, k] in panels (see push.h). Big ones are cut along n so that each slice can be bound. */
typedef struct {
  IvlDtype dtype;
  guint n, k;  /* logical */
  guint k_pad; /* k rounded up to 8; x must be finite (zero) there */
  guint slice_n; /* columns of every slice but the last; a multiple of IVL_PANEL */
  guint n_slices;
  IvlSpan *slices; /* owned by whoever made it */
  float largest;   /* bf16: of all magnitudes; 0: not known, and no cooperative matrices */
} IvlWeight;

/* Of IVL_PANEL columns. */
gsize ivl_weight_panel_bytes (IvlDtype dtype, guint k);
guint64 ivl_weight_slice_bytes (IvlDtype dtype, guint n, guint k);

typedef enum { IVL_ACT_NONE, IVL_ACT_GELU, IVL_ACT_SWIGLU } IvlAct;

/* Of a decoder's q, k and v: what rotates q and k, and the cache that takes k and v. */
typedef struct {
  guint heads, kv_heads, head_dim;
  IvlSpan rows;   /* IvlRow, from row_base on */
  guint row_base;
  IvlSpan table;  /* cos, sin pairs [positions, head_dim / 2] */
  IvlSpan cache;  /* [slots, 2, kv_heads, head_dim] */
} IvlRope;

typedef struct {
  const IvlSpan *bias;  /* f32 [n], or NULL */
  const IvlSpan *scale; /* f32 [n], or NULL: LayerScale */
  IvlAct act;           /* SWIGLU: columns are (gate, up) pairs and y has n / 2 columns */
  gboolean add;         /* y += instead of y = */
  const IvlSpan *norm;  /* f32 [k], or NULL: x's rows go in by their RMSNorm with these weights; see ivl_gemm_norms */
  float norm_eps;
  const IvlRope *rope;  /* or NULL. Columns are q, k and v, a head's of q and k in the pairs that are rotated, 0, d / 2, 1,
                         * d / 2 + 1, ... Rotated q goes to y, rotated k and v to the cache, each value in its place.
                         * With a norm and a bias, nothing else; see ivl_gemm_takes_rope */
} IvlGemmEpilogue;

/* Whether the epilogue can be ROPE's; else ivl_rope_cache (attention.h) does that to what is in y. */
gboolean ivl_gemm_takes_rope (const IvlDevice *device, const IvlRope *rope);

void ivl_gemm (IvlVkStream *stream, const IvlWeight *weight, IvlRows x, guint m, IvlRows y,
               const IvlGemmEpilogue *epilogue);

/* Whether the shader that ivl_gemm takes for M rows does norms. They exclude a scale. */
gboolean ivl_gemm_norms (IvlDevice *device, const IvlWeight *weight, guint m);

/* ---- variants: all give the same result but for rounding ---- */

typedef enum {
  IVL_GEMM_TEXEL,   /* registers only, inputs through texel buffers: software drivers. The same order of */
  IVL_GEMM_BUFFER,  /* sums as this one, through storage buffers, and as */
  IVL_GEMM_ADDRESS, /* this one, which reads x by its address, whatever the tile: equal to the last bit */
  IVL_GEMM_GPU,     /* tiles in shared memory; for few rows a lane a column; long sums may be split */
  IVL_GEMM_COOPMAT, /* as that, by cooperative matrices of f16 with sums of f32. Needs full subgroups of the default
                     * size; not for f32 weights; x beyond 524,000 gives what isn't finite */
  IVL_N_GEMM_VARIANTS
} IvlGemmVariant;
extern const char *const ivl_gemm_variant_names[IVL_N_GEMM_VARIANTS];

/* A shader: a variant at one tile. */
typedef struct {
  IvlGemmVariant variant;
  guint rows, columns;   /* of a workgroup; where lanes is 0, of a lane */
  guint lanes;           /* of a workgroup; 0: one subgroup, each lane with its own columns; coopmat: four subgroups */
  guint shared_bytes;
  IvlKernelId kernels[IVL_N_DTYPES]; /* IVL_N_KERNELS: none */
  IvlKernelId rope_kernels[IVL_N_DTYPES]; /* the same with RoPE in the epilogue */
} IvlGemmShader;
extern const IvlGemmShader ivl_gemm_shaders[];
extern const guint ivl_n_gemm_shaders;

/* GPUs up to this many rows: one of the shaders with a lane a column, which all add up in the same order and in the same
 * parts, so that a row's result doesn't depend on how many others there are, where the driver's compiler treats them alike. */
#define IVL_GEMM_VECTOR_ROWS 16
gboolean ivl_gemm_is_vector (const IvlGemmShader *shader);

/* What DEVICE or WEIGHT (its type and largest) lacks for SHADER, or NULL. */
const char *ivl_gemm_lacks (const IvlDevice *device, const IvlGemmShader *shader, const IvlWeight *weight);

typedef struct {
  guint shader; /* index */
  guint parts;  /* along K, summed by a second dispatch; 1 with the first three variants */
} IvlGemmChoice;

/* What ivl_gemm takes: what INTERNVL_GEMM names (texel, buffer, address, gpu, coopmat), what was found by timing
 * (gemm-tune.h), or by the kind of device. */
IvlGemmChoice ivl_gemm_choose (IvlDevice *device, const IvlWeight *weight, guint m);
/* Those with a lane a column, in which every workgroup norms the few rows for itself; with the same bits as ivl_norm's where
 * a workgroup shares a row. Registers only, a lane would do it for itself, which took longer than a dispatch. */
gboolean ivl_gemm_can_norm (const IvlGemmShader *shader, const IvlWeight *weight);
/* SHADER with as many parts as suit it. */
IvlGemmChoice ivl_gemm_parts (const IvlWeight *weight, guint shader, guint m);
/* For checks and timing. Falls back to storage buffers where texels are too few. */
void ivl_gemm_with (IvlVkStream *stream, const IvlWeight *weight, IvlRows x, guint m, IvlRows y,
                    const IvlGemmEpilogue *epilogue, IvlGemmChoice choice);

#endif
