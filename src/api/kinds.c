/* Blocks of operator new; see kinds.h. In profiles without kinds this is malloc and
 * free, instruction by instruction, until their slow paths. */
#include "api/kinds.h"

#include "api/api.h"
#include "core/alloc.h"
#include "core/free.h"
#include "core/traced.h"

/* A program with one operator of its own may have others that match it where we do not
 * see them: its blocks then count as malloc's, and so do its releases. */
static bhi_kind_t known(bhi_kind_t kind)
{
    return bhi_operators_kept == NULL || bhi_operators_kept() ? kind : BHI_KIND_MALLOC;
}

static BH_NOINLINE void *as(void *p, bhi_kind_t kind)
{
    if (p != NULL && (bhi_process.kinds || bhi_process.records))
        bhi_kind_set(p, known(kind));
    return p;
}

/* Calls that end the fast paths by a jump. */
static BH_NOINLINE void *take_slow(size_t size, bhi_kind_t kind)
{
    return as(bhi_malloc_generic(size), kind);
}

static BH_NOINLINE void release_slow(void *p, bhi_kind_t kind)
{
    bhi_kind_free(p, bh_unlikely(bhi_process.kinds) ? known(kind) : kind);
}

/* A guarded block, or any in profiles that keep kinds, comes from the generic path. */
BH_INLINE void *take(size_t size, bhi_kind_t kind)
{
    if (bh_likely(size <= BH_SMALL_MAX)) {
        void *p = bhi_page_pop(bhi_thread_heap->direct[(size + 7) >> 3]);
        if (bh_likely(p != NULL))
            return p;
    }
    return take_slow(size, kind);
}

BH_INLINE void release(void *p, bhi_kind_t kind)
{
    if (bh_unlikely(!bhi_free_local(p)))
        release_slow(p, kind);
}

void *bhi_new(size_t size)
{
    return take(size, BHI_KIND_NEW);
}

void *bhi_new_array(size_t size)
{
    return take(size, BHI_KIND_NEW_ARRAY);
}

void *bhi_new_aligned(size_t alignment, size_t size)
{
    return as(bh_aligned_alloc(alignment, size), BHI_KIND_NEW);
}

void *bhi_new_array_aligned(size_t alignment, size_t size)
{
    return as(bh_aligned_alloc(alignment, size), BHI_KIND_NEW_ARRAY);
}

void *bhi_as_new(void *p)
{
    return as(p, BHI_KIND_NEW);
}

void *bhi_as_new_array(void *p)
{
    return as(p, BHI_KIND_NEW_ARRAY);
}

void bhi_delete(void *p)
{
    release(p, BHI_KIND_NEW);
}

void bhi_delete_array(void *p)
{
    release(p, BHI_KIND_NEW_ARRAY);
}

/* BHI_KINDS: none is compared. */
BH_INLINE bhi_kind_t wanted(bhi_kind_t kind)
{
    return bh_unlikely(bhi_process.kinds) ? known(kind) : BHI_KINDS;
}

void bhi_delete_sized(void *p, size_t size)
{
    if (bhi_api_size_fits(p, size, wanted(BHI_KIND_NEW)))
        bhi_delete(p);
}

void bhi_delete_array_sized(void *p, size_t size)
{
    if (bhi_api_size_fits(p, size, wanted(BHI_KIND_NEW_ARRAY)))
        bhi_delete_array(p);
}

void bhi_delete_aligned_sized(void *p, size_t alignment, size_t size)
{
    if (bhi_api_aligned_size_fits(p, alignment, size, wanted(BHI_KIND_NEW)))
        bhi_delete(p);
}

void bhi_delete_array_aligned_sized(void *p, size_t alignment, size_t size)
{
    if (bhi_api_aligned_size_fits(p, alignment, size, wanted(BHI_KIND_NEW_ARRAY)))
        bhi_delete_array(p);
}
