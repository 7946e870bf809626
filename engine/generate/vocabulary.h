/* The tokens of a vocabulary that stand for text, by their bytes: what a constraint walks to find out which of them may
 * come next. Built once per model; never changes, so any number of threads may read it. */
#ifndef IVL_GENERATE_VOCABULARY_H
#define IVL_GENERATE_VOCABULARY_H

#include "text/tokenizer.h"

/* Longer tokens are left out: nobody's answer hinges on them, and hostile vocabularies have them. */
#define IVL_VOCABULARY_MAX_BYTES 255

/* A node of a trie in preorder: what follows it up to `end` begins with it. */
typedef struct {
  guint32 end;
  guint32 first;  /* in tokens; those that end here go up to the next node's first */
  guint8 byte, depth;
} IvlVocabularyNode;

/* A token as a piece of a JSON string's content, from between two characters on. */
typedef struct {
  guint32 token;
  guint8 characters; /* begun before the quote */
  guint8 quote;      /* position of the first quote that ends the string, or the length: none */
} IvlStringToken;

typedef struct {
  gatomicrefcount ref_count;
  IvlTokenizer *tokenizer;
  guint n_vocab;      /* the model's: how many bits a mask has */
  IvlVocabularyNode *nodes; /* 0 is the root; nodes[n_nodes] is a sentinel */
  guint n_nodes;
  guint32 *tokens;    /* sorted by their bytes */
  guint n_tokens;
  guint max_bytes;    /* of a token */
  guint32 *end_ids;   /* the tokens that end an answer */
  guint n_end_ids;
  gboolean first_space_lost; /* a space that begins an answer isn't in its text (SentencePiece) */
  gint16 missing;     /* a byte that has no token of its own and may be in an answer; -1: none */
  IvlStringToken *inside, *closing; /* without a quote, and with one */
  guint n_inside, n_closing;
  guint max_characters; /* of `inside` */
} IvlVocabulary;

/* END_IDS: what ends an answer. Added tokens, tags and other special ones are no text. */
IvlVocabulary *ivl_vocabulary_new (IvlTokenizer *tokenizer, guint n_vocab, const guint32 *end_ids, guint n_end_ids);
IvlVocabulary *ivl_vocabulary_ref (IvlVocabulary *vocabulary);
void ivl_vocabulary_unref (IvlVocabulary *vocabulary); /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC (IvlVocabulary, ivl_vocabulary_unref)

#endif
