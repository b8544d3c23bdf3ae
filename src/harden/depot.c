/* Stacks, each kept once; see depot.h. */
#include "harden/depot.h"

#include <string.h>

enum { NEXT, HASH, SIZES, HEAD }; /* words of an entry; SIZES: frames << 16 | words of frames */

/* A frame is the difference to the one before in 31 bits where that fits: bit 0 of
 * the word says whether another follows, with the bits 31 and up of the address. */
static uint32_t *put(uint32_t *to, uintptr_t frame, uintptr_t before)
{
    int64_t step = (int64_t)(frame - before);
    if (step >= -((int64_t)1 << 30) && step < (int64_t)1 << 30) {
        *to++ = (uint32_t)step << 1;
    } else {
        *to++ = (uint32_t)frame << 1 | 1;
        *to++ = (uint32_t)(frame >> 31);
    }
    return to;
}

BH_INLINE uintptr_t take(const uint32_t **from, uintptr_t before)
{
    uint32_t word = *(*from)++;
    if ((word & 1) == 0)
        return before + (uintptr_t)(intptr_t)((int32_t)word >> 1);
    return (uintptr_t)word >> 1 | (uintptr_t)*(*from)++ << 31;
}

/* A polynomial of the frames: multiplicative hashing. */
BH_INLINE uint32_t hash_of(const uintptr_t *frames, unsigned n)
{
    uint64_t hash = n;
    for (unsigned i = 0; i < n; i++)
        hash = (hash + frames[i]) * 0x9e3779b97f4a7c15u; /* golden ratio: Knuth */
    return (uint32_t)((hash ^ hash >> 29) >> 32);
}

/* Whether an entry is this stack: read as bhi_depot_get does, since most stacks are there
 * already. */
BH_INLINE bool is_this(const uint32_t *e, uint32_t hash, const uintptr_t *frames, unsigned n)
{
    if (e[HASH] != hash || e[SIZES] >> 16 != n)
        return false;
    const uint32_t *from = e + HEAD;
    uintptr_t frame = 0;
    for (unsigned i = 0; i < n; i++) {
        frame = take(&from, frame);
        if ((frame ^ frames[i]) << 1 != 0) /* the highest bit is not kept: no code has it */
            return false;
    }
    return true;
}

/* Room for `words`, or 0. */
static uint32_t make_room(bhi_depot_t *depot, uint32_t words)
{
    if (atomic_load_explicit(&depot->used, memory_order_relaxed) > BHI_DEPOT_WORDS - 4096)
        return 0; /* never so near the end that additions could pass it */
    return 1 + atomic_fetch_add_explicit(&depot->used, words, memory_order_relaxed);
}

/* A new entry, linked nowhere; 0: no room. */
static BH_NOINLINE uint32_t add(bhi_depot_t *depot, uint32_t hash, const uintptr_t *frames, unsigned n)
{
    uint32_t packed[2 * BH_STACK_DEPTH], *end = packed;
    for (unsigned i = 0; i < n; i++)
        end = put(end, frames[i], i == 0 ? 0 : frames[i - 1]);
    uint32_t words = (uint32_t)(end - packed), id = make_room(depot, HEAD + words);
    if (id == 0)
        return 0;
    uint32_t *e = &depot->words[id];
    e[HASH] = hash;
    e[SIZES] = n << 16 | words;
    memcpy(e + HEAD, packed, words * sizeof *packed);
    return id;
}

uint32_t bhi_depot_put(bhi_depot_t *depot, const uintptr_t *frames, unsigned n)
{
    if (depot == NULL || n == 0)
        return 0;
    uint32_t hash = hash_of(frames, n);
    _Atomic(uint32_t) *bucket = &depot->bucket[hash % BHI_DEPOT_BUCKETS];
    uint32_t first = atomic_load_explicit(bucket, memory_order_acquire);
    for (uint32_t id = first; id != 0; id = depot->words[id + NEXT]) {
        if (is_this(&depot->words[id], hash, frames, n))
            return id;
    }
    uint32_t id = add(depot, hash, frames, n);
    if (id == 0)
        return 0;
    do {
        depot->words[id + NEXT] = first;
    } while (!atomic_compare_exchange_weak_explicit(bucket, &first, id, memory_order_release, memory_order_acquire));
    return id;
}

unsigned bhi_depot_get(const bhi_depot_t *depot, uint32_t id, uintptr_t *frames)
{
    if (depot == NULL || id == 0 || id > BHI_DEPOT_WORDS - 4096)
        return 0;
    const uint32_t *e = &depot->words[id], *from = e + HEAD;
    unsigned n = e[SIZES] >> 16;
    if (n > BH_STACK_DEPTH)
        return 0;
    uintptr_t frame = 0;
    for (unsigned i = 0; i < n; i++)
        frames[i] = frame = take(&from, frame);
    return n;
}

unsigned bhi_depot_frames(const bhi_depot_t *depot, uint32_t id, const void **frames)
{
    uintptr_t found[BH_STACK_DEPTH];
    unsigned n = bhi_depot_get(depot, id, found);
    for (unsigned i = 0; i < n; i++)
        frames[i] = (const void *)found[i]; /* NOLINT: code is addressed by number here */
    return n;
}
