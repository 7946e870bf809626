#include "text/bpe.h"

#define NO_KEY G_MAXUINT64
#define NONE G_MAXUINT32

/* ---- map ---- */

static gsize
slot_of (const IvlPairMap *self, guint64 key)
{
  guint64 h = key * G_GUINT64_CONSTANT (0x9e3779b97f4a7c15);
  h ^= h >> 32;
  h *= G_GUINT64_CONSTANT (0xd6e8feb86659fd93);
  gsize slot = (gsize) (h ^ (h >> 32)) & self->mask;
  while (self->entries[slot].key != key && self->entries[slot].key != NO_KEY)
    slot = (slot + 1) & self->mask;
  return slot;
}

static void
allocate (IvlPairMap *self, gsize n_slots)
{
  self->entries = g_new (IvlPairEntry, n_slots);
  self->mask = n_slots - 1;
  self->used = 0;
  for (gsize i = 0; i < n_slots; i++)
    self->entries[i].key = NO_KEY;
}

void
ivl_pair_map_init (IvlPairMap *self, gsize expected)
{
  gsize n_slots = 16;
  while (n_slots < expected * 2)
    n_slots *= 2;
  allocate (self, n_slots);
}

void
ivl_pair_map_deinit (IvlPairMap *self)
{
  g_clear_pointer (&self->entries, g_free);
}

const IvlPairEntry *
ivl_pair_map_find (const IvlPairMap *self, guint64 key)
{
  const IvlPairEntry *entry = &self->entries[slot_of (self, key)];
  return entry->key == key ? entry : NULL;
}

void
ivl_pair_map_set (IvlPairMap *self, guint64 key, guint32 a, guint32 b)
{
  if ((self->used + 1) * 2 > self->mask + 1) {
    IvlPairMap old = *self;
    allocate (self, (old.mask + 1) * 2);
    for (gsize i = 0; i <= old.mask; i++)
      if (old.entries[i].key != NO_KEY) {
        self->entries[slot_of (self, old.entries[i].key)] = old.entries[i];
        self->used++;
      }
    g_free (old.entries);
  }
  IvlPairEntry *entry = &self->entries[slot_of (self, key)];
  if (entry->key == NO_KEY)
    self->used++;
  *entry = (IvlPairEntry){ key, a, b };
}

/* ---- merging ---- */

typedef struct IvlBpeSymbol {
  guint32 id;             /* NONE once joined to its left neighbour */
  guint32 previous, next; /* NONE at the ends */
} IvlBpeSymbol;

/* A join that was possible when it was put on the heap. */
typedef struct IvlBpeStep {
  guint32 rank, position, merged;
} IvlBpeStep;

static guint64
pair_key (guint32 left, guint32 right)
{
  return (guint64) left << 32 | right;
}

void
ivl_bpe_init (IvlBpe *self, gsize n_merges)
{
  ivl_pair_map_init (&self->merges, n_merges);
}

void
ivl_bpe_deinit (IvlBpe *self)
{
  ivl_pair_map_deinit (&self->merges);
}

void
ivl_bpe_add (IvlBpe *self, guint32 left, guint32 right, guint32 rank, guint32 merged)
{
  ivl_pair_map_set (&self->merges, pair_key (left, right), rank, merged);
}

void
ivl_bpe_scratch_deinit (IvlBpeScratch *self)
{
  g_clear_pointer (&self->symbols, g_free);
  g_clear_pointer (&self->heap, g_free);
  self->n_symbols = 0;
}

static gboolean
before (IvlBpeStep a, IvlBpeStep b)
{
  return a.rank != b.rank ? a.rank < b.rank : a.position < b.position;
}

static void
push (IvlBpeStep *heap, gsize *n, IvlBpeStep step)
{
  gsize i = (*n)++;
  for (; i > 0 && before (step, heap[(i - 1) / 2]); i = (i - 1) / 2)
    heap[i] = heap[(i - 1) / 2];
  heap[i] = step;
}

static IvlBpeStep
pop (IvlBpeStep *heap, gsize *n)
{
  IvlBpeStep top = heap[0], last = heap[--*n];
  gsize i = 0;
  for (gsize child; (child = 2 * i + 1) < *n; i = child) {
    if (child + 1 < *n && before (heap[child + 1], heap[child]))
      child++;
    if (!before (heap[child], last))
      break;
    heap[i] = heap[child];
  }
  heap[i] = last;
  return top;
}

gsize
ivl_bpe_apply (const IvlBpe *self, IvlBpeScratch *scratch, guint32 *ids, gsize n)
{
  if (n < 2)
    return n;
  if (scratch->n_symbols < n) {
    scratch->n_symbols = MAX (n, 2 * scratch->n_symbols);
    scratch->symbols = g_renew (IvlBpeSymbol, scratch->symbols, scratch->n_symbols);
    /* n - 1 pairs at first, and each of at most n - 1 joins adds no more than two. */
    scratch->heap = g_renew (IvlBpeStep, scratch->heap, 3 * scratch->n_symbols);
  }
  IvlBpeSymbol *symbols = scratch->symbols;
  IvlBpeStep *heap = scratch->heap;
  gsize n_steps = 0;
  for (guint32 i = 0; i < n; i++) {
    symbols[i] = (IvlBpeSymbol){ ids[i], i > 0 ? i - 1 : NONE, i + 1 < n ? i + 1 : NONE };
    if (i + 1 < n) {
      const IvlPairEntry *merge = ivl_pair_map_find (&self->merges, pair_key (ids[i], ids[i + 1]));
      if (merge)
        push (heap, &n_steps, (IvlBpeStep){ merge->a, i, merge->b });
    }
  }
  while (n_steps > 0) {
    IvlBpeStep step = pop (heap, &n_steps);
    IvlBpeSymbol *left = &symbols[step.position];
    if (left->id == NONE || left->next == NONE)
      continue;
    IvlBpeSymbol *right = &symbols[left->next];
    const IvlPairEntry *merge = ivl_pair_map_find (&self->merges, pair_key (left->id, right->id));
    if (!merge || merge->b != step.merged)
      continue; /* one of the two has changed since */
    left->id = step.merged;
    right->id = NONE;
    left->next = right->next;
    if (left->next != NONE) {
      symbols[left->next].previous = step.position;
      merge = ivl_pair_map_find (&self->merges, pair_key (left->id, symbols[left->next].id));
      if (merge)
        push (heap, &n_steps, (IvlBpeStep){ merge->a, step.position, merge->b });
    }
    if (left->previous != NONE) {
      merge = ivl_pair_map_find (&self->merges, pair_key (symbols[left->previous].id, left->id));
      if (merge)
        push (heap, &n_steps, (IvlBpeStep){ merge->a, left->previous, merge->b });
    }
  }
  gsize n_left = 0;
  for (guint32 i = 0; i != NONE; i = symbols[i].next)
    ids[n_left++] = symbols[i].id;
  return n_left;
}
