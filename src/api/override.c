/* The malloc family: every name under which a program, libc or another library
 * may ask for memory, handed to the bh_ function of the same meaning.
 *
 * Knows what glibc does at the edges where the standards leave a choice; knows
 * nothing of the allocator. No function here may touch anything but its
 * arguments: the dynamic loader calls them before any constructor has run. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include "api/api.h"
#include "base/compiler.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <unistd.h>

/* ------------------------------------------------------------ ISO C, POSIX */

/* malloc, calloc, realloc and free are second names of the bh_ functions, in
 * public.c: a jump from here to there would be paid in every call. */

BH_EXPORT void *reallocarray(void *p, size_t count, size_t size)
{
    return bh_reallocarray(p, count, size);
}

BH_EXPORT void free_sized(void *p, size_t size)
{
    bh_free_sized(p, size);
}

BH_EXPORT void free_aligned_sized(void *p, size_t alignment, size_t size)
{
    bh_free_aligned_sized(p, alignment, size);
}

/* An alignment that is no power of two: EINVAL, as glibc does since 2.38 and
 * the standard always asked; older ones took it for memalign. */
BH_EXPORT void *aligned_alloc(size_t alignment, size_t size)
{
    return bh_aligned_alloc(alignment, size);
}

BH_EXPORT int posix_memalign(void **out, size_t alignment, size_t size)
{
    return bh_posix_memalign(out, alignment, size);
}

/* --------------------------------------------------------- historic names */

BH_EXPORT void cfree(void *p)
{
    bh_free(p);
}

BH_EXPORT size_t malloc_usable_size(void *p)
{
    return bh_usable_size(p);
}

/* As glibc: any alignment counts as the next power of two. */
BH_EXPORT void *memalign(size_t alignment, size_t size)
{
    if (bh_unlikely(alignment > SIZE_MAX / 2 + 1)) {
        errno = EINVAL;
        return NULL;
    }
    size_t power = sizeof(void *);
    while (power < alignment)
        power <<= 1;
    return bh_aligned_alloc(power, size);
}

/* libc's value, not the build's constant: programs compare with theirs. libc
 * has it from the auxiliary vector, so this makes no system call. */
static size_t os_page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

BH_EXPORT void *valloc(size_t size)
{
    return bh_aligned_alloc(os_page_size(), size);
}

/* Whole OS pages; no bytes still give one, as the manual page promises. */
BH_EXPORT void *pvalloc(size_t size)
{
    size_t page = os_page_size();
    if (bh_unlikely(size > SIZE_MAX - page)) {
        errno = ENOMEM;
        return NULL;
    }
    size_t whole = (size + page - 1) & ~(page - 1);
    return bh_aligned_alloc(page, whole != 0 ? whole : page);
}

/* ---------------------------------------------------- glibc's second names */

/* Wrappers that override malloc themselves call these to reach "the real one".
 * With glibc's still in place they would mix two allocators. musl has names of
 * its own behind its malloc that must stay as they are. */
#if defined(__GLIBC__)

BH_EXPORT void *__libc_malloc(size_t size);
BH_EXPORT void *__libc_calloc(size_t count, size_t size);
BH_EXPORT void *__libc_realloc(void *p, size_t size);
BH_EXPORT void __libc_free(void *p);
BH_EXPORT void __libc_cfree(void *p);
BH_EXPORT void *__libc_memalign(size_t alignment, size_t size);
BH_EXPORT void *__libc_valloc(size_t size);
BH_EXPORT void *__libc_pvalloc(size_t size);
BH_EXPORT int __posix_memalign(void **out, size_t alignment, size_t size);

void *__libc_malloc(size_t size)
{
    return bh_malloc(size);
}

void *__libc_calloc(size_t count, size_t size)
{
    return bh_calloc(count, size);
}

void *__libc_realloc(void *p, size_t size)
{
    return bh_realloc(p, size);
}

void __libc_free(void *p)
{
    bh_free(p);
}

void __libc_cfree(void *p)
{
    bh_free(p);
}

void *__libc_memalign(size_t alignment, size_t size)
{
    return memalign(alignment, size);
}

void *__libc_valloc(size_t size)
{
    return valloc(size);
}

void *__libc_pvalloc(size_t size)
{
    return pvalloc(size);
}

int __posix_memalign(void **out, size_t alignment, size_t size)
{
    return bh_posix_memalign(out, alignment, size);
}

#endif
