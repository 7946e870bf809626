#include "kernels/image.h"

#include <math.h>
#include <string.h>

#define LANES 64
#define ALIGN 256u /* spans start at multiples of this */
/* RGB that one band may take: many rows a dispatch, but no 1 GiB of scratch for the largest pictures. */
#define BAND_BYTES (64u << 20)
/* Bands start at multiples of this, so that a row's phase in subsampled planes is the same in all. */
#define BAND_STEP 8u
#define MAX_SUBSAMPLING 3

static inline guint64
align_up (guint64 value, guint64 to)
{
  return (value + to - 1) / to * to;
}

static gboolean
check_size (const IvlPicture *p, GError **error)
{
  if (p->width == 0 || p->height == 0 || p->width > IVL_MAX_PICTURE_SIDE || p->height > IVL_MAX_PICTURE_SIDE)
    return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "A picture of %u x %u pixels: sides must be 1 to %u; scale it before",
                     p->width, p->height, IVL_MAX_PICTURE_SIDE);
  gboolean whole = !p->crop_x && !p->crop_y && !p->crop_width && !p->crop_height;
  if (!whole
      && (p->crop_width == 0 || p->crop_height == 0 || p->crop_x >= p->width || p->crop_width > p->width - p->crop_x
          || p->crop_y >= p->height || p->crop_height > p->height - p->crop_y))
    return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "Crop %u x %u at (%u, %u) isn't inside the picture of %u x %u",
                     p->crop_width, p->crop_height, p->crop_x, p->crop_y, p->width, p->height);
  return TRUE;
}

/* Finds what is used of each plane, and checks that it is there. */
static gboolean
plan_planes (IvlImagePlan *self, const IvlPicture *p, const IvlPlanePlace *places, GError **error)
{
  gsize byte_end[4] = { 0 };
  guint row_end[4] = { 0 };
  gboolean used[4] = { FALSE };
  if (p->n_planes < 1 || p->n_planes > 4)
    return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "A picture of %u planes: it must have 1 to 4", p->n_planes);
  for (guint c = 0; c < 3; c++) {
    guint plane = p->components[c].plane, w_sub = p->components[c].w_sub, h_sub = p->components[c].h_sub;
    guint bytes = p->components[c].bytes, depth = p->components[c].depth, shift = p->components[c].shift;
    if (plane >= p->n_planes || bytes < 1 || bytes > 2 || depth < 1 || shift + depth > 8 * bytes
        || w_sub > MAX_SUBSAMPLING || h_sub > MAX_SUBSAMPLING)
      return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT,
                       "Picture component %u: plane %u of %u, %u bytes, depth %u at bit %u, subsampling 2^%u x 2^%u; "
                       "at most 2 bytes and 2^%d x 2^%d are supported", c, plane, p->n_planes, bytes, depth, shift, w_sub,
                       h_sub, MAX_SUBSAMPLING, MAX_SUBSAMPLING);
    gsize stride = p->components[c].pixel_stride, offset = p->components[c].offset;
    gsize first = offset + (p->crop_x >> w_sub) * stride;
    gsize end = offset + ((p->crop_x + self->width - 1) >> w_sub) * stride + bytes;
    guint first_row = p->crop_y >> h_sub, end_row = ((p->crop_y + self->height - 1) >> h_sub) + 1;
    gboolean there = places || p->planes[plane].data;
    if (!there || end > p->planes[plane].row_bytes || end_row > p->planes[plane].rows)
      return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT,
                       "Picture plane %u has %u rows of %" G_GSIZE_FORMAT " bytes; %u rows of %" G_GSIZE_FORMAT
                       " are needed for %u x %u pixels", plane, there ? p->planes[plane].rows : 0,
                       p->planes[plane].row_bytes, end_row, end, p->width, p->height);
    if (!places) {
      self->planes[plane].first_byte = used[plane] ? MIN (self->planes[plane].first_byte, first) : first;
      self->planes[plane].first_row = used[plane] ? MIN (self->planes[plane].first_row, first_row) : first_row;
    }
    byte_end[plane] = MAX (byte_end[plane], end);
    row_end[plane] = MAX (row_end[plane], end_row);
    used[plane] = TRUE;

    self->components[c].plane = plane;
    self->components[c].byte = first;
    self->components[c].crop_y = p->crop_y;
    self->components[c].h_sub = h_sub;
    self->components[c].mask = (1u << depth) - 1;
    self->components[c].format = (guint32) stride | shift << 8 | w_sub << 12 | h_sub << 14
                                 | (p->crop_x & ((1u << w_sub) - 1)) << 16 | (p->crop_y & ((1u << h_sub) - 1)) << 20
                                 | (p->components[c].big_endian ? 1u << 24 : 0);
    if (bytes == 2)
      self->wide |= 1u << c;
    if (15 + 3 * stride + bytes <= 32)
      self->near |= 1u << c;
  }
  for (guint i = 0; i < p->n_planes; i++) {
    if (!used[i])
      continue;
    self->planes[i].row_bytes = byte_end[i] - self->planes[i].first_byte;
    self->planes[i].rows = row_end[i] - self->planes[i].first_row;
    if (places) {
      self->planes[i].pitch = places[i].pitch;
      self->planes[i].upload = places[i].offset;
      continue;
    }
    self->planes[i].pitch = align_up (self->planes[i].row_bytes, 16);
    self->planes[i].upload = self->upload_bytes;
    self->upload_bytes += align_up ((guint64) self->planes[i].pitch * self->planes[i].rows, ALIGN);
  }
  for (guint c = 0; c < 3; c++)
    self->components[c].byte -= self->planes[self->components[c].plane].first_byte;
  return TRUE;
}

