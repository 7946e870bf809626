#include "model/weight-cache.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/file.h"

#define MAGIC "internvl weights"
#define VERSION 3u
#define PREFIX "weights-"
#define SUFFIX ".bin"
#define MATRIX_ALIGN 256u          /* as in arenas */
#define BLOCK_ALIGN (64u << 10)    /* what drivers ask of imported memory: a page, at most this */
#define BLOCK_BYTES (128ull << 20) /* a block holds whole matrices, so the biggest may make it bigger */
#define FORGOTTEN_SECONDS 3600     /* since a file that is being written was last touched: its writer is dead */

typedef struct {
  char magic[16];
  guint32 version, n_entries;
  char key[64]; /* SHA-256 in hex */
  guint64 file_bytes;
  guint64 table_hash; /* of the entries */
} Header;

typedef struct {
  guint32 id, layer, dtype, rows, cols, unused;
  guint64 offset, bytes; /* in the file */
  guint64 hash;          /* XXH3 of the bytes; 0 in what is expected */
} Entry;

G_STATIC_ASSERT (sizeof (Header) == 104 && sizeof (Entry) == 48);

typedef struct {
  guint64 offset, bytes;
  IvlVkBuffer *buffer; /* imported, or NULL */
} Block;

struct IvlWeightCache {
  IvlPacker *packer; /* borrowed */
  const IvlCheckpoint *checkpoint; /* borrowed; until committed */
  IvlCachedMatrix *matrices;
  Header header;
  Entry *entries;
  GArray *blocks; /* Block */
  char *path;

  /* a hit */
  guint8 *map;
  guint64 copied_from; /* of map, not yet given back */
  guint64 mapped_bytes;

  /* a miss */
  char *temporary;
  int fd; /* -1: not, or no longer, written */
  Entry *writing;
  guint64 written;
  XXH3_state_t *hash;
};

/* ---- what the file must be ---- */

static void
lay_out (IvlWeightCache *self, guint n)
{
  guint64 at = (sizeof (Header) + n * sizeof (Entry) + BLOCK_ALIGN - 1) / BLOCK_ALIGN * BLOCK_ALIGN;
  Block block = { at, 0, NULL };
  for (guint i = 0; i < n; i++) {
    const IvlCachedMatrix *m = &self->matrices[i];
    guint64 bytes = ivl_weight_slice_bytes (m->dtype, m->source->rows, m->source->cols);
    at = (at + MATRIX_ALIGN - 1) / MATRIX_ALIGN * MATRIX_ALIGN;
    if (block.bytes && at + bytes - block.offset > BLOCK_BYTES) {
      g_array_append_val (self->blocks, block);
      at = block.offset + block.bytes;
      block = (Block){ at, 0, NULL };
    }
    self->entries[i] = (Entry){ .id = m->id, .layer = m->layer, .dtype = m->dtype, .rows = m->source->rows,
                                .cols = m->source->cols, .offset = at, .bytes = bytes };
    at += bytes;
    block.bytes = (at - block.offset + BLOCK_ALIGN - 1) / BLOCK_ALIGN * BLOCK_ALIGN;
  }
  g_array_append_val (self->blocks, block);
  self->header = (Header){ .version = VERSION, .n_entries = n, .file_bytes = block.offset + block.bytes };
  memcpy (self->header.magic, MAGIC, sizeof self->header.magic);
}

/* All that the bytes depend on, in hex. NULL if it can't be told. */
static char *
make_key (IvlWeightCache *self)
{
  g_autoptr (GChecksum) sum = g_checksum_new (G_CHECKSUM_SHA256);
  guint n = self->header.n_entries;
  guint64 probes[IVL_N_DTYPES] = { 0 };
  for (guint i = 0; i < n; i++) {
    guint64 *probe = &probes[self->entries[i].dtype];
    if (*probe == 0 && !ivl_pack_fingerprint (self->packer, (IvlDtype) self->entries[i].dtype, probe, NULL))
      return NULL;
  }
  g_checksum_update (sum, (const guchar *) probes, sizeof probes);
  for (guint i = 0; i < n; i++) {
    Entry entry = self->entries[i];
    entry.hash = 0;
    g_checksum_update (sum, (const guchar *) &entry, sizeof entry);
  }
  return ivl_checkpoint_identify (self->checkpoint, sum) ? g_strdup (g_checksum_get_string (sum)) : NULL;
}

/* ---- reading ---- */

typedef struct {
  IvlWeightCache *cache;
  gint next, bad; /* atomic */
} Check;

