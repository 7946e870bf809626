/* Pictures to tiles and patches against the reference's preprocessing: grids, tiles byte by byte, normalised values bit
 * by bit. (tests/kernels checks every sample format against a C reference; this one is the real one.) */
#include "golden.h"

#include "kernels/image.h"
#include "image/tiling.h"

#include <string.h>

typedef struct {
  IvlDevice *device;
  IvlVkStream *stream;
  JsonParser *parser;
  JsonObject *root;
  IvlSafetensors *values;
} Fixture;

static void
set_up (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  f->device = ivl_device_open (NULL, &error);
  g_assert_no_error (error);
  f->stream = ivl_vk_stream_new (f->device, &error);
  g_assert_no_error (error);
  g_autofree char *json = golden_path ("preprocess.json", NULL);
  f->parser = json_parser_new ();
  json_parser_load_from_file (f->parser, json, &error);
  g_assert_no_error (error);
  f->root = json_node_get_object (json_parser_get_root (f->parser));
  f->values = golden_values ("preprocess.safetensors");
}

static void
tear_down (Fixture *f, gconstpointer data)
{
  ivl_safetensors_free (f->values);
  g_object_unref (f->parser);
  ivl_vk_stream_free (f->stream);
  ivl_device_unref (f->device);
}

/* TILES: U8 [n_tiles, size, size, 3]; PATCHES: f32 [n_tiles * grid^2, pitch]. */
static guint
make_tiles (Fixture *f, const guint8 *rgb, guint width, guint height, guint size, guint max_tiles, guint8 **tiles,
            float **patches, guint *pitch)
{
  g_autoptr (GError) error = NULL;
  IvlPicture picture;
  ivl_picture_init_rgb (&picture, rgb, width, height, 3 * width);
  IvlImagePlan plan;
  enum { PATCH = 14 };
  ivl_image_plan_init (&plan, f->device, &picture, size, PATCH, max_tiles, TRUE, &error);
  g_assert_no_error (error);
  *pitch = (3 * PATCH * PATCH + 7) / 8 * 8;
  gsize pixels = (gsize) plan.n_tiles * size * size, floats = (gsize) plan.n_tiles * (size / PATCH) * (size / PATCH) * *pitch;
  g_autoptr (IvlVkBuffer) upload = ivl_vk_buffer_new (f->device, IVL_VK_UPLOAD, plan.upload_bytes, &error);
  g_autoptr (IvlVkBuffer) scratch = ivl_vk_buffer_new (f->device, IVL_VK_DEVICE, plan.scratch_bytes, &error);
  g_autoptr (IvlVkBuffer) out = ivl_vk_buffer_new (f->device, IVL_VK_DEVICE, 4 * floats, &error);
  g_autoptr (IvlVkBuffer) levels = ivl_vk_buffer_new (f->device, IVL_VK_DEVICE, 4 * pixels, &error);
  g_assert_no_error (error);
  ivl_image_plan_upload (&plan, &picture, upload->map);
  ivl_vk_buffer_flush (upload);
  ivl_vk_begin (f->stream, &error);
  IvlSpan levels_span = { levels, 0, levels->size }, out_span = { out, 0, out->size };
  ivl_image_record (f->stream, &plan, (IvlSpan){ upload, 0, upload->size }, (IvlSpan){ scratch, 0, scratch->size },
                    &levels_span, ivl_rows (out_span, *pitch));
  ivl_vk_run (f->stream, &error);
  g_assert_no_error (error);
  g_autofree guint32 *packed = g_new (guint32, pixels);
  ivl_vk_read (f->stream, levels_span, packed, 4 * pixels, &error);
  g_assert_no_error (error);
  *tiles = g_malloc (3 * pixels);
  for (gsize i = 0; i < pixels; i++)
    for (guint c = 0; c < 3; c++)
      (*tiles)[3 * i + c] = (guint8) (packed[i] >> 8 * c);
  *patches = g_new (float, floats);
  ivl_vk_read (f->stream, out_span, *patches, 4 * floats, &error);
  g_assert_no_error (error);
  guint n = plan.n_tiles;
  ivl_image_plan_deinit (&plan);
  return n;
}

/* Every patch is its tile's levels through the reference's table, bit by bit, and zero behind. */
static void
check_patches (Fixture *f, const char *what, const guint8 *tiles, const float *patches, guint n_tiles, guint size, guint pitch)
{
  IvlTensorView view;
  g_assert_true (ivl_safetensors_lookup (f->values, "levels", &view));
  g_autofree float *levels = g_memdup2 (view.data, view.bytes);
  guint grid = size / 14;
  for (guint t = 0; t < n_tiles; t++)
    for (guint p = 0; p < grid * grid; p++) {
      const float *row = patches + ((gsize) t * grid * grid + p) * pitch;
      for (guint k = 0; k < pitch; k++) {
        float want = 0.f;
        if (k < 3 * 14 * 14) {
          guint c = k / (14 * 14), y = p / grid * 14 + k / 14 % 14, x = p % grid * 14 + k % 14;
          want = levels[c * 256 + tiles[(((gsize) t * size + y) * size + x) * 3 + c]];
        }
        if (memcmp (&want, &row[k], 4) != 0)
          g_error ("%s: tile %u, patch %u, element %u is %.9g, not %.9g", what, t, p, k, row[k], want);
      }
    }
}

