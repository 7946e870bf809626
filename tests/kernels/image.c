#include "check.h"
#include "image/frames.h"
#include "ref.h"

#include <math.h>
#include <string.h>

/* Sample layouts of video formats; names as GStreamer's. Everything here is exact: colour conversion is defined step by
 * step in f32, the resize is of integers, normalisation is a table. */
typedef struct {
  const char *name;
  guint8 n_planes;
  guint8 pixel_bytes[3];   /* of a plane */
  guint8 w_sub[3], h_sub[3]; /* of a plane */
  struct { guint8 plane, offset, bytes, big_endian, shift, depth; } c[3];
  gboolean yuv;
} Layout;

static const Layout layouts[] = {
  { "RGB", 1, { 3 }, { 0 }, { 0 }, { { 0, 0, 1, 0, 0, 8 }, { 0, 1, 1, 0, 0, 8 }, { 0, 2, 1, 0, 0, 8 } }, FALSE },
  { "BGRx", 1, { 4 }, { 0 }, { 0 }, { { 0, 2, 1, 0, 0, 8 }, { 0, 1, 1, 0, 0, 8 }, { 0, 0, 1, 0, 0, 8 } }, FALSE },
  { "GRAY8", 1, { 1 }, { 0 }, { 0 }, { { 0, 0, 1, 0, 0, 8 }, { 0, 0, 1, 0, 0, 8 }, { 0, 0, 1, 0, 0, 8 } }, FALSE },
  { "RGB16", 1, { 2 }, { 0 }, { 0 }, { { 0, 0, 2, 0, 11, 5 }, { 0, 0, 2, 0, 5, 6 }, { 0, 0, 2, 0, 0, 5 } }, FALSE },
  { "RGB10A2_LE", 1, { 4 }, { 0 }, { 0 }, { { 0, 0, 2, 0, 0, 10 }, { 0, 1, 2, 0, 2, 10 }, { 0, 2, 2, 0, 4, 10 } }, FALSE },
  { "ARGB64_BE", 1, { 8 }, { 0 }, { 0 }, { { 0, 2, 2, 1, 0, 16 }, { 0, 4, 2, 1, 0, 16 }, { 0, 6, 2, 1, 0, 16 } }, FALSE },
  { "I420", 3, { 1, 1, 1 }, { 0, 1, 1 }, { 0, 1, 1 }, { { 0, 0, 1, 0, 0, 8 }, { 1, 0, 1, 0, 0, 8 }, { 2, 0, 1, 0, 0, 8 } }, TRUE },
  { "NV12", 2, { 1, 2 }, { 0, 1 }, { 0, 1 }, { { 0, 0, 1, 0, 0, 8 }, { 1, 0, 1, 0, 0, 8 }, { 1, 1, 1, 0, 0, 8 } }, TRUE },
  { "NV21", 2, { 1, 2 }, { 0, 1 }, { 0, 1 }, { { 0, 0, 1, 0, 0, 8 }, { 1, 1, 1, 0, 0, 8 }, { 1, 0, 1, 0, 0, 8 } }, TRUE },
  { "P010_10LE", 2, { 2, 4 }, { 0, 1 }, { 0, 1 }, { { 0, 0, 2, 0, 6, 10 }, { 1, 0, 2, 0, 6, 10 }, { 1, 2, 2, 0, 6, 10 } }, TRUE },
  { "I422_12BE", 3, { 2, 2, 2 }, { 0, 1, 1 }, { 0 }, { { 0, 0, 2, 1, 0, 12 }, { 1, 0, 2, 1, 0, 12 }, { 2, 0, 2, 1, 0, 12 } }, TRUE },
  { "Y444", 3, { 1, 1, 1 }, { 0 }, { 0 }, { { 0, 0, 1, 0, 0, 8 }, { 1, 0, 1, 0, 0, 8 }, { 2, 0, 1, 0, 0, 8 } }, TRUE },
  { "YUV9", 3, { 1, 1, 1 }, { 0, 2, 2 }, { 0, 2, 2 }, { { 0, 0, 1, 0, 0, 8 }, { 1, 0, 1, 0, 0, 8 }, { 2, 0, 1, 0, 0, 8 } }, TRUE },
};

