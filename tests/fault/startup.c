/* Faults during start-up. The plan must stand before the first allocation, and
 * that comes from a constructor: it is made in .preinit_array, from the
 * arguments, in a program that is run anew for each case. */
#include "bulkhead.h"
#include "cases.h"
#include "workload.h"

#include <elf.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define LEAK_LAST "4294967294" /* the last call of the plan of startup_leak */
#define NOT_REACHED 42 /* exit status: start-up makes no such call */

/* fault child KINDS FIRST LAST ERRNO [no-random]; all numbers decimal */
static void before_start_up(int argc, char **argv, char **env)
{
    if (argc < 6 || strcmp(argv[1], "child") != 0)
        return;
    if (argc > 6) {
        while (*env != NULL)
            env++;
        for (Elf64_auxv_t *a = (Elf64_auxv_t *)(env + 1); a->a_type != AT_NULL; a++) {
            if (a->a_type == AT_RANDOM)
                a->a_type = AT_IGNORE;
        }
    }
    inject_plan_t plan = {(uint32_t)strtoul(argv[2], NULL, 10), (uint32_t)strtoul(argv[3], NULL, 10),
                          (uint32_t)strtoul(argv[4], NULL, 10), 1, 0, atoi(argv[5])};
    inject_start(&plan);
}
__attribute__((section(".preinit_array"), used)) static void (*const first_pointer)(int, char **, char **) = before_start_up;

static int leak_child(void);

int startup_child(int argc, char **argv)
{
    (void)argc;
    if (inject_failed() == 0)
        return NOT_REACHED;
    if (strcmp(argv[4], LEAK_LAST) == 0)
        return leak_child();
    if (strcmp(argv[4], "4294967295") != 0) /* one call: the rest works */
        inject_stop();
    workload_run(true);
    inject_stop();
    workload_recovered();
    return 0;
}

static pid_t start(uint32_t kinds, uint32_t first, uint32_t last, int error, bool no_random, int *fd)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return -1;
    pid_t pid = fork();
    if (pid == 0) {
        char text[4][16];
        snprintf(text[0], 16, "%u", kinds);
        snprintf(text[1], 16, "%u", first);
        snprintf(text[2], 16, "%u", last);
        snprintf(text[3], 16, "%d", error);
        alarm(60);
        dup2(ends[1], 2);
        execl("/proc/self/exe", "fault", "child", text[0], text[1], text[2], text[3], no_random ? "no-random" : (char *)NULL,
              (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    *fd = ends[0];
    return pid;
}

/* Runs k = 1.. until start-up makes no more such calls. */
static unsigned each(uint32_t kinds, bool for_good, int error, const char *what)
{
    unsigned bad = 0;
    for (uint32_t k = 1; k < 1000; k++) {
        char text[128];
        snprintf(text, sizeof text, "startup %s, call %u%s, %s", what, k, for_good ? " and all after it" : "", strerror(error));
        int fd, status;
        pid_t pid = start(kinds, k, for_good ? UINT32_MAX : k, error, false, &fd);
        bool good = cases_judge(pid, fd, text, &status);
        if (good && WEXITSTATUS(status) == NOT_REACHED)
            return bad;
        if (!good || WEXITSTATUS(status) != 0) {
            bad++;
            if (good)
                printf("FAIL %s: status %#x\n", text, (unsigned)status);
        }
    }
    return bad + 1;
}

unsigned startup_cases(void)
{
    unsigned bad = 0;
    for (unsigned kind = 0; kind < BHI_OS_CALLS; kind++) {
        bad += each(INJECT(kind), false, ENOMEM, inject_kind_names[kind]); /* ends the search for an address */
        bad += each(INJECT(kind), false, EPERM, inject_kind_names[kind]);
        bad += each(INJECT(kind), true, kind % 2 != 0 ? EPERM : EINVAL, inject_kind_names[kind]);
    }
    bad += each(INJECT_ALL, false, EAGAIN, "any");
    bad += each(INJECT_ALL, true, EPERM, "any");
    return bad;
}

/* ------------------------------------------------------- start-up that fails */

static size_t address_space(void)
{
    FILE *f = fopen("/proc/self/statm", "re");
    unsigned long pages = 0;
    if (f == NULL || fscanf(f, "%lu", &pages) != 1)
        pages = 0;
    if (f != NULL)
        fclose(f);
    return pages * 4096;
}

/* A start-up that fails is tried again with every allocation: what it had
 * reserved must not stay behind each time. */
static int leak_child(void)
{
    for (int i = 0; i < 3; i++) {
        if (bh_malloc(10) != NULL)
            return 2;
    }
    size_t before = address_space();
    for (int i = 0; i < 40; i++) {
        if (bh_malloc(10) != NULL)
            return 2;
    }
    size_t grown = address_space() - before;
    if (grown > (size_t)1 << 30)
        fprintf(stderr, "40 failed start-ups keep %zu GiB of address space", grown >> 30);
    inject_stop();
    workload_recovered();
    return 0;
}

unsigned startup_leak(void)
{
    unsigned bad = 0;
    for (uint32_t k = 1; k <= 3; k++) {
        int fd, status;
        char text[64];
        snprintf(text, sizeof text, "startup-leak, mprotect from call %u on", k);
        pid_t pid = start(INJECT(BHI_OS_MPROTECT), k, UINT32_MAX - 1, ENOMEM, false, &fd);
        bad += !cases_judge(pid, fd, text, &status) || status != 0;
    }
    return bad;
}

unsigned startup_no_entropy(void)
{
    uint32_t sources = INJECT(BHI_OS_GETRANDOM) | INJECT(BHI_OS_OPEN) | INJECT(BHI_OS_READ);
    int fd, status;
    unsigned bad = 0;
    pid_t pid = start(sources, 1, UINT32_MAX, EPERM, false, &fd); /* AT_RANDOM is left */
    bad += !cases_judge(pid, fd, "no-entropy, with AT_RANDOM", &status) || status != 0;
    pid = start(INJECT(BHI_OS_GETRANDOM), 1, UINT32_MAX, EPERM, true, &fd); /* the device is left */
    bad += !cases_judge(pid, fd, "no-entropy, with the device", &status) || status != 0;
    pid = start(sources, 1, UINT32_MAX, EPERM, true, &fd);
    char text[256] = {0};
    (void)!read(fd, text, sizeof text - 1);
    close(fd);
    waitpid(pid, &status, 0);
    bool right = WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && strncmp(text, "bulkhead: ERROR: no-entropy: ", 29) == 0;
    if (!right)
        printf("FAIL no-entropy: status %#x, '%s'\n", (unsigned)status, text);
    return bad + !right;
}
