/* Text to token ids and back.
 *
 * Two kinds of vocabulary, told apart by the files in a checkpoint folder:
 *   tokenizer.model                          SentencePiece BPE (InternLM2)
 *   vocab.json + merges.txt, tokenizer.json  byte-level BPE (Qwen2); tokenizer.json may also hold a
 *                                            SentencePiece-like BPE with byte fallback (-hf conversions)
 * On top of either come added tokens (added_tokens.json, added_tokens_decoder of tokenizer_config.json,
 * added_tokens of tokenizer.json): strings with ids of their own that no merge can produce.
 *
 * A tokenizer never changes after it was made, so any number of threads may use it at once; it is
 * reference counted. Ids are guint32. Every byte of the files is untrusted: what is wrong with them is
 * an IVL_ERROR_BAD_MODEL that names file and cause.
 */
#ifndef IVL_TEXT_TOKENIZER_H
#define IVL_TEXT_TOKENIZER_H

#include <glib.h>

G_BEGIN_DECLS

typedef struct IvlTokenizer IvlTokenizer;

/* FOLDER may be a path of GGUF files instead: see tensor/gguf-pair.h and text/tokenizer-gguf.h. */
IvlTokenizer *ivl_tokenizer_load (const char *folder, GError **error);
IvlTokenizer *ivl_tokenizer_ref (IvlTokenizer *self);
void ivl_tokenizer_unref (IvlTokenizer *self); /* NULL is fine */

/* ---- vocabularies from memory (GGUF, tests) ---- */

typedef struct {
  const char *content; /* UTF-8, 1 to 4096 bytes */
  guint32 id;
  gboolean special;    /* left out of decoded text when asked */
  gboolean normalized; /* looked for after Unicode normalisation instead of before */
} IvlAddedToken;

typedef enum {
  IVL_BPE_BYTES, /* GPT-2's printable bytes, NFC, Qwen2's pre-tokeniser */
  IVL_BPE_CHARS, /* characters, U+2581 for spaces, <0xHH> pieces for characters not in the vocabulary */
} IvlBpeKind;

typedef enum {
  IVL_PREFIX_NEVER,  /* no space is put in front of a text */
  IVL_PREFIX_FIRST,  /* only in front of text at the very start */
  IVL_PREFIX_ALWAYS, /* in front of every run of text between added tokens */
} IvlPrefix;

/* Everything is borrowed for the call only. */
typedef struct {
  const char *origin;          /* a file name, for error messages */
  IvlBpeKind kind;
  IvlPrefix prefix;            /* IVL_BPE_CHARS only */
  const char *const *pieces;   /* by id, spelled as in vocab.json; NULL: this id isn't used */
  guint n_pieces;
  const char *const *merges;   /* 2 * n_merges strings: left, right, left, right ...; the best first */
  guint n_merges;
  const IvlAddedToken *added;
  guint n_added;
  const char *bos;             /* put in front of every prompt; NULL: nothing is */
  const char *const *eos;      /* NULL-terminated names of end tokens beside <|im_end|>; may be NULL */
} IvlBpeSource;

IvlTokenizer *ivl_tokenizer_new_bpe (const IvlBpeSource *source, GError **error);

/* ---- encoding ---- */

typedef enum {
  IVL_ENCODE_LITERAL = 0,      /* no added token is recognised: "<|im_end|>" is ten characters of text. For text
                                * of users, who else could end a turn or claim a picture */
  IVL_ENCODE_SPECIAL = 1 << 0, /* all added tokens are recognised, as the reference does with a whole prompt */
  IVL_ENCODE_TAGS = 1 << 1,    /* of them only <ref> <box> <quad> and their ends, which mark up content */
  IVL_ENCODE_BOS = 1 << 2,     /* begin with what this tokenizer puts in front of every prompt, if anything */
} IvlEncodeFlags;

