/* Frees of what is not a live block. Where the program goes on, the effect is
 * that a later malloc hands out something twice or out of bounds. */
#include "table.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define EVERY "8 16 24 64 200 256 1024 4096 8192 20480 102400 204800 1048576 16777216"
#define SMALL "16 64 256 1024 8192"
#define SOME "16 64 1024 20480 204800 16777216"
#define THREADS "local other dead fork"

static void one_block(scene_t *s)
{
    settle(s);
    take_many(s, some_blocks(s->size, 20));
}

static void one_freed(scene_t *s)
{
    one_block(s);
    give(s->at);
}

static void strike_free(scene_t *s)
{
    marker();
    give(s->at);
}

static void strike_twice(scene_t *s)
{
    give(s->at);
    strike_free(s);
}

static void strike_after_others(scene_t *s)
{
    give(s->at);
    give_others(s);
    strike_free(s);
}

static void give_at(scene_t *s)
{
    give(s->at);
}

static void strike_after_another_thread(scene_t *s)
{
    elsewhere(give_at, s);
    strike_free(s);
}

/* ------------------------------------------------------------ zero and aligned */

static void one_empty(scene_t *s)
{
    s->at = take(0);
    s->block[0] = take(0);
}

static void one_aligned(scene_t *s)
{
    void *p = NULL;
    if (posix_memalign(&p, (size_t)s->variant, s->size) != 0)
        _exit(END_BROKEN);
    s->at = (uintptr_t)p;
    s->block[0] = (uintptr_t)aligned_alloc((size_t)s->variant, s->size);
}

/* -------------------------------------------------------------------- interior */

static void strike_interior(scene_t *s)
{
    size_t into = s->variant > 0 ? (size_t)s->variant : s->reach / 2 & ~(size_t)15;
    for (size_t i = 0; i < s->count; i++)
        protect(s->block[i], s->size);
    marker();
    give(s->at + into);
}

/* Blocks of this size lie side by side, so that multiples of the size away from
 * one there is a place for another, which nobody has asked for yet. */
static void strike_fresh(scene_t *s)
{
    size_t stride = usable(s->at);
    uintptr_t slot = s->at & ~(uintptr_t)0xffff;
    uintptr_t target = s->at;
    for (unsigned tries = 0; tries < 64; tries++) {
        uintptr_t candidate = slot + (s->at - slot) % stride + below(s, 60000 / stride) * stride;
        bool used = false;
        for (size_t i = 0; i < s->count; i++)
            used |= candidate == s->block[i];
        if (!used) {
            target = candidate;
            break;
        }
    }
    if (target == s->at)
        finish(END_NOT_HERE, false);
    marker();
    give(target);
}

static void few_blocks(scene_t *s)
{
    s->count = 3;
    for (size_t i = 0; i < s->count; i++)
        s->block[i] = take(s->size);
    s->at = s->block[1];
}

/* --------------------------------------------------------------------- foreign */

static uint64_t global[64] = {0, 0x51};

static void strike_at(uintptr_t target, size_t n)
{
    protect(target, n);
    marker();
    give(target);
}

static void strike_stack(scene_t *s)
{
    volatile uint64_t local[64] = {0};
    local[1] = 0x51;
    local[11] = 0x51;
    s->at = (uintptr_t)&local[2];
    strike_at(s->at, 64);
    s->effect = reissue_checked(s);
}

static void strike_global(scene_t *s)
{
    s->at = (uintptr_t)&global[2];
    global[11] = 0x51;
    strike_at(s->at, 64);
}

static void strike_mapped(scene_t *s)
{
    void *map = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        _exit(END_BROKEN);
    static const size_t offsets[] = {16, 4096, 65536, 65536 + 16, (1 << 19) + 64};
    s->at = (uintptr_t)map + offsets[below(s, 5)];
    words(s->at)[-1] = 0x51;
    words(s->at)[9] = 0x51;
    strike_at(s->at, 64);
}

static void strike_code(scene_t *s)
{
    s->at = (uintptr_t)strike_code & ~(uintptr_t)15;
    strike_at(s->at, 64);
}

