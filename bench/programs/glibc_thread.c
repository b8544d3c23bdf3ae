/* After glibc's bench-malloc-thread: each thread replaces blocks in random slots
 * of its own; a size is as frequent as the inverse of its square. */
#include "common.h"

enum { SLOTS = 1024, SIZES = 65536, MIN_SIZE = 4, MAX_SIZE = 32768 };

static uint16_t sizes[SIZES];

struct task {
    struct bench_rng rng;
    uint64_t replacements;
};

/* The inverse of the distribution function of 1/x^2 between the two sizes. */
static void make_sizes(void)
{
    struct bench_rng rng = bench_rng_for(1000);
    const double low = 1.0 / MIN_SIZE, high = 1.0 / MAX_SIZE;
    for (unsigned i = 0; i < SIZES; i++)
        sizes[i] = (uint16_t)(1.0 / (low - (double)bench_next(&rng) / 4294967296.0 * (low - high)));
}

static void *replace(void *argument)
{
    struct task *task = argument;
    struct bench_rng rng = task->rng;
    unsigned char *slots[SLOTS] = {NULL};
    for (uint64_t i = 0; i < task->replacements; i++) {
        uint32_t random = bench_next(&rng);
        uint32_t slot = random % SLOTS;
        if (slots[slot] != NULL)
            bench_free(slots[slot], (unsigned char)slot);
        slots[slot] = bench_block(sizes[random / (UINT32_MAX / SIZES + 1)], (unsigned char)slot);
    }
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        if (slots[slot] != NULL)
            bench_free(slots[slot], (unsigned char)slot);
    return NULL;
}

int main(int argc, char **argv)
{
    static struct task tasks[BENCH_MAX_THREADS];
    uint64_t work = bench_work(argc, argv, 12000000);
    unsigned n = bench_thread_count();
    make_sizes();
    for (unsigned t = 0; t < n; t++)
        tasks[t] = (struct task){bench_rng_for(t), work};
    bench_run_threads(n, replace, tasks, sizeof tasks[0]);
    return 0;
}
