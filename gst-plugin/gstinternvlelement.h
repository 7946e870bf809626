/* The element `internvl`: pads, events, queries, states, and where results go. */
#pragma once

#include <gst/gst.h>

G_BEGIN_DECLS

#define GST_TYPE_INTERNVL (gst_internvl_get_type ())
G_DECLARE_FINAL_TYPE (GstInternvl, gst_internvl, GST, INTERNVL, GstElement)

GST_ELEMENT_REGISTER_DECLARE (internvl);

G_END_DECLS
