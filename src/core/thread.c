/* Threads, their ends, and fork. */
#include "core/thread.h"

#include "core/hazard.h"
#include "core/init.h"
#include "meta/segment.h"
#include "os/lock.h"

#include <pthread.h>

BH_THREAD_LOCAL bhi_heap_t *bhi_thread_heap = (bhi_heap_t *)(uintptr_t)&bhi_heap_empty;

/* A thread whose destructor has run: its heap was given up, and every further
 * allocation of its (later destructors, libc's own clean-up) borrows one. */
static BH_THREAD_LOCAL bool thread_ended;
static BH_THREAD_LOCAL bool end_watched;

static pthread_key_t exit_key;
static bool exit_key_works;

bhi_heap_t *bhi_thread_heap_get(void)
{
    if (bhi_thread_heap != &bhi_heap_empty)
        return bhi_thread_heap;
    if (!bhi_init())
        return NULL;
    if (thread_ended)
        return bhi_heap_take(BHI_HEAP_THREAD, NULL, bhi_thread_self());
    bhi_heap_t *heap = bhi_heap_take_for_thread(bhi_thread_self());
    if (heap == NULL)
        return NULL;
    bhi_thread_heap = heap;
    if (bhi_thread_hazard == NULL)
        bhi_thread_hazard = heap->hazard; /* not NULL where the heap was left */
    heap->hazard = bhi_thread_hazard;
    /* May fail, or come too late (in the last round of destructors): then the
     * heap waits for the next thread with this identity. */
    bhi_thread_watch_end();
    return heap;
}

bool bhi_thread_watch_end(void)
{
    if (end_watched || thread_ended || !exit_key_works)
        return end_watched;
    end_watched = true; /* before the call, which may allocate */
    end_watched = pthread_setspecific(exit_key, &end_watched) == 0;
    return end_watched;
}

void bhi_thread_heap_done(bhi_heap_t *heap)
{
    if (bh_unlikely(thread_ended))
        bhi_heap_end(heap, BHI_HEAP_ORPHAN);
}

bhi_heap_t *bhi_thread_user_heap_new(void)
{
    bhi_heap_t *home = bhi_thread_heap_get();
    if (home == NULL || thread_ended) {
        if (home != NULL)
            bhi_thread_heap_done(home);
        return NULL; /* a heap that nobody could end */
    }
    bhi_heap_t *heap = bhi_heap_take(BHI_HEAP_USER, home, bhi_thread_self());
    if (heap == NULL)
        return NULL;
    heap->user_next = home->user_heaps;
    if (home->user_heaps != NULL)
        home->user_heaps->user_prev = heap;
    home->user_heaps = heap;
    return heap;
}

void bhi_thread_user_heap_end(bhi_heap_t *heap)
{
    if (heap->user_prev != NULL)
        heap->user_prev->user_next = heap->user_next;
    else
        heap->home->user_heaps = heap->user_next;
    if (heap->user_next != NULL)
        heap->user_next->user_prev = heap->user_prev;
    bhi_heap_end(heap, BHI_HEAP_DELETED);
}

/* Twice: the thread's other destructors, which free most of what it owned, run
 * between the end of its heap and that of its hazard word. */
static void thread_exit(void *value)
{
    bhi_heap_t *heap = bhi_thread_heap;
    bool first = !thread_ended;
    thread_ended = true;
    end_watched = false;
    bhi_thread_heap = (bhi_heap_t *)(uintptr_t)&bhi_heap_empty;
    if (heap != &bhi_heap_empty) {
        while (heap->user_heaps != NULL)
            bhi_thread_user_heap_end(heap->user_heaps);
        bhi_heap_end(heap, BHI_HEAP_ORPHAN);
    }
    if (!first || bhi_thread_hazard == NULL || pthread_setspecific(exit_key, value) != 0)
        bhi_hazard_thread_end();
}

/* glibc's own record; absent elsewhere, then threads are assumed. */
extern char __libc_single_threaded __attribute__((weak));

bool bhi_thread_is_alone(void)
{
    return &__libc_single_threaded != NULL && __libc_single_threaded != 0;
}

/* Lock order across fork: state->lock, then that of the shared hazard, are held
 * over it. The generators' own lock is reset by bhi_random_after_fork. A process with one
 * thread has nobody to keep out: it leaves them alone, and with them OS pages that each
 * fork of a fork server would have the kernel copy. */
static bool forked_alone;

static void fork_prepare(void)
{
    bool alone = bhi_thread_is_alone();
    if (!alone) {
        bhi_state_lock();
        bhi_lock_take(&bhi_state->hazard_lock);
        bhi_forking = true;
    }
    if (forked_alone != alone)
        forked_alone = alone;
}

static void fork_parent(void)
{
    if (forked_alone)
        return;
    bhi_forking = false;
    bhi_lock_give(&bhi_state->hazard_lock);
    bhi_state_unlock();
}

static void fork_child(void)
{
    if (!forked_alone)
        bhi_forking = false;
    bhi_lock_reset(&bhi_state->lock);
    bhi_random_after_fork();
    bhi_purge_after_fork();
    bhi_hazard_after_fork();
    bhi_heap_after_fork(bhi_thread_self(), forked_alone);
}

void bhi_thread_init(void)
{
    exit_key_works = pthread_key_create(&exit_key, thread_exit) == 0;
}

void bhi_thread_init_fork(void)
{
    pthread_atfork(fork_prepare, fork_parent, fork_child);
}
