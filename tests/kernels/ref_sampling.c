#include "ref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  double value;
  guint32 token;
} Entry;

static int
by_value (gconstpointer a, gconstpointer b)
{
  const Entry *x = a, *y = b;
  return x->value > y->value ? -1 : x->value < y->value ? 1 : x->token < y->token ? -1 : x->token > y->token;
}

static void
penalise (double *logits, const float *given, guint vocab, const IvlSampleRequest *r)
{
  for (guint i = 0; i < r->n_context; i++) {
    guint32 id = r->context[i];
    if (id < vocab && r->repetition_penalty > 0)
      logits[id] = (double) (float) (given[id] < 0 ? given[id] * r->repetition_penalty : given[id] / r->repetition_penalty);
  }
}

void
ref_sample (RefSample *ref, const float *given, guint vocab, const IvlSampleRequest *r)
{
  ref->valid = FALSE;
  ref->margin = 1;
  ref->logits = g_new (double, vocab);
  ref->probability = g_new0 (double, vocab);
  ref->kept = g_new0 (double, vocab);
  gboolean bad = FALSE;
  for (guint i = 0; i < vocab; i++)
    ref->logits[i] = given[i];
  penalise (ref->logits, given, vocab, r);
  double top = -INFINITY, sum = 0;
  for (guint i = 0; i < vocab; i++) {
    if (r->allowed && !(r->allowed[i / 32] >> (i % 32) & 1))
      ref->logits[i] = -INFINITY;
    bad = bad || isnan (ref->logits[i]) || ref->logits[i] == INFINITY;
    if (ref->logits[i] > top) {
      top = ref->logits[i];
      ref->argmax = i;
    }
  }
  if (bad || top == -INFINITY)
    return;
  ref->valid = TRUE;
  for (guint i = 0; i < vocab; i++)
    sum += exp (ref->logits[i] - top);
  for (guint i = 0; i < vocab; i++)
    ref->probability[i] = exp (ref->logits[i] - top) / sum;
  if (r->temperature < 1e-5f)
    return;

  g_autofree Entry *order = g_new (Entry, vocab);
  for (guint i = 0; i < vocab; i++)
    order[i] = (Entry){ ref->logits[i], i };
  qsort (order, vocab, sizeof *order, by_value);
  guint n = vocab;
  if (r->top_k && r->top_k < vocab)
    for (n = r->top_k; n < vocab && order[n].value == order[n - 1].value; n++)
      ;
  double total = 0, running = 0, first = order[0].value;
  for (guint i = 0; i < n; i++)
    total += exp ((order[i].value - first) / r->temperature);
  if (r->top_p < 1) {
    guint i = 0;
    do {
      running += exp ((order[i++].value - first) / r->temperature) / total;
      if (i == n || order[i].value != order[i - 1].value)
        ref->margin = MIN (ref->margin, fabs (running - r->top_p));
    } while (i < n && (running < r->top_p || order[i].value == order[i - 1].value));
    n = i;
  }
  total = 0;
  for (guint i = 0; i < n; i++)
    total += exp ((order[i].value - first) / r->temperature);
  for (guint i = 0; i < n; i++)
    ref->kept[order[i].token] = exp ((order[i].value - first) / r->temperature) / total;
}

void
ref_sample_clear (RefSample *ref)
{
  g_free (ref->logits);
  g_free (ref->probability);
  g_free (ref->kept);
}

double
ref_sample_random (guint64 seed, guint step)
{
  guint32 x = (guint32) seed, y = (guint32) (seed >> 32), z = step;
  x = x * 1664525u + 1013904223u;
  y = y * 1664525u + 1013904223u;
  z = z * 1664525u + 1013904223u;
  x += y * z;
  y += z * x;
  z += x * y;
  x ^= x >> 16;
  y ^= y >> 16;
  z ^= z >> 16;
  x += y * z;
  y += z * x;
  return x / 4294967296.0 + y / 18446744073709551616.0;
}
