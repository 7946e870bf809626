/* Converted weights in the cache folder: whatever lies there, the weights on the device are those that converting makes. */
#include "golden.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "model/weights.h"

#define NAME "qwen2-ln-orig"

static const char *self_path;
static char *folder;   /* INTERNVL_CACHE */
static char *model;    /* a copy whose files may be touched */
static guint messages; /* since last asked */

static void
count_messages (const char *domain, GLogLevelFlags level, const char *message, gpointer data)
{
  if (level & G_LOG_LEVEL_MESSAGE)
    messages++;
  else
    g_log_default_handler (domain, level, message, NULL);
}

static guint
take_messages (void)
{
  guint n = messages;
  messages = 0;
  return n;
}

/* ---- loading ---- */

typedef struct {
  IvlDevice *device;
  IvlConfig *config;
  IvlCheckpoint *checkpoint;
  IvlModelWeights weights;
} Loaded;

static void
loaded_open (Loaded *l)
{
  g_autoptr (GError) error = NULL;
  memset (l, 0, sizeof *l);
  l->device = ivl_device_open (NULL, &error);
  g_assert_no_error (error);
  l->config = ivl_config_load (model, &error);
  g_assert_no_error (error);
  l->checkpoint = ivl_checkpoint_open (model, l->config, &error);
  g_assert_no_error (error);
}

static void
loaded_close (Loaded *l)
{
  ivl_weights_deinit (&l->weights);
  ivl_checkpoint_free (l->checkpoint);
  ivl_config_free (l->config);
  ivl_device_unref (l->device);
}

static void
add_weight (IvlVkStream *stream, const IvlWeight *weight, GChecksum *sum)
{
  g_autoptr (GError) error = NULL;
  for (guint s = 0; s < weight->n_slices; s++) {
    guint n = MIN (weight->slice_n, weight->n - s * weight->slice_n);
    gsize bytes = ivl_weight_slice_bytes (weight->dtype, n, weight->k);
    g_autofree guchar *data = g_malloc (bytes);
    ivl_vk_read (stream, weight->slices[s], data, bytes, &error);
    g_assert_no_error (error);
    g_checksum_update (sum, data, (gssize) bytes);
  }
}

/* All matrices as they lie on the device. */
static char *
digest (Loaded *l)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GChecksum) sum = g_checksum_new (G_CHECKSUM_SHA256);
  IvlVkStream *stream = ivl_vk_stream_new (l->device, &error);
  g_assert_no_error (error);
  const IvlVit *vit = &l->weights.vit;
  const IvlDecoder *decoder = &l->weights.decoder;
  add_weight (stream, &vit->patch, sum);
  for (guint i = 0; i < vit->n_layers; i++) {
    const IvlVitLayer *layer = &vit->layers[i];
    const IvlWeight *all[] = { &layer->qkv, &layer->proj, &layer->fc1, &layer->fc2 };
    for (guint k = 0; k < G_N_ELEMENTS (all); k++)
      add_weight (stream, all[k], sum);
  }
  add_weight (stream, &vit->mlp1, sum);
  add_weight (stream, &vit->mlp3, sum);
  add_weight (stream, &decoder->embed, sum);
  for (guint i = 0; i < l->config->text.layers; i++) {
    const IvlDecoderLayer *layer = &decoder->layers[i];
    const IvlWeight *all[] = { &layer->qkv, &layer->o, &layer->gate_up, &layer->down };
    for (guint k = 0; k < G_N_ELEMENTS (all); k++)
      add_weight (stream, all[k], sum);
  }
  add_weight (stream, &decoder->head, sum);
  ivl_vk_stream_free (stream);
  return g_strdup (g_checksum_get_string (sum));
}

typedef enum { MAPPED = 1, COPIED = 2 } Way;

/* Digest of the weights of DTYPE; HIT: whether they came from the cache. */
static char *
load (int dtype, Way way, gboolean *hit)
{
  g_autoptr (GError) error = NULL;
  Loaded l;
  loaded_open (&l);
  if (way == COPIED)
    l.device->unified = false; /* as if the host couldn't write device memory */
  ivl_weights_load (&l.weights, l.device, l.checkpoint, l.config, dtype, 256, NULL, &error);
  g_assert_no_error (error);
  *hit = l.weights.cache && ivl_weight_cache_is_hit (l.weights.cache);
  if (*hit && way == MAPPED && l.device->unified && l.device->host_import)
    g_assert_cmpuint (ivl_weight_cache_mapped_bytes (l.weights.cache), >, 0);
  if (way == COPIED && l.weights.cache)
    g_assert_cmpuint (ivl_weight_cache_mapped_bytes (l.weights.cache), ==, 0);
  char *result = digest (&l);
  loaded_close (&l);
  return result;
}