static gboolean
plan_matrix (IvlImagePlan *self, const IvlPicture *p, GError **error)
{
  for (guint i = 0; i < 3; i++) {
    for (guint j = 0; j < 3; j++)
      self->matrix[4 * i + j] = (float) (p->matrix[i][j] * 255.0 / self->components[j].mask);
    self->matrix[4 * i + 3] = (float) (p->matrix[i][3] * 255.0 + 0.5);
    for (guint j = 0; j < 4; j++)
      if (!isfinite (self->matrix[4 * i + j]) || fabsf (self->matrix[4 * i + j]) > 1e30f)
        return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "Picture colour matrix [%u][%u] is %g", i, j,
                         (double) p->matrix[i][j]);
  }
  return TRUE;
}

static guint64
span_limit (IvlDevice *device)
{
  return device->properties.limits.maxStorageBufferRange;
}

/* How many rows the kernels take at a time, so that every binding is within the device's limit. */
static void
plan_bands (IvlImagePlan *self, IvlDevice *device)
{
  guint64 row_bytes = self->rgb_pitch * 16ull;
  guint64 limit = span_limit (device) - 2 * ALIGN;
  guint64 rows = MIN (BAND_BYTES, limit) / row_bytes;
  for (guint i = 0; i < 4; i++)
    if (self->planes[i].rows)
      rows = MIN (rows, limit / self->planes[i].pitch);
  for (guint i = 0; i < self->n_passes; i++)
    rows = MIN (rows, limit / (self->passes[i].pitch * 16ull));
  rows = MIN (rows, device->properties.limits.maxComputeWorkGroupCount[1]);
  self->band_rows = (guint) MAX (rows / BAND_STEP * BAND_STEP, BAND_STEP);
  self->band_rows = MIN (self->band_rows, (guint) align_up (self->height, BAND_STEP));
}

static void
plan_pass (IvlImagePlan *self, guint cols, guint rows, guint tile_base)
{
  IvlImagePass *pass = &self->passes[self->n_passes++];
  ivl_resize_axis_init (&pass->x, self->width, cols * self->tile_size, 4);
  ivl_resize_axis_init (&pass->y, self->height, rows * self->tile_size, 1);
  pass->grid_cols = cols;
  pass->tile_base = tile_base;
  pass->x_table = self->upload_bytes;
  self->upload_bytes += align_up (ivl_resize_axis_bytes (&pass->x), ALIGN);
  pass->y_table = self->upload_bytes;
  self->upload_bytes += align_up (ivl_resize_axis_bytes (&pass->y), ALIGN);
  pass->pitch = (guint) align_up (pass->x.out, 64) / 4; /* rows start at multiples of ALIGN bytes */
}

