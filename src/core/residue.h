/* What freed spans still hold: contents of a page or large block that may show only in
 * one of the same class and heap, under the same owner. Such a span serves there again
 * first, which saves clearing it. Owner's calls. */
#ifndef BH_CORE_RESIDUE_H
#define BH_CORE_RESIDUE_H

#include "meta/segment.h"
#include "meta/types.h"

/* Marks a page in use: what its free blocks hold, and its fresh ones, is nothing that
 * blocks of another heap or owner held. */
void bhi_residue_own(const bhi_heap_t *heap, bhi_page_t *page);
bool bhi_residue_is_own(const bhi_heap_t *heap, const bhi_page_t *page);

/* Marks the span of a page that ends, before it is given back: what it holds are
 * contents of this heap's. The heap remembers the place; of a page of a class, the
 * descriptor remembers how far it was reached. */
void bhi_residue_leave(bhi_heap_t *heap, bhi_page_t *page);

/* How far an ended page was reached: blocks that it handed out, and what the others
 * hold. The next page of its class goes on from there, so that it touches no OS page
 * anew while it has use for those that are touched. */
typedef struct bhi_left_page {
    uint32_t capacity;
    uint64_t fresh;
    bhi_memory_t memory;
} bhi_left_page_t;

/* Of a page in a span that bhi_residue_take has found. */
bhi_left_page_t bhi_residue_resume(const bhi_page_t *page);

/* Takes a span that was left by a page of class c of this heap and that nobody has
 * used since, if the heap remembers one; which one is random. Lock held. */
bhi_span_t bhi_residue_take(bhi_heap_t *heap, unsigned c, unsigned slots);

/* The same for a large block of `bytes`, at most a segment: where large blocks of this
 * heap ended, the cheaper one of two random places of those where nothing is to be
 * cleared. Unless the process is `alone`, with one thread, a place where a guard would
 * interrupt other processors does not suit, and one that a block of as many OS pages left
 * comes first. `need`: if none does, clean slots, or such a place. */
bhi_span_t bhi_residue_take_large(bhi_heap_t *heap, unsigned slots, size_t bytes, bool alone, bool need);

/* Dirty slots of a large block of which `bytes` from the first one on reach something
 * else than contents of large blocks of this heap (NULL: than none); the caller clears
 * them. Leaves, instead of marks, how many OS pages of each slot hold nothing else then. */
uint64_t bhi_residue_claim(bhi_page_t *first, unsigned slots, const bhi_heap_t *heap, size_t bytes, uint64_t dirty);

/* What the slots hold from now on is nothing that was left. */
void bhi_residue_forget(bhi_page_t *first, unsigned slots);

#endif
