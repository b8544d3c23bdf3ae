/* Soft memory: access and guards of the first segments are kept in a table instead of by
 * the kernel, whose calls and page faults were most of the time of a short program. All
 * of it can be read and written; contents go as the kernel would have let them go. The
 * oracle asks the table about each block that is handed out; what the allocator itself
 * touches beyond its guards is seen in the other runs, which have real ones.
 *
 *   T1  an OS page that is not marked as filled reads zero
 *
 * Marks come from the oracle, which says what it writes, and what it finds copied: the
 * allocator puts nothing but zeroes into memory beside the blocks that it hands out, and in
 * profile hardened what is before a block at an offset in its OS page. So
 * neither what is to be cleared depends on the allocator's word, nor does it take a call. */
#include "base/bits.h"
#include "base/checked.h"
#include "meta/arena.h"
#include "os/os.h"
#include "window/inside.h"
#include "window/window.h"

#include <string.h>
#include <sys/mman.h>

#define SIZE (SOFT_SEGMENTS * BH_SEGMENT_SIZE)
#define PAGES (SIZE / BH_OS_PAGE_SIZE)
#define WORDS (PAGES / 64)
#define CLEAR_MOST 4096u /* OS pages; more than these are returned instead */
#define PART_SHIFT (BH_OS_PAGE_SHIFT - 3)
#define PART_SIZE ((size_t)1 << PART_SHIFT)
#define WHOLE 0xffu

/* A bit for each OS page. */
typedef struct table {
    uint64_t guard[WORDS], closed[WORDS];
} table_t;

static struct {
    bool on;
    table_t now, start; /* start: with segment 0 as the warm start leaves it */
    uint64_t filled[WORDS];
    uint8_t parts[PAGES]; /* of an OS page that is filled, which eighths: most blocks have less */
    size_t end; /* OS pages from here on are as at the start, and not filled */
} soft;

/* The bits of [i, end) in the word of i. */
static uint64_t part_of_word(size_t i, size_t end)
{
    size_t low = i % 64, n = end - i < 64 - low ? end - i : 64 - low;
    return (n < 64 ? ((uint64_t)1 << n) - 1 : UINT64_MAX) << low;
}

static size_t next_word(size_t i)
{
    return (i | 63) + 1;
}

static size_t page_of(uintptr_t at)
{
    return (at - window_places.blocks) >> BH_OS_PAGE_SHIFT;
}

static void mark(uint64_t *bits, uintptr_t at, size_t size, bool value)
{
    size_t end = page_of(at) + (size >> BH_OS_PAGE_SHIFT);
    for (size_t i = page_of(at); i < end; i = next_word(i)) {
        uint64_t mask = part_of_word(i, end);
        bits[i / 64] = value ? bits[i / 64] | mask : bits[i / 64] & ~mask;
    }
    soft.end = bhi_max(soft.end, end);
}

static bool has(const uint64_t *bits, size_t page)
{
    return (bits[page / 64] >> page % 64 & 1) != 0;
}

static bool is_closed(size_t page)
{
    return has(soft.now.guard, page) || has(soft.now.closed, page);
}

size_t inside_soft(uintptr_t at, size_t size)
{
    size_t off = at - window_places.blocks;
    if (!soft.on || off >= SIZE)
        return 0;
    return size < SIZE - off ? size : SIZE - off;
}

/* -------------------------------------------------------------------- contents */

static void fill(uintptr_t from, uintptr_t to)
{
    uintptr_t low = bhi_align_down(from, BH_OS_PAGE_SIZE), high = bhi_align_up(to, BH_OS_PAGE_SIZE);
    mark(soft.filled, low, high - low, true);
    size_t first = page_of(low), last = page_of(high) - 1;
    uint8_t head = (uint8_t)(WHOLE << ((from - low) >> PART_SHIFT)), tail = (uint8_t)(WHOLE >> ((high - to) >> PART_SHIFT));
    if (first == last) {
        soft.parts[first] |= head & tail;
        return;
    }
    soft.parts[first] |= head;
    memset(soft.parts + first + 1, WHOLE, last - first - 1);
    soft.parts[last] |= tail;
}

