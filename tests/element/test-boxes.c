/* Grounded boxes: out of a text, into a result, onto a buffer. */
#include "boxes.h"
#include "textmeta.h"

#include <gst/check/gstharness.h>
#include <json-glib/json-glib.h>
#ifdef HAVE_ANALYTICS
#include <gst/analytics/analytics.h>
#endif

static void
assert_parses (const char *text, const GstInternvlBox *expected, guint n)
{
  g_autoptr (GArray) boxes = gst_internvl_boxes_parse (text);

  if (boxes->len != n)
    g_error ("%u boxes instead of %u in %s", boxes->len, n, text);
  for (guint i = 0; i < n; i++) {
    const GstInternvlBox *box = &g_array_index (boxes, GstInternvlBox, i);
    g_assert_cmpstr (box->label, ==, expected[i].label);
    g_assert_cmpfloat_with_epsilon (box->x1, expected[i].x1, 1e-9);
    g_assert_cmpfloat_with_epsilon (box->y1, expected[i].y1, 1e-9);
    g_assert_cmpfloat_with_epsilon (box->x2, expected[i].x2, 1e-9);
    g_assert_cmpfloat_with_epsilon (box->y2, expected[i].y2, 1e-9);
  }
}

#define PARSES(text, ...)                                                                               \
  G_STMT_START {                                                                                        \
    const GstInternvlBox expected[] = { __VA_ARGS__ };                                                  \
    assert_parses (text, expected, G_N_ELEMENTS (expected));                                            \
  } G_STMT_END
#define BOX(label, x1, y1, x2, y2) { (char *) label, x1, y1, x2, y2 }
#define NOTHING(text) assert_parses (text, NULL, 0)

static void
test_parse (void)
{
  PARSES ("<ref> the cat </ref><box>[[10, 20, 500, 1000]]</box>", BOX ("the cat", .01, .02, .5, 1));
  PARSES ("<ref>a</ref><box>[[1,2,3,4],[5, 6, 7, 8]]</box> and <ref>b < c</ref>\n<box>[[9,9,10,10]]</box>",
      BOX ("a", .001, .002, .003, .004), BOX ("a", .005, .006, .007, .008), BOX ("b < c", .009, .009, .01, .01));
  /* One level of brackets, and no label. */
  PARSES ("<box>[0, 0, 1000, 500]</box>", BOX ("", 0, 0, 1, .5));
  /* A label goes for a run of boxes, and no further. */
  PARSES ("<ref>a</ref><box>[[1,2,3,4]]</box>, <box>[[5,6,7,8]]</box> or <box>[[1,1,9,9]]</box>",
      BOX ("a", .001, .002, .003, .004), BOX ("a", .005, .006, .007, .008), BOX ("", .001, .001, .009, .009));
  PARSES ("<ref>a</ref> is at <box>[[1,2,3,4]]</box>", BOX ("", .001, .002, .003, .004));
  /* As the reference's evaluation: parts of 1, not of 1000. */
  PARSES ("<box>[[0.1, 0.2, 0.5, 1]]</box>", BOX ("", .1, .2, .5, 1));
  PARSES ("<box>[[0, 0, 1, 1]]</box>", BOX ("", 0, 0, 1, 1));
  PARSES ("<box>[[250.5, 0, 500, 10]]</box>", BOX ("", .2505, 0, .5, .01));
}

