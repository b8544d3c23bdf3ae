/* Call sites, by a hash of their stack, and how often each was chosen: option
 * guarded_first_site. A table of fixed size, in control data that are never given
 * back: sets of entries, each a tag and a count.
 *
 *   U1  a tag stays in its entry from the compare-and-swap that put it there on
 *   U2  a count never falls, and is at most what was asked for
 *
 * No lock. Two threads that meet a new site at once may each take an entry: it is then
 * chosen up to twice as often. Another site is taken for a known one with probability
 * 2^-20 at most (8 tags of 23 bits in its set). Once a set is full, further sites in it are not
 * chosen: bounded by BHI_SITES. */
#ifndef BH_HARDEN_SITES_H
#define BH_HARDEN_SITES_H

#include "base/constants.h"

#include <stdatomic.h>

#define BHI_SITES (1u << 16)
#define BHI_SITES_IN_SET 8u
#define BHI_SITES_MOST 255u

typedef struct bhi_sites {
    _Atomic(uint32_t) entry[BHI_SITES]; /* tag << 8 | count; 0: nobody's */
} bhi_sites_t;

/* Whether the site of these frames was chosen fewer than `most` times; it then is once
 * more. n > 0, most <= BHI_SITES_MOST. */
bool bhi_sites_choose(bhi_sites_t *sites, const uintptr_t *frames, unsigned n, uint32_t most);

#endif
