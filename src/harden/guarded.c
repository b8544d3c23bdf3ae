/* Slots for guarded blocks; see guarded.h. Owns D1 to D4. Knows nothing of which
 * allocations are guarded, nor of reports. */
#include "harden/guarded.h"

#include "base/checked.h"
#include "harden/choice.h"
#include "harden/depot.h"
#include "harden/guard.h"
#include "harden/sites.h"
#include "meta/arena.h"
#include "meta/pool.h"
#include "meta/segment.h"
#include "os/os.h"

#include <string.h>

#define CHUNK_PAGES 512u
#define SLOTS(c) ((CHUNK_PAGES - 1) / ((1u << (c)) + 1)) /* of a chunk of a class */
#define EVICT_AMONG 32u /* of the oldest freed slots any may be the next */
#define SKIP_MOST 31u   /* slots of a class, in a child */
#define SHARE 16u       /* of the budget, one part in so many is each class's own */

#define pool (bhi_process.guarded)

/* ------------------------------------------------------------------ geometry */

static uint32_t pages_of(unsigned c)
{
    return 1u << c;
}

static uint32_t slots_of(unsigned c)
{
    static const uint8_t slots[BHI_GUARDED_CLASSES] = {SLOTS(0), SLOTS(1), SLOTS(2), SLOTS(3), SLOTS(4), SLOTS(5)};
    return slots[c];
}

static uint32_t chunk_of(const bhi_guarded_t *g)
{
    return g->first / CHUNK_PAGES;
}

/* The slot that has OS page `page` of its chunk, or follows the guard there. */
static uint32_t index_at(uint32_t page, unsigned c)
{
    return page == 0 ? 0 : (page - 1) / (pages_of(c) + 1);
}

static uint32_t index_of(const bhi_guarded_t *g)
{
    return index_at(g->first % CHUNK_PAGES, g->size_class);
}

static uintptr_t chunk_base(uint32_t chunk)
{
    return bhi_process.guarded_base + ((size_t)chunk << BHI_GUARDED_CHUNK_SHIFT);
}

static bhi_guarded_t *record(uint32_t chunk, uint32_t index)
{
    bhi_guarded_t *records = atomic_load_explicit(&pool->chunks[chunk].records, memory_order_acquire);
    return records != NULL && index < slots_of(pool->chunks[chunk].size_class) ? records + index : NULL;
}

bhi_guarded_t *bhi_guarded_at(uintptr_t p)
{
    size_t off = p - bhi_process.guarded_base;
    const bhi_guarded_chunk_t *chunk = &pool->chunks[off >> BHI_GUARDED_CHUNK_SHIFT];
    uint32_t page = (uint32_t)(off >> BH_OS_PAGE_SHIFT) % CHUNK_PAGES;
    bhi_guarded_t *records = atomic_load_explicit(&chunk->records, memory_order_acquire);
    uint32_t index = index_at(page, chunk->size_class);
    return records != NULL && index < slots_of(chunk->size_class) ? records + index : NULL;
}

bhi_guarded_t *bhi_guarded_behind(const bhi_guarded_t *g)
{
    return record(chunk_of(g), index_of(g) + 1);
}

bhi_guarded_t *bhi_guarded_next(const bhi_guarded_t *g)
{
    uint32_t chunk = g != NULL ? chunk_of(g) : 0, index = g != NULL ? index_of(g) + 1 : 0;
    bhi_guarded_t *next = NULL;
    for (; next == NULL && chunk < atomic_load_explicit(&pool->chunks_used, memory_order_relaxed); chunk++, index = 0)
        next = record(chunk, index);
    return next;
}

/* ------------------------------------------------------------------ start-up */

static uintptr_t reserve_open(size_t size)
{
    uintptr_t at = bhi_arena_reserve_anywhere(bhi_align_up(size, BH_OS_PAGE_SIZE));
    return at != 0 && bhi_os_open(at, bhi_align_up(size, BH_OS_PAGE_SIZE)) == 0 ? at : 0;
}

/* Where address space is limited, a sixteenth of what is left. */
static size_t wanted_chunks(void)
{
    size_t bytes = bhi_process.options.guarded_bytes, left = bhi_os_address_space_left();
    if (left != SIZE_MAX)
        bytes = bhi_min(bytes, left / 16);
    return bytes >> BHI_GUARDED_CHUNK_SHIFT;
}

void bhi_guarded_init_depot(void)
{
    bool room = bhi_os_address_space_left() / 16 >= sizeof(bhi_depot_t);
    if (bhi_process.options.stacks != BHI_STACKS_NONE && room && bhi_process.depot == NULL)
        bhi_process.depot = (bhi_depot_t *)reserve_open(sizeof(bhi_depot_t));
}