/* Appends to IDS (guint32). LENGTH in bytes, or -1 if NUL-terminated. TEXT must be UTF-8; U+0000 is a character
 * like others. Fails with IVL_ERROR_BAD_ARGUMENT on invalid UTF-8, or IVL_ERROR_BAD_MODEL if a contradictory
 * SentencePiece model makes no sense of it, and leaves IDS as it was. Takes O(n log n) time, whatever the text. */
gboolean ivl_tokenizer_encode (const IvlTokenizer *self, const char *text, gssize length, IvlEncodeFlags flags,
                               GArray *ids, GError **error);

/* ---- the vocabulary ---- */

typedef enum {
  IVL_TOKEN_USED = 1 << 0,    /* the id means something */
  IVL_TOKEN_ADDED = 1 << 1,   /* an added token */
  IVL_TOKEN_SPECIAL = 1 << 2, /* no text: left out of answers, except tags */
  IVL_TOKEN_TAG = 1 << 3,     /* <ref> <box> <quad> or one of their ends */
  IVL_TOKEN_END = 1 << 4,     /* ends an answer: see ivl_tokenizer_get_eos */
} IvlTokenFlags;

guint ivl_tokenizer_get_n_tokens (const IvlTokenizer *self); /* highest id + 1 */
/* Id of an added token, or else of the piece with these bytes; -1 if there is none. Slow for plain pieces. */
gint32 ivl_tokenizer_token_id (const IvlTokenizer *self, const char *name);
IvlTokenFlags ivl_tokenizer_token_flags (const IvlTokenizer *self, guint32 id); /* 0 for unknown ids */
/* The bytes that a token stands for in text; maybe a part of a UTF-8 sequence; for added tokens their
 * name. Borrowed; never NULL; not NUL-terminated. */
const guint8 *ivl_tokenizer_token_bytes (const IvlTokenizer *self, guint32 id, gsize *length);
/* Ids that end an answer: <|im_end|> and what the tokenizer's files call eos_token. (A config.json may name more: those
 * are its reader's.) Borrowed. */
const guint32 *ivl_tokenizer_get_eos (const IvlTokenizer *self, guint *n);
gint32 ivl_tokenizer_get_bos (const IvlTokenizer *self); /* -1: prompts begin with nothing */

/* ---- decoding ---- */

typedef enum {
  IVL_DECODE_ALL = 0,
  IVL_DECODE_SKIP_SPECIAL = 1 << 0, /* leave special tokens out */
  IVL_DECODE_KEEP_TAGS = 1 << 1,    /* but not <ref> <box> <quad> and their ends */
  IVL_DECODE_NO_NUL = 1 << 2,       /* U+FFFD instead of U+0000, for those who need a C string */
} IvlDecodeFlags;

/* Always valid UTF-8 apart from U+0000 if the ids spell it (see IVL_DECODE_NO_NUL); bytes that aren't become U+FFFD as in the
 * reference. Ids outside the vocabulary are left out. Free with g_free; LENGTH may be NULL. */
char *ivl_tokenizer_decode (const IvlTokenizer *self, const guint32 *ids, gsize n, IvlDecodeFlags flags,
                            gsize *length);

/* The same, one id at a time: the pieces joined equal ivl_tokenizer_decode of all ids. For one thread. */
typedef struct IvlTextDecoder IvlTextDecoder;
IvlTextDecoder *ivl_text_decoder_new (IvlTokenizer *tokenizer, IvlDecodeFlags flags);
void ivl_text_decoder_free (IvlTextDecoder *self); /* NULL is fine */
/* Appends to OUT what became certain: whole UTF-8 sequences, often nothing. */
void ivl_text_decoder_feed (IvlTextDecoder *self, guint32 id, GString *out);
/* Appends what was held back, as U+FFFD, and starts over. */
void ivl_text_decoder_flush (IvlTextDecoder *self, GString *out);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (IvlTokenizer, ivl_tokenizer_unref)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (IvlTextDecoder, ivl_text_decoder_free)

G_END_DECLS

#endif
