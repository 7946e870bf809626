/* The inside of IvlTokenizer, for the files that build one. */
#ifndef IVL_TEXT_TOKENIZER_PRIVATE_H
#define IVL_TEXT_TOKENIZER_PRIVATE_H

#include "text/bpe.h"
#include "text/sentencepiece.h"
#include "text/tokenizer.h"

/* A vocabulary beyond these is no tokenizer of this family, and would be a way to ask for gigabytes. */
#define IVL_MAX_TOKENS (1u << 22)
#define IVL_MAX_ADDED_BYTES 4096u

typedef struct {
  guint32 offset, length; /* in IvlTokenizer.bytes */
  guint32 flags;          /* IvlTokenFlags */
} IvlToken;

/* Trie of added tokens: (node << 8 | byte) -> next node; root is 0. */
typedef struct {
  IvlPairMap edges;
  GArray *ends;          /* gint32 a node: the token that ends here, or -1 */
  guint8 first[256];     /* whether a token begins with this byte */
  gboolean empty;
} IvlTrie;

struct IvlTokenizer {
  gatomicrefcount ref_count;
  char *origin;          /* file name, for messages */
  GArray *tokens;        /* IvlToken by id */
  GByteArray *bytes;
  GHashTable *names;     /* char * (owned) -> id + 1: added tokens */
  IvlTrie raw, normalized; /* looked for before and after normalisation */
  GArray *eos;           /* guint32 */
  gint32 bos;            /* -1: none is put in front */
  gint32 unk;            /* -1: there is none */
  guint32 byte_ids[256]; /* id of each byte's token; G_MAXUINT32: there is none */

  IvlSentencePiece *sp;  /* NULL: bpe */
  IvlBpe bpe;
  IvlBpeKind kind;
  IvlPrefix prefix;
  GHashTable *pieces;    /* IVL_BPE_CHARS: gunichar -> id + 1 of one-character pieces */
  gboolean bytes_alone;  /* each byte that isn't UTF-8 becomes a U+FFFD of its own (SentencePiece) */
  gboolean strip_first_space; /* a decoded text loses the space that encoding puts in front */
};

/* As ivl_fail, for messages that quote tokens, whole or cut: what isn't UTF-8 becomes U+FFFD. */
gboolean ivl_tokenizer_fail (GError **error, int code, const char *format, ...) G_GNUC_PRINTF (3, 4);

/* ---- building; TOKENIZER is not shared yet ---- */

IvlTokenizer *ivl_tokenizer_new (const char *origin);
/* Sets what an id stands for; grows the table. Fails if ID is too big. */
gboolean ivl_tokenizer_set (IvlTokenizer *self, guint32 id, const void *bytes, gsize length, IvlTokenFlags flags,
                            GError **error);
/* Adds tokens; REPLACE: one may rename an id of the vocabulary (InternLM2's placeholders). */
gboolean ivl_tokenizer_add (IvlTokenizer *self, const IvlAddedToken *added, guint n_added, gboolean replace,
                            GError **error);
/* A tokenizer on the SentencePiece model DATA, which MODEL was parsed from, with ADDED. Begin and end are the caller's
 * to set. */
IvlTokenizer *ivl_tokenizer_new_sp (const guint8 *data, gsize size, const char *origin, const IvlSpModel *model,
                                    const IvlAddedToken *added, guint n_added, GError **error);
/* Fills eos: <|im_end|>, then NAMES (NULL-terminated, may be NULL). */
void ivl_tokenizer_find_ends (IvlTokenizer *self, const char *const *names);

#endif
