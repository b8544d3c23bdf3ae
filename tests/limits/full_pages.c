/* 18,000 full pages: the cost of an allocation stays flat, and a block that
 * another thread frees in one of them is found again. */
#include "support.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BLOCK (8 * KIB)
#define PER_PAGE 7 /* 64 KiB less an OS page of guard */
#define PAGES 18000
#define BLOCKS ((size_t)PAGES * PER_PAGE)
#define CHUNK 700
#define CHUNKS (BLOCKS / CHUNK)
#define RATIO_BOUND 1.5
#define PROCESSES 9

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

typedef struct cost {
    double first, last; /* ns for an allocation: with few pages, with all of them */
} cost_t;

static int by_ratio(const void *a, const void *b)
{
    const cost_t *x = a, *y = b;
    return (x->last * y->first > y->last * x->first) - (x->last * y->first < y->last * x->first);
}

/* Processor time: other processes on the machine must not count. But one that begins to
 * use the other half of a processor's core makes all of it slower, by 1.6 where this was
 * seen, in one process of twelve. */
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

static cost_t fill(void)
{
    static uint64_t times[CHUNKS];
    for (size_t c = 0; c < CHUNKS; c++) {
        uint64_t start = thread_ns();
        for (size_t i = 0; i < CHUNK; i++)
            if ((blocks[c * CHUNK + i] = malloc(BLOCK)) == NULL)
                limits_broken("no memory");
        times[c] = thread_ns() - start;
    }
    size_t tenth = CHUNKS / 10;
    return (cost_t){median_ns(times, tenth), median_ns(times + CHUNKS - tenth, tenth)};
}

/* The middle one of what several processes measure. */
static cost_t cost_of_processes(void)
{
    cost_t *costs = mmap(NULL, PROCESSES * sizeof *costs, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (costs == MAP_FAILED)
        limits_broken("no memory to share");
    for (unsigned i = 0; i < PROCESSES; i++) {
        pid_t child = fork();
        if (child == 0) {
            costs[i] = fill();
            _exit(0);
        }
        int status;
        if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
            limits_broken("a child did not end");
    }
    qsort(costs, PROCESSES, sizeof *costs, by_ratio);
    return costs[PROCESSES / 2];
}

int main(void)
{
    static void *freed[REMOTE];
    limits_begin();
    uint64_t seed = limits_seed();
    blocks = limits_table(BLOCKS * sizeof *blocks);
    size_t step = limits_os_page() / sizeof *blocks;
    for (size_t i = 0; i < BLOCKS; i += step)
        blocks[i] = blocks;
    cost_t cost = cost_of_processes();
    limits_result(cost.last < cost.first * RATIO_BOUND,
                  "full-pages: %.0f ns for an allocation at first, %.0f ns with %d full pages: ratio "
                  "%.2f (bound < %.1f)",
                  cost.first, cost.last, PAGES, cost.last / cost.first, RATIO_BOUND);
    (void)fill();

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
