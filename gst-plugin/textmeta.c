#include "textmeta.h"

#include <gst/video/video.h>
#include <json-glib/json-glib.h>
#include <stdlib.h>
#include <string.h>

/* Boxes taken from one answer, at most. */
#define MAX_BOXES 256

GstInternvlResult *
gst_internvl_result_new (GstStructure *structure, GstClockTime text_pts, GstClockTime text_duration)
{
  GstInternvlResult *result = g_new0 (GstInternvlResult, 1);

  g_atomic_ref_count_init (&result->refs);
  result->structure = structure;
  result->text_pts = text_pts;
  result->text_duration = text_duration;
  return result;
}

GstInternvlResult *
gst_internvl_result_ref (GstInternvlResult *result)
{
  g_atomic_ref_count_inc (&result->refs);
  return result;
}

void
gst_internvl_result_unref (GstInternvlResult *result)
{
  if (result && g_atomic_ref_count_dec (&result->refs)) {
    gst_structure_free (result->structure);
    g_free (result);
  }
}

static void
build_value (JsonBuilder *builder, const GValue *value)
{
  if (G_VALUE_HOLDS_STRING (value)) {
    json_builder_add_string_value (builder, g_value_get_string (value));
  } else if (G_VALUE_HOLDS_UINT64 (value)) {
    /* JSON numbers are signed here; what doesn't fit is GST_CLOCK_TIME_NONE. */
    if (g_value_get_uint64 (value) > G_MAXINT64)
      json_builder_add_null_value (builder);
    else
      json_builder_add_int_value (builder, g_value_get_uint64 (value));
  } else if (G_VALUE_HOLDS_UINT (value)) {
    json_builder_add_int_value (builder, g_value_get_uint (value));
  } else if (G_VALUE_HOLDS_INT (value)) {
    json_builder_add_int_value (builder, g_value_get_int (value));
  } else if (G_VALUE_HOLDS_DOUBLE (value)) {
    json_builder_add_double_value (builder, g_value_get_double (value));
  } else if (GST_VALUE_HOLDS_ARRAY (value)) {
    json_builder_begin_array (builder);
    for (guint i = 0; i < gst_value_array_get_size (value); i++)
      build_value (builder, gst_value_array_get_value (value, i));
    json_builder_end_array (builder);
  } else {
    json_builder_add_null_value (builder);
  }
}

static gboolean
build_field (GQuark field, const GValue *value, gpointer builder)
{
  json_builder_set_member_name (builder, g_quark_to_string (field));
  build_value (builder, value);
  return TRUE;
}

char *
gst_internvl_structure_to_json (const GstStructure *structure)
{
  g_autoptr (JsonBuilder) builder = json_builder_new ();

  json_builder_begin_object (builder);
  gst_structure_foreach (structure, build_field, builder);
  json_builder_end_object (builder);
  g_autoptr (JsonNode) root = json_builder_get_root (builder);
  return json_to_string (root, FALSE);
}

void
gst_internvl_meta_register (void)
{
  static gsize registered = 0;
  static const char *no_tags[] = { NULL };

  if (g_once_init_enter (&registered)) {
    if (!gst_meta_get_info (GST_INTERNVL_META_NAME))
      gst_meta_register_custom (GST_INTERNVL_META_NAME, no_tags, NULL, NULL, NULL);
    g_once_init_leave (&registered, 1);
  }
}

static void
box_clear (gpointer box)
{
  g_free (((GstInternvlBox *) box)->label);
}

