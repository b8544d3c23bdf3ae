/* Attacks on the links in free blocks, with the page's keys known.
 *
 * Whatever is written into free blocks, malloc must never return a live block,
 * the same block twice, or an address that is not a block of the class. The
 * process may end with corrupt-link, corrupt-list or double-free, or the attack
 * may have had no effect. Then the codec alone: links altered or copied without
 * the keys must not decode.
 *
 *   links [TRIALS [DECODES]]   default 5000 and 10^8 */
#include "base/bits.h"
#include "bulkhead.h"
#include "child.h"
#include "link_world.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

/* -------------------------------------------------------------------- attacks */

static const world_list_t *some_list(world_t *w)
{
    if (w->free.n == 0 || (w->local.n > 0 && attack_below(&w->random, 2) == 0))
        return &w->local;
    return &w->free;
}

static uint32_t some_of(world_t *w, const world_list_t *list)
{
    /* Often the head, which malloc meets first. */
    return list->index[attack_below(&w->random, 3) == 0 ? 0 : attack_below(&w->random, list->n)];
}

/* Forges the link of a random free block to `next`. */
static bool forge_to(world_t *w, uint32_t next)
{
    const world_list_t *list = some_list(w);
    uint32_t at = some_of(w, list);
    if (next == WORLD_NO_BLOCK)
        return false;
    world_write(w, at, world_forge(w, next, at, list->id));
    return true;
}

static bool overwrite(world_t *w)
{
    uint64_t word = attack_random(&w->random);
    static const uint64_t plain[] = {0, UINT64_MAX, UINT64_C(0x4141414141414141)};
    uint32_t which = attack_below(&w->random, 6);
    world_write(w, some_of(w, some_list(w)), which < 3 ? plain[which] : word);
    return true;
}

static bool flip(world_t *w)
{
    uint32_t at = some_of(w, some_list(w));
    uint64_t word = world_read(w, at);
    for (uint32_t i = attack_below(&w->random, 3) + 1; i > 0; i--)
        word ^= (uint64_t)1 << attack_below(&w->random, 64);
    world_write(w, at, word);
    return true;
}

static bool copy(world_t *w)
{
    uint32_t from = some_of(w, some_list(w)), to = some_of(w, some_list(w));
    world_write(w, to, world_read(w, from));
    return from != to;
}

static bool replay(world_t *w)
{
    for (uint32_t i = 0; i < w->olds; i++) {
        uint32_t which = attack_below(&w->random, w->olds);
        if (world_is_live(w, w->old[which].index))
            continue; /* its word is the program's own now */
        bool changed = world_read(w, w->old[which].index) != w->old[which].word;
        world_write(w, w->old[which].index, w->old[which].word);
        if (changed)
            return true;
    }
    return false;
}

static bool swap_tails(world_t *w)
{
    if (w->free.n == 0 || w->local.n == 0)
        return false;
    uint32_t a = w->free.index[w->free.n - 1], b = w->local.index[w->local.n - 1];
    uint64_t word = world_read(w, a);
    world_write(w, a, world_read(w, b));
    world_write(w, b, word);
    return true;
}

static bool splice(world_t *w, const world_list_t *from, const world_list_t *to)
{
    if (from->n == 0 || to->n == 0)
        return false;
    uint32_t tail = from->index[from->n - 1];
    /* Under either list's id: the list that it ends up in may be named so later. */
    uint16_t id = attack_below(&w->random, 4) == 0 ? to->id : from->id;
    world_write(w, tail, world_forge(w, to->index[0], tail, id));
    return true;
}

static bool splice_local_to_free(world_t *w) { return splice(w, &w->local, &w->free); }
static bool splice_free_to_local(world_t *w) { return splice(w, &w->free, &w->local); }

/* The whole of one list under the other's id. */
static bool rename_list(world_t *w)
{
    const world_list_t *list = some_list(w);
    uint16_t id = list == &w->free ? w->local.id : w->free.id;
    for (uint32_t i = 0; i < list->n; i++)
        world_write(w, list->index[i], world_forge(w, i + 1 < list->n ? list->index[i + 1] : WORLD_NO_BLOCK, list->index[i], id));
    return true;
}

