/* Violations and their end: who reports, in which order, and that the process ends
 * whatever goes wrong on the way. Knows nothing of what led here. */
#include "rt/violation.h"

#include "os/os.h"
#include "rt/mapping.h"
#include "rt/process.h"
#include "rt/report.h"
#include "rt/settings.h"
#include "rt/stack.h"
#include "rt/sink.h"

#include <stdatomic.h>
#include <string.h>

enum { CORRUPTION, PROGRAM };

static const struct {
    const char *id;
    const char *text;
    int fault;
} table[BHI_VIOLATIONS] = {
#define BH_VIOLATION(name, id, fault, text) [BHI_##name] = {id, text, fault},
#include "rt/violations.def"
#undef BH_VIOLATION
};

/* Process and thread id of the reporter; 0 while nobody reports. Writable for good
 * reason: it only decides who speaks, never whether the process ends. */
static _Atomic(uint64_t) reporter;

/* Whether the thread is in a report: what goes wrong then gets a line, no more. */
static BH_THREAD_LOCAL bool reporting;

/* A program that goes on after reports may make millions. */
#define DETAILED_MOST 100u
static _Atomic(uint32_t) detailed;

#define WAIT_STEP_US 10000u
#define WAIT_STEPS 500u

char bh_abort_msg[BH_ABORT_MSG_SIZE];

const char *bhi_violation_id(bhi_violation_t what)
{
    return (unsigned)what < BHI_VIOLATIONS ? table[what].id : "unknown";
}

/* Traces that whoever comes along finds, who did nothing wrong. */
static bool is_found_later(bhi_violation_t what)
{
    return what == BHI_OVERFLOW || what == BHI_UNDERFLOW || what == BHI_WRITE_AFTER_FREE;
}

static void start_report(bhi_report_t *r, bhi_violation_t what, uintptr_t address, bool fatal)
{
    memset(r, 0, sizeof *r);
    r->struct_size = sizeof *r;
    r->id = bhi_violation_id(what);
    r->text = (unsigned)what < BHI_VIOLATIONS ? table[what].text : "?";
    r->address = (const void *)address;
    r->thread = bhi_os_tid();
    r->fatal = fatal;
    r->culprit = (unsigned)what < BHI_VIOLATIONS && table[what].fault == PROGRAM && !is_found_later(what);
    r->size_class = r->slot = r->heap = -1;
}

/* Some violations are of something else than an address. */
static bool is_of_address(bhi_violation_t what)
{
    return (unsigned)what < BHI_VIOLATIONS && what != BHI_HEAP_MISUSE && what != BHI_UNSUPPORTED_SYSTEM &&
           what != BHI_NO_ENTROPY;
}

static void set_stack(bhi_report_t *r, const uintptr_t *frames, unsigned n)
{
    r->here_depth = n;
    for (unsigned i = 0; i < n; i++)
        r->here_stack[i] = (const void *)frames[i];
}

static void describe(bhi_report_t *r)
{
    /* Both pointers are on the page that is read-only since start-up. */
    if (bhi_process.ready && bhi_process.describe != NULL)
        bhi_process.describe(r);
    if (r->place == NULL)
        bhi_mapping_find(r);
    /* A stack tells something where the block's own are kept. */
    if (r->here_depth == 0 && r->alloc_depth != 0) {
        uintptr_t frames[BH_STACK_DEPTH];
        set_stack(r, frames, bhi_stack_here(frames, BH_STACK_DEPTH));
    }
}

static void call_back(const bhi_report_t *r)
{
    if (bhi_settings.report_fun != NULL)
        bhi_settings.report_fun(r, bhi_settings.report_arg);
}

static void write_part(bhi_report_text_t *out)
{
    if (out->length > 0)
        bhi_sink_write(out->text, out->length);
    out->length = 0;
}

/* In JSON the whole report is one line and, but for long stacks, one write. As text its first line is
 * written before anything is looked up: a sandbox may end us at any call. */
static void write_into(bhi_report_text_t *out, bhi_report_t *r, const bhi_format_t *first, bool detail)
{
    out->length = 0;
    out->full = write_part;
    bool json = bhi_process.ready && bhi_process.options.report == BHI_REPORT_JSON;
    if (!json && r->fatal)
        bhi_sink_write(first->text, first->length);
    else if (!json)
        bhi_report_append(out, first); /* several threads may be at it: one write */
    if (detail)
        describe(r);
    if (json)
        bhi_report_json(r, out);
    else if (detail)
        bhi_report_details(r, out);
    write_part(out);
}

static void write_report(bhi_report_t *r, const bhi_format_t *first, bool detail)
{
    bhi_report_text_t out;
    write_into(&out, r, first, detail);
}

