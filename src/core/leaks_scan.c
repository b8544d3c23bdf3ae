/* The search for blocks that are reached; see leaks.h. Conservative marking: from the
 * process's mappings, then through the blocks that were found. */
#include "core/leaks.h"

#include "base/bits.h"
#include "core/sampled.h"
#include "meta/huge.h"
#include "os/os.h"
#include "rt/mapping.h"

#define SPARSE ((size_t)1 << 20) /* from this size on pages that hold nothing are passed over */
#define PAGEMAP_PRESENT ((uint64_t)3 << 62) /* present or swapped: pagemap, kernel documentation */
#define PAGEMAP_FILE ((uint64_t)1 << 61)    /* a page of a file, or shared */
#define PAGEMAP_AT_ONCE 256u
#define STEP 4096u /* OS pages are no smaller */

/* The reads race with whatever thread could not be stopped. */
#if defined(__clang__)
#define UNCHECKED __attribute__((noinline, no_sanitize("address", "thread")))
#else
#define UNCHECKED __attribute__((noinline, no_sanitize_address, no_sanitize_thread))
#endif

/* -------------------------------------------------------------------- blocks */

static bool is_in_use(const bhi_page_t *page)
{
    return atomic_load_explicit(&page->heap, memory_order_acquire) != NULL && bhi_page_capacity(page) != 0 && bhi_record_has(page);
}

static bhi_found_t found_in(const bhi_page_t *page, uint32_t index)
{
    return (bhi_found_t){bhi_page_block(page, index), bhi_hard_requested(page, index), &bhi_record_of(page, index)->origin};
}

static void blocks_of(const bhi_page_t *page, void (*each)(const bhi_found_t *found, void *arg), void *arg)
{
    if (!is_in_use(page))
        return;
    for (uint32_t w = 0; w < bhi_hard_words(bhi_page_capacity(page)); w++) {
        for (uint64_t live = bhi_page_live_now(page, w); live != 0; live &= live - 1) {
            bhi_found_t found = found_in(page, w * 64 + bhi_bit_first(live));
            each(&found, arg);
        }
    }
}

static void blocks_in(const bhi_segment_t *s, void (*each)(const bhi_found_t *found, void *arg), void *arg)
{
    if (s->kind == BHI_SEGMENT_HUGE && s->quarantined == 0)
        blocks_of(bhi_segment_desc(s, 0), each, arg);
    for (uint64_t heads = s->kind == BHI_SEGMENT_SLOTS ? s->heads : 0; heads != 0; heads &= heads - 1)
        blocks_of(bhi_segment_desc(s, bhi_bit_first(heads)), each, arg);
}

void bhi_scan_blocks(void (*each)(const bhi_found_t *found, void *arg), void *arg)
{
    uint32_t arenas = atomic_load_explicit(&bhi_state->arena_count, memory_order_relaxed);
    for (uint32_t a = 0; a < arenas; a++) {
        const bhi_arena_t *arena = &bhi_state->arenas[a];
        for (uint32_t i = 0; i < arena->top; i++)
            blocks_in(&arena->headers[i], each, arg);
    }
    bhi_guarded_t *g = bhi_is_sampling() ? bhi_guarded_next(NULL) : NULL;
    for (; g != NULL; g = bhi_guarded_next(g)) {
        bhi_found_t found = {g->block, g->size, &g->origin};
        if (bhi_guarded_state(g) == BHI_GUARDED_LIVE)
            each(&found, arg);
    }
}

/* The live block that p points to, or right behind. */
static bool find(uintptr_t p, bhi_found_t *out)
{
    if (bhi_guarded_contains(p)) {
        bhi_guarded_t *g = bhi_guarded_at(p);
        if (g == NULL || bhi_guarded_state(g) != BHI_GUARDED_LIVE || p - g->block > g->size)
            return false;
        *out = (bhi_found_t){g->block, g->size, &g->origin};
        return true;
    }
    const bhi_arena_t *arena = bhi_arena_of(p);
    if (arena == NULL || p - arena->base >= atomic_load_explicit(&arena->blocks_open, memory_order_relaxed))
        return false;
    const bhi_segment_t *s = &arena->headers[(p - arena->base) >> BH_SEGMENT_SHIFT];
    if (s->kind != BHI_SEGMENT_SLOTS)
        s = bhi_huge_find(arena, (uint32_t)((p - arena->base) >> BH_SEGMENT_SHIFT));
    if (s == NULL)
        return false;
    const bhi_page_t *page = s->kind == BHI_SEGMENT_SLOTS ? bhi_desc_first(bhi_desc_at(arena->descs, p - arena->base)) : bhi_segment_desc(s, 0);
    if (!is_in_use(page) || p < page->start)
        return false;
    size_t into = p - page->start, index = page->block_size != 0 ? into / page->block_size : into > page->single_bytes;
    if (index >= bhi_page_capacity(page) || (bhi_page_live_now(page, (uint32_t)index / 64) >> (index & 63) & 1) == 0)
        return false;
    *out = found_in(page, (uint32_t)index);
    return true;
}

/* --------------------------------------------------------------------- words */

static void reach(bhi_scan_t *s, uintptr_t p)
{
    bhi_found_t found;
    if (p < STEP || !find(p, &found) || (atomic_fetch_or(found.origin, BHI_ORIGIN_MARK) & BHI_ORIGIN_MARK) != 0)
        return;
    if (s->count < s->most)
        s->work[s->count++] = found;
}