static void
assert_load (int dtype, const char *want, gboolean want_hit, guint want_messages)
{
  for (Way way = MAPPED; way <= COPIED; way++) {
    gboolean hit;
    g_autofree char *got = load (dtype, way, &hit);
    g_assert_cmpstr (got, ==, want);
    g_assert_cmpint (hit, ==, way == MAPPED ? want_hit : TRUE);
    g_assert_cmpuint (take_messages (), ==, way == MAPPED ? want_messages : 0);
  }
}

/* What converting makes, without any cache folder. */
static char *
converted (int dtype)
{
  gboolean hit;
  g_setenv ("INTERNVL_CACHE", "/dev/null", TRUE);
  char *result = load (dtype, MAPPED, &hit);
  g_setenv ("INTERNVL_CACHE", folder, TRUE);
  g_assert_false (hit);
  g_assert_cmpuint (take_messages (), ==, 1);
  return result;
}

static void
empty_folder (void)
{
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  for (const char *name; dir && (name = g_dir_read_name (dir));) {
    g_autofree char *path = g_build_filename (folder, name, NULL);
    g_assert_cmpint (g_remove (path), ==, 0);
  }
}

/* The files of weights there are, and the first one's path. */
static guint
find_files (char **path)
{
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  guint n = 0;
  *path = NULL;
  for (const char *name; dir && (name = g_dir_read_name (dir));) {
    if (!g_str_has_prefix (name, "weights-"))
      continue;
    if (n++ == 0)
      *path = g_build_filename (folder, name, NULL);
  }
  return n;
}

static char *
only_file (void)
{
  char *path;
  g_assert_cmpuint (find_files (&path), ==, 1);
  return path;
}

/* ---- tests ---- */

static void
test_kept (void)
{
  static const int dtypes[] = { IVL_DTYPE_Q8, IVL_DTYPE_Q4, IVL_DTYPE_F16 };
  for (guint i = 0; i < G_N_ELEMENTS (dtypes); i++) {
    empty_folder ();
    g_autofree char *want = converted (dtypes[i]);
    assert_load (dtypes[i], want, FALSE, 0);
    assert_load (dtypes[i], want, TRUE, 0);
    g_autofree char *path = only_file ();
    struct stat st;
    g_assert_cmpint (stat (path, &st), ==, 0);
    g_assert_cmpint (st.st_mode & 0077, ==, 0);
  }
  /* Their own type: nothing is converted, nothing is kept. */
  empty_folder ();
  gboolean hit;
  g_free (load (-1, MAPPED, &hit));
  g_assert_false (hit);
  char *path;
  g_assert_cmpuint (find_files (&path), ==, 0);
}

typedef void (*Damage) (const char *path, GByteArray *content);

static void
cut_to_nothing (const char *path, GByteArray *content)
{
  g_byte_array_set_size (content, 0);
}

static void
cut_in_half (const char *path, GByteArray *content)
{
  g_byte_array_set_size (content, content->len / 2);
}

static void
cut_one_byte (const char *path, GByteArray *content)
{
  g_byte_array_set_size (content, content->len - 1);
}

static void
add_a_byte (const char *path, GByteArray *content)
{
  g_byte_array_append (content, (const guint8 *) "x", 1);
}

static void
zero_it (const char *path, GByteArray *content)
{
  memset (content->data, 0, content->len);
}

static void
zero_the_weights (const char *path, GByteArray *content)
{
  memset (content->data + 65536, 0, content->len - 65536);
}

/* A table that is whole, but lies: the first two matrices change places. */
static void
swap_entries (const char *path, GByteArray *content)
{
  guint8 entry[48];
  memcpy (entry, content->data + 104, 48);
  memmove (content->data + 104, content->data + 152, 48);
  memcpy (content->data + 152, entry, 48);
}

static void
make_writable (const char *path, GByteArray *content)
{
  g_assert_cmpint (chmod (path, 0666), ==, 0);
}

