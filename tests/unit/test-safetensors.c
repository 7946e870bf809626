/* The safetensors reader: types, good files, and everything a bad one may say. */
#include "tensor/safetensors.h"

#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/json.h"
#include "tensor-file.h"

static void
test_f16 (void)
{
  for (guint h = 0; h < 0x10000; h++) {
    guint16 bits = (guint16) h;
    float is;
    ivl_tensor_to_f32 (IVL_TENSOR_F16, &bits, &is, 1);
    int exponent = h >> 10 & 31, mantissa = h & 0x3ff;
    double expected = exponent == 0 ? ldexp (mantissa, -24) : ldexp (1024 + mantissa, exponent - 25);
    if (exponent == 31)
      expected = mantissa ? NAN : INFINITY;
    if (isnan (expected))
      g_assert_true (isnan (is));
    else
      g_assert_cmpfloat (is, ==, h & 0x8000 ? -expected : expected);
    g_assert_cmpint (!!signbit (is), ==, h >> 15);
    g_assert_cmpuint (ivl_tensor_first_nonfinite (IVL_TENSOR_F16, &bits, 1), ==, exponent == 31 ? 0 : 1);
  }
}

static void
test_bf16 (void)
{
  for (guint h = 0; h < 0x10000; h++) {
    guint16 bits = (guint16) h;
    guint32 is;
    float value;
    ivl_tensor_to_f32 (IVL_TENSOR_BF16, &bits, &value, 1);
    memcpy (&is, &value, 4);
    g_assert_cmphex (is, ==, h << 16);
    g_assert_cmpuint (ivl_tensor_first_nonfinite (IVL_TENSOR_BF16, &bits, 1), ==, isfinite (value) ? 1 : 0);
  }
}

/* One bad element at every place of rows of every length, in every alignment. The others are the largest finite
 * value, whose exponent is the nearest. */
static void
test_nonfinite (void)
{
  static const struct {
    IvlTensorDtype dtype;
    guint32 largest, bad[3];
  } types[] = {
    { IVL_TENSOR_F32, 0xff7fffff, { 0x7f800000, 0xff800000, 0x7f800001 } },
    { IVL_TENSOR_F16, 0xfbff, { 0x7c00, 0xfc00, 0x7c01 } },
    { IVL_TENSOR_BF16, 0xff7f, { 0x7f80, 0xff80, 0x7f81 } },
  };
  for (guint t = 0; t < G_N_ELEMENTS (types); t++)
    for (gsize n = 0; n < 20; n++)
      for (guint shift = 0; shift < 8; shift++) {
        gsize size = ivl_tensor_dtype_bytes (types[t].dtype);
        g_autofree guint8 *data = g_malloc (n * size + shift + 1);
        guint8 *row = data + shift;
        for (gsize i = 0; i < n; i++)
          memcpy (row + i * size, &types[t].largest, size);
        g_assert_cmpuint (ivl_tensor_first_nonfinite (types[t].dtype, row, n), ==, n);
        for (gsize i = n; i-- > 0;) {
          memcpy (row + i * size, &types[t].bad[i % 3], size);
          g_assert_cmpuint (ivl_tensor_first_nonfinite (types[t].dtype, row, n), ==, i);
        }
      }
}

