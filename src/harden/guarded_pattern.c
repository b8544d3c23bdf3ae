/* The bytes around a guarded block that are the program's neither; see guarded.h.
 * Whoever calls these is the only one to touch the slot. */
#include "harden/guarded.h"

#include "base/checked.h"
#include "os/os.h"

#include <string.h>

/* The pattern of eight aligned bytes: multiplicative hashing. Odd bytes are never
 * zero, so the commonest overflow, one NUL, changes whatever it meets. */
static uint64_t pattern(uintptr_t at)
{
    uint64_t x = (bhi_process.guarded->key ^ at >> 3) * 0x9e3779b97f4a7c15u; /* golden ratio: Knuth */
    return (x ^ x >> 32) | 0x0101010101010101u;
}

static uint8_t byte_at(uintptr_t at)
{
    return (uint8_t)(pattern(at) >> (8 * (at & 7)));
}

static void fill(uintptr_t from, uintptr_t to)
{
    while (from < to) {
        if (from % 8 == 0 && to - from >= 8) {
            uint64_t word = pattern(from);
            memcpy((void *)from, &word, sizeof word); /* NOLINT: block memory is addressed by number */
            from += 8;
        } else {
            *(uint8_t *)from = byte_at(from); /* NOLINT */
            from++;
        }
    }
}

/* Address of the first byte that is not as filled, or 0. */
static uintptr_t differs(uintptr_t from, uintptr_t to)
{
    while (from < to) {
        uint64_t word;
        if (from % 8 == 0 && to - from >= 8) {
            memcpy(&word, (const void *)from, sizeof word); /* NOLINT */
            if (word == pattern(from)) {
                from += 8;
                continue;
            }
        }
        if (*(const uint8_t *)from != byte_at(from)) /* NOLINT */
            return from;
        from++;
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
