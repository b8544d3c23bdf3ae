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
 * Words 0, 1 and 2 come from place and requested size under the key and secrets of the
 * process, so that each of them tells nothing of the two others. Where the processor has
 * AES by three of its rounds, of which the last differs for word 0 and for the pair of
 * the two others; else from s, a folded product, as both halves of one more product of
 * s and s XOR the key. Words 3 to 8 are word 2 XOR random ones of the process, so that a
 * vector of them costs what a word does; further ones are made two by two from products
 * of s + i * step (canary.c), s being with AES a part of what made word 0 that is not
 * shown. Who has read words of other blocks, or of this one for another size, knows none
 * of the secrets and is left to guess. A linear write meets word 0 or word 1 before all
 * others.
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

/* A whole word: shorter slack would be a case of its own. */
#define BH_CANARY_LEAST ((size_t)8)
#define BH_CANARY_INTACT SIZE_MAX
#define BH_CANARY_WORDS 6u /* of bhi_process.canary_words */
#define BH_CANARY_KEYS 6u  /* of bhi_process.canary_keys */
#define BH_CANARY_SMALL ((size_t)256) /* classes up to here lie 16 bytes apart: slack of 8 to 23 bytes */

/* 2^64 / golden ratio, odd: multiples of it lie far apart. */
#define BH_CANARY_STEP ((uint64_t)0x9e3779b97f4a7c15)

/* Rounds of AES: the build's processors may have them; where theirs has not,
 * bhi_process.has_aes is false. */
#if defined(__x86_64__)
#define BH_CANARY_AES 1
#else
#define BH_CANARY_AES 0
#endif

typedef bhi_two_words_t bhi_canary_two_t;
typedef bhi_canary_two_t bhi_canary_anywhere_t __attribute__((aligned(1)));

/* What one block's pattern is made of; in registers. */
typedef struct bhi_canary {
    bhi_canary_two_t head;   /* word 0, and 0 */
    bhi_canary_two_t last;   /* words 2 and 1: as they lie in memory */
    uint64_t start, key;     /* of words from the ninth on */
} bhi_canary_t;

/* Word 0: bytes 0 and 7 not zero, since one is the first of the slack and the other
 * may be the last; byte 1 zero. Of word 1 the last byte is not. */
BH_INLINE bhi_canary_t bhi_canary_from(bhi_canary_two_t head, bhi_canary_two_t last, uint64_t start, uint64_t key)
{
    const bhi_canary_two_t kept = {~(uint64_t)0xff00, 0}, set = {0x0100000000000001, 0}, set_last = {0, (uint64_t)1 << 56};
    return (bhi_canary_t){(head & kept) | set, last | set_last, start, key};
}

BH_INLINE bhi_canary_t bhi_canary_by_product(size_t requested, uint64_t key, uint64_t place)
{
    uint64_t start = bhi_mul_fold((place << 40 ^ requested) ^ key, &bhi_process.canary_mul), low;
    uint64_t high = bhi_mul_wide(start + BH_CANARY_STEP, start ^ key, &low);
    uint64_t tail = high + (low << 32 | low >> 32), middle = high + (low ^ (start << 17 | start >> 47));
    return bhi_canary_from((bhi_canary_two_t){high ^ low, 0}, (bhi_canary_two_t){middle, tail}, start, key);
}

#if BH_CANARY_AES
/* `wide`: in a function that is BH_WIDE, whose instructions are not to be mixed with
 * those of others. */
BH_INLINE bhi_canary_two_t bhi_canary_round(bhi_canary_two_t state, unsigned key, bool wide)
{
    bhi_canary_two_t next = state;
    if (wide)
        __asm__("vaesenc %2, %1, %0" : "=x"(next) : "x"(state), "m"(bhi_process.canary_keys[key]));
    else
        __asm__("aesenc %1, %0" : "+x"(next) : "m"(bhi_process.canary_keys[key]));
    return next;
}

