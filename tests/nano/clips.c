#include "clips.h"

#include <cairo.h>
#include <gst/gst.h>
#include <math.h>
#include <string.h>

const char *const color_names[] = { "red", "orange", "yellow", "green", "blue", "purple", "white", "black", "gradient",
                                    "noise" };
const char *const shape_names[] = { "circle", "square", "triangle", "star" };

static const guint8 paints[N_COLORS][2][3] = {
  [RED] = { { 220, 20, 20 }, { 250, 5, 10 } },      [ORANGE] = { { 255, 140, 0 }, { 245, 130, 25 } },
  [YELLOW] = { { 255, 240, 20 }, { 240, 222, 10 } }, [GREEN] = { { 0, 160, 40 }, { 30, 200, 30 } },
  [BLUE] = { { 0, 20, 230 }, { 40, 70, 210 } },      [PURPLE] = { { 130, 20, 150 }, { 150, 40, 170 } },
  [WHITE] = { { 255, 255, 255 }, { 235, 235, 235 } }, [BLACK] = { { 0, 0, 0 }, { 18, 18, 18 } },
};
static const guint sizes[][2] = { { 320, 240 }, { 640, 360 }, { 640, 480 }, { 426, 240 }, { 854, 480 }, { 640, 360 },
                                  { 480, 360 }, { 1280, 720 }, { 480, 640 }, { 1920, 1080 }, { 320, 240 }, { 640, 360 } };
static const char *const words[] = { "LAMP", "BIRD", "FISH", "ROAD", "SNOW", "KING", "MOON", "GATE" };
static const char *const numbers[] = { "7", "42", "905", "1863", "30", "2719", "64", "518" };
/* What every Debian with fontconfig has. */
static const char *const fonts[] = { "DejaVu Sans", "DejaVu Serif", "DejaVu Sans Mono" };

/* ---- thinking out ---- */

static void
mix (GRand *rand, Color color, double rgb[3])
{
  const guint8 *paint = paints[color][g_rand_int_range (rand, 0, 2)];
  for (guint i = 0; i < 3; i++)
    rgb[i] = paint[i] / 255.;
}

static double
distance (const double a[3], const double b[3])
{
  return fabs (a[0] - b[0]) + fabs (a[1] - b[1]) + fabs (a[2] - b[2]);
}

/* Whether a thing of COLOR can be told from all of the ground. */
static gboolean
shows (const Ground *ground, Color color)
{
  if (ground->name != GRADIENT)
    return ground->name != color;
  for (guint k = 0; k <= 8; k++) {
    double here[3], paint[3];
    for (guint i = 0; i < 3; i++) {
      here[i] = ground->rgb[0][i] + (ground->rgb[1][i] - ground->rgb[0][i]) * k / 8;
      paint[i] = paints[color][0][i] / 255.;
    }
    if (distance (here, paint) < 0.8)
      return FALSE;
  }
  return TRUE;
}

static guint
count_shown (const Ground *ground)
{
  guint n = 0;
  for (Color color = 0; color < N_COLORS; color++)
    n += shows (ground, color);
  return n;
}

static void
think_ground (GRand *rand, Ground *ground, gboolean plain)
{
  double which = plain ? 0 : g_rand_double (rand);
  ground->seed = g_rand_int (rand);
  ground->angle = g_rand_int_range (rand, 0, 4) * G_PI / 4;
  do {
    Color a = (Color) g_rand_int_range (rand, 0, N_COLORS), b = (Color) g_rand_int_range (rand, 0, N_COLORS);
    ground->name = which < 0.68 ? a : which < 0.86 ? GRADIENT : NOISE;
    mix (rand, a, ground->rgb[0]);
    mix (rand, b, ground->rgb[1]);
  } while (ground->name == GRADIENT && (distance (ground->rgb[0], ground->rgb[1]) < 1 || count_shown (ground) < 3));
}

