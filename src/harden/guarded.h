/* Slots for guarded blocks: each has OS pages of its own with a guard on both
 * sides, and traps as a whole after its block was freed, until its address has
 * been out of use for as long as the budget allows.
 *
 *   reservation of their own, at a random base
 *     | chunk 0                                     | chunk 1 ...
 *     |G| slot 0 data |G| slot 1 data |G| ... | rest |     G = guard, one OS page
 *
 * A chunk is 512 OS pages, so that its page table is one of the kernel's, and has
 * slots of one class: 1, 2, 4, 8, 16 or 32 OS pages of data. Where guard regions work
 * a chunk is opened whole, becomes one mapping with those before it, and all of it
 * is made a guard region; the data of a slot are opened by taking that away and
 * closed by putting it back, which drops their memory. Elsewhere a chunk has no
 * access and slots are opened by mprotect, two mappings each, within the budget of
 * mappings. A slot that cannot be opened guards no block; one that cannot be
 * closed any more loses its memory, stays accessible, and is counted.
 *
 * The record of a slot lies with the control data. `state` says whose it is:
 *
 *   UNUSED --take--> OPENING --> LIVE --free, by one CAS--> CLOSING --> FREED
 *                       ^                                                 |
 *                       +------------------ evict ------------------------+
 *
 *   D1  OPENING and CLOSING: one thread works on the slot, no other touches record
 *       or data. LIVE: the program may use the block; the record is constant
 *   D2  data can be accessed <=> LIVE, or a part of OPENING and CLOSING, or closing
 *       was refused
 *   D3  FREED <=> in its class's list of freed slots, oldest first
 *   D4  OPENING, LIVE, CLOSING and heap != NULL <=> in heap->guarded
 *
 * Handed out twice: a block is LIVE from the store that ends OPENING to the one
 * CAS that begins CLOSING; only eviction, under the lock, leads from FREED to
 * OPENING. Accused wrongly: free and lookups ask for LIVE and the block's own
 * start. Between malloc's return and the program's free both hold, and who frees
 * got the pointer through some synchronisation of the program after LIVE was set.
 * Two frees at once: the CAS that fails is the second.
 *
 * Fork: lists change under state->lock, which fork holds, so they are whole in the
 * child. A slot that another thread had OPENING or CLOSING stays so there, and out
 * of use. Slots are taken one behind the other; a child skips some, so that its blocks
 * are not where its parent's next ones are. */
#ifndef BH_HARDEN_GUARDED_H
#define BH_HARDEN_GUARDED_H

#include "harden/origin.h"
#include "meta/types.h"

#define BHI_GUARDED_CLASSES 6u
#define BHI_GUARDED_CHUNK_SHIFT (BH_OS_PAGE_SHIFT + 9)
#define BHI_GUARDED_CHUNK ((size_t)1 << BHI_GUARDED_CHUNK_SHIFT)
_Static_assert(BH_GUARDED_MOST <= BH_OS_PAGE_SIZE << (BHI_GUARDED_CLASSES - 1), "the largest class holds it");

typedef enum bhi_guarded_state {
    BHI_GUARDED_UNUSED = 0,
    BHI_GUARDED_OPENING,
    BHI_GUARDED_LIVE,
    BHI_GUARDED_CLOSING,
    BHI_GUARDED_FREED,
} bhi_guarded_state_t;

typedef struct bhi_guarded {
    _Atomic(uint32_t) state;
    uint32_t first;        /* const: OS page of the reservation with which its data start */
    uintptr_t block;       /* D1: first byte of the block, in the data */
    uint32_t size;         /* D1: bytes asked for */
    _Atomic(uint32_t) origin;           /* D1, but for its mark and until malloc returns: harden/origin.h */
    uint32_t free_stack;                /* D1: of harden/depot.h; 0: none */
    uint32_t alloc_thread, free_thread; /* D1: the kernel's ids; 0: none */
    uint8_t size_class;    /* const: 2^size_class OS pages of data */
    bool by_mprotect;      /* D1: closed by mprotect in a chunk of guard regions */
    bool maps;             /* lock: counted in state->mappings */
    bool reported;         /* whoever reports: a fault in it was, and it was opened */
    struct bhi_heap *heap; /* lock: NULL: of a heap that has ended, or none */
    struct bhi_guarded *next, *prev; /* lock: D3, D4 */
} bhi_guarded_t;
_Static_assert(sizeof(bhi_guarded_t) == BH_CACHE_LINE, "threads that free neighbours share no line");

typedef struct bhi_guarded_chunk {
    _Atomic(bhi_guarded_t *) records; /* NULL: not in use; set last */
    uint8_t size_class;               /* const from then on */
    bool by_region;                   /* the same: opened whole, closed by guard regions */
} bhi_guarded_chunk_t;

