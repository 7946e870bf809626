/* The choice of matmuls that is timed once and kept: whatever the file holds, the choice is a sound one and results stay
 * the same; and sums don't depend on how many rows there are. Each case runs in a process of its own, since a choice holds for a process's life. */
#include <internvl/internvl.h>
#include <glib/gstdio.h>
#include <string.h>

#include "kernels/gemm-tune.h"

#define N 1024
#define K 1024
#define M 20

static void
die (GError *error)
{
  g_error ("%s", error->message);
}

/* A matrix [N, K], rows to multiply by it and room for results. */
typedef struct {
  IvlDevice *device;
  IvlVkStream *stream;
  IvlVkBuffer *buffers[3];
  IvlSpan slice;
  IvlWeight weight;
  IvlRows x, y;
} Matmul;

static void
matmul_init (Matmul *t, guint m, guint n, guint k)
{
  g_autoptr (GError) error = NULL;
  t->device = ivl_device_open (NULL, &error);
  t->stream = t->device ? ivl_vk_stream_new (t->device, &error) : NULL;
  if (!t->stream)
    die (error);
  gsize bytes[] = { ivl_weight_slice_bytes (IVL_DTYPE_F16, n, k), 4 * (gsize) m * k, 4 * (gsize) m * n };
  for (guint i = 0; i < 3; i++)
    if (!(t->buffers[i] = ivl_vk_buffer_new (t->device, IVL_VK_DEVICE, bytes[i], &error)))
      die (error);
  g_autofree guint16 *values = g_malloc (bytes[0]);
  for (gsize i = 0; i < bytes[0] / 2; i++)
    values[i] = (guint16) (0x2c00 + (guint32) (i * 2654435761u) % 0x800); /* 2^-4 to 2^-2 */
  g_autofree float *rows = g_new (float, (gsize) m * k);
  for (gsize i = 0; i < (gsize) m * k; i++)
    rows[i] = (float) ((gint32) ((guint32) i * 2246822519u) >> 16) * 0x1p-12f;
  t->slice = (IvlSpan){ t->buffers[0], 0, bytes[0] };
  t->weight = (IvlWeight){ .dtype = IVL_DTYPE_F16, .n = n, .k = k, .k_pad = k, .slice_n = n, .n_slices = 1,
                           .slices = &t->slice };
  t->x = ivl_rows ((IvlSpan){ t->buffers[1], 0, bytes[1] }, k);
  t->y = ivl_rows ((IvlSpan){ t->buffers[2], 0, bytes[2] }, n);
  if (!ivl_vk_write (t->stream, t->slice, values, bytes[0], &error)
      || !ivl_vk_write (t->stream, t->x.span, rows, bytes[1], &error))
    die (error);
}

static void
matmul_deinit (Matmul *t)
{
  ivl_vk_stream_free (t->stream);
  for (guint i = 0; i < 3; i++)
    ivl_vk_buffer_free (t->buffers[i]);
  ivl_device_unref (t->device);
}

static void
run_matmul (Matmul *t, guint m, IvlGemmChoice choice, float *out)
{
  g_autoptr (GError) error = NULL;
  if (!ivl_vk_begin (t->stream, &error))
    die (error);
  ivl_gemm_with (t->stream, &t->weight, t->x, m, t->y, &(IvlGemmEpilogue){ 0 }, choice);
  if (!ivl_vk_run (t->stream, &error) || !ivl_vk_read (t->stream, t->y.span, out, 4 * (gsize) m * t->weight.n, &error))
    die (error);
}

