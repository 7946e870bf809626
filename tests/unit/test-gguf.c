/* GGUF: blocks against the reference's values, metadata of every type, hostile files, and models made of golden
 * folders against those folders, weight by weight and token by token. The folder of goldens is the first argument. */
#include <json-glib/json-glib.h>
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "model/gguf-model.h"
#include "tensor-file.h"
#include "tensor/gguf-pair.h"
#include "tensor/gguf-quants.h"
#include "text/tokenizer.h"

static const char *golden;

static char *
golden_path (const char *kind, const char *name)
{
  return g_build_filename (golden, kind, name, NULL);
}

static IvlGguf *
open_blocks (void)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *folder = g_build_filename (golden, "gguf", NULL);
  IvlGguf *file = ivl_gguf_open (folder, "blocks.gguf", &error);
  g_assert_no_error (error);
  return file;
}

/* ---- blocks ---- */

static void
test_blocks (void)
{
  g_autoptr (IvlGguf) file = open_blocks ();
  guint n_types = 0;
  for (IvlTensorDtype type = IVL_TENSOR_Q4_0; type <= IVL_TENSOR_Q6_K; type++, n_types++) {
    IvlTensorView raw, expected;
    g_autofree char *name = g_strconcat (ivl_quant_name (type), ".f32", NULL);
    g_assert_true (ivl_gguf_lookup (file, ivl_quant_name (type), &raw));
    g_assert_true (ivl_gguf_lookup (file, name, &expected));
    g_assert_cmpint (raw.dtype, ==, type);
    g_assert_cmpint (expected.dtype, ==, IVL_TENSOR_F32);
    g_assert_cmpstr (ivl_tensor_dtype_name (type), ==, raw.dtype_name);
    gsize n = expected.bytes / 4;
    g_assert_cmpuint (ivl_tensor_run_bytes (type, n), ==, raw.bytes);
    g_autofree float *values = g_new (float, n);
    g_autofree guint8 *odd = g_malloc (raw.bytes + 1);
    memcpy (odd + 1, raw.data, raw.bytes); /* in any alignment */
    ivl_tensor_to_f32 (type, odd + 1, values, n);
    for (gsize i = 0; i < n; i++) {
      float want;
      memcpy (&want, (const guint8 *) expected.data + 4 * i, 4);
      if (memcmp (&want, &values[i], 4) != 0)
        g_error ("%s: element %zu is %.9g, not %.9g", raw.dtype_name, i, values[i], want);
    }
    g_assert_cmpuint (ivl_tensor_first_nonfinite (type, raw.data, n), ==, n);
    /* The third block's scale becomes an infinity. */
    gsize block = ivl_quant_block_bytes (type), scale = type == IVL_TENSOR_Q6_K ? 208 : 0;
    odd[1 + 2 * block + scale] = 0;
    odd[1 + 2 * block + scale + 1] = 0xfc;
    g_assert_cmpuint (ivl_tensor_first_nonfinite (type, odd + 1, n), ==, 2 * ivl_quant_block (type));
  }
  g_assert_cmpuint (n_types, ==, 8);
}

/* ---- metadata ---- */

