/* See probe.h. Nothing here is a secret of the attacker's: what the attacker would
 * have to guess is read from the allocator's own structures. */
#include "probe.h"

#include "bulkhead.h"
#include "core/free.h"
#include "core/hardened.h"
#include "harden/guarded.h"
#include "harden/slack.h"
#include "meta/size_class.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define HOLE_MOST 20000u
#define FORK_BEFORE 100

static uintptr_t at[HOLE_MOST + PROBE_ROUNDS + PROBE_LIVE];
static bool planted, out_of_memory;
static uint64_t state;

static uint64_t draw(void)
{
    uint64_t z = (state += UINT64_C(0x9E3779B97F4A7C15)); /* splitmix64 */
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static uint32_t below(uint32_t n)
{
    return (uint32_t)(draw() % n);
}

/* ---------------------------------------------- the predictable allocator */

/* Next address, or the block freed last. Nothing is stored in its blocks. */
static uintptr_t plant_at = (uintptr_t)1 << 40;
static uintptr_t plant_free[HOLE_MOST + PROBE_ROUNDS + PROBE_LIVE];
static size_t plant_count;

static uintptr_t plant_take(size_t size)
{
    if (plant_count > 0)
        return plant_free[--plant_count];
    plant_at += size;
    return plant_at - size;
}

static uintptr_t take(bh_heap_t *heap, size_t size)
{
    uintptr_t p = planted ? plant_take(size) : (uintptr_t)(heap != NULL ? bh_heap_malloc(heap, size) : bh_malloc(size));
    out_of_memory |= p == 0;
    return p;
}

static void give(uintptr_t p)
{
    if (planted)
        plant_free[plant_count++] = p;
    else
        bh_free((void *)p); /* NOLINT: blocks are numbers here */
}

/* -------------------------------------------------------------------- order */

static void order(probe_order_t *out)
{
    /* In profile hardened part of the block is its end, and the smallest have no room for one. */
    size_t end = bhi_is_hardened() ? BH_CANARY_LEAST : 0;
    for (unsigned c = 0; c < BHI_CLASSES; c++) {
        size_t size = bhi_class_size(end != 0 && c == 0 ? 1 : c);
        uintptr_t last = take(NULL, size - end);
        for (unsigned i = 1; i < PROBE_IN_ROW; i++) {
            uintptr_t p = take(NULL, size - end);
            out->behind[c] += p == last + size;
            last = p;
        }
    }
}

/* -------------------------------------------------------------------- reuse */

size_t probe_size(unsigned i)
{
    static const size_t others[PROBE_SIZES - PROBE_BOUND_SIZES] = {320, 512, 1024, 2048, 8192, 32768, 131072, 200000};
    return i < PROBE_BOUND_SIZES ? bhi_class_size(i + 1) : others[i - PROBE_BOUND_SIZES];
}

/* Sizes without a bound are kernel calls for the most part, and took five sixths of the time. */
unsigned probe_rounds(unsigned i)
{
    return i < PROBE_BOUND_SIZES ? PROBE_ROUNDS : PROBE_ROUNDS / 10;
}

static bool comes_back(bh_heap_t *heap, size_t size, uintptr_t freed)
{
    uintptr_t next[PROBE_NEXT];
    bool back = false;
    for (unsigned i = 0; i < PROBE_NEXT; i++) {
        next[i] = take(heap, size);
        back |= next[i] == freed;
    }
    for (unsigned i = 0; i < PROBE_NEXT; i++)
        give(next[i]);
    return back;
}

static bool fresh(bh_heap_t *heap, size_t size)
{
    uintptr_t p = take(heap, size);
    give(p);
    return comes_back(heap, size, p);
}

static bool among_live(bh_heap_t *heap, size_t size)
{
    for (unsigned i = 0; i < PROBE_LIVE; i++)
        at[i] = take(heap, size);
    uintptr_t p = at[below(PROBE_LIVE)];
    give(p);
    return comes_back(heap, size, p);
}

/* *all: rounds whose block came back. The one that counts is chosen before. */
static bool tight(bh_heap_t *heap, size_t size, unsigned rounds, uint64_t *all)
{
    for (unsigned i = 0; i < rounds + PROBE_NEXT; i++) {
        at[i] = take(heap, size);
        give(at[i]);
    }
    bool judged = false;
    unsigned chosen = below(rounds);
    for (unsigned i = 0; i < rounds; i++) {
        bool back = false;
        for (unsigned k = 1; k <= PROBE_NEXT; k++)
            back |= at[i + k] == at[i];
        *all += back;
        judged |= back && i == chosen;
    }
    return judged;
}

/* Every block of a page live, then one of them freed. */
static bool hole(bh_heap_t *heap, size_t size)
{
    unsigned n = 0;
    uint32_t page_blocks = bhi_class_blocks(bhi_class_of(size));
    const bhi_page_t *page = NULL;
    for (bool full = false; n < HOLE_MOST && !full && !out_of_memory; n++) {
        at[n] = take(heap, size);
        if (planted) {
            full = n + 1 == page_blocks;
        } else {
            page = bhi_block_of(at[n], BHI_USE_QUERY).page;
            full = bhi_page_live(page) == page->reserved;
        }
    }
    uintptr_t p;
    do {
        p = at[below(n)];
    } while (page != NULL && bhi_block_of(p, BHI_USE_QUERY).page != page);
    give(p);
    return comes_back(heap, size, p);
}

static void reuse(probe_reuse_t *out)
{
    for (unsigned i = 0; i < PROBE_SIZES; i++) {
        size_t size = probe_size(i);
        plant_count = 0;
        out->back[i][PROBE_FRESH] = fresh(NULL, size);
        for (unsigned s = PROBE_AMONG_LIVE; s < PROBE_SITUATIONS; s++) {
            if (i >= PROBE_BOUND_SIZES && s != PROBE_TIGHT)
                continue;
            /* A heap of its own, so that one situation does not prepare another. */
            bh_heap_t *heap = bh_heap_new();
            plant_count = 0;
            if (s == PROBE_AMONG_LIVE)
                out->back[i][s] = among_live(heap, size);
            else if (s == PROBE_TIGHT)
                out->back[i][s] = tight(heap, size, probe_rounds(i), &out->tight[i]);
            else
                out->back[i][s] = hole(heap, size);
            bh_heap_destroy(heap);
        }
    }
}

/* ---------------------------------------------------------------- addresses */

static void address(probe_address_t *out)
{
    uintptr_t block = take(NULL, 64);
    uintptr_t mask48 = ((uintptr_t)1 << 48) - 1;
    out->value[PROBE_BLOCKS] = bhi_process.block_base >> BH_SEGMENT_SHIFT;
    out->value[PROBE_CONTROL] = bhi_process.descs >> BH_OS_PAGE_SHIFT;
    out->value[PROBE_DISTANCE] = ((bhi_process.block_base - bhi_process.descs) & mask48) >> BH_OS_PAGE_SHIFT;
    out->value[PROBE_HEAP] = ((block - (uintptr_t)bhi_thread_heap) & mask48) >> 6; /* both multiples of 64 */
    for (unsigned i = 0; planted && i < PROBE_ADDRESSES; i++)
        out->value[i] = draw() & 0x3ff; /* 10 bits */
}

/* --------------------------------------------------------------------- fork */

typedef struct row {
    uintptr_t used[PROBE_IN_ROW], fresh[PROBE_IN_ROW];
} row_t;

static void take_row(row_t *row)
{
    for (unsigned i = 0; i < PROBE_IN_ROW; i++)
        row->used[i] = take(NULL, 64);
    for (unsigned i = 0; i < PROBE_IN_ROW; i++)
        row->fresh[i] = take(NULL, 96);
}

static void fork_both(probe_fork_t *out)
{
    for (unsigned i = 0; i < FORK_BEFORE; i++)
        at[i] = take(NULL, 64);
    for (unsigned i = 0; i < FORK_BEFORE; i += 3)
        give(at[i]);
    row_t *theirs = mmap(NULL, sizeof *theirs, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), ours;
    pid_t pid = theirs != MAP_FAILED ? fork() : -1;
    int status = 1;
    if (pid == 0) {
        take_row(theirs);
        _exit(out_of_memory);
    }
    take_row(&ours);
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
        out_of_memory = true;
        return;
    }
    for (unsigned i = 0; i < PROBE_IN_ROW; i++) {
        out->used_same += ours.used[i] == theirs->used[i];
        /* Of a class that begins after the fork, the place in its slot: that two
         * processes choose different slots says nothing of the order in them. */
        out->fresh_same += ((ours.fresh[i] ^ theirs->fresh[i]) & (BH_SLOT_SIZE - 1)) == 0;
    }
    out->used_all = memcmp(ours.used, theirs->used, sizeof ours.used) == 0;
    out->fresh_all = memcmp(ours.fresh, theirs->fresh, sizeof ours.fresh) == 0;
}

