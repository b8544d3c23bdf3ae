/* See window.h. Knows where control data lie and what a segment looks like; what it
 * needs to bring state back it keeps outside of them, so that a run which damaged
 * them cannot mislead it. */
#include "window/window.h"

#include "base/bits.h"
#include "base/checked.h"
#include "core/hardened.h"
#include "core/heap.h"
#include "core/init.h"
#include "core/page.h"
#include "harden/canary.h"
#include "harden/guard.h"
#include "meta/arena.h"
#include "meta/segment.h"
#include "os/os.h"
#include "window/inside.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define START_MS 1000u
#define MILD_SEGMENTS 8u                      /* in use, up to which the next reset looks at each */
#define RESERVED_MOST 128u
#define POOL_OPEN ((size_t)512 * 1024)
#define LAST (BH_SLOT_OS_PAGES - 1)

window_places_t window_places;

/* The start, of each kind. The state but for the tables that are empty then. */
typedef struct snapshot {
    bhi_state_t state;
    bhi_random_root_t root;
    bhi_segment_t first; /* header of segment 0 */
    size_t descs_open;
} snapshot_t;

static struct {
    bool ready, warm;     /* warm: segment 0 of the kernel is as in warm_start */
    bool distrust;
    snapshot_t cold_start, warm_start;
    bhi_settings_t settings;
    bhi_options_t defaults[BHI_PROFILE_DEBUG + 1]; /* by profile, as far as known */
    bool known[BHI_PROFILE_DEBUG + 1];
    bool guards_by_madvise;
    bool has_avx2, has_compress, has_aes;
    uintptr_t reserved_at[RESERVED_MOST];
    size_t reserved_size[RESERVED_MOST];
    unsigned reserved;
    uintptr_t pool_used;  /* to here the first arena's pool, once there is another one */
    uint64_t scribbled;   /* slots of segment 0 */
    uintptr_t control_at; /* the whole control reservation */
    size_t control_size;
} w;

static _Noreturn void give_up(const char *what)
{
    fprintf(stderr, "fuzz: the window cannot go on: %s\n", what);
    _exit(3);
}

void inside_must(int result, const char *what)
{
    if (result != 0)
        give_up(what);
}

void inside_reserved(uintptr_t at, size_t size)
{
    if (w.reserved == RESERVED_MOST)
        give_up("too many reservations");
    if (w.ready && bhi_state->pool.at - window_places.pool <= window_places.pool_size) /* a new pool comes after its reservation */
        w.pool_used = bhi_state->pool.at;
    w.reserved_at[w.reserved] = at;
    w.reserved_size[w.reserved++] = size;
}

/* --------------------------------------------------------------- the two starts */

static bhi_random_root_t *root(void)
{
    return bhi_process.random_root;
}

static void remember(snapshot_t *to)
{
    to->state = *bhi_state;
    to->root = *root();
    if (bhi_state->arenas[0].headers_open > 0)
        to->first = *bhi_state->arenas[0].headers;
    to->descs_open = atomic_load(&bhi_state->arenas[0].blocks_open) >> BH_SLOT_SHIFT << BH_PAGE_DESC_SHIFT;
}

/* Where the OS page of the pool's first chunk begins. */
static uintptr_t pool_base(void)
{
    return bhi_align_down(window_places.pool, BH_OS_PAGE_SIZE);
}

/* Segment 0 open, every slot free and with its guard, known to no purge. Headers
 * and descriptors of the first segments are open already. */
