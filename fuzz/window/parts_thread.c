#include "core/thread.c"

#include "window/parts.h"

bhi_owner_t bhi_window_self;

void parts_thread_save(context_vars_t *to)
{
    to->heap = bhi_thread_heap;
    to->ended = thread_ended;
    to->end_watched = end_watched;
}

void parts_thread_load(const context_vars_t *from)
{
    bhi_thread_heap = from->heap != NULL ? from->heap : (bhi_heap_t *)(uintptr_t)&bhi_heap_empty;
    thread_ended = from->ended;
    end_watched = from->end_watched;
}

void parts_thread_exit(void)
{
    thread_exit(&end_watched);
}
