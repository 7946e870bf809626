/* An answer as text for the text pad. Pure functions. All strings returned are to be freed with g_free. */
#pragma once

#include "enums.h"

G_BEGIN_DECLS

/* TEXT fit for subtitles: no markup of grounded boxes, no control characters, no blank line, nothing that ends a cue
 * early; escaped for GST_INTERNVL_TEXT_PANGO_MARKUP. FORMAT is UTF8 or PANGO_MARKUP. Invalid UTF-8 is replaced. */
char *gst_internvl_text_for_subtitles (const char *text, GstInternvlTextFormat format);

/* PROMPT with {start} and {end} (of the chunk, as HH:MM:SS.mmm), {frames} (their times, separated by commas) and
 * {previous} (the last answer, "" before the first) put in, and {detections}: those of each frame that has any, after
 * its time, or "none"; DETECTIONS has one for each frame, NULL if nothing was found. Other names stay as they are, so that a prompt may
 * hold JSON. What is put in is not searched again. */
char *gst_internvl_expand_prompt (const char *prompt, GstClockTime start, GstClockTime end,
    const GstClockTime *frames, const char *const *detections, guint n_frames, const char *previous);

/* The element of a stream of captions that CAPS are. */
GstInternvlTextFormat gst_internvl_text_format_of_caps (const GstCaps *caps);
/* What FORMAT allows on the pad; AUTO allows everything. Transfer full. */
GstCaps *gst_internvl_caps_of_text_format (GstInternvlTextFormat format);

G_END_DECLS
