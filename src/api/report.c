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
    bhi_settings_t to = bhi_settings;
    to.report_fun = fun;
    to.report_arg = arg;
    bhi_settings_change(&to);
    bhi_state_unlock();
}
