/* Kernel interface. Knows system calls and their failure modes; knows nothing
 * of segments, pages or blocks. */
#include "os/os.h"

#include "base/checked.h"
#include "os/syscall.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#define BH_MADV_COLD 20 /* Linux 5.4 */
#define BH_MREMAP_KEEP_SOURCE 4 /* MREMAP_DONTUNMAP, Linux 5.7 */
/* Linux 6.13; values from the kernel's uapi/asm-generic/mman-common.h. */
#define BH_MADV_GUARD_INSTALL 102
#define BH_MADV_GUARD_REMOVE 103
#ifndef SYS_process_madvise
#define SYS_process_madvise 440
#endif
#define BH_SYS_MSEAL 462
#define BH_PIDFD_SELF_THREAD (-10000) /* "the calling thread", Linux 6.14, uapi/linux/pidfd.h */

#ifdef BH_TESTING
int (*volatile bhi_os_fail_hook)(bhi_os_call_t call);
#define GATE(kind)                                                                                                     \
    (bh_unlikely(bhi_os_fail_hook != NULL) ? bhi_os_fail_hook(kind) : 0)
#else
#define GATE(kind) 0
#endif

/* The one gate: `refuse` is the errno value a test wants, else 0. */
BH_INLINE long os_call(int refuse, long nr, long a, long b, long c, long d, long e, long f)
{
    if (bh_unlikely(refuse != 0))
        return -(long)refuse;
    return bhi_syscall6(nr, a, b, c, d, e, f);
}

#define CALL(kind, nr, a, b, c, d, e, f) os_call(GATE(kind), nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

intptr_t bhi_os_reserve(uintptr_t hint, size_t size)
{
    long flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (hint != 0 ? MAP_FIXED_NOREPLACE : 0);
    intptr_t at = CALL(BHI_OS_MMAP, SYS_mmap, hint, size, PROT_NONE, flags, -1, 0);
    if (bhi_os_failed(at))
        return at;
    if (hint != 0 && (uintptr_t)at != hint) { /* kernels before 4.17 take the address as a hint */
        CALL(BHI_OS_MUNMAP, SYS_munmap, at, size, 0, 0, 0, 0);
        return -EEXIST;
    }
    CALL(BHI_OS_MADVISE, SYS_madvise, at, size, MADV_DONTDUMP, 0, 0, 0);
    return at;
}

int bhi_os_release(uintptr_t addr, size_t size)
{
    return (int)CALL(BHI_OS_MUNMAP, SYS_munmap, addr, size, 0, 0, 0, 0);
}

int bhi_os_rereserve(uintptr_t addr, size_t size)
{
    long flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
    intptr_t at = CALL(BHI_OS_MMAP, SYS_mmap, addr, size, PROT_NONE, flags, -1, 0);
    if (bhi_os_failed(at))
        return (int)at;
    CALL(BHI_OS_MADVISE, SYS_madvise, addr, size, MADV_DONTDUMP, 0, 0, 0);
    return 0;
}

int bhi_os_protect_none(uintptr_t addr, size_t size)
{
    return (int)CALL(BHI_OS_MPROTECT, SYS_mprotect, addr, size, PROT_NONE, 0, 0, 0);
}

int bhi_os_protect_read(uintptr_t addr, size_t size)
{
    return (int)CALL(BHI_OS_MPROTECT, SYS_mprotect, addr, size, PROT_READ, 0, 0, 0);
}

int bhi_os_protect_rw(uintptr_t addr, size_t size)
{
    return (int)CALL(BHI_OS_MPROTECT, SYS_mprotect, addr, size, PROT_READ | PROT_WRITE, 0, 0, 0);
}

int bhi_os_open(uintptr_t addr, size_t size)
{
    int r = bhi_os_protect_rw(addr, size);
    if (r == 0)
        CALL(BHI_OS_MADVISE, SYS_madvise, addr, size, MADV_DODUMP, 0, 0, 0);
    return r;
}

