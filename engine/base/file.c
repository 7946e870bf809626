#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

int
ivl_file_open (const char *folder, const char *name, guint64 *size, GError **error)
{
  g_autofree char *path = g_build_filename (folder, name, NULL);
  g_autofree char *shown = g_filename_display_name (path);
  /* O_NONBLOCK: opening a pipe without a writer would wait for one. */
  int fd = open (path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    int e = errno;
    ivl_fail (error, e == ENOENT || e == ENOTDIR ? IVL_ERROR_BAD_MODEL : IVL_ERROR_IO, "%s: %s", shown, g_strerror (e));
    return -1;
  }
  struct stat st;
  if (fstat (fd, &st) < 0)
    ivl_fail (error, IVL_ERROR_IO, "%s: %s", shown, g_strerror (errno));
  else if (!S_ISREG (st.st_mode))
    ivl_fail (error, IVL_ERROR_IO, "%s: not a regular file", shown);
  else {
    *size = (guint64) st.st_size;
    return fd;
  }
  close (fd);
  return -1;
}

gboolean
ivl_file_pread (int fd, const char *name, void *data, gsize n, guint64 offset, GError **error)
{
  for (gsize done = 0; done < n;) {
    gssize got = pread (fd, (char *) data + done, n - done, (off_t) (offset + done));
    if (got < 0 && errno == EINTR)
      continue;
    if (got < 0)
      return ivl_fail (error, IVL_ERROR_IO, "%s: %s", name, g_strerror (errno));
    if (got == 0)
      return ivl_fail (error, IVL_ERROR_IO, "%s: became shorter while it was read", name);
    done += (gsize) got;
  }
  return TRUE;
}

GBytes *
ivl_file_read (const char *folder, const char *name, gsize max_bytes, GError **error)
{
  guint64 size;
  int fd = ivl_file_open (folder, name, &size, error);
  if (fd < 0)
    return NULL;
  GBytes *bytes = NULL;
  if (size > max_bytes) {
    ivl_fail (error, IVL_ERROR_BAD_MODEL, "%s: %" G_GUINT64_FORMAT " bytes, more than the %zu that such a file may have",
              name, size, max_bytes);
  } else {
    char *data = g_malloc (size + 1);
    if (ivl_file_pread (fd, name, data, size, 0, error))
      bytes = g_bytes_new_take (data, size);
    else
      g_free (data);
  }
  close (fd);
  return bytes;
}

gboolean
ivl_file_identify (int fd, GChecksum *sum)
{
  enum { SAMPLES = 64, SAMPLE_BYTES = 4096 };
  struct stat st;
  if (fstat (fd, &st) < 0)
    return FALSE;
  gint64 facts[] = { st.st_size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec };
  g_checksum_update (sum, (const guchar *) facts, sizeof facts);
  guint64 last = st.st_size > SAMPLE_BYTES ? (guint64) st.st_size - SAMPLE_BYTES : 0;
  for (guint i = 0; i < SAMPLES; i++) {
    guchar data[SAMPLE_BYTES];
    gssize got = pread (fd, data, sizeof data, (off_t) (last / (SAMPLES - 1) * i + (i + 1 == SAMPLES ? last % (SAMPLES - 1) : 0)));
    if (got < 0)
      return FALSE;
    g_checksum_update (sum, data, got);
  }
  return TRUE;
}

char *
ivl_cache_folder (void)
{
  const char *base = g_getenv ("INTERNVL_CACHE");
  return base && *base ? g_strdup (base) : g_build_filename (g_get_user_cache_dir (), "internvl", NULL);
}

gboolean
ivl_file_exists (const char *folder, const char *name)
{
  g_autofree char *path = g_build_filename (folder, name, NULL);
  return g_file_test (path, G_FILE_TEST_EXISTS);
}
