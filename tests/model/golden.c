#include "golden.h"

#include <dlfcn.h>
#include <math.h>
#include <string.h>

#ifdef __SANITIZE_ADDRESS__
/* Vulkan's loader closes the driver with the last instance, and a leak of a library that is gone has no name to suppress it
 * by (see tests/lsan.supp): keep what was opened. */
int
dlclose (void *handle)
{
  return 0;
}
#endif

char *
golden_path (const char *first, ...)
{
  const char *root = g_getenv ("INTERNVL_GOLDEN");
  g_assert_nonnull (root);
  va_list args;
  va_start (args, first);
  g_autofree char *rest = g_build_filename_valist ((char *) first, &args);
  va_end (args);
  return g_build_filename (root, rest, NULL);
}

static gint
compare_strings (gconstpointer a, gconstpointer b)
{
  return g_strcmp0 (*(const char *const *) a, *(const char *const *) b);
}

char **
golden_names (void)
{
  g_autofree char *path = golden_path ("models", NULL);
  g_autoptr (GDir) dir = g_dir_open (path, 0, NULL);
  g_assert_nonnull (dir);
  GPtrArray *names = g_ptr_array_new ();
  for (const char *name; (name = g_dir_read_name (dir));)
    g_ptr_array_add (names, g_strdup (name));
  g_ptr_array_sort (names, compare_strings);
  g_ptr_array_add (names, NULL);
  return (char **) g_ptr_array_free (names, FALSE);
}

static IvlSafetensors *
open_values (const char *path)
{
  g_autoptr (GError) error = NULL;
  char *data;
  gsize size;
  g_file_get_contents (path, &data, &size, &error);
  g_assert_no_error (error);
  g_autoptr (GBytes) bytes = g_bytes_new_take (data, size);
  IvlSafetensors *values = ivl_safetensors_new_from_bytes (bytes, path, &error);
  g_assert_no_error (error);
  return values;
}

Golden *
golden_open (const char *name)
{
  Golden *self = g_new0 (Golden, 1);
  g_autoptr (GError) error = NULL;
  self->name = g_strdup (name);
  self->folder = golden_path ("models", name, NULL);
  g_autofree char *file = g_strconcat (name, ".json", NULL);
  g_autofree char *json = golden_path ("values", file, NULL);
  self->parser = json_parser_new ();
  json_parser_load_from_file (self->parser, json, &error);
  g_assert_no_error (error);
  self->root = json_node_get_object (json_parser_get_root (self->parser));
  g_autofree char *file2 = g_strconcat (name, ".safetensors", NULL);
  g_autofree char *path = golden_path ("values", file2, NULL);
  self->values = open_values (path);
  return self;
}

void
golden_free (Golden *self)
{
  g_free (self->name);
  g_free (self->folder);
  g_object_unref (self->parser);
  ivl_safetensors_free (self->values);
  g_free (self);
}

float *
golden_floats (const Golden *self, const char *name, gsize *n)
{
  IvlTensorView view;
  if (!ivl_safetensors_lookup (self->values, name, &view))
    return NULL;
  g_assert_cmpint (view.dtype, ==, IVL_TENSOR_F32);
  *n = view.bytes / 4;
  return g_memdup2 (view.data, view.bytes);
}

guint32 *
golden_ints (JsonObject *object, const char *key, guint *n)
{
  JsonArray *array = json_object_get_array_member (object, key);
  *n = json_array_get_length (array);
  guint32 *out = g_new (guint32, *n + 1);
  for (guint i = 0; i < *n; i++)
    out[i] = (guint32) json_array_get_int_element (array, i);
  return out;
}

JsonObject *
golden_case (const Golden *self, const char *name)
{
  JsonArray *cases = json_object_get_array_member (self->root, "cases");
  for (guint i = 0; i < json_array_get_length (cases); i++) {
    JsonObject *c = json_array_get_object_element (cases, i);
    if (strcmp (json_object_get_string_member (c, "name"), name) == 0)
      return c;
  }
  g_assert_not_reached ();
}

guint8 *
golden_picture (const char *name, guint *width, guint *height)
{
  g_autofree char *path = golden_path ("pictures.safetensors", NULL);
  g_autoptr (IvlSafetensors) pictures = open_values (path);
  IvlTensorView view;
  g_assert_true (ivl_safetensors_lookup (pictures, name, &view));
  g_assert_cmpuint (view.n_dims, ==, 3);
  *height = (guint) view.shape[0];
  *width = (guint) view.shape[1];
  return g_memdup2 (view.data, view.bytes);
}

guint8 *
golden_formula (guint width, guint height)
{
  guint8 *rgb = g_malloc (3 * (gsize) width * height), *at = rgb;
  for (guint y = 0; y < height; y++)
    for (guint x = 0; x < width; x++)
      for (guint c = 0; c < 3; c++)
        *at++ = (guint8) (x * (3 + c) + y * (5 - c) + ((x * y) >> (4 + c)) + 37 * c);
  return rgb;
}

IvlSafetensors *
golden_values (const char *file)
{
  g_autofree char *path = golden_path (file, NULL);
  return open_values (path);
}

double
golden_difference (const float *a, const float *b, gsize n)
{
  double worst = 0., scale = 0.;
  for (gsize i = 0; i < n; i++) {
    double difference = fabs ((double) a[i] - b[i]);
    if (isnan (difference))
      return INFINITY;
    worst = MAX (worst, difference);
    scale = MAX (scale, fabs ((double) b[i]));
  }
  return worst / MAX (scale, 1e-30);
}