static gboolean
plan_init (IvlImagePlan *self, IvlDevice *device, const IvlPicture *p, const IvlPlanePlace *places, guint tile_size,
           guint patch_size, guint max_tiles, gboolean thumbnail, GError **error)
{
  memset (self, 0, sizeof *self);
  if (!check_size (p, error))
    return FALSE;
  if (max_tiles < 1 || max_tiles > IVL_MAX_TILES)
    return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "max-tiles is %u; it must be 1 to %u", max_tiles, IVL_MAX_TILES);
  g_return_val_if_fail (patch_size && tile_size && tile_size % patch_size == 0, FALSE);
  self->width = p->crop_width ? p->crop_width : p->width;
  self->height = p->crop_height ? p->crop_height : p->height;
  self->tile_size = tile_size;
  self->patch_size = patch_size;
  if (!plan_planes (self, p, places, error) || !plan_matrix (self, p, error))
    return FALSE;

  IvlTiling tiling = ivl_tiling_choose (self->width, self->height, tile_size, max_tiles);
  if (tiling.thumbnail && !thumbnail) {
    tiling.thumbnail = FALSE;
    tiling.n_tiles--;
  }
  self->n_tiles = tiling.n_tiles;
  self->cols = tiling.cols;
  self->rows = tiling.rows;
  self->thumbnail = tiling.thumbnail;
  guint64 tiles_bytes = 4ull * self->n_tiles * tile_size * tile_size;
  if (tiles_bytes > span_limit (device) - ALIGN)
    return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT,
                     "%u tiles of %u x %u pixels don't fit a buffer of Vulkan device \"%s\"; set max-tiles lower",
                     self->n_tiles, tile_size, tile_size, device->name);
  plan_pass (self, tiling.cols, tiling.rows, 0);
  if (tiling.thumbnail)
    plan_pass (self, 1, 1, tiling.n_tiles - 1);
  self->levels = self->upload_bytes;
  self->upload_bytes += IVL_IMAGE_LEVELS_BYTES;

  self->rgb_pitch = (self->width + 3) / 4;
  plan_bands (self, device);
  self->scratch_bytes = align_up ((guint64) self->band_rows * self->rgb_pitch * 16, ALIGN);
  for (guint i = 0; i < self->n_passes; i++) {
    self->passes[i].rows = self->scratch_bytes;
    self->scratch_bytes += (guint64) self->height * self->passes[i].pitch * 16;
  }
  self->tiles = self->scratch_bytes;
  self->scratch_bytes += align_up (tiles_bytes, ALIGN);
  return TRUE;
}

gboolean
ivl_image_plan_init (IvlImagePlan *self, IvlDevice *device, const IvlPicture *p, guint tile_size, guint patch_size,
                     guint max_tiles, gboolean thumbnail, GError **error)
{
  return plan_init (self, device, p, NULL, tile_size, patch_size, max_tiles, thumbnail, error);
}

gboolean
ivl_image_plan_init_apart (IvlImagePlan *self, IvlDevice *device, const IvlPicture *p, const IvlPlanePlace places[4],
                           IvlSpan pixels, guint tile_size, guint patch_size, guint max_tiles, gboolean thumbnail,
                           GError **error)
{
  if (!plan_init (self, device, p, places, tile_size, patch_size, max_tiles, thumbnail, error))
    return FALSE;
  self->pixels = pixels;
  return TRUE;
}

void
ivl_image_plan_deinit (IvlImagePlan *self)
{
  memset (self, 0, sizeof *self);
}

void
ivl_image_fill_levels (float *levels)
{
  static const float mean[3] = { 0.485f, 0.456f, 0.406f }, deviation[3] = { 0.229f, 0.224f, 0.225f };
  for (guint v = 0; v < 256; v++) {
    for (guint c = 0; c < 3; c++)
      *levels++ = ((float) v / 255.f - mean[c]) / deviation[c];
    *levels++ = 0;
  }
}

void
ivl_image_plan_upload (const IvlImagePlan *self, const IvlPicture *p, void *upload)
{
  guint8 *bytes = upload;
  for (guint i = 0; i < 4; i++)
    for (guint row = 0; row < self->planes[i].rows && !self->pixels.buffer; row++)
      memcpy (bytes + self->planes[i].upload + row * self->planes[i].pitch,
              p->planes[i].data + (gssize) (self->planes[i].first_row + row) * p->planes[i].stride
                + self->planes[i].first_byte,
              self->planes[i].row_bytes);
  for (guint i = 0; i < self->n_passes; i++) {
    ivl_resize_axis_fill (&self->passes[i].x, (gint32 *) (void *) (bytes + self->passes[i].x_table));
    ivl_resize_axis_fill (&self->passes[i].y, (gint32 *) (void *) (bytes + self->passes[i].y_table));
  }
  ivl_image_fill_levels ((float *) (void *) (bytes + self->levels));
}

