/* Reads a SentencePiece ModelProto strictly, before the library sees it. Field numbers are those of
 * sentencepiece_model.proto; wire format: protobuf.dev/programming-guides/encoding. */
#include "text/sentencepiece.h"

#include <string.h>

#include "base/error.h"
#include "text/unicode.h"

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };
enum { MODEL_BPE = 2 };

/* Longer ones exist in no real model; the library recurses once a joined pair for unused pieces. */
#define MAX_PIECE_BYTES 1024

typedef struct {
  const guint8 *p, *end;
} Reader;

typedef struct {
  guint32 number;
  int wire;
  guint64 value; /* VARINT */
  Reader bytes;  /* BYTES */
} Field;

static gboolean
read_varint (Reader *r, guint64 *value)
{
  *value = 0;
  for (int shift = 0; shift < 70 && r->p < r->end; shift += 7) {
    guint8 byte = *r->p++;
    if (shift < 64)
      *value |= (guint64) (byte & 0x7f) << shift;
    if (!(byte & 0x80))
      return TRUE;
  }
  return FALSE;
}

static gboolean
read_field (Reader *r, Field *field)
{
  guint64 tag;
  if (!read_varint (r, &tag) || tag > G_MAXUINT32 || tag >> 3 == 0)
    return FALSE;
  field->number = (guint32) (tag >> 3);
  field->wire = (int) (tag & 7);
  gsize left = (gsize) (r->end - r->p);
  switch (field->wire) {
  case VARINT:
    return read_varint (r, &field->value);
  case BYTES:
    if (!read_varint (r, &field->value))
      return FALSE;
    left = (gsize) (r->end - r->p);
    if (field->value > left)
      return FALSE;
    field->bytes = (Reader){ r->p, r->p + field->value };
    r->p += field->value;
    return TRUE;
  case FIXED64:
  case FIXED32:
    if (left < (field->wire == FIXED32 ? 4 : 8))
      return FALSE;
    r->p += field->wire == FIXED32 ? 4 : 8;
    return TRUE;
  default: /* groups: protobuf would accept them, no model has them */
    return FALSE;
  }
}

static guint32
read_u32 (const guint8 *p)
{
  return (guint32) p[0] | (guint32) p[1] << 8 | (guint32) p[2] << 16 | (guint32) p[3] << 24;
}

/* A precompiled_charsmap is u32 n, n bytes of a double-array trie of u32 units, then NUL-terminated strings that its
 * leaves point into. The library walks it unchecked: from a unit at I with byte B to unit I ^ offset ^ B. Every such
 * step of every unit must stay inside. Unit: bit 31 leaf (bits 0-30: its value), bits 10-30 offset, bit 9: offset is
 * in 256s, bit 8: its leaf is the unit at I ^ offset (darts-clone). */
static const char *
check_charsmap (Reader map)
{
  gsize size = (gsize) (map.end - map.p);
  if (size == 0)
    return NULL;
  if (size <= 4)
    return "normalisation table is cut off";
  gsize trie_bytes = read_u32 (map.p);
  if (trie_bytes < 1024 || trie_bytes % 1024 != 0 || trie_bytes >= size - 4)
    return "normalisation table has a trie of impossible size";
  const guint8 *trie = map.p + 4, *strings = trie + trie_bytes;
  gsize n_units = trie_bytes / 4, n_strings = (gsize) (map.end - strings);
  if (strings[n_strings - 1] != 0)
    return "normalisation table doesn't end its last string";
  for (gsize i = 0; i < n_units; i++) {
    guint32 unit = read_u32 (trie + 4 * i);
    if (i > 0 && (unit & 0x80000000u))
      continue; /* no byte leads here */
    gsize to = i ^ ((gsize) (unit >> 10) << ((unit & (1u << 9)) >> 6));
    if ((to | 0xff) >= n_units)
      return "normalisation table points outside its trie";
    if ((unit & (1u << 8)) && (read_u32 (trie + 4 * to) & 0x7fffffffu) >= n_strings)
      return "normalisation table points outside its strings";
  }
  return NULL;
}

typedef struct {
  gboolean add_dummy_prefix;
  Reader charsmap;
} Normalizer;

static gboolean
read_normalizer (Reader r, Normalizer *spec)
{
  Field field;
  while (r.p < r.end) {
    if (!read_field (&r, &field))
      return FALSE;
    if (field.number == 2 && field.wire == BYTES)
      spec->charsmap = field.bytes;
    else if (field.number == 3 && field.wire == VARINT)
      spec->add_dummy_prefix = field.value != 0;
  }
  return TRUE;
}

typedef struct {
  guint64 model_type;
  gboolean byte_fallback;
  gint32 unk, bos, eos;
} Trainer;

static gboolean
read_trainer (Reader r, Trainer *spec)
{
  Field field;
  while (r.p < r.end) {
    if (!read_field (&r, &field))
      return FALSE;
    if (field.wire != VARINT)
      continue;
    gint32 value = (gint32) (guint32) field.value;
    if (field.number == 3)
      spec->model_type = field.value;
    else if (field.number == 35)
      spec->byte_fallback = field.value != 0;
    else if (field.number == 40)
      spec->unk = value;
    else if (field.number == 41)
      spec->bos = value;
    else if (field.number == 42)
      spec->eos = value;
  }
  return TRUE;
}

