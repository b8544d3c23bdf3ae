/* core/fault.c: what an access was, and that the handler leaves all others alone. The
 * program runs with guarded_sample_rate=1. */
#include "bulkhead.h"
#include "core/fault.h"
#include "rt/stack.h"
#include "support.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <unwind.h>

/* So that the unwinder is there. */
__attribute__((used)) static _Unwind_Reason_Code (*volatile unwinder)(_Unwind_Trace_Fn, void *) = _Unwind_Backtrace;
__attribute__((used)) static _Unwind_Ptr (*volatile address_in)(struct _Unwind_Context *, int *) = _Unwind_GetIPInfo;

/* ------------------------------------------------------------- classification */

enum { PAGE = 4096 };

/* A block of `size` in one page at `data`, right-aligned. */
static bhi_fault_slot_t slot(uintptr_t data, size_t size, bhi_guarded_state_t state)
{
    return (bhi_fault_slot_t){data, data + PAGE - size, PAGE, size, state};
}

START_TEST(accesses_are_told_apart)
{
    uintptr_t d = 0x10000;
    bhi_fault_slot_t live = slot(d, 100, BHI_GUARDED_LIVE), next = slot(d + 2 * PAGE, 100, BHI_GUARDED_LIVE);
    bhi_violation_t what;
    ck_assert_int_eq(bhi_fault_classify(d + PAGE, &live, NULL, &what), BHI_FAULT_FIRST);
    ck_assert_int_eq(what, BHI_GUARD_OVERFLOW);
    ck_assert_int_eq(bhi_fault_classify(d - 1, NULL, &live, &what), BHI_FAULT_SECOND);
    ck_assert_int_eq(what, BHI_GUARD_UNDERFLOW);
    /* Between two live ones the nearer. */
    ck_assert_int_eq(bhi_fault_classify(d + PAGE + 4000, &live, &next, &what), BHI_FAULT_FIRST);
    next.block = next.data;
    ck_assert_int_eq(bhi_fault_classify(d + PAGE + 100, &live, &next, &what), BHI_FAULT_FIRST);
    ck_assert_int_eq(bhi_fault_classify(d + PAGE + 4000, &live, &next, &what), BHI_FAULT_SECOND);
    ck_assert_int_eq(what, BHI_GUARD_UNDERFLOW);
    /* A live one before a freed one, however far. */
    next.state = BHI_GUARDED_FREED;
    ck_assert_int_eq(bhi_fault_classify(d + PAGE + 4000, &live, &next, &what), BHI_FAULT_FIRST);
    live.state = BHI_GUARDED_FREED;
    ck_assert_int_eq(bhi_fault_classify(d + PAGE + 4000, &live, &next, &what), BHI_FAULT_SECOND);
    ck_assert_int_eq(what, BHI_USE_AFTER_FREE);
    ck_assert_int_eq(bhi_fault_classify(d + 5, &live, &next, &what), BHI_FAULT_FIRST);
    ck_assert_int_eq(what, BHI_USE_AFTER_FREE);
    live.state = BHI_GUARDED_CLOSING;
    ck_assert_int_eq(bhi_fault_classify(d + 5, &live, &next, &what), BHI_FAULT_FIRST);
    /* The data of a live block are the program's: it may have closed them itself. */
    live.state = BHI_GUARDED_LIVE;
    ck_assert_int_eq(bhi_fault_classify(d + 5, &live, &next, &what), BHI_FAULT_NONE);
    live.state = next.state = BHI_GUARDED_UNUSED;
    ck_assert_int_eq(bhi_fault_classify(d + 5, &live, &next, &what), BHI_FAULT_NONE);
    ck_assert_int_eq(bhi_fault_classify(d + PAGE, &live, &next, &what), BHI_FAULT_NONE);
}
END_TEST