static void
check_damage (Damage damage, guint at, const char *want)
{
  g_autofree char *path = only_file ();
  gsize size;
  char *data;
  g_assert_true (g_file_get_contents (path, &data, &size, NULL));
  g_test_message ("%zu bytes, byte %u", size, at);
  GByteArray *content = g_byte_array_new_take ((guint8 *) data, size);
  if (damage)
    damage (path, content);
  else
    content->data[at % size] ^= 0x10;
  /* In place: the file stays the same one. */
  int fd = open (path, O_WRONLY | O_TRUNC);
  g_assert_cmpint (fd, >=, 0);
  g_assert_cmpint (write (fd, content->data, content->len), ==, content->len);
  close (fd);
  g_byte_array_unref (content);
  assert_load (IVL_DTYPE_Q8, want, FALSE, 1);
  g_chmod (path, 0600);
  assert_load (IVL_DTYPE_Q8, want, TRUE, 0);
}

static void
test_damaged (void)
{
  static const Damage damages[] = { cut_to_nothing, cut_in_half, cut_one_byte, add_a_byte, zero_it, zero_the_weights,
                                    swap_entries, make_writable };
  /* Magic, version, entries, key, file's size, table's hash, an entry's fields. */
  static const guint header[] = { 3, 16, 20, 30, 88, 96, 104, 108, 112, 116, 120, 128, 136, 144 };
  empty_folder ();
  g_autofree char *want = converted (IVL_DTYPE_Q8);
  assert_load (IVL_DTYPE_Q8, want, FALSE, 0);
  for (guint i = 0; i < G_N_ELEMENTS (damages); i++)
    check_damage (damages[i], 0, want);
  for (guint i = 0; i < G_N_ELEMENTS (header); i++)
    check_damage (NULL, header[i], want);
  for (guint i = 0; i < 8; i++)
    check_damage (NULL, 65536 + i * 70001, want);
}

/* A good file of other weights under this one's name. */
static void
test_mistaken (void)
{
  empty_folder ();
  g_autofree char *q8 = converted (IVL_DTYPE_Q8), *q4 = converted (IVL_DTYPE_Q4);
  assert_load (IVL_DTYPE_Q4, q4, FALSE, 0);
  g_autofree char *of_q4 = only_file ();
  g_autofree char *kept = g_build_filename (folder, "kept", NULL);
  g_assert_cmpint (g_rename (of_q4, kept), ==, 0);
  assert_load (IVL_DTYPE_Q8, q8, FALSE, 0);
  g_autofree char *of_q8 = only_file ();
  g_assert_cmpint (g_rename (kept, of_q8), ==, 0);
  assert_load (IVL_DTYPE_Q8, q8, FALSE, 1);
}

static void
test_not_a_file (void)
{
  gboolean hit;
  empty_folder ();
  g_autofree char *want = converted (IVL_DTYPE_Q8);
  assert_load (IVL_DTYPE_Q8, want, FALSE, 0);
  g_autofree char *path = only_file ();
  g_autofree char *elsewhere = g_build_filename (folder, "elsewhere", NULL);
  /* A link: not followed, and replaced. */
  g_assert_cmpint (g_rename (path, elsewhere), ==, 0);
  g_assert_cmpint (symlink (elsewhere, path), ==, 0);
  assert_load (IVL_DTYPE_Q8, want, FALSE, 1);
  assert_load (IVL_DTYPE_Q8, want, TRUE, 0);
  /* A folder: stays, so each load converts. A pipe: must not be waited for. */
  g_assert_cmpint (g_remove (path), ==, 0);
  g_assert_cmpint (g_mkdir (path, 0700), ==, 0);
  g_autofree char *got = load (IVL_DTYPE_Q8, MAPPED, &hit);
  g_assert_cmpstr (got, ==, want);
  g_assert_false (hit);
  g_assert_cmpuint (take_messages (), ==, 2);
  g_assert_cmpint (g_remove (path), ==, 0);
  g_assert_cmpint (mkfifo (path, 0600), ==, 0);
  assert_load (IVL_DTYPE_Q8, want, FALSE, 1);
}

/* Where nothing can be written, models load as ever, with one line said. */
static void
test_unwritable (void)
{
  gboolean hit;
  empty_folder ();
  g_autofree char *want = converted (IVL_DTYPE_Q8); /* the folder is no folder */
  if (geteuid () != 0) {
    g_assert_cmpint (g_chmod (folder, 0500), ==, 0);
    g_autofree char *got = load (IVL_DTYPE_Q8, MAPPED, &hit);
    g_assert_cmpint (g_chmod (folder, 0700), ==, 0);
    g_assert_cmpstr (got, ==, want);
    g_assert_cmpuint (take_messages (), ==, 1);
  } else {
    g_test_message ("root writes everywhere: a folder without permissions was not tried");
  }
  g_assert_cmpint (g_chmod (folder, 0777), ==, 0);
  g_autofree char *got_open = load (IVL_DTYPE_Q8, MAPPED, &hit);
  g_assert_cmpint (g_chmod (folder, 0700), ==, 0);
  g_assert_cmpstr (got_open, ==, want);
  g_assert_cmpuint (take_messages (), ==, 1);
  char *path;
  g_assert_cmpuint (find_files (&path), ==, 0);
}

