/* Producer and consumer in both proportions: many_producers has three threads that
 * allocate and one that frees, many_consumers one that allocates for three that free.
 * Between each two threads is a ring of bounded length; who finds nothing to do sleeps,
 * so that waiting takes no processor time. The argument names which. */
#include <semaphore.h>

#include "common.h"

enum { MANY = 3, RING = 4096, RUN = 512, TABLE = 4096 };

struct ring {
    _Alignas(64) atomic_ullong produced;
    _Alignas(64) atomic_ullong consumed;
    _Alignas(64) sem_t *producer; /* wakes it */
    sem_t *consumer;
    unsigned char *blocks[RING];
};

/* The rings of one thread, and how many blocks go through each. */
struct side {
    struct ring *rings;
    unsigned count;
    uint64_t work;
    sem_t *wake;
};

static struct ring rings[MANY];
static sem_t wakes[MANY + 1];
static uint32_t sizes[TABLE];

static void post(sem_t *wake)
{
    bench_check(sem_post(wake) == 0, "sem_post");
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Puts into one ring as many as there is room for, RUN at most; how many. */
static uint64_t put(struct ring *ring, uint64_t work)
{
    uint64_t first = atomic_load_explicit(&ring->produced, memory_order_relaxed);
    uint64_t room = atomic_load_explicit(&ring->consumed, memory_order_acquire) + RING;
    uint64_t end = least(least(first + RUN, room), work);
    for (uint64_t at = first; at < end; at++)
        ring->blocks[at % RING] = bench_block(sizes[at % TABLE], (unsigned char)at);
    atomic_store_explicit(&ring->produced, end, memory_order_release);
    if (end > first)
        post(ring->consumer);
    return end - first;
}

static uint64_t take(struct ring *ring, uint64_t work)
{
    uint64_t first = atomic_load_explicit(&ring->consumed, memory_order_relaxed);
    uint64_t there = atomic_load_explicit(&ring->produced, memory_order_acquire);
    uint64_t end = least(least(first + RUN, there), work);
    for (uint64_t at = first; at < end; at++)
        bench_free(ring->blocks[at % RING], (unsigned char)at);
    atomic_store_explicit(&ring->consumed, end, memory_order_release);
    if (end > first)
        post(ring->producer);
    return end - first;
}

/* All rings in turn, until all is moved. The other side posts after each run, so what
 * comes after the look at the rings ends the sleep. */
static void move_all(const struct side *side, uint64_t (*move)(struct ring *, uint64_t))
{
    for (uint64_t left = side->count * side->work; left > 0;) {
        uint64_t moved = 0;
        for (unsigned i = 0; i < side->count; i++)
            moved += move(&side->rings[i], side->work);
        left -= moved;
        if (moved == 0)
            while (sem_wait(side->wake) != 0)
                bench_check(errno == EINTR, "sem_wait");
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
    for (unsigned i = 0; i <= MANY; i++)
        bench_check(sem_init(&wakes[i], 0, 0) == 0, "sem_init");
    struct side all = {rings, MANY, work, &wakes[MANY]}, single[MANY];
    for (unsigned i = 0; i < MANY; i++) {
        single[i] = (struct side){&rings[i], 1, work, &wakes[i]};
        rings[i].producer = producers ? single[i].wake : all.wake;
        rings[i].consumer = producers ? all.wake : single[i].wake;
    }
    pthread_t one = bench_start(producers ? consume : produce, &all);
    bench_run_threads(MANY, producers ? produce : consume, single, sizeof single[0]);
    bench_join(one);
    return 0;
}
