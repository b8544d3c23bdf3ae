/* Canaries: the slack of a live block, its bytes [requested, size), carries a
 * pattern that depends on page, position and requested size, and is compared
 * byte for byte. So a write that changes one byte behind the requested size is
 * seen with certainty at the next look, whatever it wrote; the keys matter only
 * for an attacker who overwrites on purpose and must guess or read the pattern.
 *
 * Word 0 comes first, where the slack begins. Behind it lie aligned words, counted from
 * the end of the block: word 1 is its last one, word 2 the one before, and so on; of the
 * one that word 0 reaches into only the bytes behind it show.
 *
 * The first byte is never zero: the commonest overflow is one NUL too many. The
 * second is zero, which ends string functions that run over the end. The last
 * one is never zero: an underflow of the block behind meets it first.
 *
 * All words of a block come from s, a folded product of place and requested size under
 * the key and the secret multiplier of the process: words 0, 1 and 2 from both halves
 * of one product of s and s XOR the key. Words 3 to 8 are word 2 XOR random ones of the
 * process, so that a vector of them costs what a word does; further ones are made two by
 * two as words 0 and 1 are, of s + i * step (canary.c). Who has read words of other
 * blocks, or of this one for another size, knows neither s nor key nor multiplier and is
 * left to guess: no word shows a half of the product alone, nor a product with that
 * multiplier itself, and each of the first three tells nothing of the two others. A
 * linear write meets word 0 or word 1 before all others.
 *
 * Threads: see slack.h. A check beside a thread that frees the block may find
 * anything. So who checks a block that is not its own to free looks afterwards,
 * behind an acquire fence, whether the block is still live and not held, and
 * accuses nobody if not; who frees sets held before it wipes, with a release
 * fence between.
 *
 * Sizes differ from one call to the next, so a branch for each length of the slack
 * would often be guessed wrong. Where it is short (24 bytes; 72 in a block of 64 or more)
 * as many words at the end of the block are loaded whole and a mask hides what is not
 * slack: bytes of the program, which may change beside, are read there and have no
 * effect. (Under a sanitizer they are not read.)
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
#include "rt/random.h"

#include <string.h>

/* A whole word: shorter slack would be a case of its own. */
#define BH_CANARY_LEAST ((size_t)8)
#define BH_CANARY_INTACT SIZE_MAX
#define BH_CANARY_WORDS 6u /* of bhi_process.canary_words */
#define BH_CANARY_SMALL ((size_t)256) /* classes up to here lie 16 bytes apart: slack of 8 to 23 bytes */

/* 2^64 / golden ratio, odd: multiples of it lie far apart. */
#define BH_CANARY_STEP ((uint64_t)0x9e3779b97f4a7c15)

/* What one block's pattern is made of; in registers. */
typedef struct bhi_canary {
    uint64_t start, key, high, low;
} bhi_canary_t;

BH_INLINE bhi_canary_t bhi_canary_of(size_t requested, uint64_t key, uint64_t place)
{
    bhi_canary_t canary = {.key = key};
    canary.start = bhi_mul_fold((place << 40 ^ requested) ^ canary.key, &bhi_process.canary_mul);
    canary.high = bhi_mul_wide(canary.start + BH_CANARY_STEP, canary.start ^ canary.key, &canary.low);
    return canary;
}

/* Word 0: bytes 0 and 7 not zero, since one is the first of the slack and the other
 * may be the last; byte 1 zero. */
BH_INLINE uint64_t bhi_canary_head(bhi_canary_t canary)
{
    return ((canary.high ^ canary.low) & ~(uint64_t)0xff00) | 0x0100000000000001;
}

/* Word 1. */
BH_INLINE uint64_t bhi_canary_tail(bhi_canary_t canary)
{
    return (canary.high + (canary.low << 32 | canary.low >> 32)) | (uint64_t)1 << 56;
}

