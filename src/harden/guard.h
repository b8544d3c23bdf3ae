/* Guards: which OS pages of a segment can be accessed. Caller holds
 * state->lock. Owns S3. */
#ifndef BH_HARDEN_GUARD_H
#define BH_HARDEN_GUARD_H

#include "meta/types.h"

/* Start-up: do guard regions work on this kernel? Fills bhi_process. */
void bhi_guard_init(void);

/* Makes the n slots from `slot` accessible but for the OS pages of the last
 * one from `last_from` on, and sees to it that the OS page before the first
 * slot is not. A guard that cannot be placed is counted, never an error. False
 * when the slots cannot be made accessible. */
bool bhi_guard_fit(bhi_segment_t *segment, unsigned slot, unsigned n, unsigned last_from);

/* Places the guards of all free slots of a segment with one kernel call. */
void bhi_guard_batch(bhi_segment_t *segment);

#endif
