/* Small helpers round GError, in the domain IVL_ERROR of <internvl/internvl.h>. */
#ifndef IVL_BASE_ERROR_H
#define IVL_BASE_ERROR_H

#include <internvl/internvl.h>

/* Sets ERROR and evaluates to FALSE, so that `return ivl_fail (...)` reads well. */
gboolean ivl_fail (GError **error, IvlErrorCode code, const char *format, ...) G_GNUC_PRINTF (3, 4);

/* "1.88 GB" style; returns a newly allocated string. */
char *ivl_format_bytes (guint64 bytes);

#endif
