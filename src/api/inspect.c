/* Questions about heaps and blocks that have an answer for every pointer, and
 * the options by name. */
#include "bulkhead.h"

#include "core/free.h"
#include "core/heap.h"
#include "core/init.h"
#include "core/thread.h"
#include "core/visit.h"
#include "meta/arena.h"
#include "meta/segment.h"
#include "rt/format.h"
#include "rt/options.h"

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
    return bhi_block_find((uintptr_t)p, &block) && atomic_load_explicit(&block.page->heap, memory_order_relaxed) == h;
}

bool bh_check_owned(const void *p)
{
    bhi_block_t block;
    return bhi_block_find((uintptr_t)p, &block);
}

bool bh_is_in_heap_region(const void *p)
{
    return bhi_arena_of((uintptr_t)p) != NULL;
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
    int i = bhi_options_find(name);
    return i >= 0 ? i : fail(EINVAL);
}

static bool is_purge_delay(int i)
{
    return i == bhi_options_find("purge_delay");
}

static uint32_t in_force(int i)
{
    return is_purge_delay(i) ? atomic_load_explicit(&bhi_state->purge_delay, memory_order_relaxed)
                             : bhi_options_value(&bhi_process.options, i);
}

int bh_option_get(const char *name, char *buffer, size_t size)
{
    int i = option(name);
    if (i < 0)
        return -1;
    bhi_format_t text;
    bhi_format_start(&text);
    size_t length;
    const char *word = bhi_options_word(i, in_force(i), &length);
    if (word != NULL)
        bhi_format_bytes(&text, word, length);
    else
        bhi_format_number(&text, in_force(i));
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
    size_t length;
    if (i < 0)
        return -1;
    return bhi_options_word(i, 0, &length) == NULL ? (long)in_force(i) : fail(EINVAL);
}

int bh_option_set(const char *name, const char *value)
{
    int i = option(name);
    uint32_t parsed;
    if (i < 0)
        return -1;
    if (!bhi_options_parse(i, value, &parsed))
        return fail(EINVAL);
    if (!is_purge_delay(i))
        return fail(EPERM);
    bhi_purge_set_delay(parsed);
    return 0;
}
