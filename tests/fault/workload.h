/* Allocations of every kind with an oracle: each block is filled with a pattern
 * and verified before it is freed; what should be zero is. A refused allocation
 * must say ENOMEM. Any finding ends the process with WORKLOAD_FINDING after one
 * line on standard error. */
#ifndef BH_FAULT_WORKLOAD_H
#define BH_FAULT_WORKLOAD_H

#include <stdbool.h>

#define WORKLOAD_FINDING 3

/* All of it: local and remote frees, threads that end, heaps, fork, collecting,
 * reuse. `refusals`: allocations may fail. */
void workload_run(bool refusals);

/* After the fault has ended: everything works, is zero where it should be, and
 * the invariants hold. */
void workload_recovered(void);

#endif
