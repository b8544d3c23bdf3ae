/* Records of blocks; see record.h. */
#include "core/record.h"

#include "core/traced.h"
#include "harden/depot.h"
#include "os/os.h"
#include "rt/stack.h"

void bhi_record_describe(bh_report_t *r, const bhi_page_t *page, uint32_t index)
{
    const bhi_record_t *record = bhi_record_has(page) ? bhi_record_of(page, index) : NULL;
    if (record == NULL || !bhi_os_readable((uintptr_t)record & ~(uintptr_t)7))
        return;
    uint32_t origin = atomic_load_explicit(&record->origin, memory_order_relaxed);
    r->requested_size = bhi_hard_requested(page, index);
    r->allocated_by = bhi_kind_name(bhi_origin_kind(origin));
    r->alloc_depth = bhi_depot_frames(bhi_process.depot, bhi_origin_stack(origin), r->alloc_stack);
    r->free_depth = bhi_depot_frames(bhi_process.depot, atomic_load_explicit(&record->free_stack, memory_order_relaxed), r->free_stack);
}

BH_NOINLINE uint32_t bhi_record_stack(void)
{
    uintptr_t frames[BH_STACK_DEPTH];
    if (bhi_process.depot == NULL || bhi_process.options.stacks_of != BHI_STACKS_OF_ALL)
        return 0;
    return bhi_depot_put(bhi_process.depot, frames, bhi_stack_here(frames, BH_STACK_DEPTH));
}
