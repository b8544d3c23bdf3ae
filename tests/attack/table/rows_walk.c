/* Linear overflows that do not end: how far they get in a heap of some MiB. */
#include "table.h"

#define EVERY "8 64 256 1024 4096 8192 20480 102400 204800 1048576"
#define SPAN ((size_t)1 << 20)
#define HEAP ((size_t)1 << 21) /* of other blocks, on each side in time */
#define OTHER 1000

static void full_heap(scene_t *s)
{
    for (size_t n = 0; n < HEAP; n += OTHER)
        take(OTHER);
    take_many(s, some_blocks(s->size, 200));
    for (size_t n = 0; n < HEAP; n += OTHER)
        take(OTHER);
}

static void walk(scene_t *s, bool up, bool write)
{
    uintptr_t at = up ? s->at + s->reach : s->at - 1;
    uintptr_t low = up ? at : at - SPAN, high = up ? at + SPAN : at + 1;
    unsigned char sum = 0;
    expect_fault(low, high);
    marker();
    for (size_t i = 0; i < SPAN; i++, at += up ? 1 : (uintptr_t)-1) {
        volatile unsigned char *byte = bytes(at);
        if (write)
            *byte = 0x41;
        else
            sum = (unsigned char)(sum + *byte);
    }
    s->effect = true;
    /* The heap is in no state to be looked at. */
    finish(END_PRESENT, false);
}

static void strike_up(scene_t *s)
{
    walk(s, true, true);
}

static void strike_down(scene_t *s)
{
    walk(s, false, true);
}

static void strike_read_up(scene_t *s)
{
    walk(s, true, false);
}

static void strike_read_down(scene_t *s)
{
    walk(s, false, false);
}

/* ------------------------------------------------------------ the next block */

#define PAIRS 1500

/* The commonest preparation of an overflow: the victim is allocated right after
 * the buffer. */
static void strike_next(scene_t *s)
{
    unsigned long hits = 0;
    size_t n = some_blocks(s->size, PAIRS);
    settle(s);
    marker();
    uintptr_t last = take(s->size);
    size_t reach = usable(last);
    for (size_t i = 0; i < n; i++) {
        uintptr_t next = take(s->size);
        /* Up to a header or a canary behind, but less than the block after it. */
        hits += next > last && next - last <= reach + 15;
        last = next;
    }
    tally(hits, n);
}

#define GUARDED NOW("FAULT"), NOW("FAULT")

const row_t rows_walk[] = {
    {"walk-up", "writing upwards from a block; 1 MiB is overwritten", EVERY, "local other dead", GUARDED, 0,
     full_heap, strike_up, NULL, false},
    {"walk-down", "writing downwards from a block; 1 MiB is overwritten", EVERY, "local other dead", GUARDED, 0,
     full_heap, strike_down, NULL, false},
    {"read-up", "reading upwards from a block; 1 MiB is read", EVERY, "local", GUARDED, 0,
     full_heap, strike_read_up, NULL, false},
    {"read-down", "reading downwards from a block; 1 MiB is read", EVERY, "local", GUARDED, 0,
     full_heap, strike_read_down, NULL, false},
    {"next-is-behind", "how often the next block lies right behind the last", "16 24 64 200 256 1024", "local fork", NOW("RARE:1/32"),
     NOW("RARE:1/32"), 0, NULL, strike_next, NULL, false},
    {"next-is-behind-large", "the same for larger blocks", "4096 8192 20480", "local", NOW("RARE:1/7"), NOW("RARE:1/7"), 0,
     NULL, strike_next, NULL, false},
    {NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, false},
};
