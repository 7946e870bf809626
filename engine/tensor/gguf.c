#include "tensor/gguf.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "tensor/gguf-quants.h"

#define HEADER_BYTES 24
#define MAX_NAME_BYTES 512
#define MAX_DIMS 4          /* of the format */
#define MAX_VALUES 65536
#define MAX_TENSORS 65536
#define MAX_DEPTH 4         /* arrays in arrays */
#define MAX_ALIGNMENT 65536
#define DEFAULT_ALIGNMENT 32

typedef enum { U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64, N_TYPES } Type;

static const guint8 type_bytes[N_TYPES] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };

typedef struct {
  const char *key;
  Type type;          /* of the value, or of an array's elements */
  gboolean is_array;
  guint64 n;          /* elements of an array */
  const guint8 *data; /* the value, or the first element; validated to lie in the file */
} Value;

struct IvlGguf {
  char *name;
  int fd; /* -1 for a file in memory */
  guint64 size;
  GMappedFile *map;
  GBytes *bytes;
  GStringChunk *strings;
  GArray *values;      /* Value */
  GHashTable *by_key;  /* key -> index + 1 */
  GArray *tensors;     /* IvlTensorView, by place */
  GHashTable *by_name;
};

/* Tensor types of the format. Those without a dtype are listed so that their sizes are checked as well. */
static const struct {
  const char *name;
  IvlTensorDtype dtype;
  guint16 block, bytes;
} tensor_types[] = {
  [0] = { "F32", IVL_TENSOR_F32, 1, 4 },
  [1] = { "F16", IVL_TENSOR_F16, 1, 2 },
  [2] = { "Q4_0", IVL_TENSOR_Q4_0, 32, 18 },
  [3] = { "Q4_1", IVL_TENSOR_Q4_1, 32, 20 },
  [6] = { "Q5_0", IVL_TENSOR_Q5_0, 32, 22 },
  [7] = { "Q5_1", IVL_TENSOR_Q5_1, 32, 24 },
  [8] = { "Q8_0", IVL_TENSOR_Q8_0, 32, 34 },
  [9] = { "Q8_1", IVL_TENSOR_OTHER, 32, 36 },
  [10] = { "Q2_K", IVL_TENSOR_OTHER, 256, 84 },
  [11] = { "Q3_K", IVL_TENSOR_OTHER, 256, 110 },
  [12] = { "Q4_K", IVL_TENSOR_Q4_K, 256, 144 },
  [13] = { "Q5_K", IVL_TENSOR_Q5_K, 256, 176 },
  [14] = { "Q6_K", IVL_TENSOR_Q6_K, 256, 210 },
  [15] = { "Q8_K", IVL_TENSOR_OTHER, 256, 292 },
  [16] = { "IQ2_XXS", IVL_TENSOR_OTHER, 256, 66 },
  [17] = { "IQ2_XS", IVL_TENSOR_OTHER, 256, 74 },
  [18] = { "IQ3_XXS", IVL_TENSOR_OTHER, 256, 98 },
  [19] = { "IQ1_S", IVL_TENSOR_OTHER, 256, 50 },
  [20] = { "IQ4_NL", IVL_TENSOR_OTHER, 32, 18 },
  [21] = { "IQ3_S", IVL_TENSOR_OTHER, 256, 110 },
  [22] = { "IQ2_S", IVL_TENSOR_OTHER, 256, 82 },
  [23] = { "IQ4_XS", IVL_TENSOR_OTHER, 256, 136 },
  [24] = { "I8", IVL_TENSOR_OTHER, 1, 1 },
  [25] = { "I16", IVL_TENSOR_OTHER, 1, 2 },
  [26] = { "I32", IVL_TENSOR_OTHER, 1, 4 },
  [27] = { "I64", IVL_TENSOR_OTHER, 1, 8 },
  [28] = { "F64", IVL_TENSOR_OTHER, 1, 8 },
  [29] = { "IQ1_M", IVL_TENSOR_OTHER, 256, 56 },
  [30] = { "BF16", IVL_TENSOR_BF16, 1, 2 },
};

/* ---- walking through the header ---- */

/* After the first failure everything reads as zero, so that a structure is read whole and asked once. */
typedef struct {
  const guint8 *start, *p, *end;
  gboolean ok;
} Cursor;

