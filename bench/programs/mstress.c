/* A stress load after the idea of mimalloc's: trees of objects of random sizes,
 * most of them small and a few large. Trees are kept for some time, and some go
 * through shared places to other threads, which free them. Threads end after
 * each round with trees still alive, and new ones start. */
#include "common.h"

enum { ROUNDS = 10, KEPT = 400, SHARED = 1000, MAX_NODES = 24 };

struct node {
    struct node *left, *right;
    uint32_t size;
    uint32_t check;
};

struct worker {
    struct bench_rng rng;
    uint64_t trees;
    struct node *kept[KEPT];
};

static _Atomic(struct node *) shared[SHARED];

static uint32_t pick_size(struct bench_rng *rng)
{
    uint32_t extra;
    uint32_t kind = bench_below(rng, 1000);
    if (kind < 900)
        extra = bench_below(rng, 200);
    else if (kind < 998)
        extra = bench_below(rng, 2000);
    else
        extra = bench_below(rng, 40000);
    return (uint32_t)sizeof(struct node) + extra;
}

/* A tree of `nodes` nodes, split at random, so that its depth stays small. */
static struct node *grow(struct bench_rng *rng, uint32_t nodes)
{
    if (nodes == 0)
        return NULL;
    uint32_t size = pick_size(rng);
    struct node *node = nodes % 8 == 1 ? calloc(1, size) : malloc(size);
    bench_check(node != NULL, "malloc");
    uint32_t left = bench_below(rng, nodes);
    node->size = size;
    node->check = ~size;
    if (size > sizeof *node)
        ((unsigned char *)node)[size - 1] = (unsigned char)size;
    node->left = grow(rng, left);
    node->right = grow(rng, nodes - 1 - left);
    return node;
}

static void fell(struct node *node)
{
    if (node == NULL)
        return;
    bench_check(node->check == ~node->size, "a node has changed");
    if (node->size > sizeof *node)
        bench_check(((unsigned char *)node)[node->size - 1] == (unsigned char)node->size, "the end of a node has changed");
    fell(node->left);
    fell(node->right);
    free(node);
}

static void *work(void *argument)
{
    struct worker *w = argument;
    struct bench_rng rng = w->rng;
    bool turns = bench_takes_turns();
    for (uint64_t i = 0; i < w->trees; i++) {
        bench_step(turns, i * 16); /* trees */
        struct node **place = &w->kept[bench_below(&rng, KEPT)];
        fell(*place);
        *place = grow(&rng, bench_between(&rng, 1, MAX_NODES));
        if (bench_below(&rng, 4) == 0)
            *place = atomic_exchange(&shared[bench_below(&rng, SHARED)], *place);
    }
    w->rng = rng;
    return NULL;
}

int main(int argc, char **argv)
{
    static struct worker workers[BENCH_MAX_THREADS];
    uint64_t trees = bench_work(argc, argv, 300000) / ROUNDS + 1;
    unsigned n = bench_thread_count();
    for (unsigned t = 0; t < n; t++)
        workers[t] = (struct worker){.rng = bench_rng_for(t), .trees = trees};
    for (unsigned round = 0; round < ROUNDS; round++) {
        bench_run_threads(n, work, workers, sizeof workers[0]);
        /* Half of what was kept dies between the rounds, here in main. */
        for (unsigned i = 0; i < KEPT; i += 2) {
            fell(workers[round % n].kept[i]);
            workers[round % n].kept[i] = NULL;
        }
    }
    for (unsigned t = 0; t < n; t++)
        for (unsigned i = 0; i < KEPT; i++)
            fell(workers[t].kept[i]);
    for (unsigned i = 0; i < SHARED; i++)
        fell(atomic_load(&shared[i]));
    return 0;
}
