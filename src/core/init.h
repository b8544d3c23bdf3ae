/* Start-up: once, by whoever allocates first, before any constructor if need be. */
#ifndef BH_CORE_INIT_H
#define BH_CORE_INIT_H

#include "base/compiler.h"

/* True when the allocator is ready; false when the system gave no memory (it is
 * tried again with the next allocation). */
bool bhi_init(void);

#endif
