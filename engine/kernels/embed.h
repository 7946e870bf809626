/* What goes into the first layers: token embeddings, and the vision encoder's tokens. */
#ifndef IVL_KERNELS_EMBED_H
#define IVL_KERNELS_EMBED_H

#include "kernels/gemm.h"

/* x[r, :] = table[rows[row_base + r].token, :] for text rows; rows with IVL_TOKEN_IMAGE are left alone.
 * TABLE is [vocabulary, width] in panels, as an output head is, so that a tied one is stored once. */
void ivl_embed (IvlVkStream *stream, const IvlWeight *table, IvlSpan rows, guint row_base, guint n_rows, IvlRows x);
/* For checks and timing: TEXELS as in ivl_vk_use_texels. */
void ivl_embed_variant (IvlVkStream *stream, const IvlWeight *table, IvlSpan rows, guint row_base, guint n_rows, IvlRows x,
                        int texels);

/* x [tiles * (1 + patches), cols] = class token, projected patches [tiles * patches, cols]; + position embedding.
 * Everything is dense; COLS a multiple of 4. */
void ivl_vit_tokens (IvlVkStream *stream, IvlSpan patches, IvlSpan class_token, IvlSpan position, guint tiles,
                     guint tokens, guint cols, IvlSpan x);

#endif
