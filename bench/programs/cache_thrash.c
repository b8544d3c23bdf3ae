/* Active false sharing, after Berger's Hoard: threads allocate small blocks at
 * the same time. An allocator that serves them from one place gives them blocks
 * of one cache line, to which all then write. */
#include "common.h"

enum { SIZE = 8, WRITES = 1000 };

static void *thrash(void *argument)
{
    uint64_t rounds = *(uint64_t *)argument;
    for (uint64_t i = 0; i < rounds; i++) {
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
    uint64_t rounds = bench_work(argc, argv, 900000);
    bench_run_threads(bench_thread_count(), thrash, &rounds, 0);
    return 0;
}
