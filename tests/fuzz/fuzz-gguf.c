/* GGUF out of any bytes: the container opens with every tensor inside it or says why not; taken for text model and
 * mmproj at once, config, weights and tokenizer do the same. */
#include <stdint.h>
#include <string.h>

#include "base/error.h"
#include "model/gguf-model.h"
#include "tensor/gguf-quants.h"
#include "text/tokenizer-gguf.h"

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

static void
expect (gboolean ok, GError **error)
{
  g_assert (ok == (*error == NULL));
  if (*error)
    g_assert ((*error)->domain == IVL_ERROR && g_utf8_validate ((*error)->message, -1, NULL));
  g_clear_error (error);
}

static void
try_values (const IvlGguf *file)
{
  for (guint i = 0; i < ivl_gguf_n_values (file); i++) {
    GError *error = NULL;
    const char *key = ivl_gguf_nth_key (file, i);
    guint64 integer;
    double number;
    gboolean flag;
    guint n;
    expect (ivl_gguf_get_uint (file, key, &integer, &error), &error);
    expect (ivl_gguf_get_double (file, key, &number, &error), &error);
    expect (ivl_gguf_get_bool (file, key, &flag, &error), &error);
    g_autofree char *text = ivl_gguf_get_string (file, key, &error);
    expect (text != NULL, &error);
    g_autofree double *numbers = ivl_gguf_get_numbers (file, key, &n, &error);
    expect (numbers != NULL, &error);
    g_autoptr (GStringChunk) chunk = g_string_chunk_new (256);
    g_autoptr (GPtrArray) strings = ivl_gguf_get_strings (file, key, chunk, &error);
    expect (strings != NULL, &error);
  }
}

static void
try_tensors (const IvlGguf *file)
{
  for (guint i = 0; i < ivl_gguf_n_tensors (file); i++) {
    IvlTensorView view, found;
    ivl_gguf_nth (file, i, &view);
    g_assert (ivl_gguf_lookup (file, view.name, &found) && found.data == view.data);
    if (view.dtype == IVL_TENSOR_OTHER)
      continue;
    gsize n = view.bytes / ivl_quant_block_bytes (view.dtype) * ivl_quant_block (view.dtype);
    g_autofree float *values = g_new (float, n);
    ivl_tensor_to_f32 (view.dtype, view.data, values, n);
    ivl_tensor_first_nonfinite (view.dtype, view.data, n);
  }
}

static void
try_checkpoint (const IvlCheckpoint *checkpoint)
{
  for (guint id = 0; id < IVL_N_MATRICES; id++) {
    const IvlMatrixSource *source = ivl_checkpoint_matrix (checkpoint, id, 0);
    g_autofree float *row = g_new (float, source->cols);
    for (guint r = 0; r < source->rows; r++) {
      GError *error = NULL;
      ivl_matrix_source_row_f32 (source, r, row);
      expect (ivl_matrix_source_check_row (source, r, &error), &error);
    }
  }
  for (guint id = 0; id < IVL_N_VECTORS; id++) {
    GError *error = NULL;
    gsize n = ivl_checkpoint_vector_size (checkpoint, id, 0);
    if (n == 0 || n > 1u << 22)
      continue;
    g_autofree float *values = g_new (float, n);
    expect (ivl_checkpoint_vector (checkpoint, id, 0, values, n, &error), &error);
  }
}

static void
try_model (GBytes *bytes)
{
  GError *error = NULL;
  IvlGgufModel *model = ivl_gguf_model_new (ivl_gguf_new_from_bytes (bytes, "text.gguf", NULL),
                                            ivl_gguf_new_from_bytes (bytes, "mmproj.gguf", NULL));
  g_autoptr (IvlConfig) config = ivl_gguf_model_config (model, &error);
  expect (config != NULL, &error);
  ivl_gguf_model_free (model);
  if (!config)
    return;
  g_autoptr (IvlCheckpoint) checkpoint
    = ivl_checkpoint_new_gguf (ivl_gguf_new_from_bytes (bytes, "text.gguf", NULL),
                               ivl_gguf_new_from_bytes (bytes, "mmproj.gguf", NULL), config, &error);
  expect (checkpoint != NULL, &error);
  if (checkpoint)
    try_checkpoint (checkpoint);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  GError *error = NULL;
  g_autoptr (GBytes) bytes = g_bytes_new_static (data, size);
  g_autoptr (IvlGguf) file = ivl_gguf_new_from_bytes (bytes, "fuzz.gguf", &error);
  expect (file != NULL, &error);
  if (!file)
    return 0;
  try_values (file);
  try_tensors (file);
  try_model (bytes);
  g_autoptr (IvlTokenizer) tokenizer = ivl_tokenizer_new_from_gguf (file, &error);
  expect (tokenizer != NULL, &error);
  if (tokenizer) {
    g_autoptr (GArray) ids = g_array_new (FALSE, FALSE, sizeof (guint32));
    ivl_tokenizer_encode (tokenizer, "<img> it's 3 \xe7\x8c\xab", -1, IVL_ENCODE_SPECIAL | IVL_ENCODE_BOS, ids, &error);
    g_clear_error (&error);
    g_autofree char *text = ivl_tokenizer_decode (tokenizer, (guint32 *) ids->data, ids->len, IVL_DECODE_ALL, NULL);
    g_assert (text);
  }
  return 0;
}
