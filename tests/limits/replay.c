/* replay INPUT: what a fuzzer's target does with the input INPUT, a number: allocations,
 * reallocations and frees, each place printed, and for some inputs a bug at the end.
 * replay.sh runs it again and again. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEPT 200
#define STEPS 3000

static uint64_t state;

static size_t below(size_t bound)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (size_t)(state >> 33) % bound;
}

int main(int argc, char **argv)
{
    unsigned input = argc > 1 ? (unsigned)atoi(argv[1]) : 0;
    static char *kept[KEPT];
    static size_t sizes[KEPT];
    uint64_t sum = 0;
    state = input;
    for (unsigned i = 0; i < STEPS; i++) {
        size_t k = below(KEPT), size = 1 + below(i % 50 == 0 ? 300000 : 3000);
        if (below(2) == 0) {
            free(kept[k]);
            kept[k] = malloc(size);
        } else {
            kept[k] = realloc(kept[k], size);
        }
        sizes[k] = size;
        sum = (sum ^ (uintptr_t)kept[k]) * 0x9e3779b97f4a7c15u;
    }
    printf("%016llx\n", (unsigned long long)sum);
    fflush(stdout);
    size_t k = below(KEPT);
    for (; kept[k] == NULL; k = (k + 1) % KEPT)
        ;
    volatile char *p = kept[k];
    size_t wrong = sizes[k] + below(64);
    switch (input % 5) {
    case 1: p[wrong] = 1; break;
    case 2: free(kept[k]); (void)p[sizes[k] / 2]; break;
    case 3: free(kept[k]); p[sizes[k] / 2] = 1; break;
    case 4: free(kept[k]); break;
    default: kept[k] = NULL; break;
    }
    free(kept[k]);
    return 0;
}
