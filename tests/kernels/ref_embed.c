#include "ref.h"

void
ref_embed_row (IvlDtype dtype, const guint32 *bits, guint k, guint token, double *row)
{
  for (guint j = 0; j < k; j++)
    row[j] = ref_weight (dtype, bits[(gsize) token * k + j]);
}

void
ref_vit_token (const float *patches, const float *class_token, const float *position, guint tile, guint token,
               guint tokens, guint cols, double *row)
{
  for (guint j = 0; j < cols; j++)
    row[j] = (token ? (double) patches[((gsize) tile * (tokens - 1) + token - 1) * cols + j] : (double) class_token[j])
             + (double) position[(gsize) token * cols + j];
}
