/* many_pages [MAPPINGS]: 4 GiB of 1 KiB blocks with a guard behind every page:
 * fewer than MAPPINGS mappings (1000 unless told), no failure, and the memory
 * goes back. Where guards cost mappings (guard=mprotect) the bound is the share
 * of vm.max_map_count that they may take. */
#include "support.h"

#include <malloc.h>
#include <stdlib.h>

#define BLOCK KIB
#define COUNT (4 * GIB / BLOCK)
#define MAPPINGS_BOUND ((size_t)1000)
#define MEMORY_NEEDED (6 * GIB)

/* Page descriptors may be 0.2 % of memory in use, the map two bytes a block, as much;
 * the bounds leave that much again. */
#define LIVE_RSS_BOUND (4 * GIB + 4 * GIB / 50)
#define FREED_RSS_BOUND (32 * MIB)

int main(int argc, char **argv)
{
    limits_begin();
    size_t bound = argc > 1 ? strtoull(argv[1], NULL, 10) : MAPPINGS_BOUND;
    if (limits_memory_available() < MEMORY_NEEDED)
        limits_skip("less than 6 GiB of memory available");
    void **blocks = limits_table(COUNT * sizeof *blocks);
    for (size_t i = 0; i < COUNT; i += limits_os_page() / sizeof *blocks)
        blocks[i] = blocks; /* resident before the first figure */
    size_t rss_start = limits_rss();
    size_t maps_start = limits_mappings();

    for (size_t i = 0; i < COUNT; i++) {
        blocks[i] = malloc(BLOCK);
        if (blocks[i] == NULL) {
            limits_result(false, "many-pages: malloc failed after %zu MiB (bound 4096 MiB)",
                          i * BLOCK / MIB);
            return limits_end();
        }
    }
    size_t maps = limits_mappings();
    size_t rss_live = limits_rss() - rss_start;
    limits_result(maps < bound, "many-pages: %zu mappings, %zu at start (bound < %zu)", maps,
                  maps_start, bound);
    limits_result(rss_live <= LIVE_RSS_BOUND, "many-pages-rss: %zu MiB live (bound %zu MiB)",
                  rss_live / MIB, LIVE_RSS_BOUND / MIB);

    for (size_t i = 0; i < COUNT; i++)
        free(blocks[i]);
    size_t rss_freed = limits_rss() - rss_start;
    malloc_trim(0);
    size_t rss_now = limits_rss();
    size_t rss_trimmed = rss_now > rss_start ? rss_now - rss_start : 0;
    limits_result(rss_trimmed <= FREED_RSS_BOUND,
                  "many-pages-freed: %zu KiB after free and malloc_trim, %zu KiB before it "
                  "(bound %zu KiB)",
                  rss_trimmed / KIB, rss_freed / KIB, FREED_RSS_BOUND / KIB);
    return limits_end();
}
