/* The text pad: a source pad with a queue and a task of its own, so that whoever is slow behind it holds up neither
 * video nor the model. Decides on its caps when the first event that needs them is due, and again when downstream
 * asks for it.
 *
 * A muxer, or an overlay, takes no video before it knows what text there is up to there. With a queue in the video's
 * branch that holds a chunk, it gets the text in time. Without one everything would wait for everything: then the pad
 * sees that video doesn't get on while no answer is on its way, and from there on tells with GAP events that there is
 * no text yet, as far as video has come.
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

/* A GAP event that says: no text there. */
GstEvent *gst_internvl_text_gap (GstClockTime time, GstClockTime duration);

/* Takes EVENT, a FLUSH_START or FLUSH_STOP, and passes it on. */
void gst_internvl_text_pad_flush (GstInternvlTextPad *pad, GstEvent *event);

/* TRUE while a result is on its way that the stream would be right to wait for; called on the pad's thread. */
typedef gboolean (*GstInternvlTextExpected) (gpointer owner);
void gst_internvl_text_pad_set_expected (GstInternvlTextPad *pad, GstInternvlTextExpected expected, gpointer owner);
/* Round each push of video: TIME is that of its end, in the segment of the text. */
void gst_internvl_text_pad_video_begins (GstInternvlTextPad *pad, GstClockTime time);
void gst_internvl_text_pad_video_ended (GstInternvlTextPad *pad);

/* Of the last push. */
GstFlowReturn gst_internvl_text_pad_get_flow (GstInternvlTextPad *pad);

G_END_DECLS
