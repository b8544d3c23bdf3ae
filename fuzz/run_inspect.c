/* Questions that a correct program may ask, and the answers that it may expect. */
#include "run.h"

#include <string.h>

#define ADDRESS(p) ((void *)(p)) /* NOLINT: blocks are numbers here */

static bool is_own(const block_t *b, uint8_t heap)
{
    return b->state == BLOCK_LIVE && b->context == window_context() && b->heap == heap && !b->orphan;
}

typedef struct visit {
    bool seen[PLACES];
    size_t areas;
} visit_t;

static bool visitor(const bh_heap_t *heap, const bh_heap_area_t *area, void *block, size_t size, void *arg)
{
    (void)heap;
    visit_t *v = arg;
    if (block == NULL) {
        v->areas++;
        return true;
    }
    uintptr_t p = (uintptr_t)block;
    for (unsigned i = 0; i < PLACES; i++) {
        const block_t *b = &model.block[i];
        if (b->state != BLOCK_LIVE || b->p != p)
            continue;
        if (v->seen[i])
            finding("block %#zx was visited twice", p);
        if (size != b->usable)
            finding("block %#zx of %zu bytes was visited with %zu", p, b->usable, size);
        v->seen[i] = true;
        return true;
    }
    if (area->block_size != size && !model.hardened)
        finding("an area of %zu bytes has a block of %zu", area->block_size, size);
    finding("block %#zx was visited and is not live", p);
}

static void visit(bh_heap_t *heap, uint8_t index)
{
    if (heap == NULL) {
        if (run.late[window_context()])
            return;
        run_regain_heap();
    }
    visit_t v = {{false}, 0};
    if (!bh_heap_visit_blocks(heap, true, visitor, &v))
        finding("a visit ended early");
    for (unsigned i = 0; i < PLACES; i++) {
        if (is_own(&model.block[i], index) && !v.seen[i] && !model.may_fail)
            finding("block %#zx was not visited", model.block[i].p);
    }
}

/* In profile hardened an address behind the requested size is still one of the block,
 * whose class the model knows only roughly. */
static bool behind_a_block(uintptr_t at)
{
    for (unsigned i = 0; model.hardened && i < PLACES; i++) {
        const block_t *b = run_live(i);
        if (b != NULL && at - b->p < 2 * (b->usable + 16) + b->alignment)
            return true;
    }
    return false;
}

/* A block of the model contains the address, and the present thread owns its heap. */
static void owned(uintptr_t at)
{
    const block_t *b = model_block_at(at);
    bool owns = bh_check_owned(ADDRESS(at));
    if (b == NULL && owns && !behind_a_block(at))
        finding("%#zx is in no live block and said to be", at);
    if (b != NULL && !owns && is_own(b, b->heap) && b->usable != 0)
        finding("%#zx is in a live block of this thread and said not to be", at);
    if (b != NULL && b->heap != NO_HEAP && is_own(b, b->heap) && !bh_heap_contains_block(run.heap[b->context][b->heap], ADDRESS(at)))
        finding("%#zx is not said to be in its heap", at);
}

static void statistics(void)
{
    bh_stats_t stats = {.struct_size = sizeof stats};
    if (!bh_stats_get(&stats))
        finding("no statistics");
    size_t bytes = 0, large = 0;
    for (unsigned i = 0; i < PLACES; i++) {
        const block_t *b = &model.block[i];
        if (b->state != BLOCK_LIVE)
            continue;
        bytes += b->size;
        large += b->usable > 128 * 1024;
    }
    if (stats.used_bytes < bytes || stats.large_count < large)
        finding("statistics count %zu bytes and %zu large blocks of %zu and %zu", stats.used_bytes, stats.large_count, bytes, large);
    char text[2048];
    size_t n = bh_stats_json(text, sizeof text);
    if (n == 0 || n >= sizeof text || text[0] != '{' || text[n - 1] != '}' || strlen(text) != n)
        finding("statistics as JSON: %s", text);
}

static void heap_statistics(bh_heap_t *heap, uint8_t index)
{
    if (heap == NULL && run.late[window_context()])
        return;
    if (heap == NULL)
        run_regain_heap();
    bh_heap_stats_t stats = {.struct_size = sizeof stats};
    if (!bh_heap_stats_get(heap, &stats))
        finding("no statistics of a heap");
    size_t count = 0;
    for (unsigned i = 0; i < PLACES; i++)
        count += is_own(&model.block[i], index);
    if (stats.used_count < count)
        finding("a heap counts %zu blocks of %zu", stats.used_count, count);
}

static void no_line(const char *line, void *arg)
{
    if (line[strlen(line) - 1] != '\n')
        finding("a line of statistics without an end");
    ++*(unsigned *)arg;
}

void run_inspect(const step_t *s)
{
    const block_t *b = run_live(s->a);
    uintptr_t at = model.block[s->a % PLACES].p + (b != NULL ? s->c % (b->usable + 1) : s->c & 63u);
    unsigned i = s->c % HEAPS, lines = 0;
    bh_heap_t *heap = run.heap[window_context()][i];
    uint8_t index = heap != NULL ? (uint8_t)i : NO_HEAP;
    switch (s->b % 10) {
    case 0:
        if (b != NULL && bh_usable_size(ADDRESS(b->p)) != b->usable)
            finding("the usable size of %#zx changed", b->p);
        break;
    case 1:
    case 2: owned(at); break;
    case 3:
        if ((b != NULL && !bh_is_in_heap_region(ADDRESS(at))) || bh_is_in_heap_region(&lines))
            finding("the region is elsewhere");
        break;
    case 4:
    case 5: visit(heap, index); break;
    case 6: statistics(); break;
    case 7: heap_statistics(heap, index); break;
    case 8:
        if (bh_good_size(program_size(s->a, s->c)) < program_size(s->a, s->c))
            finding("the good size is too small");
        break;
    default:
        bh_stats_print(no_line, &lines);
        if (lines == 0)
            finding("no lines of statistics");
    }
}