/* One short line for what goes wrong while the thread reports already. */
static void write_nested(const char *what, uintptr_t address)
{
    bhi_format_t line;
    bhi_format_start(&line);
    bhi_format_text(&line, "bulkhead: while reporting: ");
    bhi_format_text(&line, what);
    bhi_format_text(&line, " (address ");
    bhi_format_hex(&line, address);
    bhi_format_text(&line, ")\n");
    bhi_sink_write(line.text, line.length);
}

static void fault_in_callback(int signal)
{
    write_nested("fault in the callback, signal as address", (uintptr_t)signal);
    bhi_os_abort();
}

static void report_and_end(bhi_violation_t what, uintptr_t address)
{
    bhi_report_t r;
    bhi_format_t first;
    bool nested = reporting; /* in a report that was to come back */
    reporting = true;
    bhi_os_block_write_signals();
    start_report(&r, what, address, true);
    bhi_report_first_line(&r, &first);
    memcpy(bh_abort_msg, first.text, first.length < BH_ABORT_MSG_SIZE ? first.length - 1 : BH_ABORT_MSG_SIZE - 1);
    write_report(&r, &first, is_of_address(what));
    if (bhi_settings.report_fun != NULL && !nested) {
        bhi_os_on_fault(fault_in_callback);
        call_back(&r);
    }
}

void bhi_violation_report_only(bhi_violation_t what, uintptr_t address)
{
    if (reporting) {
        write_nested(bhi_violation_id(what), address);
        return;
    }
    bhi_report_t r;
    bhi_format_t first;
    start_report(&r, what, address, false);
    bhi_report_first_line(&r, &first);
    bool detail = atomic_load_explicit(&detailed, memory_order_relaxed) < DETAILED_MOST;
    if (detail)
        atomic_fetch_add_explicit(&detailed, 1, memory_order_relaxed);
    reporting = true;
    write_report(&r, &first, detail && is_of_address(what));
    call_back(&r);
    reporting = false;
}

bool bhi_violation_is_reporting(void)
{
    return reporting;
}

_Noreturn void bhi_violation_nested(const char *what, uintptr_t address)
{
    write_nested(what, address);
    bhi_os_abort();
}

/* One report of a fault at a time; its buffers are too large for a signal's stack. */
static struct {
    bhi_report_t report;
    bhi_report_text_t text;
    bhi_format_t first;
} fault;
static _Atomic(uint32_t) fault_busy;

static bool begin_fault(void)
{
    for (unsigned i = 0; atomic_exchange(&fault_busy, 1) != 0; i++) {
        if (i == WAIT_STEPS)
            return false; /* stuck, or left by a handler that jumped away: say nothing */
        bhi_os_sleep_us(WAIT_STEP_US);
    }
    return true;
}

void bhi_violation_fault(bhi_violation_t what, uintptr_t address, const char *access, const bhi_registers_t *at, bool fatal)
{
    uintptr_t frames[BH_STACK_DEPTH];
    if (!begin_fault())
        return;
    start_report(&fault.report, what, address, fatal);
    fault.report.access = access;
    bhi_report_first_line(&fault.report, &fault.first);
    if (fatal)
        memcpy(bh_abort_msg, fault.first.text, fault.first.length < BH_ABORT_MSG_SIZE ? fault.first.length - 1 : BH_ABORT_MSG_SIZE - 1);
    reporting = true;
    set_stack(&fault.report, frames, bhi_stack_of_fault(at, frames, BH_STACK_DEPTH));
    bool detail = fatal || atomic_fetch_add_explicit(&detailed, 1, memory_order_relaxed) < DETAILED_MOST;
    write_into(&fault.text, &fault.report, &fault.first, detail);
    call_back(&fault.report);
    reporting = false;
    atomic_store(&fault_busy, 0);
}

/* Whether the calling thread is the one to report. What a forked child inherited
 * of a report of its parent's is nobody's. */
static bool is_first(uint64_t self, uint64_t *who)
{
    *who = 0;
    while (!atomic_compare_exchange_strong(&reporter, who, self)) {
        if (*who >> 32 == self >> 32)
            return false;
    }
    return true;
}

_Noreturn void bhi_violation(bhi_violation_t what, uintptr_t address)
{
    uint64_t self = (uint64_t)(uint32_t)bhi_os_pid() << 32 | (uint32_t)bhi_os_tid(), who;
    if (is_first(self, &who)) {
        report_and_end(what, address);
    } else if (who == self) {
        write_nested(bhi_violation_id(what), address);
    } else {
        /* Another thread reports and will end us all; should it be stuck (a full
         * pipe, a callback), do not wait for ever. */
        for (unsigned i = 0; i < WAIT_STEPS; i++)
            bhi_os_sleep_us(WAIT_STEP_US);
    }
    bhi_os_abort();
}
