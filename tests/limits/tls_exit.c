/* Allocation and free in every place where a thread or the process is already
 * on its way out: key destructors in all rounds, thread_local destructors, exit
 * handlers, ELF destructors, and the main thread gone before the others.
 *
 * Each scenario runs in a process of its own. */
#include "support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define THREADS 2000
#define ROUNDS 4 /* of key destructors, all that glibc runs */
#define LEAK_BOUND (16 * MIB)
#define MARK 0x5C

extern int __cxa_thread_atexit_impl(void (*function)(void *), void *arg, void *dso) __attribute__((weak));
extern void *__dso_handle;

/* What is freed by code that runs later than the code that allocated it. */
static void *relay[64];
static size_t relay_next;
static atomic_uint calls;

/* Frees an older block, makes a new one and checks it. */
static void work(void)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    for (size_t size = 1; size <= 200000; size = size * 3 + 5) {
        unsigned char *p = malloc(size);
        unsigned char *q = calloc(3, size);
        if (p == NULL || q == NULL || q[0] != 0 || q[3 * size - 1] != 0)
            abort();
        memset(p, MARK, size);
        p = realloc(p, 2 * size);
        if (p == NULL || p[size - 1] != MARK)
            abort();
        free(q);
        pthread_mutex_lock(&lock);
        void *old = relay[relay_next];
        relay[relay_next] = p;
        relay_next = (relay_next + 1) % (sizeof relay / sizeof *relay);
        pthread_mutex_unlock(&lock);
        free(old);
    }
    atomic_fetch_add(&calls, 1);
}

/* ----------------------------------------------------------- thread's end */

static pthread_key_t keys[3];

struct tls_state {
    unsigned round;
    void *block;
};

/* Keeps itself alive for all rounds; frees what the round before left. */
static void key_destructor(void *arg)
{
    struct tls_state *state = arg;
    free(state->block);
    work();
    state->block = malloc(100 + state->round * 1000);
    if (++state->round < ROUNDS) {
        pthread_setspecific(keys[state->round % 3], state);
        return;
    }
    free(state->block);
    free(state);
}

static void cxx_destructor(void *arg)
{
    work();
    free(arg);
}

static void *leaving_thread(void *arg)
{
    work();
    struct tls_state *state = calloc(1, sizeof *state);
    if (state == NULL)
        abort();
    pthread_setspecific(keys[0], state);
    if (__cxa_thread_atexit_impl != NULL)
        __cxa_thread_atexit_impl(cxx_destructor, malloc(77), &__dso_handle);
    if ((uintptr_t)arg % 2 != 0)
        pthread_exit(NULL);
    return NULL;
}

static int threads_end(void)
{
    size_t warm = 0;
    atomic_store(&calls, 0); /* the constructor's */
    for (int i = 0; i < 3; i++)
        pthread_key_create(&keys[i], key_destructor);
    for (uintptr_t i = 0; i < THREADS; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, leaving_thread, (void *)i) != 0)
            limits_broken("no thread");
        pthread_join(thread, NULL);
        if (i == THREADS / 10)
            warm = limits_rss();
    }
    size_t end = limits_rss();
    unsigned expected = THREADS * (1 + ROUNDS + (__cxa_thread_atexit_impl != NULL));
    if (atomic_load(&calls) != expected)
        limits_broken("%u pieces of work instead of %u", atomic_load(&calls), expected);
    printf("%u calls, %ld KiB grown", atomic_load(&calls), ((long)end - (long)warm) / (long)KIB);
    return end <= warm + LEAK_BOUND ? 0 : 1;
}

/* ---------------------------------------------------------- process's end */

/* Told by a variable, for the destructors below run in every scenario. */
static bool exiting;

static void exit_handler(void)
{
    work();
}

static void late_registered(void)
{
    work();
    atexit(exit_handler); /* during exit */
}

__attribute__((constructor(101))) static void early(void)
{
    work();
    atexit(exit_handler); /* before main: among the last to run */
}

__attribute__((destructor(101))) static void elf_destructor(void)
{
    if (exiting) {
        work();
        if (write(STDOUT_FILENO, "destructor ", 11) < 0)
            _exit(3);
    }
}

static atomic_bool stop;

static void *busy(void *arg)
{
    while (!atomic_load_explicit(&stop, memory_order_relaxed))
        work();
    return arg;
}

/* Exit while other threads are in the middle of the allocator. */
static int process_ends(void)
{
    pthread_t thread;
    exiting = true;
    atexit(late_registered);
    pthread_key_create(&keys[0], key_destructor);
    for (int i = 0; i < 2; i++)
        if (pthread_create(&thread, NULL, busy, NULL) != 0)
            limits_broken("no thread");
    work();
    exit(0);
}

static void *last_one(void *arg)
{
    for (int i = 0; i < 300; i++) {
        work();
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
    return arg; /* the last thread to end ends the process, with exit(0) */
}

static int main_leaves(void)
{
    pthread_t thread;
    exiting = true;
    for (int i = 0; i < 3; i++)
        pthread_key_create(&keys[i], key_destructor);
    for (int i = 0; i < 2; i++)
        if (pthread_create(&thread, NULL, last_one, NULL) != 0)
            limits_broken("no thread");
    leaving_thread((void *)1);
    return 1; /* not reached: leaving_thread ended this thread */
}

static void scenario(const char *name, int repeats, const char *expected)
{
    char mode[32];
    struct limits_child child = {0};
    snprintf(mode, sizeof mode, "%s", name);
    char *argv[] = {(char *)(uintptr_t)limits_self(), mode, NULL};
    int bad = 0;
    for (int i = 0; i < repeats && bad == 0; i++) {
        limits_exec(&child, 120, true, argv);
        if (child.status != 0 || strstr(child.output, expected) == NULL)
            bad++;
    }
    limits_result(bad == 0, "tls-exit: %s: %d of %d runs failed, status %#x: %s (bound 0)", name, bad,
                  repeats, (unsigned)child.status, child.output);
}

int main(int argc, char **argv)
{
    limits_begin();
    if (argc == 2 && strcmp(argv[1], "threads") == 0)
        return threads_end();
    if (argc == 2 && strcmp(argv[1], "process") == 0)
        return process_ends();
    if (argc == 2 && strcmp(argv[1], "main-leaves") == 0)
        return main_leaves();
    scenario("threads", 1, "calls");
    scenario("process", 30, "destructor");
    scenario("main-leaves", 10, "destructor");
    return limits_end();
}
