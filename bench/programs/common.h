/* What the benchmark programs share: seeded random numbers, the one argument,
 * checks, threads. Nothing here allocates on the timed path. */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BENCH_MAX_THREADS 16u

/* ------------------------------------------------------------------- checks */

static inline _Noreturn void bench_fail(const char *what)
{
    fprintf(stderr, "benchmark failed: %s\n", what);
    exit(1);
}

static inline void bench_check(bool holds, const char *what)
{
    if (__builtin_expect(!holds, 0))
        bench_fail(what);
}

/* ----------------------------------------------------------- random numbers */

/* A linear congruential generator of 64 bits of which the upper 32 are used: one
 * multiplication, so that the generator does not show in the measured time. */
struct bench_rng {
    uint64_t state;
};

static inline uint32_t bench_next(struct bench_rng *rng)
{
    rng->state = rng->state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(rng->state >> 32);
}

/* 0 .. n-1; n > 0. */
static inline uint32_t bench_below(struct bench_rng *rng, uint32_t n)
{
    return (uint32_t)(((uint64_t)bench_next(rng) * n) >> 32);
}

/* low .. high, both included. */
static inline uint32_t bench_between(struct bench_rng *rng, uint32_t low, uint32_t high)
{
    return low + bench_below(rng, high - low + 1);
}

/* The generator number `stream` of the seed in BENCH_SEED (1 if there is none).
 * Seeds and streams are small numbers; splitmix64 spreads them. */
static inline struct bench_rng bench_rng_for(uint64_t stream)
{
    const char *text = getenv("BENCH_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : 1;
    uint64_t z = seed + (stream + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (struct bench_rng){z ^ (z >> 31)};
}

/* ----------------------------------------------------------------- arguments */

/* The work to be done: `usual`, times the factor that is the program's only
 * argument, if there is one. At least 1. */
static inline uint64_t bench_work(int argc, char **argv, uint64_t usual)
{
    if (argc < 2)
        return usual;
    char *end;
    double factor = strtod(argv[1], &end);
    if (argc > 2 || end == argv[1] || *end != '\0' || !(factor > 0 && factor <= 1e6)) {
        fprintf(stderr, "usage: PROGRAM [FACTOR]\n");
        exit(2);
    }
    double work = (double)usual * factor;
    return work < 1 ? 1 : (uint64_t)work;
}

/* ------------------------------------------------------------------- threads */

/* As many as there are processors for this process, but at least two: a block
 * that changes threads is the point of most programs that use this. */
static inline unsigned bench_thread_count(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    if (n < 2)
        return 2;
    return (unsigned)n < BENCH_MAX_THREADS ? (unsigned)n : BENCH_MAX_THREADS;
}

static inline pthread_t bench_start(void *(*body)(void *), void *argument)
{
    pthread_t thread;
    bench_check(pthread_create(&thread, NULL, body, argument) == 0, "pthread_create");
    return thread;
}

static inline void bench_join(pthread_t thread)
{
    bench_check(pthread_join(thread, NULL) == 0, "pthread_join");
}

/* Whether threads shall take turns: valgrind runs one at a time, and the next one at a
 * kernel call or after 100,000 basic blocks. Then the calls of an allocator decide how
 * many blocks change threads, which none does where threads run side by side. */
static inline bool bench_takes_turns(void)
{
    return getenv("BENCH_TURNS") != NULL;
}

enum { BENCH_TURN = 256 };

/* Step `number` of a thread's work: each 256th ends its turn. */
static inline void bench_step(bool turns, uint64_t number)
{
    if (turns && number % BENCH_TURN == 0)
        sched_yield();
}

/* Runs body(arguments + i * size) in n threads and waits for them all. */
static inline void bench_run_threads(unsigned n, void *(*body)(void *), void *arguments, size_t size)
{
    pthread_t threads[BENCH_MAX_THREADS];
    bench_check(n <= BENCH_MAX_THREADS, "too many threads");
    for (unsigned i = 0; i < n; i++)
        threads[i] = bench_start(body, (char *)arguments + i * size);
    for (unsigned i = 0; i < n; i++)
        bench_join(threads[i]);
}

/* -------------------------------------------------------------------- blocks */

/* A block of at least one byte whose first byte is `tag`. */
static inline unsigned char *bench_block(size_t size, unsigned char tag)
{
    unsigned char *block = malloc(size);
    bench_check(block != NULL, "malloc");
    block[0] = tag;
    return block;
}

/* Frees a block of bench_block, after a look whether it still has its tag. */
static inline void bench_free(unsigned char *block, unsigned char tag)
{
    bench_check(block[0] == tag, "a block has changed");
    free(block);
}

#endif
