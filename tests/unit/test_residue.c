/* A heap's notes of spans: damage to them is found; where large blocks go. */
#include "bulkhead.h"
#include "core/heap.h"
#include "core/residue.h"
#include "core/thread.h"
#include "os/os.h"
#include "support.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

static void take_with(uint32_t count)
{
    bhi_heap_t *heap = bhi_thread_heap_get();
    ck_assert(heap != NULL);
    heap->left = (bhi_left_t){.count = count};
    for (uint32_t i = 0; i < BHI_LEFT_MOST; i++)
        heap->left.size_class[i] = 3;
    bhi_state_lock();
    bhi_residue_take(heap, 5, 1);
    bhi_state_unlock();
}

static void full(void *arg)
{
    (void)arg;
    take_with(BHI_LEFT_MOST);
}

static void beyond(void *arg)
{
    (void)arg;
    take_with(BHI_LEFT_MOST + 1);
}

START_TEST(more_notes_than_there_is_room_for_are_damage)
{
    unit_assert_quiet(full, NULL);
    unit_assert_violation(beyond, NULL, "corrupt-control");
}
END_TEST

/* ---------------------------------------------------------------- large blocks */

/* OS pages: all these are blocks of four slots. */
enum { SHORTER = 3 * BH_SLOT_OS_PAGES, MIDDLE = SHORTER + 4, LONGER = SHORTER + 10, MANY = 9 };

static unsigned calls;

static int count_calls(bhi_os_call_t call)
{
    calls += call == BHI_OS_GUARD || call == BHI_OS_MADVISE || call == BHI_OS_MPROTECT || call == BHI_OS_PROCESS_MADVISE || call == BHI_OS_MMAP;
    return 0;
}

/* Not inline: compilers would take the first block of a place for all that is there. */
static BH_NOINLINE unsigned char *take(unsigned os_pages)
{
    unsigned char *p = bh_malloc(os_pages * BH_OS_PAGE_SIZE);
    ck_assert_ptr_nonnull(p);
    return p;
}

/* The same, and how many kernel calls that took. */
static BH_NOINLINE unsigned char *take_counted(unsigned os_pages)
{
    calls = 0;
    bhi_os_fail_hook = count_calls;
    unsigned char *p = take(os_pages);
    bhi_os_fail_hook = NULL;
    return p;
}

static BH_NOINLINE unsigned char *take_full(unsigned os_pages)
{
    unsigned char *p = take(os_pages);
    memset(p, 0x5a, os_pages * BH_OS_PAGE_SIZE);
    return p;
}

static bool guarded(const unsigned char *p, unsigned os_pages)
{
    uintptr_t at = (uintptr_t)p;
    return !BH_HARDEN_GUARDS || (!unit_readable(at - 1) && unit_readable(at + os_pages * BH_OS_PAGE_SIZE - 1) &&
                                 !unit_readable(at + os_pages * BH_OS_PAGE_SIZE));
}

static bool by_regions(void)
{
    return BH_HARDEN_GUARDS && bhi_process.guards_by_madvise;
}

START_TEST(a_large_block_goes_where_one_was)
{
    unsigned char *p = take_full(MIDDLE);
    bh_free(p);
    ck_assert_ptr_eq(take_counted(MIDDLE), p);
    ck_assert_uint_eq(calls, 0);
    ck_assert(unit_is(p, MIDDLE * BH_OS_PAGE_SIZE, 0x5a)); /* its own heap's: not cleared */
    ck_assert(guarded(p, MIDDLE));
    bh_free(p);
    ck_assert_ptr_eq(take_counted(SHORTER), p); /* there is no other processor to interrupt */
    ck_assert(guarded(p, SHORTER));
    bh_free(p);
}
END_TEST

static int wake[2];

static void *sleeper(void *arg)
{
    char byte;
    ck_assert_int_eq(read(wake[0], &byte, 1), 1);
    return arg;
}

static pthread_t with_another(void)
{
    pthread_t thread;
    ck_assert(pipe(wake) == 0 && pthread_create(&thread, NULL, sleeper, NULL) == 0);
    ck_assert(!bhi_thread_is_alone());
    return thread;
}

static void end_other(pthread_t thread)
{
    ck_assert(write(wake[1], "", 1) == 1 && pthread_join(thread, NULL) == 0);
}

