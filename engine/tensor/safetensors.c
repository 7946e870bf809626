/* The container: u64 little-endian header size N, N bytes of JSON, data. The JSON maps a tensor's name to its dtype,
 * shape and data_offsets [begin, end) counted from the end of the header; "__metadata__" is no tensor. */
#include "tensor/safetensors.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"

/* The header of the largest model of the family, in one file, is below 400 KB; its index below 200 KB. */
#define MAX_HEADER_BYTES (16u << 20)
#define MAX_INDEX_BYTES (16u << 20)
#define MAX_SHARDS 1024
#define MAX_NAME_BYTES 512

#define SINGLE_FILE "model.safetensors"
#define INDEX_FILE "model.safetensors.index.json"

typedef struct {
  char *name;
  int fd; /* -1 for a file in memory */
  guint64 size;
  GMappedFile *map;
  GBytes *bytes;
  const guint8 *data; /* behind the header */
  guint64 data_bytes;
} Shard;

struct IvlSafetensors {
  GPtrArray *shards;     /* of Shard, owned */
  GArray *tensors;       /* of IvlTensorView, by shard and place */
  GHashTable *by_name;   /* name -> index + 1 */
  GStringChunk *strings; /* names that the views borrow */
  const char *source;
};

static void
shard_free (gpointer data)
{
  Shard *shard = data;
  g_clear_pointer (&shard->map, g_mapped_file_unref);
  g_clear_pointer (&shard->bytes, g_bytes_unref);
  if (shard->fd >= 0)
    close (shard->fd);
  g_free (shard->name);
  g_free (shard);
}

static IvlSafetensors *
safetensors_alloc (const char *source)
{
  IvlSafetensors *self = g_new0 (IvlSafetensors, 1);
  self->shards = g_ptr_array_new_with_free_func (shard_free);
  self->tensors = g_array_new (FALSE, FALSE, sizeof (IvlTensorView));
  self->by_name = g_hash_table_new (g_str_hash, g_str_equal);
  self->strings = g_string_chunk_new (4096);
  self->source = g_string_chunk_insert (self->strings, source);
  return self;
}

void
ivl_safetensors_free (IvlSafetensors *self)
{
  if (!self)
    return;
  g_hash_table_unref (self->by_name);
  g_array_unref (self->tensors);
  g_ptr_array_unref (self->shards);
  g_string_chunk_free (self->strings);
  g_free (self);
}

char *
ivl_tensor_shape_string (const guint64 *shape, guint n_dims)
{
  if (n_dims == 0)
    return g_strdup ("scalar");
  GString *text = g_string_new (NULL);
  for (guint i = 0; i < n_dims; i++)
    g_string_append_printf (text, "%s%" G_GUINT64_FORMAT, i ? "x" : "", shape[i]);
  return g_string_free (text, FALSE);
}

/* ---- header ---- */

typedef struct {
  const Shard *shard;
  GHashTable *wanted; /* tensor -> shard's name, or NULL: all of them */
  GArray *views;
  GStringChunk *strings;
  GError **error;
  gboolean ok;
} Header;

G_GNUC_PRINTF (3, 4)
static void
refuse (Header *header, const char *tensor, const char *format, ...)
{
  va_list args;
  va_start (args, format);
  g_autofree char *cause = g_strdup_vprintf (format, args);
  va_end (args);
  header->ok = ivl_fail (header->error, IVL_ERROR_BAD_MODEL, "%s: %s%s%s", header->shard->name, tensor ? tensor : "",
                         tensor ? ": " : "", cause);
}

/* The value of an array's element if it is an integer, not negative. */
static gboolean
get_size (JsonArray *array, guint i, guint64 *size)
{
  JsonNode *node = json_array_get_element (array, i);
  if (json_node_get_value_type (node) != G_TYPE_INT64 || json_node_get_int (node) < 0)
    return FALSE;
  *size = (guint64) json_node_get_int (node);
  return TRUE;
}

static JsonNode *
get_member (JsonObject *object, const char *key, JsonNodeType type)
{
  JsonNode *node = json_object_get_member (object, key);
  return node && json_node_get_node_type (node) == type ? node : NULL;
}

/* Element sizes of the whole format, so that tensors that are never computed with are checked as well. An unknown
 * type gets 0. */
