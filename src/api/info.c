/* The tuning and reporting half of glibc's <malloc.h>.
 *
 * Figures are one racy snapshot of core/stats.h: each is right for some moment
 * of the call, together they need not add up while other threads run. Only
 * malloc_info uses stdio, because its contract is a FILE. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include "api/api.h"
#include "core/stats.h"
#include "os/os.h"
#include "rt/format.h"

#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <stdio.h>

#if defined(__GLIBC__) && defined(__GLIBC_PREREQ)
#if __GLIBC_PREREQ(2, 33)
#define BH_HAS_MALLINFO2 1
#endif
#endif
#ifndef BH_HAS_MALLINFO2
#define BH_HAS_MALLINFO2 0
#endif

/* glibc's numbers; a libc without mallopt has no names for them. */
enum {
    OPT_MXFAST = 1,
    OPT_NLBLKS = 2,
    OPT_GRAIN = 3,
    OPT_KEEP = 4,
    OPT_TRIM_THRESHOLD = -1,
    OPT_TOP_PAD = -2,
    OPT_MMAP_THRESHOLD = -3,
    OPT_MMAP_MAX = -4,
    OPT_CHECK_ACTION = -5,
    OPT_PERTURB = -6,
    OPT_ARENA_TEST = -7,
    OPT_ARENA_MAX = -8,
};

BH_EXPORT int malloc_trim(size_t pad);
BH_EXPORT int mallopt(int parameter, int value);
BH_EXPORT int malloc_info(int options, FILE *out);
BH_EXPORT void malloc_stats(void);

/* Returns all unused memory to the kernel; `pad`, the slack to keep at the top
 * of a break that does not exist here, has no meaning. 1 if there was any. */
int malloc_trim(size_t pad)
{
    (void)pad;
    bhi_stats_t before, after;
    bhi_stats_collect(&before);
    bh_collect(true);
    bhi_stats_collect(&after);
    return after.open_bytes < before.open_bytes || after.page_count < before.page_count;
}

/* Tuning of another allocator's insides: accepted, so that programs which treat
 * a refusal as an error run, and without effect. Hardening has no switch here,
 * M_CHECK_ACTION least of all. */
int mallopt(int parameter, int value)
{
    (void)value;
    switch (parameter) {
    case OPT_MXFAST:
    case OPT_NLBLKS:
    case OPT_GRAIN:
    case OPT_KEEP:
    case OPT_TRIM_THRESHOLD:
    case OPT_TOP_PAD:
    case OPT_MMAP_THRESHOLD:
    case OPT_MMAP_MAX:
    case OPT_CHECK_ACTION:
    case OPT_PERTURB:
    case OPT_ARENA_TEST:
    case OPT_ARENA_MAX:
        return 1;
    default:
        return 0;
    }
}

/* a - b, and 0 where a racy snapshot would make it negative. */
static size_t difference(size_t a, size_t b)
{
    return a > b ? a - b : 0;
}

/* --------------------------------------------------------------- structures */

#if defined(__GLIBC__)

/* glibc's vocabulary: what malloc maps singly (hblk) is our large blocks, its
 * arenas are our pages. It keeps the two apart, so in use is uordblks + hblkhd. */
typedef struct snapshot {
    size_t arena, large_count, large, used, free, releasable;
} snapshot_t;

static snapshot_t take_snapshot(void)
{
    bhi_stats_t s;
    bhi_stats_collect(&s);
    snapshot_t t;
    t.large_count = s.large_count;
    t.large = s.large_bytes;
    t.arena = difference(s.open_bytes, s.large_bytes);
    t.used = difference(s.used_bytes, s.large_bytes);
    t.free = difference(t.arena, t.used);
    t.releasable = s.free_slot_bytes;
    return t;
}

#if BH_HAS_MALLINFO2
BH_EXPORT struct mallinfo2 mallinfo2(void);

struct mallinfo2 mallinfo2(void)
{
    snapshot_t s = take_snapshot();
    return (struct mallinfo2){
        .arena = s.arena,
        .hblks = s.large_count,
        .hblkhd = s.large,
        .uordblks = s.used,
        .fordblks = s.free,
        .keepcost = s.releasable,
    };
}
#endif

BH_EXPORT struct mallinfo mallinfo(void);

/* glibc lets the figures of large heaps wrap round; the largest int says
 * "at least that much" instead. */
static int clamp(size_t n)
{
    return n > INT_MAX ? INT_MAX : (int)n;
}

struct mallinfo mallinfo(void)
{
    snapshot_t s = take_snapshot();
    return (struct mallinfo){
        .arena = clamp(s.arena),
        .hblks = clamp(s.large_count),
        .hblkhd = clamp(s.large),
        .uordblks = clamp(s.used),
        .fordblks = clamp(s.free),
        .keepcost = clamp(s.releasable),
    };
}

#endif

/* -------------------------------------------------------------------- texts */

/* XML as glibc's, as far as the terms fit; programs tell the layouts apart by
 * the version. The snapshot comes first: writing to `out` may allocate. */
int malloc_info(int options, FILE *out)
{
    if (options != 0) {
        errno = EINVAL;
        return EINVAL;
    }
    bhi_stats_t s;
    bhi_stats_collect(&s);
    int written = fprintf(out,
                          "<malloc version=\"bulkhead-1\">\n"
                          "<system type=\"reserved\" size=\"%zu\"/>\n"
                          "<system type=\"current\" size=\"%zu\"/>\n"
                          "<system type=\"control\" size=\"%zu\"/>\n"
                          "<total type=\"used\" size=\"%zu\"/>\n"
                          "<total type=\"rest\" size=\"%zu\"/>\n"
                          "<total type=\"mmap\" count=\"%zu\" size=\"%zu\"/>\n"
                          "<segments count=\"%zu\" unused=\"%zu\"/>\n"
                          "<pages count=\"%zu\"/>\n"
                          "<guards missed=\"%zu\"/>\n"
                          "</malloc>\n",
                          s.reserved_bytes, s.open_bytes, s.control_bytes, s.used_bytes,
                          difference(s.open_bytes, s.used_bytes), s.large_count, s.large_bytes, s.segment_count,
                          s.free_slot_bytes, s.page_count, s.guard_missed);
    return written < 0 ? -1 : 0;
}

static void write_figure(const char *name, size_t value)
{
    bhi_format_t line;
    bhi_format_start(&line);
    bhi_format_text(&line, "bulkhead: ");
    bhi_format_text(&line, name);
    bhi_format_text(&line, " = ");
    bhi_format_number(&line, value);
    bhi_format_text(&line, "\n");
    bhi_os_write(2, line.text, line.length);
}

void malloc_stats(void)
{
    bhi_stats_t s;
    bhi_stats_collect(&s);
    write_figure("reserved bytes", s.reserved_bytes);
    write_figure("open bytes", s.open_bytes);
    write_figure("control bytes", s.control_bytes);
    write_figure("used bytes", s.used_bytes);
    write_figure("large blocks", s.large_count);
    write_figure("large bytes", s.large_bytes);
    write_figure("segments", s.segment_count);
    write_figure("pages", s.page_count);
    write_figure("bytes in free slots", s.free_slot_bytes);
    write_figure("bytes in quarantine", s.quarantined_bytes);
    write_figure("guards missed", s.guard_missed);
}
