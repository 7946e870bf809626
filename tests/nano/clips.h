/* Clips whose content is known: what is in one, what is to be said of it, and the way into an H.264 file. Drawn with
 * Cairo or by videotestsrc; nothing here comes from what models/nano was trained with but the names of things. */
#ifndef TEST_NANO_CLIPS_H
#define TEST_NANO_CLIPS_H

#include <glib.h>

#define CLIP_SECONDS 2
/* Frames that the element samples, each in the middle of its quarter. */
#define CLIP_FRAMES 4
#define CLIP_MAX_THINGS 4

/* In the order in which captions list them. */
typedef enum { RED, ORANGE, YELLOW, GREEN, BLUE, PURPLE, WHITE, BLACK, N_COLORS, GRADIENT = N_COLORS, NOISE } Color;
typedef enum { CIRCLE, SQUARE, TRIANGLE, STAR, N_SHAPES } Shape;
typedef enum { RIGHT, LEFT, UP, DOWN, GROW, SHRINK, STILL, APPEAR, DISAPPEAR, TURN, N_ACTIONS } Action;
typedef enum { CLIP_SINGLE, CLIP_PATTERN, CLIP_CUT, CLIP_SEVERAL, CLIP_TEXT, N_KINDS } Kind;

typedef struct {
  double rgb[2][3]; /* of a plain one, or a gradient's ends */
  double angle;
  guint32 seed;     /* of noise */
  Color name;
} Ground;

typedef struct {
  Shape shape;
  Color color, turned; /* turned: after an action TURN */
  Action action;
  double rgb[2][3];
  double from[3], to[3]; /* x, y in frames, radius in shorter sides */
  double tilt;           /* radians */
} Thing;

typedef struct {
  Kind kind;
  guint number, width, height, fps;
  Ground ground, second_ground; /* second_: of a cut */
  Thing things[CLIP_MAX_THINGS], second;
  guint n_things;
  double at;          /* 0..1: when something happens at once */
  guint frame;        /* 1..: the sampled frame that shows it first */
  const char *source; /* videotestsrc's pattern; NULL: drawn */
  const char *text, *font;
  double place[4];    /* of the text: left, top, width, height in frames */
  double paint[3];    /* its colour, or what is empty of NULL */
  int quantizer, key_frames;
} Clip;

extern const char *const color_names[N_COLORS + 2], *const shape_names[N_SHAPES];

/* Thinks out clip NUMBER of its kind; the same each time. */
void clip_init (Clip *clip, Kind kind, guint number);
/* Ends the program if the file can't be made. */
void clip_encode (const Clip *clip, const char *path);
/* [x1, y1, x2, y2] in frames, of a thing that stands still. */
void clip_get_box (const Clip *clip, const Thing *thing, double box[4]);

#endif
