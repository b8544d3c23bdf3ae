/* Faults in guarded slots; see fault.h. The handler takes no lock and allocates
 * nothing: records are read as they are, and a slot that changes meanwhile is one
 * that another thread frees or gets at the moment of a wild access. */
#include "core/fault.h"

#include "core/sampled.h"
#include "core/traced.h"
#include "harden/depot.h"
#include "os/os.h"
#include "os/signal.h"
#include "rt/settings.h"
#include "rt/stack.h"

#include <signal.h>

_Static_assert(BH_REPORT_FRAMES == BH_STACK_DEPTH, "a report holds the deepest stack");

/* ------------------------------------------------------------- classification */

/* Freed blocks last: far more often it is their live neighbour that was overrun. */
static size_t distance(const bhi_fault_slot_t *s, uintptr_t address, bool behind)
{
    size_t far = behind ? address - (s->block + s->size) : s->block - address;
    switch (s->state) {
    case BHI_GUARDED_LIVE: return far;
    case BHI_GUARDED_CLOSING:
    case BHI_GUARDED_FREED: return far + ((size_t)1 << 40);
    default: return SIZE_MAX;
    }
}

bhi_fault_of_t bhi_fault_classify(uintptr_t address, const bhi_fault_slot_t *first, const bhi_fault_slot_t *second,
                                  bhi_violation_t *what)
{
    bool inside = first != NULL && address - first->data < first->bytes;
    *what = BHI_USE_AFTER_FREE;
    if (inside) {
        bool freed = first->state == BHI_GUARDED_CLOSING || first->state == BHI_GUARDED_FREED;
        return freed ? BHI_FAULT_FIRST : BHI_FAULT_NONE;
    }
    size_t over = first != NULL && address >= first->block + first->size ? distance(first, address, true) : SIZE_MAX;
    size_t under = second != NULL && address < second->block ? distance(second, address, false) : SIZE_MAX;
    if (over == SIZE_MAX && under == SIZE_MAX)
        return BHI_FAULT_NONE;
    const bhi_fault_slot_t *of = over <= under ? first : second;
    if (of->state == BHI_GUARDED_LIVE)
        *what = of == first ? BHI_GUARD_OVERFLOW : BHI_GUARD_UNDERFLOW;
    return of == first ? BHI_FAULT_FIRST : BHI_FAULT_SECOND;
}

static bhi_fault_slot_t look(const bhi_guarded_t *g)
{
    bhi_guarded_state_t state = bhi_guarded_state(g);
    return (bhi_fault_slot_t){bhi_guarded_data(g), g->block, bhi_guarded_bytes(g), g->size, state};
}

/* The slot that an access at `address` was meant for, or NULL. */
static bhi_guarded_t *meant_for(uintptr_t address, bhi_violation_t *what)
{
    bhi_guarded_t *first = bhi_guarded_at(address), *second = NULL;
    if (first == NULL || !bhi_os_readable((uintptr_t)first))
        return NULL;
    if (address < bhi_guarded_data(first)) { /* the guard at a chunk's start */
        second = first;
        first = NULL;
    } else {
        second = bhi_guarded_behind(first);
    }
    bhi_fault_slot_t a, b;
    if (first != NULL)
        a = look(first);
    if (second != NULL)
        b = look(second);
    switch (bhi_fault_classify(address, first != NULL ? &a : NULL, second != NULL ? &b : NULL, what)) {
    case BHI_FAULT_FIRST: return first;
    case BHI_FAULT_SECOND: return second;
    default: return NULL;
    }
}

/* ---------------------------------------------------------------- description */

static const char *const states[] = {
    [BHI_GUARDED_UNUSED] = "never handed out",
    [BHI_GUARDED_OPENING] = "free",
    [BHI_GUARDED_LIVE] = "live",
    [BHI_GUARDED_CLOSING] = "being freed",
    [BHI_GUARDED_FREED] = "free",
};

