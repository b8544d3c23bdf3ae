/* Targets. Those that are addresses of Bulkhead's own layout are computed from
 * its structures: the worst pointer is the one that nearly looks right. */
#include "targets.h"

#include "bulkhead.h"
#include "child.h"
#include "core/page.h"
#include "meta/arena.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#define NEIGHBOURS 8 /* live blocks that keep the target's page in use */
#define LATER 20     /* frees between the first and the second */
#define BIG ((size_t)1 << 20)
#define BIGGEST_OVER_OLD ((size_t)1 << 30) /* filled with small blocks first */

uintptr_t target_take(size_t size)
{
    void *p = bh_malloc(size);
    if (p == NULL)
        attack_broken("no memory");
    return (uintptr_t)p;
}

void target_give(uintptr_t p)
{
    bh_free((void *)p); /* NOLINT: targets are numbers */
}

static bhi_page_t *page_at(uintptr_t p)
{
    bhi_arena_t *arena = bhi_arena_of(p);
    if (arena == NULL)
        attack_broken("a block lies outside the reservation");
    bhi_page_t *page = bhi_desc_at(arena->descs, p - arena->base);
    return bhi_desc_first(page);
}

static bool in_reservation(uintptr_t p)
{
    return bhi_arena_of(p) != NULL;
}

static bool slot_is_free(uintptr_t p)
{
    bhi_arena_t *arena = bhi_arena_of(p);
    size_t slot = (p - arena->base) >> BH_SLOT_SHIFT;
    return (arena->headers[slot >> BH_SEGMENT_SLOTS_SHIFT].free >> (slot % BH_SEGMENT_SLOTS) & 1) != 0;
}

static void live_block(target_state_t *s)
{
    for (int i = 0; i < NEIGHBOURS / 2; i++)
        target_take(s->size);
    s->block = s->target = target_take(s->size);
    s->usable = bh_usable_size((void *)s->block); /* NOLINT */
    for (int i = 0; i < NEIGHBOURS / 2; i++)
        target_take(s->size);
}

/* ------------------------------------------------------------- freed blocks */

static void freed(target_state_t *s)
{
    live_block(s);
    target_give(s->block);
}

static void freed_earlier(target_state_t *s)
{
    uintptr_t others[LATER];
    int n = s->size > BIG ? 3 : LATER;
    live_block(s);
    for (int i = 0; i < n; i++)
        others[i] = target_take(s->size);
    target_give(s->block);
    for (int i = 0; i < n; i++)
        target_give(others[i]);
}

static void emptied(target_state_t *s)
{
    uintptr_t all[NEIGHBOURS];
    for (int i = 0; i < NEIGHBOURS; i++)
        all[i] = target_take(s->size);
    s->target = s->block = all[NEIGHBOURS / 2];
    for (int i = 0; i < NEIGHBOURS; i++)
        target_give(all[i]);
}

static void released(target_state_t *s)
{
    emptied(s);
    bh_collect(false);
}

static void purged(target_state_t *s)
{
    emptied(s);
    bh_collect(true);
}

static void *give_in_thread(void *arg)
{
    target_give((uintptr_t)arg);
    return NULL;
}

static void freed_by_other(target_state_t *s)
{
    pthread_t t;
    live_block(s);
    if (pthread_create(&t, NULL, give_in_thread, (void *)s->block) != 0) /* NOLINT */
        attack_broken("pthread_create");
    pthread_join(t, NULL);
}

static void give_block(target_state_t *s)
{
    target_give(s->block);
}

/* A span of several slots was emptied and its first slot is in use again: the
 * descriptors of the others still lead there. */
static void slot_reused(target_state_t *s)
{
    enum { MOST = 256, TRIES = 100000 };
    const size_t size = 32768, one_slot = 8192; /* classes with spans of several slots, of one */
    uintptr_t all[MOST];
    unsigned n = 1;
    all[0] = target_take(size);
    for (; n < MOST && n < page_at(all[0])->reserved; n++)
        all[n] = target_take(size);
    uintptr_t start = page_at(all[0])->start;
    for (unsigned i = 0; i < n; i++)
        target_give(all[i]);
    bh_collect(false);
    /* Slots are taken at random from the one segment. */
    for (int i = 0; i < TRIES && slot_is_free(start); i++)
        target_take(one_slot);
    s->none = true;
    for (unsigned i = 0; i < n; i++) {
        if (all[i] - start >= BH_SLOT_SIZE && slot_is_free(all[i])) {
            s->target = s->block = all[i];
            s->none = slot_is_free(start);
        }
    }
}

/* --------------------------------------------------------- inside of a block */

static void offset(target_state_t *s, size_t off)
{
    live_block(s);
    s->target = s->block + off;
    s->none = off >= s->usable;
}

