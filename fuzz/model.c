/* See model.h. */
#include "model.h"
#include "model_contents.h"

#include "bulkhead.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OS_PAGE ((size_t)4096)
#define GHOSTS 512u
#define QUARANTINE_SMALL 256u /* to here a block waits for others of its class, for certain */
#define CLASS_STEP 16u
#define MUST_MOST 512u

model_t model;
void (*model_on_finding)(void);

static places_t places;

/* Bytes of the live block of each place, side by side as they are compared with each new
 * one; from = to where there is none. */
static uintptr_t live_from[PLACES], live_to[PLACES];

/* Blocks that were freed, newest last. */
static struct ghost {
    uintptr_t p;
    uint32_t takes, takes_all; /* how many blocks of its class, and of all, had been handed out */
    uint16_t class_index;
    uint8_t gone;  /* its quarantine was emptied since */
    uint32_t before; /* the last one before it in its chain, counted as ghost_count counts */
} ghosts[GHOSTS];
static unsigned ghost_count;

/* The last one of each chain, by address: 1 + what ghost_count was. */
#define GHOST_CHAINS 256u
static uint32_t ghost_last[GHOST_CHAINS];
static uint32_t takes_of[256], takes_all;

static struct must {
    uintptr_t at;
    uint8_t was, value; /* was: before the first attack */
} musts[MUST_MOST];
static unsigned must_count;

void finding(const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "fuzz: FINDING: step %u: %s\n", model.step, text);
    /* afl-fuzz keeps the input and throws the text away. */
    const char *log = getenv("FUZZ_LOG");
    FILE *f = log != NULL ? fopen(log, "a") : NULL;
    if (f != NULL) {
        fprintf(f, "step %u: %s\n", model.step, text);
        fclose(f);
    }
    if (model_on_finding != NULL)
        model_on_finding();
    fflush(NULL);
    abort();
}

bool model_inside(uintptr_t at, size_t size)
{
    return places.inside(at, size);
}

void model_begin(bool hardened, const places_t *where)
{
    memset(&model, 0, sizeof model);
    memset(takes_of, 0, sizeof takes_of);
    model.hardened = hardened;
    places = *where;
    ghost_count = must_count = takes_all = 0;
    memset(ghost_last, 0, sizeof ghost_last);
    memset(live_from, 0, sizeof live_from);
    memset(live_to, 0, sizeof live_to);
}

size_t model_class(size_t n)
{
    if (n <= 8)
        return 8;
    if (n <= 128)
        return (n + 15) / 16 * 16;
    size_t power = 128;
    while (power * 2 < n)
        power *= 2;
    size_t step = power / 8;
    return n <= 128 * 1024 ? (n + step - 1) / step * step : (n + OS_PAGE - 1) / OS_PAGE * OS_PAGE;
}

static bool is_zero(uintptr_t p, size_t n)
{
    const unsigned char *at = (const unsigned char *)p; /* NOLINT */
    return n == 0 || (at[0] == 0 && memcmp(at, at + 1, n - 1) == 0);
}

/* ------------------------------------------------------------------- quarantine */

/* Up to QUARANTINE_SMALL, where classes are multiples of CLASS_STEP; the one of 8 bytes has
 * no room for a canary. */
static unsigned class_index(size_t usable)
{
    return (unsigned)(model_class(usable + CANARY_LEAST) / CLASS_STEP);
}

static uint32_t *ghost_chain(uintptr_t p)
{
    return &ghost_last[(p >> 3) * 0x9e3779b97f4a7c15u >> 56];
}

/* The last one that was freed at an address, or NULL; too old ones are overwritten. */
static const struct ghost *ghost_at(uintptr_t p)
{
    for (uint32_t i = *ghost_chain(p); i != 0 && ghost_count - i < GHOSTS;) {
        const struct ghost *g = &ghosts[(i - 1) % GHOSTS];
        if (g->p == p)
            return g;
        i = g->before;
    }
    return NULL;
}

/* So many blocks of a class are handed out before one that was freed: 8 KiB or 64 of them,
 * whichever is less, but for a quarter. */
static unsigned waits(unsigned c)
{
    unsigned most = 8192 / (CLASS_STEP * c);
    return (most < 64 ? most : 64) * 3 / 4;
}

/* In profile hardened a small block does not come back before, unless its heap's
 * quarantines were emptied. */
