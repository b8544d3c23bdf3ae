/* core/hardened.c, what it promises to find: each byte behind and before a block of
 * each size class, each byte of a free one, wherever the next look is. The program
 * runs in profile hardened. */
#include "bulkhead.h"
#include "core/free.h"
#include "core/hardened.h"
#include "core/hardened_page.h"
#include "core/heap.h"
#include "harden/wipe.h"
#include "invariants.h"
#include "meta/size_class.h"
#include "support.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ------------------------------------------------------- the bug, then the look */

typedef enum look {
    LOOK_FREE,   /* the owner frees the block */
    LOOK_OTHER,  /* another thread frees it */
    LOOK_BACK,   /* the owner takes it back from that thread */
    LOOK_VERIFY, /* bh_verify */
    LOOK_EXIT,   /* the end of the process */
    LOOK_REUSE,  /* all blocks of the page are handed out */
    LOOK_LEAVE,  /* the same, and it was young when it was written */
    LOOKS
} look_t;

typedef struct bug {
    unsigned char *block;
    ptrdiff_t at;   /* from the block's start */
    size_t size;    /* of further allocations */
    look_t look;
    int value;      /* to be stored; CHANGE: another than is there */
    bool freed;     /* the block first; it is young, or old when it is looked for at reuse */
    unsigned char *before; /* freed first and old, or NULL */
} bug_t;
#define CHANGE 256

static volatile int *marker;
static unsigned char *blocks[512];
static unsigned count;

/* A block whose size the compiler does not know. */
static unsigned char *take(size_t size)
{
    void *p = bh_malloc(size);
    __asm__("" : "+r"(p));
    return p;
}

/* All free blocks are old. */
static void end_ages(void)
{
    bhi_hard_end_ages(bhi_thread_heap);
}

static void *free_it(void *p)
{
    bh_free(p);
    return NULL;
}

#define SOME 5000u
#define ALL 20000u /* more than all pages with some have room for */
static void *all[ALL];

static void take_all(size_t size, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        all[i] = bh_malloc(size);
}

static void free_all(unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        bh_free(all[i]);
}

static void look(const bug_t *b)
{
    switch (b->look) {
    case LOOK_FREE: bh_free(b->block); break;
    case LOOK_OTHER: unit_thread(free_it, b->block); break;
    case LOOK_BACK:
    case LOOK_VERIFY: (void)bh_verify(); break;
    case LOOK_EXIT: exit(0);
    default:
        for (int round = 0; round < 3; round++) { /* in each, some tens of the free blocks stay where they are */
            take_all(b->size, ALL);
            if (round < 2)
                free_all(ALL);
        }
        break;
    }
}

static void commit(void *arg)
{
    const bug_t *b = arg;
    bh_free(b->before);
    bool reused = b->look == LOOK_REUSE || b->look == LOOK_LEAVE;
    if (reused)
        take_all(b->size, SOME);
    if (b->freed)
        bh_free(b->block);
    if (reused) { /* of few free ones none would be handed out */
        free_all(SOME);
        size_t apart = bhi_class_size(bhi_class_of(b->size + BH_CANARY_LEAST));
        for (unsigned i = 0; i < count; i++) {
            if (blocks[i] != b->block && blocks[i] != b->block - apart) /* the page stays */
                bh_free(blocks[i]);
        }
    }
    if (b->before != NULL || b->look == LOOK_REUSE)
        end_ages();
    volatile unsigned char *at = b->block + b->at;
    *at = b->value == CHANGE ? (unsigned char)(*at ^ 0xff) : (unsigned char)b->value;
    if (b->look == LOOK_BACK)
        unit_thread(free_it, b->block);
    *marker = 1;
    look(b);
}

static void assert_found(const bug_t *b, const char *id)
{
    *marker = 0;
    unit_assert_violation(commit, (void *)(uintptr_t)b, id);
    ck_assert_msg(*marker == 1, "%s before the look, block of %zu bytes, byte %td", id, b->size, b->at);
}

/* ----------------------------------------------------------- blocks of a class */


static void give_blocks(void)
{
    while (count > 0)
        bh_free(blocks[--count]);
    end_ages();
}

