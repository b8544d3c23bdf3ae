/* In place of functions of src/ that reach outside the process or end it: the
 * linker's --wrap sends the calls of other files here. */
#include "window/window.h"

#include "os/os.h"
#include "window/inside.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

uint64_t window_now;
window_end_t window_end;
void (*window_written)(int fd, const char *text, size_t length);
const char *window_file;
size_t window_file_length;
uint64_t inside_entropy;

static size_t file_at;

/* Declared here: nothing else calls them by these names. */
_Noreturn void __wrap_bhi_violation(bhi_violation_t what, uintptr_t address);
void __wrap_bhi_violation_report_only(bhi_violation_t what, uintptr_t address);
_Noreturn void __wrap_bhi_os_abort(void);
int __wrap_bhi_os_entropy(void *buf, size_t size);
int __wrap_bhi_os_pid(void);
void __wrap_bhi_os_futex_wait(_Atomic(uint32_t) *word, uint32_t expected);
uint64_t __wrap_bhi_os_now_ms(void);
void __wrap_bhi_os_write(int fd, const void *buf, size_t size);
long __wrap_bhi_os_read_root_file(const char *path, void *buf, size_t size);
int __wrap_bhi_os_file_open(const char *path);
long __wrap_bhi_os_file_read(int fd, void *buf, size_t size);
void __wrap_bhi_os_file_close(int fd);
intptr_t __wrap_bhi_os_reserve(uintptr_t hint, size_t size);
intptr_t __real_bhi_os_reserve(uintptr_t hint, size_t size);

_Noreturn static void leave(int id, uintptr_t address)
{
    if (!window_end.armed) {
        fprintf(stderr, "fuzz: FINDING: %s outside of a run, address %#zx\n", window_end_id(id), address);
        signal(SIGABRT, SIG_DFL);
        abort();
    }
    window_end.id = id;
    window_end.address = address;
    siglongjmp(window_end.at, 1);
}

const char *window_end_id(int id)
{
    switch (id) {
    case WINDOW_FAULT: return "fault";
    case WINDOW_ABORT: return "abort";
    case WINDOW_HANG: return "hang";
    case WINDOW_STRAY: return "stray";
    default: return bhi_violation_id((bhi_violation_t)id);
    }
}

_Noreturn void __wrap_bhi_violation(bhi_violation_t what, uintptr_t address)
{
    leave((int)what, address);
}

void __wrap_bhi_violation_report_only(bhi_violation_t what, uintptr_t address)
{
    (void)what;
    (void)address;
}

_Noreturn void __wrap_bhi_os_abort(void)
{
    leave(WINDOW_ABORT, 0);
}

/* SplitMix64. */
uint64_t inside_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* There is one thread: what it waits for never comes. */
void __wrap_bhi_os_futex_wait(_Atomic(uint32_t) *word, uint32_t expected)
{
    (void)word;
    (void)expected;
    leave(WINDOW_HANG, 0);
}

int __wrap_bhi_os_entropy(void *buf, size_t size)
{
    unsigned char *out = buf;
    for (size_t at = 0; at < size; at += 8) {
        uint64_t word = inside_next(&inside_entropy);
        memcpy(out + at, &word, size - at < 8 ? size - at : 8);
    }
    return 0;
}

/* The random streams remember which process they are of, and a damaged heap may read that
 * for its key. Nobody forks here. */
int __wrap_bhi_os_pid(void)
{
    return 1;
}

uint64_t __wrap_bhi_os_now_ms(void)
{
    return window_now;
}

void __wrap_bhi_os_write(int fd, const void *buf, size_t size)
{
    if (window_written != NULL)
        window_written(fd, buf, size);
}

long __wrap_bhi_os_read_root_file(const char *path, void *buf, size_t size)
{
    (void)path;
    if (window_file == NULL)
        return -ENOENT;
    size_t n = window_file_length < size ? window_file_length : size;
    memcpy(buf, window_file, n);
    return (long)n;
}

