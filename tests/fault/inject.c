/* See inject.h. */
#include "inject.h"

#include <stdatomic.h>
#include <sys/mman.h>

const int inject_errors[INJECT_ERRORS] = {ENOMEM, EINVAL, EPERM, EAGAIN};
const char *const inject_kind_names[BHI_OS_CALLS] = {"mmap",            "munmap", "mremap",    "mprotect", "madvise", "guard",
                                                     "process_madvise", "mseal",  "getrandom", "open",     "read",    "prlimit"};

typedef struct figures {
    _Atomic(uint32_t) seen, failed;
} figures_t;

/* Private until inject_init: start-up comes before it. */
static figures_t own;
static figures_t *figures = &own;
static inject_plan_t plan;
static _Atomic(uint64_t) state;

static uint64_t next_random(void)
{
    uint64_t x = atomic_fetch_add(&state, 0x9e3779b97f4a7c15u) + 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static int decide(bhi_os_call_t call)
{
    if ((plan.kinds >> call & 1) == 0)
        return 0;
    uint32_t n = atomic_fetch_add(&figures->seen, 1) + 1;
    if (n < plan.first || n > plan.last || (plan.one_in > 1 && next_random() % plan.one_in != 0))
        return 0;
    atomic_fetch_add(&figures->failed, 1);
    return plan.error != 0 ? plan.error : inject_errors[next_random() % INJECT_ERRORS];
}

void inject_init(void)
{
    void *shared = mmap(NULL, sizeof(figures_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared != MAP_FAILED)
        figures = shared;
}

void inject_start(const inject_plan_t *wanted)
{
    plan = *wanted;
    atomic_store(&figures->seen, 0);
    atomic_store(&figures->failed, 0);
    atomic_store(&state, plan.seed);
    bhi_os_fail_hook = decide;
}

void inject_stop(void)
{
    bhi_os_fail_hook = NULL;
}

uint32_t inject_seen(void)
{
    return atomic_load(&figures->seen);
}

uint32_t inject_failed(void)
{
    return atomic_load(&figures->failed);
}
