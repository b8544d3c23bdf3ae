/* Reports where something stands in their way: many threads at once, nowhere to
 * write, sandboxes, signals, callbacks that fail. Each child has to end by the
 * violation; where it can write, with one complete report. */
#include "bulkhead.h"
#include "child.h"
#include "report_world.h"
#include "rt/settings.h"
#include "rt/sink.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define LAST_LINE "\nbulkhead:   thread "
#define THREADS 64

static void *block;

static void mark(const char *id, const void *p)
{
    attack_record(id, (uintptr_t)p);
}

/* The bug that every case commits. */
static void double_free(void)
{
    block = bh_malloc(64);
    bh_free(block);
    mark("double-free", block);
    bh_free(block);
}

/* A case that cannot be made here says so and ends. */
static void skip(void)
{
    attack_record("skip", 0);
    _exit(0);
}

/* ------------------------------------------------------------------- threads */

static pthread_barrier_t together;

static void *fail_together(void *arg)
{
    void *p = bh_malloc(64);
    bh_free(p);
    pthread_barrier_wait(&together);
    bh_free(p);
    return arg;
}

static void many_threads(void *arg)
{
    pthread_t thread;
    (void)arg;
    pthread_barrier_init(&together, NULL, THREADS);
    for (int i = 0; i < THREADS - 1; i++) {
        if (pthread_create(&thread, NULL, fail_together, NULL) != 0)
            attack_broken("pthread_create");
    }
    attack_record("double-free", 0);
    fail_together(NULL);
    for (;;)
        pause();
}

/* -------------------------------------------------------------- nowhere to go */

static void closed_error(void *arg)
{
    (void)arg;
    close(2);
    double_free();
}

static void full_disk(void *arg)
{
    (void)arg;
    int fd = open("/dev/full", O_WRONLY);
    if (fd < 0 || dup2(fd, 2) < 0)
        skip();
    double_free();
}

static void nobody_reads(void *arg)
{
    int ends[2];
    (void)arg;
    if (pipe(ends) != 0 || dup2(ends[1], 2) < 0)
        attack_broken("pipe");
    close(ends[0]);
    double_free();
}

static void size_limit(void *arg)
{
    struct rlimit none = {0, 0};
    char path[] = "/tmp/bulkhead-report-XXXXXX";
    int fd = mkstemp(path);
    (void)arg;
    if (fd < 0 || dup2(fd, 2) < 0 || unlink(path) != 0 || setrlimit(RLIMIT_FSIZE, &none) != 0)
        skip();
    double_free();
}

static void empty_root(void *arg)
{
    int local;
    (void)arg;
    if (!world_empty_root(NULL))
        skip();
    world_remove_root();
    mark("foreign-free", &local);
    bh_free((void *)((uintptr_t)&local)); /* its mapping cannot be looked up */
}

/* ------------------------------------------------------------------- signals */

static jmp_buf away;

static void returns(int signal)
{
    (void)signal;
}

static void jumps(int signal)
{
    (void)signal;
    longjmp(away, 1);
}

static void handle(void (*handler)(int))
{
    signal(SIGABRT, handler);
    signal(SIGILL, handler);
    signal(SIGTRAP, handler);
    if (setjmp(away) != 0)
        _exit(42); /* went on */
}

static void blocked(void *arg)
{
    sigset_t all;
    (void)arg;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    double_free();
}

static void handled(void *arg)
{
    handle(*(void (**)(int))arg);
    double_free();
}

