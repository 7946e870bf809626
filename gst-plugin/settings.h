/* The element's properties: their values, their description, and what is wrong with them. */
#pragma once

#include "enums.h"
#include "framesampler.h"

#include <internvl/internvl.h>

G_BEGIN_DECLS

/* Properties whose values can be wrong in ways that a GParamSpec doesn't know. */
typedef enum {
  GST_INTERNVL_CHECKED_PROMPT,
  GST_INTERNVL_CHECKED_PROMPT_PATH,
  GST_INTERNVL_CHECKED_SYSTEM_PROMPT,
  GST_INTERNVL_CHECKED_CHOICES,
  GST_INTERNVL_CHECKED_JSON_SCHEMA,
  GST_INTERNVL_CHECKED_ALERT_ON,
  GST_INTERNVL_N_CHECKED,
} GstInternvlChecked;

typedef struct {
  char *model_path, *device;    /* NULL: from the environment */
  gboolean share;
  IvlWeights weights;
  char *prompt, *prompt_path, *system_prompt;
  char *prompt_from_path;       /* content of prompt_path, NULL if there is none */
  GstInternvlSampling sampling;
  GstInternvlSamplerConfig chunks;
  guint max_tiles;
  float reuse_threshold, motion_threshold, scene_threshold;
  IvlGenerateParams generate;
  GPtrArray *choices;           /* of char, NULL-terminated, immutable; NULL: none */
  char *json_schema;
  GstInternvlPolicy policy;
  gint priority;
  GstClockTime max_latency;     /* 0: any */
  GstInternvlOnError on_error;
  GstInternvlTextFormat text_format;
  gboolean post_messages, tokens;
  char *alert_on;
  GstClockTime alert_hold;
  /* Of the last value that was set, if that can't be used; the one before stays in force. */
  GError *errors[GST_INTERNVL_N_CHECKED];
} GstInternvlSettings;

enum {
  GST_INTERNVL_PROP_STATS = 1,  /* the element's own */
  GST_INTERNVL_PROP_FIRST_SETTING,
};

void gst_internvl_settings_init (GstInternvlSettings *settings);
void gst_internvl_settings_clear (GstInternvlSettings *settings);
/* TO is initialised, and cleared first. */
void gst_internvl_settings_copy (GstInternvlSettings *to, const GstInternvlSettings *from);

void gst_internvl_settings_install (GObjectClass *klass);
/* FALSE: no such property. With the lock that guards SETTINGS. */
gboolean gst_internvl_settings_set (GstInternvlSettings *settings, guint id, const GValue *value);
gboolean gst_internvl_settings_get (const GstInternvlSettings *settings, guint id, GValue *value);
/* What is wrong, once; g_error_free, NULL if nothing is. */
GError *gst_internvl_settings_take_error (GstInternvlSettings *settings);

/* Folder of the model: the property, else $INTERNVL_MODEL; g_free, NULL if there is neither. */
char *gst_internvl_settings_get_model_path (const GstInternvlSettings *settings);
/* The prompt in force, borrowed. */
const char *gst_internvl_settings_get_prompt (const GstInternvlSettings *settings);
/* Whether the element could start with these: looks for files, doesn't read the model. */
gboolean gst_internvl_settings_check (GstInternvlSettings *settings, GError **error);
/* A time that looks as if it were meant in another unit, as the text of a warning; g_free, NULL if none does. */
char *gst_internvl_settings_find_odd_time (const GstInternvlSettings *settings);

G_END_DECLS
