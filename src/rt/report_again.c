/* The line of a report that tells how to meet its block again: under which options all
 * blocks of that size are guarded, in the same order. In the profiles for hunting. */
#include "rt/report.h"

#include "base/constants.h"
#include "rt/process.h"

static void number(bhi_format_t *f, const char *key, uint64_t value)
{
    bhi_format_text(f, key);
    bhi_format_number(f, value);
}

void bhi_report_again(const bhi_report_t *r, bhi_format_t *f)
{
    const bhi_options_t *o = &bhi_process.options;
    size_t size = r->requested_size;
    bool one_size = size != 0 && size <= BH_GUARDED_MOST;
    bhi_format_start(f);
    if (!bhi_process.ready || o->profile < BHI_PROFILE_DEBUG)
        return;
    bhi_format_text(f, o->profile == BHI_PROFILE_DEBUG ? "BULKHEAD_OPTIONS=profile=debug" : "BULKHEAD_OPTIONS=profile=fuzz");
    number(f, ":guarded_sample_rate=", one_size ? 1 : o->guarded_sample_rate);
    number(f, ":guarded_sample_seed=", o->guarded_sample_seed);
    number(f, ":guarded_first=", one_size ? 0 : o->guarded_first);
    if (one_size) {
        number(f, ":guarded_min=", size);
        number(f, ":guarded_max=", size);
    }
}
