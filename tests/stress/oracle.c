#include "oracle.h"

#include "bulkhead.h"

#include "sut.h"

#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#define ADDRESS_BITS 48
#define LEAF_SHIFT 22
#define LEAF_COUNT ((size_t)1 << (ADDRESS_BITS - LEAF_SHIFT))
#define GRANULE_SHIFT 3
#define LEAF_WORDS (((size_t)1 << (LEAF_SHIFT - GRANULE_SHIFT)) / 64)
#define SLOT_SHIFT 16
#define LEAF_SLOTS ((size_t)1 << (LEAF_SHIFT - SLOT_SHIFT))

/* Blocks up to this size come from pages with a size class. */
#define CLASS_MAX (128 * KIB)

/* Bytes filled without gaps at either end of a sparse block. */
#define SPARSE_EDGE ((size_t)512)
#define SPARSE_STEP ((size_t)4096)
#define CHUNK_WORDS ((size_t)64)
#define PATTERN_STEP UINT64_C(0xD6E8FEB86659FD93)

struct leaf {
    _Atomic uint64_t bits[LEAF_WORDS];
    /* Heap (high half) and number of its live blocks (low half) in each 64 KiB
     * slot. A count of 0 means no owner. */
    _Atomic uint64_t slots[LEAF_SLOTS];
};

static _Atomic(struct leaf *) *leaves;

/* Guarded blocks lie beside those of any heap, and none can be told from others. */
static bool any_guarded;

void oracle_init(void)
{
    any_guarded = bh_option_get_long("guarded_sample_rate") > 0 || bh_option_get_long("guarded_first") > 0;
    leaves = table_new(LEAF_COUNT * sizeof *leaves);
}

void oracle_discard(void)
{
    for (size_t i = 0; i < LEAF_COUNT; i++) {
        /* The table is sparse: reading a hole costs a page of zeros only. */
        struct leaf *leaf = atomic_load_explicit(&leaves[i], memory_order_relaxed);
        if (leaf != NULL)
            munmap(leaf, sizeof *leaf);
    }
    munmap(leaves, LEAF_COUNT * sizeof *leaves);
    leaves = NULL;
}

static struct leaf *leaf_of(uintptr_t addr)
{
    size_t index = addr >> LEAF_SHIFT;
    if (index >= LEAF_COUNT)
        finding("address", "block at %#" PRIxPTR " is outside user space", addr);
    struct leaf *leaf = atomic_load_explicit(&leaves[index], memory_order_acquire);
    if (leaf != NULL)
        return leaf;
    struct leaf *fresh = table_new(sizeof *fresh);
    if (atomic_compare_exchange_strong(&leaves[index], &leaf, fresh))
        return fresh;
    munmap(fresh, sizeof *fresh);
    return leaf;
}

/* A block of no usable bytes still owns its address. */
static size_t footprint(const struct block *b)
{
    return b->usable == 0 ? 1 : b->usable;
}

static void mark(const struct block *b, bool claim)
{
    uint64_t first = b->addr >> GRANULE_SHIFT;
    uint64_t last = (b->addr + footprint(b) - 1) >> GRANULE_SHIFT;
    for (uint64_t word = first / 64; word <= last / 64; word++) {
        uint64_t mask = ~UINT64_C(0);
        if (word == first / 64)
            mask &= ~UINT64_C(0) << (first % 64);
        if (word == last / 64)
            mask &= ~UINT64_C(0) >> (63 - last % 64);
        struct leaf *leaf = leaf_of((uintptr_t)(word * 64) << GRANULE_SHIFT);
        _Atomic uint64_t *bits = &leaf->bits[word % LEAF_WORDS];
        uint64_t old = claim ? atomic_fetch_or_explicit(bits, mask, memory_order_relaxed)
                             : atomic_fetch_and_explicit(bits, ~mask, memory_order_relaxed);
        if (claim && (old & mask) != 0)
            finding("overlap",
                    "block %#" PRIxPTR " of %zu bytes (usable %zu, heap %" PRIu32
                    ") was handed out over a live block near %#" PRIxPTR,
                    b->addr, b->size, b->usable, b->heap,
                    (uintptr_t)(word * 64 + (uint64_t)__builtin_ctzll(old & mask)) << GRANULE_SHIFT);
        if (!claim && (old & mask) != mask)
            finding("oracle", "block %#" PRIxPTR " of %zu bytes was not claimed", b->addr, b->size);
    }
}

static void slot_enter(const struct block *b, _Atomic uint64_t *slot)
{
    uint64_t old = atomic_load_explicit(slot, memory_order_relaxed);
    uint64_t next;
    do {
        uint32_t count = (uint32_t)old;
        uint32_t owner = (uint32_t)(old >> 32);
        if (count != 0 && owner != b->heap)
            finding("heap-slot",
                    "block %#" PRIxPTR " of %zu bytes, heap %" PRIu32 ": its slot holds %" PRIu32
                    " live blocks of heap %" PRIu32,
                    b->addr, b->size, b->heap, count, owner);
        next = (uint64_t)b->heap << 32 | (count + 1);
    } while (!atomic_compare_exchange_weak_explicit(slot, &old, next, memory_order_relaxed,
                                                    memory_order_relaxed));
}

