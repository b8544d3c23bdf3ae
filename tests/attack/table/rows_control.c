/* Whether user memory leads to what the allocator steers by: through a word in a
 * block, through memory around a block, or at a constant distance. */
#include "table.h"

#include <string.h>

#define SIZES "8 64 256 1024 8192 20480 204800"
#define MOST_WRITABLE 2000

static range_t ranges[MOST_WRITABLE];
static size_t range_count;

static void many_blocks(scene_t *s)
{
    settle(s);
    take_many(s, some_blocks(s->size, 1000));
    for (size_t i = 0; i < s->count; i++)
        fill(s->block[i], 0, usable(s->block[i]) < 65536 ? usable(s->block[i]) : 65536);
}

/* Mappings that hold blocks are the program's own. */
static bool holds_blocks(const scene_t *s, const range_t *range)
{
    for (size_t i = 0; i < s->count; i++) {
        if (s->block[i] >= range->low && s->block[i] < range->high)
            return true;
    }
    for (size_t i = 0; i < s->kept_count; i++) {
        if (s->kept[i] >= range->low && s->kept[i] < range->high)
            return true;
    }
    return false;
}

static bool leads_away(const scene_t *s, uint64_t word)
{
    const range_t *range = word < 4096 ? NULL : range_of(ranges, range_count, (uintptr_t)word);
    return range != NULL && !holds_blocks(s, range);
}

static bool scan(const scene_t *s, uintptr_t from, size_t n)
{
    uint64_t part[512];
    for (size_t done = 0; done < n; done += sizeof part) {
        size_t now = n - done < sizeof part ? n - done : sizeof part;
        if (!peek(from + done, part, now))
            return false;
        for (size_t i = 0; i < now / 8; i++) {
            if (leads_away(s, part[i]))
                return true;
        }
    }
    return false;
}

static size_t scanned(const scene_t *s)
{
    return s->size < 65536 ? s->size & ~(size_t)7 : 65536;
}

/* Half of the blocks go back, others of the size and of half the size come. */
static void strike_fresh(scene_t *s)
{
    for (size_t i = 0; i < s->count; i += 2)
        give(s->block[i]);
    range_count = writable_ranges(ranges, MOST_WRITABLE);
    marker();
    for (size_t i = 0; i < s->count && !s->effect; i++) {
        size_t size = i % 2 == 0 ? s->size : s->size / 2;
        s->effect = scan(s, take(size), size < scanned(s) ? size & ~(size_t)7 : scanned(s));
    }
}

static void strike_freed(scene_t *s)
{
    for (size_t i = 0; i < s->count; i += 3)
        give(s->block[i]);
    range_count = writable_ranges(ranges, MOST_WRITABLE);
    marker();
    for (size_t i = 0; i < s->count && !s->effect; i += 3)
        s->effect = scan(s, s->block[i], scanned(s));
}

/* A linear read from a block, down and up, as far as it can get in 1 MiB. */
static void strike_around(scene_t *s)
{
    uint64_t part[512];
    range_count = writable_ranges(ranges, MOST_WRITABLE);
    marker();
    for (int up = 0; up < 2 && !s->effect; up++) {
        uintptr_t at = s->at & ~(uintptr_t)4095;
        for (unsigned n = 0; n < 256 && !s->effect && peek(at, part, sizeof part); n++) {
            for (unsigned i = 0; i < 512; i++)
                s->effect |= leads_away(s, part[i]);
            at += up ? 4096 : (uintptr_t)-4096;
        }
    }
}

/* --------------------------------------------------------- constant distances */

/* In a probe: how far each mapping that can be written lies from a block. */
static void distances(scene_t *s)
{
    settle(s);
    take_many(s, some_blocks(s->size, 50));
    uintptr_t block = s->block[0];
    range_count = writable_ranges(ranges, MOST_WRITABLE);
    for (size_t i = 0; i < range_count; i++) {
        if (!holds_blocks(s, &ranges[i]) && !ranges[i].special)
            print_number((ranges[i].low - block) >> 12);
    }
}

static void strike_distance(scene_t *s)
{
    static uint64_t a[MOST_WRITABLE], b[MOST_WRITABLE];
    uint64_t seed = draw(s);
    size_t n = probe("constant-distance", s->size, seed, a, MOST_WRITABLE);
    size_t m = probe("constant-distance", s->size, seed, b, MOST_WRITABLE);
    marker();
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < m; k++)
            s->effect |= a[i] == b[k];
    }
    finish(s->effect ? END_PRESENT : END_ABSENT, false);
}

#define PROMISED NOW("DEFUSED"), NOW("DEFUSED")

const row_t rows_control[] = {
    {"words-fresh", "a new block holds the address of writable memory that is not the heap's", SIZES, "local other", PROMISED, 0,
     many_blocks, strike_fresh, NULL, false},
    {"words-freed", "a freed block holds such an address", SIZES, "local other fork", PROMISED, 0,
     many_blocks, strike_freed, NULL, false},
    {"words-around", "reading on from a block, within 1 MiB up or down, finds such an address", SIZES, "local", PROMISED, 0,
     many_blocks, strike_around, NULL, false},
    {"constant-distance", "from a block to other writable memory it is as far in two processes", "64 1024 8192 204800", "local", PROMISED, 0,
     distances, strike_distance, NULL, false},
    {NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, false},
};