static void
test_values (void)
{
  g_autoptr (IvlGguf) file = open_blocks ();
  g_autoptr (GError) error = NULL;
  static const struct {
    const char *key;
    guint64 value;
  } integers[] = { { "test.u8", 255 }, { "test.u16", 65535 }, { "test.u32", 4294967295u }, { "test.u64", 1ull << 40 } };
  static const struct {
    const char *key;
    double value;
  } numbers[] = { { "test.i8", -1 },  { "test.i16", -2 },   { "test.i32", -3 },          { "test.i64", -(double) (1ll << 40) },
                  { "test.u8", 255 }, { "test.f32", 0.25 }, { "test.f64", 1e-300 } };
  for (guint i = 0; i < G_N_ELEMENTS (integers); i++) {
    guint64 value;
    g_assert_true (ivl_gguf_get_uint (file, integers[i].key, &value, &error));
    g_assert_cmpuint (value, ==, integers[i].value);
  }
  for (guint i = 0; i < G_N_ELEMENTS (numbers); i++) {
    double value;
    g_assert_true (ivl_gguf_get_double (file, numbers[i].key, &value, &error));
    g_assert_true (value == numbers[i].value);
  }
  gboolean flag;
  guint64 value;
  double number;
  guint n;
  g_assert_true (ivl_gguf_get_bool (file, "test.bool", &flag, &error));
  g_assert_true (flag);
  g_autofree char *text = ivl_gguf_get_string (file, "test.string", &error);
  g_assert_cmpstr (text, ==, "Grüße, 世界");
  g_autofree double *floats = ivl_gguf_get_numbers (file, "test.floats", &n, &error);
  g_assert_cmpuint (n, ==, 2);
  g_assert_true (floats[0] == 0.5 && floats[1] == -1);
  g_autofree double *ints = ivl_gguf_get_numbers (file, "test.ints", &n, &error);
  g_assert_cmpuint (n, ==, 3);
  g_assert_true (ints[0] == 1 && ints[1] == -2 && ints[2] == 3);
  g_autoptr (GStringChunk) chunk = g_string_chunk_new (64);
  g_autoptr (GPtrArray) strings = ivl_gguf_get_strings (file, "test.strings", chunk, &error);
  g_assert_cmpuint (strings->len, ==, 3);
  g_assert_cmpstr (strings->pdata[0], ==, "");
  g_assert_cmpstr (strings->pdata[2], ==, "書生");

  g_assert_false (ivl_gguf_get_uint (file, "test.nothing", &value, &error));
  assert_error_is (error, IVL_ERROR_BAD_MODEL, "test.nothing is missing");
  g_assert_false (ivl_gguf_get_uint (file, "test.i8", &value, &error));
  assert_error_is (error, IVL_ERROR_BAD_MODEL, "test.i8 is negative");
  g_assert_false (ivl_gguf_get_uint (file, "test.f32", &value, &error));
  assert_error_is (error, IVL_ERROR_BAD_MODEL, "test.f32 isn't an integer");
  g_assert_false (ivl_gguf_get_uint (file, "test.ints", &value, &error));
  assert_error_is (error, IVL_ERROR_BAD_MODEL, "test.ints is an array");
  g_assert_false (ivl_gguf_get_double (file, "test.string", &number, &error));
  assert_error_is (error, IVL_ERROR_BAD_MODEL, "test.string isn't a finite number");
  g_assert_false (ivl_gguf_get_bool (file, "test.u8", &flag, &error));
  assert_error_is (error, IVL_ERROR_BAD_MODEL, "test.u8 is neither");
  g_assert_null (ivl_gguf_get_string (file, "test.u8", &error));
  assert_error_is (error, IVL_ERROR_BAD_MODEL, "test.u8 isn't UTF-8");
  g_assert_null (ivl_gguf_get_numbers (file, "test.bools", &n, &error));
  assert_error_is (error, IVL_ERROR_BAD_MODEL, "test.bools isn't a list of numbers");
  g_assert_null (ivl_gguf_get_numbers (file, "test.u8", &n, &error));
  assert_error_is (error, IVL_ERROR_BAD_MODEL, "test.u8 is no array");
  g_assert_null (ivl_gguf_get_strings (file, "test.ints", chunk, &error));
  assert_error_is (error, IVL_ERROR_BAD_MODEL, "test.ints isn't a list of strings");
}

/* ---- hostile files ---- */

/* A file is written as words: decimal numbers with a suffix for their width (4 or 8 bytes after a colon, 1 without),
 * "strings" with their length, 'bytes' as they are, | for padding to 32, and zN for N zeros. */
static GBytes *
compose (const char *words)
{
  GByteArray *out = g_byte_array_new ();
  g_auto (GStrv) parts = g_strsplit (words, " ", -1);
  for (guint i = 0; parts[i]; i++) {
    const char *p = parts[i];
    gsize n = strlen (p);
    guint64 length = n - 2, value = g_ascii_strtoull (p + (*p == 'z'), NULL, 10);
    const char *colon = strchr (p, ':');
    guint width = *p == 'z' ? (guint) value : colon ? (guint) (colon[1] - '0') : 1;
    if (*p == '"' || *p == '\'') {
      if (*p == '"')
        g_byte_array_append (out, (guint8 *) &length, 8);
      g_byte_array_append (out, (const guint8 *) p + 1, (guint) length);
    } else if (*p == '|') {
      while (out->len % 32)
        g_byte_array_append (out, (const guint8 *) "", 1);
    } else {
      guint8 bytes[256] = { 0 };
      if (*p != 'z')
        memcpy (bytes, &value, 8);
      g_byte_array_append (out, bytes, width);
    }
  }
  return g_byte_array_free_to_bytes (out);
}

#define START "'GGUF' 3:4 "
#define ONE_TENSOR START "1:8 0:8 "