static gboolean
read_piece (Reader r, IvlSpPiece *piece)
{
  *piece = (IvlSpPiece){ NULL, 0, IVL_SP_NORMAL };
  Field field;
  while (r.p < r.end) {
    if (!read_field (&r, &field))
      return FALSE;
    if (field.number == 1 && field.wire == BYTES) {
      piece->piece = (const char *) field.bytes.p;
      piece->length = (gsize) (field.bytes.end - field.bytes.p);
    } else if (field.number == 3 && field.wire == VARINT) {
      if (field.value < IVL_SP_NORMAL || field.value > IVL_SP_BYTE)
        return FALSE;
      piece->type = (IvlSpType) field.value;
    }
  }
  return TRUE;
}

static const char *
check_piece (const IvlSpPiece *piece)
{
  if (piece->length == 0)
    return "is empty";
  if (piece->length > MAX_PIECE_BYTES)
    return "is longer than 1024 bytes";
  if (!ivl_utf8_validate (piece->piece, piece->length, NULL))
    return "isn't UTF-8 text";
  /* InternLM2's model has U+0000 as a piece of its own. The library matches user-defined pieces, and we take the names
   * of control pieces, as strings that end there. */
  if (memchr (piece->piece, 0, piece->length) && piece->type != IVL_SP_NORMAL && piece->type != IVL_SP_UNUSED)
    return "has a NUL character in its name";
  if (piece->type == IVL_SP_BYTE) {
    const char *p = piece->piece;
    if (piece->length != 6 || memcmp (p, "<0x", 3) != 0 || !g_ascii_isxdigit (p[3]) || !g_ascii_isxdigit (p[4])
        || p[5] != '>')
      return "is of type byte but isn't spelled <0xHH>";
  }
  return NULL;
}

gboolean
ivl_sp_model_parse (IvlSpModel *model, const guint8 *data, gsize size, const char *origin, GError **error)
{
  Trainer trainer = { 1, FALSE, 0, 1, 2 }; /* the proto's defaults; model_type 1 is unigram */
  Normalizer normalizer = { TRUE, { NULL, NULL } }, denormalizer = { TRUE, { NULL, NULL } };
  g_autoptr (GArray) pieces = g_array_new (FALSE, FALSE, sizeof (IvlSpPiece));
  Reader r = { data, data + size };
  gboolean seen_byte[256] = { FALSE };
  guint n_bytes = 0, n_unknown = 0;

  while (r.p < r.end) {
    gsize at = (gsize) (r.p - data);
    Field field;
    gboolean fine = read_field (&r, &field);
    if (fine && field.wire == BYTES) {
      if (field.number == 1) {
        IvlSpPiece piece;
        fine = read_piece (field.bytes, &piece);
        if (fine)
          g_array_append_val (pieces, piece);
      } else if (field.number == 2) {
        fine = read_trainer (field.bytes, &trainer);
      } else if (field.number == 3) {
        fine = read_normalizer (field.bytes, &normalizer);
      } else if (field.number == 5) {
        fine = read_normalizer (field.bytes, &denormalizer);
      }
    }
    if (!fine)
      return ivl_fail (error, IVL_ERROR_BAD_MODEL, "%s: not a SentencePiece model, or cut off or corrupt at byte %zu",
                       origin, at);
  }
  if (pieces->len == 0)
    return ivl_fail (error, IVL_ERROR_BAD_MODEL, "%s: no SentencePiece model: it has no pieces", origin);
  if (trainer.model_type != MODEL_BPE)
    return ivl_fail (error, IVL_ERROR_UNSUPPORTED,
                     "%s: SentencePiece model of type %" G_GUINT64_FORMAT "; InternVL 2.5 uses type 2 (BPE)", origin,
                     trainer.model_type);
  for (guint i = 0; i < pieces->len; i++) {
    const IvlSpPiece *piece = &g_array_index (pieces, IvlSpPiece, i);
    const char *wrong = check_piece (piece);
    if (wrong)
      return ivl_fail (error, IVL_ERROR_BAD_MODEL, "%s: piece %u %s", origin, i, wrong);
    n_unknown += piece->type == IVL_SP_UNKNOWN;
    if (piece->type == IVL_SP_BYTE) {
      guint byte = (guint) (g_ascii_xdigit_value (piece->piece[3]) * 16 + g_ascii_xdigit_value (piece->piece[4]));
      n_bytes += !seen_byte[byte];
      seen_byte[byte] = TRUE;
    }
  }
  if (n_unknown != 1)
    return ivl_fail (error, IVL_ERROR_BAD_MODEL, "%s: %u pieces of type unknown instead of one", origin, n_unknown);
  if (trainer.byte_fallback && n_bytes != 256)
    return ivl_fail (error, IVL_ERROR_BAD_MODEL, "%s: byte fallback with %u of 256 byte pieces", origin, n_bytes);
  const char *wrong = check_charsmap (normalizer.charsmap);
  if (!wrong)
    wrong = check_charsmap (denormalizer.charsmap);
  if (wrong)
    return ivl_fail (error, IVL_ERROR_BAD_MODEL, "%s: %s", origin, wrong);

  gint32 n = (gint32) pieces->len;
  model->unk = trainer.unk >= 0 && trainer.unk < n ? trainer.unk : -1;
  model->bos = trainer.bos >= 0 && trainer.bos < n ? trainer.bos : -1;
  model->eos = trainer.eos >= 0 && trainer.eos < n ? trainer.eos : -1;
  model->add_dummy_prefix = normalizer.add_dummy_prefix;
  model->byte_fallback = trainer.byte_fallback;
  model->pieces = g_steal_pointer (&pieces);
  return TRUE;
}

void
ivl_sp_model_deinit (IvlSpModel *model)
{
  g_clear_pointer (&model->pieces, g_array_unref);
}
