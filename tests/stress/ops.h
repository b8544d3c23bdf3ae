/* Single operations on blocks, each with its checks. */
#ifndef STRESS_OPS_H
#define STRESS_OPS_H

#include "store.h"
#include "sut.h"

struct worker_heap {
    bh_heap_t *handle; /* NULL: none */
    uint32_t id;
    /* Blocks of a heap that will be destroyed stay in its own shard, since
     * nobody may hold one of them then. */
    bool to_destroy;
};

struct worker {
    unsigned index;
    struct rng rng;
    struct worker_heap heaps[HEAPS_PER_WORKER];
    struct batch *outgoing;
    unsigned destructor_rounds;
    uint64_t stats[STAT_COUNT];
    pthread_t thread;
    atomic_bool finished;
};

/* Bytes in live blocks, as asked for, and the most there were. */
extern _Atomic size_t ops_live_bytes;
extern _Atomic size_t ops_peak_bytes;

/* Allocates in one of the many ways. `heap` NULL: the default heap. False when
 * the cap on live bytes forbids it. */
bool ops_alloc(struct worker *w, const struct worker_heap *heap, size_t size, struct block *out);

/* Checks and frees a block in one of the ways that its form permits. */
void ops_free(struct worker *w, const struct block *b);

/* Resizes a block in place or not, in `heap` or the default heap; false when it
 * was freed, as realloc to 0 does. */
bool ops_realloc(struct worker *w, const struct worker_heap *heap, struct block *b);

/* Forgets a block of a heap that is about to be destroyed. */
void ops_vanish(struct worker *w, const struct block *b);

/* Requests that must fail, and fail softly. */
void ops_impossible(struct worker *w);

/* A size of the heavy-tailed distribution, 0 to 64 MiB. */
size_t ops_random_size(struct rng *r);

#endif /* STRESS_OPS_H */
