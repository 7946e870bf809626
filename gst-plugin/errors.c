#include "errors.h"

#include <internvl/internvl.h>

typedef struct
{
  GQuark domain;
  gint code;
  const char *remedy;
} Meaning;

static Meaning
meaning_of (const GError *error)
{
  if (error->domain == IVL_ERROR)
    switch ((IvlErrorCode) error->code) {
      case IVL_ERROR_NO_DEVICE:
        return (Meaning) {GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND,
            "Install a Vulkan driver (mesa-vulkan-drivers has one for every GPU and one for the CPU), or choose one "
            "that is there: `vulkaninfo --summary` lists them, the property device takes part of a name, a number, "
            "cpu or gpu."};
      case IVL_ERROR_DEVICE_LOST:
        return (Meaning) {GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_FAILED,
            "The driver reset the device. Set the element to NULL and start it again."};
      case IVL_ERROR_OUT_OF_MEMORY:
        return (Meaning) {GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NO_SPACE_LEFT,
            "Take a smaller model, fewer frames (chunk-size), fewer tiles (max-tiles) or fewer streams, or another "
            "device."};
      case IVL_ERROR_UNSUPPORTED:
        return (Meaning) {GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_FAILED, "It is not something this version can do."};
      case IVL_ERROR_BAD_MODEL:
        return (Meaning) {GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_OPEN_READ, GST_INTERNVL_HOW_TO_GET_A_MODEL};
      case IVL_ERROR_BAD_ARGUMENT:
        return (Meaning) {GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_SETTINGS, "Check the properties of the element."};
      case IVL_ERROR_CONTEXT_FULL:
        return (Meaning) {GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_SETTINGS,
            "Take fewer frames (chunk-size), fewer tiles (max-tiles), fewer tokens (max-tokens) or a shorter "
            "prompt."};
      case IVL_ERROR_IO:
        return (Meaning) {GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_READ, GST_INTERNVL_HOW_TO_GET_A_MODEL};
      case IVL_ERROR_CANCELLED:
      case IVL_ERROR_INTERNAL:
        break;
    }
  if (error->domain == G_THREAD_ERROR)
    return (Meaning) {GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_FAILED, "End other programs, or raise the limit of processes."};
  if (error->domain == G_FILE_ERROR)
    return (Meaning) {GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND, "Check the path."};
  if (error->domain == GST_RESOURCE_ERROR || error->domain == GST_STREAM_ERROR ||
      error->domain == GST_LIBRARY_ERROR || error->domain == GST_CORE_ERROR)
    return (Meaning) {error->domain, error->code, NULL};
  return (Meaning) {GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_FAILED, "Please report this."};
}

static void
post (GstElement *element, GstMessageType type, const GError *error, char *debug)
{
  Meaning meaning = meaning_of (error);
  char *text = meaning.remedy ? g_strdup_printf ("%s. %s", error->message, meaning.remedy) :
      g_strdup (error->message);

  gst_element_message_full (element, type, meaning.domain, meaning.code, text, debug, __FILE__, G_STRFUNC, __LINE__);
}

void
gst_internvl_post_error (GstElement *element, const GError *error)
{
  post (element, GST_MESSAGE_ERROR, error, g_strdup_printf ("%s, code %d", g_quark_to_string (error->domain),
          error->code));
}

void
gst_internvl_post_warning (GstElement *element, const GError *error, guint suppressed)
{
  post (element, GST_MESSAGE_WARNING, error, g_strdup_printf ("%s, code %d; %u more like it before",
          g_quark_to_string (error->domain), error->code, suppressed));
}