static void
test_json (void)
{
  static const struct {
    const char *text, *cause; /* NULL: fine */
  } cases[] = {
    { "{\"a\": [1, -2.5e3, true, false, null, \"\\u00e9\\ud83d\\ude00\\n\"]}", NULL },
    { "{\"a\": 0.1234567890123456789}", NULL },
    { "", "empty" },
    { "   ", "empty" },
    { "{", "ends too early" },
    { "{]", "corrupt" },
    { "}", "closing bracket" },
    { "{\"a\": 1, \"a\": 2}", "twice" },
    { "{\"b\": [{\"a\": 1, \"a\": 1}]}", "twice" },
    { "{\"a\": 1, \"\\u0061\": 2}", "twice" },
    { "{\"a\": \"\\ud800\"}", "bad escape" },
    { "{\"a\": \"\\ud800\\u0041\"}", "bad escape" },
    { "{\"a\": \"\\udc00\"}", "bad escape" },
    { "{\"a\": \"\\u12\"}", "bad escape" },
    { "{\"a\": \"\\x41\"}", "bad escape" },
    { "{\"a\": \"\t\"}", "control" },
    { "{\"a\": \"", "without end" },
    { "{\"a\": \"\\", "without end" },
    { "{\"a\": 12345678901234567890}", "18 digits" },
    { "{\"a\": 1} // comment", "not JSON" },
    { "{/* \"b\": 2 */ \"a\": 1}", "not JSON" },
    { "var a = {}", "not JSON" },
    { "{'a': 1}", "not JSON" },
    { "{\"a\": 0x10}", "not JSON" },
    { "{\"a\": NaN}", "not JSON" },
    { "{\"a\" 1}", "corrupt" },
    { "{\"a\": 1 \"b\": 2}", "corrupt" },
    { "{\"a\": tru}", "corrupt" },
    { "{\"a\": \"\xff\"}", "UTF-8 at byte 7" },
    { "[1, 2]", "not an object" },
    { "12", "not an object" },
  };
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    /* Without a terminator, so that reading past the end shows. */
    gsize n = strlen (cases[i].text);
    g_autofree char *text = g_memdup2 (cases[i].text, n);
    g_autoptr (JsonObject) object = ivl_json_parse_object ("x.json", text ? text : "", n, &error);
    if (cases[i].cause)
      assert_error_is (error, IVL_ERROR_BAD_MODEL, cases[i].cause);
    else
      g_assert_no_error (error);
    g_assert_true (!cases[i].cause == (object != NULL));
  }

  g_autoptr (GError) error = NULL;
  g_assert_null (ivl_json_parse ("x.json", "{\"a\": 1}\0", 9, &error));
  assert_error_is (error, IVL_ERROR_BAD_MODEL, "UTF-8");
  for (guint depth = IVL_JSON_MAX_DEPTH; depth < 2000000; depth = depth * 3 + 1) {
    g_autoptr (GString) text = g_string_new (NULL);
    for (guint i = 0; i < depth; i++)
      g_string_append_c (text, '[');
    for (guint i = 0; i < depth; i++)
      g_string_append_c (text, ']');
    JsonNode *node = ivl_json_parse ("x.json", text->str, text->len, &error);
    if (depth <= IVL_JSON_MAX_DEPTH) {
      g_assert_nonnull (node);
      json_node_unref (node);
    } else
      assert_error_is (error, IVL_ERROR_BAD_MODEL, "deeply");
  }
}

/* Every view inside BYTES, found by name, with a size that fits its shape. */
static void
check_views (IvlSafetensors *file, GBytes *bytes)
{
  gsize size;
  const guint8 *start = g_bytes_get_data (bytes, &size);
  for (guint i = 0; i < ivl_safetensors_n_tensors (file); i++) {
    IvlTensorView view, found;
    ivl_safetensors_nth (file, i, &view);
    g_assert_true (ivl_safetensors_lookup (file, view.name, &found));
    g_assert_true (found.data == view.data);
    const guint8 *data = view.data;
    g_assert_true (data >= start && data <= start + size && view.bytes <= (gsize) (start + size - data));
    gsize n = 1;
    for (guint d = 0; d < view.n_dims; d++)
      n *= view.shape[d];
    if (view.dtype != IVL_TENSOR_OTHER)
      g_assert_cmpuint (n * ivl_tensor_dtype_bytes (view.dtype), ==, view.bytes);
  }
}

static GBytes *
small_file (void)
{
  g_autoptr (TensorFile) file = tensor_file_new ();
  tensor_file_add (file, "odd.bf16", IVL_TENSOR_BF16, "3x5", NULL);
  tensor_file_add (file, "f32", IVL_TENSOR_F32, "2x2", NULL); /* not aligned to 4 */
  tensor_file_add (file, "empty", IVL_TENSOR_F16, "0x7", NULL);
  tensor_file_add (file, "f16", IVL_TENSOR_F16, "1x1x4", NULL);
  return tensor_file_finish (file);
}