static void
think_look (GRand *rand, const Ground *ground, Thing *thing)
{
  thing->shape = (Shape) g_rand_int_range (rand, 0, N_SHAPES);
  do
    thing->color = (Color) g_rand_int_range (rand, 0, N_COLORS);
  while (!shows (ground, thing->color));
  do
    thing->turned = (Color) g_rand_int_range (rand, 0, N_COLORS);
  while (!shows (ground, thing->turned) || thing->turned == thing->color);
  mix (rand, thing->color, thing->rgb[0]);
  mix (rand, thing->turned, thing->rgb[1]);
  thing->tilt = g_rand_double_range (rand, -0.15, 0.15) * g_rand_int_range (rand, 0, 2);
}

/* A coordinate in the middle of a third, where nobody argues in which it is. */
static double
think_place (GRand *rand, double margin)
{
  double v;
  do
    v = g_rand_double_range (rand, margin, 1 - margin);
  while (fabs (v - 1 / 3.) < 0.035 || fabs (v - 2 / 3.) < 0.035);
  return v;
}

static void
think_thing (GRand *rand, const Clip *clip, const Ground *ground, Thing *thing, Action action, gboolean small)
{
  double side = MIN (clip->width, clip->height);
  think_look (rand, ground, thing);
  thing->action = action;
  double r = small ? g_rand_double_range (rand, 0.115, 0.165) : g_rand_double_range (rand, 0.14, 0.26);
  double margin[2] = { r * side / clip->width, r * side / clip->height };
  for (guint i = 0; i < 2; i++)
    thing->from[i] = thing->to[i] = think_place (rand, margin[i]);
  thing->from[2] = thing->to[2] = r;
  if (action <= DOWN) {
    guint axis = action >= UP;
    double room = 1 - 2 * margin[axis], travel = g_rand_double_range (rand, MIN (0.35, 0.8 * room), room);
    double low = margin[axis] + g_rand_double_range (rand, 0, room - travel);
    gboolean forth = action == RIGHT || action == DOWN;
    thing->from[axis] = forth ? low : low + travel;
    thing->to[axis] = forth ? low + travel : low;
  } else if (action == GROW || action == SHRINK) {
    double little = g_rand_double_range (rand, 0.09, 0.13), big = little * g_rand_double_range (rand, 2, 2.8);
    thing->from[2] = action == GROW ? little : big;
    thing->to[2] = action == GROW ? big : little;
    for (guint i = 0; i < 2; i++)
      thing->from[i] = thing->to[i] = g_rand_double_range (rand, 0.35, 0.65);
  }
}

/* Between two sampled frames. */
static void
think_moment (GRand *rand, Clip *clip)
{
  guint k = (guint) g_rand_int_range (rand, 1, CLIP_FRAMES);
  clip->at = (k - g_rand_double_range (rand, 0.1, 0.35)) / CLIP_FRAMES;
  clip->frame = k + 1;
}

static void
think_several (GRand *rand, Clip *clip)
{
  double side = MIN (clip->width, clip->height);
  guint wanted = clip->number % (CLIP_MAX_THINGS + 1);
  for (guint tries = 0; clip->n_things < wanted; tries++) {
    Thing thing;
    if (tries == 200)
      tries = clip->n_things = 0;
    think_thing (rand, clip, &clip->ground, &thing, STILL, TRUE);
    gboolean free_place = TRUE;
    for (guint i = 0; i < clip->n_things; i++) {
      const Thing *other = &clip->things[i];
      double dx = (thing.from[0] - other->from[0]) * clip->width, dy = (thing.from[1] - other->from[1]) * clip->height;
      free_place = free_place && hypot (dx, dy) > 1.2 * (thing.from[2] + other->from[2]) * side;
    }
    if (free_place)
      clip->things[clip->n_things++] = thing;
  }
}