typedef struct {
  IvlVkStream *stream;
  IvlDevice *device;
  int texels;
} Recorder;

/* BUFFERS is the variant of KERNEL (texels) that reads storage buffers. */
static void
dispatch (const Recorder *r, IvlKernelId kernel, IvlKernelId buffers, const guint32 *specs, guint n_specs,
          const IvlSpan *spans, guint n_inputs, const void *push, gsize push_bytes, IvlGroups groups)
{
  VkDeviceSize largest = 0;
  for (guint i = 0; i < n_inputs; i++)
    largest = MAX (largest, spans[i].size);
  ivl_vk_dispatch (r->stream, ivl_vk_use_texels (r->device, largest, r->texels) ? kernel : buffers, specs, n_specs, spans,
                   push, push_bytes, groups);
}

static IvlSpan
part (IvlSpan whole, guint64 offset, guint64 size)
{
  return (IvlSpan){ whole.buffer, whole.offset + offset, size };
}

static void
record_convert (const Recorder *r, const IvlImagePlan *self, IvlSpan pixels, IvlSpan scratch, guint y0, guint rows)
{
  struct IvlPushImageConvert push = { .cols = self->width, .rows = rows, .out_pitch = self->rgb_pitch };
  IvlSpan spans[4];
  for (guint c = 0; c < 3; c++) {
    guint plane = self->components[c].plane, h_sub = self->components[c].h_sub, y = self->components[c].crop_y + y0;
    guint first = (y >> h_sub) - self->planes[plane].first_row;
    guint end = ((y + rows - 1) >> h_sub) + 1 - self->planes[plane].first_row;
    guint64 from = self->planes[plane].upload + (guint64) first * self->planes[plane].pitch;
    guint64 to = self->planes[plane].upload + (guint64) end * self->planes[plane].pitch;
    guint64 start = from / ALIGN * ALIGN;
    /* Whole texels: pixels of a host's may have any pitch. */
    spans[c] = part (pixels, start, align_up (to - start, 16));
    push.offset[c] = (guint32) (from - start + self->components[c].byte);
    push.pitch[c] = (guint32) self->planes[plane].pitch;
    push.format[c] = self->components[c].format;
    push.mask[c] = self->components[c].mask;
  }
  memcpy (push.matrix, self->matrix, sizeof push.matrix);
  spans[3] = part (scratch, 0, (guint64) rows * self->rgb_pitch * 16);
  guint32 specs[] = { LANES, self->wide, self->near };
  dispatch (r, IVL_K_IMAGE_CONVERT_TEXEL, IVL_K_IMAGE_CONVERT_BUFFER, specs, G_N_ELEMENTS (specs), spans, 3, &push,
            sizeof push, (IvlGroups){ (self->rgb_pitch + LANES - 1) / LANES, rows, 1 });
  ivl_vk_note_work (r->stream, 20.0 * self->width * rows, 7.0 * self->width * rows);
}

static void
record_horizontal (const Recorder *r, const IvlImagePlan *self, const IvlImagePass *pass, IvlSpan upload,
                   IvlSpan scratch, guint y0, guint rows)
{
  struct IvlPushImageResize push = {
    .cols = pass->x.out, .rows = rows, .steps = pass->x.steps,
    .in_pitch = self->rgb_pitch, .in_last = self->rgb_pitch - 1, .out_pitch = pass->pitch,
  };
  IvlSpan spans[] = { part (scratch, 0, (guint64) rows * self->rgb_pitch * 16),
                      part (upload, pass->x_table, ivl_resize_axis_bytes (&pass->x)),
                      part (scratch, pass->rows + (guint64) y0 * pass->pitch * 16, (guint64) rows * pass->pitch * 16) };
  guint32 specs[] = { LANES };
  dispatch (r, IVL_K_IMAGE_HORIZONTAL_TEXEL, IVL_K_IMAGE_HORIZONTAL_BUFFER, specs, G_N_ELEMENTS (specs), spans, 2, &push,
            sizeof push, (IvlGroups){ (pass->x.out + LANES - 1) / LANES, rows, 1 });
  ivl_vk_note_work (r->stream, 24.0 * pass->x.steps * pass->x.out * rows, 4.0 * rows * (self->width + (double) pass->x.out));
}

