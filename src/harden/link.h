/* Codec of free-list links: the one file that touches a block's link.
 *
 * Threat: the attacker writes, copies and replays words in free blocks, and
 * may have read all of them. A link is
 *
 *   bits 63..24  tag: 40 bits of a keyed hash of (successor, location, list)
 *   bits 23..0   successor's index, XOR a part of the key
 *
 * so a link that was altered, or copied to another block, another list or from
 * an earlier life of the same list fails to decode but for one in 2^40. The
 * hash is two rounds of multiply and xor-shift with a key of the page and two
 * secret odd multipliers of the process; it is a speed bump, not a MAC of
 * cryptographic strength. Whoever knows the keys can forge links: the
 * allocation map (map.h) stops what a forged link leads to. */
#ifndef BH_HARDEN_LINK_H
#define BH_HARDEN_LINK_H

#include "base/constants.h"
#include "meta/types.h"

#include <string.h>

#define BH_LINK_INDEX_MASK ((uint64_t)0xffffff)

BH_INLINE uint64_t bhi_link_hash(uint64_t key, uint32_t next, uint32_t at, uint16_t list)
{
    uint64_t x = ((uint64_t)next | (uint64_t)at << 24 | (uint64_t)list << 48) ^ key;
    x *= bhi_process.link_mul[0];
    x ^= x >> 32;
    return x * bhi_process.link_mul[1];
}

BH_INLINE uint64_t bhi_link_encode(uint64_t key, uint32_t next, uint32_t at, uint16_t list)
{
    if (!BH_HARDEN_LINKS)
        return next;
    uint64_t tag = bhi_link_hash(key, next, at, list) & ~BH_LINK_INDEX_MASK;
    return tag | (next ^ (key & BH_LINK_INDEX_MASK));
}

/* Successor of the block at index `at`; false when the word is not a link of
 * this place in this list. */
BH_INLINE bool bhi_link_decode(uint64_t key, uint64_t word, uint32_t at, uint16_t list, uint32_t *next)
{
    if (!BH_HARDEN_LINKS) {
        *next = (uint32_t)word;
        return true;
    }
    *next = (uint32_t)((word ^ key) & BH_LINK_INDEX_MASK);
    return ((bhi_link_hash(key, *next, at, list) ^ word) >> 24) == 0;
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
