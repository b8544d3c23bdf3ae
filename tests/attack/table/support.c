/* What an attacking process tells, and in which thread it does what. */
#include "table.h"

#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* ------------------------------------------------------------------- telling */

/* No stdio: it allocates, and the heap may be broken. */
static void tell(const char *text, size_t n)
{
    if (write(STDOUT_FILENO, text, n) != (ssize_t)n)
        _exit(END_BROKEN);
}

static size_t append_hex(char *line, size_t at, uint64_t number)
{
    line[at++] = ' ';
    line[at++] = '0';
    line[at++] = 'x';
    int shift = 60;
    while (shift > 0 && number >> shift == 0)
        shift -= 4;
    for (; shift >= 0; shift -= 4)
        line[at++] = "0123456789abcdef"[number >> shift & 15];
    return at;
}

static void tell_numbers(const char *word, uint64_t first, const uint64_t *second)
{
    char line[80];
    size_t n = strlen(word);
    memcpy(line, word, n);
    n = append_hex(line, n, first);
    if (second != NULL)
        n = append_hex(line, n, *second);
    line[n++] = '\n';
    tell(line, n);
}

void marker(void)
{
    tell("marker\n", 7);
}

void expect_fault(uintptr_t low, uintptr_t high)
{
    uint64_t end = high;
    tell_numbers("expect", low, &end);
}

void expect_no_fault(void)
{
    expect_fault(0, 0);
}

void expect_in_blocks(const scene_t *s)
{
    uintptr_t low = s->at, high = s->at;
    for (size_t i = 0; i < s->count; i++) {
        low = s->block[i] < low ? s->block[i] : low;
        high = s->block[i] > high ? s->block[i] : high;
    }
    expect_fault(low, high + s->size);
}

void tally(unsigned long hits, unsigned long trials)
{
    uint64_t second = trials;
    tell_numbers("tally", hits, &second);
}

void print_number(uint64_t number)
{
    tell_numbers("number", number, NULL);
}

_Noreturn void finish(int code, bool through_exit)
{
    if (through_exit)
        exit(code);
    _exit(code);
}

static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)context;
    tell_numbers("fault", (uintptr_t)info->si_addr, NULL);
    /* Returning repeats the access, which then ends the process. */
    signal(number, SIG_DFL);
}

void catch_faults(void)
{
    static unsigned char stack[1 << 16];
    stack_t other = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    if (sigaltstack(&other, NULL) != 0 || sigaction(SIGSEGV, &action, NULL) != 0 || sigaction(SIGBUS, &action, NULL) != 0)
        _exit(END_BROKEN);
}

/* -------------------------------------------------------------------- chance */

/* splitmix64: repeats with the seed, and needs no state that allocates. */
uint64_t draw(scene_t *s)
{
    uint64_t z = s->random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

size_t below(scene_t *s, size_t limit)
{
    return (size_t)(draw(s) % limit);
}

/* ------------------------------------------------------------------- threads */

typedef struct job {
    void (*body)(scene_t *);
    scene_t *scene;
    pthread_barrier_t *start;
} job_t;

static void *run_job(void *arg)
{
    job_t *job = arg;
    if (job->start != NULL)
        pthread_barrier_wait(job->start);
    job->body(job->scene);
    return NULL;
}

static void start(pthread_t *thread, job_t *job)
{
    if (pthread_create(thread, NULL, run_job, job) != 0)
        _exit(END_BROKEN);
}

void elsewhere(void (*body)(scene_t *), scene_t *s)
{
    pthread_t thread;
    job_t job = {body, s, NULL};
    start(&thread, &job);
    pthread_join(thread, NULL);
}

void after_first(void (*first)(scene_t *), void (*body)(scene_t *), scene_t *s, unsigned threads, bool here)
{
    pthread_t thread[2];
    pthread_barrier_t barrier;
    job_t job = {body, s, &barrier};
    pthread_barrier_init(&barrier, NULL, threads + 1);
    for (unsigned i = 0; i < threads; i++)
        start(&thread[i], &job);
    first(s);
    pthread_barrier_wait(&barrier);
    if (here)
        body(s);
    for (unsigned i = 0; i < threads; i++)
        pthread_join(thread[i], NULL);
}

/* -------------------------------------------------------------------- probes */

static size_t read_numbers(int from, uint64_t *numbers, size_t limit)
{
    static char text[1 << 17];
    size_t length = 0, count = 0;
    ssize_t n;
    while (length < sizeof text - 1 && (n = read(from, text + length, sizeof text - 1 - length)) > 0)
        length += (size_t)n;
    text[length] = '\0';
    for (char *at = text; (at = strstr(at, "number ")) != NULL && count < limit;)
        numbers[count++] = strtoull(at + 7, &at, 0);
    return count;
}

size_t probe(const char *row, size_t size, uint64_t seed, uint64_t *numbers, size_t limit)
{
    char size_text[32], seed_text[32];
    char program[] = "/proc/self/exe", command[] = "probe", name[64];
    char *argv[] = {program, command, name, size_text, seed_text, NULL};
    snprintf(name, sizeof name, "%s", row);
    snprintf(size_text, sizeof size_text, "%zu", size);
    snprintf(seed_text, sizeof seed_text, "%llu", (unsigned long long)seed);
    int ends[2], status;
    pid_t pid;
    posix_spawn_file_actions_t actions;
    if (pipe(ends) != 0)
        _exit(END_BROKEN);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    if (posix_spawn(&pid, program, &actions, NULL, argv, environ) != 0)
        _exit(END_BROKEN);
    close(ends[1]);
    size_t count = read_numbers(ends[0], numbers, limit);
    close(ends[0]);
    if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        _exit(END_BROKEN);
    posix_spawn_file_actions_destroy(&actions);
    return count;
}
