/* Faults in guarded slots: what an access was, its report, and the handler of
 * SIGSEGV that makes it. */
#ifndef BH_CORE_FAULT_H
#define BH_CORE_FAULT_H

#include "bulkhead.h"
#include "harden/guarded.h"
#include "rt/violation.h"

/* What classification looks at: a slot as it was for a moment. */
typedef struct bhi_fault_slot {
    uintptr_t data, block;
    size_t bytes, size; /* of the data; of the block */
    bhi_guarded_state_t state;
} bhi_fault_slot_t;

typedef enum bhi_fault_of { BHI_FAULT_NONE, BHI_FAULT_FIRST, BHI_FAULT_SECOND } bhi_fault_of_t;

/* Which of two neighbours an access was meant for that trapped at an address in the
 * data of the first, or in the guard between them; and the violation. NONE: neither.
 * Data of a live block trap only where the program has closed them itself. Between
 * two live blocks the nearer one, and live ones before those that were freed. Pure:
 * any values. */
bhi_fault_of_t bhi_fault_classify(uintptr_t address, const bhi_fault_slot_t *first, const bhi_fault_slot_t *second,
                                  bhi_violation_t *what);

/* Completes the report on an address of the reservation. As bhi_describe. */
void bhi_fault_describe(bh_report_t *report);

/* Start-up: the handler, if options ask for it. */
void bhi_fault_init(void);

/* What the handler does before it looks for an earlier one. True: the access can be
 * repeated and succeeds. Async-signal-safe. */
bool bhi_fault_handle(int signal, const void *info, const void *context);

#endif