static void make_warm(void)
{
    bhi_span_t span = bhi_span_take_in_new_segment(1, 1);
    if (span.segment == NULL || !bhi_guard_fit(span.segment, span.slot, 1, LAST))
        give_up("no first segment");
    bhi_guard_batch(span.segment);
    bhi_span_give(span.segment, span.slot, 1, false);
    bhi_pool_t *pool = &bhi_state->pool; /* open as far as most runs come */
    uintptr_t end = pool_base() + POOL_OPEN;
    if (pool->open_end < end) {
        inside_must(bhi_os_open(pool->open_end, end - pool->open_end), "pool");
        pool->bytes += end - pool->open_end;
        pool->open_end = end;
    }
    bhi_state->purge_first = bhi_state->purge_last = NULL;
    atomic_store(&bhi_state->purge_next_at, 0);
    span.segment->purge_at = 0;
    w.warm = true;
}

void window_options(bhi_options_t *out, bhi_profile_t profile)
{
    bhi_options_t *defaults = &w.defaults[profile];
    if (!w.known[profile]) {
        bhi_options_defaults(defaults, profile);
        defaults->guarded_first = 0; /* which blocks come from pages is what the targets look at */
        w.known[profile] = true;
    }
    *out = *defaults;
}

static void find_control(void)
{
    uintptr_t state = (uintptr_t)bhi_state;
    for (unsigned i = 0; i < w.reserved; i++) {
        if (state - w.reserved_at[i] < w.reserved_size[i]) {
            w.control_at = w.reserved_at[i];
            w.control_size = w.reserved_size[i];
        }
    }
    const bhi_arena_t *arena = &bhi_state->arenas[0];
    window_places = (window_places_t){
        .blocks = arena->base, .blocks_size = arena->size, .descs = arena->descs, .headers = (uintptr_t)arena->headers,
        .state = state, .pool = bhi_state->pool.at, .pool_size = bhi_state->pool.end - bhi_state->pool.at};
}

/* The last run may have left damage, which profile hardened looks for at exit. */
static void at_exit(void)
{
    bhi_process.options.profile = BHI_PROFILE_SECURE;
}

static void start_up(void)
{
    atexit(at_exit);
    window_now = START_MS;
    inside_entropy = 1;
    inside_catch_signals();
    if (!bhi_init())
        give_up("no start-up");
    find_control();
    w.reserved = 0;
    w.guards_by_madvise = bhi_process.guards_by_madvise;
    w.settings = bhi_settings;
    w.has_avx2 = bhi_process.has_avx2;
    w.has_compress = bhi_process.has_compress;
    w.has_aes = bhi_process.has_aes;
    bhi_guard_mappings_left(); /* reads its file once, not in each run */
    remember(&w.cold_start);
    make_warm();
    remember(&w.warm_start);
    w.ready = true;
}

/* ------------------------------------------------------------------- resetting */

/* Nothing of the reservations is taken for granted: no blocks, and of the control data
 * what the cold start has. */
static void reset_kernel(void)
{
    inside_soft_off();
    inside_must(bhi_os_rereserve(window_places.blocks - BH_OS_PAGE_SIZE, BH_OS_PAGE_SIZE + window_places.blocks_size), "blocks");
    /* Before them lies what the process has for good. */
    uintptr_t end = w.control_at + w.control_size, from = bhi_min(window_places.descs, pool_base());
    inside_must(bhi_os_rereserve(from, end - from), "control data");
    w.warm = false;
}

static void forget_reservations(void)
{
    for (unsigned i = 0; i < w.reserved; i++)
        bhi_os_release(w.reserved_at[i], w.reserved_size[i]);
    w.reserved = 0;
}

/* The first segments, of memory whose guards are the kernel's. */
static bool clean_blocks(const bhi_arena_t *arena, const snapshot_t *start)
{
    const bhi_arena_t *then = &start->state.arenas[0];
    if (arena->top > MILD_SEGMENTS || atomic_load(&arena->blocks_open) != atomic_load(&then->blocks_open) ||
        arena->headers_open != then->headers_open || !inside_clean(&start->first, w.scribbled))
        return false;
    if (arena->top > 1)
        inside_must(bhi_os_rereserve(window_places.blocks + BH_SEGMENT_SIZE, (size_t)(arena->top - 1) << BH_SEGMENT_SHIFT), "segments");
    return true;
}