typedef struct {
  IvlVkStream *stream;
  IvlImagePlan plan;
  IvlSpan upload, scratch, tiles;
  IvlRows patches;
  int texels;
} Args;

static void
record (gpointer data)
{
  Args *a = data;
  ivl_image_record_variant (a->stream, &a->plan, a->upload, a->scratch, &a->tiles, a->patches, a->texels);
}

/* A picture with random samples and rows that are longer than they need to be; the planes' memory goes to STORAGE. */
static void
make_picture (Check *c, const Layout *l, guint width, guint height, gboolean bottom_up, IvlPicture *p, GPtrArray *storage)
{
  memset (p, 0, sizeof *p);
  p->n_planes = l->n_planes;
  p->width = width;
  p->height = height;
  guint flavour = check_below (c, 3);
  for (guint i = 0; i < l->n_planes; i++) {
    guint columns = ((width - 1) >> l->w_sub[i]) + 1, rows = ((height - 1) >> l->h_sub[i]) + 1;
    gsize stride = columns * l->pixel_bytes[i] + check_below (c, 40);
    guint8 *data = g_malloc (stride * rows);
    for (gsize j = 0; j < stride * rows; j++)
      data[j] = (guint8) (flavour == 0 ? check_random (c) : flavour == 1 ? (check_random (c) & 1) * 255 : j * 3 + j / stride);
    g_ptr_array_add (storage, data);
    p->planes[i].data = bottom_up ? data + stride * (rows - 1) : data;
    p->planes[i].stride = bottom_up ? -(gssize) stride : (gssize) stride;
    p->planes[i].row_bytes = (gsize) columns * l->pixel_bytes[i];
    p->planes[i].rows = rows;
  }
  for (guint i = 0; i < 3; i++) {
    guint8 plane = l->c[i].plane;
    p->components[i].plane = plane;
    p->components[i].pixel_stride = l->pixel_bytes[plane];
    p->components[i].offset = l->c[i].offset;
    p->components[i].bytes = l->c[i].bytes;
    p->components[i].big_endian = l->c[i].big_endian;
    p->components[i].shift = l->c[i].shift;
    p->components[i].depth = l->c[i].depth;
    p->components[i].w_sub = l->w_sub[plane];
    p->components[i].h_sub = l->h_sub[plane];
  }
  if (l->yuv)
    ivl_picture_set_yuv_matrix (p, 0.2126, 0.0722, check_below (c, 2) == 0, l->c[0].depth);
  else
    ivl_picture_set_rgb_matrix (p);
}

static void
check_tiles (Check *c, const Args *a, const IvlPicture *p, guint max_tiles)
{
  guint w = p->crop_width ? p->crop_width : p->width, h = p->crop_height ? p->crop_height : p->height;
  guint size = a->plan.tile_size, patch = a->plan.patch_size, grid = size / patch, cols, rows;
  ref_tiling (w, h, size, max_tiles, &cols, &rows);
  guint n_tiles = cols * rows + (cols * rows > 1);
  if (a->plan.cols != cols || a->plan.rows != rows || a->plan.n_tiles != n_tiles) {
    check_fail (c, "%u x %u tiles, must be %u x %u", a->plan.cols, a->plan.rows, cols, rows);
    return;
  }
  g_autofree guint8 *rgb = g_malloc ((gsize) w * h * 3);
  for (guint y = 0; y < h; y++)
    for (guint x = 0; x < w; x++)
      ref_picture_pixel (p, x, y, rgb + ((gsize) y * w + x) * 3);
  g_autofree guint8 *large = ref_resize (rgb, w, h, size * cols, size * rows), *small = ref_resize (rgb, w, h, size, size);
  g_autofree guint32 *tiles = g_new (guint32, (gsize) n_tiles * size * size);
  gsize n_patches = (gsize) n_tiles * grid * grid, floats = n_patches * a->patches.pitch;
  g_autofree float *patches = check_read (c, a->patches.span);
  g_autofree float *want = g_new (float, a->patches.offset + floats);
  for (gsize i = 0; i < a->patches.offset + floats; i++)
    memcpy (&want[i], &(guint32){ CHECK_PATTERN }, 4);
  static const float mean[] = { 0.485f, 0.456f, 0.406f }, deviation[] = { 0.229f, 0.224f, 0.225f };
  guint k = 3 * patch * patch, k_pad = (k + 7) / 8 * 8;
  for (guint t = 0; t < n_tiles; t++)
    for (guint y = 0; y < size; y++)
      for (guint x = 0; x < size; x++) {
        const guint8 *at = t == cols * rows
                             ? small + ((gsize) y * size + x) * 3
                             : large + ((gsize) (t / cols * size + y) * size * cols + t % cols * size + x) * 3;
        tiles[((gsize) t * size + y) * size + x] = at[0] | (guint32) at[1] << 8 | (guint32) at[2] << 16;
        float *row = want + a->patches.offset + (t * grid * grid + y / patch * grid + x / patch) * (gsize) a->patches.pitch;
        for (guint ch = 0; ch < 3; ch++)
          row[(ch * patch + y % patch) * patch + x % patch] = ((float) at[ch] / 255.f - mean[ch]) / deviation[ch];
        for (guint j = k; j < k_pad; j++)
          row[j] = 0;
      }
  g_autofree guint32 *got = check_read (c, a->tiles);
  check_bytes (c, "tiles", got, tiles, (gsize) n_tiles * size * size * 4);
  check_bytes (c, "patches", patches, want, (a->patches.offset + floats) * 4);
}

