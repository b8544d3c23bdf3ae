#include "ops.h"

#include "oracle.h"

#include <errno.h>
#include <inttypes.h>

#define SIZE_LIMIT (64 * MIB)
#define SPARSE_MIN (64 * KIB)

/* Any value that no call sets. */
#define ERRNO_MARK 4242

_Atomic size_t ops_live_bytes;
_Atomic size_t ops_peak_bytes;

static bool budget_take(size_t bytes)
{
    size_t now = atomic_fetch_add_explicit(&ops_live_bytes, bytes, memory_order_relaxed) + bytes;
    if (now > opt.max_bytes) {
        atomic_fetch_sub_explicit(&ops_live_bytes, bytes, memory_order_relaxed);
        return false;
    }
    size_t peak = atomic_load_explicit(&ops_peak_bytes, memory_order_relaxed);
    while (now > peak && !atomic_compare_exchange_weak_explicit(&ops_peak_bytes, &peak, now,
                                                                memory_order_relaxed,
                                                                memory_order_relaxed))
        continue;
    return true;
}

static void budget_give(size_t bytes)
{
    atomic_fetch_sub_explicit(&ops_live_bytes, bytes, memory_order_relaxed);
}

/* Uniform in the logarithm between two powers of two. */
static size_t log_uniform(struct rng *r, unsigned low_bit, unsigned high_bit)
{
    unsigned bit = low_bit + (unsigned)rng_below(r, high_bit - low_bit);
    return ((size_t)1 << bit) + (size_t)rng_below(r, (uint64_t)1 << bit);
}

size_t ops_random_size(struct rng *r)
{
    uint64_t dice = rng_below(r, 10000);
    size_t size;
    if (dice < 200)
        size = 0;
    else if (dice < 4500)
        size = 1 + rng_below(r, 128);
    else if (dice < 7500)
        size = log_uniform(r, 4, 10);
    else if (dice < 9200)
        size = log_uniform(r, 9, 13);
    else if (dice < 9850)
        size = log_uniform(r, 12, 17);
    else if (dice < 9990)
        size = log_uniform(r, 16, 21);
    else
        size = log_uniform(r, 20, 26);
    /* The edges of size classes are where off-by-one errors are. */
    if (size > 16 && rng_chance(r, 250))
        size = ((size + 15) & ~(size_t)15) + rng_below(r, 3) - 1;
    return size < SIZE_LIMIT ? size : SIZE_LIMIT;
}

static size_t random_alignment(struct rng *r, bool posix)
{
    unsigned low = posix ? 3 : 0;
    uint64_t dice = rng_below(r, 1000);
    if (dice < 900)
        return (size_t)1 << (low + rng_below(r, 13 - low));
    if (dice < 995)
        return (size_t)1 << (12 + rng_below(r, 6));
    return (size_t)1 << (17 + rng_below(r, 7)); /* up to 8 MiB: above a segment */
}

static void enter(struct worker *w, struct block *b)
{
    if (b->addr == 0)
        finding("unexpected-null", "%zu bytes, alignment %zu: no memory at %zu live bytes (errno %d)",
                b->size, b->align, atomic_load(&ops_live_bytes), errno);
    oracle_claim(b);
    b->seed = rng_next(&w->rng);
    b->sparse = b->usable > SPARSE_MIN && rng_chance(&w->rng, 875);
}

bool ops_alloc(struct worker *w, const struct worker_heap *heap, size_t size, struct block *out)
{
    struct rng *r = &w->rng;
    bh_heap_t *h = heap == NULL ? NULL : heap->handle;
    struct block b = {.size = size, .form = FORM_PLAIN, .heap = heap == NULL ? 0 : heap->id};
    bool zeroed = false;
    size_t count = 1 + rng_below(r, 8);
    void *p;

    if (!budget_take(size))
        return false;
    uint64_t dice = rng_below(r, 100);
    if (dice < 55) {
        p = sut_malloc(h, size);
        w->stats[STAT_MALLOC]++;
    } else if (dice < 66) {
        p = sut_zalloc(h, size);
        zeroed = true;
        w->stats[STAT_ZALLOC]++;
    } else if (dice < 78) {
        b.size = size / count * count;
        p = sut_calloc(h, count, size / count);
        zeroed = true;
        w->stats[STAT_CALLOC]++;
    } else if (dice < 88 || (dice < 94 && h != NULL)) {
        b.align = random_alignment(r, false);
        b.form = FORM_ALIGNED;
        zeroed = rng_chance(r, 300);
        p = zeroed ? sut_aligned_zalloc(h, b.align, size) : sut_aligned(h, b.align, size);
        w->stats[STAT_ALIGNED]++;
    } else if (dice < 94) {
        b.align = random_alignment(r, true);
        b.form = FORM_POSIX;
        p = NULL;
        errno = ERRNO_MARK;
        int rc = sut_posix_memalign(&p, b.align, size);
        if (errno != ERRNO_MARK)
            finding("errno", "posix_memalign changed errno to %d", errno);
        if (rc != 0)
            finding("unexpected-null", "posix_memalign(%zu, %zu) gave %d", b.align, size, rc);
        w->stats[STAT_POSIX_MEMALIGN]++;
    } else if (dice < 97) {
        p = sut_realloc(h, NULL, size);
        w->stats[STAT_REALLOC]++;
    } else {
        b.size = size / count * count;
        p = sut_reallocarray(h, NULL, count, size / count);
        w->stats[STAT_REALLOCARRAY]++;
    }
    budget_give(size - b.size);
    b.addr = (uintptr_t)p;
    enter(w, &b);
    if (zeroed)
        oracle_check_zero(&b);
    oracle_fill(&b);
    if (h != NULL)
        w->stats[STAT_HEAP_ALLOC]++;
    *out = b;
    return true;
}

