/* Runs a program and tells its wall time, processor time and peak resident memory:
 *
 *     measure FD LIBRARY|- PROGRAM [ARG]...
 *
 * writes "WALL PROCESSOR KIB" to the descriptor FD, which PROGRAM does not get, and
 * ends as PROGRAM did (128 + n after signal n). LIBRARY is preloaded into PROGRAM
 * and what it starts, not into this.
 *
 * A program of its own because the kernel counts the memory of the process that
 * calls exec as a part of the peak of the program that is run: a child of Python
 * never seems to need less memory than Python. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double seconds(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static _Noreturn void run(char **arguments)
{
    execvp(arguments[0], arguments);
    fprintf(stderr, "measure: cannot run %s\n", arguments[0]);
    _exit(127);
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: measure FD LIBRARY|- PROGRAM [ARG]...\n");
        return 2;
    }
    int report = atoi(argv[1]);
    if (fcntl(report, F_SETFD, FD_CLOEXEC) != 0) {
        fprintf(stderr, "measure: bad descriptor %s\n", argv[1]);
        return 2;
    }
    if (strcmp(argv[2], "-") != 0)
        setenv("LD_PRELOAD", argv[2], 1);
    /* A request to stop is for the program; this one lives to report. */
    signal(SIGINT, SIG_IGN);
    double began = now();
    pid_t child = fork();
    if (child < 0) {
        perror("measure: fork");
        return 2;
    }
    if (child == 0) {
        signal(SIGINT, SIG_DFL);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        run(argv + 3);
    }
    struct rusage usage;
    int status;
    if (wait4(child, &status, 0, &usage) != child) {
        perror("measure: wait4");
        return 2;
    }
    double wall = now() - began;
    dprintf(report, "%.6f %.6f %ld\n", wall, seconds(usage.ru_utime) + seconds(usage.ru_stime), usage.ru_maxrss);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
