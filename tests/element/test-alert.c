/* When an alert is raised and when it ends. */
#include "alert.h"

static void
test_matches (void)
{
  static const struct
  {
    const char *text, *words;
    gboolean matches;
  } cases[] = {
    {"yes", "yes", TRUE}, {"Yes.", "yes", TRUE}, {"YES, a cat", "Yes", TRUE}, {" \n\"Yes\"", "yes", TRUE},
    {"yesterday", "yes", FALSE}, {"no, yes", "yes", FALSE}, {"", "yes", FALSE}, {"ye", "yes", FALSE},
    {"a red car stops", "A red", TRUE}, {"a reddish car", "a red", FALSE}, {"\xc3\x9c" "ber", "\xc3\xbc" "ber", TRUE},
    {"<ref>cat</ref>", "<ref>", TRUE}, {"100%", "100%", TRUE}, {"yes", "", FALSE},
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    if (gst_internvl_alert_matches (cases[i].text, cases[i].words) != cases[i].matches)
      g_error ("\"%s\" for \"%s\"", cases[i].text, cases[i].words);
}

static void
test_edges (void)
{
  static const struct
  {
    gboolean matched;
    guint start;
    GstInternvlAlertEdge edge;
  } answers[] = {
    {FALSE, 0, GST_INTERNVL_ALERT_NONE}, {TRUE, 1, GST_INTERNVL_ALERT_RAISED}, {FALSE, 2, GST_INTERNVL_ALERT_NONE},
    {TRUE, 3, GST_INTERNVL_ALERT_NONE}, {FALSE, 4, GST_INTERNVL_ALERT_NONE}, {FALSE, 6, GST_INTERNVL_ALERT_CLEARED},
    {FALSE, 7, GST_INTERNVL_ALERT_NONE}, {TRUE, 8, GST_INTERNVL_ALERT_RAISED},
    /* A seek: running time begins anew. */
    {FALSE, 0, GST_INTERNVL_ALERT_NONE}, {FALSE, 2, GST_INTERNVL_ALERT_CLEARED},
  };
  GstInternvlAlert alert = { 0 };

  for (guint i = 0; i < G_N_ELEMENTS (answers); i++)
    g_assert_cmpint (gst_internvl_alert_update (&alert, answers[i].matched, answers[i].start, answers[i].start + 1, 3),
        ==, answers[i].edge);
  /* Without a hold, the first other answer. */
  g_assert_cmpint (gst_internvl_alert_update (&alert, TRUE, 5, 6, 0), ==, GST_INTERNVL_ALERT_RAISED);
  g_assert_cmpuint (alert.since, ==, 5);
  g_assert_cmpint (gst_internvl_alert_update (&alert, FALSE, 6, 7, 0), ==, GST_INTERNVL_ALERT_CLEARED);
}

int
main (int argc, char **argv)
{
  gst_init (&argc, &argv);
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/alert/matches", test_matches);
  g_test_add_func ("/alert/edges", test_edges);
  return g_test_run ();
}
