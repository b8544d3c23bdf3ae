/* Known techniques against glibc's malloc, by the names of the how2heap
 * collection, each with the effect that it is used for. On another allocator the
 * same writes are just a corrupted heap, and the same effect is looked for. */
#include "table.h"

#include <stdlib.h>
#include <string.h>

static uint64_t aim[32] __attribute__((aligned(16)));

static void nothing(scene_t *s)
{
    protect((uintptr_t)aim, sizeof aim);
    s->size = 48;
}

/* Full caches of the thread, so that the next frees go to the older lists. */
static void fill_cache(size_t size)
{
    uintptr_t some[7];
    for (unsigned i = 0; i < 7; i++)
        some[i] = take(size);
    for (unsigned i = 0; i < 7; i++)
        give(some[i]);
}

static bool aim_or_twice(scene_t *s)
{
    return reissue(s->size, 500) || s->effect;
}

/* Metadata words before a block; a guard may stand there. */
static void write_before(uintptr_t p, int word, uint64_t value)
{
    expect_fault(p - 65536, p);
    *(volatile uint64_t *)&words(p)[-word] = value;
    expect_no_fault();
}

static void strike_fastbin_dup(scene_t *s)
{
    uintptr_t some[7];
    for (unsigned i = 0; i < 7; i++)
        some[i] = take(s->size);
    uintptr_t a = take(s->size), b = take(s->size);
    for (unsigned i = 0; i < 7; i++)
        give(some[i]);
    give(a);
    give(b);
    marker();
    give(a);
}

static void strike_tcache_dup(scene_t *s)
{
    uintptr_t a = take(s->size);
    give(a);
    expect_fault(a, a + s->size);
    marker();
    ((volatile uint64_t *)words(a))[1] = 0; /* the key that marks a cached chunk */
    expect_no_fault();
    give(a);
}

static void strike_tcache_poisoning(scene_t *s)
{
    uintptr_t a = take(s->size), b = take(s->size);
    give(a);
    give(b);
    expect_fault(b, b + s->size);
    marker();
    *(volatile uint64_t *)words(b) = (uint64_t)(uintptr_t)&aim[4] ^ b >> 12;
    expect_no_fault();
}

static void strike_spirit(scene_t *s)
{
    aim[3] = s->size + 16; /* the fake chunk's size; it ends where another begins */
    aim[3 + (s->size + 16) / 8] = 0x51;
    marker();
    give((uintptr_t)&aim[4]);
}

static uintptr_t unlink_pointer[4];

static void strike_unlink(scene_t *s)
{
    (void)s;
    uintptr_t a = take(0x420), b = take(0x420);
    unlink_pointer[3] = a;
    marker();
    words(a)[1] = 0x420; /* a fake free chunk inside a */
    words(a)[2] = (uintptr_t)&unlink_pointer[0];
    words(a)[3] = (uintptr_t)&unlink_pointer[1];
    words(a)[132 - 1] = 0;
    write_before(b, 2, 0x420);
    write_before(b, 1, 0x430);
    give(b);
    s->effect = unlink_pointer[3] != a;
}

static void strike_overlapping(scene_t *s)
{
    s->size = 0x5f8;
    take(0x4f8);
    uintptr_t b = take(s->size), c = take(0x78), d = take(0x18);
    protect(c, 0x78);
    protect(d, 0x18);
    marker();
    write_before(b, 1, (0x5f8 + 8 + 0x80) | 1); /* b now reaches over c */
    give(b);
    s->effect = reissue(0x5f8 + 0x80, 50);
}

static void strike_force(scene_t *s)
{
    uintptr_t a = take(256);
    size_t reach = usable(a);
    expect_fault(a + reach, a + reach + ((uintptr_t)1 << 20));
    marker();
    *(volatile uint64_t *)&bytes(a)[reach] = ~(uint64_t)0; /* the top chunk's size */
    expect_no_fault();
    /* An allocation that moves the top to the target. */
    size_t distance = (uintptr_t)aim - 32 - (a + reach);
    void *volatile moved = malloc(distance);
    (void)moved;
    s->effect = false;
}

static void strike_null_byte(scene_t *s)
{
    uintptr_t a = take(0x508), b = take(0x608), c = take(0x508), barrier = take(0x508);
    protect(barrier, 0x508);
    words(b)[0x5f0 / 8] = 0x600;
    give(b);
    size_t reach = usable(a);
    expect_fault(a + reach, a + reach + 65536);
    marker();
    *(volatile unsigned char *)&bytes(a)[reach] = 0; /* shortens the free chunk behind */
    expect_no_fault();
    uintptr_t first = take(0x408), victim = take(0x88);
    protect(victim, 0x88);
    give(first);
    give(c);
    s->size = 0x900;
    s->effect = reissue(s->size, 50);
}

