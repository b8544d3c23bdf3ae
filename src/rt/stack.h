/* Stacks of calls, and what the addresses in them belong to. No allocation and no
 * lock of ours; see bhi_stack_here for what the unwinder may do. */
#ifndef BH_RT_STACK_H
#define BH_RT_STACK_H

#include "base/constants.h"

struct bhi_unwinder;

/* Registers of a thread at a fault. */
typedef struct bhi_registers {
    uintptr_t pc, frame, stack;
} bhi_registers_t;

/* The calling thread's callers outside this library, the nearest first, as option
 * `stacks` says: addresses within the calls (one less than where they return to).
 * At most `most` and stack_depth; returns how many.
 *
 * fp: the chain of frame pointers, as far as each is aligned, lies above the last
 * one on this thread's stack and can be read; code without frame pointers breaks
 * it, or leaves its frames out. No lock, no allocation.
 *
 * unwind: libgcc's _Unwind_Backtrace, where the process has it. It reads tables of
 * the loaded objects, which with glibc 2.35 and later (_dl_find_object) takes no
 * lock. Before, it takes one of the loader's, which the loader holds for moments in
 * which it does not allocate. It may allocate where a program registers frames of
 * its own: an allocation within is not guarded, and keeps no stack. */
unsigned bhi_stack_here(uintptr_t *out, unsigned most);

/* The same of a thread that has faulted, called from its signal handler: the first
 * is the fault's own. The unwinder only where it takes no lock. */
unsigned bhi_stack_of_fault(const bhi_registers_t *at, uintptr_t *out, unsigned most);

/* Whether libc, and libgcc in it, can be relied on. Else stacks are found by frame
 * pointers. */
void bhi_stack_libc_up(bool up);

/* Whether the thread is inside the unwinder. */
bool bhi_stack_busy(void);

/* Start-up; where the program's own headers are tells whether this library is
 * part of the program. */
void bhi_stack_init(uintptr_t program_headers);

/* Whether stacks are to be unwound and nothing linked in does it; then, once libc is
 * up, an unwinder for this process; state->lock held. With option seal=1 none is set. */
bool bhi_stack_wants_unwinder(void);
void bhi_stack_set_unwinder(const struct bhi_unwinder *unwinder);

#define BHI_BUILD_ID_MOST 20u
typedef struct bhi_module {
    const char *name; /* path, "" for the program; valid as long as it is loaded */
    uintptr_t offset; /* of the address, as in the file's own addresses */
    unsigned build_id_length;
    unsigned char build_id[BHI_BUILD_ID_MOST];
} bhi_module_t;

/* False: of no module, or this libc does not say. */
bool bhi_module_find(uintptr_t address, bhi_module_t *out);

#endif
