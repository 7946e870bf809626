#include "scenes.h"

typedef struct
{
  guint first, length;
  guint quota;                  /* frames to take of it */
} Scene;

/* A frame for each of WANTED scenes, of the longest ones, and of equals of the first. */
static void
take_longest (Scene *scenes, guint n_scenes, guint wanted)
{
  for (; wanted > 0; wanted--) {
    Scene *longest = NULL;

    for (guint i = 0; i < n_scenes; i++)
      if (scenes[i].quota == 0 && (!longest || scenes[i].length > longest->length))
        longest = &scenes[i];
    longest->quota = 1;
  }
}

/* One for each, and the rest where most frames stand behind one that was taken. */
static void
take_proportionally (Scene *scenes, guint n_scenes, guint wanted)
{
  for (guint i = 0; i < n_scenes; i++)
    scenes[i].quota = 1;
  for (wanted -= n_scenes; wanted > 0; wanted--) {
    Scene *next = NULL;

    for (guint i = 0; i < n_scenes; i++)
      if (scenes[i].quota < scenes[i].length && (!next || (guint64) scenes[i].length * next->quota >
              (guint64) next->length * scenes[i].quota))
        next = &scenes[i];
    next->quota++;
  }
}

guint
gst_internvl_choose_frames (const gboolean *cuts, guint n, guint wanted, guint *chosen)
{
  guint n_scenes = 0, n_chosen = 0;

  if (n <= wanted) {
    for (guint i = 0; i < n; i++)
      chosen[i] = i;
    return n;
  }
  g_autofree Scene *scenes = g_new0 (Scene, n);
  for (guint i = 0; i < n; i++) {
    if (i == 0 || cuts[i])
      scenes[n_scenes++].first = i;
    scenes[n_scenes - 1].length++;
  }
  if (n_scenes > wanted)
    take_longest (scenes, n_scenes, wanted);
  else
    take_proportionally (scenes, n_scenes, wanted);
  for (guint s = 0; s < n_scenes; s++)
    for (guint i = 0; i < scenes[s].quota; i++)
      chosen[n_chosen++] = scenes[s].first + (guint) ((guint64) scenes[s].length * (2 * i + 1) / (2 * scenes[s].quota));
  return n_chosen;
}
