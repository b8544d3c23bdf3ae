/* Threads: which heap a thread allocates from, and what happens when it ends. */
#ifndef BH_CORE_THREAD_H
#define BH_CORE_THREAD_H

#include "core/heap.h"
#include "meta/types.h"

/* The thread's default heap; bhi_heap_empty before its first allocation and
 * after its end. */
extern BH_HIDDEN BH_THREAD_LOCAL bhi_heap_t *bhi_thread_heap;

#ifdef BH_WINDOW
/* The fuzzing build has several thread contexts on one thread; see fuzz/window. */
extern BH_HIDDEN bhi_owner_t bhi_window_self;
#endif

/* Identity of the calling thread while it lives. */
BH_INLINE bhi_owner_t bhi_thread_self(void)
{
#ifdef BH_WINDOW
    if (bhi_window_self != BHI_OWNER_NONE)
        return bhi_window_self;
#endif
    return (bhi_owner_t)&bhi_thread_heap;
}

/* The calling thread's heap, made or adopted now if it has none; starts the
 * allocator if need be. NULL: no memory. After the thread's end (inside later
 * TLS destructors) the heap is only lent: bhi_thread_heap_done must follow. */
bhi_heap_t *bhi_thread_heap_get(void);
void bhi_thread_heap_done(bhi_heap_t *heap);

/* Makes sure that the calling thread's end will be noticed. False: it will not
 * be, or the thread has ended. May allocate. */
bool bhi_thread_watch_end(void);

/* User heaps of the calling thread. */
bhi_heap_t *bhi_thread_user_heap_new(void);
void bhi_thread_user_heap_end(bhi_heap_t *heap);

/* Whether the process has one thread, for certain. */
bool bhi_thread_is_alone(void);

/* Start-up: detects thread ends, registers fork handlers. */
void bhi_thread_init(void);
void bhi_thread_init_fork(void);

#endif