/* Takes blocks of `size` bytes until two of them are neighbours in a page; returns
 * the second. *first: the one before it. */
static unsigned char *take_neighbours(size_t size, unsigned char **first)
{
    size_t apart = bhi_class_size(bhi_class_of(size + BH_CANARY_LEAST));
    give_blocks();
    while (count < 512) {
        unsigned char *p = blocks[count++] = bh_malloc(size);
        ck_assert_ptr_nonnull(p);
        memset(p, 0x55, size);
        for (unsigned i = 0; i + 1 < count; i++) {
            ptrdiff_t d = p - blocks[i];
            if (d != (ptrdiff_t)apart && d != -(ptrdiff_t)apart)
                continue;
            *first = d > 0 ? blocks[i] : p;
            return d > 0 ? p : blocks[i];
        }
    }
    ck_abort_msg("no neighbours of %zu bytes", size);
}

/* Each class by requests at both of its ends. */
static void every_end(look_t where)
{
    for (unsigned c = 1; c < BHI_CLASSES; c++) { /* no block of 8 bytes has room for an end */
        size_t least = c == 1 ? 1 : bhi_class_size(c - 1) - BH_CANARY_LEAST + 1, bytes = bhi_class_size(c), most = bytes - BH_CANARY_LEAST;
        const size_t sizes[] = {least, least + 1, most - 1, most};
        for (unsigned i = 0; i < 4; i++) {
            unsigned char *first, *p = take_neighbours(sizes[i], &first);
            ck_assert_uint_eq(bh_usable_size(p), sizes[i]);
            bug_t b = {.block = p, .at = (ptrdiff_t)sizes[i], .size = sizes[i], .look = where, .value = CHANGE};
            if (where != LOOK_BACK) {
                assert_found(&b, "overflow");
                b.value = 0; /* one NUL too many */
                assert_found(&b, "overflow");
                b.value = CHANGE;
                /* Who does not free the block takes a whole first byte for the sign
                 * that the next one was underflown. */
                const char *id = where == LOOK_FREE || where == LOOK_OTHER ? "overflow" : "underflow";
                b.at = (ptrdiff_t)bytes - 1;
                assert_found(&b, id);
                for (b.at = (ptrdiff_t)sizes[i] + 1; c < 4 && b.at < (ptrdiff_t)bytes; b.at++)
                    assert_found(&b, id);
            }
            if (where == LOOK_OTHER)
                continue; /* the owner looks before the block: LOOK_BACK */
            b.at = -1;
            b.value = CHANGE;
            assert_found(&b, "underflow");
            b.value = 0;
            assert_found(&b, "underflow");
            if (i == 0 && where <= LOOK_BACK) {
                b.before = first;
                b.value = 1;
                assert_found(&b, "underflow");
            }
        }
    }
    give_blocks();
    ck_assert_invariants();
}

START_TEST(ends_when_the_owner_frees)
{
    every_end(LOOK_FREE);
}
END_TEST

START_TEST(ends_when_another_frees)
{
    every_end(LOOK_OTHER);
}
END_TEST

START_TEST(ends_when_the_owner_takes_back)
{
    every_end(LOOK_BACK);
}
END_TEST

START_TEST(ends_when_verified)
{
    every_end(LOOK_VERIFY);
}
END_TEST

START_TEST(ends_at_exit)
{
    every_end(LOOK_EXIT);
}
END_TEST

/* The sweep of a few live blocks, with each heartbeat. */
static void overflow_and_allocate(void *arg)
{
    volatile unsigned char *p = take(40);
    (void)arg;
    for (int i = 0; i < 600; i++) /* many live ones in each word of the map */
        (void)!bh_malloc(40);
    p[40] = 0;
    *marker = 1;
    for (int i = 0; i < 1000000; i++)
        bh_free(bh_malloc(40));
}

START_TEST(ends_when_swept)
{
    *marker = 0;
    unit_assert_violation(overflow_and_allocate, NULL, "overflow");
    ck_assert_int_eq(*marker, 1);
}
END_TEST

/* Two frees at once: the second finds the end that the first has wiped. */
static void free_beside(void *p)
{
    bhi_block_t block = bhi_block_of((uintptr_t)p, BHI_USE_FREE);
    bhi_map_set_held(block.page->map, block.index);
    bhi_hard_wipe_held(block.page, block.index);
    *marker = 1;
    bhi_hard_check_end(block.page, block.index);
}

