/* ivl_image_new_after: which frames are encoded, and that a frame like the one before answers as that one does. */
#include "golden.h"

#include <internvl/internvl.h>
#include <string.h>

#include "push.h"

typedef struct {
  IvlDevice *device;
  IvlModel *model;
  guint side;
  guint8 *rgb;
} Fixture;

static void
set_up (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *path = golden_path ("models", "qwen2-ln-orig", NULL);
  f->device = ivl_device_open (NULL, &error);
  g_assert_no_error (error);
  f->model = ivl_model_load (f->device, path, NULL, NULL, &error);
  g_assert_no_error (error);
  guint height;
  /* As large as a tile: nothing is resized, so differences are known exactly. */
  f->rgb = golden_picture ("square112", &f->side, &height);
  g_assert_cmpuint (f->side, ==, 112);
}

static void
tear_down (Fixture *f, gconstpointer data)
{
  g_free (f->rgb);
  ivl_model_unref (f->model);
  ivl_device_unref (f->device);
}

static IvlImage *
make (Fixture *f, IvlImage *previous, float threshold)
{
  g_autoptr (GError) error = NULL;
  IvlPicture picture;
  ivl_picture_init_rgb (&picture, f->rgb, f->side, f->side, 3 * f->side);
  IvlImage *image = ivl_image_new_after (f->model, &picture, 1, previous, threshold, &error);
  g_assert_no_error (error);
  return image;
}

static char *
ask (Fixture *f, IvlImage *image)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (IvlSession) session = ivl_session_new (f->model, &error);
  IvlQuestion question = { .prompt = "What is it?", .images = &image, .n_images = 1,
                           .params = IVL_GENERATE_PARAMS_INIT };
  question.params.max_tokens = 24;
  g_autoptr (IvlAnswer) answer = ivl_session_ask (session, &question, &error);
  g_assert_no_error (error);
  return g_steal_pointer (&answer->text);
}

/* Moves each sample of patch (5, 2) by LEVELS: the largest mean difference is LEVELS exactly. */
static void
change_patch (Fixture *f, guint levels)
{
  for (guint y = 28; y < 42; y++)
    for (guint x = 70; x < 84; x++)
      for (guint c = 0; c < 3; c++) {
        guint8 *sample = &f->rgb[3 * (y * f->side + x) + c];
        *sample = (guint8) (*sample < 128 ? *sample + levels : *sample - levels);
      }
}

static void
test_threshold (Fixture *f, gconstpointer data)
{
  g_autoptr (IvlImage) first = make (f, NULL, 6.f);
  g_autofree char *answer = ask (f, first);
  change_patch (f, 5);
  g_autoptr (IvlImage) like = make (f, first, 6.f);
  g_autofree char *same = ask (f, like);
  g_assert_cmpstr (same, ==, answer);
  g_assert_true (ivl_image_is_reused (like));
  /* Compared with the frame that was encoded, not with the one before: small steps add up. */
  change_patch (f, 5);
  change_patch (f, 5);
  g_autoptr (IvlImage) unlike = make (f, like, 4.9f);
  g_free (ask (f, unlike));
  g_assert_false (ivl_image_is_reused (unlike));
  IvlModelStats stats;
  ivl_model_get_stats (f->model, &stats);
  g_assert_cmpuint (stats.tiles_encoded, ==, 2);
  g_assert_cmpuint (stats.tiles_reused, ==, 1);
}

static void
test_off (Fixture *f, gconstpointer data)
{
  g_autoptr (IvlImage) first = make (f, NULL, 0.f);
  g_autoptr (IvlImage) second = make (f, first, 0.f);
  g_autofree char *a = ask (f, first), *b = ask (f, second);
  g_assert_cmpstr (a, ==, b);
  g_assert_false (ivl_image_is_reused (second));
  IvlModelStats stats;
  ivl_model_get_stats (f->model, &stats);
  g_assert_cmpuint (stats.tiles_encoded, ==, 2);
}

