/* Profile hardened: looking at blocks that nobody frees: sweeps, pages that end, the
 * whole of a heap; see hardened.h. Changes nothing but what bhi_hard_forget wipes. */
#include "core/hardened.h"

#include "base/bits.h"
#include "core/heap.h"
#include "harden/wipe.h"
#include "os/os.h"

#define SWEEP 8u /* live blocks looked at with each heartbeat */
/* The same of blocks of more than 1 KiB: their slack is as long as that of many others,
 * and heartbeats come after as few blocks as a page of them has. */
#define SWEEP_LONG 2u

/* A second free at the same moment finds the end that the first has wiped. */
void bhi_hard_damaged(const bhi_page_t *page, uint32_t index, size_t at)
{
    atomic_thread_fence(memory_order_acquire);
    if (!bhi_map_is_live(page->map, index))
        bhi_violation(BHI_DOUBLE_FREE, bhi_page_block(page, index));
    bhi_violation(BHI_OVERFLOW, bhi_page_block(page, index) + at);
}

void bhi_hard_written(const bhi_page_t *page, uint32_t index, size_t at)
{
    bhi_violation(BHI_WRITE_AFTER_FREE, bhi_page_block(page, index) + at);
}

/* Whoever freed a block a short while ago may still write to it; of one that has been
 * free for long the next one's underflow is likelier. */
void bhi_hard_written_before(const bhi_page_t *page, uint32_t index)
{
    const bhi_heap_t *heap = atomic_load_explicit(&page->heap, memory_order_relaxed);
    if ((bhi_hard_old(heap, page, index / 64) & bhi_map_bit(index)) == 0)
        bhi_hard_written(page, index, bhi_wipe_find(bhi_page_block(page, index), page->block_size));
    bhi_violation(BHI_UNDERFLOW, bhi_page_block(page, index + 1));
}

/* If the first byte of the slack is whole, it was no overflow of the block but an
 * underflow of the next. */
void bhi_hard_check_live(const bhi_page_t *page, uint32_t index)
{
    size_t at = bhi_hard_damage(page, index);
    if (bh_likely(at == BH_CANARY_INTACT))
        return;
    atomic_thread_fence(memory_order_acquire);
    if (bhi_map_is_live(page->map, index))
        bhi_violation(at == bhi_hard_requested(page, index) ? BHI_OVERFLOW : BHI_UNDERFLOW, bhi_page_block(page, index) + at);
}

/* From a random place on in a random word of the map, and from its start again: each
 * block is looked at as often. */
void bhi_hard_sweep(const bhi_page_t *page, bhi_random_t *random)
{
    uint32_t words = bhi_hard_words(bhi_page_capacity(page)), w = bhi_random_below(random, words);
    uint64_t live = bhi_map_live(page->map, w);
    uint32_t from = (uint32_t)bhi_random_bits(random, 6);
    unsigned most = page->block_size > 1024 ? SWEEP_LONG : SWEEP;
    for (unsigned i = 0; live != 0 && i < most; i++) {
        uint64_t behind = live & bhi_bit_range(from, 64 - from);
        unsigned at = bhi_bit_first(behind != 0 ? behind : live);
        live &= ~((uint64_t)1 << at);
        bhi_hard_check_live(page, w * 64 + at);
    }
}

/* As bhi_hard_check_live, of a single block. Who frees it from another thread makes it
 * inaccessible under the lock, after it has set held: what is live now can be read. */
static void check_single(const bhi_page_t *page)
{
    bhi_state_lock();
    bool live = bhi_map_is_live(page->map, 0);
    size_t at = live ? bhi_hard_damage(page, 0) : BH_CANARY_INTACT, before = live ? bhi_hard_head_damage(page) : 0;
    bhi_state_unlock();
    if (bh_unlikely(before != 0))
        bhi_hard_underrun(page, before);
    if (bh_unlikely(at != BH_CANARY_INTACT))
        bhi_violation(BHI_OVERFLOW, page->start + at);
}

/* Whether a block was never handed out, in memory of the kernel's. */
static bool is_untouched(const bhi_page_t *page, uint32_t index)
{
    return page->memory == BHI_MEMORY_ZERO && bhi_hard_size(page, page->block_size, index) == 0;
}

/* Whether `bytes` from there on, free or fresh memory of the page, are as they were left. */
static void check_zero(const bhi_page_t *page, uint32_t index, size_t from, size_t bytes)
{
    size_t at = bhi_wipe_check(bhi_page_block(page, index) + from, bytes);
    if (bh_unlikely(at != BH_WIPE_CLEAN))
        bhi_hard_written(page, index, from + at);
}

/* A block that is not live. Unless `all`, of an untouched one only what an underflow of
 * the next can have reached: to read the rest would cost a page fault each OS page. */
static void check_free(const bhi_page_t *page, uint32_t index, bool all)
{
    size_t from = 0;
    if (!all && is_untouched(page, index)) {
        if (index + 1 >= bhi_page_capacity(page) || is_untouched(page, index + 1))
            return;
        from = bhi_hard_fresh_end(page, index);
    }
    check_zero(page, index, from, page->block_size - from);
}

/* Free blocks of a page are still zero, all live ones still end as they should. */
static void verify_page(const bhi_page_t *page, bool all)
{
    uint32_t capacity = bhi_page_capacity(page);
    if (page->block_size == 0) {
        check_single(page);
        return;
    }
    for (uint32_t i = 0; i < capacity; i++) {
        if (bhi_map_is_live(page->map, i)) {
            bhi_hard_check_live(page, i);
        } else if (bhi_map_is_free_marked(page->map, i)) {
            check_free(page, i, all);
        }
    }
    for (uint32_t i = capacity; all && page->memory == BHI_MEMORY_ZERO && i < page->reserved; i++)
        check_zero(page, i, 0, page->block_size);
}

void bhi_hard_check_empty(const bhi_page_t *page)
{
    verify_page(page, false);
}

void bhi_hard_forget(const bhi_page_t *page)
{
    verify_page(page, false);
    for (uint32_t i = 0; i < bhi_page_capacity(page); i++) {
        if (bhi_map_is_live(page->map, i))
            bhi_wipe_block(bhi_page_block(page, i), bhi_hard_requested(page, i), page->block_size);
    }
}

void bhi_hard_figures(const bhi_page_t *page, size_t *count, size_t *bytes)
{
    *count = *bytes = 0;
    for (uint32_t w = 0; w < bhi_hard_words(page->reserved); w++) {
        uint64_t live = bhi_page_live_now(page, w);
        *count += bhi_bit_count(live);
        for (; live != 0; live &= live - 1)
            *bytes += bhi_hard_requested(page, w * 64 + bhi_bit_first(live));
    }
}

bool bhi_hard_verify(bhi_heap_t *heap, uint64_t deadline)
{
    bhi_heap_drain(heap, SIZE_MAX); /* what others freed is free then */
    for (unsigned c = 0; c <= BHI_QUEUES; c++) {
        const bhi_queue_t *q = c < BHI_QUEUES ? &heap->queues[c] : &heap->full;
        for (const bhi_page_t *page = q->first; page != NULL; page = page->next) {
            if (bhi_os_now_ms() > deadline)
                return false;
            if (bhi_page_has_ends(page))
                verify_page(page, true);
        }
    }
    return true;
}
