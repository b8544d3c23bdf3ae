/* harden/sites.c: each site so many times, whatever the others do; full, no more; and
 * two threads at once choose no fewer. */
#include "harden/sites.h"
#include "support.h"

#include <pthread.h>
#include <string.h>

static bhi_sites_t sites;

static unsigned times(uintptr_t a, uintptr_t b, uint32_t most, unsigned tries)
{
    const uintptr_t frames[2] = {a, b};
    unsigned n = 0;
    for (unsigned i = 0; i < tries; i++)
        n += bhi_sites_choose(&sites, frames, 2, most);
    return n;
}

START_TEST(each_site_so_often)
{
    memset(&sites, 0, sizeof sites);
    for (uintptr_t a = 0x400000; a < 0x400000 + 1000 * 5; a += 5)
        ck_assert_uint_eq(times(a, 0x401000, 3, 7), 3);
    for (uintptr_t a = 0x400000; a < 0x400000 + 1000 * 5; a += 5)
        ck_assert_uint_eq(times(a, 0x401000, 3, 7), 0);
    ck_assert_uint_eq(times(0x400000, 0x401000, 5, 7), 2);
    ck_assert_uint_eq(times(0x401000, 0x400000, 255, 1000), 255); /* the order counts */
    ck_assert_uint_eq(times(0x401000, 0x400001, 0, 10), 0);
    const uintptr_t deeper[3] = {0x400000, 0x401000, 0};
    ck_assert(bhi_sites_choose(&sites, deeper, 3, 1)); /* and the depth */
}
END_TEST

/* Known sites go on when there is no room for others. */
START_TEST(bounded)
{
    memset(&sites, 0, sizeof sites);
    ck_assert_uint_eq(times(1, 2, 4, 2), 2);
    unsigned chosen = 0;
    for (uintptr_t a = 0; a < 8 * (uintptr_t)BHI_SITES; a++)
        chosen += times(0x7f0000000000 + a * 3, a, 1, 1);
    ck_assert_uint_ge(chosen, BHI_SITES / 10 * 9);
    ck_assert_uint_le(chosen, BHI_SITES);
    ck_assert_uint_eq(times(1, 2, 4, 9), 2);
}
END_TEST

#define THREADS 4
#define SITES_MET 2000u
static unsigned found[THREADS][SITES_MET];

static void *meet(void *arg)
{
    unsigned *mine = arg;
    for (unsigned i = 0; i < SITES_MET; i++)
        mine[i] = times(i * 16, 7, 8, 8);
    return NULL;
}

START_TEST(threads_at_once)
{
    memset(&sites, 0, sizeof sites);
    pthread_t t[THREADS];
    for (unsigned i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&t[i], NULL, meet, found[i]), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);
    unsigned twice = 0;
    for (unsigned s = 0; s < SITES_MET; s++) {
        unsigned sum = 0;
        for (unsigned i = 0; i < THREADS; i++)
            sum += found[i][s];
        ck_assert_msg(sum >= 8 && sum <= 8 * THREADS, "site %u: %u", s, sum);
        twice += sum > 8;
    }
    ck_assert_uint_le(twice, SITES_MET / 2);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("sites");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, each_site_so_often);
    tcase_add_test(c, bounded);
    tcase_add_test(c, threads_at_once);
    suite_add_tcase(s, c);
    return unit_main(s);
}
