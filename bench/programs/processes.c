/* What processes cost. Prints the nanoseconds of each of N tries, one a line:
 *
 *   processes start LIBRARY|- N   starts a process with the library preloaded that
 *                                 allocates one block, to its end; the starting
 *                                 process has no library, so its size does not show
 *   processes fork N              with 10,000 live blocks, forks a child that frees
 *                                 one of them, allocates one and ends, to its end */
#include <spawn.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common.h"

extern char **environ;

enum { LIVE = 10000, MIN_SIZE = 16, MAX_SIZE = 1024 };

static unsigned long long now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (unsigned long long)t.tv_sec * 1000000000 + (unsigned long long)t.tv_nsec;
}

static void wait_for(pid_t child, unsigned long long began)
{
    int status;
    bench_check(waitpid(child, &status, 0) == child, "waitpid");
    unsigned long long took = now_ns() - began;
    bench_check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child failed");
    printf("%llu\n", took);
}

static void time_starts(const char *self, const char *library, unsigned long n)
{
    char *const arguments[] = {"processes", "one", NULL};
    if (strcmp(library, "-") != 0)
        bench_check(setenv("LD_PRELOAD", library, 1) == 0, "setenv");
    for (; n > 0; n--) {
        pid_t child;
        unsigned long long began = now_ns();
        bench_check(posix_spawn(&child, self, NULL, NULL, arguments, environ) == 0, "posix_spawn");
        wait_for(child, began);
    }
}

static void time_forks(unsigned long n)
{
    static unsigned char *blocks[LIVE];
    struct bench_rng rng = bench_rng_for(0);
    for (unsigned i = 0; i < LIVE; i++)
        blocks[i] = bench_block(bench_between(&rng, MIN_SIZE, MAX_SIZE), (unsigned char)i);
    for (; n > 0; n--) {
        unsigned long long began = now_ns();
        pid_t child = fork();
        bench_check(child >= 0, "fork");
        if (child == 0) {
            unsigned place = (unsigned)n % LIVE;
            bench_free(blocks[place], (unsigned char)place);
            blocks[place] = bench_block(MAX_SIZE, (unsigned char)place);
            _exit(0);
        }
        wait_for(child, began);
    }
    for (unsigned i = 0; i < LIVE; i++)
        bench_free(blocks[i], (unsigned char)i);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "one") == 0) {
        bench_free(bench_block(MAX_SIZE, 1), 1);
        return 0;
    }
    if (argc == 4 && strcmp(argv[1], "start") == 0) {
        time_starts(argv[0], argv[2], strtoul(argv[3], NULL, 10));
        return 0;
    }
    if (argc == 3 && strcmp(argv[1], "fork") == 0) {
        time_forks(strtoul(argv[2], NULL, 10));
        return 0;
    }
    fprintf(stderr, "usage: processes start LIBRARY|- N | fork N\n");
    return 2;
}
