/* The element's enumerations as GTypes. */
#pragma once

#include <gst/gst.h>

G_BEGIN_DECLS

typedef enum {
  GST_INTERNVL_POLICY_AUTO,
  GST_INTERNVL_POLICY_LIVE,
  GST_INTERNVL_POLICY_ALL,
} GstInternvlPolicy;

/* In the order of preference where downstream has none. */
typedef enum {
  GST_INTERNVL_TEXT_AUTO,
  GST_INTERNVL_TEXT_UTF8,
  GST_INTERNVL_TEXT_PANGO_MARKUP,
  GST_INTERNVL_TEXT_JSON,
} GstInternvlTextFormat;

typedef enum {
  GST_INTERNVL_SAMPLING_UNIFORM,
  GST_INTERNVL_SAMPLING_SCENE,
  GST_INTERNVL_SAMPLING_MOTION,
} GstInternvlSampling;

typedef enum {
  GST_INTERNVL_ON_ERROR_STOP,
  GST_INTERNVL_ON_ERROR_PASSTHROUGH,
} GstInternvlOnError;

/* Values of IvlWeights. */
GType gst_internvl_weights_get_type (void);
GType gst_internvl_policy_get_type (void);
GType gst_internvl_text_format_get_type (void);
GType gst_internvl_sampling_get_type (void);
GType gst_internvl_on_error_get_type (void);

G_END_DECLS
