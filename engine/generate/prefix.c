#include "generate/prefix.h"

#include <string.h>

typedef struct {
  IvlSequence sequence;
  guint64 *keys; /* [sequence.length] */
} Entry;

static void
entry_free (Entry *entry, IvlKvCache *kv)
{
  ivl_sequence_deinit (&entry->sequence, kv);
  g_free (entry->keys);
  g_free (entry);
}

static guint
common (const Entry *entry, const guint64 *keys, guint n)
{
  guint same = 0, most = MIN (entry->sequence.length, n);
  while (same < most && entry->keys[same] == keys[same])
    same++;
  return same / IVL_KV_PAGE * IVL_KV_PAGE;
}

static GList *
find (IvlPrefixCache *self, const guint64 *keys, guint n, guint *length)
{
  GList *best = NULL;
  *length = 0;
  for (GList *link = self->entries.tail; link; link = link->prev) {
    guint same = common (link->data, keys, n);
    if (same > *length) {
      *length = same;
      best = link;
    }
  }
  return best;
}

void
ivl_prefix_cache_deinit (IvlPrefixCache *self, IvlKvCache *kv)
{
  while (ivl_prefix_cache_reclaim (self, kv))
    ;
}

void
ivl_prefix_cache_remember (IvlPrefixCache *self, IvlKvCache *kv, const IvlSequence *sequence, const guint64 *keys,
                           guint n, guint most)
{
  n = MIN (n, sequence->length) / IVL_KV_PAGE * IVL_KV_PAGE;
  if (n == 0)
    return;
  /* One that begins the same way and says no more is replaced. */
  for (GList *link = self->entries.head, *next; link; link = next) {
    Entry *entry = link->data;
    next = link->next;
    if (entry->sequence.length <= n && memcmp (entry->keys, keys, entry->sequence.length * sizeof *keys) == 0) {
      g_queue_delete_link (&self->entries, link);
      entry_free (entry, kv);
    }
  }
  Entry *entry = g_new0 (Entry, 1);
  ivl_sequence_init (&entry->sequence);
  ivl_sequence_share (&entry->sequence, kv, sequence, n);
  entry->keys = g_memdup2 (keys, n * sizeof *keys);
  g_queue_push_tail (&self->entries, entry);
  while (g_queue_get_length (&self->entries) > most)
    ivl_prefix_cache_reclaim (self, kv);
}

guint
ivl_prefix_cache_match (IvlPrefixCache *self, const guint64 *keys, guint n)
{
  guint length;
  find (self, keys, n, &length);
  return length;
}

guint
ivl_prefix_cache_share (IvlPrefixCache *self, IvlKvCache *kv, const guint64 *keys, guint n, IvlSequence *sequence)
{
  guint length;
  GList *link = find (self, keys, n, &length);
  if (!link)
    return 0;
  g_queue_unlink (&self->entries, link);
  g_queue_push_tail_link (&self->entries, link);
  return ivl_sequence_share (sequence, kv, &((Entry *) link->data)->sequence, length);
}

bool
ivl_prefix_cache_reclaim (IvlPrefixCache *self, IvlKvCache *kv)
{
  Entry *entry = g_queue_pop_head (&self->entries);
  if (!entry)
    return false;
  entry_free (entry, kv);
  return true;
}