/* Process 1 may be deaf to every signal of its own, and an alarm is not inherited. */
static int wait_or_kill(pid_t pid)
{
    int status = 0;
    for (int i = 0; i < 2000; i++) {
        if (waitpid(pid, &status, WNOHANG) == pid)
            return status;
        usleep(10000);
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return 0; /* as if it had gone on */
}

/* As process 1, whose end its parent tells. */
static void process_1(void *arg)
{
    if (unshare(CLONE_NEWPID) != 0)
        skip();
    pid_t pid = fork();
    if (pid < 0)
        skip();
    if (pid == 0) {
        if (arg != NULL)
            handle(*(void (**)(int))arg);
        double_free();
        _exit(0);
    }
    int status = wait_or_kill(pid);
    attack_record(WIFSIGNALED(status) && (WTERMSIG(status) == SIGABRT || WTERMSIG(status) == SIGILL || WTERMSIG(status) == SIGTRAP)
                      ? "ended" : "went on", (uintptr_t)status);
    abort(); /* stands for the end of its child */
}

/* ----------------------------------------------------------------- sandboxes */

static void sandboxed(void *arg)
{
    world_filter_t filter = *(world_filter_t *)arg;
    block = bh_malloc(64);
    bh_free(block);
    mark("double-free", block);
    if (!world_sandbox(filter))
        skip();
    bh_free(block);
    for (;;) /* going on must not look like an end */
        ;
}

static void sandboxed_foreign(void *arg)
{
    int local = 0;
    mark("foreign-free", &local);
    if (!world_sandbox(*(world_filter_t *)arg))
        skip();
    bh_free((void *)(uintptr_t)&local);
    for (;;)
        ;
}

/* ----------------------------------------------------------------- callbacks */

static void recording(const bh_report_t *r, void *arg)
{
    attack_record(r->id, (uintptr_t)r->address);
    attack_record(r->place, (uintptr_t)r->block);
    attack_record(r->state, (uintptr_t)arg);
    attack_record(r->fatal ? "fatal" : "goes on", r->struct_size);
}

static void failing(const bh_report_t *r, void *arg)
{
    (void)r;
    attack_record("called", 0);
    bh_free(arg);
}

static void faulting(const bh_report_t *r, void *arg)
{
    (void)r;
    attack_record("called", 0);
    *(volatile char *)arg = 1;
}

static void stopping(const bh_report_t *r, void *arg)
{
    (void)r;
    (void)arg;
    raise(SIGSTOP);
}

static void with_recording(void *arg)
{
    (void)arg;
    bh_register_report(recording, &block);
    double_free();
}

static void with_failing(void *arg)
{
    (void)arg;
    bh_register_report(failing, (char *)bh_malloc(64) + 1);
    double_free();
}

static void with_faulting(void *arg)
{
    handle(*(void (**)(int))arg);
    signal(SIGSEGV, *(void (**)(int))arg);
    bh_register_report(faulting, (void *)16);
    double_free();
}

/* An attacker's write to the pointer. */
static void overwrite_callback(void *arg)
{
    (void)arg;
    bh_register_report(recording, NULL);
    signal(SIGSEGV, SIG_DFL);
    attack_record("overwrite", (uintptr_t)&bhi_settings.report_fun);
    *(volatile uintptr_t *)(uintptr_t)&bhi_settings.report_fun = 0x41414141;
}

/* ------------------------------------------------------------------ judgement */

typedef enum wanted {
    REPORT,   /* exactly one complete report, SIGABRT */
    SILENCE,  /* SIGABRT; whatever was written */
    FIRST,    /* the first line, then an end by a signal or by exit 134: a sandbox may leave no other */
    END,      /* such an end */
    SEGV,     /* no report, SIGSEGV */
} wanted_t;

static unsigned count(const char *text, const char *what)
{
    unsigned n = 0;
    for (const char *at = strstr(text, what); at != NULL; at = strstr(at + 1, what))
        n++;
    return n;
}

/* `text`: must be in what was written; `record`: must have been recorded. */
static const char *judge(const attack_end_t *end, wanted_t wanted, const char *text, const char *record)
{
    if (end->count == 0)
        return "never came to its last step";
    if (record != NULL && !attack_has(end, record))
        return "a record is missing";
    if (text != NULL && strstr(end->text, text) == NULL)
        return "a text is missing";
    if (wanted == SEGV)
        return WIFSIGNALED(end->status) && WTERMSIG(end->status) == SIGSEGV && end->text[0] == '\0' ? NULL : "no SIGSEGV";
    if (wanted == FIRST || wanted == END) {
        bool ends = WIFSIGNALED(end->status) ? WTERMSIG(end->status) != SIGALRM : WEXITSTATUS(end->status) == 128 + SIGABRT;
        bool first = strncmp(end->text, "bulkhead: ERROR: ", 17) == 0;
        return !ends ? "no end" : wanted == FIRST && !first ? "no first line" : NULL;
    }
    if (wanted == SILENCE)
        return WIFSIGNALED(end->status) && WTERMSIG(end->status) == SIGABRT ? NULL : "no SIGABRT";
    const char *why = attack_verdict(end);
    if (why != NULL)
        return why;
    return count(end->text, LAST_LINE) == 1 ? NULL : "not one complete report";
}

static unsigned tried, failed;

static void result(const char *name, const char *why, const attack_end_t *end)
{
    tried++;
    failed += why != NULL;
    printf("%-4s %s%s%s\n", why == NULL ? "ok" : "FAIL", name, why == NULL ? "" : ": ", why == NULL ? "" : why);
    if (why != NULL && end != NULL)
        printf("  status 0x%x, text: %s\n", (unsigned)end->status, end->text);
}

static bool skipped(const char *name, const attack_end_t *end)
{
    bool is = attack_has(end, "skip") || (end->count > 0 && strcmp(end->records[0].word, "skip") == 0);
    if (is)
        printf("skip %s: not permitted here\n", name);
    return is;
}

static void (*const handler_returns)(int) = returns, (*const handler_jumps)(int) = jumps, (*const handler_none)(int) = SIG_IGN;
static const world_filter_t filters[] = {WORLD_OPENSSH, WORLD_CHROMIUM, WORLD_MUTE, WORLD_NOTHING};

static const struct {
    const char *name;
    void (*body)(void *);
    const void *arg;
    wanted_t wanted;
    const char *text, *record;
} cases[] = {
    {"64 threads at once", many_threads, NULL, REPORT, NULL, NULL},
    {"standard error closed", closed_error, NULL, SILENCE, NULL, NULL},
    {"standard error on a full disk", full_disk, NULL, SILENCE, NULL, NULL},
    {"standard error a pipe that nobody reads", nobody_reads, NULL, SILENCE, NULL, NULL},
    {"standard error a file at its size limit", size_limit, NULL, SILENCE, NULL, NULL},
    {"changed root, foreign pointer", empty_root, NULL, REPORT, "cannot be read", NULL},
    {"all signals blocked", blocked, NULL, REPORT, NULL, NULL},
    {"SIGABRT ignored", handled, &handler_none, REPORT, NULL, NULL},
    {"SIGABRT handled, handler returns", handled, &handler_returns, REPORT, NULL, NULL},
    {"SIGABRT handled, handler jumps", handled, &handler_jumps, REPORT, NULL, NULL},
    {"process 1", process_1, NULL, REPORT, NULL, "ended"},
    {"process 1, handlers that return", process_1, &handler_returns, REPORT, NULL, "ended"},
    {"process 1, handlers that jump", process_1, &handler_jumps, REPORT, NULL, "ended"},
    {"sandbox as OpenSSH's", sandboxed, &filters[0], FIRST, LAST_LINE, NULL},
    {"sandbox as OpenSSH's, foreign pointer", sandboxed_foreign, &filters[0], FIRST, "cannot be read", NULL},
    {"sandbox as Chromium's", sandboxed, &filters[1], REPORT, NULL, NULL},
    {"sandbox as Chromium's, foreign pointer", sandboxed_foreign, &filters[1], REPORT, "cannot be read", NULL},
    {"sandbox that allows write and exit", sandboxed, &filters[2], FIRST, LAST_LINE, NULL},
    {"sandbox that refuses everything", sandboxed, &filters[3], END, NULL, NULL},
    {"callback", with_recording, NULL, REPORT, NULL, "fatal"},
    {"callback with a violation", with_failing, NULL, REPORT, "\nbulkhead: while reporting: invalid-free", "called"},
    {"callback that faults", with_faulting, &handler_returns, REPORT, "\nbulkhead: while reporting: fault", "called"},
    {"callback that faults, handlers that jump", with_faulting, &handler_jumps, REPORT, "\nbulkhead: while reporting: fault", "called"},
    {"write to the callback's pointer", overwrite_callback, NULL, SEGV, NULL, NULL},
};

static void all_cases(void)
{
    attack_end_t end;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int times = cases[i].body == many_threads ? 10 : 1;
        for (int t = 0; t < times; t++) {
            attack_run(cases[i].body, (void *)(uintptr_t)cases[i].arg, &end);
            if (!skipped(cases[i].name, &end))
                result(cases[i].name, judge(&end, cases[i].wanted, cases[i].text, cases[i].record), &end);
        }
    }
}