static void
think_pattern (GRand *rand, Clip *clip)
{
  static const char *const sources[] = { "smpte", "snow", "checkers-8", "ball", NULL, "smpte75" };
  clip->source = sources[clip->number % G_N_ELEMENTS (sources)];
  /* The ball's radius is 20 pixels, and a checker's side 8, whatever the frame. */
  if (g_strcmp0 (clip->source, "ball") == 0 || g_strcmp0 (clip->source, "checkers-8") == 0) {
    clip->width = 320 + 16 * (guint) g_rand_int_range (rand, 0, 4);
    clip->height = 240;
  }
  if (!clip->source)
    think_ground (rand, &clip->ground, TRUE);
}

static void
think_text (GRand *rand, Clip *clip)
{
  guint i = clip->number / 2;
  clip->text = clip->number % 2 ? words[i % G_N_ELEMENTS (words)] : numbers[i % G_N_ELEMENTS (numbers)];
  clip->font = fonts[g_rand_int_range (rand, 0, G_N_ELEMENTS (fonts))];
  Thing *color = &clip->things[0];
  do {
    think_ground (rand, &clip->ground, TRUE);
    think_look (rand, &clip->ground, color);
  } while (distance (clip->ground.rgb[0], color->rgb[0]) < 1);
  memcpy (clip->paint, color->rgb[0], sizeof clip->paint);
  double width = MIN (0.19 * strlen (clip->text) + 0.04, 0.8), height = g_rand_double_range (rand, 0.26, 0.38);
  clip->place[0] = g_rand_double_range (rand, 0.04, 0.96 - width);
  clip->place[1] = g_rand_double_range (rand, 0.04, 0.96 - height);
  clip->place[2] = width;
  clip->place[3] = height;
}

void
clip_init (Clip *clip, Kind kind, guint number)
{
  g_autoptr (GRand) rand = g_rand_new_with_seed (20251124 + 1000 * kind + number);
  const guint *size = sizes[(number * 5 + kind) % G_N_ELEMENTS (sizes)];
  *clip = (Clip){ .kind = kind, .number = number, .width = size[0], .height = size[1] };
  clip->fps = g_rand_boolean (rand) ? 25 : 30;
  clip->quantizer = g_rand_int_range (rand, 18, 30);
  clip->key_frames = g_rand_int_range (rand, 10, 100);
  think_ground (rand, &clip->ground, FALSE);
  think_moment (rand, clip);
  switch (kind) {
  case CLIP_SINGLE:
    think_thing (rand, clip, &clip->ground, &clip->things[0], (Action) (number % N_ACTIONS), FALSE);
    clip->n_things = 1;
    break;
  case CLIP_CUT:
    do
      think_ground (rand, &clip->second_ground, FALSE);
    while (clip->second_ground.name == clip->ground.name);
    think_thing (rand, clip, &clip->ground, &clip->things[0], STILL, FALSE);
    do
      think_thing (rand, clip, &clip->second_ground, &clip->second, STILL, FALSE);
    while (clip->second.shape == clip->things[0].shape && clip->second.color == clip->things[0].color);
    clip->n_things = 1;
    break;
  case CLIP_SEVERAL:
    while (count_shown (&clip->ground) < 3)
      think_ground (rand, &clip->ground, FALSE);
    think_several (rand, clip);
    break;
  case CLIP_PATTERN:
    think_pattern (rand, clip);
    break;
  default:
    think_text (rand, clip);
  }
}

/* ---- drawing ---- */

static void
trace (cairo_t *cr, Shape shape, double x, double y, double r, double tilt)
{
  cairo_new_path (cr);
  cairo_save (cr);
  cairo_translate (cr, x, y);
  cairo_rotate (cr, tilt);
  cairo_scale (cr, r, r);
  if (shape == CIRCLE) {
    cairo_arc (cr, 0, 0, 1, 0, 2 * G_PI);
  } else if (shape == SQUARE) {
    cairo_rectangle (cr, -0.86, -0.86, 1.72, 1.72);
  } else if (shape == TRIANGLE) {
    cairo_move_to (cr, 0, -0.76);
    cairo_line_to (cr, 0.87, 0.74);
    cairo_line_to (cr, -0.87, 0.74);
  } else {
    for (guint i = 0; i < 10; i++) {
      double reach = i % 2 ? 0.43 : 1.06, turn = i * G_PI / 5;
      cairo_line_to (cr, reach * sin (turn), -reach * cos (turn));
    }
  }
  cairo_close_path (cr);
  cairo_restore (cr);
}