void window_fills(uintptr_t at, size_t size)
{
    size_t n = inside_soft(at, size);
    if (n != 0)
        fill(at, at + n);
}

/* Before a block may be copied: which of its OS pages are filled, from its first word of marks on. */
static struct {
    uintptr_t p;
    size_t size, soft;
    uint64_t filled[WORDS];
} copied;

void window_may_copy(uintptr_t p, size_t size)
{
    copied.p = p;
    copied.size = size;
    copied.soft = inside_soft(p, size);
    if (copied.soft == 0)
        return;
    size_t first = page_of(p) / 64, last = page_of(p + copied.soft - 1) / 64;
    memcpy(copied.filled, soft.filled + first, (last - first + 1) * sizeof copied.filled[0]);
}

void window_copied(uintptr_t to)
{
    uintptr_t low = bhi_align_down(copied.p, BH_OS_PAGE_SIZE << 6), end = copied.p + copied.soft;
    if (copied.soft < copied.size)
        window_fills(to + copied.soft, copied.size - copied.soft); /* of that nothing is known */
    for (uintptr_t at = bhi_align_down(copied.p, BH_OS_PAGE_SIZE); at < end; at += BH_OS_PAGE_SIZE) {
        uintptr_t from = bhi_max(at, copied.p), until = bhi_min(at + BH_OS_PAGE_SIZE, end);
        if (has(copied.filled, (at - low) >> BH_OS_PAGE_SHIFT))
            window_fills(to + (from - copied.p), until - from);
    }
}

void window_fills_behind(uintptr_t p, size_t usable)
{
    uintptr_t from = p + usable;
    if (inside_soft(from, 1) == 0)
        return;
    const bhi_page_t *page = bhi_desc_first(bhi_desc_at(window_places.descs, p - window_places.blocks));
    uintptr_t end = from;
    if (page->state == BHI_PAGE_LARGE)
        end = page->start + page->single_bytes;
    else if (page->block_size != 0)
        end = p - (p - page->start) % page->block_size + page->block_size;
    if (end > from)
        fill(from, from + inside_soft(from, end - from));
}

static void clear_page(size_t page)
{
    uintptr_t at = window_places.blocks + (page << BH_OS_PAGE_SHIFT);
    uint8_t parts = soft.parts[page];
    if (parts == WHOLE)
        memset((void *)at, 0, BH_OS_PAGE_SIZE); /* NOLINT: memory is numbers here */
    for (; parts != WHOLE && parts != 0; parts &= (uint8_t)(parts - 1))
        memset((void *)(at + (bhi_bit_first(parts) << PART_SHIFT)), 0, PART_SIZE); /* NOLINT */
}

/* Clears what is marked: memory that was touched stays, to some size, as to fault it in
 * again costs ten times as much as to write it. */
static void clear(uintptr_t at, size_t size)
{
    size_t first = page_of(at), end = first + (size >> BH_OS_PAGE_SHIFT), found = 0;
    for (size_t i = first; i < end; i = next_word(i)) {
        if (soft.filled[i / 64] != 0)
            found += bhi_bit_count(soft.filled[i / 64] & part_of_word(i, end));
    }
    if (found > CLEAR_MOST)
        inside_must(madvise((void *)at, size, MADV_DONTNEED), "memory"); /* NOLINT: memory is numbers here */
    for (size_t i = first; found > 0 && i < end; i = next_word(i)) {
        if (soft.filled[i / 64] == 0)
            continue;
        uint64_t mask = part_of_word(i, end);
        for (uint64_t set = soft.filled[i / 64] & mask; set != 0; set &= set - 1) {
            size_t page = (i & ~(size_t)63) + bhi_bit_first(set);
            if (found <= CLEAR_MOST)
                clear_page(page);
            soft.parts[page] = 0;
        }
        soft.filled[i / 64] &= ~mask;
    }
}

/* What the kernel would have let go. A mark that is missing shows where it matters. */
void inside_soft_clear(uintptr_t at, size_t size)
{
    clear(at, size);
    if (inside_verifies())
        inside_verify_zero("memory that was let go", at, size, NULL);
}

