/* persistent [ITERATIONS]: a target in persistent mode, ITERATIONS inputs (60,000 unless
 * told), each of some allocations of all sizes and a buffer that grows. Once every slot
 * has been used, memory and mappings stay. */
#include "support.h"

#include <stdlib.h>
#include <string.h>

#define ITERATIONS ((size_t)60000)
#define RSS_BOUND (4 * MIB)
#define MAPPINGS_BOUND ((size_t)20)

static unsigned long state = 1;

static size_t below(size_t bound)
{
    state = state * 6364136223846793005ul + 1442695040888963407ul;
    return (size_t)(state >> 33) % bound;
}

/* As a parser does: nodes, a buffer that grows, and all of it freed at the end. */
static void one_input(void)
{
    char *nodes[8], *buffer = NULL;
    for (size_t i = 0; i < 8; i++) {
        nodes[i] = malloc(1 + below(below(20) == 0 ? 200000 : 2000));
        nodes[i][0] = 1;
        buffer = realloc(buffer, (size_t)64 << i);
        memset(buffer, 2, 64);
    }
    for (size_t i = 0; i < 8; i++)
        free(nodes[i]);
    free(buffer);
}

int main(int argc, char **argv)
{
    limits_begin();
    size_t n = argc > 1 ? strtoull(argv[1], NULL, 10) : ITERATIONS;
    for (size_t i = 0; i < n / 3; i++)
        one_input();
    size_t rss = limits_rss(), maps = limits_mappings();
    for (size_t i = 0; i < n; i++)
        one_input();
    size_t rss_after = limits_rss(), maps_after = limits_mappings();
    limits_result(rss_after <= rss + RSS_BOUND, "persistent-rss: %zu KiB after %zu inputs, %zu KiB after %zu more", rss / 1024, n / 3,
                  rss_after / 1024, n);
    limits_result(maps_after <= maps + MAPPINGS_BOUND, "persistent-mappings: %zu, then %zu", maps, maps_after);
    return limits_end();
}
