#include "tensor-file.h"

#include <glib/gstdio.h>
#include <stdio.h>
#include <string.h>

TensorFile *
tensor_file_new (void)
{
  TensorFile *file = g_new (TensorFile, 1);
  file->header = g_string_new (NULL);
  file->data = g_byte_array_new ();
  file->names = g_ptr_array_new_with_free_func (g_free);
  return file;
}

void
tensor_file_free (TensorFile *file)
{
  g_string_free (file->header, TRUE);
  g_byte_array_unref (file->data);
  g_ptr_array_unref (file->names);
  g_free (file);
}

float
tensor_file_value (const char *name, gsize i)
{
  gsize mixed = (g_str_hash (name) + i) * 2654435761u >> 7;
  return (float) ((int) (mixed % 251) - 125) / 64.f;
}

/* Exact for what tensor_file_value makes and for infinities and NaN. */
static guint16
half_of (float value)
{
  guint32 bits;
  memcpy (&bits, &value, 4);
  guint32 sign = bits >> 16 & 0x8000, exponent = bits >> 23 & 255, mantissa = bits >> 13 & 0x3ff;
  if (exponent == 255)
    return (guint16) (sign | 0x7c00 | mantissa);
  if (exponent == 0)
    return (guint16) sign;
  return (guint16) (sign | (exponent - 112) << 10 | mantissa);
}

static void
append (GByteArray *data, IvlTensorDtype dtype, float value)
{
  guint32 bits;
  memcpy (&bits, &value, 4);
  guint16 bf16 = (guint16) (bits >> 16), f16 = half_of (value);
  if (dtype == IVL_TENSOR_F32)
    g_byte_array_append (data, (const guint8 *) &bits, 4);
  else
    g_byte_array_append (data, (const guint8 *) (dtype == IVL_TENSOR_F16 ? &f16 : &bf16), 2);
}

void
tensor_file_add (TensorFile *file, const char *name, IvlTensorDtype dtype, const char *shape, const float *values)
{
  g_auto (GStrv) dims = g_strsplit (shape, "x", -1);
  g_autofree char *list = g_strjoinv (",", dims);
  gsize n = 1, begin = file->data->len;
  for (guint i = 0; dims[i]; i++)
    n *= g_ascii_strtoull (dims[i], NULL, 10);
  for (gsize i = 0; i < n; i++)
    append (file->data, dtype, values ? values[i] : tensor_file_value (name, i));
  g_string_append_printf (file->header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%u]}",
                          file->names->len ? "," : "", name, ivl_tensor_dtype_name (dtype), list, begin,
                          file->data->len);
  g_ptr_array_add (file->names, g_strdup (name));
}

static GBytes *
join (const char *header, gconstpointer data, gsize n)
{
  GByteArray *all = g_byte_array_new ();
  guint64 size = GUINT64_TO_LE (strlen (header));
  g_byte_array_append (all, (const guint8 *) &size, 8);
  g_byte_array_append (all, (const guint8 *) header, (guint) strlen (header));
  if (data)
    g_byte_array_append (all, data, (guint) n);
  else
    g_byte_array_set_size (all, all->len + (guint) n);
  if (!data)
    memset (all->data + all->len - n, 0, n);
  return g_byte_array_free_to_bytes (all);
}

GBytes *
tensor_file_finish (TensorFile *file)
{
  g_autofree char *header = g_strdup_printf ("{\"__metadata__\":{\"format\":\"pt\"}%s%s}", file->names->len ? "," : "",
                                             file->header->str);
  return join (header, file->data->len ? file->data->data : (guint8 *) "", file->data->len);
}

GBytes *
tensor_file_raw (const char *header, gsize n)
{
  return join (header, NULL, n);
}

char *
folder_new (void)
{
  GError *error = NULL;
  char *folder = g_dir_make_tmp ("ivl-test-XXXXXX", &error);
  g_assert_no_error (error);
  return folder;
}

void
folder_write (const char *folder, const char *name, gconstpointer data, gssize bytes)
{
  g_autofree char *path = g_build_filename (folder, name, NULL);
  gsize n = bytes < 0 ? strlen (data) : (gsize) bytes;
  FILE *file = g_fopen (path, "wb");
  g_assert_nonnull (file);
  g_assert_cmpuint (fwrite (data, 1, n, file), ==, n);
  g_assert_cmpint (fclose (file), ==, 0);
}

void
folder_write_bytes (const char *folder, const char *name, GBytes *bytes)
{
  gsize n;
  gconstpointer data = g_bytes_get_data (bytes, &n);
  folder_write (folder, name, data, (gssize) n);
}

void
folder_remove (const char *folder)
{
  GDir *dir = g_dir_open (folder, 0, NULL);
  const char *name;
  while ((name = g_dir_read_name (dir))) {
    g_autofree char *path = g_build_filename (folder, name, NULL);
    g_remove (path);
  }
  g_dir_close (dir);
  g_assert_cmpint (g_rmdir (folder), ==, 0);
}
