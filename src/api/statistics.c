/* Statistics as structures, text and JSON. Allocates nothing and uses no stdio:
 * programs ask when memory is short, and at their end. */
#include "bulkhead.h"

#include "core/heap.h"
#include "core/stats.h"
#include "core/thread.h"
#include "os/os.h"
#include "rt/format.h"
#include "rt/process.h"

#include <errno.h>
#include <string.h>

typedef struct figure {
    const char *name;
    size_t offset;
} figure_t;

/* In the order of the structures. */
static const figure_t process_figures[] = {
#define FIGURE(field) {#field, offsetof(bh_stats_t, field)}
    FIGURE(reserved_bytes), FIGURE(open_bytes), FIGURE(used_bytes), FIGURE(free_slot_bytes), FIGURE(control_bytes),
    FIGURE(segment_count), FIGURE(page_count), FIGURE(large_count), FIGURE(large_bytes), FIGURE(huge_count),
    FIGURE(huge_bytes), FIGURE(heap_count), FIGURE(thread_count), FIGURE(orphan_count), FIGURE(guard_missed),
    FIGURE(advice_refused), FIGURE(quarantined_bytes), FIGURE(guarded_count), FIGURE(guarded_bytes), FIGURE(guarded_refused),
#undef FIGURE
};

static const figure_t heap_figures[] = {
#define FIGURE(field) {#field, offsetof(bh_heap_stats_t, field)}
    FIGURE(page_count), FIGURE(page_bytes), FIGURE(used_count), FIGURE(used_bytes), FIGURE(large_count), FIGURE(large_bytes),
#undef FIGURE
};

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
_Static_assert(COUNT(process_figures) + 2 == sizeof(bh_stats_t) / sizeof(size_t), "every field has a name");
_Static_assert(COUNT(heap_figures) + 2 == sizeof(bh_heap_stats_t) / sizeof(size_t), "every field has a name");

static size_t value_of(const void *stats, const figure_t *figure)
{
    return *(const size_t *)((const char *)stats + figure->offset);
}

/* --------------------------------------------------------------- structures */

static void fill(bh_stats_t *out)
{
    bhi_stats_t s;
    bhi_stats_collect(&s);
    *out = (bh_stats_t){
        .struct_size = sizeof *out,
        .version = BH_STATS_VERSION,
        .reserved_bytes = s.reserved_bytes,
        .open_bytes = s.open_bytes,
        .used_bytes = s.used_bytes,
        .free_slot_bytes = s.free_slot_bytes,
        .control_bytes = s.control_bytes,
        .segment_count = s.segment_count,
        .page_count = s.page_count,
        .large_count = s.large_count,
        .large_bytes = s.large_bytes,
        .huge_count = s.huge_count,
        .huge_bytes = s.huge_bytes,
        .heap_count = s.heap_count,
        .thread_count = s.thread_count,
        .orphan_count = s.orphan_count,
        .guard_missed = s.guard_missed,
        .advice_refused = s.advice_refused,
        .quarantined_bytes = s.quarantined_bytes,
        .guarded_count = s.guarded_count,
        .guarded_bytes = s.guarded_bytes,
        .guarded_refused = s.guarded_refused,
    };
}

static void fill_heap(const bh_heap_t *heap, bh_heap_stats_t *out)
{
    bhi_heap_t *h = heap != NULL ? bhi_heap_of_handle(heap, bhi_thread_self()) : bhi_thread_heap;
    bhi_heap_figures_t s = {0};
    if (h != &bhi_heap_empty)
        bhi_stats_of_heap(h, &s);
    *out = (bh_heap_stats_t){
        .struct_size = sizeof *out,
        .version = BH_STATS_VERSION,
        .page_count = s.page_count,
        .page_bytes = s.page_bytes,
        .used_count = s.used_count,
        .used_bytes = s.used_bytes,
        .large_count = s.large_count,
        .large_bytes = s.large_bytes,
    };
}

/* For a caller that was compiled with a shorter or longer structure. Both start
 * with its size, which stays as the caller set it. */
