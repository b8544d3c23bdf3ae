/* The stress test: random operations over threads, heaps, fork and exit, with
 * an oracle that knows every live block without asking the allocator.
 *
 *   stress [--seconds N] [--threads N] [--seed S] [--max-bytes B] [--no-fork]
 *          [--plant KIND] [--grace S] [--no-supervise]
 *
 * The work is done in a child process, so that a crash, an abort or a hang of
 * the allocator is a finding like any other. Seconds default to the variable
 * BULKHEAD_TEST_SECONDS, else 20. Exit status: 0 ok, 1 finding, 2 usage.
 */
#include "stress.h"

#include "oracle.h"
#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_SECONDS 20
#define DEFAULT_GRACE 240
#define TICK_NS 1000000L
#define PHASE_TICKS 400
#define FORK_TICKS 350

/* What may stay resident when nothing is live: control data, caches, stacks of
 * ended threads that libc keeps, page tables' worth of rounding. */
#define RESIDUE_FIXED (64 * MIB)
#define RESIDUE_SHARE 16

struct options opt = {
    .grace = DEFAULT_GRACE,
    .threads = 4,
    .max_bytes = 512 * MIB,
    .supervise = true,
};
atomic_bool stress_stop;

static struct worker workers[WORKERS_MAX];
static uint64_t threads_started;

static const char *const stat_names[STAT_COUNT] = {
    "malloc", "zalloc", "calloc", "aligned_alloc", "posix_memalign", "realloc", "reallocarray",
    "free", "free_sized", "impossible requests", "random checks", "shared and remote frees",
    "heap allocations", "heaps made", "heaps deleted", "heaps destroyed", "collects", "callbacks",
    "blocks mailed", "TLS destructors", "forks",
};

_Noreturn void finding(const char *kind, const char *format, ...)
{
    static atomic_flag taken = ATOMIC_FLAG_INIT;
    char line[512];
    va_list args;
    int n = snprintf(line, sizeof line, "stress: FINDING: %s: ", kind);
    va_start(args, format);
    n += vsnprintf(line + n, sizeof line - (size_t)n - 1, format, args);
    va_end(args);
    size_t length = (size_t)n < sizeof line - 2 ? (size_t)n : sizeof line - 2;
    line[length++] = '\n';
    /* One line, not a chorus: what follows a first finding is noise. */
    if (!atomic_flag_test_and_set(&taken) && write(STDOUT_FILENO, line, length) < 0)
        _exit(3);
    _exit(1);
}

void *table_new(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    if (p == MAP_FAILED) {
        perror("stress: no memory for the test's own tables");
        _exit(3);
    }
    return p;
}

static size_t resident_bytes(void)
{
    size_t pages = 0;
    char text[128] = {0};
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (read(fd, text, sizeof text - 1) > 0 && sscanf(text, "%*u %zu", &pages) != 1)
            pages = 0;
        close(fd);
    }
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

/* Changes phases, wants forks, replaces threads that ended. */
static void control(struct rng *r)
{
    uint64_t end = now_ns() + opt.seconds * UINT64_C(1000000000);
    for (uint64_t tick = 0; now_ns() < end; tick++) {
        if (tick % PHASE_TICKS == 0) {
            atomic_store(&worker_phase, (int)rng_below(r, PHASE_COUNT));
            atomic_store(&worker_target, opt.max_bytes / 8 * (1 + rng_below(r, 7)));
        }
        if (tick % FORK_TICKS == FORK_TICKS - 1 && !opt.no_fork)
            atomic_store(&worker_fork_wanted, true);
        for (unsigned i = 0; i < opt.threads; i++)
            if (atomic_load(&workers[i].finished)) {
                pthread_join(workers[i].thread, NULL);
                worker_start(&workers[i]);
                threads_started++;
            }
        nanosleep(&(struct timespec){.tv_nsec = TICK_NS}, NULL);
    }
}

static void free_at_end(const struct block *b)
{
    ops_free(&workers[0], b);
}

/* With every thread gone, all that the statistics say is in use is in a record
 * (in the shared library also what libc has). */
static void check_figures(void)
{
    if (sut_plant != PLANT_NONE && sut_plant != PLANT_FIGURES)
        return;
    struct sum expected = {0};
    store_sum(&expected);
    bh_collect(false);
    size_t used = sut_used_bytes();
    if (used < expected.bytes || (STRESS_ALONE && used != expected.bytes))
        finding("figures", "%zu bytes in use, %" PRIu64 " in %" PRIu64 " live blocks", used, expected.bytes, expected.count);
}

static void check_residue(size_t before)
{
    /* The thread sanitizer's shadow of the tables grows when they go: gigabytes
     * for a figure that means nothing there. */
    if (STRESS_TSAN)
        return;
    size_t peak = atomic_load(&ops_peak_bytes);
    oracle_discard();
    store_discard();
    bh_collect(true);
    size_t after = resident_bytes();
    size_t growth = after > before ? after - before : 0;
    size_t bound = RESIDUE_FIXED + peak / RESIDUE_SHARE;
    printf("  resident at end    %zu KiB more than at start (bound %zu KiB)\n", growth / KIB,
           bound / KIB);
    /* The address sanitizer's shadow memory stays: no figure to hold against anybody. */
    if (growth > bound && (!STRESS_SANITIZED || sut_plant == PLANT_LEAK)) {
        fflush(stdout);
        finding("residue", "%zu KiB stay resident with no live block", growth / KIB);
    }
}

