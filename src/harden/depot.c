/* Stacks, each kept once; see depot.h. */
#include "harden/depot.h"

#include <string.h>

enum { NEXT, HASH, SIZES, HEAD }; /* words of an entry; SIZES: frames << 16 | words of frames */

/* At most so many words for a stack: each frame in two. */
typedef struct packed {
    uint32_t word[2 * BH_STACK_DEPTH];
    uint32_t words, hash;
} packed_t;

/* A frame is a multiple of nothing, so its difference is shifted by one: bit 0 of
 * the word says whether another follows, with the bits 31 and up of the address. */
static void pack(packed_t *out, const uintptr_t *frames, unsigned n)
{
    uintptr_t before = 0;
    uint64_t hash = n;
    out->words = 0;
    for (unsigned i = 0; i < n; i++) {
        int64_t step = (int64_t)(frames[i] - before);
        before = frames[i];
        if (step >= -((int64_t)1 << 30) && step < (int64_t)1 << 30) {
            out->word[out->words++] = (uint32_t)step << 1;
        } else {
            out->word[out->words++] = (uint32_t)frames[i] << 1 | 1;
            out->word[out->words++] = (uint32_t)(frames[i] >> 31);
        }
        hash = (hash ^ frames[i]) * 0x9e3779b97f4a7c15u; /* golden ratio: Knuth, multiplicative hashing */
        hash ^= hash >> 29;
    }
    out->hash = (uint32_t)(hash >> 32);
}

static bool is_this(const bhi_depot_t *depot, uint32_t id, const packed_t *p, unsigned n)
{
    const uint32_t *e = &depot->words[id];
    return e[HASH] == p->hash && e[SIZES] == (n << 16 | p->words) && memcmp(e + HEAD, p->word, p->words * sizeof *p->word) == 0;
}

/* Room for `words`, or 0. */
static uint32_t make_room(bhi_depot_t *depot, uint32_t words)
{
    if (atomic_load_explicit(&depot->used, memory_order_relaxed) > BHI_DEPOT_WORDS - 4096)
        return 0; /* never so near the end that additions could pass it */
    return 1 + atomic_fetch_add_explicit(&depot->used, words, memory_order_relaxed);
}

uint32_t bhi_depot_put(bhi_depot_t *depot, const uintptr_t *frames, unsigned n)
{
    if (depot == NULL || n == 0)
        return 0;
    packed_t p;
    pack(&p, frames, n);
    _Atomic(uint32_t) *bucket = &depot->bucket[p.hash % BHI_DEPOT_BUCKETS];
    uint32_t first = atomic_load_explicit(bucket, memory_order_acquire);
    for (uint32_t id = first; id != 0; id = depot->words[id + NEXT]) {
        if (is_this(depot, id, &p, n))
            return id;
    }
    uint32_t id = make_room(depot, HEAD + p.words);
    if (id == 0)
        return 0;
    uint32_t *e = &depot->words[id];
    e[HASH] = p.hash;
    e[SIZES] = n << 16 | p.words;
    memcpy(e + HEAD, p.word, p.words * sizeof *p.word);
    do {
        e[NEXT] = first;
    } while (!atomic_compare_exchange_weak_explicit(bucket, &first, id, memory_order_release, memory_order_acquire));
    return id;
}

unsigned bhi_depot_get(const bhi_depot_t *depot, uint32_t id, uintptr_t *frames)
{
    if (depot == NULL || id == 0 || id > BHI_DEPOT_WORDS - 4096)
        return 0;
    const uint32_t *e = &depot->words[id], *word = e + HEAD;
    unsigned n = e[SIZES] >> 16;
    if (n > BH_STACK_DEPTH)
        return 0;
    uintptr_t at = 0;
    for (unsigned i = 0; i < n; i++) {
        if ((*word & 1) != 0) {
            at = (uintptr_t)word[0] >> 1 | (uintptr_t)word[1] << 31;
            word += 2;
        } else {
            at += (uintptr_t)(intptr_t)((int32_t)*word++ >> 1);
        }
        frames[i] = at;
    }
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