void bhi_guarded_init(void)
{
    const bhi_options_t *o = &bhi_process.options;
    size_t chunks = wanted_chunks(), size = chunks << BHI_GUARDED_CHUNK_SHIFT;
    bool by_site = o->guarded_first_site != 0 && o->stacks != BHI_STACKS_NONE;
    if (!BH_HARDEN_SAMPLED || (o->guarded_sample_rate == 0 && o->guarded_first == 0 && !by_site) || chunks == 0)
        return;
    uintptr_t own = reserve_open(sizeof *pool), table = own != 0 ? reserve_open(chunks * sizeof(bhi_guarded_chunk_t)) : 0;
    uintptr_t at = table != 0 ? bhi_arena_reserve_anywhere(size + BHI_GUARDED_CHUNK) : 0;
    if (at == 0)
        return;
    pool = (bhi_guarded_pool_t *)own;
    pool->key = bhi_random_u64(&bhi_state->random);
    pool->chunk_count = (uint32_t)chunks;
    pool->slots_most = o->guarded_slots;
    pool->chunks = (bhi_guarded_chunk_t *)table;
    bhi_process.guarded_base = bhi_align_up(at, BHI_GUARDED_CHUNK);
    bhi_process.guarded_size = size;
    bhi_process.sampling = true;
    bhi_guarded_init_depot();
    if (by_site && o->guarded_sample_rate != 1) /* every one is chosen then */
        bhi_process.sites = (bhi_sites_t *)reserve_open(sizeof(bhi_sites_t));
    uint32_t every = o->guarded_sample_rate;
    if (bhi_process.sites != NULL && every - 1 >= o->guarded_site_rate)
        every = o->guarded_site_rate;
    if (every != 0)
        bhi_choice_init(&bhi_process.sample_choice, every);
    bhi_process.sample_every = every;
}

/* --------------------------------------------------------------------- lists */

BH_INLINE void unlink_slot(bhi_guarded_t **first, bhi_guarded_t **last, bhi_guarded_t *g)
{
    if (g->prev != NULL)
        g->prev->next = g->next;
    else
        *first = g->next;
    if (g->next != NULL)
        g->next->prev = g->prev;
    else if (last != NULL)
        *last = g->prev;
    g->next = g->prev = NULL;
}

BH_INLINE void to_freed(bhi_guarded_t *g)
{
    bhi_guarded_class_t *c = &pool->classes[g->size_class];
    atomic_store_explicit(&g->state, BHI_GUARDED_FREED, memory_order_release);
    g->next = NULL;
    g->prev = c->last;
    if (c->last != NULL)
        c->last->next = g;
    else
        c->first = g;
    c->last = g;
    c->freed++;
}

static void to_heap(bhi_heap_t *heap, bhi_guarded_t *g)
{
    g->heap = heap;
    g->prev = NULL;
    g->next = heap->guarded;
    if (g->next != NULL)
        g->next->prev = g;
    heap->guarded = g;
}

static void leave_heap(bhi_guarded_t *g)
{
    if (g->heap != NULL)
        unlink_slot(&g->heap->guarded, NULL, g);
    g->heap = NULL;
}

void bhi_guarded_detach(bhi_heap_t *heap)
{
    while (heap->guarded != NULL)
        leave_heap(heap->guarded);
}

bhi_guarded_t *bhi_guarded_pop(bhi_heap_t *heap)
{
    bhi_state_lock();
    bhi_guarded_t *g = heap->guarded;
    if (g != NULL)
        leave_heap(g);
    bhi_state_unlock();
    return g;
}

/* -------------------------------------------------------------------- budget */

/* Whether one more of a budget, of which `used` is in use, may be a class's that has
 * others[c] of it: part of it is kept for the classes that have less than their share. */
static bool may_take(unsigned c, const uint32_t others[BHI_GUARDED_CLASSES], uint32_t used, uint32_t most)
{
    uint32_t share = most / SHARE, kept = 0;
    for (unsigned i = 0; i < BHI_GUARDED_CLASSES; i++)
        kept += others[i] < share ? share - others[i] : 0;
    return used < most && (others[c] < share || most - used > kept);
}

static bool may_have_slot(unsigned c)
{
    uint32_t slots[BHI_GUARDED_CLASSES], most = pool->slots_most;
    if (bh_likely(pool->slots < most - BHI_GUARDED_CLASSES * (most / SHARE))) /* room for all shares beside it */
        return true;
    for (unsigned i = 0; i < BHI_GUARDED_CLASSES; i++)
        slots[i] = pool->classes[i].slots;
    return may_take(c, slots, pool->slots, most);
}

