/* The choice of matmuls that is timed once and kept: whatever the file holds, the choice is a sound one and results stay
 * the same. Each case runs in a process of its own, since a choice holds for a process's life. */
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

static void
run_matmul (IvlVkStream *stream, const IvlWeight *weight, IvlRows x, IvlRows y, IvlGemmChoice choice, float *out)
{
  g_autoptr (GError) error = NULL;
  if (!ivl_vk_begin (stream, &error))
    die (error);
  ivl_gemm_with (stream, weight, x, M, y, &(IvlGemmEpilogue){ 0 }, choice);
  if (!ivl_vk_run (stream, &error) || !ivl_vk_read (stream, y.span, out, 4 * M * N, &error))
    die (error);
}

/* Tunes, in a process of its own. */
static void
child (void)
{
  g_autoptr (GError) error = NULL;
  IvlDevice *device = ivl_device_open (NULL, &error);
  IvlVkStream *stream = device ? ivl_vk_stream_new (device, &error) : NULL;
  if (!stream)
    die (error);
  gsize bytes = ivl_weight_slice_bytes (IVL_DTYPE_F16, N, K);
  g_autofree guint16 *values = g_malloc (bytes);
  for (gsize i = 0; i < bytes / 2; i++)
    values[i] = (guint16) (0x2c00 + (guint32) (i * 2654435761u) % 0x800); /* 2^-4 to 2^-2 */
  g_autofree float *rows = g_new (float, M * K);
  for (guint i = 0; i < M * K; i++)
    rows[i] = (float) ((gint32) (i * 2246822519u) >> 16) * 0x1p-12f;
  g_autoptr (IvlVkBuffer) w = ivl_vk_buffer_new (device, IVL_VK_DEVICE, bytes, &error);
  g_autoptr (IvlVkBuffer) x = ivl_vk_buffer_new (device, IVL_VK_DEVICE, 4 * M * K, &error);
  g_autoptr (IvlVkBuffer) y = ivl_vk_buffer_new (device, IVL_VK_DEVICE, 4 * M * N, &error);
  IvlSpan slice = { w, 0, bytes };
  IvlWeight weight = { .dtype = IVL_DTYPE_F16, .n = N, .k = K, .k_pad = K, .slice_n = N, .n_slices = 1,
                       .slices = &slice };
  IvlRows x_rows = ivl_rows ((IvlSpan){ x, 0, x->size }, K), y_rows = ivl_rows ((IvlSpan){ y, 0, y->size }, N);
  if (!ivl_vk_write (stream, slice, values, bytes, &error) || !ivl_vk_write (stream, x_rows.span, rows, 4 * M * K, &error))
    die (error);

  g_autofree float *before = g_new (float, M * N), *after = g_new (float, M * N);
  run_matmul (stream, &weight, x_rows, y_rows, ivl_gemm_choose (device, &weight, M), before);
  ivl_gemm_tune (device, stream, &weight);
  for (guint m = 1; m <= 300; m += m < 20 ? 1 : 70) {
    IvlGemmChoice choice = ivl_gemm_choose (device, &weight, m);
    g_assert_cmpuint (choice.shader, <, ivl_n_gemm_shaders);
    g_assert_null (ivl_gemm_lacks (device, &ivl_gemm_shaders[choice.shader], &weight));
    g_assert_cmpuint (choice.parts, >=, 1);
  }
  run_matmul (stream, &weight, x_rows, y_rows, ivl_gemm_choose (device, &weight, M), after);
  if (device->software)
    g_assert_cmpmem (before, 4 * M * N, after, 4 * M * N);
  for (guint i = 0; i < M * N; i++)
    g_assert_cmpfloat_with_epsilon (before[i], after[i], 1e-2f);
  /* Settled: another file doesn't change it. */
  IvlGemmChoice settled = ivl_gemm_choose (device, &weight, 1);
  ivl_gemm_tune (device, stream, &weight);
  g_assert_cmpuint (ivl_gemm_choose (device, &weight, 1).shader, ==, settled.shader);
  ivl_vk_stream_free (stream);
  g_clear_pointer (&w, ivl_vk_buffer_free);
  g_clear_pointer (&x, ivl_vk_buffer_free);
  g_clear_pointer (&y, ivl_vk_buffer_free);
  ivl_device_unref (device);
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
  g_autofree char *other_type = g_strconcat (stamp, "\nf16=gemm_q8_1x8_texel;-;-;-;-;-;\n", NULL);
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
  g_unsetenv ("INTERNVL_GEMM");
  g_test_add_func ("/tune/subprocess/child", child);
  g_test_add_func ("/tune/kept", test_kept);
  g_test_add_func ("/tune/unwritable", test_unwritable);
  return g_test_run ();
}
