/* Arenas and runs of segments. Owns the address layout; knows nothing of what a
 * segment is used for. */
#include "meta/arena.h"

#include "base/bits.h"
#include "base/checked.h"
#include "meta/pool.h"
#include "os/os.h"

#include <string.h>

#define CONTROL_GAP ((size_t)64 * 1024) /* without access, between the parts of control data */
#define CONTROL_STEP ((size_t)64 * 1024) /* descriptors and headers become writable in such steps */
#define GUARD_BEFORE BH_OS_PAGE_SIZE /* without access: what lies before the first slot is not ours */
#define POOL_LEAST ((size_t)1 << 20)
#define PLACE_TRIES 16
/* With a seed bases lie where address space randomisation puts nothing of its own (it
 * begins at a third of the 47-bit user space), so that the same ones are free in each
 * run. And each fork makes every page of page tables anew that leads to memory in use:
 * so what is used from the start on lies at the beginning of one GiB, small parts and
 * pool within 2 MiB, and what is reserved next begins in the same GiB. */
#define REPLAYED_END ((uint64_t)1 << 39)
#define REPLAYED_BLOCKS ((size_t)64 << 30)
#define REPLAYED_ALIGN ((size_t)1 << 30)
#define REPLAYED_SMALL ((size_t)640 * 1024) /* for reservations of their own elsewhere */
#define REPLAYED_POOL ((size_t)256 << 20)   /* the first; others follow */
#define RUN_TRIES 8 /* runs looked at in the bin that may or may not fit */

typedef struct layout {
    size_t blocks, state, wiped, small, descs, headers, pool, control;
} layout_t;

static bool is_replayed(void)
{
    return bhi_process.options.seed != 0;
}

static layout_t plan(size_t blocks, bool first)
{
    layout_t l;
    memset(&l, 0, sizeof l);
    l.blocks = blocks;
    if (first) {
        l.state = bhi_align_up(sizeof(bhi_state_t) + sizeof(bhi_random_root_t), BH_OS_PAGE_SIZE);
        l.wiped = BH_OS_PAGE_SIZE;
        l.small = is_replayed() ? REPLAYED_SMALL : 0;
    }
    l.descs = bhi_align_up((blocks >> BH_SLOT_SHIFT) << BH_PAGE_DESC_SHIFT, BH_OS_PAGE_SIZE);
    l.headers = bhi_align_up((blocks >> BH_SEGMENT_SHIFT) * sizeof(bhi_segment_t), BH_OS_PAGE_SIZE);
    l.pool = bhi_align_up(blocks / 32 + POOL_LEAST, BH_OS_PAGE_SIZE);
    if (is_replayed())
        l.pool = bhi_min(l.pool, REPLAYED_POOL);
    l.control = l.state + l.wiped + l.small + l.descs + l.headers + l.pool + 5 * CONTROL_GAP;
    return l;
}

/* Reserves `size` bytes at a random multiple of `align`, and `before` bytes before
 * them; 0 on failure. */
static uintptr_t reserve_random(size_t size, size_t align, size_t before, bhi_random_t *random)
{
#if defined(__x86_64__) && !BH_SANITIZED
    /* 47-bit user space; the lowest 64 GiB and the highest TiB, where programs,
     * stacks and libraries live, are left alone. */
    const uint64_t low = (uint64_t)1 << 36;
    const uint64_t high = is_replayed() ? REPLAYED_END : ((uint64_t)1 << 47) - ((uint64_t)1 << 40);
    if (size < high - low) {
        uint64_t places = (high - low - size) / align;
        for (int i = 0; i < PLACE_TRIES; i++) {
            uintptr_t hint = bhi_align_up(low, align) + (bhi_random_u64(random) % places) * align;
            intptr_t at = bhi_os_reserve(hint - before, before + size);
            if (!bhi_os_failed(at))
                return (uintptr_t)at + before;
            if (at == -ENOMEM)
                return 0;
        }
    }
#else
    (void)random;
#endif
    /* The kernel chooses; trim to the alignment. */
    size_t slack = align > BH_OS_PAGE_SIZE ? align : BH_OS_PAGE_SIZE;
    intptr_t at = bhi_os_reserve(0, before + size + slack);
    if (bhi_os_failed(at))
        return 0;
    uintptr_t start = bhi_align_up((uintptr_t)at + before, align);
    uintptr_t end = (uintptr_t)at + before + size + slack;
    if (start - before > (uintptr_t)at)
        bhi_os_release((uintptr_t)at, start - before - (uintptr_t)at);
    if (end > start + size)
        bhi_os_release(start + size, end - (start + size));
    return start;
}