static bool to_live(world_t *w) { return forge_to(w, world_live_index(w)); }
static bool to_fresh(world_t *w)
{
    uint32_t capacity = bhi_page_capacity(w->page);
    uint32_t left = w->page->reserved - capacity;
    if (w->page->fresh != 0 && attack_below(&w->random, 4) != 0) { /* the next to be listed */
        uint32_t which = attack_below(&w->random, bhi_bit_count(w->page->fresh));
        return forge_to(w, (capacity - 1) / 64 * 64 + bhi_bit_nth(w->page->fresh, which));
    }
    return forge_to(w, left > 0 ? capacity + attack_below(&w->random, left) : WORLD_NO_BLOCK);
}
static bool beyond(world_t *w)
{
    uint32_t off = attack_below(&w->random, 2) == 0 ? attack_below(&w->random, 4) : attack_below(&w->random, 1u << 23);
    return forge_to(w, w->page->reserved + off);
}
static bool end_early(world_t *w)
{
    const world_list_t *list = some_list(w);
    uint32_t at = some_of(w, list);
    world_write(w, at, world_forge(w, WORLD_NO_BLOCK, at, list->id));
    return true;
}
/* Into a block instead of to its start, mostly within the page. */
static bool between(world_t *w)
{
    const world_list_t *list = some_list(w);
    uint32_t at = some_of(w, list), size = w->page->block_size;
    uint32_t within = attack_below(&w->random, 8) == 0 ? 1u << 24 : bhi_page_capacity(w->page) * size;
    uint32_t place = attack_below(&w->random, within) / size * size + 1 + attack_below(&w->random, size - 1);
    world_write(w, at, world_forge_place(w, place, at, list->id));
    return true;
}
static bool to_held(world_t *w)
{
    return forge_to(w, w->helds > 0 ? w->held[attack_below(&w->random, w->helds)] : WORLD_NO_BLOCK);
}
static bool to_listed(world_t *w) { return forge_to(w, some_of(w, some_list(w))); }

static bool cycle(world_t *w)
{
    const world_list_t *list = some_list(w);
    uint32_t at = some_of(w, list);
    world_write(w, at, world_forge(w, at, at, list->id));
    return true;
}

/* The same with an attacker who also controls what the program stores in the
 * blocks: the forged list goes on through blocks that are in use, and only the
 * map can tell. */
static bool stamp_to(world_t *w, uint32_t next)
{
    const world_list_t *list = some_list(w);
    uint32_t at = some_of(w, list), then = some_of(w, list);
    if (next == WORLD_NO_BLOCK)
        return false;
    world_stamp(w, at, world_forge(w, next, at, list->id));
    if (next != at)
        world_stamp(w, next, world_forge(w, then, next, list->id));
    return true;
}

static bool stamp_live(world_t *w) { return stamp_to(w, world_live_index(w)); }
static bool stamp_listed(world_t *w) { return stamp_to(w, some_of(w, some_list(w))); }
static bool stamp_held(world_t *w)
{
    return stamp_to(w, w->helds > 0 ? w->held[attack_below(&w->random, w->helds)] : WORLD_NO_BLOCK);
}

static bool stamp_cycle(world_t *w)
{
    const world_list_t *list = some_list(w);
    uint32_t at = some_of(w, list);
    world_stamp(w, at, world_forge(w, at, at, list->id));
    return true;
}

/* A forged link that becomes valid with a later list id. */
static bool later_id(world_t *w)
{
    const world_list_t *list = some_list(w);
    uint32_t at = some_of(w, list);
    world_write(w, at, world_forge(w, some_of(w, some_list(w)), at, (uint16_t)(list->id + 1 + attack_below(&w->random, 3))));
    return true;
}

