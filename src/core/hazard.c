/* The registry of hazard words; see hazard.h. Words come in chunks that are
 * linked once and stay; a word that its thread gave back goes to a free list. */
#include "core/hazard.h"

#include "core/thread.h"
#include "meta/pool.h"

#define CHUNK 15u /* with the chunk's own line 1 KiB */

struct bhi_hazard_chunk {
    _Atomic(struct bhi_hazard_chunk *) next BH_ALIGNED(BH_CACHE_LINE);
    bhi_hazard_t words[CHUNK];
};

BH_THREAD_LOCAL bhi_hazard_t *bhi_thread_hazard;

/* Lock held. A word that no thread has; NULL: no memory. */
static bhi_hazard_t *free_word(void)
{
    bhi_hazard_t *word = bhi_state->hazards_free;
    if (word != NULL) {
        bhi_state->hazards_free = word->next_free;
        return word;
    }
    uint32_t n = atomic_load_explicit(&bhi_state->hazard_count, memory_order_relaxed);
    if (n % CHUNK == 0) {
        struct bhi_hazard_chunk *chunk = bhi_pool_take(sizeof *chunk);
        if (chunk == NULL)
            return NULL;
        if (bhi_state->hazards_last != NULL)
            atomic_store_explicit(&bhi_state->hazards_last->next, chunk, memory_order_release);
        else
            atomic_store_explicit(&bhi_state->hazards, chunk, memory_order_release);
        bhi_state->hazards_last = chunk;
    }
    /* Before the first hazard in it is set: who releases a page and misses the
     * word is seen by its thread, as with the hazard itself. */
    atomic_store(&bhi_state->hazard_count, n + 1);
    return &bhi_state->hazards_last->words[n % CHUNK];
}

/* A thread that never allocated may be at its end, past all destructors, where
 * libc frees what ended threads left; a word taken there would be lost. It gets
 * one when it goes on freeing. */
#define FREES_WITHOUT_HEAP 64
static BH_THREAD_LOCAL unsigned without_heap;

void bhi_hazard_expect_large(void)
{
    without_heap = FREES_WITHOUT_HEAP;
}

bhi_hazard_t *bhi_hazard_take(void)
{
    bool stays = bhi_thread_heap != &bhi_heap_empty || ++without_heap > FREES_WITHOUT_HEAP;
    if (stays && bhi_thread_watch_end()) {
        if (bhi_thread_hazard != NULL)
            return bhi_thread_hazard; /* that call allocated, and a callback freed */
        bhi_state_lock();
        bhi_hazard_t *word = free_word();
        bhi_state_unlock();
        if (word != NULL) {
            bhi_thread_hazard = word;
            if (bhi_thread_heap != &bhi_heap_empty)
                bhi_thread_heap->hazard = word;
            return word;
        }
    }
    if (!bhi_forking)
        bhi_lock_take(&bhi_state->hazard_lock);
    return &bhi_state->hazard_shared;
}

bool bhi_hazard_on(const bhi_page_t *page)
{
    if (!BH_HARDEN_MAP)
        return false; /* nobody sets one */
    uint32_t left = atomic_load(&bhi_state->hazard_count);
    struct bhi_hazard_chunk *chunk = atomic_load_explicit(&bhi_state->hazards, memory_order_acquire);
    while (left > 0) {
        uint32_t n = left < CHUNK ? left : CHUNK;
        for (uint32_t i = 0; i < n; i++) {
            if (atomic_load(&chunk->words[i].page) == page)
                return true;
        }
        left -= n;
        chunk = atomic_load_explicit(&chunk->next, memory_order_acquire);
    }
    return atomic_load(&bhi_state->hazard_shared.page) == page;
}

void bhi_hazard_thread_end(void)
{
    bhi_hazard_t *word = bhi_thread_hazard;
    if (word == NULL)
        return;
    bhi_thread_hazard = NULL;
    bhi_state_lock();
    word->next_free = bhi_state->hazards_free;
    bhi_state->hazards_free = word;
    bhi_state_unlock();
}

void bhi_hazard_after_fork(void)
{
    bhi_lock_reset(&bhi_state->hazard_lock);
    atomic_store_explicit(&bhi_state->hazard_shared.page, NULL, memory_order_relaxed);
    bhi_state->hazards_free = NULL;
    uint32_t left = atomic_load_explicit(&bhi_state->hazard_count, memory_order_relaxed);
    struct bhi_hazard_chunk *chunk = atomic_load_explicit(&bhi_state->hazards, memory_order_relaxed);
    for (uint32_t i = 0; left > 0; left--) {
        bhi_hazard_t *word = &chunk->words[i];
        if (word != bhi_thread_hazard) {
            atomic_store_explicit(&word->page, NULL, memory_order_relaxed);
            word->next_free = bhi_state->hazards_free;
            bhi_state->hazards_free = word;
        }
        if (++i == CHUNK) {
            i = 0;
            chunk = atomic_load_explicit(&chunk->next, memory_order_relaxed);
        }
    }
}
