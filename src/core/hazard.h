/* Hazard pointers: a thread that reads the descriptor and map of a page it does
 * not own says so first, and a page that someone reads is not released. So what
 * it reads is one page's and its atomic exchange meets that page's map, also where
 * another thread frees the page's last block at that moment (which in a correct
 * program nobody does: its block is live).
 *
 * The scheme is M. Michael's, "Hazard pointers: safe memory reclamation for
 * lock-free objects", 2004; src/README.md, "Reading another's page", has the
 * interleavings. One word a thread; none for threads that never need one. */
#ifndef BH_CORE_HAZARD_H
#define BH_CORE_HAZARD_H

#include "meta/types.h"

extern BH_HIDDEN BH_THREAD_LOCAL bhi_hazard_t *bhi_thread_hazard;

/* The word to use: the calling thread's, taken now if it has none, else the
 * shared one with its lock. Never NULL. */
BH_COLD bhi_hazard_t *bhi_hazard_take(void);

/* The calling thread is about to free a large block, which libc's clean-up of ended
 * threads never does: its next hazard shall be in a word of its own. */
void bhi_hazard_expect_large(void);

/* Whether a thread reads `page` right now. Called by the owner after it stored
 * page->heap = NULL, sequentially consistent. */
bool bhi_hazard_on(const bhi_page_t *page);

/* The calling thread ends: its word is another's from now on. */
void bhi_hazard_thread_end(void);

/* In a forked child: the words of threads that do not exist are free. */
void bhi_hazard_after_fork(void);

/* From here until bhi_hazard_clear `page` is not released, if page->heap is not
 * NULL when loaded after this call. In between no lock may be taken (but state->lock,
 * and only if the hazard is not the shared one, which is locked after it), and
 * nothing be called but what ends the process. */
BH_INLINE bhi_hazard_t *bhi_hazard_set(bhi_page_t *page)
{
    bhi_hazard_t *hazard = bhi_thread_hazard;
    if (bh_unlikely(hazard == NULL))
        hazard = bhi_hazard_take();
    atomic_store(&hazard->page, page);
    return hazard;
}

BH_INLINE void bhi_hazard_clear(bhi_hazard_t *hazard)
{
    atomic_store_explicit(&hazard->page, NULL, memory_order_release);
    if (bh_unlikely(hazard != bhi_thread_hazard) && !bhi_forking)
        bhi_lock_give(&bhi_state->hazard_lock);
}

#endif
