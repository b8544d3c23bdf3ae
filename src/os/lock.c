/* The contended half of the lock; see lock.h. */
#include "os/lock.h"

void bhi_lock_wait(bhi_lock_t *lock)
{
    for (int spin = 0; spin < 64; spin++) {
        uint32_t seen = atomic_load_explicit(&lock->state, memory_order_relaxed);
        if (seen == 0 && atomic_compare_exchange_strong_explicit(&lock->state, &seen, 1, memory_order_acquire,
                                                                 memory_order_relaxed))
            return;
        bhi_pause();
    }
    while (atomic_exchange_explicit(&lock->state, 2, memory_order_acquire) != 0)
        bhi_os_futex_wait(&lock->state, 2);
}
