#include "kernels/gemm-tune.h"

#include <math.h>
#include <string.h>

#include "base/file.h"

#define FILE_VERSION 2
#define RUNS 5
#define MOST_COLUMNS 16384 /* of the matrix that is timed; a multiple of IVL_PANEL */
#define GAIN 0.93 /* of the default's time: what is no faster than noise isn't worth leaving it */

/* Classes of rows, and how many stand for each. */
static const guint class_rows[] = { 1, 4, 8, 16, 64, 256 };
#define N_CLASSES G_N_ELEMENTS (class_rows)

static const char *const dtype_names[IVL_N_DTYPES] = { "f32", "f16", "bf16", "q8", "q4" };

typedef struct {
  gint settled[IVL_N_DTYPES];            /* atomic; set after the shaders */
  gint shader[IVL_N_DTYPES][N_CLASSES];  /* index, or -1: the default */
} Choices;

static GMutex choices_lock;
static GHashTable *choices_by_device; /* file name -> Choices, kept for the process's life */

static guint
class_of (guint m)
{
  guint c = 0;
  while (c + 1 < N_CLASSES && m > class_rows[c])
    c++;
  return c;
}

int
ivl_gemm_tuned (IvlDevice *device, IvlDtype dtype, guint m)
{
  const Choices *choices = g_atomic_pointer_get (&device->gemm_choices);
  return choices && g_atomic_int_get (&choices->settled[dtype]) ? choices->shader[dtype][class_of (m)] : -1;
}

/* ---- the file ---- */

static char *
file_name (const IvlDevice *device)
{
  g_autoptr (GString) name = g_string_new ("gemm-");
  for (guint i = 0; i < VK_UUID_SIZE; i++)
    g_string_append_printf (name, "%02x", device->pipeline_uuid[i]);
  g_string_append_printf (name, "-%08x.ini", device->properties.driverVersion);
  return g_string_free (g_steal_pointer (&name), FALSE);
}

/* All that the choice depends on besides the file's name. */
static char *
stamp (const IvlDevice *device)
{
  g_autoptr (GChecksum) sum = g_checksum_new (G_CHECKSUM_SHA256);
  for (guint i = 0; i < ivl_n_gemm_shaders; i++)
    for (guint d = 0; d < IVL_N_DTYPES; d++)
      if (ivl_gemm_shaders[i].kernels[d] != IVL_N_KERNELS) {
        const IvlKernel *kernel = &ivl_kernels[ivl_gemm_shaders[i].kernels[d]];
        g_checksum_update (sum, (const guchar *) kernel->name, (gssize) strlen (kernel->name) + 1);
        g_checksum_update (sum, (const guchar *) kernel->spirv, (gssize) kernel->spirv_bytes);
      }
  return g_strdup_printf ("%d %u %s %s", FILE_VERSION, device->subgroup_size, device->name, g_checksum_get_string (sum));
}

/* A line a type: the kernels' names in order of the classes, "-" for the default. All of it must make sense. */
static gboolean
read_choice (const IvlDevice *device, const char *path, const IvlWeight *weight, gint *shaders)
{
  g_autoptr (GKeyFile) file = g_key_file_new ();
  g_autofree char *have = NULL, *want = stamp (device);
  if (!g_key_file_load_from_file (file, path, G_KEY_FILE_NONE, NULL)
      || !(have = g_key_file_get_string (file, "gemm", "stamp", NULL)) || strcmp (have, want) != 0)
    return FALSE;
  gsize n = 0;
  g_auto (GStrv) names = g_key_file_get_string_list (file, "gemm", dtype_names[weight->dtype], &n, NULL);
  if (!names || n != N_CLASSES)
    return FALSE;
  for (guint c = 0; c < N_CLASSES; c++) {
    gboolean known = strcmp (names[c], "-") == 0;
    shaders[c] = -1;
    for (guint i = 0; i < ivl_n_gemm_shaders && !known; i++) {
      IvlKernelId kernel = ivl_gemm_shaders[i].kernels[weight->dtype];
      if (kernel == IVL_N_KERNELS || strcmp (names[c], ivl_kernels[kernel].name) != 0)
        continue;
      known = TRUE;
      shaders[c] = (gint) i;
    }
    if (!known)
      return FALSE;
  }
  return TRUE;
}

