/* Canaries: the slack of a live block, its bytes [requested, size), carries a
 * pattern that depends on page, position and requested size, and is compared
 * byte for byte. So a write that changes one byte behind the requested size is
 * seen with certainty at the next look, whatever it wrote; the keys matter only
 * for an attacker who overwrites on purpose and must guess or read the pattern.
 *
 * Word 0 comes first, then aligned words up to the end of the block, of the first
 * of which only those bytes show that word 0 leaves; the last one is word 1.
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
 * Sizes differ from one call to the next, so a branch for each length of the slack
 * would often be guessed wrong. Where it is 24 bytes at most the two last words of
 * the block are loaded whole and a mask hides what is not slack: bytes of the
 * program, which may change beside, are read there and have no effect. (Under a
 * sanitizer they are not read.)
 *
 * key: random for each page. place: of the block in its page; may be any
 * number. block is aligned to 8, size a multiple of 8 and at least 16, and at least
 * BH_CANARY_LEAST bytes of it are slack. */
#ifndef BH_HARDEN_CANARY_H
#define BH_HARDEN_CANARY_H

#include "base/checked.h"
#include "base/constants.h"
#include "harden/slack.h"
#include "rt/process.h"

#include <string.h>

/* A whole word: shorter slack would be a case of its own. */
#define BH_CANARY_LEAST ((size_t)8)
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
    bhi_canary_t canary = {bhi_mul_fold((place << 40 ^ requested) ^ own, &bhi_process.link_mul), own};
    return canary;
}

BH_INLINE uint64_t bhi_canary_word(bhi_canary_t canary, uint64_t i)
{
    uint64_t at = canary.start + i * BH_CANARY_STEP, low, high = bhi_mul_wide(at, at ^ canary.key, &low);
    return high ^ low;
}

/* Word 0: bytes 0 and 7 not zero, since one is the first of the slack and the other
 * may be the last; byte 1 zero. */
BH_INLINE uint64_t bhi_canary_head(bhi_canary_t canary)
{
    return (bhi_canary_word(canary, 0) & ~(uint64_t)0xff00) | 0x0100000000000001;
}

BH_INLINE uint64_t bhi_canary_tail(bhi_canary_t canary)
{
    return bhi_canary_word(canary, 1) | (uint64_t)1 << 56;
}

/* Masks of the two last words of a block: those of them that show, the last n bytes,
 * are set in the 16 bytes from n on. */
extern BH_HIDDEN const uint8_t bhi_canary_shown[32];

typedef struct bhi_canary_mask {
    uint64_t before, last;
} bhi_canary_mask_t;

/* slack: 8 to 24 bytes, of which word 0 covers the first. */
BH_INLINE bhi_canary_mask_t bhi_canary_mask_of(size_t slack)
{
    bhi_canary_mask_t mask;
    memcpy(&mask, bhi_canary_shown + (slack - 8), sizeof mask);
    return mask;
}

/* The same for slack of more than 24 bytes: all of it but word 0. */
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
    if (bh_likely(end - slack <= 24)) {
        bhi_canary_mask_t shown = bhi_canary_mask_of(end - slack);
        uint64_t before = bhi_slack_load_aligned(end - 16) & ~shown.before, last = bhi_slack_load_aligned(end - 8) & ~shown.last;
        bhi_slack_store_aligned(end - 16, before | (bhi_canary_word(canary, 2) & shown.before));
        bhi_slack_store_aligned(end - 8, last | (bhi_canary_tail(canary) & shown.last));
    } else {
        bhi_canary_write_long(block, requested, size, canary);
    }
    bhi_slack_store64(slack, bhi_canary_head(canary));
}

/* Offset of the first damaged byte from the block's start, or BH_CANARY_INTACT. */
BH_INLINE size_t bhi_canary_check(uintptr_t block, size_t requested, size_t size, uint64_t key, uint64_t place)
{
    if (!BH_HARDEN_CANARIES)
        return BH_CANARY_INTACT;
    bhi_canary_t canary = bhi_canary_of(requested, key, place);
    uintptr_t slack = block + requested, end = block + size;
    if (BH_SANITIZED && end - slack <= 24)
        return bhi_canary_find(block, requested, size, canary);
    uint64_t damage = bhi_slack_load64(slack) ^ bhi_canary_head(canary);
    if (bh_likely(end - slack <= 24)) {
        bhi_canary_mask_t shown = bhi_canary_mask_of(end - slack);
        damage |= (bhi_slack_load_aligned(end - 16) ^ bhi_canary_word(canary, 2)) & shown.before;
        damage |= (bhi_slack_load_aligned(end - 8) ^ bhi_canary_tail(canary)) & shown.last;
    } else {
        damage |= !bhi_canary_long_intact(block, requested, size, canary);
    }
    if (bh_likely(damage == 0))
        return BH_CANARY_INTACT;
    return bhi_canary_find(block, requested, size, canary);
}

#endif
