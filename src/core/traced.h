/* What options add to each allocation and each free, beyond profile hardened: records
 * of blocks in pages, patterns in fresh memory, and the comparison of a block's kind
 * with the function that releases it. Where bhi_process.traced is set, the generic paths
 * lead through here; nowhere else does any of it run, but for guarded blocks, whose
 * kinds are looked at in every profile that asks for it.
 *
 * Accused wrongly: a kind is that of the function that handed the block out, and a
 * program may only release it by a function of the same family. Whose `operator new`
 * or `delete` is the program's own is the program's business: then all operators count
 * as malloc and free (api/kinds.c). What libc hands out (strdup) it gets from malloc. */
#ifndef BH_CORE_TRACED_H
#define BH_CORE_TRACED_H

#include "core/free.h"
#include "harden/origin.h"

/* Start-up: what the options ask for. */
void bhi_traced_init(void);

BH_INLINE bool bhi_is_traced(void)
{
    return bh_unlikely(bhi_process.traced);
}

/* bhi_alloc_generic in a profile other than secure. */
void *bhi_traced_alloc(bhi_heap_t *heap, size_t size, size_t align, bool zero);

/* A block that was just allocated, by other ways. */
void bhi_traced_born(void *p, size_t size, size_t align, bool zero);

/* Another kind for a block that the caller was just handed. */
void bhi_kind_set(void *p, bhi_kind_t kind);

/* Frees any pointer, which a function of this kind was given; BHI_KINDS: one that was
 * compared before. */
void bhi_kind_free(void *p, bhi_kind_t by);
void bhi_traced_free(uintptr_t p, bhi_kind_t by);

/* Before realloc of a live block. */
void bhi_kind_realloc(uintptr_t p);

/* Before a live block is refused for its size, which was given to a function of this
 * kind: a block of another kind often has another size as well, and the kind says more. */
void bhi_kind_free_sized(uintptr_t p, bhi_kind_t by);

/* A block has grown in place from `had` requested bytes. */
void bhi_traced_grown(const bhi_block_t *block, size_t had, size_t size);

/* Of the live block at p: the process ends, or goes on after a report. */
void bhi_kind_compare(uintptr_t p, bhi_kind_t kind, bhi_kind_t by);

/* "malloc", "aligned_alloc", "new", "new[]". */
const char *bhi_kind_name(bhi_kind_t kind);

/* For a report: the function that released the block ("free", "delete", "delete[]",
 * "realloc"), if that is what the thread reports, else NULL. */
const char *bhi_kind_released_by(void);

#endif
