/* Faults after start-up; see cases.h. */
#include "cases.h"

#include "bulkhead.h"
#include "support.h"
#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

bool cases_judge(pid_t pid, int fd, const char *what, int *status)
{
    char text[1024];
    size_t have = 0;
    ssize_t n;
    while ((n = read(fd, text + have, sizeof text - 1 - have)) > 0 || (n < 0 && errno == EINTR))
        have += n > 0 ? (size_t)n : 0;
    text[have] = '\0';
    close(fd);
    int got = 0;
    waitpid(pid, &got, 0);
    if (status != NULL)
        *status = got;
    bool good = WIFEXITED(got) && (WEXITSTATUS(got) == 0 || status != NULL) && have == 0;
    if (!good)
        printf("FAIL %s: status %#x %s\n", what, (unsigned)got, text);
    fflush(stdout);
    return good;
}

/* One child under one plan. Kinds that no block needs must refuse none. */
static bool run(const inject_plan_t *plan, const char *what)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return false;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_DUMPABLE, 0);
        alarm(60);
        dup2(ends[1], 2);
        inject_start(plan);
        workload_run((plan->kinds & (INJECT(BHI_OS_MMAP) | INJECT(BHI_OS_MPROTECT))) != 0);
        inject_stop();
        workload_recovered();
        _exit(0);
    }
    close(ends[1]);
    return pid > 0 && cases_judge(pid, ends[0], what, NULL);
}

static const char *name(const char *form, const inject_plan_t *plan, const char *kind)
{
    static char text[256];
    snprintf(text, sizeof text, "%s %s: calls %u..%u, one in %u, %s, seed %llu", form, kind, plan->first, plan->last, plan->one_in,
             plan->error != 0 ? strerror(plan->error) : "any error", (unsigned long long)plan->seed);
    return text;
}

/* The first calls fail with every errno in turn, further ones with one each,
 * and from there on a sample: hundreds of calls are of the same few places.
 * BULKHEAD_TEST_FULL in the environment takes every call with every errno. */
#define EACH_ERROR 3
#define EACH_CALL 16

static uint32_t after(uint32_t k)
{
    return k < EACH_CALL || getenv("BULKHEAD_TEST_FULL") != NULL ? k + 1 : k + k / 4;
}

unsigned cases_nth(void)
{
    unsigned bad = 0;
    for (unsigned kind = 0; kind < BHI_OS_CALLS; kind++) {
        uint32_t runs = 0;
        for (uint32_t k = 1;; k = after(k)) {
            uint32_t failed = 0;
            for (unsigned e = 0; e < INJECT_ERRORS; e++) {
                if (k > EACH_ERROR && e != k % INJECT_ERRORS && getenv("BULKHEAD_TEST_FULL") == NULL)
                    continue;
                inject_plan_t plan = {INJECT(kind), k, k, 1, 0, inject_errors[e]};
                bad += !run(&plan, name("nth", &plan, inject_kind_names[kind]));
                failed += inject_failed();
                runs++;
            }
            if (failed == 0)
                break;
        }
        printf("nth %s: %u runs\n", inject_kind_names[kind], runs);
    }
    return bad;
}

unsigned cases_from(void)
{
    unsigned bad = 0;
    for (unsigned kind = 0; kind <= BHI_OS_CALLS; kind++) {
        uint32_t kinds = kind < BHI_OS_CALLS ? INJECT(kind) : INJECT_ALL;
        const char *what = kind < BHI_OS_CALLS ? inject_kind_names[kind] : "all";
        for (uint32_t k = 1;; k = k < 4 ? k + 1 : k + k / 2) {
            inject_plan_t plan = {kinds, k, UINT32_MAX, 1, 0, inject_errors[k % INJECT_ERRORS]};
            bad += !run(&plan, name("from", &plan, what));
            if (inject_failed() == 0)
                break;
        }
    }
    return bad;
}

unsigned cases_random(void)
{
    static const uint32_t sets[] = {
        INJECT_ALL,
        INJECT(BHI_OS_MMAP) | INJECT(BHI_OS_MPROTECT),
        INJECT(BHI_OS_GUARD) | INJECT(BHI_OS_PROCESS_MADVISE),
        INJECT(BHI_OS_GUARD) | INJECT(BHI_OS_MPROTECT) | INJECT(BHI_OS_MMAP),
        INJECT(BHI_OS_MADVISE) | INJECT(BHI_OS_GUARD),
        INJECT(BHI_OS_MADVISE) | INJECT(BHI_OS_MMAP) | INJECT(BHI_OS_MUNMAP),
    };
    unsigned bad = 0;
    uint64_t seed = unit_seed("fault-random");
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        for (int round = 0; round < 9; round++) {
            inject_plan_t plan = {sets[i], 1, UINT32_MAX, round % 3 == 0 ? 2 : round % 3 == 1 ? 10 : 40, unit_random(&seed), 0};
            char what[32];
            snprintf(what, sizeof what, "kinds %#x", sets[i]);
            bad += !run(&plan, name("random", &plan, what));
        }
    }
    return bad;
}

unsigned cases_locked(void)
{
    unsigned bad = 0;
    uint32_t advice = INJECT(BHI_OS_MADVISE) | INJECT(BHI_OS_GUARD) | INJECT(BHI_OS_PROCESS_MADVISE);
    for (uint32_t k = 1;; k += 1 + k / 2) {
        inject_plan_t plan = {advice, k, UINT32_MAX, 1, 0, EINVAL};
        bad += !run(&plan, name("locked", &plan, "advice"));
        if (inject_failed() == 0)
            break;
    }
    return bad;
}
