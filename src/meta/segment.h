/* Spans of slots inside segments, and the return of their memory to the kernel.
 * All functions but one: caller holds state->lock. */
#ifndef BH_META_SEGMENT_H
#define BH_META_SEGMENT_H

#include "meta/types.h"

typedef struct bhi_span {
    bhi_segment_t *segment; /* NULL: none */
    unsigned slot;
    bool zero; /* the memory is known to read zero */
    uint64_t dirty; /* slots of it that are not, from the first one on */
} bhi_span_t;

/* n consecutive slots (1..64) at a random place, the first aligned to
 * `align_slots` slots (a power of two up to 64), in a segment that has room. */
bhi_span_t bhi_span_take(unsigned n, unsigned align_slots);
/* The same in a segment never used for slots before: no guards to take away. */
bhi_span_t bhi_span_take_in_new_segment(unsigned n, unsigned align_slots);
/* The same where no slot has memory; no new segment. */
bhi_span_t bhi_span_take_clean(unsigned n);
/* Whether those slots are free, in a segment for any spans. */
bool bhi_span_is_free(const bhi_segment_t *segment, unsigned slot, unsigned n);
/* Takes exactly these, which are. */
bhi_span_t bhi_span_take_at(bhi_segment_t *segment, unsigned slot, unsigned n);
/* Gives a span back, also a quarantined one. `dirty`: its memory may be non-zero. */
void bhi_span_give(bhi_segment_t *segment, unsigned slot, unsigned n, bool dirty);

/* Makes a span in use a quarantined one: not free, and without a page. */
void bhi_span_quarantine(bhi_segment_t *segment, unsigned slot, unsigned n);

/* Adds the slots behind a span of n to it, to make it `to` slots long. False if
 * they are not free. *dirty: which of the slots added may be non-zero. */
bool bhi_span_grow(bhi_segment_t *segment, unsigned slot, unsigned n, unsigned to, uint64_t *dirty);

/* A fresh segment that is a chunk: opened whole, or (`bare`) without access, for
 * memory that is to be moved there. NULL: none can be had. */
bhi_segment_t *bhi_chunk_new(bool bare);
/* A span of n slots at a given place of a chunk, which is free. */
bhi_span_t bhi_chunk_take(bhi_segment_t *chunk, unsigned slot, unsigned n);
/* Takes all of a chunk out of use: quarantined, none of it free or dirty, and no chunk
 * any more. */
void bhi_chunk_quarantine(bhi_segment_t *segment);
/* What was quarantined so is free: goes back to the arena if all of it is without
 * access, and else becomes a segment for spans of any kind. */
void bhi_chunk_give(bhi_segment_t *segment, bool dirty);
/* Slots of a free chunk have memory that may be non-zero. */
void bhi_chunk_soil(bhi_segment_t *chunk, uint64_t slots);

/* Keeps S5 after open_to or regions of a slot were set. */
void bhi_segment_note(bhi_segment_t *segment, unsigned slot);

/* Turns a huge span whose memory could not be taken away into segments of free
 * slots. `accessible` bytes from its start on can be read and written. */
void bhi_segment_adopt_huge(bhi_segment_t *first, uint32_t n, size_t accessible, bool dirty);

/* Estimate of what slots cost in mappings: two for each that is partly closed by
 * mprotect, and two for a segment to which memory was moved. Fully open ones merge with
 * their neighbours, and fully closed ones where slots are opened one by one. */
size_t bhi_segment_mappings(const bhi_segment_t *segment, uint64_t slots);
/* Replaces a part of the process's estimate. */
void bhi_mappings_recount(size_t before, size_t after);

/* Returns memory that is due (`all`: all free memory) to the kernel: that of
 * slots which were free for at least the delay. A segment is looked at once per
 * delay, so it may be twice that. Gives the lock up during kernel calls; bounded
 * by `most` segments. Returns bytes. */
size_t bhi_purge(uint64_t now, bool all, unsigned most);

/* Sets how long free memory is kept, in ms, also for what waits already. Takes
 * the lock itself. */
bool bhi_purge_set_delay(uint32_t delay);

/* In a forked child: what another thread was purging is free again. */
void bhi_purge_after_fork(void);

#endif
