/* Frees, reallocs, queries and sized frees of everything that is not a live
 * block: target x operation x size x thread. Each must end the process with its
 * own id and the address, every time.
 *
 *   bad_free [RUNS]   every attack RUNS times; default 3 */
#include "bulkhead.h"
#include "child.h"
#include "race.h"
#include "targets.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

/* Two threads in one page without order is what the thread sanitizer reports,
 * and here the program's bug: its line would come before the allocator's. */
#if defined(__SANITIZE_THREAD__)
#define RACES 0
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RACES 0
#endif
#endif
#ifndef RACES
#define RACES 1
#endif

#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)
#define RACES_PER_RUN 10

static const size_t sizes[] = {8,    16,   24,   48,   64,    100,   128,   256,    512,    1000, 1024,
                               2000, 4096, 8192, 10000, 32768, 65536, 131072, 200000, MIB, 5 * MIB, 64 * MIB, 64 * GIB, 1024 * GIB};
#define SIZES (sizeof sizes / sizeof sizes[0])
#define SIZE_FOR_ONCE 4 /* 64 bytes, for targets that do not depend on the size */
#define BLOCKS_AT_ONCE 24 /* at most, of an attack */

/* Those that the machine has address space for. */
static size_t size_count = SIZES;

static void probe_body(void *size)
{
    unsigned n = 0;
    while (n < BLOCKS_AT_ONCE && bh_malloc(*(const size_t *)size) != NULL)
        n++;
    if (n == BLOCKS_AT_ONCE)
        attack_record("lent", 0);
}

static void probe_sizes(void)
{
    attack_end_t end;
    for (; sizes[size_count - 1] >= GIB; size_count--) {
        attack_run(probe_body, (void *)(uintptr_t)&sizes[size_count - 1], &end);
        if (end.count > 0)
            return;
        printf("skip blocks of %zu GiB: no address space for them\n", sizes[size_count - 1] / GIB);
    }
}

/* ---------------------------------------------------------------- operations */

typedef enum use { USE_FREE, USE_REALLOC, USE_QUERY, USE_SIZED } use_t;

/* By use and target class; "": nothing to be wrong with. */
static const char *const ids[][5] = {
    [USE_FREE] = {"foreign-free", "invalid-free", "double-free", "", "double-free|invalid-free"},
    [USE_REALLOC] = {"foreign-realloc", "invalid-realloc", "realloc-after-free", "", "realloc-after-free|invalid-realloc"},
    [USE_QUERY] = {"foreign-query", "invalid-query", "query-after-free", "", "query-after-free|invalid-query"},
    [USE_SIZED] = {"", "", "", "size-mismatch", ""},
};

static void *sink; /* results are kept, so that no call is dropped */

static void op_free(const target_state_t *s) { bh_free((void *)s->target); }
static void op_grow(const target_state_t *s) { sink = bh_realloc((void *)s->target, 2 * s->size); }
static void op_same(const target_state_t *s) { sink = bh_realloc((void *)s->target, s->size); }
static void op_zero(const target_state_t *s) { sink = bh_realloc((void *)s->target, 0); }
static void op_array(const target_state_t *s) { sink = bh_reallocarray((void *)s->target, 3, s->size); }
static void op_query(const target_state_t *s) { sink = (void *)bh_usable_size((void *)s->target); }
static void op_sized(const target_state_t *s) { bh_free_sized((void *)s->target, s->size); }
static void op_aligned_sized(const target_state_t *s) { bh_free_aligned_sized((void *)s->target, 16, s->size); }
static void op_above(const target_state_t *s) { bh_free_sized((void *)s->target, s->usable + 1); }
static void op_twice(const target_state_t *s) { bh_free_sized((void *)s->target, 2 * s->usable); }
static void op_below(const target_state_t *s) { bh_free_sized((void *)s->target, s->usable / 2 - 1); }
static void op_huge(const target_state_t *s) { bh_free_sized((void *)s->target, SIZE_MAX); }
static void op_aligned_above(const target_state_t *s) { bh_free_aligned_sized((void *)s->target, 64, 4 * s->usable); }

typedef struct operation {
    const char *name;
    void (*run)(const target_state_t *);
    use_t use;
    size_t least; /* smallest size at which it is wrong */
} operation_t;

