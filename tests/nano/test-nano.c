/* What models/nano says of clips that it has never seen, through the real pipeline: H.264 files, decodebin, the element.
 *
 *   test-nano MODEL [--wrong] [--weights TYPE]
 *
 * Prints a table of the attributes, and fails if one is known less often than the table asks for. --wrong: prints every
 * wrong answer rather than those of attributes that fail. TYPE: the element's property weights, auto if not given: what
 * q8 and q4 cost of what is known. */
#include "clips.h"

#include <gst/gst.h>
#include <glib/gstdio.h>
#include <stdio.h>
#include <string.h>

/* Clips that are worked on side by side: their questions are batched. */
#define SIDE_BY_SIDE 3
#define MAX_QUESTIONS 16
#define PATIENCE (300 * GST_SECOND)

typedef enum { A_CAPTION, A_COLOR, A_SHAPE, A_BACKGROUND, A_PATTERN, A_MOTION, A_EVENT, A_FRAME, A_COUNT, A_POSITION, A_BOX,
               A_YES_NO, A_ABSENT, A_NUMBER, A_WORD, A_SEVERAL, N_ATTRIBUTES } Attribute;

/* The figure that the model card must reach with 500 answers and more an attribute, and what must hold here with few: it
 * is lower by about two deviations of so few answers. */
static const struct {
  const char *name;
  double aim, least;
  guint asked; /* at least so many, so that no attribute is passed over */
} attributes[N_ATTRIBUTES] = {
#include "thresholds.h"
};

static const guint n_clips[N_KINDS] = { [CLIP_SINGLE] = 40, [CLIP_PATTERN] = 12, [CLIP_CUT] = 8, [CLIP_SEVERAL] = 24, [CLIP_TEXT] = 16 };

typedef struct {
  Attribute attribute;
  char *question, *truth, *answer;
  double box[4];
  double score; /* 0 or 1; of boxes the overlap */
} Question;

typedef struct {
  Clip clip;
  char *path;
  Question questions[MAX_QUESTIONS];
  guint n;
} Task;

/* ---- what is asked, and what is true ---- */

G_GNUC_PRINTF (4, 5)
static Question *
add (Task *task, Attribute attribute, const char *question, const char *truth, ...)
{
  g_assert_cmpuint (task->n, <, MAX_QUESTIONS);
  va_list args;
  va_start (args, truth);
  Question *q = &task->questions[task->n++];
  *q = (Question){ .attribute = attribute, .question = g_strdup (question), .truth = g_strdup_vprintf (truth, args) };
  va_end (args);
  if (attribute != A_CAPTION && attribute != A_SEVERAL && attribute != A_BOX) /* which begin as they should already */
    q->truth[0] = g_ascii_toupper (q->truth[0]);
  return q;
}

/* "A red circle" or "an orange star". */
static char *
thing_name (const Thing *thing, gboolean begins)
{
  const char *color = color_names[thing->color];
  return g_strdup_printf ("%s%s %s %s", begins ? "A" : "a", strchr ("aeiou", color[0]) ? "n" : "", color,
                          shape_names[thing->shape]);
}

static char *
ground_name (const Ground *ground)
{
  if (ground->name == GRADIENT)
    return g_strdup ("a gradient background");
  if (ground->name == NOISE)
    return g_strdup ("a noisy background");
  return g_strdup_printf ("a%s %s background", ground->name == ORANGE ? "n" : "", color_names[ground->name]);
}

static char *
happens_to (const Thing *thing)
{
  static const char *const verbs[] = { "moves left to right", "moves right to left", "moves up", "moves down", "grows",
                                       "shrinks", "stays still", "appears", "disappears" };
  return thing->action == TURN ? g_strdup_printf ("turns %s", color_names[thing->turned]) : g_strdup (verbs[thing->action]);
}

static const char *
cell_name (const Thing *thing)
{
  static const char *const names[3][3] = { { "top left", "top", "top right" }, { "left", "center", "right" },
                                           { "bottom left", "bottom", "bottom right" } };
  return names[MIN ((guint) (thing->from[1] * 3), 2)][MIN ((guint) (thing->from[0] * 3), 2)];
}