/* A prompt's beginning is read once for all sessions that share it, and the answer stays what it was. */
static void
test_prefix (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (IvlImage) first = make (f, NULL, 6.f), like = make (f, first, 6.f);
  IvlImage *images[] = { first, first, like };
  g_autofree char *expected = NULL;
  for (guint i = 0; i < G_N_ELEMENTS (images); i++) {
    g_autoptr (IvlSession) session = ivl_session_new (f->model, &error);
    IvlQuestion question = { .prompt = "What is it?", .images = &images[i], .n_images = 1,
                             .params = IVL_GENERATE_PARAMS_INIT };
    question.params.max_tokens = 24;
    g_autoptr (IvlAnswer) answer = ivl_session_ask (session, &question, &error);
    g_assert_no_error (error);
    if (i == 0)
      expected = g_strdup (answer->text);
    g_assert_cmpstr (answer->text, ==, expected);
    /* All whole pages but for the last token, the picture's rows among them. */
    guint whole = (answer->prompt_tokens - 1) / IVL_KV_PAGE * IVL_KV_PAGE;
    g_assert_cmpuint (answer->prompt_tokens_reused, ==, i == 0 ? 0 : whole);
    g_assert_cmpuint (whole, >, 96);
  }
  /* Another picture: what comes before it is still kept. */
  change_patch (f, 60);
  g_autoptr (IvlImage) other = make (f, like, 6.f);
  IvlImage *image = other;
  g_autoptr (IvlSession) session = ivl_session_new (f->model, &error);
  IvlQuestion question = { .prompt = "What is it?", .images = &image, .n_images = 1, .params = IVL_GENERATE_PARAMS_INIT };
  question.params.max_tokens = 24;
  g_autoptr (IvlAnswer) answer = ivl_session_ask (session, &question, &error);
  g_assert_no_error (error);
  g_assert_false (ivl_image_is_reused (other));
  g_assert_cmpuint (answer->prompt_tokens_reused, >, 0);
  g_assert_cmpuint (answer->prompt_tokens_reused, <, (answer->prompt_tokens - 1) / IVL_KV_PAGE * IVL_KV_PAGE);
}

typedef struct {
  GMutex lock;
  GCond done;
  IvlAnswer *answer;
} Wait;

static void
on_answer (IvlSession *session, IvlAnswer *answer, const GError *error, gpointer data)
{
  Wait *wait = data;
  g_assert_no_error (error);
  g_mutex_lock (&wait->lock);
  wait->answer = answer;
  g_cond_signal (&wait->done);
  g_mutex_unlock (&wait->lock);
}

static IvlImage *
make_still (Fixture *f, guint8 flip)
{
  g_autoptr (GError) error = NULL;
  guint width, height;
  g_autofree guint8 *rgb = golden_picture ("wide200x150", &width, &height);
  for (guint i = 0; i < 3 * width * height; i++)
    rgb[i] ^= flip;
  IvlPicture picture;
  ivl_picture_init_rgb (&picture, rgb, width, height, 3 * width);
  IvlImage *image = ivl_image_new (f->model, &picture, 6, &error);
  g_assert_no_error (error);
  return image;
}

static char *
ask_session (IvlSession *session, IvlImage *image)
{
  g_autoptr (GError) error = NULL;
  IvlQuestion question = { .prompt = "What is it?", .images = &image, .n_images = 1,
                           .params = IVL_GENERATE_PARAMS_INIT };
  question.params.max_tokens = 24;
  g_autoptr (IvlAnswer) answer = ivl_session_ask (session, &question, &error);
  g_assert_no_error (error);
  return g_steal_pointer (&answer->text);
}

/* A question that is cancelled while its picture is encoded has read nothing: what is cached is still that of the
 * question before, and must not pass for its own. */
