/* Cleans segment 0 after a run that used the allocator as it is meant to be: guards where
 * they were at the warm start, and every slot zero. Memory that was touched is cleared and
 * stays: to fault it in again costs ten times as much as to write it. */
#include "base/bits.h"
#include "core/page.h"
#include "harden/guard.h"
#include "os/os.h"
#include "window/inside.h"
#include "window/window.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CLEAR_MOST 256u /* OS pages; beyond, memory is returned, or much that is seldom used would be cleared each time */
#define LAST (BH_SLOT_OS_PAGES - 1)

static uintptr_t slot_at(unsigned slot)
{
    return window_places.blocks + ((size_t)slot << BH_SLOT_SHIFT);
}

static void close_last(unsigned slot)
{
    inside_must(bhi_os_guard_install(slot_at(slot) + LAST * BH_OS_PAGE_SIZE, BH_OS_PAGE_SIZE), "guard");
}

/* Takes away what is closed below the last OS page. */
static void open_slot(unsigned slot, unsigned closed)
{
    unsigned from = bhi_bit_first(closed), to = bhi_bit_last(closed) + 1;
    inside_must(bhi_os_guard_remove(slot_at(slot) + from * BH_OS_PAGE_SIZE, (to - from) * BH_OS_PAGE_SIZE), "guards");
}

static void clear_slots(uint64_t slots)
{
    static unsigned char resident[BH_SEGMENT_SLOTS * BH_SLOT_OS_PAGES];
    unsigned first = bhi_bit_first(slots), n = bhi_bit_last(slots) + 1 - first, pages = 0;
    inside_must(mincore((void *)slot_at(first), (size_t)n << BH_SLOT_SHIFT, resident), "mincore"); /* NOLINT: slots are numbers here */
    for (; slots != 0; slots &= slots - 1) {
        unsigned slot = bhi_bit_first(slots);
        const unsigned char *here = resident + (slot - first) * BH_SLOT_OS_PAGES;
        if (pages > CLEAR_MOST) {
            inside_must(bhi_os_purge(slot_at(slot), BH_SLOT_SIZE), "purge");
            continue;
        }
        for (unsigned i = 0; i < BH_SLOT_OS_PAGES; i++) {
            if ((here[i] & 1) != 0) {
                memset((void *)(slot_at(slot) + i * BH_OS_PAGE_SIZE), 0, BH_OS_PAGE_SIZE); /* NOLINT */
                pages++;
            }
        }
    }
}

bool inside_clean(const bhi_segment_t *start, uint64_t scribbled)
{
    const bhi_segment_t *s = (const bhi_segment_t *)window_places.headers; /* NOLINT */
    if (s->kind != BHI_SEGMENT_SLOTS || s->by_slot || s->by_mprotect != 0 || s->purging != 0)
        return false;
    uint64_t dirty = ~s->free | s->dirty | scribbled;
    for (unsigned i = 0; i < BH_SEGMENT_SLOTS; i++) {
        unsigned closed = s->regions[i] & ~(unsigned)start->regions[i];
        if (closed != 0)
            open_slot(i, closed);
    }
    if (dirty != 0)
        clear_slots(dirty);
    for (unsigned i = 0; i < BH_SEGMENT_SLOTS; i++) {
        if ((start->regions[i] & ~s->regions[i]) != 0)
            close_last(i);
    }
    return true;
}