/* After a run that used the allocator as it is meant to be: the first segments only, and
 * further arenas are let go. False: more than that. Control data that it opened stay so,
 * and read zero. */
static bool reset_mildly(void)
{
    const bhi_arena_t *arena = &bhi_state->arenas[0];
    size_t top = arena->top, further = atomic_load(&bhi_state->arena_count) - 1;
    const snapshot_t *start = &w.warm_start;
    uintptr_t used = bhi_state->pool.at - window_places.pool <= window_places.pool_size ? bhi_state->pool.at : w.pool_used;
    if (w.distrust || !w.warm || top > SOFT_SEGMENTS || (top == 0 && !inside_soft_is_on()) || used < start->state.pool.at || further >= BH_ARENA_MAX)
        return false;
    if (inside_soft_is_on())
        inside_soft_restore();
    else if (!clean_blocks(arena, start))
        return false;
    size_t open = atomic_load(&arena->blocks_open) >> BH_SLOT_SHIFT << BH_PAGE_DESC_SHIFT;
    memset((void *)window_places.descs, 0, bhi_min(top << (BH_SEGMENT_SLOTS_SHIFT + BH_PAGE_DESC_SHIFT), open)); /* NOLINT */
    memset((void *)window_places.headers, 0, bhi_min(top * sizeof(bhi_segment_t), arena->headers_open)); /* NOLINT */
    memset((void *)start->state.pool.at, 0, used - start->state.pool.at); /* NOLINT */
    memset(bhi_state->arenas + 1, 0, further * sizeof bhi_state->arenas[0]);
    forget_reservations();
    return true;
}

/* The large tables of the state are empty by now; the rest is copied. */
static void copy_state(const snapshot_t *from)
{
    bhi_state_t *to = bhi_state;
    const size_t parts[][2] = {
        {0, offsetof(bhi_state_t, arenas) + sizeof(bhi_arena_t)},
        {offsetof(bhi_state_t, buckets), offsetof(bhi_state_t, quarantine) + offsetof(bhi_large_quarantine_t, ring)},
        {offsetof(bhi_state_t, huge_refused), offsetof(bhi_state_t, heap_dir) + 4 * sizeof(void *)},
        {offsetof(bhi_state_t, hazards), sizeof(bhi_state_t)},
    };
    for (unsigned i = 0; i < sizeof parts / sizeof parts[0]; i++)
        memcpy((char *)to + parts[i][0], (const char *)from + parts[i][0], parts[i][1] - parts[i][0]);
}

static void start_from(const snapshot_t *from, const window_start_t *start, bool all)
{
    if (all)
        *bhi_state = from->state;
    else
        copy_state(from);
    *root() = from->root;
    if (from == &w.warm_start)
        *(bhi_segment_t *)window_places.headers = from->first; /* NOLINT */
    else if (start->soft)
        memset((void *)window_places.headers, 0, sizeof from->first); /* NOLINT: the warm start's */
    bhi_settings = w.settings;
    bhi_process.options = *start->options;
    bhi_process.guards_by_madvise = w.guards_by_madvise && start->options->guard != BHI_GUARD_MPROTECT;
    bhi_settings_init(start->options);
    bhi_process.has_avx2 = w.has_avx2 && !start->plain;
    bhi_process.has_compress = w.has_compress && !start->plain;
    bhi_process.has_aes = w.has_aes && !start->plain;
    bhi_process.short_ways = bhi_hard_has_short_ways();
    uint64_t seed = start->seed;
    inside_entropy = inside_next(&seed);
    bhi_process.canary_mul = inside_next(&inside_entropy) | 1;
    for (unsigned i = 0; i < BH_CANARY_WORDS; i++)
        bhi_process.canary_words[i] = inside_next(&inside_entropy);
    memcpy(root()->state.key, &seed, sizeof seed);
    root()->state.at = sizeof root()->state.buf;
    root()->state.bits = 0;
    bhi_random_init(&bhi_state->random);
}