static void
draw_ground (cairo_t *cr, const Clip *clip, const Ground *ground)
{
  double w = clip->width, h = clip->height;
  if (ground->name == NOISE) {
    /* Grey cells, a little larger than what the model can tell apart. */
    enum { CELLS = 36 };
    g_autoptr (GRand) rand = g_rand_new_with_seed (ground->seed);
    for (guint i = 0; i < CELLS * CELLS; i++) {
      double grey = CLAMP (0.5 + (g_rand_double (rand) - 0.5) * 0.7, 0, 1);
      cairo_set_source_rgb (cr, grey, grey, grey);
      double x = floor (i % CELLS * w / CELLS), y = floor (i / CELLS * h / CELLS);
      cairo_rectangle (cr, x, y, ceil (w / CELLS) + 1, ceil (h / CELLS) + 1);
      cairo_fill (cr);
    }
    return;
  }
  double dx = cos (ground->angle) * w / 2, dy = sin (ground->angle) * h / 2;
  cairo_pattern_t *pattern = cairo_pattern_create_linear (w / 2 - dx, h / 2 - dy, w / 2 + dx, h / 2 + dy);
  for (guint i = 0; i < 2; i++) {
    const double *c = ground->rgb[ground->name == GRADIENT ? i : 0];
    cairo_pattern_add_color_stop_rgb (pattern, i, c[0], c[1], c[2]);
  }
  cairo_set_source (cr, pattern);
  cairo_paint (cr);
  cairo_pattern_destroy (pattern);
}

static void
draw_thing (cairo_t *cr, const Clip *clip, const Thing *thing, double t)
{
  gboolean later = t >= clip->at;
  if ((thing->action == APPEAR && !later) || (thing->action == DISAPPEAR && later))
    return;
  double v[3];
  for (guint i = 0; i < 3; i++)
    v[i] = thing->from[i] + (thing->to[i] - thing->from[i]) * t;
  const double *c = thing->rgb[thing->action == TURN && later];
  trace (cr, thing->shape, v[0] * clip->width, v[1] * clip->height, v[2] * MIN (clip->width, clip->height), thing->tilt);
  cairo_set_source_rgb (cr, c[0], c[1], c[2]);
  cairo_fill (cr);
}

static void
draw_text (cairo_t *cr, const Clip *clip)
{
  cairo_text_extents_t e;
  cairo_select_font_face (cr, clip->font, CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_BOLD);
  cairo_set_font_size (cr, 64);
  cairo_text_extents (cr, clip->text, &e);
  g_assert_cmpfloat (e.width, >, 0); /* else there are no fonts */
  cairo_save (cr);
  cairo_translate (cr, clip->place[0] * clip->width, clip->place[1] * clip->height);
  cairo_scale (cr, clip->place[2] * clip->width / e.width, clip->place[3] * clip->height / e.height);
  cairo_move_to (cr, -e.x_bearing, -e.y_bearing);
  cairo_set_source_rgb (cr, clip->paint[0], clip->paint[1], clip->paint[2]);
  cairo_show_text (cr, clip->text);
  cairo_restore (cr);
}

static void
draw (cairo_t *cr, const Clip *clip, double t)
{
  gboolean second = clip->kind == CLIP_CUT && t >= clip->at;
  draw_ground (cr, clip, second ? &clip->second_ground : &clip->ground);
  if (second)
    draw_thing (cr, clip, &clip->second, t);
  for (guint i = 0; i < clip->n_things && !second; i++)
    draw_thing (cr, clip, &clip->things[i], t);
  if (clip->text)
    draw_text (cr, clip);
}