static gpointer
check_matrices (gpointer data)
{
  Check *check = data;
  IvlWeightCache *self = check->cache;
  for (;;) {
    guint i = (guint) g_atomic_int_add (&check->next, 1);
    if (i >= self->header.n_entries || g_atomic_int_get (&check->bad))
      return NULL;
    const Entry *entry = &self->entries[i];
    if (XXH3_64bits (self->map + entry->offset, entry->bytes) != entry->hash)
      g_atomic_int_set (&check->bad, 1);
  }
}

static gboolean
check_hashes (IvlWeightCache *self)
{
  Check check = { .cache = self };
  GThread *threads[8];
  guint n = MIN (g_get_num_processors (), G_N_ELEMENTS (threads));
  for (guint i = 1; i < n; i++)
    threads[i] = g_thread_try_new ("internvl-check", check_matrices, &check, NULL);
  check_matrices (&check);
  for (guint i = 1; i < n; i++)
    if (threads[i])
      g_thread_join (threads[i]);
  return !check.bad;
}

/* Whether nobody else can have put the file there, or have changed it. */
static gboolean
is_ours (const struct stat *file, const char *folder)
{
  struct stat st;
  return (file->st_uid == geteuid () || file->st_uid == 0) && !(file->st_mode & (S_IWGRP | S_IWOTH))
         && stat (folder, &st) == 0 && !(st.st_mode & S_IWOTH);
}

/* Takes header and hashes over if they are what they must be. */
static const char *
read_header (IvlWeightCache *self, int fd)
{
  Header header;
  gsize table_bytes = self->header.n_entries * sizeof (Entry);
  if (!ivl_file_pread (fd, "", &header, sizeof header, 0, NULL))
    return "too short";
  Header want = self->header;
  want.table_hash = header.table_hash;
  if (memcmp (&header, &want, sizeof header) != 0)
    return "its header isn't that of these weights";
  g_autofree Entry *entries = g_malloc (table_bytes);
  if (!ivl_file_pread (fd, "", entries, table_bytes, sizeof header, NULL))
    return "too short";
  if (XXH3_64bits (entries, table_bytes) != header.table_hash)
    return "its table is damaged";
  for (guint i = 0; i < self->header.n_entries; i++) {
    Entry entry = entries[i];
    entry.hash = 0;
    if (memcmp (&entry, &self->entries[i], sizeof entry) != 0)
      return "its table isn't that of these weights";
  }
  memcpy (self->entries, entries, table_bytes);
  self->header.table_hash = header.table_hash;
  return NULL;
}

