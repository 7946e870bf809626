/* Makes safetensors files and folders for tests. */
#ifndef TENSOR_FILE_H
#define TENSOR_FILE_H

#include "tensor/dtype.h"

typedef struct {
  GString *header; /* entries so far */
  GByteArray *data;
  GPtrArray *names;
} TensorFile;

TensorFile *tensor_file_new (void);
void tensor_file_free (TensorFile *file);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (TensorFile, tensor_file_free)

/* Element I of the tensor NAME: small multiples of 1/64, exact in every type. */
float tensor_file_value (const char *name, gsize i);

/* Appends a tensor of the shape "2x3" with VALUES, or with tensor_file_value's if NULL. */
void tensor_file_add (TensorFile *file, const char *name, IvlTensorDtype dtype, const char *shape, const float *values);

/* The bytes of the file. */
GBytes *tensor_file_finish (TensorFile *file);
/* A file of HEADER as it stands and N zeros. */
GBytes *tensor_file_raw (const char *header, gsize n);

/* A new folder below the temporary one. */
char *folder_new (void);
void folder_write (const char *folder, const char *name, gconstpointer data, gssize bytes);
void folder_write_bytes (const char *folder, const char *name, GBytes *bytes);
/* Removes the files in it, too. */
void folder_remove (const char *folder);

/* Checks code and text of an error and frees it. */
#define assert_error_is(error, expected_code, part)                                                  \
  G_STMT_START                                                                                       \
  {                                                                                                  \
    g_assert_error (error, IVL_ERROR, expected_code);                                                \
    if (!strstr ((error)->message, part))                                                            \
      g_error ("message \"%s\" doesn't have \"%s\"", (error)->message, (const char *) (part));       \
    g_assert_true (g_utf8_validate ((error)->message, -1, NULL));                                    \
    g_clear_error (&(error));                                                                        \
  }                                                                                                  \
  G_STMT_END

#endif
