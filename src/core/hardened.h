/* What profile hardened adds to malloc and free of blocks in pages: byte-exact ends,
 * wiping, delayed reuse, sweeps. In that profile no page is anybody's local_heap and
 * the direct table leads to the empty page, so both fast paths end in the generic
 * ones by themselves, and those call what is declared here. What it keeps of a page
 * is in hardened_page.h.
 *
 *   E1  a live block that is not held has its slack filled by harden/canary.h under
 *       page->key, its place and its requested size
 *   E2  a block below capacity that is not live reads zero, or with option fill
 *       BH_FILL_FREED from its first free on; none is fresh as I2 has it,
 *       but a requested size of 0 tells of one that was never handed out, where
 *       memory = ZERO
 *   E3  held: freed by a thread that is not the owner. Either that one wipes it (not
 *       ready), or it waits for the owner (ready) and reads zero
 *   E4  nothing waits or comes next in heaps that no thread allocates from. A block in
 *       quarantine or `next` is not live, and its page's `used` counts it (I3): the page
 *       cannot end
 *   E5  open: below capacity and none of live, held (but for the trace of a double
 *       free, see meta/types.h), in quarantine, or in its class's `next`; these are
 *       none of the others either. So each block that may be handed out is in one
 *       place: open, or once in `next`
 *
 * The owner's free clears live, whose old value finds a double free, then wipes, then
 * puts the block into the quarantine; whoever frees it again finds that it is not
 * live. (Before, README's "Double frees that race" holds here as it does elsewhere.)
 * Another thread's free sets held, whose old value finds a double free, then wipes,
 * then sets ready and announces. The owner takes ready blocks only, so it never meets
 * one half wiped.
 *
 * A malloc takes the last of its class's `next`: who left the quarantine, of any page,
 * and where these are few others that are open, many chosen at a time. They stay
 * free in the map, which has the last word: that live and held are clear is tested as
 * the block is handed out. So most blocks go from free to malloc without a word to their
 * page, and come while they are in the caches still.
 *
 * A sweep by the owner may meet a block that another thread frees at this moment:
 * what it reads may be wiped. So damage counts only if the block is still live and
 * not held afterwards, behind an acquire fence; the other thread sets held before
 * it wipes, with a release fence between. A correct program writes only requested
 * bytes, so E1 then holds and it is never accused. The requested size changes in
 * place by the owner alone (realloc), who is the one to sweep. */
#ifndef BH_CORE_HARDENED_H
#define BH_CORE_HARDENED_H

#include "core/hardened_page.h"
#include "harden/canary.h"
#include "harden/quarantine.h"

BH_INLINE bool bhi_is_hardened(void)
{
    return bh_unlikely(bhi_process.options.profile != BHI_PROFILE_SECURE);
}

/* Whether the page's blocks have ends: not those of zero size. */
BH_INLINE bool bhi_page_has_ends(const bhi_page_t *page)
{
    return bhi_is_hardened() && page->size_class != BHI_CLASS_ZERO && bhi_page_bytes(page) != 0;
}

#define BHI_HARD_AMONG_BITS 5u
#define BHI_HARD_AMONG (1u << BHI_HARD_AMONG_BITS) /* whoever comes next is one of so many, where there are */
#define BHI_HARD_NEXT 512u                         /* most that come next; fewer of large blocks */

/* The blocks of a class that come next. */
typedef struct bhi_hard_next {
    uint32_t count;    /* owner */
    uint32_t least;    /* owner: so many are in `entry` before more are looked for; 0 where none is open */
    uint32_t granted;  /* owner: most blocks that can be handed out between the last heartbeat and the next */
    uint32_t grant;    /* const: so many may be */
    uint32_t most;     /* const: places */
    uint32_t among;    /* const: `least` where others are open; 0: nobody but who is asked for comes to lie here */
    uintptr_t entry[]; /* owner: bhi_hard_entry; the last one comes first */
} bhi_hard_next_t;

/* `least` so that the next malloc looks for more in any case: for the heartbeat. */
#define BHI_HARD_BEAT UINT32_MAX

/* What a heap has besides; in control data, kept with the heap structure. */
typedef struct bhi_hard {
    bhi_hard_next_t *next[BHI_CLASSES];        /* owner; one without blocks or places where none was needed yet */
    bhi_quarantine_t *quarantine[BHI_CLASSES]; /* owner; NULL: none yet, or none at all */
    uint32_t chosen;                           /* owner: blocks, since the last heartbeat */
} bhi_hard_t;

/* Owner; NULL: no memory. */
bhi_hard_t *bhi_hard_of(bhi_heap_t *heap);

/* Bytes of control data before a page's map, and behind it. block_size 0: of a single
 * block. */
