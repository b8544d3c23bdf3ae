/* See support.h. */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void collect(pid_t pid, int fd, unit_child_t *out)
{
    out->length = 0;
    for (;;) {
        char spill[512];
        size_t room = sizeof out->err - 1 - out->length;
        ssize_t n = read(fd, room > 0 ? out->err + out->length : spill, room > 0 ? room : sizeof spill);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        if (room > 0)
            out->length += (size_t)n;
    }
    out->err[out->length] = '\0';
    close(fd);
    while (waitpid(pid, &out->status, 0) < 0 && errno == EINTR)
        ;
}

void unit_fork(unit_body_t *body, void *arg, unit_child_t *out)
{
    int ends[2];
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    fflush(NULL);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        prctl(PR_SET_DUMPABLE, 0); /* no core files from deaths that are meant */
        dup2(ends[1], 2);
        close(ends[0]);
        close(ends[1]);
        body(arg);
        _exit(0);
    }
    close(ends[1]);
    collect(pid, ends[0], out);
}

void unit_exec(const char *mode, const char *const *env, unit_child_t *out)
{
    int ends[2];
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    fflush(NULL);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        dup2(ends[1], 2);
        for (; env != NULL && *env != NULL; env++)
            putenv((char *)(uintptr_t)*env);
        execl("/proc/self/exe", "unit", mode, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    collect(pid, ends[0], out);
}

size_t unit_lines(const char *text, const char *prefix)
{
    size_t n = 0;
    while (*text != '\0') {
        n += strncmp(text, prefix, strlen(prefix)) == 0;
        const char *end = strchr(text, '\n');
        if (end == NULL)
            break;
        text = end + 1;
    }
    return n;
}

void unit_assert_violation(unit_body_t *body, void *arg, const char *id)
{
    static unit_child_t child;
    unit_fork(body, arg, &child);
    char prefix[128];
    snprintf(prefix, sizeof prefix, "bulkhead: ERROR: %s: ", id);
    ck_assert_msg(WIFSIGNALED(child.status) && WTERMSIG(child.status) == SIGABRT,
                  "expected SIGABRT with %s, got status %#x and '%s'", id, (unsigned)child.status, child.err);
    ck_assert_msg(strncmp(child.err, prefix, strlen(prefix)) == 0 && unit_lines(child.err, prefix) == 1 &&
                      unit_lines(child.err, "bulkhead:   ") + 1 == unit_lines(child.err, "") &&
                      child.err[child.length - 1] == '\n',
                  "expected one report '%s...', got '%s'", prefix, child.err);
}

void unit_assert_quiet(unit_body_t *body, void *arg)
{
    static unit_child_t child;
    unit_fork(body, arg, &child);
    ck_assert_msg(WIFEXITED(child.status) && WEXITSTATUS(child.status) == 0 && child.length == 0,
                  "expected a quiet end, got status %#x and '%s'", (unsigned)child.status, child.err);
}

void *unit_thread(void *(*body)(void *), void *arg)
{
    pthread_t thread;
    void *result = NULL;
    ck_assert_int_eq(pthread_create(&thread, NULL, body, arg), 0);
    ck_assert_int_eq(pthread_join(thread, &result), 0);
    return result;
}

/* The kernel copies the signal set in before it looks at the (impossible)
 * command: EFAULT or EINVAL, and nothing is changed. */
bool unit_readable(uintptr_t addr)
{
    long r = syscall(SYS_rt_sigprocmask, ~0, addr & ~(uintptr_t)7, NULL, 8);
    ck_assert(r == -1 && (errno == EFAULT || errno == EINVAL));
    return errno == EINVAL;
}

size_t unit_mappings(uintptr_t from, size_t size)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    ck_assert_ptr_nonnull(maps);
    size_t n = 0;
    char line[512];
    while (fgets(line, sizeof line, maps) != NULL) {
        unsigned long start = 0, end = 0;
        if (sscanf(line, "%lx-%lx", &start, &end) == 2 && start < from + size && end > from)
            n++;
    }
    fclose(maps);
    return n;
}

uint64_t unit_random(uint64_t *state)
{
    uint64_t x = (*state += 0x9e3779b97f4a7c15u);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

uint32_t unit_below(uint64_t *state, uint32_t bound)
{
    return (uint32_t)(unit_random(state) % bound);
}

uint64_t unit_seed(const char *test)
{
    const char *given = getenv("BULKHEAD_TEST_SEED");
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t seed = given != NULL ? strtoull(given, NULL, 0) : (uint64_t)now.tv_nsec * 2654435761u;
    printf("%s: BULKHEAD_TEST_SEED=%llu\n", test, (unsigned long long)seed);
    fflush(stdout);
    return seed;
}

bool unit_is_hardened(void)
{
    const char *profile = getenv("BULKHEAD_PROFILE");
    return profile != NULL && (strcmp(profile, "hardened") == 0 || strcmp(profile, "debug") == 0);
}

int unit_main(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