static void
test_good (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GBytes) bytes = small_file ();
  g_autofree char *folder = folder_new ();
  folder_write_bytes (folder, "model.safetensors", bytes);
  for (guint from_file = 0; from_file < 2; from_file++) {
    g_autoptr (IvlSafetensors) file = from_file ? ivl_safetensors_open (folder, &error)
                                                : ivl_safetensors_new_from_bytes (bytes, "model.safetensors", &error);
    g_assert_no_error (error);
    g_assert_cmpuint (ivl_safetensors_n_tensors (file), ==, 4);
    g_assert_cmpstr (ivl_safetensors_source (file), ==, "model.safetensors");
    static const struct {
      const char *name, *shape;
      IvlTensorDtype dtype;
    } expected[] = {
      { "odd.bf16", "3x5", IVL_TENSOR_BF16 },
      { "f32", "2x2", IVL_TENSOR_F32 },
      { "empty", "0x7", IVL_TENSOR_F16 },
      { "f16", "1x1x4", IVL_TENSOR_F16 },
    };
    for (guint i = 0; i < G_N_ELEMENTS (expected); i++) {
      IvlTensorView view, nth;
      float value;
      g_assert_true (ivl_safetensors_lookup (file, expected[i].name, &view));
      ivl_safetensors_nth (file, i, &nth); /* in the file's order */
      g_assert_cmpstr (nth.name, ==, expected[i].name);
      g_autofree char *shape = ivl_tensor_shape_string (view.shape, view.n_dims);
      g_assert_cmpstr (shape, ==, expected[i].shape);
      g_assert_cmpstr (view.file, ==, "model.safetensors");
      g_assert_cmpstr (view.dtype_name, ==, ivl_tensor_dtype_name (view.dtype));
      g_assert_cmpint (view.dtype, ==, expected[i].dtype);
      gsize size = ivl_tensor_dtype_bytes (view.dtype);
      for (gsize e = 0; e < view.bytes / size; e++) {
        ivl_tensor_to_f32 (view.dtype, (const guint8 *) view.data + e * size, &value, 1);
        g_assert_cmpfloat (value, ==, tensor_file_value (view.name, e));
      }
    }
    IvlTensorView view;
    g_assert_false (ivl_safetensors_lookup (file, "__metadata__", &view));
    g_assert_false (ivl_safetensors_lookup (file, "", &view));
    g_assert_true (ivl_safetensors_check_unchanged (file, &error));
  }
  folder_remove (folder);
}