/* Keeps the lines of other types. The file is replaced as a whole, so a process sees what one of two wrote. */
static void
write_choice (const IvlDevice *device, const char *path, IvlDtype dtype, const gint *shaders)
{
  g_autoptr (GKeyFile) file = g_key_file_new ();
  g_autoptr (GError) error = NULL;
  g_autofree char *have = NULL, *want = stamp (device), *folder = g_path_get_dirname (path);
  if (!g_key_file_load_from_file (file, path, G_KEY_FILE_NONE, NULL)
      || !(have = g_key_file_get_string (file, "gemm", "stamp", NULL)) || strcmp (have, want) != 0) {
    g_clear_pointer (&file, g_key_file_unref);
    file = g_key_file_new ();
  }
  const char *names[N_CLASSES];
  for (guint c = 0; c < N_CLASSES; c++)
    names[c] = shaders[c] < 0 ? "-" : ivl_kernels[ivl_gemm_shaders[shaders[c]].kernels[dtype]].name;
  g_key_file_set_string (file, "gemm", "stamp", want);
  g_key_file_set_string_list (file, "gemm", dtype_names[dtype], names, N_CLASSES);
  g_mkdir_with_parents (folder, 0700);
  if (!g_key_file_save_to_file (file, path, &error))
    g_info ("choice of matmuls not kept: %s", error->message);
}

/* ---- timing ---- */

typedef struct {
  IvlVkStream *stream;
  const IvlWeight *weight;
  IvlRows x, y;
} Timing;

static gboolean
time_choice (Timing *t, guint m, IvlGemmChoice choice, double *seconds, GError **error)
{
  if (!ivl_vk_begin (t->stream, error))
    return FALSE;
  ivl_gemm_with (t->stream, t->weight, t->x, m, t->y, &(IvlGemmEpilogue){ 0 }, choice);
  gint64 start = g_get_monotonic_time ();
  if (!ivl_vk_run (t->stream, error))
    return FALSE;
  *seconds = (double) MAX (g_get_monotonic_time () - start, 1) / 1e6;
  return TRUE;
}

/* RATIO: least time of OTHER over that of USUAL if OTHER is faster by enough every time that they take turns, else infinite:
 * other work on the machine, such as the pipelines that are made meanwhile, shifts what was timed apart. */
static gboolean
compare (Timing *t, guint m, IvlGemmChoice usual, IvlGemmChoice other, double *ratio, GError **error)
{
  double least[2] = { INFINITY, INFINITY };
  *ratio = INFINITY;
  for (guint r = 0; r <= RUNS; r++) {
    double seconds[2];
    if (!time_choice (t, m, usual, &seconds[0], error) || !time_choice (t, m, other, &seconds[1], error))
      return FALSE;
    if (r == 0)
      continue; /* they are compiled now */
    if (seconds[1] > seconds[0] * GAIN)
      return TRUE;
    for (guint i = 0; i < 2; i++)
      least[i] = MIN (least[i], seconds[i]);
  }
  *ratio = least[1] / least[0];
  return TRUE;
}

static gboolean
tune_class (Timing *t, IvlDevice *device, guint c, gint *shader, GError **error)
{
  guint m = class_rows[c];
  IvlGemmChoice usual = ivl_gemm_choose (device, t->weight, m);
  IvlGemmVariant variant = ivl_gemm_shaders[usual.shader].variant;
  double best = INFINITY;
  *shader = -1;
  for (guint i = 0; i < ivl_n_gemm_shaders; i++) {
    const IvlGemmShader *s = &ivl_gemm_shaders[i];
    /* Software drivers: the same tile from another kind of buffer, since the tiles' order is known. GPUs: every tile
     * that isn't mostly empty; for few rows of those that give equal results. */
    gboolean candidate = variant < IVL_GEMM_GPU
                           ? s->variant < IVL_GEMM_GPU && s->rows == ivl_gemm_shaders[usual.shader].rows
                               && (s->variant != IVL_GEMM_ADDRESS || device->broadcasts)
                           : s->variant >= IVL_GEMM_GPU && s->rows <= 4 * m && m <= 16 * s->rows
                               && (m > IVL_GEMM_VECTOR_ROWS || ivl_gemm_is_vector (s));
    double ratio;
    if (!candidate || i == usual.shader || ivl_gemm_lacks (device, s, t->weight))
      continue;
    if (!compare (t, m, usual, ivl_gemm_parts (t->weight, i, m), &ratio, error))
      return FALSE;
    g_debug ("%s, %u rows: %.2f of the default's time", ivl_kernels[s->kernels[t->weight->dtype]].name, m, ratio);
    if (ratio < best) {
      best = ratio;
      *shader = (gint) i;
    }
  }
  return TRUE;
}