/* In libc's place, for the engine's files: a limit on the size of all would be one for the memory of drivers, too, which
 * comes out of files. */
static enum { ROOM, FULL, FULL_LATER } disk;

int
fallocate (int fd, int mode, off_t offset, off_t bytes)
{
  if (disk != ROOM) {
    errno = disk == FULL ? ENOSPC : EOPNOTSUPP;
    return -1;
  }
  return (int) syscall (SYS_fallocate, fd, mode, offset, bytes);
}

ssize_t
pwrite (int fd, const void *data, size_t bytes, off_t offset)
{
  if (disk != ROOM && offset + (off_t) bytes > 100000) {
    errno = ENOSPC;
    return -1;
  }
  return syscall (SYS_pwrite64, fd, data, bytes, offset);
}

/* Told by the file system at once, or by the write that doesn't fit any more. */
static void
test_full_disk (void)
{
  empty_folder ();
  g_autofree char *want = converted (IVL_DTYPE_Q8);
  for (disk = FULL; disk <= FULL_LATER; disk++) {
    gboolean hit;
    char *path;
    g_autofree char *got = load (IVL_DTYPE_Q8, MAPPED, &hit);
    g_assert_cmpstr (got, ==, want);
    g_assert_false (hit);
    g_assert_cmpuint (take_messages (), ==, 1);
    g_assert_cmpuint (find_files (&path), ==, 0);
  }
  disk = ROOM;
}

static void
touch (const char *path, gint64 seconds_ago)
{
  gint64 now = g_get_real_time () / G_USEC_PER_SEC;
  struct timespec times[2] = { { now - seconds_ago, 0 }, { now - seconds_ago, 0 } };
  g_assert_cmpint (utimensat (AT_FDCWD, path, times, 0), ==, 0);
}

static char *
make_file (const char *name, guint64 size, gint64 seconds_ago)
{
  char *path = g_build_filename (folder, name, NULL);
  int fd = open (path, O_WRONLY | O_CREAT | O_EXCL, 0600);
  g_assert_cmpint (fd, >=, 0);
  g_assert_cmpint (ftruncate (fd, (off_t) size), ==, 0);
  close (fd);
  touch (path, seconds_ago);
  return path;
}

/* Other files, other weights; the old copy stays until room is needed. */
static void
test_changed_model (void)
{
  empty_folder ();
  g_autofree char *want = converted (IVL_DTYPE_Q8);
  assert_load (IVL_DTYPE_Q8, want, FALSE, 0);
  g_autofree char *weights = g_build_filename (model, "model.safetensors", NULL);
  touch (weights, 1000);
  assert_load (IVL_DTYPE_Q8, want, FALSE, 0);
  char *path;
  g_assert_cmpuint (find_files (&path), ==, 2);
  g_free (path);
}

static void
test_eviction (void)
{
  empty_folder ();
  g_autofree char *want = converted (IVL_DTYPE_Q8);
  /* Holes take no room on the disk. */
  g_autofree char *oldest = make_file ("weights-0.bin", IVL_WEIGHT_CACHE_BYTES / 2, 3000);
  g_autofree char *older = make_file ("weights-1.bin", IVL_WEIGHT_CACHE_BYTES / 2, 2000);
  g_autofree char *young = make_file ("weights-2.bin", 4096, 1000);
  g_autofree char *dead = make_file ("weights-3.bin.AbCdEf", 4096, 2 * 3600);
  g_autofree char *written = make_file ("weights-4.bin.AbCdEf", 4096, 10);
  g_autofree char *foreign = make_file ("pipelines-0.bin", 4096, 9000);
  assert_load (IVL_DTYPE_Q8, want, FALSE, 0);
  g_assert_false (g_file_test (oldest, G_FILE_TEST_EXISTS));
  g_assert_true (g_file_test (older, G_FILE_TEST_EXISTS));
  g_assert_true (g_file_test (young, G_FILE_TEST_EXISTS));
  g_assert_false (g_file_test (dead, G_FILE_TEST_EXISTS));
  g_assert_true (g_file_test (written, G_FILE_TEST_EXISTS));
  g_assert_true (g_file_test (foreign, G_FILE_TEST_EXISTS));
  assert_load (IVL_DTYPE_Q8, want, TRUE, 0);
}

