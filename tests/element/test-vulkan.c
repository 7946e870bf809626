/* Frames in Vulkan images, with the real engine: answers as about the same frames in system memory. */
#include "common.h"

/* ball: it moves, and unlike smpte it has no noise that goes on from one pipeline to the next. */
#define N_FRAMES 20

static void
add_answers (GString *all, GPtrArray *results, const char *source)
{
  for (guint i = 0; i < results->len; i++) {
    g_autofree char *line = test_describe_answer (results->pdata[i]);
    if (!source || g_strcmp0 (gst_structure_get_string (results->pdata[i], "prompt"), source) == 0)
      g_string_append_printf (all, "%s\n", line);
  }
}

/* What is said of N_FRAMES of FORMAT that went through ELEMENTS, in PLAYS plays of one pipeline. */
static char *
answers (const char *format, const char *size, const char *before, const char *properties, const char *behind, guint plays)
{
  g_autoptr (GString) all = g_string_new (NULL);
  GstElement *pipeline = test_launch ("videotestsrc pattern=ball num-buffers=%d ! video/x-raw, format=%s, %s, framerate=10/1 ! %s "
      "internvl model-path=%s policy=all max-tokens=12 %s ! %s fakesink", N_FRAMES, format, size, before,
      g_getenv ("INTERNVL_TEST_MODEL"), properties, behind);

  for (guint i = 0; i < plays; i++) {
    g_autoptr (GPtrArray) results = test_structures_new ();
    g_autoptr (GError) error = test_play (pipeline, results);
    g_assert_no_error (error);
    g_assert_cmpuint (results->len, >, 0);
    add_answers (all, results, NULL);
  }
  g_assert_cmpint (GST_OBJECT_REFCOUNT_VALUE (pipeline), ==, 1);
  gst_object_unref (pipeline);
  return g_string_free (g_steal_pointer (&all), FALSE);
}

#define SIZE "width=100, height=64"

/* Of the same in system memory. */
static const char *
expected_rgba (void)
{
  static char *all = NULL;

  if (!all)
    all = answers ("RGBA", SIZE, "", "", "", 1);
  return all;
}

/* By way of somebody who shares the device from behind. */
static void
test_rgba (void)
{
  g_autofree char *got = answers ("RGBA", SIZE, "vulkanupload !", "", "vulkandownload !", 1);

  g_assert_cmpstr (got, ==, expected_rgba ());
}

/* A picture in two images; stopped and played again. */
static void
test_nv12 (void)
{
  g_autofree char *expected = answers ("NV12", SIZE, "", "", "", 2);
  g_autofree char *got = answers ("NV12", SIZE, "vulkanupload !", "", "", 2);

  g_assert_cmpstr (got, ==, expected);
}

/* The model on a device of its own: by way of system memory. */
static void
test_own_device (void)
{
  g_autofree char *got = answers ("RGBA", SIZE, "vulkanupload !", "device=0", "", 1);

  g_assert_cmpstr (got, ==, expected_rgba ());
}

/* The images are left as they were: what is downloaded is what another element sees. */
static void
test_untouched (void)
{
  g_autofree char *before = g_strdup_printf ("vulkanupload ! internvl model-path=%s post-messages=false policy=all "
      "max-tokens=1 ! vulkandownload !", g_getenv ("INTERNVL_TEST_MODEL"));
  g_autofree char *got = answers ("RGBA", SIZE, before, "", "", 1);

  g_assert_cmpstr (got, ==, expected_rgba ());
}

/* Several on one model: the second finds the first one's device and what is loaded there. */
static void
test_shared (void)
{
  g_autoptr (GPtrArray) results = test_structures_new ();
  g_autoptr (GString) one = g_string_new (NULL), other = g_string_new (NULL);
  const char *model = g_getenv ("INTERNVL_TEST_MODEL");
  GstElement *pipeline = test_launch ("videotestsrc pattern=ball num-buffers=%d ! video/x-raw, format=RGBA, " SIZE ", "
      "framerate=10/1 ! vulkanupload ! internvl model-path=%s policy=all max-tokens=12 ! "
      "internvl model-path=%s policy=all max-tokens=12 prompt=b ! fakesink", N_FRAMES, model, model);
  g_autoptr (GError) error = test_play (pipeline, results);

  g_assert_no_error (error);
  gst_object_unref (pipeline);
  add_answers (one, results, "Describe this video.");
  add_answers (other, results, "b");
  g_autofree char *b = answers ("RGBA", SIZE, "", "prompt=b", "", 1);
  g_assert_cmpstr (one->str, ==, expected_rgba ());
  g_assert_cmpstr (other->str, ==, b);
}

int
main (int argc, char **argv)
{
  gst_init (&argc, &argv);
  g_test_init (&argc, &argv, NULL);
  g_autoptr (GstElementFactory) upload = gst_element_factory_find ("vulkanupload");
  if (!upload) {
    g_print ("1..0 # SKIP no vulkanupload here (gstreamer1.0-plugins-bad)\n");
    return 0;
  }
  g_test_add_func ("/vulkan/rgba", test_rgba);
  g_test_add_func ("/vulkan/nv12", test_nv12);
  g_test_add_func ("/vulkan/own-device", test_own_device);
  g_test_add_func ("/vulkan/untouched", test_untouched);
  g_test_add_func ("/vulkan/shared", test_shared);
  return g_test_run ();
}
