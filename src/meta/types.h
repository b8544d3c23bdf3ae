/* The allocator's structures, their invariants and their vocabulary.
 *
 * Glossary
 *   OS page    unit of the kernel's memory protection
 *   block      what malloc returns
 *   size class block sizes that share pages; 8 B to 128 KiB
 *   slot       64 KiB unit of block memory, 64 to a segment
 *   page       one or more slots that hold blocks of one class, or one large
 *              block; ends with a guard
 *   span       the slots of a page
 *   segment    4 MiB, 4 MiB-aligned
 *   arena      one address reservation for blocks with its control data
 *   heap       the pages that one owner allocates from
 *   owner      the thread that may use a heap's owner-only fields; 0 = nobody
 *              (an orphan, or a deleted heap): whoever swaps 0 for itself in
 *              heap->owner owns it until it stores 0 again
 *   live       handed out by malloc and not taken back by the owner
 *   held       freed by a thread that is not the owner, not taken back yet
 *   listed     free, and one of those that malloc hands out next
 *   fresh      never handed out nor listed since its page began
 *   retire     keep an empty page for a while; release: give its span back
 *   sample     choose an allocation to be guarded; guarded block: one with OS
 *              pages of its own between guards (harden/guarded.h)
 *   trap       make a freed span inaccessible; quarantine: keep its addresses
 *              out of use
 *   purge      return memory to the kernel, keep the address space
 *   abandon    give up a heap at thread exit; adopt: take it or its pages over
 *
 * Address layout (addresses grow to the right; sizes of an unlimited process)
 *
 *   block reservation, 8 TiB at a random base, no access until opened
 *     | segment 0                            | segment 1 ...
 *     | slot 0       | slot 1 | ... | slot 63|
 *     | blocks ... |G| blocks  |G|            G = guard, last OS page of a slot
 *
 *   control reservation at another random base
 *     |none| state |none| descriptors, 128 B a slot |none| headers, 512 B a
 *     segment |none| pool: maps, heaps |none|
 *   Descriptors are opened from the left as segments come into use; blocks_open
 *   says how far. For p - block_base < blocks_open
 *     descriptor(p) = descs + ((p - block_base) >> slot_shift) * 128
 *     page(p)       = descriptor(p) - back
 *   and any other address holds no block: recognised by comparison alone.
 *
 * Field tags: const (after the page, heap or process was set up), owner (the
 * owner of the page's heap only), atomic, lock (state->lock), secret. */
#ifndef BH_META_TYPES_H
#define BH_META_TYPES_H

#include "base/constants.h"
#include "os/lock.h"
#include "rt/process.h"
#include "rt/random.h"
#include "rt/settings.h"

#include <stdatomic.h>

/* A thread's identity while it lives: the address of a TLS variable of its. */
typedef uintptr_t bhi_owner_t;
#define BHI_OWNER_NONE ((bhi_owner_t)0)
/* Owner of heaps whose threads did not follow a fork. Nobody takes such a heap
 * over: its pages may have been caught in the middle of an owner's operation. */
#define BHI_OWNER_GONE ((bhi_owner_t)1)

/* ------------------------------------------------------------ allocation map */

/* Of one block. Two bytes, so that malloc and free need neither shift nor mask nor a
 * word that others write to: one load tests both, one store changes the state. live is
 * written by the owner only (plain stores); held is set by any thread with an atomic
 * exchange and cleared by the owner, who takes a held block back in one store of both.
 * Its malloc stores both as well: a second free by a thread that read live = 1 long ago
 * and comes between its test and its store then has no effect. Whoever looks for blocks
 * reads 64 consecutive ones at a time, as two sets (harden/map.h): a word of the map.
 *
 *   live held
 *    0    0   free or fresh
 *    1    0   live
 *    1    1   held: freed by a non-owner, waits for the owner
 *    0    1   the trace of a double free by the owner and another thread at
 *             once, found when the owner next looks at the block
 */
typedef struct bhi_map_block {
    _Atomic(uint8_t) live; /* owner writes, all read */
    _Atomic(uint8_t) held; /* set by an atomic exchange, cleared by the owner */
} BH_ALIGNED(2) bhi_map_block_t;

/* Bytes of a map of so many blocks: it is read 64 of them at a time. */
BH_INLINE size_t bhi_map_bytes(uint32_t blocks)
{
    return ((size_t)blocks + 63) / 64 * 64 * sizeof(bhi_map_block_t);
}

