/* Which mapping of the process an address belongs to. */
#ifndef BH_RT_MAPPING_H
#define BH_RT_MAPPING_H

#include "bulkhead.h"

/* Fills place and mapping_* of a report on an address that is not Bulkhead's;
 * place stays NULL when the list of mappings cannot be read. Small buffers, no
 * allocation; async-signal-safe. */
void bhi_mapping_find(bh_report_t *report);

#endif
