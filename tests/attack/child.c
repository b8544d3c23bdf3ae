/* Running and judging children. Knows nothing of what an attack does. */
#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILD_SECONDS 60 /* a child that takes longer hangs; SIGALRM then ends it */
#define PREFIX "bulkhead: ERROR: "

/* One pair of pipes for all children, which come one after the other: what a
 * child wrote stays readable after its end. */
static int record_pipe[2];
static int text_pipe[2];

_Noreturn void attack_broken(const char *what)
{
    char line[256];
    int n = snprintf(line, sizeof line, "attack: cannot go on: %s (errno %d)\n", what, errno);
    if (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0)
        _exit(3);
    _exit(2);
}

static void open_pipe(int ends[2])
{
    /* Blocking for the child, who may fill it; not for the parent, who reads
     * what there is. */
    if (pipe(ends) != 0 || fcntl(ends[0], F_SETFL, O_NONBLOCK) != 0 || fcntl(ends[0], F_SETFD, FD_CLOEXEC) != 0)
        attack_broken("pipe");
}

uint64_t attack_begin(const char *program)
{
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    setvbuf(stdout, NULL, _IOLBF, 0);
    open_pipe(record_pipe);
    open_pipe(text_pipe);
    uint64_t seed = 0;
    const char *given = getenv("ATTACK_SEED");
    if (given != NULL)
        seed = strtoull(given, NULL, 0);
    else if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
        attack_broken("getrandom");
    printf("%s: seed 0x%" PRIx64 "\n", program, seed);
    return seed;
}

void attack_resume(void)
{
    const char *given = getenv("ATTACK_PIPE");
    record_pipe[1] = given != NULL ? atoi(given) : -1;
}

void attack_record(const char *word, uintptr_t value)
{
    attack_record_t r;
    memset(&r, 0, sizeof r);
    strncpy(r.word, word, sizeof r.word - 1);
    r.value = value;
    if (write(record_pipe[1], &r, sizeof r) != (ssize_t)sizeof r)
        _exit(3);
}

static void collect(pid_t pid, attack_end_t *end)
{
    memset(end, 0, sizeof *end);
    while (waitpid(pid, &end->status, 0) != pid) {
        if (errno != EINTR)
            attack_broken("waitpid");
    }
    attack_record_t r;
    while (read(record_pipe[0], &r, sizeof r) == (ssize_t)sizeof r) {
        if (end->count < ATTACK_RECORDS)
            end->records[end->count++] = r;
    }
    size_t length = 0;
    char rest[512];
    for (;;) {
        bool room = length < sizeof end->text - 1;
        ssize_t n = room ? read(text_pipe[0], end->text + length, sizeof end->text - 1 - length)
                         : read(text_pipe[0], rest, sizeof rest);
        if (n <= 0)
            break;
        length += room ? (size_t)n : 0;
    }
}

static pid_t start(void)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0)
        attack_broken("fork");
    if (pid == 0) {
        alarm(CHILD_SECONDS);
        if (dup2(text_pipe[1], STDERR_FILENO) < 0)
            _exit(3);
    }
    return pid;
}

void attack_run(void (*body)(void *), void *arg, attack_end_t *end)
{
    pid_t pid = start();
    if (pid == 0) {
        body(arg);
        _exit(0);
    }
    collect(pid, end);
}

void attack_exec(const char *path, const char *argument, const char *variable, const char *value, attack_end_t *end)
{
    pid_t pid = start();
    if (pid == 0) {
        char pipe_end[16];
        snprintf(pipe_end, sizeof pipe_end, "%d", record_pipe[1]);
        setenv("ATTACK_PIPE", pipe_end, 1);
        setenv(variable, value, 1);
        execl(path, path, argument, (char *)NULL);
        _exit(3);
    }
    collect(pid, end);
}

const char *attack_id(const attack_end_t *end, uintptr_t *address)
{
    static char id[ATTACK_WORD];
    *address = 0;
    if (!WIFSIGNALED(end->status) || WTERMSIG(end->status) != SIGABRT ||
        strncmp(end->text, PREFIX, sizeof PREFIX - 1) != 0)
        return "";
    const char *at = end->text + sizeof PREFIX - 1;
    size_t n = strcspn(at, ":\n");
    if (n >= sizeof id || at[n] != ':' || at[n + 1] != ' ')
        return "";
    memcpy(id, at, n);
    id[n] = '\0';
    const char *hex = strstr(at, "(address 0x");
    const char *line_end = strchr(at, '\n');
    if (hex == NULL || line_end == NULL || hex > line_end)
        return "";
    *address = (uintptr_t)strtoull(hex + sizeof "(address " - 1, NULL, 16);
    return id;
}

bool attack_has(const attack_end_t *end, const char *word)
{
    for (unsigned i = 1; i < end->count; i++) {
        if (strcmp(end->records[i].word, word) == 0)
            return true;
    }
    return false;
}

/* Whether `id` is one of the '|'-separated words. */
static bool one_of(const char *id, const char *words)
{
    size_t n = strlen(id);
    for (const char *w = words; *w != '\0'; w += strcspn(w, "|"), w += *w == '|') {
        if (strcspn(w, "|") == n && strncmp(w, id, n) == 0)
            return true;
    }
    return false;
}

const char *attack_verdict(const attack_end_t *end)
{
    static char why[256 + ATTACK_WORD];
    uintptr_t address;
    if (end->count == 0) {
        snprintf(why, sizeof why, "never came to its last step (status 0x%x, %.200s)", (unsigned)end->status, end->text);
        return why;
    }
    if (WIFEXITED(end->status)) {
        snprintf(why, sizeof why, "went on (exit %d)", WEXITSTATUS(end->status));
        return why;
    }
    if (WTERMSIG(end->status) != SIGABRT) {
        snprintf(why, sizeof why, "signal %d", WTERMSIG(end->status));
        return why;
    }
    const char *id = attack_id(end, &address);
    if (!one_of(id, end->records[0].word)) {
        snprintf(why, sizeof why, "expected %s, first line: %.*s", end->records[0].word,
                 (int)strcspn(end->text, "\n") % 200, end->text);
        return why;
    }
    if (end->records[0].value != 0 && address != end->records[0].value) {
        snprintf(why, sizeof why, "%s names 0x%" PRIxPTR " instead of 0x%" PRIxPTR, id, address, end->records[0].value);
        return why;
    }
    if (strstr(strchr(end->text, '\n'), PREFIX) != NULL)
        return "more than one report";
    return NULL;
}
