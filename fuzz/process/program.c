/* The program of an input of target process: correct steps, and bugs, each with what is
 * promised of it. */
#include "api/kinds.h"
#include "process/process.h"
#include "program.h"

#include "bulkhead.h"

#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SLOTS 32u
#define ID(name) ((uint64_t)1 << BHI_##name)
#define ACCESS (ID(USE_AFTER_FREE) | ID(GUARD_OVERFLOW) | ID(GUARD_UNDERFLOW))
#define DAMAGE (ID(OVERFLOW) | ID(UNDERFLOW) | ID(WRITE_AFTER_FREE))
#define CAP ((size_t)1024 * 1024)

typedef enum kind { KIND_MALLOC, KIND_NEW, KIND_ARRAY, KIND_ALIGNED, KIND_NEW_ALIGNED, KIND_HEAP } kind_t;

static struct slot {
    unsigned char *p; /* where the search for leaks finds it */
    size_t size;
    kind_t kind;
    unsigned char stamp;
    bool freed;
} slots[SLOTS];

static const process_options_t *options;
static process_told_t *told;
static const uint8_t *code;
static size_t steps, next_step;
static unsigned stamps;
static bool damaged; /* contents are no longer what they should be */

void process_found(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(told->finding, sizeof told->finding, format, args);
    va_end(args);
    _exit(9);
}

static struct slot *slot_of(unsigned a)
{
    return &slots[a % SLOTS];
}

static void check(const struct slot *s)
{
    for (size_t i = 0; !damaged && i < s->size && i < 300; i++) {
        if (s->p[i] != s->stamp)
            process_found("contents of block %p changed at %zu", (void *)s->p, i);
    }
}

static void release(struct slot *s)
{
    if (s->p == NULL || s->freed)
        return;
    check(s);
    switch (s->kind) {
    case KIND_MALLOC: bh_free(s->p); break;
    case KIND_NEW: s->stamp % 2 != 0 ? bhi_delete(s->p) : bhi_delete_sized(s->p, s->size); break;
    case KIND_ARRAY: s->stamp % 2 != 0 ? bhi_delete_array(s->p) : bhi_delete_array_sized(s->p, s->size); break;
    case KIND_ALIGNED: bh_free(s->p); break;
    case KIND_NEW_ALIGNED: bhi_delete_aligned_sized(s->p, 64, s->size); break;
    default: bh_free(s->p); break;
    }
    s->freed = true;
}

static void took(struct slot *s, void *p, size_t size, kind_t kind)
{
    if (p == NULL) {
        if (size < CAP || !options->has_cap)
            process_found("%zu bytes were refused", size);
        *s = (struct slot){0};
        return;
    }
    for (unsigned i = 0; !damaged && i < SLOTS; i++) {
        const struct slot *o = &slots[i];
        if (o != s && o->p != NULL && !o->freed && (uintptr_t)p < (uintptr_t)o->p + o->size && (uintptr_t)o->p < (uintptr_t)p + size)
            process_found("block %p of %zu bytes overlaps %p of %zu", p, size, (void *)o->p, o->size);
    }
    *s = (struct slot){p, size, kind, (unsigned char)++stamps, false};
    memset(p, s->stamp, size < 300 ? size : 300);
}

static size_t size_of(unsigned b, unsigned c)
{
    size_t size = program_size((uint8_t)b, (uint8_t)c);
    size = size > 300000 ? size % (options->has_cap ? 3 * CAP : 300000) : size;
    if (options->cap_aborts && size > CAP)
        told->allowed |= ID(ALLOCATION_CAP);
    return size;
}

/* Every block is to be found from the table, so none is a leak. */
static void look_for_leaks(void)
{
    size_t n = bh_report_leaks();
    if (n != 0 && n != (size_t)-1 && !damaged && told->allowed == 0)
        process_found("%zu leaks, and there is none", n);
}

static void resize(struct slot *s, unsigned form, size_t size)
{
    if (s->p == NULL || s->freed || s->kind != KIND_MALLOC || size == 0)
        return;
    check(s);
    struct slot was = *s;
    void *p;
    switch (form % 4) {
    case 0: p = bh_realloc(s->p, size); break;
    case 1: p = bh_recalloc(s->p, 1, size); break;
    case 2: p = bh_aligned_realloc(s->p, 32, size); break;
    default: p = bh_expand(s->p, size); break;
    }
    if (p == NULL)
        return;
    for (size_t i = 0; !damaged && i < was.size && i < size && i < 300; i++) {
        if (((unsigned char *)p)[i] != was.stamp)
            process_found("resized block %p changed at %zu", p, i);
    }
    s->p = NULL;
    took(s, p, size, form % 4 == 2 ? KIND_ALIGNED : KIND_MALLOC);
}

