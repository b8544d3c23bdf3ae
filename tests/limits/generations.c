/* 2,000 short-lived threads that each leave 100 live blocks, which another
 * thread frees: pages of ended threads are found again. */
#include "support.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define GENERATIONS 2000
#define WARM_UP 200
#define BLOCKS 100
#define MAX_BLOCK 2000
#define GROWTH_BOUND (8 * MIB)

static char *blocks[BLOCKS];
static uint64_t seed;

static void *leave_blocks(void *arg)
{
    for (size_t i = 0; i < BLOCKS; i++) {
        size_t size = 1 + limits_random(&seed) % MAX_BLOCK;
        blocks[i] = malloc(size);
        if (blocks[i] == NULL)
            limits_broken("no memory");
        memset(blocks[i], 1, size);
    }
    return arg;
}

int main(void)
{
    limits_begin();
    seed = limits_seed();
    size_t warm = 0;
    size_t warm_address_space = 0;
    for (unsigned g = 0; g < GENERATIONS; g++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, leave_blocks, NULL) != 0)
            limits_broken("no thread");
        pthread_join(thread, NULL);
        /* The last block stays for a generation: no page of a dead thread is
         * empty at once. */
        static char *left;
        free(left);
        left = blocks[BLOCKS - 1];
        for (size_t i = 0; i < BLOCKS - 1; i++)
            free(blocks[i]);
        if (g == WARM_UP) {
            warm = limits_rss();
            warm_address_space = limits_status(0, "VmSize");
        }
    }
    size_t end = limits_rss();
    limits_result(end <= warm + GROWTH_BOUND,
                  "generations: %zu KiB after %d threads, %zu KiB after %d, address space %zu and "
                  "%zu MiB (bound %zu KiB)",
                  warm / KIB, WARM_UP, end / KIB, GENERATIONS, warm_address_space / MIB,
                  limits_status(0, "VmSize") / MIB, (warm + GROWTH_BOUND) / KIB);
    return limits_end();
}
