/* Guard pages. Two kinds: guard regions (MADV_GUARD_INSTALL), which cost no
 * mapping, and OS pages without access (mprotect), which cost up to two and are
 * kept within half of vm.max_map_count, so that the program's own mappings
 * never fail on our account.
 *
 * A guard is advisory: the kernel may refuse at any time (a sandbox that came
 * late, locked memory, the mapping limit). Then the next kind is tried, then the
 * page stays accessible and guard_missed counts it. */
#include "harden/guard.h"

#include "base/bits.h"
#include "meta/arena.h"
#include "meta/segment.h"
#include "os/os.h"

#define GUARD_LAST (BH_SLOT_OS_PAGES - 1)

static bool guards_wanted(void)
{
    return BH_HARDEN_GUARDS && bhi_process.options.guard != BHI_GUARD_NONE;
}

void bhi_guard_init(void)
{
    if (!guards_wanted() || bhi_process.options.guard == BHI_GUARD_MPROTECT)
        return;
    /* The last segment of the reservation serves as the probe: install on it, ask
     * the kernel to write there, take it away. */
    uintptr_t probe = bhi_process.block_base + bhi_process.block_size - BH_SEGMENT_SIZE;
    if (bhi_os_open(probe, BH_OS_PAGE_SIZE) != 0)
        return;
    if (bhi_os_guard_install(probe, BH_OS_PAGE_SIZE) == 0)
        bhi_process.guards_by_madvise = bhi_os_guard_traps(probe);
    bhi_os_guard_remove(probe, BH_OS_PAGE_SIZE); /* should the next call be refused */
    bhi_os_rereserve(probe, BH_OS_PAGE_SIZE);
}

static bool mapping_budget_left(void)
{
    if (bhi_state->mappings_budget == 0) {
        char text[24];
        size_t limit = 0;
        long n = bhi_os_read_file("/proc/sys/vm/max_map_count", text, sizeof text);
        for (long i = 0; i < n && text[i] >= '0' && text[i] <= '9'; i++)
            limit = limit * 10 + (size_t)(text[i] - '0');
        bhi_state->mappings_budget = (limit != 0 ? limit : 65530) / 2;
    }
    return bhi_state->mappings + 2 <= bhi_state->mappings_budget;
}

static uintptr_t page_address(const bhi_segment_t *s, unsigned slot, unsigned os_page)
{
    return bhi_segment_base(s) + ((size_t)slot << BH_SLOT_SHIFT) + ((size_t)os_page << BH_OS_PAGE_SHIFT);
}

/* Closes OS pages from..guard_from-1 of a slot. */
static void close_tail(bhi_segment_t *s, unsigned slot, unsigned from)
{
    unsigned n = s->guard_from[slot] - from;
    uintptr_t at = page_address(s, slot, from);
    size_t size = (size_t)n << BH_OS_PAGE_SHIFT;
    uint64_t bit = (uint64_t)1 << slot;
    size_t before = bhi_segment_mappings(s, bit);
    bool done = false;
    /* Where the rest of the slot is closed by mprotect, stay with it: the
     * boundary moves and costs no further mapping. */
    if (bhi_process.guards_by_madvise && !(s->by_mprotect & bit)) {
        done = bhi_os_guard_install(at, size) == 0;
        if (done) {
            s->by_region |= bit;
            s->region_from[slot] = (uint8_t)from;
        } else
            atomic_fetch_add_explicit(&bhi_state->advice_refused, 1, memory_order_relaxed);
    }
    if (!done && ((s->by_mprotect & bit) != 0 || mapping_budget_left())) {
        done = bhi_os_protect_none(at, size) == 0;
        if (done)
            s->by_mprotect |= bit;
    }
    if (done)
        s->guard_from[slot] = (uint8_t)from;
    else
        atomic_fetch_add_explicit(&bhi_state->guard_missed, 1, memory_order_relaxed);
    bhi_mappings_recount(before, bhi_segment_mappings(s, bit));
}

/* A sandbox refuses to take guard regions away. A fresh mapping has none; the
 * slots hold no blocks yet. All of them are then closed by mprotect. */
static bool remap(bhi_segment_t *s, unsigned first, unsigned last)
{
    uint64_t range = bhi_bit_range(first, last - first + 1);
    if (bhi_os_rereserve(page_address(s, first, 0), (size_t)(last - first + 1) << BH_SLOT_SHIFT) != 0)
        return false;
    for (unsigned i = first; i <= last; i++)
        s->guard_from[i] = 0;
    s->by_mprotect |= range;
    s->by_region &= ~range;
    return true;
}

/* Slots whose OS pages without access were opened, but whose guard regions
 * stay: closes them again. */
