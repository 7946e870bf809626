#include "base/error.h"

G_DEFINE_QUARK (ivl-error-quark, ivl_error)

gboolean
ivl_fail (GError **error, IvlErrorCode code, const char *format, ...)
{
  va_list args;
  va_start (args, format);
  g_autofree char *message = g_strdup_vprintf (format, args);
  va_end (args);
  g_set_error_literal (error, IVL_ERROR, code, message);
  return FALSE;
}

char *
ivl_format_bytes (guint64 bytes)
{
  return g_format_size_full (bytes, G_FORMAT_SIZE_DEFAULT);
}
