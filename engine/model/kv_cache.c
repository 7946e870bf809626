/* The pool of KV pages and the sequences that hold them. Pages are counted, since sequences with a common beginning
 * share them. */
#include "model/decoder.h"

#include <string.h>

static guint64
layer_page_bytes (const IvlConfig *config)
{
  return 4ull * IVL_KV_PAGE * 2 * config->text.kv_heads * config->text.head_dim;
}

guint64
ivl_kv_page_bytes (const IvlConfig *config)
{
  return layer_page_bytes (config) * config->text.layers;
}

static void
add_free_pages (IvlKvCache *self, guint from, guint to)
{
  g_array_set_size (self->page_refs, to);
  for (guint page = to; page-- > from;)
    g_array_append_val (self->free_pages, page);
}

gboolean
ivl_kv_cache_init (IvlKvCache *self, const IvlDecoder *decoder, IvlDevice *device, guint n_pages, guint max_pages,
                   GError **error)
{
  guint64 bytes = layer_page_bytes (decoder->config);
  guint64 fits = device->properties.limits.maxStorageBufferRange / bytes;
  guint layers = decoder->config->text.layers;
  *self = (IvlKvCache){ .decoder = decoder, .device = device, .layers = g_new0 (IvlVkBuffer *, layers) };
  self->free_pages = g_array_new (FALSE, FALSE, sizeof (guint32));
  self->page_refs = g_array_new (FALSE, TRUE, sizeof (guint32));
  self->max_pages = (guint) MIN (max_pages, fits);
  self->n_pages = MIN (n_pages, self->max_pages);
  for (guint i = 0; i < layers; i++)
    if (!(self->layers[i] = ivl_vk_buffer_new (device, IVL_VK_DEVICE, bytes * self->n_pages, error))) {
      ivl_kv_cache_deinit (self);
      return FALSE;
    }
  add_free_pages (self, 0, self->n_pages);
  return TRUE;
}

void
ivl_kv_cache_deinit (IvlKvCache *self)
{
  if (!self->layers)
    return;
  for (guint i = 0; i < self->decoder->config->text.layers; i++)
    ivl_vk_buffer_free (self->layers[i]);
  g_clear_pointer (&self->layers, g_free);
  g_array_unref (self->free_pages);
  g_array_unref (self->page_refs);
}

static gboolean
grow (IvlKvCache *self, IvlVkStream *stream, guint need, GError **error)
{
  const IvlConfig *config = self->decoder->config;
  guint n_pages = MIN (MAX (self->n_pages * 2, self->n_pages + need), self->max_pages);
  if (n_pages - self->n_pages < need) {
    g_autofree char *have = ivl_format_bytes (self->max_pages * ivl_kv_page_bytes (config));
    return ivl_fail (error, IVL_ERROR_OUT_OF_MEMORY,
                     "The KV cache is full: %u pages more are needed, %s (%u pages) is all there may be; use fewer "
                     "or shorter sessions, or a larger kv_bytes", need, have, self->max_pages);
  }
  guint64 old_bytes = layer_page_bytes (config) * self->n_pages, bytes = layer_page_bytes (config) * n_pages;
  g_autoptr (GPtrArray) fresh = g_ptr_array_new_with_free_func ((GDestroyNotify) ivl_vk_buffer_free);
  for (guint i = 0; i < config->text.layers; i++) {
    IvlVkBuffer *buffer = ivl_vk_buffer_new (self->device, IVL_VK_DEVICE, bytes, error);
    if (!buffer)
      return FALSE;
    g_ptr_array_add (fresh, buffer);
  }
  if (!ivl_vk_wait (stream, 0, error) || !ivl_vk_begin (stream, error))
    return FALSE;
  for (guint i = 0; i < fresh->len; i++)
    ivl_vk_copy (stream, (IvlSpan){ self->layers[i], 0, old_bytes }, (IvlSpan){ fresh->pdata[i], 0, old_bytes },
                 old_bytes);
  if (!ivl_vk_run (stream, error))
    return FALSE;
  for (guint i = 0; i < fresh->len; i++) {
    IvlVkBuffer *old = self->layers[i];
    self->layers[i] = fresh->pdata[i];
    fresh->pdata[i] = old;
  }
  add_free_pages (self, self->n_pages, n_pages);
  self->n_pages = n_pages;
  return TRUE;
}

void
ivl_sequence_init (IvlSequence *self)
{
  *self = (IvlSequence){ g_array_new (FALSE, FALSE, sizeof (guint32)), 0 };
}

void
ivl_sequence_deinit (IvlSequence *self, IvlKvCache *cache)
{
  if (!self->pages)
    return;
  ivl_sequence_truncate (self, cache, 0);
  g_clear_pointer (&self->pages, g_array_unref);
}

gboolean
ivl_sequence_reserve (IvlSequence *self, IvlKvCache *cache, IvlVkStream *stream, guint n, GError **error)
{
  guint pages = (guint) (((guint64) self->length + n + IVL_KV_PAGE - 1) / IVL_KV_PAGE);
  if (pages <= self->pages->len)
    return TRUE;
  guint need = pages - self->pages->len;
  if (need > cache->free_pages->len && !grow (cache, stream, need - cache->free_pages->len, error))
    return FALSE;
  while (self->pages->len < pages) {
    guint32 page = g_array_index (cache->free_pages, guint32, cache->free_pages->len - 1);
    g_array_set_size (cache->free_pages, cache->free_pages->len - 1);
    g_array_index (cache->page_refs, guint32, page) = 1;
    g_array_append_val (self->pages, page);
  }
  return TRUE;
}

void
ivl_sequence_truncate (IvlSequence *self, IvlKvCache *cache, guint length)
{
  g_assert (length <= self->length || length == 0);
  /* A page that others see too must not be written again: let go of it whole. */
  guint last = length / IVL_KV_PAGE;
  if (length % IVL_KV_PAGE
      && g_array_index (cache->page_refs, guint32, g_array_index (self->pages, guint32, last)) > 1)
    length = last * IVL_KV_PAGE;
  guint pages = (length + IVL_KV_PAGE - 1) / IVL_KV_PAGE;
  for (guint i = pages; i < self->pages->len; i++) {
    guint32 page = g_array_index (self->pages, guint32, i);
    if (--g_array_index (cache->page_refs, guint32, page) == 0)
      g_array_append_val (cache->free_pages, page);
  }
  if (pages < self->pages->len)
    g_array_set_size (self->pages, pages);
  self->length = length;
}

guint
ivl_sequence_share (IvlSequence *self, IvlKvCache *cache, const IvlSequence *from, guint n)
{
  g_assert (self->length == 0 && self->pages->len == 0);
  guint pages = MIN (n, from->length) / IVL_KV_PAGE;
  for (guint i = 0; i < pages; i++) {
    guint32 page = g_array_index (from->pages, guint32, i);
    g_array_index (cache->page_refs, guint32, page)++;
    g_array_append_val (self->pages, page);
  }
  self->length = pages * IVL_KV_PAGE;
  return self->length;
}
