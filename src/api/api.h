/* What src/api shares: the names that libc headers do not declare everywhere,
 * and the end of a process in which operator new cannot fail properly. */
#ifndef BH_API_API_H
#define BH_API_API_H

#include "bulkhead.h"

#include "base/checked.h"
#include "core/heap.h"
#include "core/thread.h"
#include "harden/origin.h"

/* The heap that a handle names: one of the calling thread's, or the process ends. */
BH_INLINE bhi_heap_t *bhi_api_heap(const bh_heap_t *heap)
{
    return bhi_heap_of_handle(heap, bhi_thread_self());
}

/* The product of the sizes, or one that no allocation satisfies. */
BH_INLINE size_t bhi_api_product(size_t count, size_t size)
{
    size_t total;
    return bh_likely(bhi_mul_ok(count, size, &total)) ? total : SIZE_MAX;
}

/* Whether p is a block that a sized release may name with this size (and alignment);
 * the process ends if not, with kind-mismatch if it is also of another kind than functions
 * like this one (`by`; BHI_KINDS: any) release. False: NULL, or foreign and the policy says go on. */
bool bhi_api_size_fits(const void *p, size_t size, bhi_kind_t by);
bool bhi_api_aligned_size_fits(const void *p, size_t alignment, size_t size, bhi_kind_t by);

/* Ends the process after the line "bulkhead: ERROR: new-failed: ...": a
 * throwing operator new has no memory, and no C++ library is there whose
 * std::bad_alloc it could throw. Returning NULL instead would be undefined
 * behaviour in the caller, which never tests for it. */
_Noreturn void bhi_new_failed(size_t size);

/* C23. */
void free_sized(void *p, size_t size);
void free_aligned_sized(void *p, size_t alignment, size_t size);

/* Dropped from glibc's headers, still called by old binaries. */
void cfree(void *p);

#endif
