/* Shared by the window's own files. */
#ifndef BH_FUZZ_INSIDE_H
#define BH_FUZZ_INSIDE_H

#include <stddef.h>
#include <stdint.h>

/* State of what the kernel's generator gives. */
extern uint64_t inside_entropy;
uint64_t inside_next(uint64_t *state);

void inside_catch_signals(void);
void inside_run_begins(void);

/* All contexts as new threads, the first one present. */
void inside_reset_contexts(void);

/* An address reservation that the allocator made. */
void inside_reserved(uintptr_t at, size_t size);

#endif
