/* Grounded boxes in an answer: <ref>label</ref><box>[[x1, y1, x2, y2], ...]</box>, in thousandths of the picture.
 *
 * In a result they are the field `boxes`, see textmeta.h; on a buffer they are GstVideoRegionOfInterestMeta and, where
 * GStreamer has it (1.24), object detections of a GstAnalyticsRelationMeta. The kind of either is the word "internvl":
 * kinds are quarks, which are never freed, and the model's words must not become any.
 */
#pragma once

#include <gst/video/video.h>

G_BEGIN_DECLS

typedef struct {
  char *label;                  /* "" if the model named nothing */
  double x1, y1, x2, y2;        /* 0..1, x1 < x2, y1 < y2 */
} GstInternvlBox;

/* The boxes in TEXT, in its order, at most 256: array of GstInternvlBox. A label goes for all boxes that follow it with
 * nothing but commas in between. Corners may come in any order; what is out of the picture is moved to its edge; as in the
 * reference, four numbers of together less than 4 are parts of 1 rather than of 1000. What has no area, or isn't four
 * numbers in brackets, is left out; so is what max-tokens cut off, but not whole boxes before it. */
GArray *gst_internvl_boxes_parse (const char *text);

/* Sets the field `boxes` of STRUCTURE if there are any in TEXT. REGION is where in its frame the model saw them. */
void gst_internvl_boxes_set (GstStructure *structure, const char *text, const GstVideoRectangle *region);

/* Puts the field `boxes` of STRUCTURE, if it is there, onto BUFFER (writable), in REGION of its frame: regions of interest
 * of type "internvl" with a parameter structure "internvl" that has the field label; and object detections, whose
 * confidence is the field `confidence` of STRUCTURE. */
void gst_internvl_boxes_attach (const GstStructure *structure, GstBuffer *buffer, const GstVideoRectangle *region);

G_END_DECLS