static void
test_parse_hostile (void)
{
  /* Corners in any order, and out of the picture. */
  PARSES ("<box>[[900, 800, 100, 200]]</box>", BOX ("", .1, .2, .9, .8));
  PARSES ("<box>[[-50, 500, 700, 99999999999999999999]]</box>", BOX ("", 0, .5, .7, 1));
  NOTHING ("<box>[[2000, 2000, 3000, 3000]]</box>");
  NOTHING ("<box>[[500, 500, 500, 900]]</box>");
  NOTHING ("<box>[[-4, -3, -2, -1]]</box>");
  /* Not four numbers in brackets. */
  NOTHING ("<box>[[1,2,3]]</box><box>[[1,2,3,4,5]]</box><box>1,2,3,4</box><box>[[a,b,c,d]]</box><box></box>");
  NOTHING ("<box>[[1e3, 0, 2, 3]]</box><box>[[0x10,1,2,3]]</box><box>[[1 2 3 4]]</box>");
  NOTHING ("[[1,2,3,4]] <ref>cat</ref> <quad>[[1,2,3,4]]</quad>");
  NOTHING ("");
  /* Cut off by max-tokens: what is whole counts. */
  PARSES ("<ref>a</ref><box>[[1,2,3,4],[5,6", BOX ("a", .001, .002, .003, .004));
  NOTHING ("<ref>a</ref><box>[[1,2,3,4");
  NOTHING ("<ref>a</ref><box>[[1,2,3,4</box>");
  NOTHING ("<ref>a</ref><box>");
  NOTHING ("<ref>a");
  /* Tags in the wrong order. */
  PARSES ("</box><ref>x<ref>a</ref><box>[[1,2,3,4]]</box></ref>", BOX ("a", .001, .002, .003, .004));
  PARSES ("<box>[[1,2,3,4]]<box>[[5,6,7,8]]</box>", BOX ("", .005, .006, .007, .008));

  g_autoptr (GString) many = g_string_new ("<ref>");
  for (guint i = 0; i < 100000; i++)
    g_string_append (many, "x");
  g_string_append (many, "</ref><box>[");
  for (guint i = 0; i < 5000; i++)
    g_string_append (many, "[1,2,3,4],");
  g_autoptr (GArray) boxes = gst_internvl_boxes_parse (many->str);
  g_assert_cmpuint (boxes->len, ==, 256);

  const char *pieces[] = { "<ref>", "</ref>", "<box>", "</box>", "[", "]", "[[1,2,3,4]]", "9", ",", "-", ".", " ", "a" };
  for (guint round = 0; round < 5000; round++) {
    g_autoptr (GString) text = g_string_new (NULL);
    for (guint i = 0; i < 30; i++)
      g_string_append (text, pieces[g_test_rand_int_range (0, G_N_ELEMENTS (pieces))]);
    g_autoptr (GArray) found = gst_internvl_boxes_parse (text->str);
    for (guint i = 0; i < found->len; i++) {
      const GstInternvlBox *box = &g_array_index (found, GstInternvlBox, i);
      g_assert_true (box->label && 0 <= box->x1 && box->x1 < box->x2 && box->x2 <= 1 && 0 <= box->y1 &&
          box->y1 < box->y2 && box->y2 <= 1);
    }
  }
}

static GstStructure *
result (const char *text, GstVideoRectangle region)
{
  GstStructure *structure = gst_structure_new ("internvl", "text", G_TYPE_STRING, text, "confidence", G_TYPE_DOUBLE,
      0.25, NULL);

  gst_internvl_boxes_set (structure, text, &region);
  return structure;
}

static void
test_result (void)
{
  g_autoptr (GstStructure) structure = result ("<ref>\"it\"</ref><box>[[100,250,600,750]]</box>",
      (GstVideoRectangle) { 0, 0, 640, 480 });
  g_autofree char *json = gst_internvl_structure_to_json (structure);
  g_autoptr (JsonParser) parser = json_parser_new ();

  g_assert_true (json_parser_load_from_data (parser, json, -1, NULL));
  JsonArray *boxes = json_object_get_array_member (json_node_get_object (json_parser_get_root (parser)), "boxes");
  g_assert_cmpuint (json_array_get_length (boxes), ==, 1);
  JsonObject *box = json_array_get_object_element (boxes, 0);
  g_assert_cmpstr (json_object_get_string_member (box, "label"), ==, "\"it\"");
  g_assert_cmpint (json_object_get_int_member (box, "x"), ==, 64);
  g_assert_cmpint (json_object_get_int_member (box, "y"), ==, 120);
  g_assert_cmpint (json_object_get_int_member (box, "w"), ==, 320);
  g_assert_cmpint (json_object_get_int_member (box, "h"), ==, 240);
  g_assert_cmpfloat (json_object_get_double_member (box, "x-min"), ==, .1);
  g_assert_cmpfloat (json_object_get_double_member (box, "y-min"), ==, .25);
  g_assert_cmpfloat (json_object_get_double_member (box, "x-max"), ==, .6);
  g_assert_cmpfloat (json_object_get_double_member (box, "y-max"), ==, .75);

  g_autoptr (GstStructure) none = result ("no <box>s", (GstVideoRectangle) { 0, 0, 640, 480 });
  g_assert_false (gst_structure_has_field (none, "boxes"));
}

