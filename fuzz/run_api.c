/* Instructions that a correct program is made of. */
#include "run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ADDRESS(p) ((void *)(p)) /* NOLINT: blocks are numbers here */

run_t run;

block_t *run_live(unsigned place)
{
    block_t *b = &model.block[place % PLACES];
    return b->state == BLOCK_LIVE ? b : NULL;
}

#define LARGE_FROM ((size_t)4096)
#define LARGE_EACH ((size_t)256 * 1024)
#define LARGE_LEAST ((size_t)128 * 1024) /* what a huge one counts as */
#define LARGE_MOST ((size_t)512 * 1024) /* of all: in profile hardened some 100 microseconds of clearing and wiping */
#define LARGE_LITTLE ((size_t)192 * 1024) /* there, but for programs with the wider bounds */
#define LARGER ((size_t)4) /* times as much for the few programs that may have any size */
#define HUGE_FROM ((size_t)4 * 1024 * 1024) /* has memory of its own, most of which is never touched */

static size_t large_most(void)
{
    if (run.program.any_size)
        return LARGER * LARGE_MOST;
    return run.program.wide || !run.program.hardened ? LARGE_MOST : LARGE_LITTLE;
}

size_t run_size(size_t size)
{
    bool any = run.program.any_size;
    if (size <= LARGE_FROM || (any && run.program.target != TARGET_API))
        return size;
    if (!any && size > LARGE_EACH && size < HUGE_FROM)
        size = LARGE_EACH / 2 + size % (LARGE_EACH / 2);
    size_t counts = size < HUGE_FROM ? size : LARGE_LEAST;
    if (run.large_bytes + counts > large_most())
        return size % LARGE_FROM;
    run.large_bytes += counts;
    return size;
}

#define MANY_MOST 192u   /* blocks of one program: each place three times */
#define MANY_LITTLE 128u /* but with the wider bounds: each twice */
#define MANY_LATE 4u     /* of one instruction, in a thread whose destructors have run */

/* How many of so many blocks an instruction may take. */
static unsigned run_many(unsigned n)
{
    unsigned most = run.program.wide ? MANY_MOST : MANY_LITTLE;
    unsigned left = run.program.any_size ? n : most - run.many;
    n = n < left ? n : left;
    if (run.program.target == TARGET_API && run.late[window_context()] && n > MANY_LATE)
        n = MANY_LATE;
    run.many += n;
    return n;
}

size_t run_step_size(const step_t *s)
{
    return run_size(program_size(s->b, s->c));
}

/* The present thread's default heap. */
wanted_t run_want(size_t size)
{
    run.late_takes += run.late[window_context()];
    return (wanted_t){.size = size, .context = (uint8_t)window_context(), .heap = NO_HEAP, .exact = true};
}

void run_took(unsigned place, const void *p, const wanted_t *w)
{
    run.busy = PLACES;
    if (p == NULL) {
        model_refused(w, errno);
        model_quarantine_emptied(); /* what is free was let go, to try again */
        return;
    }
    model_taken(place, (uintptr_t)p, w);
    model.block[place].orphan = run.late[w->context];
}

void run_free(unsigned place)
{
    block_t *b = run_live(place);
    if (b == NULL)
        return;
    model_check_contents(b);
    /* With damage behind its end the free must not come back. */
    uintptr_t damage = model_missed(b->p + b->size, model_extent(b) - b->size, run_has_page);
    /* Also just before it, where its own thread frees it and no block of that page may wait
     * to be taken back from another. */
    bool looks = !b->aligned_at && !b->orphan && b->context == window_context() && model.remote == 0;
    uintptr_t before = looks ? model_missed(b->p - CANARY_LEAST, CANARY_LEAST, run_has_page) : 0;
    SAY("bh_free(p[%u]);", place);
    bh_free(ADDRESS(b->p));
    if (damage != 0)
        finding("block %#zx was freed though %#zx behind its end was changed", b->p, damage);
    if (before != 0)
        finding("block %#zx was freed though %#zx just before it was changed", b->p, before);
    model_given(b, window_context());
}

/* A place for a new block: what is there is freed. */
unsigned run_room(unsigned place)
{
    run_free(place % PLACES);
    run.busy = place % PLACES;
    errno = 0;
    return place % PLACES;
}

