/* Building and judging. The judgement is the test's own: a table of the live
 * blocks and a pattern in each; nothing of it is asked from the allocator but
 * where its pages lie. */
#include "list_world.h"

#include "base/bits.h"
#include "bulkhead.h"
#include "core/thread.h"
#include "meta/arena.h"
#include "meta/size_class.h"
#include "targets.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define FILL_MOST ((size_t)256) /* bytes of pattern at each end of a block */
#define HASH_BITS 17

/* Set of the live addresses: open addressing. */
static uintptr_t hash[(size_t)1 << HASH_BITS];

static size_t place(uintptr_t p)
{
    size_t mask = ((size_t)1 << HASH_BITS) - 1;
    size_t at = (size_t)((p >> 3) * UINT64_C(0x9E3779B97F4A7C15) >> (64 - HASH_BITS));
    while (hash[at] != 0 && hash[at] != p)
        at = (at + 1) & mask;
    return at;
}

static bool is_live(uintptr_t p)
{
    return hash[place(p)] == p;
}

static void hash_remove(uintptr_t p)
{
    size_t mask = ((size_t)1 << HASH_BITS) - 1;
    size_t hole = place(p);
    hash[hole] = 0;
    for (size_t at = (hole + 1) & mask; hash[at] != 0; at = (at + 1) & mask) {
        uintptr_t moved = hash[at];
        hash[at] = 0;
        hash[place(moved)] = moved;
    }
}

/* The first one is the cause of others, and too many would fill the pipe. */
static void hit(const char *word, uintptr_t p)
{
    static bool recorded;
    if (!recorded)
        attack_record(word, p);
    recorded = true;
}

/* ---------------------------------------------------------------- the program */

static unsigned char pattern(uintptr_t p)
{
    return (unsigned char)(p >> 3 ^ p >> 11 ^ 0x5a);
}

/* Bytes at each end of a block that carry the pattern. */
static size_t ends(const world_t *w)
{
    return w->size < FILL_MOST ? w->size : FILL_MOST;
}

static void fill(const world_t *w, uintptr_t p)
{
    memset((void *)p, pattern(p), ends(w));                       /* NOLINT: blocks are numbers here */
    memset((void *)(p + w->size - ends(w)), pattern(p), ends(w)); /* NOLINT */
}

static void check_fill(const world_t *w, uintptr_t p)
{
    size_t n = ends(w);
    const unsigned char *block = (const unsigned char *)p; /* NOLINT */
    for (size_t i = 0; i < n; i++) {
        if (block[i] != pattern(p) || block[w->size - n + i] != pattern(p)) {
            hit("HIT: live block changed", p);
            return;
        }
    }
}

static uint64_t word_at(uintptr_t p)
{
    uint64_t word;
    memcpy(&word, (const void *)p, sizeof word); /* NOLINT */
    return word;
}

/* A free block is as the program or the attacker left it, or reads zero: its memory
 * was cleared before it was listed, or never written. Nothing of the allocator's. */
static void check_left(world_t *w, uintptr_t p)
{
    uintptr_t off = p - w->page->start, index = off / w->size;
    bool mine = index < w->page->reserved && w->written[index];
    uint64_t left = mine ? w->left[index] : pattern(p) * UINT64_C(0x0101010101010101);
    for (size_t i = 0; i < ends(w) && !w->list_written; i += sizeof left) {
        uint64_t first = word_at(p + i), last = word_at(p + w->size - ends(w) + i);
        if ((first != 0 && first != left) || (last != 0 && last != left)) {
            hit("HIT: free block changed", p);
            break;
        }
    }
    if (mine)
        w->written[index] = false;
}

/* Malloc may return no pointer but the start of a block of a page of the class
 * that is in use. */
static void check_place(const world_t *w, uintptr_t p)
{
    bhi_arena_t *arena = bhi_arena_of(p);
    if (arena == NULL) {
        hit("HIT: foreign", p);
        return;
    }
    const bhi_page_t *page = bhi_desc_first(bhi_desc_at(arena->descs, p - arena->base));
    uintptr_t off = p - page->start;
    if (page->state == BHI_PAGE_FREE || bhi_page_bytes(page) != w->size || off % w->size != 0 || off / w->size >= page->reserved)
        hit("HIT: not a block", p);
}

static uintptr_t take(world_t *w)
{
    uintptr_t p = target_take(w->size);
    check_place(w, p);
    if (is_live(p)) {
        hit("HIT: live block returned", p);
        return p;
    }
    if (w->lives == WORLD_BLOCKS)
        attack_broken("table full");
    if (w->page != NULL)
        check_left(w, p);
    hash[place(p)] = p;
    w->live[w->lives++] = p;
    fill(w, p);
    return p;
}

static uintptr_t forget(world_t *w, uint32_t which)
{
    uintptr_t p = w->live[which];
    check_fill(w, p);
    w->live[which] = w->live[--w->lives];
    hash_remove(p);
    return p;
}

static void give(world_t *w, uint32_t which)
{
    target_give(forget(w, which));
}

typedef struct batch {
    uintptr_t p[64];
    uint32_t n;
} batch_t;

static void *give_batch(void *arg)
{
    const batch_t *b = arg;
    for (uint32_t i = 0; i < b->n; i++)
        target_give(b->p[i]);
    return NULL;
}

