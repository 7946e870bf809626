#include "generate/choices.h"

#include <math.h>
#include <string.h>

#include "base/error.h"

#define NONE G_MAXUINT

/* A node of the trie, in depth-first order: what follows up to `end` is below it. */
typedef struct {
  guint32 token;
  guint depth, parent, end;
  guint choice;      /* that ends here, or NONE */
  guint n_below;     /* choices that go through here */
  double log_own;    /* of its token, given what is before */
  double log_path;   /* of all tokens up to here */
} Node;

struct IvlChoices {
  guint n;
  char **texts;
  GArray *nodes;       /* Node; 0 is the root */
  guint32 *end_ids;
  guint n_end_ids, n_vocab;
  float temperature;
  guint64 seed;
  gboolean exact;
  guint at;            /* the node whose logits come next */
  guint chosen;        /* a node */
  double reached;      /* not exact: the probability of the way to `at` */
  guint32 *path;       /* tokens of the chosen one */
  double *probability; /* [n]; until all is known, in exact mode, logarithms */
};

static Node *
node_at (const IvlChoices *self, guint i)
{
  return &g_array_index (self->nodes, Node, i);
}

/* ---- tokens ---- */

typedef struct {
  guint choice;
  guint32 *ids;
  guint n;
} Path;

/* The ids of TEXT as it stands after the line break of the template's "assistant": not at the start of a text, where
 * SentencePiece would put a space in front. */
static gboolean
encode (const IvlTokenizer *tokenizer, const char *text, GArray *ids, guint *skip, GError **error)
{
  g_autofree char *line = g_strconcat ("\n", text, NULL);
  g_autoptr (GArray) before = g_array_new (FALSE, FALSE, sizeof (guint32));
  if (!ivl_tokenizer_encode (tokenizer, line, -1, IVL_ENCODE_LITERAL, ids, error)
      || !ivl_tokenizer_encode (tokenizer, "\n", -1, IVL_ENCODE_LITERAL, before, error))
    return FALSE;
  *skip = before->len;
  if (ids->len > before->len && memcmp (ids->data, before->data, before->len * sizeof (guint32)) == 0)
    return TRUE;
  /* The line break went into a token with what follows (a choice that begins with white space). */
  *skip = 0;
  g_array_set_size (ids, 0);
  return ivl_tokenizer_encode (tokenizer, text, -1, IVL_ENCODE_LITERAL, ids, error);
}

static void
path_clear (gpointer data)
{
  g_free (((Path *) data)->ids);
}

static gint
compare_paths (gconstpointer a, gconstpointer b)
{
  const Path *x = a, *y = b;
  for (guint i = 0; i < MIN (x->n, y->n); i++)
    if (x->ids[i] != y->ids[i])
      return x->ids[i] < y->ids[i] ? -1 : 1;
  if (x->n != y->n)
    return x->n < y->n ? -1 : 1;
  return x->choice < y->choice ? -1 : x->choice > y->choice;
}

static gboolean
fail_choice (GError **error, guint i, const char *why)
{
  return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "choices[%u] %s", i, why);
}

static gboolean
read_paths (const IvlTokenizer *tokenizer, const char *const *texts, const IvlChoicesParams *params, GArray *paths,
            GError **error)
{
  for (guint i = 0; texts[i]; i++) {
    gsize length = strnlen (texts[i], IVL_CHOICES_MAX_BYTES + 1);
    if (i == IVL_CHOICES_MAX)
      return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "choices: more than %u", IVL_CHOICES_MAX);
    if (length > IVL_CHOICES_MAX_BYTES)
      return fail_choice (error, i, "is longer than 4096 bytes");
    if (!g_utf8_validate (texts[i], (gssize) length, NULL))
      return fail_choice (error, i, "isn't valid UTF-8");
    if (texts[i][strspn (texts[i], " \t\n\v\f\r")] == '\0')
      return fail_choice (error, i, "is empty");
    g_autoptr (GArray) ids = g_array_new (FALSE, FALSE, sizeof (guint32));
    guint skip;
    if (!encode (tokenizer, texts[i], ids, &skip, error))
      return FALSE;
    Path path = { i, g_memdup2 ((guint32 *) (void *) ids->data + skip, (ids->len - skip) * sizeof (guint32)),
                  ids->len - skip };
    g_array_append_val (paths, path);
    if (path.n > params->max_tokens)
      return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "choices[%u] has %u tokens, but there is room for %u only "
                       "(max_tokens, or what the prompt leaves of the context)", i, path.n, params->max_tokens);
    for (guint t = 0; t < path.n; t++)
      if (path.ids[t] >= params->n_vocab)
        return ivl_fail (error, IVL_ERROR_BAD_MODEL, "The tokenizer gives token %u, but config.json says vocab_size %u",
                         path.ids[t], params->n_vocab);
  }
  if (paths->len == 0)
    return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "choices: the list is empty");
  g_array_sort (paths, compare_paths);
  for (guint i = 1; i < paths->len; i++) {
    const Path *a = &g_array_index (paths, Path, i - 1), *b = &g_array_index (paths, Path, i);
    if (a->n == b->n && memcmp (a->ids, b->ids, a->n * sizeof *a->ids) == 0)
      return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "choices[%u] and choices[%u] are the same%s", a->choice, b->choice,
                       strcmp (texts[a->choice], texts[b->choice]) ? " to the model's tokenizer" : "");
  }
  return TRUE;
}

