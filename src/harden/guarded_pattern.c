/* The bytes around a guarded block that are the program's neither; see guarded.h.
 * Whoever calls these is the only one to touch the slot. */
#include "harden/guarded.h"

#include "base/bits.h"
#include "base/checked.h"
#include "os/os.h"

/* The pattern of eight aligned bytes: multiplicative hashing. Odd bytes are never
 * zero, so the commonest overflow, one NUL, changes whatever it meets. */
BH_INLINE uint64_t pattern(uint64_t key, uintptr_t at)
{
    uint64_t x = (key ^ at >> 3) * 0x9e3779b97f4a7c15u; /* golden ratio: Knuth */
    return (x ^ x >> 32) | 0x0101010101010101u;
}

static uint64_t key(void)
{
    return bhi_process.guarded->key;
}

static uint8_t byte_at(uintptr_t at)
{
    return (uint8_t)(pattern(key(), at) >> (8 * (at & 7)));
}

/* The word at `at`, a multiple of 8, some of whose bytes may be the block's. */
BH_INLINE uint64_t *word_at(uintptr_t at)
{
    return (uint64_t *)at; /* NOLINT: block memory is addressed by number */
}

BH_INLINE void fill_part(uintptr_t at, uint64_t with, uint64_t ours)
{
    *word_at(at) = (*word_at(at) & ~ours) | (with & ours);
}

/* Bytes of a word: all but the first n of 0 to 7, and the first n. */
#define BUT_FIRST(n) (UINT64_MAX << 8 * (n))
#define FIRST(n) (~BUT_FIRST(n))

static void fill(uintptr_t from, uintptr_t to)
{
    uintptr_t at = bhi_align_down(from, 8), last = bhi_align_down(to, 8);
    uint64_t of = key();
    if (at < last && from != at) {
        fill_part(at, pattern(of, at), BUT_FIRST(from - at));
        from = at += 8;
    }
    for (; at < last; from = at += 8)
        *word_at(at) = pattern(of, at);
    if (from < to)
        fill_part(last, pattern(of, last), BUT_FIRST(from - last) & FIRST(to - last));
}

/* Address of the first byte that is not as filled, or 0. */
static uintptr_t differs(uintptr_t from, uintptr_t to)
{
    uint64_t of = key(), ours = BUT_FIRST(from & 7);
    for (uintptr_t at = bhi_align_down(from, 8); at < to; at += 8, ours = UINT64_MAX) {
        uint64_t changed = *word_at(at) ^ pattern(of, at);
        if (bh_likely(changed == 0))
            continue;
        changed &= to - at < 8 ? ours & FIRST(to - at) : ours;
        if (changed != 0)
            return at + bhi_bit_first(changed) / 8;
    }
    return 0;
}

static uintptr_t front_of(const bhi_guarded_t *g)
{
    return g->block - bhi_min(g->block - bhi_guarded_data(g), BHI_GUARDED_FRONT);
}

static uintptr_t behind_of(const bhi_guarded_t *g)
{
    return bhi_min(g->block + g->size + BHI_GUARDED_BEHIND, bhi_guarded_data(g) + bhi_guarded_bytes(g));
}

void bhi_guarded_fill(const bhi_guarded_t *g)
{
    fill(front_of(g), g->block);
    fill(g->block + g->size, behind_of(g));
}

uintptr_t bhi_guarded_damage(const bhi_guarded_t *g)
{
    uintptr_t at = differs(g->block + g->size, behind_of(g));
    return at != 0 ? at : differs(front_of(g), g->block);
}

static uintptr_t copy_differs(uintptr_t from, uintptr_t to)
{
    uint8_t copy[BHI_GUARDED_BEHIND];
    _Static_assert(BHI_GUARDED_FRONT <= BHI_GUARDED_BEHIND, "both fit");
    if (to <= from || to - from > sizeof copy || !bhi_os_copy(copy, from, to - from))
        return 0;
    for (size_t i = 0; i < to - from; i++) {
        if (copy[i] != byte_at(from + i))
            return from + i;
    }
    return 0;
}

uintptr_t bhi_guarded_damage_beside(const bhi_guarded_t *g)
{
    uintptr_t at = copy_differs(g->block + g->size, behind_of(g));
    return at != 0 ? at : copy_differs(front_of(g), g->block);
}