/* -------------------------------------------------------------- bh_abort_msg */

static void abort_message(void)
{
    char text[BH_ABORT_MSG_SIZE] = "";
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        close(2);
        bh_register_report(stopping, NULL);
        double_free();
    }
    waitpid(pid, &status, WUNTRACED);
    struct iovec here = {text, sizeof text}, there = {bh_abort_msg, sizeof text};
    ssize_t n = process_vm_readv(pid, &here, 1, &there, 1, 0);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    if (n < 0 && errno == EPERM) {
        puts("skip bh_abort_msg: not permitted here");
        return;
    }
    bool right = WIFSTOPPED(status) && n == sizeof text && strncmp(text, "bulkhead: ERROR: double-free: ", 30) == 0 &&
                 strchr(text, '\n') == NULL && text[strlen(text) - 1] == ')' && bh_abort_msg[0] == '\0';
    result("bh_abort_msg read from outside", right ? NULL : text, NULL);
}

/* ------------------------------------------------------------------ log file */

typedef struct log_case {
    const char *path;
    int other; /* the program closes the file and opens this one, or -1 */
} log_case_t;

static void with_file(void *arg)
{
    const log_case_t *c = arg;
    bool opened = bhi_report_open_file(c->path);
    attack_record(opened ? "opened" : "refused", 0);
    if (c->other >= 0 && dup2(c->other, bhi_settings.report_file) < 0)
        attack_broken("dup2");
    double_free();
}