void ops_free(struct worker *w, const struct block *b)
{
    void *p = (void *)b->addr;
    oracle_check(b, "at free");
    oracle_release(b);
    bool sized = rng_chance(&w->rng, 250);
    errno = ERRNO_MARK;
    if (sized && b->form == FORM_PLAIN)
        sut_free_sized(p, b->size);
    else if (sized && b->form == FORM_ALIGNED)
        sut_free_aligned_sized(p, b->align, b->size);
    else
        sut_free(p);
    if (errno != ERRNO_MARK)
        finding("errno", "free of %zu bytes changed errno to %d", b->size, errno);
    w->stats[sized && b->form != FORM_POSIX ? STAT_FREE_SIZED : STAT_FREE]++;
    budget_give(b->size);
}

void ops_vanish(struct worker *w, const struct block *b)
{
    if (rng_chance(&w->rng, 250))
        oracle_check(b, "before destroy");
    oracle_release(b);
    budget_give(b->size);
}

/* Half of the new sizes are near the old one, where resizing in place, class
 * edges and page edges are. */
static size_t new_size(struct rng *r, size_t old)
{
    uint64_t dice = rng_below(r, 100);
    if (dice < 5)
        return 0;
    if (dice < 30)
        return old + rng_below(r, 33);
    if (dice < 50)
        return old - (old < 32 ? old : rng_below(r, 33));
    if (dice < 60 && old < SIZE_LIMIT / 2)
        return old * 2;
    if (dice < 70)
        return old / 2;
    return ops_random_size(r);
}

bool ops_realloc(struct worker *w, const struct worker_heap *heap, struct block *b)
{
    struct rng *r = &w->rng;
    bh_heap_t *h = heap == NULL ? NULL : heap->handle;
    size_t size = new_size(r, b->size);
    size_t count = 1;
    bool array = rng_chance(r, 250);
    if (array && size > 0) {
        count = 1 + rng_below(r, 4);
        size = size < count ? count : size / count * count;
    }
    if (size > b->size && !budget_take(size - b->size))
        return true;

    oracle_check(b, "at realloc");
    oracle_release(b);
    void *p = (void *)b->addr;
    void *q = array ? sut_reallocarray(h, p, count, size / count) : sut_realloc(h, p, size);
    w->stats[array ? STAT_REALLOCARRAY : STAT_REALLOC]++;
    if (size == 0) {
        if (q != NULL)
            finding("not-null", "realloc(%#" PRIxPTR ", 0) returned %p", b->addr, q);
        budget_give(b->size);
        return false;
    }

    struct block moved = {
        .addr = (uintptr_t)q,
        .size = size,
        .form = FORM_PLAIN,
        .heap = (uintptr_t)q == b->addr ? b->heap : heap == NULL ? 0 : heap->id,
    };
    size_t kept = size < b->size ? size : b->size;
    enter(w, &moved);
    oracle_check_kept(b, q, kept);
    oracle_fill(&moved);
    if (size < b->size)
        budget_give(b->size - size);
    *b = moved;
    return true;
}

void ops_impossible(struct worker *w)
{
    static const size_t sizes[] = {(size_t)PTRDIFF_MAX + 1, SIZE_MAX, SIZE_MAX - 15,
                                   SIZE_MAX - 4095, SIZE_MAX / 2 + 4096};
    size_t size = sizes[rng_below(&w->rng, sizeof sizes / sizeof sizes[0])];
    void *p = NULL;
    errno = 0;
    switch (rng_below(&w->rng, 6)) {
    case 0:
        p = sut_malloc(NULL, size);
        break;
    case 1:
        p = sut_zalloc(NULL, size);
        break;
    case 2:
        p = sut_calloc(NULL, size / 16, 64);
        break;
    case 3:
        p = sut_reallocarray(NULL, NULL, size / 16, 64);
        break;
    case 4:
        p = sut_aligned(NULL, 64, size);
        break;
    default: {
        /* A realloc that fails must leave the block as it was. */
        struct block b;
        if (!ops_alloc(w, NULL, 1 + rng_below(&w->rng, 100000), &b))
            return;
        errno = 0;
        p = sut_realloc(NULL, (void *)b.addr, size);
        if (p == NULL && errno == ENOMEM)
            ops_free(w, &b);
        errno = ENOMEM;
        break;
    }
    }
    if (p != NULL)
        finding("not-null", "a request of %zu bytes or more succeeded: %p", size, p);
    if (errno != ENOMEM)
        finding("errno", "a request of %zu bytes or more failed with errno %d", size, errno);
    w->stats[STAT_IMPOSSIBLE]++;
}
