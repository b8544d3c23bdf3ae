#include "core/heap.c"

#include "window/parts.h"

void parts_heap_save(context_vars_t *to)
{
    to->in_callback = in_callback;
    to->heartbeat = heartbeat;
    to->purge_waits = purge_waits;
}

void parts_heap_load(const context_vars_t *from)
{
    in_callback = from->in_callback;
    heartbeat = from->heartbeat;
    purge_waits = from->purge_waits;
}