static void
assert_region (GstBuffer *buffer, guint i, guint x, guint y, guint w, guint h, const char *label)
{
  gpointer state = NULL;
  GstMeta *meta = NULL;

  for (guint n = 0; n <= i; n++)
    meta = gst_buffer_iterate_meta_filtered (buffer, &state, GST_VIDEO_REGION_OF_INTEREST_META_API_TYPE);
  GstVideoRegionOfInterestMeta *roi = (GstVideoRegionOfInterestMeta *) meta;
  g_assert_nonnull (roi);
  g_assert_cmpstr (g_quark_to_string (roi->roi_type), ==, "internvl");
  guint found[] = { roi->x, roi->y, roi->w, roi->h }, expected[] = { x, y, w, h };
  g_assert_cmpmem (found, sizeof found, expected, sizeof expected);
  GstStructure *param = gst_video_region_of_interest_meta_get_param (roi, "internvl");
  g_assert_cmpstr (gst_structure_get_string (param, "label"), ==, label);
#ifdef HAVE_ANALYTICS
  GstAnalyticsRelationMeta *analytics = gst_buffer_get_analytics_relation_meta (buffer);
  GstAnalyticsODMtd detection;
  gpointer iterator = NULL;
  gint place[4];
  gfloat confidence;

  g_assert_nonnull (analytics);
  for (guint n = 0; n <= i; n++)
    g_assert_true (gst_analytics_relation_meta_iterate (analytics, &iterator, gst_analytics_od_mtd_get_mtd_type (),
            &detection));
  g_assert_cmpstr (g_quark_to_string (gst_analytics_od_mtd_get_obj_type (&detection)), ==, "internvl");
  g_assert_true (gst_analytics_od_mtd_get_location (&detection, &place[0], &place[1], &place[2], &place[3],
          &confidence));
  g_assert_cmpmem (place, sizeof place, expected, sizeof expected);
  g_assert_cmpfloat (confidence, ==, 0.25);
#endif
}

static void
test_buffer (void)
{
  const char *word = "a word that is nowhere else: zvijezda";
  g_autofree char *text = g_strdup_printf ("<ref>%s</ref><box>[[100,250,600,750],[0,0,1000,1000]]</box>"
      "<ref>dot</ref><box>[[999,999,1000,1000]]</box>", word);
  g_autoptr (GstStructure) structure = result (text, (GstVideoRectangle) { 0, 0, 640, 480 });
  GstBuffer *buffer = gst_buffer_new ();

  /* Of another size than the frame that the model saw, and cropped. */
  gst_internvl_boxes_attach (structure, buffer, &(GstVideoRectangle) { 10, 20, 320, 240 });
  GstBuffer *copy = gst_buffer_copy (buffer);
  gst_buffer_unref (buffer);
  assert_region (copy, 0, 10 + 32, 20 + 60, 160, 120, word);
  assert_region (copy, 1, 10, 20, 320, 240, word);
  assert_region (copy, 2, 10 + 319, 20 + 239, 1, 1, "dot");
  g_assert_cmpuint (g_quark_try_string (word), ==, 0);
  gst_buffer_unref (copy);

  /* One pixel. */
  buffer = gst_buffer_new ();
  gst_internvl_boxes_attach (structure, buffer, &(GstVideoRectangle) { 0, 0, 1, 1 });
  for (guint i = 0; i < 3; i++)
    assert_region (buffer, i, 0, 0, 1, 1, i < 2 ? word : "dot");
  gst_buffer_unref (buffer);
}