/* Any values give one of the answers that the states allow. */
START_TEST(any_values_are_classified)
{
    uint64_t seed = unit_seed("classify");
    for (int i = 0; i < 1000000; i++) {
        bhi_fault_slot_t s[2];
        for (int k = 0; k < 2; k++) {
            uintptr_t data = unit_random(&seed) >> unit_below(&seed, 64);
            s[k] = (bhi_fault_slot_t){data, data + unit_below(&seed, 8192), unit_below(&seed, 8192), unit_below(&seed, 8192),
                                      (bhi_guarded_state_t)unit_below(&seed, 7)};
        }
        bhi_violation_t what;
        bhi_fault_of_t of = bhi_fault_classify(s[0].data + unit_below(&seed, 20000), &s[0], &s[1], &what);
        if (of == BHI_FAULT_NONE)
            continue;
        bhi_guarded_state_t state = s[of == BHI_FAULT_SECOND].state;
        ck_assert(state == BHI_GUARDED_LIVE || state == BHI_GUARDED_CLOSING || state == BHI_GUARDED_FREED);
        ck_assert((what == BHI_USE_AFTER_FREE) == (state != BHI_GUARDED_LIVE));
    }
}
END_TEST

/* ------------------------------------------------------- handlers of the program's */

static volatile int calls, told_signal, reports;
static void *volatile told_address;
static sigjmp_buf back;
static stack_t alternate;
static bool on_alternate, was_blocked;

static void note(int number, void *address)
{
    char here;
    sigset_t now;
    calls++;
    told_signal = number;
    told_address = address;
    on_alternate = &here >= (char *)alternate.ss_sp && &here < (char *)alternate.ss_sp + alternate.ss_size;
    sigprocmask(SIG_BLOCK, NULL, &now);
    was_blocked = sigismember(&now, SIGUSR1) == 1;
}

static void on_info(int number, siginfo_t *info, void *context)
{
    (void)context;
    note(number, info->si_addr);
    siglongjmp(back, 1);
}

static void on_plain(int number)
{
    note(number, NULL);
    siglongjmp(back, 1);
}

static void set_handler(void (*info)(int, siginfo_t *, void *), void (*plain)(int), int flags)
{
    struct sigaction a;
    memset(&a, 0, sizeof a);
    if (info != NULL)
        a.sa_sigaction = info;
    else
        a.sa_handler = plain;
    sigemptyset(&a.sa_mask);
    sigaddset(&a.sa_mask, SIGUSR1);
    a.sa_flags = flags | (info != NULL ? SA_SIGINFO : 0);
    sigaction(SIGSEGV, &a, NULL);
}

static char *closed_page(void)
{
    return mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void touch(char *at)
{
    calls = 0;
    if (sigsetjmp(back, 1) == 0)
        *(volatile char *)at = 1;
}

static char *freed_block(void)
{
    char *p = bh_malloc(100);
    ck_assert(bhi_guarded_contains((uintptr_t)p));
    bh_free(p);
    return p;
}

static bool said(const unit_child_t *child, const char *text)
{
    return strstr(child->err, text) != NULL;
}

/* What the program finds installed, set before the allocator starts. */
static long asked(void)
{
    const char *value = getenv("BULKHEAD_TEST_HANDLER");
    return value != NULL ? strtol(value + 1, NULL, 0) : 0;
}

static void early(int argc, char **argv, char **env)
{
    static const char name[] = "BULKHEAD_TEST_HANDLER=";
    (void)argc;
    (void)argv;
    while (*env != NULL && strncmp(*env, name, sizeof name - 1) != 0)
        env++;
    const char *value = *env != NULL ? *env + sizeof name - 1 : NULL;
    switch (value != NULL ? *value : 0) {
    case 's': set_handler(on_info, NULL, (int)strtol(value + 1, NULL, 0)); break;
    case 'p': set_handler(NULL, on_plain, 0); break;
    case 'i': signal(SIGSEGV, SIG_IGN); break;
    case 'd': signal(SIGSEGV, SIG_DFL); break;
    default: break;
    }
}
__attribute__((section(".preinit_array"), used)) static void (*const before_constructors)(int, char **, char **) = early;

/* Faults of others reach it untouched, ours after the report, and it may jump away
 * and go on. */
static void chained_info(void)
{
    alternate = (stack_t){.ss_sp = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), .ss_size = 65536};
    sigaltstack(&alternate, NULL);
    char *freed = freed_block(), *other = closed_page();
    for (int i = 0; i < 3; i++) {
        touch(other + 7);
        if (calls != 1 || told_signal != SIGSEGV || told_address != other + 7 || !was_blocked)
            _exit(1);
        if (on_alternate != ((asked() & SA_ONSTACK) != 0))
            _exit(2);
        touch(freed + 3);
        if (calls != 1 || told_address != freed + 3)
            _exit(3);
    }
    bh_free(bh_malloc(100)); /* goes on */
    _exit(0);
}