static void
run_case (Check *c, Args *args, int texels, const IvlPicture *p, guint size, guint patch, guint max_tiles)
{
  g_autoptr (GError) error = NULL;
  Args a = { .stream = c->stream, .texels = texels };
  if (!ivl_image_plan_init (&a.plan, c->device, p, size, patch, max_tiles, TRUE, &error)) {
    check_fail (c, "%s", error->message);
    return;
  }
  /* Large pictures go in bands: here small ones do, now and then. */
  if (check_below (c, 2))
    a.plan.band_rows = 8;
  gpointer map;
  guint grid = size / patch, pitch = (3 * patch * patch + 7) / 8 * 8 + 4;
  a.upload = check_upload (c, a.plan.upload_bytes, &map);
  a.scratch = check_output (c, NULL, a.plan.scratch_bytes);
  a.tiles = check_output (c, NULL, 4ull * a.plan.n_tiles * size * size);
  a.patches = (IvlRows){ check_output (c, NULL, 4 * (12 + (gsize) a.plan.n_tiles * grid * grid * pitch)), 12, pitch };
  ivl_image_plan_upload (&a.plan, p, map);
  *args = a;
  if (check_run (c, record, args) && !c->bench_only)
    check_tiles (c, args, p, max_tiles);
}

typedef struct {
  IvlVkStream *stream;
  IvlSpan a, b, largest;
  guint n_tiles, size, patch;
} DifferenceArgs;

static void
record_difference (gpointer data)
{
  DifferenceArgs *d = data;
  ivl_image_record_difference (d->stream, d->a, d->b, d->n_tiles, d->size, d->patch, d->largest);
}

static void
check_difference (Check *c)
{
  static const guint sizes[][3] = { { 1, 28, 14 }, { 3, 30, 5 }, { 2, 84, 14 }, { 1, 7, 7 } };
  for (guint s = 0; s < G_N_ELEMENTS (sizes); s++)
    for (guint flavour = 0; flavour < 3; flavour++) {
      static const char *const flavours[] = { "equal", "one sample", "random" };
      guint n_tiles = sizes[s][0], size = sizes[s][1], patch = sizes[s][2], n = n_tiles * size * size;
      if (!check_begin (c, "image_difference", flavours[flavour], "tiles=%u size=%u patch=%u", n_tiles, size, patch))
        continue;
      g_autofree guint32 *a = g_new (guint32, n), *b = g_new (guint32, n), *sums = g_new0 (guint32, n);
      for (guint i = 0; i < n; i++) {
        a[i] = check_random (c) & 0xffffff;
        b[i] = flavour == 2 ? check_random (c) & 0xffffff : a[i];
      }
      if (flavour == 1)
        b[n - 1] ^= 0x80;
      guint32 largest = 0;
      for (guint i = 0; i < n; i++) {
        guint grid = size / patch, tile = i / (size * size), y = i / size % size, x = i % size;
        guint32 *sum = &sums[(tile * grid + y / patch) * grid + x / patch];
        for (guint shift = 0; shift < 24; shift += 8)
          *sum += (guint32) ABS ((int) (a[i] >> shift & 255) - (int) (b[i] >> shift & 255));
        largest = MAX (largest, *sum);
      }
      DifferenceArgs d = { c->stream, check_input (c, a, n * 4), check_input (c, b, n * 4),
                           check_output (c, &(guint32){ 0 }, 4), n_tiles, size, patch };
      if (check_run (c, record_difference, &d)) {
        g_autofree guint32 *got = check_read (c, d.largest);
        check_bytes (c, "largest", got, &largest, 4);
      }
      check_end (c);
    }
}

