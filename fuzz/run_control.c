/* Attacks on control data, through the window: an attacker with a write anywhere, who
 * is out of scope. Promised: the report of whatever is found never fails. Faults and wild
 * kernel calls of the allocator end the run and are no findings, nor is an address outside
 * the reservation, but with FUZZ_STRICT in the environment the two last: nothing tells
 * overwritten descriptors from true ones. See README.md. */
#include "run.h"

#include "core/describe.h"
#include "meta/arena.h"

#include <stdlib.h>
#include <string.h>

static const bhi_page_t *page_of(unsigned place)
{
    const block_t *b = &model.block[place % PLACES];
    if (b->state == BLOCK_NONE || b->p - window_places.blocks >= 8 * BH_SEGMENT_SIZE || !run_has_page(b->p))
        return NULL;
    return bhi_desc_first(bhi_desc_at(window_places.descs, b->p - window_places.blocks));
}

/* Start and size of a region; 0: there is none. */
static uintptr_t region(const step_t *s, size_t *size)
{
    const bhi_page_t *page = page_of(s->a >> 3);
    const bhi_heap_t *heap = page != NULL ? atomic_load(&page->heap) : NULL;
    switch (s->a & 7) {
    case 0:
    case 1: *size = sizeof *page; return (uintptr_t)page;
    case 2: *size = page != NULL ? page->block_size == 0 ? BHI_MAP_SINGLE_BYTES : bhi_map_bytes(page->reserved) : 0; return page != NULL ? (uintptr_t)page->map : 0;
    case 3: *size = sizeof *heap; return (uintptr_t)heap;
    case 4: *size = 2 * sizeof(bhi_segment_t); return window_places.headers;
    case 5: *size = sizeof(bhi_state_t); return window_places.state;
    case 6: *size = window_pool_used(); return window_places.pool;
    default: *size = (size_t)BH_SEGMENT_SLOTS << BH_PAGE_DESC_SHIFT; return window_places.descs;
    }
}

static uintptr_t aim(const step_t *s)
{
    size_t size;
    uintptr_t at = region(s, &size);
    if (at == 0 || size < 8 || (at - window_places.descs >= ((size_t)1 << 40) && at - window_places.state >= ((size_t)1 << 40)))
        return 0;
    size_t words = size / 8, word = words <= 256 ? s->b % words : (size_t)s->b * words / 256;
    return at + word * 8;
}

static uint64_t *word_at(uintptr_t at)
{
    return (uint64_t *)at; /* NOLINT: an address in control data */
}

static uint64_t evil(uint8_t c)
{
    const block_t *b = &model.block[c % PLACES];
    switch (c >> 5) {
    case 0: return c & 31;
    case 1: return ~(uint64_t)(c & 31);
    case 2: return b->p;
    case 3: return window_places.descs + (uint64_t)(c & 31) * 128;
    case 4: return window_places.headers + (uint64_t)(c & 31) * 512;
    case 5: return window_places.pool + (uint64_t)(c & 31) * 64;
    case 6: return (uint64_t)1 << (c & 31) << (c & 32);
    default: return 0x9e3779b97f4a7c15u * c;
    }
}

static void begin(void)
{
    model.control = model.may_fail = true;
    model.allowed = ~(uint64_t)0;
    window_distrust();
    window_impatient();
}

static void swap(const step_t *s)
{
    bhi_page_t *x = (bhi_page_t *)(uintptr_t)page_of(s->a), *y = (bhi_page_t *)(uintptr_t)page_of(s->b);
    if (x == NULL || y == NULL || x == y)
        return;
    begin();
    if ((s->c & 1) != 0) {
        bhi_map_block_t *map = x->map;
        x->map = y->map;
        y->map = map;
    } else {
        bhi_page_t kept = *x;
        memcpy(x, y, sizeof *x);
        memcpy(y, &kept, sizeof *y);
    }
}

void run_control(const step_t *s)
{
    SAY("/* %s in control data: only the harness can do that */", program_op_name(s->op));
    if (s->op == OP_SWAP) {
        swap(s);
        return;
    }
    uintptr_t at = aim(s);
    if (at == 0)
        return;
    begin();
    *word_at(at) = s->op == OP_FLIP ? *word_at(at) ^ (uint64_t)1 << (s->c & 63) : evil(s->c);
}
