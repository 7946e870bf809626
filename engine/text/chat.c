#include "text/chat.h"

#include <string.h>

#include "base/error.h"

#define IMAGE "<image>"

struct IvlChat {
  IvlTokenizer *tokenizer;
  guint tokens_per_tile;
  IvlEncodeFlags parse;
  guint32 im_start, im_end, img, img_end, img_context;
};

static gboolean
find (IvlChat *self, const char *name, guint32 *id, GError **error)
{
  gint32 found = ivl_tokenizer_token_id (self->tokenizer, name);
  *id = (guint32) found;
  return found >= 0
         || ivl_fail (error, IVL_ERROR_BAD_MODEL,
                      "the tokenizer has no token \"%s\"; is added_tokens.json or tokenizer_config.json missing?", name);
}

IvlChat *
ivl_chat_new (IvlTokenizer *tokenizer, guint tokens_per_tile, IvlEncodeFlags parse, GError **error)
{
  g_autoptr (IvlChat) self = g_new0 (IvlChat, 1);
  self->tokenizer = ivl_tokenizer_ref (tokenizer);
  self->tokens_per_tile = tokens_per_tile;
  self->parse = parse & (IVL_ENCODE_TAGS | IVL_ENCODE_SPECIAL);
  if (!find (self, "<|im_start|>", &self->im_start, error) || !find (self, "<|im_end|>", &self->im_end, error)
      || !find (self, "<img>", &self->img, error) || !find (self, "</img>", &self->img_end, error)
      || !find (self, "<IMG_CONTEXT>", &self->img_context, error))
    return NULL;
  return g_steal_pointer (&self);
}

void
ivl_chat_free (IvlChat *self)
{
  if (!self)
    return;
  ivl_tokenizer_unref (self->tokenizer);
  g_free (self);
}

guint32
ivl_chat_get_image_id (const IvlChat *self)
{
  return self->img_context;
}

guint32
ivl_chat_get_end_id (const IvlChat *self)
{
  return self->im_end;
}

/* Ids so far, and the text since the last special token. */
typedef struct {
  const IvlChat *chat;
  GArray *ids;
  GString *run;
  GError **error;
} Writer;

static gboolean
end_run (Writer *w)
{
  gboolean fine
    = w->run->len == 0
      || ivl_tokenizer_encode (w->chat->tokenizer, w->run->str, (gssize) w->run->len, w->chat->parse, w->ids, w->error);
  g_string_truncate (w->run, 0);
  return fine;
}

static gboolean
write_special (Writer *w, guint32 id, gsize times)
{
  if (!end_run (w))
    return FALSE;
  for (gsize i = 0; i < times; i++)
    g_array_append_val (w->ids, id);
  return TRUE;
}

/* Text of a caller: WHAT is its name in messages. */
static gboolean
write_text (Writer *w, const char *what, const char *text, gsize length)
{
  const char *end;
  if (memchr (text, 0, length))
    return ivl_fail (w->error, IVL_ERROR_BAD_ARGUMENT, "the %s has a NUL character at byte %zu", what,
                     strnlen (text, length));
  if (!g_utf8_validate_len (text, length, &end))
    return ivl_fail (w->error, IVL_ERROR_BAD_ARGUMENT, "the %s isn't valid UTF-8: byte 0x%02X at %zu", what,
                     (guint8) *end, (gsize) (end - text));
  g_string_append_len (w->run, text, (gssize) length);
  return TRUE;
}

static gboolean
write_image (Writer *w, guint tiles)
{
  const IvlChat *chat = w->chat;
  gsize n = (gsize) tiles * chat->tokens_per_tile;
  if (n > G_MAXINT32 / 8)
    return ivl_fail (w->error, IVL_ERROR_BAD_ARGUMENT, "a picture of %u tiles is too big for any prompt", tiles);
  return write_special (w, chat->img, 1) && write_special (w, chat->img_context, n)
         && write_special (w, chat->img_end, 1);
}

