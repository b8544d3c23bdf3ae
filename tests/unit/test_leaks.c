/* core/leaks.c and core/leaks_scan.c: which blocks count as reached. The program runs in
 * profile debug. What its test library holds counts as reached, and leaks nothing. */
#include "bulkhead.h"
#include "core/leaks.h"
#include "support.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static void *volatile root;

static void *hidden(void *p)
{
    __asm__ volatile("" : "+r"(p));
    return p;
}

__attribute__((noinline)) static void wipe_stack(void)
{
    volatile unsigned char old[16384];
    for (size_t i = 0; i < sizeof old; i++)
        old[i] = 0;
}

/* Leaves an address `at` bytes behind a new block's start in *where. */
__attribute__((noinline)) static void leave(void *volatile *where, size_t size, size_t at)
{
    *where = (char *)hidden(bh_malloc(size)) + at;
}

/* An address that no word shows. */
static volatile uintptr_t veiled;

__attribute__((noinline)) static void veil(size_t at)
{
    veiled = ((uintptr_t)root - at) ^ UINTPTR_MAX;
    root = NULL;
}

__attribute__((noinline)) static void free_veiled(void)
{
    bh_free((void *)(veiled ^ UINTPTR_MAX)); /* NOLINT: that is the point */
}

static size_t leaks(void)
{
    wipe_stack();
    return bhi_leaks_report(true);
}

START_TEST(a_block_is_reached_by_any_address_in_it)
{
    static const size_t sizes[] = {1, 7, 8, 16, 100, 1000, 8192, 20000, 100000, 200000, 3000000, 6000000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const size_t at[] = {0, sizes[i] / 2, sizes[i] - 1, sizes[i]};
        for (size_t k = 0; k < 4; k++) {
            leave(&root, sizes[i], at[k]);
            ck_assert_msg(leaks() == 0, "%zu in %zu", at[k], sizes[i]);
            veil(at[k]);
            size_t found = leaks();
            ck_assert_msg(found == 1, "%zu in %zu: %zu leaks, not one", at[k], sizes[i], found);
            free_veiled();
            ck_assert_uint_eq(leaks(), 0);
        }
    }
}
END_TEST

enum { DEEP = 100000 };

__attribute__((noinline)) static void make_chain(void)
{
    void **last = NULL;
    for (int i = 0; i < DEEP; i++) {
        void **node = hidden(bh_malloc(i % 100 == 0 ? 9000 : 24));
        node[i % 100 == 0 ? 1000 : 1] = last;
        last = node;
    }
    root = last;
}

START_TEST(blocks_are_reached_through_blocks)
{
    make_chain();
    ck_assert_uint_eq(leaks(), 0);
    root = NULL;
    ck_assert_uint_eq(leaks(), DEEP);
}
END_TEST

START_TEST(mappings_are_looked_through)
{
    size_t size = 64 << 20;
    void *volatile *area = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ck_assert_ptr_ne((void *)(uintptr_t)area, MAP_FAILED);
    leave(&area[5000000], 100, 0);
    ck_assert_uint_eq(leaks(), 0);
    /* Out of reach while it cannot be read, and no fault. */
    ck_assert_int_eq(mprotect((void *)(uintptr_t)area, size, PROT_NONE), 0);
    ck_assert_uint_eq(leaks(), 1);
    munmap((void *)(uintptr_t)area, size);
    ck_assert_uint_eq(leaks(), 1);
}
END_TEST

/* A file whose first page holds the address in root. */
__attribute__((noinline)) static int file_with_root(void)
{
    uintptr_t page[512] = {(uintptr_t)root};
    int fd = memfd_create("leaks", MFD_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq((int)write(fd, page, sizeof page), (int)sizeof page);
    return fd;
}

/* Numbers in a library's tables are no pointers, whatever base the blocks have. What the
 * program wrote into a page before it closed it for writing is. */
START_TEST(pages_that_are_still_the_files_hold_nothing)
{
    leave(&root, 100, 0);
    int fd = file_with_root();
    void *volatile *copy = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    ck_assert_ptr_ne((void *)(uintptr_t)copy, MAP_FAILED);
    ck_assert(copy[0] == root); /* in memory from here on */
    ck_assert_uint_eq(leaks(), 0);
    root = NULL;
    ck_assert_uint_eq(leaks(), 1);
    copy[1] = NULL; /* the page is the program's: all of it counts */
    ck_assert_int_eq(mprotect((void *)(uintptr_t)copy, 4096, PROT_READ), 0);
    ck_assert_uint_eq(leaks(), 0);
    munmap((void *)(uintptr_t)copy, 4096);
    ck_assert_uint_eq(leaks(), 1);
    close(fd);
}
END_TEST

START_TEST(a_part_of_a_block_may_be_closed)
{
    char *p = bh_aligned_alloc(4096, 1 << 20);
    root = p;
    leave((void *volatile *)(void *)(p + 500000), 50, 0);
    ck_assert_int_eq(mprotect(p + 65536, 65536, PROT_NONE), 0);
    ck_assert_uint_eq(leaks(), 0);
    ck_assert_int_eq(mprotect(p + 65536, 65536, PROT_READ | PROT_WRITE), 0);
}
END_TEST

static void count(const bhi_found_t *found, void *arg)
{
    ck_assert_uint_eq(bh_usable_size((void *)found->block), found->size);
    ++*(size_t *)arg;
}

START_TEST(every_live_block_is_found)
{
    size_t before = 0, after = 0;
    bhi_scan_blocks(count, &before);
    for (size_t size = 1; size < 10000000; size += size / 2 + 1)
        (void)!hidden(bh_malloc(size));
    bhi_scan_blocks(count, &after);
    size_t n = 0;
    for (size_t size = 1; size < 10000000; size += size / 2 + 1)
        n++;
    ck_assert_uint_eq(after - before, n);
}
END_TEST

/* The words that lie in a block that was freed lead nowhere. */
START_TEST(freed_blocks_lead_nowhere)
{
    void *volatile *p = hidden(bh_malloc(1000));
    root = (void *)(uintptr_t)p;
    leave(&p[3], 300, 0);
    ck_assert_uint_eq(leaks(), 0);
    bh_free((void *)(uintptr_t)p);
    ck_assert_uint_eq(leaks(), 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("leaks");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, UNIT_TIMEOUT);
    tcase_add_test(tc, a_block_is_reached_by_any_address_in_it);
    tcase_add_test(tc, blocks_are_reached_through_blocks);
    tcase_add_test(tc, mappings_are_looked_through);
    tcase_add_test(tc, pages_that_are_still_the_files_hold_nothing);
    tcase_add_test(tc, a_part_of_a_block_may_be_closed);
    tcase_add_test(tc, every_live_block_is_found);
    tcase_add_test(tc, freed_blocks_lead_nowhere);
    suite_add_tcase(suite, tc);
    return unit_main(suite);
}