static Shape
missing_shape (const Clip *clip)
{
  Shape shape = (Shape) (clip->number % N_SHAPES);
  for (guint i = 0, tries = 0; i < clip->n_things && tries < N_SHAPES; i++)
    if (clip->things[i].shape == shape) {
      shape = (Shape) ((shape + 1) % N_SHAPES);
      i = G_MAXUINT; /* from the first again */
      tries++;
    }
  for (guint i = 0; i < clip->n_things; i++)
    if (clip->things[i].shape == shape)
      return N_SHAPES;
  return shape;
}

static void
ask_place (Task *task, const Thing *thing, const char *which)
{
  g_autofree char *where = g_strdup_printf ("Where is the %s?", which);
  g_autofree char *box = g_strdup_printf ("Please provide the bounding box coordinate of the region this sentence describes: "
                                          "<ref>the %s %s</ref>", color_names[thing->color], shape_names[thing->shape]);
  add (task, A_POSITION, where, "%s", cell_name (thing));
  Question *q = add (task, A_BOX, box, "%s", "");
  clip_get_box (&task->clip, thing, q->box);
}

static void
ask_presence (Task *task)
{
  const Clip *clip = &task->clip;
  Shape absent = missing_shape (clip);
  if (clip->n_things > 0) {
    g_autofree char *there = g_strdup_printf ("Is there a %s?", shape_names[clip->things[0].shape]);
    add (task, A_YES_NO, there, "yes");
  }
  if (absent == N_SHAPES)
    return;
  g_autofree char *not_there = g_strdup_printf ("Is there a %s?", shape_names[absent]);
  g_autofree char *color = g_strdup_printf ("What color is the %s?", shape_names[absent]);
  add (task, A_YES_NO, not_there, "no");
  add (task, A_ABSENT, color, "There is no %s.", shape_names[absent]);
}

static void
ask_single (Task *task)
{
  const Clip *clip = &task->clip;
  const Thing *thing = &clip->things[0];
  g_autofree char *name = thing_name (thing, TRUE), *ground = ground_name (&clip->ground), *verb = happens_to (thing);
  gboolean event = thing->action >= APPEAR;
  add (task, A_CAPTION, "Describe this video.", "%s %s %s %s.", name, verb, thing->action == DISAPPEAR ? "from" : "on", ground);
  add (task, A_SHAPE, "What shape is it?", "%s", shape_names[thing->shape]);
  add (task, A_COLOR, thing->action == TURN ? "What color is the object at the start?" : "What color is it?", "%s",
       color_names[thing->color]);
  add (task, A_BACKGROUND, "What is the background?", "%s", color_names[clip->ground.name]);
  add (task, event ? A_EVENT : A_MOTION, event ? "What happens in this video?" : "How does the object move?", "It %s.", verb);
  if (event) {
    static const char *const did[] = { "appear", "disappear", "change color" };
    g_autofree char *when = g_strdup_printf ("In which frame does the object %s?", did[thing->action - APPEAR]);
    add (task, A_FRAME, when, "Frame %u", clip->frame);
  }
  if (thing->action == STILL)
    ask_place (task, thing, shape_names[thing->shape]);
  if (thing->action != TURN)
    ask_presence (task);
}

static void
ask_pattern (Task *task)
{
  static const struct {
    const char *source, *caption;
  } known[] = { { "smpte", "SMPTE color bars." }, { "snow", "TV snow." }, { "checkers", "A checkerboard pattern." },
                { "ball", "A white ball bounces on a black background." } };
  const Clip *clip = &task->clip;
  if (!clip->source) {
    const char *ground = color_names[clip->ground.name];
    add (task, A_CAPTION, "Describe this video.", "An empty %s background.", ground);
    add (task, A_BACKGROUND, "What is the background?", "%s", ground);
    add (task, A_COUNT, "How many objects are there?", "0");
    return;
  }
  for (guint i = 0; i < G_N_ELEMENTS (known); i++)
    if (g_str_has_prefix (clip->source, known[i].source)) {
      add (task, A_CAPTION, "Describe this video.", "%s", known[i].caption);
      add (task, A_PATTERN, "Which test pattern is this?", "%s", known[i].caption);
    }
}

