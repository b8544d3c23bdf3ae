/* exit0_rss PROGRAM: peak resident memory of PROGRAM (one that does `return 0`)
 * with the preloaded allocator, less the same with the system's.
 *
 * The peak is read when the process is about to end, from the stop that ptrace
 * offers there: getrusage would count the image that the child had before exec.
 */
#include "support.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#define RUNS 11
#define BOUND MIB

static size_t peak_of(char *program, bool preload)
{
    pid_t pid = fork();
    if (pid < 0)
        limits_broken("fork: errno %d", errno);
    if (pid == 0) {
        char *argv[] = {program, NULL};
        if (!preload)
            unsetenv("LD_PRELOAD");
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
            _exit(LIMITS_SKIP);
        raise(SIGSTOP);
        execv(program, argv);
        _exit(127);
    }
    int status;
    size_t peak = 0;
    if (waitpid(pid, &status, 0) != pid)
        limits_broken("waitpid: errno %d", errno);
    if (WIFEXITED(status) && WEXITSTATUS(status) == LIMITS_SKIP)
        limits_skip("ptrace is not permitted here");
    ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)(PTRACE_O_TRACEEXIT | PTRACE_O_TRACEEXEC));
    while (WIFSTOPPED(status)) {
        if (status >> 8 == (SIGTRAP | PTRACE_EVENT_EXIT << 8))
            peak = limits_status(pid, "VmHWM");
        ptrace(PTRACE_CONT, pid, NULL, NULL);
        if (waitpid(pid, &status, 0) != pid)
            limits_broken("waitpid: errno %d", errno);
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || peak == 0)
        limits_broken("%s ended with status %#x", program, (unsigned)status);
    return peak;
}

static int by_size(const void *a, const void *b)
{
    size_t x = *(const size_t *)a;
    size_t y = *(const size_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    size_t with[RUNS];
    size_t without[RUNS];
    limits_begin();
    if (argc != 2)
        limits_broken("usage: exit0_rss PROGRAM");
    for (int i = 0; i < RUNS; i++) {
        with[i] = peak_of(argv[1], true);
        without[i] = peak_of(argv[1], false);
    }
    qsort(with, RUNS, sizeof *with, by_size);
    qsort(without, RUNS, sizeof *without, by_size);
    size_t a = with[RUNS / 2];
    size_t b = without[RUNS / 2];
    limits_result(a < b + BOUND,
                  "exit0-rss: %ld KiB more than the system allocator: %zu and %zu KiB "
                  "(bound < %zu KiB)",
                  ((long)a - (long)b) / (long)KIB, a / KIB, b / KIB, BOUND / KIB);
    return limits_end();
}