static void
test_hostile (void)
{
  static const struct {
    const char *words;
    int code; /* 0: opens */
    const char *message;
  } cases[] = {
    { START "0:8 0:8", 0, NULL },
    { "'GGUF' 2:4 0:8 0:8", 0, NULL },
    { START "1:8 1:8 \"k\" 4:4 7:4 \"t\" 2:4 2:8 3:8 0:4 0:8 | z24", 0, NULL },
    { ONE_TENSOR "\"t\" 0:4 0:4 0:8 | z4", 0, NULL },
    { "''", IVL_ERROR_BAD_MODEL, "too few" },
    { "'GG'", IVL_ERROR_BAD_MODEL, "too few" },
    { START "0:8", IVL_ERROR_BAD_MODEL, "too few" },
    { "'GGML' 3:4 0:8 0:8", IVL_ERROR_BAD_MODEL, "not a GGUF file" },
    { "'GGUF' 1:4 0:8 0:8", IVL_ERROR_UNSUPPORTED, "version 1" },
    { "'GGUF' 4:4 0:8 0:8", IVL_ERROR_UNSUPPORTED, "version 4" },
    { "'GGUF' 50331648:4 0:8 0:8", IVL_ERROR_UNSUPPORTED, "big-endian" },
    { START "0:8 18446744073709551615:8", IVL_ERROR_BAD_MODEL, "values and" },
    { START "18446744073709551615:8 0:8", IVL_ERROR_BAD_MODEL, "values and" },
    { START "1:8 0:8", IVL_ERROR_BAD_MODEL, "values and" },
    { START "0:8 1:8 5:8 'ab' z16", IVL_ERROR_BAD_MODEL, "holds what no name does" },
    { START "0:8 1:8 18446744073709551615:8 z16", IVL_ERROR_BAD_MODEL, "more than 512 bytes" },
    { START "0:8 1:8 500:8 z16", IVL_ERROR_BAD_MODEL, "a key at byte 32 reaches beyond" },
    { START "0:8 1:8 \"\" 4:4 1:4 z16", IVL_ERROR_BAD_MODEL, "empty" },
    { START "0:8 1:8 \"\377\" 4:4 1:4", IVL_ERROR_BAD_MODEL, "no name" },
    { START "0:8 1:8 \"key\" 13:4 z16", IVL_ERROR_BAD_MODEL, "key is of type 13" },
    { START "0:8 1:8 \"key\" 4:4 0 z1", IVL_ERROR_BAD_MODEL, "key at byte" },
    { START "0:8 1:8 \"key\" 8:4 9:8 'text'", IVL_ERROR_BAD_MODEL, "key at byte" },
    { START "0:8 1:8 \"key\" 8:4 18446744073709551615:8 'text'", IVL_ERROR_BAD_MODEL, "key at byte" },
    { START "0:8 1:8 \"key\" 9:4 4:4 9223372036854775807:8 z16", IVL_ERROR_BAD_MODEL, "key at byte" },
    { START "0:8 1:8 \"key\" 9:4 8:4 9223372036854775807:8 z64", IVL_ERROR_BAD_MODEL, "key at byte" },
    { START "0:8 1:8 \"key\" 9:4 99:4 1:8 z16", IVL_ERROR_BAD_MODEL, "array of type 99" },
    { START "0:8 1:8 \"key\" 9:4 9:4 1:8 4:4 1:8 7:4", 0, NULL },
    { START "0:8 1:8 \"key\" 9:4 9:4 1:8 9:4 1:8 9:4 1:8 9:4 1:8 9:4 1:8 9:4 1:8 4:4 1:8 7:4",
      IVL_ERROR_BAD_MODEL, "key" },
    { START "0:8 2:8 \"key\" 4:4 1:4 \"key\" 4:4 1:4", IVL_ERROR_BAD_MODEL, "key is there twice" },
    { START "0:8 1:8 \"general.alignment\" 4:4 0:4", IVL_ERROR_BAD_MODEL, "general.alignment is 0" },
    { START "0:8 1:8 \"general.alignment\" 4:4 24:4", IVL_ERROR_BAD_MODEL, "not a power of two" },
    { START "0:8 1:8 \"general.alignment\" 4:4 131072:4", IVL_ERROR_BAD_MODEL, "not a power of two" },
    { START "0:8 1:8 \"general.alignment\" 8:4 \"32\"", IVL_ERROR_BAD_MODEL, "isn't an integer" },
    { ONE_TENSOR "\"t\" 5:4 z60", IVL_ERROR_BAD_MODEL, "t: 5 dimensions" },
    { ONE_TENSOR "\"t\" 4:4 1:8 1:8", IVL_ERROR_BAD_MODEL, "t at byte" },
    { ONE_TENSOR "\"t\" 1:4 0:8 0:4 0:8 |", IVL_ERROR_BAD_MODEL, "has no elements" },
    { ONE_TENSOR "\"t\" 2:4 4294967296:8 4294967296:8 0:4 0:8 |", IVL_ERROR_BAD_MODEL, "overflows" },
    { ONE_TENSOR "\"t\" 1:4 4611686018427387905:8 0:4 0:8 |", IVL_ERROR_BAD_MODEL, "more bytes than the file" },
    { ONE_TENSOR "\"t\" 1:4 1000:8 0:4 0:8 | z64", IVL_ERROR_BAD_MODEL, "more bytes than the file" },
    { ONE_TENSOR "\"t\" 1:4 20:8 0:4 0:8 | z64", IVL_ERROR_BAD_MODEL, "lie outside" },
    { ONE_TENSOR "\"t\" 1:4 8:8 0:4 64:8 | z64", IVL_ERROR_BAD_MODEL, "lie outside" },
    { ONE_TENSOR "\"t\" 1:4 8:8 0:4 18446744073709551584:8 | z64", IVL_ERROR_BAD_MODEL, "lie outside" },
    { ONE_TENSOR "\"t\" 1:4 8:8 0:4 4:8 | z64", IVL_ERROR_BAD_MODEL, "alignment" },
    { ONE_TENSOR "\"t\" 1:4 33:8 8:4 0:8 | z64", IVL_ERROR_BAD_MODEL, "isn't made of blocks of 32" },
    { ONE_TENSOR "\"t\" 1:4 128:8 12:4 0:8 | z144", IVL_ERROR_BAD_MODEL, "isn't made of blocks of 256" },
    { ONE_TENSOR "\"t\" 1:4 256:8 12:4 0:8 | z144", 0, NULL },
    { ONE_TENSOR "\"t\" 1:4 8:8 77:4 0:8 | z64", 0, NULL }, /* of a type to come: for whoever needs it */
    { ONE_TENSOR "\"t\" 1:4 8:8 77:4 96:8 | z64", IVL_ERROR_BAD_MODEL, "lie outside" },
    { START "2:8 0:8 \"t\" 1:4 8:8 0:4 0:8 \"t\" 1:4 8:8 0:4 32:8 | z64", IVL_ERROR_BAD_MODEL, "t is there twice" },
    { START "2:8 0:8 \"t\" 1:4 16:8 0:4 0:8 \"u\" 1:4 8:8 0:4 32:8 | z64", IVL_ERROR_BAD_MODEL, "t and u overlap" },
    { START "2:8 0:8 \"t\" 1:4 8:8 0:4 32:8 \"u\" 1:4 8:8 0:4 0:8 | z64", 0, NULL },
  };
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (GBytes) bytes = compose (cases[i].words);
    g_autofree char *name = g_strescape (cases[i].words, NULL);
    g_test_message ("%s", name);
    g_autoptr (IvlGguf) file = ivl_gguf_new_from_bytes (bytes, "x.gguf", &error);
    if (cases[i].code == 0) {
      g_assert_no_error (error);
      g_assert_nonnull (file);
      continue;
    }
    g_assert_null (file);
    assert_error_is (error, cases[i].code, cases[i].message);
  }
}

