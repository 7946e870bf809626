/* A driver that gives up, or out of memory, at any moment. The functions of Vulkan that can say so are defined here, in
 * front of the loader's, and do what the test wants. */
#include "ask.h"
#include "vk/command.h"

#include <dlfcn.h>
#include <string.h>

#define NAME "qwen2-ln-orig"

static gint submits_left = -1;     /* atomic; of vkQueueSubmit, before the device is lost; -1: never */
static gint waits_left = -1;       /* of vkWaitForFences */
static gint allocations_left = -1; /* of vkAllocateMemory, before there is no more memory */
static gint lost;                  /* atomic; it has happened */

static void
set_all (gint submits, gint waits, gint allocations)
{
  g_atomic_int_set (&lost, 0);
  g_atomic_int_set (&submits_left, submits);
  g_atomic_int_set (&waits_left, waits);
  g_atomic_int_set (&allocations_left, allocations);
}

/* Counts down to 0; TRUE from then on. */
static gboolean
is_over (gint *left)
{
  for (;;) {
    gint n = g_atomic_int_get (left);
    if (n <= 0)
      return n == 0;
    if (g_atomic_int_compare_and_exchange (left, n, n - 1))
      return FALSE;
  }
}

static gpointer
next_function (const char *name)
{
  gpointer function = dlsym (RTLD_NEXT, name);
  g_assert_nonnull (function);
  return function;
}

VKAPI_ATTR VkResult VKAPI_CALL
vkQueueSubmit (VkQueue queue, uint32_t n, const VkSubmitInfo *infos, VkFence fence)
{
  PFN_vkQueueSubmit next = (PFN_vkQueueSubmit) next_function ("vkQueueSubmit");
  if (is_over (&submits_left))
    g_atomic_int_set (&lost, 1);
  return g_atomic_int_get (&lost) ? VK_ERROR_DEVICE_LOST : next (queue, n, infos, fence);
}

VKAPI_ATTR VkResult VKAPI_CALL
vkWaitForFences (VkDevice device, uint32_t n, const VkFence *fences, VkBool32 all, uint64_t timeout)
{
  PFN_vkWaitForFences next = (PFN_vkWaitForFences) next_function ("vkWaitForFences");
  /* What was submitted is let finish: it uses memory that is freed after a loss. */
  VkResult result = g_atomic_int_get (&lost) ? VK_SUCCESS : next (device, n, fences, all, timeout);
  if (is_over (&waits_left))
    g_atomic_int_set (&lost, 1);
  return g_atomic_int_get (&lost) ? VK_ERROR_DEVICE_LOST : result;
}

VKAPI_ATTR VkResult VKAPI_CALL
vkAllocateMemory (VkDevice device, const VkMemoryAllocateInfo *info, const VkAllocationCallbacks *callbacks,
                  VkDeviceMemory *memory)
{
  PFN_vkAllocateMemory next = (PFN_vkAllocateMemory) next_function ("vkAllocateMemory");
  return is_over (&allocations_left) ? VK_ERROR_OUT_OF_DEVICE_MEMORY : next (device, info, callbacks, memory);
}

/* There is nothing to wait for before the first submission, nor after one that was dropped. */
static void
test_nothing_submitted (void)
{
  g_autoptr (GError) error = NULL;
  set_all (-1, -1, -1);
  g_autoptr (IvlDevice) device = ivl_device_open (NULL, &error);
  g_assert_no_error (error);
  IvlVkStream *stream = ivl_vk_stream_new (device, &error);
  g_assert_no_error (error);
  g_assert_true (ivl_vk_wait (stream, 0, &error));
  g_assert_true (ivl_vk_begin (stream, &error));
  ivl_vk_discard (stream);
  g_assert_true (ivl_vk_wait (stream, 0, &error));
  ivl_vk_stream_free (stream);
}

/* ---- questions side by side ---- */

typedef struct {
  GMutex lock;
  GCond changed;
  guint n_begun, n_done;
} Inbox;

typedef struct {
  Inbox *inbox;
  GoldenQuestion question;
  IvlSession *session;
  gboolean begun;
  IvlAnswer *answer;
  GError *error;
} Stream;

static void
on_text (const char *piece, gpointer data)
{
  Stream *stream = data;
  g_mutex_lock (&stream->inbox->lock);
  stream->inbox->n_begun += !stream->begun;
  stream->begun = TRUE;
  g_cond_broadcast (&stream->inbox->changed);
  g_mutex_unlock (&stream->inbox->lock);
}

