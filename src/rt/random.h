/* Randomness: ChaCha20 keystream with fast key erasure, from libsodium, whose cipher
 * needs no initialisation; random.c chooses its fastest code. */
#ifndef BH_RT_RANDOM_H
#define BH_RT_RANDOM_H

#include "base/constants.h"
#include "os/lock.h"
#include "rt/order.h"

#include <stdatomic.h>

/* One generator per heap; used by its owner only. A copy of the process made by
 * fork never continues the parent's stream, nor what is left of its buffer: each
 * draw compares `epoch`. */
typedef struct bhi_random {
    uint8_t key[32]; /* secret; replaced at every refill */
    uint64_t epoch;  /* process epoch when the key was drawn */
    uint32_t at;     /* next unread byte of buf */
    uint32_t bits;   /* secret; drawn bits that bhi_random_bits has left, below the highest set one */
    uint8_t buf[480]; /* secret; bytes before `at` are zero */
    bhi_order_t order; /* secret: of the next list of 64; any order with the same probability, riffled after each use */
    bool has_order;
} bhi_random_t;

/* The root keys generators when the kernel will not, or is not to (option seed). Its second OS page reads
 * zero in any child process, also one that runs no fork handler (_Fork, clone);
 * where the kernel has no such page the process id is compared instead. */
typedef struct bhi_random_root {
    bhi_lock_t lock;
    bool wiped_page_works;
    bhi_random_t state;     /* lock */
    _Atomic(uint64_t) epoch;
    _Atomic(uint64_t) *alive; /* const: on the wiped page; 1 in the process that set it */
} bhi_random_root_t;

/* Start-up: keys a root from the kernel, or from option seed. `at_random` (16 bytes
 * from the kernel, may be NULL) serves where a sandbox refuses everything else.
 * Returns false when there is no entropy at all. */
bool bhi_random_init_root(bhi_random_root_t *root, const unsigned char *at_random);

/* Start-up: moves the root to its place, with a zeroed OS page of its own for
 * `wiped_page`, and makes it the process's. The old copy is erased. */
void bhi_random_place_root(bhi_random_root_t *to, bhi_random_root_t *from, uintptr_t wiped_page);

/* Keys `r` from the kernel, or from the root where the kernel now refuses. */
void bhi_random_init(bhi_random_t *r);

/* In a forked child: re-keys the root; generators follow at their next refill. */
void bhi_random_after_fork(void);

uint64_t bhi_random_u64(bhi_random_t *r);
/* Uniform in [0, bound), bound > 0, without bias. */
uint32_t bhi_random_below(bhi_random_t *r, uint32_t bound);
/* Uniform in [0, 2^n), n <= 15. Takes little more of the keystream than that. */
uint32_t bhi_random_bits(bhi_random_t *r, unsigned n);

#define BH_CHOOSE_MOST 127u

/* Puts `some` of n items, BH_CHOOSE_MOST at most, into `out`, in a random order: each
 * choice and order with the same probability. What one call chooses says nothing of the
 * next, but for all 64 of 64 items: there rt/order.h says how much. What is left in `items`
 * is of no use. */
void bhi_random_choose(bhi_random_t *r, bhi_index_t *items, uint32_t n, uint32_t some, bhi_index_t *out);

#endif
