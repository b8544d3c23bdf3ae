/* After malloc-large of mimalloc-bench: blocks of 5 to 25 MiB, eight of them alive,
 * each filled and summed up once. Some half of the time are writes and reads of the
 * memory, most of the rest page faults where it was returned. */
#include "common.h"

enum { ALIVE = 8, MIN_SIZE = 5 << 20, MAX_SIZE = 25 << 20 };

struct large {
    uint64_t *words;
    size_t count;
    uint64_t first;
};

static void fill(struct large *large, struct bench_rng *rng)
{
    size_t size = bench_between(rng, MIN_SIZE, MAX_SIZE);
    large->words = malloc(size);
    bench_check(large->words != NULL, "malloc");
    large->count = size / sizeof large->words[0];
    large->first = bench_next(rng);
    for (size_t i = 0; i < large->count; i++)
        large->words[i] = large->first + i;
}

static void end(struct large *large)
{
    uint64_t sum = 0, n = large->count;
    for (size_t i = 0; i < n; i++)
        sum += large->words[i];
    /* Of n and n - 1 one is even. */
    uint64_t pairs = n % 2 == 0 ? n / 2 * (n - 1) : (n - 1) / 2 * n;
    bench_check(sum == n * large->first + pairs, "a block has changed");
    free(large->words);
}

int main(int argc, char **argv)
{
    struct large alive[ALIVE] = {{NULL, 0, 0}};
    struct bench_rng rng = bench_rng_for(0);
    for (uint64_t work = bench_work(argc, argv, 60); work > 0; work--) {
        struct large *place = &alive[bench_below(&rng, ALIVE)];
        if (place->words != NULL)
            end(place);
        fill(place, &rng);
    }
    for (unsigned i = 0; i < ALIVE; i++)
        if (alive[i].words != NULL)
            end(&alive[i]);
    return 0;
}
