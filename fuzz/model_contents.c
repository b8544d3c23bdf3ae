/* The oracle's knowledge of contents: what blocks are filled with, and of what is found in
 * memory, which block it was written to. See model.h. */
#include "model.h"
#include "model_contents.h"

#include <string.h>

#define HEAD 256u /* bytes of a large block that are filled and looked at, at each end */

#define FACTOR 0x9e3779b97f4a7c15u
#define NEXT (8 * FACTOR) /* from one word to the next */

/* `at` is a multiple of 8, and a stamp of more: the lowest bits are the 1's alone. */
static uint64_t word_at(uint64_t stamp, size_t at)
{
    return (stamp + at) * FACTOR | 1;
}

/* Of n words from p on, the bits that differ from first, first + step and so on. */
static uint64_t differ(uintptr_t p, size_t n, uint64_t first, uint64_t step)
{
    uint64_t bits = 0, word;
    for (size_t i = 0; i < n; i++) {
        memcpy(&word, (const void *)(p + 8 * i), sizeof word); /* NOLINT: blocks are numbers here */
        bits |= word ^ (first + i * step);
    }
    return bits;
}

#define STAMP_SHIFT 20 /* no block is filled beyond: at most 1 MiB from its start is told apart */
#define STAMPS_MOST 16384u
#define INVERSE 0xf1de83e19937733du /* of what word_at multiplies by */

/* Usable size of the block that each stamp was of. */
static uint32_t usable_of[STAMPS_MOST];

uint64_t model_stamp(size_t usable)
{
    uint64_t stamp = ++model.stamps;
    if (stamp < STAMPS_MOST)
        usable_of[stamp] = (uint32_t)(usable <= UINT32_MAX ? usable : 0);
    return stamp << STAMP_SHIFT;
}

/* The usable size of the block that a word was written to, by what it says; 0: none. */
static size_t origin(uint64_t word)
{
    if ((word & 1) == 0)
        return 0;
    uint64_t most = model.stamps < STAMPS_MOST ? model.stamps : STAMPS_MOST - 1;
    uint64_t sum = word * INVERSE, stamp = sum >> STAMP_SHIFT;
    if (stamp - 1 >= most) /* its lowest bit was set for it */
        stamp = (sum - INVERSE) >> STAMP_SHIFT;
    return stamp - 1 < most ? usable_of[stamp] : 0;
}


#define SMALL 4096u /* no large block is as small, but for those of _at functions */
#define COPIED 8192u /* to here from its slot on, a large block may hold what realloc took along from a small one */

/* What is there at p + at was left by a block of so many usable bytes; 0: not known. */
static size_t left_by(uintptr_t p, size_t at)
{
    uint64_t word;
    memcpy(&word, (const void *)(p + at), sizeof word); /* NOLINT: blocks are numbers here */
    return word != 0 ? origin(word) : 0;
}

/* The same of a large block, where small ones are found out. */
static size_t left_by_small(uintptr_t p, size_t at)
{
    size_t was = ((p + at) & 0xffff) >= COPIED ? left_by(p, at) : 0;
    return was < SMALL ? was : 0;
}

/* In profile secure a block may show what another one of its class left, a large one
 * what large ones did, but nothing of other pages. */
void model_check_residue(uintptr_t p, size_t usable)
{
    if (model.hardened || model.scribbled || model.copied)
        return;
    bool large = usable > 128 * 1024;
    if (!large) { /* mostly nothing, or one block that had all of it */
        size_t words = (usable < HEAD ? usable : HEAD) / 8;
        uint64_t word = 0;
        memcpy(&word, (const void *)p, words > 0 ? sizeof word : 0); /* NOLINT */
        if ((word == 0 || origin(word) == usable) && differ(p, words, word, word != 0 ? NEXT : 0) == 0)
            return;
    }
    for (size_t at = large ? COPIED : 0; at + 8 <= usable && at < (large ? SHOWN : HEAD); at += 8) {
        size_t was = large ? left_by_small(p, at) : left_by(p, at);
        if (was != 0 && was != usable)
            finding("block %#zx of %zu bytes shows what one of %zu left", p, usable, was);
    }
}

#define GROWTH_MOST ((size_t)64 * 1024)

/* The same of what realloc adds to a large block where it stands. */
void model_check_growth(uintptr_t p, size_t from, size_t to)
{
    if (model.hardened || model.control || model.scribbled || model.copied)
        return;
    from = (from + 7) & ~(size_t)7;
    for (size_t at = from; at + 8 <= to && at - from < GROWTH_MOST; at += 8) {
        size_t was = left_by_small(p, at);
        if (was != 0)
            finding("block %#zx grew to %zu bytes and shows at %zu what one of %zu left", p, to, at, was);
    }
}

static void fill_range(uintptr_t p, uint64_t stamp, size_t from, size_t to)
{
    size_t at = from;
    uint64_t word = word_at(stamp, at);
    for (; at + 8 <= to; at += 8, word += NEXT)
        memcpy((void *)(p + at), &word, sizeof word); /* NOLINT: blocks are numbers here */
    memcpy((void *)(p + at), &word, to - at); /* NOLINT */
}

/* Multiples of 8, so that both ends of a block meet whole words. */
static size_t tail_of(size_t size)
{
    return size > 2 * HEAD ? (size - HEAD) & ~(size_t)7 : size;
}

void model_fill(uintptr_t p, uint64_t stamp, size_t size, void (*fills)(uintptr_t at, size_t size))
{
    if (size == 0)
        return;
    if (size <= 2 * HEAD) {
        fills(p, size);
        fill_range(p, stamp, 0, size);
        return;
    }
    fills(p, HEAD);
    fills(p + tail_of(size), size - tail_of(size));
    fill_range(p, stamp, 0, HEAD);
    fill_range(p, stamp, tail_of(size), size);
}

static size_t first_difference(uintptr_t p, uint64_t stamp, size_t from, size_t to)
{
    size_t at = from, words = to > from ? (to - from) / 8 : 0;
    uint64_t expected, word;
    if (differ(p + from, words, word_at(stamp, from), NEXT) == 0)
        at += 8 * words;
    for (; at + 8 <= to; at += 8) {
        memcpy(&word, (const void *)(p + at), sizeof word); /* NOLINT */
        if (word != word_at(stamp, at))
            return at;
    }
    expected = word_at(stamp, at);
    return at < to && memcmp((const void *)(p + at), &expected, to - at) != 0 ? at : SIZE_MAX; /* NOLINT */
}

/* What is known of [0, size) of a block that was filled to `filled`. */
void model_check_range(const block_t *b, uintptr_t p, size_t size)
{
    size_t filled = b->usable, head = filled <= 2 * HEAD ? filled : HEAD;
    size_t at = first_difference(p, b->stamp, 0, size < head ? size : head);
    if (at == SIZE_MAX && filled > 2 * HEAD && size > tail_of(filled))
        at = first_difference(p, b->stamp, tail_of(filled), size);
    if (at != SIZE_MAX)
        finding("contents of block %#zx (%zu bytes) changed at %zu", p, b->size, at);
}

void model_check_contents(const block_t *b)
{
    if (!b->unknown && !model.control)
        model_check_range(b, b->p, b->usable);
}