#ifdef HAVE_ANALYTICS
/* What another element found stays. */
static void
test_with_others (void)
{
  g_autoptr (GstStructure) structure = result ("<box>[[0,0,500,500]]</box>", (GstVideoRectangle) { 0, 0, 64, 64 });
  GstBuffer *buffer = gst_buffer_new ();
  GstAnalyticsRelationMeta *analytics = gst_buffer_add_analytics_relation_meta (buffer);
  GstAnalyticsODMtd theirs;

  gst_analytics_relation_meta_add_od_mtd (analytics, g_quark_from_static_string ("car"), 1, 2, 3, 4, 1, &theirs);
  gst_internvl_boxes_attach (structure, buffer, &(GstVideoRectangle) { 0, 0, 64, 64 });
  g_assert_true (gst_buffer_get_analytics_relation_meta (buffer) == analytics);
  g_assert_cmpuint (gst_analytics_relation_get_length (analytics), ==, 2);
  gst_buffer_unref (buffer);
}
#endif

static gboolean
is_black (const guint8 *rgba, guint x, guint y)
{
  const guint8 *pixel = rgba + 4 * (y * 320 + x);
  return pixel[0] < 32 && pixel[1] < 32 && pixel[2] < 32;
}

/* By an element of GStreamer's own, where the boxes are. */
static void
test_drawn (void)
{
  g_autoptr (GstElementFactory) factory = gst_element_factory_find ("objectdetectionoverlay");

  if (!factory) {
    g_test_skip ("objectdetectionoverlay is not installed (GStreamer 1.24 has it)");
    return;
  }
  g_autoptr (GstStructure) structure = result ("<ref>it</ref><box>[[250,500,750,900]]</box>",
      (GstVideoRectangle) { 0, 0, 320, 240 });
  GstHarness *harness = gst_harness_new ("objectdetectionoverlay");
  GstBuffer *buffer = gst_buffer_new_allocate (NULL, 320 * 240 * 4, NULL);

  gst_harness_set_src_caps_str (harness, "video/x-raw,format=RGBA,width=320,height=240,framerate=1/1");
  gst_buffer_memset (buffer, 0, 0, 320 * 240 * 4);
  GST_BUFFER_PTS (buffer) = 0;
  gst_internvl_boxes_attach (structure, buffer, &(GstVideoRectangle) { 0, 0, 320, 240 });
  buffer = gst_harness_push_and_pull (harness, buffer);
  g_assert_nonnull (buffer);
  GstMapInfo map;
  g_assert_true (gst_buffer_map (buffer, &map, GST_MAP_READ));
  /* x1 80, y1 120, x2 240, y2 216; a line may be a pixel beside. */
  guint left = 0, right = 0;
  for (guint y = 130; y < 206; y++) {
    left += !is_black (map.data, 79, y) || !is_black (map.data, 80, y) || !is_black (map.data, 81, y);
    right += !is_black (map.data, 239, y) || !is_black (map.data, 240, y) || !is_black (map.data, 241, y);
  }
  g_assert_cmpuint (left, ==, 76);
  g_assert_cmpuint (right, ==, 76);
  g_assert_true (is_black (map.data, 160, 168) && is_black (map.data, 40, 168) && is_black (map.data, 300, 60));
  gst_buffer_unmap (buffer, &map);
  gst_buffer_unref (buffer);
  gst_harness_teardown (harness);
}

int
main (int argc, char **argv)
{
  gst_init (&argc, &argv);
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/boxes/parse", test_parse);
  g_test_add_func ("/boxes/parse-hostile", test_parse_hostile);
  g_test_add_func ("/boxes/result", test_result);
  g_test_add_func ("/boxes/buffer", test_buffer);
  g_test_add_func ("/boxes/drawn", test_drawn);
#ifdef HAVE_ANALYTICS
  g_test_add_func ("/boxes/with-others", test_with_others);
#endif
  return g_test_run ();
}
