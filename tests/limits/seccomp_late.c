/* A sandbox that arrives after start-up: one kind of system call after another
 * is refused. Guards, purges and new memory may be refused; an allocation then
 * still succeeds or is NULL with ENOMEM, and nothing ends the process. */
#include "support.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ROUNDS 40000
#define HELD 2000
#define CANNOT 99

struct sandbox {
    const char *name;
    int error;
    int calls[4]; /* refused; 0 ends the list */
    /* Memory that is open already must do: no allocation may fail. */
    bool must_succeed;
};

static const struct sandbox sandboxes[] = {
    {"madvise refused with EPERM", EPERM, {SYS_madvise}, true},
    {"madvise refused with EINVAL", EINVAL, {SYS_madvise}, true},
    {"madvise answers ENOSYS", ENOSYS, {SYS_madvise, SYS_getrandom}, true},
    {"mprotect refused", EPERM, {SYS_mprotect}, false},
    {"madvise and mprotect refused", EPERM, {SYS_madvise, SYS_mprotect}, false},
    {"mmap refused", ENOMEM, {SYS_mmap}, true},
    {"munmap and mremap refused", EPERM, {SYS_munmap, SYS_mremap}, true},
    {"all memory calls refused", EPERM, {SYS_madvise, SYS_mprotect, SYS_mmap, SYS_munmap}, false},
};

static bool refuse(const struct sandbox *s)
{
    struct sock_filter code[16];
    unsigned short n = 0;
    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                             (uint32_t)offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < 4 && s->calls[i] != 0; i++) {
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)s->calls[i], 0, 1);
        code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K,
                                                 SECCOMP_RET_ERRNO | (uint32_t)s->error);
    }
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {.len = n, .filter = code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static size_t random_size(uint64_t *seed)
{
    uint64_t dice = limits_random(seed) % 1000;
    if (dice < 900)
        return limits_random(seed) % 2000;
    return limits_random(seed) % (dice < 995 ? 40 * KIB : 3 * MIB);
}

static void body(void *arg)
{
    static unsigned char *held[HELD];
    static size_t sizes[HELD];
    const struct sandbox *s = arg;
    uint64_t seed = 1;
    size_t failed = 0;
    /* Live memory from before the sandbox. */
    for (size_t i = 0; i < HELD; i += 2)
        held[i] = calloc(1, sizes[i] = random_size(&seed));
    if (!refuse(s))
        _exit(CANNOT);
    for (size_t round = 0; round < ROUNDS; round++) {
        size_t i = limits_random(&seed) % HELD;
        if (held[i] != NULL && sizes[i] > 0 && (held[i][0] != held[i][sizes[i] - 1]))
            _exit(11);
        free(held[i]);
        sizes[i] = random_size(&seed);
        errno = 0;
        held[i] = calloc(1, sizes[i]);
        if (held[i] == NULL) {
            failed++;
            if (errno != ENOMEM)
                _exit(12);
            continue;
        }
        /* Zero also where memory could not be given back. */
        for (size_t b = 0; b < sizes[i]; b++)
            if (held[i][b] != 0)
                _exit(13);
        memset(held[i], (int)(round % 255) + 1, sizes[i]);
    }
    for (size_t i = 0; i < HELD; i++)
        free(held[i]);
    malloc_trim(0);
    char text[64];
    int n = snprintf(text, sizeof text, "%zu\n", failed);
    if (write(STDOUT_FILENO, text, (size_t)n) < 0)
        _exit(14);
    _exit(0);
}

int main(void)
{
    limits_begin();
    for (size_t i = 0; i < sizeof sandboxes / sizeof *sandboxes; i++) {
        struct sandbox s = sandboxes[i];
        struct limits_child child;
        limits_fork(&child, 60, body, &s);
        if (child.status >> 8 == CANNOT)
            limits_skip("seccomp filters are not permitted here");
        size_t failed = strtoull(child.output, NULL, 10);
        limits_result(child.status == 0 && (failed == 0 || !s.must_succeed),
                      "seccomp-late: %s: status %#x, %zu of %d allocations failed (bound 0, %s)",
                      s.name, (unsigned)child.status, failed, ROUNDS, s.must_succeed ? "0" : "any");
        if (child.status != 0)
            printf("  output: %s\n", child.output);
    }
    return limits_end();
}
