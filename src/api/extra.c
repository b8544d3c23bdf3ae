/* More forms of allocation than malloc's family has: resizing with zeroes, in
 * place, with an alignment or an offset, and copies of strings. */
#include "api/api.h"
#include "core/alloc.h"
#include "core/free.h"
#include "core/realloc.h"
#include "meta/size_class.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

static void *no_memory(void)
{
    errno = ENOMEM;
    return NULL;
}

/* ----------------------------------------------------------------- resizing */

/* From the new size on the block becomes zero, also where it shrinks: so that
 * growing again, in place, finds zeroes there. A block that moves does so into one
 * that is zero already: a huge one is not touched to make it so. */
static void *rezalloc(bhi_heap_t *heap, void *p, size_t size)
{
    if (p == NULL)
        return bhi_alloc_zero(heap, size);
    size_t before = bhi_usable(p, BHI_USE_REALLOC);
    if (before == BHI_USABLE_FOREIGN)
        return no_memory();
    if (size == 0)
        return bhi_realloc(heap, p, 0);
    size_t kept = bhi_min(size, before);
    if (bhi_expand(p, size)) {
        memset((char *)p + kept, 0, bhi_usable(p, BHI_USE_REALLOC) - kept);
        return p;
    }
    void *q = bhi_alloc_zero(heap, size);
    if (q == NULL)
        return NULL;
    memcpy(q, p, kept);
    bhi_free(p);
    return q;
}

void *bh_recalloc(void *p, size_t count, size_t size)
{
    return rezalloc(bhi_thread_heap, p, bhi_api_product(count, size));
}

void *bh_heap_recalloc(bh_heap_t *heap, void *p, size_t count, size_t size)
{
    return rezalloc(bhi_api_heap(heap), p, bhi_api_product(count, size));
}

void *bh_rezalloc(void *p, size_t size)
{
    return rezalloc(bhi_thread_heap, p, size);
}

void *bh_heap_rezalloc(bh_heap_t *heap, void *p, size_t size)
{
    return rezalloc(bhi_api_heap(heap), p, size);
}

/* A NULL for size 0 is no failure: `p` is free then. */
static void *reallocf(bhi_heap_t *heap, void *p, size_t size)
{
    void *q = bhi_realloc(heap, p, size);
    if (q == NULL && size != 0)
        bhi_free(p);
    return q;
}

void *bh_reallocf(void *p, size_t size)
{
    return reallocf(bhi_thread_heap, p, size);
}

void *bh_heap_reallocf(bh_heap_t *heap, void *p, size_t size)
{
    return reallocf(bhi_api_heap(heap), p, size);
}

void *bh_expand(void *p, size_t size)
{
    return p != NULL && bhi_expand(p, size) ? p : no_memory();
}

void *bh_mallocn(size_t count, size_t size)
{
    return bhi_malloc(bhi_api_product(count, size));
}

void *bh_heap_mallocn(bh_heap_t *heap, size_t count, size_t size)
{
    return bhi_alloc(bhi_api_heap(heap), bhi_api_product(count, size));
}

/* ---------------------------------------------------------------- alignment */

static void *aligned_at(bhi_heap_t *heap, size_t alignment, size_t size, size_t offset, bool zero)
{
    if (bh_unlikely(!bhi_is_power_of_two(alignment))) {
        errno = EINVAL;
        return NULL;
    }
    return bhi_alloc_at(heap, size, alignment, offset, zero);
}

static void *aligned_realloc(bhi_heap_t *heap, void *p, size_t alignment, size_t size, size_t offset)
{
    if (p == NULL || bh_unlikely(!bhi_is_power_of_two(alignment)))
        return aligned_at(heap, alignment, size, offset, false);
    size_t usable = bhi_usable(p, BHI_USE_REALLOC);
    if (usable == BHI_USABLE_FOREIGN) /* its size is unknown, so nothing can be kept */
        return no_memory();
    if (size == 0) {
        bhi_free(p);
        return NULL;
    }
    if ((((uintptr_t)p + offset) & (alignment - 1)) == 0 && bhi_expand(p, size))
        return p;
    void *moved = bhi_alloc_at(heap, size, alignment, offset, false);
    if (moved == NULL)
        return NULL;
    memcpy(moved, p, bhi_min(size, usable));
    bhi_free(p);
    return moved;
}