static void strike_integer(scene_t *s)
{
    static const uintptr_t integers[] = {1, 2, 8, 16, 24, 64, 4096, 65536, 0x100000000, 0x7fffffffffff, ~(uintptr_t)0, ~(uintptr_t)15,
                                         (uintptr_t)1 << 63};
    s->at = integers[below(s, sizeof integers / sizeof integers[0])];
    marker();
    give(s->at);
}

#define DOUBLE NOW("DETECTED:double-free"), NOW("DETECTED:double-free")
#define INVALID NOW("DETECTED:invalid-free"), NOW("DETECTED:invalid-free")
/* A page may hold a free block there, from before main or made ready. */
#define FRESH NOW("DETECTED:invalid-free,double-free"), NOW("DETECTED:invalid-free,double-free")
#define FOREIGN NOW("DETECTED:foreign-free"), NOW("DETECTED:foreign-free")

const row_t rows_free[] = {
    {"double-free", "free(p) twice in a row; something is handed out twice", EVERY, THREADS, DOUBLE, 0,
     one_block, strike_twice, reissue_checked, false},
    {"double-free-later", "free(p), frees of 19 others, free(p); handed out twice", EVERY, THREADS, DOUBLE, 0,
     one_block, strike_after_others, reissue_checked, false},
    {"double-free-again", "freed by the owner, again by the actor; handed out twice", EVERY, "other dead fork", DOUBLE, 0,
     one_freed, strike_free, reissue_checked, false},
    {"double-free-back", "freed by another thread, again by the actor; handed out twice", EVERY, "local dead fork", DOUBLE, 0,
     one_block, strike_after_another_thread, reissue_checked, false},
    {"double-free-at-once", "two threads free p at once; handed out twice", EVERY, "both race", DOUBLE, 0,
     one_block, strike_free, reissue_checked, false},
    {"double-free-empty", "malloc(0) freed twice; handed out twice", "0", THREADS, DOUBLE, 0,
     one_empty, strike_twice, reissue_checked, false},
    {"double-free-aligned", "posix_memalign(64) freed twice; handed out twice", SOME, THREADS, DOUBLE, 64,
     one_aligned, strike_twice, reissue_checked, false},
    {"double-free-page", "posix_memalign(4096) freed twice; handed out twice", "64 8192 204800 1048576", THREADS, DOUBLE, 4096,
     one_aligned, strike_twice, reissue_checked, false},
    {"free-plus-1", "free(p + 1); handed out twice", EVERY, THREADS, INVALID, 1,
     one_block, strike_interior, reissue_checked, false},
    {"free-plus-8", "free(p + 8); handed out twice", "16 24 64 200 1024 8192 20480 204800 16777216", THREADS, INVALID, 8,
     one_block, strike_interior, reissue_checked, false},
    {"free-plus-16", "free(p + 16); handed out twice", "24 64 200 1024 8192 20480 204800 16777216", THREADS, INVALID, 16,
     one_block, strike_interior, reissue_checked, false},
    {"free-middle", "free of the middle of p; handed out twice", "64 256 1024 8192 20480 102400 204800 16777216", THREADS, INVALID, 0,
     one_block, strike_interior, reissue_checked, false},
    {"free-page-into-large", "free(p + 64 KiB) of a large block; handed out twice", "102400 204800 1048576 16777216", THREADS, INVALID, 65536,
     one_block, strike_interior, reissue_checked, false},
    {"free-fresh", "free of a block's place that was never handed out; handed out twice", "64 1024 4096", "local fork", FRESH, 0,
     few_blocks, strike_fresh, reissue_checked, false},
    {"free-stack", "free of a local array that looks like a chunk; malloc returns it", "64", "local other fork", FOREIGN, 0,
     one_block, strike_stack, NULL, false},
    {"free-global", "free of a global array that looks like a chunk; malloc returns it", "64", "local other fork", FOREIGN, 0,
     one_block, strike_global, reissue_checked, false},
    {"free-mapped", "free of memory from mmap; malloc returns it", "64", "local other fork", FOREIGN, 0,
     one_block, strike_mapped, reissue_checked, false},
    {"free-code", "free of a function; malloc returns it", "64", "local other", FOREIGN, 0,
     one_block, strike_code, reissue_checked, false},
    {"free-integer", "free of an integer such as 8, 4096 or -1; malloc returns it", "64", "local other fork", FOREIGN, 0,
     one_block, strike_integer, reissue_checked, false},
    {NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, false},
};