typedef struct {
  IvlVkStream *stream;
  IvlSpan tiles, histograms;
  guint n_tiles, size;
} LumaArgs;

static void
record_luma (gpointer data)
{
  LumaArgs *l = data;
  ivl_image_record_luma (l->stream, l->tiles, l->n_tiles, l->size, l->histograms);
}

static void
check_luma (Check *c)
{
  static const guint sizes[][2] = { { 1, 28 }, { 3, 30 }, { 2, 84 }, { 1, 7 }, { 1, 4 }, { 1, 448 } };
  static const char *const flavours[] = { "random", "black", "white" };
  for (int texels = 0; texels <= 1; texels++)
    for (guint flavour = 0; flavour < 3; flavour++)
      for (guint s = 0; s < G_N_ELEMENTS (sizes); s++) {
        guint n_tiles = sizes[s][0], size = sizes[s][1], n = n_tiles * size * size;
        guint n_bins = n_tiles * IVL_LUMA_BLOCKS * IVL_LUMA_BLOCKS * IVL_LUMA_BINS;
        if (!check_begin (c, texels ? "image_luma_texel" : "image_luma_buffer", flavours[flavour], "tiles=%u size=%u",
                          n_tiles, size))
          continue;
        g_autofree guint32 *tiles = g_new (guint32, n + 3), *want = g_new0 (guint32, n_bins);
        for (guint i = 0; i < n; i++)
          tiles[i] = flavour == 0 ? check_random (c) & 0xffffff : flavour == 1 ? 0 : 0xffffff;
        ref_luma (tiles, n_tiles, size, want);
        guint32 *most = &c->device->properties.limits.maxTexelBufferElements, limit = *most;
        if (!texels)
          *most = 0;
        LumaArgs l = { c->stream, check_input (c, tiles, (n + 3) / 4 * 16), check_output (c, NULL, n_bins * 4), n_tiles, size };
        if (check_run (c, record_luma, &l)) {
          g_autofree guint32 *got = check_read (c, l.histograms);
          check_bytes (c, "histograms", got, want, n_bins * 4);
        }
        *most = limit;
        check_end (c);
      }

  /* All black against all white, and a pixel of many. */
  if (!check_begin (c, "image_luma", "difference", "size=8"))
    return;
  guint32 *pictures[3];
  guint32 black[64] = { 0 }, white[64], one[64] = { 0xffffff };
  for (guint i = 0; i < 64; i++)
    white[i] = 0xffffff;
  const guint32 *const tiles[3] = { black, white, one };
  for (guint i = 0; i < 3; i++) {
    pictures[i] = g_new0 (guint32, IVL_LUMA_BLOCKS * IVL_LUMA_BLOCKS * IVL_LUMA_BINS);
    ref_luma (tiles[i], 1, 8, pictures[i]);
  }
  double differences[] = { ivl_image_luma_difference (pictures[0], pictures[0], 1, 8),
                           ivl_image_luma_difference (pictures[0], pictures[1], 1, 8),
                           ivl_image_luma_difference (pictures[2], pictures[0], 1, 8) };
  if (differences[0] != 0 || differences[1] != 1 || differences[2] != 1. / 64)
    check_fail (c, "differences %g, %g, %g; must be 0, 1, 1/64", differences[0], differences[1], differences[2]);
  for (guint i = 0; i < 3; i++)
    g_free (pictures[i]);
  check_end (c);
}

