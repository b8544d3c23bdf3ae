/* Attacks on a page's list of free blocks.
 *
 * Whatever is written into free blocks, nothing comes of it: there is nothing of the
 * allocator's in them, and each comes back as it was left. And whatever is written over
 * the list itself, in control memory, its length or the page's key, by somebody who
 * knows the key: malloc must never return a live block, the same block twice, or an
 * address that is not a block of the class. There the process may end with corrupt-list
 * or double-free, or the attack may have had no effect. There is no word to decode, so
 * no chance to count but one: without the key, a written entry is the block that was
 * meant once in 2^16.
 *
 *   lists [TRIALS]   default 5000 */
#include "base/bits.h"
#include "bulkhead.h"
#include "core/thread.h"
#include "list_trial.h"
#include "meta/size_class.h"

#include <stdio.h>
#include <stdlib.h>

/* ----------------------------------------------------------- attacks on blocks */

static uint32_t one_of(world_t *w, const world_set_t *set)
{
    return set->n > 0 ? set->index[attack_below(&w->random, set->n)] : WORLD_NO_BLOCK;
}

static uint64_t any_word(world_t *w)
{
    static const uint64_t plain[] = {1, UINT64_MAX, UINT64_C(0x4141414141414141)};
    uint32_t which = attack_below(&w->random, 6);
    return which < 3 ? plain[which] : attack_random(&w->random);
}

static bool overwrite(world_t *w)
{
    for (uint32_t i = 0; i < w->free.n; i++)
        world_write(w, w->free.index[i], any_word(w));
    return w->free.n > 0;
}

static bool overwrite_fresh(world_t *w)
{
    uint32_t n = 0;
    for (; n < w->fresh.n && n < 128; n++)
        world_write(w, w->fresh.index[n], any_word(w));
    return n > 0;
}

/* What lies in other free blocks, if that were of any use. */
static bool copy_words(world_t *w)
{
    for (uint32_t i = 0; i < w->free.n; i++)
        world_write(w, w->free.index[i], world_read(w, one_of(w, &w->free)));
    return w->free.n > 1;
}

/* What a link would be: place, index, address or encoded index of another block. */
static bool links(world_t *w)
{
    for (uint32_t i = 0; i < w->free.n; i++) {
        uint32_t live = world_live_index(w), to = live != WORLD_NO_BLOCK ? live : one_of(w, &w->free);
        uint64_t word[] = {(uint64_t)to * w->size, to, bhi_page_block(w->page, to), bhi_list_code(w->page, to), to ^ w->page->list_key};
        world_write(w, w->free.index[i], word[attack_below(&w->random, 5)]);
    }
    return w->free.n > 0;
}

static bool all_blocks(world_t *w)
{
    bool free = overwrite(w), fresh = overwrite_fresh(w);
    return free || fresh;
}

/* ---------------------------------------------------------- attacks on entries */

/* Often the last entry, which malloc meets first. */
static uint32_t some_entry(world_t *w)
{
    uint32_t n = w->page->listed;
    return attack_below(&w->random, 3) == 0 ? n - 1 : attack_below(&w->random, n);
}

static bool forge_at(world_t *w, uint32_t at, uint32_t index)
{
    if (w->page->listed == 0 || index == WORLD_NO_BLOCK)
        return false;
    world_forge(w, at, index);
    return true;
}

static bool forge_to(world_t *w, uint32_t index)
{
    return w->page->listed > 0 && forge_at(w, some_entry(w), index);
}

static uint32_t listed_block(world_t *w)
{
    return w->page->listed > 0 ? bhi_list_at(w->page, attack_below(&w->random, w->page->listed)) : WORLD_NO_BLOCK;
}

