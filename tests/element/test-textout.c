/* What becomes of an answer's text. */
#include "textmeta.h"
#include "textout.h"

#include <json-glib/json-glib.h>

static void
test_subtitles (void)
{
  static const struct
  {
    const char *text, *utf8, *markup;
  } cases[] = {
    {"A cat.", "A cat.", "A cat."},
    {"", "", ""},
    {" \n\n one\r\n\r\n\t\n two  \n\n\n", "one\ntwo", "one\ntwo"},
    {"a\n \nb\n\xe2\x80\xa8\nc\rd", "a\nb\nc\nd", "a\nb\nc\nd"},
    {"1 < 2 & 3 > 2 \"it's\"", "1 < 2 & 3 > 2 \"it's\"", "1 &lt; 2 &amp; 3 &gt; 2 \"it's\""},
    {"a --> b", "a -> b", "a -&gt; b"},
    {"a\tb\x01" "c\x7f", "a bc", "a bc"},
    {"bad \xff utf8", "bad \xef\xbf\xbd utf8", "bad \xef\xbf\xbd utf8"},
    {"<ref>cat</ref><box>[[1,2,3,4]]</box> sits", "cat sits", "cat sits"},
    /* Cut off, and nested wrongly. */
    {"<ref>cat</ref><box>[[1, 2, 3.5, -4], [5", "cat", "cat"},
    {"<ref>a <box>b</ref> c", "a b c", "a b c"},
    {"\xe7\x8c\xab\xe3\x80\x82 \xf0\x9f\x90\xb1", "\xe7\x8c\xab\xe3\x80\x82 \xf0\x9f\x90\xb1",
        "\xe7\x8c\xab\xe3\x80\x82 \xf0\x9f\x90\xb1"},
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *utf8 = gst_internvl_text_for_subtitles (cases[i].text, GST_INTERNVL_TEXT_UTF8);
    g_autofree char *markup = gst_internvl_text_for_subtitles (cases[i].text, GST_INTERNVL_TEXT_PANGO_MARKUP);

    g_assert_cmpstr (utf8, ==, cases[i].utf8);
    g_assert_cmpstr (markup, ==, cases[i].markup);
  }
}

static void
test_subtitles_random (void)
{
  const char *pieces[] = { "\n", "\r", " ", "-", ">", "<", "&", "a", "\t", "\xc2\x85", "\xff", "<box>", "</box>" };

  for (guint round = 0; round < 2000; round++) {
    g_autoptr (GString) text = g_string_new (NULL);
    for (guint i = 0; i < 30; i++)
      g_string_append (text, pieces[g_test_rand_int_range (0, G_N_ELEMENTS (pieces))]);
    g_autofree char *out = gst_internvl_text_for_subtitles (text->str, GST_INTERNVL_TEXT_UTF8);

    g_assert_true (g_utf8_validate (out, -1, NULL));
    g_assert_null (strstr (out, "\n\n"));
    g_assert_null (strstr (out, "-->"));
    g_assert_false (g_str_has_prefix (out, "\n") || g_str_has_suffix (out, "\n"));
  }
}

static void
test_prompt (void)
{
  const GstClockTime frames[] = { 500 * GST_MSECOND, 3661 * GST_SECOND + 7 * GST_MSECOND };
  static const struct
  {
    const char *prompt, *expected;
  } cases[] = {
    {"What?", "What?"},
    {"{start} to {end}", "00:00:00.000 to 00:00:04.250"},
    {"at {frames}.", "at 00:00:00.500, 01:01:01.007."},
    {"before: {previous}", "before: a {start}"},
    {"{\"a\": {start}} {unknown} {", "{\"a\": 00:00:00.000} {unknown} {"},
    {"{{end}}", "{00:00:04.250}"},
    {"[{detections}]", "[01:01:01.007: car [0, 0, 500, 1000]]"},
    {"", ""},
  };
  const char *detections[] = { NULL, "car [0, 0, 500, 1000]" };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *out = gst_internvl_expand_prompt (cases[i].prompt, 0, 4250 * GST_MSECOND, frames, detections, 2,
        "a {start}");
    g_assert_cmpstr (out, ==, cases[i].expected);
  }
  g_autofree char *first = gst_internvl_expand_prompt ("[{previous}] {detections}", 0, 0, NULL, NULL, 0, NULL);
  g_assert_cmpstr (first, ==, "[] none");
  /* The prompt may mark the places of pictures, what is put into it may not. */
  const char *marks[] = { "<image> [1, 2, 3, 4]", NULL };
  g_autofree char *marked = gst_internvl_expand_prompt ("<image>: {previous} {detections}", 0, 0, frames, marks, 1,
      "an <image><image>");
  g_assert_cmpstr (marked, ==, "<image>: an imageimage 00:00:00.500: image [1, 2, 3, 4]");
}

