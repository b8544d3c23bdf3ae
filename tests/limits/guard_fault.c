/* A write that runs away from a block, upwards or downwards, faults within the
 * span of one page; from a large block at the next OS page.
 *
 * Each probe is a forked child that writes one byte of every OS page on the way
 * until SIGSEGV; its handler reports the address. */
#include "support.h"

#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Blocks of a class that are tried, so that not all are the first of a page. */
#define POSITIONS 3

static size_t span_of(size_t size)
{
    if (size <= 8 * KIB)
        return 64 * KIB;
    return size <= 32 * KIB ? 256 * KIB : 512 * KIB;
}

static int report_fd;

static void on_fault(int signal_number, siginfo_t *info, void *context)
{
    (void)signal_number;
    (void)context;
    uintptr_t address = (uintptr_t)info->si_addr;
    if (write(report_fd, &address, sizeof address) != sizeof address)
        _exit(3);
    _exit(0);
}

/* Address of the fault, 0 if the writes went `reach` bytes and beyond. */
static uintptr_t probe(char *p, size_t usable, bool upwards, size_t reach)
{
    int fd[2];
    if (pipe(fd) != 0)
        limits_broken("pipe");
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0)
        limits_broken("fork");
    if (pid == 0) {
        size_t page = limits_os_page();
        struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
        report_fd = fd[1];
        sigaction(SIGSEGV, &action, NULL);
        sigaction(SIGBUS, &action, NULL);
        alarm(20);
        /* The byte next to the block, then one in each OS page further on. */
        uintptr_t at = upwards ? (uintptr_t)p + usable : (uintptr_t)p - 1;
        for (size_t gone = 0; gone <= reach + page; gone += page) {
            *(volatile char *)at = 1;
            at = upwards ? (at & ~(page - 1)) + page : (at & ~(page - 1)) - 1;
        }
        _exit(0);
    }
    uintptr_t address = 0;
    close(fd[1]);
    if (read(fd[0], &address, sizeof address) < 0)
        limits_broken("read");
    close(fd[0]);
    int status;
    waitpid(pid, &status, 0);
    if (status != 0)
        limits_broken("probe of %zu bytes: status %#x", usable, (unsigned)status);
    return address;
}

struct worst {
    size_t above;
    size_t below;
    size_t late;
};

static void try_block(char *p, size_t size, struct worst *worst)
{
    size_t page = limits_os_page();
    size_t usable = malloc_usable_size(p);
    bool large = size > LIMITS_CLASS_MAX;
    /* Above a large block the rest of its last OS page is all there may be,
     * below it nothing at all. */
    size_t up = large ? (size_t)(-((uintptr_t)p + usable) & (page - 1)) : span_of(size) - usable;
    size_t down = large ? 0 : span_of(size) - usable;
    for (int upwards = 0; upwards < 2; upwards++) {
        size_t allowed = upwards != 0 ? up : down;
        uintptr_t fault = probe(p, usable, upwards != 0, span_of(size) + 64 * KIB);
        size_t distance = fault == 0 ? SIZE_MAX
                          : upwards != 0 ? fault - ((uintptr_t)p + usable)
                                         : (uintptr_t)p - 1 - fault;
        size_t *figure = upwards != 0 ? &worst->above : &worst->below;
        if (distance > *figure)
            *figure = distance;
        if (distance > allowed && worst->late++ < 10)
            printf("  %zu bytes at %p, %s: fault after %zd bytes, allowed %zu\n", size, (void *)p,
                   upwards != 0 ? "upwards" : "downwards", (ssize_t)distance, allowed);
    }
}

static void report(const char *name, size_t blocks, const struct worst *w)
{
    limits_result(w->late == 0,
                  "%s: %zu of %zu writes beyond %zu blocks went too far; furthest %zd KiB above, "
                  "%zd KiB below (bound 0)",
                  name, w->late, 2 * blocks, blocks,
                  w->above == SIZE_MAX ? (ssize_t)-1 : (ssize_t)(w->above / KIB),
                  w->below == SIZE_MAX ? (ssize_t)-1 : (ssize_t)(w->below / KIB));
}

int main(void)
{
    static size_t classes[LIMITS_CLASSES_MAX];
    static const size_t large[] = {128 * KIB + 1, 200 * KIB, MIB, MIB + 1, 4 * MIB, 5 * MIB, 64 * MIB};
    limits_begin();
    size_t count = limits_classes(classes);
    struct worst worst = {0};
    size_t blocks = 0;
    for (size_t c = 0; c < count; c++)
        for (int i = 0; i < POSITIONS; i++) {
            /* Kept: the next block of the class is another one. */
            char *p = malloc(classes[c]);
            if (p == NULL)
                limits_broken("no memory");
            try_block(p, classes[c], &worst);
            blocks++;
        }
    report("guard-fault", blocks, &worst);

    worst = (struct worst){0};
    blocks = 0;
    for (size_t c = 0; c < sizeof large / sizeof *large; c++)
        for (int i = 0; i < POSITIONS; i++) {
            char *p = malloc(large[c]);
            if (p == NULL)
                limits_broken("no memory");
            try_block(p, large[c], &worst);
            /* A span that is used again has its guards again. */
            free(p);
            p = malloc(large[c] - (size_t)i * limits_os_page());
            try_block(p, large[c] - (size_t)i * limits_os_page(), &worst);
            blocks += 2;
        }
    report("guard-fault-large", blocks, &worst);
    return limits_end();
}