static bool hand_over(size_t *out, const void *own, size_t own_size, size_t least)
{
    size_t size = *out;
    if (size < least) {
        errno = EINVAL;
        return false;
    }
    memcpy(out, own, size < own_size ? size : own_size);
    if (size > own_size)
        memset((char *)out + own_size, 0, size - own_size);
    *out = size;
    return true;
}

bool bh_stats_get(bh_stats_t *out)
{
    bh_stats_t own;
    fill(&own);
    return hand_over(&out->struct_size, &own, sizeof own, offsetof(bh_stats_t, advice_refused) + sizeof(size_t));
}

bool bh_heap_stats_get(bh_heap_t *heap, bh_heap_stats_t *out)
{
    bh_heap_stats_t own;
    fill_heap(heap, &own);
    return hand_over(&out->struct_size, &own, sizeof own, offsetof(bh_heap_stats_t, large_bytes) + sizeof(size_t));
}

/* --------------------------------------------------------------------- JSON */

typedef struct sink {
    char *at;
    size_t size;
    size_t length; /* of all that was written, whether it fitted or not */
} sink_t;

static void put(sink_t *sink, const bhi_format_t *piece)
{
    for (size_t i = 0; i < piece->length; i++, sink->length++) {
        if (sink->length + 1 < sink->size)
            sink->at[sink->length] = piece->text[i];
    }
}

static size_t json(const void *stats, const figure_t *figures, size_t count, char *buffer, size_t size)
{
    sink_t sink = {buffer, size, 0};
    bhi_format_t piece;
    bhi_format_start(&piece);
    bhi_format_text(&piece, "{\"version\": ");
    bhi_format_number(&piece, BH_STATS_VERSION);
    put(&sink, &piece);
    for (size_t i = 0; i < count; i++) {
        bhi_format_start(&piece);
        bhi_format_text(&piece, ", \"");
        bhi_format_text(&piece, figures[i].name);
        bhi_format_text(&piece, "\": ");
        bhi_format_number(&piece, value_of(stats, &figures[i]));
        put(&sink, &piece);
    }
    bhi_format_start(&piece);
    bhi_format_text(&piece, "}");
    put(&sink, &piece);
    if (size > 0)
        buffer[sink.length < size ? sink.length : size - 1] = '\0';
    return sink.length;
}

size_t bh_stats_json(char *buffer, size_t size)
{
    bh_stats_t s;
    fill(&s);
    return json(&s, process_figures, COUNT(process_figures), buffer, size);
}

size_t bh_heap_stats_json(bh_heap_t *heap, char *buffer, size_t size)
{
    bh_heap_stats_t s;
    fill_heap(heap, &s);
    return json(&s, heap_figures, COUNT(heap_figures), buffer, size);
}

/* --------------------------------------------------------------------- text */

static void to_stderr(const char *line, void *arg)
{
    (void)arg;
    bhi_os_write(2, line, strlen(line));
}

static void print(const char *what, const void *stats, const figure_t *figures, size_t count, bh_output_fun *out, void *arg)
{
    bhi_format_t line;
    for (size_t i = 0; i < count; i++) {
        bhi_format_start(&line);
        bhi_format_text(&line, what);
        bhi_format_text(&line, figures[i].name);
        bhi_format_text(&line, " = ");
        bhi_format_number(&line, value_of(stats, &figures[i]));
        bhi_format_text(&line, "\n");
        line.text[line.length] = '\0'; /* far from full */
        (out != NULL ? out : to_stderr)(line.text, arg);
    }
}

void bh_stats_print(bh_output_fun *out, void *arg)
{
    bh_stats_t s;
    fill(&s);
    print("bulkhead: stats: ", &s, process_figures, COUNT(process_figures), out, arg);
}

void bh_heap_stats_print(bh_heap_t *heap, bh_output_fun *out, void *arg)
{
    bh_heap_stats_t s;
    fill_heap(heap, &s);
    print("bulkhead: heap stats: ", &s, heap_figures, COUNT(heap_figures), out, arg);
}

/* After the program's own destructors and its functions for atexit. It only
 * looks: blocks stay valid for whatever runs later still. */
__attribute__((destructor(101))) static void show_at_exit(void)
{
    if (bhi_process.ready && bhi_process.options.show_stats != 0)
        bh_stats_print(NULL, NULL);
}