int __wrap_bhi_os_file_open(const char *path)
{
    (void)path;
    file_at = 0;
    return window_file != NULL ? 1000 : -ENOENT;
}

/* In short pieces, so that lines are cut anywhere. */
long __wrap_bhi_os_file_read(int fd, void *buf, size_t size)
{
    (void)fd;
    size_t left = window_file_length - file_at, n = left < size ? left : size;
    if (n > 61)
        n = 61;
    memcpy(buf, window_file + file_at, n);
    file_at += n;
    return (long)n;
}

void __wrap_bhi_os_file_close(int fd)
{
    (void)fd;
}

/* Damaged control data may name any range, the harness's own memory among them. */
static void must_be_ours(uintptr_t addr, size_t size)
{
    if (!inside_is_ours(addr, size))
        leave(WINDOW_STRAY, addr);
}

/* ------------------------------------------------------- refused kernel calls */

static unsigned refused_kinds, refused_times;
static int refused_error;

static int refuse(bhi_os_call_t call)
{
    if (refused_times == 0 || (refused_kinds >> call & 1) == 0)
        return 0;
    refused_times--;
    return refused_error;
}

/* What the kernel keeps may be anything then; of soft memory it keeps nothing. */
void window_refuse(unsigned kinds, unsigned times, int error)
{
    refused_kinds = kinds;
    refused_times = times;
    refused_error = error;
    bhi_os_fail_hook = times != 0 ? refuse : NULL;
    if (times != 0 && !inside_soft_is_on())
        window_distrust();
}

/* --------------------------------------------------------- memory and its guards */

/* `instead`: what is done with the `n` bytes from addr on that are soft, unless the call,
 * which would be of this kind, is refused. */
#define RANGED(name, kind, instead)                                                                                    \
    int __wrap_bhi_os_##name(uintptr_t addr, size_t size);                                                             \
    int __real_bhi_os_##name(uintptr_t addr, size_t size);                                                             \
    int __wrap_bhi_os_##name(uintptr_t addr, size_t size)                                                              \
    {                                                                                                                  \
        must_be_ours(addr, size);                                                                                      \
        size_t n = inside_soft(addr, size);                                                                            \
        if (n != size) {                                                                                               \
            int r = __real_bhi_os_##name(addr + n, size - n);                                                          \
            if (r != 0)                                                                                                \
                return r;                                                                                              \
        } else {                                                                                                       \
            int error = refuse(kind);                                                                                  \
            if (error != 0)                                                                                            \
                return -error;                                                                                         \
        }                                                                                                              \
        if (n != 0)                                                                                                    \
            instead;                                                                                                   \
        return 0;                                                                                                      \
    }
RANGED(rereserve, BHI_OS_MMAP, inside_soft_rereserve(addr, n))
RANGED(protect_none, BHI_OS_MPROTECT, inside_soft_close(addr, n, true))
RANGED(open, BHI_OS_MPROTECT, inside_soft_close(addr, n, false))
RANGED(purge, BHI_OS_MADVISE, inside_soft_clear(addr, n))
RANGED(guard_remove, BHI_OS_GUARD, inside_soft_guard(addr, n, false))
#undef RANGED

/* For terabytes the kernel would make page tables for minutes, and no signal stops it. */
int __wrap_bhi_os_guard_install(uintptr_t addr, size_t size);
int __real_bhi_os_guard_install(uintptr_t addr, size_t size);

int __wrap_bhi_os_guard_install(uintptr_t addr, size_t size)
{
    must_be_ours(addr, size);
    if (size > (size_t)1 << 30)
        return -ENOMEM;
    size_t n = inside_soft(addr, size);
    int r = n != size ? __real_bhi_os_guard_install(addr + n, size - n) : -refuse(BHI_OS_GUARD);
    if (r == 0 && n != 0)
        inside_soft_guard(addr, n, true);
    return r;
}

int __wrap_bhi_os_guard_install_many(const uintptr_t *addrs, size_t n, size_t size);
int __real_bhi_os_guard_install_many(const uintptr_t *addrs, size_t n, size_t size);

