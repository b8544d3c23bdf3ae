/* Violations and their end. Knows the table and the line format; knows nothing
 * of what led here. */
#include "rt/violation.h"

#include "os/os.h"
#include "rt/format.h"

#include <stdatomic.h>

static const struct {
    const char *id;
    const char *text;
} table[BHI_VIOLATIONS] = {
#define BH_VIOLATION(name, id, fault, text) [BHI_##name] = {id, text},
#include "rt/violations.def"
#undef BH_VIOLATION
};

/* Thread id of the reporter; 0 while nobody reports. Writable for good reason:
 * it only decides who speaks, never whether the process ends. */
static _Atomic(int) reporter;

const char *bhi_violation_id(bhi_violation_t what)
{
    return (unsigned)what < BHI_VIOLATIONS ? table[what].id : "unknown";
}

static void write_line(bhi_violation_t what, uintptr_t address)
{
    bhi_format_t line;
    bhi_format_start(&line);
    bhi_format_text(&line, "bulkhead: ERROR: ");
    bhi_format_text(&line, bhi_violation_id(what));
    bhi_format_text(&line, ": ");
    bhi_format_text(&line, (unsigned)what < BHI_VIOLATIONS ? table[what].text : "?");
    bhi_format_text(&line, " (address ");
    bhi_format_hex(&line, address);
    bhi_format_text(&line, ")\n");
    bhi_os_write(2, line.text, line.length);
}

void bhi_violation_report_only(bhi_violation_t what, uintptr_t address)
{
    write_line(what, address);
}

_Noreturn void bhi_violation(bhi_violation_t what, uintptr_t address)
{
    int nobody = 0;
    int self = bhi_os_tid();
    if (atomic_compare_exchange_strong(&reporter, &nobody, self)) {
        write_line(what, address);
    } else if (nobody != self) {
        /* Another thread reports and will end us all; should it be stuck (a
         * full pipe), do not wait for ever. */
        for (int i = 0; i < 500; i++)
            bhi_os_sleep_us(10000);
    }
    bhi_os_abort();
}