static void
test_headers (void)
{
#define T(dtype, shape, offsets) "{\"a\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
  static const struct {
    const char *header;
    gsize data_bytes;
    const char *cause; /* NULL: opens */
  } cases[] = {
    { T ("\"F32\"", "[2,2]", "[0,16]"), 16, NULL },
    { T ("\"F32\"", "[2,2]", "[0,16]"), 20, NULL },
    { T ("\"F32\"", "[2,2]", "[4,20]"), 20, NULL },
    { T ("\"F32\"", "[]", "[0,4]"), 4, NULL },
    { T ("\"F32\"", "[0]", "[4,4]"), 4, NULL },
    { T ("\"F32\"", "[0,4611686018427387904]", "[0,0]"), 4, "18 digits" },
    { T ("\"F32\"", "[0,461168601842738790]", "[0,0]"), 4, NULL },
    { T ("\"I64\"", "[2]", "[0,16]"), 16, NULL },
    { T ("\"F99\"", "[2]", "[0,3]"), 16, NULL },
    { "{}", 0, NULL },
    { "{\"__metadata__\":{\"a\":\"b\"}}", 0, NULL },
    { T ("\"F32\"", "[2,2]", "[0,16]"), 15, "outside the file" },
    { T ("\"F32\"", "[2,2]", "[8,24]"), 16, "outside the file" },
    { T ("\"F32\"", "[2,2]", "[16,0]"), 16, "range" },
    { T ("\"F32\"", "[2,2]", "[-4,12]"), 16, "range" },
    { T ("\"F32\"", "[2,2]", "[0,16,32]"), 32, "range" },
    { T ("\"F32\"", "[2,2]", "[0]"), 16, "range" },
    { T ("\"F32\"", "[2,2]", "[0.0,16.0]"), 16, "range" },
    { T ("\"F32\"", "[2,2]", "[\"0\",\"16\"]"), 16, "range" },
    { T ("\"F32\"", "[2,2]", "[0,12]"), 16, "a: shape 2x2 of F32 needs 16 bytes, the header gives it 12" },
    { T ("\"BF16\"", "[2,2]", "[0,16]"), 16, "needs 8 bytes" },
    { T ("\"I64\"", "[2]", "[0,8]"), 16, "needs 16 bytes" },
    { T ("\"F32\"", "[-2,2]", "[0,16]"), 16, "dimension 0" },
    { T ("\"F32\"", "[2,2.0]", "[0,16]"), 16, "dimension 1" },
    { T ("\"F32\"", "[[2],2]", "[0,16]"), 16, "dimension 0" },
    { T ("\"F32\"", "[4294967296,4294967296]", "[0,0]"), 16, "overflows" },
    { T ("\"F32\"", "[4294967296,1073741824]", "[0,0]"), 16, "overflows" },
    { T ("\"F16\"", "[4294967296,2147483648]", "[0,0]"), 16, "overflows" },
    { T ("\"F99\"", "[4294967296,4294967296]", "[0,0]"), 16, "overflows" },
    { T ("\"F32\"", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, "9 dimensions" },
    { T ("32", "[2]", "[0,8]"), 8, "of a wrong type" },
    { T ("\"F32\"", "2", "[0,8]"), 8, "of a wrong type" },
    { T ("\"F32\"", "[2]", "{}"), 8, "of a wrong type" },
    { T ("null", "[2]", "[0,8]"), 8, "of a wrong type" },
    { T ("\"\"", "[2]", "[0,8]"), 8, "dtype is no name" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "missing" },
    { "{\"a\":[]}", 8, "isn't an object" },
    { "{\"\":{}}", 8, "name is empty" },
    { "{\"a\\nb\":{}}", 8, "control characters" },
    { "[]", 8, "not an object" },
    { "{\"a\":", 8, "corrupt" },
    { "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "twice" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
      "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}", 16, "twice" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
      "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[7,15]}}", 16, "a and b overlap" },
    { "{\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]},"
      "\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", 16, "a and b overlap" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
      "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 16, "overlap" },
  };
#undef T
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (GBytes) bytes = tensor_file_raw (cases[i].header, cases[i].data_bytes);
    g_autoptr (IvlSafetensors) file = ivl_safetensors_new_from_bytes (bytes, "bad.safetensors", &error);
    g_test_message ("%s", cases[i].header);
    if (cases[i].cause) {
      g_assert_null (file);
      g_assert_true (g_str_has_prefix (error->message, "bad.safetensors: "));
      assert_error_is (error, IVL_ERROR_BAD_MODEL, cases[i].cause);
    } else {
      g_assert_no_error (error);
      check_views (file, bytes);
    }
  }

  g_autoptr (GError) error = NULL;
  g_autoptr (GString) name = g_string_new ("{\"");
  for (guint i = 0; i < 600; i++)
    g_string_append (name, "é");
  g_string_append (name, "\":{}}");
  g_autoptr (GBytes) bytes = tensor_file_raw (name->str, 0);
  g_assert_null (ivl_safetensors_new_from_bytes (bytes, "x", &error));
  assert_error_is (error, IVL_ERROR_BAD_MODEL, "name");
}

/* The header's size says anything. */
static void
test_header_size (void)
{
  g_autoptr (GBytes) good = small_file ();
  gsize size;
  const guint8 *data = g_bytes_get_data (good, &size);
  guint64 right;
  memcpy (&right, data, 8);
  const guint64 sizes[] = { 0, 1, right - 1, right + 1, size - 8, size - 7, size, G_MAXUINT32, G_MAXUINT64 / 2,
                            G_MAXUINT64 - 8, G_MAXUINT64 - 7, G_MAXUINT64 };
  for (guint i = 0; i < G_N_ELEMENTS (sizes); i++) {
    g_autoptr (GError) error = NULL;
    g_autofree guint8 *copy = g_memdup2 (data, size);
    memcpy (copy, &sizes[i], 8);
    g_autoptr (GBytes) bytes = g_bytes_new (copy, size);
    g_assert_null (ivl_safetensors_new_from_bytes (bytes, "x", &error));
    assert_error_is (error, IVL_ERROR_BAD_MODEL, "x: ");
  }
}

/* Cut anywhere, in memory and on disk: an error, never a fault. */
static void
test_truncated (void)
{
  g_autoptr (GBytes) good = small_file ();
  g_autofree char *folder = folder_new ();
  gsize size = g_bytes_get_size (good);
  for (gsize n = 0; n < size; n++) {
    g_autoptr (GError) error = NULL;
    /* A copy of just this length lets ASan see a read beyond it. */
    g_autofree guint8 *copy = g_malloc (MAX (n, 1));
    memcpy (copy, g_bytes_get_data (good, NULL), n);
    g_autoptr (GBytes) bytes = g_bytes_new_static (copy, n);
    g_assert_null (ivl_safetensors_new_from_bytes (bytes, "x", &error));
    assert_error_is (error, IVL_ERROR_BAD_MODEL, "x: ");
    folder_write (folder, "model.safetensors", copy, (gssize) n);
    g_assert_null (ivl_safetensors_open (folder, &error));
    assert_error_is (error, IVL_ERROR_BAD_MODEL, "model.safetensors: ");
  }
  folder_remove (folder);
}

/* Any byte of size and header changed to any of a few others. */
static void
test_flipped (void)
{
  g_autoptr (GBytes) good = small_file ();
  gsize size;
  const guint8 *data = g_bytes_get_data (good, &size);
  guint64 header;
  memcpy (&header, data, 8);
  static const guint8 others[] = { 0, 1, ' ', '"', '0', '9', '-', '.', ',', '[', ']', '{', '}', ':', '\\', 'e', 0xff };
  for (gsize i = 0; i < 8 + header; i++)
    for (guint k = 0; k < G_N_ELEMENTS (others); k++) {
      g_autoptr (GError) error = NULL;
      g_autofree guint8 *copy = g_memdup2 (data, size);
      copy[i] = others[k];
      g_autoptr (GBytes) bytes = g_bytes_new_static (copy, size);
      g_autoptr (IvlSafetensors) file = ivl_safetensors_new_from_bytes (bytes, "x", &error);
      g_assert_true ((file != NULL) == (error == NULL));
      if (file)
        check_views (file, bytes);
    }
}

static void
test_sharded (void)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *folder = folder_new ();
  g_autoptr (TensorFile) one = tensor_file_new ();
  g_autoptr (TensorFile) two = tensor_file_new ();
  tensor_file_add (one, "a", IVL_TENSOR_F32, "4", NULL);
  tensor_file_add (one, "both", IVL_TENSOR_F32, "2", NULL);
  tensor_file_add (two, "b", IVL_TENSOR_BF16, "4", NULL);
  tensor_file_add (two, "both", IVL_TENSOR_F16, "2", NULL);
  g_autoptr (GBytes) first = tensor_file_finish (one);
  g_autoptr (GBytes) second = tensor_file_finish (two);
  folder_write_bytes (folder, "model-00001-of-00002.safetensors", first);
  folder_write_bytes (folder, "model-00002-of-00002.safetensors", second);
  const char *index = "{\"metadata\":{\"total_size\":99},\"weight_map\":{"
                      "\"a\":\"model-00001-of-00002.safetensors\",\"b\":\"model-00002-of-00002.safetensors\","
                      "\"both\":\"model-00002-of-00002.safetensors\"}}";
  folder_write (folder, "model.safetensors.index.json", index, -1);
  IvlSafetensors *file = ivl_safetensors_open (folder, &error);
  g_assert_no_error (error);
  IvlTensorView view;
  g_assert_cmpuint (ivl_safetensors_n_tensors (file), ==, 3);
  g_assert_true (ivl_safetensors_lookup (file, "a", &view));
  g_assert_cmpstr (view.file, ==, "model-00001-of-00002.safetensors");
  g_assert_true (ivl_safetensors_lookup (file, "both", &view));
  g_assert_cmpint (view.dtype, ==, IVL_TENSOR_F16);

  /* Somebody shortens a file in use. */
  g_autofree char *path = g_build_filename (folder, "model-00002-of-00002.safetensors", NULL);
  g_assert_true (ivl_safetensors_check_unchanged (file, &error));
  g_assert_cmpint (truncate (path, 20), ==, 0);
  g_assert_false (ivl_safetensors_check_unchanged (file, &error));
  assert_error_is (error, IVL_ERROR_IO, "model-00002-of-00002.safetensors: changed its size");
  ivl_safetensors_free (file);
  g_assert_null (ivl_safetensors_open (folder, &error));
  assert_error_is (error, IVL_ERROR_BAD_MODEL, "model-00002-of-00002.safetensors: a header of");
  /* A clone without LFS. */
  g_assert_true (g_file_set_contents (path, "version https://git-lfs.github.com/spec/v1\n", -1, NULL));
  g_assert_null (ivl_safetensors_open (folder, &error));
  assert_error_is (error, IVL_ERROR_BAD_MODEL, "git lfs pull");

  g_assert_cmpint (unlink (path), ==, 0);
  g_assert_null (ivl_safetensors_open (folder, &error));
  assert_error_is (error, IVL_ERROR_BAD_MODEL, "model-00002-of-00002.safetensors: missing from");
  g_assert_cmpint (mkdir (path, 0700), ==, 0);
  g_assert_null (ivl_safetensors_open (folder, &error));
  assert_error_is (error, IVL_ERROR_IO, "not a regular file");
  g_assert_cmpint (rmdir (path), ==, 0);
  g_assert_cmpint (mkfifo (path, 0600), ==, 0); /* must not wait for a writer */
  g_assert_null (ivl_safetensors_open (folder, &error));
  assert_error_is (error, IVL_ERROR_IO, "not a regular file");
  g_assert_cmpint (unlink (path), ==, 0);

  folder_write_bytes (folder, "model-00002-of-00002.safetensors", first);
  g_assert_null (ivl_safetensors_open (folder, &error));
  assert_error_is (error, IVL_ERROR_BAD_MODEL, "model-00002-of-00002.safetensors: b is missing");

  static const struct {
    const char *index, *cause;
  } cases[] = {
    { "", "empty" },
    { "{}", "weight_map" },
    { "{\"weight_map\":[]}", "weight_map" },
    { "{\"weight_map\":{\"a\":1}}", "a: its shard" },
    { "{\"weight_map\":{\"a\":null}}", "a: its shard" },
    { "{\"weight_map\":{\"a\":\"\"}}", "a: its shard" },
    { "{\"weight_map\":{\"a\":\"..\"}}", "a: its shard" },
    { "{\"weight_map\":{\"a\":\"../x.safetensors\"}}", "a: its shard" },
    { "{\"weight_map\":{\"a\":\"/etc/x.safetensors\"}}", "a: its shard" },
    { "{\"weight_map\":{\"a\":\"x/y.safetensors\"}}", "a: its shard" },
    { "{\"weight_map\":{\"a\":\"x\\\\y.safetensors\"}}", "a: its shard" },
    { "{\"weight_map\":{\"a\":\".safetensors\"}}", "a: its shard" },
    { "{\"weight_map\":{\"a\":\"config.json\"}}", "a: its shard" },
    { "{\"weight_map\":{\"\":\"x.safetensors\"}}", "name is empty" },
    { "{\"weight_map\":{\"a\":\"x.safetensors\",\"a\":\"y.safetensors\"}}", "twice" },
    { "{\"weight_map\":{\"a\":\"x.safetensors\"}}", "x.safetensors: missing from" },
  };
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    folder_write (folder, "model.safetensors.index.json", cases[i].index, -1);
    g_assert_null (ivl_safetensors_open (folder, &error));
    assert_error_is (error, IVL_ERROR_BAD_MODEL, cases[i].cause);
  }
  folder_remove (folder);
}

