/* What it costs to make freed large blocks inaccessible: kernel calls over
 * memory that was touched, in microseconds, the least of ROUNDS each. Prints a
 * table; trap_from and hardening-docs/large-blocks.md rest on it.
 *
 *   dontneed     MADV_DONTNEED: memory returned, still accessible
 *   install      MADV_GUARD_INSTALL: memory returned and inaccessible
 *   remove       MADV_GUARD_REMOVE before the next use
 *   prot-none    a fresh mapping without access in its place
 *   mprotect     opening that again
 *   touch        the page faults of the next use: what "returned" costs later
 *   warm         touching memory that was kept */
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>

#define ROUNDS 40
#define OS_PAGE 4096
#define INSTALL 102
#define REMOVE 103

static double now_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static void touch(char *p, size_t size)
{
    for (size_t i = 0; i < size; i += OS_PAGE)
        ((volatile char *)p)[i] = 1;
}

enum { DONTNEED_CALL, INSTALL_CALL, REMOVE_CALL, NONE_CALL, OPEN_CALL, TOUCH, WARM, STEPS };

static int step(int what, char *p, size_t size)
{
    int rw = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
    switch (what) {
    case DONTNEED_CALL: return madvise(p, size, MADV_DONTNEED);
    case INSTALL_CALL: return madvise(p, size, INSTALL);
    case REMOVE_CALL: return madvise(p, size, REMOVE);
    case NONE_CALL: return mmap(p, size, PROT_NONE, flags, -1, 0) == MAP_FAILED ? -1 : 0;
    case OPEN_CALL: return mprotect(p, size, rw);
    default: touch(p, size); return 0;
    }
}

int main(void)
{
    static const int order[] = {TOUCH, WARM, DONTNEED_CALL, TOUCH, INSTALL_CALL, REMOVE_CALL, TOUCH, NONE_CALL, OPEN_CALL};
    printf("%10s %10s %10s %10s %10s %10s %10s %10s\n", "KiB", "dontneed", "install", "remove", "prot-none", "mprotect", "touch", "warm");
    for (size_t size = (size_t)128 << 10; size <= (size_t)64 << 20; size *= 2) {
        double least[STEPS];
        for (int i = 0; i < STEPS; i++)
            least[i] = -1;
        /* Guards left and right, so that the mapping neither merges nor is a huge page. */
        char *all = mmap(NULL, size + 2 * OS_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (all == MAP_FAILED || mprotect(all + OS_PAGE, size, PROT_READ | PROT_WRITE) != 0)
            return 1;
        for (int round = 0; round < ROUNDS; round++) {
            for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
                double from = now_us();
                int failed = step(order[i], all + OS_PAGE, size);
                double took = now_us() - from;
                if (failed == 0 && (least[order[i]] < 0 || took < least[order[i]]))
                    least[order[i]] = took;
            }
        }
        printf("%10zu", size >> 10);
        for (int i = 0; i < STEPS; i++)
            printf(" %10.1f", least[i]);
        printf("\n");
        munmap(all, size + 2 * OS_PAGE);
    }
    return 0;
}
