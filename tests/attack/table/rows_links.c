/* Overwriting what an allocator may keep in free blocks, with what an attacker who
 * reads and writes after free can make. The effect is that a later malloc returns
 * the attacker's target, a live block, or one block twice. Bulkhead keeps nothing
 * there: it is to go on as if nothing had been written. */
#include "table.h"

#include <string.h>

#define SIZES "16 64 256 1024"
#define HALF 100 /* live, and free */
#define TAKEN 2000

enum { ZERO, ONES, TARGET, LIVE, INTERIOR, COPY, SWAP, REPLAY, FLIP, RANDOM, SAFE_LINK };

static uint64_t target[16] = {0, 0x51};

/* The odd blocks get freed by the actor. old[] are the words from an earlier time
 * that they were free. */
static uint64_t old[2 * HALF];

static void half_free(scene_t *s)
{
    settle(s);
    take_many(s, 2 * HALF);
    for (size_t i = 0; i < s->count; i += 2)
        protect(s->block[i], s->size);
    protect((uintptr_t)target, sizeof target);
}

static void give_shuffled(scene_t *s)
{
    size_t order[HALF];
    for (size_t i = 0; i < HALF; i++) {
        size_t j = below(s, i + 1);
        order[i] = order[j];
        order[j] = 2 * i + 1;
    }
    for (size_t i = 0; i < HALF; i++)
        give(s->block[order[i]]);
}

static void remember(scene_t *s)
{
    give_shuffled(s);
    expect_in_blocks(s);
    for (size_t i = 1; i < s->count; i += 2)
        old[i] = *(volatile uint64_t *)words(s->block[i]);
    expect_no_fault();
    /* What comes back, as far as it does. */
    for (size_t i = 1; i < s->count; i += 2)
        s->block[i] = take(s->size);
}

static uint64_t forged(scene_t *s, size_t i, uint64_t now)
{
    uintptr_t live = s->block[2 * below(s, HALF)];
    /* What is read as the next link ends the list: the attacker fills it. */
    fill(live, 0, s->size < 32 ? s->size : 32);
    switch (s->variant) {
    case ZERO: return 0;
    case ONES: return ~(uint64_t)0;
    case TARGET: return (uint64_t)(uintptr_t)&target[2];
    case LIVE: return live;
    case INTERIOR: return live + 8;
    case COPY: return *words(s->block[2 * below(s, HALF) + 1]);
    case REPLAY: return old[i];
    case FLIP: return now ^ (uint64_t)1 << below(s, 64);
    case RANDOM: return draw(s);
    /* glibc's encoding, for an attacker who knows where the block is. */
    case SAFE_LINK: return (uint64_t)(uintptr_t)&target[2] ^ s->block[i] >> 12;
    default: return now;
    }
}

/* Every free block's first word, and its second in every other run. */
static void strike(scene_t *s)
{
    if (s->variant == REPLAY) { /* to remember a link is to read a free block */
        expect_in_blocks(s);
        marker();
        remember(s);
    }
    give_shuffled(s);
    bool second = s->size >= 16 && draw(s) % 2 == 0;
    expect_in_blocks(s);
    if (s->variant != REPLAY)
        marker();
    for (size_t i = 1; i < s->count; i += 2) {
        volatile uint64_t *link = words(s->block[i]);
        if (s->variant == SWAP) {
            volatile uint64_t *other = words(s->block[2 * below(s, HALF) + 1]);
            uint64_t word = *link;
            *link = *other;
            *other = word;
            continue;
        }
        link[0] = forged(s, i, link[0]);
        if (second)
            link[1] = forged(s, i, link[1]);
    }
    expect_no_fault();
}

static bool check(scene_t *s)
{
    return reissue(s->size, TAKEN);
}

/* Links that share their upper half are addresses or places, to be computed from
 * one another; encoded ones differ in all bits. */
static void strike_guess(scene_t *s)
{
    size_t links = 0, alike = 0;
    for (size_t i = 1; i < s->count; i += 2)
        fill(s->block[i], 0, s->size);
    give_shuffled(s);
    expect_in_blocks(s);
    marker();
    uint64_t last = 0;
    for (size_t i = 1; i < s->count; i += 2) {
        uint64_t link = *(volatile uint64_t *)words(s->block[i]);
        if (link == 0)
            continue;
        alike += links > 0 && link >> 32 == last >> 32;
        last = link;
        links++;
    }
    s->effect = links > 1 && alike > links / 2;
}

#define PROMISED NOW("DEFUSED"), NOW("DETECTED DEFUSED FAULT")
#define ROW(name, what, variant) {name, what "; malloc returns it, a live block or one block twice", SIZES, "local other fork", PROMISED, variant, half_free, strike, check, false}

const row_t rows_links[] = {
    ROW("link-zero", "free blocks' first words zeroed", ZERO),
    ROW("link-ones", "free blocks' first words set to all ones", ONES),
    ROW("link-target", "free blocks' first words point to a global array", TARGET),
    ROW("link-live", "free blocks' first words point to a live block", LIVE),
    ROW("link-interior", "free blocks' first words point into a live block", INTERIOR),
    ROW("link-copy", "free blocks' first words copied from other free blocks", COPY),
    ROW("link-swap", "free blocks' first words swapped", SWAP),
    ROW("link-replay", "free blocks' first words replaced by those of an earlier time", REPLAY),
    ROW("link-flip", "one bit flipped in free blocks' first words", FLIP),
    ROW("link-random", "free blocks' first words set at random", RANDOM),
    ROW("link-safe-link", "free blocks' first words encode a global array as glibc does", SAFE_LINK),
    {"link-guess", "free blocks are read: most of their links share the upper half, so one tells of the others", SIZES, "local fork",
     NOW("DEFUSED"), NOW("DEFUSED FAULT"), 0, half_free, strike_guess, NULL, false},
    {NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, false},
};
