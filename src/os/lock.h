/* A small futex lock: no initialisation call, no ownership record, can be reset
 * in a forked child. Not recursive. */
#ifndef BH_OS_LOCK_H
#define BH_OS_LOCK_H

#include "os/os.h"

#include <stdatomic.h>

typedef struct bhi_lock {
    _Atomic(uint32_t) state; /* 0 free, 1 taken, 2 taken and someone waits */
} bhi_lock_t;

void bhi_lock_wait(bhi_lock_t *lock);

BH_INLINE void bhi_lock_take(bhi_lock_t *lock)
{
    uint32_t seen = 0;
    if (!atomic_compare_exchange_strong_explicit(&lock->state, &seen, 1, memory_order_acquire, memory_order_relaxed))
        bhi_lock_wait(lock);
}

BH_INLINE void bhi_lock_give(bhi_lock_t *lock)
{
    if (atomic_exchange_explicit(&lock->state, 0, memory_order_release) == 2)
        bhi_os_futex_wake(&lock->state, 1);
}

/* In a forked child, where the threads that held or awaited it do not exist. */
BH_INLINE void bhi_lock_reset(bhi_lock_t *lock)
{
    if (atomic_load_explicit(&lock->state, memory_order_relaxed) != 0) /* else its page stays the parent's */
        atomic_store_explicit(&lock->state, 0, memory_order_relaxed);
}

#endif