/* That of a single block. */
#define BHI_MAP_SINGLE_BYTES ((size_t)16)

/* ---------------------------------------------------------------------- page */

struct bhi_heap;

typedef enum bhi_page_state {
    BHI_PAGE_FREE = 0, /* slot free, or not the first slot of its span */
    BHI_PAGE_ACTIVE,   /* in its class queue; may have blocks to give */
    BHI_PAGE_FULL,     /* in the heap's full list; had none when last looked at */
    BHI_PAGE_LARGE,    /* single block, in the heap's full list */
} bhi_page_state_t;

/* What the memory of a page's fresh blocks holds. */
typedef enum bhi_memory {
    BHI_MEMORY_ANY = 0, /* to be cleared before it is handed out */
    BHI_MEMORY_ZERO,    /* it reads zero */
} bhi_memory_t;

/* remote word: bit 0 = the page is on a pending stack or about to be pushed;
 * bits 32..63 = groups of blocks in which one became held since the owner
 * last looked. A group is 2^group_shift consecutive blocks. */
#define BHI_REMOTE_QUEUED ((uint64_t)1)
#define BHI_REMOTE_GROUP_BIT 32u

/* Descriptor, one for each slot. First line: what every free reads, written
 * seldom, so that it stays in the caches of all threads that free into the page.
 * Second line: what the owner writes at each malloc and free, and rare things.
 *
 *   I1  free(p) is legal <=> p = start + i * block_size, i < capacity,
 *       live(i) and not held(i)
 *   I2  capacity <= reserved; blocks >= capacity, and those of the last word of the
 *       map below it that `fresh` names, are fresh: live = held = 0, on no list
 *   I3  used = number of blocks with live = 1 (held ones included) and of those on the
 *       list, so that malloc need not count; 0 also for a single block that was freed,
 *       whose bits stay until the page ends
 *   I4  blocks below capacity that are neither fresh nor live are free: on the page's
 *       list, or found in the map by the next refill. The list holds only free blocks,
 *       each once; of zero-size blocks, whose capacity = reserved, none. (Where the
 *       map is compiled out the list has room for all; see harden/list.h.) What a list
 *       was cut by so that an allocation finds it empty (core/sampled.h) is kept: `kept`
 *       entries from the list's `kept_from`-th on name other free blocks, each once, and
 *       are the next list; counted nowhere else, and forgotten with the list
 *   I5  local_heap is heap or NULL; it is heap only if state = ACTIVE and the
 *       blocks are not of zero size
 *   I6  state = FREE <=> capacity = 0 <=> heap = NULL; start, block sizes and
 *       reserved then still tell of the last page, for the report; a page that
 *       a hazard names is not on its way there
 *   I7  remote has QUEUED <=> the page is on exactly one pending stack, or
 *       exactly one thread is between setting QUEUED and pushing it
 *   I8  where listed != 0, `top` is the entry that malloc takes next, a copy of the
 *       list's last one, and `top_place` is where that block is. Malloc hands out what
 *       these two say if they agree, so that it knows the address after one load */
