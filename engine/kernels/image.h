/* Pictures to what the vision encoder multiplies: colour conversion, Pillow's bicubic resize into tiles, patches.
 *
 *   samples of any layout -> RGB u8 [height, width] -> rows resized, u8 -> columns resized, u8 tiles
 *   [n_tiles, tile_size, tile_size] -> f32 patches [n_tiles * grid^2, k_pad], grid = tile_size / patch_size
 *
 * Tiles are bit-exact to Pillow's resize of the same RGB. Patches are (level / 255 - mean) / std with ImageNet's mean
 * and deviation, every step rounded to f32 as numpy does. */
#ifndef IVL_KERNELS_IMAGE_H
#define IVL_KERNELS_IMAGE_H

#include "image/resize.h"
#include "image/tiling.h"
#include "kernels/gemm.h"
#include "vk/device-picture.h"

#define IVL_MAX_PICTURE_SIDE 16384

/* The whole picture resized to a grid of tiles. */
typedef struct {
  IvlResizeAxis x, y;
  guint grid_cols, tile_base;
  guint64 x_table, y_table; /* bytes, in the upload */
  guint64 rows;             /* bytes, in the scratch: after the horizontal pass */
  guint pitch;              /* of those, in quads of pixels */
} IvlImagePass;

/* All that is known before the pixels. Plain data, owns nothing. */
typedef struct {
  guint n_tiles;            /* the thumbnail included */
  guint cols, rows;
  gboolean thumbnail;       /* the last tile is the whole picture */
  guint tile_size, patch_size;
  guint64 upload_bytes;     /* for ivl_image_plan_upload */
  guint64 scratch_bytes;    /* device memory while the kernels run */

  /* the rest is image.c's own */
  IvlSpan pixels;           /* borrowed: where they are if not in the upload */
  guint width, height;      /* of the crop */
  struct {
    guint64 upload;         /* bytes, in the upload or the buffer of pixels */
    gsize first_byte, row_bytes, pitch;
    guint first_row, rows;
  } planes[4];
  struct {
    guint plane;
    gsize byte;             /* of the first sample, in the plane's uploaded row */
    guint crop_y, h_sub;
    guint32 format, mask;   /* see IvlPushImageConvert */
  } components[3];
  guint32 wide, near;       /* a bit per component: two bytes; four samples in at most two texels */
  float matrix[12];
  guint band_rows;          /* of the picture that are converted at a time */
  guint rgb_pitch;          /* quads of pixels */
  IvlImagePass passes[2];
  guint n_passes;
  guint64 levels;           /* bytes, in the upload */
  guint64 tiles;            /* bytes, in the scratch */
} IvlImagePlan;

/* Checks PICTURE and lays everything out; its pixels aren't read. MAX_TILES 1 squashes the picture into one tile.
 * THUMBNAIL: several tiles are followed by one of the whole picture. */
gboolean ivl_image_plan_init (IvlImagePlan *plan, IvlDevice *device, const IvlPicture *picture, guint tile_size,
                              guint patch_size, guint max_tiles, gboolean thumbnail, GError **error);
/* The same for pixels that are in a buffer already: PIXELS, which is borrowed, with planes at PLACES. PICTURE needs no data.
 * The upload holds the tables alone. */
gboolean ivl_image_plan_init_apart (IvlImagePlan *plan, IvlDevice *device, const IvlPicture *picture,
                                    const IvlPlanePlace places[4], IvlSpan pixels, guint tile_size, guint patch_size,
                                    guint max_tiles, gboolean thumbnail, GError **error);
void ivl_image_plan_deinit (IvlImagePlan *plan);
/* Copies the pixels that are used, and the tables, into UPLOAD: upload_bytes of mapped memory, which is only
 * written. PICTURE is the one the plan was made for, or another of the same layout. */
void ivl_image_plan_upload (const IvlImagePlan *plan, const IvlPicture *picture, void *upload);
/* UPLOAD and SCRATCH start at multiples of 256 bytes. TILES: [n_tiles, tile_size, tile_size] of R | G << 8 | B << 16,
 * for checks; or NULL. Columns of PATCHES from 3 * patch_size^2 up to the next multiple of 8 are zeroed. */
void ivl_image_record (IvlVkStream *stream, const IvlImagePlan *plan, IvlSpan upload, IvlSpan scratch,
                       const IvlSpan *tiles, IvlRows patches);
/* For checks and timing: TEXELS -1 by device, 0 storage buffers, 1 texel buffers. */
void ivl_image_record_variant (IvlVkStream *stream, const IvlImagePlan *plan, IvlSpan upload, IvlSpan scratch,
                               const IvlSpan *tiles, IvlRows patches, int texels);

/* The two halves of ivl_image_record, for pictures that are looked at before it is known whether they are encoded. LEVELS:
 * IVL_IMAGE_LEVELS_BYTES, as ivl_image_fill_levels fills them, the same for all pictures. */
void ivl_image_record_tiles (IvlVkStream *stream, const IvlImagePlan *plan, IvlSpan upload, IvlSpan scratch,
                             IvlSpan tiles);
void ivl_image_record_patches (IvlVkStream *stream, const IvlImagePlan *plan, IvlSpan levels, IvlSpan tiles,
                               IvlRows patches);
#define IVL_IMAGE_LEVELS_BYTES (256 * 16)
void ivl_image_fill_levels (float *levels);

/* Histograms of luma of N_TILES tiles as ivl_image_record writes them: u32 [n_tiles * IVL_LUMA_BLOCKS^2, IVL_LUMA_BINS],
 * of which each adds up to IVL_LUMA_STEP times its pixels. */
void ivl_image_record_luma (IvlVkStream *stream, IvlSpan tiles, guint n_tiles, guint tile_size, IvlSpan histograms);
/* 0 ... 1: the part of the pixels that is in another bin in B than in A. */
double ivl_image_luma_difference (const guint32 *a, const guint32 *b, guint n_tiles, guint tile_size);

/* LARGEST (u32, set to 0 before) becomes the largest sum of absolute differences over the 3 * patch_size^2 samples of
 * a patch, between two sets of N_TILES tiles as ivl_image_record writes them. */
void ivl_image_record_difference (IvlVkStream *stream, IvlSpan a, IvlSpan b, guint n_tiles, guint tile_size,
                                  guint patch_size, IvlSpan largest);

#endif
