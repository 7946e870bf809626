/* Which frames of a chunk are taken when there were cuts. */
#include "scenes.h"

#include <string.h>

/* LAYOUT: a character a frame; another character than the one before is another scene. */
static void
expect (const char *layout, guint wanted, const char *expected)
{
  guint n = strlen (layout);
  g_autofree gboolean *cuts = g_new (gboolean, n + 1);
  g_autofree guint *chosen = g_new (guint, wanted);
  g_autoptr (GString) out = g_string_new (NULL);

  for (guint i = 0; i < n; i++)
    cuts[i] = i == 0 || layout[i] != layout[i - 1];
  guint taken = gst_internvl_choose_frames (cuts, n, wanted, chosen);
  g_assert_cmpuint (taken, ==, MIN (n, wanted));
  for (guint i = 0; i < taken; i++)
    g_string_append_printf (out, "%s%u", i ? " " : "", chosen[i]);
  g_assert_cmpstr (out->str, ==, expected);
}

static void
test_choose (void)
{
  /* No more than are wanted. */
  expect ("aabb", 4, "0 1 2 3");
  expect ("", 3, "");
  /* One scene: evenly. */
  expect ("aaaaaaaaaaaa", 3, "2 6 10");
  expect ("aaaa", 1, "2");
  /* Each scene, however short, and long ones more. */
  expect ("aaaaaaaabaaa", 4, "2 6 8 10");
  expect ("aaaaaaaaaaab", 2, "5 11");
  /* More scenes than are wanted: the longest. */
  expect ("aabbbcdddd", 2, "3 8");
  expect ("abcdefgh", 3, "0 1 2");
}

static void
test_random (void)
{
  for (guint round = 0; round < 2000; round++) {
    guint n = g_test_rand_int_range (0, 60), wanted = g_test_rand_int_range (1, 20);
    gboolean cuts[60];
    guint chosen[20];

    for (guint i = 0; i < n; i++)
      cuts[i] = g_test_rand_int_range (0, 5) == 0;
    guint taken = gst_internvl_choose_frames (cuts, n, wanted, chosen);
    g_assert_cmpuint (taken, ==, MIN (n, wanted));
    for (guint i = 0; i < taken; i++) {
      g_assert_cmpuint (chosen[i], <, n);
      g_assert_true (i == 0 || chosen[i] > chosen[i - 1]);
    }
  }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/scenes/choose", test_choose);
  g_test_add_func ("/scenes/random", test_random);
  return g_test_run ();
}
