/* After MicroQuill's sh8bench: the batches of sh6bench in several threads, and each
 * batch that is full goes through shared places to any thread, which frees it. Most
 * blocks are freed by a thread that did not allocate them, beside many that are freed
 * at home. Three quarters of the time are calls. */
#include "batches.h"

enum { KEPT = 8, SHARED = 16 };

struct worker {
    struct bench_rng rng;
    uint64_t batches;
};

static _Atomic(struct batch *) shared[SHARED];

static struct batch *new_batch(struct bench_rng *rng)
{
    struct batch *batch = malloc(sizeof *batch);
    bench_check(batch != NULL, "malloc");
    fill_batch(batch, rng);
    return batch;
}

static void end_batch(struct batch *batch, enum order order)
{
    if (batch != NULL)
        free_batch(batch, order);
    free(batch);
}

/* Three of four batches are exchanged for those of others before they are freed. */
static void *work(void *argument)
{
    struct worker *w = argument;
    struct bench_rng rng = w->rng;
    struct batch *kept[KEPT] = {NULL};
    bool turns = bench_takes_turns();
    for (uint64_t i = 0; i < w->batches; i++) {
        struct batch **place = &kept[bench_below(&rng, KEPT)];
        end_batch(*place, bench_below(&rng, ORDERS));
        *place = new_batch(&rng);
        if (i % 4 != 0)
            *place = atomic_exchange(&shared[bench_below(&rng, SHARED)], *place);
        bench_step(turns, i * BENCH_TURN); /* a batch is long enough */
    }
    for (unsigned i = 0; i < KEPT; i++)
        end_batch(kept[i], FORWARD);
    return NULL;
}

int main(int argc, char **argv)
{
    static struct worker workers[BENCH_MAX_THREADS];
    uint64_t batches = bench_work(argc, argv, 75000);
    unsigned n = bench_thread_count();
    for (unsigned t = 0; t < n; t++)
        workers[t] = (struct worker){bench_rng_for(t), batches};
    bench_run_threads(n, work, workers, sizeof workers[0]);
    for (unsigned i = 0; i < SHARED; i++)
        end_batch(atomic_load(&shared[i]), FORWARD);
    return 0;
}
