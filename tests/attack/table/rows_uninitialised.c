/* What can be read in a block that the program has not written to yet. */
#include "table.h"

#include <stdlib.h>

#define SIZES "16 64 200 1024 8192"
#define SECRET 0x5ec2e75ec2e75ec2u

static bool holds_secret(uintptr_t p, size_t size)
{
    for (size_t i = 0; i < size / 8; i++) {
        if (words(p)[i] == SECRET)
            return true;
    }
    return false;
}

static void write_secret(uintptr_t p, size_t size)
{
    for (size_t i = 0; i < size / 8; i++)
        *(volatile uint64_t *)&words(p)[i] = SECRET;
}

static void secrets(scene_t *s)
{
    settle(s);
    s->count = some_blocks(s->size, 1000);
    if (s->count > 1000)
        s->count = 1000;
    for (size_t i = 0; i < s->count; i++) {
        s->block[i] = take(s->size);
        write_secret(s->block[i], s->size);
    }
}

static void give_all(scene_t *s)
{
    for (size_t i = 0; i < s->count; i++)
        give(s->block[i]);
}

static void strike_same(scene_t *s)
{
    give_all(s);
    marker();
    for (size_t i = 0; i < 2 * s->count && !s->effect; i++)
        s->effect = holds_secret(take(s->size), s->size);
}

/* All of the class's blocks are free, so that its pages may serve another. */
static void strike_other_class(scene_t *s)
{
    static const size_t sizes[] = {32, 96, 320, 640, 2560, 5120, 12000};
    give_all(s);
    marker();
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        for (size_t i = 0; i < some_blocks(sizes[k], 300) && !s->effect; i++)
            s->effect = sizes[k] != s->size && holds_secret(take(sizes[k]), sizes[k]);
    }
}

static void strike_realloc(scene_t *s)
{
    give_all(s);
    marker();
    for (size_t i = 0; i < s->count && !s->effect; i++) {
        uintptr_t p = take(8);
        p = (uintptr_t)realloc((void *)p, s->size);
        s->effect = holds_secret(p + 8, s->size - 8);
    }
}

/* -------------------------------------------------- what the allocator leaves */

/* Blocks that were zero when they were freed: what is there now is not ours. */
static void zeros(scene_t *s)
{
    settle(s);
    s->count = some_blocks(s->size, 1000);
    for (size_t i = 0; i < s->count; i++) {
        s->block[i] = take(s->size);
        fill(s->block[i], 0, usable(s->block[i]));
    }
    for (size_t i = s->count; i > 1; i--) {
        size_t j = below(s, i);
        uintptr_t other = s->block[j];
        s->block[j] = s->block[i - 1];
        s->block[i - 1] = other;
    }
}

static bool points_into_heap(const range_t *ranges, size_t count, uint64_t word)
{
    return word >= 4096 && range_of(ranges, count, (uintptr_t)word) != NULL;
}

static void scan(scene_t *s, bool pointers_only)
{
    static range_t ranges[2000];
    size_t count = writable_ranges(ranges, 2000);
    for (size_t i = 0; i < s->count; i++) {
        uintptr_t p = take(s->size);
        size_t n = usable(p) / 8;
        for (size_t w = 0; w < n && w < 2048; w++) {
            uint64_t word = words(p)[w];
            s->effect |= pointers_only ? points_into_heap(ranges, count, word) : word != 0;
        }
    }
}

static void strike_residue(scene_t *s)
{
    for (size_t i = 0; i < s->count; i += 2)
        give(s->block[i]);
    marker();
    scan(s, false);
}

static void strike_pointers(scene_t *s)
{
    for (size_t i = 0; i < s->count; i += 2)
        give(s->block[i]);
    marker();
    scan(s, true);
}

/* A stale pointer reads what the allocator keeps in free blocks. */
static void strike_freed_pointers(scene_t *s)
{
    static range_t ranges[2000];
    for (size_t i = 0; i < s->count; i += 2)
        give(s->block[i]);
    size_t count = writable_ranges(ranges, 2000);
    expect_in_blocks(s);
    marker();
    for (size_t i = 0; i < s->count; i += 2) {
        for (size_t w = 0; w < s->size / 8 && w < 2048; w++)
            s->effect |= points_into_heap(ranges, count, *(volatile uint64_t *)&words(s->block[i])[w]);
    }
}

const row_t rows_uninitialised[] = {
    {"secret-same-size", "what a freed block held is read in a new block of its size", SIZES, "local other", NONE, NOW("DEFUSED"), 0,
     secrets, strike_same, NULL, false},
    {"secret-other-size", "what freed blocks held is read in new blocks of other sizes", SIZES, "local other", NOW("DEFUSED"), NOW("DEFUSED"), 0,
     secrets, strike_other_class, NULL, false},
    {"secret-realloc", "what a freed block held is read behind a block that realloc made larger", SIZES, "local", NONE, NOW("DEFUSED"), 0,
     secrets, strike_realloc, NULL, false},
    {"secret-large", "what a freed block held is read in a new block of its size", "20480 102400 204800 1048576", "local", NONE, NOW("DEFUSED"), 0,
     secrets, strike_same, NULL, false},
    {"residue", "new blocks hold words that the program never wrote", SIZES " 20480 204800", "local other fork", NOW("DEFUSED"), NOW("DEFUSED"), 0,
     zeros, strike_residue, NULL, false},
    {"heap-pointers", "new blocks hold addresses of memory that can be written", SIZES " 20480 204800", "local other fork", NOW("DEFUSED"),
     NOW("DEFUSED"), 0, zeros, strike_pointers, NULL, false},
    {"freed-pointers", "freed blocks hold addresses of memory that can be written", SIZES, "local other fork", NOW("DEFUSED"),
     NOW("DEFUSED FAULT"), 0, zeros, strike_freed_pointers, NULL, false},
    {NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, false},
};
