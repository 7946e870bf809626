/* Which frames make a chunk. Frames are numbers; what comes out is compared as text: "start+duration: frames". */
#include "framesampler.h"

#define MS GST_MSECOND
#define NONE GST_CLOCK_TIME_NONE
/* Frames are never NULL. */
#define FRAME(i) GUINT_TO_POINTER ((i) + 1)

typedef struct
{
  GstInternvlSampler *sampler;
  GString *out;
  guint alive, sampled, n_wanted;
} Fixture;

static Fixture *current;

static gpointer
frame_ref (gpointer frame)
{
  current->alive++;
  return frame;
}

static void
frame_unref (gpointer frame)
{
  current->alive--;
}

static void
on_sampled (gpointer frame, gpointer user_data)
{
  current->sampled++;
}

static void
on_chunk (GstClockTime start, GstClockTime duration, GPtrArray *frames, guint n_wanted, gpointer user_data)
{
  current->n_wanted = n_wanted;
  g_string_append_printf (current->out, "%s%u+%u:", current->out->len ? "; " : "", (guint) (start / MS),
      (guint) (duration / MS));
  for (guint i = 0; i < frames->len; i++)
    g_string_append_printf (current->out, " %u", GPOINTER_TO_UINT (g_ptr_array_index (frames, i)) - 1);
  g_ptr_array_unref (frames);
}

static const GstInternvlSamplerFuncs funcs = { frame_ref, frame_unref, on_sampled, on_chunk };

static void
setup (Fixture *f, gconstpointer data)
{
  current = f;
  f->sampler = gst_internvl_sampler_new (&funcs, f);
  f->out = g_string_new (NULL);
}

static void
teardown (Fixture *f, gconstpointer data)
{
  gst_internvl_sampler_free (f->sampler);
  g_assert_cmpuint (f->alive, ==, 0);
  g_string_free (f->out, TRUE);
}

static void
configure (Fixture *f, guint size, gint rate_n, gint rate_d, GstClockTime duration, GstClockTime stride,
    gboolean eager)
{
  GstInternvlSamplerConfig config = { size, rate_n, rate_d, duration, stride, eager };

  gst_internvl_sampler_configure (f->sampler, &config);
}

/* Frames numbered FROM to TO at PERIOD ms each, the first one at TIME ms. */
static void
feed (Fixture *f, guint from, guint to, guint time, guint period, gboolean durations)
{
  for (guint i = from; i <= to; i++)
    gst_internvl_sampler_push (f->sampler, FRAME (i), (time + (i - from) * period) * MS,
        durations ? period * MS : NONE);
}

#define expect(f, text) g_assert_cmpstr ((f)->out->str, ==, text)

static void
test_uniform (Fixture *f, gconstpointer data)
{
  /* 4 frames at 4/s are a second; of ten a second those on display at 125, 375, 625, 875 ms. */
  configure (f, 4, 4, 1, 0, 0, FALSE);
  feed (f, 0, 19, 0, 100, TRUE);
  expect (f, "0+1000: 1 3 6 8");
  gst_internvl_sampler_finish (f->sampler);
  expect (f, "0+1000: 1 3 6 8; 1000+1000: 11 13 16 18");
}

static void
test_resolve (Fixture *f, gconstpointer data)
{
  const struct
  {
    GstInternvlSamplerConfig config;
    GstClockTime duration, stride;
    guint n;
  } cases[] = {
    {{8, 0, 1, 0, 0}, 4000 * MS, 4000 * MS, 8},
    {{8, 1, 5, 0, 0}, 40000 * MS, 40000 * MS, 8},
    {{8, 0, 1, 1000 * MS, 0}, 1000 * MS, 1000 * MS, 8},
    {{8, 2, 1, 1000 * MS, 0}, 1000 * MS, 1000 * MS, 2},
    {{8, 2, 1, 60000 * MS, 30000 * MS}, 60000 * MS, 30000 * MS, 8},
    {{8, 1, 10, 1000 * MS, 0}, 1000 * MS, 1000 * MS, 1},
    {{0, 0, 0, 0, 0}, 500 * MS, 500 * MS, 1},
    {{1, 0, 1, 6400 * MS, 1}, 6400 * MS, 100 * MS + 1, 1},
    {{512, 1, G_MAXINT, 0, 0}, 366 * 24 * 3600 * GST_SECOND, 366 * 24 * 3600 * GST_SECOND, 512},
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    GstClockTime duration, stride;
    guint n;

    gst_internvl_sampler_config_resolve (&cases[i].config, &duration, &n, &stride);
    g_assert_cmpuint (duration, ==, cases[i].duration);
    g_assert_cmpuint (stride, ==, cases[i].stride);
    g_assert_cmpuint (n, ==, cases[i].n);
  }
}

