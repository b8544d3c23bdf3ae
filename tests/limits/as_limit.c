/* Limited address space (ulimit -v): four threads allocate until nothing is
 * left, which is NULL and ENOMEM each time, free all, and do it again.
 *
 * What is obtainable is compared with what the limit leaves to the same program
 * on the system allocator, so a reservation made at start-up counts against the
 * allocator and not against the limit.
 */
#include "support.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define THREADS 4
#define STACK (256 * KIB)

/* Of what the limit leaves, in percent: the first time and after a full free. */
#define OBTAINABLE_PERCENT 50
#define AGAIN_PERCENT 50

/* Below this limit it is enough to start and run. */
#define SHARE_LIMIT (256 * MIB)
#define RUN_BYTES (4 * MIB)

/* Blocks are chained through their own first bytes: no table is needed. */
struct link {
    struct link *next;
    size_t size;
};

static pthread_barrier_t barrier;
static atomic_size_t obtained[2];
static atomic_uint wrong_errno;
static atomic_uint lost_contents;

/* Allocates until there is nothing left, the largest blocks first. */
static struct link *exhaust(unsigned round)
{
    static const size_t sizes[] = {8 * MIB, MIB, 128 * KIB, 16 * KIB, KIB, 64};
    struct link *all = NULL;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (;;) {
            errno = 0;
            struct link *l = malloc(sizes[s]);
            if (l == NULL)
                break;
            l->next = all;
            l->size = sizes[s];
            all = l;
            atomic_fetch_add(&obtained[round], sizes[s]);
        }
    if (errno != ENOMEM)
        atomic_fetch_add(&wrong_errno, 1);
    /* With nothing left, a realloc that fails keeps its block. */
    if (all != NULL) {
        struct link copy = *all;
        errno = 0;
        void *moved = realloc(all, GIB * 4);
        if (moved != NULL || errno != ENOMEM)
            atomic_fetch_add(&wrong_errno, 1);
        else if (memcmp(&copy, all, sizeof copy) != 0)
            atomic_fetch_add(&lost_contents, 1);
    }
    return all;
}

static void *worker(void *arg)
{
    for (unsigned round = 0; round < 2; round++) {
        pthread_barrier_wait(&barrier);
        struct link *all = exhaust(round);
        pthread_barrier_wait(&barrier);
        while (all != NULL) {
            struct link *next = all->next;
            free(all);
            all = next;
        }
    }
    return arg;
}

static void *small_work(void *arg)
{
    for (int i = 0; i < 1000; i++)
        free(malloc((size_t)i * 10));
    return arg;
}

static int start_thread(pthread_t *thread, void *(*body)(void *))
{
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK);
    int rc = pthread_create(thread, &attr, body, NULL);
    pthread_attr_destroy(&attr);
    return rc;
}

/* The limited process; prints the two sums. */
static int work(void)
{
    pthread_t threads[THREADS];
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (int i = 0; i < THREADS; i++)
        if (start_thread(&threads[i], worker) != 0)
            limits_broken("no thread");
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    /* The process goes on, with threads that are born after the drought. */
    if (start_thread(&threads[0], small_work) != 0)
        limits_broken("no thread after all was freed");
    pthread_join(threads[0], NULL);
    if (wrong_errno != 0 || lost_contents != 0)
        limits_broken("%u failures without ENOMEM, %u blocks lost by a failed realloc", wrong_errno,
                      lost_contents);
    printf("%zu %zu\n", atomic_load(&obtained[0]), atomic_load(&obtained[1]));
    return 0;
}

struct limited {
    const char *mode;
    size_t limit;
};

static void exec_limited(void *arg)
{
    const struct limited *l = arg;
    const struct rlimit limit = {l->limit, l->limit};
    char mode[16];
    snprintf(mode, sizeof mode, "%s", l->mode);
    char *argv[] = {(char *)(uintptr_t)limits_self(), mode, NULL};
    if (strcmp(mode, "--size") == 0) {
        unsetenv("LD_PRELOAD");
        setenv("LIMITS_ANY_ALLOCATOR", "1", 1);
    }
    if (setrlimit(RLIMIT_AS, &limit) != 0)
        _exit(126);
    execv(argv[0], argv);
    _exit(127);
}

static void try_limit(size_t limit)
{
    struct limits_child child;
    limits_fork(&child, 120, exec_limited, &(struct limited){"--size", limit});
    size_t base = strtoull(child.output, NULL, 10);
    if (child.status != 0 || base == 0)
        limits_broken("under %zu MiB without preload: status %#x: %s", limit / MIB,
                      (unsigned)child.status, child.output);
    size_t left = limit - base - THREADS * STACK;

    limits_fork(&child, 300, exec_limited, &(struct limited){"--work", limit});
    size_t first = 0;
    size_t again = 0;
    if (child.status != 0 || sscanf(child.output, "%zu %zu", &first, &again) != 2) {
        limits_result(false, "as-limit: %zu MiB: status %#x (bound 0): %s", limit / MIB,
                      (unsigned)child.status, child.output);
        return;
    }
    size_t bound = limit >= SHARE_LIMIT ? left / 100 * OBTAINABLE_PERCENT : RUN_BYTES;
    limits_result(first >= bound && again >= first / 100 * AGAIN_PERCENT,
                  "as-limit: %zu MiB: %zu of %zu MiB obtained by %d threads, then %zu MiB "
                  "(bound >= %zu MiB, then %d %% of the first)",
                  limit / MIB, first / MIB, left / MIB, THREADS, again / MIB, bound / MIB,
                  AGAIN_PERCENT);
}

int main(int argc, char **argv)
{
    limits_begin();
    if (argc == 2 && strcmp(argv[1], "--size") == 0) {
        printf("%zu\n", limits_status(0, "VmSize"));
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "--work") == 0)
        return work();
    try_limit(64 * MIB);
    try_limit(256 * MIB);
    try_limit(512 * MIB);
    try_limit(GIB);
    return limits_end();
}