/* Tunes, in a process of its own. */
static void
child (void)
{
  Matmul t;
  matmul_init (&t, M, N, K);
  g_autofree float *before = g_new (float, M * N), *after = g_new (float, M * N);
  run_matmul (&t, M, ivl_gemm_choose (t.device, &t.weight, M), before);
  ivl_gemm_tune (t.device, t.stream, &t.weight);
  for (guint m = 1; m <= 300; m += m < 20 ? 1 : 70) {
    IvlGemmChoice choice = ivl_gemm_choose (t.device, &t.weight, m);
    g_assert_cmpuint (choice.shader, <, ivl_n_gemm_shaders);
    g_assert_null (ivl_gemm_lacks (t.device, &ivl_gemm_shaders[choice.shader], &t.weight));
    g_assert_cmpuint (choice.parts, >=, 1);
  }
  run_matmul (&t, M, ivl_gemm_choose (t.device, &t.weight, M), after);
  if (t.device->software)
    g_assert_cmpmem (before, 4 * M * N, after, 4 * M * N);
  for (guint i = 0; i < M * N; i++)
    g_assert_cmpfloat_with_epsilon (before[i], after[i], 1e-2f);
  /* Settled: another file doesn't change it. */
  IvlGemmChoice settled = ivl_gemm_choose (t.device, &t.weight, 1);
  ivl_gemm_tune (t.device, t.stream, &t.weight);
  g_assert_cmpuint (ivl_gemm_choose (t.device, &t.weight, 1).shader, ==, settled.shader);
  matmul_deinit (&t);
}

/* Up to 16 rows: a sum that is cut into parts comes out the same to the last bit, however many rows there are and
 * whichever of the shaders for few rows is taken. */
static void
child_rows (void)
{
  enum { COLUMNS = 2560, LONG = 2048, MOST = IVL_GEMM_VECTOR_ROWS };
  static const guint some_rows[] = { 1, 3, 7, 9, MOST };
  Matmul t;
  matmul_init (&t, MOST, COLUMNS, LONG);
  g_autofree float *all = g_new (float, MOST * COLUMNS), *some = g_new (float, MOST * COLUMNS);
  IvlGemmChoice usual = ivl_gemm_choose (t.device, &t.weight, MOST);
  g_assert_cmpuint (usual.parts, >, 1);
  run_matmul (&t, MOST, usual, all);
  for (guint i = 0; i < G_N_ELEMENTS (some_rows); i++) {
    guint m = some_rows[i];
    g_assert_true (ivl_gemm_is_vector (&ivl_gemm_shaders[ivl_gemm_choose (t.device, &t.weight, m).shader]));
    for (guint s = 0; s < ivl_n_gemm_shaders; s++)
      if (ivl_gemm_is_vector (&ivl_gemm_shaders[s])) {
        run_matmul (&t, m, ivl_gemm_parts (&t.weight, s, m), some);
        g_assert_cmpmem (some, 4 * m * COLUMNS, all, 4 * m * COLUMNS);
      }
  }
  matmul_deinit (&t);
}

/* Many tiles of a large matrix: shaders whose workgroups take turns at them give what one does whose don't. */
static void
test_turns (void)
{
  enum { ROWS = 64, COLUMNS = 16384, LONG = 4096 };
  Matmul t;
  matmul_init (&t, ROWS, COLUMNS, LONG);
  g_autofree float *one = g_new (float, ROWS * COLUMNS), *other = g_new (float, ROWS * COLUMNS);
  guint buffer = 0, compared = 0;
  while (ivl_gemm_shaders[buffer].variant != IVL_GEMM_BUFFER || ivl_gemm_shaders[buffer].rows != 16)
    buffer++;
  if (ivl_gemm_lacks (t.device, &ivl_gemm_shaders[buffer], &t.weight)) {
    g_test_skip ("the device's storage buffers are too small");
    matmul_deinit (&t);
    return;
  }
  run_matmul (&t, ROWS, (IvlGemmChoice){ buffer, 1 }, one);
  for (guint s = 0; s < ivl_n_gemm_shaders; s++) {
    const IvlGemmShader *shader = &ivl_gemm_shaders[s];
    if (shader->variant >= IVL_GEMM_GPU || shader->rows < 16 || s == buffer || ivl_gemm_lacks (t.device, shader, &t.weight))
      continue;
    run_matmul (&t, ROWS, (IvlGemmChoice){ s, 1 }, other);
    g_assert_cmpmem (one, 4 * ROWS * COLUMNS, other, 4 * ROWS * COLUMNS);
    compared++;
  }
  g_test_message ("%u compared", compared);
  g_assert_cmpuint (compared, >=, 1);
  matmul_deinit (&t);
}

