/* What becomes of freed memory: how soon it comes back, as what, and whether a
 * stale pointer still reaches it. */
#include "table.h"

#include <stdlib.h>

#define SMALL "8 16 24 64 200 256"
#define CLASSES "16 24 64 200 256 1024 4096 8192"
#define SECRET 0x5ec2e75ec2e75ec2u

static void many_blocks(scene_t *s)
{
    settle(s);
    take_many(s, some_blocks(s->size, 200));
}

/* ------------------------------------------------------------------ how soon */

#define TRIALS 100

static void strike_soon(scene_t *s)
{
    unsigned long hits = 0;
    size_t next = (size_t)s->variant;
    uintptr_t others[64];
    marker();
    for (unsigned t = 0; t < TRIALS; t++) {
        uintptr_t p = take(s->size);
        bool back = false;
        give(p);
        for (size_t i = 0; i < next; i++) {
            others[i] = take(s->size);
            back |= others[i] == p;
        }
        hits += back;
        for (size_t i = 0; i < next; i++)
            give(others[i]);
    }
    tally(hits, TRIALS);
}

/* In a heap without other holes. */
static void strike_hole(scene_t *s)
{
    unsigned long hits = 0;
    marker();
    for (unsigned t = 0; t < TRIALS; t++) {
        size_t i = below(s, s->count);
        uintptr_t hole = s->block[i];
        give(hole);
        s->block[i] = take(s->size);
        hits += s->block[i] == hole;
    }
    tally(hits, TRIALS);
}

/* The block that realloc moved away from. */
static void strike_moved(scene_t *s)
{
    unsigned long hits = 0;
    marker();
    for (unsigned t = 0; t < TRIALS; t++) {
        uintptr_t p = take(s->size);
        void *moved = realloc((void *)p, 4 * s->size);
        uintptr_t next = take(s->size);
        hits += next == p && (uintptr_t)moved != p;
        give((uintptr_t)moved);
        give(next);
    }
    tally(hits, TRIALS);
}

/* -------------------------------------------------------------------- as what */

static void victims_among_others(scene_t *s)
{
    settle(s);
    take_many(s, 1000);
}

/* One in ten of the blocks is freed; then blocks of all other sizes are taken. */
static void strike_confusion(scene_t *s)
{
    static const size_t sizes[] = {16, 32, 48, 96, 128, 160, 320, 640, 1280, 2560, 5120};
    marker();
    for (size_t i = 0; i < s->count; i += 10) {
        protect(s->block[i], s->size);
        give(s->block[i]);
    }
    for (unsigned round = 0; round < 50 && !s->effect; round++) {
        size_t size = sizes[below(s, sizeof sizes / sizeof sizes[0])];
        /* The class itself may use them again. */
        if (size > 2 * s->size || 2 * size < s->size)
            s->effect = reissue(size, 100);
    }
}

/* ------------------------------------------------------------------ stale use */

static void one_large(scene_t *s)
{
    settle(s);
    take_many(s, 3);
    for (size_t i = 0; i < s->size / 8; i += 64)
        words(s->at)[i] = SECRET;
}

static void strike_large_read(scene_t *s)
{
    give(s->at);
    expect_fault(s->at, s->at + s->reach);
    marker();
    for (size_t i = 0; i < s->size / 8; i += 64)
        s->effect |= *(volatile uint64_t *)&words(s->at)[i] == SECRET;
}

static void strike_large_write(scene_t *s)
{
    give(s->at);
    expect_fault(s->at, s->at + s->reach);
    marker();
    size_t offset = below(s, s->size / 8);
    *(volatile uint64_t *)&words(s->at)[offset] = SECRET;
    s->effect = true;
}

static void strike_read(scene_t *s)
{
    for (size_t i = 0; i < s->size / 8; i++)
        words(s->at)[i] = SECRET;
    give(s->at);
    expect_fault(s->at, s->at + s->reach);
    marker();
    for (size_t i = 0; i < s->size / 8; i++)
        s->effect |= *(volatile uint64_t *)&words(s->at)[i] == SECRET;
}

enum { AT_START, AT_8, AT_MIDDLE, AT_LAST };

static size_t offset_of(const scene_t *s)
{
    switch (s->variant) {
    case AT_8: return 8;
    case AT_MIDDLE: return s->size / 2;
    case AT_LAST: return s->size - 1;
    default: return 0;
    }
}

