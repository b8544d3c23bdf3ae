/* Walking a heap's areas and live blocks. */
#ifndef BH_CORE_VISIT_H
#define BH_CORE_VISIT_H

#include "bulkhead.h"
#include "meta/types.h"

/* Owner: see bh_heap_visit_blocks; `handle` is what the visitor gets to see. */
bool bhi_heap_visit(bhi_heap_t *heap, const bh_heap_t *handle, bool blocks, bh_block_visit_fun *visitor, void *arg);

#endif