/* Wrong pictures must be refused with an error, before anything is read. */
static void
check_refusals (Check *c)
{
  if (!check_begin (c, "image_plan", "refusals", "1x1"))
    return;
  static const guint8 pixel[3];
  IvlPicture good;
  ivl_picture_init_rgb (&good, pixel, 1, 1, 3);
  for (guint i = 0; i < 16; i++) {
    IvlPicture p = good;
    guint max_tiles = 1;
    switch (i) {
    case 0: p.width = 0; break;
    case 1: p.height = 0; break;
    case 2: p.width = 16385; break;
    case 3: p.height = G_MAXUINT; break;
    case 4: p.planes[0].row_bytes = 2; break;
    case 5: p.planes[0].rows = 0; break;
    case 6: p.planes[0].data = NULL; break;
    case 7: p.n_planes = 0; break;
    case 8: p.n_planes = 5; break;
    case 9: p.components[1].plane = 1; break;
    case 10: p.components[2].depth = 9; break;
    case 11: p.components[0].bytes = 3; break;
    case 12: p.crop_x = 1; break;
    case 13: p.crop_width = G_MAXUINT, p.crop_height = 1, p.crop_x = 0; break;
    case 14: p.matrix[1][1] = NAN; break;
    case 15: max_tiles = 0; break;
    }
    g_autoptr (GError) error = NULL;
    IvlImagePlan plan;
    if (ivl_image_plan_init (&plan, c->device, &p, 448, 14, max_tiles, TRUE, &error)
        || !g_error_matches (error, IVL_ERROR, IVL_ERROR_BAD_ARGUMENT))
      check_fail (c, "wrong picture %u was taken", i);
  }
  check_end (c);
}

/* Colours whose codes are known: black, white and red of both ranges. */
static void
check_matrices (Check *c)
{
  static const struct { double kr, kb; gboolean full; guint depth; guint codes[3]; guint8 rgb[3]; } cases[] = {
    { 0.2126, 0.0722, FALSE, 8, { 16, 128, 128 }, { 0, 0, 0 } },
    { 0.2126, 0.0722, FALSE, 8, { 235, 128, 128 }, { 255, 255, 255 } },
    { 0.2126, 0.0722, FALSE, 10, { 940, 512, 512 }, { 255, 255, 255 } },
    { 0.299, 0.114, FALSE, 8, { 81, 90, 240 }, { 254, 0, 0 } },
    { 0.299, 0.114, TRUE, 8, { 76, 85, 255 }, { 254, 0, 0 } },
    { 0.299, 0.114, TRUE, 8, { 0, 128, 128 }, { 0, 0, 0 } },
    { 0.2627, 0.0593, TRUE, 16, { 65535, 32768, 32768 }, { 255, 255, 255 } },
    { 0.2126, 0.0722, FALSE, 8, { 63, 102, 240 }, { 255, 0, 0 } },
  };
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    if (!check_begin (c, "image_matrix", "yuv", "%u", i))
      continue;
    IvlPicture p;
    guint8 samples[6], rgb[3];
    ivl_picture_init_rgb (&p, samples, 1, 1, 6);
    for (guint j = 0; j < 3; j++) {
      p.components[j].bytes = 2;
      p.components[j].offset = (guint8) (2 * j);
      p.components[j].depth = (guint8) cases[i].depth;
      samples[2 * j] = (guint8) cases[i].codes[j];
      samples[2 * j + 1] = (guint8) (cases[i].codes[j] >> 8);
    }
    ivl_picture_set_yuv_matrix (&p, cases[i].kr, cases[i].kb, cases[i].full, cases[i].depth);
    ref_picture_pixel (&p, 0, 0, rgb);
    for (guint j = 0; j < 3; j++)
      if (ABS (rgb[j] - cases[i].rgb[j]) > 1)
        check_fail (c, "code %u, %u, %u is %u, %u, %u", cases[i].codes[0], cases[i].codes[1], cases[i].codes[2], rgb[0],
                    rgb[1], rgb[2]);
    check_end (c);
  }
}

