/* Codec of free-list links: the one file that touches a block's link.
 *
 * Threat: the attacker writes, copies and replays words in free blocks, and
 * may have read all of them. A link is
 *
 *   bits 63..24  tag: 40 bits of a keyed hash of (successor, location, list)
 *   bits 23..0   successor's place (meta/types.h), XOR a part of the key
 *
 * so a link that was altered, copied to another block, another list or from an
 * earlier life of the same list, or put together from others fails to decode but
 * for one in 2^40. One step of the hash is both halves of one wide product, XORed
 * (the step that wyhash is made of), under a secret odd multiplier of the
 * process. It takes two: after one step the tags of four links whose successors
 * and places XOR to zero XOR to zero as well six times in ten million (and the
 * difference of two tags, added to a third, is a fourth once in a thousand), so
 * that who has read three can make another. After two steps that is chance
 * (tests/unit/test_link.c). It is a speed bump, not a MAC of cryptographic
 * strength.
 * Whoever knows the keys can forge links: the allocation map (map.h) stops what
 * a forged link leads to.
 *
 * A list's key is the page's random key with the list's number added to its top
 * 16 bits; page->key is that of `free`, the next one that of `local_free`. */
#ifndef BH_HARDEN_LINK_H
#define BH_HARDEN_LINK_H

#include "base/checked.h"
#include "base/constants.h"
#include "meta/types.h"

#include <string.h>

#define BH_LINK_PLACE_MASK ((uint64_t)0xffffff)

#define BH_LINK_NEXT_LIST ((uint64_t)1 << 48) /* added to a list's key: that of the list after it */

BH_INLINE uint64_t bhi_link_hash(uint64_t key, uint64_t next, uint64_t at)
{
    return bhi_mul_fold(bhi_mul_fold((at << 24 | next) ^ key, &bhi_process.link_mul), &bhi_process.link_mul);
}

/* next, at: places below 2^24; key: the list's. */
BH_INLINE uint64_t bhi_link_encode(uint64_t key, uint64_t next, uint64_t at)
{
    if (!BH_HARDEN_LINKS)
        return next;
    uint64_t tag = bhi_link_hash(key, next, at) & ~BH_LINK_PLACE_MASK;
    return tag | (next ^ (key & BH_LINK_PLACE_MASK));
}

/* Successor of the block at place `at`; false when the word is not a link of
 * this place in this list. */
BH_INLINE bool bhi_link_decode(uint64_t key, uint64_t word, uint64_t at, uint32_t *next)
{
    if (!BH_HARDEN_LINKS) {
        *next = (uint32_t)word;
        return true;
    }
    uint64_t place = (word ^ key) & BH_LINK_PLACE_MASK;
    *next = (uint32_t)place;
    return ((bhi_link_hash(key, place, at) ^ word) >> 24) == 0;
}

BH_INLINE uint64_t bhi_link_read(uintptr_t block)
{
    uint64_t word;
    memcpy(&word, (const void *)block, sizeof word); /* NOLINT: block memory is addressed by number */
    return word;
}

BH_INLINE void bhi_link_write(uintptr_t block, uint64_t word)
{
    memcpy((void *)block, &word, sizeof word); /* NOLINT */
}

#endif
