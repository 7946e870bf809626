#include "enums.h"

#include <internvl/internvl.h>

#define DEFINE_ENUM(Name, function, ...) \
  GType \
  function (void) \
  { \
    static gsize type = 0; \
    static const GEnumValue values[] = { __VA_ARGS__, {0, NULL, NULL} }; \
    if (g_once_init_enter (&type)) \
      g_once_init_leave (&type, g_enum_register_static (Name, values)); \
    return type; \
  }

DEFINE_ENUM ("GstInternvlWeights", gst_internvl_weights_get_type,
    {IVL_WEIGHTS_AUTO, "As the model's files have them (quantised ones of GGUF: f16)", "auto"},
    {IVL_WEIGHTS_F16, "16 bits, half precision", "f16"},
    {IVL_WEIGHTS_BF16, "16 bits, the range of single precision", "bf16"},
    {IVL_WEIGHTS_Q8, "8.5 bits a weight", "q8"},
    {IVL_WEIGHTS_Q4, "4.5 bits a weight in the language model's layers, 8.5 elsewhere", "q4"})

DEFINE_ENUM ("GstInternvlPolicy", gst_internvl_policy_get_type,
    {GST_INTERNVL_POLICY_AUTO, "live for live sources, all for others", "auto"},
    {GST_INTERNVL_POLICY_LIVE, "The newest chunk wins: video is never held back, chunks may be skipped", "live"},
    {GST_INTERNVL_POLICY_ALL, "Every chunk is answered: video waits for the model", "all"})

DEFINE_ENUM ("GstInternvlTextFormat", gst_internvl_text_format_get_type,
    {GST_INTERNVL_TEXT_AUTO, "What the element linked to text_src likes best", "auto"},
    {GST_INTERNVL_TEXT_UTF8, "text/x-raw, format=utf8", "utf8"},
    {GST_INTERNVL_TEXT_PANGO_MARKUP, "text/x-raw, format=pango-markup (escaped)", "pango-markup"},
    {GST_INTERNVL_TEXT_JSON, "application/x-json, one object a chunk", "json"})

DEFINE_ENUM ("GstInternvlSampling", gst_internvl_sampling_get_type,
    {GST_INTERNVL_SAMPLING_UNIFORM, "Evenly over the chunk", "uniform"},
    {GST_INTERNVL_SAMPLING_SCENE, "Some of each scene of the chunk", "scene"},
    {GST_INTERNVL_SAMPLING_MOTION, "Evenly over the chunk, and only if something moves in it", "motion"})

DEFINE_ENUM ("GstInternvlOnError", gst_internvl_on_error_get_type,
    {GST_INTERNVL_ON_ERROR_STOP, "The stream ends with an error", "stop"},
    {GST_INTERNVL_ON_ERROR_PASSTHROUGH, "Video goes on, without the answers; a warning tells the error", "passthrough"})
