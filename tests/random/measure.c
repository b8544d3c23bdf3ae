/* Measures what Bulkhead promises of its randomness, over many processes, and
 * compares each figure with its bound: FAIL when a generator that keeps the bound
 * would do this less often than once in a million times (stats.h).
 *
 *   measure [--seeds N] [--seed S] [--all] [--plant] [--early PROGRAM] [GROUP...]
 *
 * GROUP: order reuse address fork early chance; all by default. --all prints every size
 * class, not the worst one only. --plant looks at a predictable allocator in
 * Bulkhead's place, and wants every judged figure to fail. A seed decides what the
 * test does; the allocator draws its own from the kernel. */
#include "bulkhead.h"
#include "meta/size_class.h"
#include "probe.h"
#include "stats.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST_SEEDS 100000u
#define ENTROPY_BOUND 24.0
#define END_BOUND 52.0 /* of 54: of the four highest bits, a sample of processes shows less than there are */

extern char **environ;

static uint64_t seeds = 10000, seed;
static bool all, plant;
static const char *early_program;
static unsigned judged, failed;

_Noreturn static void broken(const char *what)
{
    fprintf(stderr, "measure: cannot go on: %s (errno %d)\n", what, errno);
    exit(2);
}

/* ------------------------------------------------------------------- samples */

/* What a program wrote: `size` bytes exactly, or the test is broken. */
static void run(char *const argv[], void *out, size_t size)
{
    int ends[2], status;
    pid_t pid;
    posix_spawn_file_actions_t actions;
    if (pipe(ends) != 0 || posix_spawn_file_actions_init(&actions) != 0)
        broken("pipe");
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    posix_spawn_file_actions_addclose(&actions, ends[1]);
    if ((errno = posix_spawn(&pid, argv[0], &actions, NULL, argv, environ)) != 0)
        broken(argv[0]);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    size_t got = 0;
    for (ssize_t n; got < size && (n = read(ends[0], (char *)out + got, size - got)) > 0;)
        got += (size_t)n;
    close(ends[0]);
    if (waitpid(pid, &status, 0) != pid || status != 0 || got != size)
        broken("a process that was to be measured");
}

static void sample(const char *mode, uint64_t i, void *out, size_t size)
{
    static char self[] = "/proc/self/exe", probe[] = "--probe", with[] = "1", without[] = "0";
    char number[24], name[16];
    snprintf(number, sizeof number, "%" PRIu64, seed + i);
    snprintf(name, sizeof name, "%s", mode);
    run((char *[]){self, probe, name, number, plant ? with : without, NULL}, out, size);
}

static int probe(char **argv)
{
    probe_sample_t s;
    size_t size = probe_run(argv[2], strtoull(argv[3], NULL, 0), argv[4][0] == '1', &s);
    return size != 0 && write(STDOUT_FILENO, &s, size) == (ssize_t)size ? 0 : 1;
}

/* Zeroed memory that is not the allocator's. */
static void *table(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        broken("no memory");
    return p;
}

/* --------------------------------------------------------------------- rows */

static bool judge(bool held)
{
    judged++;
    failed += !held;
    return held;
}

static void line(const char *what, const char *figure, const char *bound, const char *verdict)
{
    printf("%-58s | %-22s | %-10s | %s\n", what, figure, bound, verdict);
    fflush(stdout);
}

/* A probability: x hits in n trials. bound 0: only reported. */
typedef struct chance {
    uint64_t x, n;
    double bound;
    char name[40];
} chance_t;

static void print_chance(const char *what, const chance_t *c)
{
    char name[100], figure[60], bound[20];
    bool held = c->bound <= 0 || stats_within(c->x, c->n, c->bound);
    snprintf(name, sizeof name, "%s, %s", what, c->name);
    snprintf(figure, sizeof figure, "%.6f of %" PRIu64, (double)c->x / (double)c->n, c->n);
    if (c->bound < 1e-6)
        snprintf(bound, sizeof bound, "2^%.0f", log2(c->bound > 0 ? c->bound : 1));
    else
        snprintf(bound, sizeof bound, "%.6f", c->bound);
    line(name, figure, c->bound > 0 ? bound : "-", c->bound <= 0 ? "reported" : held ? "ok" : "FAIL");
}

