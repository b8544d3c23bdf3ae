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

/* The same of an access that faulted, called from a signal handler, with the
 * registers at the fault; `access` as in bh_report_t. The caller decides what becomes
 * of the process. On no more of the stack than it must: that may be a small one. */
struct bhi_registers;
BH_COLD void bhi_violation_fault(bhi_violation_t what, uintptr_t address, const char *access,
                                 const struct bhi_registers *at, bool fatal);

/* Whether the calling thread is in a report; the line for what goes wrong then, and
 * the end. */
bool bhi_violation_is_reporting(void);
_Noreturn BH_COLD void bhi_violation_nested(const char *what, uintptr_t address);

const char *bhi_violation_id(bhi_violation_t what);

#endif