static gboolean
write_auto_images (Writer *w, const IvlChatTurn *turn)
{
  const char *label = turn->media == IVL_MEDIA_VIDEO ? "Frame" : "Image-";
  for (guint i = 0; i < turn->n_images; i++) {
    if (turn->n_images > 1)
      g_string_append_printf (w->run, "%s%u: ", label, i + 1);
    if (!write_image (w, turn->image_tiles[i]))
      return FALSE;
    g_string_append_c (w->run, '\n');
  }
  return TRUE;
}

static guint
count_placeholders (const char *text, gsize length)
{
  guint n = 0;
  const char *end = text + length;
  for (const char *p = text; (p = memmem (p, (gsize) (end - p), IMAGE, strlen (IMAGE))); p += strlen (IMAGE))
    n++;
  return n;
}

static gboolean
write_question (Writer *w, const IvlChatTurn *turn)
{
  const char *p = turn->question ? turn->question : "";
  gsize length = turn->question_length < 0 || !turn->question ? strlen (p) : (gsize) turn->question_length;
  const char *end = p + length;
  guint n = count_placeholders (p, length);
  if (n == 0) {
    if (!write_auto_images (w, turn))
      return FALSE;
  } else if (n != turn->n_images) {
    return ivl_fail (w->error, IVL_ERROR_BAD_ARGUMENT,
                     "the prompt marks places for %u pictures with %s, but comes with %u; mark as many, or none to have "
                     "them put in front",
                     n, IMAGE, turn->n_images);
  }
  for (guint i = 0; i < n; i++) {
    const char *at = memmem (p, (gsize) (end - p), IMAGE, strlen (IMAGE));
    if (!write_text (w, "prompt", p, (gsize) (at - p)) || !write_image (w, turn->image_tiles[i]))
      return FALSE;
    p = at + strlen (IMAGE);
  }
  return write_text (w, "prompt", p, (gsize) (end - p));
}

static gboolean
write_role (Writer *w, const char *role)
{
  if (!write_special (w, w->chat->im_start, 1))
    return FALSE;
  g_string_append (w->run, role);
  g_string_append_c (w->run, '\n');
  return TRUE;
}

static gboolean
write_end (Writer *w)
{
  if (!write_special (w, w->chat->im_end, 1))
    return FALSE;
  g_string_append_c (w->run, '\n');
  return TRUE;
}

static gboolean
write_turn (Writer *w, const IvlChatTurn *turn)
{
  return write_role (w, "user") && write_question (w, turn) && write_end (w) && write_role (w, "assistant")
         && (!turn->answer || (write_text (w, "answer", turn->answer, strlen (turn->answer)) && write_end (w)));
}

static gboolean
finish (Writer *w, gboolean fine, guint before)
{
  fine = fine && end_run (w);
  if (!fine)
    g_array_set_size (w->ids, before);
  g_string_free (w->run, TRUE);
  return fine;
}

gboolean
ivl_chat_render (const IvlChat *self, const char *system, const IvlChatTurn *turns, guint n_turns, GArray *ids,
                 GError **error)
{
  guint before = ids->len;
  gint32 bos = ivl_tokenizer_get_bos (self->tokenizer);
  Writer w = { self, ids, g_string_new (NULL), error };
  if (bos >= 0)
    g_array_append_val (ids, bos);
  gboolean fine
    = !system || (write_role (&w, "system") && write_text (&w, "system prompt", system, strlen (system)) && write_end (&w));
  for (guint i = 0; fine && i < n_turns; i++)
    fine = write_turn (&w, &turns[i]);
  return finish (&w, fine, before);
}

gboolean
ivl_chat_continue (const IvlChat *self, gboolean ended, const IvlChatTurn *turn, GArray *ids, GError **error)
{
  guint before = ids->len;
  Writer w = { self, ids, g_string_new (NULL), error };
  gboolean fine = ended || write_special (&w, self->im_end, 1);
  g_string_append_c (w.run, '\n');
  return finish (&w, fine && write_turn (&w, turn), before);
}
