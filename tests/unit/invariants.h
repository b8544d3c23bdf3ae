/* The invariants of meta/types.h as functions. All look at the whole process
 * and want it at rest: no other thread inside the allocator, no signal under
 * way, state->lock free.
 *
 * Each returns NULL when everything holds, else a text in a static buffer that
 * names the invariant and where it fails. */
#ifndef BH_UNIT_INVARIANTS_H
#define BH_UNIT_INVARIANTS_H

#include "meta/types.h"

#include <check.h>

/* I1 (its consequences for the layout) to I6 for one page in use; in profile hardened
 * E1 to E3 of core/hardened.h. */
const char *inv_page(const bhi_page_t *page);

/* S1 and descriptors of free slots for one segment; S2 when `read` (reads every
 * free slot); S3 when `probe` (asks the kernel about every OS page). */
const char *inv_segment(const bhi_segment_t *segment, bool read, bool probe);

/* H1 to H3 for one heap; in profile hardened E3 and E4. */
const char *inv_heap(const bhi_heap_t *heap);

/* Set in a child of a threaded process: what other threads were at stays undone. */
extern bool inv_forked;

/* Everything: all arenas, runs, segments, pages, heaps, I7, and that the pages
 * found from the heaps are the pages found from the segments. */
const char *inv_all(bool read, bool probe);

/* S3: what the header says about an OS page of a slot. */
BH_INLINE bool inv_is_open(const bhi_segment_t *segment, unsigned slot, unsigned os)
{
    return os < segment->open_to[slot] && (segment->regions[slot] >> os & 1) == 0;
}

/* Half of S3: false when an OS page that the header calls accessible is not.
 * This half is what a program would crash on. */
bool inv_open_is_open(const bhi_segment_t *segment);
const char *inv_all_open_is_open(void);

#define ck_assert_invariants()                                                                                        \
    do {                                                                                                               \
        const char *inv_text_ = inv_all(true, true);                                                                   \
        ck_assert_msg(inv_text_ == NULL, "%s", inv_text_ != NULL ? inv_text_ : "");                                    \
    } while (0)

#endif