static void give_remotely(world_t *w)
{
    batch_t b = {.n = 1 + attack_below(&w->random, 64)};
    pthread_t t;
    if (b.n > w->lives)
        b.n = w->lives;
    for (uint32_t i = 0; i < b.n; i++)
        b.p[i] = forget(w, attack_below(&w->random, w->lives));
    if (pthread_create(&t, NULL, give_batch, &b) != 0)
        attack_broken("pthread_create");
    pthread_join(t, NULL);
}

/* --------------------------------------------------------------- the attacker */

uint64_t world_read(const world_t *w, uint32_t index)
{
    return word_at(bhi_page_block(w->page, index));
}

void world_write(world_t *w, uint32_t index, uint64_t word)
{
    uintptr_t p = bhi_page_block(w->page, index);
    for (size_t i = 0; i < ends(w); i += sizeof word) {
        memcpy((void *)(p + i), &word, sizeof word);                     /* NOLINT */
        memcpy((void *)(p + w->size - ends(w) + i), &word, sizeof word); /* NOLINT */
    }
    w->written[index] = true;
    w->left[index] = word;
}

void world_set_entry(world_t *w, uint32_t at, bhi_index_t entry)
{
    bhi_list(w->page, 0)[at] = entry;
    if (at + 1u == w->page->listed && attack_below(&w->random, 4) != 0)
        bhi_list_lead(w->page, w->page->listed);
    w->list_written = true;
}

void world_forge(world_t *w, uint32_t at, uint32_t index)
{
    world_set_entry(w, at, bhi_list_code(w->page, index));
}

static void remember(world_t *w)
{
    for (uint32_t i = 0; i < 4 && w->page->listed > 0; i++) {
        uint32_t slot = w->olds < WORLD_OLD ? w->olds++ : attack_below(&w->random, WORLD_OLD);
        w->old[slot].at = attack_below(&w->random, w->page->listed);
        w->old[slot].entry = bhi_list(w->page, 0)[w->old[slot].at];
    }
}

static void add(world_set_t *set, uint32_t index)
{
    set->index[set->n++] = index;
}

/* Which blocks are live is the test's own knowledge; the allocator says which of the
 * others are fresh. */
static void look(world_t *w)
{
    uint32_t capacity = bhi_page_capacity(w->page), last = capacity == 0 ? 0 : (capacity - 1) / 64 * 64;
    w->free.n = w->held.n = w->fresh.n = 0;
    for (uint32_t i = 0; i < w->page->reserved; i++) {
        bool fresh = i >= capacity || (i >= last && (w->page->fresh >> (i - last) & 1) != 0);
        if (fresh)
            add(&w->fresh, i);
        else if (atomic_load(&w->page->map[i].held) != 0)
            add(&w->held, i);
        else if (!is_live(bhi_page_block(w->page, i)))
            add(&w->free, i);
    }
    remember(w);
}

uint32_t world_live_index(world_t *w)
{
    for (int i = 0; i < 200 && w->lives > 0; i++) {
        uintptr_t off = w->live[attack_below(&w->random, w->lives)] - w->page->start;
        if (off < (uintptr_t)bhi_page_capacity(w->page) * w->size)
            return (uint32_t)(off / w->size);
    }
    return WORLD_NO_BLOCK;
}

/* The page that malloc takes from next. */
static bool choose_page(world_t *w)
{
    w->page = bhi_thread_heap->queues[bhi_class_of(w->size)].first;
    return w->page != NULL;
}

bool world_build(world_t *w, uint64_t seed)
{
    memset(w, 0, offsetof(world_t, live));
    w->random = seed;
    uint32_t blocks;
    do { /* with large OS pages, the smallest classes have more blocks than the tables hold */
        w->size = bhi_class_size(attack_below(&w->random, BHI_CLASSES));
        blocks = bhi_class_blocks(bhi_class_of(w->size));
    } while (blocks > WORLD_PAGE);
    bool remote = attack_below(&w->random, 2) == 0;
    /* Half of the worlds live in one page, the others in several. */
    uint32_t goal = 1 + attack_below(&w->random, attack_below(&w->random, 2) == 0 ? blocks : 2 * blocks);
    uint32_t steps = 2 * goal + attack_below(&w->random, 200);
    for (uint32_t i = 0; i < steps; i++) {
        if (w->lives < goal && attack_below(&w->random, 3) != 0)
            take(w);
        else if (w->lives > 0)
            give(w, attack_below(&w->random, w->lives));
        if (i % 512 == 100 && choose_page(w))
            look(w);
    }
    uint32_t frees = attack_below(&w->random, 8) + w->lives / 4;
    for (uint32_t i = 0; i < frees && w->lives > 1; i++)
        give(w, attack_below(&w->random, w->lives));
    if (remote && w->lives > 1)
        give_remotely(w);
    if (!choose_page(w))
        return false;
    look(w);
    return w->free.n > 0;
}

void world_go_on(world_t *w)
{
    /* Enough to exhaust what the page has and to go on to the next one, but
     * not so much that the large classes take for ever. */
    uint32_t n = bhi_class_blocks(bhi_class_of(w->size)) + 40;
    if (w->chosen != 0 && take(w) == w->chosen)
        attack_record("chosen", w->chosen);
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < n; i++) {
            take(w);
            if (attack_below(&w->random, 8) == 0)
                give(w, attack_below(&w->random, w->lives));
        }
        for (uint32_t i = 0; i < n / 2 && w->lives > 0; i++)
            give(w, attack_below(&w->random, w->lives));
        if (w->lives > 0 && attack_below(&w->random, 4) == 0)
            give_remotely(w);
    }
    for (uint32_t i = 0; i < w->lives; i++)
        check_fill(w, w->live[i]);
}
