/* Sampled guarded allocations; see sampled.h. */
#include "core/sampled.h"

#include "base/checked.h"
#include "core/thread.h"
#include "core/traced.h"
#include "harden/choice.h"
#include "harden/depot.h"
#include "harden/sites.h"
#include "os/os.h"
#include "rt/stack.h"

#define SITE_DEPTH 8u /* frames that tell call sites apart: more would tell turns of a recursion apart */
#define LEFT_OF 8u /* one in so many is aligned to the guard before it */

#define options (&bhi_process.options)

/* ----------------------------------------------------------------- the choice */

/* From the keystream; with a seed from a stream of its own, so that heaps of a program with
 * one thread have the same numbers in each run. */
static uint64_t next_bits(bhi_heap_t *heap)
{
    if (bh_likely(options->guarded_sample_seed == 0))
        return bhi_random_u64(&heap->random);
    if (heap->sample_stream == 0) {
        heap->sample_stream = (uint64_t)options->guarded_sample_seed << 32 | (heap->id + 1);
        bhi_choice_seeded(&heap->sample_stream);
    }
    return bhi_choice_seeded(&heap->sample_stream);
}

/* Whether guarded_first leaves any of the class to be chosen. */
static bool has_early(unsigned c)
{
    uint32_t most = options->guarded_first;
    return most != 0 && atomic_load_explicit(&bhi_process.guarded->first[c], memory_order_relaxed) < most;
}

/* One of the first allocations of the class in this process. */
static bool is_early(unsigned c)
{
    return has_early(c) && atomic_fetch_add_explicit(&bhi_process.guarded->first[c], 1, memory_order_relaxed) < options->guarded_first;
}

static bool looks_at_sites(void)
{
    return bh_unlikely(bhi_process.sites != NULL);
}

/* With rate 0, after the first ones, the next is one of 2^32. `random`: of next_bits. */
BH_INLINE uint32_t draw(unsigned c, uint64_t random)
{
    uint32_t every = bhi_process.sample_every;
    if (every == 1 || (looks_at_sites() ? has_early(c) : is_early(c)))
        return 1;
    return every == 0 ? UINT32_MAX : bhi_choice_draw(&bhi_process.sample_choice, random) + 1;
}

bool bhi_sampled_find_due(bhi_heap_t *heap, unsigned c)
{
    heap->sample[c] = draw(c, next_bits(heap));
    return heap->sample[c] == 1;
}

uint32_t bhi_sampled_cut_short(bhi_heap_t *heap, unsigned c, uint32_t n)
{
    if (!bhi_is_sampling())
        return n; /* the count has begun anew */
    heap->sample[c] += n;
    if (bhi_sampled_due(heap, c))
        return 0;
    n = (uint32_t)bhi_min(n, heap->sample[c] - 1);
    heap->sample[c] -= n;
    return n;
}

/* ----------------------------------------------------------------- allocation */

/* Cached: the call costs as much as a small malloc. A child of _Fork, which runs
 * no handlers, goes by its parent's number. */
static BH_THREAD_LOCAL uint32_t thread_number;

uint32_t bhi_sampled_thread(void)
{
    if (bh_unlikely(thread_number == 0))
        thread_number = (uint32_t)bhi_os_tid();
    return thread_number;
}

typedef struct frames {
    uintptr_t frames[BH_STACK_DEPTH];
    unsigned n;
} frames_t;

BH_INLINE void walk(frames_t *out)
{
    out->n = bhi_stack_here(out->frames, BH_STACK_DEPTH);
}

BH_INLINE uint32_t keep(const frames_t *stack)
{
    return bhi_depot_put(bhi_process.depot, stack->frames, stack->n);
}

BH_INLINE uint32_t stack_here(void)
{
    frames_t stack;
    if (bhi_process.depot == NULL)
        return 0;
    walk(&stack);
    return keep(&stack);
}

BH_INLINE bool is_wanted(size_t size, size_t align)
{
    return size >= options->guarded_min && size <= options->guarded_max && align <= BH_OS_PAGE_SIZE && !bhi_stack_busy();
}

/* Bytes between the data's start and the block. `random`: of next_bits. */
BH_INLINE size_t place(const bhi_guarded_t *g, size_t size, size_t align, uint64_t random)
{
    size_t least = options->guarded_precise != 0 ? 1 : size <= 8 ? 8 : 16;
    uint32_t side = options->guarded_side;
    if (side == BHI_SIDE_START || (side == BHI_SIDE_RANDOM && random < UINT64_MAX / LEFT_OF))
        return 0;
    return bhi_align_down(bhi_guarded_bytes(g) - size, bhi_max(align, least));
}