size_t bhi_hard_bytes_before(uint32_t reserved, size_t block_size);
size_t bhi_hard_bytes(uint32_t reserved, size_t block_size);

/* Owner: a block of class c, zero but for its slack, for `size` bytes; at least
 * BH_CANARY_LEAST fewer than a block of c has. NULL: no memory. */
void *bhi_hard_alloc(bhi_heap_t *heap, unsigned c, size_t size);

/* The same, if it takes nothing but a block that was chosen before. size: not 0, and
 * at most BH_CLASS_MAX_SIZE - BH_CANARY_LEAST. */
void *bhi_hard_at_hand(bhi_heap_t *heap, size_t size);

/* Start-up, for bhi_process.short_ways: the processor has what they are made of. */
bool bhi_hard_has_short_ways(void);

/* malloc in this profile, of any size, where bhi_malloc_generic's short way does not
 * serve. */
void *bhi_hard_malloc(size_t size);

/* Owner: gives a live single block its end. Its slack is none, or large enough. */
void bhi_hard_end_large(bhi_page_t *page, size_t size);

/* Bytes to add to a single block's so that its slack is none or large enough. */
size_t bhi_hard_pad_large(size_t size);

/* Any thread, before it frees a live block of its: ends the process if a byte behind
 * its requested size was changed. */
void bhi_hard_check_end(const bhi_page_t *page, uint32_t index);

/* Owner: frees a block of a page of blocks. */
void bhi_hard_free(bhi_heap_t *heap, bhi_page_t *page, uint32_t index);

/* The same for a block in a page of blocks. */
void bhi_hard_check_held(const bhi_page_t *page, uint32_t index);

/* free in this profile, of any pointer. */
void bhi_hard_free_any(uintptr_t p);

/* Whether p, any address, is a live block in a page of blocks of the calling thread's
 * default heap; then where and of how many requested bytes. */
bool bhi_hard_local(uintptr_t p, bhi_page_t **page, uint32_t *index, size_t *size);

/* Another thread, after it has set held: wipes the block and lets the owner have it.
 * Nothing of the page may be used afterwards. */
void bhi_hard_wipe_held(bhi_page_t *page, uint32_t index);

/* Owner: takes ready blocks of one word of the map. */
void bhi_hard_collect(bhi_page_t *page, uint32_t word);

/* Owner: whether the block serves `size` bytes where it stands; then it does. */
bool bhi_hard_resize(bhi_page_t *page, uint32_t index, size_t size);

/* Owner: all blocks in quarantine and all that come next are open. */
void bhi_hard_let_all_go(bhi_heap_t *heap);

/* The same of those that come next alone. */
void bhi_hard_let_next_go(bhi_heap_t *heap);

/* In a forked child, of a heap that it owns: what was chosen before would come in the
 * same order as in the parent. */
void bhi_hard_after_fork(bhi_heap_t *heap);

/* ------------------------------------------------ looking; hardened_look.c */

/* Owner, of a block of its own page that it does not free: ends the process if a byte
 * behind its requested size was changed. Another thread may free it meanwhile. */
void bhi_hard_check_live(const bhi_page_t *page, uint32_t index);

/* Owner: the same for a few live blocks of a page. */
void bhi_hard_sweep(const bhi_page_t *page, bhi_random_t *random);

/* The process ends: a byte of a live block's slack was changed, or one of a block
 * that is not live. */
_Noreturn BH_COLD void bhi_hard_damaged(const bhi_page_t *page, uint32_t index, size_t at);
_Noreturn BH_COLD void bhi_hard_written(const bhi_page_t *page, uint32_t index, size_t at);
/* The last bytes of a block that is not live were, as the next one is freed. */
_Noreturn BH_COLD void bhi_hard_written_before(const bhi_page_t *page, uint32_t index);

/* Owner: a block that is not live is as it was left. Of one that was never handed out
 * no OS page is touched that only it lies in. */
void bhi_hard_verify_free(const bhi_page_t *page, uint32_t index);

/* Owner: checks an empty page before it goes. */
void bhi_hard_check_empty(const bhi_page_t *page);

/* Owner, before bhi_page_forget: checks and wipes what is live of a page of blocks. */
void bhi_hard_forget(const bhi_page_t *page);

/* Live blocks of a page that are not held, and the bytes asked for. A snapshot: the
 * page may be another thread's, as long as it cannot end. */
void bhi_hard_figures(const bhi_page_t *page, size_t *count, size_t *bytes);

/* Owner: checks all blocks of a heap. False: not all by `deadline` (bhi_os_now_ms). */
bool bhi_hard_verify(bhi_heap_t *heap, uint64_t deadline);

#endif
