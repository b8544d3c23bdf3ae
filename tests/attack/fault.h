/* Accesses that must fault. */
#ifndef BH_ATTACK_FAULT_H
#define BH_ATTACK_FAULT_H

#include <stdbool.h>
#include <stdint.h>

/* Whether a forked child that reads or writes the byte at `at`, after it has said
 * so, ends by SIGSEGV with exactly that address. */
bool attack_faults(uintptr_t at, bool write);

#endif
