/* Wiping of long slack, and the check of long blocks. */
#include "harden/wipe.h"

#include "base/bits.h"

void bhi_wipe_slack_any(uintptr_t slack, uintptr_t end)
{
    uintptr_t at = slack;
    for (; at < end && (at & 7) != 0; at++)
        bhi_slack_store8(at, 0);
    for (; at < end; at += 8)
        bhi_slack_store_aligned(at, 0);
}

BH_COLD size_t bhi_wipe_find(uintptr_t block, size_t size)
{
    for (size_t at = 0; at < size; at += 8) {
        uint64_t word;
        memcpy(&word, (const void *)(block + at), sizeof word); /* NOLINT */
        if (word != 0)
            return at + bhi_bit_first(word) / 8;
    }
    return BH_WIPE_CLEAN;
}

/* size > 128. */
size_t bhi_wipe_check_long(uintptr_t block, size_t size)
{
    /* The last 64 bytes, then what lies before them from the front; the two may
     * overlap, which is cheaper than a loop over what is left. */
    uintptr_t at = block, last = block + size - 64;
    bhi_words2_t seen = bhi_wipe_eight(last);
    for (; at + 64 < last; at += 128) {
        seen |= bhi_wipe_eight(at) | bhi_wipe_eight(at + 64);
        if (bh_unlikely((seen[0] | seen[1]) != 0))
            return bhi_wipe_find(block, size);
    }
    if (at < last)
        seen |= bhi_wipe_eight(at);
    return bh_likely((seen[0] | seen[1]) == 0) ? BH_WIPE_CLEAN : bhi_wipe_find(block, size);
}
