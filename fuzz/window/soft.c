/* Soft memory: access and guards of the first segments are kept in a table instead of by
 * the kernel, whose calls and page faults were most of the time of a short program. All
 * of it can be read and written; contents go as the kernel would have let them go. The
 * oracle asks the table about each block that is handed out; what the allocator itself
 * touches beyond its guards is seen in the other runs, which have real ones. */
#include "base/bits.h"
#include "os/os.h"
#include "window/inside.h"
#include "window/window.h"

#include <string.h>
#include <sys/mman.h>

#define PAGES (SOFT_SEGMENTS * BH_SEGMENT_SIZE / BH_OS_PAGE_SIZE)
#define WORDS (PAGES / 64)
#define CLEAR_MOST 256u /* OS pages; more than these are returned instead */

/* A bit for each OS page.
 *
 *   T1  an OS page that is open, or was since its segment was last reserved as a whole,
 *       is one of a touched segment
 *   T2  a segment that is not touched, and an OS page with a guard, read zero
 *
 * touched is a part of what each start brings back: a run may end with segment 0
 * reserved, and the next one finds it open. */
typedef struct table {
    uint64_t guard[WORDS], closed[WORDS];
    bool touched[SOFT_SEGMENTS];
} table_t;

static struct {
    bool on;
    uintptr_t next_page; /* behind the one that was closed last, if it was closed alone and nothing was opened since */
    table_t now, start;  /* start: with segment 0 as the warm start leaves it */
} soft;

static void mark(uint64_t *bits, uintptr_t at, size_t size, bool value)
{
    size_t i = (at - window_places.blocks) >> BH_OS_PAGE_SHIFT, end = i + (size >> BH_OS_PAGE_SHIFT);
    while (i < end) {
        size_t low = i % 64, n = end - i < 64 - low ? end - i : 64 - low;
        uint64_t mask = (n < 64 ? ((uint64_t)1 << n) - 1 : UINT64_MAX) << low;
        bits[i / 64] = value ? bits[i / 64] | mask : bits[i / 64] & ~mask;
        i += n;
    }
}

static bool is_closed(size_t os_page)
{
    return ((soft.now.guard[os_page / 64] | soft.now.closed[os_page / 64]) >> os_page % 64 & 1) != 0;
}

size_t inside_soft(uintptr_t at, size_t size)
{
    size_t off = at - window_places.blocks, all = SOFT_SEGMENTS * BH_SEGMENT_SIZE;
    if (!soft.on || off >= all)
        return 0;
    return size < all - off ? size : all - off;
}

/* The lowest bits of the eight bytes from i on, of those below n. */
static uint64_t resident_word(const uint64_t *resident, size_t i, size_t n)
{
    uint64_t word = resident[i / 8] & 0x0101010101010101u;
    return n - i >= 8 ? word : word & (((uint64_t)1 << (n - i) * 8) - 1);
}

static void look(uintptr_t at, size_t size, unsigned char *resident)
{
    inside_must(mincore((void *)at, size, resident), "mincore"); /* NOLINT: memory is numbers here */
}

/* One OS page. Where a slot is closed page by page, nothing is written in between: the
 * rest of the slot is looked at with the first. */
static void clear_page(uintptr_t at)
{
    static unsigned char resident[BH_SLOT_OS_PAGES];
    size_t i = (at & (BH_SLOT_SIZE - 1)) >> BH_OS_PAGE_SHIFT;
    if (at != soft.next_page || i == 0)
        look(at, BH_SLOT_SIZE - (i << BH_OS_PAGE_SHIFT), resident + i);
    if ((resident[i] & 1) != 0)
        memset((void *)at, 0, BH_OS_PAGE_SIZE); /* NOLINT */
}

/* Memory that was touched is cleared and stays, to some size: to fault it in again costs ten
 * times as much as to write it. resident: a byte for each OS page, its lowest bit. */
static void clear_resident(uintptr_t at, size_t n, const uint64_t *resident)
{
    size_t found = 0;
    for (size_t i = 0; i < n; i += 8)
        found += bhi_bit_count(resident_word(resident, i, n));
    if (found > CLEAR_MOST) {
        inside_must(madvise((void *)at, n << BH_OS_PAGE_SHIFT, MADV_DONTNEED), "memory"); /* NOLINT */
        return;
    }
    for (size_t i = 0; i < n; i += 8) {
        for (uint64_t word = resident_word(resident, i, n); word != 0; word &= word - 1)
            memset((void *)(at + ((i + bhi_bit_first(word) / 8) << BH_OS_PAGE_SHIFT)), 0, BH_OS_PAGE_SIZE); /* NOLINT */
    }
}

/* What the kernel would have let go; and the table's own mistakes show where they are made. */
static void verify_zero(const char *where, uintptr_t at, size_t size)
{
    if (inside_verifies())
        inside_verify_zero(where, at, size);
}

void inside_soft_clear(uintptr_t at, size_t size)
{
    static uint64_t resident[PAGES / 8];
    soft.next_page = 0;
    look(at, size, (unsigned char *)resident);
    clear_resident(at, size >> BH_OS_PAGE_SHIFT, resident);
    verify_zero("memory that was returned", at, size);
}

