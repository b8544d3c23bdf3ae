/* Records of blocks in pages, for profiles that keep them (bhi_process.records): kind
 * and stacks, in control data behind what profile hardened keeps of the page. Blocks of
 * zero size have none.
 *
 *   R1  a record is written by the thread that was handed the block, before anybody
 *       else knows of it, and by the one that frees it, while the page cannot end; a
 *       mark is set or cleared by atomic operations that change nothing else
 *   R2  what a record says of a block that is not live is of its last life */
#ifndef BH_CORE_RECORD_H
#define BH_CORE_RECORD_H

#include "core/hardened.h"
#include "harden/origin.h"

typedef struct bhi_record {
    _Atomic(uint32_t) origin;     /* harden/origin.h */
    _Atomic(uint32_t) free_stack; /* of harden/depot.h; 0: none, or live */
} bhi_record_t;

/* Bytes of control data for a page's records; 0 where there are none. */
BH_INLINE size_t bhi_record_bytes(uint32_t reserved)
{
    return bhi_process.records ? reserved * sizeof(bhi_record_t) + sizeof(uint32_t) : 0;
}
_Static_assert(BHI_MAP_SINGLE_BYTES + BHI_HARD_SINGLE_BYTES + sizeof(bhi_record_t) <= BH_CACHE_LINE, "a single block's is taken as a map alone");

BH_INLINE bhi_record_t *bhi_record_of(const bhi_page_t *page, uint32_t index)
{
    size_t map = page->block_size != 0 ? bhi_map_bytes(page->reserved) : BHI_MAP_SINGLE_BYTES;
    uintptr_t at = (uintptr_t)page->map + map + bhi_hard_bytes(page->reserved, page->block_size);
    return (bhi_record_t *)bhi_align_up(at, sizeof(uint32_t)) + index;
}

BH_INLINE bool bhi_record_has(const bhi_page_t *page)
{
    return bhi_process.records && bhi_page_has_ends(page);
}

/* For a report: kind, requested size and stacks of a block, as far as they can be read.
 * `page` may be a copy of a descriptor. */
void bhi_record_describe(struct bh_report *report, const bhi_page_t *page, uint32_t index);

/* The stack of the caller, if all stacks are kept: its number in the depot, or 0. */
uint32_t bhi_record_stack(void);

#endif
