/* An engine for tests of the element: the functions of internvl.h with no model behind them.
 *
 * A model is any folder with a config.json that begins with '{'. An answer tells what was asked: how many images, and
 * their mean colours, so that a wrong frame or a wrong conversion shows. What takes time in the real engine waits at
 * gates that the test opens: no sleeping, no guessing. What can fail there can be made to fail. All that was made is
 * counted.
 *
 * For programs that are not ours, such as gst-launch-1.0, the environment: FAKE_INTERNVL_ANSWER, _DELAY_MS (an
 * answer), _LOAD_MS.
 *
 * Any thread; the waiting functions abort the test if what they wait for takes a minute.
 */
#pragma once

#include <internvl/internvl.h>

G_BEGIN_DECLS

/* Gates open, no failures, default answer, nothing recorded. Aborts if objects are alive. */
void fake_engine_reset (void);

/* With choices, an answer is the one with the number of images as its index, modulo their number, with probability
 * 0.75. {n}: images; {colors}: mean colour of each as #rrggbb; {i}: index of the question since reset; {prompt}. Default:
 * "{n} frames {colors}". */
void fake_engine_set_answer (const char *answer);

/* Loading waits. */
void fake_engine_hold_loading (gboolean hold);
/* Answers wait, after their first word; release_answers lets COUNT of them through. */
void fake_engine_hold_answers (gboolean hold);
void fake_engine_release_answers (guint count);
/* Making images waits: the element's worker is stuck. */
void fake_engine_hold_images (gboolean hold);
/* Comparing waits. */
void fake_engine_hold_changes (gboolean hold);
/* It waits for the next answer to be freed, which returns when all is compared. */
void fake_engine_hold_changes_until_freed (void);

typedef enum {
  FAKE_DEVICE,
  FAKE_LOAD,
  FAKE_IMAGE,
  FAKE_CHANGE,  /* comparing ends with an error */
  FAKE_SESSION,
  FAKE_ASK,     /* ask_async returns FALSE */
  FAKE_ANSWER,  /* the question ends with an error */
  FAKE_STAGES,
} FakeStage;
/* The stage fails with CODE after AFTER more successes; once. */
void fake_engine_fail (FakeStage stage, IvlErrorCode code, guint after);

/* Until COUNT in all since reset. */
void fake_engine_wait_loading (guint count);    /* were begun */
void fake_engine_wait_asked (guint count);      /* questions arrived */
void fake_engine_wait_answered (guint count);   /* questions ended, cancelled ones too */
void fake_engine_wait_images (guint count);
void fake_engine_wait_changes (guint count);    /* comparisons that wait */

typedef struct {
  guint n_images, max_tiles;
  char *prompt, *system_prompt, *json_schema;
  char **choices;
  IvlGenerateParams params;
  gint priority;
  IvlMedia media;
  IvlFinish finish;
  gboolean cancelled;
} FakeQuestion;
/* The one with index I; valid until reset. */
const FakeQuestion *fake_engine_get_question (guint i);

typedef struct {
  guint loads, images, questions, answers, cancels, prefetches;        /* since reset */
  guint devices_alive, models_alive, images_alive, sessions_alive, answers_alive;
  guint most_at_once;           /* questions */
  IvlWeights weights;           /* last asked for */
} FakeCounts;
void fake_engine_get_counts (FakeCounts *counts);

/* R'G'B' 0..255 of a picture's pixel, as internvl.h has it. Aborts on a read outside of what the picture says may be
 * read. */
void fake_picture_sample (const IvlPicture *picture, guint x, guint y, double rgb[3]);
/* Of a grid over the part that is used. */
void fake_picture_mean (const IvlPicture *picture, guint8 color[3]);

G_END_DECLS