static void slots_walk(const struct block *b, bool enter)
{
    if (b->size > CLASS_MAX || any_guarded)
        return;
    uintptr_t last = (b->addr + footprint(b) - 1) >> SLOT_SHIFT;
    for (uintptr_t s = b->addr >> SLOT_SHIFT; s <= last; s++) {
        _Atomic uint64_t *slot = &leaf_of(s << SLOT_SHIFT)->slots[s % LEAF_SLOTS];
        if (enter)
            slot_enter(b, slot);
        else
            atomic_fetch_sub_explicit(slot, 1, memory_order_relaxed);
    }
}

static void check_alignment(const struct block *b)
{
    size_t promised = b->size <= 8 ? 8 : 16;
    if (b->align > promised)
        promised = b->align;
    if ((b->addr & (promised - 1)) != 0)
        finding("misaligned", "block %#" PRIxPTR " of %zu bytes is not aligned to %zu", b->addr,
                b->size, promised);
}

void oracle_claim(struct block *b)
{
    check_alignment(b);
    b->usable = sut_usable_size((void *)b->addr);
    if (b->usable < b->size)
        finding("short", "block %#" PRIxPTR " of %zu bytes has a usable size of %zu", b->addr,
                b->size, b->usable);
    mark(b, true);
    slots_walk(b, true);
}

void oracle_release(const struct block *b)
{
    slots_walk(b, false);
    mark(b, false);
}

/* The pattern goes through memcpy and memcmp in small chunks: the sanitizers
 * check a whole chunk at the price of a word. */
static void pattern_make(unsigned char *out, size_t offset, size_t bytes, uint64_t seed)
{
    uint64_t value = seed + (offset / 8) * PATTERN_STEP;
    for (size_t i = 0; i < bytes; i += 8, value += PATTERN_STEP)
        memcpy(out + i, &value, 8);
}

enum visit { VISIT_FILL, VISIT_CHECK, VISIT_ZERO };

struct walk {
    enum visit visit;
    unsigned char *p;
    size_t limit; /* bytes from here on are left alone */
    uint64_t seed;
};

/* Offset of the first wrong byte in [offset, end), SIZE_MAX when all is well.
 * `offset` is a multiple of 8. */
static size_t visit_range(const struct walk *w, size_t offset, size_t end)
{
    unsigned char expect[CHUNK_WORDS * 8] = {0};
    if (end > w->limit)
        end = w->limit;
    for (; offset < end; offset += sizeof expect) {
        size_t n = end - offset < sizeof expect ? end - offset : sizeof expect;
        if (w->visit != VISIT_ZERO)
            pattern_make(expect, offset, n, w->seed);
        if (w->visit == VISIT_FILL) {
            memcpy(w->p + offset, expect, n);
        } else if (memcmp(w->p + offset, expect, n) != 0) {
            size_t i = 0;
            while (w->p[offset + i] == expect[i] && i < n - 1)
                i++;
            return offset + i;
        }
    }
    return SIZE_MAX;
}

/* Visits the bytes of `b` that carry its pattern. */
static size_t visit(const struct block *b, const struct walk *w)
{
    if (!b->sparse)
        return visit_range(w, 0, b->usable);
    size_t bad = visit_range(w, 0, SPARSE_EDGE);
    for (size_t page = SPARSE_STEP; bad == SIZE_MAX && page + 2 * SPARSE_STEP <= b->usable;
         page += SPARSE_STEP) {
        size_t at = page + ((b->seed ^ page) & (SPARSE_STEP - 8));
        bad = visit_range(w, at, at + 8);
    }
    if (bad == SIZE_MAX)
        bad = visit_range(w, (b->usable - SPARSE_EDGE) & ~(size_t)7, b->usable);
    return bad;
}

void oracle_fill(const struct block *b)
{
    struct walk w = {VISIT_FILL, (unsigned char *)b->addr, b->usable, b->seed};
    visit(b, &w);
}

void oracle_check(const struct block *b, const char *when)
{
    void *p = (void *)b->addr;
    check_alignment(b);
    size_t usable = sut_usable_size_again(p);
    if (usable != b->usable)
        finding("usable-changed", "block %#" PRIxPTR " of %zu bytes: usable size %zu became %zu (%s)",
                b->addr, b->size, b->usable, usable, when);
    sut_before_check(p, b->size);
    struct walk w = {VISIT_CHECK, p, b->usable, b->seed};
    size_t bad = visit(b, &w);
    if (bad != SIZE_MAX)
        finding("contents",
                "block %#" PRIxPTR " of %zu bytes (usable %zu, heap %" PRIu32
                "): byte %zu is %#x and not as written (%s)",
                b->addr, b->size, b->usable, b->heap, bad, ((unsigned char *)p)[bad], when);
}

void oracle_check_kept(const struct block *b, const void *p, size_t bytes)
{
    struct walk w = {VISIT_CHECK, (unsigned char *)(uintptr_t)p, bytes, b->seed};
    size_t bad = visit(b, &w);
    if (bad != SIZE_MAX)
        finding("lost-contents",
                "realloc of %#" PRIxPTR " from %zu bytes lost byte %zu of the %zu to keep (now at %p)",
                b->addr, b->size, bad, bytes, p);
}

void oracle_check_zero(const struct block *b)
{
    struct walk w = {VISIT_ZERO, (unsigned char *)b->addr, b->size, 0};
    size_t bad = visit(b, &w);
    if (bad != SIZE_MAX)
        finding("not-zero", "zeroed block %#" PRIxPTR " of %zu bytes: byte %zu is %#x", b->addr,
                b->size, bad, ((unsigned char *)b->addr)[bad]);
}
