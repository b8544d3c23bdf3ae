/* Kernel calls that only reports make. None goes through the gate for failing
 * calls: each may fail at any time, and nothing depends on it. */
#include "os/os.h"
#include "os/syscall.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>

/* O_NONBLOCK: in a changed root the path may be a pipe. */
int bhi_os_file_open(const char *path)
{
    return (int)bhi_syscall6(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0, 0, 0);
}

int bhi_os_file_append(const char *path)
{
    long flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
    return (int)bhi_syscall6(SYS_openat, AT_FDCWD, (long)path, flags, 0600, 0, 0);
}

size_t bhi_os_link_text(const char *path, char *buf, size_t size)
{
    long n = bhi_syscall6(SYS_readlinkat, AT_FDCWD, (long)path, (long)buf, (long)(size - 1), 0, 0);
    buf[n > 0 ? n : 0] = '\0';
    return n > 0 ? (size_t)n : 0;
}

long bhi_os_file_read(int fd, void *buf, size_t size)
{
    long r;
    do {
        r = bhi_syscall6(SYS_read, fd, (long)buf, (long)size, 0, 0, 0);
    } while (r == -EINTR);
    return r;
}

long bhi_os_file_read_at(int fd, void *buf, size_t size, uint64_t offset)
{
    return bhi_syscall6(SYS_pread64, fd, (long)buf, (long)size, (long)offset, 0, 0);
}

void bhi_os_file_close(int fd)
{
    bhi_syscall6(SYS_close, fd, 0, 0, 0, 0, 0);
}

int bhi_os_file_identity(int fd, uint64_t id[2])
{
    struct stat st;
    long r = bhi_syscall6(SYS_fstat, fd, (long)&st, 0, 0, 0, 0);
    if (r != 0)
        return (int)r;
    id[0] = st.st_dev;
    id[1] = st.st_ino;
    return 0;
}

void bhi_os_send(const char *path, const void *buf, size_t size)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    for (size_t i = 0; path[i] != '\0' && i < sizeof to.sun_path - 1; i++)
        to.sun_path[i] = path[i];
    /* Non-blocking: a log daemon that hangs must not keep the process alive. */
    long fd = bhi_syscall6(SYS_socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, 0, 0, 0);
    if (fd < 0)
        return;
    bhi_syscall6(SYS_sendto, fd, (long)buf, (long)size, MSG_NOSIGNAL, (long)&to, sizeof to);
    bhi_os_file_close((int)fd);
}

/* The kernel copies the signal set in before it looks at the (impossible)
 * command: EFAULT, or EINVAL and nothing is changed. */
bool bhi_os_readable(uintptr_t addr)
{
    return addr % 8 == 0 && bhi_syscall6(SYS_rt_sigprocmask, ~0, (long)addr, 0, 8, 0, 0) == -EINVAL;
}

bool bhi_os_copy(void *to, uintptr_t from, size_t size)
{
    struct iovec local = {to, size}, remote = {(void *)from, size}; /* NOLINT: an address */
    return bhi_syscall6(SYS_process_vm_readv, bhi_os_pid(), (long)&local, 1, (long)&remote, 1, 0) == (long)size;
}

void bhi_os_block_write_signals(void)
{
    uint64_t set = (uint64_t)1 << (SIGPIPE - 1) | (uint64_t)1 << (SIGXFSZ - 1);
    bhi_syscall6(SYS_rt_sigprocmask, SIG_BLOCK, (long)&set, 0, 8, 0, 0);
}

/* The kernel refuses to call a handler without a restorer on x86-64; ours does
 * not return, so it may be any address. */
#define BH_SA_RESTORER 0x04000000ul

void bhi_os_on_fault(void (*handler)(int signal))
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
    struct {
        void (*handler)(int);
        unsigned long flags;
        void (*restorer)(int);
        uint64_t mask;
    } action = {handler, SA_ONSTACK, handler, 0};
#if defined(__x86_64__)
    action.flags |= BH_SA_RESTORER;
#endif
    uint64_t set = 0;
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        bhi_syscall6(SYS_rt_sigaction, faults[i], (long)&action, 0, 8, 0, 0);
        set |= (uint64_t)1 << (faults[i] - 1);
    }
    bhi_syscall6(SYS_rt_sigprocmask, SIG_UNBLOCK, (long)&set, 0, 8, 0, 0);
}