static void strike_einherjar(scene_t *s)
{
    uintptr_t a = take(0x38), b = take(0x28), c = take(0xf8);
    take(0x18);
    protect(b, 0x28);
    words(a)[0] = 0; /* a fake free chunk inside a, which links to itself */
    words(a)[1] = 0x60;
    words(a)[2] = a;
    words(a)[3] = a;
    uintptr_t some[7];
    for (unsigned i = 0; i < 7; i++)
        some[i] = take(0xf8);
    for (unsigned i = 0; i < 7; i++)
        give(some[i]);
    size_t reach = usable(b);
    expect_fault(b + reach, b + reach + 65536);
    marker();
    words(b)[4] = 0x60;
    *(volatile unsigned char *)&bytes(b)[reach] = 0; /* "the chunk before c is free" */
    expect_no_fault();
    give(c);
    s->size = 0x158;
    s->effect = reissue(s->size, 50);
}

/* The unsorted list's pointers into the library, read after free. */
static void strike_leak(scene_t *s)
{
    static range_t ranges[2000];
    uintptr_t a = take(0x500);
    take(0x18);
    fill(a, 0, 0x500);
    give(a);
    size_t count = writable_ranges(ranges, 2000);
    expect_fault(a, a + 0x500);
    marker();
    for (unsigned i = 0; i < 0x500 / 8; i++) {
        uint64_t word = *(volatile uint64_t *)&words(a)[i];
        const range_t *range = range_of(ranges, count, (uintptr_t)word);
        s->effect |= range != NULL && (a < range->low || a >= range->high);
    }
}

/* A stale pointer to an object that another now lies over. */
static void strike_reuse(scene_t *s)
{
    s->size = 64;
    fill_cache(200);
    uintptr_t object = take(s->size);
    give(object);
    marker();
    /* One allocation of the attacker's takes its place. */
    s->effect = take(s->size) == object;
    tally(s->effect, 1);
    finish(END_ABSENT, false);
}

#define FREED_TWICE NOW("DETECTED:double-free"), NOW("DETECTED:double-free FAULT")
#define STOPPED NOW("DEFUSED FAULT"), NOW("DETECTED DEFUSED FAULT")

const row_t rows_how2heap[] = {
    {"fastbin-dup", "free a, b, a with full caches; one block is handed out twice", "48", "local other", FREED_TWICE, 0,
     nothing, strike_fastbin_dup, aim_or_twice, false},
    {"tcache-dup", "the mark of a cached chunk erased, freed again; handed out twice", "48", "local other", FREED_TWICE, 0,
     nothing, strike_tcache_dup, aim_or_twice, false},
    {"tcache-poisoning", "a cached chunk's link encodes a target; malloc returns the target", "48", "local other",
     NOW("DEFUSED"), NOW("DETECTED DEFUSED FAULT"), 0, nothing, strike_tcache_poisoning, aim_or_twice, false},
    {"house-of-spirit", "a fake chunk in a global array is freed; malloc returns it", "48", "local other", NOW("DETECTED:foreign-free"),
     NOW("DETECTED:foreign-free"), 0, nothing, strike_spirit, aim_or_twice, false},
    {"unsafe-unlink", "a fake free chunk merged with its neighbour; a global pointer changes", "1056", "local", STOPPED, 0,
     nothing, strike_unlink, NULL, false},
    {"overlapping-chunks", "the size before a block enlarged, then freed; a new block lies over a live one", "1528", "local", STOPPED, 0,
     nothing, strike_overlapping, NULL, false},
    {"house-of-force", "the word behind the last block set to -1, then a huge malloc; the next returns the target", "256", "local", STOPPED, 0,
     nothing, strike_force, aim_or_twice, false},
    {"poison-null-byte", "a NUL behind a block shortens the free one after it; a new block lies over a live one", "1288", "local", STOPPED, 0,
     nothing, strike_null_byte, NULL, false},
    {"house-of-einherjar", "a NUL behind a block makes a free merge with a fake chunk; a new block lies over a live one", "40", "local", STOPPED, 0,
     nothing, strike_einherjar, NULL, false},
    {"unsorted-leak", "a freed block holds the address of another mapping's memory", "1280", "local", NOW("DEFUSED"), NOW("DEFUSED FAULT"), 0,
     nothing, strike_leak, NULL, false},
    {"first-fit", "how often the next block takes a freed one's place", "64", "local", NOW("RARE:1/8"), NOW("RARE:1/8"), 0,
     nothing, strike_reuse, NULL, false},
    {NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, false},
};
