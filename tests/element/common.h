/* What the tests of the element share. */
#pragma once

#include <gst/gst.h>

G_BEGIN_DECLS

/* A folder that the fake engine takes for a model; removed at exit. */
const char *test_model_path (void);
/* A file in a folder that is removed at exit; borrowed. */
const char *test_path (const char *name);

/* gst_parse_launch or abort. Printf-like. */
GstElement *test_launch (const char *format, ...) G_GNUC_PRINTF (1, 2);

/* Plays until EOS, or until an error, which is returned. COLLECTED gets the structures of the element messages
 * "internvl" in order (transfer full, may be NULL). Leaves PIPELINE in NULL. */
GError *test_play (GstElement *pipeline, GPtrArray *collected);
GPtrArray *test_structures_new (void);

/* Waits for a message of TYPES; aborts on an error that isn't among them. */
GstMessage *test_wait_message (GstElement *pipeline, GstMessageType types);
/* Waits for the next element message "internvl"; free it. */
GstStructure *test_wait_result (GstElement *pipeline);
/* Sets STATE and waits until it is reached. */
void test_set_state (GstElement *pipeline, GstState state);

guint64 test_get_uint64 (const GstStructure *structure, const char *field);

/* Chunk, text and confidence to the last bit: equal for equal answers. */
char *test_describe_answer (const GstStructure *result);

G_END_DECLS
