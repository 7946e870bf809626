/* Speculation by look-up: an answer often goes on as its prompt, or an answer before, went on after the same words. Such
 * a guess is run beside the token that is known, in one forward; what the model itself would have said decides, token by
 * token, how much of it holds. The answer is the same as without, it only comes sooner; guessing less is always right.
 *
 * How much to guess is a matter of what a row more costs on this device, and of how many guesses held lately: both are
 * measured as answers go on, also while nothing is guessed. */
#ifndef IVL_GENERATE_DRAFT_H
#define IVL_GENERATE_DRAFT_H

#include <glib.h>

/* Guessed tokens of one request in one forward, and of all requests together. */
#define IVL_DRAFT_MAX 7
#define IVL_DRAFT_ROWS 14

/* What was said lately, by all sessions of a model. */
typedef struct {
  GArray *tokens; /* guint32: answers behind the last tokens of their prompts, the newest last */
} IvlDraftMemory;

void ivl_draft_memory_init (IvlDraftMemory *memory);
void ivl_draft_memory_deinit (IvlDraftMemory *memory); /* takes one that is all zero */
/* TOKENS: prompt and answer; N_PROMPT of the prompt. The oldest are forgotten. */
void ivl_draft_memory_add (IvlDraftMemory *memory, const guint32 *tokens, guint n, guint n_prompt);

/* What may follow TOKENS, at most MOST tokens to OUT; returns how many. The longest run of last tokens that is found
 * earlier counts, at least two; of equal ones the latest, the memory's before the prompt's. */
guint ivl_draft_guess (const IvlDraftMemory *memory, const guint32 *tokens, guint n, guint most, guint32 *out);

/* ---- whether it pays ---- */

typedef struct {
  double row_cost;                   /* of another row in one of one, where it isn't measured */
  double ns[IVL_DRAFT_ROWS + 34];    /* mean time of a forward of so many rows; 0: not known */
  guint8 seen[IVL_DRAFT_ROWS + 34];
} IvlDraftCosts;

/* ROW_COST: a guess to begin with, as a share of what a forward of one row takes. */
void ivl_draft_costs_init (IvlDraftCosts *costs, double row_cost);
/* A forward of ROWS single tokens took NS. */
void ivl_draft_costs_note (IvlDraftCosts *costs, guint rows, double ns);
/* How many of at most MOST guesses to run beside ROWS other rows, from which TOKENS come on average, when a guess holds
 * with probability RATE. 0 until costs are known. */
guint ivl_draft_choose (const IvlDraftCosts *costs, guint rows, double tokens, double rate, guint most);
/* RATE after one more guess held, or didn't. */
double ivl_draft_rate (double rate, gboolean held);

#endif
