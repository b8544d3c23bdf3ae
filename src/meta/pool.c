/* Control-data pool: bump allocation over the control reservation, free lists
 * by size. Never shared with blocks, never given back to the kernel: what it
 * may grow to is bounded by the arena (a quarter of it for maps of the smallest
 * class; the first region is 1/32, others follow where that is not enough). */
#include "meta/pool.h"

#include "base/checked.h"
#include "meta/arena.h"
#include "os/os.h"

#include <string.h>

#define OPEN_STEP ((size_t)64 * 1024)
#define FINE ((size_t)4096)
#define COARSE_STEP ((size_t)128) /* lists and maps are so many times it */
#define COARSE ((size_t)32768)
#define LARGE_STEP ((size_t)8192)
#define REGION_LEAST ((size_t)1 << 20)

/* Whole cache lines. The owner writes its pages' maps at every malloc and free:
 * two threads with maps in one line took three times as long. */
static size_t chunk_size(size_t size)
{
    return bhi_align_up(size, size <= FINE ? BH_CACHE_LINE : size <= COARSE ? COARSE_STEP : LARGE_STEP);
}

/* 64, 128, ... 4096, then by 128 bytes to 32 KiB: the lists and maps of slots of 64 KiB;
 * then 40, 48, ... 1024 KiB: those of larger slots, and what core/record.h keeps of a page. */
static size_t chunk_index(size_t chunk)
{
    if (chunk <= FINE)
        return chunk / BH_CACHE_LINE - 1;
    if (chunk <= COARSE)
        return FINE / BH_CACHE_LINE + (chunk - FINE) / COARSE_STEP - 1;
    return FINE / BH_CACHE_LINE + (COARSE - FINE) / COARSE_STEP + (chunk - COARSE) / LARGE_STEP - 1;
}

void bhi_pool_add_region(uintptr_t at, size_t size)
{
    bhi_pool_t *pool = &bhi_state->pool;
    pool->open_end = at;
    pool->at = at + BH_CACHE_LINE; /* before each chunk there is something that can be read: bhi_list_next */
    pool->end = at + size;
}

static bool make_room(size_t chunk)
{
    bhi_pool_t *pool = &bhi_state->pool;
    if (chunk > pool->end - pool->at) {
        size_t size = bhi_max(REGION_LEAST, bhi_align_up(chunk + BH_CACHE_LINE, BH_OS_PAGE_SIZE));
        uintptr_t at = bhi_arena_reserve_anywhere(size);
        if (at == 0)
            return false;
        bhi_pool_add_region(at, size); /* the tail of the old region is lost: less than one chunk */
    }
    if (pool->at + chunk > pool->open_end) {
        size_t step = bhi_min(bhi_align_up(pool->at + chunk - pool->open_end, OPEN_STEP), pool->end - pool->open_end);
        if (bhi_os_open(pool->open_end, step) != 0)
            return false;
        pool->open_end += step;
        pool->bytes += step;
    }
    return true;
}

void *bhi_pool_take(size_t size)
{
    bhi_pool_t *pool = &bhi_state->pool;
    size_t chunk = chunk_size(size);
    size_t index = chunk_index(chunk);
    if (index < BHI_POOL_SIZES && pool->free[index] != NULL) {
        void *p = pool->free[index];
        memcpy(&pool->free[index], p, sizeof(void *));
        memset(p, 0, chunk);
        return p;
    }
    if (!make_room(chunk))
        return NULL;
    void *p = (void *)pool->at; /* NOLINT */
    pool->at += chunk;
    return p;
}

void bhi_pool_give(void *chunk, size_t size)
{
    bhi_pool_t *pool = &bhi_state->pool;
    size_t index = chunk_index(chunk_size(size));
    if (index >= BHI_POOL_SIZES)
        return; /* nothing that large is ever given back */
    memcpy(chunk, &pool->free[index], sizeof(void *));
    pool->free[index] = chunk;
}
