/* Call sites and their counts; see sites.h. Knows nothing of what is chosen. */
#include "harden/sites.h"

/* Of each frame all bits count, in its place: MurmurHash3's finaliser over a sum. */
static uint64_t hash_of(const uintptr_t *frames, unsigned n)
{
    uint64_t h = n;
    for (unsigned i = 0; i < n; i++) {
        h = (h ^ frames[i]) * 0xff51afd7ed558ccdu;
        h ^= h >> 33;
    }
    h *= 0xc4ceb9fe1a85ec53u;
    return h ^ h >> 33;
}

/* The site's entry, a new one if need be; NULL: there is no room. */
static _Atomic(uint32_t) *entry_of(bhi_sites_t *sites, uint64_t hash)
{
    uint32_t tag = (uint32_t)(hash >> 40) | 1; /* never nobody's */
    _Atomic(uint32_t) *set = &sites->entry[hash % (BHI_SITES / BHI_SITES_IN_SET) * BHI_SITES_IN_SET];
    for (unsigned i = 0; i < BHI_SITES_IN_SET; i++) {
        uint32_t now = atomic_load_explicit(&set[i], memory_order_relaxed);
        if (now == 0 && atomic_compare_exchange_strong_explicit(&set[i], &now, tag << 8, memory_order_relaxed, memory_order_relaxed))
            return &set[i];
        if (now >> 8 == tag)
            return &set[i];
    }
    return NULL;
}

bool bhi_sites_choose(bhi_sites_t *sites, const uintptr_t *frames, unsigned n, uint32_t most)
{
    _Atomic(uint32_t) *entry = entry_of(sites, hash_of(frames, n));
    if (entry == NULL)
        return false;
    uint32_t now = atomic_load_explicit(entry, memory_order_relaxed);
    while ((now & 0xff) < most) {
        if (atomic_compare_exchange_weak_explicit(entry, &now, now + 1, memory_order_relaxed, memory_order_relaxed))
            return true;
    }
    return false;
}