static bool flip(world_t *w)
{
    if (w->page->listed == 0)
        return false;
    uint32_t at = some_entry(w);
    bhi_index_t entry = bhi_list(w->page, 0)[at];
    for (uint32_t i = attack_below(&w->random, 3) + 1; i > 0; i--)
        entry = (bhi_index_t)(entry ^ 1u << attack_below(&w->random, 8 * sizeof entry));
    world_set_entry(w, at, entry);
    return true;
}

static bool random_entry(world_t *w)
{
    if (w->page->listed == 0)
        return false;
    world_set_entry(w, some_entry(w), (bhi_index_t)any_word(w));
    return true;
}

/* One block twice on the list. */
static bool copy(world_t *w)
{
    if (w->page->listed < 2)
        return false;
    uint32_t from = some_entry(w), to = some_entry(w);
    world_set_entry(w, to, bhi_list(w->page, 0)[from]);
    return from != to;
}

static bool swap(world_t *w)
{
    if (w->page->listed < 2)
        return false;
    uint32_t a = some_entry(w), b = some_entry(w);
    bhi_index_t entry = bhi_list(w->page, 0)[a];
    world_set_entry(w, a, bhi_list(w->page, 0)[b]);
    world_set_entry(w, b, entry);
    return a != b;
}

static bool replay(world_t *w)
{
    bool changed = false;
    for (uint32_t i = 0; i < w->olds; i++) {
        uint32_t at = w->old[i].at;
        if (at >= w->page->listed || bhi_list(w->page, 0)[at] == w->old[i].entry || attack_below(&w->random, 2) == 0)
            continue;
        world_set_entry(w, at, w->old[i].entry);
        changed = true;
    }
    return changed;
}

static bool to_live(world_t *w) { return forge_to(w, world_live_index(w)); }
static bool to_held(world_t *w) { return forge_to(w, one_of(w, &w->held)); }
static bool to_free(world_t *w) { return forge_to(w, one_of(w, &w->free)); }
static bool to_listed(world_t *w) { return forge_to(w, listed_block(w)); }

/* Those below capacity would be the next to be listed. */
static bool to_fresh(world_t *w)
{
    uint32_t index = w->fresh.n > 0 && attack_below(&w->random, 2) == 0 ? w->fresh.index[0] : one_of(w, &w->fresh);
    return forge_to(w, index);
}

static bool beyond_capacity(world_t *w)
{
    uint32_t capacity = bhi_page_capacity(w->page), left = w->page->reserved - capacity;
    return left > 0 && forge_to(w, capacity + (attack_below(&w->random, 2) == 0 ? 0 : attack_below(&w->random, left)));
}

static bool beyond_page(world_t *w)
{
    uint32_t most = (bhi_index_t)-1, reserved = w->page->reserved;
    if (reserved > most)
        return false;
    return forge_to(w, attack_below(&w->random, 2) == 0 ? reserved : reserved + attack_below(&w->random, most - reserved + 1));
}

static bool last_to_first(world_t *w)
{
    uint32_t n = w->page->listed;
    return n > 1 && forge_at(w, n - 1, bhi_list_at(w->page, 0));
}

static bool first_to_live(world_t *w) { return forge_at(w, 0, world_live_index(w)); }
static bool first_to_last(world_t *w)
{
    uint32_t n = w->page->listed;
    return n > 1 && forge_at(w, 0, bhi_list_at(w->page, n - 1));
}

static bool all_the_same(world_t *w)
{
    uint32_t n = w->page->listed, to = listed_block(w);
    for (uint32_t i = 0; i < n; i++)
        world_forge(w, i, to);
    return n > 1;
}

/* Any block of the page, or none. */
static bool storm(world_t *w)
{
    uint32_t n = w->page->listed, capacity = bhi_page_capacity(w->page);
    for (uint32_t i = 0; i < n; i++) {
        if (attack_below(&w->random, 4) != 0)
            world_forge(w, i, attack_below(&w->random, capacity + 2));
    }
    return n > 0;
}

