/* What a report says of an address. */
#ifndef BH_CORE_DESCRIBE_H
#define BH_CORE_DESCRIBE_H

#include "bulkhead.h"

/* Fills in what report->address is in terms of blocks, pages and heaps; place stays
 * NULL when it is not Bulkhead's. Any thread, any address, any state of the control
 * data: nothing in them is followed before it was checked, and every word is read
 * only after the kernel has said that it can be. Takes no lock, so what other
 * threads change meanwhile may come out mixed; it is a description, not a verdict. */
void bhi_describe(bh_report_t *report);

#endif
