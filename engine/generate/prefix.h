/* Beginnings of prompts that were read, kept so that the next prompt with the same beginning needn't read it again: the
 * system text that all streams share, a fixed question in front of the pictures, the frames of a still camera. What is
 * kept is whole pages of the KV cache, shared with whoever uses them. All calls under model->kv_lock. */
#ifndef IVL_GENERATE_PREFIX_H
#define IVL_GENERATE_PREFIX_H

#include <stdbool.h>

#include "model/decoder.h"

typedef struct {
  GQueue entries; /* who was used last is last */
} IvlPrefixCache;

void ivl_prefix_cache_deinit (IvlPrefixCache *cache, IvlKvCache *kv);
/* Keeps the whole pages among the first N tokens of SEQUENCE; KEYS (guint64) tells what each token was: equal keys up
 * to a token, equal KV. Beyond MOST entries the one unused longest goes. */
void ivl_prefix_cache_remember (IvlPrefixCache *cache, IvlKvCache *kv, const IvlSequence *sequence, const guint64 *keys,
                                guint n, guint most);
/* Tokens of the longest kept beginning of KEYS [n], in whole pages. */
guint ivl_prefix_cache_match (IvlPrefixCache *cache, const guint64 *keys, guint n);
/* Lets the empty SEQUENCE share that beginning. Returns its length. */
guint ivl_prefix_cache_share (IvlPrefixCache *cache, IvlKvCache *kv, const guint64 *keys, guint n,
                              IvlSequence *sequence);
/* Gives up the entry unused longest; false if there is none. */
bool ivl_prefix_cache_reclaim (IvlPrefixCache *cache, IvlKvCache *kv);

#endif
