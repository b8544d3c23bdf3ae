/* Where records of live blocks wait: shards and mailboxes.
 *
 * A shard is a bag of records under a mutex. Common shards are for everybody;
 * every worker slot has a home shard and one for each of its heaps. A worker
 * slot outlives its threads, so a new thread frees blocks of a dead one.
 *
 * A mailbox is a lock-free stack of batches: any thread posts, the slot's
 * thread takes all. The whole stack is taken by one exchange, so no ABA.
 */
#ifndef STRESS_STORE_H
#define STRESS_STORE_H

#include "stress.h"

#include <pthread.h>

#define WORKERS_MAX 64
#define HEAPS_PER_WORKER 4
#define COMMON_SHARDS 16
#define SHARD_CAPACITY ((uint32_t)1 << 17)
#define BATCH_BLOCKS 256

struct shard {
    pthread_mutex_t lock;
    struct block *blocks;
    uint32_t count;
    uint32_t peak; /* entries ever used, for giving the table back */
};

struct batch {
    struct batch *next;
    uint32_t count;
    struct block blocks[BATCH_BLOCKS];
};

struct mailbox {
    _Atomic(struct batch *) head;
};

void store_init(void);

struct shard *store_common(struct rng *r);
struct shard *store_home(unsigned worker);
struct shard *store_heap(unsigned worker, unsigned heap);
struct mailbox *store_mailbox(unsigned worker);

/* False when the shard is full. */
bool shard_put(struct shard *s, const struct block *b);

/* Takes a random record out; false when there is none. */
bool shard_take(struct shard *s, struct rng *r, struct block *out);

/* Checks a random small block in place, under the lock. */
bool shard_check_one(struct shard *s, struct rng *r);

/* NULL when all batches are in use. */
struct batch *batch_new(void);
void batch_release(struct batch *batch);
void mailbox_post(struct mailbox *m, struct batch *batch);
struct batch *mailbox_take_all(struct mailbox *m);

/* All shard locks and the batch pool's, in one order: what a fork needs. */
void store_lock_all(void);
void store_unlock_all(void);

/* What a set of blocks comes to, in any order. */
struct sum {
    uint64_t count, bytes, mix;
};

void sum_add(struct sum *sum, uintptr_t addr, size_t usable);

/* Adds the records of one shard, of everything. */
void shard_sum(struct shard *s, struct sum *sum);
void store_sum(struct sum *sum); /* for a single thread */

/* Calls `use` with every record and empties the store. For a single thread. */
void store_drain(void (*use)(const struct block *b));

/* Gives the tables' memory back, for the comparison of memory use at the end. */
void store_discard(void);

#endif /* STRESS_STORE_H */
