/* Fork while other threads allocate and free as fast as they can. The child
 * allocates, frees, and frees what the parent's threads had allocated. */
#include "support.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 3
#define FORKS 200
#define CHILD_BLOCKS 100000
#define CHILD_SECONDS 40
#define FAULTY_SECONDS 8 /* to see that it can fail: meanwhile the threads take all processors */
#define STABLE 2000 /* blocks of each thread that outlive all forks */
#define CHURN 512

static char *stable[THREADS][STABLE];
static pthread_barrier_t ready;
static unsigned patience = CHILD_SECONDS;
static atomic_bool stop;
static uint64_t seed;

static size_t random_size(uint64_t *state)
{
    uint64_t dice = limits_random(state);
    return dice % 100 < 98 ? (dice >> 8) % 600 : (dice >> 8) % 20000;
}

static void *churn(void *arg)
{
    char **mine = arg;
    uint64_t state = (uint64_t)(uintptr_t)arg ^ seed;
    static _Thread_local char *held[CHURN];
    for (size_t i = 0; i < STABLE; i++) {
        size_t size = 1 + random_size(&state);
        mine[i] = malloc(size);
        if (mine[i] == NULL)
            limits_broken("no memory");
        memset(mine[i], 0x33, size < 8 ? size : 8);
    }
    pthread_barrier_wait(&ready);
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        size_t i = limits_random(&state) % CHURN;
        free(held[i]);
        held[i] = malloc(random_size(&state));
        /* Large blocks come and go too, with their own locks. */
        if (limits_random(&state) % 4096 == 0)
            free(malloc(300 * KIB));
    }
    for (size_t i = 0; i < CHURN; i++)
        free(held[i]);
    return NULL;
}

/* In the child; the status says what went wrong. */
static _Noreturn void child(uint64_t state, bool by_exit)
{
    static char *own[CHILD_BLOCKS];
    alarm(patience);
    for (size_t i = 0; i < CHILD_BLOCKS; i++) {
        size_t size = random_size(&state);
        own[i] = malloc(size);
        if (own[i] == NULL)
            _exit(10);
        if (size > 0)
            own[i][0] = own[i][size - 1] = 1;
        if (i % (CHILD_BLOCKS / STABLE) != 0)
            continue;
        for (size_t t = 0; t < THREADS; t++) {
            char *p = stable[t][i / (CHILD_BLOCKS / STABLE)];
            if (p[0] != 0x33)
                _exit(11);
            free(p);
        }
    }
    for (size_t i = 0; i < CHILD_BLOCKS; i++)
        free(own[(i * 7919) % CHILD_BLOCKS]);
    /* Half of the children run exit handlers and destructors. */
    if (by_exit)
        exit(0);
    _exit(0);
}

int main(void)
{
    pthread_t threads[THREADS];
    unsigned bad = 0;
    unsigned hung = 0;
    limits_begin();
    seed = limits_seed();
    if (getenv("LIMITS_ANY_ALLOCATOR") != NULL)
        patience = FAULTY_SECONDS;
    pthread_barrier_init(&ready, NULL, THREADS + 1);
    for (int t = 0; t < THREADS; t++)
        if (pthread_create(&threads[t], NULL, churn, stable[t]) != 0)
            limits_broken("no thread");
    pthread_barrier_wait(&ready);
    uint64_t start = limits_now_ns();
    for (int i = 0; i < FORKS && bad == 0; i++) {
        fflush(stdout);
        pid_t pid = fork();
        if (pid < 0)
            limits_broken("fork: errno %d", errno);
        if (pid == 0)
            child(seed + (uint64_t)i, i % 2 == 0);
        int status;
        if (waitpid(pid, &status, 0) != pid)
            limits_broken("waitpid: errno %d", errno);
        if (status != 0) {
            bad++;
            hung += WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM;
            printf("  child %d: status %#x\n", i, (unsigned)status);
        }
        /* The parent's own heap between forks. */
        for (int j = 0; j < 1000; j++)
            free(malloc(random_size(&seed)));
    }
    double seconds = (double)(limits_now_ns() - start) / 1e9;
    atomic_store(&stop, true);
    for (int t = 0; t < THREADS; t++)
        pthread_join(threads[t], NULL);
    limits_result(bad == 0, "fork-heavy: %u of %d children failed, %u of them hung, %.1f s (bound 0)",
                  bad, FORKS, hung, seconds);
    return limits_end();
}
