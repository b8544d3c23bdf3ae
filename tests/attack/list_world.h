/* The world of one attack on a page's list: the page with its blocks in some state,
 * the test's own table of what is live, and what an attacker who knows everything
 * about the page can read. */
#ifndef BH_ATTACK_LIST_WORLD_H
#define BH_ATTACK_LIST_WORLD_H

#include "child.h"
#include "core/page.h"

#define WORLD_BLOCKS 40000u /* live blocks of the class that the table can hold */
#define WORLD_PAGE 8192u    /* blocks of the page: 64 KiB of 8-byte ones */
#define WORLD_OLD 64u       /* entries remembered for replay */
#define WORLD_NO_BLOCK UINT32_MAX

typedef struct world_set {
    uint32_t index[WORLD_PAGE];
    uint32_t n;
} world_set_t;

typedef struct world {
    uint64_t random;
    size_t size;      /* of the class, in bytes */
    bhi_page_t *page; /* that malloc takes from next */
    world_set_t free, held, fresh; /* free: listed or not; fresh: below capacity or not */
    struct {
        uint32_t at;
        bhi_index_t entry;
    } old[WORLD_OLD];
    uint32_t olds;
    /* What the attacker left in the page's blocks, until malloc returns them. */
    bool written[WORLD_PAGE];
    uint64_t left[WORLD_PAGE];
    bool list_written; /* so that malloc may hand out blocks before their turn */
    uintptr_t chosen;  /* the block that the attacker wants next, or 0 */
    uint32_t lives;    /* live blocks, in any page of the class */
    uintptr_t live[WORLD_BLOCKS];
} world_t;

/* A child's world: allocates and frees at random in a random class, also from
 * another thread, then chooses a page that has free blocks. False: the choice
 * led to no such page. */
bool world_build(world_t *w, uint64_t seed);

/* The attacker's hands on blocks: their first word, and all bytes that are looked at. */
uint64_t world_read(const world_t *w, uint32_t index);
void world_write(world_t *w, uint32_t index, uint64_t word);

/* The attacker's hands on control memory: entry `at` becomes any bits, or those of a
 * block under the page's true key. If it is the last one, the page's copy of it mostly
 * becomes the same. */
void world_set_entry(world_t *w, uint32_t at, bhi_index_t entry);
void world_forge(world_t *w, uint32_t at, uint32_t index);

/* A live block of the page, or WORLD_NO_BLOCK. */
uint32_t world_live_index(world_t *w);

/* The program goes on: allocates until the class has gone through its lists and
 * more, frees in between. Records "HIT: ..." when malloc returned what it must
 * never return, when a live block's contents changed, or those of a free one while
 * only blocks were written; "chosen" when the first block is the chosen one. */
void world_go_on(world_t *w);

#endif
