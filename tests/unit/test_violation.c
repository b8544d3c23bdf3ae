/* rt/violation.c: one complete line, then the certain end. */
#include "os/os.h"
#include "rt/violation.h"
#include "support.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static unit_child_t child;

/* The ids are part of the interface: written here a second time on purpose. */
static const struct {
    bhi_violation_t what;
    const char *id;
} ids[] = {
    {BHI_DOUBLE_FREE, "double-free"},
    {BHI_INVALID_FREE, "invalid-free"},
    {BHI_FOREIGN_FREE, "foreign-free"},
    {BHI_REALLOC_AFTER_FREE, "realloc-after-free"},
    {BHI_INVALID_REALLOC, "invalid-realloc"},
    {BHI_FOREIGN_REALLOC, "foreign-realloc"},
    {BHI_QUERY_AFTER_FREE, "query-after-free"},
    {BHI_INVALID_QUERY, "invalid-query"},
    {BHI_FOREIGN_QUERY, "foreign-query"},
    {BHI_SIZE_MISMATCH, "size-mismatch"},
    {BHI_KIND_MISMATCH, "kind-mismatch"},
    {BHI_HEAP_MISUSE, "heap-misuse"},
    {BHI_OVERFLOW, "overflow"},
    {BHI_UNDERFLOW, "underflow"},
    {BHI_WRITE_AFTER_FREE, "write-after-free"},
    {BHI_USE_AFTER_FREE, "use-after-free"},
    {BHI_GUARD_OVERFLOW, "guard-overflow"},
    {BHI_GUARD_UNDERFLOW, "guard-underflow"},
    {BHI_CORRUPT_LIST, "corrupt-list"},
    {BHI_CORRUPT_CONTROL, "corrupt-control"},
    {BHI_ALLOCATION_CAP, "allocation-cap"},
    {BHI_UNSUPPORTED_SYSTEM, "unsupported-system"},
    {BHI_NO_ENTROPY, "no-entropy"},
};

static void violate(void *arg)
{
    bhi_violation(*(bhi_violation_t *)arg, 0xabc123);
}

START_TEST(every_id)
{
    ck_assert_uint_eq(sizeof ids / sizeof ids[0], BHI_VIOLATIONS);
    for (size_t i = 0; i < BHI_VIOLATIONS; i++) {
        bhi_violation_t what = ids[i].what;
        ck_assert_str_eq(bhi_violation_id(what), ids[i].id);
        unit_assert_violation(violate, &what, ids[i].id);
        unit_fork(violate, &what, &child);
        const char *end = " (address 0xabc123)\n", *line_end = strchr(child.err, '\n') + 1;
        ck_assert_int_eq(strncmp(line_end - strlen(end), end, strlen(end)), 0);
    }
}
END_TEST

START_TEST(a_corrupted_id_still_ends_the_process)
{
    bhi_violation_t what = (bhi_violation_t)9999;
    unit_assert_violation(violate, &what, "unknown");
}
END_TEST

static void report_only(void *arg)
{
    bhi_violation_report_only(*(bhi_violation_t *)arg, 0x10);
    bhi_violation_report_only(*(bhi_violation_t *)arg, 0x20);
}

START_TEST(report_only_goes_on)
{
    bhi_violation_t what = BHI_FOREIGN_FREE;
    unit_fork(report_only, &what, &child);
    ck_assert(WIFEXITED(child.status) && WEXITSTATUS(child.status) == 0);
    ck_assert_uint_eq(unit_lines(child.err, "bulkhead: ERROR: foreign-free: "), 2);
    ck_assert_uint_eq(unit_lines(child.err, "bulkhead:   thread "), 2);
}
END_TEST

/* ------------------------------------------------------------ certain end */

static void handler(int signal)
{
    (void)signal;
    _exit(0);
}

static void violate_blocked(void *arg)
{
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    violate(arg);
}

static void violate_ignored(void *arg)
{
    signal(SIGABRT, SIG_IGN);
    violate(arg);
}

static void violate_handled(void *arg)
{
    signal(SIGABRT, handler);
    violate_blocked(arg);
}

static void violate_silent(void *arg)
{
    close(2);
    violate(arg);
}

START_TEST(nothing_keeps_it_from_ending)
{
    bhi_violation_t what = BHI_DOUBLE_FREE;
    unit_assert_violation(violate_blocked, &what, "double-free");
    unit_assert_violation(violate_ignored, &what, "double-free");
    unit_assert_violation(violate_handled, &what, "double-free");
    unit_fork(violate_silent, &what, &child);
    ck_assert(WIFSIGNALED(child.status) && WTERMSIG(child.status) == SIGABRT);
}
END_TEST

/* ----------------------------------------------------------- many at once */

static pthread_barrier_t together;

static void *violate_together(void *arg)
{
    pthread_barrier_wait(&together);
    violate(arg);
    return NULL;
}

static unsigned thread_count;

static void violate_in_threads(void *arg)
{
    pthread_t thread;
    pthread_barrier_init(&together, NULL, thread_count);
    for (unsigned i = 0; i < thread_count; i++)
        pthread_create(&thread, NULL, violate_together, arg);
    for (;;)
        pause();
}

START_TEST(many_threads_one_line)
{
    bhi_violation_t what = BHI_INVALID_FREE;
    for (thread_count = 2; thread_count <= 64; thread_count += thread_count < 8 ? 1 : 28) {
        for (int i = 0; i < 6; i++)
            unit_assert_violation(violate_in_threads, &what, "invalid-free");
    }
}
END_TEST

/* A reporter that cannot write must not keep the process alive. */
static void *violate_later(void *arg)
{
    usleep(200000);
    violate(arg);
    return NULL;
}

static void violate_into_full_pipe(void *arg)
{
    int ends[2];
    if (pipe(ends) != 0)
        _exit(9);
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    char fill[4096] = {0};
    while (write(ends[1], fill, sizeof fill) > 0)
        ;
    while (write(ends[1], fill, 1) > 0)
        ;
    fcntl(ends[1], F_SETFL, 0);
    dup2(ends[1], 2);
    pthread_t thread;
    pthread_create(&thread, NULL, violate_later, arg);
    violate(arg);
}

START_TEST(a_stuck_reporter_is_not_awaited_for_ever)
{
    bhi_violation_t what = BHI_DOUBLE_FREE;
    time_t before = time(NULL);
    unit_fork(violate_into_full_pipe, &what, &child);
    ck_assert(WIFSIGNALED(child.status) && WTERMSIG(child.status) == SIGABRT);
    ck_assert_int_lt(time(NULL) - before, 30);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("violation");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, every_id);
    tcase_add_test(c, a_corrupted_id_still_ends_the_process);
    tcase_add_test(c, report_only_goes_on);
    tcase_add_test(c, nothing_keeps_it_from_ending);
    tcase_add_test(c, many_threads_one_line);
    tcase_add_test(c, a_stuck_reporter_is_not_awaited_for_ever);
    suite_add_tcase(s, c);
    return unit_main(s);
}