/* Processes that begin together. */
static void
test_processes (void)
{
  enum { N = 6 };
  empty_folder ();
  g_autofree char *want = converted (IVL_DTYPE_Q4);
  GSubprocess *children[N];
  g_autoptr (GError) error = NULL;
  for (guint i = 0; i < N; i++) {
    children[i] = g_subprocess_new (G_SUBPROCESS_FLAGS_STDOUT_PIPE, &error, self_path, "--load", model, NULL);
    g_assert_no_error (error);
  }
  for (guint i = 0; i < N; i++) {
    g_autofree char *out = NULL;
    g_subprocess_communicate_utf8 (children[i], NULL, NULL, &out, NULL, &error);
    g_assert_no_error (error);
    g_assert_true (g_subprocess_get_successful (children[i]));
    g_assert_cmpstr (g_strstrip (out), ==, want);
    g_object_unref (children[i]);
  }
  assert_load (IVL_DTYPE_Q4, want, TRUE, 0);
  g_autofree char *path = only_file ();
}

static void
test_cancelled (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  empty_folder ();
  g_cancellable_cancel (cancellable);
  Loaded l;
  loaded_open (&l);
  g_assert_false (ivl_weights_load (&l.weights, l.device, l.checkpoint, l.config, IVL_DTYPE_Q8, 256, cancellable, &error));
  g_assert_error (error, IVL_ERROR, IVL_ERROR_CANCELLED);
  ivl_checkpoint_free (l.checkpoint);
  ivl_config_free (l.config);
  ivl_device_unref (l.device);
  char *path;
  g_assert_cmpuint (find_files (&path), ==, 0);
}

static void
copy_model (const char *from, const char *to)
{
  g_autoptr (GDir) dir = g_dir_open (from, 0, NULL);
  g_assert_nonnull (dir);
  for (const char *name; (name = g_dir_read_name (dir));) {
    g_autofree char *a = g_build_filename (from, name, NULL), *b = g_build_filename (to, name, NULL), *data = NULL;
    gsize size;
    g_assert_true (g_file_get_contents (a, &data, &size, NULL));
    g_assert_true (g_file_set_contents (b, data, (gssize) size, NULL));
  }
}

int
main (int argc, char **argv)
{
  self_path = argv[0];
  if (argc == 3 && strcmp (argv[1], "--load") == 0) {
    gboolean hit;
    model = argv[2];
    g_autofree char *result = load (IVL_DTYPE_Q4, MAPPED, &hit);
    puts (result);
    return 0;
  }
  g_test_init (&argc, &argv, NULL);
  g_log_set_default_handler (count_messages, NULL);
  g_autofree char *root = g_dir_make_tmp ("internvl-weights-XXXXXX", NULL);
  g_assert_nonnull (root);
  folder = g_build_filename (root, "cache", NULL);
  model = g_build_filename (root, "model", NULL);
  g_assert_cmpint (g_mkdir (folder, 0700) + g_mkdir (model, 0700), ==, 0);
  g_setenv ("INTERNVL_CACHE", folder, TRUE);
  g_autofree char *golden = golden_path ("models", NAME, NULL);
  copy_model (golden, model);

  g_test_add_func ("/weight-cache/kept", test_kept);
  g_test_add_func ("/weight-cache/damaged", test_damaged);
  g_test_add_func ("/weight-cache/mistaken", test_mistaken);
  g_test_add_func ("/weight-cache/not-a-file", test_not_a_file);
  g_test_add_func ("/weight-cache/unwritable", test_unwritable);
  g_test_add_func ("/weight-cache/full-disk", test_full_disk);
  g_test_add_func ("/weight-cache/changed-model", test_changed_model);
  g_test_add_func ("/weight-cache/eviction", test_eviction);
  g_test_add_func ("/weight-cache/processes", test_processes);
  g_test_add_func ("/weight-cache/cancelled", test_cancelled);
  int status = g_test_run ();

  empty_folder ();
  g_autoptr (GDir) dir = g_dir_open (model, 0, NULL);
  for (const char *name; (name = g_dir_read_name (dir));) {
    g_autofree char *path = g_build_filename (model, name, NULL);
    g_remove (path);
  }
  g_rmdir (folder);
  g_rmdir (model);
  g_rmdir (root);
  g_free (folder);
  g_free (model);
  return status;
}