static GstStructure *
example (const char *text)
{
  GValue frames = G_VALUE_INIT, value = G_VALUE_INIT;
  GstStructure *structure = gst_structure_new ("internvl", "text", G_TYPE_STRING, text,
      "timestamp", G_TYPE_UINT64, (guint64) 5, "running-time", G_TYPE_UINT64, GST_CLOCK_TIME_NONE,
      "prompt-tokens", G_TYPE_UINT, 7, "confidence", G_TYPE_DOUBLE, 0.25, "stream-id", G_TYPE_STRING, NULL, NULL);

  g_value_init (&frames, GST_TYPE_ARRAY);
  for (guint64 i = 0; i < 2; i++) {
    g_value_init (&value, G_TYPE_UINT64);
    g_value_set_uint64 (&value, i * 1000);
    gst_value_array_append_and_take_value (&frames, &value);
  }
  gst_structure_take_value (structure, "frames", &frames);
  return structure;
}

static void
test_json (void)
{
  GstStructure *structure = example ("a \"quote\"\n\\ and \xe7\x8c\xab");
  g_autofree char *json = gst_internvl_structure_to_json (structure);
  g_autoptr (JsonParser) parser = json_parser_new ();
  g_autoptr (GError) error = NULL;

  g_assert_null (strchr (json, '\n'));
  g_assert_true (json_parser_load_from_data (parser, json, -1, &error));
  g_assert_no_error (error);
  JsonObject *object = json_node_get_object (json_parser_get_root (parser));
  g_assert_cmpstr (json_object_get_string_member (object, "text"), ==, "a \"quote\"\n\\ and \xe7\x8c\xab");
  g_assert_cmpint (json_object_get_int_member (object, "timestamp"), ==, 5);
  g_assert_true (json_object_get_null_member (object, "running-time"));
  g_assert_cmpfloat (json_object_get_double_member (object, "confidence"), ==, 0.25);
  JsonArray *frames = json_object_get_array_member (object, "frames");
  g_assert_cmpuint (json_array_get_length (frames), ==, 2);
  g_assert_cmpint (json_array_get_int_element (frames, 1), ==, 1000);
  gst_structure_free (structure);
}

static void
test_meta (void)
{
  GstStructure *structure = example ("A cat.");
  GstBuffer *buffer = gst_buffer_new ();

  gst_internvl_meta_register ();
  gst_internvl_meta_register ();
  gst_internvl_meta_add (buffer, structure);
  GstBuffer *copy = gst_buffer_copy (buffer);
  GstCustomMeta *meta = gst_buffer_get_custom_meta (copy, "internvl");
  g_assert_nonnull (meta);
  g_assert_true (gst_structure_is_equal (gst_custom_meta_get_structure (meta), structure));
  gst_buffer_unref (copy);
  gst_buffer_unref (buffer);
  gst_structure_free (structure);
}

static void
test_caps (void)
{
  for (guint i = 0; i <= GST_INTERNVL_TEXT_JSON; i++) {
    g_autoptr (GstCaps) caps = gst_internvl_caps_of_text_format (i);
    g_assert_cmpint (gst_internvl_text_format_of_caps (caps), ==, i ? i : GST_INTERNVL_TEXT_UTF8);
  }
}

int
main (int argc, char **argv)
{
  gst_init (&argc, &argv);
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/textout/subtitles", test_subtitles);
  g_test_add_func ("/textout/subtitles-random", test_subtitles_random);
  g_test_add_func ("/textout/prompt", test_prompt);
  g_test_add_func ("/textout/caps", test_caps);
  g_test_add_func ("/textmeta/json", test_json);
  g_test_add_func ("/textmeta/meta", test_meta);
  return g_test_run ();
}