static void
test_cancelled_early (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (IvlSession) fresh = ivl_session_new (f->model, &error), session = ivl_session_new (f->model, &error);
  g_autoptr (IvlImage) other = make_still (f, 0xff), first = make_still (f, 0), second = make_still (f, 0xff);
  g_autofree char *expected = ask_session (fresh, other);
  g_autofree char *before = ask_session (session, first);
  g_assert_cmpstr (before, !=, expected);
  g_assert_true (ivl_session_reset (session, &error));

  Wait wait = { 0 };
  g_mutex_init (&wait.lock);
  g_cond_init (&wait.done);
  IvlImage *image = second;
  IvlQuestion question = { .prompt = "What is it?", .images = &image, .n_images = 1,
                           .params = IVL_GENERATE_PARAMS_INIT };
  g_assert_true (ivl_session_ask_async (session, &question, on_answer, &wait, &error));
  ivl_session_cancel (session);
  g_mutex_lock (&wait.lock);
  while (!wait.answer)
    g_cond_wait (&wait.done, &wait.lock);
  g_mutex_unlock (&wait.lock);
  g_assert_cmpint (wait.answer->finish, ==, IVL_FINISH_CANCELLED);
  ivl_answer_free (wait.answer);
  g_mutex_clear (&wait.lock);
  g_cond_clear (&wait.done);

  g_autofree char *after = ask_session (session, second);
  g_assert_cmpstr (after, ==, expected);
  g_autoptr (IvlSession) another = ivl_session_new (f->model, &error);
  g_autofree char *elsewhere = ask_session (another, second);
  g_assert_cmpstr (elsewhere, ==, expected);
}

/* The one that is followed may still be on its way, and be let go of by its owner. */
static void
test_in_flight (Fixture *f, gconstpointer data)
{
  IvlImage *first = make (f, NULL, 6.f);
  ivl_image_prefetch (first, NULL);
  g_autoptr (IvlImage) second = make (f, first, 6.f);
  ivl_image_prefetch (second, NULL);
  g_autoptr (IvlImage) third = make (f, second, 6.f);
  ivl_image_unref (first);
  g_autofree char *a = ask (f, third), *b = ask (f, second);
  g_assert_cmpstr (a, ==, b);
  IvlModelStats stats;
  ivl_model_get_stats (f->model, &stats);
  g_assert_cmpuint (stats.tiles_encoded + stats.tiles_reused, ==, 3);
  g_assert_cmpuint (stats.tiles_encoded, ==, 1);
}

/* ---- changes ---- */

typedef struct {
  GMutex lock;
  GCond done;
  gboolean is_done;
  IvlImageChange change;
  GError *error;
} Compared;

static void
on_change (IvlImage *image, const IvlImageChange *change, const GError *error, gpointer data)
{
  Compared *compared = data;
  g_mutex_lock (&compared->lock);
  g_assert_true (!change == !!error);
  if (change)
    compared->change = *change;
  else
    compared->error = g_error_copy (error);
  compared->is_done = TRUE;
  g_cond_signal (&compared->done);
  g_mutex_unlock (&compared->lock);
}

static GError *
compare (IvlImage *image, IvlImage *previous, IvlImageChange *change)
{
  Compared compared = { 0 };
  g_mutex_init (&compared.lock);
  g_cond_init (&compared.done);
  ivl_image_compare_async (image, previous, on_change, &compared);
  g_mutex_lock (&compared.lock);
  while (!compared.is_done)
    g_cond_wait (&compared.done, &compared.lock);
  g_mutex_unlock (&compared.lock);
  g_mutex_clear (&compared.lock);
  g_cond_clear (&compared.done);
  *change = compared.change;
  return compared.error;
}