/* Every beginning of a file, and every byte of its header changed: refused or sound, never out of bounds. */
static void
test_damaged (void)
{
  g_autofree char *path = g_build_filename (golden, "gguf", "blocks.gguf", NULL);
  g_autofree char *data = NULL;
  gsize size;
  g_assert_true (g_file_get_contents (path, &data, &size, NULL));
  for (gsize n = 0; n < size; n += n < 2048 ? 1 : 997) {
    g_autoptr (GError) error = NULL;
    g_autoptr (GBytes) bytes = g_bytes_new (data, n); /* a copy, so that a sanitizer sees its end */
    g_autoptr (IvlGguf) file = ivl_gguf_new_from_bytes (bytes, "x.gguf", &error);
    g_assert_null (file);
    g_assert_cmpint (error->domain, ==, IVL_ERROR);
  }
  for (gsize at = 0; at < 2048; at++) {
    g_autoptr (GError) error = NULL;
    char old = data[at];
    data[at] = (char) ~old;
    g_autoptr (GBytes) bytes = g_bytes_new (data, size);
    data[at] = old;
    g_autoptr (IvlGguf) file = ivl_gguf_new_from_bytes (bytes, "x.gguf", &error);
    g_assert_true ((file == NULL) == (error != NULL));
    for (guint i = 0; file && i < ivl_gguf_n_tensors (file); i++) {
      IvlTensorView view;
      ivl_gguf_nth (file, i, &view);
      g_assert_true ((const char *) view.data + view.bytes <= (const char *) g_bytes_get_data (bytes, NULL) + size);
    }
  }
}

