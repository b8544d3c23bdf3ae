/* Two times that the counts of lines.c go with, on this machine:
 *
 *     timed WORKLOAD N [OPERATIONS]   nanoseconds for an operation where N threads take
 *                                     turns on one processor
 *     timed --latency                 nanoseconds that a line takes from one processor to
 *                                     another
 *
 * Linked with the allocator as programs have it. */
#include "workloads.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { USUAL = 20000000, PARTS = 20, TURN = 2048, TRIPS = 500, TRIES = 1000 };

void lines_fail(const char *what)
{
    fprintf(stderr, "timed: %s\n", what);
    _Exit(1);
}

void machine_begin(enum machine_doing doing)
{
    (void)doing;
}

static double nanoseconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void pin(size_t processor)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(processor, &set);
    check(sched_setaffinity(0, sizeof set, &set) == 0, "cannot choose a processor");
}

/* The processors that this process may use, two at most; their number. */
static size_t first_two(size_t *two)
{
    cpu_set_t set;
    size_t n = 0;
    check(sched_getaffinity(0, sizeof set, &set) == 0, "sched_getaffinity");
    for (size_t i = 0; i < CPU_SETSIZE && n < 2; i++)
        if (CPU_ISSET(i, &set))
            two[n++] = i;
    return n;
}

/* -------------------------------------------------------------- operations */

static const struct workload *workload;
static uint64_t turns_of_part;
static double least; /* of several parts: what disturbs one adds to its time */
static sem_t finished;

/* Processor time, by the threads that take turns on one processor: no line changes it, and
 * the turns are so long that a switch between them is little. */
static void *take_turns(void *argument)
{
    struct worker *w = argument;
    double began = 0;
    for (uint64_t turn = 0;; turn++) {
        while (sem_wait(&w->turn) != 0)
            ;
        if (w->number == 0 && turn % turns_of_part == 0) {
            double time = nanoseconds(CLOCK_PROCESS_CPUTIME_ID), each = (time - began) / (double)(turns_of_part * TURN * processors);
            if (turn > turns_of_part && (least == 0 || each < least)) /* the first part warms up */
                least = each;
            if (turn == PARTS * turns_of_part)
                break;
            began = time;
        }
        for (unsigned i = 0; i < TURN; i++) {
            workload->step(w);
            w->steps++;
        }
        check(sem_post(&workers[(w->number + 1) % processors].turn) == 0, "sem_post");
    }
    check(sem_post(&finished) == 0, "sem_post");
    return NULL;
}

static double time_of(const struct workload *load, unsigned n, uint64_t operations)
{
    size_t two[2];
    check(first_two(two) > 0, "no processor");
    pin(two[0]);
    workload = load;
    workers_start(n);
    turns_of_part = operations / PARTS / TURN / n + 1;
    check(sem_init(&finished, 0, 0) == 0, "sem_init");
    for (unsigned i = 0; i < n; i++) {
        pthread_t thread;
        check(pthread_create(&thread, NULL, take_turns, &workers[i]) == 0 && pthread_detach(thread) == 0, "pthread_create");
    }
    check(sem_post(&workers[0].turn) == 0, "sem_post");
    while (sem_wait(&finished) != 0)
        ;
    return least;
}

/* ----------------------------------------------------------------- latency */

static _Alignas(64) struct {
    _Atomic(unsigned) trips;
    char rest[60];
} ball;

/* Waits for the line to come in turn `mine`, and sends it back. */
static void hit(unsigned mine)
{
    while (atomic_load_explicit(&ball.trips, memory_order_acquire) != mine)
        ;
    atomic_store_explicit(&ball.trips, mine + 1, memory_order_release);
}

static void *play(void *processor)
{
    pin(*(size_t *)processor);
    for (unsigned i = 0; i < TRIPS * TRIES; i++)
        hit(2 * i + 1);
    return NULL;
}

/* A trip moves the line to be read, and then to be written: two transfers each way. */
static double latency(void)
{
    size_t two[2];
    check(first_two(two) == 2, "this takes two processors; give the latency");
    pthread_t other;
    check(pthread_create(&other, NULL, play, &two[1]) == 0, "pthread_create");
    pin(two[0]);
    for (unsigned t = 0; t < TRIES; t++) {
        double began = nanoseconds(CLOCK_MONOTONIC);
        for (unsigned i = t * TRIPS; i < (t + 1) * TRIPS; i++)
            hit(2 * i);
        double time = (nanoseconds(CLOCK_MONOTONIC) - began) / TRIPS;
        if (t == 0 || time < least)
            least = time;
    }
    pthread_join(other, NULL);
    return least / 4;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--latency") == 0) {
        printf("%.1f\n", latency());
        return 0;
    }
    const struct workload *load = argc == 3 || argc == 4 ? workload_named(argv[1]) : NULL;
    unsigned long n = load != NULL ? strtoul(argv[2], NULL, 10) : 0;
    if (load == NULL || load->life != 0 || n < 1 || n > MOST) {
        fprintf(stderr, "usage: timed WORKLOAD THREADS [OPERATIONS] | timed --latency; with threads that stay\n");
        return 2;
    }
    printf("%.1f\n", time_of(load, (unsigned)n, argc == 4 ? strtoull(argv[3], NULL, 10) : USUAL));
    fflush(stdout);
    _exit(0); /* other threads wait for a turn that never comes */
}
