/* The bare loops: what malloc and free cost in one pattern each, with next to
 * nothing around them. The first argument names the loop. */
#include "common.h"

/* Sizes and orders are made before a loop starts, in tables of this length. */
enum { TABLE = 4096 };

static uint32_t table[TABLE];

static void fill_table(uint64_t stream, uint32_t low, uint32_t high)
{
    struct bench_rng rng = bench_rng_for(stream);
    for (unsigned i = 0; i < TABLE; i++)
        table[i] = bench_between(&rng, low, high);
}

/* ------------------------------------------------------------- pairs of calls */

static void pair(uint64_t work)
{
    for (uint64_t i = 0; i < work; i++)
        bench_free(bench_block(64, (unsigned char)i), (unsigned char)i);
}

/* The same beside blocks of the size that stay, so that no page becomes empty,
 * which some allocators act upon at every free. */
static void pair_among(uint64_t work)
{
    unsigned char *neighbours[100];
    const unsigned n = sizeof neighbours / sizeof neighbours[0];
    for (unsigned i = 0; i < n; i++)
        neighbours[i] = bench_block(64, 1);
    pair(work);
    for (unsigned i = 0; i < n; i++)
        bench_free(neighbours[i], 1);
}

static void pair_mix(uint64_t work)
{
    fill_table(0, 1, 1024);
    for (uint64_t i = 0; i < work; i++)
        bench_free(bench_block(table[i % TABLE], (unsigned char)i), (unsigned char)i);
}

/* ------------------------------------------------------------- random lifetimes */

enum { RANDOM_BLOCKS = 10000 };

struct random_task {
    uint64_t rounds;
    uint32_t sizes[RANDOM_BLOCKS];
    uint32_t order[RANDOM_BLOCKS]; /* of the frees, a permutation */
    unsigned char *blocks[RANDOM_BLOCKS];
};

static void prepare_random(struct random_task *task, uint64_t stream, uint64_t work)
{
    struct bench_rng rng = bench_rng_for(stream);
    task->rounds = work / RANDOM_BLOCKS + 1;
    for (uint32_t i = 0; i < RANDOM_BLOCKS; i++) {
        uint32_t k = bench_below(&rng, i + 1);
        task->sizes[i] = bench_between(&rng, 1, 1024);
        task->order[i] = task->order[k];
        task->order[k] = i;
    }
}

static void *run_random(void *argument)
{
    struct random_task *task = argument;
    bool turns = bench_takes_turns();
    for (uint64_t round = 0; round < task->rounds; round++) {
        for (uint32_t i = 0; i < RANDOM_BLOCKS; i++) {
            bench_step(turns, i);
            task->blocks[i] = bench_block(task->sizes[i], (unsigned char)i);
        }
        for (uint32_t i = 0; i < RANDOM_BLOCKS; i++) {
            bench_step(turns, i);
            bench_free(task->blocks[task->order[i]], (unsigned char)task->order[i]);
        }
    }
    return NULL;
}

static struct random_task random_tasks[2];

static void random_order(uint64_t work)
{
    prepare_random(&random_tasks[0], 0, work);
    run_random(&random_tasks[0]);
}

static void two_threads(uint64_t work)
{
    prepare_random(&random_tasks[0], 0, work);
    prepare_random(&random_tasks[1], 1, work);
    bench_run_threads(2, run_random, random_tasks, sizeof random_tasks[0]);
}

/* ----------------------------------------------------------------- the window */

enum { WIDE = 200000 };

static unsigned char *window[WIDE];

/* The block that has lived longest goes when a new one comes. */
static void slide(uint64_t work, uint32_t width)
{
    uint32_t at = 0;
    fill_table(0, 16, 256);
    for (uint64_t i = 0; i < work; i++) {
        if (window[at] != NULL)
            bench_free(window[at], (unsigned char)at);
        window[at] = bench_block(table[i % TABLE], (unsigned char)at);
        at = at + 1 == width ? 0 : at + 1;
    }
    for (at = 0; at < width; at++)
        if (window[at] != NULL)
            bench_free(window[at], (unsigned char)at);
}

static void window_small(uint64_t work)
{
    slide(work, 1000);
}

static void window_wide(uint64_t work)
{
    slide(work, WIDE);
}

/* ------------------------------------------------------- producer and consumer */

enum { RING = 4096 }; /* a power of two */

static unsigned char *ring[RING];
static _Alignas(64) atomic_ullong produced;
static _Alignas(64) atomic_ullong consumed;

/* Waits for the other side, which may need this processor. */
static void wait_until_above(atomic_ullong *counter, uint64_t bound)
{
    for (unsigned spins = 0; atomic_load_explicit(counter, memory_order_acquire) <= bound; spins++)
        if (spins >= 100)
            sched_yield();
}

static void *produce(void *argument)
{
    uint64_t work = *(uint64_t *)argument;
    for (uint64_t i = 0; i < work; i++) {
        if (i >= RING)
            wait_until_above(&consumed, i - RING);
        ring[i % RING] = bench_block(table[i % TABLE], (unsigned char)i);
        atomic_store_explicit(&produced, i + 1, memory_order_release);
    }
    return NULL;
}

