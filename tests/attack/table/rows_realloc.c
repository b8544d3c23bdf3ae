/* realloc, malloc_usable_size and sized delete of what they cannot be given. */
#include "table.h"

#include <dlfcn.h>
#include <malloc.h>
#include <stdlib.h>

#define SIZES "16 64 1024 8192 20480 204800 1048576 16777216"
#define THREADS "local other dead fork"

static void one_block(scene_t *s)
{
    settle(s);
    take_many(s, some_blocks(s->size, 20));
    for (size_t i = 0; i < s->count; i++) {
        if (s->block[i] != s->at)
            protect(s->block[i], s->size);
    }
}

static void one_freed(scene_t *s)
{
    one_block(s);
    give(s->at);
}

static void realloc_at(uintptr_t at, size_t size)
{
    marker();
    void *moved = realloc((void *)at, size);
    if (moved != NULL)
        protect((uintptr_t)moved, size);
}

static void strike_grow(scene_t *s)
{
    realloc_at(s->at, 2 * s->size);
}

static void strike_same(scene_t *s)
{
    realloc_at(s->at, s->size);
}

static void strike_zero(scene_t *s)
{
    realloc_at(s->at, 0);
}

static void strike_interior(scene_t *s)
{
    protect(s->at, s->size);
    realloc_at(s->at + (size_t)s->variant, 2 * s->size);
}

static void strike_stack(scene_t *s)
{
    volatile uint64_t local[64] = {0};
    local[1] = 0x51;
    local[11] = 0x51;
    protect((uintptr_t)local, sizeof local);
    realloc_at((uintptr_t)&local[2], s->size);
    s->effect = reissue_checked(s);
}

static void strike_integer(scene_t *s)
{
    static const uintptr_t integers[] = {8, 16, 4096, 65536, ~(uintptr_t)15};
    realloc_at(integers[below(s, 5)], s->size);
}

static void strike_query(scene_t *s)
{
    marker();
    s->effect = usable(s->at) != 0;
}

/* ---------------------------------------------------------------- sized delete */

static void (*delete_sized)(void *, size_t);

/* operator delete(void *, size_t): the allocator's own, else the C++ library's. */
static void one_for_delete(scene_t *s)
{
    void *found = dlsym(RTLD_DEFAULT, "_ZdlPvm");
    if (found == NULL) {
        void *library = dlopen("libstdc++.so.6", RTLD_NOW);
        found = library != NULL ? dlsym(library, "_ZdlPvm") : NULL;
    }
    if (found == NULL)
        finish(END_NOT_HERE, false);
    *(void **)&delete_sized = found;
    one_block(s);
}

static void strike_delete(scene_t *s)
{
    size_t wrong = s->variant > 0 ? s->reach * 2 : s->reach / 2 - 1;
    marker();
    delete_sized((void *)s->at, wrong);
    s->effect = true;
}

#define FREED NOW("DETECTED:realloc-after-free"), NOW("DETECTED:realloc-after-free")
#define INVALID NOW("DETECTED:invalid-realloc"), NOW("DETECTED:invalid-realloc")
#define FOREIGN NOW("DETECTED:foreign-realloc"), NOW("DETECTED:foreign-realloc")
#define QUERY NOW("DETECTED:query-after-free"), NOW("DETECTED:query-after-free")
#define MISMATCH NOW("DETECTED:size-mismatch"), NOW("DETECTED:size-mismatch")

const row_t rows_realloc[] = {
    {"realloc-freed", "realloc of a freed block to twice its size; a block is handed out twice", SIZES, THREADS, FREED, 0,
     one_freed, strike_grow, reissue_checked, false},
    {"realloc-freed-same", "realloc of a freed block to its own size; handed out twice", SIZES, THREADS, FREED, 0,
     one_freed, strike_same, reissue_checked, false},
    {"realloc-freed-zero", "realloc of a freed block to 0; handed out twice", SIZES, THREADS, FREED, 0,
     one_freed, strike_zero, reissue_checked, false},
    {"realloc-plus-1", "realloc(p + 1); handed out twice", SIZES, "local other fork", INVALID, 1,
     one_block, strike_interior, reissue_checked, false},
    {"realloc-plus-16", "realloc(p + 16); handed out twice", "64 1024 8192 20480 204800 1048576 16777216", "local other fork", INVALID, 16,
     one_block, strike_interior, reissue_checked, false},
    {"realloc-stack", "realloc of a local array; malloc returns part of it", "64", "local other", FOREIGN, 0,
     one_block, strike_stack, NULL, false},
    {"realloc-integer", "realloc of an integer such as 4096; malloc returns it", "64", "local other", FOREIGN, 0,
     one_block, strike_integer, reissue_checked, false},
    {"usable-size-freed", "malloc_usable_size of a freed block; it answers", SIZES, THREADS, QUERY, 0,
     one_freed, strike_query, NULL, false},
    {"delete-size-above", "C++ sized delete with twice the size; it returns", "24 64 1024 20480 204800", THREADS, MISMATCH, 1,
     one_for_delete, strike_delete, NULL, false},
    {"delete-size-below", "C++ sized delete with less than half the size; it returns", "24 64 1024 20480 204800", THREADS, MISMATCH, 0,
     one_for_delete, strike_delete, NULL, false},
    {NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, false},
};
