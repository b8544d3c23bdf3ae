/* How many cache lines change processors for one call of malloc or free, in a simulated
 * machine of N processors (machine.h), on which N threads take turns of one call each.
 *
 *     lines WORKLOAD N [OPERATIONS]   counts; OPERATIONS for each processor, after as many
 *                                     that are not counted
 *     lines --self-test [LINE_SHIFT]  accesses whose transfers are known
 *
 * What is printed is for ../lines.py, which has the tables. */
#include "known.h"
#include "machine.h"
#include "where.h"
#include "workloads.h"

#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LINE_SHIFT = 6, USUAL = 10000, KNOWN_ROUNDS = 100 };

void lines_fail(const char *what)
{
    fprintf(stderr, "lines: %s\n", what);
    _Exit(1);
}

/* ------------------------------------------------------------------- turns */

static const struct workload *workload;
static unsigned who[MOST], turns, position;
static uint64_t round_number, warm_rounds, last_round;
static sem_t finished;

/* By who has the turn. */
static void pass_turn(void)
{
    machine_run(-1);
    if (++position == turns) {
        position = 0;
        if (++round_number == warm_rounds)
            machine_count();
        if (round_number == last_round) {
            check(sem_post(&finished) == 0, "sem_post");
            return;
        }
        turns = workload->order(round_number, who);
    }
    check(sem_post(&workers[who[position]].turn) == 0, "sem_post");
}

static void *live(void *argument)
{
    struct worker *w = argument;
    machine_thread();
    for (;;) {
        while (sem_wait(&w->turn) != 0)
            ;
        machine_run((int)w->number);
        workload->step(w);
        w->steps++;
        machine_run((int)w->number);
        if (++w->age == workload->life)
            return NULL; /* what the allocator does at the end of a thread is of this turn too */
        pass_turn();
    }
}

static void *run_processor(void *argument)
{
    struct worker *w = argument;
    pthread_t thread;
    while (pthread_create(&thread, NULL, live, w) == 0 && pthread_join(thread, NULL) == 0) {
        w->age = 0;
        pass_turn();
    }
    lines_fail("pthread_create");
}

/* Once in a process: the threads stay. */
static void simulate(const struct workload *load, unsigned n, uint64_t operations)
{
    workload = load;
    workers_start(n);
    round_number = position = 0;
    turns = load->order(0, who);
    warm_rounds = (operations * n + turns - 1) / turns;
    last_round = 2 * warm_rounds;
    check(sem_init(&finished, 0, 0) == 0, "sem_init");
    for (unsigned i = 0; i < n; i++) {
        pthread_t thread;
        check(pthread_create(&thread, NULL, run_processor, &workers[i]) == 0 && pthread_detach(thread) == 0, "pthread_create");
    }
    check(sem_post(&workers[who[0]].turn) == 0, "sem_post");
    while (sem_wait(&finished) != 0)
        ;
}

static void add(struct machine_counts *sum, struct machine_counts more)
{
    sum->operations += more.operations;
    sum->reads += more.reads;
    sum->writes += more.writes;
    sum->fills += more.fills;
    sum->cold += more.cold;
    sum->kernel += more.kernel;
}

static struct machine_counts total(enum machine_doing doing)
{
    struct machine_counts sum = {0};
    for (unsigned p = 0; p < processors; p++)
        add(&sum, machine_counts(p, doing));
    return sum;
}

/* ------------------------------------------------------------------ output */

static void print_counts(const char *what, struct machine_counts c)
{
    printf("counts,%s,%llu,%llu,%llu,%llu,%llu,%llu\n", what, (unsigned long long)c.operations, (unsigned long long)c.reads,
           (unsigned long long)c.writes, (unsigned long long)c.fills, (unsigned long long)c.cold, (unsigned long long)c.kernel);
}

static void print_moves(const char *what, uintptr_t address, const struct machine_moves *moves, const char *name)
{
    printf("%s,%#llx,%llu,%llu,\"%s\"\n", what, (unsigned long long)address, (unsigned long long)moves->reads,
           (unsigned long long)moves->writes, name);
}

/* Where the program is loaded, as addr2line wants it taken off. */
static int bias_of_program(struct dl_phdr_info *info, size_t size, void *bias)
{
    (void)size;
    *(uintptr_t *)bias = info->dlpi_addr;
    return 1; /* the program comes first */
}

/* All lines with what they hold, and all places. */
static void print_all(void)
{
    static const char *const names[MACHINE_DOINGS] = {"malloc", "free", "end"};
    for (unsigned d = 0; d < MACHINE_DOINGS; d++)
        print_counts(names[d], total((enum machine_doing)d));
    const struct machine_moves *moves;
    size_t n = machine_lines(&moves);
    for (size_t i = 0; i < n; i++) {
        char name[160];
        where_is(moves[i].address, (size_t)1 << LINE_SHIFT, name, sizeof name);
        print_moves("line", moves[i].address, &moves[i], name);
    }
    uintptr_t bias = 0;
    dl_iterate_phdr(bias_of_program, &bias);
    n = machine_places(&moves);
    for (size_t i = 0; i < n; i++)
        print_moves("place", moves[i].address - bias - 1, &moves[i], "");
}

/* --------------------------------------------------------------- self-test */

/* Lines of their own; the one after the last is nobody's. */
static _Alignas(64) unsigned char memory[(MOST + 8) * 64];
static volatile uint64_t ignored;

static uint64_t *word(unsigned line, unsigned offset)
{
    return (uint64_t *)(void *)(memory + line * 64 + offset);
}