static void
build_trie (IvlChoices *self, const GArray *paths)
{
  g_autoptr (GArray) open = g_array_new (FALSE, FALSE, sizeof (guint)); /* nodes of the last path */
  Node root = { .choice = NONE };
  guint first = 0;
  g_array_append_val (self->nodes, root);
  g_array_append_val (open, first);
  const Path *last = NULL;
  for (guint i = 0; i < paths->len; i++) {
    const Path *path = &g_array_index (paths, Path, i);
    guint common = 0;
    while (last && common < MIN (last->n, path->n) && last->ids[common] == path->ids[common])
      common++;
    for (guint depth = open->len; depth-- > common + 1;)
      node_at (self, g_array_index (open, guint, depth))->end = self->nodes->len;
    g_array_set_size (open, common + 1);
    for (guint depth = common; depth < path->n; depth++) {
      guint index = self->nodes->len;
      Node node = { .token = path->ids[depth], .depth = depth + 1, .parent = g_array_index (open, guint, depth),
                    .choice = NONE };
      g_array_append_val (self->nodes, node);
      g_array_append_val (open, index);
    }
    for (guint depth = 0; depth < open->len; depth++)
      node_at (self, g_array_index (open, guint, depth))->n_below++;
    node_at (self, g_array_index (open, guint, path->n))->choice = path->choice;
    last = path;
  }
  for (guint depth = 0; depth < open->len; depth++)
    node_at (self, g_array_index (open, guint, depth))->end = self->nodes->len;
}

IvlChoices *
ivl_choices_new (const IvlTokenizer *tokenizer, const char *const *texts, const IvlChoicesParams *params,
                 GError **error)
{
  g_autoptr (GArray) paths = g_array_new (FALSE, FALSE, sizeof (Path));
  g_array_set_clear_func (paths, path_clear);
  if (!read_paths (tokenizer, texts, params, paths, error))
    return NULL;
  IvlChoices *self = g_new0 (IvlChoices, 1);
  self->n = paths->len;
  self->texts = g_strdupv ((char **) texts);
  self->nodes = g_array_new (FALSE, FALSE, sizeof (Node));
  self->end_ids = g_memdup2 (params->end_ids, params->n_end_ids * sizeof *params->end_ids);
  self->n_end_ids = params->n_end_ids;
  self->n_vocab = params->n_vocab;
  self->temperature = params->temperature;
  self->seed = params->seed;
  self->probability = g_new0 (double, self->n);
  self->reached = 1.;
  build_trie (self, paths);
  self->exact = self->n <= IVL_CHOICES_EXACT && self->nodes->len <= IVL_CHOICES_EXACT_NODES + 1;
  return self;
}

void
ivl_choices_free (IvlChoices *self)
{
  if (!self)
    return;
  g_strfreev (self->texts);
  g_array_unref (self->nodes);
  g_free (self->end_ids);
  g_free (self->path);
  g_free (self->probability);
  g_free (self);
}

/* ---- deciding ---- */

/* A number of [0, 1) that depends on seed and STEP alone (splitmix64). */
static double
draw (guint64 seed, guint step)
{
  guint64 z = seed + (step + 1ull) * 0x9e3779b97f4a7c15ull;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ z >> 27) * 0x94d049bb133111ebull;
  z ^= z >> 31;
  return (double) (z >> 11) * 0x1p-53;
}

/* Turns logarithms into probabilities that add up to 1. If all are impossible, all are equal. */
static void
normalise (double *values, guint n)
{
  double top = -INFINITY, sum = 0.;
  for (guint i = 0; i < n; i++)
    top = MAX (top, values[i]);
  for (guint i = 0; i < n; i++)
    sum += values[i] = top > -INFINITY ? exp (values[i] - top) : 1.;
  for (guint i = 0; i < n; i++)
    values[i] /= sum;
}

/* Index of the most probable, or of one drawn; the first of equals. */
static guint
decide (const IvlChoices *self, const double *probabilities, guint n, guint step)
{
  guint best = 0;
  for (guint i = 1; i < n; i++)
    if (probabilities[i] > probabilities[best])
      best = i;
  if (self->temperature < 1e-5f)
    return best;
  double sum = 0., power = 1. / (double) self->temperature;
  for (guint i = 0; i < n; i++)
    sum += pow (probabilities[i] / probabilities[best], power);
  double left = draw (self->seed, step) * sum;
  for (guint i = 0; i < n; i++) {
    left -= pow (probabilities[i] / probabilities[best], power);
    if (left < 0.)
      return i;
  }
  return best;
}