static void
test_rows (void)
{
  g_setenv ("INTERNVL_GEMM", "gpu", TRUE);
  g_test_trap_subprocess ("/tune/subprocess/rows", 0, G_TEST_SUBPROCESS_DEFAULT);
  g_test_trap_assert_passed ();
  g_unsetenv ("INTERNVL_GEMM");
}

static void
run_child (const char *folder)
{
  g_setenv ("INTERNVL_CACHE", folder, TRUE);
  g_test_trap_subprocess ("/tune/subprocess/child", 0, G_TEST_SUBPROCESS_DEFAULT);
  g_test_trap_assert_passed ();
}

/* Path of the only choice in FOLDER, or NULL. */
static char *
find_file (const char *folder)
{
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  const char *name;
  while (dir && (name = g_dir_read_name (dir)))
    if (g_str_has_prefix (name, "gemm-"))
      return g_build_filename (folder, name, NULL);
  return NULL;
}

static void
test_kept (void)
{
  g_autofree char *folder = g_dir_make_tmp ("tune-XXXXXX", NULL);
  run_child (folder);
  g_autofree char *path = find_file (folder), *first = NULL, *text = NULL;
  gsize size = 0;
  g_assert_nonnull (path);
  g_assert_true (g_file_get_contents (path, &first, &size, NULL));
  g_assert_nonnull (strstr (first, "f16="));

  /* What is valid is taken, and not written again: a comment survives. */
  text = g_strconcat (first, "# kept\n", NULL);
  g_assert_true (g_file_set_contents (path, text, -1, NULL));
  run_child (folder);
  g_clear_pointer (&text, g_free);
  g_assert_true (g_file_get_contents (path, &text, NULL, NULL));
  g_assert_nonnull (strstr (text, "# kept"));

  /* What isn't, is replaced. */
  g_autofree char *stamp = g_strndup (first, strcspn (strchr (first, '\n') + 1, "\n") + 1 + (gsize) (strchr (first, '\n') - first));
  g_autofree char *unknown = g_strconcat (stamp, "\nf16=gemm_f16_99x99_texel;-;-;-;-;-;\n", NULL);
  g_autofree char *few = g_strconcat (stamp, "\nf16=-;-;\n", NULL);
  g_autofree char *other_type = g_strconcat (stamp, "\nf16=gemm_q8_1x16_texel;-;-;-;-;-;\n", NULL);
  g_autofree char *old = g_strdup_printf ("[gemm]\nstamp=0 8 old\nf16=-;-;-;-;-;-;\n# kept\n");
  const char *const bad[] = { "", "\xff\xfe\x00garbage", "[gemm]\n", old, unknown, few, other_type };
  for (guint i = 0; i < G_N_ELEMENTS (bad); i++) {
    g_assert_true (g_file_set_contents (path, bad[i], -1, NULL));
    run_child (folder);
    g_clear_pointer (&text, g_free);
    g_assert_true (g_file_get_contents (path, &text, NULL, NULL));
    g_assert_true (g_str_has_prefix (text, stamp));
    g_assert_null (strstr (text, "99x99"));
    g_assert_null (strstr (text, "q8"));
    g_assert_null (strstr (text, "# kept"));
    g_assert_nonnull (strstr (text, "f16="));
  }
  g_unlink (path);
}

/* A folder that can't be: a file is in its place. */
static void
test_unwritable (void)
{
  g_autofree char *folder = g_dir_make_tmp ("tune-XXXXXX", NULL);
  g_autofree char *file = g_build_filename (folder, "file", NULL);
  g_autofree char *below = g_build_filename (file, "cache", NULL);
  g_assert_true (g_file_set_contents (file, "x", 1, NULL));
  run_child (below);
  g_unlink (file);
  g_rmdir (folder);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  if (!g_test_subprocess ())
    g_unsetenv ("INTERNVL_GEMM");
  g_test_add_func ("/tune/subprocess/child", child);
  g_test_add_func ("/tune/subprocess/rows", child_rows);
  g_test_add_func ("/tune/rows", test_rows);
  g_test_add_func ("/tune/turns", test_turns);
  g_test_add_func ("/tune/kept", test_kept);
  g_test_add_func ("/tune/unwritable", test_unwritable);
  return g_test_run ();
}
