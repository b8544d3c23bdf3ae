/* Producer and consumer in both proportions: many_producers has three threads that
 * allocate and one that frees, many_consumers one that allocates for three that free.
 * Between each two threads is a ring of bounded length. The argument names which. */
#include "common.h"

enum { MANY = 3, RING = 4096, RUN = 64, TABLE = 4096, PATIENCE = 100 };

struct ring {
    _Alignas(64) atomic_ullong produced;
    _Alignas(64) atomic_ullong consumed;
    _Alignas(64) unsigned char *blocks[RING];
};

/* The rings of one thread, and how many blocks go through each. */
struct side {
    struct ring *rings;
    unsigned count;
    uint64_t work;
};

static struct ring rings[MANY];
static uint32_t sizes[TABLE];

/* Puts into one ring as many as there is room for, RUN at most; how many. */
static uint64_t put(struct ring *ring, uint64_t work)
{
    uint64_t first = atomic_load_explicit(&ring->produced, memory_order_relaxed);
    uint64_t bound = atomic_load_explicit(&ring->consumed, memory_order_acquire) + RING;
    uint64_t at = first;
    for (; at < bound && at < first + RUN && at < work; at++) {
        ring->blocks[at % RING] = bench_block(sizes[at % TABLE], (unsigned char)at);
        atomic_store_explicit(&ring->produced, at + 1, memory_order_release);
    }
    return at - first;
}

static uint64_t take(struct ring *ring, uint64_t work)
{
    uint64_t first = atomic_load_explicit(&ring->consumed, memory_order_relaxed);
    uint64_t bound = atomic_load_explicit(&ring->produced, memory_order_acquire);
    uint64_t at = first;
    for (; at < bound && at < first + RUN && at < work; at++) {
        bench_free(ring->blocks[at % RING], (unsigned char)at);
        atomic_store_explicit(&ring->consumed, at + 1, memory_order_release);
    }
    return at - first;
}

/* All rings in turn, until all is moved; other threads may need this processor. */
static void move_all(const struct side *side, uint64_t (*move)(struct ring *, uint64_t))
{
    unsigned idle = 0;
    for (uint64_t left = side->count * side->work; left > 0;) {
        uint64_t moved = 0;
        for (unsigned i = 0; i < side->count; i++)
            moved += move(&side->rings[i], side->work);
        left -= moved;
        idle = moved == 0 ? idle + 1 : 0;
        if (idle >= PATIENCE)
            sched_yield();
    }
}

static void *produce(void *argument)
{
    move_all(argument, put);
    return NULL;
}

static void *consume(void *argument)
{
    move_all(argument, take);
    return NULL;
}

int main(int argc, char **argv)
{
    struct bench_rng rng = bench_rng_for(0);
    bool producers = argc > 1 && strcmp(argv[1], "many_producers") == 0;
    if (!producers && (argc < 2 || strcmp(argv[1], "many_consumers") != 0)) {
        fprintf(stderr, "usage: prodcons_many many_producers|many_consumers [FACTOR]\n");
        return 2;
    }
    uint64_t work = bench_work(argc - 1, argv + 1, 15000000) / MANY + 1;
    for (unsigned i = 0; i < TABLE; i++)
        sizes[i] = bench_between(&rng, 16, 256);
    struct side all = {rings, MANY, work}, single[MANY];
    pthread_t one = bench_start(producers ? consume : produce, &all);
    for (unsigned i = 0; i < MANY; i++)
        single[i] = (struct side){&rings[i], 1, work};
    bench_run_threads(MANY, producers ? produce : consume, single, sizeof single[0]);
    bench_join(one);
    return 0;
}