/* What changes is known exactly, nothing is encoded for it, and what was compared answers as it would have otherwise. */
static void
test_change (Fixture *f, gconstpointer data)
{
  IvlImageChange change;
  IvlModelStats stats;
  g_autoptr (IvlImage) plain = make (f, NULL, 0.f);
  g_autofree char *expected = ask (f, plain);
  ivl_model_get_stats (f->model, &stats);
  guint64 before = stats.tiles_encoded;

  g_autoptr (IvlImage) first = make (f, NULL, 0.f), same = make (f, NULL, 0.f);
  g_assert_no_error (compare (first, NULL, &change));
  g_assert_cmpfloat (change.motion, ==, 255.f);
  g_assert_cmpfloat (change.scene, ==, 1.f);
  g_assert_no_error (compare (same, first, &change));
  g_assert_cmpfloat (change.motion, ==, 0.f);
  g_assert_cmpfloat (change.scene, ==, 0.f);
  change_patch (f, 5);
  g_autoptr (IvlImage) moved = make (f, NULL, 0.f);
  g_assert_no_error (compare (moved, same, &change));
  g_assert_cmpfloat (change.motion, ==, 5.f);
  g_assert_cmpfloat (change.scene, >, 0.f);
  g_assert_cmpfloat (change.scene, <, 0.02f);
  for (guint i = 0; i < 3 * f->side * f->side; i++)
    f->rgb[i] ^= 0xff;
  g_autoptr (IvlImage) cut = make (f, NULL, 0.f), still = make_still (f, 0);
  g_assert_no_error (compare (cut, moved, &change));
  g_assert_cmpfloat (change.motion, >, 100.f);
  g_assert_cmpfloat (change.scene, >, 0.5f);
  /* Of another shape, and one that nobody compared. */
  g_assert_no_error (compare (still, cut, &change));
  g_assert_cmpfloat (change.scene, ==, 1.f);
  g_autoptr (IvlImage) last = make (f, NULL, 0.f);
  g_assert_no_error (compare (last, plain, &change));
  g_assert_cmpfloat (change.scene, ==, 1.f);
  ivl_model_get_stats (f->model, &stats);
  g_assert_cmpuint (stats.tiles_encoded, ==, before);

  g_autofree char *answer = ask (f, same);
  g_assert_cmpstr (answer, ==, expected);
  /* Too late. */
  g_autoptr (GError) error = compare (same, first, &change);
  g_assert_error (error, IVL_ERROR, IVL_ERROR_BAD_ARGUMENT);
}

/* A frame that was compared but never asked about can't stand in for another: it is not encoded. One set in its place can. */
static void
test_change_and_reuse (Fixture *f, gconstpointer data)
{
  IvlImageChange change;
  g_autoptr (IvlImage) first = make (f, NULL, 6.f), skipped = make (f, first, 6.f), third = make (f, skipped, 6.f),
                       fourth = make (f, skipped, 6.f);
  g_assert_no_error (compare (first, NULL, &change));
  g_assert_no_error (compare (skipped, first, &change));
  g_assert_no_error (compare (third, skipped, &change));
  g_assert_no_error (compare (fourth, third, &change));
  g_autofree char *a = ask (f, first), *b = ask (f, third);
  g_assert_false (ivl_image_is_reused (third));
  ivl_image_set_previous (fourth, third);
  g_autofree char *c = ask (f, fourth);
  g_assert_true (ivl_image_is_reused (fourth));
  g_assert_cmpstr (a, ==, b);
  g_assert_cmpstr (a, ==, c);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add ("/reuse/threshold", Fixture, NULL, set_up, test_threshold, tear_down);
  g_test_add ("/reuse/off", Fixture, NULL, set_up, test_off, tear_down);
  g_test_add ("/reuse/prefix", Fixture, NULL, set_up, test_prefix, tear_down);
  g_test_add ("/reuse/cancelled-early", Fixture, NULL, set_up, test_cancelled_early, tear_down);
  g_test_add ("/reuse/in-flight", Fixture, NULL, set_up, test_in_flight, tear_down);
  g_test_add ("/reuse/change", Fixture, NULL, set_up, test_change, tear_down);
  g_test_add ("/reuse/change-and-reuse", Fixture, NULL, set_up, test_change_and_reuse, tear_down);
  return g_test_run ();
}