void bhi_fault_describe(bh_report_t *r)
{
    uintptr_t p = (uintptr_t)r->address;
    bhi_violation_t what;
    const bhi_guarded_t *g = meant_for(p, &what);
    if (g == NULL)
        g = bhi_guarded_at(p);
    r->place = "unused";
    if (g == NULL || !bhi_os_readable((uintptr_t)g) || bhi_guarded_state(g) == BHI_GUARDED_UNUSED)
        return;
    bhi_guarded_state_t state = bhi_guarded_state(g);
    r->place = "guarded block";
    r->block = (const void *)g->block;
    r->block_size = bhi_guarded_bytes(g);
    r->usable_size = r->requested_size = g->size;
    r->offset = (ptrdiff_t)(p - g->block);
    r->state = (unsigned)state < sizeof states / sizeof states[0] ? states[state] : "not known";
    r->alloc_thread = (int)g->alloc_thread;
    uint32_t origin = atomic_load_explicit(&g->origin, memory_order_relaxed);
    r->allocated_by = bhi_kind_name(bhi_origin_kind(origin));
    r->alloc_depth = bhi_depot_frames(bhi_process.depot, bhi_origin_stack(origin), r->alloc_stack);
    r->free_thread = (int)g->free_thread;
    r->free_depth = bhi_depot_frames(bhi_process.depot, g->free_stack, r->free_stack);
    const bhi_heap_t *heap = g->heap;
    if (heap != NULL && bhi_os_readable((uintptr_t)heap & ~(uintptr_t)7))
        r->heap = (int)heap->id;
}

/* -------------------------------------------------------------------- handler */

bool bhi_fault_handle(int signal, const void *info, const void *context)
{
    bhi_os_fault_t f;
    bhi_violation_t what;
    bhi_os_fault(info, context, &f);
    bool ours = signal == SIGSEGV && f.by_kernel && bhi_guarded_contains(f.address);
    bhi_guarded_t *g = ours ? meant_for(f.address, &what) : NULL;
    if (g == NULL)
        return false;
    bool recover = bhi_process.options.guarded_recover != 0;
    if (!recover || !g->reported) {
        const bhi_registers_t registers = {f.pc, f.frame, f.stack};
        /* What goes wrong in the report comes to this handler again. */
        uint64_t blocked = bhi_os_block(SIGSEGV, false);
        g->reported = recover;
        bhi_violation_fault(what, f.address, !f.write_known ? "access" : f.write ? "write" : "read", &registers, !recover);
        bhi_os_blocked(blocked);
    }
    /* What a fuzzer counts as a crash must not depend on the program's own handler. */
    if (!recover && bhi_process.options.profile == BHI_PROFILE_FUZZ)
        bhi_os_abort();
    return recover && bhi_guarded_open_page(f.address);
}

/* What a handler with SA_RESETHAND leaves behind: nothing, from its first call on. */
static _Atomic(bool) spent;

/* What the kernel would have done without us. The handler before got the same mask
 * and the same stack: ours was installed with its flags. */
static void chain(int signal, void *info, void *context)
{
    const bhi_os_action_t *before = &bhi_settings.segv_before;
    uintptr_t handler = atomic_load_explicit(&spent, memory_order_relaxed) ? (uintptr_t)SIG_DFL : (uintptr_t)before->handler;
    bool sent = ((const siginfo_t *)info)->si_code <= 0;
    if (handler == (uintptr_t)SIG_IGN && sent)
        return;
    if (handler == (uintptr_t)SIG_DFL || handler == (uintptr_t)SIG_IGN) {
        /* The access is repeated and ends the process where it is: the core file
         * shows the program's frame, not ours. An ignored fault ends it as well. */
        bhi_os_action_t dfl = {0};
        bhi_os_action(signal, &dfl, NULL);
        if (sent)
            bhi_os_raise(signal);
        return;
    }
    if ((before->flags & SA_RESETHAND) != 0)
        atomic_store_explicit(&spent, true, memory_order_relaxed);
    before->handler(signal, info, context);
}

static void on_fault(int signal, void *info, void *context)
{
    if (bhi_violation_is_reporting())
        bhi_violation_nested("fault", (uintptr_t)((const siginfo_t *)info)->si_addr);
    if (!bhi_fault_handle(signal, info, context))
        chain(signal, info, context);
}

void bhi_fault_init(void)
{
    uint32_t wanted = bhi_process.options.guarded_handler;
    bhi_os_action_t *before = &bhi_settings.segv_before;
    if (wanted == BHI_HANDLER_OFF || (wanted == BHI_HANDLER_AUTO && !bhi_process.sampling) ||
        bhi_os_action(SIGSEGV, NULL, before) != 0)
        return;
    bool handled = (uintptr_t)before->handler != (uintptr_t)SIG_DFL && (uintptr_t)before->handler != (uintptr_t)SIG_IGN;
    unsigned long kept = handled ? before->flags & (SA_ONSTACK | SA_NODEFER | SA_RESTART) : SA_ONSTACK;
    bhi_os_action_t ours = {.handler = on_fault, .flags = SA_SIGINFO | kept, .mask = handled ? before->mask : 0};
    bhi_os_action(SIGSEGV, &ours, NULL);
}