static const operation_t operations[] = {
    {"free", op_free, USE_FREE, 0},
    {"free_sized", op_sized, USE_FREE, 0},
    {"free_aligned_sized", op_aligned_sized, USE_FREE, 0},
    {"realloc, larger", op_grow, USE_REALLOC, 0},
    {"realloc, same", op_same, USE_REALLOC, 0},
    {"realloc, 0", op_zero, USE_REALLOC, 0},
    {"reallocarray", op_array, USE_REALLOC, 0},
    {"usable_size", op_query, USE_QUERY, 0},
    {"free_sized, usable + 1", op_above, USE_SIZED, 0},
    {"free_sized, usable * 2", op_twice, USE_SIZED, 0},
    /* A request of 3 bytes does get a block of 8. */
    {"free_sized, half less 1", op_below, USE_SIZED, 16},
    {"free_sized, SIZE_MAX", op_huge, USE_SIZED, 0},
    {"free_aligned_sized, usable * 4", op_aligned_above, USE_SIZED, 0},
};
#define OPERATIONS (sizeof operations / sizeof operations[0])

/* ------------------------------------------------------------------- threads */

typedef enum actor { ACTOR_OWNER, ACTOR_OTHER, ACTOR_OWNER_DEAD, ACTORS } actor_t;
static const char *const actor_names[ACTORS] = {"the owner", "another thread", "owner dead"};

typedef struct attack {
    const target_t *target;
    const operation_t *operation;
    size_t size;
    actor_t actor;
    target_state_t state;
} attack_t;

static void *prepare(void *arg)
{
    attack_t *a = arg;
    a->state.size = a->size;
    a->state.is = a->target->is;
    a->target->prepare(&a->state);
    return NULL;
}

static void *strike(void *arg)
{
    attack_t *a = arg;
    if (a->state.none) {
        attack_record("none", 0);
        return NULL;
    }
    if (a->target->aim != NULL)
        a->target->aim(&a->state);
    attack_record(ids[a->operation->use][a->state.is], a->state.target);
    a->operation->run(&a->state);
    return NULL;
}

static void in_thread(void *(*body)(void *), void *arg)
{
    pthread_t t;
    if (pthread_create(&t, NULL, body, arg) != 0)
        attack_broken("pthread_create");
    pthread_join(t, NULL); /* the creator idles meanwhile */
}

static void attack_body(void *arg)
{
    attack_t *a = arg;
    if (a->actor == ACTOR_OWNER_DEAD)
        in_thread(prepare, a);
    else
        prepare(a);
    if (a->actor == ACTOR_OTHER)
        in_thread(strike, a);
    else
        strike(a);
}

/* ------------------------------------------------------------------ counting */

typedef struct tally {
    unsigned long tried, good;
    unsigned shown;
} tally_t;

static tally_t all;
static unsigned long late; /* double frees that were seen, but not at once */

static void count(tally_t *row, const attack_end_t *end, const char *what, const char *thread, size_t size)
{
    const char *why = attack_verdict(end);
    row->tried++;
    all.tried++;
    if (why == NULL) {
        row->good++;
        all.good++;
        late += attack_has(end, "late");
    } else if (row->shown++ < 3) {
        printf("  FAIL %s, %zu bytes, by %s: %s\n", what, size, thread, why);
    }
}

static void print_row(const char *name, const char *detail, const tally_t *row)
{
    if (row->tried > 0)
        printf("%-4s %-26s %-24s %lu of %lu\n", row->good == row->tried ? "ok" : "FAIL", name, detail, row->good, row->tried);
}

static void with_operation(const target_t *target, const operation_t *operation, unsigned long runs, tally_t *row)
{
    char what[96];
    attack_end_t end;
    snprintf(what, sizeof what, "%s, %s", target->name, operation->name);
    for (size_t i = 0; i < size_count; i++) {
        if (target->once ? i != SIZE_FOR_ONCE : sizes[i] < operation->least)
            continue;
        for (unsigned actor = 0; actor < ACTORS; actor++) {
            for (unsigned long run = 0; run < runs; run++) {
                attack_t a = {target, operation, sizes[i], (actor_t)actor, {0}};
                attack_run(attack_body, &a, &end);
                if (end.count > 0 && strcmp(end.records[0].word, "none") == 0 && WIFEXITED(end.status))
                    continue;
                count(row, &end, what, actor_names[actor], sizes[i]);
            }
        }
    }
}

static void table(unsigned long runs)
{
    static const char *const uses[] = {"free", "realloc", "usable size", "sized free"};
    for (size_t t = 0; t < target_count; t++) {
        for (unsigned use = USE_FREE; use <= USE_SIZED; use++) {
            tally_t row = {0, 0, 0};
            for (size_t o = 0; o < OPERATIONS; o++) {
                if (operations[o].use == use && ids[use][targets[t].is][0] != '\0')
                    with_operation(&targets[t], &operations[o], runs, &row);
            }
            print_row(targets[t].name, uses[use], &row);
        }
    }
}

