/* Canaries of any length, and the search for the damaged byte. Must not know
 * what a damage means: the caller does. */
#include "harden/canary.h"

const uint8_t bhi_canary_shown[32] BH_ALIGNED(32) = {[16 ... 31] = 0xff};

/* The first aligned word that word 0 does not cover whole. */
static uintptr_t aligned_front(uintptr_t slack)
{
    return (slack & ~(uintptr_t)7) + 8;
}

/* Words 3 and 4 for i = 2, 5 and 6 for i = 3, and so on, as words 0 and 1 are made. */
typedef struct pair {
    uint64_t word[2];
} pair_t;

static inline pair_t two_words(bhi_canary_t canary, uint64_t i)
{
    uint64_t at = canary.start + i * BH_CANARY_STEP, low, high = bhi_mul_wide(at, at ^ canary.key, &low);
    return (pair_t){{high ^ low, high + (low << 32 | low >> 32)}};
}

void bhi_canary_write_any(uintptr_t block, size_t requested, size_t size, uint64_t key, uint64_t place)
{
    bhi_canary_t canary = bhi_canary_of(requested, key, place);
    uintptr_t at = aligned_front(block + requested), end = block + size;
    uint64_t i = 2;
    if (at < end - 8)
        bhi_slack_store_aligned(at, bhi_canary_middle(canary));
    for (at += 8; at + 16 <= end - 8; at += 16) {
        pair_t words = two_words(canary, i++);
        bhi_slack_store_aligned(at, words.word[0]);
        bhi_slack_store_aligned(at + 8, words.word[1]);
    }
    if (at < end - 8)
        bhi_slack_store_aligned(at, two_words(canary, i).word[0]);
    bhi_slack_store_aligned(end - 8, bhi_canary_tail(canary));
    bhi_slack_store64(block + requested, bhi_canary_head(canary));
}

/* Of slack of more than 24 bytes all but the first 8. */
static bool rest_intact(uintptr_t slack, uintptr_t end, bhi_canary_t canary)
{
    uintptr_t at = aligned_front(slack);
    uint64_t covered = slack + 8 - at; /* 0 to 7 bytes of the first aligned word */
    uint64_t damage = (bhi_slack_load_aligned(at) ^ bhi_canary_middle(canary)) >> (8 * covered);
    uint64_t i = 2;
    for (at += 8; at + 16 <= end - 8; at += 16) {
        pair_t words = two_words(canary, i++);
        damage |= (bhi_slack_load_aligned(at) ^ words.word[0]) | (bhi_slack_load_aligned(at + 8) ^ words.word[1]);
    }
    if (at < end - 8)
        damage |= bhi_slack_load_aligned(at) ^ two_words(canary, i).word[0];
    damage |= bhi_slack_load_aligned(end - 8) ^ bhi_canary_tail(canary);
    return damage == 0;
}

/* What the byte at `at` should be. */
static uint8_t byte_at(uintptr_t at, uintptr_t slack, uintptr_t end, bhi_canary_t canary)
{
    size_t offset = at - slack;
    if (offset < 8)
        return (uint8_t)(bhi_canary_head(canary) >> (8 * offset));
    uint64_t expected, i = ((at & ~(uintptr_t)7) - aligned_front(slack)) / 8;
    if (at >= end - 8)
        expected = bhi_canary_tail(canary);
    else
        expected = i == 0 ? bhi_canary_middle(canary) : two_words(canary, 2 + (i - 1) / 2).word[(i - 1) % 2];
    return (uint8_t)(expected >> (8 * (at & 7)));
}

static BH_COLD size_t find(uintptr_t block, size_t requested, size_t size, bhi_canary_t canary)
{
    uintptr_t slack = block + requested, end = block + size;
    for (uintptr_t at = slack; at < end; at++)
        if (bhi_slack_load8(at) != byte_at(at, slack, end, canary))
            return at - block;
    return BH_CANARY_INTACT;
}

size_t bhi_canary_check_any(uintptr_t block, size_t requested, size_t size, uint64_t key, uint64_t place)
{
    bhi_canary_t canary = bhi_canary_of(requested, key, place);
    uintptr_t slack = block + requested, end = block + size;
    if (size - requested > 24 && bh_likely(bhi_slack_load64(slack) == bhi_canary_head(canary)) && bh_likely(rest_intact(slack, end, canary)))
        return BH_CANARY_INTACT;
    return find(block, requested, size, canary);
}
