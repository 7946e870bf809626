/* Files of a model folder, which may be anything: missing, huge, a pipe, a folder. */
#ifndef IVL_BASE_FILE_H
#define IVL_BASE_FILE_H

#include <glib.h>

/* Opens FOLDER/NAME for reading if it is a regular file (symbolic links are followed: download caches use them) and
 * tells its size. -1 on failure: IVL_ERROR_BAD_MODEL if there is no such file, else IVL_ERROR_IO. Never blocks on a
 * pipe. The caller closes the descriptor. */
int ivl_file_open (const char *folder, const char *name, guint64 *size, GError **error);

/* Whole contents, refused beyond MAX_BYTES. */
GBytes *ivl_file_read (const char *folder, const char *name, gsize max_bytes, GError **error);

/* Reads exactly N bytes at OFFSET, or fails with IVL_ERROR_IO. NAME stands in the message. */
gboolean ivl_file_pread (int fd, const char *name, void *data, gsize n, guint64 offset, GError **error);

/* Adds to SUM what tells a file from another and from an edited one without reading all of it: size, time of change, and
 * samples of its bytes. FALSE if it can't be read. */
gboolean ivl_file_identify (int fd, GChecksum *sum);

/* Where the engine keeps what it can make again: $INTERNVL_CACHE, else "internvl" in the XDG cache folder. Free with
 * g_free. */
char *ivl_cache_folder (void);

/* Whether FOLDER has something called NAME. */
gboolean ivl_file_exists (const char *folder, const char *name);

#endif