static const guint8 *
take (Cursor *c, guint64 n)
{
  if (!c->ok || n > (guint64) (c->end - c->p)) {
    c->ok = FALSE;
    return NULL;
  }
  const guint8 *at = c->p;
  c->p += n;
  return at;
}

static guint32
take_u32 (Cursor *c)
{
  guint32 value = 0;
  const guint8 *p = take (c, 4);
  if (p)
    memcpy (&value, p, 4);
  return GUINT32_FROM_LE (value);
}

static guint64
take_u64 (Cursor *c)
{
  guint64 value = 0;
  const guint8 *p = take (c, 8);
  if (p)
    memcpy (&value, p, 8);
  return GUINT64_FROM_LE (value);
}

static gboolean
refuse (const IvlGguf *self, GError **error, const char *format, ...) G_GNUC_PRINTF (3, 4);

static gboolean
refuse (const IvlGguf *self, GError **error, const char *format, ...)
{
  va_list args;
  va_start (args, format);
  g_autofree char *cause = g_strdup_vprintf (format, args);
  va_end (args);
  return ivl_fail (error, IVL_ERROR_BAD_MODEL, "%s: %s", self->name, cause);
}

static gboolean
cut_off (const IvlGguf *self, const Cursor *c, const char *what, GError **error)
{
  return refuse (self, error, "%s at byte %zu reaches beyond the %" G_GUINT64_FORMAT
                 " bytes of the file: truncated or corrupt, download it again", what, (gsize) (c->p - c->start),
                 self->size);
}

/* A key's or tensor's name, kept in STRINGS; NULL if it isn't one. */
static const char *
take_name (IvlGguf *self, Cursor *c, const char *what, GError **error)
{
  guint64 n = take_u64 (c);
  const guint8 *p = n > 0 && n <= MAX_NAME_BYTES ? take (c, n) : NULL;
  if (!c->ok) {
    cut_off (self, c, what, error);
    return NULL;
  }
  gboolean valid = p && g_utf8_validate ((const char *) p, (gssize) n, NULL);
  for (guint64 i = 0; valid && i < n; i++)
    valid = p[i] >= 0x20 && p[i] != 0x7f;
  if (!valid) {
    refuse (self, error, "%s at byte %zu is empty, has more than %d bytes or holds what no name does: corrupt", what,
            (gsize) (c->p - c->start), MAX_NAME_BYTES);
    return NULL;
  }
  return g_string_chunk_insert_len (self->strings, (const char *) p, (gssize) n);
}

static void skip_value (Cursor *c, guint32 type, guint depth);

static void
skip_elements (Cursor *c, guint32 type, guint64 n, guint depth)
{
  guint64 bytes;
  if (type >= N_TYPES) {
    c->ok = FALSE;
  } else if (type_bytes[type]) {
    if (!g_uint64_checked_mul (&bytes, n, type_bytes[type]))
      c->ok = FALSE;
    else
      take (c, bytes);
  } else {
    /* Each element takes eight bytes at least, so this ends. */
    for (guint64 i = 0; i < n && c->ok; i++)
      skip_value (c, type, depth);
  }
}

static void
skip_value (Cursor *c, guint32 type, guint depth)
{
  if (type == STRING) {
    take (c, take_u64 (c));
  } else if (type == ARRAY) {
    guint32 element = take_u32 (c);
    guint64 n = take_u64 (c);
    if (depth == 0)
      c->ok = FALSE;
    else
      skip_elements (c, element, n, depth - 1);
  } else {
    skip_elements (c, type, 1, depth);
  }
}

static gboolean
read_value (IvlGguf *self, Cursor *c, GError **error)
{
  Value value = { .key = take_name (self, c, "a key", error) };
  if (!value.key)
    return FALSE;
  guint32 type = take_u32 (c);
  Cursor before = *c;
  if (c->ok && type >= N_TYPES)
    return refuse (self, error, "%s is of type %u, which isn't one: corrupt, or of a version to come", value.key, type);
  if (type == ARRAY) {
    type = take_u32 (c);
    value.is_array = TRUE;
    value.n = take_u64 (c);
    if (c->ok && type >= N_TYPES)
      return refuse (self, error, "%s is an array of type %u, which isn't one", value.key, type);
  }
  value.type = (Type) type;
  value.data = c->p;
  skip_elements (c, type, value.is_array ? value.n : 1, MAX_DEPTH);
  if (!c->ok)
    return cut_off (self, &before, value.key, error);
  if (!g_hash_table_insert (self->by_key, (gpointer) value.key, GUINT_TO_POINTER (self->values->len + 1)))
    return refuse (self, error, "%s is there twice: corrupt", value.key);
  g_array_append_val (self->values, value);
  return TRUE;
}

