/* Signal handlers by the kernel's own calls: libc's may be absent this early, and
 * interposed. Knows how a fault is described, not what it means. */
#ifndef BH_OS_SIGNAL_H
#define BH_OS_SIGNAL_H

#include "base/compiler.h"

/* The kernel's structure. */
typedef struct bhi_os_action {
    void (*handler)(int signal, void *info, void *context); /* or a number, SIG_DFL or SIG_IGN */
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
} bhi_os_action_t;

#define BHI_OS_ACTION_RESTART 0x10000000ul /* SA_RESTART: system calls go on afterwards */

/* Sets what the signal does, or with NULL only asks. 0 or a negated errno value.
 * Handlers get what returns from them where they have none. */
int bhi_os_action(int signal, const bhi_os_action_t *now, bhi_os_action_t *before);

/* How signals were blocked before; `block` or unblocks one. */
uint64_t bhi_os_block(int signal, bool block);
void bhi_os_blocked(uint64_t set);

/* To the calling thread. */
void bhi_os_raise(int signal);

typedef struct bhi_os_fault {
    uintptr_t address, pc, frame, stack;
    bool by_kernel; /* an access; not sent by anybody */
    bool write, write_known;
} bhi_os_fault_t;

/* From what a handler of SIGSEGV got. */
void bhi_os_fault(const void *info, const void *context, bhi_os_fault_t *out);

#endif