static void check_quarantine(uintptr_t p, size_t usable)
{
    if (!model.hardened || model.may_fail || usable == 0 || usable + CANARY_LEAST > QUARANTINE_SMALL)
        return;
    const struct ghost *g = ghost_at(p);
    unsigned c = class_index(usable);
    if (g == NULL || g->gone || g->class_index != c)
        return;
    uint32_t since = model.irregular ? takes_all - g->takes_all : takes_of[c] - g->takes;
    if (since < waits(c))
        finding("block %#zx came back after %u others of its class", p, since);
}

void model_quarantine_emptied(void)
{
    unsigned n = ghost_count < GHOSTS ? ghost_count : GHOSTS;
    for (unsigned i = 0; i < n; i++)
        ghosts[i].gone = 1;
}

/* A page without live blocks may end, whose list nobody uses up then, and its slot become
 * another's. */
static void page_may_end(uintptr_t p, unsigned c)
{
    for (unsigned i = 0; i < PLACES; i++) {
        if (live_to[i] != 0 && live_from[i] >> 16 == p >> 16)
            return;
    }
    unsigned n = ghost_count < GHOSTS ? ghost_count : GHOSTS;
    for (unsigned i = 0; i < n; i++)
        ghosts[i].gone |= ghosts[i].class_index == c || ghosts[i].p >> 16 == p >> 16;
}

bool model_was_freed(uintptr_t p)
{
    return ghost_at(p) != NULL;
}

/* ------------------------------------------------------------------ handing out */

block_t *model_block_at(uintptr_t at)
{
    for (unsigned i = 0; i < PLACES; i++) {
        block_t *b = &model.block[i];
        if (b->state == BLOCK_LIVE && at - b->p < (b->usable != 0 ? b->usable : 1))
            return b;
    }
    return NULL;
}

static void check_place(uintptr_t p, const wanted_t *w)
{
    if (!places.inside(p, w->size) && !(model.control && !model.strict))
        finding("block %#zx of %zu bytes lies outside the reservation", p, w->size);
    if (model.control)
        return;
    size_t natural = w->size <= 8 && w->size != 0 ? 8 : 16;
    if (w->alignment != 0 && ((p + w->offset) & (w->alignment - 1)) != 0)
        finding("block %#zx + %zu is not aligned to %zu", p, w->offset, w->alignment);
    if (w->offset == 0 && !w->stayed && (p & (natural - 1)) != 0)
        finding("block %#zx of %zu bytes is not aligned to %zu", p, w->size, natural);
}

static void check_usable(uintptr_t p, size_t usable, const wanted_t *w)
{
    if (usable < w->size)
        finding("block %#zx of %zu bytes has %zu usable", p, w->size, usable);
    if (model.hardened && usable != w->size)
        finding("block %#zx of %zu bytes has %zu usable in profile hardened", p, w->size, usable);
    if (w->exact && !model.hardened && w->size != 0 && usable != model_class(w->size))
        finding("block %#zx of %zu bytes has %zu usable, not %zu", p, w->size, usable, model_class(w->size));
}

static void put(unsigned place, const block_t *b)
{
    model.block[place] = *b;
    live_from[place] = b->p;
    live_to[place] = b->p + (b->usable != 0 ? b->usable : 1);
}

static void forget(unsigned place)
{
    live_from[place] = live_to[place] = 0;
}

static void check_overlap(uintptr_t p, size_t usable, unsigned place)
{
    uintptr_t end = p + (usable != 0 ? usable : 1), to = live_to[place], both = 0;
    live_to[place] = 0; /* what is there is to be replaced */
    for (unsigned i = 0; i < PLACES; i++)
        both |= (live_from[i] - end) & (p - live_to[i]); /* from < end and p < to: addresses are below the highest bit */
    live_to[place] = to;
    for (unsigned i = 0; both >> (sizeof both * 8 - 1) != 0 && i < PLACES; i++) {
        if (i != place && live_from[i] < end && p < live_to[i])
            finding("block %#zx of %zu bytes overlaps the live block %#zx of %zu", p, usable, live_from[i], model.block[i].usable);
    }
    for (unsigned i = 0; model.hardened && i < must_count; i++) {
        if (musts[i].at - p < usable && musts[i].value != musts[i].was)
            finding("block %#zx was handed out though %#zx was written to while it was free", p, musts[i].at);
    }
}