UNCHECKED static void words(bhi_scan_t *s, const void *from, size_t bytes)
{
    const volatile uintptr_t *word = from;
    for (size_t i = 0; i < bytes / sizeof *word; i++)
        reach(s, word[i]);
}

/* [from, to), up to BHI_SCAN_COPY bytes, of which some may be inaccessible. */
static void part(bhi_scan_t *s, uintptr_t from, uintptr_t to)
{
    if (s->direct) {
        words(s, (const void *)from, to - from); /* NOLINT: memory is walked by number */
    } else if (bhi_os_copy(s->copy, from, to - from)) {
        words(s, s->copy, to - from);
    } else {
        for (uintptr_t at = from, end; at < to; at = end) {
            end = bhi_min(to, bhi_align_down(at, STEP) + STEP);
            if (bhi_os_copy(s->copy, at, end - at))
                words(s, s->copy, end - at);
        }
    }
}

/* Nothing of this process's is in a page of a private mapping that still is the
 * file's. Tables of libraries are full of small numbers, and where the blocks' random
 * base is low these are addresses of blocks. */
static bool may_hold(uint64_t entry, bool private)
{
    return (entry & PAGEMAP_PRESENT) != 0 && !(private && (entry & PAGEMAP_FILE) != 0);
}

/* How far from `from` on there is nothing, or (*used) something. */
static uintptr_t run_to(const bhi_scan_t *s, uintptr_t from, uintptr_t to, bool private, bool *used)
{
    uint64_t entry[PAGEMAP_AT_ONCE];
    size_t wanted = bhi_min((to - from + s->os_page - 1) / s->os_page, PAGEMAP_AT_ONCE);
    long got = bhi_os_file_read_at(s->pagemap, entry, wanted * sizeof *entry, from / s->os_page * sizeof *entry);
    size_t n = got > 0 ? (size_t)got / sizeof *entry : 0, i = 1;
    *used = n == 0 || may_hold(entry[0], private);
    if (n == 0)
        return to;
    while (i < n && may_hold(entry[i], private) == *used)
        i++;
    return bhi_min(to, bhi_align_down(from, s->os_page) + i * s->os_page);
}

static void area(bhi_scan_t *s, uintptr_t from, uintptr_t to, bool private)
{
    bool look = (private || to - from >= SPARSE) && s->pagemap >= 0;
    for (uintptr_t at = from, end; at < to; at = end) {
        bool used = true;
        end = look ? run_to(s, at, to, private, &used) : to;
        for (uintptr_t p = at; used && p < end; p += BHI_SCAN_COPY)
            part(s, p, bhi_min(end, p + BHI_SCAN_COPY));
    }
}

/* --------------------------------------------------------------------- roots */

static bhi_range_t own_range(const bhi_scan_t *s, uint32_t i)
{
    if (i == 0)
        return (bhi_range_t){s->own_from, s->own_to};
    if (i == 1)
        return (bhi_range_t){(uintptr_t)&bhi_process_page, (uintptr_t)(&bhi_process_page + 1)};
    return bhi_state->reserved[i - 2];
}

/* [from, to) without what is ours: there are addresses of blocks all over it. */
static void root(bhi_scan_t *s, uintptr_t from, uintptr_t to, bool private)
{
    uint32_t ranges = 2 + atomic_load_explicit(&bhi_state->reserved_count, memory_order_acquire);
    for (uintptr_t at = from, end; at < to; at = end) {
        uintptr_t skip = at;
        end = to;
        for (uint32_t i = 0; i < ranges; i++) {
            bhi_range_t own = own_range(s, i);
            if (at >= own.from && at < own.to)
                skip = bhi_max(skip, own.to);
            else if (own.from > at)
                end = bhi_min(end, own.from);
        }
        if (skip > at)
            end = bhi_min(skip, to);
        else
            area(s, at, end, private);
    }
}

static bool begins(const char *name, const char *with)
{
    while (*with != '\0' && *name == *with) {
        name++;
        with++;
    }
    return *with == '\0';
}

/* Memory of devices may do anything when it is read. */
static bool is_device(const char *name)
{
    return begins(name, "/dev/") && !begins(name, "/dev/shm/") && !begins(name, "/dev/zero");
}

static bool root_mapping(const bhi_mapping_t *m, void *arg)
{
    bhi_scan_t *s = arg;
    if (m->access[0] != 'r')
        return true;
    bool shared = m->access[3] == 's', private = m->access[3] == 'p';
    if ((m->access[2] == 'x' && m->access[1] != 'w') || is_device(m->name) || begins(m->name, "[v") || (shared && s->direct))
        return true;
    bool own_stack = s->stack >= m->start && s->stack < m->end;
    root(s, own_stack ? bhi_align_down(s->stack, sizeof(uintptr_t)) : m->start, m->end, private);
    return true;
}

bool bhi_scan_mark(bhi_scan_t *s)
{
    bool whole = bhi_mapping_each(root_mapping, s);
    while (whole && s->count > 0) {
        bhi_found_t found = s->work[--s->count];
        /* Parts of larger blocks may have been closed by the program. */
        if (found.size < STEP)
            words(s, (const void *)bhi_align_up(found.block, sizeof(uintptr_t)), found.size); /* NOLINT */
        else
            area(s, bhi_align_up(found.block, sizeof(uintptr_t)), found.block + found.size, false);
    }
    return whole;
}
