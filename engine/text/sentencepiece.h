/* The SentencePiece library behind C functions.
 *
 * The library trusts its model files: tables in them are followed without bounds checks, and some
 * contradictions end the process. So ivl_sp_model_parse reads the file first, strictly, and the library
 * only gets what passed. */
#ifndef IVL_TEXT_SENTENCEPIECE_H
#define IVL_TEXT_SENTENCEPIECE_H

#include <glib.h>

G_BEGIN_DECLS

typedef enum {
  IVL_SP_NORMAL = 1,
  IVL_SP_UNKNOWN,
  IVL_SP_CONTROL,
  IVL_SP_USER_DEFINED,
  IVL_SP_UNUSED,
  IVL_SP_BYTE,
} IvlSpType;

typedef struct {
  const char *piece; /* borrowed from the file's bytes; UTF-8, not NUL-terminated, not empty */
  gsize length;
  IvlSpType type;
} IvlSpPiece;

/* What a tokenizer.model holds, as far as it matters beside the library. */
typedef struct {
  GArray *pieces; /* IvlSpPiece by id */
  gint32 unk, bos, eos; /* -1: there is none */
  gboolean add_dummy_prefix, byte_fallback;
} IvlSpModel;

/* ORIGIN is named in errors. On failure MODEL needs no deinit. */
gboolean ivl_sp_model_parse (IvlSpModel *model, const guint8 *data, gsize size, const char *origin, GError **error);
void ivl_sp_model_deinit (IvlSpModel *model);

/* The library's object; safe to use from several threads at once. */
typedef struct IvlSentencePiece IvlSentencePiece;

/* DATA must have passed ivl_sp_model_parse. NULL on failure, with the library's words in *WHY (g_free). */
IvlSentencePiece *ivl_sp_new (const guint8 *data, gsize size, char **why);
void ivl_sp_free (IvlSentencePiece *self);
guint ivl_sp_get_n_pieces (const IvlSentencePiece *self);
/* Id of a piece; the unknown piece's if there is none like it. */
gint32 ivl_sp_piece_id (const IvlSentencePiece *self, const char *piece, gsize length);
/* A piece as the file spells it; borrowed. "" for ids out of range. */
const char *ivl_sp_get_piece (const IvlSentencePiece *self, guint32 id, gsize *length);
/* Appends guint32 ids of valid UTF-8 to IDS. */
gboolean ivl_sp_encode (const IvlSentencePiece *self, const char *text, gsize length, GArray *ids, char **why);

G_END_DECLS

#endif