/* How likely what was seen is at the bound: the smaller, the worse. */
static double likely(const chance_t *c)
{
    return stats_at_least(c->x, c->n, c->bound);
}

/* Judges every one; prints them, or the worst one. */
static void chances(const char *what, const chance_t *list, size_t n)
{
    const chance_t *worst = list;
    size_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        if (all || list[i].bound <= 0)
            print_chance(what, &list[i]);
        if (list[i].bound > 0)
            bad += !judge(stats_within(list[i].x, list[i].n, list[i].bound));
        double here = likely(&list[i]), there = likely(worst);
        bool worse = here < there || (here <= there && (double)list[i].x / list[i].bound > (double)worst->x / worst->bound);
        worst = worse ? &list[i] : worst;
    }
    if (all || list[0].bound <= 0)
        return;
    print_chance(what, worst);
    if (bad > 0 && n > 1)
        printf("  %zu of %zu FAIL; the worst is shown\n", bad, n);
}

/* ------------------------------------------------------------------- groups */

static void group_order(void)
{
    static uint64_t behind[BHI_CLASSES];
    static chance_t small[BHI_CLASSES], larger[BHI_CLASSES];
    size_t smalls = 0, largers = 0;
    for (uint64_t i = 0; i < seeds; i++) {
        probe_order_t s;
        sample("order", i, &s, sizeof s);
        for (unsigned c = 0; c < BHI_CLASSES; c++)
            behind[c] += s.behind[c];
    }
    for (unsigned c = 0; c < BHI_CLASSES; c++) {
        bool is_small = bhi_class_size(c) <= 1024;
        chance_t *k = is_small ? &small[smalls++] : &larger[largers++];
        k->x = behind[c];
        k->n = seeds * (PROBE_IN_ROW - 1);
        k->bound = is_small ? 1.0 / 32 : 1.0 / bhi_class_blocks(c);
        snprintf(k->name, sizeof k->name, "%zu B", bhi_class_size(c));
    }
    chances("directly behind the last one", small, smalls);
    chances("directly behind the last one", larger, largers);
}

static bool is_hardened(void)
{
    char profile[20] = "";
    return bh_option_get("profile", profile, sizeof profile) > 0 && (strcmp(profile, "hardened") == 0 || strcmp(profile, "debug") == 0);
}

static void group_reuse(void)
{
    static const char *const names[PROBE_SITUATIONS] = {"back in 8, fresh process", "back in 8, 1000 live", "back in 8, tight pairs",
                                                        "back in 8, hole in a full page"};
    static probe_reuse_t sum;
    static chance_t list[PROBE_SIZES];
    for (uint64_t i = 0; i < seeds; i++) {
        probe_reuse_t s;
        sample("reuse", i, &s, sizeof s);
        for (unsigned k = 0; k < PROBE_SIZES; k++) {
            sum.tight[k] += s.tight[k];
            for (unsigned at = 0; at < PROBE_SITUATIONS; at++)
                sum.back[k][at] += s.back[k][at];
        }
    }
    double bound = is_hardened() ? 1.0 / 1000 : 1.0 / 8;
    for (unsigned at = 0; at < PROBE_SITUATIONS; at++) {
        unsigned n = at == PROBE_FRESH || at == PROBE_TIGHT ? PROBE_SIZES : PROBE_BOUND_SIZES;
        for (unsigned k = 0; k < n; k++) {
            list[k] = (chance_t){sum.back[k][at], seeds, k < PROBE_BOUND_SIZES ? bound : 0, ""};
            snprintf(list[k].name, sizeof list[k].name, "%zu B", probe_size(k));
        }
        chances(names[at], list, PROBE_BOUND_SIZES);
        if (n > PROBE_BOUND_SIZES)
            chances(names[at], list + PROBE_BOUND_SIZES, n - PROBE_BOUND_SIZES);
    }
    for (unsigned k = 0; k < PROBE_SIZES; k++) {
        list[k] = (chance_t){sum.tight[k], seeds * probe_rounds(k), 0, ""};
        snprintf(list[k].name, sizeof list[k].name, "%zu B", probe_size(k));
    }
    chances("back in 8, all tight rounds", list, PROBE_SIZES);
}

