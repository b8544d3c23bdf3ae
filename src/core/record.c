/* Records of blocks; see record.h. */
#include "core/record.h"

#include "core/traced.h"
#include "os/os.h"
#include "rt/stack.h"

static unsigned frames_of(uint32_t stack, const void **out)
{
    uintptr_t frames[BH_STACK_DEPTH];
    unsigned n = bhi_depot_get(bhi_process.depot, stack, frames);
    for (unsigned i = 0; i < n; i++)
        out[i] = (const void *)frames[i];
    return n;
}

void bhi_record_describe(bh_report_t *r, const bhi_page_t *page, uint32_t index)
{
    const bhi_record_t *record = bhi_record_has(page) ? bhi_record_of(page, index) : NULL;
    if (record == NULL || !bhi_os_readable((uintptr_t)record & ~(uintptr_t)7))
        return;
    uint32_t origin = atomic_load_explicit(&record->origin, memory_order_relaxed);
    r->requested_size = bhi_hard_requested(page, index);
    r->allocated_by = bhi_kind_name(bhi_origin_kind(origin));
    r->alloc_depth = frames_of(bhi_origin_stack(origin), r->alloc_stack);
    r->free_depth = frames_of(atomic_load_explicit(&record->free_stack, memory_order_relaxed), r->free_stack);
}

BH_NOINLINE uint32_t bhi_record_stack(void)
{
    uintptr_t frames[BH_STACK_DEPTH];
    if (bhi_process.depot == NULL || bhi_process.options.stacks_of != BHI_STACKS_OF_ALL)
        return 0;
    return bhi_depot_put(bhi_process.depot, frames, bhi_stack_here(frames, BH_STACK_DEPTH));
}