static void
test_last_is_shorter (Fixture *f, gconstpointer data)
{
  configure (f, 2, 2, 1, 0, 0, FALSE);
  feed (f, 0, 13, 500, 100, TRUE);
  gst_internvl_sampler_finish (f->sampler);
  expect (f, "500+1000: 2 7; 1500+400: 12");
  /* Anew. */
  g_string_truncate (f->out, 0);
  feed (f, 0, 0, 100, 100, TRUE);
  gst_internvl_sampler_finish (f->sampler);
  expect (f, "100+100: 0");
}

static void
test_fewer_frames_than_points (Fixture *f, gconstpointer data)
{
  configure (f, 8, 0, 1, 1000 * MS, 0, FALSE);
  feed (f, 0, 3, 0, 500, TRUE);
  gst_internvl_sampler_finish (f->sampler);
  expect (f, "0+1000: 0 1; 1000+1000: 2 3");
}

static void
test_eager (Fixture *f, gconstpointer data)
{
  configure (f, 2, 2, 1, 0, 0, TRUE);
  feed (f, 0, 7, 0, 100, TRUE);
  expect (f, "0+1000: 2 7");
  feed (f, 8, 9, 800, 100, TRUE);
  gst_internvl_sampler_finish (f->sampler);
  expect (f, "0+1000: 2 7");
}

static void
test_no_durations (Fixture *f, gconstpointer data)
{
  configure (f, 2, 2, 1, 0, 0, FALSE);
  feed (f, 0, 20, 0, 100, FALSE);
  expect (f, "0+1000: 2 7; 1000+1000: 12 17");
}

static void
test_still (Fixture *f, gconstpointer data)
{
  /* One picture, framerate 0/1: it stands for a chunk. */
  configure (f, 2, 2, 1, 0, 0, FALSE);
  gst_internvl_sampler_push (f->sampler, FRAME (7), 0, NONE);
  gst_internvl_sampler_finish (f->sampler);
  expect (f, "0+1000: 7");
}

static void
test_slides (Fixture *f, gconstpointer data)
{
  /* A picture every ten seconds: a chunk for each, none for what lies between. */
  configure (f, 2, 2, 1, 0, 0, FALSE);
  feed (f, 0, 2, 0, 10000, FALSE);
  gst_internvl_sampler_finish (f->sampler);
  expect (f, "0+1000: 0; 10000+1000: 1; 20000+1000: 2");
}

static void
test_variable (Fixture *f, gconstpointer data)
{
  const guint times[] = { 0, 10, 20, 290, 300, 301, 740, 760, 990, 1400, 2100 };

  configure (f, 2, 2, 1, 0, 0, FALSE);
  for (guint i = 0; i < G_N_ELEMENTS (times); i++)
    gst_internvl_sampler_push (f->sampler, FRAME (i), times[i] * MS, NONE);
  gst_internvl_sampler_finish (f->sampler);
  expect (f, "0+1000: 3 6; 1000+1000: 9; 2000+800: 10");
}

static void
test_backward_jump (Fixture *f, gconstpointer data)
{
  configure (f, 2, 2, 1, 0, 0, FALSE);
  feed (f, 0, 14, 5000, 100, TRUE);
  feed (f, 20, 30, 0, 100, TRUE);
  gst_internvl_sampler_finish (f->sampler);
  expect (f, "5000+1000: 2 7; 6000+500: 12; 0+1000: 22 27; 1000+100: 30");
}

static void
test_jitter (Fixture *f, gconstpointer data)
{
  configure (f, 2, 2, 1, 0, 0, FALSE);
  feed (f, 0, 4, 0, 100, TRUE);
  feed (f, 50, 50, 350, 100, TRUE);
  feed (f, 5, 10, 500, 100, TRUE);
  expect (f, "0+1000: 2 7");
}