static void
record_vertical (const Recorder *r, const IvlImagePlan *self, const IvlImagePass *pass, IvlSpan upload, IvlSpan scratch,
                 IvlSpan tiles)
{
  guint64 limit = span_limit (r->device), row_bytes = pass->pitch * 16ull;
  guint max_rows = r->device->properties.limits.maxComputeWorkGroupCount[1];
  for (guint y = 0, end; y < pass->y.out; y = end) {
    guint first, last, unused;
    ivl_resize_axis_bounds (&pass->y, y, &first, &last);
    for (end = y + 1; end < pass->y.out && end - y < max_rows; end++) {
      guint next;
      ivl_resize_axis_bounds (&pass->y, end, &unused, &next);
      if ((next - first) * row_bytes > limit)
        break;
      last = next;
    }
    struct IvlPushImageResize push = {
      .cols = pass->x.out, .rows = end - y, .row_base = y, .steps = pass->y.steps,
      .in_pitch = pass->pitch, .in_last = last - first - 1, .in_base = first,
      .tile_size = self->tile_size, .grid_cols = pass->grid_cols, .tile_base = pass->tile_base,
    };
    IvlSpan spans[] = { part (scratch, pass->rows + first * row_bytes, (last - first) * row_bytes),
                        part (upload, pass->y_table, ivl_resize_axis_bytes (&pass->y)), tiles };
    guint32 specs[] = { LANES };
    dispatch (r, IVL_K_IMAGE_VERTICAL_TEXEL, IVL_K_IMAGE_VERTICAL_BUFFER, specs, G_N_ELEMENTS (specs), spans, 2, &push,
              sizeof push, (IvlGroups){ ((pass->x.out + 3) / 4 + LANES - 1) / LANES, end - y, 1 });
    ivl_vk_note_work (r->stream, 24.0 * pass->y.steps * pass->x.out * (end - y),
                      4.0 * pass->x.out * ((double) (last - first) + (end - y)));
  }
}

static void
record_patches (const Recorder *r, const IvlImagePlan *self, IvlSpan levels, IvlSpan tiles, IvlRows patches)
{
  guint grid = self->tile_size / self->patch_size;
  guint quads = (3 * self->patch_size * self->patch_size + 7) / 8 * 2;
  guint64 tile_bytes = 4ull * grid * grid * patches.pitch;
  guint at_once = (guint) CLAMP ((span_limit (r->device) - ALIGN) / tile_bytes, 1, self->n_tiles);
  for (guint t = 0; t < self->n_tiles; t += at_once) {
    guint n = MIN (at_once, self->n_tiles - t);
    guint64 from = patches.span.offset + 4 * patches.offset + t * tile_bytes, start = from / ALIGN * ALIGN;
    struct IvlPushImagePatches push = {
      .tile_base = t, .rows = n * grid * grid, .tile_size = self->tile_size, .patch_size = self->patch_size,
      .grid = grid, .quads = quads, .out_offset = (guint32) (from - start) / 4, .out_pitch = patches.pitch,
    };
    guint64 end = from + n * tile_bytes - 4 * (patches.pitch - 4ull * quads);
    IvlSpan spans[] = { tiles, levels, { patches.span.buffer, start, end - start } };
    guint32 specs[] = { LANES };
    dispatch (r, IVL_K_IMAGE_PATCHES_TEXEL, IVL_K_IMAGE_PATCHES_BUFFER, specs, G_N_ELEMENTS (specs), spans, 2, &push,
              sizeof push, ivl_groups_for (r->device, (guint64) push.rows * quads, LANES));
    ivl_vk_note_work (r->stream, 0, (double) push.rows * quads * 16 + 4.0 * n * self->tile_size * self->tile_size);
  }
}

void
ivl_image_record (IvlVkStream *stream, const IvlImagePlan *plan, IvlSpan upload, IvlSpan scratch, const IvlSpan *tiles,
                  IvlRows patches)
{
  ivl_image_record_variant (stream, plan, upload, scratch, tiles, patches, -1);
}

static guint64
tiles_bytes (const IvlImagePlan *self)
{
  return align_up (4ull * self->n_tiles * self->tile_size * self->tile_size, 16);
}