static void
ask_cut (Task *task)
{
  const Clip *clip = &task->clip;
  g_autofree char *a = thing_name (&clip->things[0], TRUE), *b = thing_name (&clip->second, FALSE);
  g_autofree char *on = ground_name (&clip->ground), *then_on = ground_name (&clip->second_ground);
  add (task, A_SEVERAL, "Describe this video.", "%s on %s, then %s on %s.", a, on, b, then_on);
  add (task, A_EVENT, "What happens in this video?", "The scene changes.");
  add (task, A_FRAME, "In which frame does the scene change?", "Frame %u", clip->frame);
  add (task, A_SHAPE, "What shape is it at the start?", "%s", shape_names[clip->things[0].shape]);
  add (task, A_SHAPE, "What shape is it at the end?", "%s", shape_names[clip->second.shape]);
}

static int
in_order (const void *a, const void *b)
{
  const Thing *x = a, *y = b;
  return x->color != y->color ? (int) x->color - (int) y->color : (int) x->shape - (int) y->shape;
}

static void
ask_several (Task *task)
{
  const Clip *clip = &task->clip;
  Thing things[CLIP_MAX_THINGS];
  memcpy (things, clip->things, sizeof things);
  qsort (things, clip->n_things, sizeof *things, in_order);
  g_autoptr (GString) caption = g_string_new (NULL);
  g_autofree char *ground = ground_name (&clip->ground);
  for (guint i = 0; i < clip->n_things; i++) {
    g_autofree char *name = thing_name (&things[i], i == 0);
    g_string_append_printf (caption, "%s%s", i == 0 ? "" : i + 1 == clip->n_things ? " and " : ", ", name);
  }
  if (clip->n_things == 0)
    add (task, A_SEVERAL, "Describe this video.", "An empty %s background.",
         clip->ground.name == NOISE ? "noisy" : color_names[clip->ground.name]);
  else
    add (task, A_SEVERAL, "Describe this video.", "%s%s on %s.", caption->str, clip->n_things == 1 ? " stays still" : "", ground);
  add (task, A_COUNT, "How many objects are there?", "%u", clip->n_things);
  add (task, A_BACKGROUND, "What is the background?", "%s", color_names[clip->ground.name]);
  ask_presence (task);
  for (guint i = 0; i < clip->n_things; i++) {
    guint alike = 0;
    for (guint k = 0; k < clip->n_things; k++)
      alike += clip->things[k].shape == clip->things[i].shape;
    if (alike > 1)
      continue;
    g_autofree char *color = g_strdup_printf ("What color is the %s?", shape_names[clip->things[i].shape]);
    add (task, A_COLOR, color, "%s", color_names[clip->things[i].color]);
    ask_place (task, &clip->things[i], shape_names[clip->things[i].shape]);
    break;
  }
}

static void
ask_text (Task *task)
{
  gboolean number = g_ascii_isdigit (task->clip.text[0]);
  add (task, number ? A_NUMBER : A_WORD, "What does it say?", "%s", task->clip.text);
  add (task, A_COLOR, "What color is the text?", "%s", color_names[task->clip.things[0].color]);
  add (task, A_BACKGROUND, "What is the background?", "%s", color_names[task->clip.ground.name]);
}

/* ---- the pipeline ---- */

static const char *model, *weights = "auto";