int bhi_os_seal(uintptr_t addr, size_t size)
{
    return (int)CALL(BHI_OS_MSEAL, BH_SYS_MSEAL, addr, size, 0, 0, 0, 0);
}

int bhi_os_purge(uintptr_t addr, size_t size)
{
    int r = (int)CALL(BHI_OS_MADVISE, SYS_madvise, addr, size, MADV_DONTNEED, 0, 0, 0);
    if (r == -EINVAL) /* locked memory */
        r = (int)CALL(BHI_OS_MADVISE, SYS_madvise, addr, size, MADV_DONTNEED_LOCKED, 0, 0, 0);
    return r;
}

int bhi_os_move(uintptr_t from, uintptr_t to, size_t size)
{
    long flags = MREMAP_MAYMOVE | MREMAP_FIXED | BH_MREMAP_KEEP_SOURCE;
    intptr_t at = CALL(BHI_OS_MREMAP, SYS_mremap, from, size, size, flags, to, 0);
    return bhi_os_failed(at) ? (int)at : 0;
}

bool bhi_os_is_locked(uintptr_t addr, size_t size)
{
    /* A hint that changes nothing but the page's place in the kernel's lists. */
    return CALL(BHI_OS_MADVISE, SYS_madvise, addr, size, BH_MADV_COLD, 0, 0, 0) != 0;
}

int bhi_os_guard_install(uintptr_t addr, size_t size)
{
    return (int)CALL(BHI_OS_GUARD, SYS_madvise, addr, size, BH_MADV_GUARD_INSTALL, 0, 0, 0);
}

int bhi_os_guard_remove(uintptr_t addr, size_t size)
{
    return (int)CALL(BHI_OS_GUARD, SYS_madvise, addr, size, BH_MADV_GUARD_REMOVE, 0, 0, 0);
}

int bhi_os_guard_install_many(const uintptr_t *addrs, size_t n, size_t size)
{
    struct iovec iov[64];
    if (n > 64)
        n = 64;
    for (size_t i = 0; i < n; i++) {
        iov[i].iov_base = (void *)addrs[i]; /* NOLINT: an address, not a pointer to data */
        iov[i].iov_len = size;
    }
    long r = CALL(BHI_OS_PROCESS_MADVISE, SYS_process_madvise, BH_PIDFD_SELF_THREAD, iov, n, BH_MADV_GUARD_INSTALL, 0, 0);
    return r < 0 ? 0 : (int)((size_t)r / size);
}

size_t bhi_os_purge_many(const uintptr_t *addrs, const size_t *sizes, size_t n)
{
    struct iovec iov[BH_OS_PURGE_MOST];
    for (size_t i = 0; i < n; i++) {
        iov[i].iov_base = (void *)addrs[i]; /* NOLINT: an address, not a pointer to data */
        iov[i].iov_len = sizes[i];
    }
    long r = CALL(BHI_OS_PROCESS_MADVISE, SYS_process_madvise, BH_PIDFD_SELF_THREAD, iov, n, MADV_DONTNEED, 0, 0);
    size_t left = r < 0 ? 0 : (size_t)r, done = 0;
    for (; done < n && left >= sizes[done]; done++)
        left -= sizes[done];
    return done;
}

bool bhi_os_guard_traps(uintptr_t addr)
{
    /* The kernel writes into the page on our behalf: EFAULT instead of a signal. */
    return CALL(BHI_OS_GETRANDOM, SYS_getrandom, addr, 1, 0, 0, 0, 0) == -EFAULT;
}

int bhi_os_wipe_on_fork(uintptr_t addr, size_t size)
{
    return (int)CALL(BHI_OS_MADVISE, SYS_madvise, addr, size, MADV_WIPEONFORK, 0, 0, 0);
}