static void
record_tiles (const Recorder *r, const IvlImagePlan *self, IvlSpan upload, IvlSpan scratch, IvlSpan tiles)
{
  IvlSpan pixels = self->pixels.buffer ? self->pixels : upload;
  g_assert (upload.offset % ALIGN == 0 && pixels.offset % ALIGN == 0 && scratch.offset % ALIGN == 0);
  for (guint y = 0; y < self->height; y += self->band_rows) {
    guint rows = MIN (self->band_rows, self->height - y);
    record_convert (r, self, pixels, scratch, y, rows);
    for (guint i = 0; i < self->n_passes; i++)
      record_horizontal (r, self, &self->passes[i], upload, scratch, y, rows);
  }
  for (guint i = 0; i < self->n_passes; i++)
    record_vertical (r, self, &self->passes[i], upload, scratch, tiles);
}

void
ivl_image_record_variant (IvlVkStream *stream, const IvlImagePlan *self, IvlSpan upload, IvlSpan scratch,
                          const IvlSpan *tiles_out, IvlRows patches, int texels)
{
  Recorder r = { stream, upload.buffer->device, texels };
  IvlSpan tiles = tiles_out ? part (*tiles_out, 0, tiles_bytes (self)) : part (scratch, self->tiles, tiles_bytes (self));
  record_tiles (&r, self, upload, scratch, tiles);
  record_patches (&r, self, part (upload, self->levels, IVL_IMAGE_LEVELS_BYTES), tiles, patches);
}

void
ivl_image_record_tiles (IvlVkStream *stream, const IvlImagePlan *self, IvlSpan upload, IvlSpan scratch, IvlSpan tiles)
{
  Recorder r = { stream, upload.buffer->device, -1 };
  record_tiles (&r, self, upload, scratch, part (tiles, 0, tiles_bytes (self)));
}

void
ivl_image_record_patches (IvlVkStream *stream, const IvlImagePlan *self, IvlSpan levels, IvlSpan tiles, IvlRows patches)
{
  Recorder r = { stream, tiles.buffer->device, -1 };
  record_patches (&r, self, levels, part (tiles, 0, tiles_bytes (self)), patches);
}

void
ivl_image_record_luma (IvlVkStream *stream, IvlSpan tiles, guint n_tiles, guint tile_size, IvlSpan histograms)
{
  Recorder r = { stream, tiles.buffer->device, -1 };
  struct IvlPushImageLuma push = { tile_size };
  guint32 specs[] = { LANES };
  IvlSpan spans[] = { part (tiles, 0, align_up (4ull * n_tiles * tile_size * tile_size, 16)), histograms };
  dispatch (&r, IVL_K_IMAGE_LUMA_TEXEL, IVL_K_IMAGE_LUMA_BUFFER, specs, G_N_ELEMENTS (specs), spans, 1, &push, sizeof push,
            (IvlGroups){ n_tiles * IVL_LUMA_BLOCKS * IVL_LUMA_BLOCKS, 1, 1 });
  ivl_vk_note_work (stream, 8.0 * n_tiles * tile_size * tile_size, 4.0 * n_tiles * tile_size * tile_size);
}

double
ivl_image_luma_difference (const guint32 *a, const guint32 *b, guint n_tiles, guint tile_size)
{
  guint64 sum = 0;
  for (guint i = 0; i < n_tiles * IVL_LUMA_BLOCKS * IVL_LUMA_BLOCKS * IVL_LUMA_BINS; i++)
    sum += a[i] > b[i] ? a[i] - b[i] : b[i] - a[i];
  return (double) sum / (2.0 * IVL_LUMA_STEP * n_tiles * tile_size * tile_size);
}

void
ivl_image_record_difference (IvlVkStream *stream, IvlSpan a, IvlSpan b, guint n_tiles, guint tile_size,
                             guint patch_size, IvlSpan largest)
{
  Recorder r = { stream, a.buffer->device, -1 };
  guint grid = tile_size / patch_size;
  guint64 bytes = align_up (4ull * n_tiles * tile_size * tile_size, 16);
  struct IvlPushImageDifference push = { n_tiles * grid * grid, tile_size, patch_size, grid };
  guint32 specs[] = { LANES };
  IvlSpan spans[] = { part (a, 0, bytes), part (b, 0, bytes), largest };
  dispatch (&r, IVL_K_IMAGE_DIFFERENCE_TEXEL, IVL_K_IMAGE_DIFFERENCE_BUFFER, specs, G_N_ELEMENTS (specs), spans, 2,
            &push, sizeof push, ivl_groups_for (r.device, push.patches, LANES));
  ivl_vk_note_work (stream, 6.0 * n_tiles * tile_size * tile_size, 2.0 * (double) bytes);
}
