/* Attacks by writing: what a program with a heap bug does to its own blocks and to
 * free ones. What is promised:
 *
 *   any profile  nothing comes of what is written to free blocks, in which nothing of
 *                the allocator's lies; a write that leaves its page of blocks faults
 *                an entry forged in the list of free blocks leads to no block that is not free
 *   hardened     overflow, underflow or write-after-free, at the latest when all is
 *                verified, for every byte that the write changed
 *
 * A fault of the writing itself is a detection. */
#include "run.h"

#include "harden/list.h"
#include "meta/arena.h"

#include <string.h>

#define HARDENED_IDS (ID(OVERFLOW) | ID(UNDERFLOW) | ID(WRITE_AFTER_FREE))
#define SLOT ((uintptr_t)65536)
#define OS_PAGE ((uintptr_t)4096)

static volatile uint8_t *byte_at(uintptr_t at)
{
    return (volatile uint8_t *)at; /* NOLINT: blocks are numbers here */
}

bool run_has_page(uintptr_t at)
{
    size_t off = at - window_places.blocks;
    if (off >= atomic_load(bhi_process.block_open))
        return false;
    const bhi_page_t *page = bhi_desc_first(bhi_desc_at(window_places.descs, off));
    return page->state != BHI_PAGE_FREE && at >= page->start && at - page->start < (size_t)page->span_slots << BH_SLOT_SHIFT;
}

/* The program touches [from, to): a fault there is no finding. */
static void begin(uintptr_t from, uintptr_t to)
{
    run.attack_from = from;
    run.attack_to = to;
    run.attacking = true;
}

static void end(void)
{
    run.attacking = false;
}

static void write_byte(uintptr_t at, uint8_t value)
{
    uint8_t was = *byte_at(at);
    *byte_at(at) = value;
    if (was != value && run_has_page(at))
        model_must_find(at, was, value);
}

/* Writes n bytes upwards or downwards from there, one by one. */
static void write_range(uintptr_t from, size_t n, uint8_t value, bool down)
{
    window_scribbled(from, n);
    if (model_attacked(from, n) != 0)
        model.allowed |= model.hardened ? HARDENED_IDS : 0;
    begin(from, from + n);
    for (size_t i = 0; i < n; i++)
        write_byte(down ? from + n - 1 - i : from + i, value);
    end();
}

/* Bytes that the block's class has to have. */
static size_t with_end(const block_t *b)
{
    return b->usable + (model.hardened ? CANARY_LEAST : 0);
}

/* Where a write upwards from a block cannot get beyond: the guard behind its page. Of
 * pages of several slots only the large block's is known. 0: not known. */
static uintptr_t guard_behind(const block_t *b)
{
    if (b->aligned_at || b->irregular)
        return 0;
    if (with_end(b) <= 8192)
        return (b->p | (SLOT - 1)) + 1 - OS_PAGE;
    if (with_end(b) <= 128 * 1024)
        return 0;
    return b->p + model_extent(b);
}

static uintptr_t guard_before(const block_t *b)
{
    if (with_end(b) > 128 * 1024 && !b->aligned_at)
        return b->p;
    bool small = b->usable != 0 && !b->irregular && !b->aligned_at && with_end(b) <= 8192;
    return small ? b->p & ~(SLOT - 1) : 0; /* its page begins there, and before it is a guard */
}

static void overflow(const step_t *s)
{
    const block_t *b = run_live(s->a);
    if (b == NULL || b->usable == 0)
        return;
    size_t skipped = s->c >= 0x80 && s->c < 0xc0 ? s->b % 16u : 0; /* one byte, not the first */
    size_t n = s->c >= 0x80 ? 1 : s->b >= 0xf0 ? (s->b - 0xefu) * 8192u : 1u + s->b;
    uint8_t value = (s->c & 1) != 0 ? s->c : 0;
    uintptr_t guard = guard_behind(b);
    SAY("memset((char *)p[%u] + %zu, %u, %zu);", s->a % PLACES, b->usable + skipped, value, n);
    block_t attacked = *b;
    write_range(b->p + b->usable + skipped, n, value, false);
    if (guard != 0 && attacked.p + attacked.usable + skipped + n > guard)
        finding("an overflow of %zu bytes from %#zx passed the guard at %#zx", n, attacked.p + attacked.usable, guard);
}

static void underflow(const step_t *s)
{
    const block_t *b = run_live(s->a);
    if (b == NULL || b->usable == 0)
        return;
    size_t n = s->b >= 0xf0 ? (s->b - 0xefu) * 8192u : 1u + s->b;
    uintptr_t guard = guard_before(b), p = b->p;
    SAY("for (size_t i = 1; i <= %zu; i++) ((char *)p[%u])[-(long)i] = (char)%u;", n, s->a % PLACES, s->c);
    write_range(p - n, n, s->c, true);
    if (guard != 0 && p - n < guard)
        finding("an underflow of %zu bytes from %#zx passed the guard before %#zx", n, p, guard);
}

static block_t *freed(unsigned place)
{
    block_t *b = &model.block[place % PLACES];
    return b->state == BLOCK_FREED ? b : NULL;
}

