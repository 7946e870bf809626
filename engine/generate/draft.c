#include "generate/draft.h"

#include <string.h>

#include "push.h"

#define MEMORY_TOKENS 8192
#define LEAD_TOKENS 4   /* of the prompt before an answer: by them its beginning is found */
#define LONGEST_RUN 6
#define SHORTEST_RUN 2
#define WORTHWHILE 1.05 /* times as fast as without */

void
ivl_draft_memory_init (IvlDraftMemory *self)
{
  self->tokens = g_array_new (FALSE, FALSE, sizeof (guint32));
}

void
ivl_draft_memory_deinit (IvlDraftMemory *self)
{
  g_clear_pointer (&self->tokens, g_array_unref);
}

void
ivl_draft_memory_add (IvlDraftMemory *self, const guint32 *tokens, guint n, guint n_prompt)
{
  guint from = n_prompt > LEAD_TOKENS ? n_prompt - LEAD_TOKENS : 0;
  from = MAX (from, n > MEMORY_TOKENS ? n - MEMORY_TOKENS : 0);
  g_array_append_vals (self->tokens, tokens + from, n - from);
  if (self->tokens->len > MEMORY_TOKENS)
    g_array_remove_range (self->tokens, 0, self->tokens->len - MEMORY_TOKENS);
}

/* Looks in TEXT for the longest run of the LAST tokens that is longer than *RUN; true if there is one, with what follows
 * it at *AT. */
static gboolean
find (const guint32 *text, guint n, const guint32 *last, guint n_last, guint *run, guint *at)
{
  gboolean found = FALSE;
  if (n_last == 0)
    return FALSE;
  for (guint end = n; end-- > 1 && *run < LONGEST_RUN;) {
    /* TEXT[end - 1] is to be the last token, TEXT[end] the first that follows. */
    if (text[end - 1] != last[n_last - 1] || text[end] == IVL_TOKEN_IMAGE)
      continue;
    guint same = 1;
    while (same < MIN (MIN (end, n_last), LONGEST_RUN) && text[end - 1 - same] == last[n_last - 1 - same]
           && text[end - 1 - same] != IVL_TOKEN_IMAGE)
      same++;
    if (same > *run) {
      *run = same;
      *at = end;
      found = TRUE;
    }
  }
  return found;
}

guint
ivl_draft_guess (const IvlDraftMemory *self, const guint32 *tokens, guint n, guint most, guint32 *out)
{
  const guint32 *from = NULL, *memory = (const guint32 *) self->tokens->data;
  guint run = SHORTEST_RUN - 1, at = 0, left = 0, count = 0;
  if (find (memory, self->tokens->len, tokens, n, &run, &at)) {
    from = memory + at;
    left = self->tokens->len - at;
  }
  if (find (tokens, n, tokens, n, &run, &at)) {
    from = tokens + at;
    left = n - at;
  }
  while (count < MIN (most, left) && from[count] != IVL_TOKEN_IMAGE) {
    out[count] = from[count];
    count++;
  }
  return count;
}

void
ivl_draft_costs_init (IvlDraftCosts *self, double row_cost)
{
  *self = (IvlDraftCosts){ .row_cost = row_cost };
}

/* As far as it can be known. */
static double
cost (const IvlDraftCosts *self, guint rows)
{
  if (self->ns[rows] > 0.)
    return self->ns[rows];
  return self->ns[1] * (1. + self->row_cost * (rows - 1));
}

void
ivl_draft_costs_note (IvlDraftCosts *self, guint rows, double ns)
{
  if (rows == 0 || rows >= G_N_ELEMENTS (self->ns))
    return;
  /* The first time, shaders are compiled. */
  if (self->seen[rows] < 3)
    self->seen[rows]++;
  if (self->seen[rows] == 1)
    return;
  self->ns[rows] = self->ns[rows] > 0. ? self->ns[rows] + (ns - self->ns[rows]) / 8. : ns;
  /* What was measured in a bad moment would never be tried again: the others slowly become what was guessed. */
  for (guint i = 2; i < G_N_ELEMENTS (self->ns); i++) {
    double guess = self->ns[1] * (1. + self->row_cost * (i - 1));
    if (i != rows && self->ns[i] > guess && guess > 0.)
      self->ns[i] += (guess - self->ns[i]) / 128.;
  }
}

guint
ivl_draft_choose (const IvlDraftCosts *self, guint rows, double tokens, double rate, guint most)
{
  if (self->ns[1] <= 0. || rows + 1 >= G_N_ELEMENTS (self->ns))
    return 0;
  most = MIN (most, (guint) G_N_ELEMENTS (self->ns) - rows - 2);
  double one = (tokens + 1.) / cost (self, rows + 1), best = one * WORTHWHILE;
  double expected = 1., holds = 1.;
  guint chosen = 0;
  for (guint k = 1; k <= most; k++) {
    holds *= rate;
    expected += holds;
    double speed = (tokens + expected) / cost (self, rows + 1 + k);
    if (speed > best) {
      best = speed;
      chosen = k;
    }
  }
  return chosen;
}

double
ivl_draft_rate (double rate, gboolean held)
{
  return rate + ((held ? 1. : 0.) - rate) / 16.;
}