typedef struct bhi_page {
    _Atomic(struct bhi_heap *) local_heap; /* owner writes; free's fast path applies iff it is the caller's heap */
    uintptr_t start;            /* const: address of block 0, in the span's first slot; its start but for bhi_heap_large_at */
    uint64_t reciprocal;        /* const: ceil(2^64 / block_size); 0 for a single block */
    bhi_map_block_t *map;        /* const: of `reserved` blocks, or with a list of each place of the first slot, and up to a whole word; of many blocks, their list right before them, or what core/hardened_page.h says */
    _Atomic(struct bhi_heap *) heap;      /* owner writes; NULL when free */
    _Atomic(uint64_t) remote;             /* atomic; survives the page's release */
    uint32_t block_size;        /* const: bytes from block to block; 0 for a single block */
    _Atomic(uint32_t) capacity; /* owner writes: blocks put on the lists so far */
    uint16_t back;              /* const: bytes of descriptors back to that of the span's first slot; 0 in that one */
    uint8_t group_shift;        /* const */
    uint8_t size_class;         /* const */
    uint32_t reserved;          /* const: blocks that fit */

    union {
        uint64_t key;           /* const, secret: of the canaries of a single block */
        struct {                /* of many blocks: */
            uint64_t list_key : BH_INDEX_BITS; /* const, secret: of the list's entries */
            uint64_t top : BH_INDEX_BITS;      /* owner: I8 */
            uint64_t top_place : 64 - 2 * BH_INDEX_BITS; /* owner: I8, in bytes from block 0 on */
        };
    };
    uint16_t listed;            /* owner: blocks on the list */
    uint16_t looked;            /* owner: what `listed` was when the heap last looked whether the page is empty */
    union {
        uint32_t local_free;    /* owner: blocks freed since the list was made, in builds without the map; of a single block, see harden/large.h; of an ended page, core/residue.h */
        struct {
            uint16_t kept, kept_from; /* owner, of a list in other builds: entries that come on it next, and the first of them: I4 */
        };
    };
    uint32_t used;              /* owner */
    uint8_t retire;             /* owner: 0 = not retired; else empty, or was so, and in its queue for so many looks (heap.c) */
    uint8_t state;              /* owner: bhi_page_state_t; readable by all as a hint */
    uint8_t memory;             /* owner: bhi_memory_t, of fresh blocks */
    bool free_zero;             /* owner: every block on the list is zero */
    struct bhi_page *next, *prev;         /* owner: queue links */
    _Atomic(struct bhi_page *) pending_next; /* whoever has the page on its stack */
    union {
        size_t single_bytes;              /* const, of a single block; see bhi_page_bytes */
        uint64_t fresh;                   /* owner, of many blocks: I2 */
    };
    uint32_t span_slots;                  /* const */
    uint32_t residue;                     /* owner, or of a free slot: mark of what is left here, see core/residue.c; 0: of anything */
} BH_ALIGNED(128) bhi_page_t;

_Static_assert(sizeof(bhi_page_t) == (1 << BH_PAGE_DESC_SHIFT), "lookup multiplies by 128");
_Static_assert(offsetof(bhi_page_t, key) == 64, "what the owner writes often is not what others read");

/* ------------------------------------------------------------------- segment */

typedef enum bhi_segment_kind {
    BHI_SEGMENT_NONE = 0,  /* never used, or first/last of a free run */
    BHI_SEGMENT_SLOTS,     /* carved into slots */
    BHI_SEGMENT_HUGE,      /* first of a huge span of `run` segments */
    BHI_SEGMENT_HUGE_REST, /* further segment of a huge span, or was one: S7 */
} bhi_segment_kind_t;

/* A freed large span whose addresses wait until others are used again. */
typedef struct bhi_quarantined {
    struct bhi_segment *segment;
    uint8_t slot;
    bool huge;      /* a span of whole segments; slot is 0 */
    bool dirty;     /* its memory may be non-zero: the kernel refused everything */
    bool whole;     /* Q4 */
    uint32_t slots;
} bhi_quarantined_t;

/* Ring, oldest first; all fields under state->lock.
 *
 *   Q1  every slot of an entry is quarantined, and of one entry only
 *   Q2  bytes = address space of all entries' spans, at most the limit
 *   Q3  a quarantined slot of no entry is on its way into the ring (its lock is
 *       given up for a kernel call), in a forked child for good; or of a huge span
 *       on state->huge_refused, whose addresses the kernel would not take back; or of
 *       a chunk lost for good to the one move that failed (state->move_refused)
 *   Q4  of a block whose memory moved away, all its segment is quarantined */
#define BHI_QUARANTINE_MOST 256u
typedef struct bhi_large_quarantine {
    uint32_t first, count;
    size_t bytes;
    bhi_quarantined_t ring[BHI_QUARANTINE_MOST];
} bhi_large_quarantine_t;

/* Header of a segment; all fields under state->lock.
 *
 *   S1  free, purging, quarantined, and the spans in use partition the 64 slots
 *   S2  dirty is a subset of free; a free slot that is not dirty reads zero
 *   S3  OS page i of slot s is accessible <=> i < open_to[s] and bit i of
 *       regions[s] is 0; of slots purging as a whole segment, and of quarantined
 *       ones of Q3, only when the kernel call is over
 *   S4  aged is a subset of dirty
 *   S5  by_mprotect, by_region, ended and ready say of each slot whether
 *       open_to < 16; whether it has a guard region; whether its last OS page is
 *       closed; whether that one is closed and no other
 *   S6  the OS page before the first of a large block is closed: the last one of
 *       a slot, that of a segment or a huge span, or the one reserved before an
 *       arena. Like every guard it may be missing, and is then counted
 *   S7  kind = SLOTS or HUGE <=> carved into slots, or first of a huge span in use
 *       or quarantined. Of a huge span [h, h + n), by index in its arena, each
 *       segment i > h that is the first multiple of some power of two in it has
 *       kind = HUGE_REST and run = i - h. The headers of its others, and of the
 *       inner segments of a free run, are as they were left: NONE or HUGE_REST. One
 *       whose run leads to no HUGE, or to a span that ends before it, is out of date */
