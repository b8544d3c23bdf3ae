/* A real sandbox: a BPF filter that answers madvise (and, late, mprotect and
 * mmap) with an errno, before the first allocation or after start-up. */
#include "bulkhead.h"
#include "support.h"
#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#else
#define ARCH AUDIT_ARCH_AARCH64
#endif

#define CALLS 3

/* Refuses the first n of the calls. No library call before start-up but prctl. */
static bool sandbox(unsigned n, int error)
{
    static const unsigned nr[CALLS] = {SYS_madvise, SYS_mprotect, SYS_mmap};
    struct sock_filter code[6 + CALLS];
    unsigned at = 0;
    code[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    code[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0);
    code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (unsigned i = 0; i < n; i++)
        code[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr[i], (unsigned char)(n - i), 0);
    code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ((unsigned)error & SECCOMP_RET_DATA));
    struct sock_fprog program = {(unsigned short)at, code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* fault_seccomp early|late CALLS ERRNO */
static bool early_failed;
static void before_start_up(int argc, char **argv, char **env)
{
    (void)env;
    if (argc == 4 && strcmp(argv[1], "early") == 0)
        early_failed = !sandbox((unsigned)atoi(argv[2]), atoi(argv[3]));
}
__attribute__((section(".preinit_array"), used)) static void (*const first_pointer)(int, char **, char **) = before_start_up;

static void *blocks[4000];

/* What lived before the sandbox came can be read and freed after it. */
static int child(char **argv)
{
    unsigned calls = (unsigned)atoi(argv[2]);
    bool late = strcmp(argv[1], "late") == 0;
    if (early_failed)
        return 77;
    if (late) {
        workload_run(false);
        for (size_t i = 0; i < 4000; i++) {
            blocks[i] = bh_malloc(i * 13 + 1);
            memset(blocks[i], (int)i, i * 13 + 1);
        }
        if (!sandbox(calls, atoi(argv[3])))
            return 77;
    }
    if (calls == CALLS) { /* no threads and no fork then: libc needs these calls itself */
        for (size_t i = 0; i < 4000; i++) {
            if (!unit_is(blocks[i], i * 13 + 1, (int)i))
                return 2;
            bh_free(blocks[i]);
            blocks[i] = bh_zalloc(i * 17 + 1);
            if (blocks[i] == NULL ? errno != ENOMEM : !unit_is(blocks[i], i * 17 + 1, 0))
                return 3;
        }
        for (size_t i = 0; i < 4000; i++)
            bh_free(blocks[i]);
        bh_collect(true);
        for (int i = 0; i < 50; i++) {
            errno = 0;
            void *p = bh_malloc((size_t)30 << 20);
            if (p == NULL && errno != ENOMEM)
                return 4;
            bh_free(p);
        }
        return 0;
    }
    workload_run(false);
    for (size_t i = 0; i < 4000 && late; i++) {
        if (!unit_is(blocks[i], i * 13 + 1, (int)i))
            return 2;
        bh_free(blocks[i]);
    }
    workload_recovered();
    return 0;
}

static int run(const char *when, const char *calls, int error)
{
    char number[16];
    snprintf(number, sizeof number, "%d", error);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(60);
        execl("/proc/self/exe", "fault_seccomp", when, calls, number, (char *)NULL);
        _exit(127);
    }
    int status;
    waitpid(pid, &status, 0);
    printf("%s: %s, first %s calls refused with %s: status %#x\n", status == 0 ? "ok" : "FAIL", when, calls, strerror(error),
           (unsigned)status);
    return status;
}

int main(int argc, char **argv)
{
    if (argc == 4)
        return child(argv);
    int bad = 0;
    static const int errors[] = {EPERM, EINVAL, ENOSYS};
    for (int i = 0; i < 3; i++) {
        int status = run("early", "1", errors[i]);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
            return 77; /* no seccomp here */
        bad += status != 0;
        for (int round = 0; round < 3; round++)
            bad += run("late", "1", errors[i]) != 0;
        bad += run("late", "3", errors[i]) != 0;
    }
    return bad == 0 ? 0 : 1;
}