void inside_soft_clear_slots(uint64_t slots)
{
    static uint64_t resident[PAGES / 8];
    unsigned first = bhi_bit_first(slots), n = bhi_bit_last(slots) + 1 - first;
    uintptr_t at = window_places.blocks + ((size_t)first << BH_SLOT_SHIFT);
    soft.next_page = 0;
    look(at, (size_t)n << BH_SLOT_SHIFT, (unsigned char *)resident);
    for (unsigned i = 0; i < n; i++) {
        if ((slots >> (first + i) & 1) != 0)
            clear_resident(at + ((size_t)i << BH_SLOT_SHIFT), BH_SLOT_OS_PAGES, resident + i * BH_SLOT_OS_PAGES / 8);
    }
}

void inside_soft_guard(uintptr_t at, size_t size, bool install)
{
    mark(soft.now.guard, at, size, install);
    if (!install || size > BH_OS_PAGE_SIZE) {
        soft.next_page = 0;
        if (install)
            inside_soft_clear(at, size);
        return;
    }
    clear_page(at);
    soft.next_page = at + BH_OS_PAGE_SIZE;
    verify_zero("an OS page that was closed", at, size);
}

/* Whole segments that nobody opened are not looked at. */
static bool is_untouched(uintptr_t at, size_t size)
{
    bool touched = ((at | size) & (BH_SEGMENT_SIZE - 1)) != 0;
    for (size_t off = 0; off < size && !touched; off += BH_SEGMENT_SIZE)
        touched = soft.now.touched[(at + off - window_places.blocks) >> BH_SEGMENT_SHIFT];
    return !touched;
}

static void touch(uintptr_t at, size_t size, bool touched)
{
    for (uintptr_t end = at + size; at < end; at = (at | (BH_SEGMENT_SIZE - 1)) + 1)
        soft.now.touched[(at - window_places.blocks) >> BH_SEGMENT_SHIFT] = touched;
}

void inside_soft_close(uintptr_t at, size_t size, bool close)
{
    mark(soft.now.closed, at, size, close);
    if (close)
        return;
    soft.next_page = 0;
    touch(at, size, true);
}

void inside_soft_rereserve(uintptr_t at, size_t size)
{
    mark(soft.now.closed, at, size, true);
    mark(soft.now.guard, at, size, false);
    if (is_untouched(at, size)) {
        verify_zero("segments that nobody opened", at, size);
        return;
    }
    inside_soft_clear(at, size);
    if (((at | size) & (BH_SEGMENT_SIZE - 1)) == 0)
        touch(at, size, false);
}

/* Guards and access come along; what is left behind has its access and no guards. */
void inside_soft_move(uintptr_t from, uintptr_t to, size_t size)
{
    static unsigned char resident[PAGES];
    touch(to, size, true);
    inside_soft_clear(to, size);
    inside_must(mincore((void *)from, size, resident), "mincore"); /* NOLINT */
    for (size_t at = 0; at < size; at += BH_OS_PAGE_SIZE) {
        size_t page = (from + at - window_places.blocks) >> BH_OS_PAGE_SHIFT;
        mark(soft.now.guard, to + at, BH_OS_PAGE_SIZE, (soft.now.guard[page / 64] >> page % 64 & 1) != 0);
        mark(soft.now.closed, to + at, BH_OS_PAGE_SIZE, (soft.now.closed[page / 64] >> page % 64 & 1) != 0);
        if ((resident[at >> BH_OS_PAGE_SHIFT] & 1) != 0)
            memcpy((void *)(to + at), (const void *)(from + at), BH_OS_PAGE_SIZE); /* NOLINT */
    }
    mark(soft.now.guard, from, size, false);
    inside_soft_clear(from, size);
}

void inside_soft_on(void)
{
    size_t size = SOFT_SEGMENTS * BH_SEGMENT_SIZE;
    inside_must(bhi_os_open(window_places.blocks, size), "soft memory");
    soft.on = true;
    touch(window_places.blocks, size, false);
    mark(soft.now.guard, window_places.blocks, size, false);
    mark(soft.now.closed, window_places.blocks, size, true);
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
}

void inside_soft_restore(void)
{
    soft.now = soft.start;
    soft.next_page = 0;
}

void inside_soft_verify(void)
{
    for (size_t page = 0; page < PAGES; page++) {
        uintptr_t at = window_places.blocks + (page << BH_OS_PAGE_SHIFT);
        bool closed = (soft.now.closed[page / 64] >> page % 64 & 1) != 0;
        if (!closed && !soft.now.touched[page >> (BH_SEGMENT_SHIFT - BH_OS_PAGE_SHIFT)])
            inside_left("the table of soft memory (T1)", at, page);
    }
}

bool window_is_open(uintptr_t at, size_t size)
{
    size_t n = inside_soft(at, size);
    for (size_t i = 0; i < n;) {
        if (is_closed((at + i - window_places.blocks) >> BH_OS_PAGE_SHIFT))
            return false;
        i += BH_OS_PAGE_SIZE - ((at + i) & (BH_OS_PAGE_SIZE - 1));
    }
    return true;
}

bool window_is_closed(uintptr_t at)
{
    return inside_soft(at, 1) == 0 || is_closed((at - window_places.blocks) >> BH_OS_PAGE_SHIFT);
}