static unsigned count_of(const char *text, const char *what)
{
    unsigned n = 0;
    for (; (text = strstr(text, what)) != NULL; text++)
        n++;
    return n;
}

static void with(const char *mode, const char *handler, int flags, unit_child_t *child)
{
    char value[64];
    snprintf(value, sizeof value, "BULKHEAD_TEST_HANDLER=%s%d", handler, flags);
    unit_exec(mode, (const char *const[]){value, NULL}, child);
}

START_TEST(an_earlier_handler_is_called)
{
    static const int flags[] = {0, SA_ONSTACK, SA_NODEFER, SA_RESTART | SA_ONSTACK};
    static unit_child_t child;
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        with("info", "s", flags[i], &child);
        ck_assert_msg(WIFEXITED(child.status) && WEXITSTATUS(child.status) == 0, "status %#x", (unsigned)child.status);
        ck_assert_uint_eq(count_of(child.err, "bulkhead: ERROR: use-after-free: "), 3);
        ck_assert_uint_eq(count_of(child.err, "bulkhead: ERROR: "), 3); /* the others are no business of ours */
    }
}
END_TEST

static void chained_plain(void)
{
    char *freed = freed_block(), *other = closed_page();
    touch(other);
    if (calls != 1 || told_signal != SIGSEGV)
        _exit(1);
    touch(freed);
    _exit(calls == 1 ? 0 : 2);
}

START_TEST(a_plain_one_too)
{
    static unit_child_t child;
    with("plain", "p", 0, &child);
    ck_assert(WIFEXITED(child.status) && WEXITSTATUS(child.status) == 0);
    ck_assert_uint_eq(count_of(child.err, "bulkhead: ERROR: "), 1);
}
END_TEST

/* SA_RESETHAND: the second fault ends the process. */
static void reset_hand(void)
{
    char *other = closed_page();
    touch(other);
    if (calls != 1)
        _exit(1);
    touch(other);
    _exit(2);
}

static void touch_other(void)
{
    touch(closed_page());
    _exit(2);
}

static void touch_ours(void)
{
    touch(freed_block());
    _exit(2);
}

static void sent(void)
{
    raise(SIGSEGV);
    _exit(7); /* ignored */
}

START_TEST(without_one_the_kernel_ends_it)
{
    static const struct {
        const char *mode, *handler;
        int flags;
        bool ours;
    } cases[] = {{"reset", "s", (int)SA_RESETHAND, false}, {"other", "d", 0, false}, {"ours", "d", 0, true}, {"other", "i", 0, false},
                 {"ours", "i", 0, true}, {"sent", "d", 0, false}};
    static unit_child_t child;
    with("sent", "i", 0, &child);
    ck_assert(WIFEXITED(child.status) && WEXITSTATUS(child.status) == 7);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        with(cases[i].mode, cases[i].handler, cases[i].flags, &child);
        ck_assert_msg(WIFSIGNALED(child.status) && WTERMSIG(child.status) == SIGSEGV, "case %zu: %#x", i, (unsigned)child.status);
        ck_assert_uint_eq(count_of(child.err, "bulkhead: ERROR: use-after-free"), cases[i].ours);
    }
}
END_TEST

/* A program that closes its own blocks and minds the faults, as collectors do. */
static char *mine;
static void open_mine(int number, siginfo_t *info, void *context)
{
    note(number, info->si_addr);
    if (bh_handle_segv(number, info, context))
        _exit(9);
    mprotect(mine, 4096, PROT_READ | PROT_WRITE);
}

static void collector(void *late)
{
    if (late == NULL)
        set_handler(open_mine, NULL, 0);
    mine = bh_aligned_alloc(4096, 4096);
    if (late != NULL)
        set_handler(open_mine, NULL, 0);
    for (int i = 1; i <= 10; i++) {
        mprotect(mine, 4096, PROT_NONE);
        mine[i] = 1;
        if (calls != i)
            _exit(1);
    }
    bh_free(mine);
}

START_TEST(faults_that_the_program_wants_are_its_own)
{
    unit_assert_quiet(collector, NULL);
    unit_assert_quiet(collector, &mine);
}
END_TEST

