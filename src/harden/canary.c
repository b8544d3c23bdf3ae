/* Canaries of any length, and the search for the damaged byte. Must not know
 * what a damage means: the caller does. */
#include "harden/canary.h"

#include "base/checked.h"

#define WIDE BH_CANARY_WIDE
#define VECTORS (WIDE / 16)
#define WIDE_WORDS (WIDE / 8)
_Static_assert(WIDE_WORDS == 2 + BH_CANARY_WORDS, "what the process keeps serves all of them but the two last");

const uint8_t bhi_canary_shown[32] BH_ALIGNED(32) = {[16 ... 31] = 0xff};

/* The same for so much: the last n bytes are set in those from n on. */
const uint8_t bhi_canary_wide_shown[2 * WIDE] BH_ALIGNED(32) = {[WIDE ... 2 * WIDE - 1] = 0xff};

typedef bhi_canary_two_t words2_t;
typedef bhi_canary_anywhere_t anywhere_t;

#ifdef BH_TESTING
bool bhi_canary_without_aes;
#else
#define bhi_canary_without_aes false
#endif

static bool knows_aes(void)
{
#if BH_CANARY_AES
    __builtin_cpu_init();
    return __builtin_cpu_supports("aes") != 0 && !bhi_canary_without_aes;
#else
    return false;
#endif
}

void bhi_canary_init(bhi_random_t *random)
{
    bhi_process.has_aes = knows_aes();
    bhi_process.canary_mul = bhi_random_u64(random) | 1;
    for (unsigned i = 0; i < BH_CANARY_KEYS; i++)
        bhi_process.canary_keys[i] = (bhi_two_words_t){bhi_random_u64(random), bhi_random_u64(random)};
    for (unsigned i = 0; i < BH_CANARY_WORDS; i++)
        bhi_process.canary_words[i] = bhi_random_u64(random);
}

/* Words n and n + 1, n = 9, 11, 13, ..., as words 0 and 1 are made. */
typedef struct pair {
    uint64_t word[2];
} pair_t;

static inline pair_t two_words(bhi_canary_t canary, uint64_t n)
{
    uint64_t at = canary.start + n * BH_CANARY_STEP, low, high = bhi_mul_wide(at, at ^ canary.key, &low);
    return (pair_t){{high ^ low, high + (low << 32 | low >> 32)}};
}

/* n >= 1. In memory words come in falling order, so those of the process do. */
static uint64_t word_of(bhi_canary_t canary, uint64_t n)
{
    if (n > WIDE_WORDS)
        return two_words(canary, (n - 1) | 1).word[(n - 1) % 2];
    if (n > 2)
        return bhi_canary_middle(canary) ^ bhi_process.canary_words[WIDE_WORDS - n];
    return n == 2 ? bhi_canary_middle(canary) : bhi_canary_tail(canary);
}

BH_INLINE words2_t shown(size_t slack, unsigned i)
{
    return *(const anywhere_t *)(const void *)(bhi_canary_wide_shown + (slack - 8) + (size_t)16 * i);
}

/* The pattern of the i-th vector of the last WIDE bytes. */
BH_INLINE words2_t wide(bhi_canary_t canary, unsigned i)
{
    uint64_t middle = bhi_canary_middle(canary);
    if (i == VECTORS - 1)
        return canary.last;
    return (words2_t){middle, middle} ^ *(const anywhere_t *)(const void *)(bhi_process.canary_words + (size_t)2 * i);
}

BH_INLINE bool is_wide(size_t slack, size_t size)
{
    return !BH_SANITIZED && bh_likely(slack <= WIDE + 8) && bh_likely(size >= WIDE);
}

/* The highest word of a slack, which word 0 covers in part or as a whole. */
BH_INLINE uint64_t last_word(size_t slack)
{
    return slack / 8;
}

