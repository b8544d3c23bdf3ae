/* The main thread's heap before glibc has copied the initial values of thread-local
 * variables. Until it does, after the last relocation of a program's start, they
 * are all zero, and the fast paths have no test for a heap of NULL. Code of other
 * objects runs before: resolvers of indirect functions (IFUNC), which may allocate.
 *
 * So this library has an indirect function of its own, never called, whose resolver
 * stores that initial value. The loader relocates objects from the last to the
 * first, and of each the indirect functions last: so it runs once our variables
 * have their places, and before the resolvers of all objects in front of us, the
 * program's first of all. What they allocated is not lost when the copy takes the
 * heap away again: bhi_heap_take_for_thread finds it by the thread's identity.
 *
 * In a statically linked program the values are there before any resolver runs. */
#include "core/thread.h"

#include <stdlib.h> /* for __GLIBC__; other loaders know no indirect functions */

#if defined(__GLIBC__) && defined(__ELF__) && !BH_SANITIZED

/* The resolver calls nothing and reaches only this library's own data. */
static void nothing(void)
{
}

__attribute__((used)) static void (*prepare(void))(void)
{
    if (bhi_thread_heap == NULL)
        bhi_thread_heap = (bhi_heap_t *)(uintptr_t)&bhi_heap_empty;
    return nothing;
}

static void early(void) __attribute__((ifunc("prepare")));

/* Its address in data is what makes the loader ask for it at start. */
__attribute__((used)) static void (*const reference)(void) = early;

#endif
