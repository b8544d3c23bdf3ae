/* See zero.h. Nothing here may touch a block. */
#include "core/zero.h"

#include "base/bits.h"
#include "core/heap.h"
#include "core/page.h"
#include "harden/map.h"

#define WORDS (BHI_ZERO_BLOCKS / 64)

/* Which blocks of a map word lie at multiples of `step` blocks in their page. */
static uint64_t aligned_blocks(uint32_t word, uint32_t step)
{
    if (step > 64)
        return word % (step / 64) == 0 ? 1 : 0;
    return step == 64 ? 1 : UINT64_MAX / (((uint64_t)1 << step) - 1);
}

static uint64_t rotate_right(uint64_t x, unsigned n)
{
    return x >> n | x << (-n & 63);
}

static void *hand_out(bhi_page_t *page, uint32_t index)
{
    atomic_store_explicit(&page->map[index].live, 1, memory_order_relaxed);
    page->used++;
    return (void *)bhi_page_block(page, index); /* NOLINT: this is where a number becomes a pointer */
}

/* A free block of the page: the first from a random one on, all words in turn and
 * each in a random rotation. */
static void *take(bhi_page_t *page, size_t align)
{
    if (page->used == page->reserved || (align > BH_SLOT_SIZE && (page->start & (align - 1)) != 0))
        return NULL;
    uint32_t step = 1;
    if (align > BHI_ZERO_STEP)
        step = (uint32_t)((align < BH_SLOT_SIZE ? align : BH_SLOT_SIZE) / BHI_ZERO_STEP);
    bhi_heap_t *heap = atomic_load_explicit(&page->heap, memory_order_relaxed);
    uint32_t at = bhi_random_below(&heap->random, BHI_ZERO_BLOCKS);
    uint32_t word = at / 64, turn = at % 64;
    for (uint32_t i = 0; i < WORDS; i++, word = word + 1 < WORDS ? word + 1 : 0) {
        uint64_t open = aligned_blocks(word, step) & bhi_map_free(page->map, word);
        if (open != 0)
            return hand_out(page, word * 64 + ((bhi_bit_first(rotate_right(open, turn)) + turn) & 63));
    }
    return NULL;
}

void *bhi_zero_at_hand(bhi_heap_t *heap, size_t align)
{
    const bhi_queue_t *q = &heap->queues[BHI_CLASS_ZERO];
    if (q->first == NULL)
        return NULL;
    void *p = take(q->first, align);
    return p != NULL || q->first == q->last || align <= BHI_ZERO_STEP ? p : take(q->last, align);
}

void *bhi_zero_alloc(bhi_heap_t *heap, size_t align)
{
    bhi_page_t *page;
    if (align > BHI_ZERO_STEP) {
        /* A page has few such blocks, or one. They are looked for in two pages only,
         * so that the search is bounded; the rest of a new page serves others. */
        bhi_heap_drain(heap, BHI_DRAIN_AT_ONCE);
        void *p = bhi_zero_at_hand(heap, align);
        if (p != NULL)
            return p;
        page = bhi_heap_page_zero(heap, align);
    } else {
        page = bhi_heap_page(heap, BHI_CLASS_ZERO);
    }
    if (page == NULL)
        return NULL;
    void *p = take(page, align);
    if (bh_unlikely(p == NULL))
        bhi_page_check_nothing_held(page);
    return p;
}

void bhi_zero_taken(bhi_page_t *page, uint32_t word, uint64_t blocks)
{
    if (BH_HARDEN_MAP)
        return; /* the caller has changed the map */
    for (; blocks != 0; blocks &= blocks - 1)
        atomic_store_explicit(&page->map[word * 64 + bhi_bit_first(blocks)].live, 0, memory_order_relaxed);
}