static void
check_one (Fixture *f, const char *what, const guint8 *rgb, guint width, guint height, JsonObject *o)
{
  guint size = (guint) json_object_get_int_member (o, "tile_size"), pitch;
  g_autofree guint8 *tiles = NULL;
  g_autofree float *patches = NULL;
  guint n = make_tiles (f, rgb, width, height, size, (guint) json_object_get_int_member (o, "max_tiles"), &tiles,
                        &patches, &pitch);
  g_assert_cmpuint (n, ==, json_object_get_int_member (o, "tiles"));
  g_autofree char *digest = g_compute_checksum_for_data (G_CHECKSUM_SHA256, tiles, (gsize) n * size * size * 3);
  if (strcmp (digest, json_object_get_string_member (o, "sha256")) != 0)
    g_error ("%s: tiles differ from the reference's", what);
  check_patches (f, what, tiles, patches, n, size, pitch);
}

static void
test_digests (Fixture *f, gconstpointer data)
{
  JsonArray *digests = json_object_get_array_member (f->root, "digests");
  g_assert_cmpuint (json_array_get_length (digests), >, 50);
  for (guint i = 0; i < json_array_get_length (digests); i++) {
    JsonObject *o = json_array_get_object_element (digests, i);
    const char *name = json_object_get_string_member (o, "picture");
    guint width, height;
    g_autofree guint8 *rgb = golden_picture (name, &width, &height);
    g_autofree char *what = g_strdup_printf ("%s, at most %u tiles of %u", name,
                                             (guint) json_object_get_int_member (o, "max_tiles"),
                                             (guint) json_object_get_int_member (o, "tile_size"));
    check_one (f, what, rgb, width, height, o);
  }
}

static void
test_formula (Fixture *f, gconstpointer data)
{
  JsonArray *array = json_object_get_array_member (f->root, "formula");
  for (guint i = 0; i < json_array_get_length (array); i++) {
    JsonObject *o = json_array_get_object_element (array, i);
    guint width = (guint) json_object_get_int_member (o, "width"), height = (guint) json_object_get_int_member (o, "height");
    g_autofree guint8 *rgb = golden_formula (width, height);
    g_autofree char *what = g_strdup_printf ("%u x %u", width, height);
    check_one (f, what, rgb, width, height, o);
  }
}

/* The tensors themselves, for the few that are stored. */
static void
test_values (Fixture *f, gconstpointer data)
{
  IvlTensorView want;
  g_assert_true (ivl_safetensors_lookup (f->values, "odd37x53.1.84.pixel_values", &want));
  guint width, height, pitch;
  g_autofree guint8 *rgb = golden_picture ("odd37x53", &width, &height);
  g_autofree guint8 *tiles = NULL;
  g_autofree float *patches = NULL;
  make_tiles (f, rgb, width, height, 84, 1, &tiles, &patches, &pitch);
  for (guint c = 0; c < 3; c++)
    for (guint y = 0; y < 84; y++)
      for (guint x = 0; x < 84; x++) {
        guint patch = y / 14 * 6 + x / 14, k = c * 196 + y % 14 * 14 + x % 14;
        g_assert_cmpmem (patches + (gsize) patch * pitch + k, 4,
                         (const guint8 *) want.data + 4 * ((c * 84 + y) * 84 + x), 4);
      }
  g_assert_true (ivl_safetensors_lookup (f->values, "odd37x53.1.84.tiles", &want));
  g_assert_cmpmem (tiles, 84 * 84 * 3, want.data, want.bytes);
}

static void
test_grids (Fixture *f, gconstpointer data)
{
  JsonArray *grids = json_object_get_array_member (f->root, "grids_448");
  g_assert_cmpuint (json_array_get_length (grids), >, 1000);
  for (guint i = 0; i < json_array_get_length (grids); i++) {
    JsonArray *g = json_array_get_array_element (grids, i);
    guint v[5];
    for (guint k = 0; k < 5; k++)
      v[k] = (guint) json_array_get_int_element (g, k);
    IvlTiling tiling = ivl_tiling_choose (v[0], v[1], 448, v[2]);
    if (tiling.cols != v[3] || tiling.rows != v[4])
      g_error ("%u x %u, at most %u tiles: %u x %u, the reference has %u x %u", v[0], v[1], v[2], tiling.cols, tiling.rows,
               v[3], v[4]);
  }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add ("/pictures/grids", Fixture, NULL, set_up, test_grids, tear_down);
  g_test_add ("/pictures/values", Fixture, NULL, set_up, test_values, tear_down);
  g_test_add ("/pictures/digests", Fixture, NULL, set_up, test_digests, tear_down);
  g_test_add ("/pictures/formula", Fixture, NULL, set_up, test_formula, tear_down);
  return g_test_run ();
}
