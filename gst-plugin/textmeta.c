#include "textmeta.h"

#include <gst/video/video.h>
#include <json-glib/json-glib.h>
#include <string.h>

/* Regions told to the model, at most. */
#define MAX_REGIONS 256

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

static gboolean build_field (GQuark field, const GValue *value, gpointer builder);

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
  } else if (GST_VALUE_HOLDS_STRUCTURE (value)) {
    json_builder_begin_object (builder);
    gst_structure_foreach (gst_value_get_structure (value), build_field, builder);
    json_builder_end_object (builder);
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

static gboolean
copy_field (GQuark field, const GValue *value, gpointer structure)
{
  gst_structure_id_set_value (structure, field, value);
  return TRUE;
}

void
gst_internvl_meta_add (GstBuffer *buffer, const GstStructure *structure)
{
  GstCustomMeta *meta = gst_buffer_add_custom_meta (buffer, GST_INTERNVL_META_NAME);

  if (meta)
    gst_structure_foreach (structure, copy_field, gst_custom_meta_get_structure (meta));
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

  for (guint n = 0; n < MAX_REGIONS && (meta = gst_buffer_iterate_meta_filtered (buffer, &state,
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
