/* After Lever and Boreham's malloc-test and its variant xmalloc-test: some
 * threads only allocate, in batches, and others only free. Every block is freed
 * by a thread that did not allocate it, and no block comes back by itself. */
#include "common.h"

enum { BATCH = 4096, WAITING = 8, MIN_SIZE = 16, MAX_SIZE = 128, SIZES = 1024 };

struct batch {
    struct batch *next;
    unsigned char *blocks[BATCH];
};

/* One allocating and one freeing thread, with a bounded queue between them. */
struct pair {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct batch *first;
    struct batch **last;
    unsigned waiting;
    uint64_t batches;
    uint16_t sizes[SIZES];
};

static unsigned char tag_of(unsigned i)
{
    return (unsigned char)(i * 11 + 3);
}

static void put(struct pair *p, struct batch *batch)
{
    batch->next = NULL;
    pthread_mutex_lock(&p->lock);
    while (p->waiting == WAITING)
        pthread_cond_wait(&p->changed, &p->lock);
    *p->last = batch;
    p->last = &batch->next;
    p->waiting++;
    pthread_cond_signal(&p->changed);
    pthread_mutex_unlock(&p->lock);
}

static struct batch *take(struct pair *p)
{
    pthread_mutex_lock(&p->lock);
    while (p->waiting == 0)
        pthread_cond_wait(&p->changed, &p->lock);
    struct batch *batch = p->first;
    p->first = batch->next;
    if (p->first == NULL)
        p->last = &p->first;
    p->waiting--;
    pthread_cond_signal(&p->changed);
    pthread_mutex_unlock(&p->lock);
    return batch;
}

static void *allocate(void *argument)
{
    struct pair *p = argument;
    bool turns = bench_takes_turns();
    for (uint64_t n = 0; n < p->batches; n++) {
        struct batch *batch = malloc(sizeof *batch);
        bench_check(batch != NULL, "malloc");
        for (unsigned i = 0; i < BATCH; i++)
            batch->blocks[i] = bench_block(p->sizes[i % SIZES], tag_of(i));
        put(p, batch);
        bench_step(turns, n * BENCH_TURN);
    }
    return NULL;
}

static void *release(void *argument)
{
    struct pair *p = argument;
    bool turns = bench_takes_turns();
    for (uint64_t n = 0; n < p->batches; n++) {
        struct batch *batch = take(p);
        for (unsigned i = 0; i < BATCH; i++)
            bench_free(batch->blocks[i], tag_of(i));
        free(batch);
        bench_step(turns, n * BENCH_TURN);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    static struct pair pairs[BENCH_MAX_THREADS / 2];
    pthread_t threads[BENCH_MAX_THREADS];
    uint64_t batches = bench_work(argc, argv, 12000000) / BATCH + 1;
    unsigned n = bench_thread_count() / 2;
    for (unsigned t = 0; t < n; t++) {
        struct pair *p = &pairs[t];
        struct bench_rng rng = bench_rng_for(t);
        bench_check(pthread_mutex_init(&p->lock, NULL) == 0, "pthread_mutex_init");
        bench_check(pthread_cond_init(&p->changed, NULL) == 0, "pthread_cond_init");
        p->last = &p->first;
        p->batches = batches;
        for (unsigned i = 0; i < SIZES; i++)
            p->sizes[i] = (uint16_t)bench_between(&rng, MIN_SIZE, MAX_SIZE);
        threads[2 * t] = bench_start(allocate, p);
        threads[2 * t + 1] = bench_start(release, p);
    }
    for (unsigned t = 0; t < 2 * n; t++)
        bench_join(threads[t]);
    return 0;
}