/* ---- models ---- */

static void
check_config (const IvlConfig *a, const IvlConfig *b)
{
  g_assert_cmpmem (&a->vision, sizeof a->vision, &b->vision, sizeof b->vision);
  g_assert_cmpint (a->text.arch, ==, b->text.arch);
#define SAME(field) g_assert_true (a->field == b->field)
  SAME (layout);
  SAME (downsample);
  SAME (ps_version);
  SAME (tile_tokens);
  SAME (text.hidden);
  SAME (text.layers);
  SAME (text.heads);
  SAME (text.kv_heads);
  SAME (text.head_dim);
  SAME (text.intermediate);
  SAME (text.vocab);
  SAME (text.rms_eps);
  SAME (text.rope_theta);
  SAME (text.rope_scaling);
  SAME (text.rope_factor);
  SAME (text.max_position);
  SAME (text.qkv_bias);
  SAME (text.tied);
  SAME (min_dynamic_patch);
  SAME (max_dynamic_patch);
  SAME (dynamic_image_size);
  SAME (use_thumbnail);
#undef SAME
  g_assert_cmpstr (a->template_name, ==, b->template_name);
}

/* Root mean square of what a row lost, as a share of its own. */
static double
row_loss (const float *a, const float *b, gsize n)
{
  double lost = 0, all = 0;
  for (gsize i = 0; i < n; i++) {
    lost += ((double) a[i] - b[i]) * ((double) a[i] - b[i]);
    all += (double) a[i] * a[i];
  }
  return all > 0 ? sqrt (lost / all) : sqrt (lost);
}

typedef struct {
  const char *folder, *pair;
  double loss; /* 0: bit by bit */
} Twin;

static void
test_weights (gconstpointer data)
{
  const Twin *twin = data;
  g_autoptr (GError) error = NULL;
  g_autofree char *folder = golden_path ("models", twin->folder), *pair = golden_path ("gguf", twin->pair);
  g_autoptr (IvlConfig) config = ivl_config_load (folder, &error), other_config = ivl_config_load (pair, &error);
  g_assert_no_error (error);
  g_autoptr (IvlCheckpoint) a = ivl_checkpoint_open (folder, config, &error);
  g_autoptr (IvlCheckpoint) b = ivl_checkpoint_open (pair, other_config, &error);
  g_assert_no_error (error);
  check_config (config, other_config);
  g_assert_true (ivl_checkpoint_check_unchanged (b, &error));

  for (IvlMatrixId id = 0; id < IVL_N_MATRICES; id++) {
    gboolean text_layer = id >= IVL_MATRIX_TEXT_QKV && id <= IVL_MATRIX_TEXT_DOWN;
    gboolean vit_layer = id >= IVL_MATRIX_VIT_QKV && id <= IVL_MATRIX_VIT_FC2;
    guint layers = text_layer ? config->text.layers : vit_layer ? config->vision.run_layers : 1;
    for (guint layer = 0; layer < layers; layer++) {
      const IvlMatrixSource *x = ivl_checkpoint_matrix (a, id, layer), *y = ivl_checkpoint_matrix (b, id, layer);
      g_assert_cmpuint (x->rows, ==, y->rows);
      g_assert_cmpuint (x->cols, ==, y->cols);
      g_autofree float *row = g_new (float, x->cols), *other = g_new (float, x->cols);
      for (guint r = 0; r < x->rows; r++) {
        ivl_matrix_source_row_f32 (x, r, row);
        ivl_matrix_source_row_f32 (y, r, other);
        g_assert_true (ivl_matrix_source_check_row (y, r, &error));
        double loss = row_loss (row, other, x->cols);
        if (!(loss <= twin->loss))
          g_error ("matrix %u of layer %u: row %u loses %g", id, layer, r, loss);
      }
    }
  }
  for (IvlVectorId id = 0; id < IVL_N_VECTORS; id++) {
    gboolean text_layer = id >= IVL_VECTOR_TEXT_INPUT_NORM && id <= IVL_VECTOR_TEXT_POST_NORM;
    gboolean vit_layer = id >= IVL_VECTOR_VIT_NORM1_WEIGHT && id <= IVL_VECTOR_VIT_LS2;
    guint layers = text_layer ? config->text.layers : vit_layer ? config->vision.run_layers : 1;
    for (guint layer = 0; layer < layers; layer++) {
      gsize n = ivl_checkpoint_vector_size (a, id, layer);
      g_assert_cmpuint (ivl_checkpoint_vector_size (b, id, layer), ==, n);
      if (n == 0)
        continue;
      g_autofree float *x = g_new (float, n), *y = g_new (float, n);
      g_assert_true (ivl_checkpoint_vector (a, id, layer, x, n, &error));
      g_assert_true (ivl_checkpoint_vector (b, id, layer, y, n, &error));
      g_assert_cmpmem (x, n * 4, y, n * 4);
    }
  }
}

