/* Shared by the window's own files. */
#ifndef BH_FUZZ_INSIDE_H
#define BH_FUZZ_INSIDE_H

#include "meta/types.h"

#include <stddef.h>
#include <stdint.h>

/* State of what the kernel's generator gives. */
extern uint64_t inside_entropy;
uint64_t inside_next(uint64_t *state);

void inside_catch_signals(void);
void inside_run_begins(void);

/* All contexts as new threads, the first one present. */
void inside_reset_contexts(void);

/* Ends the process if a kernel call of the window's own failed. */
void inside_must(int result, const char *what);

/* Where memory is not soft, makes segment 0 what its header was at the warm start; scribbled: slots that may hold
 * something though the allocator does not know it. False: it is too far from that. */
bool inside_clean(const bhi_segment_t *start, uint64_t scribbled);

/* Soft memory, see soft.c: the first segments, as long as it is on. The window's own
 * reset turns it on and off, with all of the reservation just mapped anew. */
#define SOFT_SEGMENTS ((size_t)64)
void inside_soft_on(void);
void inside_soft_off(void);
bool inside_soft_is_on(void);
/* The table as it is now, for later starts; and back to it, with all of the memory zero. */
void inside_soft_remember(void);
void inside_soft_restore(void);
/* For a cold start, after it: segment 0 has no access either. */
void inside_soft_shut(void);
/* How many of these bytes, from the first on, are soft. */
size_t inside_soft(uintptr_t at, size_t size);
void inside_soft_clear(uintptr_t at, size_t size);
void inside_soft_guard(uintptr_t at, size_t size, bool install);
void inside_soft_close(uintptr_t at, size_t size, bool close);
void inside_soft_rereserve(uintptr_t at, size_t size);
void inside_soft_move(uintptr_t from, uintptr_t to, size_t size);

/* Whether the allocator reserved all of it, for whatever. */
bool inside_is_ours(uintptr_t at, size_t size);

/* Whether FUZZ_VERIFY is in the environment. */
bool inside_verifies(void);
/* Ends the process unless all is as at a warm start, of which these are the state and the
 * first segment's header. */
void inside_verify(const bhi_state_t *state, const bhi_segment_t *first);

/* Ends the process unless [at, at + size) of the first segments reads zero, but for OS
 * pages whose bit is set (NULL: none). */
void inside_verify_zero(const char *where, uintptr_t at, size_t size, const uint64_t *but);
_Noreturn void inside_left(const char *where, uintptr_t at, size_t offset);

/* An address reservation that the allocator made. */
void inside_reserved(uintptr_t at, size_t size);

#endif