/* The tensor's place is counted from the data's start, which isn't known yet: VIEW->data gets the offset. */
static gboolean
read_tensor (IvlGguf *self, Cursor *c, guint64 alignment, GArray *offsets, GError **error)
{
  IvlTensorView view = { .file = self->name, .dtype = IVL_TENSOR_OTHER, .dtype_name = "unknown" };
  if (!(view.name = take_name (self, c, "a tensor's name", error)))
    return FALSE;
  view.n_dims = take_u32 (c);
  if (c->ok && view.n_dims > MAX_DIMS)
    return refuse (self, error, "%s: %u dimensions, at most %d can be", view.name, view.n_dims, MAX_DIMS);
  for (guint i = 0; c->ok && i < view.n_dims; i++)
    view.shape[view.n_dims - 1 - i] = take_u64 (c);
  guint32 type = take_u32 (c);
  guint64 offset = take_u64 (c);
  if (!c->ok)
    return cut_off (self, c, view.name, error);

  guint64 n = 1, block = 1, block_bytes = 0, bytes = 0;
  gboolean known = type < G_N_ELEMENTS (tensor_types) && tensor_types[type].name;
  if (known) {
    view.dtype = tensor_types[type].dtype;
    view.dtype_name = tensor_types[type].name;
    block = tensor_types[type].block;
    block_bytes = tensor_types[type].bytes;
  }
  g_autofree char *shape = ivl_tensor_shape_string (view.shape, view.n_dims);
  for (guint i = 0; i < view.n_dims; i++) {
    if (view.shape[i] == 0)
      return refuse (self, error, "%s: shape %s has no elements", view.name, shape);
    if (!g_uint64_checked_mul (&n, n, view.shape[i]))
      return refuse (self, error, "%s: shape %s overflows", view.name, shape);
  }
  if ((view.n_dims ? view.shape[view.n_dims - 1] : 1) % block)
    return refuse (self, error, "%s: shape %s isn't made of blocks of %" G_GUINT64_FORMAT ", as %s is", view.name, shape,
                   block, view.dtype_name);
  if (!g_uint64_checked_mul (&bytes, n / block, block_bytes) || bytes > self->size)
    return refuse (self, error, "%s: shape %s of %s has more bytes than the file: truncated or corrupt, download it "
                   "again", view.name, shape, view.dtype_name);
  if (offset % alignment)
    return refuse (self, error, "%s: offset %" G_GUINT64_FORMAT " isn't a multiple of the alignment, %" G_GUINT64_FORMAT,
                   view.name, offset, alignment);
  view.bytes = (gsize) bytes;
  if (!g_hash_table_add (self->by_name, (gpointer) view.name))
    return refuse (self, error, "%s is there twice: corrupt", view.name);
  g_array_append_val (self->tensors, view);
  g_array_append_val (offsets, offset);
  return TRUE;
}

