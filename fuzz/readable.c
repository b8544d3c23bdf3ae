/* What tests/unit/invariants.c asks of the tests around it. */
#include "support.h"

#include "os/os.h"

bool unit_readable(uintptr_t addr)
{
    return bhi_os_readable(addr & ~(uintptr_t)7);
}
