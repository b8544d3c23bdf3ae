/* A block costs what is touched of it: a TiB, taken and given back a hundred times,
 * the last time with three bytes written, leaves next to nothing in memory and takes
 * next to no time. A program that reserves address space this way is no rarity. */
#include "support.h"

#include <stdlib.h>
#include <time.h>

#define SIZE (MIB * MIB)
#define ROUNDS 100
#define RSS_MOST MIB
#define SECONDS_MOST 1.0

static double processor_seconds(void)
{
    struct timespec t;
    if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) != 0)
        limits_broken("clock_gettime");
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static size_t above(size_t rss, size_t before)
{
    return rss > before ? rss - before : 0;
}

int main(void)
{
    limits_begin();
    size_t before = limits_rss(), live = 0;
    double began = processor_seconds();
    for (int i = 0; i < ROUNDS; i++) {
        char *p = malloc(SIZE);
        if (p == NULL)
            limits_skip("no block of 1 TiB: limited address space, or strict overcommit");
        if (i == ROUNDS - 1) {
            live = above(limits_rss(), before);
            p[0] = p[SIZE / 2] = p[SIZE - 1] = 1;
        }
        free(p);
    }
    double took = processor_seconds() - began;
    size_t left = above(limits_rss(), before);
    limits_result(live <= RSS_MOST, "untouched-live: %zu KiB for a block of 1 TiB (bound %zu)", live / KIB, RSS_MOST / KIB);
    limits_result(left <= RSS_MOST, "untouched-left: %zu KiB after %d of them (bound %zu)", left / KIB, ROUNDS, RSS_MOST / KIB);
    limits_result(took < SECONDS_MOST, "untouched-time: %.3f s of processor time for %d (bound %.1f)", took, ROUNDS, SECONDS_MOST);
    return limits_end();
}