static void race_rows(unsigned long runs, uint64_t *random)
{
    attack_end_t end;
    for (unsigned kind = 0; kind < RACE_KINDS; kind++) {
        tally_t row = {0, 0, 0};
        for (size_t i = 0; i < size_count; i++) {
            for (unsigned long run = 0; run < runs * RACES_PER_RUN; run++) {
                race_t race = {(race_kind_t)kind, sizes[i], attack_random(random)};
                attack_run(race_body, &race, &end);
                count(&row, &end, "both at once", race_names[kind], sizes[i]);
            }
        }
        print_row("both at once", race_names[kind], &row);
    }
}

/* ------------------------------------------- foreign=report, foreign=ignore */

/* Runs in a process of its own, which had the setting from its start on. */
static int foreign_goes_on(void)
{
    attack_record("goes on", 0);
    for (size_t t = 0; t < target_count; t++) {
        target_state_t s = {.size = 64, .is = targets[t].is};
        if (targets[t].is != TARGET_FOREIGN)
            continue;
        targets[t].prepare(&s);
        if (targets[t].aim != NULL)
            targets[t].aim(&s);
        for (size_t o = 0; o < OPERATIONS; o++) {
            if (operations[o].use != USE_SIZED)
                operations[o].run(&s);
        }
    }
    /* Only foreign pointers are let pass: the double free must still end it. */
    uintptr_t p = target_take(64);
    target_take(64);
    target_give(p);
    attack_record("double-free", p);
    target_give(p);
    return 0;
}

/* Lines of the report that carry this id. */
static unsigned lines_with(const char *text, const char *id)
{
    char line[ATTACK_WORD + 32];
    unsigned n = 0;
    snprintf(line, sizeof line, "bulkhead: ERROR: %s: ", id);
    for (const char *at = strstr(text, line); at != NULL; at = strstr(at + 1, line))
        n++;
    return n;
}

static bool foreign_mode(const char *path, const char *mode)
{
    static char text[1 << 16];
    unsigned wanted[3] = {0, 0, 0}, got[3];
    if (strcmp(mode, "report") == 0) {
        for (size_t t = 0; t < target_count; t++) {
            for (size_t o = 0; o < OPERATIONS && targets[t].is == TARGET_FOREIGN; o++)
                wanted[operations[o].use % 3] += operations[o].use != USE_SIZED;
        }
    }
    /* More text than an attack's: through a file, not through the pipe. */
    char command[4096];
    snprintf(command, sizeof command, "BULKHEAD_FOREIGN=%s exec '%s' foreign 2>&1 >/dev/null", mode, path);
    FILE *out = popen(command, "re");
    if (out == NULL)
        attack_broken("popen");
    size_t n = fread(text, 1, sizeof text - 1, out);
    text[n] = '\0';
    int status = pclose(out);
    bool ok = WIFSIGNALED(status) ? WTERMSIG(status) == SIGABRT : WEXITSTATUS(status) == 128 + SIGABRT;
    ok &= lines_with(text, "double-free") == 1;
    for (unsigned use = 0; use < 3; use++) {
        got[use] = lines_with(text, ids[use][TARGET_FOREIGN]);
        ok &= got[use] == wanted[use];
    }
    all.tried++;
    all.good += ok;
    printf("%-4s foreign=%s: %u frees, %u reallocs, %u queries reported; then a double free\n", ok ? "ok" : "FAIL", mode, got[0],
           got[1], got[2]);
    return ok;
}

int main(int argc, char **argv)
{
    uint64_t random = attack_begin("bad-free");
    if (argc > 1 && strcmp(argv[1], "foreign") == 0)
        return foreign_goes_on();
    unsigned long runs = argc > 1 ? strtoul(argv[1], NULL, 0) : 3;
    probe_sizes();
    table(runs);
    if (RACES)
        race_rows(runs, &random);
    else
        puts("skip both at once: the thread sanitizer reports the program's race first");
    foreign_mode(argv[0], "report");
    foreign_mode(argv[0], "ignore");
    printf("bad-free: %lu of %lu attacks ended with their id", all.good, all.tried);
    printf(late > 0 ? ", %lu of them late\n" : "\n", late);
    return all.good == all.tried ? 0 : 1;
}