static void log_file(void)
{
    char path[] = "/tmp/bulkhead-log-XXXXXX", other[] = "/tmp/bulkhead-other-XXXXXX", link_path[64], text[ATTACK_TEXT] = "";
    attack_end_t end;
    struct stat st;
    int fd = mkstemp(path);
    unlink(path);
    close(fd);
    snprintf(link_path, sizeof link_path, "%s-link", path);
    attack_run(with_file, &(log_case_t){path, -1}, &end);
    fd = open(path, O_RDONLY);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    bool same = n > 0 && strcmp(text, end.text) == 0 && fstat(fd, &st) == 0 && (st.st_mode & 0777) == 0600;
    result("log file", same ? NULL : "is not what standard error got", &end);
    close(fd);
    fd = mkstemp(other);
    attack_run(with_file, &(log_case_t){path, fd}, &end);
    result("log file whose descriptor is another's now", fstat(fd, &st) == 0 && st.st_size == 0 ? NULL : "was written", &end);
    close(fd);
    unlink(other);
    bool linked = symlink(path, link_path) == 0;
    attack_run(with_file, &(log_case_t){link_path, -1}, &end);
    result("log file that is a symbolic link", linked && strcmp(end.records[0].word, "refused") == 0 ? NULL : "was opened", &end);
    unlink(link_path);
    unlink(path);
}

/* -------------------------------------- with options, in a process of its own */