static void
test_forward_jump (Fixture *f, gconstpointer data)
{
  configure (f, 2, 2, 1, 0, 0, FALSE);
  feed (f, 0, 4, 0, 100, TRUE);
  feed (f, 10, 19, 7300, 100, TRUE);
  gst_internvl_sampler_finish (f->sampler);
  expect (f, "0+1000: 2; 7300+1000: 12 17");
}

static void
test_gap_event (Fixture *f, gconstpointer data)
{
  configure (f, 2, 2, 1, 0, 0, FALSE);
  feed (f, 0, 4, 0, 100, TRUE);
  gst_internvl_sampler_advance (f->sampler, 900 * MS);
  expect (f, "");
  gst_internvl_sampler_advance (f->sampler, 1000 * MS);
  expect (f, "0+1000: 2");
}

static void
test_no_timestamps (Fixture *f, gconstpointer data)
{
  configure (f, 2, 2, 1, 0, 0, FALSE);
  gst_internvl_sampler_set_period (f->sampler, 250 * MS);
  for (guint i = 0; i < 6; i++)
    gst_internvl_sampler_push (f->sampler, FRAME (i),
        gst_internvl_sampler_guess_time (f->sampler, NONE), NONE);
  gst_internvl_sampler_finish (f->sampler);
  expect (f, "0+1000: 1 3; 1000+500: 5");

  /* Nor a frame rate. */
  g_string_truncate (f->out, 0);
  gst_internvl_sampler_set_period (f->sampler, NONE);
  for (guint i = 0; i < 35; i++)
    gst_internvl_sampler_push (f->sampler, FRAME (i),
        gst_internvl_sampler_guess_time (f->sampler, NONE), NONE);
  g_assert_true (g_str_has_prefix (f->out->str, "0+1000: "));
}

static void
test_overlap (Fixture *f, gconstpointer data)
{
  configure (f, 2, 2, 1, 0, 500 * MS, FALSE);
  feed (f, 0, 22, 0, 100, TRUE);
  expect (f, "0+1000: 2 7; 500+1000: 7 12; 1000+1000: 12 17");
  /* The oldest of those that are cut holds the others. */
  gst_internvl_sampler_finish (f->sampler);
  expect (f, "0+1000: 2 7; 500+1000: 7 12; 1000+1000: 12 17; 1500+800: 17 22");
}

/* More than are wanted, for others to choose from; it may come to all frames that there are. */
static void
test_density (Fixture *f, gconstpointer data)
{
  GstInternvlSamplerConfig config = { 2, 2, 1, 0, 0, FALSE, 0, 3 };

  gst_internvl_sampler_configure (f->sampler, &config);
  feed (f, 0, 10, 0, 100, TRUE);
  expect (f, "0+1000: 0 2 4 5 7 9");
  g_assert_cmpuint (f->n_wanted, ==, 2);
  config.density = 60;
  gst_internvl_sampler_configure (f->sampler, &config);
  feed (f, 11, 30, 1100, 100, TRUE);
  /* From the next window on. */
  expect (f, "0+1000: 0 2 4 5 7 9; 1000+1000: 10 12 14 15 17 19; 2000+1000: 20 21 22 23 24 25 26 27 28 29");
  g_assert_cmpuint (f->n_wanted, ==, 2);
}

static void
test_first (Fixture *f, gconstpointer data)
{
  GstInternvlSamplerConfig config = { 4, 4, 1, 0, 0, FALSE, 300 * MS, 1 };

  gst_internvl_sampler_configure (f->sampler, &config);
  feed (f, 0, 24, 0, 100, TRUE);
  expect (f, "0+300: 1; 300+1000: 4 6 9 11; 1300+1000: 14 16 19 21");
  /* Where it begins anew, too; and overlapping, and not longer than the others. */
  g_string_truncate (f->out, 0);
  gst_internvl_sampler_reset (f->sampler);
  config.chunk_stride = 500 * MS;
  gst_internvl_sampler_configure (f->sampler, &config);
  feed (f, 0, 20, 0, 100, TRUE);
  expect (f, "0+300: 1; 300+1000: 4 6 9 11; 800+1000: 9 11 14 16");
  g_string_truncate (f->out, 0);
  gst_internvl_sampler_reset (f->sampler);
  config.chunk_stride = 2000 * MS;
  config.first_duration = 100 * MS;
  gst_internvl_sampler_configure (f->sampler, &config);
  feed (f, 0, 31, 0, 100, TRUE);
  expect (f, "0+100: 0; 2000+1000: 21 23 26 28");
  g_string_truncate (f->out, 0);
  gst_internvl_sampler_reset (f->sampler);
  config.chunk_stride = 0;
  config.first_duration = 5000 * MS;
  gst_internvl_sampler_configure (f->sampler, &config);
  feed (f, 0, 10, 0, 100, TRUE);
  expect (f, "0+1000: 1 3 6 8");
}