/* For whoever must know what is ours (core/leaks_scan.c). */
static void note_reserved(uintptr_t from, size_t size)
{
    uint32_t n = atomic_load_explicit(&bhi_state->reserved_count, memory_order_relaxed);
    if (n == BHI_RESERVED_MOST)
        return;
    bhi_state->reserved[n] = (bhi_range_t){from, from + size};
    atomic_store_explicit(&bhi_state->reserved_count, n + 1, memory_order_release);
}

/* With a seed: within the first reservation; 0: no room. */
static uintptr_t take_small(size_t size)
{
    bhi_range_t *rest = &bhi_state->small;
    size_t whole = bhi_align_up(size, BH_OS_PAGE_SIZE) + BH_OS_PAGE_SIZE; /* with a page without access */
    if (whole > rest->to - rest->from)
        return 0;
    rest->from += whole;
    return rest->from - whole;
}

/* With a seed: right behind the reservation that was made last. */
static uintptr_t reserve_behind(size_t size)
{
    uint32_t n = atomic_load_explicit(&bhi_state->reserved_count, memory_order_relaxed);
    intptr_t at = bhi_os_reserve(bhi_align_up(bhi_state->reserved[n - 1].to, BH_OS_PAGE_SIZE) + GUARD_BEFORE, size);
    return bhi_os_failed(at) ? 0 : (uintptr_t)at;
}

uintptr_t bhi_arena_reserve_anywhere(size_t size)
{
    uintptr_t at = take_small(size);
    if (at != 0)
        return at;
    at = is_replayed() ? reserve_behind(size) : 0;
    if (at == 0)
        at = reserve_random(size, BH_OS_PAGE_SIZE, 0, &bhi_state->random);
    if (at != 0)
        note_reserved(at, size);
    return at;
}

static void release_blocks(uintptr_t block_at, size_t size)
{
    bhi_os_release(block_at - GUARD_BEFORE, GUARD_BEFORE + size);
}

/* How much to reserve for blocks: all we like where address space is free, at
 * most a quarter of what is left under a limit. */
static size_t wanted_blocks(size_t least, size_t first)
{
    size_t left = bhi_os_address_space_left();
    if (left == SIZE_MAX)
        return bhi_max(is_replayed() ? REPLAYED_BLOCKS : first, least);
    size_t quarter = left / 4;
    size_t overhead = quarter / 16 + 2 * POOL_LEAST + 8 * CONTROL_GAP;
    size_t blocks = quarter > overhead ? bhi_align_down(quarter - overhead, BH_SEGMENT_SIZE) : 0;
    return bhi_max(bhi_max(blocks, least), BH_SEGMENT_SIZE);
}

/* Reserves both halves of an arena, halving the size down to `least` on refusal. */
static bool reserve_arena(size_t blocks, size_t least, bool first, bhi_random_t *random, layout_t *l,
                          uintptr_t *block_at, uintptr_t *control_at)
{
    for (;;) {
        *l = plan(blocks, first);
        *block_at = reserve_random(l->blocks, BH_SEGMENT_SIZE, GUARD_BEFORE, random);
        if (*block_at != 0) {
            *control_at = is_replayed() ? reserve_random(l->control, REPLAYED_ALIGN, 0, random) : 0;
            if (*control_at == 0)
                *control_at = reserve_random(l->control, BH_OS_PAGE_SIZE, 0, random);
            if (*control_at != 0)
                return true;
            release_blocks(*block_at, l->blocks);
        }
        if (blocks <= least)
            return false;
        blocks = bhi_max(least, bhi_align_down(blocks / 2, BH_SEGMENT_SIZE));
    }
}

/* Pool, descriptors and headers of an arena from `at` on. */
static void lay_out(bhi_arena_t *arena, const layout_t *l, uintptr_t block_at, uintptr_t at)
{
    memset(arena, 0, sizeof *arena);
    arena->base = block_at;
    arena->size = l->blocks;
    arena->segments = (uint32_t)(l->blocks >> BH_SEGMENT_SHIFT);
    bhi_pool_add_region(at, l->pool);
    at += l->pool + CONTROL_GAP;
    arena->descs = at;
    at += l->descs + CONTROL_GAP;
    arena->headers = (bhi_segment_t *)at;
}

