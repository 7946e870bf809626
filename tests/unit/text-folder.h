/* Tokenizer files for tests, small enough to know every id by heart. */
#ifndef TEXT_FOLDER_H
#define TEXT_FOLDER_H

#include "tensor-file.h"
#include "text/tokenizer.h"

/* vocab.json of the 256 bytes, id = byte, then EXTRA (pieces as spelled there, NULL-terminated) from 256 on. With
 * CHARS, for byte fallback: <0xHH>, id = byte. */
char *text_vocab_json (gboolean chars, const char *const *extra);

/* A Qwen2 folder: bytes, the merges h+e he+l ... below, and InternVL's added tokens from TEXT_ADDED on. */
void text_write_qwen2 (const char *folder);
/* "he" 256, "ll" 257, "hell" 258, "hello" 259, " w" 260, "or" 261, " wor" 262, "ld" 263, " world" 264 */
#define TEXT_ADDED 265u
extern const char *const text_added[]; /* NULL-terminated, in id order */
/* Id of one of them. */
guint32 text_added_id (const char *name);

/* A SentencePiece model: add pieces, then finish. */
GByteArray *text_sp_new (void);
void text_sp_add (GByteArray *model, const char *piece, float score, int type);
void text_sp_add_bytes (GByteArray *model, gconstpointer piece, gsize length, float score, int type);
/* <unk> <s> </s> and the 256 bytes from id 3 on. */
void text_sp_add_basics (GByteArray *model);
void text_sp_finish (GByteArray *model, int model_type, gboolean dummy_prefix, gconstpointer charsmap, gsize n_charsmap);

/* Ids as "1 2 3"; free with g_free. */
char *text_ids (GArray *ids);
/* Encodes and compares with such a string. */
void text_assert_encodes (IvlTokenizer *tokenizer, const char *text, IvlEncodeFlags flags, const char *ids);

#endif