static gboolean
open_file (IvlWeightCache *self)
{
  g_autofree char *folder = g_path_get_dirname (self->path);
  struct stat st;
  const char *wrong = NULL;
  int fd = open (self->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
  if (fd < 0) {
    if (errno != ENOENT && errno != ENOTDIR)
      g_message ("%s can't be read (%s): converting", self->path, g_strerror (errno));
    return FALSE;
  }
  if (fstat (fd, &st) < 0 || !S_ISREG (st.st_mode) || !is_ours (&st, folder))
    wrong = "others can write there";
  else if ((guint64) st.st_size != self->header.file_bytes)
    wrong = "its size isn't that of these weights";
  else if (!(wrong = read_header (self, fd))) {
    void *map = mmap (NULL, self->header.file_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED)
      wrong = "it can't be mapped";
    else
      self->map = map;
  }
  if (self->map) {
    madvise (self->map, self->header.file_bytes, MADV_WILLNEED);
    if (!check_hashes (self)) {
      wrong = "its weights are damaged";
      munmap (self->map, self->header.file_bytes);
      self->map = NULL;
    }
  }
  if (self->map)
    futimens (fd, NULL); /* used last: see make_room. */
  else
    g_message ("%s: %s: converting anew", self->path, wrong);
  for (guint i = 0; i < self->header.n_entries && !self->map; i++)
    self->entries[i].hash = 0;
  close (fd);
  return self->map != NULL;
}

static void
import_blocks (IvlWeightCache *self)
{
  for (guint i = 0; i < self->blocks->len; i++) {
    Block *block = &g_array_index (self->blocks, Block, i);
    block->buffer = ivl_vk_buffer_import (self->packer->device, self->map + block->offset, block->bytes);
    if (block->buffer)
      self->mapped_bytes += block->bytes;
  }
}

static const Block *
block_of (const IvlWeightCache *self, const Entry *entry)
{
  for (guint i = self->blocks->len; i-- > 1;)
    if (g_array_index (self->blocks, Block, i).offset <= entry->offset)
      return &g_array_index (self->blocks, Block, i);
  return &g_array_index (self->blocks, Block, 0);
}

gboolean
ivl_weight_cache_take (IvlWeightCache *self, guint i, IvlWeight *weight, GError **error)
{
  const Entry *entry = &self->entries[i];
  const IvlCachedMatrix *m = &self->matrices[i];
  const Block *block = block_of (self, entry);
  ivl_pack_lay_out (self->packer, m->source, m->dtype, weight);
  guint64 slice_bytes = ivl_weight_slice_bytes (m->dtype, weight->slice_n, weight->k);
  gboolean mapped = block->buffer && (weight->n_slices == 1 || slice_bytes % MATRIX_ALIGN == 0);
  if (g_cancellable_set_error_if_cancelled (self->packer->cancellable, NULL))
    return ivl_fail (error, IVL_ERROR_CANCELLED, "Loading was cancelled");
  for (guint s = 0; s < weight->n_slices; s++) {
    guint64 offset = entry->offset + s * slice_bytes;
    guint64 bytes = MIN (slice_bytes, entry->offset + entry->bytes - offset);
    if (mapped)
      weight->slices[s] = (IvlSpan){ block->buffer, offset - block->offset, bytes };
    else if (!ivl_vk_arena_alloc (&self->packer->arena, bytes, &weight->slices[s], error)
             || !ivl_vk_write (self->packer->stream, weight->slices[s], self->map + offset, bytes, error))
      return FALSE;
  }
  /* What was copied isn't needed a second time. */
  if (!mapped)
    madvise (self->map + block->offset, block->bytes, MADV_DONTNEED);
  return TRUE;
}

/* ---- writing ---- */

typedef struct {
  char *name;
  gint64 used;
  guint64 bytes;
} Old;

static gint
by_use (gconstpointer a, gconstpointer b)
{
  const Old *x = a, *y = b;
  return x->used < y->used ? -1 : x->used > y->used;
}

static void
old_clear (gpointer old)
{
  g_free (((Old *) old)->name);
}

static gboolean
fits (const char *folder, guint64 total, guint64 bytes)
{
  struct statvfs fs;
  if (statvfs (folder, &fs) < 0)
    return FALSE;
  guint64 spare = MIN (IVL_WEIGHT_CACHE_SPARE, (guint64) fs.f_blocks * fs.f_frsize / 20);
  return total + bytes <= IVL_WEIGHT_CACHE_BYTES && (guint64) fs.f_bavail * fs.f_frsize >= bytes + spare;
}

/* Whether BYTES may be written, after deleting what must go for it. */
static gboolean
make_room (const char *folder, guint64 bytes)
{
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  g_autoptr (GArray) files = g_array_new (FALSE, FALSE, sizeof (Old));
  g_array_set_clear_func (files, old_clear);
  guint64 total = 0;
  gint64 now = g_get_real_time () / G_USEC_PER_SEC;
  for (const char *name; dir && (name = g_dir_read_name (dir));) {
    struct stat st;
    g_autofree char *path = g_build_filename (folder, name, NULL);
    if (!g_str_has_prefix (name, PREFIX) || lstat (path, &st) < 0 || !S_ISREG (st.st_mode))
      continue;
    if (!g_str_has_suffix (name, SUFFIX)) {
      if (now - st.st_mtim.tv_sec > FORGOTTEN_SECONDS)
        unlink (path);
      else
        total += (guint64) st.st_size;
      continue;
    }
    Old old = { g_steal_pointer (&path), st.st_mtim.tv_sec, (guint64) st.st_size };
    g_array_append_val (files, old);
    total += old.bytes;
  }
  g_array_sort (files, by_use);
  for (guint i = 0; i < files->len && !fits (folder, total, bytes); i++) {
    const Old *old = &g_array_index (files, Old, i);
    if (unlink (old->name) == 0)
      total -= old->bytes;
  }
  return fits (folder, total, bytes);
}

static void
give_up (IvlWeightCache *self, const char *why)
{
  if (why)
    g_message ("converted weights aren't kept in %s: %s", self->path, why);
  if (self->fd >= 0) {
    close (self->fd);
    unlink (self->temporary);
  }
  self->fd = -1;
}

static void
write_all (IvlWeightCache *self, const void *data, gsize bytes, guint64 offset)
{
  for (gsize done = 0; self->fd >= 0 && done < bytes;) {
    gssize n = pwrite (self->fd, (const char *) data + done, bytes - done, (off_t) (offset + done));
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      give_up (self, n < 0 ? g_strerror (errno) : "nothing could be written");
    else
      done += (gsize) n;
  }
}

static void
on_packed (const void *data, gsize bytes, gpointer user_data)
{
  IvlWeightCache *self = user_data;
  if (self->fd < 0)
    return;
  g_assert (self->writing && self->written + bytes <= self->writing->bytes);
  write_all (self, data, bytes, self->writing->offset + self->written);
  XXH3_64bits_update (self->hash, data, bytes);
  self->written += bytes;
  if (self->written == self->writing->bytes)
    self->writing->hash = XXH3_64bits_digest (self->hash);
}

static void
begin_file (IvlWeightCache *self)
{
  g_autofree char *folder = g_path_get_dirname (self->path);
  if (g_mkdir_with_parents (folder, 0700) < 0) {
    give_up (self, g_strerror (errno));
    return;
  }
  struct stat st;
  if (stat (folder, &st) < 0 || (st.st_mode & S_IWOTH)) {
    give_up (self, "others can write there");
    return;
  }
  if (!make_room (folder, self->header.file_bytes)) {
    give_up (self, "no room");
    return;
  }
  self->temporary = g_strconcat (self->path, ".XXXXXX", NULL);
  self->fd = g_mkstemp_full (self->temporary, O_RDWR | O_CLOEXEC, 0600);
  if (self->fd < 0) {
    give_up (self, g_strerror (errno));
    return;
  }
  /* A full disk shows here where the file system can tell, else while writing. */
  if (fallocate (self->fd, 0, 0, (off_t) self->header.file_bytes) < 0
      && (errno != EOPNOTSUPP || ftruncate (self->fd, (off_t) self->header.file_bytes) < 0)) {
    give_up (self, g_strerror (errno));
    return;
  }
  self->hash = XXH3_createState ();
  self->packer->packed = on_packed;
  self->packer->packed_data = self;
}

void
ivl_weight_cache_begin (IvlWeightCache *self, guint i)
{
  self->writing = &self->entries[i];
  self->written = 0;
  if (self->hash)
    XXH3_64bits_reset (self->hash);
}

void
ivl_weight_cache_commit (IvlWeightCache *self)
{
  gsize table_bytes = self->header.n_entries * sizeof (Entry);
  self->packer->packed = NULL;
  if (self->fd < 0)
    return;
  g_autofree char *key = make_key (self);
  if (!key || memcmp (key, self->header.key, sizeof self->header.key) != 0) {
    give_up (self, "the model's files changed meanwhile");
    return;
  }
  self->header.table_hash = XXH3_64bits (self->entries, table_bytes);
  write_all (self, self->entries, table_bytes, sizeof self->header);
  write_all (self, &self->header, sizeof self->header, 0);
  if (self->fd < 0)
    return;
  if (rename (self->temporary, self->path) < 0) {
    give_up (self, g_strerror (errno));
    return;
  }
  close (self->fd);
  self->fd = -1;
  g_info ("converted weights are kept in %s", self->path);
}

/* ---- both ---- */

IvlWeightCache *
ivl_weight_cache_open (IvlPacker *packer, const IvlCheckpoint *checkpoint, const IvlCachedMatrix *matrices, guint n)
{
  gboolean converted = FALSE;
  for (guint i = 0; i < n; i++)
    converted = converted || ivl_dtype_is_quantised (matrices[i].dtype)
                || (guint) matrices[i].dtype != (guint) matrices[i].source->dtype;
  if (!converted)
    return NULL;
  IvlWeightCache *self = g_new0 (IvlWeightCache, 1);
  self->packer = packer;
  self->checkpoint = checkpoint;
  self->matrices = g_memdup2 (matrices, n * sizeof *matrices);
  self->entries = g_new0 (Entry, n);
  self->blocks = g_array_new (FALSE, FALSE, sizeof (Block));
  self->fd = -1;
  lay_out (self, n);
  g_autofree char *key = make_key (self);
  if (!key) {
    ivl_weight_cache_free (self);
    return NULL;
  }
  memcpy (self->header.key, key, sizeof self->header.key);
  g_autofree char *folder = ivl_cache_folder ();
  g_autofree char *name = g_strdup_printf (PREFIX "%.32s" SUFFIX, key);
  self->path = g_build_filename (folder, name, NULL);
  if (open_file (self))
    import_blocks (self);
  else
    begin_file (self);
  return self;
}

gboolean
ivl_weight_cache_is_hit (const IvlWeightCache *self)
{
  return self->map != NULL;
}

guint64
ivl_weight_cache_mapped_bytes (const IvlWeightCache *self)
{
  return self->mapped_bytes;
}

void
ivl_weight_cache_free (IvlWeightCache *self)
{
  if (!self)
    return;
  give_up (self, NULL);
  for (guint i = 0; i < self->blocks->len; i++)
    ivl_vk_buffer_free (g_array_index (self->blocks, Block, i).buffer);
  g_array_unref (self->blocks);
  if (self->map)
    munmap (self->map, self->header.file_bytes);
  if (self->hash)
    XXH3_freeState (self->hash);
  g_free (self->matrices);
  g_free (self->entries);
  g_free (self->temporary);
  g_free (self->path);
  g_free (self);
}
