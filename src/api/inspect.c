/* Questions about heaps and blocks that have an answer for every pointer, and
 * the options by name. */
#include "bulkhead.h"

#include "core/free.h"
#include "core/hardened.h"
#include "core/heap.h"
#include "core/init.h"
#include "core/sampled.h"
#include "core/thread.h"
#include "core/visit.h"
#include "meta/arena.h"
#include "meta/segment.h"
#include "os/os.h"
#include "rt/format.h"
#include "rt/options.h"
#include "rt/settings.h"

#include <errno.h>
#include <string.h>

/* NULL: the default heap, which may be the constant empty one: without pages. */
static bhi_heap_t *mine_or_default(const bh_heap_t *heap)
{
    return heap != NULL ? bhi_heap_of_handle(heap, bhi_thread_self()) : bhi_thread_heap;
}

bool bh_heap_contains_block(bh_heap_t *heap, const void *p)
{
    const bhi_heap_t *h = mine_or_default(heap);
    bhi_block_t block;
    if (bhi_guarded_contains((uintptr_t)p))
        return bhi_sampled_owns(h, (uintptr_t)p);
    return bhi_block_find((uintptr_t)p, &block) && atomic_load_explicit(&block.page->heap, memory_order_relaxed) == h;
}

bool bh_check_owned(const void *p)
{
    bhi_block_t block;
    if (bhi_guarded_contains((uintptr_t)p))
        return bhi_sampled_owns(NULL, (uintptr_t)p);
    return bhi_block_find((uintptr_t)p, &block);
}

bool bh_is_in_heap_region(const void *p)
{
    return bhi_arena_of((uintptr_t)p) != NULL || bhi_guarded_contains((uintptr_t)p);
}

bool bh_heap_visit_blocks(bh_heap_t *heap, bool visit_blocks, bh_block_visit_fun *visitor, void *arg)
{
    bhi_heap_t *h = mine_or_default(heap);
    return h == &bhi_heap_empty || bhi_heap_visit(h, heap, visit_blocks, visitor, arg);
}

/* ------------------------------------------------------------------ options */

static int fail(int error)
{
    errno = error;
    return -1;
}

/* Index of an option; what it stands at is known from start-up on. */
static int option(const char *name)
{
    if (!bhi_init())
        return fail(ENOMEM);
    int i = bhi_options_find(name, strlen(name));
    return i >= 0 ? i : fail(EINVAL);
}

/* The options as they stand: those of start-up and what was changed since. */
static void in_force(bhi_options_t *out)
{
    *out = bhi_process.options;
    out->purge_delay = atomic_load_explicit(&bhi_settings.purge_delay, memory_order_relaxed);
}

int bh_option_get(const char *name, char *buffer, size_t size)
{
    int i = option(name);
    if (i < 0)
        return -1;
    bhi_options_t now;
    in_force(&now);
    bhi_format_t text;
    bhi_format_start(&text);
    bhi_options_text(&text, &now, i);
    if (size > 0) {
        size_t n = text.length < size ? text.length : size - 1;
        memcpy(buffer, text.text, n);
        buffer[n] = '\0';
    }
    return (int)text.length;
}

long bh_option_get_long(const char *name)
{
    int i = option(name);
    if (i < 0)
        return -1;
    bhi_options_t now;
    in_force(&now);
    uint64_t value;
    return bhi_options_number(&now, i, &value) ? (long)value : fail(EINVAL);
}

int bh_option_set(const char *name, const char *value)
{
    int i = option(name);
    if (i < 0)
        return -1;
    bhi_options_t wanted = bhi_process.options;
    if (!bhi_options_assign(&wanted, i, (bhi_profile_t)wanted.profile, value, strlen(value)))
        return fail(EINVAL);
    if (i != bhi_options_find("purge_delay", 11) || !bhi_purge_set_delay(wanted.purge_delay))
        return fail(EPERM);
    return 0;
}

size_t bh_verify(void)
{
    return bhi_is_hardened() ? bhi_heap_verify(bhi_thread_self(), UINT64_MAX) : 0;
}

#define EXIT_MS 2000 /* the look at all blocks when the process ends */

/* After the program's own destructors and its functions for atexit. */
__attribute__((destructor(101))) static void verify_at_exit(void)
{
    if (bhi_is_hardened())
        bhi_heap_verify(bhi_thread_self(), bhi_os_now_ms() + EXIT_MS);
}

bool bh_seal(void)
{
    if (!bhi_init())
        return false;
    bhi_state_lock();
    bool sealed = bhi_settings_seal();
    bhi_state_unlock();
    return sealed;
}