static void on_heap(struct slot *s, unsigned form, size_t size)
{
    bh_heap_t *heap = bh_heap_new();
    if (heap == NULL)
        process_found("no heap");
    release(s);
    void *p;
    switch (form % 8) {
    case 0: p = bh_heap_malloc(heap, size); break;
    case 1: p = bh_heap_calloc(heap, 1, size); break;
    case 2: p = bh_heap_mallocn(heap, 1, size); break;
    case 3: p = bh_heap_aligned_alloc(heap, 16, size); break;
    case 4: p = bh_heap_aligned_zalloc(heap, 64, size); break;
    case 5: p = bh_heap_reallocarray(heap, NULL, 1, size); break;
    case 6: p = bh_heap_recalloc(heap, NULL, 1, size); break;
    default:
        p = bh_heap_strdup(heap, "a string");
        size = p != NULL ? sizeof "a string" : size;
    }
    took(s, p, size, KIND_HEAP);
    char text[600];
    bh_heap_stats_t stats = {.struct_size = sizeof stats};
    bh_heap_stats_get(heap, &stats);
    if (bh_heap_stats_json(heap, text, sizeof text) == 0)
        process_found("no statistics of a heap");
    if (p != NULL && size != 0 && !bh_heap_contains_block(heap, p))
        process_found("%p is not said to be in its heap", p);
    bh_heap_delete(heap);
}

static void no_line(const char *line, void *arg)
{
    (void)line;
    ++*(unsigned *)arg;
}

static void ask(unsigned form, const struct slot *s)
{
    char text[4096];
    unsigned lines = 0;
    bool live = s->p != NULL && !s->freed;
    switch (form % 8) {
    case 0: bh_stats_print(no_line, &lines); break;
    case 1: bh_stats_json(text, sizeof text); break;
    case 2:
        if (bh_option_get("guarded_sample_rate", text, sizeof text) < 0 || bh_option_get_long("purge_delay") < 0)
            process_found("an option has no value");
        break;
    case 3:
        if (live && bh_usable_size(s->p) < s->size)
            process_found("block %p is smaller than it was", (void *)s->p);
        break;
    case 4:
        if (live && s->size != 0 && !bh_is_in_heap_region(s->p))
            process_found("%p is in no region", (void *)s->p);
        break;
    case 5: bh_option_set("purge_delay", "3"); break;
    case 6: bh_heap_stats_print(NULL, no_line, &lines); break;
    default: bh_free(bh_realpath("/usr/../usr", NULL)); break;
    }
}

static void on_report(const bh_report_t *report, void *arg)
{
    (void)arg;
    if (report->id == NULL)
        _exit(8);
}

/* ------------------------------------------------------------------------- bugs */

/* A touch of one byte: a guarded block traps it, others may be found damaged later. */
static void touch(unsigned char *at, bool writes, bool must)
{
    told->allowed |= ACCESS | (writes ? DAMAGE : 0);
    told->must = must && !options->recovers ? ACCESS : 0;
    damaged |= writes;
    told->touching = true;
    volatile unsigned char *byte = at;
    if (writes)
        *byte = (unsigned char)(*byte ^ 0x55);
    else
        (void)*byte;
    told->touching = false;
    if (told->must != 0)
        process_found("an access to %p came back", (void *)at);
}

static void must(uint64_t ids)
{
    told->allowed |= ids;
    told->must = ids;
}

static void wrong_kind(const struct slot *s)
{
    if (s->kind == KIND_MALLOC)
        bhi_delete(s->p);
    else if (s->kind == KIND_NEW)
        bhi_delete_array(s->p);
    else
        bh_free(s->p);
}

/* A block that was freed earlier is another's now, perhaps in a page of another class: a
 * call with its address is as good as any. */
static bool is_taken(const struct slot *s)
{
    for (const struct slot *o = slots; s->freed && o < slots + SLOTS; o++) {
        if (o != s && o->p != NULL && !o->freed && (uintptr_t)s->p - (uintptr_t)o->p <= o->size)
            return true;
    }
    return false;
}

static void bug(struct slot *s, unsigned form, unsigned by)
{
    static char here[64];
    bool live = s->p != NULL && !s->freed, guarded = options->guards_all && s->size > 0 && s->size <= 4096 && s->kind != KIND_HEAP;
    if (s->p == NULL || is_taken(s))
        return;
    switch (form % 10) {
    case 0:
    case 1: /* after free */
        release(s);
        if (s->size != 0)
            touch(s->p + by % s->size, (form % 10) == 1, guarded);
        break;
    case 2:
    case 3: /* behind */
        touch(s->p + s->size + by, form % 10 == 3, false);
        break;
    case 4: touch(s->p - 1 - by, (by & 1) != 0, false); break;
    case 5:
        release(s);
        must(ID(DOUBLE_FREE) | ID(INVALID_FREE) | DAMAGE);
        bh_free(s->p);
        break;
    case 6:
        if (!live || s->size < 2)
            return;
        must(ID(INVALID_FREE) | DAMAGE);
        bh_free(s->p + 1 + by % (s->size - 1));
        break;
    case 7:
        must(ID(FOREIGN_FREE) | DAMAGE);
        if (options->foreign_goes_on)
            told->must = 0;
        bh_free(here + by % sizeof here);
        break;
    case 8:
        release(s);
        must(ID(REALLOC_AFTER_FREE) | ID(INVALID_REALLOC) | DAMAGE);
        s->p = bh_realloc(s->p, by + 1u);
        break;
    default:
        if (!live || (s->kind != KIND_MALLOC && s->kind != KIND_NEW && s->kind != KIND_ARRAY))
            return;
        told->allowed |= ID(KIND_MISMATCH);
        wrong_kind(s);
        s->freed = true;
        return;
    }
    if (told->must != 0)
        process_found("a bad call on %p came back", (void *)s->p);
}