BH_INLINE void *guard_with(bhi_heap_t *heap, size_t size, size_t align, uint32_t stack, uint64_t random)
{
    bhi_guarded_t *g = bhi_guarded_take(heap, size);
    if (g == NULL)
        return NULL;
    g->block = bhi_guarded_data(g) + place(g, size, align, random);
    atomic_store_explicit(&g->origin, bhi_origin(align > 16 ? BHI_KIND_ALIGNED : BHI_KIND_MALLOC, stack), memory_order_relaxed);
    g->alloc_thread = bhi_sampled_thread();
    g->free_stack = g->free_thread = 0;
    bhi_guarded_fill(g);
    bhi_guarded_publish(g);
    return (void *)g->block; /* NOLINT: this is where a number becomes a pointer */
}

/* One of the first of its call site; such blocks may have half of all slots. */
static bool is_first_of_site(const frames_t *stack)
{
    bool room = bhi_guarded_live() < options->guarded_slots / 2;
    unsigned n = (unsigned)bhi_min(stack->n, SITE_DEPTH);
    return n != 0 && room && bhi_sites_choose(bhi_process.sites, stack->frames, n, options->guarded_first_site);
}

/* C3: this allocation of class c alone is judged. */
static void *guard_by_site(bhi_heap_t *heap, unsigned c, size_t size, size_t align)
{
    bool early = is_early(c);
    if (!is_wanted(size, align))
        return NULL;
    uint32_t rate = options->guarded_sample_rate;
    uint64_t rest;
    bool by_rate = early || (rate != 0 && bhi_mul_wide(next_bits(heap), rate, &rest) < bhi_process.sample_every);
    frames_t stack;
    walk(&stack);
    return by_rate || is_first_of_site(&stack) ? guard_with(heap, size, align, keep(&stack), next_bits(heap)) : NULL;
}

/* The allocation is due; which one is the next is drawn. */
BH_INLINE void *chosen(bhi_heap_t *heap, unsigned c, size_t size, size_t align)
{
    if (!looks_at_sites()) {
        /* Its highest bits say the side, and all of them begin the stream of the next choice. */
        uint64_t random = next_bits(heap);
        heap->sample[c] = draw(c, random); /* first: to walk a stack may allocate */
        return is_wanted(size, align) ? guard_with(heap, size, align, stack_here(), random) : NULL;
    }
    void *p = guard_by_site(heap, c, size, align);
    heap->sample[c] = draw(c, next_bits(heap));
    return p;
}

void *bhi_sampled_listed(bhi_heap_t *heap, unsigned c, size_t size, size_t align)
{
    const bhi_page_t *page = heap->queues[c].first;
    if (!bhi_sampled_due(heap, c) || (page != NULL && page->listed != 0))
        return NULL;
    void *p = chosen(heap, c, size, align);
    if (p == NULL && heap->sample[c] != UINT32_MAX)
        heap->sample[c]++; /* for the one that is served instead, from a list */
    return p;
}

void *bhi_sampled_single(bhi_heap_t *heap, unsigned c, size_t size, size_t align)
{
    if (!bhi_sampled_due(heap, c)) {
        heap->sample[c]--;
        return NULL;
    }
    return chosen(heap, c, size, align);
}

/* ----------------------------------------------------------------------- free */

/* Rows by bhi_use_t: not a block's start, not live. */
static const bhi_violation_t violations[][2] = {
    {BHI_INVALID_FREE, BHI_DOUBLE_FREE},
    {BHI_INVALID_REALLOC, BHI_REALLOC_AFTER_FREE},
    {BHI_INVALID_QUERY, BHI_QUERY_AFTER_FREE},
};

/* The slot whose live block starts at p, or the process ends. */
BH_INLINE bhi_guarded_t *live_at(uintptr_t p, bhi_use_t use)
{
    bhi_guarded_t *g = bhi_guarded_at(p);
    bhi_guarded_state_t state = g != NULL ? bhi_guarded_state(g) : BHI_GUARDED_UNUSED;
    if (state == BHI_GUARDED_UNUSED || g->block != p)
        bhi_violation(violations[use][0], p);
    if (state != BHI_GUARDED_LIVE)
        bhi_violation(violations[use][1], p);
    return g;
}

size_t bhi_sampled_bytes(uintptr_t p, bhi_use_t use)
{
    return live_at(p, use)->size;
}

