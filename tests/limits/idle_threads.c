/* A thousand threads that each allocated once and then wait. */
#include "support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS 1000
#define STACK (128 * KIB)
#define BOUND (200 * KIB)

static pthread_barrier_t allocated;
static pthread_barrier_t measured;
static atomic_int no_memory;

static void *idle(void *arg)
{
    char *p = malloc(100);
    if (p == NULL)
        atomic_fetch_add(&no_memory, 1);
    else
        memset(p, 1, 100);
    pthread_barrier_wait(&allocated);
    pthread_barrier_wait(&measured);
    free(p);
    return arg;
}

/* Prints bytes per thread; the parent reads them. */
static int measure(void)
{
    static pthread_t threads[THREADS];
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK);
    pthread_barrier_init(&allocated, NULL, THREADS + 1);
    pthread_barrier_init(&measured, NULL, THREADS + 1);
    size_t before = limits_rss();
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], &attr, idle, NULL) != 0)
            limits_broken("no thread %d", i);
    pthread_barrier_wait(&allocated);
    size_t after = limits_rss();
    pthread_barrier_wait(&measured);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    if (atomic_load(&no_memory) != 0)
        limits_broken("malloc failed in %d threads", atomic_load(&no_memory));
    printf("%zu\n", (after - before) / THREADS);
    return 0;
}

static size_t per_thread(bool preload)
{
    char mode[] = "--measure";
    char *argv[] = {(char *)(uintptr_t)limits_self(), mode, NULL};
    struct limits_child child;
    limits_exec(&child, 120, preload, argv);
    if (child.status != 0)
        limits_broken("status %#x: %s", (unsigned)child.status, child.output);
    return strtoull(child.output, NULL, 10);
}

int main(int argc, char **argv)
{
    limits_begin();
    if (argc == 2 && strcmp(argv[1], "--measure") == 0)
        return measure();
    size_t with = per_thread(true);
    size_t without = per_thread(false);
    limits_result(with < BOUND,
                  "idle-threads: %zu KiB for each of %d threads, %zu KiB with the system allocator "
                  "(bound < %zu KiB)",
                  with / KIB, THREADS, without / KIB, BOUND / KIB);
    return limits_end();
}
