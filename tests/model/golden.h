/* Reading of tests/golden; its README.md has the format. */
#ifndef GOLDEN_H
#define GOLDEN_H

#include <json-glib/json-glib.h>

#include "tensor/safetensors.h"

typedef struct {
  char *name, *folder;
  JsonParser *parser;
  JsonObject *root;        /* borrowed from parser */
  IvlSafetensors *values;
} Golden;

/* INTERNVL_GOLDEN: the folder; set by the build. */
char *golden_path (const char *first, ...) G_GNUC_NULL_TERMINATED;
/* Names of all golden models, sorted. */
char **golden_names (void);
Golden *golden_open (const char *name);
void golden_free (Golden *golden);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Golden, golden_free)

/* F32 tensor, or NULL if there is none; N elements. Newly allocated. */
float *golden_floats (const Golden *golden, const char *name, gsize *n);
/* Member KEY, an array of numbers; N elements. Newly allocated. */
guint32 *golden_ints (JsonObject *object, const char *key, guint *n);
JsonObject *golden_case (const Golden *golden, const char *name);
/* U8 [height, width, 3] of pictures.safetensors. Newly allocated. */
guint8 *golden_picture (const char *name, guint *width, guint *height);

/* The picture that any program can make: see "formula" in the README. Newly allocated. */
guint8 *golden_formula (guint width, guint height);
/* A safetensors file of the folder. */
IvlSafetensors *golden_values (const char *file);

/* Largest |a - b| over the largest |b|. */
double golden_difference (const float *a, const float *b, gsize n);

#endif
