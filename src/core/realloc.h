/* realloc. */
#ifndef BH_CORE_REALLOC_H
#define BH_CORE_REALLOC_H

#include "meta/types.h"

/* Semantics of bh_realloc; a block that moves comes from `heap`. */
void *bhi_realloc(bhi_heap_t *heap, void *p, size_t size);

/* Whether the block p (not NULL) serves `size` bytes where it stands; it is grown
 * for that if need be and possible. False for a foreign p. */
bool bhi_expand(void *p, size_t size);

/* True when a block of `usable` bytes may have been requested, or resized in
 * place, with `size`: what sized frees are checked against. */
bool bhi_size_fits(size_t usable, size_t size);

/* The same of a block p, of which a guarded one has exactly the size asked for. */
bool bhi_sized_free_fits(const void *p, size_t usable, size_t size);

/* Usable bytes of the live block p (not NULL); anything else is a violation of
 * the given use. BHI_USABLE_FOREIGN for a foreign pointer that the policy lets
 * pass: no block has so many. */
#define BHI_USABLE_FOREIGN SIZE_MAX
size_t bhi_usable(const void *p, int use);

#endif
