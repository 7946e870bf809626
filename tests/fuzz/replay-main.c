/* Gives every file named on the command line, and every file in folders named there, to a fuzz target: the corpus as
 * an ordinary test, and a way to look at one input in a debugger. */
#include <glib.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

static guint
replay (const char *path)
{
  GDir *dir = g_dir_open (path, 0, NULL);
  guint n = 0;
  if (dir) {
    const char *name;
    while ((name = g_dir_read_name (dir))) {
      g_autofree char *inner = g_build_filename (path, name, NULL);
      n += replay (inner);
    }
    g_dir_close (dir);
    return n;
  }

  g_autoptr (GError) error = NULL;
  g_autofree char *data = NULL;
  gsize size;
  if (!g_file_get_contents (path, &data, &size, &error)) {
    g_printerr ("%s\n", error->message);
    exit (1);
  }
  /* An exact copy, so that a sanitizer sees a read of one byte too many. */
  uint8_t *exact = malloc (size);
  if (size)
    memcpy (exact, data, size);
  LLVMFuzzerTestOneInput (exact, size);
  free (exact);
  return 1;
}

int
main (int argc, char **argv)
{
  guint n = 0;
  for (int i = 1; i < argc; i++)
    n += replay (argv[i]);
  g_print ("%u inputs\n", n);
  return n == 0;
}
