/* Models in GGUF files through the public API: made of a golden folder they give its answers, and quantised ones
 * answer at all. That their weights are right is checked row by row in unit/test-gguf.c. */
#include "ask.h"

#include <string.h>

static void
ask_all (const Golden *golden, IvlModel *model)
{
  JsonArray *cases = json_object_get_array_member (golden->root, "cases");
  g_assert_cmpuint (json_array_get_length (cases), >, 0);
  for (guint i = 0; i < json_array_get_length (cases); i++) {
    JsonObject *c = json_array_get_object_element (cases, i);
    if (!golden_case_is_askable (c))
      continue;
    g_test_message ("%s/%s", golden->name, json_object_get_string_member (c, "name"));
    golden_ask (model, c);
  }
}

/* NAME is a golden folder's and of the pair made of it. FILE: the path is that of the text model. */
static void
check_pair (const char *name, gboolean file, IvlWeights weights)
{
  g_autoptr (Golden) golden = golden_open (name);
  g_free (golden->folder);
  golden->folder = golden_path ("gguf", name, file ? "model.gguf" : NULL, NULL);
  IvlModel *model = golden_load (golden, &(IvlModelParams){ .weights = weights });
  ask_all (golden, model);
  ivl_model_unref (model);
}

static void
test_folder (gconstpointer name)
{
  check_pair (name, FALSE, IVL_WEIGHTS_AUTO);
}

static void
test_file (gconstpointer name)
{
  check_pair (name, TRUE, IVL_WEIGHTS_F32);
}

/* Weights that were made coarser can't be held to the reference's words. */
static void
test_quantised (void)
{
  g_autofree char *path = golden_path ("gguf", "internlm2-rms-orig-quantised", NULL);
  g_autoptr (GError) error = NULL;
  IvlDevice *device = ivl_device_open (NULL, &error);
  g_assert_no_error (error);
  static const IvlWeights kinds[] = { IVL_WEIGHTS_AUTO, IVL_WEIGHTS_F32, IVL_WEIGHTS_F16, IVL_WEIGHTS_BF16 };
  for (guint i = 0; i < G_N_ELEMENTS (kinds); i++) {
    IvlModel *model = ivl_model_load (device, path, &(IvlModelParams){ .weights = kinds[i] }, NULL, &error);
    g_assert_no_error (error);
    IvlSession *session = ivl_session_new (model, &error);
    g_assert_no_error (error);
    IvlQuestion question = { .prompt = "What is this?", .params = IVL_GENERATE_PARAMS_INIT };
    question.params.max_tokens = 4;
    IvlAnswer *answer = ivl_session_ask (session, &question, &error);
    g_assert_no_error (error);
    g_assert_cmpuint (answer->generated_tokens, >, 0);
    ivl_answer_free (answer);
    ivl_session_unref (session);
    ivl_model_unref (model);
  }
  ivl_device_unref (device);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_autofree char *root = golden_path ("gguf", NULL);
  g_autoptr (GDir) dir = g_dir_open (root, 0, NULL);
  g_assert_nonnull (dir);
  for (const char *name; (name = g_dir_read_name (dir));) {
    if (strchr (name, '.') || g_str_has_suffix (name, "-quantised"))
      continue;
    g_autofree char *folder = g_strconcat ("/gguf/folder/", name, NULL);
    g_autofree char *file = g_strconcat ("/gguf/file/", name, NULL);
    g_test_add_data_func_full (folder, g_strdup (name), test_folder, g_free);
    g_test_add_data_func_full (file, g_strdup (name), test_file, g_free);
  }
  g_test_add_func ("/gguf/quantised", test_quantised);
  return g_test_run ();
}
