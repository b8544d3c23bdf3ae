/* Exactly N times what a mechanism does in a malloc and free, or the same loop
 * without it: what count_harden.sh counts. Sizes come from volatile variables,
 * as the core reads them from memory. */
#include "bulkhead.h"
#include "harden/canary.h"
#include "harden/wipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned char memory[2048] BH_ALIGNED(64);
static volatile size_t size, slack;
static volatile uint64_t place = 64;
static uint64_t key = 0x243f6a8885a308d3;
static size_t failed;

static inline void nothing(uintptr_t block, size_t requested, size_t bytes, uint64_t at)
{
    __asm__ volatile("" ::"r"(block), "r"(requested), "r"(bytes), "r"(at) : "memory");
}

static inline void canary(uintptr_t block, size_t requested, size_t bytes, uint64_t at)
{
    bhi_canary_write_new(block, requested, bytes, key, at);
    __asm__ volatile("" ::: "memory");
    failed += bhi_canary_check(block, requested, bytes, key, at) != BH_CANARY_INTACT;
}

static inline void wipe(uintptr_t block, size_t requested, size_t bytes, uint64_t at)
{
    (void)requested, (void)at;
    bhi_wipe_own(block, bytes);
    __asm__ volatile("" ::: "memory");
    failed += bhi_wipe_check(block, bytes) != BH_WIPE_CLEAN;
}

#define REPEAT(what) \
    for (uint64_t i = 0; i < n; i++) { \
        size_t bytes = size; \
        what((uintptr_t)memory, bytes - slack, bytes, place); \
    }

int main(int argc, char **argv)
{
    if (argc != 5) {
        fputs("usage: count_harden nothing|canary|wipe SIZE SLACK N\n", stderr);
        return 2;
    }
    size = strtoull(argv[2], NULL, 10);
    slack = strtoull(argv[3], NULL, 10);
    uint64_t n = strtoull(argv[4], NULL, 10);
    if (size % 8 != 0 || size > sizeof memory || slack > size || bh_malloc(1) == NULL)
        return 2;
    if (strcmp(argv[1], "nothing") == 0) {
        REPEAT(nothing)
    } else if (strcmp(argv[1], "canary") == 0) {
        REPEAT(canary)
    } else if (strcmp(argv[1], "wipe") == 0) {
        REPEAT(wipe)
    } else {
        return 2;
    }
    return failed == 0 ? 0 : 1;
}
