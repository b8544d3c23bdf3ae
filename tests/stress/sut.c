/* Calls into the allocator, and the planted faults. */
#include "sut.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum plant sut_plant = PLANT_NONE;

/* A fault acts on one call in this many, so that the test is well under way. */
#define PLANT_EVERY 256

static const char *const plant_names[PLANT_COUNT] = {
    [PLANT_NONE] = "none",
    [PLANT_DUPLICATE] = "duplicate",
    [PLANT_OVERLAP] = "overlap",
    [PLANT_SHORT] = "short",
    [PLANT_DIRTY] = "dirty",
    [PLANT_LOST] = "lost",
    [PLANT_CLOBBER] = "clobber",
    [PLANT_MISALIGNED] = "misaligned",
    [PLANT_ALIGNED] = "aligned",
    [PLANT_USABLE] = "usable",
    [PLANT_HEAP_MIX] = "heap-mix",
    [PLANT_NULL] = "null",
    [PLANT_ERRNO] = "errno",
    [PLANT_IMPOSSIBLE] = "impossible",
    [PLANT_HEARTBEAT] = "heartbeat",
    [PLANT_LEAK] = "leak",
    [PLANT_ABORT] = "abort",
    [PLANT_HANG] = "hang",
    [PLANT_CHILD_HANG] = "child-hang",
    [PLANT_CHILD_LOST] = "child-lost",
    [PLANT_VISIT] = "visit",
    [PLANT_FIGURES] = "figures",
};

static _Atomic uint64_t calls;
static atomic_bool in_child;

/* Bytes that PLANT_LEAK swallows: above the oracle's bound, below what hurts. */
#define LEAK_MAX (256 * MIB)
static _Atomic size_t leaked;

/* The shared piece of memory that PLANT_DUPLICATE and PLANT_OVERLAP hand out
 * several times. It is never freed, so the allocator itself stays sound. */
#define DECOY_SIZE 4096
#define DECOY_BLOCK 64
static unsigned char *decoy;
static pthread_once_t decoy_once = PTHREAD_ONCE_INIT;

static void decoy_make(void)
{
    decoy = bh_aligned_alloc(16, DECOY_SIZE);
    if (decoy == NULL)
        abort();
}

static bool decoy_contains(const void *p)
{
    return decoy != NULL && (uintptr_t)p - (uintptr_t)decoy < DECOY_SIZE;
}

enum plant plant_by_name(const char *name)
{
    for (int i = 0; i < PLANT_COUNT; i++)
        if (strcmp(plant_names[i], name) == 0)
            return (enum plant)i;
    return PLANT_COUNT;
}

static bool due(enum plant kind)
{
    if (sut_plant != kind)
        return false;
    return atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed) % PLANT_EVERY == PLANT_EVERY - 1;
}

static void hang(void)
{
    for (;;)
        pause();
}

/* The faults that replace an allocation; false when the call goes through. */
static bool planted_alloc(bh_heap_t *heap, size_t size, void **out)
{
    if (sut_plant == PLANT_NONE)
        return false;
    if (due(PLANT_ABORT))
        abort();
    if (due(PLANT_HANG))
        hang();
    if (sut_plant == PLANT_CHILD_HANG && atomic_load(&in_child))
        hang();
    if (due(PLANT_NULL)) {
        errno = ENOMEM;
        *out = NULL;
        return true;
    }
    if (sut_plant == PLANT_IMPOSSIBLE && size > PTRDIFF_MAX) {
        *out = bh_malloc(64);
        return true;
    }
    if (size > PTRDIFF_MAX)
        return false;
    if (size <= DECOY_BLOCK && heap == NULL && (due(PLANT_DUPLICATE) || due(PLANT_OVERLAP))) {
        pthread_once(&decoy_once, decoy_make);
        /* Overlap: every decoy block starts 48 bytes, not 64, after the last. */
        size_t step = sut_plant == PLANT_OVERLAP ? DECOY_BLOCK - 16 : 0;
        uint64_t turn = atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed) / PLANT_EVERY;
        *out = decoy + step * (turn % (DECOY_SIZE / DECOY_BLOCK));
        return true;
    }
    if (size >= 64 && due(PLANT_SHORT)) {
        *out = bh_malloc(size / 2);
        return true;
    }
    if (size >= 16 && due(PLANT_MISALIGNED)) {
        unsigned char *p = bh_malloc(size + 16);
        *out = p == NULL ? NULL : p + 8;
        return true;
    }
    if (heap != NULL && due(PLANT_HEAP_MIX)) {
        *out = bh_malloc(size);
        return true;
    }
    return false;
}

void *sut_malloc(bh_heap_t *heap, size_t size)
{
    void *p;
    if (planted_alloc(heap, size, &p))
        return p;
    return heap == NULL ? bh_malloc(size) : bh_heap_malloc(heap, size);
}

static void *dirtied(void *p, size_t size)
{
    if (p != NULL && size > 0 && due(PLANT_DIRTY))
        ((unsigned char *)p)[size - 1] = 1;
    return p;
}