/* ------------------------------------------------------------ guards and access */

void inside_soft_guard(uintptr_t at, size_t size, bool install)
{
    mark(soft.now.guard, at, size, install);
    if (install)
        inside_soft_clear(at, size);
}

void inside_soft_close(uintptr_t at, size_t size, bool close)
{
    mark(soft.now.closed, at, size, close);
}

void inside_soft_rereserve(uintptr_t at, size_t size)
{
    mark(soft.now.closed, at, size, true);
    mark(soft.now.guard, at, size, false);
    inside_soft_clear(at, size);
}

/* Guards and access come along; what is left behind has its access and no guards. */
void inside_soft_move(uintptr_t from, uintptr_t to, size_t size)
{
    inside_soft_clear(to, size);
    size_t first = page_of(from), then = page_of(to), pages = size >> BH_OS_PAGE_SHIFT;
    if (first % 64 == 0 && then % 64 == 0 && pages % 64 == 0) { /* whole words, as of a whole segment */
        memcpy(soft.now.guard + then / 64, soft.now.guard + first / 64, pages / 8);
        memcpy(soft.now.closed + then / 64, soft.now.closed + first / 64, pages / 8);
    } else {
        for (size_t i = 0; i < pages; i++) {
            mark(soft.now.guard, to + (i << BH_OS_PAGE_SHIFT), BH_OS_PAGE_SIZE, has(soft.now.guard, first + i));
            mark(soft.now.closed, to + (i << BH_OS_PAGE_SHIFT), BH_OS_PAGE_SIZE, has(soft.now.closed, first + i));
        }
    }
    soft.end = bhi_max(soft.end, then + pages);
    for (size_t i = 0; i < pages; i++) {
        if (!has(soft.filled, first + i))
            continue;
        size_t at = i << BH_OS_PAGE_SHIFT;
        memcpy((void *)(to + at), (const void *)(from + at), BH_OS_PAGE_SIZE); /* NOLINT */
        fill(to + at, to + at + BH_OS_PAGE_SIZE);
    }
    mark(soft.now.guard, from, size, false);
    inside_soft_clear(from, size);
}

bool window_is_open(uintptr_t at, size_t size)
{
    size_t n = inside_soft(at, size);
    for (size_t i = 0; i < n;) {
        if (is_closed(page_of(at + i)))
            return false;
        i += BH_OS_PAGE_SIZE - ((at + i) & (BH_OS_PAGE_SIZE - 1));
    }
    return true;
}

bool window_is_closed(uintptr_t at)
{
    return inside_soft(at, 1) == 0 || is_closed(page_of(at));
}

/* ------------------------------------------------------------------- each start */

void inside_soft_on(void)
{
    inside_must(bhi_os_open(window_places.blocks, SIZE), "soft memory");
    soft.on = true;
    mark(soft.now.guard, window_places.blocks, SIZE, false);
    mark(soft.now.closed, window_places.blocks, SIZE, true);
    mark(soft.filled, window_places.blocks, SIZE, false);
}

void inside_soft_off(void)
{
    soft.on = false;
}

bool inside_soft_is_on(void)
{
    return soft.on;
}

void inside_soft_remember(void)
{
    soft.start = soft.now;
    soft.end = 0;
}

void inside_soft_restore(void)
{
    if (inside_verifies())
        inside_verify_zero("soft memory that nobody filled (T1)", window_places.blocks, SIZE, soft.filled);
    size_t end = (soft.end + 63) / 64 * 64;
    clear(window_places.blocks, end << BH_OS_PAGE_SHIFT);
    memcpy(soft.now.guard, soft.start.guard, end / 8);
    memcpy(soft.now.closed, soft.start.closed, end / 8);
    soft.end = 0;
}

void inside_soft_shut(void)
{
    mark(soft.now.guard, window_places.blocks, BH_SEGMENT_SIZE, false);
    mark(soft.now.closed, window_places.blocks, BH_SEGMENT_SIZE, true);
}