static void
test_no_weights (void)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *folder = folder_new ();
  g_assert_null (ivl_safetensors_open (folder, &error));
  assert_error_is (error, IVL_ERROR_BAD_MODEL, "neither");
  folder_write (folder, "pytorch_model.bin", "x", 1);
  g_assert_null (ivl_safetensors_open (folder, &error));
  assert_error_is (error, IVL_ERROR_UNSUPPORTED, "safe_serialization");
  folder_remove (folder);
  g_assert_null (ivl_safetensors_open (folder, &error));
  assert_error_is (error, IVL_ERROR_BAD_MODEL, "neither");
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/tensor/f16", test_f16);
  g_test_add_func ("/tensor/bf16", test_bf16);
  g_test_add_func ("/tensor/nonfinite", test_nonfinite);
  g_test_add_func ("/json", test_json);
  g_test_add_func ("/safetensors/good", test_good);
  g_test_add_func ("/safetensors/headers", test_headers);
  g_test_add_func ("/safetensors/header-size", test_header_size);
  g_test_add_func ("/safetensors/truncated", test_truncated);
  g_test_add_func ("/safetensors/flipped", test_flipped);
  g_test_add_func ("/safetensors/sharded", test_sharded);
  g_test_add_func ("/safetensors/no-weights", test_no_weights);
  return g_test_run ();
}