static void
on_answer (IvlSession *session, IvlAnswer *answer, const GError *error, gpointer data)
{
  Stream *stream = data;
  g_mutex_lock (&stream->inbox->lock);
  stream->answer = answer;
  stream->error = error ? g_error_copy (error) : NULL;
  stream->inbox->n_done++;
  g_cond_broadcast (&stream->inbox->changed);
  g_mutex_unlock (&stream->inbox->lock);
}

static void
stream_start (Stream *self, Inbox *inbox, IvlModel *model, JsonObject *c)
{
  g_autoptr (GError) error = NULL;
  *self = (Stream){ .inbox = inbox };
  golden_question_init (&self->question, model, c, 0);
  self->question.question.text_func = on_text;
  self->question.question.text_data = self;
  self->session = ivl_session_new (model, &error);
  g_assert_no_error (error);
  ivl_session_ask_async (self->session, &self->question.question, on_answer, self, &error);
  g_assert_no_error (error);
}

static void
stream_end (Stream *self)
{
  g_clear_error (&self->error);
  g_clear_pointer (&self->answer, ivl_answer_free);
  golden_question_clear (&self->question);
  ivl_session_unref (self->session);
}

static void
inbox_wait (Inbox *self, const guint *count, guint n)
{
  g_mutex_lock (&self->lock);
  while (*count < n)
    g_cond_wait (&self->changed, &self->lock);
  g_mutex_unlock (&self->lock);
}

/* All that were being answered end with DEVICE_LOST and so does whoever asks afterwards; a device that is opened anew
 * works beside what is left of the old one. */
static void
test_mid_decode (gconstpointer data)
{
  gboolean in_wait = GPOINTER_TO_INT (data);
  enum { N = 4 };
  g_autoptr (Golden) golden = golden_open (NAME);
  g_autoptr (GError) error = NULL;
  JsonObject *c = golden_case (golden, "text");
  Inbox inbox = { 0 };
  Stream streams[N];
  set_all (-1, -1, -1);
  IvlModel *model = golden_load (golden, NULL);
  for (guint i = 0; i < N; i++)
    stream_start (&streams[i], &inbox, model, c);
  inbox_wait (&inbox, &inbox.n_begun, N);
  g_atomic_int_set (in_wait ? &waits_left : &submits_left, 0);
  inbox_wait (&inbox, &inbox.n_done, N);
  for (guint i = 0; i < N; i++) {
    g_assert_null (streams[i].answer);
    g_assert_error (streams[i].error, IVL_ERROR, IVL_ERROR_DEVICE_LOST);
  }
  g_assert_null (ivl_session_ask (streams[0].session, &streams[0].question.question, &error));
  g_assert_error (error, IVL_ERROR, IVL_ERROR_DEVICE_LOST);

  set_all (-1, -1, -1);
  IvlModel *other = golden_load (golden, NULL);
  golden_ask (other, c);
  ivl_model_unref (other);
  for (guint i = 0; i < N; i++)
    stream_end (&streams[i]);
  ivl_model_unref (model);
}

/* Lost at every moment of loading and of a question about a picture. */
static void
test_any_moment (void)
{
  g_autoptr (Golden) golden = golden_open (NAME);
  JsonObject *c = golden_case (golden, "still");
  guint failed = 0, n = 0;
  for (gboolean ok = FALSE; !ok; n++) {
    g_autoptr (GError) error = NULL;
    set_all (-1, -1, -1);
    g_autoptr (IvlDevice) device = ivl_device_open (NULL, &error);
    g_assert_no_error (error);
    /* Every step near the beginning, then ever larger ones. */
    set_all ((gint) (n < 12 ? n : 12 + (n - 12) * (n - 12)), -1, -1);
    g_autoptr (IvlModel) model = ivl_model_load (device, golden->folder, NULL, NULL, &error);
    if (model) {
      GoldenQuestion q;
      golden_question_init (&q, model, c, 0);
      g_autoptr (IvlSession) session = ivl_session_new (model, &error);
      g_assert_no_error (error);
      g_autoptr (IvlAnswer) answer = ivl_session_ask (session, &q.question, &error);
      ok = answer != NULL;
      if (ok)
        golden_question_check (&q, g_steal_pointer (&answer));
      golden_question_clear (&q);
    }
    if (!ok) {
      g_assert_error (error, IVL_ERROR, IVL_ERROR_DEVICE_LOST);
      failed++;
    }
  }
  g_assert_cmpuint (failed, >, 8);
  set_all (-1, -1, -1);
}