static void group_address(void)
{
    static const struct {
        const char *name;
        unsigned width; /* bits that vary in a 47-bit address space */
    } what[PROBE_ADDRESSES] = {
        {"block reservation", 47 - BH_SEGMENT_SHIFT},
        {"control reservation", 47 - BH_OS_PAGE_SHIFT},
        {"distance of the two", 48 - BH_OS_PAGE_SHIFT},
        {"distance of a heap and its first block", 48 - 6},
    };
    uint64_t *values = table(PROBE_ADDRESSES * seeds * sizeof *values);
    for (uint64_t i = 0; i < seeds; i++) {
        probe_address_t s;
        sample("address", i, &s, sizeof s);
        for (unsigned k = 0; k < PROBE_ADDRESSES; k++)
            values[k * seeds + i] = s.value[k];
    }
    for (unsigned k = 0; k < PROBE_ADDRESSES; k++) {
        char name[100], figure[60];
        double bits = stats_entropy(values + k * seeds, seeds, what[k].width);
        snprintf(name, sizeof name, "min-entropy, %s", what[k].name);
        snprintf(figure, sizeof figure, "%.1f bits", bits);
        line(name, figure, "24 bits", judge(bits >= ENTROPY_BOUND) ? "ok" : "FAIL");
        uint64_t pairs = seeds * (seeds - 1) / 2, same = stats_collisions(values + k * seeds, seeds);
        bool held = stats_within(same, pairs, exp2(-ENTROPY_BOUND));
        snprintf(name, sizeof name, "equal in two processes, %s", what[k].name);
        snprintf(figure, sizeof figure, "%" PRIu64 " of %" PRIu64, same, pairs);
        line(name, figure, "2^-24", judge(held) ? "ok" : "FAIL");
    }
    munmap(values, PROBE_ADDRESSES * seeds * sizeof *values);
}

static void group_fork(void)
{
    probe_fork_t sum = {0, 0, 0, 0};
    for (uint64_t i = 0; i < seeds; i++) {
        probe_fork_t s;
        sample("fork", i, &s, sizeof s);
        sum.used_same += s.used_same;
        sum.used_all += s.used_all;
        sum.fresh_same += s.fresh_same;
        sum.fresh_all += s.fresh_all;
    }
    const chance_t list[] = {
        {sum.used_same, seeds * PROBE_IN_ROW, 1.0 / 32, "class in use before"},
        {sum.used_all, seeds, 1.0 / 1000, "class in use before, all 64"},
        {sum.fresh_same, seeds * PROBE_IN_ROW, 1.0 / 32, "class begun after"},
        {sum.fresh_all, seeds, 1.0 / 1000, "class begun after, all 64"},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++)
        chances("parent and child the same", &list[i], 1);
}

/* Pairs of runs of a C++ program that allocates before any constructor. */
static void group_early(void)
{
    if (early_program == NULL) {
        line("allocations before any constructor", "no --early PROGRAM", "-", "skipped");
        return;
    }
    uint64_t row[2][PROBE_IN_ROW], same = 0, same_order = 0, pairs = seeds / 2;
    char path[4096];
    snprintf(path, sizeof path, "%s", early_program);
    for (uint64_t i = 0; i < pairs; i++) {
        for (unsigned k = 0; k < 2 && !plant; k++)
            run((char *[]){path, NULL}, row[k], sizeof row[k]);
        same += plant || memcmp(row[0], row[1], sizeof row[0]) == 0;
        bool equal = true;
        for (unsigned k = 1; k < PROBE_IN_ROW && !plant; k++)
            equal &= row[0][k] - row[0][0] == row[1][k] - row[1][0];
        same_order += equal;
    }
    const chance_t list[] = {{same, pairs, exp2(-24), "addresses"}, {same_order, pairs, 1.0 / 1000, "order of 64 blocks"}};
    for (size_t i = 0; i < 2; i++)
        chances("two runs, before any constructor", &list[i], 1);
}

/* A probability that is to be neither more nor less. */
static void exactly(const char *what, const char *promise, uint64_t x, uint64_t n, double p)
{
    char figure[60];
    snprintf(figure, sizeof figure, "%.6f of %" PRIu64, (double)x / (double)n, n);
    bool held = stats_at_least(x, n, p) > STATS_ALPHA && stats_at_most(x, n, p) > STATS_ALPHA;
    line(what, figure, promise, judge(held) ? "ok" : "FAIL");
}