static gsize
element_bytes (const char *dtype)
{
  static const struct {
    const char *name;
    gsize bytes;
  } types[] = {
    { "F32", 4 }, { "F16", 2 }, { "BF16", 2 }, { "F64", 8 }, { "I64", 8 }, { "U64", 8 }, { "I32", 4 }, { "U32", 4 },
    { "I16", 2 }, { "U16", 2 }, { "I8", 1 }, { "U8", 1 }, { "BOOL", 1 }, { "F8_E4M3", 1 }, { "F8_E5M2", 1 },
    { "F8_E8M0", 1 }, { "C64", 8 },
  };
  for (guint i = 0; i < G_N_ELEMENTS (types); i++)
    if (g_str_equal (types[i].name, dtype))
      return types[i].bytes;
  return 0;
}

static gboolean
valid_name (const char *name)
{
  gsize n = 0;
  for (; name[n]; n++)
    if ((guchar) name[n] < 0x20 || name[n] == 0x7f || n >= MAX_NAME_BYTES)
      return FALSE;
  return n > 0;
}

static void
read_entry (JsonObject *object, const char *name, JsonNode *node, gpointer data)
{
  Header *header = data;
  const Shard *shard = header->shard;
  if (!header->ok || g_str_equal (name, "__metadata__"))
    return;
  if (!valid_name (name)) {
    refuse (header, NULL, "a tensor's name is empty, has more than %d bytes or holds control characters",
            MAX_NAME_BYTES);
    return;
  }
  if (!JSON_NODE_HOLDS_OBJECT (node)) {
    refuse (header, name, "its entry in the header isn't an object");
    return;
  }
  JsonObject *entry = json_node_get_object (node);
  JsonNode *dtype = get_member (entry, "dtype", JSON_NODE_VALUE);
  JsonNode *shape = get_member (entry, "shape", JSON_NODE_ARRAY);
  JsonNode *offsets = get_member (entry, "data_offsets", JSON_NODE_ARRAY);
  if (!dtype || json_node_get_value_type (dtype) != G_TYPE_STRING || !shape || !offsets) {
    refuse (header, name, "dtype, shape or data_offsets is missing from the header or of a wrong type");
    return;
  }

  const char *type = json_node_get_string (dtype);
  if (!valid_name (type) || strlen (type) > 32) {
    refuse (header, name, "its dtype is no name");
    return;
  }
  IvlTensorView view = { .file = shard->name, .dtype = IVL_TENSOR_OTHER };
  for (IvlTensorDtype i = IVL_TENSOR_F32; i < IVL_TENSOR_OTHER; i++)
    if (g_str_equal (type, ivl_tensor_dtype_name (i)))
      view.dtype = i;

  JsonArray *dims = json_node_get_array (shape);
  view.n_dims = json_array_get_length (dims);
  if (view.n_dims > IVL_TENSOR_MAX_DIMS) {
    refuse (header, name, "%u dimensions, at most %d can be", view.n_dims, IVL_TENSOR_MAX_DIMS);
    return;
  }
  gsize size = element_bytes (type);
  guint64 bytes = MAX (size, 1);
  gboolean fits = TRUE, empty = FALSE;
  for (guint i = 0; i < view.n_dims; i++) {
    if (!get_size (dims, i, &view.shape[i])) {
      refuse (header, name, "dimension %u of its shape isn't a size", i);
      return;
    }
    empty |= view.shape[i] == 0;
    fits = fits && (view.shape[i] == 0 || g_uint64_checked_mul (&bytes, bytes, view.shape[i]));
  }
  if (empty)
    bytes = 0;
  g_autofree char *shape_text = ivl_tensor_shape_string (view.shape, view.n_dims);
  if (!fits) {
    refuse (header, name, "shape %s overflows", shape_text);
    return;
  }

  JsonArray *range = json_node_get_array (offsets);
  guint64 begin, end;
  if (json_array_get_length (range) != 2 || !get_size (range, 0, &begin) || !get_size (range, 1, &end)
      || begin > end) {
    refuse (header, name, "its data_offsets aren't a range");
    return;
  }
  if (end > shard->data_bytes) {
    refuse (header, name, "bytes %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT " lie outside the file, which has %"
            G_GUINT64_FORMAT " of data: truncated or corrupt, download it again", begin, end, shard->data_bytes);
    return;
  }
  if (size && end - begin != bytes) {
    refuse (header, name, "shape %s of %s needs %" G_GUINT64_FORMAT " bytes, the header gives it %" G_GUINT64_FORMAT,
            shape_text, type, bytes, end - begin);
    return;
  }
  if (header->wanted && g_strcmp0 (g_hash_table_lookup (header->wanted, name), shard->name) != 0)
    return;
  view.name = g_string_chunk_insert (header->strings, name);
  view.dtype_name = g_string_chunk_insert_const (header->strings, type);
  view.data = shard->data + begin;
  view.bytes = (gsize) (end - begin);
  g_array_append_val (header->views, view);
}