/* Where a fault would tell nothing, because the window keeps the guards: no block lies on
 * one, a block of no bytes cannot be touched (but one that shrank to that where it was),
 * and large ones have one on both sides. */
static void check_guards(uintptr_t p, size_t usable, const wanted_t *w)
{
    if (usable != 0 && !places.open(p, usable))
        finding("block %#zx of %zu bytes lies on a guard", p, w->size);
    if (model.may_fail)
        return; /* the kernel refused them, perhaps */
    if (usable == 0 && !w->stayed && !places.closed(p))
        finding("block %#zx of no bytes can be written to", p);
    if (!w->exact || usable <= 128 * 1024)
        return;
    if (!places.closed(p - 1))
        finding("large block %#zx has no guard before it", p);
    block_t b = {.p = p, .size = w->size, .usable = usable};
    uintptr_t end = (p + model_extent(&b) + OS_PAGE - 1) & ~(OS_PAGE - 1);
    if (!places.closed(end))
        finding("large block %#zx of %zu bytes has no guard behind it", p, w->size);
}

/* Places and their overlaps, and what a program can see of a block. */
void model_taken(unsigned place, uintptr_t p, const wanted_t *w)
{
    model.hash = (model.hash ^ p) * 0x9e3779b97f4a7c15u;
    check_place(p, w);
    if (model.control) {
        put(place, &(block_t){.p = p, .size = w->size, .usable = w->size, .context = w->context, .heap = w->heap, .state = BLOCK_LIVE, .unknown = true});
        return;
    }
    size_t usable = bh_usable_size((const void *)p); /* NOLINT */
    check_usable(p, usable, w);
    check_overlap(p, usable, place);
    check_guards(p, usable, w);
    if (w->alignment <= 16 && !w->stayed)
        check_quarantine(p, usable);
    if (model.hardened && !w->stayed) {
        takes_of[usable + CANARY_LEAST <= QUARANTINE_SMALL ? class_index(usable) : 255]++;
        takes_all++;
    }
    if (w->zero && !(model.scribbled && !model.hardened)) {
        if (!is_zero(p, usable < SHOWN ? usable : SHOWN))
            finding("block %#zx of %zu bytes is not zero", p, w->size);
    }
    if (w->exact && !w->zero)
        model_check_residue(p, usable);
    block_t b = {.p = p, .size = w->size, .usable = usable, .stamp = model_stamp(w->offset == 0 ? usable : 0), .context = w->context, .heap = w->heap,
                 .state = BLOCK_LIVE, .alignment = w->alignment, .aligned_at = w->offset != 0,
                 .irregular = !w->exact};
    model_fill(p, b.stamp, usable, places.fills);
    if (model.hardened)
        places.fills_behind(p, usable);
    size_t before = p % OS_PAGE;
    if (model.hardened && w->offset != 0 && before != 0)
        places.fills(p - before, before);
    put(place, &b);
}

void model_refused(const wanted_t *w, int error)
{
    if (model.control && !model.strict)
        return; /* an address outside the reservation like any other, perhaps: the start of a page that was overwritten with 0 */
    if (error != ENOMEM)
        finding("a block of %zu bytes was refused with errno %d", w->size, error);
    if (!model.may_fail && !model.control && w->size <= ((size_t)1 << 32) && w->alignment <= (w->offset != 0 ? (size_t)65536 : (size_t)1 << 30))
        finding("a block of %zu bytes, aligned to %zu, was refused", w->size, w->alignment);
}

void model_given(block_t *b, unsigned context)
{
    unsigned c = model.hardened && b->usable + CANARY_LEAST <= QUARANTINE_SMALL ? class_index(b->usable) : 255;
    uint32_t *last = ghost_chain(b->p);
    ghosts[ghost_count++ % GHOSTS] = (struct ghost){b->p, takes_of[c], takes_all, (uint16_t)c, b->orphan || b->irregular, *last};
    *last = ghost_count;
    model.irregular |= b->irregular;
    model.remote += b->orphan || b->context != context;
    b->state = BLOCK_FREED;
    if (b >= model.block && b < model.block + PLACES) /* or a copy, of one that moved */
        forget((unsigned)(b - model.block));
    if (model.hardened)
        page_may_end(b->p, c);
}

