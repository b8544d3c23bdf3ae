/* Sampled guarded allocations: which, and everything that a guarded block is asked
 * later. The slots are harden/guarded.h's.
 *
 * The choice costs a malloc from a list nothing: it is made where lists are made.
 * heap->sample[c] says how many blocks of class c go on lists before the next
 * allocation of the class is guarded, drawn with harden/choice.h. A list is cut to
 * that many; what is left over is kept and comes on the list behind the guarded one
 * (harden/list.h): else it would stay free in the map, and a page with few free blocks
 * waits, so that lists would be made of others. With none left and the list
 * empty, the next allocation comes to the generic path, which finds it due. So
 *
 *   C1  every block that goes on a list was counted once: chosen not to be guarded
 *   C2  sample[c] = 1 and an empty list: the class's next allocation is guarded
 *
 * and each allocation is guarded with probability 1/rate. What is left of a list that
 * is given up (its page ends) is counted back: blocks known not to be chosen are gone
 * without an allocation, and the chosen one would come too soon. Allocations that use
 * no list (profile hardened) count one by one. A chosen one that cannot be guarded
 * (size, alignment, budget) is served as any other.
 *
 * Where the first allocations of each call site are to be guarded as well
 * (guarded_first_site, with stacks; harden/sites.h), more are drawn than are guarded: one
 * in guarded_site_rate.
 *
 *   C3  what is drawn is judged alone: with a probability that makes 1/rate of all, or by
 *       its stack. Where each is, sample[c] is 0 or 1, so each list has one block
 *
 * A forked child draws anew, which changes no probability as the distribution has no
 * memory; unless there is a seed: the same program gets the same choice. The first `guarded_first`
 * allocations of each class in the process are chosen before the rate applies. */
#ifndef BH_CORE_SAMPLED_H
#define BH_CORE_SAMPLED_H

#include "core/free.h"
#include "core/heap.h"
#include "harden/guarded.h"

BH_INLINE bool bhi_is_sampling(void)
{
    return bh_unlikely(bhi_process.sampling);
}

/* Owner: whether the next block of class c that is on no list is to be guarded. The first
 * where nothing is drawn yet. */
bool bhi_sampled_find_due(bhi_heap_t *heap, unsigned c);
BH_INLINE bool bhi_sampled_due(bhi_heap_t *heap, unsigned c)
{
    uint32_t left = heap->sample[c];
    return bh_unlikely(left <= 1) && bhi_is_sampling() && (left == 1 || bhi_sampled_find_due(heap, c));
}

/* Takes n off, and says whether anything is left; on x86-64 in one instruction. */
BH_INLINE bool bhi_sampled_leaves(uint32_t *left, uint32_t n)
{
#if defined(__x86_64__)
    bool none;
    __asm__("subl %2, %1" : "=@ccbe"(none), "+m"(*left) : "r"(n));
    return !none;
#else
    bool some = *left > n;
    *left -= n;
    return some;
#endif
}

/* Owner, with c's list empty: how many of n > 0 blocks go on it; none if the class is
 * due. The second where these are too many; n were taken off then. Where nothing is
 * guarded they are counted too, since to ask first costs as much. */
uint32_t bhi_sampled_cut_short(bhi_heap_t *heap, unsigned c, uint32_t n);
BH_INLINE uint32_t bhi_sampled_cut(bhi_heap_t *heap, uint64_t c, uint32_t n)
{
    if (bh_unlikely(!bhi_sampled_leaves(&heap->sample[c], n)))
        return bhi_sampled_cut_short(heap, (unsigned)c, n);
    if (n == 0)
        __builtin_unreachable(); /* saves the caller a comparison */
    return n;
}

/* Owner: n blocks of a list of class c are not handed out. C3: where each allocation is
 * judged, none was counted. */
BH_INLINE void bhi_sampled_uncut(bhi_heap_t *heap, unsigned c, uint32_t n)
{
    uint32_t left = heap->sample[c];
    bool each = bhi_process.sites != NULL && bhi_process.sample_every == 1;
    if (left != 0 && left < UINT32_MAX - n && !each)
        heap->sample[c] = left + n;
}

/* Owner: a guarded block if the class's next allocation is due; NULL: it is one like
 * any other. Where blocks come from lists, and where none is. `align`: as for
 * bhi_alloc_generic. Guarded blocks read zero. */
void *bhi_sampled_listed(bhi_heap_t *heap, unsigned c, size_t size, size_t align);
void *bhi_sampled_single(bhi_heap_t *heap, unsigned c, size_t size, size_t align);

/* Of an address that bhi_guarded_contains: frees the block there, given to a function
 * of that kind (see bhi_kind_free); or ends the process, as for any other. */
void bhi_sampled_free(uintptr_t p, bhi_kind_t by);
/* The bytes that were asked for of the live block there; the same. */
size_t bhi_sampled_bytes(uintptr_t p, bhi_use_t use);

/* Whether an address lies in a live guarded block of this heap; with NULL, of any
 * that the calling thread owns. */
bool bhi_sampled_owns(const bhi_heap_t *heap, uintptr_t p);

/* Owner: frees what bh_heap_destroy has to. */
void bhi_sampled_destroy(bhi_heap_t *heap);

/* Owner: each live guarded block of a heap; false ends it. */
bool bhi_sampled_visit(const bhi_heap_t *heap, bool (*each)(const bhi_guarded_t *g, void *arg), void *arg);

/* Owner: what surrounds the live guarded blocks of a heap is still there. */
void bhi_sampled_verify(const bhi_heap_t *heap);

/* The thread's number, of the kernel. */
uint32_t bhi_sampled_thread(void);
/* In a forked child. */
void bhi_sampled_after_fork(bhi_owner_t self);

#endif
