/* The bytes around a guarded block that are the program's neither; see guarded.h.
 * Whoever calls these is the only one to touch the slot. */
#include "harden/guarded.h"

#include "base/bits.h"
#include "base/checked.h"
#include "os/os.h"

/* A Weyl sequence over all aligned words of memory: keyed, different in each word, and one
 * addition from a word to the next. */
#define STEP 0x9e3779b97f4a7c15u /* golden ratio: Knuth, multiplicative hashing */

/* Two words behind each other. */
typedef uint64_t words_t __attribute__((vector_size(16), aligned(8), may_alias));

static uint64_t key(void)
{
    return bhi_process.guarded->key;
}

BH_INLINE uint64_t state_of(uintptr_t at)
{
    return key() + (at >> 3) * STEP;
}

/* Odd bytes are never zero, so the commonest overflow, one NUL, changes whatever it
 * meets. */
#define ODD 0x0101010101010101u
BH_INLINE uint64_t pattern(uintptr_t at)
{
    return state_of(at) | ODD;
}

static uint8_t byte_at(uintptr_t at)
{
    return (uint8_t)(pattern(at) >> (8 * (at & 7)));
}

/* The word at `at`, a multiple of 8, some of whose bytes may be the block's. */
BH_INLINE uint64_t *word_at(uintptr_t at)
{
    return (uint64_t *)at; /* NOLINT: block memory is addressed by number */
}

BH_INLINE words_t *words_at(uintptr_t at)
{
    return (words_t *)at; /* NOLINT: the same */
}

BH_INLINE void fill_part(uintptr_t at, uint64_t with, uint64_t ours)
{
    *word_at(at) = (*word_at(at) & ~ours) | (with & ours);
}

/* Bytes of a word: all but the first n of 0 to 7, and the first n. */
#define BUT_FIRST(n) (UINT64_MAX << 8 * (n))
#define FIRST(n) (~BUT_FIRST(n))

BH_INLINE words_t states_of(uintptr_t at)
{
    uint64_t first = state_of(at);
    return (words_t){first, first + STEP};
}

/* The words from `at` to `last`. */
BH_INLINE void fill_words(uintptr_t at, uintptr_t last)
{
    words_t states = states_of(at);
    for (; last - at >= sizeof(words_t); at += sizeof(words_t), states += 2 * STEP)
        *words_at(at) = states | ODD;
    if (bh_unlikely(at != last))
        *word_at(at) = pattern(at);
}

static BH_NOINLINE void fill_bytes(uintptr_t from, uintptr_t to)
{
    uintptr_t at = bhi_align_down(from, 8), last = bhi_align_down(to, 8);
    if (at < last && from != at) {
        fill_part(at, pattern(at), BUT_FIRST(from - at));
        from = at += 8;
    }
    if (at < last) {
        fill_words(at, last);
        from = last;
    }
    if (from < to)
        fill_part(last, pattern(last), BUT_FIRST(from - last) & FIRST(to - last));
}

/* Mostly they are whole words. */
BH_INLINE void fill(uintptr_t from, uintptr_t to)
{
    if (bh_likely(((from | to) & 7) == 0))
        fill_words(from, to);
    else
        fill_bytes(from, to);
}

/* Whether the words from `at` to `last` are as filled. */
BH_INLINE bool same_words(uintptr_t at, uintptr_t last)
{
    words_t states = states_of(at), changed = {0, 0};
    for (; last - at >= sizeof(words_t); at += sizeof(words_t), states += 2 * STEP)
        changed |= *words_at(at) ^ (states | ODD);
    if (bh_unlikely(at != last))
        changed[0] |= *word_at(at) ^ pattern(at);
    return (changed[0] | changed[1]) == 0;
}

/* Address of the first byte that is not as filled, or 0. */
static uintptr_t find(uintptr_t from, uintptr_t to)
{
    uint64_t ours = BUT_FIRST(from & 7);
    for (uintptr_t at = bhi_align_down(from, 8); at < to; at += 8, ours = UINT64_MAX) {
        uint64_t changed = (*word_at(at) ^ pattern(at)) & ours;
        if (to - at < 8)
            changed &= FIRST(to - at);
        if (changed != 0)
            return at + bhi_bit_first(changed) / 8;
    }
    return 0;
}

/* The same, by words as far as there are whole ones. */
static BH_NOINLINE uintptr_t find_any(uintptr_t from, uintptr_t to)
{
    uintptr_t at = bhi_align_up(from, 8), last = bhi_align_down(to, 8);
    if (at < last && same_words(at, last)) {
        uintptr_t before = at != from ? find(from, at) : 0;
        if (before != 0)
            return before;
        from = last;
    }
    return from < to ? find(from, to) : 0;
}

BH_INLINE uintptr_t differs(uintptr_t from, uintptr_t to)
{
    bool same = bh_likely(((from | to) & 7) == 0) && bh_likely(same_words(from, to));
    return same ? 0 : find_any(from, to);
}

typedef struct around {
    uintptr_t front, end, behind; /* patterns from front to the block, and from end to behind */
} around_t;

BH_INLINE around_t around(const bhi_guarded_t *g)
{
    uintptr_t data = bhi_guarded_data(g), end = g->block + g->size;
    return (around_t){g->block - bhi_min(g->block - data, BHI_GUARDED_FRONT), end, bhi_min(end + BHI_GUARDED_BEHIND, data + bhi_guarded_bytes(g))};
}

void bhi_guarded_fill(const bhi_guarded_t *g)
{
    around_t a = around(g);
    if (a.front != g->block)
        fill(a.front, g->block);
    if (a.end != a.behind)
        fill(a.end, a.behind);
}

uintptr_t bhi_guarded_damage(const bhi_guarded_t *g)
{
    around_t a = around(g);
    uintptr_t at = a.end != a.behind ? differs(a.end, a.behind) : 0;
    return at != 0 || a.front == g->block ? at : differs(a.front, g->block);
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
    around_t a = around(g);
    uintptr_t at = copy_differs(a.end, a.behind);
    return at != 0 ? at : copy_differs(a.front, g->block);
}
