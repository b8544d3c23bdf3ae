/* mlockall: guards and MADV_DONTNEED are refused then, so memory that is given
 * up keeps its contents. calloc must be zero all the same. */
#include "support.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Locked memory is resident as soon as it is opened: what is allowed is every
 * class's span at once, and the largest block twice. */
#define RSS_BOUND (64 * MIB)
#define LARGEST (8 * MIB)

/* mlockall touches whatever is accessible: tables that are readable as a whole
 * would cost it seconds and megabytes of page tables. */
#define PAGE_TABLE_BOUND (8 * MIB)
#define MLOCKALL_MS_BOUND 500
#define BATCH 8

static size_t dirty;
static size_t no_memory;

static void dirty_and_zero(size_t size)
{
    char *p[BATCH];
    size_t batch = size <= 64 * KIB ? BATCH : 1;
    for (size_t i = 0; i < batch; i++) {
        p[i] = malloc(size);
        if (p[i] == NULL)
            no_memory++;
        else
            memset(p[i], 0xA5, size);
    }
    for (size_t i = 0; i < batch; i++)
        free(p[i]);
    for (size_t i = 0; i < batch; i++) {
        p[i] = calloc(1, size);
        if (p[i] == NULL) {
            no_memory++;
            continue;
        }
        for (size_t b = 0; b < size; b++)
            if (p[i][b] != 0) {
                dirty++;
                break;
            }
        memset(p[i], 0x5A, size);
    }
    for (size_t i = 0; i < batch; i++)
        free(p[i]);
}

int main(void)
{
    size_t blocks = 0;
    limits_begin();
    free(malloc(100000));
    size_t tables_before = limits_status(0, "VmPTE");
    uint64_t start = limits_now_ns();
    if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0) {
        if (errno == EPERM || errno == ENOMEM)
            limits_skip("mlockall is not permitted here (RLIMIT_MEMLOCK)");
        limits_broken("mlockall: errno %d", errno);
    }
    uint64_t ms = (limits_now_ns() - start) / 1000000;
    size_t tables = limits_status(0, "VmPTE") - tables_before;
    limits_result(tables <= PAGE_TABLE_BOUND && ms <= MLOCKALL_MS_BOUND,
                  "mlock-cost: mlockall took %zu ms and %zu KiB of page tables (bound %d ms, %zu KiB)",
                  (size_t)ms, tables / KIB, MLOCKALL_MS_BOUND, PAGE_TABLE_BOUND / KIB);
    size_t before = limits_status(0, "VmRSS");
    size_t peak = before;
    for (int round = 0; round < 2; round++)
        for (size_t size = 8; size <= LARGEST; size += size < 128 ? 8 : size / 8) {
            dirty_and_zero(size);
            blocks++;
            size_t now = limits_status(0, "VmRSS");
            if (now > peak)
                peak = now;
        }
    limits_result(dirty == 0 && no_memory == 0,
                  "mlock: %zu calloc blocks not zero, %zu failed, of %zu sizes (bound 0)", dirty,
                  no_memory, blocks);
    limits_result(peak - before <= RSS_BOUND, "mlock-rss: %zu KiB growth (bound %zu KiB)",
                  (peak - before) / KIB, RSS_BOUND / KIB);
    return limits_end();
}