/* A handler installed later, which asks. */
static void on_late(int number, siginfo_t *info, void *context)
{
    if (bh_handle_segv(number, info, context))
        return;
    calls++;
    siglongjmp(back, 1);
}

static void late_handler(void *arg)
{
    (void)arg;
    char *freed = freed_block();
    set_handler(on_late, NULL, 0);
    touch(freed + 1);
    if (calls != 1)
        _exit(1);
    touch(closed_page());
    _exit(calls == 1 ? 0 : 2);
}

START_TEST(a_later_handler_can_ask)
{
    static unit_child_t child;
    unit_fork(late_handler, NULL, &child);
    ck_assert(WIFEXITED(child.status) && WEXITSTATUS(child.status) == 0);
    ck_assert(said(&child, "use-after-free") && count_of(child.err, "bulkhead: ERROR: ") == 1);
    ck_assert(said(&child, "1 bytes inside it") && said(&child, "access: write"));
}
END_TEST

/* -------------------------------------------------------------------- the report */

static void keep_report(const bh_report_t *r, void *arg)
{
    (void)arg;
    reports++;
    char line[200];
    int n = snprintf(line, sizeof line, "callback %s %s %td %zu %d %d %d %d %d\n", r->id, r->access, r->offset, r->requested_size,
                     r->fatal, r->alloc_thread == getpid(), r->alloc_depth > 0, r->free_depth > 0, r->here_depth > 0);
    if (write(2, line, (size_t)n) != n)
        _exit(8);
}

static void with_callback(void *arg)
{
    (void)arg;
    char *freed = freed_block();
    bh_register_report(keep_report, NULL);
    (void)*(volatile char *)(freed + 42);
}

START_TEST(the_callback_knows_it_all)
{
    static unit_child_t child;
    unit_fork(with_callback, NULL, &child);
    ck_assert_int_eq(WTERMSIG(child.status), SIGSEGV);
    ck_assert_msg(said(&child, "callback use-after-free read 42 100 1 1 1 1 1"), "%s", child.err);
}
END_TEST

static void fault_again(const bh_report_t *r, void *arg)
{
    (void)r;
    *(volatile char *)arg = 1;
}

static void nested(void *arg)
{
    (void)arg;
    bh_register_report(fault_again, closed_page());
    *(volatile char *)freed_block() = 1;
}

START_TEST(a_fault_in_the_report_ends_in_one_line)
{
    static unit_child_t child;
    unit_fork(nested, NULL, &child);
    ck_assert_int_eq(WTERMSIG(child.status), SIGABRT);
    ck_assert(said(&child, "bulkhead: while reporting: fault (address 0x"));
    ck_assert_uint_eq(count_of(child.err, "bulkhead: ERROR"), 1);
}
END_TEST

