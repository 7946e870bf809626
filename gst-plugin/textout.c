#include "textout.h"

#include <string.h>

/* GRegex is made once per process; the patterns are constants. */
static GRegex *
grounding_regex (void)
{
  static gsize regex = 0;

  if (g_once_init_enter (&regex))
    g_once_init_leave (&regex, (gsize) g_regex_new ("<(box|quad)>(?:.*?</\\1>|[-\\d\\s.,\\[\\]]*$)|</?(?:ref|box|quad)>",
            G_REGEX_DOTALL | G_REGEX_OPTIMIZE, 0, NULL));
  return (GRegex *) regex;
}

char *
gst_internvl_text_for_subtitles (const char *text, GstInternvlTextFormat format)
{
  g_autofree char *valid = g_utf8_make_valid (text, -1);
  g_autofree char *plain = g_regex_replace_literal (grounding_regex (), valid, -1, 0, "", 0, NULL);
  GString *out = g_string_new (NULL);
  gboolean line_begins = TRUE;
  const char *pending = NULL;   /* white space that is dropped at the end of a line */

  for (const char *p = plain ? plain : valid; *p; p = g_utf8_next_char (p)) {
    gunichar c = g_utf8_get_char (p);

    if (c == '\n' || c == '\r' || c == 0x2028 || c == 0x2029 || c == 0x85) {
      if (!line_begins)
        g_string_append_c (out, '\n');
      line_begins = TRUE;
      pending = NULL;
      continue;
    }
    if (g_unichar_isspace (c)) {
      if (!line_begins && !pending)
        pending = p;
      continue;
    }
    if (g_unichar_iscntrl (c))
      continue;
    if (pending) {
      for (; pending < p; pending = g_utf8_next_char (pending))
        g_string_append_unichar (out, g_utf8_get_char (pending) < ' ' ? ' ' : g_utf8_get_char (pending));
      pending = NULL;
    }
    line_begins = FALSE;
    /* "-->" would be a line of times in WebVTT and SubRip. */
    while (c == '>' && g_str_has_suffix (out->str, "--"))
      g_string_truncate (out, out->len - 1);
    if (format == GST_INTERNVL_TEXT_PANGO_MARKUP && c == '&')
      g_string_append (out, "&amp;");
    else if (format == GST_INTERNVL_TEXT_PANGO_MARKUP && c == '<')
      g_string_append (out, "&lt;");
    else if (format == GST_INTERNVL_TEXT_PANGO_MARKUP && c == '>')
      g_string_append (out, "&gt;");
    else
      g_string_append_unichar (out, c);
  }
  if (out->len && out->str[out->len - 1] == '\n')
    g_string_truncate (out, out->len - 1);
  return g_string_free (out, FALSE);
}

static void
append_time (GString *out, GstClockTime time)
{
  g_string_append_printf (out, "%02u:%02u:%02u.%03u", (guint) (time / (GST_SECOND * 3600)),
      (guint) (time / (GST_SECOND * 60) % 60), (guint) (time / GST_SECOND % 60),
      (guint) (time / GST_MSECOND % 1000));
}

/* Words of a model or of other elements. They must not mark the place of a picture. */
static void
append_words (GString *out, const char *text)
{
  static const char mark[] = "<image>";
  const char *at;

  for (; (at = strstr (text, mark)); text = at + strlen (mark)) {
    g_string_append_len (out, text, at - text);
    g_string_append (out, "image");
  }
  g_string_append (out, text);
}

static void
append_detections (GString *out, const GstClockTime *frames, const char *const *detections, guint n_frames)
{
  gboolean any = FALSE;

  for (guint i = 0; i < n_frames; i++) {
    if (!detections[i])
      continue;
    if (any)
      g_string_append (out, "; ");
    append_time (out, frames[i]);
    g_string_append (out, ": ");
    append_words (out, detections[i]);
    any = TRUE;
  }
  if (!any)
    g_string_append (out, "none");
}

char *
gst_internvl_expand_prompt (const char *prompt, GstClockTime start, GstClockTime end,
    const GstClockTime *frames, const char *const *detections, guint n_frames, const char *previous)
{
  GString *out = g_string_new (NULL);
  const char *p = prompt, *brace;

  while ((brace = strchr (p, '{'))) {
    g_string_append_len (out, p, brace - p);
    if (g_str_has_prefix (brace, "{start}")) {
      append_time (out, start);
    } else if (g_str_has_prefix (brace, "{end}")) {
      append_time (out, end);
    } else if (g_str_has_prefix (brace, "{frames}")) {
      for (guint i = 0; i < n_frames; i++) {
        if (i)
          g_string_append (out, ", ");
        append_time (out, frames[i]);
      }
    } else if (g_str_has_prefix (brace, "{detections}")) {
      append_detections (out, frames, detections, n_frames);
    } else if (g_str_has_prefix (brace, "{previous}")) {
      append_words (out, previous ? previous : "");
    } else {
      g_string_append_c (out, '{');
      p = brace + 1;
      continue;
    }
    p = strchr (brace, '}') + 1;
  }
  g_string_append (out, p);
  return g_string_free (out, FALSE);
}

GstInternvlTextFormat
gst_internvl_text_format_of_caps (const GstCaps *caps)
{
  const GstStructure *structure = gst_caps_get_structure (caps, 0);

  if (gst_structure_has_name (structure, "application/x-json"))
    return GST_INTERNVL_TEXT_JSON;
  return g_strcmp0 (gst_structure_get_string (structure, "format"), "pango-markup") == 0 ?
      GST_INTERNVL_TEXT_PANGO_MARKUP : GST_INTERNVL_TEXT_UTF8;
}

GstCaps *
gst_internvl_caps_of_text_format (GstInternvlTextFormat format)
{
  switch (format) {
    case GST_INTERNVL_TEXT_UTF8:
      return gst_caps_from_string ("text/x-raw, format=utf8");
    case GST_INTERNVL_TEXT_PANGO_MARKUP:
      return gst_caps_from_string ("text/x-raw, format=pango-markup");
    case GST_INTERNVL_TEXT_JSON:
      return gst_caps_from_string ("application/x-json");
    default:
      return gst_caps_from_string ("text/x-raw, format={utf8, pango-markup}; application/x-json");
  }
}
