/* What profile hardened adds to malloc and free of blocks in pages: byte-exact ends,
 * wiping, delayed reuse, sweeps. In that profile no page is anybody's local_heap and
 * the direct table leads to the empty page, so both fast paths end in the generic
 * ones by themselves, and those call what is declared here. What it keeps of a page
 * is in hardened_page.h. Lists and refills are those of the other profiles (refill.c), but
 * that a block is listed only when it has waited: harden/age.h.
 *
 *   E1  a live block that is not held has its slack filled by harden/canary.h under
 *       the key of bhi_hard_key, its place and its requested size
 *   E2  a block below capacity that is not live reads zero, or with option fill
 *       BH_FILL_FREED from its first free on; fresh ones (I2) too. A requested size of 0
 *       tells of one that was never handed out, where memory = ZERO
 *   E3  held: freed by a thread that is not the owner. Either that one wipes it (not
 *       ready), or it waits for the owner (ready) and reads zero
 *   E4  a free block that was live before has the mark of its class's age at the time, of
 *       its page's heap; 0 where there are no ages, or if it was old when its page got
 *       another heap
 *
 * The owner's free tests live, whose absence is a double free, then puts the mark there,
 * then wipes; whoever frees it again finds that it is not
 * live. (Before, README's "Double frees that race" holds here as it does elsewhere.)
 * Another thread's free sets held, whose old value finds a double free, then wipes,
 * then sets ready and announces. The owner takes ready blocks only, so it never meets
 * one half wiped.
 *
 * That live and held are clear is tested as a block is handed out, and that it still reads
 * zero.
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
#include "harden/age.h"
#include "harden/canary.h"

BH_INLINE bool bhi_is_hardened(void)
{
    return bh_unlikely(bhi_process.options.profile != BHI_PROFILE_SECURE);
}

/* Whether the page's blocks have ends: not those of zero size. */
BH_INLINE bool bhi_page_has_ends(const bhi_page_t *page)
{
    return bhi_is_hardened() && page->size_class != BHI_CLASS_ZERO && bhi_page_bytes(page) != 0;
}

/* Owner: ages of the class of a page that the heap has now. They go on while the heap is
 * nobody's, and for its next owner. */
BH_INLINE void bhi_hard_begin_age(bhi_heap_t *heap, const bhi_page_t *page)
{
    if (bhi_is_hardened() && page->size_class < BHI_CLASSES)
        bhi_age_begin(&heap->age[page->size_class], page->block_size, bhi_process.options.quarantine_bytes);
}

/* Owner: the marks of blocks of a class that have not waited. Without ages there are none:
 * what is live has no mark. */
BH_INLINE void bhi_hard_young(const bhi_heap_t *heap, unsigned c, uint8_t young[2])
{
    const bhi_age_t *age = &heap->age[c];
    young[0] = age->mark != 0 ? age->mark : BHI_MAP_LIVE;
    young[1] = age->mark != 0 ? age->before : BHI_MAP_LIVE;
}

/* Owner: of a word of the map of its page, blocks that are free and have waited. */
BH_INLINE uint64_t bhi_hard_old(const bhi_heap_t *heap, const bhi_page_t *page, uint32_t word)
{
    uint8_t young[2];
    bhi_hard_young(heap, page->size_class, young);
    return bhi_map_old(page->map, word, young);
}

/* Owner of both heaps: a page goes from one to the other, with an age of its class begun
 * there, and without a list. Who was young there is young here. */
void bhi_hard_move_young(const bhi_heap_t *from, const bhi_heap_t *to, const bhi_page_t *page);

/* Owner, where the class is to have a list unless it has one: without, the last one is used
 * up. */
BH_INLINE void bhi_hard_before_list(bhi_heap_t *heap, unsigned c)
{
    const bhi_page_t *first = heap->queues[c].first;
    if (bhi_is_hardened() && c < BHI_CLASSES && (first == NULL || first->listed + first->kept == 0))
        bhi_age_used_up(&heap->age[c]);
}

/* Owner: all free blocks have waited. */
void bhi_hard_end_ages(bhi_heap_t *heap);

/* Bytes of control data before a page's map, and behind it. block_size 0: of a single
 * block. */
size_t bhi_hard_bytes_before(uint32_t reserved, size_t block_size);
size_t bhi_hard_bytes(uint32_t reserved, size_t block_size);

/* Owner: the next block of a page's list, zero but for its slack, for `size` bytes; at least
 * BH_CANARY_LEAST fewer than the block has. The list is not empty. */
void *bhi_hard_give(bhi_page_t *page, size_t size);

/* The same of the first page of the class, if that has a list; else NULL. size: not 0, and
 * at most BH_CLASS_MAX_SIZE - BH_CANARY_LEAST. */
void *bhi_hard_at_hand(bhi_heap_t *heap, size_t size);

/* Start-up, for bhi_process.short_ways: the processor has what they are made of. */
bool bhi_hard_has_short_ways(void);

/* malloc in this profile, of any size, where bhi_malloc_generic's short way does not
 * serve. */
void *bhi_hard_malloc(size_t size);

/* Owner: gives a live single block its ends. Its slack is none, or large enough; what lies
 * before it in its first OS page (bhi_heap_large_at) is filled as well. */
void bhi_hard_end_large(bhi_page_t *page, size_t size);

/* Bytes to add to a single block's so that its slack is none or large enough. */
size_t bhi_hard_pad_large(size_t size);

/* Any thread, before it frees a live block of its: ends the process if a byte behind
 * its requested size was changed. */
void bhi_hard_check_end(const bhi_page_t *page, uint32_t index);

/* How many bytes before a live single block the first damaged one of that is, or 0; and
 * the end of the process for it. */
size_t bhi_hard_head_damage(const bhi_page_t *page);
_Noreturn BH_COLD void bhi_hard_underrun(const bhi_page_t *page, size_t before);

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

/* Owner: checks an empty page before it goes. Of blocks that were never handed out no OS page
 * is touched that only they lie in. */
void bhi_hard_check_empty(const bhi_page_t *page);

/* Owner, before bhi_page_forget: checks and wipes what is live of a page of blocks. */
void bhi_hard_forget(const bhi_page_t *page);

/* Live blocks of a page that are not held, and the bytes asked for. A snapshot: the
 * page may be another thread's, as long as it cannot end. */
void bhi_hard_figures(const bhi_page_t *page, size_t *count, size_t *bytes);

/* Owner: checks all blocks of a heap, and what is to become some. False: not all by
 * `deadline` (bhi_os_now_ms). */
bool bhi_hard_verify(bhi_heap_t *heap, uint64_t deadline);

#endif
