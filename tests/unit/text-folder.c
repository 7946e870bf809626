#include "text-folder.h"

#include <string.h>

const char *const text_added[] = { "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>",  "</img>", "<IMG_CONTEXT>",
                                   "<quad>",        "</quad>",      "<ref>",      "</ref>", "<box>",  "</box>",
                                   "<tool_call>",   NULL };

static void
append_json_string (GString *out, const char *text)
{
  g_string_append_c (out, '"');
  for (const char *p = text; *p; p++) {
    if (*p == '"' || *p == '\\')
      g_string_append_c (out, '\\');
    g_string_append_c (out, *p);
  }
  g_string_append_c (out, '"');
}

char *
text_vocab_json (gboolean chars, const char *const *extra)
{
  GString *out = g_string_new ("{");
  gunichar next = 0x100;
  for (guint b = 0; b < 256; b++) {
    char piece[8] = "";
    if (chars) {
      g_snprintf (piece, sizeof piece, "<0x%02X>", b);
    } else {
      gboolean printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
      piece[g_unichar_to_utf8 (printable ? b : next++, piece)] = '\0';
    }
    append_json_string (out, piece);
    g_string_append_printf (out, ":%u,", b);
  }
  for (guint i = 0; extra && extra[i]; i++) {
    append_json_string (out, extra[i]);
    g_string_append_printf (out, ":%u,", 256 + i);
  }
  out->str[out->len - 1] = '}';
  return g_string_free (out, FALSE);
}

void
text_write_qwen2 (const char *folder)
{
  static const char *const extra[]
    = { "he", "ll", "hell", "hello", "Ġw", "or", "Ġwor", "ld", "Ġworld", NULL };
  g_autofree char *vocab = text_vocab_json (FALSE, extra);
  folder_write (folder, "vocab.json", vocab, -1);
  folder_write (folder, "merges.txt",
                "#version: 0.2\nh e\nl l\nhe ll\nhell o\nĠ w\no r\nĠw or\nl d\nĠwor ld\n", -1);
  g_autoptr (GString) config = g_string_new ("{\"eos_token\":\"<|im_end|>\",\"bos_token\":null,\"added_tokens_decoder\":{");
  for (guint i = 0; text_added[i]; i++)
    g_string_append_printf (config, "%s\"%u\":{\"content\":\"%s\",\"special\":%s,\"normalized\":false}", i ? "," : "",
                            TEXT_ADDED + i, text_added[i], strcmp (text_added[i], "<tool_call>") ? "true" : "false");
  g_string_append (config, "}}");
  folder_write (folder, "tokenizer_config.json", config->str, -1);
}

guint32
text_added_id (const char *name)
{
  for (guint i = 0; text_added[i]; i++)
    if (strcmp (text_added[i], name) == 0)
      return TEXT_ADDED + i;
  g_assert_not_reached ();
}

/* ---- protobuf ---- */

static void
append_varint (GByteArray *out, guint64 value)
{
  do {
    guint8 byte = (guint8) ((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
    g_byte_array_append (out, &byte, 1);
    value >>= 7;
  } while (value);
}

static void
append_bytes (GByteArray *out, guint field, gconstpointer data, gsize n)
{
  append_varint (out, field << 3 | 2);
  append_varint (out, n);
  g_byte_array_append (out, data, (guint) n);
}

static void
append_int (GByteArray *out, guint field, guint64 value)
{
  append_varint (out, field << 3);
  append_varint (out, value);
}

GByteArray *
text_sp_new (void)
{
  return g_byte_array_new ();
}

void
text_sp_add_bytes (GByteArray *model, gconstpointer piece, gsize length, float score, int type)
{
  g_autoptr (GByteArray) entry = g_byte_array_new ();
  append_bytes (entry, 1, piece, length);
  append_varint (entry, 2 << 3 | 5);
  g_byte_array_append (entry, (const guint8 *) &score, 4);
  append_int (entry, 3, (guint64) type);
  append_bytes (model, 1, entry->data, entry->len);
}

void
text_sp_add (GByteArray *model, const char *piece, float score, int type)
{
  text_sp_add_bytes (model, piece, strlen (piece), score, type);
}

void
text_sp_add_basics (GByteArray *model)
{
  text_sp_add (model, "<unk>", 0, 2);
  text_sp_add (model, "<s>", 0, 3);
  text_sp_add (model, "</s>", 0, 3);
  for (guint b = 0; b < 256; b++) {
    char piece[8];
    g_snprintf (piece, sizeof piece, "<0x%02X>", b);
    text_sp_add (model, piece, 0, 6);
  }
}

void
text_sp_finish (GByteArray *model, int model_type, gboolean dummy_prefix, gconstpointer charsmap, gsize n_charsmap)
{
  g_autoptr (GByteArray) trainer = g_byte_array_new (), normalizer = g_byte_array_new ();
  append_int (trainer, 3, (guint64) model_type);
  append_int (trainer, 35, 1);
  append_int (trainer, 40, 0);
  append_int (trainer, 41, 1);
  append_int (trainer, 42, 2);
  append_bytes (model, 2, trainer->data, trainer->len);
  append_bytes (normalizer, 1, "identity", 8);
  if (n_charsmap)
    append_bytes (normalizer, 2, charsmap, n_charsmap);
  append_int (normalizer, 3, dummy_prefix);
  append_int (normalizer, 4, 0);
  append_int (normalizer, 5, 1);
  append_bytes (model, 3, normalizer->data, normalizer->len);
}

/* ---- ids ---- */

char *
text_ids (GArray *ids)
{
  GString *out = g_string_new (NULL);
  for (guint i = 0; i < ids->len; i++)
    g_string_append_printf (out, "%s%u", i ? " " : "", g_array_index (ids, guint32, i));
  return g_string_free (out, FALSE);
}

void
text_assert_encodes (IvlTokenizer *tokenizer, const char *text, IvlEncodeFlags flags, const char *expected)
{
  g_autoptr (GArray) ids = g_array_new (FALSE, FALSE, sizeof (guint32));
  GError *error = NULL;
  g_assert_true (ivl_tokenizer_encode (tokenizer, text, -1, flags, ids, &error));
  g_assert_no_error (error);
  g_autofree char *found = text_ids (ids);
  g_assert_cmpstr (found, ==, expected);
}
