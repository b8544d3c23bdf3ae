/* The world of one link attack: a page with its blocks in some state, the
 * test's own table of what is live, and what an attacker who knows everything
 * about the page can read. */
#ifndef BH_ATTACK_LINK_WORLD_H
#define BH_ATTACK_LINK_WORLD_H

#include "child.h"
#include "core/page.h"

#define WORLD_BLOCKS 40000u /* live blocks of the class that the table can hold */
#define WORLD_LIST 8192u    /* longest list: 64 KiB of 8-byte blocks */
#define WORLD_OLD 64u       /* links remembered for replay */
#define WORLD_STAMPS 4u
#define WORLD_NO_BLOCK UINT32_MAX

typedef struct world_list {
    uint32_t index[WORLD_LIST];
    uint32_t n;
    uint16_t id;
} world_list_t;

typedef struct world {
    uint64_t random;
    size_t size; /* of the class, in bytes */
    bhi_page_t *page;
    world_list_t free, local; /* local: with the map, the free blocks that are on no list */
    uint32_t held[WORLD_LIST];
    uint32_t helds;
    struct {
        uint32_t index;
        uint64_t word;
    } old[WORLD_OLD];
    uint32_t olds;
    struct {
        uint32_t index;
        uint64_t word;
    } stamp[WORLD_STAMPS];
    uint32_t stamps;
    uint32_t lives; /* live blocks, in any page of the class */
    uintptr_t live[WORLD_BLOCKS];
} world_t;

/* A child's world: allocates and frees at random in a random class, also from
 * another thread, then chooses a page that has free blocks. False: the choice
 * led to no such page. */
bool world_build(world_t *w, uint64_t seed);

/* The attacker's hands: any word of a block of the page. */
uint64_t world_read(const world_t *w, uint32_t index);
void world_write(world_t *w, uint32_t index, uint64_t word);
/* A link with the page's true keys, to a block (WORLD_NO_BLOCK: the end), and to
 * any place within 24 bits. */
uint64_t world_forge_place(const world_t *w, uint32_t place, uint32_t at, uint16_t list);
uint64_t world_forge(const world_t *w, uint32_t next, uint32_t at, uint16_t list);

/* The attacker also decides what the program stores in this block: `word`, now
 * and whenever malloc returns it. */
void world_stamp(world_t *w, uint32_t index, uint64_t word);

/* A live block of the page, or WORLD_NO_BLOCK. */
uint32_t world_live_index(world_t *w);

bool world_is_live(const world_t *w, uint32_t index);

/* The program goes on: allocates until the class has gone through its lists and
 * more, frees in between. Records "HIT: ..." when malloc returned what it must
 * never return, or when a live block's contents changed. */
void world_go_on(world_t *w);

#endif