static void
test_long_stride (Fixture *f, gconstpointer data)
{
  configure (f, 2, 0, 1, 1000 * MS, 3000 * MS, FALSE);
  feed (f, 0, 49, 0, 100, TRUE);
  gst_internvl_sampler_finish (f->sampler);
  expect (f, "0+1000: 2 7; 3000+1000: 32 37");
  g_assert_cmpuint (f->sampled, ==, 4);
}

static void
test_reconfigure (Fixture *f, gconstpointer data)
{
  configure (f, 2, 2, 1, 0, 0, FALSE);
  feed (f, 0, 4, 0, 100, TRUE);
  configure (f, 1, 2, 1, 0, 0, FALSE);
  feed (f, 5, 15, 500, 100, TRUE);
  expect (f, "0+1000: 2 7; 1000+500: 12");
}

/* Times that can't be meant, between others that can: sums must not overflow. */
static void
test_absurd_times (Fixture *f, gconstpointer data)
{
  static const GstClockTime times[] = { G_MAXUINT64 - 1, G_MAXUINT64 - 100 * MS, G_MAXINT64, G_MAXINT64 / 2 + 1 };

  configure (f, 2, 2, 1, 0, 0, FALSE);
  feed (f, 0, 4, 0, 100, TRUE);
  for (guint i = 0; i < G_N_ELEMENTS (times); i++)
    gst_internvl_sampler_push (f->sampler, FRAME (90 + i), times[i], 100 * MS);
  gst_internvl_sampler_push (f->sampler, FRAME (5), 500 * MS, G_MAXUINT64 - 1);
  feed (f, 6, 10, 600, 100, TRUE);
  expect (f, "0+1000: 2 7");
  gst_internvl_sampler_advance (f->sampler, G_MAXUINT64 - 1);
  /* The last that can. */
  gst_internvl_sampler_push (f->sampler, FRAME (20), G_MAXINT64 / 2, 100 * MS);
  gst_internvl_sampler_finish (f->sampler);
  g_assert_true (g_str_has_suffix (f->out->str, ": 20"));
}

/* Whatever comes: no crash, times in order within a run, nothing left. */
static void
test_random (Fixture *f, gconstpointer data)
{
  for (guint round = 0; round < 200; round++) {
    GstClockTime time = g_test_rand_int_range (0, 1000) * MS;

    configure (f, g_test_rand_int_range (0, 10), g_test_rand_int_range (0, 5), g_test_rand_int_range (0, 3),
        g_test_rand_int_range (0, 2) * 700 * MS, g_test_rand_int_range (0, 3) * 90 * MS, g_test_rand_bit ());
    for (guint i = 0; i < 100; i++) {
      time += (gint64) g_test_rand_int_range (-50, 200) * MS * (i % 37 == 5 ? 100 : 1);
      time = (gint64) time < 0 ? 0 : time;
      gst_internvl_sampler_push (f->sampler, FRAME (i), time,
          g_test_rand_bit () ? NONE : (guint) g_test_rand_int_range (0, 300) * MS);
    }
    if (g_test_rand_bit ())
      gst_internvl_sampler_finish (f->sampler);
    else
      gst_internvl_sampler_reset (f->sampler);
    g_assert_cmpuint (f->alive, ==, 0);
  }
}

int
main (int argc, char **argv)
{
  gst_init (&argc, &argv);
  g_test_init (&argc, &argv, NULL);
#define add(name) g_test_add ("/framesampler/" #name, Fixture, NULL, setup, test_##name, teardown)
  add (uniform);
  add (resolve);
  add (last_is_shorter);
  add (fewer_frames_than_points);
  add (eager);
  add (no_durations);
  add (still);
  add (slides);
  add (variable);
  add (backward_jump);
  add (jitter);
  add (forward_jump);
  add (gap_event);
  add (no_timestamps);
  add (overlap);
  add (density);
  add (first);
  add (long_stride);
  add (reconfigure);
  add (absurd_times);
  add (random);
  return g_test_run ();
}
