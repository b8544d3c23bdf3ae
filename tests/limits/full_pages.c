/* 18,000 full pages: the cost of an allocation stays flat, and a block that
 * another thread frees in one of them is found again. */
#include "support.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define BLOCK (8 * KIB)
#define PER_PAGE 7 /* 64 KiB less an OS page of guard */
#define PAGES 18000
#define BLOCKS ((size_t)PAGES * PER_PAGE)
#define CHUNK 700
#define CHUNKS (BLOCKS / CHUNK)
#define RATIO_BOUND 1.5

#define REMOTE 2000
#define REUSE_BOUND_PERCENT 50

static void **blocks;
static size_t victims[REMOTE];

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Processor time: other processes on the machine must not count. */
static uint64_t thread_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

static double median_ns(const uint64_t *times, size_t count)
{
    static uint64_t sorted[CHUNKS];
    for (size_t i = 0; i < count; i++)
        sorted[i] = times[i];
    qsort(sorted, count, sizeof *sorted, by_value);
    return (double)sorted[count / 2] / CHUNK;
}

static void *free_victims(void *arg)
{
    for (size_t i = 0; i < REMOTE; i++)
        free(blocks[victims[i]]);
    return arg;
}

static int by_address(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t) * (void *const *)a;
    uintptr_t y = (uintptr_t) * (void *const *)b;
    return (x > y) - (x < y);
}

int main(void)
{
    static uint64_t times[CHUNKS];
    static void *freed[REMOTE];
    limits_begin();
    uint64_t seed = limits_seed();
    blocks = limits_table(BLOCKS * sizeof *blocks);
    size_t step = limits_os_page() / sizeof *blocks;
    for (size_t i = 0; i < BLOCKS; i += step)
        blocks[i] = blocks;
    for (size_t c = 0; c < CHUNKS; c++) {
        uint64_t start = thread_ns();
        for (size_t i = 0; i < CHUNK; i++)
            if ((blocks[c * CHUNK + i] = malloc(BLOCK)) == NULL)
                limits_broken("no memory");
        times[c] = thread_ns() - start;
    }
    size_t tenth = CHUNKS / 10;
    double first = median_ns(times, tenth);
    double last = median_ns(times + CHUNKS - tenth, tenth);
    limits_result(last < first * RATIO_BOUND,
                  "full-pages: %.0f ns for an allocation at first, %.0f ns with %d full pages: ratio "
                  "%.2f (bound < %.1f)",
                  first, last, PAGES, last / first, RATIO_BOUND);

    /* One block of each of many random pages, none of the last pages. */
    size_t stride = (BLOCKS - 10 * CHUNK) / REMOTE;
    for (size_t i = 0; i < REMOTE; i++) {
        victims[i] = i * stride + limits_random(&seed) % stride;
        freed[i] = blocks[victims[i]];
    }
    pthread_t thread;
    if (pthread_create(&thread, NULL, free_victims, NULL) != 0)
        limits_broken("no thread");
    pthread_join(thread, NULL);
    qsort(freed, REMOTE, sizeof *freed, by_address);
    size_t reused = 0;
    for (size_t i = 0; i < REMOTE; i++) {
        void *p = malloc(BLOCK);
        reused += bsearch(&p, freed, REMOTE, sizeof *freed, by_address) != NULL;
        blocks[victims[i]] = p;
    }
    limits_result(reused * 100 >= REMOTE * REUSE_BOUND_PERCENT,
                  "full-pages-reuse: %zu of %d blocks freed by another thread were handed out again "
                  "(bound >= %d %%)",
                  reused, REMOTE, REUSE_BOUND_PERCENT);
    for (size_t i = 0; i < BLOCKS; i++)
        free(blocks[i]);
    return limits_end();
}
