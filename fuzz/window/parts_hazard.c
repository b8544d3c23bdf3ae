#include "core/hazard.c"

#include "window/parts.h"

void parts_hazard_save(context_vars_t *to)
{
    to->hazard = bhi_thread_hazard;
    to->without_heap = without_heap;
}

void parts_hazard_load(const context_vars_t *from)
{
    bhi_thread_hazard = from->hazard;
    without_heap = from->without_heap;
}
