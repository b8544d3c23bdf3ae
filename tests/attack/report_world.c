/* See report_world.h. */
#include "report_world.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define ERROR(e) (SECCOMP_RET_ERRNO | (unsigned)(e))
#define CALLS 32

typedef struct rules {
    unsigned other; /* for calls that no list names */
    unsigned refusal;
    int refused[CALLS]; /* -1 ends a list */
    int allowed[CALLS];
} rules_t;

/* OpenSSH's list is that of its sandbox-seccomp-filter.c, as far as x86-64 and
 * aarch64 both have the calls. It has neither rt_sigaction nor tgkill. */
static const rules_t all_rules[WORLD_FILTERS] = {
    [WORLD_OPENSSH] = {SECCOMP_RET_KILL_PROCESS, ERROR(EACCES),
                       {SYS_openat, SYS_fstat, SYS_newfstatat, -1},
                       {SYS_brk, SYS_clock_gettime, SYS_close, SYS_exit, SYS_exit_group, SYS_futex, SYS_getpid, SYS_getrandom,
                        SYS_gettid, SYS_mmap, SYS_mprotect, SYS_mremap, SYS_munmap, SYS_nanosleep, SYS_read, SYS_rt_sigprocmask,
                        SYS_shutdown, SYS_write, SYS_writev, -1}},
    [WORLD_CHROMIUM] = {SECCOMP_RET_ALLOW, ERROR(EPERM),
                        {SYS_openat, SYS_socket, SYS_connect, SYS_madvise, SYS_process_vm_readv, SYS_fstat, -1}, {-1}},
    [WORLD_MUTE] = {ERROR(EPERM), ERROR(EPERM), {-1}, {SYS_write, SYS_exit_group, -1}},
    [WORLD_NOTHING] = {ERROR(EINVAL), ERROR(EINVAL), {-1}, {-1}},
};

static void test(struct sock_filter *code, unsigned *n, int call, unsigned action)
{
    code[(*n)++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)call, 0, 1);
    code[(*n)++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action);
}

bool world_sandbox(world_filter_t filter)
{
    const rules_t *r = &all_rules[filter];
    struct sock_filter code[2 + 4 * CALLS];
    unsigned n = 0;
    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (unsigned i = 0; r->refused[i] >= 0; i++)
        test(code, &n, r->refused[i], r->refusal);
    if (filter == WORLD_OPENSSH)
        test(code, &n, SYS_madvise, ERROR(EINVAL));
    for (unsigned i = 0; r->allowed[i] >= 0; i++)
        test(code, &n, r->allowed[i], SECCOMP_RET_ALLOW);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, r->other);
    struct sock_fprog program = {(unsigned short)n, code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static char path[] = "/tmp/bulkhead-root-XXXXXX";
static int former_root;

bool world_empty_root(int *log)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    if (mkdtemp(path) == NULL || chdir(path) != 0)
        return false;
    if (log != NULL) {
        strcpy(name.sun_path, "dev/log");
        *log = socket(AF_UNIX, SOCK_DGRAM, 0);
        if (mkdir("dev", 0700) != 0 || *log < 0 || bind(*log, (struct sockaddr *)&name, sizeof name) != 0)
            return false;
    }
    former_root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    return former_root >= 0 && chroot(path) == 0 && chdir("/") == 0;
}

void world_remove_root(void)
{
    unlink("/dev/log");
    rmdir("/dev");
    unlinkat(former_root, path + 1, AT_REMOVEDIR);
}