static void open_control(const snapshot_t *as)
{
    const bhi_arena_t *arena = &as->state.arenas[0];
    if (as->descs_open != 0)
        inside_must(bhi_os_open(window_places.descs, as->descs_open), "descriptors");
    if (arena->headers_open != 0)
        inside_must(bhi_os_open(window_places.headers, arena->headers_open), "headers");
    uintptr_t pool = pool_base();
    if (as->state.pool.open_end > pool)
        inside_must(bhi_os_open(pool, as->state.pool.open_end - pool), "pool");
}

static void open_first_segment(const window_start_t *start)
{
    /* By the allocator's own code, with guards as at the process's start-up. */
    bhi_process.options.guard = BHI_GUARD_AUTO;
    bhi_process.guards_by_madvise = w.guards_by_madvise;
    *bhi_state = w.cold_start.state;
    *root() = w.cold_start.root;
    atomic_store(root()->alive, 1);
    bhi_random_init(&bhi_state->random);
    make_warm();
    bhi_process.options = *start->options;
}

void window_reset(const window_start_t *start)
{
    window_end.armed = false;
    if (!w.ready)
        start_up();
    window_refuse(0, 0, 0);
    inside_reset_contexts();
    window_now = START_MS;
    bool cold = start->cold && !start->soft; /* for the kernel */
    bool mild = !cold && start->soft == inside_soft_is_on() && reset_mildly();
    if (!mild) {
        forget_reservations();
        reset_kernel();
        open_control(cold ? &w.cold_start : &w.warm_start);
        if (start->soft)
            inside_soft_on();
        if (!cold)
            open_first_segment(start);
        inside_soft_remember();
    }
    if (mild && inside_verifies()) {
        copy_state(&w.warm_start);
        *(bhi_segment_t *)window_places.headers = w.warm_start.first; /* NOLINT */
        inside_verify(&w.warm_start.state, &w.warm_start.first);
    }
    if (start->cold && start->soft)
        inside_soft_shut();
    start_from(start->cold ? &w.cold_start : &w.warm_start, start, !mild);
    w.distrust = false;
    w.scribbled = 0;
    window_written = NULL;
    window_file = NULL;
    inside_run_begins();
}

void window_distrust(void)
{
    w.distrust = true;
}

void window_scribbled(uintptr_t from, size_t size)
{
    uintptr_t low = window_places.blocks, end = from + size;
    for (unsigned slot = 0; slot < BH_SEGMENT_SLOTS; slot++, low += BH_SLOT_SIZE) {
        if (from < low + BH_SLOT_SIZE && end > low)
            w.scribbled |= (uint64_t)1 << slot;
    }
}

size_t window_segments(void)
{
    size_t n = 0;
    for (uint32_t i = 0; i < atomic_load(&bhi_state->arena_count); i++)
        n += bhi_state->arenas[i].top;
    return n;
}

static bool is_within(uintptr_t at, size_t size, uintptr_t from, size_t all)
{
    return at - from < all && size <= all - (at - from);
}

bool inside_is_ours(uintptr_t at, size_t size)
{
    return !w.ready || is_within(at, size, window_places.blocks - BH_OS_PAGE_SIZE, BH_OS_PAGE_SIZE + window_places.blocks_size) ||
           is_within(at, size, w.control_at, w.control_size) || window_is_inside(at, size);
}

bool window_is_inside(uintptr_t at, size_t size)
{
    if (is_within(at, size, window_places.blocks, window_places.blocks_size))
        return true;
    for (unsigned i = 0; i < w.reserved; i++) { /* further arenas */
        if (is_within(at, size, w.reserved_at[i], w.reserved_size[i]))
            return true;
    }
    return false;
}

size_t window_pool_used(void)
{
    return bhi_state->pool.at - window_places.pool;
}
