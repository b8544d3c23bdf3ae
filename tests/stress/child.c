/* Fork in a threaded process, and what the child checks.
 *
 * The forking thread holds every lock of the store, so the records that the
 * child finds are whole and their blocks quiet; other threads may be anywhere
 * in the allocator with blocks in their hands, which the child never looks at.
 */
#include "worker.h"

#include "oracle.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Time for a child to check and free everything, many times what it needs. */
#define CHILD_SECONDS 120
#define CHILD_SECONDS_PLANTED 4
#define CHILD_BLOCKS 4000

static pthread_mutex_t fork_lock = PTHREAD_MUTEX_INITIALIZER;

static struct worker *child_worker;

static void child_use(const struct block *b)
{
    ops_free(child_worker, b);
}

/* Blocks of all threads are freed here, those in the middle of a bulk of new
 * ones, so that freed memory is used again while older blocks live. */
static _Noreturn void child_main(struct worker *w)
{
    static struct block fresh[CHILD_BLOCKS];
    store_unlock_all();
    alarm(sut_plant == PLANT_NONE ? CHILD_SECONDS : CHILD_SECONDS_PLANTED);
    sut_enter_child();
    child_worker = w;
    size_t count = 0;
    for (; count < CHILD_BLOCKS / 2; count++)
        if (!ops_alloc(w, NULL, rng_below(&w->rng, 2000), &fresh[count]))
            break;
    store_drain(child_use);
    for (; count < CHILD_BLOCKS; count++)
        if (!ops_alloc(w, NULL, ops_random_size(&w->rng) % MIB, &fresh[count]))
            break;
    while (count > 0)
        ops_free(w, &fresh[--count]);
    bh_collect(true);
    /* What the callback left meanwhile. */
    store_drain(child_use);
    _exit(0);
}

static void child_wait(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            finding("fork-child", "waitpid: %s", strerror(errno));
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
        finding("fork-child", "the child hangs");
    if (WIFSIGNALED(status))
        finding("fork-child", "the child ended with signal %d", WTERMSIG(status));
    if (WEXITSTATUS(status) != 0)
        finding("fork-child", "the child ended with status %d", WEXITSTATUS(status));
}

void child_fork(struct worker *w)
{
    if (pthread_mutex_trylock(&fork_lock) != 0)
        return;
    store_lock_all();
    pid_t pid = fork();
    if (pid == 0)
        child_main(w);
    store_unlock_all();
    if (pid < 0) {
        if (errno != EAGAIN && errno != ENOMEM)
            finding("fork-child", "fork: %s", strerror(errno));
    } else {
        w->stats[STAT_FORK]++;
        child_wait(pid);
    }
    pthread_mutex_unlock(&fork_lock);
}