/* CLOSING to FREED; the caller has claimed it. */
BH_INLINE void give(bhi_guarded_t *g)
{
    /* Not before: a second free at the same moment might close what is read here. */
    uintptr_t at = bhi_guarded_damage(g);
    if (bh_unlikely(at != 0))
        bhi_violation(at < g->block ? BHI_UNDERFLOW : BHI_OVERFLOW, at);
    g->free_stack = stack_here();
    g->free_thread = bhi_sampled_thread();
    bhi_guarded_give(g);
}

void bhi_sampled_free(uintptr_t p, bhi_kind_t by)
{
    bhi_guarded_t *g = live_at(p, BHI_USE_FREE);
    if (bhi_process.kinds && by < BHI_KINDS)
        bhi_kind_compare(p, bhi_origin_kind(atomic_load_explicit(&g->origin, memory_order_relaxed)), by);
    if (!bhi_guarded_claim(g))
        bhi_violation(BHI_DOUBLE_FREE, p);
    give(g);
}

void bhi_sampled_destroy(bhi_heap_t *heap)
{
    bhi_guarded_t *g;
    while (heap->guarded != NULL && (g = bhi_guarded_pop(heap)) != NULL) {
        if (bhi_guarded_claim(g)) /* else another thread frees it at this moment */
            give(g);
    }
}

/* -------------------------------------------------------------------- looking */

bool bhi_sampled_owns(const bhi_heap_t *heap, uintptr_t p)
{
    const bhi_guarded_t *g = bhi_guarded_at(p);
    if (g == NULL || bhi_guarded_state(g) != BHI_GUARDED_LIVE || p < g->block || p - g->block >= g->size)
        return false;
    /* Whose it is changes only when a heap ends, its owner's doing: a heap of the
     * calling thread is read right, any other is told from it. */
    bhi_state_lock();
    const bhi_heap_t *of = g->heap;
    bool mine = of != NULL && bhi_heap_owner(of) == bhi_thread_self() && bhi_guarded_state(g) == BHI_GUARDED_LIVE;
    bhi_state_unlock();
    return mine && (heap == NULL || of == heap);
}

static bool has_any(const bhi_heap_t *heap)
{
    bhi_state_lock();
    bool any = heap->guarded != NULL;
    bhi_state_unlock();
    return any;
}

bool bhi_sampled_visit(const bhi_heap_t *heap, bool (*each)(const bhi_guarded_t *g, void *arg), void *arg)
{
    if (!bhi_is_sampling() || !has_any(heap))
        return true;
    for (const bhi_guarded_t *g = bhi_guarded_next(NULL); g != NULL; g = bhi_guarded_next(g)) {
        if (bhi_guarded_state(g) != BHI_GUARDED_LIVE || !bhi_sampled_owns(heap, g->block))
            continue;
        if (!each(g, arg))
            return false;
    }
    return true;
}

/* Another thread may free the block at this moment, and the slot become another
 * heap's; this heap's it becomes by the caller alone. So a block that is live and
 * this heap's afterwards has been that all the time. */
static bool check_beside(const bhi_guarded_t *g, void *heap)
{
    uintptr_t block = g->block, at = bhi_guarded_damage_beside(g);
    if (bh_likely(at == 0))
        return true;
    bhi_state_lock();
    bool live = g->heap == heap && bhi_guarded_state(g) == BHI_GUARDED_LIVE;
    bhi_state_unlock();
    if (live)
        bhi_violation(at < block ? BHI_UNDERFLOW : BHI_OVERFLOW, at);
    return true;
}

void bhi_sampled_verify(const bhi_heap_t *heap)
{
    bhi_sampled_visit(heap, check_beside, (void *)(uintptr_t)heap);
}

void bhi_sampled_after_fork(bhi_owner_t self)
{
    thread_number = 0;
    if (!bhi_is_sampling() || options->guarded_sample_seed != 0 || options->seed != 0)
        return;
    bhi_guarded_after_fork();
    uint32_t n = atomic_load_explicit(&bhi_state->heap_count, memory_order_relaxed);
    for (uint32_t id = 0; id < n; id++) {
        bhi_heap_t *heap = bhi_state->heap_dir[id / BHI_HEAP_DIR_CHUNK][id % BHI_HEAP_DIR_CHUNK];
        for (unsigned c = 0; bhi_heap_owner(heap) == self && c < BHI_CLASSES; c++)
            heap->sample[c] = 0;
    }
}
