/* A safetensors file out of any bytes: it opens with every tensor inside it, or says why not. */
#include <stdint.h>

#include "base/error.h"
#include "tensor/safetensors.h"

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GBytes) bytes = g_bytes_new_static (data, size);
  g_autoptr (IvlSafetensors) file = ivl_safetensors_new_from_bytes (bytes, "fuzz", &error);
  g_assert ((file == NULL) == (error != NULL));
  if (!file) {
    g_assert (error->domain == IVL_ERROR && g_utf8_validate (error->message, -1, NULL));
    return 0;
  }
  for (guint i = 0; i < ivl_safetensors_n_tensors (file); i++) {
    IvlTensorView view, found;
    ivl_safetensors_nth (file, i, &view);
    g_assert (ivl_safetensors_lookup (file, view.name, &found) && found.data == view.data);
    g_autofree char *shape = ivl_tensor_shape_string (view.shape, view.n_dims);
    g_assert (*shape);
    if (view.dtype == IVL_TENSOR_OTHER)
      continue;
    gsize n = view.bytes / ivl_tensor_dtype_bytes (view.dtype);
    g_autofree float *values = g_new (float, n);
    ivl_tensor_to_f32 (view.dtype, view.data, values, n);
    ivl_tensor_first_nonfinite (view.dtype, view.data, n);
  }
  return 0;
}