typedef struct bhi_segment {
    uint64_t free;        /* slots that no span uses and nobody purges */
    uint64_t dirty;       /* free slots whose memory may be non-zero */
    uint64_t aged;        /* those of them that were already when the purge last looked */
    uint64_t purging;     /* slots that a thread returns to the kernel right now */
    uint64_t quarantined; /* slots of freed large spans whose addresses wait (harden/large.h); of a huge span: all or none, in its first header */
    uint64_t heads;       /* first slots of spans in use */
    uint64_t by_mprotect, by_region, ended, ready; /* S5 */
    struct bhi_segment *next, *prev;             /* bucket list, or free-run bin */
    struct bhi_segment *purge_next, *purge_prev; /* purge queue */
    uint64_t purge_at;    /* ms; 0 = not in the purge queue */
    uint32_t run;         /* segments in this huge span or free run (first and last of a run); HUGE_REST: back to the first */
    uint8_t kind;
    uint8_t bucket;       /* index into state->buckets, BHI_BUCKETS = in none */
    bool by_slot;         /* opened slot by slot: guards are pages never opened */
    bool in_run;          /* first or last segment of a free run; all of a run is without access and zero */
    bool chunk;           /* for one large block at a time, which can move away: harden/chunk.h; in no bucket */
    bool moved;           /* its memory came from elsewhere: a mapping of its own */
    uint8_t open_to[64];  /* OS pages from here on have no access: mprotect, or never opened */
    uint16_t regions[64]; /* guard regions, a bit for each OS page */
} BH_ALIGNED(512) bhi_segment_t;
_Static_assert(sizeof(bhi_segment_t) == 512, "headers are indexed by shift");

/* Segments with free slots, by longest free run: bucket b holds runs of 2^b ..
 * 2^(b+1)-1 slots. */
#define BHI_BUCKETS 7u
/* Free runs of segments, by length, the same way. */
#define BHI_RUN_BINS 24u

typedef struct bhi_arena {
    uintptr_t base;      /* const: segment-aligned, secret */
    size_t size;         /* const: bytes */
    uintptr_t descs;     /* const: descriptor of slot 0 */
    bhi_segment_t *headers; /* const */
    /* Every free reads this one; no lock lies in its cache line. */
    _Atomic(size_t) blocks_open; /* lock writes, all read: bytes of blocks whose descriptors are accessible */
    uint32_t segments;   /* const */
    uint32_t top BH_ALIGNED(BH_CACHE_LINE); /* lock: segments from here on were never used */
    size_t headers_open; /* lock */
    bhi_segment_t *runs[BHI_RUN_BINS]; /* lock: free runs below top */
} BH_ALIGNED(BH_CACHE_LINE) bhi_arena_t;

/* ---------------------------------------------------------------------- pool */

/* Memory for control data: chunks of whole cache lines, zeroed when handed out, on
 * free lists by size when given back. */
#define BHI_POOL_SIZES 412u
_Static_assert(BH_SLOT_SIZE / 8 * sizeof(bhi_map_block_t) <= 256 * 1024, "the map of a slot of the smallest blocks can be given back");
typedef struct bhi_pool {
    uintptr_t at, open_end, end;      /* lock: bump region */
    void *free[BHI_POOL_SIZES];       /* lock */
    size_t bytes;                     /* lock: bytes opened */
} bhi_pool_t;

/* ---------------------------------------------------------------------- heap */

#define BHI_CLASSES 89u

/* Not a class of sizes, but with a queue like one: blocks for requests of 0 bytes;
 * see core/zero.h. */
#define BHI_CLASS_ZERO BHI_CLASSES
#define BHI_QUEUES (BHI_CLASSES + 1)
#define BHI_CLASS_NONE ((uint8_t)255) /* size_class of LARGE pages, which are in no queue */

