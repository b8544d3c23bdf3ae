/* See fault.h. */
#include "fault.h"

#include "child.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>

static void on_fault(int signal_number, siginfo_t *info, void *context)
{
    (void)context;
    attack_record("fault", (uintptr_t)info->si_addr);
    signal(signal_number, SIG_DFL); /* the access is repeated, and ends the process */
}

typedef struct probe {
    uintptr_t at;
    bool write;
} probe_t;

static void probe_body(void *arg)
{
    const probe_t *p = arg;
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, NULL);
    volatile unsigned char *byte = (volatile unsigned char *)p->at; /* NOLINT: an address, chosen as one */
    attack_record("guard", p->at);
    if (p->write)
        *byte = 1;
    else
        (void)*byte;
    attack_record("went on", p->at);
}

bool attack_faults(uintptr_t at, bool write)
{
    probe_t probe = {at, write};
    attack_end_t end;
    attack_run(probe_body, &probe, &end);
    return end.count == 2 && strcmp(end.records[1].word, "fault") == 0 && end.records[1].value == at &&
           WIFSIGNALED(end.status) && WTERMSIG(end.status) == SIGSEGV;
}
