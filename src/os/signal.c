/* Signal handlers; see signal.h. */
#include "os/signal.h"

#include "os/os.h"
#include "os/syscall.h"

#include <signal.h>
#include <ucontext.h>

_Static_assert(BHI_OS_ACTION_RESTART == SA_RESTART, "the kernel's number");

#define RESTORER 0x04000000ul /* SA_RESTORER, uapi/asm/signal.h */

#if defined(__x86_64__)
/* The kernel calls no handler that has nothing to return to. Debuggers and
 * unwinders know this code by its bytes. */
void bhi_os_restore(void) BH_HIDDEN;
__asm__(".text\n"
        ".type bhi_os_restore, @function\n"
        "nop\n"
        "bhi_os_restore:\n"
        "movq $15, %rax\n"
        "syscall\n"
        ".size bhi_os_restore, . - bhi_os_restore\n");
#endif

int bhi_os_action(int signal, const bhi_os_action_t *now, bhi_os_action_t *before)
{
    bhi_os_action_t set;
    if (now != NULL) {
        set = *now;
#if defined(__x86_64__)
        if ((set.flags & RESTORER) == 0) {
            set.flags |= RESTORER;
            set.restorer = bhi_os_restore;
        }
#endif
    }
    return (int)bhi_syscall6(SYS_rt_sigaction, signal, (long)(now != NULL ? &set : NULL), (long)before, 8, 0, 0);
}

uint64_t bhi_os_block(int signal, bool block)
{
    uint64_t set = (uint64_t)1 << (signal - 1), before = 0;
    bhi_syscall6(SYS_rt_sigprocmask, block ? SIG_BLOCK : SIG_UNBLOCK, (long)&set, (long)&before, 8, 0, 0);
    return before;
}

void bhi_os_blocked(uint64_t set)
{
    bhi_syscall6(SYS_rt_sigprocmask, SIG_SETMASK, (long)&set, 0, 8, 0, 0);
}

void bhi_os_raise(int signal)
{
    bhi_syscall6(SYS_tgkill, bhi_os_pid(), bhi_os_tid(), signal, 0, 0, 0);
}

#if defined(__aarch64__)
#define ESR_RECORD 0x45535201u /* uapi/asm/sigcontext.h */
#define ESR_WRITE ((uint64_t)1 << 6) /* WnR, of a data abort: Arm ARM, ESR_ELx */

/* Records of 8 bytes' head, one behind the other, to one of no length. */
static void find_write(const mcontext_t *m, bhi_os_fault_t *out)
{
    const unsigned char *at = (const unsigned char *)m->__reserved, *end = at + sizeof m->__reserved;
    while (at + 16 <= end) {
        const uint32_t *head = (const uint32_t *)(const void *)at;
        if (head[0] == 0 || head[1] < 8)
            return;
        if (head[0] == ESR_RECORD) {
            out->write = (*(const uint64_t *)(const void *)(at + 8) & ESR_WRITE) != 0;
            out->write_known = true;
            return;
        }
        at += head[1];
    }
}
#endif

void bhi_os_fault(const void *info, const void *context, bhi_os_fault_t *out)
{
    const siginfo_t *i = info;
    const mcontext_t *m = &((const ucontext_t *)context)->uc_mcontext;
    out->by_kernel = i->si_code > 0 && i->si_code != SI_KERNEL;
    out->address = (uintptr_t)i->si_addr;
    out->write = out->write_known = false;
#if defined(__x86_64__)
    out->pc = (uintptr_t)m->gregs[REG_RIP];
    out->frame = (uintptr_t)m->gregs[REG_RBP];
    out->stack = (uintptr_t)m->gregs[REG_RSP];
    out->write = (m->gregs[REG_ERR] & 2) != 0; /* Intel SDM volume 3, 4.7: page-fault error code */
    out->write_known = true;
#else
    out->pc = m->pc;
    out->frame = m->regs[29];
    out->stack = m->sp;
    find_write(m, out);
#endif
}
