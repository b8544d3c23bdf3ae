/* guarded [COUNT]: every allocation guarded, COUNT blocks live at once (500,000 unless
 * told): none without a guard, fewer than 1000 mappings; and when they are free their
 * memory has gone back and a fork is cheap.
 *
 * Linked, and preloaded by nobody: it asks for statistics. */
#include "bulkhead.h"
#include "support.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define COUNT ((size_t)500000)
#define MAPPINGS_BOUND ((size_t)1000)
#define OTHER_BYTES 900 /* page tables and the record of a block, beside its OS page */
#define FREED_RSS_BOUND (100 * MIB)
#define TURNS 2000000 /* as many frees as it takes for addresses to come back */

static void fork_once(void)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    int status;
    waitpid(pid, &status, 0);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
    limits_begin();
    size_t count = argc > 1 ? strtoull(argv[1], NULL, 10) : COUNT;
    if (limits_memory_available() < count * 8192)
        limits_skip("not enough memory available");
    void **blocks = limits_table(count * sizeof *blocks);
    for (size_t i = 0; i < count; i++)
        blocks[i] = blocks; /* resident before the first figure */
    size_t rss_start = limits_rss();
    bh_stats_t s = {.struct_size = sizeof s};
    for (size_t i = 0; i < count; i++) {
        blocks[i] = malloc(1 + i % 2000);
        if (blocks[i] == NULL) {
            limits_result(false, "guarded: malloc failed after %zu blocks", i);
            return limits_end();
        }
        *(char *)blocks[i] = 1;
    }
    size_t maps = limits_mappings(), rss = limits_rss() - rss_start;
    bh_stats_get(&s);
    limits_result(s.guarded_count >= count && s.guarded_refused == 0, "guarded: %zu of %zu blocks are", s.guarded_count, count);
    limits_result(maps < MAPPINGS_BOUND, "guarded-mappings: %zu (bound < %zu)", maps, MAPPINGS_BOUND);
    limits_result(rss <= count * (limits_os_page() + OTHER_BYTES), "guarded-rss: %zu MiB live", rss / MIB);
    for (size_t i = 0; i < count; i++)
        free(blocks[i]);
    rss = limits_rss() > rss_start ? limits_rss() - rss_start : 0;
    limits_result(rss <= FREED_RSS_BOUND, "guarded-freed: %zu MiB (bound %zu MiB)", rss / MIB, FREED_RSS_BOUND / MIB);
    double before = seconds();
    for (int i = 0; i < 10; i++)
        fork_once();
    double forked = (seconds() - before) / 10;
    before = seconds();
    for (size_t i = 0; i < TURNS; i++) {
        char *p = malloc(1 + i % 2000);
        *p = 1;
        free(p);
    }
    double turn = (seconds() - before) / TURNS;
    rss = limits_rss() > rss_start ? limits_rss() - rss_start : 0;
    maps = limits_mappings();
    limits_result(rss <= 2 * FREED_RSS_BOUND && maps < MAPPINGS_BOUND,
                  "guarded-turns: %zu MiB, %zu mappings after %d more; fork %.1f ms, malloc and free %.1f us", rss / MIB, maps, TURNS,
                  forked * 1e3, turn * 1e6);
    return limits_end();
}
