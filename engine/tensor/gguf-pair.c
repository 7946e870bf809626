#include "tensor/gguf-pair.h"

#include <string.h>

#include "base/error.h"
#include "base/file.h"

#define MAX_FILES 256

static gboolean
is_gguf_name (const char *name)
{
  gsize n = strlen (name);
  return n > 5 && g_ascii_strcasecmp (name + n - 5, ".gguf") == 0;
}

static gboolean
says_mmproj (const char *name)
{
  g_autofree char *lower = g_ascii_strdown (name, -1);
  return strstr (lower, "mmproj") != NULL;
}

/* Names that say mmproj first, else by alphabet. */
static int
by_name (gconstpointer a, gconstpointer b)
{
  const char *x = *(char *const *) a, *y = *(char *const *) b;
  int order = says_mmproj (y) - says_mmproj (x);
  return order ? order : strcmp (x, y);
}

static GPtrArray *
list_folder (const char *folder)
{
  GPtrArray *names = g_ptr_array_new_with_free_func (g_free);
  GDir *dir = g_dir_open (folder, 0, NULL);
  const char *name;
  while (dir && (name = g_dir_read_name (dir)) && names->len < MAX_FILES)
    if (is_gguf_name (name) && name[0] != '.')
      g_ptr_array_add (names, g_strdup (name));
  if (dir)
    g_dir_close (dir);
  g_ptr_array_sort (names, by_name);
  return names;
}

gboolean
ivl_gguf_pair_is (const char *path)
{
  if (g_file_test (path, G_FILE_TEST_IS_DIR)) {
    if (ivl_file_exists (path, "config.json"))
      return FALSE;
    g_autoptr (GPtrArray) names = list_folder (path);
    return names->len > 0;
  }
  return is_gguf_name (path) || g_file_test (path, G_FILE_TEST_IS_REGULAR);
}

/* Whether FILE is an mmproj with a vision encoder; *TEXT whether it is a text model. */
static gboolean
tell_kind (const IvlGguf *file, gboolean *vision, gboolean *text, GError **error)
{
  guint64 parts = 0;
  g_autofree char *architecture = ivl_gguf_get_string (file, "general.architecture", error);
  if (!architecture)
    return FALSE;
  gboolean clip = strcmp (architecture, "clip") == 0;
  *text = !clip;
  *vision = clip;
  if (clip && ivl_gguf_has (file, "clip.has_vision_encoder")
      && !ivl_gguf_get_bool (file, "clip.has_vision_encoder", vision, error))
    return FALSE;
  if (ivl_gguf_has (file, "split.count") && !ivl_gguf_get_uint (file, "split.count", &parts, error))
    return FALSE;
  if (parts > 1)
    return ivl_fail (error, IVL_ERROR_UNSUPPORTED, "%s: one of %" G_GUINT64_FORMAT " parts of a model; join them with "
                     "llama-gguf-split --merge", ivl_gguf_get_name (file), parts);
  return TRUE;
}

/* Looks through FOLDER for what isn't there yet. WANT_TEXT: for the text model, too. */
static gboolean
search (const char *folder, gboolean want_text, IvlGguf **text, IvlGguf **vision, GError **error)
{
  g_autoptr (GPtrArray) names = list_folder (folder);
  for (guint i = 0; i < names->len; i++) {
    const char *name = names->pdata[i];
    gboolean is_vision = FALSE, is_text = FALSE;
    /* Beside a text model that was named, other models may lie: enough of one mmproj that says it is one. */
    if (!want_text && *vision && !says_mmproj (name))
      break;
    g_autoptr (IvlGguf) file = ivl_gguf_open (folder, name, error);
    if (!file || !tell_kind (file, &is_vision, &is_text, error))
      return FALSE;
    IvlGguf **place = is_vision ? vision : is_text && want_text ? text : NULL;
    if (!place)
      continue;
    if (*place)
      return ivl_fail (error, IVL_ERROR_BAD_MODEL, "%s and %s are both %s: %s", ivl_gguf_get_name (*place),
                       ivl_gguf_get_name (file), is_vision ? "mmproj files" : "text models",
                       is_vision ? "leave one beside the text model" : "name one of them");
    *place = g_steal_pointer (&file);
  }
  return TRUE;
}

gboolean
ivl_gguf_pair_open (const char *path, IvlGguf **text, IvlGguf **vision, GError **error)
{
  g_autoptr (IvlGguf) found_text = NULL, found_vision = NULL;
  gboolean is_folder = g_file_test (path, G_FILE_TEST_IS_DIR);
  g_autofree char *folder = is_folder ? g_strdup (path) : g_path_get_dirname (path);
  g_autofree char *shown = g_filename_display_name (folder);
  if (!is_folder) {
    gboolean is_vision = FALSE, is_text = FALSE;
    g_autofree char *name = g_path_get_basename (path);
    if (!is_gguf_name (name) && ivl_file_exists (folder, "config.json"))
      return ivl_fail (error, IVL_ERROR_BAD_MODEL, "%s is one file of a checkpoint: give the path of its folder, %s", name,
                       shown);
    found_text = ivl_gguf_open (folder, name, error);
    if (!found_text || !tell_kind (found_text, &is_vision, &is_text, error))
      return FALSE;
    if (!is_text)
      return ivl_fail (error, IVL_ERROR_BAD_MODEL, "%s is an mmproj file: give the path of the text model beside it",
                       ivl_gguf_get_name (found_text));
  }
  if ((is_folder || vision) && !search (folder, is_folder, &found_text, &found_vision, error))
    return FALSE;
  if (!found_text)
    return ivl_fail (error, IVL_ERROR_BAD_MODEL, "%s has no GGUF text model, only an mmproj file", shown);
  if (vision && !found_vision)
    return ivl_fail (error, IVL_ERROR_BAD_MODEL, "%s: no mmproj file beside it in %s: the vision encoder comes in a "
                     "GGUF file of its own; download it to the same folder", ivl_gguf_get_name (found_text), shown);
  if (vision)
    *vision = g_steal_pointer (&found_vision);
  *text = g_steal_pointer (&found_text);
  return TRUE;
}