static IvlImage *
make_image (IvlModel *model, GError **error)
{
  guint width, height;
  g_autofree guint8 *rgb = golden_picture ("wide200x150", &width, &height);
  IvlPicture picture;
  ivl_picture_init_rgb (&picture, rgb, width, height, 3 * width);
  return ivl_image_new (model, &picture, 6, error);
}

/* The first allocation that fails is the n-th, for every n, while loading and asking: an error each time, or the right
 * answer where the engine can do without. */
static void
test_no_memory (void)
{
  g_autoptr (Golden) golden = golden_open (NAME);
  JsonObject *c = golden_case (golden, "still");
  guint failed = 0, in_load = 0;
  gboolean all = FALSE;
  for (gint n = 0; !all; n++) {
    g_autoptr (GError) error = NULL;
    set_all (-1, -1, n);
    g_autoptr (IvlDevice) device = ivl_device_open (NULL, &error);
    g_autoptr (IvlModel) model = device ? ivl_model_load (device, golden->folder, NULL, NULL, &error) : NULL;
    gboolean answered = FALSE;
    if (model) {
      GoldenQuestion q = { 0 };
      g_autoptr (IvlImage) image = make_image (model, &error);
      if (image) {
        q.question = (IvlQuestion){ .prompt = "What is it?", .images = (IvlImage *[]){ image }, .n_images = 1,
                                    .params = IVL_GENERATE_PARAMS_INIT };
        q.question.params.max_tokens = 8;
        g_autoptr (IvlSession) session = ivl_session_new (model, &error);
        g_autoptr (IvlAnswer) answer = session ? ivl_session_ask (session, &q.question, &error) : NULL;
        answered = answer != NULL;
      }
    } else {
      in_load++;
    }
    all = g_atomic_int_get (&allocations_left) > 0;
    if (!answered) {
      g_assert_error (error, IVL_ERROR, IVL_ERROR_OUT_OF_MEMORY);
      failed++;
    } else {
      g_assert_no_error (error);
    }
  }
  g_assert_cmpuint (in_load, >, 0);
  g_assert_cmpuint (failed, >, in_load);
  /* With memory again, all is well. */
  set_all (-1, -1, -1);
  g_autoptr (IvlModel) model = golden_load (golden, NULL);
  golden_ask (model, c);
}

/* Eight streams are being answered when memory ends: the ninth's picture is refused, and the eight go on. */
static void
test_ninth_stream (void)
{
  enum { N = 8 };
  g_autoptr (Golden) golden = golden_open (NAME);
  g_autoptr (GError) error = NULL;
  JsonObject *c = golden_case (golden, "still");
  Inbox inbox = { 0 };
  Stream streams[N];
  set_all (-1, -1, -1);
  IvlModel *model = golden_load (golden, NULL);
  for (guint i = 0; i < N; i++)
    stream_start (&streams[i], &inbox, model, c);
  inbox_wait (&inbox, &inbox.n_begun, N);
  g_atomic_int_set (&allocations_left, 0);
  g_assert_null (make_image (model, &error));
  g_assert_error (error, IVL_ERROR, IVL_ERROR_OUT_OF_MEMORY);
  g_assert_nonnull (strstr (error->message, "has no room for"));
  inbox_wait (&inbox, &inbox.n_done, N);
  for (guint i = 0; i < N; i++) {
    g_assert_no_error (streams[i].error);
    golden_question_check (&streams[i].question, g_steal_pointer (&streams[i].answer));
  }
  set_all (-1, -1, -1);
  for (guint i = 0; i < N; i++)
    stream_end (&streams[i]);
  ivl_model_unref (model);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_data_func ("/lost/mid-decode/submit", GINT_TO_POINTER (FALSE), test_mid_decode);
  g_test_add_data_func ("/lost/mid-decode/wait", GINT_TO_POINTER (TRUE), test_mid_decode);
  g_test_add_func ("/lost/nothing-submitted", test_nothing_submitted);
  g_test_add_func ("/lost/any-moment", test_any_moment);
  g_test_add_func ("/lost/no-memory", test_no_memory);
  g_test_add_func ("/lost/ninth-stream", test_ninth_stream);
  return g_test_run ();
}
