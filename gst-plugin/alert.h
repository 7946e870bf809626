/* When an alert is raised and when it ends: pure logic over answers. Times are running time. */
#pragma once

#include <gst/gst.h>

G_BEGIN_DECLS

typedef struct {
  gboolean raised;
  GstClockTime since;           /* start of the chunk that raised it */
  GstClockTime last_end;        /* end of the last chunk that matched */
} GstInternvlAlert;

/* TEXT begins with WORDS, in any case, and these end where a word does: "no" is not in "nothing". White space and
 * punctuation in front of TEXT don't count. */
gboolean gst_internvl_alert_matches (const char *text, const char *words);

typedef enum {
  GST_INTERNVL_ALERT_NONE,
  GST_INTERNVL_ALERT_RAISED,
  GST_INTERNVL_ALERT_CLEARED,
} GstInternvlAlertEdge;

/* The answer about START..END matched or not. Raised by the first that does; cleared by one that doesn't, if it ends
 * HOLD or more after the last one that did. */
GstInternvlAlertEdge gst_internvl_alert_update (GstInternvlAlert *alert, gboolean matched, GstClockTime start,
    GstClockTime end, GstClockTime hold);

G_END_DECLS
