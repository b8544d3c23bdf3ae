/* Visiting. The map says which blocks are live, so neither free lists nor the
 * blocks themselves are read. */
#include "core/visit.h"

#include "base/bits.h"
#include "core/hardened.h"
#include "core/heap.h"
#include "core/page.h"
#include "core/sampled.h"

typedef struct visit {
    const bh_heap_t *handle;
    bool blocks;
    bh_block_visit_fun *visitor;
    void *arg;
} visit_t;

/* What another thread frees from now on is still reported, since the owner has not taken
 * it back. */
static bool visit_page(const visit_t *v, const bhi_page_t *page)
{
    uint32_t capacity = bhi_page_capacity(page);
    uint32_t words = (capacity + 63) / 64;
    bool ends = bhi_page_has_ends(page);
    size_t apart = page->block_size != 0 ? page->block_size : page->single_bytes; /* blocks of zero size too are some way apart */
    bh_heap_area_t area = {
        .blocks = (void *)page->start, /* NOLINT: this is where a number becomes a pointer */
        .reserved = page->reserved * apart,
        .committed = capacity * apart,
        .used = BH_HARDEN_MAP ? 0 : bhi_page_live(page),
        .block_size = bhi_page_bytes(page),
    };
    for (uint32_t w = 0; w < words; w++)
        area.used += bhi_bit_count(bhi_page_live_now(page, w));
    if (!v->visitor(v->handle, &area, NULL, area.block_size, v->arg))
        return false;
    for (uint32_t w = 0; v->blocks && w < words; w++) {
        for (uint64_t live = bhi_page_live_now(page, w); live != 0; live &= live - 1) {
            uintptr_t block = page->start + (w * 64 + bhi_bit_first(live)) * (uintptr_t)page->block_size;
            size_t bytes = ends ? bhi_hard_requested(page, w * 64 + bhi_bit_first(live)) : area.block_size;
            if (!v->visitor(v->handle, &area, (void *)block, bytes, v->arg)) /* NOLINT: as above */
                return false;
        }
    }
    return true;
}

/* A guarded block is an area of its own. */
static bool visit_guarded(const bhi_guarded_t *g, void *arg)
{
    const visit_t *v = arg;
    bh_heap_area_t area = {
        .blocks = (void *)g->block, /* NOLINT: as above */
        .reserved = g->size,
        .committed = g->size,
        .used = 1,
        .block_size = g->size,
    };
    return v->visitor(v->handle, &area, NULL, g->size, v->arg) &&
           (!v->blocks || v->visitor(v->handle, &area, area.blocks, g->size, v->arg));
}

bool bhi_heap_visit(bhi_heap_t *heap, const bh_heap_t *handle, bool blocks, bh_block_visit_fun *visitor, void *arg)
{
    visit_t v = {handle, blocks, visitor, arg};
    if (!BH_HARDEN_MAP && blocks)
        return false; /* a measuring build knows how many are live, not which */
    bhi_heap_drain(heap, SIZE_MAX);
    for (unsigned c = 0; c <= BHI_QUEUES; c++) {
        const bhi_queue_t *q = c < BHI_QUEUES ? &heap->queues[c] : &heap->full;
        for (const bhi_page_t *page = q->first; page != NULL; page = page->next) {
            if (page->state == BHI_PAGE_LARGE && page->used == 0)
                continue; /* freed; kept for a moment, for a thread that looks at it */
            if (!visit_page(&v, page))
                return false;
        }
    }
    return bhi_sampled_visit(heap, visit_guarded, &v);
}
