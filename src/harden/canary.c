/* Canaries of any length, and the search for the damaged byte. Must not know
 * what a damage means: the caller does. */
#include "harden/canary.h"

const uint8_t bhi_canary_shown[32] BH_ALIGNED(32) = {[16 ... 31] = 0xff};

/* The first aligned word that word 0 does not cover whole. */
static uintptr_t aligned_front(uintptr_t slack)
{
    return (slack & ~(uintptr_t)7) + 8;
}

/* The words in [at, end - 8) are words 2, 3, ... */
static uint64_t aligned_word(bhi_canary_t canary, uintptr_t front, uintptr_t at, uintptr_t end)
{
    return at == end - 8 ? bhi_canary_tail(canary) : bhi_canary_word(canary, 2 + (at - front) / 8);
}

void bhi_canary_write_any(uintptr_t block, size_t requested, size_t size, uint64_t key, uint64_t place)
{
    bhi_canary_t canary = bhi_canary_of(requested, key, place);
    uintptr_t end = block + size;
    uint64_t i = 2;
    for (uintptr_t at = aligned_front(block + requested); at < end - 8; at += 8)
        bhi_slack_store_aligned(at, bhi_canary_word(canary, i++));
    bhi_slack_store_aligned(end - 8, bhi_canary_tail(canary));
    bhi_slack_store64(block + requested, bhi_canary_head(canary));
}

/* Of slack of more than 24 bytes all but the first 8. */
static bool rest_intact(uintptr_t slack, uintptr_t end, bhi_canary_t canary)
{
    uintptr_t at = aligned_front(slack);
    uint64_t covered = slack + 8 - at; /* 0 to 7 bytes of the first aligned word */
    uint64_t damage = (bhi_slack_load_aligned(at) ^ bhi_canary_middle(canary)) >> (8 * covered);
    uint64_t i = 3;
    for (at += 8; at < end - 8; at += 8)
        damage |= bhi_slack_load_aligned(at) ^ bhi_canary_word(canary, i++);
    damage |= bhi_slack_load_aligned(end - 8) ^ bhi_canary_tail(canary);
    return damage == 0;
}

/* What the byte at `at` should be. */
static uint8_t byte_at(uintptr_t at, uintptr_t slack, uintptr_t end, bhi_canary_t canary)
{
    size_t offset = at - slack;
    if (offset < 8)
        return (uint8_t)(bhi_canary_head(canary) >> (8 * offset));
    uintptr_t word = at & ~(uintptr_t)7;
    return (uint8_t)(aligned_word(canary, aligned_front(slack), word, end) >> (8 * (at & 7)));
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
