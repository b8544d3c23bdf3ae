/* Statistics; see stats.h. */
#include "core/stats.h"

#include "base/bits.h"
#include "core/hardened.h"
#include "core/heap.h"
#include "core/page.h"
#include "core/sampled.h"
#include "meta/arena.h"
#include "meta/types.h"

#include <string.h>

/* Live blocks of a page and their usable bytes. */
static void figures_of(const bhi_page_t *page, size_t *count, size_t *bytes)
{
    *count = bhi_page_live(page);
    *bytes = *count * bhi_page_bytes(page);
    if (bhi_page_has_ends(page) && *count != 0)
        bhi_hard_figures(page, count, bytes);
}

static void add_page(bhi_stats_t *out, const bhi_page_t *page)
{
    if (page->state == BHI_PAGE_FREE)
        return;
    size_t count, bytes;
    figures_of(page, &count, &bytes);
    out->page_count++;
    out->used_bytes += bytes;
    if (page->state == BHI_PAGE_LARGE) {
        out->large_count += count;
        out->large_bytes += bytes;
    }
}

static void add_huge(bhi_stats_t *out, const bhi_page_t *page)
{
    size_t count = out->large_count, bytes = out->large_bytes;
    add_page(out, page);
    out->huge_count += out->large_count - count;
    out->huge_bytes += out->large_bytes - bytes;
}

/* Heaps whose threads did not follow a fork are nobody's. */
static void add_heap(bhi_stats_t *out, const bhi_heap_t *heap)
{
    uint8_t kind = atomic_load_explicit(&heap->kind, memory_order_relaxed);
    if (bhi_heap_owner(heap) == BHI_OWNER_GONE)
        return;
    out->heap_count += kind == BHI_HEAP_USER;
    out->thread_count += kind == BHI_HEAP_THREAD;
    out->orphan_count += kind == BHI_HEAP_ORPHAN;
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
            out->quarantined_bytes += (size_t)bhi_bit_count(s->quarantined) << BH_SLOT_SHIFT;
        } else {
            n = s->run;
            if (s->kind == BHI_SEGMENT_HUGE)
                add_huge(out, bhi_segment_desc(s, 0));
        }
        bool waits = s->kind == BHI_SEGMENT_HUGE && s->quarantined != 0;
        if (waits)
            out->quarantined_bytes += (size_t)n << BH_SEGMENT_SHIFT;
        if (s->kind != BHI_SEGMENT_NONE && !waits) {
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
    n = atomic_load_explicit(&bhi_state->heap_count, memory_order_relaxed);
    for (uint32_t id = 0; id < n; id++)
        add_heap(out, bhi_state->heap_dir[id / BHI_HEAP_DIR_CHUNK][id % BHI_HEAP_DIR_CHUNK]);
    out->control_bytes += bhi_state->pool.bytes + sizeof(bhi_state_t);
    if (bhi_process.guarded != NULL) {
        const bhi_guarded_pool_t *guarded = bhi_process.guarded;
        out->reserved_bytes += bhi_process.guarded_size;
        out->open_bytes += guarded->live_data;
        out->used_bytes += guarded->live_bytes;
        out->guarded_count = guarded->live;
        out->guarded_bytes = guarded->live_bytes;
        out->guarded_refused = atomic_load_explicit(&guarded->refused, memory_order_relaxed);
    }
    out->guard_missed = atomic_load_explicit(&bhi_state->guard_missed, memory_order_relaxed);
    out->advice_refused = atomic_load_explicit(&bhi_state->advice_refused, memory_order_relaxed);
    bhi_state_unlock();
}

static bool add_guarded(const bhi_guarded_t *g, void *arg)
{
    bhi_heap_figures_t *out = arg;
    out->used_count++;
    out->used_bytes += g->size;
    return true;
}

void bhi_stats_of_heap(bhi_heap_t *heap, bhi_heap_figures_t *out)
{
    memset(out, 0, sizeof *out);
    bhi_heap_drain(heap, SIZE_MAX);
    for (unsigned c = 0; c <= BHI_QUEUES; c++) {
        const bhi_queue_t *q = c < BHI_QUEUES ? &heap->queues[c] : &heap->full;
        for (const bhi_page_t *page = q->first; page != NULL; page = page->next) {
            size_t count, bytes;
            figures_of(page, &count, &bytes);
            out->page_count++;
            out->page_bytes += (size_t)page->span_slots << BH_SLOT_SHIFT;
            out->used_count += count;
            out->used_bytes += bytes;
            if (page->state == BHI_PAGE_LARGE) {
                out->large_count += count;
                out->large_bytes += bytes;
            }
        }
    }
    bhi_sampled_visit(heap, add_guarded, out);
}
