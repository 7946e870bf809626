#include "boxes.h"

#include "textmeta.h"

#ifdef HAVE_ANALYTICS
#include <gst/analytics/analytics.h>
#endif
#include <math.h>
#include <string.h>

/* Boxes taken from one answer, at most. */
#define MAX_BOXES 256
#define NUMBER "\\s*(-?\\d+(?:\\.\\d+)?)\\s*"

static void
box_clear (gpointer box)
{
  g_free (((GstInternvlBox *) box)->label);
}

/* FALSE if it has no area in the picture. */
static gboolean
read_box (GMatchInfo *numbers, GstInternvlBox *box)
{
  double v[4], sum = 0;

  for (guint i = 0; i < 4; i++) {
    g_autofree char *digits = g_match_info_fetch (numbers, i + 1);
    v[i] = g_ascii_strtod (digits, NULL);
    sum += v[i];
  }
  for (guint i = 0; i < 4; i++)
    v[i] = CLAMP (sum < 4 ? v[i] : v[i] / 1000, 0, 1);
  box->x1 = MIN (v[0], v[2]);
  box->y1 = MIN (v[1], v[3]);
  box->x2 = MAX (v[0], v[2]);
  box->y2 = MAX (v[1], v[3]);
  return box->x1 < box->x2 && box->y1 < box->y2;
}

/* Appends the quadruples in LIST. */
static void
read_boxes (GArray *boxes, const char *list, gsize length, const char *label)
{
  static gsize quadruple = 0;
  g_autoptr (GMatchInfo) numbers = NULL;

  if (g_once_init_enter (&quadruple))
    g_once_init_leave (&quadruple, (gsize) g_regex_new ("\\[" NUMBER "," NUMBER "," NUMBER "," NUMBER "\\]",
            G_REGEX_OPTIMIZE, 0, NULL));
  g_regex_match_full ((GRegex *) quadruple, list, length, 0, 0, &numbers, NULL);
  for (; g_match_info_matches (numbers) && boxes->len < MAX_BOXES; g_match_info_next (numbers, NULL)) {
    GstInternvlBox box;

    if (!read_box (numbers, &box))
      continue;
    box.label = g_strdup (label ? label : "");
    g_array_append_val (boxes, box);
  }
}

GArray *
gst_internvl_boxes_parse (const char *text)
{
  GArray *boxes = g_array_new (FALSE, TRUE, sizeof (GstInternvlBox));
  g_autofree char *label = NULL;

  g_array_set_clear_func (boxes, box_clear);
  /* From tag to tag. Not by a regular expression: a label may be longer than its stack allows. */
  while (*text) {
    if (g_str_has_prefix (text, "<ref>")) {
      const char *begin = text + strlen ("<ref>"), *end = strstr (begin, "</ref>");

      g_clear_pointer (&label, g_free);
      text = begin;
      if (end && !g_strstr_len (begin, end - begin, "<ref>") && !g_strstr_len (begin, end - begin, "<box>")) {
        label = g_strstrip (g_strndup (begin, end - begin));
        text = end + strlen ("</ref>");
      }
    } else if (g_str_has_prefix (text, "<box>")) {
      const char *begin = text + strlen ("<box>"), *end = begin + strcspn (begin, "<");
      gboolean closed = g_str_has_prefix (end, "</box>");

      if (closed || !*end)
        read_boxes (boxes, begin, end - begin, label);
      text = closed ? end + strlen ("</box>") : end;
    } else {
      if (!g_ascii_isspace (*text) && *text != ',')
        g_clear_pointer (&label, g_free);
      text++;
    }
  }
  return boxes;
}

/* At least a pixel, and inside. */
static void
scale (double from, double to, gint start, gint length, gint *at, gint *extent)
{
  gint a = MIN ((gint) lround (from * length), length - 1), b = MAX ((gint) lround (to * length), a + 1);

  *at = start + a;
  *extent = b - a;
}

static GstVideoRectangle
scale_box (const GstInternvlBox *box, const GstVideoRectangle *region)
{
  GstVideoRectangle out;

  scale (box->x1, box->x2, region->x, region->w, &out.x, &out.w);
  scale (box->y1, box->y2, region->y, region->h, &out.y, &out.h);
  return out;
}

void
gst_internvl_boxes_set (GstStructure *structure, const char *text, const GstVideoRectangle *region)
{
  g_autoptr (GArray) boxes = gst_internvl_boxes_parse (text);
  GValue array = G_VALUE_INIT, value = G_VALUE_INIT;

  if (boxes->len == 0)
    return;
  g_value_init (&array, GST_TYPE_ARRAY);
  for (guint i = 0; i < boxes->len; i++) {
    const GstInternvlBox *box = &g_array_index (boxes, GstInternvlBox, i);
    GstVideoRectangle pixels = scale_box (box, region);

    g_value_init (&value, GST_TYPE_STRUCTURE);
    g_value_take_boxed (&value, gst_structure_new ("box",
            "label", G_TYPE_STRING, box->label,
            "x", G_TYPE_INT, pixels.x, "y", G_TYPE_INT, pixels.y,
            "w", G_TYPE_INT, pixels.w, "h", G_TYPE_INT, pixels.h,
            "x-min", G_TYPE_DOUBLE, box->x1, "y-min", G_TYPE_DOUBLE, box->y1,
            "x-max", G_TYPE_DOUBLE, box->x2, "y-max", G_TYPE_DOUBLE, box->y2, NULL));
    gst_value_array_append_and_take_value (&array, &value);
  }
  gst_structure_take_value (structure, "boxes", &array);
}

static void
attach_box (GstBuffer *buffer, const char *label, const GstVideoRectangle *pixels, float confidence)
{
  GstVideoRegionOfInterestMeta *roi = gst_buffer_add_video_region_of_interest_meta (buffer, GST_INTERNVL_META_NAME,
      pixels->x, pixels->y, pixels->w, pixels->h);

  gst_video_region_of_interest_meta_add_param (roi, gst_structure_new (GST_INTERNVL_META_NAME,
          "label", G_TYPE_STRING, label, NULL));
#ifdef HAVE_ANALYTICS
  GstAnalyticsRelationMeta *analytics = gst_buffer_get_analytics_relation_meta (buffer);
  GstAnalyticsODMtd detection;

  if (!analytics)
    analytics = gst_buffer_add_analytics_relation_meta (buffer);
  if (analytics)
    gst_analytics_relation_meta_add_od_mtd (analytics, g_quark_from_static_string (GST_INTERNVL_META_NAME), pixels->x,
        pixels->y, pixels->w, pixels->h, confidence, &detection);
#endif
}

void
gst_internvl_boxes_attach (const GstStructure *structure, GstBuffer *buffer, const GstVideoRectangle *region)
{
  const GValue *boxes = gst_structure_get_value (structure, "boxes");
  double confidence = 0;

  gst_structure_get_double (structure, "confidence", &confidence);
  for (guint i = 0; boxes && i < gst_value_array_get_size (boxes); i++) {
    const GstStructure *fields = gst_value_get_structure (gst_value_array_get_value (boxes, i));
    GstInternvlBox box;

    gst_structure_get (fields, "x-min", G_TYPE_DOUBLE, &box.x1, "y-min", G_TYPE_DOUBLE, &box.y1,
        "x-max", G_TYPE_DOUBLE, &box.x2, "y-max", G_TYPE_DOUBLE, &box.y2, NULL);
    GstVideoRectangle pixels = scale_box (&box, region);
    attach_box (buffer, gst_structure_get_string (fields, "label"), &pixels, confidence);
  }
}