void model_resized(unsigned place, uintptr_t p, const block_t *before, const wanted_t *w, bool rest_zero)
{
    size_t kept = before->size < w->size ? before->size : w->size;
    if (p != before->p)
        places.copied(p); /* perhaps all that was usable */
    if (!before->unknown && !model.control) {
        block_t as = *before;
        model_check_range(&as, p, kept);
    }
    size_t more = w->size > before->usable ? w->size - before->usable : 0;
    if (rest_zero && !model.control && !model.scribbled && !is_zero(p + before->usable, more < SHOWN ? more : SHOWN))
        finding("what block %#zx grew by is not zero", p);
    if (p == before->p)
        model_check_growth(p, before->usable, w->size);
    if (p != before->p) { /* elsewhere: the old place is free */
        block_t old = *before;
        model_given(&old, w->context);
    }
    model.block[place].state = BLOCK_NONE;
    forget(place);
    wanted_t again = *w;
    again.zero = again.exact = false;
    again.stayed = p == before->p;
    if (p == before->p) {
        again.heap = before->heap;
        again.context = before->context;
    }
    model_taken(place, p, &again);
    model.block[place].orphan = p == before->p && before->orphan;
}

void model_heap_gone(uint8_t context, uint8_t heap, bool blocks_too)
{
    for (unsigned i = 0; i < PLACES; i++) {
        block_t *b = &model.block[i];
        if (b->state != BLOCK_LIVE || b->context != context || b->heap != heap)
            continue;
        b->orphan = true;
        b->heap = NO_HEAP;
        if (blocks_too)
            model_given(b, context);
    }
    model_quarantine_emptied();
}

/* ---------------------------------------------------------------------- attacks */

size_t model_attacked(uintptr_t from, size_t size)
{
    size_t outside = size;
    for (unsigned i = 0; i < PLACES; i++) {
        block_t *b = &model.block[i];
        if (b->state != BLOCK_LIVE || b->p >= from + size || b->p + b->usable <= from)
            continue;
        b->unknown = true;
        uintptr_t start = b->p > from ? b->p : from, end = b->p + b->usable < from + size ? b->p + b->usable : from + size;
        outside -= end - start;
    }
    if (outside != 0)
        model.scribbled = true;
    return outside;
}

size_t model_extent(const block_t *b)
{
    if (!model.hardened || b->aligned_at || b->size == 0)
        return b->usable;
    size_t least = b->size + CANARY_LEAST;
    if (least > 128 * 1024) { /* no slack, or as much as a canary needs */
        size_t slack = (0 - b->size) & (OS_PAGE - 1);
        return b->size + slack + (slack > 0 && slack < CANARY_LEAST ? OS_PAGE : 0);
    }
    return b->irregular ? least : model_class(least);
}

static void note(uintptr_t at, uint8_t was, uint8_t value)
{
    for (unsigned i = 0; i < must_count; i++) {
        if (musts[i].at == at) {
            musts[i].value = value;
            return;
        }
    }
    if (must_count < MUST_MOST)
        musts[must_count++] = (struct must){at, was, value};
}

bool model_must_find(uintptr_t at, uint8_t was, uint8_t value)
{
    const block_t *freed = NULL;
    for (unsigned i = 0; i < PLACES; i++) {
        const block_t *b = &model.block[i];
        size_t offset = at - b->p;
        if (b->state == BLOCK_LIVE && offset < b->size)
            return false; /* the program may write there */
        if (b->state == BLOCK_LIVE && offset < model_extent(b))
            freed = b;
        else if (b->state == BLOCK_FREED && offset < b->usable && b->usable + CANARY_LEAST <= 128 * 1024 && !b->aligned_at)
            freed = b;
    }
    if (freed == NULL || !model.hardened)
        return false;
    note(at, was, value);
    return true;
}

uintptr_t model_missed(uintptr_t from, size_t size, bool (*there)(uintptr_t at))
{
    for (unsigned i = 0; i < must_count; i++) {
        uintptr_t at = musts[i].at;
        if (at - from < size && musts[i].value != musts[i].was && there(at) && *(const volatile uint8_t *)at == musts[i].value) /* NOLINT */
            return at;
    }
    return 0;
}

uintptr_t model_lost(bool (*there)(uintptr_t at))
{
    for (unsigned i = 0; i < must_count; i++) {
        if (musts[i].value != musts[i].was && !there(musts[i].at))
            return musts[i].at;
    }
    return 0;
}