/* ------------------------------------------------------------------- chance */

#define CHANCE_SIZE 56u /* of a class of 64, less the shortest end */

static bool is_guarded(uintptr_t p, unsigned i)
{
    return planted ? i % 2 != 0 : bhi_guarded_contains(p);
}

/* An ordinary block: in profile hardened the first ones of a class are guarded. */
static uintptr_t take_plain(void)
{
    uintptr_t p = take(NULL, CHANCE_SIZE);
    for (unsigned i = 0; i < PROBE_SAMPLED && !planted && bhi_guarded_contains(p); i++) {
        give(p);
        p = take(NULL, CHANCE_SIZE);
    }
    return p;
}

static uint64_t end_of(uintptr_t p)
{
    if (planted)
        return draw() & 0x3ff;
    uint64_t word = bhi_slack_load64(p + CHANCE_SIZE);
    return (word >> 1 & 0x7f) | (word >> 16 & 0xffffffffff) << 7 | word >> 57 << 47;
}

static void chance(probe_chance_t *out)
{
    for (unsigned i = 0; i < 100; i++) /* of a class and heap that have begun */
        give(take_plain());
    uintptr_t p = take_plain();
    if (bhi_is_hardened() || planted)
        out->end = end_of(p);
    give(p);
    for (unsigned frees = 0; frees < PROBE_RING + PROBE_LATER; frees++) {
        uintptr_t q = take_plain();
        out->ring |= q == p && frees < PROBE_RING;
        out->later |= q == p;
        give(q);
    }
    for (unsigned i = 0; i < PROBE_SAMPLED; i++) {
        p = take(NULL, CHANCE_SIZE);
        out->guarded += is_guarded(p, i);
        give(p);
    }
}

size_t probe_run(const char *mode, uint64_t seed, bool plant, probe_sample_t *out)
{
    size_t size = 0;
    memset(out, 0, sizeof *out);
    state = seed;
    planted = plant;
    if (strcmp(mode, "order") == 0) {
        order(&out->order);
        size = sizeof out->order;
    } else if (strcmp(mode, "reuse") == 0) {
        reuse(&out->reuse);
        size = sizeof out->reuse;
    } else if (strcmp(mode, "address") == 0) {
        address(&out->address);
        size = sizeof out->address;
    } else if (strcmp(mode, "fork") == 0) {
        fork_both(&out->fork);
        size = sizeof out->fork;
    } else if (strcmp(mode, "chance") == 0) {
        chance(&out->chance);
        size = sizeof out->chance;
    }
    return out_of_memory ? 0 : size;
}
