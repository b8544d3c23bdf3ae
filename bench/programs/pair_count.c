/* Exactly N times malloc and free of 64 bytes, or the same loop without them:
 * what bench/instructions.sh counts. */
#include "common.h"

int main(int argc, char **argv)
{
    static unsigned char still[64];
    bench_check(argc == 3, "usage: pair_count malloc|nothing N");
    uint64_t n = strtoull(argv[2], NULL, 10);
    unsigned char *volatile kept;
    if (strcmp(argv[1], "malloc") == 0) {
        for (uint64_t i = 0; i < n; i++) {
            kept = malloc(64);
            kept[0] = 1;
            free(kept);
        }
    } else {
        for (uint64_t i = 0; i < n; i++) {
            kept = still;
            kept[0] = 1;
            (void)kept;
        }
    }
    return 0;
}
