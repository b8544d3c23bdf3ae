/* Looks whether a reset that cleared only what the last run touched has left anything, and
 * in soft memory each call that is to clear some, within the run: for who doubts the
 * window, with FUZZ_VERIFY in the environment. Slow. */
#include "window/inside.h"
#include "window/window.h"

#include "base/checked.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define OS_PAGES (SOFT_SEGMENTS * BH_SEGMENT_SIZE / BH_OS_PAGE_SIZE)

bool inside_verifies(void)
{
    static int wanted = -1;
    if (wanted < 0)
        wanted = getenv("FUZZ_VERIFY") != NULL;
    return wanted != 0;
}

_Noreturn void inside_left(const char *where, uintptr_t at, size_t offset)
{
    fprintf(stderr, "fuzz: FINDING: the reset left something in %s, at %#zx (%#zx behind its start)\n", where, at, offset);
    abort();
}

static void must_be_zero(const char *where, uintptr_t at, size_t size)
{
    for (size_t i = 0; i < size; i += sizeof(uint64_t)) {
        if (*(const uint64_t *)(at + i) != 0) /* NOLINT: memory is looked at by number */
            inside_left(where, at + i, i);
    }
}

static void must_be_same(const char *where, const void *is, const void *was, size_t size)
{
    for (size_t at = 0; at < size; at++) {
        if (((const char *)is)[at] != ((const char *)was)[at])
            inside_left(where, (uintptr_t)is + at, at);
    }
}

/* What was never touched, or returned, is in no memory. */
void inside_verify_zero(const char *where, uintptr_t at, size_t size, const uint64_t *but)
{
    static unsigned char resident[OS_PAGES];
    if (mincore((void *)at, size, resident) != 0) /* NOLINT */
        inside_left("the mappings of the first segments", at, 0);
    for (size_t i = 0; i < size / BH_OS_PAGE_SIZE; i++) {
        if ((resident[i] & 1) != 0 && (but == NULL || (but[i / 64] >> i % 64 & 1) == 0))
            must_be_zero(where, at + i * BH_OS_PAGE_SIZE, BH_OS_PAGE_SIZE);
    }
}

static void look_at_blocks(void)
{
    bool soft = inside_soft_is_on();
    inside_verify_zero("blocks", window_places.blocks, soft ? SOFT_SEGMENTS * BH_SEGMENT_SIZE : BH_SEGMENT_SIZE, NULL); /* the others have no access */
}

void inside_verify(const bhi_state_t *state, const bhi_segment_t *first)
{
    const bhi_arena_t *arena = &state->arenas[0];
    look_at_blocks();
    must_be_zero("descriptors", window_places.descs, atomic_load(&arena->blocks_open) >> BH_SLOT_SHIFT << BH_PAGE_DESC_SHIFT);
    must_be_same("the first header", (const void *)window_places.headers, first, sizeof *first); /* NOLINT */
    must_be_zero("headers", window_places.headers + sizeof *first, arena->headers_open - sizeof *first);
    must_be_zero("the pool", state->pool.at, state->pool.open_end - state->pool.at);
    /* What the ring of the quarantine holds beyond its count is read by nobody. */
    size_t ring = offsetof(bhi_state_t, quarantine.ring), behind = ring + sizeof state->quarantine.ring;
    must_be_same("the state", bhi_state, state, ring);
    must_be_same("the state's end", (const char *)bhi_state + behind, (const char *)state + behind, sizeof *state - behind);
}