static bool may_have_chunk(unsigned c)
{
    uint32_t chunks[BHI_GUARDED_CLASSES];
    for (unsigned i = 0; i < BHI_GUARDED_CLASSES; i++)
        chunks[i] = pool->classes[i].chunks;
    return may_take(c, chunks, atomic_load_explicit(&pool->chunks_used, memory_order_relaxed), pool->chunk_count);
}

/* --------------------------------------------------------------------- slots */

/* Lock held. The next chunk for a class, with all of it closed. */
static bool open_chunk(unsigned c)
{
    uint32_t chunk = atomic_load_explicit(&pool->chunks_used, memory_order_relaxed);
    if (chunk == pool->chunk_count || !may_have_chunk(c))
        return false;
    bhi_guarded_t *records = bhi_pool_take(slots_of(c) * sizeof *records);
    if (records == NULL)
        return false;
    atomic_store_explicit(&pool->chunks_used, chunk + 1, memory_order_relaxed);
    uintptr_t at = chunk_base(chunk);
    bool by_region = bhi_process.guards_by_madvise && bhi_os_open(at, BHI_GUARDED_CHUNK) == 0;
    if (by_region && bhi_os_guard_install(at, BHI_GUARDED_CHUNK) != 0) {
        atomic_fetch_add_explicit(&bhi_state->advice_refused, 1, memory_order_relaxed);
        by_region = false;
        bhi_os_guard_remove(at, BHI_GUARDED_CHUNK);
        if (bhi_os_rereserve(at, BHI_GUARDED_CHUNK) != 0)
            return false; /* the chunk is lost */
    }
    for (uint32_t i = 0; i < slots_of(c); i++) {
        records[i].first = chunk * CHUNK_PAGES + 1 + i * (pages_of(c) + 1);
        records[i].size_class = (uint8_t)c;
    }
    pool->chunks[chunk].size_class = (uint8_t)c;
    pool->chunks[chunk].by_region = by_region;
    pool->classes[c].fresh = records;
    pool->classes[c].end = records + slots_of(c);
    pool->classes[c].chunks++;
    atomic_store_explicit(&pool->chunks[chunk].records, records, memory_order_release);
    return true;
}

/* Lock held. A slot that was never used. */
static bhi_guarded_t *fresh(unsigned c)
{
    bhi_guarded_class_t *class = &pool->classes[c];
    bhi_guarded_t *g = class->skipped;
    if (!may_have_slot(c) || (class->fresh == class->end && g == NULL && !open_chunk(c)))
        return NULL;
    class->slots++;
    pool->slots++;
    if (class->fresh != class->end)
        return class->fresh++;
    class->skipped = g->next;
    g->next = NULL;
    return g;
}

void bhi_guarded_after_fork(void)
{
    for (unsigned c = 0; c < BHI_GUARDED_CLASSES; c++) {
        bhi_guarded_class_t *class = &pool->classes[c];
        uint32_t left = (uint32_t)(class->end - class->fresh);
        uint32_t skip = left == 0 ? 0 : bhi_random_below(&bhi_state->random, (uint32_t)bhi_min(left, SKIP_MOST + 1));
        for (; skip > 0; skip--, class->fresh++) {
            class->fresh->next = class->skipped;
            class->skipped = class->fresh;
        }
    }
}

/* Lock held. One of the oldest freed slots, at random. */
static bhi_guarded_t *evict(unsigned c)
{
    bhi_guarded_class_t *class = &pool->classes[c];
    bhi_guarded_t *g = class->first;
    if (g == NULL)
        return NULL;
    uint32_t among = (uint32_t)bhi_min(class->freed / 2 + 1, EVICT_AMONG);
    for (uint32_t skip = bhi_random_below(&bhi_state->random, among); skip > 0; skip--)
        g = g->next;
    unlink_slot(&class->first, &class->last, g);
    class->freed--;
    return g;
}

/* Lock held. */
static void set_maps(bhi_guarded_t *g, bool maps)
{
    bhi_mappings_recount(g->maps ? 2 : 0, maps ? 2 : 0);
    g->maps = maps;
}

static bool by_region(const bhi_guarded_t *g)
{
    return pool->chunks[chunk_of(g)].by_region;
}

/* Lock held; sees to the budget of mappings. */
static bool may_open(bhi_guarded_t *g)
{
    if (by_region(g) || g->maps)
        return true;
    if (!bhi_guard_mappings_left())
        return false;
    set_maps(g, true);
    return true;
}