bool bhi_arena_init(bhi_random_root_t *root)
{
    layout_t l;
    uintptr_t block_at, at;
    size_t blocks = wanted_blocks(0, BH_ARENA_SIZE_FIRST);
    size_t least = blocks < BH_ARENA_SIZE_LEAST ? BH_SEGMENT_SIZE : BH_ARENA_SIZE_LEAST;
    if (!reserve_arena(blocks, least, true, &root->state, &l, &block_at, &at))
        return false;
    if (bhi_os_open(at + CONTROL_GAP, l.state + l.wiped) != 0) {
        release_blocks(block_at, l.blocks);
        bhi_os_release(at, l.control);
        return false;
    }
    bhi_os_no_huge_pages(at, l.control);
    at += CONTROL_GAP;
    bhi_process.state = (bhi_state_t *)at;
    bhi_random_place_root((bhi_random_root_t *)(at + sizeof(bhi_state_t)), root, at + l.state);
    bhi_random_init(&bhi_state->random);
    note_reserved(block_at, l.blocks);
    note_reserved(at - CONTROL_GAP, l.control);
    at += l.state + l.wiped + CONTROL_GAP;
    bhi_state->small = (bhi_range_t){at, at + l.small};
    at += l.small;
    bhi_arena_t *arena = &bhi_state->arenas[0];
    lay_out(arena, &l, block_at, at);
    atomic_store_explicit(&bhi_state->arena_count, 1, memory_order_release);
    bhi_process.block_base = arena->base;
    bhi_process.block_size = arena->size;
    bhi_process.block_open = &arena->blocks_open;
    bhi_process.descs = arena->descs;
    return true;
}

/* A further arena that holds at least n segments; NULL when there is no room. */
static bhi_arena_t *add_arena(uint32_t n)
{
    uint32_t index = atomic_load_explicit(&bhi_state->arena_count, memory_order_relaxed);
    if (index >= BH_ARENA_MAX)
        return NULL;
    size_t least = (size_t)n << BH_SEGMENT_SHIFT;
    layout_t l;
    uintptr_t block_at, at;
    size_t blocks = wanted_blocks(least, BH_ARENA_SIZE_FIRST);
    if (!reserve_arena(blocks, least, false, &bhi_state->random, &l, &block_at, &at))
        return NULL;
    bhi_os_no_huge_pages(at, l.control);
    note_reserved(block_at, l.blocks);
    note_reserved(at, l.control);
    lay_out(&bhi_state->arenas[index], &l, block_at, at + CONTROL_GAP);
    atomic_store_explicit(&bhi_state->arena_count, index + 1, memory_order_release);
    return &bhi_state->arenas[index];
}

/* ------------------------------------------------------------- free runs */

static unsigned run_bin(uint32_t n)
{
    unsigned bin = bhi_bit_last(n);
    return bin < BHI_RUN_BINS ? bin : BHI_RUN_BINS - 1;
}

static void run_unlink(bhi_arena_t *arena, bhi_segment_t *first)
{
    if (first->prev != NULL)
        first->prev->next = first->next;
    else
        arena->runs[run_bin(first->run)] = first->next;
    if (first->next != NULL)
        first->next->prev = first->prev;
    first[first->run - 1].in_run = false;
    first->in_run = false;
}

static void run_link(bhi_arena_t *arena, bhi_segment_t *first, uint32_t n)
{
    bhi_segment_t *last = first + n - 1;
    unsigned bin = run_bin(n);
    first->kind = last->kind = BHI_SEGMENT_NONE;
    first->run = last->run = n;
    first->in_run = last->in_run = true;
    first->prev = NULL;
    first->next = arena->runs[bin];
    if (first->next != NULL)
        first->next->prev = first;
    arena->runs[bin] = first;
}