/* Early: a sandbox before the allocator starts. */
static bool early_failed;
static void before_start_up(int argc, char **argv, char **env)
{
    (void)env;
    if (argc == 2 && strcmp(argv[1], "early") == 0)
        early_failed = !world_sandbox(WORLD_CHROMIUM);
}
__attribute__((section(".preinit_array"), used)) static void (*const first_pointer)(int, char **, char **) = before_start_up;

static void goes_on(void)
{
    int local;
    bh_register_report(failing, &local);
    attack_record("goes on", 0);
    bh_free((void *)(uintptr_t)&local);
    double_free();
}

/* The log daemon is the child's parent, and in the same root. */
static void syslog_child(bool full)
{
    int log;
    char line[2048];
    unsigned lines = 0;
    if (!world_empty_root(&log))
        skip();
    if (full) {
        struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};
        int out = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        while (sendto(out, "x", 1, 0, (struct sockaddr *)&name, sizeof name) == 1)
            ;
    }
    pid_t pid = fork();
    if (pid == 0)
        double_free();
    attack_record(WIFSIGNALED(wait_or_kill(pid)) ? "ended" : "hung", 0);
    for (ssize_t n; (n = recv(log, line, sizeof line - 1, MSG_DONTWAIT)) > 0; lines++) {
        line[n] = '\0';
        if (lines == 0 && strstr(line, "<10>bulkhead[") == line && strstr(line, "]: bulkhead: ERROR: double-free: ") != NULL)
            attack_record("first datagram", 0);
    }
    world_remove_root();
    attack_record("datagrams", lines);
    abort(); /* stands for the end of its child */
}

static void log_fd_child(void)
{
    if (dup2(2, 9) != 9 || close(2) != 0)
        skip();
    double_free();
}

static int option_mode(const char *mode)
{
    if (early_failed)
        skip();
    if (strcmp(mode, "going-on") == 0)
        goes_on();
    else if (strcmp(mode, "syslog") == 0)
        syslog_child(false);
    else if (strcmp(mode, "syslog-full") == 0)
        syslog_child(true);
    else if (strcmp(mode, "log-fd") == 0)
        log_fd_child();
    else if (strcmp(mode, "foreign") == 0)
        bh_free((void *)(uintptr_t)"a \" in a string");
    double_free(); /* early, json */
    return 0;
}

/* Every mode that records nothing else ends by the double free. */
static void with_option(const char *name, const char *mode, const char *variable, const char *value, wanted_t wanted, const char *text,
                        const char *record)
{
    attack_end_t end;
    attack_exec("/proc/self/exe", mode, variable, value, &end);
    if (!skipped(name, &end))
        result(name, judge(&end, wanted, text, record), &end);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        attack_resume();
        return option_mode(argv[1]);
    }
    attack_begin("report");
    all_cases();
    abort_message();
    log_file();
    with_option("sandbox as Chromium's before start-up", "early", "BULKHEAD_VERBOSE", "0", REPORT, NULL, NULL);
    with_option("syslog", "syslog", "BULKHEAD_SYSLOG", "1", SILENCE, NULL, "first datagram");
    with_option("syslog that nobody reads", "syslog-full", "BULKHEAD_SYSLOG", "1", REPORT, NULL, "ended");
    with_option("syslog that is not there", "plain", "BULKHEAD_SYSLOG", "1", REPORT, NULL, NULL);
    with_option("log_fd", "log-fd", "BULKHEAD_LOG_FD", "9", REPORT, NULL, NULL);
    with_option("log_fd that is not open", "plain", "BULKHEAD_LOG_FD", "77", REPORT, NULL, NULL);
    with_option("callback with a violation that is let pass", "going-on", "BULKHEAD_FOREIGN", "report", SILENCE,
                "\nbulkhead: while reporting: foreign-free", "called");
    printf("report: %u of %u as they should be\n", tried - failed, tried);
    return failed == 0 ? 0 : 1;
}
