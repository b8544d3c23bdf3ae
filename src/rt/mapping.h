/* Which mapping of the process an address belongs to. */
#ifndef BH_RT_MAPPING_H
#define BH_RT_MAPPING_H

#include "base/compiler.h"
#include "bulkhead.h"

/* Fills place and mapping_* of a report on an address that is not Bulkhead's;
 * place stays NULL when the list of mappings cannot be read. Small buffers, no
 * allocation; async-signal-safe. */
void bhi_mapping_find(bh_report_t *report);

typedef struct bhi_mapping {
    uintptr_t start, end;
    const char *access, *name; /* as in /proc/self/maps, cut to 7 and 127 bytes */
} bhi_mapping_t;

/* Called for each mapping of the process until it returns false. The result is false if
 * the list could not be read. No allocation; async-signal-safe. */
typedef bool bhi_mapping_fun_t(const bhi_mapping_t *mapping, void *arg);
bool bhi_mapping_each(bhi_mapping_fun_t *each, void *arg);

#endif
