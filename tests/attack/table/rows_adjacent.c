/* Writes just outside a block. Where nothing stops them, the effect is that the
 * bytes change and nobody notices, neither when all blocks are freed nor at the
 * end of the process. */
#include "table.h"

#define SMALL "8 16 24 64 200 256 1024 4096 8192"
#define LARGE "204800 1048576 16777216"
#define SPAN ((uintptr_t)1 << 20)

/* A guard is its own answer wherever it stands: the page ends there. */
static void many_blocks(scene_t *s)
{
    settle(s);
    take_many(s, some_blocks(s->size, 64));
}

static void change(scene_t *s, uintptr_t first, size_t n, bool to_zero)
{
    volatile unsigned char *at = bytes(first);
    expect_fault(first - 65536, first + SPAN);
    marker();
    for (size_t i = 0; i < n; i++) {
        unsigned char before = at[i];
        at[i] = to_zero ? 0 : before ^ 0x5a;
        s->effect |= at[i] != before;
    }
    expect_no_fault();
}

static void free_all(scene_t *s)
{
    give(s->at);
    give_others(s);
}

static void strike_over(scene_t *s)
{
    change(s, s->at + s->size, (size_t)s->variant, false);
    free_all(s);
}

static void strike_over_unfreed(scene_t *s)
{
    change(s, s->at + s->size, (size_t)s->variant, false);
}

static void strike_over_nul(scene_t *s)
{
    change(s, s->at + s->size, 1, true);
    free_all(s);
}

static void strike_over_usable(scene_t *s)
{
    change(s, s->at + s->reach, (size_t)s->variant, false);
    free_all(s);
}

static void strike_over_block(scene_t *s)
{
    change(s, s->at + s->reach, s->reach, false);
    free_all(s);
}

static void strike_under(scene_t *s)
{
    change(s, s->at - (size_t)s->variant, (size_t)s->variant, false);
    free_all(s);
}

static void strike_under_unfreed(scene_t *s)
{
    change(s, s->at - (size_t)s->variant, (size_t)s->variant, false);
}

/* A neighbour's free looks, not only the block's own. */
static void strike_over_neighbours(scene_t *s)
{
    change(s, s->at + s->size, 1, false);
    give_others(s);
}

/* The end of the last OS page that the request needs. */
static void strike_end(scene_t *s)
{
    change(s, (s->at + s->size + 4095) & ~(uintptr_t)4095, 1, false);
    free_all(s);
}

static void empty_block(scene_t *s)
{
    s->at = take(0);
}

static void strike_empty(scene_t *s)
{
    change(s, s->at, 1, false);
    give(s->at);
}

/* Whether what lies before a block steers the allocator. */
static void strike_header(scene_t *s)
{
    expect_fault(s->at - 65536, s->at);
    marker();
    words(s->at)[-1] ^= (uint64_t)s->variant;
    expect_no_fault();
    s->effect = usable(s->at) != s->reach;
}

#define BYTE_EXACT NONE, NOW("DETECTED FAULT")
#define GUARDED NOW("FAULT"), NOW("FAULT")

const row_t rows_adjacent[] = {
    {"over-1", "one byte written behind the request; unnoticed", SMALL " 20480 102400 " LARGE, "local other dead fork", BYTE_EXACT, 1,
     many_blocks, strike_over, NULL, true},
    {"over-nul", "a NUL written behind the request; unnoticed", SMALL " 20480 102400", "local other", BYTE_EXACT, 0,
     many_blocks, strike_over_nul, NULL, true},
    {"over-8", "8 bytes written behind the request; unnoticed", SMALL, "local other", BYTE_EXACT, 8,
     many_blocks, strike_over, NULL, true},
    {"over-16", "16 bytes written behind the request; unnoticed", SMALL, "local other", BYTE_EXACT, 16,
     many_blocks, strike_over, NULL, true},
    {"over-1-unfreed", "one byte behind a block that is never freed; unnoticed", SMALL " 20480", "local other fork", BYTE_EXACT, 1,
     many_blocks, strike_over_unfreed, NULL, true},
    {"over-1-neighbours", "one byte behind; all blocks but this one freed; unnoticed", SMALL, "local other", BYTE_EXACT, 1,
     many_blocks, strike_over_neighbours, NULL, true},
    {"over-usable", "one byte behind the usable size; unnoticed", SMALL " 20480 102400", "local other", BYTE_EXACT, 1,
     many_blocks, strike_over_usable, NULL, true},
    {"over-block", "a whole block's length behind the usable size; unnoticed", SMALL, "local", BYTE_EXACT, 0,
     many_blocks, strike_over_block, NULL, true},
    {"under-1", "one byte before the block; unnoticed", SMALL " 20480", "local other dead", BYTE_EXACT, 1,
     many_blocks, strike_under, NULL, true},
    {"under-16", "16 bytes before the block; unnoticed", SMALL " 20480", "local other", BYTE_EXACT, 16,
     many_blocks, strike_under, NULL, true},
    {"under-1-unfreed", "one byte before a block that is never freed; unnoticed", SMALL, "local other", BYTE_EXACT, 1,
     many_blocks, strike_under_unfreed, NULL, true},
    {"large-end", "one byte behind a large block's last OS page; unnoticed", LARGE, "local other dead fork", GUARDED, 0,
     many_blocks, strike_end, NULL, true},
    {"large-under-1", "one byte before a large block; unnoticed", LARGE, "local other dead fork", GUARDED, 1,
     many_blocks, strike_under, NULL, true},
    {"empty-write", "one byte written to malloc(0); unnoticed", "0", "local other", NOW("FAULT"), NOW("FAULT"), 0,
     empty_block, strike_empty, NULL, true},
    {"header-size", "the word before a block changed; its usable size changes", "24 64 1024 8192 20480 204800", "local", NOW("DEFUSED FAULT"),
     NOW("DEFUSED DETECTED FAULT"), 0x110, many_blocks, strike_header, NULL, false},
    {NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, false},
};
