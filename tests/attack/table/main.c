/* The attack table's program.
 *
 *   bulkhead-attack-table list
 *       one line for each row, fields parted by tabs:
 *       group, row, sizes, actors, promises of secure and of hardened, what
 *   bulkhead-attack-table run ROW SIZE ACTOR SEED
 *       one attack; see table.h for what it tells and how it ends
 *   bulkhead-attack-table die
 *       ends before any marker, for the test of the runner */
#include "table.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

/* Seconds: of its own processor time for an allocator that loops in a damaged
 * list (the kernel may take long over a huge mapping), of any time for one that
 * waits. */
#define LOOPS_AFTER 3
#define HANGS_AFTER 20

static const table_t tables[] = {
    {"check-on-free", rows_free},   {"check-on-free", rows_realloc},        {"adjacent", rows_adjacent},
    {"adjacent", rows_walk},        {"reclaim", rows_reclaim},              {"spray", rows_spray},
    {"uninitialised", rows_uninitialised}, {"link forging", rows_links},    {"control data", rows_control},
    {"how2heap", rows_how2heap},
};
#define TABLES (sizeof tables / sizeof tables[0])

static const char *const actor_names[ACTORS] = {"local", "other", "dead", "both", "race", "fork"};

static scene_t scene; /* too large for a thread's stack */

static void list(void)
{
    for (size_t t = 0; t < TABLES; t++) {
        for (const row_t *r = tables[t].rows; r->name != NULL; r++)
            printf("%s\t%s\t%s\t%s\t%s\t%s\t%s\n", tables[t].group, r->name, r->sizes, r->actors, r->secure, r->hardened, r->what);
    }
}

static const row_t *find(const char *name)
{
    for (size_t t = 0; t < TABLES; t++) {
        for (const row_t *r = tables[t].rows; r->name != NULL; r++) {
            if (strcmp(r->name, name) == 0)
                return r;
        }
    }
    return NULL;
}

/* -------------------------------------------------------------------- actors */

static const row_t *row;

static void prepare(scene_t *s)
{
    if (row->prepare != NULL)
        row->prepare(s);
}

static bool check(scene_t *s)
{
    return row->check != NULL ? row->check(s) : s->effect;
}

/* The thread that freed has what it freed at hand, so it looks first. */
static void strike_and_check(scene_t *s)
{
    row->strike(s);
    s->effect |= check(s);
}

/* A child of fork has no timers. */
static void limit_time(void)
{
    struct itimerval processor = {{0, 0}, {LOOPS_AFTER, 0}};
    setitimer(ITIMER_VIRTUAL, &processor, NULL);
    alarm(HANGS_AFTER);
}

/* The parent ends as its child did. */
static void strike_in_child(scene_t *s)
{
    int status;
    pid_t pid = fork();
    if (pid < 0)
        _exit(END_BROKEN);
    if (pid == 0) {
        limit_time();
        strike_and_check(s);
        return;
    }
    if (waitpid(pid, &status, 0) != pid)
        _exit(END_BROKEN);
    if (WIFSIGNALED(status)) {
        signal(WTERMSIG(status), SIG_DFL);
        raise(WTERMSIG(status));
    }
    _exit(WEXITSTATUS(status));
}

static void attack(scene_t *s)
{
    switch (s->actor) {
    case ACTOR_OTHER: after_first(prepare, strike_and_check, s, 1, false); break;
    case ACTOR_BOTH: after_first(prepare, row->strike, s, 2, false); break;
    case ACTOR_RACE: after_first(prepare, row->strike, s, 1, true); break;
    case ACTOR_DEAD:
        elsewhere(prepare, s);
        strike_and_check(s);
        break;
    case ACTOR_FORK:
        prepare(s);
        strike_in_child(s);
        break;
    default:
        prepare(s);
        strike_and_check(s);
        break;
    }
    if (s->actor == ACTOR_OTHER || s->actor == ACTOR_BOTH || s->actor == ACTOR_RACE)
        s->effect |= check(s);
    finish(s->effect ? END_PRESENT : END_ABSENT, row->at_exit);
}

/* ---------------------------------------------------------------------- main */

static int usage(void)
{
    fputs("usage: bulkhead-attack-table list | run ROW SIZE ACTOR SEED\n", stderr);
    return END_USAGE;
}

static int run(char **argv, bool is_probe)
{
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    limit_time();
    row = find(argv[0]);
    if (row == NULL)
        return usage();
    scene.size = strtoul(argv[1], NULL, 0);
    scene.variant = row->variant;
    scene.random = strtoull(argv[is_probe ? 2 : 3], NULL, 0);
    if (is_probe) {
        /* What a row that compares processes does in each of them. */
        row->prepare(&scene);
        return 0;
    }
    while (scene.actor < ACTORS && strcmp(actor_names[scene.actor], argv[2]) != 0)
        scene.actor++;
    if (scene.actor == ACTORS)
        return usage();
    catch_faults();
    attack(&scene);
    return END_BROKEN;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "list") == 0) {
        list();
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "die") == 0)
        abort();
    if (argc == 6 && strcmp(argv[1], "run") == 0)
        return run(argv + 2, false);
    if (argc == 5 && strcmp(argv[1], "probe") == 0)
        return run(argv + 2, true);
    return usage();
}