static void group_chance(void)
{
    probe_chance_t sum = {0, 0, 0, 0};
    uint64_t *ends = table(seeds * sizeof *ends);
    setenv("BULKHEAD_GUARDED_SAMPLE_RATE", "60", 1);
    for (uint64_t i = 0; i < seeds; i++) {
        probe_chance_t s;
        sample("chance", i, &s, sizeof s);
        sum.guarded += s.guarded;
        sum.ring += s.ring;
        sum.later += s.later;
        ends[i] = s.end;
    }
    unsetenv("BULKHEAD_GUARDED_SAMPLE_RATE");
    exactly("guarded, at a sample rate of 60", "= 1/60", sum.guarded, seeds * PROBE_SAMPLED, 1.0 / PROBE_SAMPLE_RATE);
    if (is_hardened() || plant) {
        const chance_t list[] = {
            {sum.ring, seeds, exp2(-40), "64 B within 48 allocations"},
            {sum.later, seeds, 1 - pow(1 - 1.0 / PROBE_ARRAY, PROBE_LATER), "64 B within 64 allocations"}};
        for (size_t i = 0; i < 2; i++)
            chances("back from the quarantine", &list[i], 1);
        chance_t same = {0, seeds * (seeds - 1) / 2, exp2(-54), "two of 8 bytes"};
        char figure[60];
        double bits = stats_entropy(ends, seeds, 54);
        snprintf(figure, sizeof figure, "%.1f bits", bits);
        line("min-entropy, the end of a block", figure, "52 bits", judge(bits >= END_BOUND) ? "ok" : "FAIL");
        same.x = stats_collisions(ends, seeds);
        chances("equal ends", &same, 1);
    }
    munmap(ends, seeds * sizeof *ends);
}

static const struct {
    const char *name;
    void (*measure)(void);
} groups[] = {{"order", group_order}, {"reuse", group_reuse}, {"address", group_address}, {"fork", group_fork}, {"early", group_early}, {"chance", group_chance}};
#define GROUPS (sizeof groups / sizeof groups[0])

/* ---------------------------------------------------------------------- main */

_Noreturn static void usage(void)
{
    fputs("usage: measure [--seeds N] [--seed S] [--all] [--plant] [--early PROGRAM] [order|reuse|address|fork|early|chance ...]\n", stderr);
    exit(2);
}

static bool wanted_any, wanted[GROUPS];

static void read_arguments(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc, found = true;
        if (strcmp(argv[i], "--seeds") == 0 && more)
            seeds = strtoull(argv[++i], NULL, 0);
        else if (strcmp(argv[i], "--seed") == 0 && more)
            seed = strtoull(argv[++i], NULL, 0);
        else if (strcmp(argv[i], "--early") == 0 && more)
            early_program = argv[++i];
        else if (strcmp(argv[i], "--all") == 0)
            all = true;
        else if (strcmp(argv[i], "--plant") == 0)
            plant = true;
        else
            found = false;
        for (size_t k = 0; k < GROUPS && !found; k++) {
            if (strcmp(argv[i], groups[k].name) == 0)
                found = wanted[k] = wanted_any = true;
        }
        if (!found)
            usage();
    }
    if (seeds < 100 || seeds > MOST_SEEDS)
        usage();
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "--probe") == 0)
        return probe(argv);
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
        broken("getrandom");
    seed >>= 16;
    read_arguments(argc, argv);
    if (!stats_self_test())
        broken("the statistics are wrong");
    printf("random: %" PRIu64 " processes, seed %" PRIu64 " and up%s\n", seeds, seed, plant ? ", a predictable allocator" : "");
    line("figure", "measured", "bound", "verdict");
    for (size_t k = 0; k < GROUPS; k++) {
        if (!wanted_any || wanted[k])
            groups[k].measure();
    }
    printf("random: %u of %u figures within their bounds\n", judged - failed, judged);
    if (plant)
        return judged > 0 && failed == judged ? 0 : 1;
    return failed == 0 ? 0 : 1;
}