START_TEST(no_guard_is_placed_on_memory)
{
    pthread_t other = with_another();
    unsigned char *p = take_full(MIDDLE);
    bh_free(p);
    unsigned char *q = take_full(SHORTER);
    ck_assert(!by_regions() || q != p);
    unsigned char *r = take_counted(LONGER);
    if (by_regions()) {
        ck_assert_ptr_eq(r, p);
        ck_assert_uint_eq(calls, 1); /* the old guard goes; what is behind it is closed already */
        ck_assert(unit_is(p, MIDDLE * BH_OS_PAGE_SIZE, 0x5a));
        ck_assert(unit_is(p + MIDDLE * BH_OS_PAGE_SIZE, (LONGER - MIDDLE) * BH_OS_PAGE_SIZE, 0));
    }
    ck_assert(guarded(r, LONGER) && guarded(q, SHORTER));
    bh_free(q);
    bh_free(r);
    end_other(other);
}
END_TEST

/* Else the places of shorter blocks would all become longer, and each block's guard move. */
START_TEST(a_place_of_the_same_size_comes_first)
{
    pthread_t other = with_another();
    unsigned char *places[] = {take_full(SHORTER), take_full(MIDDLE), take_full(LONGER)};
    for (unsigned i = 0; i < 3; i++)
        bh_free(places[i]);
    for (unsigned round = 0; round < 30; round++) {
        unsigned os_pages = round % 3 == 0 ? SHORTER : round % 3 == 1 ? MIDDLE : LONGER;
        unsigned char *p = take_counted(os_pages);
        if (by_regions()) {
            ck_assert_ptr_eq(p, places[round % 3]);
            ck_assert_uint_eq(calls, 0);
        }
        ck_assert(guarded(p, os_pages));
        bh_free(p);
    }
    end_other(other);
}
END_TEST

/* But only so many places wait for longer blocks. */
START_TEST(too_many_long_places_do_not_wait)
{
    pthread_t other = with_another();
    unsigned char *places[MANY];
    for (unsigned i = 0; i < MANY; i++)
        places[i] = take_full(LONGER);
    for (unsigned i = 0; i < MANY; i++)
        bh_free(places[i]);
    unsigned char *p = take(SHORTER);
    bool among = false;
    for (unsigned i = 0; i < MANY; i++)
        among |= p == places[i];
    ck_assert(among);
    ck_assert(guarded(p, SHORTER));
    bh_free(p);
    end_other(other);
}
END_TEST

/* What another heap left is cleared, wherever it is. */
START_TEST(another_heaps_place_is_not_taken_as_it_is)
{
    bh_heap_t *heap = bh_heap_new();
    ck_assert_ptr_nonnull(heap);
    for (unsigned round = 0; round < 20; round++) {
        bh_free(take_full(MIDDLE));
        unsigned char *q = bh_heap_malloc(heap, MIDDLE * BH_OS_PAGE_SIZE);
        ck_assert_ptr_nonnull(q);
        ck_assert(!BH_HARDEN_CLEAR || (unit_is(q, MIDDLE * BH_OS_PAGE_SIZE, q[0]) && q[0] != 0x5a));
        memset(q, 0xa5, MIDDLE * BH_OS_PAGE_SIZE);
        bh_free(q);
        unsigned char *p = take(MIDDLE);
        ck_assert(!BH_HARDEN_CLEAR || (unit_is(p, MIDDLE * BH_OS_PAGE_SIZE, p[0]) && p[0] != 0xa5));
        bh_free(p);
    }
    bh_heap_destroy(heap);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("residue");
    TCase *tcase = tcase_create("notes");
    tcase_add_test(tcase, more_notes_than_there_is_room_for_are_damage);
    if (BH_OS_PAGE_SHIFT == 12) { /* so many larger OS pages are a block that traps */
        tcase_add_test(tcase, a_large_block_goes_where_one_was);
        tcase_add_test(tcase, no_guard_is_placed_on_memory);
        tcase_add_test(tcase, a_place_of_the_same_size_comes_first);
        tcase_add_test(tcase, too_many_long_places_do_not_wait);
    }
    tcase_add_test(tcase, another_heaps_place_is_not_taken_as_it_is);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