/* Makes descriptors and headers of the segments below `top` writable. */
static bool open_control(bhi_arena_t *arena, uint32_t top)
{
    size_t descs = bhi_min(bhi_align_up((size_t)top << (BH_SEGMENT_SLOTS_SHIFT + BH_PAGE_DESC_SHIFT), CONTROL_STEP),
                           bhi_align_up((size_t)arena->segments << (BH_SEGMENT_SLOTS_SHIFT + BH_PAGE_DESC_SHIFT), BH_OS_PAGE_SIZE));
    size_t headers = bhi_min(bhi_align_up((size_t)top * sizeof(bhi_segment_t), CONTROL_STEP),
                             bhi_align_up((size_t)arena->segments * sizeof(bhi_segment_t), BH_OS_PAGE_SIZE));
    if (headers > arena->headers_open) {
        if (bhi_os_open((uintptr_t)arena->headers + arena->headers_open, headers - arena->headers_open) != 0)
            return false;
        arena->headers_open = headers;
    }
    /* Descriptors last: whoever finds one may look at its segment's header. */
    size_t open = atomic_load_explicit(&arena->blocks_open, memory_order_relaxed) >> BH_SLOT_SHIFT << BH_PAGE_DESC_SHIFT;
    if (descs > open) {
        if (bhi_os_open(arena->descs + open, descs - open) != 0)
            return false;
        atomic_store_explicit(&arena->blocks_open, descs >> BH_PAGE_DESC_SHIFT << BH_SLOT_SHIFT, memory_order_release);
    }
    return true;
}

/* First segment index at or after `index` whose address has the alignment. */
static uint32_t align_index(const bhi_arena_t *arena, uint32_t index, uint32_t align_segments)
{
    uintptr_t number = (arena->base >> BH_SEGMENT_SHIFT) + index;
    return (uint32_t)(bhi_align_up(number, align_segments) - (arena->base >> BH_SEGMENT_SHIFT));
}

static bhi_segment_t *take_from_runs(bhi_arena_t *arena, uint32_t n, uint32_t align_segments)
{
    for (unsigned bin = run_bin(n); bin < BHI_RUN_BINS; bin++) {
        bhi_segment_t *run = arena->runs[bin];
        for (int i = 0; run != NULL && i < RUN_TRIES; i++, run = run->next) {
            uint32_t at = (uint32_t)(run - arena->headers);
            uint32_t start = align_index(arena, at, align_segments);
            uint32_t end = at + run->run;
            if (start > end || end - start < n)
                continue;
            run_unlink(arena, run);
            if (start > at)
                run_link(arena, run, start - at);
            if (end > start + n)
                run_link(arena, &arena->headers[start + n], end - (start + n));
            return &arena->headers[start];
        }
    }
    return NULL;
}

static bool has_room(const bhi_arena_t *arena, uint32_t n, uint32_t align_segments)
{
    uint32_t start = align_index(arena, arena->top, align_segments);
    return start <= arena->segments && arena->segments - start >= n;
}

static bhi_segment_t *take_from_top(bhi_arena_t *arena, uint32_t n, uint32_t align_segments)
{
    uint32_t start = align_index(arena, arena->top, align_segments);
    if (!has_room(arena, n, align_segments) || !open_control(arena, start + n))
        return NULL;
    uint32_t skipped = start - arena->top;
    uint32_t old_top = arena->top;
    arena->top = start + n;
    if (skipped > 0)
        bhi_arena_give_run(&arena->headers[old_top], skipped);
    return &arena->headers[start];
}

bhi_segment_t *bhi_arena_take_run(uint32_t n, uint32_t align_segments)
{
    uint32_t count = atomic_load_explicit(&bhi_state->arena_count, memory_order_relaxed);
    bool refused = false;
    for (uint32_t i = 0; i < count; i++) {
        bhi_arena_t *arena = &bhi_state->arenas[i];
        bhi_segment_t *run = take_from_runs(arena, n, align_segments);
        if (run == NULL)
            run = take_from_top(arena, n, align_segments);
        if (run != NULL)
            return run;
        refused = refused || has_room(arena, n, align_segments);
    }
    /* Where the kernel opens nothing there is room for, one more arena is address space
     * for good and no help: it would be refused next. */
    if (refused)
        return NULL;
    uint64_t need = (uint64_t)n + align_segments - 1;
    bhi_arena_t *arena = need <= UINT32_MAX / 2 ? add_arena((uint32_t)need) : NULL;
    return arena != NULL ? take_from_top(arena, n, align_segments) : NULL;
}

void bhi_arena_give_run(bhi_segment_t *first, uint32_t n)
{
    bhi_arena_t *arena = bhi_segment_arena(first);
    uint32_t at = (uint32_t)(first - arena->headers);
    first->kind = BHI_SEGMENT_NONE;
    if (at > 0 && first[-1].in_run) {
        bhi_segment_t *before = first - first[-1].run;
        run_unlink(arena, before);
        n += (uint32_t)(first - before);
        first = before;
    }
    bhi_segment_t *after = first + n;
    if (after < arena->headers + arena->top && after->in_run) {
        n += after->run;
        run_unlink(arena, after);
    }
    run_link(arena, first, n);
}
