/* The text pad: a source pad with a queue and a task of its own, so that whoever is slow behind it holds up neither
 * video nor the model. Decides on its caps when the first event that needs them is due, and again when downstream
 * asks for it.
 */
#pragma once

#include "enums.h"
#include "textmeta.h"

G_BEGIN_DECLS

#define GST_TYPE_INTERNVL_TEXT_PAD (gst_internvl_text_pad_get_type ())
G_DECLARE_FINAL_TYPE (GstInternvlTextPad, gst_internvl_text_pad, GST, INTERNVL_TEXT_PAD, GstPad)

/* Floating, inactive. */
GstInternvlTextPad *gst_internvl_text_pad_new (GstPadTemplate *templ, const char *name);

void gst_internvl_text_pad_set_format (GstInternvlTextPad *pad, GstInternvlTextFormat format);
/* At most this many results wait, the oldest is dropped; 0: any number. */
void gst_internvl_text_pad_set_limit (GstInternvlTextPad *pad, guint limit);

/* Queues; never block. Take their arguments. */
void gst_internvl_text_pad_push_event (GstInternvlTextPad *pad, GstEvent *event);
void gst_internvl_text_pad_push_result (GstInternvlTextPad *pad, GstInternvlResult *result);

/* Takes EVENT, a FLUSH_START or FLUSH_STOP, and passes it on. */
void gst_internvl_text_pad_flush (GstInternvlTextPad *pad, GstEvent *event);

/* Of the last push. */
GstFlowReturn gst_internvl_text_pad_get_flow (GstInternvlTextPad *pad);

G_END_DECLS