/* Of a page of another class, in use by the same thread. */
static bool other_list(world_t *w)
{
    unsigned c = bhi_class_of(w->size);
    c = c > 0 ? c - 1 : c + 1;
    bh_free(bh_malloc(bhi_class_size(c)));
    const bhi_page_t *other = bhi_thread_heap->queues[c].first;
    if (other == NULL || other->listed == 0)
        return false;
    uint32_t n = attack_below(&w->random, 2) == 0 ? other->listed : w->page->listed;
    for (uint32_t i = 0; i < n && i < other->listed; i++)
        world_set_entry(w, i, bhi_list(other, 0)[i]);
    w->page->listed = (uint16_t)n;
    return n > 0;
}

/* ------------------------------------------- attacks on the length and the key */

static void set_length(world_t *w, uint32_t n)
{
    w->page->listed = (uint16_t)n;
    w->list_written = true;
}

/* Leftovers of the list, and of older ones, are on it again. */
static bool longer(world_t *w)
{
    uint32_t n = w->page->listed, room = bhi_list_room(w->page->reserved);
    if (n >= room)
        return false;
    set_length(w, n + 1 + attack_below(&w->random, room - n));
    return true;
}

static bool longer_forged(world_t *w)
{
    uint32_t n = w->page->listed;
    if (!longer(w))
        return false;
    for (; n < w->page->listed; n++)
        world_forge(w, n, attack_below(&w->random, w->page->reserved));
    return true;
}

/* The map, and what lies behind it, is read as entries. */
static bool wild_length(world_t *w)
{
    uint32_t room = bhi_list_room(w->page->reserved);
    set_length(w, room + 1 + (uint32_t)(attack_random(&w->random) >> (32 + attack_below(&w->random, 32))));
    return w->page->listed > room;
}

static bool shorter(world_t *w)
{
    if (w->page->listed < 2)
        return false;
    set_length(w, 1 + attack_below(&w->random, w->page->listed - 1));
    return true;
}

static bool no_length(world_t *w)
{
    bool any = w->page->listed > 0;
    set_length(w, 0);
    return any;
}

static bool new_key(world_t *w)
{
    w->page->list_key ^= any_word(w) & BH_LIST_ENTRY;
    w->list_written = true;
    return w->page->listed > 0;
}

/* So that each entry is the block next to the one that it was. */
static bool near_key(world_t *w)
{
    w->page->list_key ^= (1 + attack_below(&w->random, 7)) & BH_LIST_ENTRY;
    w->list_written = true;
    return w->page->listed > 0;
}

/* One of the two words that malloc takes the next block from, and not the other. */
static bool top_alone(world_t *w)
{
    w->page->top ^= (1 + attack_below(&w->random, BH_LIST_ENTRY)) & BH_LIST_ENTRY;
    w->list_written = true;
    return w->page->listed > 0;
}

static bool place_alone(world_t *w)
{
    uint32_t live = world_live_index(w), place = (uint32_t)w->page->top_place;
    w->page->top_place = (attack_below(&w->random, 2) == 0 && live != WORLD_NO_BLOCK ? live * (uint32_t)w->size : (uint32_t)any_word(w)) & BH_LIST_PLACE;
    w->list_written = true;
    return w->page->listed > 0 && w->page->top_place != place;
}

/* Without the key: the entry of a block that is free, as if there were none. */
static bool plain_entry(world_t *w)
{
    uint32_t n = w->page->listed, want = one_of(w, &w->free);
    if (n == 0 || want == bhi_list_at(w->page, n - 1))
        return false;
    world_set_entry(w, n - 1, (bhi_index_t)want);
    bhi_list_set(w->page, n, (bhi_list_next_t){want, bhi_list_place(w->page, want)});
    w->chosen = bhi_page_block(w->page, want);
    return true;
}

