/* Resizing. A block stays where it is while it is at least half used; the sized
 * frees accept exactly that. */
#include "core/realloc.h"

#include "core/alloc.h"
#include "core/free.h"
#include "meta/size_class.h"

#include <errno.h>
#include <string.h>

bool bhi_size_fits(size_t usable, size_t size)
{
    if (size > usable)
        return false;
    if (size >= usable / 2)
        return true;
    return size <= BH_CLASS_MAX_SIZE && bhi_class_size(bhi_class_of(size)) == usable;
}

size_t bhi_usable(const void *p, int use)
{
    return bhi_block_of((uintptr_t)p, (bhi_use_t)use).bytes;
}

void *bhi_realloc(bhi_heap_t *heap, void *p, size_t size)
{
    if (p == NULL)
        return bhi_alloc(heap, size);
    size_t usable = bhi_usable(p, BHI_USE_REALLOC);
    if (usable == 0) { /* foreign: its size is unknown, so nothing can be kept */
        errno = ENOMEM;
        return NULL;
    }
    if (size == 0) {
        bhi_free(p);
        return NULL;
    }
    if (size <= usable && size >= usable / 2)
        return p;
    void *moved = bhi_alloc(heap, size);
    if (moved == NULL)
        return NULL;
    memcpy(moved, p, size < usable ? size : usable);
    bhi_free(p);
    return moved;
}
