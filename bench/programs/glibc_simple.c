/* After glibc's bench-malloc-simple: one thread, blocks of one size, as many
 * allocated as an array holds, then all freed; half of them in the order of
 * allocation and half in reverse. Small arrays and large ones take turns. */
#include "common.h"

enum { SIZE = 128, LARGEST = 1600 };

static const unsigned lengths[] = {25, 100, 400, LARGEST};

static void fill_and_empty(unsigned char **blocks, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        blocks[i] = bench_block(SIZE, (unsigned char)i);
    for (unsigned i = 0; i < n / 2; i++)
        bench_free(blocks[i], (unsigned char)i);
    for (unsigned i = n; i-- > n / 2;)
        bench_free(blocks[i], (unsigned char)i);
}

int main(int argc, char **argv)
{
    static unsigned char *blocks[LARGEST];
    const unsigned kinds = sizeof lengths / sizeof lengths[0];
    /* Each length gets the same number of blocks. */
    uint64_t blocks_each = bench_work(argc, argv, 30000000) / kinds;
    for (uint64_t done = 0; done < blocks_each; done += LARGEST)
        for (unsigned kind = 0; kind < kinds; kind++)
            for (unsigned n = 0; n < LARGEST; n += lengths[kind])
                fill_and_empty(blocks, lengths[kind]);
    return 0;
}
