#include "alert.h"

#include <string.h>

gboolean
gst_internvl_alert_matches (const char *text, const char *words)
{
  g_autofree char *folded_words = g_utf8_casefold (words, -1);

  while (*text && !g_unichar_isalnum (g_utf8_get_char (text)) && !g_str_has_prefix (text, words))
    text = g_utf8_next_char (text);
  g_autofree char *folded = g_utf8_casefold (text, -1);
  gsize length = strlen (folded_words);
  if (length == 0 || strncmp (folded, folded_words, length) != 0)
    return FALSE;
  gunichar last = g_utf8_get_char (g_utf8_prev_char (folded_words + length));
  return !g_unichar_isalnum (last) || !g_unichar_isalnum (g_utf8_get_char (folded + length));
}

GstInternvlAlertEdge
gst_internvl_alert_update (GstInternvlAlert *alert, gboolean matched, GstClockTime start, GstClockTime end,
    GstClockTime hold)
{
  if (matched) {
    gboolean raise = !alert->raised;
    alert->raised = TRUE;
    if (raise)
      alert->since = start;
    alert->last_end = end;
    return raise ? GST_INTERNVL_ALERT_RAISED : GST_INTERNVL_ALERT_NONE;
  }
  if (!alert->raised)
    return GST_INTERNVL_ALERT_NONE;
  /* Running time began anew, after a flush. */
  if (start < alert->since)
    alert->since = alert->last_end = start;
  if (end < alert->last_end || end - alert->last_end < hold)
    return GST_INTERNVL_ALERT_NONE;
  alert->raised = FALSE;
  return GST_INTERNVL_ALERT_CLEARED;
}
