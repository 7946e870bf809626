#include "image/tiling.h"

#include <math.h>

IvlTiling
ivl_tiling_choose (guint width, guint height, guint tile_size, guint max_tiles)
{
  IvlTiling best = { 1, 1, FALSE, 1 };
  double best_difference = INFINITY;
  double aspect = (double) width / height, area = (double) width * height;
  max_tiles = CLAMP (max_tiles, 1, IVL_MAX_TILES);
  /* In order of the number of tiles; the order among equal products has no effect for any maximum in use. The
   * comparisons are exact on purpose: equal ratios give equal doubles. */
  for (guint n = 1; n <= max_tiles; n++)
    for (guint cols = 1; cols <= n; cols++) {
      if (n % cols)
        continue;
      guint rows = n / cols;
      double difference = fabs (aspect - (double) cols / rows);
      if (difference < best_difference
          || (difference == best_difference && area > 0.5 * tile_size * tile_size * cols * rows)) {
        best_difference = difference;
        best.cols = cols;
        best.rows = rows;
      }
    }
  best.thumbnail = best.cols * best.rows != 1;
  best.n_tiles = best.cols * best.rows + best.thumbnail;
  return best;
}
