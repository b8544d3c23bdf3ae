/* After mleak of mimalloc-bench: threads that live shortly, and what they leave. Each
 * allocates blocks, frees most, and leaves some in shared places, from which it takes
 * and frees blocks of threads that have ended. An allocator that loses sight of an
 * ended thread's memory shows it as peak memory. Most of the time are the first blocks
 * of new heaps, and pages that ended threads left. */
#include "ended_once.h"

enum { BLOCKS = 1500, LEFT = 100, SHARED = 2000, MIN_SIZE = 16, MAX_SIZE = 600, FEW_LARGE = 64, LARGE_SIZE = 20000 };

static _Atomic(struct block *) shared[SHARED];

static void *live_shortly(void *argument)
{
    struct bench_rng *rng = argument;
    struct block *blocks[BLOCKS];
    bool turns = bench_takes_turns();
    for (unsigned i = 0; i < BLOCKS; i++) {
        bench_step(turns, i);
        uint32_t size = bench_between(rng, MIN_SIZE, i % FEW_LARGE == 0 ? LARGE_SIZE : MAX_SIZE);
        blocks[i] = malloc(size);
        bench_check(blocks[i] != NULL, "malloc");
        blocks[i]->size = size;
        blocks[i]->bytes[size - sizeof *blocks[i] - 1] = (unsigned char)size;
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        bench_step(turns, i);
        if (i % (BLOCKS / LEFT) == 0)
            blocks[i] = atomic_exchange(&shared[bench_below(rng, SHARED)], blocks[i]);
        end(blocks[i]);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    static struct bench_rng rngs[BENCH_MAX_THREADS];
    unsigned n = bench_thread_count();
    for (unsigned t = 0; t < n; t++)
        rngs[t] = bench_rng_for(t);
    for (uint64_t work = bench_work(argc, argv, 700); work > 0; work--)
        bench_run_threads(n, live_shortly, rngs, sizeof rngs[0]);
    for (unsigned i = 0; i < SHARED; i++)
        end(atomic_load(&shared[i]));
    return 0;
}
