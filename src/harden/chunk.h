/* Chunks: segments for one large block at a time, whose memory can leave the block's
 * addresses when it is freed. The kernel moves a whole chunk by two entries of its page
 * tables, a fiftieth of the page faults for new memory. So the addresses trap and wait
 * in the quarantine, while the memory, in another chunk that is free, serves the next
 * block, or goes when the purge delay is over.
 *
 * Knows segments; knows nothing of heaps. Caller holds state->lock, which is kept. */
#ifndef BH_HARDEN_CHUNK_H
#define BH_HARDEN_CHUNK_H

#include "meta/segment.h"

/* Segments of 64 KiB OS pages are 64 MiB: too much for one block. */
#define BH_HARDEN_CHUNKS (BH_HARDEN_LARGE && BH_SEGMENT_SIZE <= ((size_t)4 << 20))

/* A span of n slots in a chunk, with memory if there is a free one. Segment NULL: none
 * is to be had, and any other span does. */
bhi_span_t bhi_chunk_span(unsigned n);

/* Moves the memory of a span that has ended to a chunk elsewhere, with its marks of
 * residue. False: it stays. Else all of the segment is quarantined, without contents
 * and still accessible. */
bool bhi_chunk_leave(bhi_segment_t *segment, unsigned slot, unsigned n);

#endif
