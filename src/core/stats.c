/* Statistics; see stats.h. */
#include "core/stats.h"

#include "base/bits.h"
#include "meta/arena.h"
#include "meta/types.h"

#include <string.h>

static void add_page(bhi_stats_t *out, const bhi_page_t *page)
{
    if (page->state == BHI_PAGE_FREE)
        return;
    out->page_count++;
    out->used_bytes += (size_t)page->used * page->block_bytes;
    if (page->state == BHI_PAGE_LARGE && page->used != 0) {
        out->large_count++;
        out->large_bytes += page->block_bytes;
    }
}

static void add_arena(bhi_stats_t *out, const bhi_arena_t *arena)
{
    out->reserved_bytes += arena->size;
    out->control_bytes += (atomic_load_explicit(&arena->blocks_open, memory_order_relaxed) >> BH_SLOT_SHIFT << BH_PAGE_DESC_SHIFT) + arena->headers_open;
    for (uint32_t i = 0; i < arena->top;) {
        const bhi_segment_t *s = &arena->headers[i];
        uint32_t n = 1;
        if (s->kind == BHI_SEGMENT_SLOTS) {
            for (uint64_t heads = s->heads; heads != 0; heads &= heads - 1)
                add_page(out, bhi_segment_desc(s, bhi_bit_first(heads)));
            out->free_slot_bytes += (size_t)bhi_bit_count(s->free) << BH_SLOT_SHIFT;
        } else {
            n = s->run;
            if (s->kind == BHI_SEGMENT_HUGE)
                add_page(out, bhi_segment_desc(s, 0));
        }
        if (s->kind != BHI_SEGMENT_NONE) {
            out->segment_count += n;
            out->open_bytes += (size_t)n << BH_SEGMENT_SHIFT;
        }
        i += n > 0 ? n : 1;
    }
}

void bhi_stats_collect(bhi_stats_t *out)
{
    memset(out, 0, sizeof *out);
    if (bhi_state == NULL)
        return;
    bhi_state_lock();
    uint32_t n = atomic_load_explicit(&bhi_state->arena_count, memory_order_relaxed);
    for (uint32_t i = 0; i < n; i++)
        add_arena(out, &bhi_state->arenas[i]);
    out->control_bytes += bhi_state->pool.bytes + sizeof(bhi_state_t);
    out->guard_missed = atomic_load_explicit(&bhi_state->guard_missed, memory_order_relaxed);
    bhi_state_unlock();
}
