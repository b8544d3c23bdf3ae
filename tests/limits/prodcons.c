/* A producer and a consumer that never change roles: what one allocates the
 * other frees, and memory stays bounded. */
#include "support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Ring of blocks on their way. Whoever is faster waits, so live memory is
 * anything from nothing to its length in blocks, 2 MiB on average. */
#define RING 1024
#define SECONDS 5
#define MIN_BLOCK 64
#define MAX_BLOCK 4096

/* Beyond the resident memory after a second. */
#define GROWTH_BOUND (16 * MIB)

static _Atomic(void *) ring[RING];
static atomic_bool stop;
static atomic_size_t passed;
static uint64_t seed;

static void *produce(void *arg)
{
    for (size_t i = 0; !atomic_load_explicit(&stop, memory_order_relaxed);) {
        size_t size = MIN_BLOCK + limits_random(&seed) % (MAX_BLOCK - MIN_BLOCK);
        char *p = malloc(size);
        if (p == NULL)
            limits_broken("no memory");
        memset(p, 1, size);
        while (atomic_load_explicit(&ring[i], memory_order_acquire) != NULL)
            if (atomic_load_explicit(&stop, memory_order_relaxed)) {
                free(p);
                return arg;
            }
        atomic_store_explicit(&ring[i], p, memory_order_release);
        i = (i + 1) % RING;
    }
    return arg;
}

static void *consume(void *arg)
{
    for (size_t i = 0;;) {
        void *p = atomic_exchange_explicit(&ring[i], NULL, memory_order_acq_rel);
        if (p == NULL) {
            if (atomic_load_explicit(&stop, memory_order_relaxed))
                return arg;
            continue;
        }
        free(p);
        atomic_fetch_add_explicit(&passed, 1, memory_order_relaxed);
        i = (i + 1) % RING;
    }
}

static void sleep_until(uint64_t end)
{
    while (limits_now_ns() < end)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
}

int main(void)
{
    pthread_t producer;
    pthread_t consumer;
    limits_begin();
    seed = limits_seed();
    uint64_t start = limits_now_ns();
    if (pthread_create(&producer, NULL, produce, NULL) != 0 ||
        pthread_create(&consumer, NULL, consume, NULL) != 0)
        limits_broken("no thread");
    sleep_until(start + UINT64_C(1000000000));
    size_t early = limits_rss();
    size_t most = early;
    for (unsigned tenth = 11; tenth <= SECONDS * 10; tenth++) {
        sleep_until(start + tenth * UINT64_C(100000000));
        size_t now = limits_rss();
        if (now > most)
            most = now;
    }
    size_t late = limits_rss();
    atomic_store(&stop, true);
    pthread_join(producer, NULL);
    pthread_join(consumer, NULL);
    for (size_t i = 0; i < RING; i++)
        free(atomic_load(&ring[i]));
    limits_result(most <= early + GROWTH_BOUND,
                  "prodcons: %zu KiB after 1 s, %zu KiB at most, %zu KiB after %d s, %zu blocks "
                  "passed (bound %zu KiB)",
                  early / KIB, most / KIB, late / KIB, SECONDS, atomic_load(&passed),
                  (early + GROWTH_BOUND) / KIB);
    return limits_end();
}
