/* Golden cases as questions through the public API. */
#ifndef ASK_H
#define ASK_H

#include "golden.h"

#include <internvl/internvl.h>

typedef struct {
  JsonObject *turn;        /* borrowed */
  IvlQuestion question;    /* its pointers are this struct's */
  IvlImage *images[8];
  const char **stop;
} GoldenQuestion;

void golden_question_init (GoldenQuestion *self, IvlModel *model, JsonObject *c, guint turn);
void golden_question_clear (GoldenQuestion *self);
/* Text, finish and length as the reference's; the whole answer or the test ends. Frees ANSWER. */
void golden_question_check (const GoldenQuestion *self, IvlAnswer *answer);
/* Whether the engine can give this case's answer: its penalty is over the answer alone. */
gboolean golden_case_is_askable (JsonObject *c);

/* A device and a model, or the test ends. PARAMS may be NULL. */
IvlModel *golden_load (const Golden *golden, const IvlModelParams *params);
/* A new session, the case's first question, and the check. */
void golden_ask (IvlModel *model, JsonObject *c);

#endif
