/* What Bulkhead's own data cost beside full pages of blocks: descriptors about
 * 0.2 % of the memory in use, as much for the lists of pages of one slot, the
 * allocation map two bytes a block on top, and for each place behind the last one in
 * a slot where one could start, by 64 of them. Every block is written from end to
 * end, so that whatever else becomes resident is the allocator's. */
#include "support.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define TOTAL (128 * MIB)
#define SLOT 65536.0
#define DESCRIPTOR 128.0 /* bytes a slot */
#define LIST (64 * 2.0) /* bytes a page: 64 entries of 16 bits */
#define WORD 64 /* places, of two bytes each */
/* Control data are opened in OS pages, and pages with their last block short of the guard leave a part unused. */
#define ROUNDING 0.0015

/* Of the blocks' bytes. A span is 1, 4 or 8 slots for blocks up to 8, 32 and 128
 * KiB, and holds what fits before its last OS page. */
static double control_data(size_t size)
{
    unsigned slots = size <= 8192 ? 1 : size <= 32768 ? 4 : 8;
    unsigned blocks = (unsigned)((slots * SLOT - 4096.0) / (double)size);
    unsigned places = size <= 8192 ? (unsigned)((size_t)SLOT / size) : blocks, words = (places + WORD - 1) / WORD;
    return (slots * DESCRIPTOR + LIST + 2.0 * WORD * words) / (blocks * (double)size);
}

static int measure(size_t size)
{
    size_t count = TOTAL / size;
    void **blocks = limits_table(count * sizeof *blocks);
    memset(blocks, 1, count * sizeof *blocks);
    /* A forked child maps its code anew as it first runs; not a cost of blocks. */
    free(malloc(size));
    limits_rss();
    size_t start = limits_rss();
    for (size_t i = 0; i < count; i++) {
        blocks[i] = malloc(size);
        if (blocks[i] == NULL)
            limits_broken("no memory");
        memset(blocks[i], 1, size);
    }
    size_t growth = limits_rss() - start;
    double overhead = (double)growth / (double)(count * size) - 1.0;
    double bound = control_data(size) + ROUNDING;
    limits_result(overhead <= bound && overhead > 0, "control-data: %zu B blocks, %zu MiB: %.3f %% on top (bound %.3f %%)",
                  size, TOTAL / MIB, overhead * 100.0, bound * 100.0);
    return limits_end();
}

int main(void)
{
    static const size_t sizes[] = {8, 16, 32, 64, 256, 1024, 4096, 8192, 16384, 65536, 131072};
    limits_begin();
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        /* Each size in a process without memory to use again. */
        pid_t child = fork();
        if (child == 0)
            _exit(measure(sizes[s]));
        int status;
        if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status))
            limits_broken("a child did not end");
        if (WEXITSTATUS(status) != 0)
            limits_result(false, "control-data: %zu B blocks", sizes[s]);
    }
    return limits_end();
}
