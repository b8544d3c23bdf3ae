/* Reports of leaks; see leaks.h. */
#include "core/leaks.h"

#include "core/traced.h"
#include "os/os.h"
#include "os/signal.h"
#include "os/world.h"
#include "rt/report.h"
#include "rt/sink.h"
#include "rt/stack.h"

#define GROUPS 16384u    /* a power of two; what finds no place is in the sums alone */
#define GROUPS_SHOWN 100u

typedef struct group {
    uint32_t origin; /* without the mark, plus 1; 0: free */
    size_t count, bytes;
} group_t;

typedef struct tally {
    group_t *groups;
    size_t count, bytes, group_count;
} tally_t;

_Atomic(bool) bhi_leaks_asked;
static _Atomic(bool) busy;

/* ------------------------------------------------------------------- search */

static void count_one(const bhi_found_t *found, void *arg)
{
    atomic_fetch_and(found->origin, ~BHI_ORIGIN_MARK);
    ++*(size_t *)arg;
}

static void add(const bhi_found_t *found, void *arg)
{
    tally_t *t = arg;
    uint32_t origin = atomic_load_explicit(found->origin, memory_order_relaxed);
    if ((origin & BHI_ORIGIN_MARK) != 0)
        return;
    t->count++;
    t->bytes += found->size;
    uint32_t at = origin * 0x9e3779b1u; /* golden ratio: Knuth, multiplicative hashing */
    for (uint32_t i = 0; i < GROUPS; i++) {
        group_t *g = &t->groups[(at + i) % GROUPS];
        if (g->origin == 0) {
            if (t->group_count == GROUPS / 2)
                return; /* all would become slow */
            t->group_count++;
        }
        if (g->origin == 0 || g->origin == origin + 1) {
            g->origin = origin + 1;
            g->count++;
            g->bytes += found->size;
            return;
        }
    }
}

/* The other threads are stopped. */
static bool search(bhi_scan_t *s, tally_t *t)
{
    size_t live = 0;
    bhi_scan_blocks(count_one, &live);
    size_t groups = bhi_align_up(GROUPS * sizeof(group_t), BH_OS_PAGE_SIZE);
    size_t bytes = bhi_align_up(groups + BHI_SCAN_COPY + live * sizeof(bhi_found_t), BH_OS_PAGE_SIZE);
    intptr_t at = bhi_os_reserve(0, bytes);
    if (bhi_os_failed(at))
        return false;
    s->own_from = (uintptr_t)at;
    s->own_to = (uintptr_t)at + bytes;
    if (bhi_os_open((uintptr_t)at, bytes) != 0)
        return false;
    t->groups = (group_t *)at;
    s->copy = (unsigned char *)at + groups;
    s->work = (bhi_found_t *)(void *)(s->copy + BHI_SCAN_COPY);
    s->most = live;
    s->direct = !bhi_os_copy(s->copy, (uintptr_t)s, sizeof(uintptr_t));
    bhi_os_start_t start;
    bhi_os_start_info(&start);
    s->os_page = start.page_size;
    s->pagemap = s->os_page != 0 ? bhi_os_file_open("/proc/self/pagemap") : -1;
    bool whole = bhi_scan_mark(s);
    if (s->pagemap >= 0)
        bhi_os_file_close(s->pagemap);
    if (whole)
        bhi_scan_blocks(add, t);
    return whole;
}

/* A frame below the one that holds this thread's registers. */
static BH_NOINLINE bool search_below(bhi_scan_t *s, tally_t *t, unsigned *running)
{
    s->stack = (uintptr_t)__builtin_frame_address(0);
    bhi_state_lock();
    *running = bhi_os_world_stop();
    bool done = search(s, t);
    bhi_os_world_go();
    bhi_state_unlock();
    return done;
}

/* ------------------------------------------------------------------- report */

static void write_part(bhi_report_text_t *out)
{
    if (out->length > 0)
        bhi_sink_write(out->text, out->length);
    out->length = 0;
}

static void figure(bhi_format_t *f, const char *before, uint64_t n, const char *after)
{
    bhi_format_text(f, before);
    bhi_format_number(f, n);
    bhi_format_text(f, after);
}