static const attack_t attacks[] = {
    {"overwrite", overwrite, DEFUSED},
    {"overwrite fresh blocks", overwrite_fresh, DEFUSED},
    {"overwrite with links", links, DEFUSED},
    {"overwrite with words of free blocks", copy_words, DEFUSED},
    {"overwrite all that is free or fresh", all_blocks, DEFUSED},
    {"entry: flip bits", flip, SEEN},
    {"entry: anything", random_entry, SEEN},
    {"entry: copy another one", copy, SEEN},
    {"entry: swap two", swap, SEEN},
    {"entry: replay older ones", replay, SEEN},
    {"entry: of another page", other_list, SEEN},
    {"forge: to a live block", to_live, SEEN},
    {"forge: to a held block", to_held, SEEN},
    {"forge: to a free block", to_free, SEEN},
    {"forge: to a block on the list", to_listed, SEEN},
    {"forge: to a fresh block", to_fresh, SEEN},
    {"forge: beyond capacity", beyond_capacity, SEEN},
    {"forge: beyond the page", beyond_page, SEEN},
    {"forge: the last one to the first", last_to_first, SEEN},
    {"forge: the first one to the last", first_to_last, SEEN},
    {"forge: the first one to a live block", first_to_live, SEEN},
    {"forge: all to one block", all_the_same, SEEN},
    {"forge: all entries", storm, SEEN},
    {"length: longer", longer, SEEN},
    {"length: longer, by forged entries", longer_forged, SEEN},
    {"length: beyond the room", wild_length, FAULTS},
    {"length: shorter", shorter, DEFUSED},
    {"length: zero", no_length, DEFUSED},
    {"top: its entry alone", top_alone, SEEN},
    {"top: its place alone", place_alone, SEEN},
    {"key: another one", new_key, SEEN},
    {"key: a near one", near_key, SEEN},
};
#define ATTACKS (sizeof attacks / sizeof attacks[0])

static const attack_t plain = {"a plain entry", plain_entry, SEEN};

/* --------------------------------------------------------------------- trials */

static bool run_trials(unsigned long trials, uint64_t *random)
{
    tally_t all = {0};
    printf("     %-38s %8s %12s %11s %8s %8s %5s\n", "attack", "trials", "corrupt-list", "double-free", "SIGSEGV", "defused", "HIT");
    for (size_t a = 0; a < ATTACKS; a++) {
        unsigned long want = trials / ATTACKS + (a < trials % ATTACKS);
        tally_t n = trial_many(&attacks[a], want, random);
        bool ok = n.hits == 0 && n.other == 0 && n.trials == want;
        printf("%-4s %-38s %8lu %12lu %11lu %8lu %8lu %5lu\n",
               ok ? "ok" : "FAIL", attacks[a].name, n.trials, n.list, n.twice, n.faults, n.defused, n.hits);
        all.trials += n.trials;
        all.hits += n.hits;
        all.other += n.other;
    }
    bool ok = all.hits == 0 && all.other == 0 && all.trials == trials;
    printf("%-4s lists: %lu trials, %lu hits, %lu other ends\n", ok ? "ok" : "FAIL", all.trials, all.hits, all.other);
    return ok;
}

/* One in 2^16 each. More than three are less likely than one in 10^5 up to 4000 trials;
 * beyond that eight times what is to be expected is allowed. What else such an entry
 * does, the rows above look at. */
static bool run_choice(unsigned long trials, uint64_t *random)
{
    tally_t n = trial_many(&plain, trials, random);
    bool ok = n.chosen <= 3 + 8 * trials / 65536 && n.trials == trials;
    printf("%-4s a written entry is the block that was meant, without the key: %lu of %lu trials\n", ok ? "ok" : "FAIL", n.chosen, n.trials);
    return ok;
}

int main(int argc, char **argv)
{
    unsigned long trials = argc > 1 ? strtoul(argv[1], NULL, 0) : 5000;
    uint64_t random = attack_begin("lists");
    bool ok = run_trials(trials, &random);
    ok &= run_choice(trials / 25, &random);
    return ok ? 0 : 1;
}