static bool open_data(bhi_guarded_t *g)
{
    uintptr_t at = bhi_guarded_data(g);
    size_t size = bhi_guarded_bytes(g);
    bool open = by_region(g) && !g->by_mprotect ? bhi_os_guard_remove(at, size) == 0 : bhi_os_open(at, size) == 0;
    if (open)
        g->by_mprotect = false;
    return open;
}

size_t bhi_guarded_live(void)
{
    return atomic_load_explicit(&pool->live, memory_order_relaxed);
}

BH_INLINE void count_live(const bhi_guarded_t *g, size_t sign)
{
    atomic_store_explicit(&pool->live, bhi_guarded_live() + sign, memory_order_relaxed);
    pool->live_bytes += sign * g->size;
    pool->live_data += sign * bhi_guarded_bytes(g);
}

static unsigned class_for(size_t size)
{
    unsigned c = 0;
    while (BH_OS_PAGE_SIZE << c < size)
        c++;
    return c;
}

bhi_guarded_t *bhi_guarded_take(bhi_heap_t *heap, size_t size)
{
    unsigned c = class_for(size);
    bhi_state_lock();
    bhi_guarded_t *g = fresh(c);
    if (g == NULL)
        g = evict(c);
    if (g != NULL && !may_open(g)) {
        to_freed(g);
        g = NULL;
    }
    if (g != NULL) {
        atomic_store_explicit(&g->state, BHI_GUARDED_OPENING, memory_order_relaxed);
        to_heap(heap, g);
        g->size = (uint32_t)size;
        count_live(g, 1);
    }
    bhi_state_unlock();
    if (g != NULL && open_data(g)) {
        if (g->maps && by_region(g)) {
            bhi_state_lock();
            set_maps(g, false);
            bhi_state_unlock();
        }
        return g;
    }
    atomic_fetch_add_explicit(&pool->refused, 1, memory_order_relaxed);
    if (g == NULL)
        return NULL;
    bhi_state_lock();
    count_live(g, (size_t)-1);
    leave_heap(g);
    if (!by_region(g))
        set_maps(g, false);
    to_freed(g);
    bhi_state_unlock();
    return NULL;
}

void bhi_guarded_publish(bhi_guarded_t *g)
{
    atomic_store_explicit(&g->state, BHI_GUARDED_LIVE, memory_order_release);
}

/* Makes the data inaccessible by mprotect, where guard regions are refused (locked
 * memory, a sandbox that came late). Their memory goes with the mapping. */
static bool close_by_mapping(bhi_guarded_t *g)
{
    bhi_state_lock();
    bool may = g->maps || bhi_guard_mappings_left();
    if (may)
        set_maps(g, true);
    bhi_state_unlock();
    bool closed = may && bhi_os_rereserve(bhi_guarded_data(g), bhi_guarded_bytes(g)) == 0;
    bhi_state_lock();
    set_maps(g, by_region(g) ? closed : may && !closed);
    bhi_state_unlock();
    g->by_mprotect = closed && by_region(g);
    return closed;
}

/* Closes the data and drops their memory; what cannot be closed reads zero. */
static void close_data(bhi_guarded_t *g)
{
    uintptr_t at = bhi_guarded_data(g);
    size_t size = bhi_guarded_bytes(g);
    if (by_region(g)) {
        if (bhi_os_guard_install(at, size) == 0)
            return;
        atomic_fetch_add_explicit(&bhi_state->advice_refused, 1, memory_order_relaxed);
    }
    if (close_by_mapping(g))
        return;
    atomic_fetch_add_explicit(&bhi_state->guard_missed, 1, memory_order_relaxed);
    /* Part of it may have become a region before the kernel gave up. */
    if (by_region(g))
        bhi_os_guard_remove(at, size);
    if (bhi_os_purge(at, size) != 0)
        memset((void *)at, 0, size); /* NOLINT: block memory is addressed by number */
}

void bhi_guarded_give(bhi_guarded_t *g)
{
    close_data(g);
    bhi_state_lock();
    count_live(g, (size_t)-1);
    leave_heap(g);
    g->reported = false;
    to_freed(g);
    bhi_state_unlock();
}

bool bhi_guarded_open_page(uintptr_t at)
{
    uintptr_t page = at & ~(BH_OS_PAGE_SIZE - 1);
    const bhi_guarded_chunk_t *chunk = &pool->chunks[(at - bhi_process.guarded_base) >> BHI_GUARDED_CHUNK_SHIFT];
    if (chunk->by_region && bhi_os_guard_remove(page, BH_OS_PAGE_SIZE) != 0)
        return false;
    return bhi_os_protect_rw(page, BH_OS_PAGE_SIZE) == 0;
}