void *sut_zalloc(bh_heap_t *heap, size_t size)
{
    return dirtied(heap == NULL ? bh_zalloc(size) : bh_heap_zalloc(heap, size), size);
}

void *sut_calloc(bh_heap_t *heap, size_t count, size_t size)
{
    void *p = heap == NULL ? bh_calloc(count, size) : bh_heap_calloc(heap, count, size);
    return dirtied(p, count * size);
}

void *sut_aligned(bh_heap_t *heap, size_t alignment, size_t size)
{
    if (alignment >= 32 && alignment <= 4096 && size <= PTRDIFF_MAX && due(PLANT_ALIGNED)) {
        unsigned char *p = bh_aligned_alloc(alignment, size + alignment);
        return p == NULL ? NULL : p + alignment / 2;
    }
    return heap == NULL ? bh_aligned_alloc(alignment, size)
                        : bh_heap_aligned_alloc(heap, alignment, size);
}

void *sut_aligned_zalloc(bh_heap_t *heap, size_t alignment, size_t size)
{
    return dirtied(heap == NULL ? bh_aligned_zalloc(alignment, size)
                                : bh_heap_aligned_zalloc(heap, alignment, size),
                   size);
}

int sut_posix_memalign(void **out, size_t alignment, size_t size)
{
    return bh_posix_memalign(out, alignment, size);
}

static void *lose(void *p, size_t size)
{
    if (p != NULL && size > 0 && due(PLANT_LOST))
        ((unsigned char *)p)[0] ^= 0x55;
    return p;
}

void *sut_realloc(bh_heap_t *heap, void *p, size_t size)
{
    if (decoy_contains(p)) { /* as the allocator would, but that it is not freed */
        void *moved = size == 0 ? NULL : heap == NULL ? bh_malloc(size) : bh_heap_malloc(heap, size);
        if (moved != NULL)
            memcpy(moved, p, size < DECOY_BLOCK ? size : DECOY_BLOCK);
        return moved;
    }
    return lose(heap == NULL ? bh_realloc(p, size) : bh_heap_realloc(heap, p, size), size);
}

void *sut_reallocarray(bh_heap_t *heap, void *p, size_t count, size_t size)
{
    if (decoy_contains(p))
        return sut_realloc(heap, p, count * size);
    void *q = heap == NULL ? bh_reallocarray(p, count, size)
                           : bh_heap_reallocarray(heap, p, count, size);
    return lose(q, count * size);
}

/* True when a fault swallows the free. */
static bool planted_free(void *p)
{
    if (sut_plant == PLANT_NONE)
        return false;
    if (due(PLANT_ERRNO))
        errno = EINTR;
    if (decoy_contains(p))
        return true;
    return sut_plant == PLANT_LEAK &&
           atomic_fetch_add_explicit(&leaked, bh_usable_size(p), memory_order_relaxed) < LEAK_MAX;
}

void sut_free(void *p)
{
    if (!planted_free(p))
        bh_free(p);
}

void sut_free_sized(void *p, size_t size)
{
    if (!planted_free(p))
        bh_free_sized(p, size);
}

void sut_free_aligned_sized(void *p, size_t alignment, size_t size)
{
    if (!planted_free(p))
        bh_free_aligned_sized(p, alignment, size);
}

size_t sut_usable_size(const void *p)
{
    return decoy_contains(p) ? DECOY_BLOCK : bh_usable_size(p);
}

size_t sut_usable_size_again(const void *p)
{
    return sut_usable_size(p) + (due(PLANT_USABLE) ? 16 : 0);
}

typedef struct visit {
    bh_block_visit_fun *visitor;
    void *arg;
} visit_t;

static bool visit_one(const bh_heap_t *heap, const bh_heap_area_t *area, void *block, size_t size, void *arg)
{
    const visit_t *v = arg;
    return (block != NULL && due(PLANT_VISIT)) || v->visitor(heap, area, block, size, v->arg);
}

bool sut_visit(bh_heap_t *heap, bh_block_visit_fun *visitor, void *arg)
{
    visit_t v = {visitor, arg};
    return bh_heap_visit_blocks(heap, true, visit_one, &v);
}

size_t sut_used_bytes(void)
{
    bh_stats_t stats = {.struct_size = sizeof stats};
    bh_stats_get(&stats);
    return stats.used_bytes + (sut_plant == PLANT_FIGURES ? 16 : 0);
}

void sut_before_check(void *p, size_t size)
{
    if (size == 0)
        return;
    bool lost_in_child = sut_plant == PLANT_CHILD_LOST && atomic_load(&in_child);
    if (lost_in_child || due(PLANT_CLOBBER))
        ((unsigned char *)p)[size - 1] ^= 1;
}

void sut_enter_child(void)
{
    atomic_store(&in_child, true);
}

unsigned long long sut_heartbeat(unsigned long long beat)
{
    return sut_plant == PLANT_HEARTBEAT ? 7 : beat;
}