static void known_counter(struct worker *w)
{
    (void)w;
    known_atomic_add((_Atomic(uint64_t) *)word(0, 0));
}

static void known_failing_swap(struct worker *w)
{
    (void)w;
    known_atomic_swap((_Atomic(uint64_t) *)word(0, 8));
}

static void known_plain_counter(struct worker *w)
{
    (void)w;
    known_add(word(0, 0));
}

static void known_private(struct worker *w)
{
    known_add(word(w->number, 8));
}

static void known_constant(struct worker *w)
{
    (void)w;
    ignored = known_load(word(0, 0));
}

static void known_false_sharing(struct worker *w)
{
    known_atomic_add((_Atomic(uint64_t) *)word(0, w->number % 8 * 8));
}

static void known_flag(struct worker *w)
{
    if (w->number == 0)
        known_store(word(0, 0), w->steps);
    else
        ignored = known_load(word(0, 0));
}

static void known_four_lines(struct worker *w)
{
    (void)w;
    known_clear(word(0, 32), 200); /* 32 of the first, two, and 40 of the fourth */
}

static void known_copied(struct worker *w)
{
    known_copy(word(w->number + 1, 0), word(0, 0), 64);
}

static void known_first_touch(struct worker *w)
{
    static _Alignas(64) unsigned char much[1u << 22];
    static size_t used;
    (void)w;
    known_clear(much + used, 64);
    used += 64;
}

static unsigned one(void)
{
    return 1;
}

static unsigned each(void)
{
    return processors;
}

static unsigned each_other(void)
{
    return processors - 1;
}

static unsigned four_each(void)
{
    return 4 * processors;
}

static const struct workload known[] = {
    {.name = "a counter of all, atomic", .step = known_counter, .order = order_all, .writes = each},
    {.name = "a compare-and-swap that fails", .step = known_failing_swap, .order = order_all, .writes = each},
    {.name = "a counter of all, read and written", .step = known_plain_counter, .order = order_all, .reads = each, .writes = each},
    {.name = "a counter of each", .step = known_private, .order = order_all},
    {.name = "a constant", .step = known_constant, .order = order_all},
    {.name = "counters of each, in one line", .step = known_false_sharing, .order = order_all, .writes = each},
    {.name = "a word that the first writes and others read", .step = known_flag, .order = order_all, .reads = each_other, .writes = one},
    {.name = "four lines that all clear", .step = known_four_lines, .order = order_all, .writes = four_each},
    {.name = "a constant that all copy", .step = known_copied, .order = order_all},
    {.name = "lines that nobody had", .step = known_first_touch, .order = order_all},
};

static bool is_known(const struct workload *load, unsigned n)
{
    simulate(load, n, KNOWN_ROUNDS);
    struct machine_counts c = {0};
    for (unsigned d = 0; d < MACHINE_DOINGS; d++)
        add(&c, total((enum machine_doing)d));
    uint64_t rounds = last_round - warm_rounds;
    uint64_t reads = n > 1 && load->reads != NULL ? rounds * load->reads() : 0;
    uint64_t writes = n > 1 && load->writes != NULL ? rounds * load->writes() : 0;
    bool right = c.reads == reads && c.writes == writes && rounds == KNOWN_ROUNDS;
    if (!right)
        printf("WRONG: %s, %u processors, %llu rounds: %llu reads and %llu writes moved a line; %llu and %llu are right\n",
               load->name, n, (unsigned long long)rounds, (unsigned long long)c.reads, (unsigned long long)c.writes,
               (unsigned long long)reads, (unsigned long long)writes);
    return right;
}

static int self_test(unsigned line_shift)
{
    static const unsigned numbers[] = {1, 2, 3, 8, 32};
    unsigned right = 0, wrong = 0;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        for (size_t k = 0; k < sizeof numbers / sizeof numbers[0]; k++) {
            fflush(stdout);
            pid_t child = fork();
            if (child == 0) {
                machine_start(numbers[k], line_shift);
                bool as_known = is_known(&known[i], numbers[k]);
                fflush(stdout);
                _exit(as_known ? 0 : 1);
            }
            int status = -1;
            check(child > 0 && waitpid(child, &status, 0) == child, "fork");
            (status == 0 ? &right : &wrong)[0]++;
        }
    printf("%u right, %u wrong\n", right, wrong);
    return wrong == 0 ? 0 : 1;
}

/* 1 .. most, or the program ends. */
static unsigned long number(const char *text, unsigned long most)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    check(end != text && *end == '\0' && n >= 1 && n <= most, "a number is out of range");
    return n;
}

int main(int argc, char **argv)
{
    if ((argc == 2 || argc == 3) && strcmp(argv[1], "--self-test") == 0)
        return self_test(argc == 3 ? (unsigned)number(argv[2], 12) : LINE_SHIFT);
    const struct workload *load = argc == 3 || argc == 4 ? workload_named(argv[1]) : NULL;
    if (load == NULL) {
        fprintf(stderr, "usage: lines WORKLOAD PROCESSORS [OPERATIONS] | lines --self-test [LINE_SHIFT]\n");
        return 2;
    }
    unsigned n = (unsigned)number(argv[2], MOST);
    machine_start(n, LINE_SHIFT);
    simulate(load, n, argc == 4 ? number(argv[3], 1000000000) : USUAL);
    print_all();
    fflush(stdout);
    _exit(0); /* other threads wait for a turn that never comes */
}