/* As JSON: one line, whatever the stacks. */
START_TEST(json_is_one_line)
{
    static const char *const env[] = {"BULKHEAD_REPORT=json", NULL};
    static unit_child_t child;
    unit_exec("fault", env, &child);
    ck_assert_int_eq(WTERMSIG(child.status), SIGSEGV);
    ck_assert_uint_eq(unit_lines(child.err, ""), 1);
    static const char *const parts[] = {"{\"bulkhead\":\"ERROR\",\"id\":\"use-after-free\"", "\"access\":\"write\"", "\"alloc_stack\":[\"",
                                        "\"free_stack\":[\"", "\"stack\":[\"", "\"place\":\"guarded block\"", "\"requested_size\":100", "}\n"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        ck_assert_msg(said(&child, parts[i]), "%s: %s", parts[i], child.err);
}
END_TEST

/* ----------------------------------------------------------------------- recovery */

static void recover(void)
{
    char *p = bh_malloc(100), *freed = freed_block(), *guard = (char *)(((uintptr_t)p | (BH_OS_PAGE_SIZE - 1)) + 1);
    *(volatile char *)freed = 1;
    *(volatile char *)(freed + 1) = 1;
    *(volatile char *)guard = 1;
    *(volatile char *)guard = 2;
    ck_assert(*freed == 1 && *guard == 2);
    bh_free(p);
    for (int i = 0; i < 100; i++)
        bh_free(bh_malloc(100));
    fprintf(stderr, "went on\n");
}

START_TEST(recovery_reports_once_and_goes_on)
{
    static const char *const env[] = {"BULKHEAD_GUARDED_RECOVER=1", NULL};
    static unit_child_t child;
    unit_exec("recover", env, &child);
    ck_assert_msg(WIFEXITED(child.status) && WEXITSTATUS(child.status) == 0, "%#x %s", (unsigned)child.status, child.err);
    ck_assert_uint_eq(count_of(child.err, "bulkhead: ERROR: use-after-free"), 1);
    ck_assert_uint_eq(count_of(child.err, "bulkhead: ERROR: guard-overflow"), 1);
    ck_assert(said(&child, "went on"));
}
END_TEST

/* Eight threads at once: each report whole, none between the lines of another. */
static _Atomic(int) ready;
static void *one_of_many(void *freed)
{
    ready++;
    while (ready < 8)
        ;
    *(volatile char *)freed = 1;
    return NULL;
}

static void many(void *arg)
{
    (void)arg;
    pthread_t t[8];
    for (int i = 0; i < 8; i++)
        pthread_create(&t[i], NULL, one_of_many, freed_block());
    for (int i = 0; i < 8; i++)
        pthread_join(t[i], NULL);
}

START_TEST(threads_report_one_by_one)
{
    static unit_child_t child;
    for (int i = 0; i < 20; i++) {
        unit_fork(many, NULL, &child);
        ck_assert_int_eq(WTERMSIG(child.status), SIGSEGV);
        unsigned n = count_of(child.err, "bulkhead: ERROR: use-after-free"), starts = 0;
        ck_assert_uint_ge(n, 1);
        for (const char *at = child.err; (at = strstr(at, "bulkhead: ERROR")) != NULL; at++)
            starts += at == child.err || at[-1] == '\n';
        ck_assert_uint_eq(starts, n);
        ck_assert(said(&child, "freed by thread"));
    }
}
END_TEST

/* ------------------------------------------------------------------------- stacks */

__attribute__((noinline)) static unsigned deeper(unsigned n)
{
    uintptr_t frames[BH_STACK_DEPTH];
    unsigned got = n > 0 ? deeper(n - 1) : bhi_stack_here(frames, BH_STACK_DEPTH);
    __asm__ volatile("" : "+r"(got)); /* no tail call */
    return got;
}

START_TEST(stacks_have_the_callers)
{
    bh_free(bh_malloc(1));
    ck_assert_uint_ge(deeper(6), 7);
    uintptr_t frames[BH_STACK_DEPTH];
    ck_assert_uint_eq(bhi_stack_here(frames, 3), 3);
    bhi_module_t m;
    if (bhi_module_find((uintptr_t)&deeper, &m)) { /* not every libc can tell */
        ck_assert_str_eq(m.name, "");
        ck_assert_uint_lt(m.offset, (uintptr_t)1 << 30);
    }
    ck_assert(!bhi_module_find((uintptr_t)&frames, &m));
}
END_TEST

int main(int argc, char **argv)
{
    static const struct {
        const char *mode;
        void (*run)(void);
    } modes[] = {{"info", chained_info}, {"plain", chained_plain}, {"reset", reset_hand}, {"other", touch_other},
                 {"ours", touch_ours}, {"fault", touch_ours}, {"sent", sent}, {"recover", recover}};
    for (size_t i = 0; argc > 1 && i < sizeof modes / sizeof modes[0]; i++) {
        if (strcmp(argv[1], modes[i].mode) == 0) {
            modes[i].run();
            return 0;
        }
    }
    Suite *s = suite_create("fault");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, UNIT_TIMEOUT);
    tcase_add_test(all, accesses_are_told_apart);
    tcase_add_test(all, any_values_are_classified);
    tcase_add_test(all, an_earlier_handler_is_called);
    tcase_add_test(all, a_plain_one_too);
    tcase_add_test(all, without_one_the_kernel_ends_it);
    tcase_add_test(all, faults_that_the_program_wants_are_its_own);
    tcase_add_test(all, a_later_handler_can_ask);
    tcase_add_test(all, the_callback_knows_it_all);
    tcase_add_test(all, a_fault_in_the_report_ends_in_one_line);
    tcase_add_test(all, json_is_one_line);
    tcase_add_test(all, recovery_reports_once_and_goes_on);
    tcase_add_test(all, threads_report_one_by_one);
    tcase_add_test(all, stacks_have_the_callers);
    suite_add_tcase(s, all);
    return unit_main(s);
}
