/* Figures of the whole process, gathered by walking control data: nothing is
 * counted on any hot path. */
#ifndef BH_CORE_STATS_H
#define BH_CORE_STATS_H

#include <stddef.h>

typedef struct bhi_stats {
    size_t reserved_bytes;  /* address space reserved for blocks */
    size_t open_bytes;      /* of it in segments in use */
    size_t control_bytes;   /* control data made writable */
    size_t used_bytes;      /* in live blocks, slack included */
    size_t page_count;      /* pages in use, large blocks included */
    size_t segment_count;   /* segments in use */
    size_t free_slot_bytes; /* in slots that no page uses */
    size_t large_count;     /* blocks above 128 KiB */
    size_t large_bytes;
    size_t guard_missed;    /* guards that could not be placed */
} bhi_stats_t;

/* A snapshot; other threads go on meanwhile, so it is exact only at rest. */
void bhi_stats_collect(bhi_stats_t *out);

#endif