/* -------------------------------------------------------------------------- all */

static void run_steps(size_t most);

static void *thread(void *arg)
{
    run_steps(*(const size_t *)arg);
    return NULL;
}

static void in_thread(size_t n)
{
    pthread_t id;
    if (pthread_create(&id, NULL, thread, &n) == 0)
        pthread_join(id, NULL);
}

#define CHILDREN_MOST 16u

/* The child goes on alone; its parent then makes the same steps. Where these fork as well,
 * each of ten doubles the rest: so there is a bound on all of them together. */
static void in_child(size_t n)
{
    if (told->children == CHILDREN_MOST)
        return;
    told->children++;
    size_t from = next_step;
    /* By its address: the compiler's own fork forgets what fork's handlers covered. */
    static pid_t (*volatile const make_child)(void) = fork;
    pid_t child = make_child();
    if (child == 0) {
        run_steps(n);
        exit(0);
    }
    int status = 0;
    if (child > 0)
        waitpid(child, &status, 0);
    next_step = from;
    if (WIFSIGNALED(status)) /* judged as if it were this process */
        raise(WTERMSIG(status));
    if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
        _exit(WEXITSTATUS(status));
}

static void step(unsigned op, unsigned a, unsigned b, unsigned c)
{
    struct slot *s = slot_of(a);
    size_t size = size_of(b, c);
    switch (op % 21) {
    case 0:
    case 1: release(s); took(s, bh_malloc(size), size, KIND_MALLOC); break;
    case 2: release(s); break;
    case 3: release(s); took(s, bh_calloc(1, size), size, KIND_MALLOC); break;
    case 4: resize(s, a >> 5, size); break;
    case 5: release(s); took(s, bhi_new(size), size, KIND_NEW); break;
    case 6: release(s); took(s, bhi_new_array(size), size, KIND_ARRAY); break;
    case 7:
        release(s);
        if ((a & 0x80) != 0)
            took(s, bhi_new_aligned(64, size), size, KIND_NEW_ALIGNED);
        else
            took(s, bh_aligned_alloc((size_t)16 << b % 10, size), size, KIND_ALIGNED);
        break;
    case 8: in_thread(1 + a % 8); break;
    case 9: in_child(1 + a % 4); break;
    case 10: look_for_leaks(); break;
    case 11: ask(b, s); break;
    case 12: (b & 1) != 0 ? bh_verify() : bh_collect((b & 2) != 0); break;
    case 13: on_heap(s, a >> 5, size); break;
    case 14: bh_register_report((a & 1) != 0 ? on_report : NULL, NULL); break;
    case 15:
        for (unsigned i = 0; i < SLOTS; i++) {
            release(&slots[i]);
            took(&slots[i], bh_malloc(b), b, KIND_MALLOC);
        }
        break;
    case 16: /* lost: the search may find it */
        damaged = damaged || (s->p != NULL && !s->freed);
        s->p = NULL;
        break;
    case 17: bug(s, b, c); break;
    case 18:
        if ((a & 3) == 0)
            bh_seal();
        break;
    case 20:
        told->allowed |= options->cap_aborts ? ID(ALLOCATION_CAP) : 0;
        process_rare(b, c);
        break;
    default:
        for (unsigned i = 0; i < SLOTS; i += 1 + (a & 3))
            release(&slots[i]);
    }
}

static void run_steps(size_t most)
{
    for (size_t n = 0; n < most && next_step < steps; n++) {
        const uint8_t *at = code + PROCESS_STEP * next_step++;
        told->step = (uint32_t)next_step;
        step(at[0], at[1], at[2], at[3]);
    }
}

void process_run(const process_options_t *asked, const uint8_t *bytes, size_t size, process_told_t *to)
{
    options = asked;
    told = to;
    code = bytes + PROCESS_HEADER;
    steps = size > PROCESS_HEADER ? (size - PROCESS_HEADER) / PROCESS_STEP : 0;
    if (steps > PROCESS_STEPS_MOST)
        steps = PROCESS_STEPS_MOST;
    alarm(10);
    run_steps(steps);
    for (unsigned i = 0; i < SLOTS; i++) {
        if (slots[i].p != NULL && !slots[i].freed)
            check(&slots[i]);
    }
    exit(0);
}