static gboolean
tune (IvlDevice *device, IvlVkStream *stream, const IvlWeight *whole, gint *shaders, GError **error)
{
  /* A part of it is enough. */
  IvlWeight weight = *whole;
  weight.n = weight.slice_n = MIN (MIN (whole->n, whole->slice_n), MOST_COLUMNS);
  weight.n_slices = 1;
  guint most = class_rows[N_CLASSES - 1], n = (weight.n + 3) / 4 * 4;
  g_autoptr (IvlVkBuffer) x = ivl_vk_buffer_new (device, IVL_VK_DEVICE, 4ull * most * weight.k_pad, error);
  g_autoptr (IvlVkBuffer) y = x ? ivl_vk_buffer_new (device, IVL_VK_DEVICE, 4ull * most * n, error) : NULL;
  if (!y || !ivl_vk_begin (stream, error))
    return FALSE;
  ivl_vk_fill (stream, (IvlSpan){ x, 0, x->size }, 0x3f000000);
  if (!ivl_vk_run (stream, error))
    return FALSE;
  Timing t = { stream, &weight, ivl_rows ((IvlSpan){ x, 0, x->size }, weight.k_pad),
               ivl_rows ((IvlSpan){ y, 0, y->size }, n) };
  for (guint c = 0; c < N_CLASSES; c++) {
    /* Software drivers take minutes for many rows, and there one of the classes stands for all but the first. */
    if (device->software && class_rows[c] != 1 && class_rows[c] != 16)
      continue;
    if (!tune_class (&t, device, c, &shaders[c], error))
      return FALSE;
  }
  if (!device->software)
    return TRUE;
  int sixteen = shaders[class_of (16)];
  for (guint c = 1; c < N_CLASSES && sixteen >= 0; c++)
    for (guint i = 0; i < ivl_n_gemm_shaders; i++)
      if (ivl_gemm_shaders[i].variant == ivl_gemm_shaders[sixteen].variant
          && ivl_gemm_shaders[i].kernels[weight.dtype] != IVL_N_KERNELS
          && ivl_gemm_shaders[i].rows == MIN (class_rows[c], 16u))
        shaders[c] = (gint) i;
  return TRUE;
}

void
ivl_gemm_tune (IvlDevice *device, IvlVkStream *stream, const IvlWeight *weight)
{
  if (g_getenv ("INTERNVL_GEMM") || g_getenv ("INTERNVL_DEBUG"))
    return;
  g_autofree char *name = file_name (device), *folder = ivl_cache_folder ();
  g_autofree char *path = g_build_filename (folder, name, NULL);
  g_mutex_lock (&choices_lock);
  if (!choices_by_device)
    choices_by_device = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, g_free);
  Choices *choices = g_hash_table_lookup (choices_by_device, name);
  if (!choices) {
    choices = g_new0 (Choices, 1);
    g_hash_table_insert (choices_by_device, g_strdup (name), choices);
  }
  if (!choices->settled[weight->dtype]) {
    g_autoptr (GError) error = NULL;
    gint shaders[N_CLASSES];
    gboolean large = (guint64) weight->n * weight->k >= IVL_GEMM_TUNE_WEIGHTS;
    for (guint c = 0; c < N_CLASSES; c++)
      shaders[c] = -1;
    if (!read_choice (device, path, weight, shaders) && large) {
      if (tune (device, stream, weight, shaders, &error)) {
        write_choice (device, path, weight->dtype, shaders);
      } else {
        g_info ("matmuls not timed: %s", error->message);
        for (guint c = 0; c < N_CLASSES; c++)
          shaders[c] = -1;
      }
    }
    memcpy (choices->shader[weight->dtype], shaders, sizeof shaders);
    g_atomic_int_set (&choices->settled[weight->dtype], 1);
  }
  g_atomic_pointer_set (&device->gemm_choices, choices);
  g_mutex_unlock (&choices_lock);
}