void
clip_get_box (const Clip *clip, const Thing *thing, double box[4])
{
  cairo_surface_t *surface = cairo_image_surface_create (CAIRO_FORMAT_A8, 8, 8);
  cairo_t *cr = cairo_create (surface);
  trace (cr, thing->shape, thing->from[0] * clip->width, thing->from[1] * clip->height,
         thing->from[2] * MIN (clip->width, clip->height), thing->tilt);
  cairo_path_extents (cr, &box[0], &box[1], &box[2], &box[3]);
  cairo_destroy (cr);
  cairo_surface_destroy (surface);
  for (guint i = 0; i < 4; i++)
    box[i] = CLAMP (box[i] / (i % 2 ? clip->height : clip->width), 0, 1);
}

/* ---- encoding ---- */

static void
push_frames (GstElement *source, const Clip *clip)
{
  guint n = CLIP_SECONDS * clip->fps;
  cairo_surface_t *surface = cairo_image_surface_create (CAIRO_FORMAT_RGB24, (int) clip->width, (int) clip->height);
  gsize size = (gsize) cairo_image_surface_get_stride (surface) * clip->height;
  for (guint k = 0; k < n; k++) {
    cairo_t *cr = cairo_create (surface);
    GstFlowReturn flow;
    draw (cr, clip, (double) k / n);
    cairo_destroy (cr);
    cairo_surface_flush (surface);
    GstBuffer *buffer = gst_buffer_new_memdup (cairo_image_surface_get_data (surface), size);
    GST_BUFFER_PTS (buffer) = gst_util_uint64_scale (k, GST_SECOND, clip->fps);
    GST_BUFFER_DURATION (buffer) = gst_util_uint64_scale (k + 1, GST_SECOND, clip->fps) - GST_BUFFER_PTS (buffer);
    g_signal_emit_by_name (source, "push-buffer", buffer, &flow);
    gst_buffer_unref (buffer);
  }
  cairo_surface_destroy (surface);
  GstFlowReturn flow;
  g_signal_emit_by_name (source, "end-of-stream", &flow);
}

void
clip_encode (const Clip *clip, const char *path)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *source = clip->source
    ? g_strdup_printf ("videotestsrc pattern=%s num-buffers=%u ! video/x-raw,width=%u,height=%u,framerate=%u/1",
                       clip->source, CLIP_SECONDS * clip->fps, clip->width, clip->height, clip->fps)
    : g_strdup_printf ("appsrc name=source format=time block=true max-bytes=%u "
                       "caps=video/x-raw,format=BGRx,width=%u,height=%u,framerate=%u/1",
                       8 * 4 * clip->width * clip->height, clip->width, clip->height, clip->fps);
  /* One thread, so that the file is the same everywhere. */
  g_autofree char *line = g_strdup_printf (
    "%s ! videoconvert ! video/x-raw,format=I420 ! x264enc threads=1 pass=quant quantizer=%d speed-preset=superfast "
    "key-int-max=%d ! h264parse ! mp4mux ! filesink location=\"%s\"", source, clip->quantizer, clip->key_frames, path);
  GstElement *pipeline = gst_parse_launch (line, &error);
  if (!pipeline)
    g_error ("%s: %s", line, error->message);
  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  GstElement *appsrc = gst_bin_get_by_name (GST_BIN (pipeline), "source");
  if (appsrc)
    push_frames (appsrc, clip);
  g_clear_object (&appsrc);
  GstBus *bus = gst_element_get_bus (pipeline);
  GstMessage *message = gst_bus_timed_pop_filtered (bus, 120 * GST_SECOND, GST_MESSAGE_EOS | GST_MESSAGE_ERROR);
  if (message && GST_MESSAGE_TYPE (message) == GST_MESSAGE_ERROR)
    gst_message_parse_error (message, &error, NULL);
  if (!message || error)
    g_error ("%s: %s", line, error ? error->message : "doesn't end");
  gst_message_unref (message);
  gst_object_unref (bus);
  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_object_unref (pipeline);
}
