/* A server, after Larson and Krishnan: each thread holds many blocks of random
 * sizes and replaces one after the other. After a while it hands them all to a
 * thread that it starts, and ends, so that blocks are freed by other threads
 * than those that allocated them. */
#include <semaphore.h>

#include "common.h"

enum { BLOCKS = 1000, MIN_SIZE = 8, MAX_SIZE = 1000, GENERATIONS = 40 };

struct connection {
    struct bench_rng rng;
    uint64_t replacements; /* by each thread */
    unsigned generations;  /* threads still to come, with the running one */
    unsigned char *blocks[BLOCKS];
    sem_t *ended;
};

static unsigned char tag_of(uint32_t slot)
{
    return (unsigned char)(slot * 37 + 1);
}

static void *serve(void *argument)
{
    struct connection *c = argument;
    struct bench_rng rng = c->rng;
    bool turns = bench_takes_turns();
    for (uint64_t i = 0; i < c->replacements; i++) {
        bench_step(turns, i);
        uint32_t slot = bench_below(&rng, BLOCKS);
        bench_free(c->blocks[slot], tag_of(slot));
        c->blocks[slot] = bench_block(bench_between(&rng, MIN_SIZE, MAX_SIZE), tag_of(slot));
    }
    c->rng = rng;
    if (--c->generations == 0)
        bench_check(sem_post(c->ended) == 0, "sem_post");
    else
        bench_check(pthread_detach(bench_start(serve, c)) == 0, "pthread_detach");
    return NULL;
}

int main(int argc, char **argv)
{
    static struct connection connections[BENCH_MAX_THREADS];
    uint64_t work = bench_work(argc, argv, 12000000) / GENERATIONS + 1;
    unsigned n = bench_thread_count();
    sem_t ended;
    bench_check(sem_init(&ended, 0, 0) == 0, "sem_init");
    for (unsigned t = 0; t < n; t++) {
        struct connection *c = &connections[t];
        *c = (struct connection){.rng = bench_rng_for(t), .replacements = work, .generations = GENERATIONS, .ended = &ended};
        for (uint32_t i = 0; i < BLOCKS; i++)
            c->blocks[i] = bench_block(bench_between(&c->rng, MIN_SIZE, MAX_SIZE), tag_of(i));
    }
    for (unsigned t = 0; t < n; t++)
        bench_check(pthread_detach(bench_start(serve, &connections[t])) == 0, "pthread_detach");
    for (unsigned t = 0; t < n; t++)
        while (sem_wait(&ended) != 0)
            bench_check(errno == EINTR, "sem_wait");
    for (unsigned t = 0; t < n; t++)
        for (uint32_t i = 0; i < BLOCKS; i++)
            bench_free(connections[t].blocks[i], tag_of(i));
    return 0;
}