static int run(void)
{
    struct rng r = {opt.seed};
    oracle_init();
    store_init();
    worker_init();
    size_t before = resident_bytes();
    bh_register_deferred_free(worker_deferred_free, &worker_callback_mark);
    atomic_store(&worker_target, opt.max_bytes / 2);
    for (unsigned i = 0; i < opt.threads; i++) {
        workers[i].index = i;
        workers[i].rng.state = rng_next(&r);
        worker_start(&workers[i]);
        threads_started++;
    }
    control(&r);
    atomic_store(&stress_stop, true);
    for (unsigned i = 0; i < opt.threads; i++)
        pthread_join(workers[i].thread, NULL);

    atomic_store(&worker_callback_quiet, true);
    check_figures();
    store_drain(free_at_end);
    if (atomic_load(&ops_live_bytes) != 0)
        finding("oracle", "%zu bytes live after the last free", atomic_load(&ops_live_bytes));
    bh_register_deferred_free(NULL, NULL);

    for (int s = 0; s < STAT_COUNT; s++) {
        uint64_t sum = 0;
        for (unsigned i = 0; i < opt.threads; i++)
            sum += workers[i].stats[s];
        printf("  %-24s %" PRIu64 "\n", stat_names[s], sum);
    }
    printf("  %-24s %" PRIu64 "\n", "threads created", threads_started);
    printf("  %-24s %zu\n", "peak live bytes", atomic_load(&ops_peak_bytes));
    check_residue(before);
    printf("stress: ok\n");
    fflush(stdout);
    return 0;
}

/* Waits for the process that does the work; anything but a plain exit is a
 * finding. */
static int supervise(pid_t pid)
{
    uint64_t end = now_ns() + (opt.seconds + opt.grace) * UINT64_C(1000000000);
    int status;
    pid_t got;
    while ((got = waitpid(pid, &status, WNOHANG)) == 0 && now_ns() < end)
        nanosleep(&(struct timespec){.tv_nsec = 10 * TICK_NS}, NULL);
    if (got == 0) {
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        finding("hang", "no end %u seconds after the time was up", opt.grace);
    }
    if (got < 0)
        finding("hang", "waitpid: %s", strerror(errno));
    if (WIFSIGNALED(status))
        finding("signal", "the process ended with signal %d (%s)", WTERMSIG(status),
                strsignal(WTERMSIG(status)));
    if (WEXITSTATUS(status) > 3)
        finding("status", "the process ended with status %d: a sanitizer's report?",
                WEXITSTATUS(status));
    return WEXITSTATUS(status);
}

static _Noreturn void usage(void)
{
    fputs("usage: stress [--seconds N] [--threads N] [--seed S] [--max-bytes B] [--no-fork]\n"
          "              [--plant KIND] [--grace S] [--no-supervise]\n",
          stderr);
    exit(2);
}

static uint64_t number(const char *text)
{
    char *end;
    errno = 0;
    unsigned long long value = text == NULL ? 0 : strtoull(text, &end, 0);
    if (text == NULL || *text == '\0' || *end != '\0' || errno != 0)
        usage();
    return value;
}

static void parse(int argc, char **argv)
{
    const char *seconds = getenv("BULKHEAD_TEST_SECONDS");
    opt.seconds = seconds != NULL ? (unsigned)number(seconds) : DEFAULT_SECONDS;
    opt.seed = now_ns() ^ (uint64_t)getpid() << 40;
    for (int i = 1; i < argc; i++) {
        const char *value = argv[i + 1]; /* argv ends with NULL */
        if (strcmp(argv[i], "--no-fork") == 0) {
            opt.no_fork = true;
            continue;
        }
        if (strcmp(argv[i], "--no-supervise") == 0) {
            opt.supervise = false;
            continue;
        }
        if (strcmp(argv[i], "--seconds") == 0)
            opt.seconds = (unsigned)number(value);
        else if (strcmp(argv[i], "--threads") == 0)
            opt.threads = (unsigned)number(value);
        else if (strcmp(argv[i], "--seed") == 0)
            opt.seed = number(value);
        else if (strcmp(argv[i], "--max-bytes") == 0)
            opt.max_bytes = number(value);
        else if (strcmp(argv[i], "--grace") == 0)
            opt.grace = (unsigned)number(value);
        else if (strcmp(argv[i], "--plant") != 0 || value == NULL ||
                 (sut_plant = plant_by_name(value)) == PLANT_COUNT)
            usage();
        i++;
    }
    if (opt.threads == 0 || opt.threads > WORKERS_MAX)
        usage();
    /* A thread sanitizer does not follow a fork in a threaded process. */
    if (STRESS_TSAN)
        opt.no_fork = true;
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    printf("stress: seed %#" PRIx64 ", %u threads, %u seconds, %zu MiB%s\n", opt.seed, opt.threads,
           opt.seconds, opt.max_bytes / MIB, opt.no_fork ? ", no fork" : "");
    fflush(stdout);
    if (!opt.supervise)
        return run();
    pid_t pid = fork();
    if (pid < 0) {
        perror("stress: fork");
        return 3;
    }
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        return run();
    }
    return supervise(pid);
}