START_TEST(two_frees_at_once)
{
    *marker = 0;
    unit_assert_violation(free_beside, bh_malloc(40), "double-free");
    ck_assert_int_eq(*marker, 1);
}
END_TEST

/* A sweep that meets a block in the middle of another thread's free: nothing. */
static void sweep_beside(void *p)
{
    bhi_block_t block = bhi_block_of((uintptr_t)p, BHI_USE_FREE);
    bhi_map_set_held(block.page->map, block.index);
    bhi_wipe_block((uintptr_t)p, bhi_hard_requested(block.page, block.index), block.page->block_size);
    ck_assert_uint_eq(bh_verify(), 0);
    bhi_hard_check_empty(block.page);
}

START_TEST(a_block_under_way_is_not_accused)
{
    unit_assert_quiet(sweep_beside, bh_malloc(40));
}
END_TEST

/* ------------------------------------------------------------ written when free */

static void every_offset(look_t where)
{
    static const size_t large[] = {500, 1000, 4000, 30000, 100000};
    for (unsigned c = 1; c <= 8; c++) {
        size_t bytes = bhi_class_size(c), size = bytes - BH_CANARY_LEAST;
        unsigned char *first, *p = take_neighbours(size, &first);
        /* Of the last eight bytes of an old block a neighbour's free says that it was the
         * neighbour's underflow. */
        for (size_t at = 0; at < (where == LOOK_LEAVE || where == LOOK_REUSE ? bytes - 8 : bytes); at++)
            assert_found(&(bug_t){.block = p, .at = (ptrdiff_t)at, .size = size, .look = where, .value = 1, .freed = true}, "write-after-free");
    }
    for (unsigned i = 0; i < 5; i++) {
        size_t bytes = bhi_class_size(bhi_class_of(large[i] + BH_CANARY_LEAST));
        if (where == LOOK_LEAVE && bhi_age_length(bytes, bhi_process.options.quarantine_bytes) == 0)
            continue;
        unsigned char *first, *p = take_neighbours(large[i], &first);
        const size_t at[] = {0, 1, bytes / 2, bytes - 2, bytes - 1};
        for (unsigned k = 0; k < (where == LOOK_LEAVE || where == LOOK_REUSE ? 3 : 5); k++)
            assert_found(&(bug_t){.block = p, .at = (ptrdiff_t)at[k], .size = large[i], .look = where, .value = 1, .freed = true}, "write-after-free");
    }
    give_blocks();
}

START_TEST(written_before_reuse)
{
    every_offset(LOOK_REUSE);
}
END_TEST

START_TEST(written_when_young)
{
    every_offset(LOOK_LEAVE);
}
END_TEST

START_TEST(written_before_verify)
{
    every_offset(LOOK_VERIFY);
}
END_TEST

START_TEST(written_before_exit)
{
    every_offset(LOOK_EXIT);
}
END_TEST

/* Free blocks that nobody waits for, and pages that end. */
static void write_then_end_page(void *arg)
{
    volatile unsigned char *p = take(3000);
    (void)arg;
    bh_free((void *)(uintptr_t)p);
    end_ages();
    p[2999] = 1;
    *marker = 1;
    bh_collect(true);
}

static void write_then_verify_free(void *arg)
{
    volatile unsigned char *p = take(3000), *q = take(3000);
    (void)arg;
    bh_free((void *)(uintptr_t)p);
    end_ages();
    p[2999] = 1;
    *marker = 1;
    (void)bh_verify();
    bh_free((void *)(uintptr_t)q);
}

START_TEST(written_when_free_at_last)
{
    unit_body_t *const bodies[] = {write_then_end_page, write_then_verify_free};
    for (int i = 0; i < 2; i++) {
        *marker = 0;
        unit_assert_violation(bodies[i], NULL, "write-after-free");
        ck_assert_int_eq(*marker, 1);
    }
}
END_TEST

/* --------------------------------------------------------- blocks of their own */

