/* Stacks in reports: module + offset + build id, which tools turn into functions
 * and lines afterwards. Of a program linked at a fixed address, and where no module
 * is known, offsets are addresses. */
#include "rt/report.h"

#include "os/os.h"
#include "rt/stack.h"

#define FRAME "bulkhead:     #"
#define PATH_SHOWN 256u

static void hex_bytes(bhi_format_t *f, const unsigned char *bytes, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        const char two[3] = {"0123456789abcdef"[bytes[i] >> 4], "0123456789abcdef"[bytes[i] & 15], '\0'};
        bhi_format_text(f, two);
    }
}

/* Names are paths, which may hold what they like. */
static void module_name(bhi_format_t *f, const char *name)
{
    char program[PATH_SHOWN];
    if (*name == '\0')
        name = bhi_os_link_text("/proc/self/exe", program, sizeof program) != 0 ? program : "(program)";
    size_t n = 0;
    while (n < PATH_SHOWN && name[n] != '\0')
        n++;
    for (size_t i = 0; i < n; i++) {
        bool bad = name[i] == '"' || name[i] == '\\';
        bhi_format_foreign(f, bad ? "?" : &name[i], 1);
    }
}

static void location(bhi_format_t *f, const void *address)
{
    bhi_module_t m;
    if (!bhi_module_find((uintptr_t)address, &m)) {
        bhi_format_hex(f, (uintptr_t)address);
        return;
    }
    module_name(f, m.name);
    bhi_format_text(f, "+");
    bhi_format_hex(f, m.offset);
    if (m.build_id_length != 0) {
        bhi_format_text(f, " (build id ");
        hex_bytes(f, m.build_id, m.build_id_length);
        bhi_format_text(f, ")");
    }
}

static void lines(bhi_report_text_t *out, const char *what, int thread, const void *const *frames, unsigned n)
{
    bhi_format_t f;
    bhi_format_start(&f);
    bhi_format_text(&f, what);
    if (thread != 0) {
        bhi_format_text(&f, " by thread ");
        bhi_format_number(&f, (unsigned)thread);
    }
    bhi_format_text(&f, n != 0 ? ":\n" : ", stack not recorded\n");
    bhi_report_append(out, &f);
    bhi_report_frames(out, frames, n);
}

void bhi_report_frames(bhi_report_text_t *out, const void *const *frames, unsigned n)
{
    bhi_format_t f;
    for (unsigned i = 0; i < n; i++) {
        bhi_format_start(&f);
        bhi_format_text(&f, FRAME);
        bhi_format_number(&f, i);
        bhi_format_text(&f, " ");
        location(&f, frames[i]);
        bhi_format_text(&f, "\n");
        bhi_report_append(out, &f);
    }
}

void bhi_report_stacks(const bhi_report_t *r, bhi_report_text_t *out)
{
    if (r->here_depth != 0)
        lines(out, "bulkhead:   reported here", r->thread, r->here_stack, r->here_depth);
    if (r->alloc_thread != 0 || r->alloc_depth != 0)
        lines(out, "bulkhead:   allocated", r->alloc_thread, r->alloc_stack, r->alloc_depth);
    if (r->free_thread != 0 || r->free_depth != 0)
        lines(out, "bulkhead:   freed", r->free_thread, r->free_stack, r->free_depth);
}

static void member(bhi_report_text_t *out, const char *key, const void *const *frames, unsigned n)
{
    bhi_format_t f;
    if (n == 0)
        return;
    bhi_report_piece(out, ",\"");
    bhi_report_piece(out, key);
    bhi_report_piece(out, "\":[");
    for (unsigned i = 0; i < n; i++) {
        bhi_format_start(&f);
        bhi_format_text(&f, i == 0 ? "\"" : ",\"");
        location(&f, frames[i]);
        bhi_format_text(&f, "\"");
        bhi_report_append(out, &f);
    }
    bhi_report_piece(out, "]");
}

static void thread_member(bhi_report_text_t *out, const char *key, int thread)
{
    bhi_format_t f;
    if (thread == 0)
        return;
    bhi_format_start(&f);
    bhi_format_text(&f, key);
    bhi_format_number(&f, (unsigned)thread);
    bhi_report_append(out, &f);
}

void bhi_report_stacks_json(const bhi_report_t *r, bhi_report_text_t *out)
{
    thread_member(out, ",\"alloc_thread\":", r->alloc_thread);
    thread_member(out, ",\"free_thread\":", r->free_thread);
    member(out, "stack", r->here_stack, r->here_depth);
    member(out, "alloc_stack", r->alloc_stack, r->alloc_depth);
    member(out, "free_stack", r->free_stack, r->free_depth);
}