void run_malloc(unsigned place, size_t size)
{
    wanted_t w = run_want(size);
    place = run_room(place);
    SAY("p[%u] = bh_malloc(%zu);", place, size);
    run_took(place, bh_malloc(size), &w);
}

static void do_calloc(const step_t *s, size_t size)
{
    unsigned place = run_room(s->a);
    wanted_t w = run_want(size);
    w.zero = true;
    void *p;
    if ((s->a & 0x40) != 0 && size % 8 == 0) {
        SAY("p[%u] = bh_calloc(8, %zu);", place, size / 8);
        p = bh_calloc(8, size / 8);
    } else if ((s->a & 0x80) != 0) {
        SAY("p[%u] = bh_zalloc(%zu);", place, size);
        p = bh_zalloc(size);
    } else {
        SAY("p[%u] = bh_calloc(%zu, 1);", place, size);
        p = bh_calloc(size, 1);
    }
    run_took(place, p, &w);
}

/* What all that resize have in common. kind: free_on_failure, stay, rest zero. */
typedef struct resize {
    bool frees, stays, zero;
} resize_t;

static void resized(unsigned place, const void *p, const block_t *before, const wanted_t *w, resize_t kind)
{
    run.busy = PLACES;
    if (p != NULL) {
        if (before->state != BLOCK_LIVE)
            model_taken(place, (uintptr_t)p, w);
        else
            model_resized(place, (uintptr_t)p, before, w, kind.zero);
        if (before->state != BLOCK_LIVE || (uintptr_t)p != before->p)
            model.block[place].orphan = run.late[w->context];
        return;
    }
    bool freed = w->size == 0 || kind.frees;
    if (w->size != 0 && !kind.stays)
        model_refused(w, errno);
    if (!kind.stays)
        model_quarantine_emptied();
    if (before->state == BLOCK_LIVE && freed && !kind.stays)
        model_given(&model.block[place], window_context());
}

static block_t before_resize(unsigned place)
{
    block_t b = model.block[place];
    if (b.state == BLOCK_LIVE)
        model_check_contents(&b);
    if (b.state == BLOCK_LIVE)
        window_may_copy(b.p, b.usable);
    run.busy = place;
    errno = 0;
    return b;
}

static void *address_of(const block_t *b)
{
    return b->state == BLOCK_LIVE ? ADDRESS(b->p) : NULL;
}

static uintptr_t damage_of(const block_t *b)
{
    return b->state == BLOCK_LIVE ? model_missed(b->p + b->size, model_extent(b) - b->size, run_has_page) : 0;
}

/* A block as an argument of the printed program. */
static const char *name_of(unsigned place, const void *p)
{
    static char text[8];
    if (p == NULL)
        return "NULL";
    snprintf(text, sizeof text, "p[%u]", place % PLACES);
    return text;
}

void run_realloc(unsigned place, size_t size, bh_heap_t *heap, uint8_t heap_index)
{
    block_t b = before_resize(place);
    uintptr_t damage = damage_of(&b);
    wanted_t w = run_want(size);
    w.heap = heap != NULL ? heap_index : NO_HEAP;
    void *p = address_of(&b), *q;
    if (heap != NULL) {
        SAY("p[%u] = bh_heap_realloc(h[%u][%u], %s, %zu);", place, w.context, heap_index, name_of(place, p), size);
        q = bh_heap_realloc(heap, p, size);
    } else {
        SAY("p[%u] = bh_realloc(%s, %zu);", place, name_of(place, p), size);
        q = bh_realloc(p, size);
    }
    if (damage != 0 && q != NULL)
        finding("block %#zx was resized though %#zx behind its end was changed", b.p, damage);
    resized(place, q, &b, &w, (resize_t){false, false, false});
}

