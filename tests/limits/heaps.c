/* First-class heaps: no 64 KiB slot holds blocks of two heaps, not while blocks
 * come and go and not after a delete; memory goes back. */
#include "support.h"

#include <bulkhead.h>

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOT_SHIFT 16
#define OWNERS 4 /* three heaps and the thread's default heap */
#define LIVE 20000
#define ROUNDS 400000
#define RSS_BOUND (8 * MIB)

/* Owner and number of live blocks of each slot, in a table that is open-hashed
 * by slot number: a handful of entries for each MiB in use. */
#define TABLE_SIZE ((size_t)1 << 20)
struct slot {
    uintptr_t number;
    unsigned owner;
    unsigned live;
};
static struct slot *table;
static size_t shared;

static struct slot *slot_of(uintptr_t number)
{
    size_t i = (size_t)((number * UINT64_C(0x9E3779B97F4A7C15)) >> 44) % TABLE_SIZE;
    while (table[i].number != number && table[i].number != 0)
        i = (i + 1) % TABLE_SIZE;
    table[i].number = number;
    return &table[i];
}

struct piece {
    char *p;
    size_t size;
    unsigned owner;
};

static void enter(const struct piece *b, bool in)
{
    uintptr_t first = (uintptr_t)b->p >> SLOT_SHIFT;
    uintptr_t last = ((uintptr_t)b->p + (b->size == 0 ? 0 : b->size - 1)) >> SLOT_SHIFT;
    for (uintptr_t s = first; s <= last; s++) {
        struct slot *slot = slot_of(s);
        if (in && slot->live > 0 && slot->owner != b->owner) {
            if (shared++ < 5)
                printf("  slot %#lx: %u blocks of owner %u, then %zu bytes of owner %u at %p\n",
                       (unsigned long)s, slot->live, slot->owner, b->size, b->owner, (void *)b->p);
        }
        if (in)
            slot->owner = b->owner;
        slot->live += in ? 1U : -1U;
    }
}

static size_t random_size(uint64_t *seed)
{
    uint64_t dice = limits_random(seed) % 100;
    if (dice < 60)
        return limits_random(seed) % 256;
    if (dice < 90)
        return limits_random(seed) % 4096;
    if (dice < 98)
        return limits_random(seed) % 32768;
    return limits_random(seed) % (128 * KIB);
}

static char *allocate(bh_heap_t *heap, size_t size, uint64_t dice)
{
    if (heap == NULL)
        return dice % 2 != 0 ? malloc(size) : calloc(1, size);
    switch (dice % 4) {
    case 0:
        return bh_heap_zalloc(heap, size);
    case 1:
        return bh_heap_calloc(heap, 1, size);
    case 2:
        return bh_heap_realloc(heap, NULL, size);
    default:
        return bh_heap_malloc(heap, size);
    }
}

/* Random blocks of four owners; heap 0 is deleted half way, its blocks live on
 * and a new heap with another owner number takes its place. */
static void isolation(uint64_t seed)
{
    static struct piece live[LIVE];
    size_t count = 0;
    bh_heap_t *heaps[OWNERS] = {bh_heap_new(), bh_heap_new(), bh_heap_new(), NULL};
    unsigned owners[OWNERS] = {1, 2, 3, 4};
    table = limits_table(TABLE_SIZE * sizeof *table);
    for (size_t i = 0; i < ROUNDS; i++) {
        if (i % (ROUNDS / 8) == ROUNDS / 8 - 1) {
            bh_heap_delete(heaps[0]);
            heaps[0] = bh_heap_new();
            owners[0] += OWNERS;
        }
        uint64_t dice = limits_random(&seed);
        if (count == LIVE || (count > 0 && dice % 100 < 45)) {
            size_t victim = limits_random(&seed) % count;
            enter(&live[victim], false);
            free(live[victim].p);
            live[victim] = live[--count];
            continue;
        }
        unsigned o = (unsigned)(limits_random(&seed) % OWNERS);
        struct piece b = {.size = random_size(&seed), .owner = owners[o]};
        b.p = allocate(heaps[o], b.size, dice >> 32);
        if (b.p == NULL)
            limits_broken("no memory");
        memset(b.p, 1, b.size);
        enter(&b, true);
        live[count++] = b;
    }
    limits_result(shared == 0, "heaps: %zu blocks in a slot with another heap's, of %d (bound 0)",
                  shared, ROUNDS);
    while (count > 0)
        free(live[--count].p);
    for (unsigned o = 0; o < OWNERS - 1; o++)
        bh_heap_delete(heaps[o]);
}

static char *pieces[50000];

static void fill(bh_heap_t *heap)
{
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        pieces[i] = bh_heap_malloc(heap, 2000);
        if (pieces[i] == NULL)
            limits_broken("no memory");
        memset(pieces[i], 1, 2000);
    }
}

static void memory_returned(void)
{
    bh_collect(true);
    size_t before = limits_rss();
    bh_heap_t *heap = bh_heap_new();
    fill(heap);
    size_t live = limits_rss() - before;
    bh_heap_delete(heap);
    bool kept = true;
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        kept = kept && pieces[i][0] == 1 && pieces[i][1999] == 1;
        free(pieces[i]);
    }
    bh_collect(true);
    size_t now = limits_rss();
    size_t growth = now > before ? now - before : 0;
    limits_result(kept && growth <= RSS_BOUND,
                  "heaps-delete: %zu of %zu KiB left after delete and free%s (bound %zu KiB)",
                  growth / KIB, live / KIB, kept ? "" : ", contents lost", RSS_BOUND / KIB);

    before = limits_rss();
    for (int round = 0; round < 20; round++) {
        heap = bh_heap_new();
        fill(heap);
        bh_heap_destroy(heap);
    }
    bh_collect(true);
    now = limits_rss();
    growth = now > before ? now - before : 0;
    limits_result(growth <= RSS_BOUND,
                  "heaps-destroy: %zu KiB left after 20 times 97 MiB (bound %zu KiB)", growth / KIB,
                  RSS_BOUND / KIB);
}

int main(void)
{
    limits_begin();
    isolation(limits_seed());
    memory_returned();
    return limits_end();
}
