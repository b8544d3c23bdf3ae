/* Allocations and frees as options add to them; see traced.h. */
#include "core/traced.h"

#include "core/alloc.h"
#include "core/leaks.h"
#include "core/record.h"
#include "core/sampled.h"

#include <errno.h>
#include <string.h>

#define options (&bhi_process.options)

/* What a report names must lead to the same choice again. */
static void draw_seed(void)
{
    if (options->profile == BHI_PROFILE_DEBUG && options->guarded_sample_seed == 0)
        options->guarded_sample_seed = (uint32_t)bhi_random_u64(&bhi_state->random) | 1;
}

void bhi_traced_init(void)
{
    draw_seed();
    bool hunts_leaks = options->leaks != 0 || options->leak_signal != 0;
    bhi_process.kinds = options->mismatch != BHI_MISMATCH_IGNORE;
    if (options->profile == BHI_PROFILE_SECURE)
        return;
    bhi_process.fill = BH_HARDEN_WIPE && options->fill != 0;
    bhi_process.records = bhi_process.kinds || hunts_leaks || options->stacks_of == BHI_STACKS_OF_ALL;
    bhi_process.traced = bhi_process.fill || bhi_process.records;
    if (bhi_process.records && options->stacks_of == BHI_STACKS_OF_ALL)
        bhi_guarded_init_depot();
}

/* ---------------------------------------------------------------------- kinds */

static const char *const names[] = {"malloc", "aligned_alloc", "new", "new[]"};
static const char *const releases[] = {"free", "free", "delete", "delete[]", "realloc"};
#define BY_REALLOC ((bhi_kind_t)4)

static BH_THREAD_LOCAL const char *released_by;

const char *bhi_kind_name(bhi_kind_t kind)
{
    return (unsigned)kind < BHI_KINDS ? names[kind] : NULL;
}

const char *bhi_kind_released_by(void)
{
    return released_by;
}

static bool is_of_c(bhi_kind_t kind)
{
    return kind != BHI_KIND_NEW && kind != BHI_KIND_NEW_ARRAY;
}

static bool matches(bhi_kind_t kind, bhi_kind_t by)
{
    return kind == by || (is_of_c(kind) && is_of_c(by));
}

static BH_COLD void accuse(uintptr_t p, bhi_kind_t by)
{
    if (options->mismatch == BHI_MISMATCH_IGNORE)
        return;
    released_by = releases[by];
    if (options->mismatch == BHI_MISMATCH_ABORT)
        bhi_violation(BHI_KIND_MISMATCH, p);
    bhi_violation_report_only(BHI_KIND_MISMATCH, p);
    released_by = NULL;
}

void bhi_kind_compare(uintptr_t p, bhi_kind_t kind, bhi_kind_t by)
{
    if (bh_unlikely(!matches(kind, by)))
        accuse(p, by);
}

/* ---------------------------------------------------------------- allocation */

typedef struct birth {
    uint32_t origin;
    int byte; /* of the pattern */
} birth_t;

static void note_birth(const bhi_block_t *block, void *arg)
{
    const birth_t *b = arg;
    if (bhi_record_has(block->page)) {
        bhi_record_t *record = bhi_record_of(block->page, block->index);
        atomic_store_explicit(&record->free_stack, 0, memory_order_relaxed);
        atomic_store_explicit(&record->origin, b->origin, memory_order_relaxed);
    }
    if (bhi_process.fill && block->page->block_size != 0) /* a single one may be large and seldom touched; it reads zero */
        memset((void *)bhi_page_block(block->page, block->index), b->byte, block->bytes); /* NOLINT: block memory is addressed by number */
}

BH_NOINLINE void bhi_traced_born(void *p, size_t size, size_t align, bool zero)
{
    bhi_kind_t kind = align > 16 ? BHI_KIND_ALIGNED : BHI_KIND_MALLOC;
    if (bhi_guarded_contains((uintptr_t)p)) {
        bhi_kind_set(p, kind);
        if (bhi_process.fill && !zero) /* or it reads zero */
            memset(p, BH_FILL_FRESH, size);
        return;
    }
    birth_t b = {.origin = bhi_origin(kind, bhi_process.records ? bhi_record_stack() : 0), .byte = zero ? 0 : BH_FILL_FRESH};
    bhi_block_with((uintptr_t)p, BHI_USE_QUERY, note_birth, &b);
}