static void do_resize(const step_t *s)
{
    unsigned place = s->a % PLACES;
    size_t size = run_step_size(s);
    block_t b = before_resize(place);
    wanted_t w = run_want(size);
    void *p = address_of(&b), *q;
    if (p == NULL) {
        run_malloc(place, size);
        return;
    }
    resize_t kind = {false, false, false};
    uintptr_t damage = damage_of(&b);
    switch (s->a >> 6 | (s->c & 4)) {
    case 0:
        SAY("p[%u] = bh_recalloc(p[%u], 1, %zu);", place, place, size);
        q = bh_recalloc(p, 1, size);
        kind.zero = true;
        break;
    case 1:
        SAY("p[%u] = bh_rezalloc(p[%u], %zu);", place, place, size);
        q = bh_rezalloc(p, size);
        kind.zero = true;
        break;
    case 2:
        SAY("p[%u] = bh_reallocf(p[%u], %zu);", place, place, size);
        q = bh_reallocf(p, size);
        kind.frees = true;
        break;
    case 3:
        SAY("bh_expand(p[%u], %zu);", place, size);
        q = bh_expand(p, size);
        kind.stays = true;
        break;
    case 4:
        SAY("p[%u] = bh_reallocarray(p[%u], 1, %zu);", place, place, size);
        q = bh_reallocarray(p, 1, size);
        break;
    default:
        w.alignment = (size_t)16 << (s->b & 7);
        SAY("p[%u] = bh_aligned_realloc(p[%u], %zu, %zu);", place, place, w.alignment, size);
        q = bh_aligned_realloc(p, w.alignment, size);
        w.exact = false;
    }
    if (damage != 0 && q != NULL)
        finding("block %#zx was resized though %#zx behind its end was changed", b.p, damage);
    if (kind.stays && q != NULL && q != p)
        finding("bh_expand moved %#zx to %#zx", b.p, (uintptr_t)q);
    resized(place, q, &b, &w, kind);
}

static void do_aligned(const step_t *s)
{
    unsigned place = run_room(s->a);
    size_t size = s->c < 128 ? s->c : (size_t)(s->c - 127) * 100;
    wanted_t w = run_want(size);
    w.alignment = (size_t)1 << s->b % 18;
    w.exact = false;
    void *p = NULL;
    if ((s->a & 0x80) != 0) {
        w.zero = true;
        SAY("p[%u] = bh_aligned_zalloc(%zu, %zu);", place, w.alignment, size);
        p = bh_aligned_zalloc(w.alignment, size);
    } else if ((s->a & 0x40) != 0 && w.alignment >= sizeof(void *)) {
        SAY("bh_posix_memalign((void **)&p[%u], %zu, %zu);", place, w.alignment, size);
        errno = bh_posix_memalign(&p, w.alignment, size);
    } else {
        SAY("p[%u] = bh_aligned_alloc(%zu, %zu);", place, w.alignment, size);
        p = bh_aligned_alloc(w.alignment, size);
    }
    run_took(place, p, &w);
}

static void do_at(const step_t *s)
{
    unsigned place = run_room(s->a);
    size_t size = (size_t)(s->c & 31) * 50, offset = s->c >> 5;
    wanted_t w = run_want(size);
    w.alignment = (size_t)1 << s->b % 17;
    w.offset = offset < 4 ? offset * 8 : w.alignment;
    w.exact = false;
    w.zero = (s->a & 0x40) != 0;
    SAY("p[%u] = bh_aligned_%salloc_at(%zu, %zu, %zu);", place, w.zero ? "z" : "", w.alignment, size, w.offset);
    run_took(place, w.zero ? bh_aligned_zalloc_at(w.alignment, size, w.offset) : bh_aligned_alloc_at(w.alignment, size, w.offset), &w);
}

static void do_string(const step_t *s)
{
    static const char text[] = "a string that is copied, long enough to be of several sizes, and with an end somewhere in it";
    unsigned place = run_room(s->a);
    size_t length = s->c % (sizeof text - 1);
    const char *from = text + (sizeof text - 1 - length);
    wanted_t w = run_want(length + 1);
    w.exact = false; /* its contents are no leftovers */
    char *p;
    if ((s->b & 1) != 0) {
        SAY("p[%u] = bh_strndup(\"%s\", %zu);", place, from, length);
        p = bh_strndup(from, length + s->b);
    } else {
        SAY("p[%u] = bh_strdup(\"%s\");", place, from);
        p = bh_strdup(from);
    }
    if (p != NULL && strcmp(p, from) != 0)
        finding("a copied string differs");
    run_took(place, p, &w);
}