static void
check_encoding (IvlTokenizer *a, IvlTokenizer *b, const char *text)
{
  static const IvlEncodeFlags flags[] = { IVL_ENCODE_LITERAL, IVL_ENCODE_TAGS, IVL_ENCODE_SPECIAL | IVL_ENCODE_BOS };
  for (guint i = 0; i < G_N_ELEMENTS (flags); i++) {
    g_autoptr (GArray) x = g_array_new (FALSE, FALSE, 4), y = g_array_new (FALSE, FALSE, 4);
    g_assert_true (ivl_tokenizer_encode (a, text, -1, flags[i], x, NULL));
    g_assert_true (ivl_tokenizer_encode (b, text, -1, flags[i], y, NULL));
    if (x->len != y->len || (x->len && memcmp (x->data, y->data, 4 * x->len) != 0))
      g_error ("\"%s\" is encoded in two ways", text);
  }
}

static void
test_tokenizer (gconstpointer data)
{
  const Twin *twin = data;
  g_autoptr (GError) error = NULL;
  g_autofree char *folder = golden_path ("models", twin->folder), *pair = golden_path ("gguf", twin->pair);
  g_autoptr (IvlTokenizer) a = ivl_tokenizer_load (folder, &error), b = ivl_tokenizer_load (pair, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (ivl_tokenizer_get_n_tokens (a), ==, ivl_tokenizer_get_n_tokens (b));
  g_assert_cmpint (ivl_tokenizer_get_bos (a), ==, ivl_tokenizer_get_bos (b));
  for (guint32 id = 0; id < ivl_tokenizer_get_n_tokens (a); id++) {
    gsize n, m;
    const guint8 *x = ivl_tokenizer_token_bytes (a, id, &n), *y = ivl_tokenizer_token_bytes (b, id, &m);
    g_assert_cmpmem (x, n, y, m);
    /* </s> is InternLM2's eos_token in a folder; the converter names <|im_end|>, and the config </s>. */
    IvlTokenFlags but_end = (IvlTokenFlags) ~IVL_TOKEN_END;
    g_assert_cmpuint (ivl_tokenizer_token_flags (a, id) & but_end, ==, ivl_tokenizer_token_flags (b, id) & but_end);
  }
  gboolean internlm2 = g_str_has_prefix (twin->folder, "internlm2");
  g_autofree char *path = golden_path ("tokenizer", internlm2 ? "internlm2-small.jsonl" : "qwen2-small.jsonl");
  g_autofree char *lines = NULL;
  g_assert_true (g_file_get_contents (path, &lines, NULL, NULL));
  g_auto (GStrv) all = g_strsplit (lines, "\n", -1);
  guint n_texts = 0;
  for (guint i = 0; all[i] && *all[i]; i++, n_texts++) {
    g_autoptr (JsonParser) parser = json_parser_new ();
    g_assert_true (json_parser_load_from_data (parser, all[i], -1, NULL));
    check_encoding (a, b, json_object_get_string_member (json_node_get_object (json_parser_get_root (parser)), "text"));
  }
  g_assert_cmpuint (n_texts, >, 50);
}

/* ---- which files ---- */

static void
copy_file (const char *folder, const char *name, const char *pair, const char *from)
{
  g_autofree char *path = g_build_filename (golden, "gguf", pair, from, NULL), *data = NULL;
  gsize size;
  g_assert_true (g_file_get_contents (path, &data, &size, NULL));
  folder_write (folder, name, data, (gssize) size);
}

static void
expect_pair_error (const char *path, int code, const char *message)
{
  g_autoptr (GError) error = NULL;
  g_assert_true (ivl_gguf_pair_is (path));
  g_assert_null (ivl_config_load (path, &error));
  assert_error_is (error, code, message);
}

static void
test_pair (void)
{
  g_autoptr (GError) error = NULL;
  const char *name = "qwen2-ln-orig", *other = "internlm2-rms-orig";
  g_autofree char *folder = folder_new ();
  g_autofree char *text = g_build_filename (folder, "text.gguf", NULL);
  g_autofree char *mmproj = g_build_filename (folder, "mmproj-a.gguf", NULL);
  g_assert_false (ivl_gguf_pair_is (folder));
  expect_pair_error (text, IVL_ERROR_BAD_MODEL, "text.gguf");

  copy_file (folder, "mmproj-a.gguf", name, "mmproj.gguf");
  expect_pair_error (folder, IVL_ERROR_BAD_MODEL, "no GGUF text model");
  expect_pair_error (mmproj, IVL_ERROR_BAD_MODEL, "is an mmproj file");

  copy_file (folder, "text.gguf", name, "model.gguf");
  g_autoptr (IvlConfig) by_folder = ivl_config_load (folder, &error), by_file = ivl_config_load (text, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (by_folder->text.hidden, ==, by_file->text.hidden);

  /* A second text model: the folder alone doesn't tell, a file does. */
  copy_file (folder, "other.gguf", other, "model.gguf");
  expect_pair_error (folder, IVL_ERROR_BAD_MODEL, "are both text models");
  g_autoptr (IvlConfig) again = ivl_config_load (text, &error);
  g_assert_no_error (error);
  g_assert_nonnull (again);
  /* But not with another's encoder. */
  g_autofree char *second = g_build_filename (folder, "other.gguf", NULL);
  g_autoptr (IvlConfig) mixed = ivl_config_load (second, &error);
  g_assert_no_error (error);
  g_assert_null (ivl_checkpoint_open (second, mixed, &error));
  assert_error_is (error, IVL_ERROR_BAD_MODEL, "mm.model.mlp.1.weight: shape 112x256, expected 96x256");

  copy_file (folder, "mmproj-b.gguf", other, "mmproj.gguf");
  expect_pair_error (text, IVL_ERROR_BAD_MODEL, "are both mmproj files");
  folder_write (folder, "mmproj-b.gguf", "GGUF", 4);
  expect_pair_error (text, IVL_ERROR_BAD_MODEL, "mmproj-b.gguf: 4 bytes are too few");

  /* A checkpoint folder stays one. */
  folder_write (folder, "config.json", "{}", 2);
  g_assert_false (ivl_gguf_pair_is (folder));
  g_autofree char *config = g_build_filename (folder, "config.json", NULL);
  expect_pair_error (config, IVL_ERROR_BAD_MODEL, "give the path of its folder");
  folder_remove (folder);

  g_autofree char *plain = folder_new ();
  copy_file (plain, "text.gguf", name, "model.gguf");
  expect_pair_error (plain, IVL_ERROR_BAD_MODEL, "no mmproj file beside it");
  /* It need not be called one. */
  copy_file (plain, "vision.gguf", name, "mmproj.gguf");
  g_autoptr (IvlConfig) unnamed = ivl_config_load (plain, &error);
  g_assert_no_error (error);
  g_assert_nonnull (unnamed);
  folder_remove (plain);
}

/* ---- wrong metadata ---- */

/* Replaces the first FROM in a file of a pair by TO of the same length. */
static void
write_patched (const char *folder, const char *name, const char *pair, const char *from, const char *to)
{
  g_autofree char *path = g_build_filename (golden, "gguf", pair, name, NULL), *data = NULL;
  gsize size, n = strlen (from);
  g_assert_true (g_file_get_contents (path, &data, &size, NULL));
  g_assert_cmpuint (n, ==, strlen (to));
  char *at = n ? memmem (data, size, from, n) : NULL;
  g_assert_true (n == 0 || at);
  if (at)
    memcpy (at, to, n);
  folder_write (folder, name, data, (gssize) size);
}

static void
test_metadata (void)
{
  static const struct {
    const char *pair, *from, *to; /* in either file */
    gboolean vision;
    int code;
    const char *message;
  } cases[] = {
    { "qwen2-ln-orig", "qwen2", "qwen3", FALSE, IVL_ERROR_UNSUPPORTED, "general.architecture is \"qwen3\"" },
    { "qwen2-ln-orig", "qwen2.block_count", "qwen2.block_kount", FALSE,
      IVL_ERROR_BAD_MODEL, "qwen2.block_count is missing" },
    { "qwen2-ln-orig", "token_embd.weight", "token_embd.wei_ht", FALSE,
      IVL_ERROR_BAD_MODEL, "token_embd.weight is missing" },
    { "qwen2-ln-orig", "blk.1.ffn_up.weight", "blk.9.ffn_up.weight", FALSE,
      IVL_ERROR_BAD_MODEL, "blk.1.ffn_up.weight is missing" },
    { "qwen2-ln-orig", "tokenizer.ggml.pre", "tokenizer.ggml.prx", FALSE,
      IVL_ERROR_BAD_MODEL, "tokenizer.ggml.pre is missing" },
    { "qwen2-ln-orig", "gpt2", "bert", FALSE, IVL_ERROR_UNSUPPORTED, "tokenizer.ggml.model is \"bert\"" },
    { "qwen2-ln-orig", "tokenizer.ggml.merges", "tokenizer.ggml.merg_s", FALSE,
      IVL_ERROR_BAD_MODEL, "tokenizer.ggml.merges is missing" },
    { "qwen2-ln-orig", "tokenizer.ggml.token_type", "tokenizer.ggml.token_typ_", FALSE,
      IVL_ERROR_BAD_MODEL, "token_type is missing" },
    { "internlm2-rms-orig", "tokenizer.ggml.scores", "tokenizer.ggml.scorex", FALSE,
      IVL_ERROR_BAD_MODEL, "scores is missing" },
    { "internlm2-rms-orig", "<0x41>", "<0x4g>", FALSE, IVL_ERROR_BAD_MODEL, "isn't spelled <0xHH>" },
    { "qwen2-ln-orig", "internvl", "internvx", TRUE, IVL_ERROR_UNSUPPORTED, "projector_type is \"internvx\"" },
    { "qwen2-ln-orig", "clip.vision.embedding_length", "clip.vision.embedding_lengtx", TRUE,
      IVL_ERROR_BAD_MODEL, "embedding_length is missing" },
    { "qwen2-ln-orig", "v.position_embd.weight", "v.position_embd.weighx", TRUE,
      IVL_ERROR_BAD_MODEL, "v.position_embd.weight is missing" },
    { "qwen2-ln-orig", "v.blk.1.ln2.bias", "v.blk.1.ln2.bia_", TRUE,
      IVL_ERROR_BAD_MODEL, "v.blk.1.ln2.bias is missing" },
    { "internlm2-rms-orig", "v.blk.1.attn_k_norm", "v.blk.1.attn_x_norm", TRUE,
      IVL_ERROR_BAD_MODEL, "attn_k_norm.weight is missing" },
  };
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    g_test_message ("%s", cases[i].to);
    g_autofree char *folder = folder_new ();
    gboolean vision = cases[i].vision;
    write_patched (folder, vision ? "mmproj.gguf" : "model.gguf", cases[i].pair, cases[i].from, cases[i].to);
    write_patched (folder, vision ? "model.gguf" : "mmproj.gguf", cases[i].pair, "", "");
    g_autoptr (IvlConfig) config = ivl_config_load (folder, &error);
    g_autoptr (IvlCheckpoint) checkpoint = config ? ivl_checkpoint_open (folder, config, &error) : NULL;
    g_autoptr (IvlTokenizer) tokenizer = checkpoint ? ivl_tokenizer_load (folder, &error) : NULL;
    g_assert_null (tokenizer);
    assert_error_is (error, cases[i].code, cases[i].message);
    folder_remove (folder);
  }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_assert_cmpint (argc, ==, 2);
  golden = argv[1];
  static const Twin twins[] = {
    { "internlm2-rms-orig", "internlm2-rms-orig", 0 },
    { "qwen2-ln-orig", "qwen2-ln-orig", 0 },
    { "internlm2-rms-orig", "internlm2-rms-orig-quantised", 0.2 },
  };
  g_test_add_func ("/gguf/blocks", test_blocks);
  g_test_add_func ("/gguf/values", test_values);
  g_test_add_func ("/gguf/hostile", test_hostile);
  g_test_add_func ("/gguf/damaged", test_damaged);
  for (guint i = 0; i < G_N_ELEMENTS (twins); i++) {
    g_autofree char *weights = g_strconcat ("/gguf/weights/", twins[i].pair, NULL);
    g_autofree char *tokenizer = g_strconcat ("/gguf/tokenizer/", twins[i].pair, NULL);
    g_test_add_data_func (weights, &twins[i], test_weights);
    g_test_add_data_func (tokenizer, &twins[i], test_tokenizer);
  }
  g_test_add_func ("/gguf/pair", test_pair);
  g_test_add_func ("/gguf/metadata", test_metadata);
  return g_test_run ();
}
