/* A constraint on an answer: which tokens may come next, so that the text is valid JSON of a schema whatever is chosen,
 * and in no more tokens than there are.
 *
 * The bound: every byte that an answer may need has a token of its own (ivl_constraint_new refuses vocabularies
 * without). So what has a shortest end of n bytes can be ended in n tokens. With `budget` tokens left, a token is
 * allowed if the shortest end after it has at most budget - 1 bytes. If min_bytes <= budget holds before a token it
 * holds after it, and there always is one: the first byte of the shortest end leaves an end that is one shorter. At
 * budget 0 the text is complete. */
#ifndef IVL_GENERATE_CONSTRAINT_H
#define IVL_GENERATE_CONSTRAINT_H

#include "generate/schema.h"
#include "generate/vocabulary.h"

typedef struct IvlConstraint IvlConstraint;

/* VOCABULARY is referenced. For one thread at a time. */
IvlConstraint *ivl_constraint_new (IvlVocabulary *vocabulary, const char *json_schema, GError **error);
void ivl_constraint_free (IvlConstraint *constraint); /* NULL is fine */

/* Tokens that are enough for some valid answer: a token a byte. */
guint64 ivl_constraint_min_tokens (const IvlConstraint *constraint);
/* A bit per token of the vocabulary, the lowest first, for IvlSampleRequest.allowed: tokens that may come next with
 * BUDGET of them left, which must be at least ivl_constraint_min_tokens. End tokens are allowed exactly if the text is
 * valid as it is. Borrowed, until the next call. */
const guint32 *ivl_constraint_mask (IvlConstraint *constraint, guint budget);
/* Takes a token that the mask allows, and that is no end token; FALSE if it isn't allowed. */
gboolean ivl_constraint_accept (IvlConstraint *constraint, guint32 token);
/* The text is valid as it is. */
gboolean ivl_constraint_is_complete (const IvlConstraint *constraint);
/* It is, and nothing can follow. */
gboolean ivl_constraint_is_over (const IvlConstraint *constraint);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (IvlConstraint, ivl_constraint_free)

#endif
