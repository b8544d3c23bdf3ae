/* Passive false sharing, after Berger's Hoard: the main thread allocates small
 * blocks side by side and gives one to each thread. An allocator that hands the
 * thread the same block again after it has freed it lets the threads write to
 * one cache line for ever. */
#include "common.h"

enum { SIZE = 8, WRITES = 1000 };

struct task {
    uint64_t rounds;
    unsigned char *given;
};

static void *scratch(void *argument)
{
    struct task *task = argument;
    bench_free(task->given, 1);
    for (uint64_t i = 0; i < task->rounds; i++) {
        volatile unsigned char *block = bench_block(SIZE, 0);
        for (unsigned k = 0; k < WRITES; k++)
            block[k % SIZE]++;
        bench_check(block[0] == (unsigned char)(WRITES / SIZE), "a write is lost");
        free((void *)block);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    static struct task tasks[BENCH_MAX_THREADS];
    uint64_t rounds = bench_work(argc, argv, 900000);
    unsigned n = bench_thread_count();
    for (unsigned t = 0; t < n; t++)
        tasks[t] = (struct task){rounds, bench_block(SIZE, 1)};
    bench_run_threads(n, scratch, tasks, sizeof tasks[0]);
    return 0;
}
