/* The bh_ functions of bulkhead.h. Thin: each is its fast path and a call. */
#include "api/api.h"
#include "core/alloc.h"
#include "core/free.h"
#include "core/hardened.h"
#include "core/init.h"
#include "core/realloc.h"
#include "core/traced.h"
#include "harden/guarded.h"
#include "meta/segment.h"
#include "meta/size_class.h"

#include <errno.h>

int bh_version(void)
{
    return BH_VERSION_MAJOR * 10000 + BH_VERSION_MINOR * 100 + BH_VERSION_PATCH;
}

/* ------------------------------------------------------------------ blocks */

void *bh_malloc(size_t size)
{
    return bhi_malloc(size);
}

void *bh_zalloc(size_t size)
{
    return bhi_alloc_zero(bhi_thread_heap, size);
}

void *bh_calloc(size_t count, size_t size)
{
    return bhi_alloc_zero(bhi_thread_heap, bhi_api_product(count, size));
}

void *bh_realloc(void *p, size_t size)
{
    return bhi_realloc(bhi_thread_heap, p, size);
}

void *bh_reallocarray(void *p, size_t count, size_t size)
{
    return bhi_realloc(bhi_thread_heap, p, bhi_api_product(count, size));
}

void bh_free(void *p)
{
    bhi_free(p);
}

BH_INLINE bool fits(const void *p, size_t alignment, size_t size, size_t usable_for_size, bhi_kind_t by)
{
    if (p == NULL)
        return false;
    size_t usable = bhi_usable(p, BHI_USE_FREE);
    if (usable == BHI_USABLE_FOREIGN)
        return false; /* reported if that is the policy */
    bool size_fits = usable == usable_for_size || bhi_sized_free_fits(p, usable, size);
    if (!size_fits || !bhi_is_power_of_two(alignment) || ((uintptr_t)p & (alignment - 1)) != 0) {
        bhi_kind_free_sized((uintptr_t)p, by);
        bhi_violation(BHI_SIZE_MISMATCH, (uintptr_t)p);
    }
    return true;
}

bool bhi_api_size_fits(const void *p, size_t size, bhi_kind_t by)
{
    return fits(p, 1, size, SIZE_MAX, by);
}

void bh_free_sized(void *p, size_t size)
{
    if (fits(p, 1, size, SIZE_MAX, BHI_KIND_MALLOC))
        bhi_free(p);
}

bool bhi_api_aligned_size_fits(const void *p, size_t alignment, size_t size, bhi_kind_t by)
{
    unsigned c = bhi_is_power_of_two(alignment) && alignment <= BH_SLOT_SIZE ? bhi_class_of_aligned(size, alignment) : BHI_CLASSES;
    size_t usable = c < BHI_CLASSES ? bhi_class_size(c) : SIZE_MAX;
    if (c == BHI_CLASSES && size <= PTRDIFF_MAX)
        usable = bhi_align_up(size > 0 ? size : 1, BH_OS_PAGE_SIZE);
    /* Where the size itself is known it is that which counts. */
    bool exact = bhi_is_hardened() || bhi_guarded_contains((uintptr_t)p);
    return fits(p, alignment, size, exact ? SIZE_MAX : usable, by);
}

void bh_free_aligned_sized(void *p, size_t alignment, size_t size)
{
    if (bhi_api_aligned_size_fits(p, alignment, size, BHI_KIND_MALLOC))
        bhi_free(p);
}

static void *aligned(bhi_heap_t *heap, size_t alignment, size_t size, bool zero)
{
    if (bh_unlikely(!bhi_is_power_of_two(alignment))) {
        errno = EINVAL;
        return NULL;
    }
    return bhi_alloc_aligned(heap, size, alignment, zero);
}

void *bh_aligned_alloc(size_t alignment, size_t size)
{
    return aligned(bhi_thread_heap, alignment, size, false);
}

void *bh_aligned_zalloc(size_t alignment, size_t size)
{
    return aligned(bhi_thread_heap, alignment, size, true);
}

int bh_posix_memalign(void **out, size_t alignment, size_t size)
{
    if (!bhi_is_power_of_two(alignment) || alignment % sizeof(void *) != 0)
        return EINVAL;
    int saved = errno;
    void *p = bhi_alloc_aligned(bhi_thread_heap, size, alignment, false);
    errno = saved;
    if (p == NULL)
        return ENOMEM;
    *out = p;
    return 0;
}