static void prodcons(uint64_t work)
{
    fill_table(0, 16, 256);
    pthread_t producer = bench_start(produce, &work);
    for (uint64_t i = 0; i < work; i++) {
        wait_until_above(&produced, i);
        bench_free(ring[i % RING], (unsigned char)i);
        atomic_store_explicit(&consumed, i + 1, memory_order_release);
    }
    bench_join(producer);
}

/* --------------------------------------------------------------------- realloc */

enum { BUFFERS = 4, BUFFER_START = 16, BUFFER_END = 1 << 20 };

/* Buffers grow in turn, by half, as those of many libraries do. */
static void realloc_grow(uint64_t work)
{
    unsigned char *buffers[BUFFERS];
    for (uint64_t i = 0; i < work; i++) {
        for (unsigned b = 0; b < BUFFERS; b++)
            buffers[b] = bench_block(BUFFER_START, (unsigned char)b);
        for (size_t size = BUFFER_START; size < BUFFER_END;) {
            size_t last = size - 1;
            size += size / 2;
            if (size > BUFFER_END)
                size = BUFFER_END;
            for (unsigned b = 0; b < BUFFERS; b++) {
                buffers[b] = realloc(buffers[b], size);
                bench_check(buffers[b] != NULL, "realloc");
                bench_check(buffers[b][0] == b && (last < BUFFER_START || buffers[b][last] == b + 1), "realloc lost a byte");
                buffers[b][size - 1] = (unsigned char)(b + 1);
            }
        }
        for (unsigned b = 0; b < BUFFERS; b++)
            bench_free(buffers[b], (unsigned char)b);
    }
}

/* ------------------------------------------------------------------------ churn */

enum { CHURN_BLOCKS = 100, CHURN_LEFT = 10 };

/* A short life: some blocks, of which a few are left to the thread's parent. */
static void *live_shortly(void *argument)
{
    unsigned char **left = argument;
    unsigned char *blocks[CHURN_BLOCKS];
    for (unsigned i = 0; i < CHURN_BLOCKS; i++)
        blocks[i] = bench_block(table[i], (unsigned char)i);
    for (unsigned i = 0; i < CHURN_LEFT; i++)
        left[i] = blocks[i];
    for (unsigned i = CHURN_LEFT; i < CHURN_BLOCKS; i++)
        bench_free(blocks[i], (unsigned char)i);
    return NULL;
}

static void churn(uint64_t work)
{
    unsigned char *left[2][CHURN_LEFT];
    fill_table(0, 16, 512);
    for (uint64_t i = 0; i < work; i++) {
        bench_run_threads(2, live_shortly, left, sizeof left[0]);
        for (unsigned t = 0; t < 2; t++)
            for (unsigned k = 0; k < CHURN_LEFT; k++)
                bench_free(left[t][k], (unsigned char)k);
    }
}

/* ----------------------------------------------------------------------- large */

enum { LARGE_SLOTS = 32, LARGE_MIN = 100 * 1024, LARGE_MAX = 4 * 1024 * 1024, OS_PAGE = 4096 };

/* Half of the slots live shortly, the others eight times as long. */
static void large(uint64_t work)
{
    unsigned char *slots[LARGE_SLOTS] = {NULL};
    struct bench_rng rng = bench_rng_for(1);
    fill_table(0, LARGE_MIN, LARGE_MAX);
    for (uint64_t i = 0; i < work; i++) {
        uint32_t slot = bench_below(&rng, LARGE_SLOTS / 2);
        if (i % 8 == 0)
            slot += LARGE_SLOTS / 2;
        if (slots[slot] != NULL)
            bench_free(slots[slot], (unsigned char)slot);
        size_t size = table[i % TABLE];
        slots[slot] = bench_block(size, (unsigned char)slot);
        for (size_t at = OS_PAGE; at < size; at += OS_PAGE)
            slots[slot][at] = 1;
    }
    for (uint32_t slot = 0; slot < LARGE_SLOTS; slot++)
        if (slots[slot] != NULL)
            bench_free(slots[slot], (unsigned char)slot);
}

/* ------------------------------------------------------------------------ main */

static const struct loop {
    const char *name;
    void (*run)(uint64_t work);
    uint64_t work;
} loops[] = {
    {"pair", pair, 60000000},
    {"pair_among", pair_among, 60000000},
    {"pair_mix", pair_mix, 60000000},
    {"random", random_order, 10000000},
    {"window_small", window_small, 30000000},
    {"window_wide", window_wide, 20000000},
    {"two_threads", two_threads, 5000000},
    {"prodcons", prodcons, 12000000},
    {"realloc_grow", realloc_grow, 500},
    {"churn", churn, 10000},
    {"large", large, 12000},
};

int main(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof loops / sizeof loops[0]; i++) {
        if (argc >= 2 && strcmp(argv[1], loops[i].name) == 0) {
            loops[i].run(bench_work(argc - 1, argv + 1, loops[i].work));
            return 0;
        }
    }
    fprintf(stderr, "usage: loops LOOP [FACTOR]; LOOP is one of");
    for (size_t i = 0; i < sizeof loops / sizeof loops[0]; i++)
        fprintf(stderr, " %s", loops[i].name);
    fprintf(stderr, "\n");
    return 2;
}
