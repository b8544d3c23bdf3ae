/* Stopping the other threads; see world.h. */
#include "os/world.h"

#include "os/os.h"
#include "os/signal.h"
#include "os/syscall.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>

#define THREADS_MOST 1024u
#define SIGNAL_FIRST 64
#define SIGNAL_LAST 36 /* those before are libc's, or the ones that programs take first */
#define ROUNDS 10u
#define WAIT_STEP_US 1000u
#define WAIT_STEPS 200u /* of each round; a thread that does not run for so long is not stopped */

static struct {
    _Atomic(uint32_t) go;      /* counts; changes when all may go on */
    _Atomic(uint32_t) stopped; /* threads that wait */
    int signal;                /* 0: none */
    uint32_t count;
    int thread[THREADS_MOST];  /* those that were sent the signal */
} world;

static void wait_in(int number, void *info, void *context)
{
    (void)number;
    (void)info;
    (void)context;
    uint32_t now = atomic_load(&world.go);
    atomic_fetch_add(&world.stopped, 1);
    while (atomic_load(&world.go) == now)
        bhi_os_futex_wait(&world.go, now);
    atomic_fetch_sub(&world.stopped, 1);
}

/* The last real-time signal that nobody uses. */
static int free_signal(void)
{
    bhi_os_action_t before;
    for (int s = SIGNAL_FIRST; s >= SIGNAL_LAST; s--) {
        if (bhi_os_action(s, NULL, &before) == 0 && (uintptr_t)before.handler == (uintptr_t)SIG_DFL)
            return s;
    }
    return 0;
}

static bool is_known(int thread)
{
    for (uint32_t i = 0; i < world.count; i++) {
        if (world.thread[i] == thread)
            return true;
    }
    return false;
}

typedef struct entry { /* linux_dirent64, getdents(2) */
    uint64_t inode;
    int64_t next;
    unsigned short length;
    unsigned char type;
    char name[];
} entry_t;

/* Sends the signal to threads that have not got it; returns how many there are besides
 * the caller, and in *fresh how many of these are new. */
static unsigned list_threads(unsigned *fresh)
{
    _Alignas(8) char buffer[2048];
    unsigned n = 0;
    *fresh = 0;
    int self = bhi_os_tid(), process = bhi_os_pid();
    int fd = (int)bhi_syscall6(SYS_openat, AT_FDCWD, (long)"/proc/self/task", O_RDONLY | O_CLOEXEC | O_DIRECTORY, 0, 0, 0);
    long got = 0;
    while (fd >= 0 && (got = bhi_syscall6(SYS_getdents64, fd, (long)buffer, sizeof buffer, 0, 0, 0)) > 0) {
        for (long at = 0; at < got;) {
            const entry_t *e = (const entry_t *)(const void *)(buffer + at);
            at += e->length;
            int thread = 0;
            for (const char *c = e->name; *c >= '0' && *c <= '9'; c++)
                thread = thread * 10 + (*c - '0');
            if (thread == 0 || thread == self)
                continue;
            n++;
            if (is_known(thread) || world.count == THREADS_MOST || world.signal == 0)
                continue;
            world.thread[world.count++] = thread;
            (*fresh)++;
            bhi_syscall6(SYS_tgkill, process, thread, world.signal, 0, 0, 0);
        }
    }
    if (fd >= 0)
        bhi_os_file_close(fd);
    return n;
}

unsigned bhi_os_world_stop(void)
{
    unsigned n = 0, fresh = 1;
    world.count = 0;
    world.signal = free_signal();
    bhi_os_action_t ours = {.handler = wait_in, .flags = SA_SIGINFO | SA_RESTART, .mask = ~(uint64_t)0};
    if (world.signal != 0 && bhi_os_action(world.signal, &ours, NULL) != 0)
        world.signal = 0;
    for (unsigned round = 0; round < ROUNDS && fresh != 0; round++) {
        n = list_threads(&fresh);
        for (unsigned i = 0; i < WAIT_STEPS && atomic_load(&world.stopped) < n && world.signal != 0; i++) {
            bhi_os_sleep_us(WAIT_STEP_US);
            if (i % 16 == 15)
                n = list_threads(&fresh); /* some may have ended */
        }
    }
    uint32_t stopped = atomic_load(&world.stopped);
    return n > stopped ? n - stopped : 0;
}

void bhi_os_world_go(void)
{
    atomic_fetch_add(&world.go, 1);
    bhi_os_futex_wake(&world.go, INT32_MAX);
    while (atomic_load(&world.stopped) != 0) {
        bhi_os_futex_wake(&world.go, INT32_MAX);
        bhi_os_sleep_us(WAIT_STEP_US / 10);
    }
    if (world.signal == 0)
        return;
    /* To ignore it first discards what waits in threads that block it. */
    bhi_os_action_t ignore = {.handler = (void (*)(int, void *, void *))(uintptr_t)SIG_IGN}, dfl = {0};
    bhi_os_action(world.signal, &ignore, NULL);
    bhi_os_action(world.signal, &dfl, NULL);
}