BH_INLINE bhi_canary_t bhi_canary_by_aes(size_t requested, uint64_t key, uint64_t place, bool wide)
{
    bhi_canary_two_t state = (bhi_canary_two_t){place << 40 ^ requested ^ key, 0} ^ bhi_process.canary_keys[0];
    state = bhi_canary_round(bhi_canary_round(state, 1, wide), 2, wide);
    bhi_canary_two_t head = bhi_canary_round(state ^ bhi_process.canary_keys[3], 4, wide);
    return bhi_canary_from(head, bhi_canary_round(state, 5, wide), head[1], key);
}
#endif

BH_INLINE bhi_canary_t bhi_canary_of(size_t requested, uint64_t key, uint64_t place)
{
#if BH_CANARY_AES
    if (bh_likely(bhi_process.has_aes))
        return bhi_canary_by_aes(requested, key, place, false);
#endif
    return bhi_canary_by_product(requested, key, place);
}

/* The same in a function that is BH_WIDE, where bhi_process.short_ways is set. */
BH_INLINE bhi_canary_t bhi_canary_soon(size_t requested, uint64_t key, uint64_t place)
{
#if BH_CANARY_AES
    return bhi_canary_by_aes(requested, key, place, true);
#else
    return bhi_canary_by_product(requested, key, place);
#endif
}

BH_INLINE uint64_t bhi_canary_head(bhi_canary_t canary)
{
    return canary.head[0];
}

/* Word 1. */
BH_INLINE uint64_t bhi_canary_tail(bhi_canary_t canary)
{
    return canary.last[1];
}

/* Word 2. */
BH_INLINE uint64_t bhi_canary_middle(bhi_canary_t canary)
{
    return canary.last[0];
}

/* Masks of the two last words of a block: those of them that show, the last n bytes,
 * are set in the 16 bytes from n on. */
extern BH_HIDDEN const uint8_t bhi_canary_shown[32];

/* slack: 8 to 24 bytes, of which word 0 covers the first. */
BH_INLINE bhi_canary_two_t bhi_canary_mask_of(size_t slack)
{
    return *(const bhi_canary_anywhere_t *)(const void *)(bhi_canary_shown + (slack - 8));
}

/* The same for the last BH_CANARY_WIDE bytes, which are compared at once. */
#define BH_CANARY_WIDE 64u
extern BH_HIDDEN const uint8_t bhi_canary_wide_shown[2 * BH_CANARY_WIDE];

/* Slack of any length. Calls, so that none of it takes registers of the common case. */
BH_NOINLINE void bhi_canary_write_any(uintptr_t block, size_t requested, size_t size, uint64_t key, uint64_t place);
BH_NOINLINE void bhi_canary_write_new_any(uintptr_t block, size_t requested, size_t size, uint64_t key, uint64_t place);
BH_NOINLINE size_t bhi_canary_check_any(uintptr_t block, size_t requested, size_t size, uint64_t key, uint64_t place);

/* Start-up: the secrets of the process. */
void bhi_canary_init(bhi_random_t *random);

#ifdef BH_TESTING
extern bool bhi_canary_without_aes; /* as on a processor that has none; before start-up */
#endif

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
BH_INLINE void bhi_canary_write_short(uintptr_t block, size_t requested, size_t size, bhi_canary_t canary)
{
    uintptr_t end = block + size;
    bhi_canary_two_t last = canary.last & bhi_canary_mask_of(size - requested);
    if (BH_SANITIZED) {
        bhi_slack_store_aligned(end - 16, last[0]);
        bhi_slack_store_aligned(end - 8, last[1]);
    } else {
        *(bhi_canary_anywhere_t *)(end - 16) = last; /* NOLINT: block memory is addressed by number */
    }
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
        bhi_canary_write_short(block, requested, size, bhi_canary_of(requested, key, place));
}

