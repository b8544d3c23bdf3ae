/* Limited address space: what large blocks can be had does not shrink after many
 * of them were freed, whose addresses the allocator keeps out of use for a while.
 * That these are let go before NULL is returned is shown by the unit test. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define LIMIT (256 * MIB)
#define MOST 512
#define ROUNDS 6

static size_t obtainable(void)
{
    static void *held[MOST];
    size_t n = 0;
    while (n < MOST && (held[n] = malloc(MIB)) != NULL)
        n++;
    for (size_t i = 0; i < n; i++)
        free(held[i]);
    return n;
}

static void churn(void)
{
    for (size_t i = 0; i < 3000; i++) {
        size_t size = (600 + i * 37 % 9000) * KIB;
        char *p = malloc(size);
        if (p == NULL) {
            printf("FAIL no block of %zu bytes when nothing is live\n", size);
            exit(1);
        }
        p[0] = p[size - 1] = 1;
        free(p);
    }
}

int main(int argc, char **argv)
{
    (void)argc;
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) != 0)
        return 2;
    if (limit.rlim_cur != LIMIT) { /* it counts from the start on */
        limit.rlim_cur = LIMIT;
        if (setrlimit(RLIMIT_AS, &limit) != 0)
            return 77;
        execv("/proc/self/exe", argv);
        return 2;
    }
    size_t first = obtainable(), least = first;
    for (int i = 0; i < ROUNDS; i++) {
        churn();
        size_t now = obtainable();
        least = now < least ? now : least;
    }
    printf("%s blocks of 1 MiB under a limit of 256 MiB: %zu at first, at least %zu later\n", least * 10 >= first * 8 ? "ok" : "FAIL",
           first, least);
    return least * 10 >= first * 8 ? 0 : 1;
}