int bhi_os_no_huge_pages(uintptr_t addr, size_t size)
{
    return (int)CALL(BHI_OS_MADVISE, SYS_madvise, addr, size, MADV_NOHUGEPAGE, 0, 0, 0);
}

int bhi_os_entropy(void *buf, size_t size)
{
    unsigned char *out = buf;
    size_t have = 0;
    while (have < size) {
        long r = CALL(BHI_OS_GETRANDOM, SYS_getrandom, out + have, size - have, 0, 0, 0, 0);
        if (r == -EINTR)
            continue;
        if (r <= 0)
            break;
        have += (size_t)r;
    }
    if (have < size) { /* a sandbox that refuses getrandom may still allow the device */
        long r = bhi_os_read_file("/dev/urandom", out + have, size - have);
        if (r < 0)
            return (int)r;
        have += (size_t)r;
    }
    return have == size ? 0 : -EIO;
}

static long open_file(const char *path, int flags)
{
    return CALL(BHI_OS_OPEN, SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC | flags, 0, 0, 0);
}

static long read_and_close(long fd, void *buf, size_t size)
{
    size_t have = 0;
    long r = 0;
    while (have < size) {
        r = CALL(BHI_OS_READ, SYS_read, fd, (char *)buf + have, size - have, 0, 0, 0);
        if (r == -EINTR)
            continue;
        if (r <= 0)
            break;
        have += (size_t)r;
    }
    bhi_syscall6(SYS_close, fd, 0, 0, 0, 0, 0);
    return r < 0 ? r : (long)have;
}

long bhi_os_read_file(const char *path, void *buf, size_t size)
{
    long fd = open_file(path, 0);
    return fd < 0 ? fd : read_and_close(fd, buf, size);
}

