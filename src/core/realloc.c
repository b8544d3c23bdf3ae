/* Resizing. A block stays where it is while it is at least half used; the sized
 * frees accept exactly that. One of its thread with a span of its own grows where
 * it stands if there is room behind it. */
#include "core/realloc.h"

#include "core/alloc.h"
#include "core/free.h"
#include "core/hardened.h"
#include "core/sampled.h"
#include "core/traced.h"
#include "meta/size_class.h"

#include <errno.h>
#include <string.h>

bool bhi_size_fits(size_t usable, size_t size)
{
    if (bhi_is_hardened())
        return size == usable;
    if (size > usable)
        return false;
    if (size >= usable / 2)
        return true;
    return size <= BH_CLASS_MAX_SIZE && bhi_class_size(bhi_class_of(size)) == usable;
}

size_t bhi_usable(const void *p, int use)
{
    size_t bytes = bhi_local_bytes((uintptr_t)p);
    if (bh_likely(bytes != 0))
        return bytes;
    if (bhi_guarded_contains((uintptr_t)p))
        return bhi_sampled_bytes((uintptr_t)p, (bhi_use_t)use);
    bhi_block_t block = bhi_block_of((uintptr_t)p, (bhi_use_t)use);
    return block.page != NULL ? block.bytes : BHI_USABLE_FOREIGN;
}

/* Whether the block serves `size` bytes where it stands, grown if need be. */
static bool stays(const bhi_block_t *block, size_t size)
{
    if (bhi_page_has_ends(block->page))
        return bhi_page_is_mine(block->page) && bhi_hard_resize(block->page, block->index, size);
    if (size > bhi_process.options.alloc_cap)
        return false;
    if (size <= block->bytes)
        return bhi_size_fits(block->bytes, size);
    return bhi_page_is_mine(block->page) && bhi_page_grow(block->page, size);
}

bool bhi_expand(void *p, size_t size)
{
    if (bhi_guarded_contains((uintptr_t)p))
        return bhi_sampled_bytes((uintptr_t)p, BHI_USE_REALLOC) == size;
    bhi_block_t block = bhi_block_of((uintptr_t)p, BHI_USE_REALLOC);
    return block.page != NULL && stays(&block, size);
}

bool bhi_sized_free_fits(const void *p, size_t usable, size_t size)
{
    return bhi_guarded_contains((uintptr_t)p) ? usable == size : bhi_size_fits(usable, size);
}

/* Of a block whose kind was compared. */
static void release(void *p)
{
    if (bh_unlikely(bhi_process.kinds))
        bhi_kind_free(p, BHI_KINDS);
    else
        bhi_free(p);
}

/* A new block with what fits of the old one's contents, which goes. */
static void *move(bhi_heap_t *heap, void *p, size_t bytes, size_t size)
{
    void *moved = bhi_alloc(heap, size);
    if (moved == NULL)
        return NULL;
    memcpy(moved, p, size < bytes ? size : bytes);
    release(p);
    return moved;
}

/* Option realloc_moves: whoever goes on using the old address uses a freed block. */
static bool moves_always(void)
{
    return bhi_is_hardened() && bhi_process.options.realloc_moves != 0;
}

/* A guarded block ends at its guard: any other size moves. */
static void *realloc_guarded(bhi_heap_t *heap, void *p, size_t size)
{
    size_t bytes = bhi_sampled_bytes((uintptr_t)p, BHI_USE_REALLOC);
    if (bhi_process.kinds)
        bhi_kind_realloc((uintptr_t)p);
    if (size == 0)
        release(p);
    return size == 0 ? NULL : size == bytes && !moves_always() ? p : move(heap, p, bytes, size);
}

void *bhi_realloc(bhi_heap_t *heap, void *p, size_t size)
{
    if (p == NULL)
        return bhi_alloc(heap, size);
    if (size != 0 && bhi_size_fits(bhi_local_bytes((uintptr_t)p), size))
        return p;
    if (bhi_guarded_contains((uintptr_t)p))
        return realloc_guarded(heap, p, size);
    bhi_block_t block = bhi_block_of((uintptr_t)p, BHI_USE_REALLOC);
    if (block.page == NULL) { /* foreign: its size is unknown, so nothing can be kept */
        errno = ENOMEM;
        return NULL;
    }
    if (bhi_is_traced() && bhi_process.kinds)
        bhi_kind_realloc((uintptr_t)p);
    if (size == 0) {
        release(p);
        return NULL;
    }
    if (moves_always() || !stays(&block, size))
        return move(heap, p, block.bytes, size);
    if (bhi_is_traced())
        bhi_traced_grown(&block, block.bytes, size);
    return p;
}
