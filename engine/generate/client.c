/* IvlClient: whose turn it is. Each client counts what it had, divided by its share; the least of those that wait is
 * next. Stride scheduling: Waldspurger and Weihl, 1995. */
#include "generate/engine.h"

#include <math.h>

IvlClient *
ivl_client_new (void)
{
  IvlClient *self = g_new0 (IvlClient, 1);
  self->ref_count = 1;
  return self;
}

IvlClient *
ivl_client_ref (IvlClient *self)
{
  g_atomic_int_inc (&self->ref_count);
  return self;
}

void
ivl_client_unref (IvlClient *self)
{
  if (self && g_atomic_int_dec_and_test (&self->ref_count))
    g_free (self);
}

void
ivl_client_set_priority (IvlClient *self, gint priority)
{
  g_atomic_int_set (&self->priority, CLAMP (priority, IVL_PRIORITY_MIN, IVL_PRIORITY_MAX));
}

double
ivl_client_used (const IvlClient *self, IvlTurn turn)
{
  return self ? self->used[turn] : 0.;
}

void
ivl_client_charge (IvlModel *model, IvlClient *self, IvlTurn turn, double amount)
{
  if (!self)
    return;
  /* Rest isn't saved up: else who comes back would keep all others waiting for as long. */
  double used = MAX (self->used[turn], model->clock[turn]);
  model->clock[turn] = MAX (model->clock[turn], self->used[turn]);
  self->used[turn] = used + ldexp (amount, -g_atomic_int_get (&self->priority));
}
