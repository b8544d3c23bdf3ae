/* Exactly N times malloc and free of 64 bytes, or the same loop without them:
 * what bench/instructions.sh counts. Some blocks of the size stay alive: where
 * the last block of a page goes with each free, other things are counted. */
#include "common.h"

enum { SIZE = 64, NEIGHBOURS = 10 };

int main(int argc, char **argv)
{
    static unsigned char still[SIZE];
    bench_check(argc == 3, "usage: pair_count malloc|nothing N");
    uint64_t n = strtoull(argv[2], NULL, 10);
    unsigned char *volatile kept;
    if (strcmp(argv[1], "malloc") == 0) {
        unsigned char *neighbours[NEIGHBOURS];
        for (unsigned i = 0; i < NEIGHBOURS; i++)
            neighbours[i] = bench_block(SIZE, 2);
        for (uint64_t i = 0; i < n; i++) {
            kept = malloc(SIZE);
            kept[0] = 1;
            free(kept);
        }
        for (unsigned i = 0; i < NEIGHBOURS; i++)
            bench_free(neighbours[i], 2);
    } else {
        for (uint64_t i = 0; i < n; i++) {
            kept = still;
            kept[0] = 1;
            (void)kept;
        }
    }
    return 0;
}
