/* Tokenizer folders of any content. The first byte says what the rest is:
 *   m  tokenizer.model
 *   j  tokenizer.json
 *   v  vocab.json, merges.txt, tokenizer_config.json and added_tokens.json, with a NUL between
 * What loads must encode and decode. */
#include <glib/gstdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text/chat.h"
#include "text/unicode.h"

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

static char *folder;

static const char *const names[] = { "vocab.json", "merges.txt", "tokenizer_config.json", "added_tokens.json",
                                     "tokenizer.model", "tokenizer.json" };

static void
clear_folder (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    g_autofree char *path = g_build_filename (folder, names[i], NULL);
    g_remove (path);
  }
}

static void
remove_folder (void)
{
  clear_folder ();
  g_rmdir (folder);
  g_free (folder);
}

static void
write_file (const char *name, const uint8_t *data, size_t size)
{
  g_autofree char *path = g_build_filename (folder, name, NULL);
  GError *error = NULL;
  if (!g_file_set_contents (path, (const char *) data, (gssize) size, &error))
    g_error ("%s", error->message);
}

/* Valid text can only fail with a SentencePiece model that contradicts itself. */
static void
encode (IvlTokenizer *tokenizer, const char *text, size_t size, IvlEncodeFlags flags, gboolean may_fail, GArray *ids)
{
  GError *error = NULL;
  guint before = ids->len;
  if (!ivl_tokenizer_encode (tokenizer, text, (gssize) size, flags, ids, &error)) {
    g_assert_true (may_fail);
    g_assert_error (error, IVL_ERROR, IVL_ERROR_BAD_MODEL);
    g_assert_cmpuint (ids->len, ==, before);
  }
  g_clear_error (&error);
}

static void
use (IvlTokenizer *tokenizer, gboolean may_fail, const uint8_t *data, size_t size)
{
  static const char sample[] = "Hello  world's\n\n 123 \xe4\xb8\xad\xe6\x96\x87 e\xcc\x81\xcc\xa3 \xf0\x9f\x98\x80<|im_end|><ref>"
                               "<s>\0[UNUSED_TOKEN_145] \xe2\x96\x81x\x1b";
  g_autoptr (GArray) ids = g_array_new (FALSE, FALSE, sizeof (guint32));
  for (IvlEncodeFlags flags = 0; flags < 8; flags++)
    encode (tokenizer, sample, sizeof sample, flags, may_fail, ids);
  /* The file's own words are the likeliest to be tokens. */
  if (ivl_utf8_validate ((const char *) data, size, NULL))
    encode (tokenizer, (const char *) data, size, IVL_ENCODE_SPECIAL, may_fail, ids);
  for (guint32 id = 0; id < MIN (ivl_tokenizer_get_n_tokens (tokenizer) + 2, 1000); id++)
    g_array_append_val (ids, id);
  for (IvlDecodeFlags flags = 0; flags < 4; flags++) {
    gsize n;
    g_autofree char *text = ivl_tokenizer_decode (tokenizer, (const guint32 *) ids->data, ids->len, flags, &n);
    g_assert_true (ivl_utf8_validate (text, n, NULL));
  }
  g_autoptr (IvlChat) chat = ivl_chat_new (tokenizer, 3, IVL_ENCODE_LITERAL, NULL);
  IvlChatTurn turn = { "<image>what?", -1, (const guint[]){ 2 }, 1 };
  if (chat)
    g_assert_true (ivl_chat_render (chat, "be good", &turn, 1, ids, NULL) || may_fail);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  if (size == 0)
    return 0;
  if (!folder) {
    folder = g_dir_make_tmp ("ivl-fuzz-XXXXXX", NULL);
    if (!folder)
      abort ();
    atexit (remove_folder);
  }
  clear_folder ();
  const uint8_t *rest = data + 1, *end = data + size;
  if (data[0] == 'm' || data[0] == 'j') {
    write_file (data[0] == 'm' ? "tokenizer.model" : "tokenizer.json", rest, size - 1);
  } else {
    for (guint i = 0; i < 4; i++) {
      const uint8_t *stop = memchr (rest, 0, (size_t) (end - rest));
      write_file (names[i], rest, (size_t) ((stop ? stop : end) - rest));
      if (!stop)
        break;
      rest = stop + 1;
    }
  }
  GError *error = NULL;
  IvlTokenizer *tokenizer = ivl_tokenizer_load (folder, &error);
  g_assert_true ((tokenizer != NULL) == (error == NULL));
  if (tokenizer)
    use (tokenizer, data[0] == 'm', data + 1, size - 1);
  else
    g_assert_true (g_utf8_validate (error->message, -1, NULL));
  g_clear_error (&error);
  ivl_tokenizer_unref (tokenizer);
  return 0;
}