static void plus_1(target_state_t *s) { offset(s, 1); }
static void plus_3(target_state_t *s) { offset(s, 3); }
static void plus_4(target_state_t *s) { offset(s, 4); }
static void plus_8(target_state_t *s) { offset(s, 8); }
static void plus_16(target_state_t *s) { offset(s, 16); }
static void plus_os_page(target_state_t *s) { offset(s, BH_OS_PAGE_SIZE); }

static void plus_half(target_state_t *s)
{
    live_block(s);
    s->target = s->block + s->usable / 2;
}

static void last_byte(target_state_t *s)
{
    live_block(s);
    s->target = s->block + s->usable - 1;
}

static void minus_1(target_state_t *s)
{
    live_block(s);
    s->target = s->block - 1;
    if (!in_reservation(s->target))
        s->is = TARGET_FOREIGN;
}

static void inside_freed(target_state_t *s)
{
    freed(s);
    s->target = s->block + (s->usable > 8 ? 8 : 4);
}

/* A huge block over segments that held small pages before: inside it, `from` to
 * `to` bytes behind its start, lie addresses that were starts of blocks once. */
static void huge_over_old_pages(target_state_t *s, size_t from, size_t to)
{
    const size_t size = BH_SLOT_SIZE / 8;
    size_t n = (s->size / BH_SEGMENT_SIZE + 2) * BH_SEGMENT_SLOTS * 7;
    s->none = s->size <= BH_SEGMENT_SIZE || s->size > BIGGEST_OVER_OLD;
    if (s->none)
        return;
    uintptr_t *old = mmap(NULL, n * sizeof *old, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (old == MAP_FAILED)
        attack_broken("mmap");
    for (size_t i = 0; i < n; i++)
        old[i] = target_take(size);
    for (size_t i = 0; i < n; i++)
        target_give(old[i]);
    bh_collect(true);
    s->block = target_take(s->size);
    s->none = true;
    for (size_t i = 0; i < n && s->none; i++) {
        s->target = old[i];
        s->none = old[i] < s->block + from || old[i] >= s->block + to;
    }
}

static void old_in_first(target_state_t *s)
{
    huge_over_old_pages(s, BH_SLOT_SIZE, BH_SEGMENT_SIZE);
}

static void old_in_further(target_state_t *s)
{
    huge_over_old_pages(s, BH_SEGMENT_SIZE, s->size);
}

/* --------------------------------------- addresses of the block reservation */

/* The next block of the page, which nobody was ever given. */
static void fresh(target_state_t *s)
{
    live_block(s);
    bhi_page_t *page = page_at(s->block);
    s->none = bhi_page_capacity(page) >= page->reserved;
    if (!s->none)
        s->target = bhi_page_block(page, bhi_page_capacity(page));
}

static void guard(target_state_t *s)
{
    live_block(s);
    bhi_page_t *page = page_at(s->block);
    s->target = page->state == BHI_PAGE_LARGE ? s->block + bhi_page_bytes(page)
                                              : page->start + page->span_slots * BH_SLOT_SIZE - BH_OS_PAGE_SIZE;
}

static void free_slot(target_state_t *s)
{
    live_block(s);
    uintptr_t segment = target_take(64) & ~(BH_SEGMENT_SIZE - 1);
    s->none = true;
    for (unsigned i = 0; i < BH_SEGMENT_SLOTS && s->none; i++) {
        s->target = segment + i * BH_SLOT_SIZE;
        s->none = !slot_is_free(s->target);
    }
}

static void never_opened(target_state_t *s)
{
    live_block(s);
    bhi_arena_t *arena = bhi_arena_of(s->block);
    s->none = arena->top + 1 >= arena->segments;
    s->target = arena->base + ((size_t)(arena->top + 1) << BH_SEGMENT_SHIFT) + 3 * BH_SLOT_SIZE;
}

static void last_of_reservation(target_state_t *s)
{
    live_block(s);
    bhi_arena_t *arena = bhi_arena_of(s->block);
    s->target = arena->base + arena->size - BH_SLOT_SIZE;
}

/* -------------------------------------------------------- foreign addresses */

static void after_reservation(target_state_t *s)
{
    live_block(s);
    s->target = bhi_state->arenas[0].base + bhi_state->arenas[0].size;
}

static void before_reservation(target_state_t *s)
{
    live_block(s);
    s->target = bhi_state->arenas[0].base - BH_OS_PAGE_SIZE;
}

static char global[64];
static const char *const literal = "a string literal of some length";

static void in_global(target_state_t *s)
{
    live_block(s);
    s->target = (uintptr_t)global + 16;
}

static void in_literal(target_state_t *s)
{
    live_block(s);
    s->target = (uintptr_t)literal;
}

static void in_code(target_state_t *s)
{
    live_block(s);
    s->target = (uintptr_t)&target_take;
}

static void in_mmap(target_state_t *s)
{
    live_block(s);
    void *p = mmap(NULL, BH_OS_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        attack_broken("mmap");
    s->target = (uintptr_t)p;
}

static void on_stack(target_state_t *s)
{
    char here[32];
    memset(here, 0, sizeof here);
    s->target = (uintptr_t)here;
    s->target += (unsigned char)here[0]; /* keeps the array */
}

static void number(target_state_t *s, uintptr_t n)
{
    live_block(s);
    s->target = n;
}

static void number_1(target_state_t *s) { number(s, 1); }
static void number_8(target_state_t *s) { number(s, 8); }
static void number_4096(target_state_t *s) { number(s, 4096); }
static void number_all_ones(target_state_t *s) { number(s, UINTPTR_MAX); }
static void non_canonical(target_state_t *s) { number(s, (uintptr_t)1 << 63 | 0x10000); }

/* The allocator's own memory; no user was ever given a pointer to it. */
static void descriptor(target_state_t *s)
{
    live_block(s);
    s->target = (uintptr_t)page_at(s->block);
}

static void map(target_state_t *s)
{
    live_block(s);
    s->target = (uintptr_t)page_at(s->block)->map;
}

static void heap(target_state_t *s)
{
    live_block(s);
    s->target = (uintptr_t)atomic_load(&page_at(s->block)->heap);
}

static void header(target_state_t *s)
{
    live_block(s);
    s->target = (uintptr_t)bhi_arena_of(s->block)->headers;
}

static void state(target_state_t *s)
{
    live_block(s);
    s->target = (uintptr_t)bhi_process.state;
}

static void settings(target_state_t *s)
{
    live_block(s);
    s->target = (uintptr_t)&bhi_process;
}

const target_t targets[] = {
    {"freed just now", freed, NULL, TARGET_FREED, false},
    {"freed, then others", freed_earlier, NULL, TARGET_FREED, false},
    {"page emptied", emptied, NULL, TARGET_FREED, false},
    {"page released", released, NULL, TARGET_FREED, false},
    {"page purged", purged, NULL, TARGET_FREED, false},
    {"freed by a third thread", freed_by_other, NULL, TARGET_FREED, false},
    {"freed by the attacker", live_block, give_block, TARGET_FREED, false},
    {"first slot reused", slot_reused, NULL, TARGET_ELSEWHERE, true},
    {"start + 1", plus_1, NULL, TARGET_INVALID, false},
    {"start + 3", plus_3, NULL, TARGET_INVALID, false},
    {"start + 4", plus_4, NULL, TARGET_INVALID, false},
    {"start + 8", plus_8, NULL, TARGET_INVALID, false},
    {"start + 16", plus_16, NULL, TARGET_INVALID, false},
    {"start + half", plus_half, NULL, TARGET_INVALID, false},
    {"start + OS page", plus_os_page, NULL, TARGET_INVALID, false},
    {"last byte", last_byte, NULL, TARGET_INVALID, false},
    {"start - 1", minus_1, NULL, TARGET_INVALID, false},
    {"inside a freed block", inside_freed, NULL, TARGET_INVALID, false},
    {"old start in huge block", old_in_first, NULL, TARGET_INVALID, false},
    {"old start further behind", old_in_further, NULL, TARGET_INVALID, false},
    {"fresh block", fresh, NULL, TARGET_INVALID, false},
    {"guard", guard, NULL, TARGET_INVALID, false},
    {"free slot", free_slot, NULL, TARGET_INVALID, false},
    {"segment never opened", never_opened, NULL, TARGET_INVALID, true},
    {"end of reservation", last_of_reservation, NULL, TARGET_INVALID, true},
    {"after reservation", after_reservation, NULL, TARGET_FOREIGN, true},
    {"before reservation", before_reservation, NULL, TARGET_FOREIGN, true},
    {"stack", live_block, on_stack, TARGET_FOREIGN, true},
    {"global", in_global, NULL, TARGET_FOREIGN, true},
    {"string literal", in_literal, NULL, TARGET_FOREIGN, true},
    {"code", in_code, NULL, TARGET_FOREIGN, true},
    {"mapped", in_mmap, NULL, TARGET_FOREIGN, true},
    {"1", number_1, NULL, TARGET_FOREIGN, true},
    {"8", number_8, NULL, TARGET_FOREIGN, true},
    {"4096", number_4096, NULL, TARGET_FOREIGN, true},
    {"-1", number_all_ones, NULL, TARGET_FOREIGN, true},
    {"not canonical", non_canonical, NULL, TARGET_FOREIGN, true},
    {"page descriptor", descriptor, NULL, TARGET_FOREIGN, true},
    {"allocation map", map, NULL, TARGET_FOREIGN, true},
    {"heap structure", heap, NULL, TARGET_FOREIGN, true},
    {"segment header", header, NULL, TARGET_FOREIGN, true},
    {"state", state, NULL, TARGET_FOREIGN, true},
    {"process settings", settings, NULL, TARGET_FOREIGN, true},
    {"live block", live_block, NULL, TARGET_LIVE, false}, /* for wrong sizes */
};
const size_t target_count = sizeof targets / sizeof targets[0];