long bhi_os_read_root_file(const char *path, void *buf, size_t size)
{
    /* Not waiting: the path may name a pipe. */
    long fd = open_file(path, O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return fd;
    struct stat st;
    long r = CALL(BHI_OS_READ, SYS_fstat, fd, &st, 0, 0, 0, 0);
    if (r == 0 && (!S_ISREG(st.st_mode) || st.st_uid != 0 || (st.st_mode & (S_IWGRP | S_IWOTH)) != 0))
        r = -EUCLEAN;
    if (r == 0)
        return read_and_close(fd, buf, size);
    bhi_syscall6(SYS_close, fd, 0, 0, 0, 0, 0);
    return r;
}

void bhi_os_write(int fd, const void *buf, size_t size)
{
    const char *at = buf;
    while (size > 0) {
        long r = bhi_syscall6(SYS_write, fd, (long)at, (long)size, 0, 0, 0);
        if (r == -EINTR)
            continue;
        if (r <= 0)
            return;
        at += r;
        size -= (size_t)r;
    }
}

size_t bhi_os_address_space_left(void)
{
    struct rlimit lim = {RLIM_INFINITY, RLIM_INFINITY};
    if (CALL(BHI_OS_PRLIMIT, SYS_prlimit64, 0, RLIMIT_AS, NULL, &lim, 0, 0) != 0 || lim.rlim_cur == RLIM_INFINITY)
        return SIZE_MAX;
    /* /proc/self/statm: first number is the address space in use, in OS pages. */
    char text[64];
    size_t used = 0;
    long n = bhi_os_read_file("/proc/self/statm", text, sizeof text);
    for (long i = 0; i < n && text[i] >= '0' && text[i] <= '9'; i++)
        used = used * 10 + (size_t)(text[i] - '0');
    size_t page = getauxval(AT_PAGESZ);
    used *= page != 0 ? page : 4096;
    return used < lim.rlim_cur ? (size_t)lim.rlim_cur - used : 0;
}

uint64_t bhi_os_now_ms(void)
{
    struct timespec ts = {0, 0};
    clock_gettime(CLOCK_MONOTONIC_COARSE, &ts); /* vDSO: no kernel entry */
    return (uint64_t)ts.tv_sec * 1000u + (uint64_t)ts.tv_nsec / 1000000u;
}

int bhi_os_pid(void)
{
    return (int)bhi_syscall6(SYS_getpid, 0, 0, 0, 0, 0, 0);
}

int bhi_os_tid(void)
{
    return (int)bhi_syscall6(SYS_gettid, 0, 0, 0, 0, 0, 0);
}

void bhi_os_sleep_us(unsigned us)
{
    struct timespec ts = {us / 1000000u, (long)(us % 1000000u) * 1000L};
    bhi_syscall6(SYS_nanosleep, (long)&ts, 0, 0, 0, 0, 0);
}

void bhi_os_yield(void)
{
    bhi_syscall6(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
}

void bhi_os_futex_wait(_Atomic(uint32_t) *word, uint32_t expected)
{
    bhi_syscall6(SYS_futex, (long)word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, (long)expected, 0, 0, 0);
}

void bhi_os_futex_wake(_Atomic(uint32_t) *word, int n)
{
    bhi_syscall6(SYS_futex, (long)word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, n, 0, 0, 0);
}

/* The kernel's own structure: libc's sigaction may be absent this early, and
 * interposed. */
struct kernel_sigaction {
    void *handler;
    unsigned long flags;
    void *restorer;
    uint64_t mask;
};

/* The compiler takes what follows a trap in the same function for dead code. */
static BH_NOINLINE void trap(void)
{
#if defined(__x86_64__)
    __asm__ volatile("ud2");
#else
    __asm__ volatile("brk #1000");
#endif
}

_Noreturn void bhi_os_abort(void)
{
    struct kernel_sigaction dfl = {NULL, 0, NULL, 0};
    uint64_t abrt = (uint64_t)1 << (SIGABRT - 1);
    bhi_syscall6(SYS_rt_sigaction, SIGABRT, (long)&dfl, 0, 8, 0, 0);
    bhi_syscall6(SYS_rt_sigprocmask, SIG_UNBLOCK, (long)&abrt, 0, 8, 0, 0);
    bhi_syscall6(SYS_tgkill, bhi_os_pid(), bhi_os_tid(), SIGABRT, 0, 0, 0);
    /* Process 1 of a PID namespace ignores a default SIGABRT; a fault that its
     * own instruction raised it cannot ignore. But a handler that returns would
     * bring it back to that instruction for ever, and one that jumps away would
     * let it go on. (SIGILL on x86-64, SIGTRAP on aarch64.) */
    if (bhi_syscall6(SYS_rt_sigaction, SIGILL, (long)&dfl, 0, 8, 0, 0) == 0 &&
        bhi_syscall6(SYS_rt_sigaction, SIGTRAP, (long)&dfl, 0, 8, 0, 0) == 0)
        trap();
    for (;;) {
        bhi_syscall6(SYS_exit_group, 128 + SIGABRT, 0, 0, 0, 0, 0);
        trap();
    }
}

/* glibc keeps the address of the initial stack here: argc, argv, NULL,
 * environment, NULL, auxiliary vector. `environ` is not set yet when the
 * dynamic loader makes its first allocation. */
extern void *__libc_stack_end __attribute__((weak));
extern char **environ __attribute__((weak));

void bhi_os_start_info(bhi_os_start_t *out)
{
    memset(out, 0, sizeof *out);
    if (&__libc_stack_end != NULL && __libc_stack_end != NULL) {
        uintptr_t *stack = __libc_stack_end;
        size_t argc = stack[0];
        if (argc < (1u << 22) && stack[argc + 1] == 0)
            out->env = (char *const *)&stack[argc + 2];
    }
    if (out->env == NULL && &environ != NULL)
        out->env = environ;
    out->at_random = (const unsigned char *)getauxval(AT_RANDOM);
    out->page_size = getauxval(AT_PAGESZ);
    out->program_headers = getauxval(AT_PHDR);
    out->secure = getauxval(AT_SECURE) != 0;
}
