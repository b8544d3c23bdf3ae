/* Reads the allocator's structures; knows no more of them than meta/types.h says. */
#include "where.h"

#include "harden/list.h"
#include "meta/types.h"

#include <stdio.h>

struct field {
    const char *name;
    size_t at, size;
};

#define FIELD(type, name) {#name, offsetof(type, name), sizeof(((type *)NULL)->name)}

static const struct field state_fields[] = {
    FIELD(bhi_state_t, lock), FIELD(bhi_state_t, orphans), FIELD(bhi_state_t, orphans_last), FIELD(bhi_state_t, orphan_count),
    FIELD(bhi_state_t, hazards_free), FIELD(bhi_state_t, hazard_lock), FIELD(bhi_state_t, purge_busy),
    FIELD(bhi_state_t, hazard_shared), FIELD(bhi_state_t, arena_count), FIELD(bhi_state_t, buckets),
    FIELD(bhi_state_t, purge_first), FIELD(bhi_state_t, purge_next_at), FIELD(bhi_state_t, pool),
    FIELD(bhi_state_t, quarantine), FIELD(bhi_state_t, huge_refused), FIELD(bhi_state_t, random),
    FIELD(bhi_state_t, heaps_unused), FIELD(bhi_state_t, thread_heaps), FIELD(bhi_state_t, heap_count),
    FIELD(bhi_state_t, heap_dir), FIELD(bhi_state_t, hazards), FIELD(bhi_state_t, hazard_count),
    FIELD(bhi_state_t, mappings), FIELD(bhi_state_t, guard_missed), FIELD(bhi_state_t, advice_refused),
    FIELD(bhi_state_t, chunks), FIELD(bhi_state_t, dirty_slots), FIELD(bhi_state_t, reserved_count),
};

static const struct field arena_fields[] = {
    FIELD(bhi_arena_t, base), FIELD(bhi_arena_t, blocks_open), FIELD(bhi_arena_t, top), FIELD(bhi_arena_t, runs),
};

static const struct field heap_fields[] = {
    FIELD(bhi_heap_t, open), FIELD(bhi_heap_t, direct), FIELD(bhi_heap_t, queues), FIELD(bhi_heap_t, full),
    FIELD(bhi_heap_t, pending_mine), FIELD(bhi_heap_t, home), FIELD(bhi_heap_t, list_next), FIELD(bhi_heap_t, thread_next),
    FIELD(bhi_heap_t, hazard), FIELD(bhi_heap_t, kind), FIELD(bhi_heap_t, random), FIELD(bhi_heap_t, left),
    FIELD(bhi_heap_t, sample), FIELD(bhi_heap_t, pending), FIELD(bhi_heap_t, owner),
};

/* "what: field, field", of the fields that [at, at + line) overlaps. */
static void name_fields(const char *what, const struct field *fields, size_t n, size_t at, size_t line, char *name, size_t size)
{
    size_t used = (size_t)snprintf(name, size, "%s", what);
    const char *between = ": ";
    for (size_t i = 0; i < n; i++)
        if (fields[i].at < at + line && at < fields[i].at + fields[i].size && used < size) {
            used += (size_t)snprintf(name + used, size - used, "%s%s", between, fields[i].name);
            between = ", ";
        }
}
#define NAME_FIELDS(what, fields, at) name_fields(what, fields, sizeof fields / sizeof fields[0], at, line_size, name, size)

/* The heap that the line is of, or whose thread has its hazard word there. */
static bhi_heap_t *heap_at(uintptr_t line)
{
    uint32_t n = atomic_load(&bhi_state->heap_count);
    for (uint32_t id = 0; id < n; id++) {
        bhi_heap_t *heap = bhi_state->heap_dir[id / BHI_HEAP_DIR_CHUNK][id % BHI_HEAP_DIR_CHUNK];
        if (line - (uintptr_t)heap < sizeof *heap || line == (uintptr_t)heap->hazard)
            return heap;
    }
    return NULL;
}

/* The name, if it is the map or list of a page of this arena; else NULL. */
static const char *map_at(const bhi_arena_t *arena, uintptr_t line)
{
    size_t slots = atomic_load(&arena->blocks_open) >> BH_SLOT_SHIFT;
    for (size_t i = 0; i < slots; i++) {
        const bhi_page_t *page = (const bhi_page_t *)(arena->descs + (i << BH_PAGE_DESC_SHIFT)); /* NOLINT */
        uintptr_t map = (uintptr_t)page->map;
        if (page->back != 0 || map == 0 || page->block_size == 0)
            continue;
        if (line - map < bhi_map_bytes(page->reserved))
            return "map";
        if (map - line <= bhi_list_room(page->reserved) * sizeof(bhi_index_t))
            return "list";
    }
    return NULL;
}

void where_is(uintptr_t line, size_t line_size, char *name, size_t size)
{
    if (line - (uintptr_t)&bhi_process_page < sizeof bhi_process_page) {
        snprintf(name, size, "process page");
        return;
    }
    if (bhi_state == NULL) {
        snprintf(name, size, "static");
        return;
    }
    uintptr_t state = (uintptr_t)bhi_state;
    size_t in_arenas = line - state - offsetof(bhi_state_t, arenas);
    if (in_arenas < sizeof bhi_state->arenas) {
        NAME_FIELDS("arena", arena_fields, in_arenas % sizeof(bhi_arena_t));
        return;
    }
    if (line - state < sizeof *bhi_state) {
        NAME_FIELDS("state", state_fields, line - state);
        return;
    }
    const bhi_heap_t *heap = heap_at(line);
    if (heap != NULL && line == (uintptr_t)heap->hazard) {
        snprintf(name, size, "hazard word");
        return;
    }
    if (heap != NULL) {
        NAME_FIELDS("heap", heap_fields, line - (uintptr_t)heap);
        return;
    }
    for (uint32_t i = 0; i < atomic_load(&bhi_state->arena_count); i++) {
        const bhi_arena_t *arena = &bhi_state->arenas[i];
        size_t slots = arena->size >> BH_SLOT_SHIFT;
        const char *what = NULL;
        if (line - arena->base < arena->size)
            what = "block";
        else if (line - arena->descs < slots << BH_PAGE_DESC_SHIFT)
            what = (line - arena->descs) % (1u << BH_PAGE_DESC_SHIFT) < offsetof(bhi_page_t, key) ? "descriptor, first line" : "descriptor, second line";
        else if (line - (uintptr_t)arena->headers < (arena->size >> BH_SEGMENT_SHIFT) * sizeof(bhi_segment_t))
            what = "segment header";
        else
            what = map_at(arena, line);
        if (what != NULL) {
            snprintf(name, size, "%s", what);
            return;
        }
    }
    for (uint32_t i = 0; i < atomic_load(&bhi_state->reserved_count); i++)
        if (line - bhi_state->reserved[i].from < bhi_state->reserved[i].to - bhi_state->reserved[i].from) {
            snprintf(name, size, "pool");
            return;
        }
    snprintf(name, size, "static");
}