int __wrap_bhi_os_guard_install_many(const uintptr_t *addrs, size_t n, size_t size)
{
    size_t done = 0;
    for (size_t i = 0; i < n; i++)
        must_be_ours(addrs[i], size);
    if (n != 0 && inside_soft(addrs[0], size) == size && refuse(BHI_OS_PROCESS_MADVISE) != 0)
        return 0;
    for (; done < n && inside_soft(addrs[done], size) == size; done++)
        inside_soft_guard(addrs[done], size, true);
    return done == n ? (int)n : (int)done + __real_bhi_os_guard_install_many(addrs + done, n - done, size);
}

size_t __wrap_bhi_os_purge_many(const uintptr_t *addrs, const size_t *sizes, size_t n);
size_t __real_bhi_os_purge_many(const uintptr_t *addrs, const size_t *sizes, size_t n);

/* The first ranges of one kind, soft or not; the allocator then sees to the others. */
size_t __wrap_bhi_os_purge_many(const uintptr_t *addrs, const size_t *sizes, size_t n)
{
    size_t soft = 0, hard = 0;
    for (size_t i = 0; i < n; i++)
        must_be_ours(addrs[i], sizes[i]);
    while (hard < n && inside_soft(addrs[hard], sizes[hard]) == 0)
        hard++;
    if (hard != 0)
        return __real_bhi_os_purge_many(addrs, sizes, hard);
    while (soft < n && inside_soft(addrs[soft], sizes[soft]) == sizes[soft])
        soft++;
    if (soft != 0 && refuse(BHI_OS_PROCESS_MADVISE) != 0)
        return 0;
    for (size_t i = 0; i < soft; i++)
        inside_soft_clear(addrs[i], sizes[i]);
    return soft;
}

int __wrap_bhi_os_move(uintptr_t from, uintptr_t to, size_t size);
int __real_bhi_os_move(uintptr_t from, uintptr_t to, size_t size);

int __wrap_bhi_os_move(uintptr_t from, uintptr_t to, size_t size)
{
    must_be_ours(from, size);
    must_be_ours(to, size);
    size_t soft = inside_soft(from, size);
    if (soft == size && inside_soft(to, size) == size) {
        inside_soft_move(from, to, size);
        return 0;
    }
    if (soft != 0 || inside_soft(to, size) != 0)
        return -EINVAL; /* as a kernel that cannot: guards of both kinds are not the same mapping's */
    return __real_bhi_os_move(from, to, size);
}

intptr_t __wrap_bhi_os_reserve(uintptr_t hint, size_t size)
{
    intptr_t at = __real_bhi_os_reserve(hint, size);
    if (!bhi_os_failed(at))
        inside_reserved((uintptr_t)at, size);
    return at;
}

/* ----------------------------------------------------------------- signals */

static void on_fault(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)context;
    leave(WINDOW_FAULT, (uintptr_t)info->si_addr);
}

/* A second of processor time in one run: nothing takes that long. */
#define TICK_US 20000
#define TICKS_MOST 50u

static volatile sig_atomic_t ticks;
static unsigned ticks_most;

static void on_tick(int signal)
{
    (void)signal;
    if (window_end.armed && (unsigned)++ticks > ticks_most)
        leave(WINDOW_HANG, 0);
}

void inside_run_begins(void)
{
    ticks = 0;
    ticks_most = TICKS_MOST;
}

void window_impatient(void)
{
    ticks_most = (unsigned)ticks + 2;
}

void inside_catch_signals(void)
{
    struct sigaction fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, &fault, NULL);
    sigaction(SIGBUS, &fault, NULL);
    sigaction(SIGFPE, &fault, NULL); /* a division by damaged control data */
    sigaction(SIGILL, &fault, NULL);
    struct sigaction tick = {.sa_handler = on_tick, .sa_flags = SA_RESTART | SA_NODEFER};
    sigaction(SIGPROF, &tick, NULL);
    struct itimerval every = {{0, TICK_US}, {0, TICK_US}};
    setitimer(ITIMER_PROF, &every, NULL);
}