static void
check_frames (Check *c)
{
  static const struct { guint frames; double fps, start, end; guint n, want[16]; } cases[] = {
    { 300, 30, -1e5, 1e5, 8, { 18, 55, 93, 130, 168, 205, 242, 280 } },
    { 500, 25, 2, 7.5, 8, { 58, 75, 92, 110, 127, 144, 162, 179 } },
    { 10, 30, -HUGE_VAL, HUGE_VAL, 16, { 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 6, 6, 7, 7, 8, 8 } },
    { 1, 30, -1e5, 1e5, 2, { 0, 0 } },
  };
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    if (!check_begin (c, "frames", "choose", "%u of %u", cases[i].n, cases[i].frames))
      continue;
    guint got[16];
    ivl_frames_choose (cases[i].frames, cases[i].fps, cases[i].start, cases[i].end, cases[i].n, got);
    check_bytes (c, "indices", got, cases[i].want, cases[i].n * sizeof *got);
    check_end (c);
  }
}

void
check_image (Check *c)
{
  /* Squashed and tiled; one side kept, so that a pass changes nothing; patches that don't fill their columns. */
  static const struct { guint w, h, size, patch, max_tiles; } sizes[] = {
    { 1, 1, 28, 14, 1 },  { 37, 53, 56, 14, 1 },   { 56, 31, 56, 14, 1 }, { 301, 64, 28, 14, 6 },
    { 90, 123, 30, 5, 12 }, { 223, 150, 84, 14, 12 }, { 5, 400, 42, 6, 4 }, { 112, 112, 112, 14, 1 },
  };
  for (int texels = 0; texels <= 1; texels++) {
    const char *kernel = texels ? "image_texel" : "image_buffer";
    if (texels && c->device->properties.limits.maxTexelBufferElements < 1u << 20) {
      check_skip (c, kernel, "*", "the device takes few texels");
      continue;
    }
    for (guint l = 0; l < G_N_ELEMENTS (layouts); l++)
      for (guint s = 0; s < G_N_ELEMENTS (sizes); s++)
        for (guint crop = 0; crop <= 1; crop++) {
          gboolean bottom_up = (l + s) % 3 == 0;
          if (!check_begin (c, kernel, layouts[l].name, "%ux%u%s%s size=%u patch=%u tiles<=%u", sizes[s].w, sizes[s].h,
                            crop ? " of a larger one" : "", bottom_up ? " bottom-up" : "", sizes[s].size, sizes[s].patch,
                            sizes[s].max_tiles))
            continue;
          g_autoptr (GPtrArray) storage = g_ptr_array_new_with_free_func (g_free);
          IvlPicture p;
          guint left = crop ? 1 + check_below (c, 9) : 0, top = crop ? 1 + check_below (c, 9) : 0;
          make_picture (c, &layouts[l], sizes[s].w + 2 * left, sizes[s].h + top, bottom_up, &p, storage);
          if (crop) {
            p.crop_x = left;
            p.crop_y = top;
            p.crop_width = sizes[s].w;
            p.crop_height = sizes[s].h;
          }
          /* The fifth size on a device whose buffers can't hold it in one piece. */
          guint32 *range = &c->device->properties.limits.maxStorageBufferRange, limit = *range;
          if (s == 4)
            *range = 50 << 10;
          Args a;
          run_case (c, &a, texels, &p, sizes[s].size, sizes[s].patch, sizes[s].max_tiles);
          *range = limit;
          check_end (c);
        }
    static const struct { guint w, h, max_tiles; const char *layout; } timed[] = {
      { 640, 360, 1, "I420" }, { 1920, 1080, 1, "NV12" }, { 1920, 1080, 12, "RGB" }, { 3840, 2160, 1, "P010_10LE" },
    };
    for (guint i = 0; i < G_N_ELEMENTS (timed); i++)
      for (guint l = 0; l < G_N_ELEMENTS (layouts); l++)
        if (strcmp (layouts[l].name, timed[i].layout) == 0
            && check_begin_bench (c, kernel, timed[i].layout, "%ux%u tiles<=%u", timed[i].w, timed[i].h,
                                  timed[i].max_tiles)) {
          g_autoptr (GPtrArray) storage = g_ptr_array_new_with_free_func (g_free);
          IvlPicture p;
          make_picture (c, &layouts[l], timed[i].w, timed[i].h, FALSE, &p, storage);
          Args a;
          run_case (c, &a, texels, &p, 448, 14, timed[i].max_tiles);
          check_end (c);
        }
  }
  check_difference (c);
  check_luma (c);
  check_refusals (c);
  check_matrices (c);
  check_frames (c);
}