typedef struct bhi_queue {
    bhi_page_t *first, *last;
    size_t length; /* pages */
} bhi_queue_t;

/* Notes of where pages of the heap have ended, in any order: residue.h. */
#define BHI_LEFT_MOST 128u
typedef struct bhi_left {
    uint32_t count;
    uint8_t size_class[BHI_LEFT_MOST];
    uint8_t os_pages[BHI_LEFT_MOST]; /* of a large block of up to 255; else 0 */
    uint32_t slot[BHI_LEFT_MOST]; /* of the first arena */
} bhi_left_t;

typedef enum bhi_heap_kind {
    BHI_HEAP_UNUSED = 0, /* on state->heaps_unused */
    BHI_HEAP_THREAD,     /* a thread's default heap */
    BHI_HEAP_USER,       /* bh_heap_new */
    BHI_HEAP_ORPHAN,     /* thread ended; on state->orphans, can be adopted */
    BHI_HEAP_DELETED,    /* bh_heap_delete; only freed into until empty */
} bhi_heap_kind_t;

/* Of a size class of a heap, see harden/age.h. `mark` 0: there are no ages. */
typedef struct bhi_age {
    uint8_t mark, before; /* of the present age, and of the one before */
    uint16_t length;      /* blocks that are handed out in an age at least */
    uint16_t used;        /* blocks of lists that were used up in this one */
    uint16_t listed;      /* of the list that is not counted yet */
} bhi_age_t;

/* Heap structures are never given back, only reused: a thread that read
 * page->heap may push onto its pending stack at any later time.
 *
 *   H1  every page of a heap is in one of its queues or in `full`
 *   H2  direct[w] is the first page of the queue that serves 8 * w bytes, or
 *       the empty page; direct[0] always is
 *   H3  pages on `pending` or `pending_mine` have QUEUED set */
typedef struct bhi_heap {
    size_t open;                           /* owner: a copy of the first arena's blocks_open, not older than its newest page */
    bhi_page_t *direct[BH_DIRECT_ENTRIES]; /* owner */
    bhi_queue_t queues[BHI_QUEUES];        /* owner: pages in state ACTIVE */
    bhi_queue_t full;                      /* owner: pages in state FULL or LARGE */
    bhi_page_t *pending_mine;              /* owner: taken from pending, not processed yet */
    size_t page_count;                     /* owner */
    struct bhi_heap *home;                 /* const: default heap of the same thread; itself if it is that */
    struct bhi_heap *user_heaps;           /* owner, default heaps: list of the thread's user heaps */
    struct bhi_heap *user_next, *user_prev; /* owner */
    struct bhi_heap *list_next, *list_prev; /* lock: unused or orphan list */
    struct bhi_heap *thread_next;          /* lock: chain of state->thread_heaps */
    struct bhi_hazard *hazard;             /* owner, default heaps: the thread's hazard word, or NULL */
    struct bhi_guarded *guarded;           /* lock: its guarded blocks, by next */
    uint64_t sample_stream;                /* owner: sample_seed's stream; 0: not begun */
    uint32_t id;                           /* const: index in the heap table */
    uint32_t generation;                   /* lock: grows when a user heap ends; part of its handle */
    _Atomic(uint8_t) kind;                 /* owner, under lock where lists change: bhi_heap_kind_t */
    bool in_list;                          /* lock */
    bhi_random_t random;                   /* owner, secret */
    bhi_left_t left;                       /* owner */
    bhi_age_t age[BHI_CLASSES];            /* owner, in profile hardened: harden/age.h */
    uint32_t sample[BHI_CLASSES];          /* owner: 0: not drawn; n + 1: n blocks go on lists, then one is guarded (core/sampled.h) */

    _Atomic(struct bhi_page *) pending BH_ALIGNED(BH_CACHE_LINE); /* atomic: stack of pages with remote frees */
    _Atomic(bhi_owner_t) owner BH_ALIGNED(BH_CACHE_LINE); /* atomic; every remote free reads it */
} BH_ALIGNED(BH_CACHE_LINE) bhi_heap_t;

/* -------------------------------------------------------------------- hazards */

/* The page whose descriptor and map a thread that does not own it reads right
 * now; see core/hazard.h. */