/* One byte, then enough allocations that the block comes up again, then exit. */
static void strike_write(scene_t *s)
{
    for (size_t i = 0; i < s->count; i += 2) {
        if (s->block[i] != s->at)
            give(s->block[i]);
    }
    give(s->at);
    expect_fault(s->at, s->at + s->reach);
    marker();
    volatile unsigned char *byte = bytes(s->at) + offset_of(s);
    *byte ^= 0x5a;
    expect_no_fault();
    for (size_t i = 0; i < some_blocks(s->size, 4000); i++)
        take(s->size);
    s->effect = true;
}

/* The same with nothing that would bring the block up again. */
static void strike_write_exit(scene_t *s)
{
    give(s->at);
    expect_fault(s->at, s->at + s->reach);
    marker();
    volatile unsigned char *byte = bytes(s->at) + s->size / 2;
    *byte ^= 0x5a;
    expect_no_fault();
    s->effect = true;
}

#define SEEN NONE, NOW("DETECTED FAULT")

const row_t rows_reclaim[] = {
    {"back-at-once", "how often malloc returns the block freed last", SMALL, "local fork", NOW("RARE:1/8"), NOW("RARE:1/1000"), 1,
     many_blocks, strike_soon, NULL, false},
    {"back-within-8", "how often it comes back within the next 8", SMALL, "local fork", NOW("RARE:1/8"), NOW("RARE:1/1000"), 8,
     many_blocks, strike_soon, NULL, false},
    {"back-within-64", "how often it comes back within the next 64", SMALL, "local", NONE, NONE, 64,
     many_blocks, strike_soon, NULL, false},
    {"back-at-once-large", "how often malloc returns the block freed last", "1024 8192 20480 204800 1048576", "local", NONE, NONE, 1,
     many_blocks, strike_soon, NULL, false},
    {"hole-refilled", "how often malloc fills the only hole among 200 blocks", SMALL, "local", NOW("RARE:1/8"), NOW("RARE:1/1000"), 0,
     many_blocks, strike_hole, NULL, false},
    {"moved-back", "how often malloc returns what realloc moved away from", SMALL, "local", NOW("RARE:1/8"), NOW("RARE:1/1000"), 0,
     many_blocks, strike_moved, NULL, false},
    {"type-confusion", "freed blocks among live ones become blocks of other sizes", "24 64 200 1024", "local other", NOW("DEFUSED"),
     NOW("DEFUSED"), 0, victims_among_others, strike_confusion, NULL, false},
    {"stale-read", "a freed block is read: what it held is there", "16 64 256 1024 4096 8192 20480", "local other", NONE,
     NOW("DEFUSED FAULT"), 0, many_blocks, strike_read, NULL, false},
    {"stale-read-large", "a freed block is read: what it held is there", "102400 204800", "local other fork", NONE, NOW("DEFUSED FAULT"), 0,
     one_large, strike_large_read, NULL, false},
    {"stale-read-huge", "a freed block is read: what it held is there", "524288 1048576 16777216", "local other dead fork", NOW("FAULT"),
     NOW("FAULT"), 0, one_large, strike_large_read, NULL, false},
    {"stale-write-large", "a freed block is written; nothing happens", "204800", "local other fork", NONE, NOW("FAULT"), 0,
     one_large, strike_large_write, NULL, false},
    {"stale-write-huge", "a freed block is written; nothing happens", "524288 1048576 16777216", "local other dead fork", NOW("FAULT"),
     NOW("FAULT"), 0, one_large, strike_large_write, NULL, false},
    {"stale-write-0", "byte 0 of a freed block written, 4000 blocks taken, exit; unnoticed", CLASSES, "local other", SEEN, AT_START,
     many_blocks, strike_write, NULL, true},
    {"stale-write-8", "byte 8 of it; unnoticed", CLASSES, "local other", SEEN, AT_8, many_blocks, strike_write, NULL, true},
    {"stale-write-middle", "its middle byte; unnoticed", CLASSES, "local other", SEEN, AT_MIDDLE, many_blocks, strike_write, NULL, true},
    {"stale-write-last", "its last byte; unnoticed", CLASSES, "local other", SEEN, AT_LAST, many_blocks, strike_write, NULL, true},
    {"stale-write-exit", "its middle byte, then exit; unnoticed", CLASSES, "local other fork", SEEN, 0, many_blocks, strike_write_exit, NULL, true},
    {NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, false},
};
