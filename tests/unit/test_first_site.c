/* core/sampled.c with guarded_first_site=3. With guarded_site_rate=1 and nothing else
 * guarded: of each call site the first three, also of one that is met late and among many
 * others. With 16: three of each that is met often enough, and beside them what the rate
 * chooses. Runs in secure (lists) and in hardened (none). */
#include "bulkhead.h"
#include "core/sampled.h"
#include "support.h"

#include <stdlib.h>

#define FIRST 3

static bool is_guarded(const void *p)
{
    return bhi_guarded_contains((uintptr_t)p);
}

static BH_NOINLINE void *busy_site(size_t size)
{
    void *p = bh_malloc(size);
    __asm__ volatile("" : "+r"(p));
    return p;
}

static BH_NOINLINE void *rare_site(size_t size)
{
    void *p = bh_malloc(size);
    __asm__ volatile("" : "+r"(p));
    return p;
}

static BH_NOINLINE void *zeroed_site(size_t size)
{
    void *p = bh_zalloc(size);
    __asm__ volatile("" : "+r"(p));
    return p;
}

/* The library is part of this program, so its own calls are part of a stack: up to three
 * ways lead through it to a block in hardened, and two in secure: from the end of a list,
 * and from where nothing can be listed, of which clang makes two. */
#ifdef __clang__
#define WAYS 3u
#else
#define WAYS (unit_is_hardened() ? 3u : 2u)
#endif

/* So many of n are guarded, and they are the first, for each way. */
static void expect_first(void *(*site)(size_t), size_t size, unsigned n, unsigned first)
{
    unsigned guarded = 0;
    for (unsigned i = 0; i < n; i++) {
        void *p = site(size);
        ck_assert_msg(i >= first || is_guarded(p), "allocation %u of %zu bytes", i, size);
        guarded += is_guarded(p);
        if (i % 3 != 0)
            bh_free(p);
    }
    ck_assert_msg(guarded >= first && guarded <= first * WAYS, "%u of %zu bytes", guarded, size);
}

START_TEST(the_first_of_each_site)
{
    expect_first(busy_site, 40, 5000, FIRST);
    expect_first(rare_site, 40, 100, FIRST);
    expect_first(zeroed_site, 3000, 100, FIRST);
    expect_first(busy_site, 40, 100, FIRST); /* another caller is another site */
    for (unsigned round = 0; round < 4; round++)
        expect_first(busy_site, 140000, 10, 0); /* too large for a slot */
    expect_first(rare_site, 9000, 100, FIRST);
}
END_TEST

/* Deeper than what tells sites apart: no turn of a recursion is a new one for ever. */
static BH_NOINLINE unsigned recurse(unsigned depth)
{
    void *p = bh_malloc(24);
    unsigned guarded = is_guarded(p);
    __asm__ volatile("" : "+r"(p));
    if (depth > 0)
        guarded += recurse(depth - 1);
    bh_free(p);
    return guarded;
}

START_TEST(recursion_is_bounded)
{
    ck_assert_uint_le(recurse(500), FIRST * 10);
    ck_assert_uint_ge(recurse(3), 1);
}
END_TEST

static unsigned guarded_of(void *(*site)(size_t), size_t size, unsigned n)
{
    unsigned guarded = 0;
    for (unsigned i = 0; i < n; i++) {
        void *p = site(size);
        guarded += is_guarded(p);
        bh_free(p);
    }
    return guarded;
}

/* Of 2000 some 125 are looked at; that fewer than nine are has a probability of 10^-40. */
START_TEST(some_of_each_site)
{
    unsigned busy = guarded_of(busy_site, 40, 2000), rare = guarded_of(rare_site, 40, 2000);
    ck_assert_msg(busy >= FIRST && busy <= FIRST * WAYS, "%u", busy);
    ck_assert_msg(rare >= FIRST && rare <= FIRST * WAYS, "%u", rare);
}
END_TEST

/* The rate's share is what it is without sites, whichever of the two is larger: six
 * deviations beside the sites' own. */
START_TEST(the_rate_stays_what_it_is)
{
    unsigned rate = bhi_process.options.guarded_sample_rate, n = 300000;
    unsigned guarded = guarded_of(busy_site, 40, n), mean = n / rate, most = 0;
    while (most * most < 36 * mean)
        most++;
    ck_assert_msg(guarded >= mean - most && guarded <= mean + most + FIRST * WAYS, "%u of %u", guarded, n);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("first_site");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    bh_free(bh_malloc(1)); /* options are read */
    if (bhi_process.options.guarded_sample_rate != 0) {
        tcase_add_test(c, the_rate_stays_what_it_is);
    } else if (bhi_process.options.guarded_site_rate != 1) {
        tcase_add_test(c, some_of_each_site);
    } else {
        tcase_add_test(c, the_first_of_each_site);
        tcase_add_test(c, recursion_is_bounded);
    }
    suite_add_tcase(s, c);
    return unit_main(s);
}
