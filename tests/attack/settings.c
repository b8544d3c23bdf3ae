/* Process-wide settings are out of an attacker's reach: a write to them faults at
 * its address, whenever it comes, and where the kernel seals memory nothing makes
 * them writable or replaces them.
 *
 * The attacker is granted the addresses, and calls of the kernel. */
#include "bulkhead.h"
#include "child.h"
#include "os/os.h"
#include "rt/process.h"
#include "rt/settings.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static void callback(bool force, unsigned long long heartbeat, void *arg)
{
    (void)force;
    (void)heartbeat;
    (void)arg;
}

/* --------------------------------------------------------------------- moments */

static void at_once(void)
{
}

static void after_a_change(void)
{
    if (bh_option_set("purge_delay", "20") != 0 || !bh_register_deferred_free(callback, NULL))
        attack_broken("a change of settings");
}

static void after_a_refused_change(void)
{
    if (!bh_seal() || bh_option_set("purge_delay", "20") == 0 || bh_register_deferred_free(callback, NULL))
        attack_broken("a refused change of settings");
}

static void in_a_forked_child(void)
{
    after_a_change();
    pid_t pid = fork();
    if (pid < 0)
        attack_broken("fork");
    if (pid == 0)
        return;
    int status;
    waitpid(pid, &status, 0);
    if (WIFSIGNALED(status)) {
        signal(WTERMSIG(status), SIG_DFL);
        raise(WTERMSIG(status));
    }
    _exit(WEXITSTATUS(status));
}

static const struct {
    const char *name;
    void (*come)(void);
} moments[] = {{"after start-up", at_once},
               {"after a change", after_a_change},
               {"sealed, after a refused change", after_a_refused_change},
               {"in a forked child", in_a_forked_child}};
#define MOMENTS (sizeof moments / sizeof moments[0])

/* ---------------------------------------------------------------------- writes */

static void on_fault(int signal_number, siginfo_t *info, void *context)
{
    (void)context;
    attack_record("fault", (uintptr_t)info->si_addr);
    signal(signal_number, SIG_DFL); /* the access is repeated, and ends the process */
}

typedef struct probe {
    uintptr_t at;
    void (*come)(void);
} probe_t;

static void write_body(void *arg)
{
    const probe_t *p = arg;
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, NULL);
    bh_free(bh_malloc(1));
    p->come();
    volatile unsigned char *byte = (volatile unsigned char *)p->at; /* NOLINT: an address, chosen as one */
    attack_record("write", p->at);
    *byte ^= 1;
    attack_record("went on", p->at);
}

static bool write_faults(uintptr_t at, void (*come)(void))
{
    probe_t probe = {at, come};
    attack_end_t end;
    attack_run(write_body, &probe, &end);
    bool ok = end.count == 2 && strcmp(end.records[0].word, "write") == 0 && strcmp(end.records[1].word, "fault") == 0 &&
              end.records[1].value == at && WIFSIGNALED(end.status) && WTERMSIG(end.status) == SIGSEGV;
    if (!ok)
        printf("  %u records, the last '%s', status %#x %s\n", end.count, end.count > 0 ? end.records[end.count - 1].word : "",
               (unsigned)end.status, end.text);
    return ok;
}

static bool writes(const char *what, const uintptr_t *at, size_t n)
{
    bool all = true;
    for (size_t m = 0; m < MOMENTS; m++) {
        unsigned faults = 0;
        for (size_t i = 0; i < n; i++)
            faults += write_faults(at[i], moments[m].come);
        printf("%-4s %s, %-32s %u of %zu writes faulted at their address\n", faults == n ? "ok" : "FAIL", what, moments[m].name, faults,
               n);
        all &= faults == n;
    }
    return all;
}

/* ----------------------------------------------------------------------- kernel */

typedef struct sealed_page {
    uintptr_t at;
    size_t size;
    bool seal; /* bh_seal first */
} sealed_page_t;

#define CALLS 4u

/* Each call that would take the page's protection away must be refused, and the
 * page must stay what it was. */
static void kernel_body(void *arg)
{
    const sealed_page_t *p = arg;
    void *at = (void *)p->at; /* NOLINT: an address */
    bh_free(bh_malloc(1));
    if (p->seal && !bh_seal())
        attack_broken("bh_seal");
    attack_record("calls", p->at);
    errno = 0;
    if (mprotect(at, p->size, PROT_READ | PROT_WRITE) == -1 && errno == EPERM)
        attack_record("refused", 0);
    errno = 0;
    if (mmap(at, p->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED && errno == EPERM)
        attack_record("refused", 0);
    errno = 0;
    if (munmap(at, p->size) == -1 && errno == EPERM)
        attack_record("refused", 0);
    void *elsewhere = mmap(NULL, p->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    errno = 0;
    if (mremap(at, p->size, p->size, MREMAP_MAYMOVE | MREMAP_FIXED, elsewhere) == MAP_FAILED && errno == EPERM)
        attack_record("refused", 0);
    if (!bhi_process.ready || bh_option_get_long("purge_delay") < 0)
        attack_record("changed", 0);
}

static bool kernel_refuses(const char *what, uintptr_t at, size_t size, bool seal)
{
    sealed_page_t page = {at, size, seal};
    attack_end_t end;
    attack_run(kernel_body, &page, &end);
    bool ok = end.count == 1 + CALLS && !attack_has(&end, "changed") && WIFEXITED(end.status) && WEXITSTATUS(end.status) == 0;
    printf("%-4s %-56s %u of %u calls refused\n", ok ? "ok" : "FAIL", what, end.count > 0 ? end.count - 1 : 0, CALLS);
    return ok;
}

static bool kernel_seals(void)
{
    void *page = mmap(NULL, BH_OS_PAGE_SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return bhi_os_seal((uintptr_t)page, BH_OS_PAGE_SIZE) == 0;
}

int main(void)
{
    attack_begin("settings");
    bh_free(bh_malloc(1));
    const uintptr_t fixed[] = {(uintptr_t)&bhi_process_page, (uintptr_t)&bhi_process.block_base, (uintptr_t)&bhi_process.state,
                               (uintptr_t)&bhi_process.options.foreign, (uintptr_t)(&bhi_process_page + 1) - 1};
    const uintptr_t changeable[] = {(uintptr_t)&bhi_settings_page, (uintptr_t)&bhi_settings.deferred_fun,
                                    (uintptr_t)&bhi_settings.deferred_arg, (uintptr_t)&bhi_settings.purge_delay,
                                    (uintptr_t)&bhi_settings.sealed, (uintptr_t)(&bhi_settings_page + 1) - 1};
    bool ok = writes("fixed settings", fixed, sizeof fixed / sizeof fixed[0]);
    ok &= writes("changeable settings", changeable, sizeof changeable / sizeof changeable[0]);
    if (kernel_seals()) {
        ok &= kernel_refuses("fixed settings, kernel calls", (uintptr_t)&bhi_process_page, sizeof bhi_process_page, false);
        ok &= kernel_refuses("changeable settings, kernel calls after bh_seal", (uintptr_t)&bhi_settings_page,
                             sizeof bhi_settings_page, true);
    } else {
        puts("none kernel calls: this kernel seals no memory");
    }
    return ok ? 0 : 1;
}
