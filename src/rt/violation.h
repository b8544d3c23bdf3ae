/* The one way a violation ends the process. */
#ifndef BH_RT_VIOLATION_H
#define BH_RT_VIOLATION_H

#include "base/compiler.h"

typedef enum bhi_violation {
#define BH_VIOLATION(name, id, fault, text) BHI_##name,
#include "rt/violations.def"
#undef BH_VIOLATION
    BHI_VIOLATIONS
} bhi_violation_t;

/* Reports and ends the process. Of several threads that fail at once the first one
 * reports; the others wait for the end, a few seconds at most. The report's first
 * line is "bulkhead: ERROR: <id>: <text> (address 0x...)"; what else is known
 * follows it (rt/report.h). No allocation, no lock, no stdio; async-signal-safe. */
_Noreturn BH_COLD void bhi_violation(bhi_violation_t what, uintptr_t address);

/* The same report for policies under which the process goes on. */
BH_COLD void bhi_violation_report_only(bhi_violation_t what, uintptr_t address);

const char *bhi_violation_id(bhi_violation_t what);

#endif