/* Word 2. */
BH_INLINE uint64_t bhi_canary_middle(bhi_canary_t canary)
{
    return canary.high + (canary.low ^ (canary.start << 17 | canary.start >> 47));
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

/* Slack of any length. Calls, so that none of it takes registers of the common case. */
BH_NOINLINE void bhi_canary_write_any(uintptr_t block, size_t requested, size_t size, uint64_t key, uint64_t place);
BH_NOINLINE void bhi_canary_write_new_any(uintptr_t block, size_t requested, size_t size, uint64_t key, uint64_t place);
BH_NOINLINE size_t bhi_canary_check_any(uintptr_t block, size_t requested, size_t size, uint64_t key, uint64_t place);

/* Start-up: random words of the process for words 3 to 8. */
void bhi_canary_init(bhi_random_t *random);

/* Whether the common case is not the one of this block: larger blocks have longer
 * slack, and which of two cases applies to them would be guessed wrong. */
BH_INLINE bool bhi_canary_is_long(size_t slack, size_t size)
{
    return size > BH_CANARY_SMALL || slack > 24;
}

/* Keeps the bytes of the request. The caller is the only one to touch the block. */
BH_INLINE void bhi_canary_write(uintptr_t block, size_t requested, size_t size, uint64_t key, uint64_t place)
{
    if (BH_HARDEN_CANARIES)
        bhi_canary_write_any(block, requested, size, key, place);
}

/* The same of a block that reads zero, or whose contents do not matter: bytes of the
 * request may be zero afterwards. Slack of 24 bytes at most. */
BH_INLINE void bhi_canary_write_short(uintptr_t block, size_t requested, size_t size, uint64_t key, uint64_t place)
{
    if (!BH_HARDEN_CANARIES)
        return;
    bhi_canary_t canary = bhi_canary_of(requested, key, place);
    uintptr_t end = block + size;
    bhi_canary_mask_t shown = bhi_canary_mask_of(size - requested);
    bhi_slack_store_aligned(end - 16, bhi_canary_middle(canary) & shown.before);
    bhi_slack_store_aligned(end - 8, bhi_canary_tail(canary) & shown.last);
    bhi_slack_store64(block + requested, bhi_canary_head(canary));
}

/* Of any length. */
BH_INLINE void bhi_canary_write_new(uintptr_t block, size_t requested, size_t size, uint64_t key, uint64_t place)
{
    if (!BH_HARDEN_CANARIES)
        return;
    if (bhi_canary_is_long(size - requested, size))
        bhi_canary_write_new_any(block, requested, size, key, place);
    else
        bhi_canary_write_short(block, requested, size, key, place);
}

/* Of slack of 24 bytes at most, not under a sanitizer: 0 if it is intact. */
BH_INLINE uint64_t bhi_canary_damage(uintptr_t block, size_t requested, size_t size, uint64_t key, uint64_t place)
{
    bhi_canary_t canary = bhi_canary_of(requested, key, place);
    uintptr_t end = block + size;
    bhi_canary_mask_t shown = bhi_canary_mask_of(size - requested);
    uint64_t damage = bhi_slack_load64(block + requested) ^ bhi_canary_head(canary);
    damage |= (bhi_slack_load_aligned(end - 16) ^ bhi_canary_middle(canary)) & shown.before;
    return damage | ((bhi_slack_load_aligned(end - 8) ^ bhi_canary_tail(canary)) & shown.last);
}

/* Offset of the first damaged byte from the block's start, or BH_CANARY_INTACT. */
BH_INLINE size_t bhi_canary_check(uintptr_t block, size_t requested, size_t size, uint64_t key, uint64_t place)
{
    if (!BH_HARDEN_CANARIES)
        return BH_CANARY_INTACT;
    if (!BH_SANITIZED && !bhi_canary_is_long(size - requested, size) &&
        bh_likely(bhi_canary_damage(block, requested, size, key, place) == 0))
        return BH_CANARY_INTACT;
    return bhi_canary_check_any(block, requested, size, key, place);
}

#endif