static void stale_write(const step_t *s)
{
    const block_t *b = freed(s->a);
    if (b == NULL)
        return;
    size_t room = b->usable > 8 ? b->usable : 8, at = (s->b & 0x80) != 0 ? s->b & 7 : s->b * 8u, n = 1 + (s->c & 7);
    at %= room;
    if (n > room - at)
        n = room - at;
    SAY("memset((char *)p[%u] + %zu, %u, %zu); /* freed */", s->a % PLACES, at, s->c, n);
    write_range(b->p + at, n, s->c, false);
}

/* ------------------------------------------------------------------------ links */

static uint64_t read_word(uintptr_t at)
{
    uint64_t word = 0;
    begin(at, at + sizeof word);
    for (unsigned i = 0; i < sizeof word; i++)
        word |= (uint64_t)*byte_at(at + i) << (8 * i);
    end();
    return word;
}

static void write_word(unsigned place, uintptr_t at, uint64_t word)
{
    SAY("*(unsigned long *)p[%u] = %#lxu; /* freed; keys differ from run to run */", place % PLACES, (unsigned long)word);
    window_scribbled(at, sizeof word);
    model.copied = true;
    if (model_attacked(at, sizeof word) != 0)
        model.allowed |= model.hardened ? HARDENED_IDS : 0;
    begin(at, at + sizeof word);
    for (unsigned i = 0; i < sizeof word; i++)
        write_byte(at + i, (uint8_t)(word >> (8 * i)));
    end();
}

static void copy(const step_t *s)
{
    const block_t *to = freed(s->a), *from = freed(s->b);
    if (to != NULL && from != NULL)
        write_word(s->a, to->p, read_word(from->p));
}

static void replay(const step_t *s)
{
    const block_t *b = freed(s->a);
    if (b == NULL)
        return;
    if ((s->c & 1) != 0)
        write_word(s->a, b->p, run.word);
    else
        run.word = read_word(b->p);
}

/* A live block of the same page, or any address in it. */
static uint64_t live_place(const bhi_page_t *page, unsigned which)
{
    for (unsigned i = 0; i < PLACES; i++) {
        const block_t *b = run_live(which + i);
        if (b != NULL && b->p - page->start < (size_t)page->reserved * page->block_size)
            return b->p - page->start;
    }
    return (uint64_t)which * page->block_size;
}

/* Over an entry of the page's list in control data, one of those that are taken next,
 * with the true key: malloc may find that out, or come to another free block, whose
 * contents are not what is known of the list; never to one that is not free. Malloc takes a
 * copy of the last one, which changes too; or of the copy only the place. */
static void forge_entry(bhi_page_t *page, uint32_t index, uint32_t from_top, bool place_alone)
{
    if (model.hardened || page->listed == 0)
        return;
    if (place_alone) {
        SAY("/* place of the next block: that of %u */", index);
        page->top_place = bhi_list_place(page, index) & BH_LIST_PLACE;
    } else {
        SAY("/* entry %u from the top of the list of free blocks: %u */", from_top % page->listed, index);
        *bhi_list(page, page->listed - 1 - from_top % page->listed) = bhi_list_code(page, index);
        bhi_list_lead(page, page->listed);
    }
    model.allowed |= ID(CORRUPT_LIST) | ID(DOUBLE_FREE);
    model.scribbled = model.copied = true;
}

static void forge(const step_t *s)
{
    /* Also into a live one, that a forged link may lead to. */
    const block_t *b = (s->b & 0x40) != 0 && run_live(s->a) != NULL ? run_live(s->a) : freed(s->a);
    if (b == NULL || !run_has_page(b->p))
        return;
    bhi_page_t *page = bhi_desc_first(bhi_desc_at(window_places.descs, b->p - window_places.blocks));
    if (page->block_size == 0 || b->p < page->start || b->p - page->start > UINT32_MAX)
        return;
    uint64_t place = b->p - page->start, next = UINT32_MAX;
    switch (s->b % 8) {
    case 0: break;
    case 1: next = place; break;
    case 2:
    case 3: next = live_place(page, s->c); break;
    case 4: next = (uint64_t)s->c * page->block_size; break;
    case 5: next = (uint64_t)page->reserved * page->block_size + s->c * 8u; break;
    case 6: next = place + 1 + s->c % 15u; break;
    default: next = UINT32_MAX - 1 - s->c; break;
    }
    if ((s->b & 0x20) != 0) {
        forge_entry(page, (uint32_t)(next / page->block_size), s->c >> 6, (s->b & 0x10) != 0);
        return;
    }
    write_word(s->a, b->p, (s->b & 0x80) != 0 ? page->start + next : next / page->block_size ^ page->list_key);
}

void run_attack(const step_t *s)
{
    switch (s->op) {
    case OP_OVERFLOW: overflow(s); break;
    case OP_UNDERFLOW: underflow(s); break;
    case OP_STALE_WRITE: stale_write(s); break;
    case OP_COPY: copy(s); break;
    case OP_REPLAY: replay(s); break;
    default: forge(s); break;
    }
}
