/* Figures of the whole process, gathered by walking control data: nothing is
 * counted on any hot path. */
#ifndef BH_CORE_STATS_H
#define BH_CORE_STATS_H

#include "meta/types.h"

#include <stddef.h>

typedef struct bhi_stats {
    size_t reserved_bytes;  /* address space reserved for blocks */
    size_t open_bytes;      /* of it in segments in use */
    size_t control_bytes;   /* control data made writable */
    size_t used_bytes;      /* in live blocks, slack included */
    size_t page_count;      /* pages in use, large blocks included */
    size_t segment_count;   /* segments in use */
    size_t free_slot_bytes; /* in slots that no page uses */
    size_t quarantined_bytes; /* address space of freed large blocks that waits */
    size_t large_count;     /* blocks above 128 KiB */
    size_t large_bytes;
    size_t huge_count;      /* of the large blocks: those with segments of their own */
    size_t huge_bytes;
    size_t heap_count;      /* user heaps */
    size_t thread_count;    /* threads with a default heap */
    size_t orphan_count;    /* heaps of ended threads that have pages */
    size_t guard_missed;    /* guards that could not be placed */
    size_t advice_refused;  /* advisory kernel calls that failed */
    size_t guarded_count;   /* guarded blocks (core/sampled.h) */
    size_t guarded_bytes;   /* asked for in them; in used_bytes too */
    size_t guarded_refused; /* allocations that were to be guarded, and found no slot */
} bhi_stats_t;

typedef struct bhi_heap_figures {
    size_t page_count;
    size_t page_bytes; /* of their spans */
    size_t used_count; /* live blocks */
    size_t used_bytes;
    size_t large_count;
    size_t large_bytes;
} bhi_heap_figures_t;

/* A snapshot; other threads go on meanwhile, so it is exact only at rest. */
void bhi_stats_collect(bhi_stats_t *out);

/* Owner: exact but for what other threads free meanwhile. Takes back what they
 * freed before. */
void bhi_stats_of_heap(bhi_heap_t *heap, bhi_heap_figures_t *out);

#endif
