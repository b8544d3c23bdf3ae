/* The report callback and the fault handler of bulkhead.h. */
#include "bulkhead.h"

#include "core/fault.h"
#include "core/init.h"
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

bool bh_handle_segv(int signal, void *siginfo, void *ucontext)
{
    return bhi_fault_handle(signal, siginfo, ucontext);
}