size_t bh_usable_size(const void *p)
{
    if (p == NULL)
        return 0;
    size_t usable = bhi_usable(p, BHI_USE_QUERY);
    return usable != BHI_USABLE_FOREIGN ? usable : 0;
}

/* ------------------------------------------------------------------- heaps */

bh_heap_t *bh_heap_new(void)
{
    bhi_heap_t *heap = bhi_thread_user_heap_new();
    if (heap == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    return bhi_heap_handle(heap);
}

void bh_heap_delete(bh_heap_t *heap)
{
    if (heap != NULL)
        bhi_thread_user_heap_end(bhi_api_heap(heap));
}

void bh_heap_destroy(bh_heap_t *heap)
{
    if (heap == NULL)
        return;
    bhi_heap_t *h = bhi_api_heap(heap);
    bhi_heap_destroy_pages(h);
    bhi_thread_user_heap_end(h);
}

void *bh_heap_malloc(bh_heap_t *heap, size_t size)
{
    return bhi_alloc(bhi_api_heap(heap), size);
}

void *bh_heap_zalloc(bh_heap_t *heap, size_t size)
{
    return bhi_alloc_zero(bhi_api_heap(heap), size);
}

void *bh_heap_calloc(bh_heap_t *heap, size_t count, size_t size)
{
    return bhi_alloc_zero(bhi_api_heap(heap), bhi_api_product(count, size));
}

void *bh_heap_realloc(bh_heap_t *heap, void *p, size_t size)
{
    return bhi_realloc(bhi_api_heap(heap), p, size);
}

void *bh_heap_reallocarray(bh_heap_t *heap, void *p, size_t count, size_t size)
{
    return bhi_realloc(bhi_api_heap(heap), p, bhi_api_product(count, size));
}

void *bh_heap_aligned_alloc(bh_heap_t *heap, size_t alignment, size_t size)
{
    return aligned(bhi_api_heap(heap), alignment, size, false);
}

void *bh_heap_aligned_zalloc(bh_heap_t *heap, size_t alignment, size_t size)
{
    return aligned(bhi_api_heap(heap), alignment, size, true);
}

/* ------------------------------------------------------------- maintenance */

void bh_collect(bool force)
{
    if (bhi_state == NULL)
        return;
    bhi_heap_t *heap = bhi_thread_heap;
    if (heap != &bhi_heap_empty) {
        bhi_heap_collect(heap, force);
        for (bhi_heap_t *user = heap->user_heaps; user != NULL; user = user->user_next)
            bhi_heap_collect(user, force);
    }
    if (force) {
        bhi_state_lock();
        bhi_purge(0, true, 1u << 30);
        bhi_state_unlock();
    }
}

bool bh_register_deferred_free(bh_deferred_free_fun *fun, void *arg)
{
    if (!bhi_init())
        return false; /* no memory for anything: nothing to defer either */
    bhi_state_lock();
    bool open = bhi_settings_open();
    if (open) {
        atomic_store_explicit(&bhi_settings.deferred_fun, 0, memory_order_release);
        atomic_store_explicit(&bhi_settings.deferred_arg, (uintptr_t)arg, memory_order_release);
        atomic_store_explicit(&bhi_settings.deferred_fun, (uintptr_t)fun, memory_order_release);
        bhi_settings_close();
    }
    bhi_state_unlock();
    return open;
}

/* ------------------------------------------------- the names of ISO C and POSIX */

/* Only in the libraries that replace malloc; the rest of them in override.c. */
#ifdef BH_OVERRIDE
#if defined(__clang__)
#define SECOND_NAME(name, own) BH_EXPORT extern __typeof__(own) name __attribute__((alias(#own)))
#else
#define SECOND_NAME(name, own) BH_EXPORT extern __typeof__(own) name __attribute__((alias(#own), copy(own)))
#endif
SECOND_NAME(malloc, bh_malloc);
SECOND_NAME(calloc, bh_calloc);
SECOND_NAME(realloc, bh_realloc);
SECOND_NAME(free, bh_free);
#endif
