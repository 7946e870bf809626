/* An answer that is one of some texts, and how probable each is.
 *
 * A choice's tokens are those of its text as it would stand in the conversation; the choices form a trie of tokens. Few
 * of them (IVL_CHOICES_EXACT) are weighed whole: the model's own probability of all of a choice's tokens and of an end
 * after them, then normalised over the choices; every node of the trie is run once, depth first, over the same KV
 * cache. Of more, only the way that is taken is run: at each node the model decides between what the choices allow. */
#ifndef IVL_GENERATE_CHOICES_H
#define IVL_GENERATE_CHOICES_H

#include <glib.h>

#include "text/tokenizer.h"

#define IVL_CHOICES_EXACT 64        /* choices that are weighed whole, if they have */
#define IVL_CHOICES_EXACT_NODES 512 /* at most so many tokens, those of common beginnings counted once */
#define IVL_CHOICES_MAX 65536
#define IVL_CHOICES_MAX_BYTES 4096  /* of one */

typedef struct IvlChoices IvlChoices;

typedef struct {
  const guint32 *end_ids; /* what ends an answer; borrowed for the call */
  guint n_end_ids;
  guint n_vocab;
  guint max_tokens;       /* no choice may have more */
  float temperature;      /* 0: the most probable one; else drawn */
  guint64 seed;
} IvlChoicesParams;

/* TEXTS: NULL-terminated, copied. */
IvlChoices *ivl_choices_new (const IvlTokenizer *tokenizer, const char *const *texts, const IvlChoicesParams *params,
                             GError **error);
void ivl_choices_free (IvlChoices *choices); /* NULL is fine */

/* Takes the logits [n_vocab] after the tokens that the last call asked for (the first time: after the prompt). TRUE: run
 * TOKEN next, behind the first DEPTH tokens of what was run before. FALSE: it is decided, or, with ERROR set, the logits
 * are no numbers. */
gboolean ivl_choices_step (IvlChoices *choices, const float *logits, guint *depth, guint32 *token, GError **error);

/* After that. */
guint ivl_choices_get_n (const IvlChoices *choices);
guint ivl_choices_get_chosen (const IvlChoices *choices);
const char *ivl_choices_get_text (const IvlChoices *choices, guint choice); /* borrowed */
const double *ivl_choices_get_probabilities (const IvlChoices *choices);    /* borrowed, a choice each */
/* The tokens of the chosen one; CONFIDENCE: the mean of their probabilities. Borrowed. */
const guint32 *ivl_choices_get_tokens (const IvlChoices *choices, guint *n, double *confidence);
gboolean ivl_choices_is_exact (const IvlChoices *choices);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (IvlChoices, ivl_choices_free)

#endif
