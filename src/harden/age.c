/* How long ages last. */
#include "harden/age.h"

#include "base/checked.h"

_Static_assert(BH_REUSE_BYTES / BH_AGE_SMALL * 3 / 4 >= 8, "who was freed does not come back within eight allocations");

uint32_t bhi_age_length(size_t size, size_t budget)
{
    if (!BH_HARDEN_QUARANTINE)
        return 0;
    if (size <= BH_AGE_SMALL)
        return (uint32_t)bhi_min(BH_REUSE_BYTES / size, BH_REUSE_BLOCKS) * 3 / 4;
    return (uint32_t)bhi_min(budget / size, BH_AGE_MOST);
}