void *bh_aligned_alloc_at(size_t alignment, size_t size, size_t offset)
{
    return aligned_at(bhi_thread_heap, alignment, size, offset, false);
}

void *bh_heap_aligned_alloc_at(bh_heap_t *heap, size_t alignment, size_t size, size_t offset)
{
    return aligned_at(bhi_api_heap(heap), alignment, size, offset, false);
}

void *bh_aligned_zalloc_at(size_t alignment, size_t size, size_t offset)
{
    return aligned_at(bhi_thread_heap, alignment, size, offset, true);
}

void *bh_heap_aligned_zalloc_at(bh_heap_t *heap, size_t alignment, size_t size, size_t offset)
{
    return aligned_at(bhi_api_heap(heap), alignment, size, offset, true);
}

void *bh_aligned_realloc(void *p, size_t alignment, size_t size)
{
    return aligned_realloc(bhi_thread_heap, p, alignment, size, 0);
}

void *bh_heap_aligned_realloc(bh_heap_t *heap, void *p, size_t alignment, size_t size)
{
    return aligned_realloc(bhi_api_heap(heap), p, alignment, size, 0);
}

void *bh_aligned_realloc_at(void *p, size_t alignment, size_t size, size_t offset)
{
    return aligned_realloc(bhi_thread_heap, p, alignment, size, offset);
}

void *bh_heap_aligned_realloc_at(bh_heap_t *heap, void *p, size_t alignment, size_t size, size_t offset)
{
    return aligned_realloc(bhi_api_heap(heap), p, alignment, size, offset);
}

size_t bh_good_size(size_t size)
{
    if (size == 0)
        return 0;
    if (size <= BH_CLASS_MAX_SIZE)
        return bhi_class_size(bhi_class_of(size));
    return size <= PTRDIFF_MAX ? bhi_align_up(size, BH_OS_PAGE_SIZE) : size;
}

/* ------------------------------------------------------------------ strings */

static char *copy(bhi_heap_t *heap, const char *s, size_t length)
{
    char *p = bhi_alloc(heap, length + 1);
    if (p == NULL)
        return NULL;
    memcpy(p, s, length);
    p[length] = '\0';
    return p;
}

static char *copy_at_most(bhi_heap_t *heap, const char *s, size_t n)
{
    if (s == NULL)
        return NULL;
    size_t length = 0;
    while (length < n && s[length] != '\0')
        length++;
    return copy(heap, s, length);
}

/* Into an array, since what realpath allocates may be another allocator's. */
static char *real_path(bhi_heap_t *heap, const char *path, char *resolved)
{
    char found[PATH_MAX];
    if (resolved != NULL)
        return realpath(path, resolved);
    return realpath(path, found) != NULL ? copy(heap, found, strlen(found)) : NULL;
}

char *bh_strdup(const char *s)
{
    return s != NULL ? copy(bhi_thread_heap, s, strlen(s)) : NULL;
}

char *bh_heap_strdup(bh_heap_t *heap, const char *s)
{
    bhi_heap_t *h = bhi_api_heap(heap);
    return s != NULL ? copy(h, s, strlen(s)) : NULL;
}

char *bh_strndup(const char *s, size_t n)
{
    return copy_at_most(bhi_thread_heap, s, n);
}

char *bh_heap_strndup(bh_heap_t *heap, const char *s, size_t n)
{
    return copy_at_most(bhi_api_heap(heap), s, n);
}

char *bh_realpath(const char *path, char *resolved)
{
    return real_path(bhi_thread_heap, path, resolved);
}

char *bh_heap_realpath(bh_heap_t *heap, const char *path, char *resolved)
{
    return real_path(bhi_api_heap(heap), path, resolved);
}
