/* The only code that calls the kernel. Every call goes through one gate that a
 * test build can make fail (bhi_os_fail_hook). All functions keep errno.
 *
 * Results: 0 or a count on success, a negated errno value on failure. Callers
 * decide what a failure means; nothing here ends the process but
 * bhi_os_abort(). Thread-safe, async-signal-safe. */
#ifndef BH_OS_OS_H
#define BH_OS_OS_H

#include "base/compiler.h"

#include <errno.h>

/* Reserves `size` bytes of address space without access, at `hint` if that is
 * free (hint 0: anywhere). Not charged, kept out of core dumps. Returns the
 * address or a negated errno value; check with bhi_os_failed(). */
intptr_t bhi_os_reserve(uintptr_t hint, size_t size);
BH_INLINE bool bhi_os_failed(intptr_t r)
{
    return r < 0 && r >= -4095;
}
int bhi_os_release(uintptr_t addr, size_t size);

/* Drops contents, access and commit charge of part of a reservation. */
int bhi_os_rereserve(uintptr_t addr, size_t size);

/* Access to part of a reservation. `open` makes it readable, writable and part
 * of core dumps; pages never touched since reserve/rereserve read zero. */
int bhi_os_open(uintptr_t addr, size_t size);
int bhi_os_protect_none(uintptr_t addr, size_t size);
int bhi_os_protect_read(uintptr_t addr, size_t size);
int bhi_os_protect_rw(uintptr_t addr, size_t size);
int bhi_os_seal(uintptr_t addr, size_t size);

/* Returns the memory behind the range to the kernel; it is zero afterwards if
 * and only if the result is 0. Locked memory: the kernel's locked variant. */
int bhi_os_purge(uintptr_t addr, size_t size);
/* The same for n ranges with one call (Linux 6.13 on); returns how many, from the first
 * on, are zero. The others are as they were, or partly zero. */
#define BH_OS_PURGE_MOST 32u
size_t bhi_os_purge_many(const uintptr_t *addrs, const size_t *sizes, size_t n);

/* Moves the memory behind a range to another range of a reservation, in whose place
 * it comes with its access and guard regions; the first range stays accessible and
 * reads zero. The ranges do not overlap. After -EINVAL, -EPERM and -ENOSYS nothing
 * has changed; after any other failure the second range may have a hole. */
int bhi_os_move(uintptr_t from, uintptr_t to, size_t size);
/* Whether the program has locked memory of the range. */
bool bhi_os_is_locked(uintptr_t addr, size_t size);

/* Lightweight guard regions (Linux 6.13). */
int bhi_os_guard_install(uintptr_t addr, size_t size);
int bhi_os_guard_remove(uintptr_t addr, size_t size);
/* Installs `n` guards of `size` bytes; returns how many, from the first on. */
int bhi_os_guard_install_many(const uintptr_t *addrs, size_t n, size_t size);
/* True when a guard at addr really traps (some emulators accept and ignore). */
bool bhi_os_guard_traps(uintptr_t addr);

/* The page that contains addr reads zero in a forked child. */
int bhi_os_wipe_on_fork(uintptr_t addr, size_t size);
int bhi_os_no_huge_pages(uintptr_t addr, size_t size);

/* Fills all of buf from the kernel's generator or fails. Blocks only until the
 * kernel's generator is initialised. */
int bhi_os_entropy(void *buf, size_t size);

/* Reads a small file at once; returns bytes read (at most size) or -errno. */
long bhi_os_read_file(const char *path, void *buf, size_t size);
/* The same for a file that is to be trusted: -EUCLEAN unless it is a regular file
 * that root owns and nobody else may write. */
long bhi_os_read_root_file(const char *path, void *buf, size_t size);
void bhi_os_write(int fd, const void *buf, size_t size);

/* For reports (io.c): never block, whatever is found at the path. */
int bhi_os_file_open(const char *path);
int bhi_os_file_append(const char *path); /* made if need be, 0600; no symbolic link */
long bhi_os_file_read(int fd, void *buf, size_t size);
long bhi_os_file_read_at(int fd, void *buf, size_t size, uint64_t offset);
void bhi_os_file_close(int fd);
/* What a symbolic link says, cut, with a zero byte; 0: nothing. */
size_t bhi_os_link_text(const char *path, char *buf, size_t size);
/* Device and inode, by which a descriptor is told from a later one of its number. */
int bhi_os_file_identity(int fd, uint64_t id[2]);
/* One datagram to a local socket, or nothing. */
void bhi_os_send(const char *path, const void *buf, size_t size);

/* Whether the aligned 8-byte word at addr can be read. Asks the kernel, changes
 * nothing, and uses a call that every sandbox needs which lets a process abort. */
bool bhi_os_readable(uintptr_t addr);

/* Copies memory of this process that another thread may close meanwhile; false: it
 * cannot be read, or the kernel does not do it for us. */
bool bhi_os_copy(void *to, uintptr_t from, size_t size);

/* The calling thread's writes fail instead of raising a signal (a pipe that nobody
 * reads, a file at its size limit). */
void bhi_os_block_write_signals(void);

/* From here on a fault of the program calls `handler`, which does not return,
 * instead of any handler of the program's. */
void bhi_os_on_fault(void (*handler)(int signal));

/* Bytes of address space left under RLIMIT_AS, SIZE_MAX when not limited. */
size_t bhi_os_address_space_left(void);

/* Milliseconds of a clock that never steps back; resolution about 4 ms. */
uint64_t bhi_os_now_ms(void);
int bhi_os_pid(void);
int bhi_os_tid(void);
void bhi_os_sleep_us(unsigned us);
void bhi_os_yield(void);
void bhi_os_futex_wait(_Atomic(uint32_t) *word, uint32_t expected);
void bhi_os_futex_wake(_Atomic(uint32_t) *word, int n);

/* Ends the process for certain: default SIGABRT, raised; then a trap, whose
 * signal is reset as well; then exit. */
_Noreturn void bhi_os_abort(void);

/* Process arguments block: environment and auxiliary vector as the kernel laid
 * them out, without getenv. `secure` is AT_SECURE. */
typedef struct bhi_os_start {
    char *const *env; /* NULL-terminated, or NULL when unknown */
    const unsigned char *at_random; /* 16 bytes from the kernel, or NULL */
    size_t page_size;
    uintptr_t program_headers;
    bool secure;
} bhi_os_start_t;
void bhi_os_start_info(bhi_os_start_t *out);

#ifdef BH_TESTING
/* Called before each kernel call of the named kind; a non-zero result is
 * returned as that call's negated errno value and the call is not made. A look
 * at an open file is of the kind of reading it. */
typedef enum bhi_os_call {
    BHI_OS_MMAP, BHI_OS_MUNMAP, BHI_OS_MREMAP, BHI_OS_MPROTECT, BHI_OS_MADVISE, BHI_OS_GUARD, BHI_OS_PROCESS_MADVISE,
    BHI_OS_MSEAL, BHI_OS_GETRANDOM, BHI_OS_OPEN, BHI_OS_READ, BHI_OS_PRLIMIT, BHI_OS_CALLS
} bhi_os_call_t;
extern int (*volatile bhi_os_fail_hook)(bhi_os_call_t call);
#endif

#endif
