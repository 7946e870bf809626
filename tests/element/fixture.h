/* The element by itself, in a harness, with a fake engine whose every step the test decides. */
#pragma once

#include "common.h"
#include "fake-engine.h"

#include <gst/check/gstharness.h>

G_BEGIN_DECLS

#define CAPS "video/x-raw, format=RGB, width=16, height=16, framerate=10/1"
#define PERIOD (100 * GST_MSECOND)

typedef struct {
  GstHarness *h, *text;
  GstElement *element;
  GstBus *bus;
  guint next;                   /* number of the next frame */
} Fixture;

/* Chunks of a second with two frames each, unless PROPERTIES say otherwise. With a text pad the element is started at
 * once: what the engine is to do must have been said before. */
void begin (Fixture *f, const char *properties, gboolean with_text);
void play (Fixture *f);
void finish (Fixture *f);

/* A frame whose colour is its number. */
GstBuffer *make_frame (guint number);
GstFlowReturn push_frames (Fixture *f, guint count);

/* Takes the next from the text pad, or the bus. */
void expect_text (Fixture *f, GstClockTime pts, GstClockTime duration, const char *text);
GstMessage *wait_message (Fixture *f, GstMessageType type);
GstStructure *wait_result (Fixture *f);
void expect_error (Fixture *f, GQuark domain, gint code, const char *part);
guint64 get_stat (Fixture *f, const char *name);

G_END_DECLS
