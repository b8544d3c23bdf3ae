/* The report callback, leaks and the fault handler of bulkhead.h. */
#include "bulkhead.h"

#include "core/fault.h"
#include "core/init.h"
#include "core/leaks.h"
#include "meta/types.h"
#include "rt/settings.h"

void bh_register_report(bh_report_fun *fun, void *arg)
{
    if (!bhi_init())
        return;
    bhi_state_lock();
    if (bhi_settings_open()) {
        bhi_settings.report_fun = fun;
        bhi_settings.report_arg = arg;
        bhi_settings_close();
        if (bhi_settings.left_open) /* nothing to call at the end may lie on a page that is writable */
            bhi_settings.report_fun = NULL;
    }
    bhi_state_unlock();
}

size_t bh_report_leaks(void)
{
    return bhi_init() ? bhi_leaks_report(false) : SIZE_MAX;
}

/* After the program's own destructors and its functions for atexit. */
__attribute__((destructor(101))) static void leaks_at_exit(void)
{
    if (bhi_process.ready && bhi_process.options.leaks != 0)
        bhi_leaks_report(true);
}

bool bh_handle_segv(int signal, void *siginfo, void *ucontext)
{
    return bhi_fault_handle(signal, siginfo, ucontext);
}