/* log (sum (exp (logits))); NaN if one of them is no number. */
static double
log_sum (const float *logits, guint n)
{
  float top = -INFINITY;
  double sum = 0.;
  for (guint i = 0; i < n; i++) {
    if (isnan (logits[i]) || logits[i] == INFINITY)
      return NAN;
    top = MAX (top, logits[i]);
  }
  for (guint i = 0; i < n; i++)
    sum += exp ((double) logits[i] - (double) top);
  return top > -INFINITY ? (double) top + log (sum) : NAN;
}

static double
log_end (const IvlChoices *self, const float *logits, double total)
{
  double sum = 0.;
  for (guint i = 0; i < self->n_end_ids; i++)
    if (self->end_ids[i] < self->n_vocab)
      sum += exp ((double) logits[self->end_ids[i]] - total);
  return log (sum);
}

static guint
node_of_choice (const IvlChoices *self, guint choice)
{
  guint i = 1;
  while (node_at (self, i)->choice != choice)
    i++;
  return i;
}

static gboolean
step_exact (IvlChoices *self, const Node *node, const float *logits, double total)
{
  if (node->choice != NONE)
    self->probability[node->choice] = node->log_path + log_end (self, logits, total);
  if (++self->at < self->nodes->len)
    return TRUE;
  normalise (self->probability, self->n);
  self->chosen = node_of_choice (self, decide (self, self->probability, self->n, 0));
  return FALSE;
}

/* Gives all choices below an option (or that which ends at it) their even part of PROBABILITY. */
static void
share (IvlChoices *self, guint node, guint end, guint n, double probability)
{
  for (guint i = node; i < end; i++)
    if (node_at (self, i)->choice != NONE)
      self->probability[node_at (self, i)->choice] = probability / n;
}

static gboolean
step_along (IvlChoices *self, const float *logits, double total)
{
  guint here = self->at;
  const Node *node = node_at (self, here);
  g_autoptr (GArray) options = g_array_new (FALSE, FALSE, sizeof (guint)); /* children; the node itself: end here */
  g_autoptr (GArray) weights = g_array_new (FALSE, FALSE, sizeof (double));
  if (node->choice != NONE) {
    double weight = log_end (self, logits, total);
    g_array_append_val (options, here);
    g_array_append_val (weights, weight);
  }
  for (guint child = here + 1; child < node->end; child = node_at (self, child)->end) {
    g_array_append_val (options, child);
    g_array_append_val (weights, node_at (self, child)->log_own);
  }
  double *p = (double *) (void *) weights->data;
  normalise (p, weights->len);
  guint taken = decide (self, p, weights->len, node->depth);
  for (guint i = 0; i < options->len; i++) {
    guint option = g_array_index (options, guint, i);
    const Node *to = node_at (self, option);
    if (option == here)
      share (self, option, option + 1, 1, self->reached * p[i]);
    else
      share (self, option, to->end, to->n_below, self->reached * p[i]);
  }
  self->reached *= p[taken];
  self->at = self->chosen = g_array_index (options, guint, taken);
  return self->at != here && node_at (self, self->at)->end > self->at + 1;
}

gboolean
ivl_choices_step (IvlChoices *self, const float *logits, guint *depth, guint32 *token, GError **error)
{
  const Node *node = node_at (self, self->at);
  double total = log_sum (logits, self->n_vocab);
  if (isnan (total))
    return ivl_fail (error, IVL_ERROR_BAD_MODEL,
                     "The model computed values that are no numbers: its weights are damaged, or overflow the chosen "
                     "weight type; try weights of another type (bf16 or f32)");
  for (guint child = self->at + 1; child < node->end; child = node_at (self, child)->end) {
    Node *to = node_at (self, child);
    to->log_own = (double) logits[to->token] - total;
    to->log_path = node->log_path + to->log_own;
  }
  if (self->exact ? step_exact (self, node, logits, total) : step_along (self, logits, total)) {
    *depth = node_at (self, self->at)->depth - 1;
    *token = node_at (self, self->at)->token;
    return TRUE;
  }
  self->path = g_new (guint32, node_at (self, self->chosen)->depth);
  for (guint i = self->chosen; i; i = node_at (self, i)->parent)
    self->path[node_at (self, i)->depth - 1] = node_at (self, i)->token;
  return FALSE;
}

/* ---- results ---- */

guint
ivl_choices_get_n (const IvlChoices *self)
{
  return self->n;
}

guint
ivl_choices_get_chosen (const IvlChoices *self)
{
  return node_at (self, self->chosen)->choice;
}

const char *
ivl_choices_get_text (const IvlChoices *self, guint choice)
{
  return self->texts[choice];
}

const double *
ivl_choices_get_probabilities (const IvlChoices *self)
{
  return self->probability;
}

const guint32 *
ivl_choices_get_tokens (const IvlChoices *self, guint *n, double *confidence)
{
  *n = node_at (self, self->chosen)->depth;
  *confidence = 0.;
  for (guint i = self->chosen; i; i = node_at (self, i)->parent)
    *confidence += exp (node_at (self, i)->log_own) / *n;
  return self->path;
}

gboolean
ivl_choices_is_exact (const IvlChoices *self)
{
  return self->exact;
}
