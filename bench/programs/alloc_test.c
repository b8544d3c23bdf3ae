/* After alloc-test of node-dec: each thread allocates blocks of random sizes, most of
 * them small, and each lives for a time drawn from a heavy-tailed distribution: half
 * die soon, while a few stay for most of the run. Some 30,000 live in each thread.
 * Most of the time are misses of the caches, in blocks and in the allocator's data. */
#include "common.h"

enum { TABLE = 1 << 14, AGES = 1 << 17, MIN_AGE = 8000 };

struct block {
    struct block *next; /* that dies at the same time */
    uint32_t size;
    unsigned char bytes[];
};

struct worker {
    struct bench_rng rng;
    uint64_t blocks;
    struct block *dying[AGES]; /* by the time of their end */
};

static uint32_t sizes[TABLE], ages[TABLE];

/* Ages are as frequent as the inverse of their square, up to AGES; sizes too, above 16. */
static void fill_tables(void)
{
    struct bench_rng rng = bench_rng_for(1000);
    for (unsigned i = 0; i < TABLE; i++) {
        double random = ((double)bench_next(&rng) + 1) / 4294967296.0;
        double age = MIN_AGE / random, size = 16 / (((double)bench_next(&rng) + 1) / 4294967296.0);
        ages[i] = age < AGES - 1 ? (uint32_t)age : AGES - 1;
        sizes[i] = (uint32_t)sizeof(struct block) + (size < 8192 ? (uint32_t)size : 8192);
    }
}

/* Without a size afterwards, so that a block that was handed out twice ends once. */
static void end(struct block *block)
{
    while (block != NULL) {
        struct block *next = block->next;
        bench_check(block->size != 0, "a block ends twice");
        bench_check(block->bytes[0] == (unsigned char)block->size, "a block has changed");
        block->size = 0;
        free(block);
        block = next;
    }
}

static void *work(void *argument)
{
    struct worker *w = argument;
    for (uint64_t now = 0; now < w->blocks; now++) {
        end(w->dying[now % AGES]);
        w->dying[now % AGES] = NULL;
        uint32_t random = bench_next(&w->rng), size = sizes[random % TABLE];
        struct block *block = malloc(size);
        bench_check(block != NULL, "malloc");
        struct block **list = &w->dying[(now + ages[random / (UINT32_MAX / TABLE + 1)]) % AGES];
        block->next = *list;
        block->size = size;
        block->bytes[0] = (unsigned char)size;
        *list = block;
    }
    for (unsigned i = 0; i < AGES; i++)
        end(w->dying[i]);
    return NULL;
}

int main(int argc, char **argv)
{
    static struct worker workers[BENCH_MAX_THREADS];
    uint64_t blocks = bench_work(argc, argv, 9000000);
    unsigned n = bench_thread_count();
    fill_tables();
    for (unsigned t = 0; t < n; t++) {
        workers[t].rng = bench_rng_for(t);
        workers[t].blocks = blocks;
    }
    bench_run_threads(n, work, workers, sizeof workers[0]);
    return 0;
}