/* Everything at once: every free block, forged or garbage. */
static bool storm(world_t *w)
{
    uint32_t capacity = bhi_page_capacity(w->page);
    const world_list_t *lists[] = {&w->free, &w->local};
    for (size_t l = 0; l < 2; l++) {
        for (uint32_t i = 0; i < lists[l]->n; i++) {
            uint32_t at = lists[l]->index[i];
            uint32_t next = attack_below(&w->random, capacity + 2);
            if (attack_below(&w->random, 2) == 0)
                world_write(w, at, world_forge(w, next, at, (uint16_t)(lists[l]->id + attack_below(&w->random, 2))));
        }
    }
    return true;
}

/* An overflow into blocks that were never handed out. */
static bool fresh_memory(world_t *w)
{
    uint32_t left = w->page->reserved - bhi_page_capacity(w->page);
    for (uint32_t i = 0; i < left && i < 32; i++)
        world_write(w, bhi_page_capacity(w->page) + i, attack_random(&w->random));
    for (uint64_t set = w->page->fresh; set != 0; set &= set - 1)
        world_write(w, (bhi_page_capacity(w->page) - 1) / 64 * 64 + bhi_bit_first(set), attack_random(&w->random));
    return left > 0 || w->page->fresh != 0;
}

static const struct {
    const char *name;
    bool (*run)(world_t *); /* false: not possible in this world */
} attacks[] = {
    {"overwrite", overwrite},
    {"flip bits", flip},
    {"copy another link", copy},
    {"replay an older link", replay},
    {"swap with a block on no list", swap_tails},
    {"splice unlisted blocks onto free", splice_local_to_free},
    {"splice free onto unlisted blocks", splice_free_to_local},
    {"forge: the list under the next id", rename_list},
    {"forge: to a live block", to_live},
    {"forge: to itself", cycle},
    {"forge: to a block on a list", to_listed},
    {"forge: to a held block", to_held},
    {"forge: to a fresh block", to_fresh},
    {"forge: beyond the page", beyond},
    {"forge: early end", end_early},
    {"forge: into a block", between},
    {"forge: under a later id", later_id},
    {"forge: all links", storm},
    {"forge, contents too: live block", stamp_live},
    {"forge, contents too: itself", stamp_cycle},
    {"forge, contents too: block on a list", stamp_listed},
    {"forge, contents too: held block", stamp_held},
    {"overwrite fresh blocks", fresh_memory},
};
#define ATTACKS (sizeof attacks / sizeof attacks[0])

/* --------------------------------------------------------------------- trials */

typedef struct trial {
    uint64_t seed;
    size_t attack;
} trial_t;

static world_t world; /* zero until a child builds its own */

static void trial_body(void *arg)
{
    const trial_t *t = arg;
    uint64_t seed = t->seed;
    /* Not every world has what an attack needs: another one then takes its place. */
    if (!world_build(&world, attack_random(&seed))) {
        attack_record("none", 0);
        return;
    }
    attack_record("corrupt-link|corrupt-list|double-free", 0);
    if (!attacks[t->attack].run(&world)) {
        attack_record("none", 0);
        return;
    }
    world_go_on(&world);
    attack_record("went on", 0);
}

typedef struct tally {
    unsigned long trials, link, list, twice, defused, hits, other;
} tally_t;

static bool is_none(const attack_end_t *end)
{
    return strcmp(end->records[0].word, "none") == 0 || attack_has(end, "none");
}

static const char *hit_of(const attack_end_t *end)
{
    for (unsigned i = 0; i < end->count; i++) {
        if (strncmp(end->records[i].word, "HIT", 3) == 0)
            return end->records[i].word;
    }
    return NULL;
}

static void count(tally_t *n, const attack_end_t *end, const trial_t *t)
{
    uintptr_t address;
    const char *id = attack_id(end, &address), *hit = hit_of(end), *why = attack_verdict(end);
    n->trials++;
    if (hit != NULL) {
        n->hits++;
        printf("  %s in a trial of \"%s\", world 0x%" PRIx64 "\n", hit, attacks[t->attack].name, t->seed);
    } else if (why == NULL) {
        n->link += strcmp(id, "corrupt-link") == 0;
        n->list += strcmp(id, "corrupt-list") == 0;
        n->twice += strcmp(id, "double-free") == 0;
    } else if (attack_has(end, "went on") && WIFEXITED(end->status) && WEXITSTATUS(end->status) == 0) {
        n->defused++;
    } else {
        n->other++;
        printf("  neither detected nor defused in a trial of \"%s\", world 0x%" PRIx64 ": %s\n",
               attacks[t->attack].name, t->seed, why);
    }
}