static void every_large_end(unsigned char *p, size_t size)
{
    ck_assert_ptr_nonnull(p);
    ck_assert_uint_eq(bh_usable_size(p), size);
    memset(p, 0x55, size);
    const bhi_page_t *page = bhi_block_of((uintptr_t)p, BHI_USE_QUERY).page;
    size_t bytes = bhi_page_bytes(page);
    ck_assert(!unit_readable((uintptr_t)p + bytes));
    ck_assert(bytes == size || bytes >= size + BH_CANARY_LEAST);
    if (bytes == size)
        return;
    const look_t looks[] = {LOOK_FREE, LOOK_OTHER, LOOK_VERIFY, LOOK_EXIT};
    for (unsigned i = 0; i < 4; i++) {
        bug_t b = {.block = p, .at = (ptrdiff_t)size, .size = size, .look = looks[i], .value = 0};
        assert_found(&b, "overflow");
        b.value = CHANGE;
        assert_found(&b, "overflow");
        b.at = (ptrdiff_t)bytes - 1;
        assert_found(&b, "overflow");
    }
}

START_TEST(large_ends)
{
    static const size_t whole[] = {(size_t)132 << 10, (size_t)1 << 20, (size_t)5 << 20}, slack[] = {0, 1, 2, 3, 4, 5, 8, 9, 17, 4095};
    for (unsigned i = 0; i < 3; i++) {
        for (unsigned k = 0; k < sizeof slack / sizeof slack[0]; k++) {
            unsigned char *p = bh_malloc(whole[i] - slack[k]);
            every_large_end(p, whole[i] - slack[k]);
            bh_free(p);
        }
    }
    ck_assert_invariants();
}
END_TEST

START_TEST(aligned_ends)
{
    for (size_t align = 32; align <= (size_t)256 << 10; align *= 2) {
        for (size_t size = 1; size < 300000; size = size * 3 + 1) {
            unsigned char *p = bh_aligned_alloc(align, size);
            ck_assert(p != NULL && (uintptr_t)p % align == 0);
            ck_assert_uint_eq(bh_usable_size(p), size);
            memset(p, 1, size);
            if (size < BH_CLASS_MAX_SIZE / 2 && align <= 4096)
                assert_found(&(bug_t){.block = p, .at = (ptrdiff_t)size, .size = size, .look = LOOK_FREE}, "overflow");
            bh_free(p);
        }
    }
}
END_TEST

START_TEST(offset_ends)
{
    static const size_t offsets[] = {1, 4, 7, 8, 100};
    for (size_t align = 16; align <= 65536; align *= 16) {
        for (unsigned i = 0; i < 5; i++) {
            for (size_t size = 1; size < 300000; size = size * 29 + 4) {
                unsigned char *p = bh_aligned_alloc_at(align, size, offsets[i]);
                ck_assert_uint_eq(((uintptr_t)p + offsets[i]) % align, 0);
                every_large_end(p, size);
                bh_free(p);
            }
        }
    }
}
END_TEST

int main(void)
{
    bhi_canary_without_aes = getenv("WITHOUT_AES") != NULL;
    Suite *s = suite_create("hardened");
    TCase *c = tcase_create("all");
    marker = mmap(NULL, BH_OS_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    bh_free(bh_malloc(1));
    if (!bhi_is_hardened() || !BH_HARDEN_CANARIES || !BH_HARDEN_WIPE || !BH_HARDEN_MAP)
        return 0;
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, ends_when_the_owner_frees);
    tcase_add_test(c, ends_when_another_frees);
    tcase_add_test(c, ends_when_the_owner_takes_back);
    tcase_add_test(c, ends_when_verified);
    tcase_add_test(c, ends_at_exit);
    tcase_add_test(c, ends_when_swept);
    tcase_add_test(c, two_frees_at_once);
    tcase_add_test(c, a_block_under_way_is_not_accused);
    tcase_add_test(c, written_before_reuse);
    tcase_add_test(c, written_when_young);
    tcase_add_test(c, written_before_verify);
    tcase_add_test(c, written_before_exit);
    tcase_add_test(c, written_when_free_at_last);
    tcase_add_test(c, large_ends);
    tcase_add_test(c, aligned_ends);
    tcase_add_test(c, offset_ends);
    suite_add_tcase(s, c);
    return unit_main(s);
}