typedef struct bhi_hazard {
    _Atomic(bhi_page_t *) page;   /* its thread writes, all read */
    struct bhi_hazard *next_free; /* lock: in hazards_free */
} BH_ALIGNED(BH_CACHE_LINE) bhi_hazard_t;

struct bhi_hazard_chunk;

/* --------------------------------------------------------------------- state */

#define BHI_THREAD_CHAINS 1024u
#define BHI_HEAP_DIR 4096u
#define BHI_HEAP_DIR_CHUNK 64u
#define BHI_RESERVED_MOST 256u

/* A part of the address space. */
typedef struct bhi_range {
    uintptr_t from, to;
} bhi_range_t;

/* Everything process-wide that changes. Lives in the control reservation; the
 * only pointer to it is on the read-only process page. */
typedef struct bhi_state {
    bhi_lock_t lock;                   /* one lock for all below; nothing is called back under it */
    /* Until arena_count: what fork writes to, in the parent or the child, in one OS page. */
    struct bhi_heap *orphans;          /* head of a list; adopted from the front, added at the back */
    struct bhi_heap *orphans_last;
    _Atomic(uint32_t) orphan_count;    /* lock writes, all read as a hint */
    bhi_hazard_t *hazards_free;        /* lock */
    bhi_lock_t hazard_lock;            /* for the shared one; nothing else is taken under it */
    bhi_segment_t *purge_busy;         /* lock: segment whose memory a thread returns right now, lock given up */
    bhi_hazard_t hazard_shared;        /* for threads that have none and can get none */
    _Atomic(uint32_t) arena_count BH_ALIGNED(BH_CACHE_LINE); /* lock writes, all read */
    bhi_arena_t arenas[BH_ARENA_MAX];  /* entries below arena_count are const but for tagged fields */
    bhi_segment_t *buckets[BHI_BUCKETS];
    bhi_segment_t *purge_first, *purge_last;
    _Atomic(uint64_t) purge_next_at;   /* ms; when the first of the queue is due; 0 = queue empty */
    bhi_pool_t pool;
    bhi_large_quarantine_t quarantine;       /* lock */
    bhi_segment_t *huge_refused;       /* lock: first headers, by next; see Q3 */
    bhi_random_t random;               /* lock, secret: slot choice */
    struct bhi_heap *heaps_unused, *heaps_unused_last;
    struct bhi_heap *thread_heaps[BHI_THREAD_CHAINS]; /* lock: default heaps of threads, by owner */
    _Atomic(uint32_t) heap_count;      /* lock writes, all read */
    struct bhi_heap **heap_dir[BHI_HEAP_DIR];
    _Atomic(struct bhi_hazard_chunk *) hazards; /* lock writes, all read: the first chunk */
    struct bhi_hazard_chunk *hazards_last; /* lock */
    _Atomic(uint32_t) hazard_count;    /* lock writes, all read: words that were ever a thread's */
    size_t mappings;                   /* lock: estimate of mappings that guards by mprotect and chunks cost */
    size_t mappings_budget;            /* lock: half of vm.max_map_count; 0 = not read yet */
    _Atomic(size_t) guard_missed;      /* guards that could not be placed */
    _Atomic(size_t) advice_refused;    /* advisory kernel calls that failed */
    bool batch_refused;                /* lock: process_madvise does not work here */
    bool move_refused;                 /* lock: mremap does not work here, or failed once */
    uint32_t chunks;                   /* lock: segments that are chunks */
    size_t dirty_slots;                /* lock: in all segments */
    _Atomic(uint32_t) reserved_count;  /* lock writes, all read; beyond BHI_RESERVED_MOST none is noted */
    bhi_range_t reserved[BHI_RESERVED_MOST]; /* lock: all reservations, of blocks and of control data */
    bhi_range_t small;                 /* lock: with a seed, what is left for small reservations */
} bhi_state_t;

#define bhi_state (bhi_process.state)

/* True between the fork handlers of the thread that forks: it holds the lock
 * then, and other libraries' handlers may allocate in it. */
extern BH_HIDDEN BH_THREAD_LOCAL bool bhi_forking;

BH_INLINE void bhi_state_lock(void)
{
    if (bh_likely(!bhi_forking))
        bhi_lock_take(&bhi_state->lock);
}

BH_INLINE void bhi_state_unlock(void)
{
    if (bh_likely(!bhi_forking))
        bhi_lock_give(&bhi_state->lock);
}

#endif
