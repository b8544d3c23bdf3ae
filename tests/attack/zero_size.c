/* Zero-size blocks: reading or writing one is SIGSEGV at that very address;
 * freeing one twice, by the same or another thread, has its id.
 *
 *   zero_size         with guard=auto, then itself again with guard=mprotect
 *   zero_size here    with the settings of the environment */
#include "bulkhead.h"
#include "child.h"
#include "rt/process.h"
#include "targets.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define MANY 18000

static uintptr_t aligned(size_t align)
{
    void *p = bh_aligned_alloc(align, 0);
    if (p == NULL)
        attack_broken("no memory");
    return (uintptr_t)p;
}

/* ------------------------------------------------------------------ touching */

typedef enum access { READ, WRITE, READ_LAST, WRITE_BEFORE, ACCESSES } access_t;
static const char *const access_names[ACCESSES] = {"read", "write", "read 15 bytes on", "write 1 byte before"};

typedef struct touch {
    size_t align;  /* 0: malloc */
    size_t others; /* zero-size blocks before it */
    bool used;     /* memory that was used before */
    bool odd;      /* aligned at an offset of 1 */
    access_t access;
} touch_t;

static void on_fault(int signal_number, siginfo_t *info, void *context)
{
    (void)context;
    attack_record("fault", (uintptr_t)info->si_addr);
    signal(signal_number, SIG_DFL); /* the access is repeated, and ends the process */
}

static uintptr_t take(const touch_t *t)
{
    static uintptr_t old[MANY];
    for (size_t i = 0; t->used && i < MANY; i++)
        memset((void *)(old[i] = target_take(64)), 0xdd, 64); /* NOLINT: blocks are numbers here */
    for (size_t i = 0; t->used && i < MANY; i++)
        target_give(old[i]);
    for (size_t i = 0; i < t->others; i++)
        target_take(0);
    if (t->odd)
        return (uintptr_t)bh_aligned_alloc_at(t->align, 0, 1);
    return t->align != 0 ? aligned(t->align) : target_take(0);
}

static void touch_body(void *arg)
{
    const touch_t *t = arg;
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO;
    uintptr_t at = take(t);
    at += t->access == READ_LAST ? 15 : 0;
    at -= t->access == WRITE_BEFORE ? 1 : 0;
    volatile unsigned char *byte = (volatile unsigned char *)at; /* NOLINT: an address, chosen as one */
    sigaction(SIGSEGV, &action, NULL);
    attack_record("guard", at);
    if (t->access == WRITE || t->access == WRITE_BEFORE)
        *byte = 1;
    else
        (void)*byte;
    attack_record("went on", at);
}

static bool touch(touch_t t)
{
    unsigned held = 0;
    for (unsigned a = 0; a < ACCESSES; a++) {
        attack_end_t end;
        t.access = (access_t)a;
        attack_run(touch_body, &t, &end);
        bool ok = end.count == 2 && strcmp(end.records[1].word, "fault") == 0 && end.records[1].value == end.records[0].value &&
                  WIFSIGNALED(end.status) && WTERMSIG(end.status) == SIGSEGV;
        held += ok;
        if (!ok)
            printf("  FAIL %s: %u records, status %#x\n", access_names[a], end.count, (unsigned)end.status);
    }
    printf("%-4s align %8zu%s after %5zu others%s: %u of %u accesses faulted at their address\n", held == ACCESSES ? "ok" : "FAIL",
           t.align, t.odd ? " at 1" : "", t.others, t.used ? ", used memory" : "", held, ACCESSES);
    return held == ACCESSES;
}

static bool all_touches(void)
{
    static const size_t aligns[] = {0, 16, 64, 4096, 65536, MIB, 8 * MIB};
    bool ok = true;
    for (size_t i = 0; i < sizeof aligns / sizeof aligns[0]; i++) {
        ok &= touch((touch_t){.align = aligns[i], .others = 1});
        ok &= touch((touch_t){.align = aligns[i], .others = MANY, .used = true});
    }
    return touch((touch_t){.align = 64, .odd = true, .used = true}) && ok;
}

/* ------------------------------------------------------------------- freeing */

static void *free_it(void *p)
{
    target_give((uintptr_t)p);
    return NULL;
}

static void elsewhere(uintptr_t p)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, free_it, (void *)p) != 0) /* NOLINT: as above */
        attack_broken("no thread");
    pthread_join(thread, NULL);
}

typedef struct release {
    const char *name, *id;
    bool first_here, second_here;
    size_t align, further;
    bool once; /* only the second free */
} release_t;

static void release_body(void *arg)
{
    const release_t *r = arg;
    target_take(0); /* keeps the page */
    uintptr_t p = r->align != 0 ? aligned(r->align) : target_take(0);
    if (!r->once && r->first_here)
        target_give(p);
    else if (!r->once)
        elsewhere(p);
    attack_record(r->id, p + r->further);
    if (r->second_here)
        target_give(p + r->further);
    else
        elsewhere(p + r->further);
}

static bool all_releases(void)
{
    static const release_t rows[] = {
        {.name = "freed twice", .id = "double-free", .first_here = true, .second_here = true},
        {.name = "freed here, then by another thread", .id = "double-free", .first_here = true},
        {.name = "freed by another thread, then here", .id = "double-free", .second_here = true},
        {.name = "freed twice by other threads", .id = "double-free"},
        {.name = "aligned to 4096, freed twice", .id = "double-free", .first_here = true, .second_here = true, .align = 4096},
        {.name = "aligned to 8 MiB, freed twice", .id = "double-free", .first_here = true, .second_here = true, .align = 8 * MIB},
        {.name = "one byte on", .id = "invalid-free", .second_here = true, .once = true, .further = 1},
        {.name = "8 bytes on, by another thread", .id = "invalid-free", .once = true, .further = 8},
    };
    bool ok = true;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        attack_end_t end;
        release_t row = rows[i];
        attack_run(release_body, &row, &end);
        const char *wrong = attack_verdict(&end);
        printf("%-4s %-40s %s\n", wrong == NULL ? "ok" : "FAIL", row.name, wrong == NULL ? row.id : wrong);
        ok &= wrong == NULL;
    }
    return ok;
}

int main(int argc, char **argv)
{
    attack_begin("zero-size");
    target_give(target_take(0)); /* start-up */
    printf("guards made by %s\n", bhi_process.guards_by_madvise ? "guard regions" : "mprotect");
    bool ok = all_touches();
    ok &= all_releases();
    if (argc > 1)
        return ok ? 0 : 1;
    setenv("BULKHEAD_GUARD", "mprotect", 1);
    fflush(stdout);
    int status = 1;
    pid_t pid = fork();
    if (pid == 0) {
        execl("/proc/self/exe", argv[0], "here", (char *)NULL);
        _exit(127);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        attack_broken("second run");
    ok &= WIFEXITED(status) && WEXITSTATUS(status) == 0;
    return ok ? 0 : 1;
}
