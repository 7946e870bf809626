/* The one shape of a result: a GstStructure named "internvl", the same on the bus, on buffers and as JSON.
 *
 *   text                string   the answer
 *   timestamp           guint64  of the chunk's start, in the segment of the video
 *   duration            guint64
 *   stream-time         guint64
 *   running-time        guint64
 *   stream-id           string
 *   chunk               guint64  index
 *   frames              GstValueArray of guint64, time stamp of each sampled frame
 *   prompt              string   with its templates filled in
 *   model               string
 *   prompt-tokens       guint
 *   generated-tokens    guint
 *   finish              string   stop, length or cancelled
 *   confidence          double   mean probability of the generated tokens
 *   latency             guint64  from the last sampled frame coming in to the answer
 *   dropped             guint64  chunks skipped so far
 * and only with choices
 *   choice              int      index of the answer among them
 *   choice-probabilities  GstValueArray of double, one for each; not of more than 256
 * and only if the model grounded something, with <ref>label</ref><box>[[x1, y1, x2, y2]]</box> in its text
 *   boxes               GstValueArray of GstStructure "box", in JSON objects, with
 *     label             string   as in the text, "" if it has none
 *     x, y, w, h        int      in pixels of the last sampled frame; where it has a crop meta, of the whole of it
 *     x-min, y-min, x-max, y-max  double, in 0..1 of the picture that the model saw
 * A reply to what was asked in between (the action ask, the event internvl-ask) has no chunk but
 *   id                  string   as it was given
 *   error               string   why there is no answer, only then
 *
 * Times are in nanoseconds, GST_CLOCK_TIME_NONE (null in JSON) if unknown.
 */
#pragma once

#include <gst/gst.h>

G_BEGIN_DECLS

#define GST_INTERNVL_META_NAME "internvl"

/* A finished result, shared by all that hand it on. */
typedef struct {
  gatomicrefcount refs;
  GstStructure *structure;      /* as above, immutable */
  GstClockTime text_pts;        /* of the buffer on the text pad, in that pad's segment */
  GstClockTime text_duration;
} GstInternvlResult;

/* Takes STRUCTURE. */
GstInternvlResult *gst_internvl_result_new (GstStructure *structure, GstClockTime text_pts,
    GstClockTime text_duration);
GstInternvlResult *gst_internvl_result_ref (GstInternvlResult *result);
void gst_internvl_result_unref (GstInternvlResult *result);

/* One line of JSON with the fields above; g_free. */
char *gst_internvl_structure_to_json (const GstStructure *structure);

/* Registers the custom meta "internvl". More than once is harmless. */
void gst_internvl_meta_register (void);

/* Adds STRUCTURE to BUFFER (writable) as custom meta. */
void gst_internvl_meta_add (GstBuffer *buffer, const GstStructure *structure);

/* The regions of interest on BUFFER, a frame of WIDTH x HEIGHT, as others may have found them: "label [x1, y1, x2, y2]"
 * in 0..1000, separated by commas. NULL if there are none; g_free. */
char *gst_internvl_describe_regions (GstBuffer *buffer, guint width, guint height);

G_END_DECLS