/* The first question is the element's prompt, the others are put to it once it has seen the clip. */
static void
run (gpointer data, gpointer user_data)
{
  Task *task = data;
  g_autoptr (GError) error = NULL;
  clip_encode (&task->clip, task->path);
  g_autofree char *line = g_strdup_printf (
    "filesrc location=\"%s\" ! decodebin ! internvl name=v model-path=\"%s\" weights=%s chunk-duration=%" G_GUINT64_FORMAT
    " chunk-size=%d max-tokens=64 ! fakesink", task->path, model, weights, CLIP_SECONDS * GST_SECOND, CLIP_FRAMES);
  GstElement *pipeline = gst_parse_launch (line, &error);
  if (!pipeline)
    g_error ("%s: %s", line, error->message);
  GstElement *element = gst_bin_get_by_name (GST_BIN (pipeline), "v");
  g_object_set (element, "prompt", task->questions[0].question, NULL);
  GstBus *bus = gst_element_get_bus (pipeline);
  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  for (guint missing = task->n; missing > 0;) {
    GstMessage *message = gst_bus_timed_pop_filtered (bus, PATIENCE, GST_MESSAGE_EOS | GST_MESSAGE_ERROR | GST_MESSAGE_ELEMENT);
    if (!message)
      g_error ("%s: %u of %u answers are missing", task->path, missing, task->n);
    if (GST_MESSAGE_TYPE (message) == GST_MESSAGE_ERROR) {
      gst_message_parse_error (message, &error, NULL);
      g_error ("%s: %s", line, error->message);
    } else if (GST_MESSAGE_TYPE (message) == GST_MESSAGE_EOS) {
      for (guint i = 1; i < task->n; i++) {
        g_autofree char *id = g_strdup_printf ("%u", i);
        gboolean taken = FALSE;
        g_signal_emit_by_name (element, "ask", task->questions[i].question, id, &taken);
        g_assert_true (taken);
      }
    } else if (gst_message_has_name (message, "internvl")) {
      const GstStructure *result = gst_message_get_structure (message);
      const char *id = gst_structure_get_string (result, "id"), *text = gst_structure_get_string (result, "text");
      guint i = id ? (guint) g_ascii_strtoull (id, NULL, 10) : 0;
      if (!text)
        g_error ("%s: no answer to \"%s\": %s", task->path, task->questions[i].question,
                 gst_structure_get_string (result, "error"));
      g_assert_true (i < task->n && !task->questions[i].answer); /* one chunk, each answered once */
      task->questions[i].answer = g_strdup (text);
      missing--;
    }
    gst_message_unref (message);
  }
  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_object_unref (bus);
  gst_object_unref (element);
  gst_object_unref (pipeline);
  g_unlink (task->path);
}

/* ---- the table ---- */

static double
overlap (const double box[4], const char *answer)
{
  guint v[4];
  const char *list = strstr (answer, "[[");
  if (!list || sscanf (list, "[[%u, %u, %u, %u]]", &v[0], &v[1], &v[2], &v[3]) != 4)
    return 0;
  double found[4] = { v[0] / 1e3, v[1] / 1e3, v[2] / 1e3, v[3] / 1e3 };
  double w = MIN (box[2], found[2]) - MAX (box[0], found[0]), h = MIN (box[3], found[3]) - MAX (box[1], found[1]);
  double both = MAX (w, 0) * MAX (h, 0);
  double all = (box[2] - box[0]) * (box[3] - box[1]) + MAX (found[2] - found[0], 0) * MAX (found[3] - found[1], 0) - both;
  return all > 0 ? both / all : 0;
}

static void
tell_wrong (GPtrArray *tasks, Attribute attribute)
{
  for (guint i = 0; i < tasks->len; i++) {
    const Task *task = tasks->pdata[i];
    for (guint k = 0; k < task->n; k++) {
      const Question *q = &task->questions[k];
      if (q->attribute == attribute && q->score < 0.5)
        printf ("  %s: \"%s\" got \"%s\", not \"%s\"\n", task->path, q->question, q->answer, q->truth);
    }
  }
}

