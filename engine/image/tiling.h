/* Dynamic tiling: which grid of tiles a still picture is resized to (arXiv 2404.16821, and the reference's
 * dynamic_preprocess). */
#ifndef IVL_IMAGE_TILING_H
#define IVL_IMAGE_TILING_H

#include <glib.h>

#define IVL_MAX_TILES 1024

typedef struct {
  guint cols, rows;
  gboolean thumbnail; /* one more tile, the last: the whole picture */
  guint n_tiles;
} IvlTiling;

/* The grid of at most MAX_TILES (1 .. IVL_MAX_TILES) tiles of TILE_SIZE pixels a side whose aspect ratio is nearest
 * to WIDTH x HEIGHT; between equals the finer one if the picture has more than half its pixels. */
IvlTiling ivl_tiling_choose (guint width, guint height, guint tile_size, guint max_tiles);

#endif
