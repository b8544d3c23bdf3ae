/* One live block of each size class, then a hundred: how much memory becomes
 * resident. Every block is written from end to end, so what was asked for
 * counts in full; the bound is on what comes on top. */
#include "support.h"

#include <stdlib.h>
#include <string.h>

#define PER_CLASS (16 * KIB)
#define PER_PROCESS (256 * KIB)
#define MANY 100

static size_t round_up(size_t n, size_t unit)
{
    return (n + unit - 1) / unit * unit;
}

int main(void)
{
    static size_t classes[LIMITS_CLASSES_MAX];
    static void *blocks[LIMITS_CLASSES_MAX][MANY];
    limits_begin();
    memset(blocks, 1, sizeof blocks);
    size_t count = limits_classes(classes);
    size_t page = limits_os_page();
    size_t start = limits_rss();
    size_t live = 0;
    const size_t steps[] = {1, MANY};
    for (size_t step = 0; step < 2; step++) {
        for (; live < steps[step]; live++)
            for (size_t c = 0; c < count; c++) {
                blocks[c][live] = malloc(classes[c]);
                if (blocks[c][live] == NULL)
                    limits_broken("no memory");
                memset(blocks[c][live], 1, classes[c]);
            }
        size_t growth = limits_rss() - start;
        size_t bound = PER_PROCESS;
        size_t asked = 0;
        for (size_t c = 0; c < count; c++) {
            asked += live * classes[c];
            bound += round_up(live * classes[c], page) + PER_CLASS;
        }
        limits_result(growth <= bound,
                      "small-rss: %zu live of each of %zu classes, %zu KiB asked for: %zu KiB "
                      "resident (bound %zu KiB)",
                      live, count, asked / KIB, growth / KIB, bound / KIB);
    }
    for (size_t c = 0; c < count; c++)
        for (size_t i = 0; i < MANY; i++)
            free(blocks[c][i]);
    return limits_end();
}
