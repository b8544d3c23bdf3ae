/* After rpmalloc-benchmark: threads that replace blocks of 16 to 16,000 bytes, all
 * sizes as frequent, and every fifth block goes through shared places to another
 * thread, which frees it. First and last byte are written. Half of the time are
 * misses of the caches there, most of the rest pages that have few blocks and refills. */
#include "ended_once.h"

enum { OWN = 400, SHARED = 256, MIN_SIZE = 16, MAX_SIZE = 16000 };

struct worker {
    struct bench_rng rng;
    uint64_t blocks;
};

static _Atomic(struct block *) shared[SHARED];

static struct block *new_block(uint32_t size)
{
    struct block *block = malloc(size);
    bench_check(block != NULL, "malloc");
    block->size = size;
    block->bytes[size - sizeof *block - 1] = (unsigned char)size;
    return block;
}

static void *work(void *argument)
{
    struct worker *w = argument;
    struct bench_rng rng = w->rng;
    struct block *own[OWN] = {NULL};
    bool turns = bench_takes_turns();
    for (uint64_t i = 0; i < w->blocks; i++) {
        bench_step(turns, i);
        struct block *block = new_block(bench_between(&rng, MIN_SIZE, MAX_SIZE));
        if (i % 5 == 0)
            block = atomic_exchange(&shared[bench_below(&rng, SHARED)], block);
        struct block **place = &own[bench_below(&rng, OWN)];
        end(*place);
        *place = block;
    }
    for (unsigned i = 0; i < OWN; i++)
        end(own[i]);
    return NULL;
}

int main(int argc, char **argv)
{
    static struct worker workers[BENCH_MAX_THREADS];
    uint64_t blocks = bench_work(argc, argv, 5000000);
    unsigned n = bench_thread_count();
    for (unsigned t = 0; t < n; t++)
        workers[t] = (struct worker){bench_rng_for(t), blocks};
    bench_run_threads(n, work, workers, sizeof workers[0]);
    for (unsigned i = 0; i < SHARED; i++)
        end(atomic_load(&shared[i]));
    return 0;
}
