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

#define LAST_OS_PAGE (BH_SLOT_OS_PAGES - 1)

static bool guards_wanted(void)
{
    return BH_HARDEN_GUARDS && bhi_process.options.guard != BHI_GUARD_NONE;
}

void bhi_guard_init(void)
{
    bool none = (!BH_HARDEN_GUARDS && !BH_HARDEN_LARGE) || bhi_process.options.guard == BHI_GUARD_NONE;
    if (none || bhi_process.options.guard == BHI_GUARD_MPROTECT)
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

bool bhi_guard_mappings_left(void)
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

static uint16_t region_bit(unsigned os_page)
{
    return (uint16_t)(1u << os_page);
}

/* The guard regions below OS page `to`. */
static uint16_t regions_below(unsigned to)
{
    return (uint16_t)((1u << to) - 1);
}

/* Closes an OS page. Those behind it in its slot hold no block's bytes. False,
 * and counted, when it stays accessible. */
static bool close_page(bhi_segment_t *s, unsigned slot, unsigned os_page)
{
    if (os_page >= s->open_to[slot] || (s->regions[slot] & region_bit(os_page)) != 0)
        return true;
    uint64_t bit = (uint64_t)1 << slot;
    uintptr_t at = page_address(s, slot, os_page);
    size_t before = bhi_segment_mappings(s, bit);
    bool by_mprotect = (s->by_mprotect & bit) != 0, done = false;
    /* Where the rest of the slot is closed by mprotect, stay with it: the
     * boundary moves and costs no further mapping. */
    if (bhi_process.guards_by_madvise && !by_mprotect) {
        done = bhi_os_guard_install(at, BH_OS_PAGE_SIZE) == 0;
        if (done)
            s->regions[slot] |= region_bit(os_page);
        else
            atomic_fetch_add_explicit(&bhi_state->advice_refused, 1, memory_order_relaxed);
    }
    if (!done && (by_mprotect || bhi_guard_mappings_left())) {
        done = bhi_os_protect_none(at, (size_t)(s->open_to[slot] - os_page) << BH_OS_PAGE_SHIFT) == 0;
        if (done)
            s->open_to[slot] = (uint8_t)os_page;
    }
    if (!done)
        atomic_fetch_add_explicit(&bhi_state->guard_missed, 1, memory_order_relaxed);
    bhi_segment_note(s, slot);
    bhi_mappings_recount(before, bhi_segment_mappings(s, bit));
    return done;
}

/* Slots first..last, the last one up to OS page last_to. */
typedef struct part {
    unsigned first, last, last_to;
} part_t;

static unsigned part_end(const part_t *part, unsigned slot)
{
    return slot == part->last ? part->last_to : BH_SLOT_OS_PAGES;
}

static uint64_t part_slots(const part_t *part)
{
    return bhi_bit_range(part->first, part->last - part->first + 1);
}

/* A sandbox refuses to take guard regions away. A fresh mapping has none; the
 * slots hold no blocks yet. All of them are then closed by mprotect. */
static bool remap(bhi_segment_t *s, const part_t *part)
{
    size_t size = (size_t)(part->last - part->first + 1) << BH_SLOT_SHIFT;
    if (bhi_os_rereserve(page_address(s, part->first, 0), size) != 0)
        return false;
    for (unsigned i = part->first; i <= part->last; i++)
        s->regions[i] = s->open_to[i] = 0;
    return true;
}

/* Opens what is closed by mprotect, with one call from the first such OS page to
 * the last. The other pages between them are accessible, before and after. */
static bool open_closed(bhi_segment_t *s, const part_t *part)
{
    uintptr_t from = 0, to = 0;
    for (uint64_t slots = s->by_mprotect & part_slots(part); slots != 0; slots &= slots - 1) {
        unsigned slot = bhi_bit_first(slots);
        if (s->open_to[slot] >= part_end(part, slot))
            continue;
        from = from != 0 ? from : page_address(s, slot, s->open_to[slot]);
        to = page_address(s, slot, part_end(part, slot));
    }
    return from == to || bhi_os_open(from, to - from) == 0;
}

/* After remap. */
static bool open_all(const bhi_segment_t *s, const part_t *part)
{
    uintptr_t from = page_address(s, part->first, 0);
    return bhi_os_open(from, page_address(s, part->last, part->last_to) - from) == 0;
}

/* Takes guard regions away, in the same way. */
static bool remove_regions(bhi_segment_t *s, const part_t *part)
{
    uintptr_t from = 0, to = 0;
    for (uint64_t slots = s->by_region & part_slots(part); slots != 0; slots &= slots - 1) {
        unsigned slot = bhi_bit_first(slots);
        unsigned regions = s->regions[slot] & regions_below(part_end(part, slot));
        if (regions == 0)
            continue;
        from = from != 0 ? from : page_address(s, slot, bhi_bit_first(regions));
        to = page_address(s, slot, bhi_bit_last(regions) + 1);
    }
    return from == to || bhi_os_guard_remove(from, to - from) == 0;
}

/* What open_closed opened, of slots whose guard regions stay: closes it again. */
static void close_again(bhi_segment_t *s, const part_t *part)
{
    for (uint64_t slots = s->by_mprotect & part_slots(part); slots != 0; slots &= slots - 1) {
        unsigned slot = bhi_bit_first(slots);
        unsigned from = s->open_to[slot], to = part_end(part, slot);
        if (from >= to || bhi_os_protect_none(page_address(s, slot, from), (size_t)(to - from) << BH_OS_PAGE_SHIFT) == 0)
            continue;
        atomic_fetch_add_explicit(&bhi_state->guard_missed, 1, memory_order_relaxed);
        s->open_to[slot] = (uint8_t)to;
    }
}

/* Makes a part accessible. `empty`: no slot of it holds a block. */
static bool open_part(bhi_segment_t *s, const part_t *part, bool empty)
{
    size_t before = bhi_segment_mappings(s, part_slots(part));
    bool open = open_closed(s, part);
    if (open && !remove_regions(s, part)) {
        bool remapped = empty && remap(s, part);
        if (!remapped)
            close_again(s, part);
        open = remapped && open_all(s, part);
    }
    for (unsigned i = part->first; i <= part->last; i++) {
        unsigned to = part_end(part, i);
        if (open && s->open_to[i] < to)
            s->open_to[i] = (uint8_t)to;
        if (open)
            s->regions[i] &= (uint16_t)~regions_below(to);
        bhi_segment_note(s, i);
    }
    bhi_mappings_recount(before, bhi_segment_mappings(s, part_slots(part)));
    return open;
}

/* Without budget left for mappings: opens all of `slots` that were never used, so
 * that they become one mapping with each other and the next segment's. */
static void open_rest(bhi_segment_t *s, uint64_t slots)
{
    for (unsigned i = 0; i < BH_SEGMENT_SLOTS; i++) {
        unsigned n = 0;
        while (i + n < BH_SEGMENT_SLOTS && s->open_to[i + n] == 0 && (slots >> (i + n) & 1) != 0)
            n++;
        if (n > 0)
            open_part(s, &(part_t){i, i + n - 1, BH_SLOT_OS_PAGES}, true);
        i += n;
    }
}

/* Closes the OS page before a slot: the last one of a free slot or of another
 * span, which holds no block's bytes. Where a kernel call on that slot may be
 * under way it stays as it is: that of a quarantined one was closed with its
 * span, and a segment that goes back whole will have no access. */
static void close_before(bhi_segment_t *s, unsigned slot)
{
    if (slot > 0) {
        if ((s->quarantined >> (slot - 1) & 1) == 0)
            close_page(s, slot - 1, LAST_OS_PAGE);
    } else if (s > bhi_segment_arena(s)->headers && s[-1].kind == BHI_SEGMENT_SLOTS && s[-1].purging == 0 &&
               s[-1].quarantined >> (BH_SEGMENT_SLOTS - 1) == 0) {
        close_page(s - 1, BH_SEGMENT_SLOTS - 1, LAST_OS_PAGE);
    }
}

void bhi_guard_before(bhi_segment_t *s)
{
    if (guards_wanted())
        close_before(s, 0);
}

static bool fit(bhi_segment_t *s, unsigned slot, unsigned n, unsigned last_from, bool empty)
{
    part_t part = {slot, slot + n - 1, guards_wanted() ? last_from : BH_SLOT_OS_PAGES};
    /* Where slots are opened one by one, the guard is what stays closed. */
    if (s->by_slot && s->open_to[part.last] == 0 && guards_wanted() && !bhi_guard_mappings_left())
        open_rest(s, s->free | bhi_bit_range(slot, n)); /* others may hold zero-size blocks */
    if (!open_part(s, &part, empty))
        return false;
    if (!guards_wanted())
        return true;
    close_page(s, part.last, last_from);
    close_page(s, part.last, LAST_OS_PAGE); /* for the span behind it */
    close_before(s, slot);
    return true;
}

bool bhi_guard_fit(bhi_segment_t *s, unsigned slot, unsigned n, unsigned last_from)
{
    return fit(s, slot, n, last_from, true);
}

bool bhi_guard_move(bhi_segment_t *s, unsigned slot, unsigned n, unsigned last_from)
{
    return fit(s, slot, n, last_from, false);
}

/* One call for each OS page where guard regions work: should the kernel refuse in
 * the middle (a part that the program has locked), it is known which are there.
 * mprotect closes all the rest with the first. */
void bhi_guard_close(bhi_segment_t *s, unsigned slot)
{
    if (guards_wanted()) {
        for (unsigned i = 0; i < BH_SLOT_OS_PAGES && close_page(s, slot, i); i++)
            ;
        close_before(s, slot);
    } else if (s->open_to[slot] != 0) {
        atomic_fetch_add_explicit(&bhi_state->guard_missed, 1, memory_order_relaxed);
    }
}

void bhi_guard_tail(bhi_segment_t *s, unsigned slot, unsigned from)
{
    if (!guards_wanted() || !bhi_process.guards_by_madvise || (s->by_mprotect >> slot & 1) != 0 || bhi_guard_is_closed(s, slot, from))
        return;
    bhi_region_t region = bhi_guard_range(page_address(s, slot, from), (size_t)(BH_SLOT_OS_PAGES - from) << BH_OS_PAGE_SHIFT);
    if (region == BHI_REGION_NONE)
        return;
    if (region == BHI_REGION_PART)
        atomic_fetch_add_explicit(&bhi_state->guard_missed, 1, memory_order_relaxed);
    s->regions[slot] |= (uint16_t)~regions_below(from);
    bhi_segment_note(s, slot);
}

/* ---------------------------------------------------------------- whole slots */

bhi_region_t bhi_guard_range(uintptr_t at, size_t size)
{
    if (!bhi_process.guards_by_madvise)
        return BHI_REGION_NONE;
    int r = bhi_os_guard_install(at, size);
    if (r == 0)
        return BHI_REGION_ALL;
    atomic_fetch_add_explicit(&bhi_state->advice_refused, 1, memory_order_relaxed);
    /* EINVAL and EPERM come before anything was done; else a page table was
     * missing half-way through. Whoever opens what cannot be undone now takes the
     * guards away first. */
    if (r == -EINVAL || r == -EPERM || bhi_os_guard_remove(at, size) == 0)
        return BHI_REGION_NONE;
    return BHI_REGION_PART;
}

void bhi_guard_note_range(bhi_segment_t *s, uint64_t slots)
{
    for (; slots != 0; slots &= slots - 1) {
        unsigned slot = bhi_bit_first(slots);
        s->regions[slot] |= regions_below(s->open_to[slot]);
        bhi_segment_note(s, slot);
    }
}

/* All OS pages of the slots are guard regions, also those that mprotect closed. */
static void note_region(bhi_segment_t *s, uint64_t slots)
{
    for (; slots != 0; slots &= slots - 1) {
        unsigned slot = bhi_bit_first(slots);
        s->regions[slot] = regions_below(BH_SLOT_OS_PAGES);
        bhi_segment_note(s, slot);
    }
}

static void note_mapped(bhi_segment_t *s, uint64_t slots)
{
    bhi_mappings_recount(bhi_segment_mappings(s, slots), 0);
    for (; slots != 0; slots &= slots - 1) {
        unsigned slot = bhi_bit_first(slots);
        s->open_to[slot] = 0;
        s->regions[slot] = 0;
        bhi_segment_note(s, slot);
    }
}

bool bhi_guard_trap(bhi_segment_t *s, unsigned slot, unsigned n, bool empty)
{
    uint64_t slots = bhi_bit_range(slot, n);
    uintptr_t at = page_address(s, slot, 0);
    size_t size = (size_t)n << BH_SLOT_SHIFT;
    /* Where slots are opened one by one, a closed span is one with the guards on
     * both sides of it: no further mapping, if it had its own. */
    bool may_map = s->by_slot || !bhi_process.guards_by_madvise;
    may_map = empty || (may_map && (bhi_segment_mappings(s, slots) != 0 || bhi_guard_mappings_left()));
    bhi_state_unlock();
    bool mapped = may_map && bhi_os_rereserve(at, size) == 0;
    bhi_region_t region = mapped ? BHI_REGION_NONE : bhi_guard_range(at, size);
    bool closed = mapped || region == BHI_REGION_ALL;
    bool zero = closed || bhi_os_purge(at, size) == 0;
    if (!closed)
        atomic_fetch_add_explicit(&bhi_state->guard_missed, 1, memory_order_relaxed);
    bhi_state_lock();
    if (mapped)
        note_mapped(s, slots);
    if (region != BHI_REGION_NONE)
        note_region(s, slots);
    return zero;
}

void bhi_guard_distance(bhi_segment_t *s, unsigned slot, unsigned n)
{
    uint64_t slots = bhi_bit_range(slot, n), open = 0;
    for (unsigned i = slot; i < slot + n; i++) {
        bool closed = (regions_below(s->open_to[i]) & ~s->regions[i]) == 0;
        open |= (uint64_t)!closed << i;
    }
    if (!guards_wanted() || open == 0)
        return;
    uintptr_t at = page_address(s, slot, 0);
    size_t size = (size_t)n << BH_SLOT_SHIFT;
    bhi_region_t region = bhi_guard_range(at, size);
    if (region != BHI_REGION_NONE)
        note_region(s, slots);
    else if (bhi_guard_mappings_left() && bhi_os_rereserve(at, size) == 0)
        note_mapped(s, slots);
    else
        atomic_fetch_add_explicit(&bhi_state->guard_missed, 1, memory_order_relaxed);
}

void bhi_guard_batch(bhi_segment_t *s)
{
    if (!guards_wanted() || !bhi_process.guards_by_madvise || bhi_state->batch_refused)
        return;
    uintptr_t at[64];
    uint8_t slots[64];
    unsigned n = 0;
    for (uint64_t set = s->free & ~s->ended; set != 0; set &= set - 1) {
        slots[n] = (uint8_t)bhi_bit_first(set);
        at[n] = page_address(s, slots[n], LAST_OS_PAGE);
        n++;
    }
    unsigned done = n > 1 ? (unsigned)bhi_os_guard_install_many(at, n, BH_OS_PAGE_SIZE) : 0;
    for (unsigned i = 0; i < done; i++) {
        s->regions[slots[i]] |= region_bit(LAST_OS_PAGE);
        bhi_segment_note(s, slots[i]);
    }
    bhi_state->batch_refused = n > 1 && done == 0;
}