BH_INLINE void write_wide(uintptr_t end, size_t slack, bhi_canary_t canary)
{
#pragma GCC unroll 8
    for (unsigned i = 0; i < VECTORS; i++)
        *(anywhere_t *)(end - WIDE + (uintptr_t)16 * i) = wide(canary, i) & shown(slack, i); /* NOLINT: block memory is addressed by number */
}

/* All but word 0; bytes before the slack are kept. */
static void write_words(uintptr_t end, size_t slack, bhi_canary_t canary)
{
    uint64_t n = 1, last = last_word(slack);
    if (last > WIDE_WORDS) {
        write_wide(end, WIDE + 8, canary);
        for (n = WIDE_WORDS + 1; n < last; n += 2) {
            pair_t words = two_words(canary, n);
            bhi_slack_store_aligned(end - 8 * n, words.word[0]);
            bhi_slack_store_aligned(end - 8 * (n + 1), words.word[1]);
        }
    }
    for (; n <= last; n++)
        bhi_slack_store_aligned(end - 8 * n, word_of(canary, n));
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
    if (!is_wide(slack, size)) {
        bhi_canary_write_any(block, requested, size, key, place);
        return;
    }
    bhi_canary_t canary = bhi_canary_of(requested, key, place);
    write_wide(block + size, slack, canary);
    bhi_slack_store64(block + requested, bhi_canary_head(canary));
}

/* 0: all but word 0 is intact, of slack that is_wide. */
BH_INLINE uint64_t wide_damage(uintptr_t end, size_t slack, bhi_canary_t canary)
{
    words2_t damage = {0, 0};
#pragma GCC unroll 8
    for (unsigned i = 0; i < VECTORS; i++)
        damage |= (*(const volatile anywhere_t *)(end - WIDE + (uintptr_t)16 * i) ^ wide(canary, i)) & shown(slack, i); /* NOLINT */
    return damage[0] | damage[1];
}

/* The same, of slack of any length. */
static uint64_t words_damage(uintptr_t end, size_t slack, bhi_canary_t canary)
{
    uint64_t n = 1, damage = 0, last = last_word(slack);
    if (!BH_SANITIZED && last > WIDE_WORDS) {
        damage = wide_damage(end, WIDE + 8, canary);
        for (n = WIDE_WORDS + 1; n + 1 < last; n += 2) {
            pair_t words = two_words(canary, n);
            damage |= (bhi_slack_load_aligned(end - 8 * n) ^ words.word[0]) | (bhi_slack_load_aligned(end - 8 * (n + 1)) ^ words.word[1]);
        }
    }
    for (; n < last; n++)
        damage |= bhi_slack_load_aligned(end - 8 * n) ^ word_of(canary, n);
    unsigned hidden = (unsigned)(8 - slack % 8); /* bytes of the last one that word 0 covers */
    return damage | ((bhi_slack_load_aligned(end - 8 * last) ^ word_of(canary, last)) >> (4 * hidden)) >> (4 * hidden);
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

static BH_NOINLINE size_t check_words(uintptr_t block, size_t requested, size_t size, uint64_t key, uint64_t place)
{
    bhi_canary_t canary = bhi_canary_of(requested, key, place);
    uint64_t damage = bhi_slack_load64(block + requested) ^ bhi_canary_head(canary);
    damage |= words_damage(block + size, size - requested, canary);
    return bh_likely(damage == 0) ? BH_CANARY_INTACT : find(block, requested, size, canary);
}

size_t bhi_canary_check_any(uintptr_t block, size_t requested, size_t size, uint64_t key, uint64_t place)
{
    size_t slack = size - requested;
    if (is_wide(slack, size)) {
        bhi_canary_t canary = bhi_canary_of(requested, key, place);
        uint64_t damage = bhi_slack_load64(block + requested) ^ bhi_canary_head(canary);
        if (bh_likely((damage | wide_damage(block + size, slack, canary)) == 0))
            return BH_CANARY_INTACT;
    }
    return check_words(block, requested, size, key, place);
}