/* Of slack of 24 bytes at most, not under a sanitizer: 0 if it is whole. */
BH_INLINE bhi_canary_two_t bhi_canary_damage(uintptr_t block, size_t requested, size_t size, bhi_canary_t canary)
{
    bhi_canary_two_t front = {bhi_slack_load64(block + requested), 0};
    bhi_canary_two_t last = *(const volatile bhi_canary_anywhere_t *)(block + size - 16); /* NOLINT */
    return ((last ^ canary.last) & bhi_canary_mask_of(size - requested)) | (front ^ canary.head);
}

BH_INLINE bool bhi_canary_is_whole(bhi_canary_two_t damage)
{
    return (damage[0] | damage[1]) == 0;
}

#if BH_CANARY_AES
typedef uint64_t bhi_canary_four_t __attribute__((vector_size(32), may_alias, aligned(1)));

/* The pattern of all of the last BH_CANARY_WIDE bytes but for word 0: of the first half of
 * them, then of the second. */
BH_WIDE BH_INLINE void bhi_canary_wide(bhi_canary_t canary, bhi_canary_four_t pattern[2])
{
    const uint64_t *words = bhi_process.canary_words;
    uint64_t middle = bhi_canary_middle(canary);
    pattern[0] = (bhi_canary_four_t){middle, middle, middle, middle} ^ *(const bhi_canary_four_t *)(const void *)words;
    pattern[1] = (bhi_canary_four_t){middle ^ words[4], middle ^ words[5], canary.last[0], canary.last[1]};
}

/* As bhi_canary_write_short and bhi_canary_damage, of slack of BH_CANARY_WIDE + 8 bytes
 * at most in a block of more. */
BH_WIDE BH_INLINE void bhi_canary_write_wide(uintptr_t block, size_t requested, size_t size, bhi_canary_t canary)
{
    const bhi_canary_four_t *shown = (const bhi_canary_four_t *)(const void *)(bhi_canary_wide_shown + (size - requested - 8));
    bhi_canary_four_t *at = (bhi_canary_four_t *)(block + size - BH_CANARY_WIDE), pattern[2]; /* NOLINT: block memory is addressed by number */
    bhi_canary_wide(canary, pattern);
    at[0] = pattern[0] & shown[0];
    at[1] = pattern[1] & shown[1];
    bhi_slack_store64(block + requested, bhi_canary_head(canary));
}

BH_WIDE BH_INLINE bool bhi_canary_is_whole_wide(uintptr_t block, size_t requested, size_t size, bhi_canary_t canary)
{
    typedef long long test4_t __attribute__((vector_size(32)));
    const bhi_canary_four_t *shown = (const bhi_canary_four_t *)(const void *)(bhi_canary_wide_shown + (size - requested - 8));
    const volatile bhi_canary_four_t *at = (const volatile bhi_canary_four_t *)(block + size - BH_CANARY_WIDE); /* NOLINT */
    bhi_canary_four_t pattern[2];
    bhi_canary_wide(canary, pattern);
    bhi_canary_four_t damage = ((at[0] ^ pattern[0]) & shown[0]) | ((at[1] ^ pattern[1]) & shown[1]);
    damage |= (bhi_canary_four_t){bhi_slack_load64(block + requested) ^ bhi_canary_head(canary), 0, 0, 0};
    return __builtin_ia32_ptestz256((test4_t)damage, (test4_t)damage) != 0;
}
#endif

/* Offset of the first damaged byte from the block's start, or BH_CANARY_INTACT. */
BH_INLINE size_t bhi_canary_check(uintptr_t block, size_t requested, size_t size, uint64_t key, uint64_t place)
{
    if (!BH_HARDEN_CANARIES)
        return BH_CANARY_INTACT;
    if (!BH_SANITIZED && !bhi_canary_is_long(size - requested, size) &&
        bh_likely(bhi_canary_is_whole(bhi_canary_damage(block, requested, size, bhi_canary_of(requested, key, place)))))
        return BH_CANARY_INTACT;
    return bhi_canary_check_any(block, requested, size, key, place);
}

#endif
