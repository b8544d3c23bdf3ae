/* The read-only page of process-wide settings; see process.h. */
#include "rt/process.h"

static const _Atomic(size_t) nothing_open;

bhi_process_page_t bhi_process_page BH_ALIGNED(BH_OS_PAGE_SIZE) = {.p = {.block_open = &nothing_open}};