void *bhi_traced_alloc(bhi_heap_t *heap, size_t size, size_t align, bool zero)
{
    if (bh_unlikely(atomic_load_explicit(&bhi_leaks_asked, memory_order_relaxed)))
        bhi_leaks_answer();
    void *p = bhi_alloc_hardened(heap, size, align, zero);
    if (bh_likely(p != NULL)) {
        int saved = errno;
        bhi_traced_born(p, size, align, zero);
        errno = saved;
    }
    return p;
}

static void note_kind(const bhi_block_t *block, void *arg)
{
    if (!bhi_record_has(block->page))
        return;
    bhi_record_t *record = bhi_record_of(block->page, block->index);
    uint32_t origin = atomic_load_explicit(&record->origin, memory_order_relaxed);
    atomic_store_explicit(&record->origin, bhi_origin(*(const bhi_kind_t *)arg, bhi_origin_stack(origin)), memory_order_relaxed);
}

void bhi_kind_set(void *p, bhi_kind_t kind)
{
    if (bhi_guarded_contains((uintptr_t)p)) {
        bhi_guarded_t *g = bhi_guarded_at((uintptr_t)p);
        uint32_t origin = atomic_load_explicit(&g->origin, memory_order_relaxed);
        atomic_store_explicit(&g->origin, bhi_origin(kind, bhi_origin_stack(origin)), memory_order_relaxed);
    } else if (bhi_process.records) {
        bhi_block_with((uintptr_t)p, BHI_USE_QUERY, note_kind, &kind);
    }
}

/* ---------------------------------------------------------------------- free */

typedef struct release {
    bhi_kind_t by;
    uint32_t stack;
    bool wrong;
} release_t;

static void note_release(const bhi_block_t *block, void *arg)
{
    release_t *r = arg;
    if (!bhi_record_has(block->page))
        return;
    bhi_record_t *record = bhi_record_of(block->page, block->index);
    bhi_kind_t kind = bhi_origin_kind(atomic_load_explicit(&record->origin, memory_order_relaxed));
    r->wrong = bhi_process.kinds && r->by < BHI_KINDS && !matches(kind, r->by);
    if (!r->wrong)
        atomic_store_explicit(&record->free_stack, r->stack, memory_order_relaxed);
}

BH_NOINLINE void bhi_traced_free(uintptr_t p, bhi_kind_t by)
{
    if (p == 0)
        return;
    if (bhi_guarded_contains(p)) {
        bhi_sampled_free(p, by);
        return;
    }
    if (bhi_process.records) {
        int saved = errno;
        release_t r = {by, bhi_record_stack(), false};
        bool ours = bhi_block_with(p, BHI_USE_FREE, note_release, &r);
        if (ours && r.wrong)
            accuse(p, by);
        errno = saved;
        if (!ours)
            return;
    }
    bhi_hard_free_any(p);
}

BH_NOINLINE void bhi_kind_free(void *p, bhi_kind_t by)
{
    if (bhi_process.traced)
        bhi_traced_free((uintptr_t)p, by);
    else if (bhi_process.kinds && bhi_guarded_contains((uintptr_t)p))
        bhi_sampled_free((uintptr_t)p, by);
    else
        bhi_free_slow(p);
}

/* ------------------------------------------------------------------- realloc */

static void read_kind(const bhi_block_t *block, void *arg)
{
    bhi_kind_t *kind = arg;
    if (bhi_record_has(block->page))
        *kind = bhi_origin_kind(atomic_load_explicit(&bhi_record_of(block->page, block->index)->origin, memory_order_relaxed));
}

static void look(uintptr_t p, bhi_kind_t by, bhi_use_t use)
{
    bhi_kind_t kind = BHI_KINDS;
    if (bhi_guarded_contains(p))
        kind = bhi_origin_kind(atomic_load_explicit(&bhi_guarded_at(p)->origin, memory_order_relaxed));
    else if (bhi_process.records)
        bhi_block_with(p, use, read_kind, &kind);
    if (kind < BHI_KINDS)
        bhi_kind_compare(p, kind, by);
}

void bhi_kind_realloc(uintptr_t p)
{
    look(p, BY_REALLOC, BHI_USE_REALLOC);
}

void bhi_kind_free_sized(uintptr_t p, bhi_kind_t by)
{
    if (bhi_process.kinds && by < BHI_KINDS)
        look(p, by, BHI_USE_FREE);
}

void bhi_traced_grown(const bhi_block_t *block, size_t had, size_t size)
{
    if (bhi_process.fill && size > had && block->page->block_size != 0)
        memset((void *)(bhi_page_block(block->page, block->index) + had), BH_FILL_FRESH, size - had); /* NOLINT */
}
