/* How long ages last. */
#include "harden/age.h"

#include "base/checked.h"

uint32_t bhi_age_length(size_t size, size_t budget)
{
    if (!BH_HARDEN_QUARANTINE)
        return 0;
    size_t least = size <= BH_AGE_SMALL ? BH_AGE_MOST : 0;
    return (uint32_t)bhi_min(bhi_max(budget / 2 / size, least), BH_AGE_MOST);
}
