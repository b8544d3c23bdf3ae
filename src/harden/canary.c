/* Canaries of any length, and the search for the damaged byte. Must not know
 * what a damage means: the caller does. */
#include "harden/canary.h"

#include "base/checked.h"

#define WIDE 64u /* bytes at the end of a block that are compared at once */
#define VECTORS (WIDE / 16)
#define WIDE_WORDS (WIDE / 8)
_Static_assert(WIDE_WORDS == 2 + BH_CANARY_WORDS, "what the process keeps serves all of them but the two last");

const uint8_t bhi_canary_shown[32] BH_ALIGNED(32) = {[16 ... 31] = 0xff};

/* The same for so much: the last n bytes are set in those from n on. */
static const uint8_t wide_shown[2 * WIDE] BH_ALIGNED(32) = {[WIDE ... 2 * WIDE - 1] = 0xff};

typedef uint64_t words2_t __attribute__((vector_size(16), aligned(8), may_alias));

void bhi_canary_init(bhi_random_t *random)
{
    for (unsigned i = 0; i < BH_CANARY_WORDS; i++)
        bhi_process.canary_words[i] = bhi_random_u64(random);
}

/* Words 9 and 10 for i = 2, 11 and 12 for i = 3, and so on, as words 0 and 1 are made. */
typedef struct pair {
    uint64_t word[2];
} pair_t;

static inline pair_t two_words(bhi_canary_t canary, uint64_t i)
{
    uint64_t at = canary.start + i * BH_CANARY_STEP, low, high = bhi_mul_wide(at, at ^ canary.key, &low);
    return (pair_t){{high ^ low, high + (low << 32 | low >> 32)}};
}

/* n >= 1. In memory words come in falling order, so those of the process do. */
static uint64_t word_of(bhi_canary_t canary, uint64_t n)
{
    if (n == 1)
        return bhi_canary_tail(canary);
    if (n == 2)
        return bhi_canary_middle(canary);
    if (n <= WIDE_WORDS)
        return bhi_canary_middle(canary) ^ bhi_process.canary_words[WIDE_WORDS - n];
    return two_words(canary, 2 + (n - WIDE_WORDS - 1) / 2).word[(n - WIDE_WORDS - 1) % 2];
}

BH_INLINE words2_t shown(size_t slack, unsigned i)
{
    return *(const words2_t *)(const void *)(wide_shown + (slack - 8) + (size_t)16 * i);
}

/* The pattern of the i-th vector of the last WIDE bytes. */
BH_INLINE words2_t wide(bhi_canary_t canary, unsigned i)
{
    uint64_t middle = bhi_canary_middle(canary);
    if (i == VECTORS - 1)
        return (words2_t){middle, bhi_canary_tail(canary)};
    return (words2_t){middle, middle} ^ *(const words2_t *)(const void *)(bhi_process.canary_words + (size_t)2 * i);
}

BH_INLINE bool is_wide(size_t slack, size_t size)
{
    return !BH_SANITIZED && bh_likely(slack <= WIDE + 8) && bh_likely(size >= WIDE);
}

/* Words 1 to n of a slack lie in it whole; of the next one `cut` bytes do not show. */
typedef struct extent {
    uint64_t n;
    unsigned cut; /* 1 to 8 */
} extent_t;

static extent_t extent_of(size_t slack)
{
    size_t behind = slack - 8;
    return (extent_t){behind / 8, (unsigned)(8 - behind % 8)};
}

static void write_words(uintptr_t end, size_t slack, bhi_canary_t canary)
{
    extent_t extent = extent_of(slack);
    uint64_t n = 1, most = bhi_min(extent.n, WIDE_WORDS);
    for (; n <= most; n++)
        bhi_slack_store_aligned(end - 8 * n, word_of(canary, n));
    for (; n + 1 <= extent.n; n += 2) {
        pair_t words = two_words(canary, 2 + (n - WIDE_WORDS - 1) / 2);
        bhi_slack_store_aligned(end - 8 * n, words.word[0]);
        bhi_slack_store_aligned(end - 8 * (n + 1), words.word[1]);
    }
    for (; n <= extent.n; n++)
        bhi_slack_store_aligned(end - 8 * n, word_of(canary, n));
    if (extent.cut != 8) { /* whole: what is not to show of it is word 0's, which comes last */
        uint64_t word = word_of(canary, n);
        for (unsigned i = extent.cut; i < 8; i++)
            bhi_slack_store8(end - 8 * n + i, (uint8_t)(word >> (8 * i)));
    }
}