static void close_again(bhi_segment_t *s, uint64_t slots, unsigned last, unsigned last_to)
{
    for (; slots != 0; slots &= slots - 1) {
        unsigned slot = bhi_bit_first(slots);
        unsigned to = slot == last ? last_to : BH_SLOT_OS_PAGES;
        if (s->guard_from[slot] >= to)
            continue;
        size_t size = (size_t)(to - s->guard_from[slot]) << BH_OS_PAGE_SHIFT;
        if (bhi_os_protect_none(page_address(s, slot, s->guard_from[slot]), size) == 0)
            continue;
        atomic_fetch_add_explicit(&bhi_state->guard_missed, 1, memory_order_relaxed);
        s->guard_from[slot] = (uint8_t)((s->by_region >> slot & 1) != 0 && s->region_from[slot] < to ? s->region_from[slot] : to);
    }
}

/* Opens slots first..last, the last one up to OS page `last_to`. */
static bool open_range(bhi_segment_t *s, unsigned first, unsigned last, unsigned last_to)
{
    uint64_t range = bhi_bit_range(first, last - first + 1);
    /* Slots that are open to their end afterwards. */
    uint64_t whole = last_to == BH_SLOT_OS_PAGES ? range : range & ~((uint64_t)1 << last);
    uintptr_t from = page_address(s, first, 0);
    size_t size = page_address(s, last, last_to) - from;
    size_t before = bhi_segment_mappings(s, range);
    uint64_t closed = s->by_mprotect & range;
    if (closed != 0 && bhi_os_open(from, size) != 0)
        return false;
    if ((s->by_region & range) != 0 && bhi_os_guard_remove(from, size) != 0) {
        bool remapped = remap(s, first, last);
        if (!remapped)
            close_again(s, closed, last, last_to);
        if (!remapped || bhi_os_open(from, size) != 0) {
            bhi_mappings_recount(before, bhi_segment_mappings(s, range));
            return false;
        }
    }
    s->by_region &= ~whole;
    s->by_mprotect &= ~whole;
    for (unsigned i = first; i <= last; i++) {
        unsigned to = i == last ? last_to : BH_SLOT_OS_PAGES;
        if (to > s->guard_from[i])
            s->guard_from[i] = (uint8_t)to;
    }
    if (s->region_from[last] < last_to)
        s->region_from[last] = (uint8_t)last_to; /* those below are gone */
    bhi_mappings_recount(before, bhi_segment_mappings(s, range));
    return true;
}

/* Without budget left for mappings: opens all slots that were never used, so
 * that they become one mapping with each other and the next segment's. */
static void open_rest(bhi_segment_t *s)
{
    for (unsigned i = 0; i < BH_SEGMENT_SLOTS; i++) {
        unsigned n = 0;
        while (i + n < BH_SEGMENT_SLOTS && s->guard_from[i + n] == 0)
            n++;
        if (n > 0)
            open_range(s, i, i + n - 1, BH_SLOT_OS_PAGES);
        i += n;
    }
}

bool bhi_guard_fit(bhi_segment_t *s, unsigned slot, unsigned n, unsigned last_from)
{
    unsigned last = slot + n - 1;
    if (!guards_wanted())
        last_from = BH_SLOT_OS_PAGES;
    /* Where slots are opened one by one, the guard is what stays closed. */
    if (s->by_slot && s->guard_from[last] == 0 && guards_wanted() && !mapping_budget_left())
        open_rest(s);
    bool closed = s->guard_from[last] < last_from;
    for (unsigned i = slot; i < last; i++)
        closed |= s->guard_from[i] < BH_SLOT_OS_PAGES;
    if (closed && !open_range(s, slot, last, last_from))
        return false;
    if (!guards_wanted())
        return true;
    if (s->guard_from[last] > last_from)
        close_tail(s, last, last_from);
    if (slot > 0 && s->guard_from[slot - 1] == BH_SLOT_OS_PAGES && (s->free >> (slot - 1) & 1) != 0)
        close_tail(s, slot - 1, GUARD_LAST);
    return true;
}

void bhi_guard_batch(bhi_segment_t *s)
{
    if (!guards_wanted() || !bhi_process.guards_by_madvise || bhi_state->batch_refused)
        return;
    uintptr_t at[64];
    uint8_t slots[64];
    unsigned n = 0;
    for (unsigned i = 0; i < BH_SEGMENT_SLOTS; i++) {
        if ((s->free >> i & 1) != 0 && s->guard_from[i] == BH_SLOT_OS_PAGES) {
            at[n] = page_address(s, i, GUARD_LAST);
            slots[n++] = (uint8_t)i;
        }
    }
    unsigned done = n > 1 ? (unsigned)bhi_os_guard_install_many(at, n, BH_OS_PAGE_SIZE) : 0;
    for (unsigned i = 0; i < done; i++) {
        s->guard_from[slots[i]] = (uint8_t)GUARD_LAST;
        s->by_region |= (uint64_t)1 << slots[i];
        s->region_from[slots[i]] = (uint8_t)GUARD_LAST;
    }
    bhi_state->batch_refused = n > 1 && done == 0;
}
