/* Byte pair encoding over token ids: repeatedly joins the neighbours whose pair comes first in the list of merges.
 * Also the hash map behind it, which the trie of added tokens shares. */
#ifndef IVL_TEXT_BPE_H
#define IVL_TEXT_BPE_H

#include <glib.h>

/* guint64 keys (never G_MAXUINT64) to two guint32; open addressing. */
typedef struct {
  guint64 key;
  guint32 a, b;
} IvlPairEntry;

typedef struct {
  IvlPairEntry *entries;
  gsize mask, used;
} IvlPairMap;

void ivl_pair_map_init (IvlPairMap *self, gsize expected);
void ivl_pair_map_deinit (IvlPairMap *self);
const IvlPairEntry *ivl_pair_map_find (const IvlPairMap *self, guint64 key);
/* Replaces what was there. */
void ivl_pair_map_set (IvlPairMap *self, guint64 key, guint32 a, guint32 b);

typedef struct {
  IvlPairMap merges; /* left << 32 | right -> rank, merged id */
} IvlBpe;

void ivl_bpe_init (IvlBpe *self, gsize n_merges);
void ivl_bpe_deinit (IvlBpe *self);
/* The pair's place in the list is RANK; the same pair again takes the later rank, as in the reference. */
void ivl_bpe_add (IvlBpe *self, guint32 left, guint32 right, guint32 rank, guint32 merged);

/* Memory that ivl_bpe_apply needs, kept from call to call. Zero-initialise. */
typedef struct {
  struct IvlBpeSymbol *symbols;
  struct IvlBpeStep *heap;
  gsize n_symbols;
} IvlBpeScratch;
void ivl_bpe_scratch_deinit (IvlBpeScratch *self);

/* Merges the N ids of one piece of text in place; returns how many are left. O(n log n). */
gsize ivl_bpe_apply (const IvlBpe *self, IvlBpeScratch *scratch, guint32 *ids, gsize n);

#endif