typedef struct bhi_guarded_class {
    bhi_guarded_t *fresh, *end;   /* lock: slots of its newest chunk that were never used */
    bhi_guarded_t *skipped;       /* lock: as well, linked by `next`: UNUSED, in no other list */
    uint32_t chunks, slots;       /* lock: in use; slots ever taken */
    uint32_t freed;               /* lock: in the list */
    bhi_guarded_t *first, *last;  /* lock: freed slots, oldest first */
} bhi_guarded_class_t;

typedef struct bhi_guarded_pool {
    uint64_t key;                 /* const, secret: patterns around blocks */
    uint32_t chunk_count;         /* const */
    uint32_t slots_most;          /* const */
    bhi_guarded_chunk_t *chunks;  /* const; entries see above */
    bhi_guarded_class_t classes[BHI_GUARDED_CLASSES];
    _Atomic(uint32_t) chunks_used; /* lock writes, all read */
    uint32_t slots;               /* lock: ever taken, of all classes */
    _Atomic(size_t) live;         /* lock writes, all read: blocks */
    size_t live_bytes, live_data; /* lock: bytes asked for, bytes of data */
    _Atomic(size_t) refused;      /* chosen, but there was no slot */
    _Atomic(uint32_t) first[BHI_CLASSES]; /* allocations of each class that option guarded_first has chosen */
} bhi_guarded_pool_t;

/* Start-up: the reservation and its tables, where options ask for guarded blocks.
 * Without address space for them there are none. */
void bhi_guarded_init(void);
/* In a child, before it allocates: it goes on at a slot of its own choice. */
void bhi_guarded_after_fork(void);
/* The depot, if stacks are kept and it is not there yet. */
void bhi_guarded_init_depot(void);

BH_INLINE bool bhi_guarded_contains(uintptr_t p)
{
    return bh_unlikely(p - bhi_process.guarded_base < bhi_process.guarded_size);
}

/* A slot for `size` bytes (1 to BH_GUARDED_MOST) whose data read zero, OPENING, of
 * `heap`; NULL: none within the budget, or the kernel refuses. */
bhi_guarded_t *bhi_guarded_take(bhi_heap_t *heap, size_t size);

/* Ends OPENING: the caller has set what D1 names. */
void bhi_guarded_publish(bhi_guarded_t *g);

/* LIVE to CLOSING. False: it was not live. */
BH_INLINE bool bhi_guarded_claim(bhi_guarded_t *g)
{
    uint32_t live = BHI_GUARDED_LIVE;
    return atomic_compare_exchange_strong(&g->state, &live, BHI_GUARDED_CLOSING);
}

/* CLOSING to FREED: the data trap from here on. */
void bhi_guarded_give(bhi_guarded_t *g);

/* The slot whose data, or guard behind them, contain p, an address of the
 * reservation; NULL: nothing was ever there. Any thread. */
bhi_guarded_t *bhi_guarded_at(uintptr_t p);

/* Live blocks, as a hint: read without the lock. */
size_t bhi_guarded_live(void);

/* The next slot in the same chunk, or NULL. */
bhi_guarded_t *bhi_guarded_behind(const bhi_guarded_t *g);

/* The first byte of its data. */
BH_INLINE uintptr_t bhi_guarded_data(const bhi_guarded_t *g)
{
    return bhi_process.guarded_base + ((uintptr_t)g->first << BH_OS_PAGE_SHIFT);
}
BH_INLINE size_t bhi_guarded_bytes(const bhi_guarded_t *g)
{
    return BH_OS_PAGE_SIZE << g->size_class;
}

BH_INLINE bhi_guarded_state_t bhi_guarded_state(const bhi_guarded_t *g)
{
    return (bhi_guarded_state_t)atomic_load_explicit(&g->state, memory_order_acquire);
}

/* All slots that were ever used, one by one: NULL begins and ends it. */
bhi_guarded_t *bhi_guarded_next(const bhi_guarded_t *g);

/* Lock held: the heap's guarded blocks are nobody's from here on. */
void bhi_guarded_detach(bhi_heap_t *heap);
/* Owner: takes one of the heap's guarded blocks out of its list; NULL: none left. */
bhi_guarded_t *bhi_guarded_pop(bhi_heap_t *heap);

/* Opens the OS page at `at` of a slot for a fault in it to be repeated; recovery
 * only. False: it stays closed. */
bool bhi_guarded_open_page(uintptr_t at);

/* Bytes around the block carry a pattern, none of them zero, as far as there are so
 * many before the next guard: who runs over them meets the nearest first. OPENING. */
#define BHI_GUARDED_FRONT ((size_t)64)
#define BHI_GUARDED_BEHIND ((size_t)256)
void bhi_guarded_fill(const bhi_guarded_t *g);
/* CLOSING: address of the first byte that was changed, those behind the block
 * first; 0: none. */
uintptr_t bhi_guarded_damage(const bhi_guarded_t *g);
/* The same of a slot that other threads may free meanwhile: of a copy of its bytes,
 * so what it says counts only if the block is found to have been live all the time. */
uintptr_t bhi_guarded_damage_beside(const bhi_guarded_t *g);

#endif
