/* The report callback of bulkhead.h. */
#include "bulkhead.h"

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
