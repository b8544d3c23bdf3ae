/* Memory for control data, by chunks. Callers hold state->lock. */
#ifndef BH_META_POOL_H
#define BH_META_POOL_H

#include "meta/types.h"

/* A zeroed chunk of at least `size` bytes, on cache lines of its own, or NULL. */
void *bhi_pool_take(size_t size);
/* Gives back a chunk with the size that it was taken with; at most 32 KiB. */
void bhi_pool_give(void *chunk, size_t size);
/* Adds a reserved region without access to the pool. */
void bhi_pool_add_region(uintptr_t at, size_t size);

#endif
