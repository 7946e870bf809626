/* Token ids to UTF-8, whole or one by one. */
#include "text/tokenizer-private.h"

#include <string.h>

#define REPLACEMENT "\xef\xbf\xbd"

struct IvlTextDecoder {
  IvlTokenizer *tokenizer;
  IvlDecodeFlags flags;
  guint8 held[4]; /* a UTF-8 sequence that isn't complete yet */
  guint n_held, n_needed;
  guint8 low, high; /* what the next byte may be */
  gboolean begun;
};

static void
start_over (IvlTextDecoder *self)
{
  self->n_held = 0;
  self->begun = FALSE;
}

IvlTextDecoder *
ivl_text_decoder_new (IvlTokenizer *tokenizer, IvlDecodeFlags flags)
{
  IvlTextDecoder *self = g_new0 (IvlTextDecoder, 1);
  self->tokenizer = ivl_tokenizer_ref (tokenizer);
  self->flags = flags;
  return self;
}

void
ivl_text_decoder_free (IvlTextDecoder *self)
{
  if (!self)
    return;
  ivl_tokenizer_unref (self->tokenizer);
  g_free (self);
}

/* What is held can't become a character: one U+FFFD for it, or one a byte, as the reference's decoder does. (A
 * tokenizer.json with byte fallback has the tokenizers library replace the whole run of byte tokens round a bad
 * byte, good characters too; here it decodes like the SentencePiece model it was made from.) */
static void
give_up (IvlTextDecoder *self, GString *out)
{
  guint n = self->tokenizer->bytes_alone ? self->n_held : self->n_held > 0;
  for (guint i = 0; i < n; i++)
    g_string_append (out, REPLACEMENT);
  self->n_held = 0;
}

/* Unicode 15, table 3-7. */
static void
feed_byte (IvlTextDecoder *self, guint8 byte, GString *out)
{
  if (self->n_held > 0) {
    if (byte >= self->low && byte <= self->high) {
      self->held[self->n_held++] = byte;
      self->low = 0x80;
      self->high = 0xbf;
      if (self->n_held == self->n_needed) {
        g_string_append_len (out, (const char *) self->held, self->n_held);
        self->n_held = 0;
      }
      return;
    }
    give_up (self, out);
  }
  if (byte == 0 && (self->flags & IVL_DECODE_NO_NUL)) {
    g_string_append (out, REPLACEMENT);
  } else if (byte < 0x80) {
    g_string_append_c (out, (char) byte);
  } else if (byte >= 0xc2 && byte <= 0xf4) {
    self->held[0] = byte;
    self->n_held = 1;
    self->n_needed = byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
    self->low = byte == 0xe0 ? 0xa0 : byte == 0xf0 ? 0x90 : 0x80;
    self->high = byte == 0xed ? 0x9f : byte == 0xf4 ? 0x8f : 0xbf;
  } else {
    g_string_append (out, REPLACEMENT);
  }
}

void
ivl_text_decoder_feed (IvlTextDecoder *self, guint32 id, GString *out)
{
  IvlTokenFlags flags = ivl_tokenizer_token_flags (self->tokenizer, id);
  if ((flags & IVL_TOKEN_SPECIAL) && (self->flags & IVL_DECODE_SKIP_SPECIAL)
      && !((flags & IVL_TOKEN_TAG) && (self->flags & IVL_DECODE_KEEP_TAGS)))
    return;
  gsize n;
  const guint8 *bytes = ivl_tokenizer_token_bytes (self->tokenizer, id, &n);
  if (n == 0)
    return;
  if (!self->begun && self->tokenizer->strip_first_space && !(flags & IVL_TOKEN_ADDED) && bytes[0] == ' ') {
    bytes++;
    n--;
  }
  self->begun = TRUE;
  for (gsize i = 0; i < n; i++)
    feed_byte (self, bytes[i], out);
}

void
ivl_text_decoder_flush (IvlTextDecoder *self, GString *out)
{
  give_up (self, out);
  start_over (self);
}

char *
ivl_tokenizer_decode (const IvlTokenizer *self, const guint32 *ids, gsize n, IvlDecodeFlags flags, gsize *length)
{
  IvlTextDecoder decoder = { (IvlTokenizer *) self, flags };
  GString *out = g_string_sized_new (4 * n + 1);
  for (gsize i = 0; i < n; i++)
    ivl_text_decoder_feed (&decoder, ids[i], out);
  ivl_text_decoder_flush (&decoder, out);
  if (length)
    *length = out->len;
  return g_string_free (out, FALSE);
}