static bool run_trials(unsigned long trials, uint64_t *random)
{
    tally_t all = {0};
    printf("     %-38s %8s %12s %12s %11s %8s %5s\n", "attack", "trials",
           "corrupt-link", "corrupt-list", "double-free", "defused", "HIT");
    for (size_t a = 0; a < ATTACKS; a++) {
        tally_t n = {0};
        unsigned long want = trials / ATTACKS + (a < trials % ATTACKS);
        for (unsigned long tried = 0; n.trials < want && tried < 20 * want; tried++) {
            trial_t t = {attack_random(random), a};
            attack_end_t end;
            attack_run(trial_body, &t, &end);
            if (end.count == 0)
                attack_broken("a world broke down before its attack");
            if (!is_none(&end))
                count(&n, &end, &t);
        }
        bool ok = n.hits == 0 && n.other == 0 && n.trials == want;
        printf("%-4s %-38s %8lu %12lu %12lu %11lu %8lu %5lu\n",
               ok ? "ok" : "FAIL", attacks[a].name, n.trials, n.link, n.list, n.twice, n.defused, n.hits);
        all.trials += n.trials;
        all.hits += n.hits;
        all.other += n.other;
    }
    bool ok = all.hits == 0 && all.other == 0 && all.trials == trials;
    printf("%-4s links: %lu trials, %lu hits, %lu other ends\n", ok ? "ok" : "FAIL", all.trials, all.hits, all.other);
    return ok;
}

/* ------------------------------------------------------------------ the codec */

static uint64_t of_list(uint64_t key, uint16_t list)
{
    return key + list * BH_LINK_NEXT_LIST;
}

/* Each of these is an attacker who has seen one link and does not know the key. */
static bool run_decodes(unsigned long decodes, uint64_t *random)
{
    unsigned long accepted = 0;
    bh_free(bh_malloc(8)); /* start-up: the process's multipliers */
    for (unsigned long i = 0; i < decodes; i++) {
        uint64_t key = attack_random(random), r = attack_random(random);
        uint32_t at = (uint32_t)(r & 0x1fff), next = (uint32_t)(r >> 13 & 0x1fff), out;
        uint16_t list = (uint16_t)(r >> 48);
        uint64_t word = bhi_link_encode(of_list(key, list), next, at);
        switch (i % 6) {
        case 0: word ^= (uint64_t)1 << (r >> 26 & 63); break;                       /* a bit */
        case 1: word ^= (r >> 26 & 0x1fff) | 1; break;                              /* the index alone */
        case 2: at ^= ((uint32_t)(r >> 26) & 0x1fff) | 1; break;                    /* copied to another block */
        case 3: list = (uint16_t)(list + 1 + (r >> 26 & 0xff)); break;              /* replayed in a later list */
        case 4: word = attack_random(random); break;                                /* anything */
        default: word = bhi_link_encode(attack_random(random), next, at); break; /* of another page */
        }
        accepted += bhi_link_decode(of_list(key, list), word, at, &out);
    }
    /* Expected number of acceptances: decodes / 2^40. One is bad luck of less
     * than 1 in 10,000 at 10^8; it is shown, and fails. */
    printf("%-4s codec: %lu of %lu links altered or copied without the keys were accepted (bound 2^-40 each)\n",
           accepted == 0 ? "ok" : "FAIL", accepted, decodes);
    return accepted == 0;
}

int main(int argc, char **argv)
{
    unsigned long trials = argc > 1 ? strtoul(argv[1], NULL, 0) : 5000;
    unsigned long decodes = argc > 2 ? strtoul(argv[2], NULL, 0) : 100000000;
    uint64_t random = attack_begin("links");
    bool ok = run_trials(trials, &random);
    ok &= run_decodes(decodes, &random);
    return ok ? 0 : 1;
}
