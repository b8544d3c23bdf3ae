/* Canaries: the slack of a live block, its bytes [requested, size), carries a
 * pattern that depends on page, position and requested size, and is compared
 * byte for byte. So a write that changes one byte behind the requested size is
 * seen with certainty at the next look, whatever it wrote; the keys matter only
 * for an attacker who overwrites on purpose and must guess or read the pattern.
 *
 *   slack of 4 to 8 bytes    low half of word 0, then as much as there is
 *                            room for of the end of its high half
 *   9 bytes and more         word 0, then aligned words up to the end of the
 *                            block, of the first of which only those bytes show
 *                            that word 0 leaves; the last one is word 1
 *
 * The first byte is never zero: the commonest overflow is one NUL too many. The
 * second is zero, which ends string functions that run over the end. The last
 * one is never zero: an underflow of the block behind meets it first.
 *
 * Word i is a folded product of s + i * step with itself XOR the key, s being a
 * folded product of place and requested size under the key and the secret
 * multiplier of the process. No word shows a product with that multiplier
 * itself, which link.h depends on, and no word tells another one.
 *
 * Threads: see slack.h. A check beside a thread that frees the block may find
 * anything. So who checks a block that is not its own to free looks afterwards,
 * behind an acquire fence, whether the block is still live and not held, and
 * accuses nobody if not; who frees sets held before it wipes, with a release
 * fence between.
 *
 * key: random for each page. place: of the block in its page; may be any
 * number. block is aligned to 8, size a multiple of 8, and at least
 * BH_CANARY_LEAST bytes of it are slack. */
#ifndef BH_HARDEN_CANARY_H
#define BH_HARDEN_CANARY_H

#include "base/checked.h"
#include "base/constants.h"
#include "harden/slack.h"
#include "rt/process.h"

#define BH_CANARY_LEAST ((size_t)4)
#define BH_CANARY_INTACT SIZE_MAX

/* 2^64 / golden ratio, odd: multiples of it lie far apart. */
#define BH_CANARY_STEP ((uint64_t)0x9e3779b97f4a7c15)

/* The keys of one block's pattern; on the stack, in registers. */
typedef struct bhi_canary {
    uint64_t start, key;
} bhi_canary_t;

BH_INLINE bhi_canary_t bhi_canary_of(size_t requested, uint64_t key, uint64_t place)
{
    /* The halves change places so that link.h never hashes the same word. */
    uint64_t own = key << 32 | key >> 32;
    bhi_canary_t canary = {bhi_mul_fold((place << 40 ^ requested) ^ own, &bhi_process.canary_mul), own};
    return canary;
}

BH_INLINE uint64_t bhi_canary_word(bhi_canary_t canary, uint64_t i)
{
    uint64_t at = canary.start + i * BH_CANARY_STEP, low, high = bhi_mul_wide(at, at ^ canary.key, &low);
    return high ^ low;
}

/* Word 0: bytes 0, 3 and 7 not zero, since each is the first or may be the last
 * of the slack; byte 1 zero. */
BH_INLINE uint64_t bhi_canary_head(bhi_canary_t canary)
{
    return (bhi_canary_word(canary, 0) & ~(uint64_t)0xff00) | 0x0100000001000001;
}

BH_INLINE uint64_t bhi_canary_tail(bhi_canary_t canary)
{
    return bhi_canary_word(canary, 1) | (uint64_t)1 << 56;
}

/* The rest of a slack of more than 16 bytes: all of it but word 0. */
void bhi_canary_write_long(uintptr_t block, size_t requested, size_t size, bhi_canary_t canary);
bool bhi_canary_long_intact(uintptr_t block, size_t requested, size_t size, bhi_canary_t canary);
/* Offset of the first byte that differs now, or BH_CANARY_INTACT. */
size_t bhi_canary_find(uintptr_t block, size_t requested, size_t size, bhi_canary_t canary);

/* The caller is the only one to touch the block. */
BH_INLINE void bhi_canary_write(uintptr_t block, size_t requested, size_t size, uint64_t key, uint64_t place)
{
    if (!BH_HARDEN_CANARIES)
        return;
    bhi_canary_t canary = bhi_canary_of(requested, key, place);
    uintptr_t slack = block + requested, end = block + size;
    uint64_t head = bhi_canary_head(canary);
    if (end - slack <= 8) {
        bhi_slack_store32(end - 4, (uint32_t)(head >> 32));
        bhi_slack_store32(slack, (uint32_t)head);
        return;
    }
    if (bh_likely(end - slack <= 16))
        bhi_slack_store_aligned(end - 8, bhi_canary_tail(canary));
    else
        bhi_canary_write_long(block, requested, size, canary);
    bhi_slack_store64(slack, head);
}

/* Offset of the first damaged byte from the block's start, or BH_CANARY_INTACT. */
BH_INLINE size_t bhi_canary_check(uintptr_t block, size_t requested, size_t size, uint64_t key, uint64_t place)
{
    if (!BH_HARDEN_CANARIES)
        return BH_CANARY_INTACT;
    bhi_canary_t canary = bhi_canary_of(requested, key, place);
    uintptr_t slack = block + requested, end = block + size;
    uint64_t n = end - slack, head = bhi_canary_head(canary), damage;
    if (n <= 8) {
        /* The last n - 4 bytes of the end; the front has the others. */
        uint64_t after = (uint64_t)(bhi_slack_load32(end - 4) ^ (uint32_t)(head >> 32)) >> (8 * (8 - n));
        damage = (bhi_slack_load32(slack) ^ (uint32_t)head) | after;
    } else {
        damage = bhi_slack_load64(slack) ^ head;
        if (bh_likely(n <= 16))
            damage |= (bhi_slack_load_aligned(end - 8) ^ bhi_canary_tail(canary)) >> (8 * (16 - n));
        else
            damage |= !bhi_canary_long_intact(block, requested, size, canary);
    }
    if (bh_likely(damage == 0))
        return BH_CANARY_INTACT;
    return bhi_canary_find(block, requested, size, canary);
}

#endif