static int
by_place (gconstpointer a, gconstpointer b)
{
  const IvlTensorView *x = a, *y = b;
  if (x->data != y->data)
    return x->data < y->data ? -1 : 1;
  return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static gboolean
place_tensors (IvlGguf *self, const guint8 *data, guint64 data_bytes, const GArray *offsets, GError **error)
{
  for (guint i = 0; i < self->tensors->len; i++) {
    IvlTensorView *view = &g_array_index (self->tensors, IvlTensorView, i);
    guint64 offset = g_array_index (offsets, guint64, i);
    if (offset > data_bytes || view->bytes > data_bytes - offset)
      return refuse (self, error, "%s: bytes %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT
                     " lie outside the file, which has %" G_GUINT64_FORMAT
                     " of data: truncated or corrupt, download it again", view->name, offset, offset + view->bytes,
                     data_bytes);
    view->data = data + offset;
  }
  g_array_sort (self->tensors, by_place);
  for (guint i = 0; i < self->tensors->len; i++) {
    const IvlTensorView *view = &g_array_index (self->tensors, IvlTensorView, i), *last = i ? view - 1 : NULL;
    if (last && (const guint8 *) last->data + last->bytes > (const guint8 *) view->data)
      return refuse (self, error, "%s and %s overlap: corrupt", last->name, view->name);
    g_hash_table_insert (self->by_name, (gpointer) view->name, GUINT_TO_POINTER (i + 1));
  }
  return TRUE;
}

static gboolean
read_all (IvlGguf *self, const guint8 *all, GError **error)
{
  if (self->size < HEADER_BYTES)
    return refuse (self, error, "%" G_GUINT64_FORMAT " bytes are too few for a GGUF file; download it again", self->size);
  Cursor c = { all, all, all + self->size, TRUE };
  const guint8 *magic = take (&c, 4);
  guint32 version = take_u32 (&c);
  guint64 n_tensors = take_u64 (&c), n_values = take_u64 (&c);
  if (memcmp (magic, "vers", 4) == 0)
    return refuse (self, error, "a Git LFS pointer, not the weights: fetch them with \"git lfs pull\"");
  if (memcmp (magic, "GGUF", 4) != 0)
    return refuse (self, error, "not a GGUF file");
  if (version != 2 && version != 3) {
    if (GUINT32_SWAP_LE_BE (version) <= 16)
      return ivl_fail (error, IVL_ERROR_UNSUPPORTED, "%s: big-endian; this engine reads little-endian GGUF", self->name);
    return ivl_fail (error, IVL_ERROR_UNSUPPORTED, "%s: GGUF version %u; this engine reads 2 and 3: convert the model anew",
                     self->name, version);
  }
  /* The least a value or a tensor takes. */
  if (n_values > MAX_VALUES || n_values > self->size / 13 || n_tensors > MAX_TENSORS || n_tensors > self->size / 25)
    return refuse (self, error, "%" G_GUINT64_FORMAT " values and %" G_GUINT64_FORMAT " tensors in a file of %"
                   G_GUINT64_FORMAT " bytes: corrupt", n_values, n_tensors, self->size);
  for (guint64 i = 0; i < n_values; i++)
    if (!read_value (self, &c, error))
      return FALSE;
  guint64 alignment = DEFAULT_ALIGNMENT;
  if (ivl_gguf_has (self, "general.alignment") && !ivl_gguf_get_uint (self, "general.alignment", &alignment, error))
    return FALSE;
  if (alignment < 8 || alignment > MAX_ALIGNMENT || alignment & (alignment - 1))
    return refuse (self, error, "general.alignment is %" G_GUINT64_FORMAT ", not a power of two of 8 to %d", alignment,
                   MAX_ALIGNMENT);
  g_autoptr (GArray) offsets = g_array_new (FALSE, FALSE, sizeof (guint64));
  for (guint64 i = 0; i < n_tensors; i++)
    if (!read_tensor (self, &c, alignment, offsets, error))
      return FALSE;
  guint64 begin = ((guint64) (c.p - c.start) + alignment - 1) / alignment * alignment;
  /* A file without tensors may end before its padding. */
  begin = MIN (begin, self->size);
  return place_tensors (self, all + begin, self->size - begin, offsets, error);
}

/* ---- opening ---- */

static IvlGguf *
gguf_alloc (const char *name)
{
  IvlGguf *self = g_new0 (IvlGguf, 1);
  self->name = g_filename_display_name (name);
  self->fd = -1;
  self->strings = g_string_chunk_new (4096);
  self->values = g_array_new (FALSE, FALSE, sizeof (Value));
  self->by_key = g_hash_table_new (g_str_hash, g_str_equal);
  self->tensors = g_array_new (FALSE, FALSE, sizeof (IvlTensorView));
  self->by_name = g_hash_table_new (g_str_hash, g_str_equal);
  return self;
}

void
ivl_gguf_free (IvlGguf *self)
{
  if (!self)
    return;
  g_hash_table_unref (self->by_name);
  g_array_unref (self->tensors);
  g_hash_table_unref (self->by_key);
  g_array_unref (self->values);
  g_string_chunk_free (self->strings);
  g_clear_pointer (&self->map, g_mapped_file_unref);
  g_clear_pointer (&self->bytes, g_bytes_unref);
  if (self->fd >= 0)
    close (self->fd);
  g_free (self->name);
  g_free (self);
}

IvlGguf *
ivl_gguf_open (const char *folder, const char *name, GError **error)
{
  g_autoptr (IvlGguf) self = gguf_alloc (name);
  g_autoptr (GError) inner = NULL;
  if ((self->fd = ivl_file_open (folder, name, &self->size, error)) < 0)
    return NULL;
  if (!(self->map = g_mapped_file_new_from_fd (self->fd, FALSE, &inner))) {
    ivl_fail (error, IVL_ERROR_IO, "%s: %s", self->name, inner->message);
    return NULL;
  }
  if (g_mapped_file_get_length (self->map) != self->size) {
    ivl_fail (error, IVL_ERROR_IO, "%s: changed while it was opened", self->name);
    return NULL;
  }
  return read_all (self, (const guint8 *) g_mapped_file_get_contents (self->map), error) ? g_steal_pointer (&self) : NULL;
}

IvlGguf *
ivl_gguf_new_from_bytes (GBytes *bytes, const char *name, GError **error)
{
  g_autoptr (IvlGguf) self = gguf_alloc (name);
  gsize size;
  self->bytes = g_bytes_ref (bytes);
  const guint8 *all = g_bytes_get_data (bytes, &size);
  self->size = size;
  return read_all (self, all, error) ? g_steal_pointer (&self) : NULL;
}

const char *
ivl_gguf_get_name (const IvlGguf *self)
{
  return self->name;
}

gboolean
ivl_gguf_check_unchanged (const IvlGguf *self, GError **error)
{
  struct stat st;
  if (self->fd < 0)
    return TRUE;
  if (fstat (self->fd, &st) < 0)
    return ivl_fail (error, IVL_ERROR_IO, "%s: %s", self->name, g_strerror (errno));
  if ((guint64) st.st_size != self->size)
    return ivl_fail (error, IVL_ERROR_IO, "%s: changed its size while in use", self->name);
  return TRUE;
}

gboolean
ivl_gguf_identify (const IvlGguf *self, GChecksum *sum)
{
  return self->fd >= 0 && ivl_file_identify (self->fd, sum);
}

void
ivl_gguf_release_pages (const IvlGguf *self)
{
  if (self->map)
    madvise (g_mapped_file_get_contents (self->map), self->size, MADV_DONTNEED);
}

/* ---- metadata ---- */

static const Value *
find_value (const IvlGguf *self, const char *key)
{
  guint i = GPOINTER_TO_UINT (g_hash_table_lookup (self->by_key, key));
  return i ? &g_array_index (self->values, Value, i - 1) : NULL;
}

gboolean
ivl_gguf_has (const IvlGguf *self, const char *key)
{
  return find_value (self, key) != NULL;
}

guint
ivl_gguf_n_values (const IvlGguf *self)
{
  return self->values->len;
}

const char *
ivl_gguf_nth_key (const IvlGguf *self, guint i)
{
  g_assert (i < self->values->len);
  return g_array_index (self->values, Value, i).key;
}

static const Value *
need_value (const IvlGguf *self, const char *key, gboolean is_array, GError **error)
{
  const Value *value = find_value (self, key);
  if (!value)
    refuse (self, error, "%s is missing: incomplete, or no model of this kind", key);
  else if (value->is_array != is_array)
    refuse (self, error, "%s is %s", key, is_array ? "no array" : "an array");
  else
    return value;
  return NULL;
}

/* An integer as its bits, sign-extended; FALSE for other types. */
static gboolean
integer_at (const guint8 *p, Type type, gint64 *value)
{
  guint64 bits = 0;
  guint n = type < N_TYPES ? type_bytes[type] : 0;
  if (type > I32 && type != U64 && type != I64)
    return FALSE;
  for (guint i = 0; i < n; i++)
    bits |= (guint64) p[i] << (8 * i);
  gboolean is_signed = type == I8 || type == I16 || type == I32;
  if (is_signed && bits >> (8 * n - 1))
    bits |= ~0ull << (8 * n);
  memcpy (value, &bits, sizeof bits);
  return TRUE;
}

static gboolean
number_at (const guint8 *p, Type type, double *value)
{
  gint64 integer;
  float f;
  if (type == F32) {
    memcpy (&f, p, sizeof f);
    *value = f;
  } else if (type == F64) {
    memcpy (value, p, sizeof *value);
  } else if (integer_at (p, type, &integer)) {
    guint64 bits;
    memcpy (&bits, &integer, sizeof bits);
    *value = type == U64 ? (double) bits : (double) integer;
  } else {
    return FALSE;
  }
  return TRUE;
}

gboolean
ivl_gguf_get_uint (const IvlGguf *self, const char *key, guint64 *value, GError **error)
{
  const Value *v = need_value (self, key, FALSE, error);
  gint64 integer;
  if (!v)
    return FALSE;
  if (!integer_at (v->data, v->type, &integer))
    return refuse (self, error, "%s isn't an integer", key);
  if (integer < 0) /* or, from U64, beyond all sense */
    return refuse (self, error, "%s is negative or too big", key);
  *value = (guint64) integer;
  return TRUE;
}

gboolean
ivl_gguf_get_double (const IvlGguf *self, const char *key, double *value, GError **error)
{
  const Value *v = need_value (self, key, FALSE, error);
  if (!v)
    return FALSE;
  if (!number_at (v->data, v->type, value) || !isfinite (*value))
    return refuse (self, error, "%s isn't a finite number", key);
  return TRUE;
}

gboolean
ivl_gguf_get_bool (const IvlGguf *self, const char *key, gboolean *value, GError **error)
{
  const Value *v = need_value (self, key, FALSE, error);
  if (!v)
    return FALSE;
  if (v->type != BOOL || *v->data > 1)
    return refuse (self, error, "%s is neither true nor false", key);
  *value = *v->data;
  return TRUE;
}

/* A string of the file, which was validated to lie in it. NULL unless it is text. */
static const char *
string_at (const guint8 **p, gsize *n)
{
  guint64 length;
  memcpy (&length, *p, 8);
  *n = (gsize) GUINT64_FROM_LE (length);
  const char *text = (const char *) *p + 8;
  *p += 8 + *n;
  return !memchr (text, 0, *n) && g_utf8_validate (text, (gssize) *n, NULL) ? text : NULL;
}

char *
ivl_gguf_get_string (const IvlGguf *self, const char *key, GError **error)
{
  const Value *v = need_value (self, key, FALSE, error);
  gsize n = 0;
  if (!v)
    return NULL;
  const guint8 *p = v->data;
  const char *text = v->type == STRING ? string_at (&p, &n) : NULL;
  if (!text)
    refuse (self, error, "%s isn't UTF-8 text", key);
  return text ? g_strndup (text, n) : NULL;
}

double *
ivl_gguf_get_numbers (const IvlGguf *self, const char *key, guint *n, GError **error)
{
  const Value *v = need_value (self, key, TRUE, error);
  if (!v)
    return NULL;
  if (v->type >= N_TYPES || v->type == BOOL || !type_bytes[v->type] || v->n > G_MAXINT32) {
    refuse (self, error, "%s isn't a list of numbers", key);
    return NULL;
  }
  double *numbers = g_new (double, v->n + 1);
  *n = (guint) v->n;
  for (guint i = 0; i < *n; i++)
    number_at (v->data + (gsize) i * type_bytes[v->type], v->type, &numbers[i]);
  return numbers;
}

GPtrArray *
ivl_gguf_get_strings (const IvlGguf *self, const char *key, GStringChunk *chunk, GError **error)
{
  const Value *v = need_value (self, key, TRUE, error);
  if (!v)
    return NULL;
  if (v->type != STRING || v->n > G_MAXINT32) {
    refuse (self, error, "%s isn't a list of strings", key);
    return NULL;
  }
  g_autoptr (GPtrArray) strings = g_ptr_array_sized_new ((guint) v->n);
  const guint8 *p = v->data;
  for (guint i = 0; i < v->n; i++) {
    gsize n;
    const char *text = string_at (&p, &n);
    if (!text) {
      refuse (self, error, "%s: string %u isn't UTF-8 text", key, i);
      return NULL;
    }
    g_ptr_array_add (strings, g_string_chunk_insert_len (chunk, text, (gssize) n));
  }
  return g_steal_pointer (&strings);
}

/* ---- tensors ---- */

gboolean
ivl_gguf_lookup (const IvlGguf *self, const char *name, IvlTensorView *view)
{
  guint i = GPOINTER_TO_UINT (g_hash_table_lookup (self->by_name, name));
  if (i == 0)
    return FALSE;
  *view = g_array_index (self->tensors, IvlTensorView, i - 1);
  return TRUE;
}

guint
ivl_gguf_n_tensors (const IvlGguf *self)
{
  return self->tensors->len;
}

void
ivl_gguf_nth (const IvlGguf *self, guint i, IvlTensorView *view)
{
  g_assert (i < self->tensors->len);
  *view = g_array_index (self->tensors, IvlTensorView, i);
}