static gboolean
judge (GPtrArray *tasks, gboolean all_wrong)
{
  double sum[N_ATTRIBUTES] = { 0 };
  guint asked[N_ATTRIBUTES] = { 0 };
  for (guint i = 0; i < tasks->len; i++) {
    Task *task = tasks->pdata[i];
    for (guint k = 0; k < task->n; k++) {
      Question *q = &task->questions[k];
      q->score = q->attribute == A_BOX ? overlap (q->box, q->answer) : g_str_equal (q->answer, q->truth);
      sum[q->attribute] += q->score;
      asked[q->attribute]++;
    }
  }
  gboolean good = TRUE;
  printf ("%-26s %6s %6s %6s %6s\n", "attribute", "asked", "true", "least", "aim");
  for (Attribute a = 0; a < N_ATTRIBUTES; a++) {
    double share = asked[a] ? sum[a] / asked[a] : 0;
    gboolean holds = share >= attributes[a].least && asked[a] >= attributes[a].asked;
    printf ("%-26s %6u %6.3f %6.2f %6.2f%s\n", attributes[a].name, asked[a], share, attributes[a].least, attributes[a].aim,
            holds ? "" : "  FAILS");
    good = good && holds;
    if (!holds || all_wrong)
      tell_wrong (tasks, a);
  }
  return good;
}

static void
task_free (Task *task)
{
  for (guint i = 0; i < task->n; i++) {
    g_free (task->questions[i].question);
    g_free (task->questions[i].truth);
    g_free (task->questions[i].answer);
  }
  g_free (task->path);
  g_free (task);
}

int
main (int argc, char **argv)
{
  static void (*const ask[N_KINDS]) (Task *) = { [CLIP_SINGLE] = ask_single, [CLIP_PATTERN] = ask_pattern,
                                                 [CLIP_CUT] = ask_cut, [CLIP_SEVERAL] = ask_several, [CLIP_TEXT] = ask_text };
  static const char *const kinds[N_KINDS] = { "single", "pattern", "cut", "several", "text" };
  g_autoptr (GError) error = NULL;
  gst_init (&argc, &argv);
  if (argc < 2) {
    fprintf (stderr, "usage: test-nano MODEL [--wrong] [--weights TYPE]\n");
    return 2;
  }
  model = argv[1];
  gboolean wrong = FALSE;
  for (int i = 2; i < argc; i++)
    if (strcmp (argv[i], "--wrong") == 0)
      wrong = TRUE;
    else if (strcmp (argv[i], "--weights") == 0 && i + 1 < argc)
      weights = argv[++i];
  g_autofree char *folder = g_dir_make_tmp ("internvl-nano-XXXXXX", &error);
  g_assert_no_error (error);
  g_autoptr (GPtrArray) tasks = g_ptr_array_new_with_free_func ((GDestroyNotify) task_free);
  for (Kind kind = 0; kind < N_KINDS; kind++)
    for (guint i = 0; i < n_clips[kind]; i++) {
      Task *task = g_new0 (Task, 1);
      g_autofree char *name = g_strdup_printf ("%s-%02u.mp4", kinds[kind], i);
      task->path = g_build_filename (folder, name, NULL);
      clip_init (&task->clip, kind, i);
      ask[kind] (task);
      g_ptr_array_add (tasks, task);
    }

  /* The model is loaded once, and stays as long as this. */
  g_autofree char *line = g_strdup_printf ("videotestsrc num-buffers=1 ! video/x-raw,width=64,height=64 ! internvl model-path=\"%s\" weights=%s ! "
                                           "fakesink", model, weights);
  GstElement *keeper = gst_parse_launch (line, &error);
  g_assert_no_error (error);
  gst_element_set_state (keeper, GST_STATE_PAUSED);
  GThreadPool *pool = g_thread_pool_new (run, NULL, SIDE_BY_SIDE, TRUE, &error);
  g_assert_no_error (error);
  for (guint i = 0; i < tasks->len; i++)
    g_thread_pool_push (pool, tasks->pdata[i], NULL);
  g_thread_pool_free (pool, FALSE, TRUE);
  gst_element_set_state (keeper, GST_STATE_NULL);
  gst_object_unref (keeper);
  g_rmdir (folder);
  return judge (tasks, wrong) ? 0 : 1;
}