void bhi_canary_write_any(uintptr_t block, size_t requested, size_t size, uint64_t key, uint64_t place)
{
    bhi_canary_t canary = bhi_canary_of(requested, key, place);
    write_words(block + size, size - requested, canary);
    bhi_slack_store64(block + requested, bhi_canary_head(canary));
}

void bhi_canary_write_new_any(uintptr_t block, size_t requested, size_t size, uint64_t key, uint64_t place)
{
    size_t slack = size - requested;
    bhi_canary_t canary = bhi_canary_of(requested, key, place);
    uintptr_t from = block + size - WIDE;
    if (is_wide(slack, size)) {
#pragma GCC unroll 8
        for (unsigned i = 0; i < VECTORS; i++)
            *(words2_t *)(from + (uintptr_t)16 * i) = wide(canary, i) & shown(slack, i); /* NOLINT: block memory is addressed by number */
    } else {
        write_words(block + size, slack, canary);
    }
    bhi_slack_store64(block + requested, bhi_canary_head(canary));
}

/* All but word 0, of slack of any length. */
static bool words_intact(uintptr_t end, size_t slack, bhi_canary_t canary)
{
    extent_t extent = extent_of(slack);
    uint64_t n = 1, most = bhi_min(extent.n, WIDE_WORDS), damage = 0;
    for (; n <= most; n++)
        damage |= bhi_slack_load_aligned(end - 8 * n) ^ word_of(canary, n);
    for (; n + 1 <= extent.n; n += 2) {
        pair_t words = two_words(canary, 2 + (n - WIDE_WORDS - 1) / 2);
        damage |= (bhi_slack_load_aligned(end - 8 * n) ^ words.word[0]) | (bhi_slack_load_aligned(end - 8 * (n + 1)) ^ words.word[1]);
    }
    for (; n <= extent.n; n++)
        damage |= bhi_slack_load_aligned(end - 8 * n) ^ word_of(canary, n);
    if (extent.cut != 8)
        damage |= (bhi_slack_load_aligned(end - 8 * n) ^ word_of(canary, n)) >> (8 * extent.cut);
    return damage == 0;
}

/* The same of slack that is_wide. */
BH_INLINE bool wide_intact(uintptr_t end, size_t slack, bhi_canary_t canary)
{
    words2_t damage = {0, 0};
#pragma GCC unroll 8
    for (unsigned i = 0; i < VECTORS; i++)
        damage |= (*(const volatile words2_t *)(end - WIDE + (uintptr_t)16 * i) ^ wide(canary, i)) & shown(slack, i); /* NOLINT */
    return (damage[0] | damage[1]) == 0;
}

static BH_COLD size_t find(uintptr_t block, size_t requested, size_t size, bhi_canary_t canary)
{
    uintptr_t slack = block + requested, end = block + size;
    for (uintptr_t at = slack; at < end; at++) {
        uint64_t word = at - slack < 8 ? bhi_canary_head(canary) >> (8 * (at - slack)) : word_of(canary, (end - at + 7) / 8) >> (8 * (at & 7));
        if (bhi_slack_load8(at) != (uint8_t)word)
            return at - block;
    }
    return BH_CANARY_INTACT;
}

size_t bhi_canary_check_any(uintptr_t block, size_t requested, size_t size, uint64_t key, uint64_t place)
{
    size_t slack = size - requested;
    bhi_canary_t canary = bhi_canary_of(requested, key, place);
    bool head = bhi_slack_load64(block + requested) == bhi_canary_head(canary);
    bool rest = is_wide(slack, size) ? wide_intact(block + size, slack, canary) : words_intact(block + size, slack, canary);
    return bh_likely(head && rest) ? BH_CANARY_INTACT : find(block, requested, size, canary);
}