static void do_sized(const step_t *s)
{
    block_t *b = run_live(s->a);
    if (b == NULL)
        return;
    unsigned place = s->a % PLACES;
    if (b->aligned_at) {
        run_free(place);
        return;
    }
    model_check_contents(b);
    size_t alignment = b->alignment != 0 ? b->alignment : 1;
    /* After a resize in place the alignment asked for first need not tell the class. */
    bool plain = alignment == 1 && !b->irregular;
    if (plain || (s->b & 1) != 0) {
        if (!plain) {
            run_free(place);
            return;
        }
        SAY("bh_free_sized(p[%u], %zu);", place, b->size);
        bh_free_sized(ADDRESS(b->p), b->size);
    } else {
        SAY("bh_free_aligned_sized(p[%u], %zu, %zu);", place, alignment, b->size);
        bh_free_aligned_sized(ADDRESS(b->p), alignment, b->size);
    }
    model_given(b, window_context());
}

/* ------------------------------------------------------------------------- rest */

static void callback(bool force, unsigned long long heartbeat, void *arg)
{
    (void)force;
    (void)arg;
    if (run.busy != PLACES - 1 && heartbeat % 3 == 0)
        run_free(PLACES - 1);
    run.late_takes += run.late[window_context()];
    void *p = bh_malloc(24);
    bh_free(p);
}

static void do_refuse(const step_t *s)
{
    static const int errors[4] = {ENOMEM, EINVAL, EPERM, EAGAIN};
    unsigned kinds = 0;
    kinds |= (s->a & 1) != 0 ? 1u << BHI_OS_MMAP : 0;
    kinds |= (s->a & 2) != 0 ? 1u << BHI_OS_MPROTECT : 0;
    kinds |= (s->a & 4) != 0 ? 1u << BHI_OS_MADVISE : 0;
    kinds |= (s->a & 8) != 0 ? 1u << BHI_OS_GUARD : 0;
    kinds |= (s->a & 16) != 0 ? 1u << BHI_OS_PROCESS_MADVISE : 0;
    model.may_fail = true;
    window_refuse(kinds, s->b % 8, errors[s->a >> 6]);
}

static void do_setting(const step_t *s)
{
    static const char *const delays[4] = {"0", "1", "10", "1000"};
    SAY("bh_option_set(\"purge_delay\", \"%s\");", delays[s->a % 4]);
    if (bh_option_set("purge_delay", delays[s->a % 4]) != 0 && !model.may_fail)
        finding("purge_delay was refused");
}

void run_api(const step_t *s)
{
    static const uint32_t steps[8] = {1, 4, 11, 11, 100, 1000, 5000, 100000};
    unsigned place = s->a % PLACES, n = 1 + s->b % 32, apart = 1 + s->c % 4;
    switch (s->op) {
    case OP_MALLOC: run_malloc(place, run_step_size(s)); break;
    case OP_FREE: run_free(place); break;
    case OP_MANY:
        n = run_many(1 + s->b / 8 % 32);
        for (unsigned i = 0; i < n; i++)
            run_malloc(place + i, run_size(program_size(s->b, s->c & 0x7f)));
        break;
    case OP_FREE_MANY:
        for (unsigned i = 0; i < n; i++)
            run_free((place + i * apart) % PLACES);
        break;
    case OP_CALLOC: do_calloc(s, run_step_size(s)); break;
    case OP_REALLOC: run_realloc(place, run_step_size(s), NULL, 0); break;
    case OP_ALIGNED: do_aligned(s); break;
    case OP_RESIZE: do_resize(s); break;
    case OP_SWITCH: run_switch(s->a % WINDOW_CONTEXTS); break;
    case OP_TICK: window_now += steps[s->a % 8]; break;
    case OP_COLLECT:
        SAY("bh_collect(%s);", (s->a & 1) != 0 ? "true" : "false");
        bh_collect((s->a & 1) != 0);
        break;
    case OP_SIZED: do_sized(s); break;
    case OP_INSPECT: run_inspect(s); break;
    case OP_VERIFY:
        SAY("bh_verify();");
        bh_verify();
        break;
    case OP_STRING: do_string(s); break;
    case OP_AT: do_at(s); break;
    case OP_CALLBACK:
        if (!bh_register_deferred_free((s->a & 1) != 0 ? callback : NULL, NULL) && !model.may_fail)
            finding("the callback was refused");
        break;
    case OP_SETTING: do_setting(s); break;
    case OP_REFUSE:
        if (run.program.refuse)
            do_refuse(s);
        break;
    case OP_WILD: run_wild(s); break;
    case OP_LARGE: run_malloc(place, run_size((size_t)s->b * 16384 + s->c)); break;
    default: break;
    }
}