static void write_group(bhi_report_text_t *out, const group_t *g, bool json)
{
    static bh_report_t r; /* one report at a time */
    uintptr_t frames[BH_STACK_DEPTH];
    bhi_format_t f;
    const char *kind = bhi_kind_name(bhi_origin_kind(g->origin - 1));
    unsigned n = bhi_depot_get(bhi_process.depot, bhi_origin_stack(g->origin - 1), frames);
    for (unsigned i = 0; i < n; i++)
        r.alloc_stack[i] = (const void *)frames[i];
    r.alloc_depth = n;
    bhi_format_start(&f);
    figure(&f, json ? "{\"bulkhead\":\"LEAK\",\"count\":" : "bulkhead: LEAK: ", g->count, json ? "" : g->count == 1 ? " block" : " blocks");
    figure(&f, json ? ",\"bytes\":" : ", ", g->bytes, json ? "" : " bytes");
    figure(&f, json ? ",\"average\":" : ", average ", g->bytes / g->count, json ? ",\"allocated_by\":\"" : ", allocated by ");
    bhi_format_text(&f, kind);
    bhi_format_text(&f, json ? "\"" : n != 0 ? ":\n" : ", stack not recorded\n");
    bhi_report_append(out, &f);
    if (json)
        bhi_report_stacks_json(&r, out);
    else
        bhi_report_frames(out, r.alloc_stack, n);
    bhi_report_piece(out, json ? "}\n" : "");
}

/* The largest first; a group that was written counts no bytes and no blocks. */
static void write_groups(bhi_report_text_t *out, const tally_t *t, bool json)
{
    for (size_t n = 0; n < t->group_count && n < GROUPS_SHOWN; n++) {
        group_t *most = NULL;
        for (group_t *g = t->groups; g < t->groups + GROUPS; g++) {
            if (g->count != 0 && (most == NULL || g->bytes > most->bytes))
                most = g;
        }
        if (most == NULL)
            return;
        write_group(out, most, json);
        most->count = most->bytes = 0;
    }
}

static void write_sums(bhi_report_text_t *out, const tally_t *t, unsigned running, bool json)
{
    bhi_format_t f;
    bhi_format_start(&f);
    figure(&f, json ? "{\"bulkhead\":\"LEAKS\",\"count\":" : "bulkhead: LEAKS: ", t->count, json ? "" : t->count == 1 ? " block" : " blocks");
    figure(&f, json ? ",\"bytes\":" : ", ", t->bytes, json ? "" : " bytes");
    figure(&f, json ? ",\"groups\":" : ", allocated in ", t->group_count, json ? "" : " ways");
    if (json)
        figure(&f, ",\"threads_running\":", running, "}");
    else if (running != 0)
        figure(&f, "; ", running, " threads could not be stopped, and may hold some of them");
    bhi_format_text(&f, "\n");
    bhi_report_append(out, &f);
}

static bool can_look(void)
{
    return bhi_process.ready && bhi_process.records && !bhi_forking && !bhi_stack_busy();
}

size_t bhi_leaks_report(bool quiet)
{
    if (!can_look() || atomic_exchange(&busy, true))
        return SIZE_MAX;
    __builtin_unwind_init(); /* pointers in registers are on the stack from here on */
    bhi_scan_t s = {.pagemap = -1};
    tally_t t = {.count = 0};
    unsigned running;
    bool done = search_below(&s, &t, &running), json = bhi_process.options.report == BHI_REPORT_JSON;
    if (done && (!quiet || t.count != 0)) {
        static bhi_report_text_t out;
        out = (bhi_report_text_t){.full = write_part};
        write_groups(&out, &t, json);
        write_sums(&out, &t, running, json);
        write_part(&out);
    }
    if (s.own_to != 0)
        bhi_os_release(s.own_from, s.own_to - s.own_from);
    atomic_store(&busy, false);
    return done ? t.count : SIZE_MAX;
}

/* ------------------------------------------------------------------ on demand */

static void on_signal(int signal, void *info, void *context)
{
    (void)signal;
    (void)info;
    (void)context;
    atomic_store_explicit(&bhi_leaks_asked, true, memory_order_relaxed);
}

void bhi_leaks_answer(void)
{
    if (can_look() && atomic_exchange(&bhi_leaks_asked, false))
        bhi_leaks_report(false);
}

void bhi_leaks_init(void)
{
    uint32_t signal = bhi_process.options.leak_signal;
    bhi_os_action_t ours = {.handler = on_signal, .flags = BHI_OS_ACTION_RESTART};
    if (bhi_process.records && signal != 0)
        bhi_os_action((int)signal, &ours, NULL);
}
