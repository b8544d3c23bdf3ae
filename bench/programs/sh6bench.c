/* After MicroQuill's sh6bench: batches of blocks of mixed sizes, fewer of the large
 * ones, freed in orders that lists do not like: as allocated, from the end, every
 * second one and then the others, from the middle. Some batches live longer than
 * those after them. Two thirds of the time are calls, over blocks that are in the caches. */
#include "batches.h"

enum { KEPT = 12 };

int main(int argc, char **argv)
{
    static struct batch batches[KEPT];
    struct bench_rng rng = bench_rng_for(0);
    for (uint64_t work = bench_work(argc, argv, 110000); work > 0; work--) {
        /* The first half is replaced seven times as often as the second. */
        uint32_t place = bench_below(&rng, KEPT / 2) + (bench_below(&rng, 8) == 0 ? KEPT / 2 : 0);
        free_batch(&batches[place], bench_below(&rng, ORDERS));
        fill_batch(&batches[place], &rng);
    }
    for (unsigned i = 0; i < KEPT; i++)
        free_batch(&batches[i], FORWARD);
    return 0;
}
