/* Which GGUF files a model path means: a text model and the mmproj (vision encoder and projector) beside it.
 *
 * PATH is a text model's .gguf file, or a folder without config.json that holds one. The files are told apart by their
 * general.architecture, "clip" being the mmproj's, not by their names; names with "mmproj" in them are read first. */
#ifndef IVL_TENSOR_GGUF_PAIR_H
#define IVL_TENSOR_GGUF_PAIR_H

#include "tensor/gguf.h"

/* Whether PATH is to be opened as GGUF and not as a checkpoint folder. */
gboolean ivl_gguf_pair_is (const char *path);
/* Opens the text model and, unless VISION is NULL, the mmproj. IVL_ERROR_BAD_MODEL if one is missing or there are
 * several. */
gboolean ivl_gguf_pair_open (const char *path, IvlGguf **text, IvlGguf **vision, GError **error);

#endif