GArray *
gst_internvl_parse_boxes (const char *text)
{
  static gsize grounding = 0, numbers = 0;
  GArray *boxes = g_array_new (FALSE, TRUE, sizeof (GstInternvlBox));
  g_autoptr (GMatchInfo) match = NULL;

  g_array_set_clear_func (boxes, box_clear);
  if (g_once_init_enter (&grounding))
    g_once_init_leave (&grounding, (gsize) g_regex_new ("(?:<ref>([^<]*)</ref>\\s*)?<box>([^<]*)</box>",
            G_REGEX_OPTIMIZE, 0, NULL));
  if (g_once_init_enter (&numbers))
    g_once_init_leave (&numbers, (gsize) g_regex_new ("\\[\\s*(\\d{1,4})\\s*,\\s*(\\d{1,4})\\s*,"
            "\\s*(\\d{1,4})\\s*,\\s*(\\d{1,4})\\s*\\]", G_REGEX_OPTIMIZE, 0, NULL));

  g_regex_match ((GRegex *) grounding, text, 0, &match);
  for (; g_match_info_matches (match); g_match_info_next (match, NULL)) {
    g_autofree char *label = g_match_info_fetch (match, 1), *list = g_match_info_fetch (match, 2);
    g_autoptr (GMatchInfo) inner = NULL;

    g_regex_match ((GRegex *) numbers, list, 0, &inner);
    for (; g_match_info_matches (inner) && boxes->len < MAX_BOXES; g_match_info_next (inner, NULL)) {
      guint v[4];

      for (guint i = 0; i < 4; i++) {
        g_autofree char *digits = g_match_info_fetch (inner, i + 1);
        v[i] = MIN (atoi (digits), 1000);
      }
      GstInternvlBox box = {
        g_strdup (label ? g_strstrip (label) : ""), MIN (v[0], v[2]), MIN (v[1], v[3]), MAX (v[0], v[2]),
        MAX (v[1], v[3])
      };
      g_array_append_val (boxes, box);
    }
  }
  return boxes;
}

static gboolean
copy_field (GQuark field, const GValue *value, gpointer structure)
{
  gst_structure_id_set_value (structure, field, value);
  return TRUE;
}

void
gst_internvl_meta_add (GstBuffer *buffer, const GstStructure *structure, guint width, guint height)
{
  GstCustomMeta *meta = gst_buffer_add_custom_meta (buffer, GST_INTERNVL_META_NAME);
  const char *text = gst_structure_get_string (structure, "text");

  if (meta)
    gst_structure_foreach (structure, copy_field, gst_custom_meta_get_structure (meta));
  if (!text || !strstr (text, "<box>"))
    return;

  g_autoptr (GArray) boxes = gst_internvl_parse_boxes (text);
  for (guint i = 0; i < boxes->len; i++) {
    const GstInternvlBox *box = &g_array_index (boxes, GstInternvlBox, i);
    guint x1 = gst_util_uint64_scale_int_round (box->x1, width, 1000);
    guint y1 = gst_util_uint64_scale_int_round (box->y1, height, 1000);
    guint x2 = gst_util_uint64_scale_int_round (box->x2, width, 1000);
    guint y2 = gst_util_uint64_scale_int_round (box->y2, height, 1000);
    /* The type of a region is a quark, which is never freed: the model's words go into a parameter. */
    GstVideoRegionOfInterestMeta *roi = gst_buffer_add_video_region_of_interest_meta (buffer,
        GST_INTERNVL_META_NAME, x1, y1, x2 - x1, y2 - y1);

    gst_video_region_of_interest_meta_add_param (roi, gst_structure_new (GST_INTERNVL_META_NAME,
            "label", G_TYPE_STRING, box->label, NULL));
  }
}

static guint
per_mille (guint64 value, guint whole)
{
  return MIN (gst_util_uint64_scale_int_round (value, 1000, MAX (whole, 1)), 1000);
}

char *
gst_internvl_describe_regions (GstBuffer *buffer, guint width, guint height)
{
  GString *out = NULL;
  gpointer state = NULL;
  GstMeta *meta;

  for (guint n = 0; n < MAX_BOXES && (meta = gst_buffer_iterate_meta_filtered (buffer, &state,
              GST_VIDEO_REGION_OF_INTEREST_META_API_TYPE)); n++) {
    GstVideoRegionOfInterestMeta *roi = (GstVideoRegionOfInterestMeta *) meta;
    const GstStructure *own = gst_video_region_of_interest_meta_get_param (roi, GST_INTERNVL_META_NAME);
    const char *label = own ? gst_structure_get_string (own, "label") : g_quark_to_string (roi->roi_type);
    g_autofree char *valid = g_utf8_make_valid (label ? label : "", -1);

    if (!out)
      out = g_string_new (NULL);
    g_string_append_printf (out, "%s%s [%u, %u, %u, %u]", out->len ? ", " : "", *valid ? valid : "object",
        per_mille (roi->x, width), per_mille (roi->y, height), per_mille ((guint64) roi->x + roi->w, width),
        per_mille ((guint64) roi->y + roi->h, height));
  }
  return out ? g_string_free (out, FALSE) : NULL;
}