static int
by_place (gconstpointer a, gconstpointer b)
{
  const IvlTensorView *x = a, *y = b;
  if (x->data != y->data)
    return x->data < y->data ? -1 : 1;
  /* Empty ones first, so that the one behind starts where they end. */
  return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

/* SHARD has its data set. JSON is not kept. */
static gboolean
read_header (IvlSafetensors *self, const Shard *shard, const char *json, gsize json_bytes, GHashTable *wanted,
             GError **error)
{
  g_autoptr (JsonObject) root = ivl_json_parse_object (shard->name, json, json_bytes, error);
  if (!root)
    return FALSE;
  g_autoptr (GArray) views = g_array_new (FALSE, FALSE, sizeof (IvlTensorView));
  Header header = { shard, wanted, views, self->strings, error, TRUE };
  json_object_foreach_member (root, read_entry, &header);
  if (!header.ok)
    return FALSE;

  g_array_sort (views, by_place);
  for (guint i = 0; i < views->len; i++) {
    const IvlTensorView *view = &g_array_index (views, IvlTensorView, i);
    const IvlTensorView *last = i ? view - 1 : NULL;
    if (last && (const guint8 *) last->data + last->bytes > (const guint8 *) view->data)
      return ivl_fail (error, IVL_ERROR_BAD_MODEL, "%s: %s and %s overlap: corrupt", shard->name, last->name, view->name);
    /* JSON keys are unique, and an index gives a tensor to one shard. */
    g_hash_table_insert (self->by_name, (gpointer) view->name, GUINT_TO_POINTER (self->tensors->len + i + 1));
  }
  g_array_append_vals (self->tensors, views->data, views->len);
  return TRUE;
}

/* The header's size out of the first eight bytes. */
static gboolean
check_header_size (const char *name, const guint8 *first, guint64 file_size, guint64 *header_bytes, GError **error)
{
  guint64 n;
  if (memcmp (first, "version ", 8) == 0)
    return ivl_fail (error, IVL_ERROR_BAD_MODEL, "%s: a Git LFS pointer, not the weights: fetch them with \"git lfs pull\"", name);
  memcpy (&n, first, sizeof n);
  n = GUINT64_FROM_LE (n);
  if (n < 2 || n > file_size - 8)
    return ivl_fail (error, IVL_ERROR_BAD_MODEL,
                     "%s: a header of %" G_GUINT64_FORMAT " bytes in a file of %" G_GUINT64_FORMAT
                     ": truncated, or not safetensors; download it again", name, n, file_size);
  if (n > MAX_HEADER_BYTES)
    return ivl_fail (error, IVL_ERROR_BAD_MODEL, "%s: a header of %" G_GUINT64_FORMAT " bytes, more than %u: corrupt",
                     name, n, MAX_HEADER_BYTES);
  *header_bytes = n;
  return TRUE;
}

static gboolean
check_file_size (const char *name, guint64 size, GError **error)
{
  if (size >= 8)
    return TRUE;
  return ivl_fail (error, IVL_ERROR_BAD_MODEL, "%s: %" G_GUINT64_FORMAT
                   " bytes are too few for a safetensors file; download it again", name, size);
}

static gboolean
open_shard (IvlSafetensors *self, const char *folder, const char *name, GHashTable *wanted, GError **error)
{
  guint64 size, header_bytes;
  guint8 first[8];
  int fd = ivl_file_open (folder, name, &size, error);
  if (fd < 0)
    return FALSE;
  Shard *shard = g_new0 (Shard, 1);
  g_ptr_array_add (self->shards, shard);
  shard->name = g_strdup (name);
  shard->fd = fd;
  shard->size = size;
  if (!check_file_size (name, size, error) || !ivl_file_pread (fd, name, first, sizeof first, 0, error)
      || !check_header_size (name, first, size, &header_bytes, error))
    return FALSE;
  g_autofree char *json = g_malloc (header_bytes);
  if (!ivl_file_pread (fd, name, json, header_bytes, 8, error))
    return FALSE;

  g_autoptr (GError) inner = NULL;
  shard->map = g_mapped_file_new_from_fd (fd, FALSE, &inner);
  if (!shard->map)
    return ivl_fail (error, IVL_ERROR_IO, "%s: %s", name, inner->message);
  if (g_mapped_file_get_length (shard->map) != size)
    return ivl_fail (error, IVL_ERROR_IO, "%s: changed while it was opened", name);
  shard->data = (const guint8 *) g_mapped_file_get_contents (shard->map) + 8 + header_bytes;
  shard->data_bytes = size - 8 - header_bytes;
  return read_header (self, shard, json, header_bytes, wanted, error);
}

/* ---- index ---- */

/* The name of a file beside the index, and nothing that leads elsewhere. */
static gboolean
valid_shard_name (const char *name)
{
  return valid_name (name) && strlen (name) <= 255 && name[0] != '.' && !strpbrk (name, "/\\") && !strstr (name, "..")
         && g_str_has_suffix (name, ".safetensors");
}

typedef struct {
  GHashTable *map;    /* tensor -> shard; strings of the JSON */
  GHashTable *shards; /* set */
  GError **error;
  gboolean ok;
} Index;

static void
read_index_entry (JsonObject *object, const char *name, JsonNode *node, gpointer data)
{
  Index *index = data;
  if (!index->ok)
    return;
  if (!valid_name (name))
    index->ok = ivl_fail (index->error, IVL_ERROR_BAD_MODEL, INDEX_FILE ": a tensor's name is empty, has more than %d "
                          "bytes or holds control characters", MAX_NAME_BYTES);
  else if (json_node_get_value_type (node) != G_TYPE_STRING || !valid_shard_name (json_node_get_string (node)))
    index->ok = ivl_fail (index->error, IVL_ERROR_BAD_MODEL,
                          INDEX_FILE ": %s: its shard must be the plain name of a .safetensors file", name);
  else {
    g_hash_table_insert (index->map, (gpointer) name, (gpointer) json_node_get_string (node));
    g_hash_table_add (index->shards, (gpointer) json_node_get_string (node));
  }
}

static gboolean
open_sharded (IvlSafetensors *self, const char *folder, GError **error)
{
  g_autoptr (GBytes) text = ivl_file_read (folder, INDEX_FILE, MAX_INDEX_BYTES, error);
  if (!text)
    return FALSE;
  g_autoptr (JsonObject) root
    = ivl_json_parse_object (INDEX_FILE, g_bytes_get_data (text, NULL), g_bytes_get_size (text), error);
  if (!root)
    return FALSE;
  JsonNode *weight_map = get_member (root, "weight_map", JSON_NODE_OBJECT);
  if (!weight_map)
    return ivl_fail (error, IVL_ERROR_BAD_MODEL, INDEX_FILE ": weight_map is missing or not an object");

  g_autoptr (GHashTable) map = g_hash_table_new (g_str_hash, g_str_equal);
  g_autoptr (GHashTable) set = g_hash_table_new (g_str_hash, g_str_equal);
  Index index = { map, set, error, TRUE };
  json_object_foreach_member (json_node_get_object (weight_map), read_index_entry, &index);
  if (!index.ok)
    return FALSE;
  if (g_hash_table_size (set) > MAX_SHARDS)
    return ivl_fail (error, IVL_ERROR_BAD_MODEL, INDEX_FILE ": %u shards, at most %d can be", g_hash_table_size (set),
                     MAX_SHARDS);

  g_autofree char *shown = g_filename_display_name (folder);
  g_autoptr (GList) shards = g_list_sort (g_hash_table_get_keys (set), (GCompareFunc) strcmp);
  guint n = 0, n_shards = g_list_length (shards);
  for (GList *l = shards; l; l = l->next) {
    n++;
    if (!ivl_file_exists (folder, l->data))
      return ivl_fail (error, IVL_ERROR_BAD_MODEL, "%s: missing from %s (shard %u of %u by " INDEX_FILE
                       "); download it", (const char *) l->data, shown, n, n_shards);
    if (!open_shard (self, folder, l->data, map, error))
      return FALSE;
  }

  GHashTableIter iter;
  gpointer name, shard;
  g_hash_table_iter_init (&iter, map);
  while (g_hash_table_iter_next (&iter, &name, &shard))
    if (!g_hash_table_contains (self->by_name, name))
      return ivl_fail (error, IVL_ERROR_BAD_MODEL, "%s: %s is missing, though " INDEX_FILE " has it there",
                       (const char *) shard, (const char *) name);
  return TRUE;
}

/* ---- interface ---- */

IvlSafetensors *
ivl_safetensors_open (const char *folder, GError **error)
{
  gboolean single = ivl_file_exists (folder, SINGLE_FILE);
  g_autoptr (IvlSafetensors) self = safetensors_alloc (single ? SINGLE_FILE : INDEX_FILE);
  if (!single && !ivl_file_exists (folder, INDEX_FILE)) {
    g_autofree char *shown = g_filename_display_name (folder);
    gboolean pickled = ivl_file_exists (folder, "pytorch_model.bin")
                       || ivl_file_exists (folder, "pytorch_model.bin.index.json");
    if (pickled)
      ivl_fail (error, IVL_ERROR_UNSUPPORTED, "%s holds its weights as pytorch_model.bin; only safetensors are read: "
                "save the model anew with safe_serialization=True", shown);
    else
      ivl_fail (error, IVL_ERROR_BAD_MODEL, "%s has neither " SINGLE_FILE " nor " INDEX_FILE
                "; give the folder of a downloaded checkpoint", shown);
    return NULL;
  }
  if (!(single ? open_shard (self, folder, SINGLE_FILE, NULL, error) : open_sharded (self, folder, error)))
    return NULL;
  return g_steal_pointer (&self);
}

IvlSafetensors *
ivl_safetensors_new_from_bytes (GBytes *bytes, const char *name, GError **error)
{
  g_autoptr (IvlSafetensors) self = safetensors_alloc (name);
  Shard *shard = g_new0 (Shard, 1);
  g_ptr_array_add (self->shards, shard);
  shard->name = g_strdup (name);
  shard->fd = -1;
  shard->bytes = g_bytes_ref (bytes);
  gsize size;
  guint64 header_bytes;
  const guint8 *all = g_bytes_get_data (bytes, &size);
  shard->size = size;
  if (!check_file_size (name, size, error) || !check_header_size (name, all, size, &header_bytes, error))
    return NULL;
  shard->data = all + 8 + header_bytes;
  shard->data_bytes = size - 8 - header_bytes;
  if (!read_header (self, shard, (const char *) all + 8, header_bytes, NULL, error))
    return NULL;
  return g_steal_pointer (&self);
}

gboolean
ivl_safetensors_lookup (const IvlSafetensors *self, const char *name, IvlTensorView *view)
{
  guint i = GPOINTER_TO_UINT (g_hash_table_lookup (self->by_name, name));
  if (i == 0)
    return FALSE;
  *view = g_array_index (self->tensors, IvlTensorView, i - 1);
  return TRUE;
}

guint
ivl_safetensors_n_tensors (const IvlSafetensors *self)
{
  return self->tensors->len;
}

void
ivl_safetensors_nth (const IvlSafetensors *self, guint i, IvlTensorView *view)
{
  g_assert (i < self->tensors->len);
  *view = g_array_index (self->tensors, IvlTensorView, i);
}

const char *
ivl_safetensors_source (const IvlSafetensors *self)
{
  return self->source;
}

gboolean
ivl_safetensors_check_unchanged (const IvlSafetensors *self, GError **error)
{
  for (guint i = 0; i < self->shards->len; i++) {
    const Shard *shard = g_ptr_array_index (self->shards, i);
    struct stat st;
    if (shard->fd < 0)
      continue;
    if (fstat (shard->fd, &st) < 0)
      return ivl_fail (error, IVL_ERROR_IO, "%s: %s", shard->name, g_strerror (errno));
    if ((guint64) st.st_size != shard->size)
      return ivl_fail (error, IVL_ERROR_IO, "%s: changed its size while in use", shard->name);
  }
  return TRUE;
}

gboolean
ivl_safetensors_identify (const IvlSafetensors *self, GChecksum *sum)
{
  for (guint i = 0; i < self->shards->len; i++) {
    const Shard *shard = g_ptr_array_index (self->shards, i);
    if (shard->fd < 0 || !ivl_file_identify (shard->fd, sum))
      return FALSE;
  }
  return TRUE;
}

void
ivl_safetensors_release_pages (const IvlSafetensors *self)
{
  for (guint i = 0; i < self->shards->len; i++) {
    const Shard *shard = g_ptr_array_index (self->shards, i);
    if (shard->map)
      madvise (g_mapped_file_get_contents (shard->map), shard->size, MADV_DONTNEED);
  }
}
