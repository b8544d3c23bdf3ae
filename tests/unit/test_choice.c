/* harden/choice.c: the distribution is the geometric one, the mean exact. */
#include "harden/choice.h"
#include "support.h"

#include <math.h>

static bhi_choice_t choice;

START_TEST(rate_one_takes_every_one)
{
    uint64_t seed = 1;
    bhi_choice_init(&choice, 1);
    for (int i = 0; i < 1000; i++)
        ck_assert_uint_eq(bhi_choice_draw(&choice, unit_random(&seed)), 0);
}
END_TEST

/* Sums of n numbers with mean q/p and variance q/p^2: six deviations are one false
 * alarm in 10^9. */
START_TEST(the_mean_is_the_rate)
{
    static const uint32_t rates[] = {2, 3, 7, 100, 4000, 1000000, 100000000};
    uint64_t seed = unit_seed("mean");
    for (size_t r = 0; r < sizeof rates / sizeof rates[0]; r++) {
        double p = 1.0 / rates[r], sum = 0, n = 400000;
        bhi_choice_init(&choice, rates[r]);
        for (int i = 0; i < (int)n; i++)
            sum += 1.0 + bhi_choice_draw(&choice, unit_random(&seed));
        double deviation = sqrt((1 - p) / (p * p) * n);
        ck_assert_msg(fabs(sum - n / p) < 6 * deviation, "rate %u: mean %f", rates[r], sum / n);
    }
}
END_TEST

/* Chi-square over the first 20 numbers and the rest, at about one in 10^6. */
START_TEST(each_number_is_as_likely_as_it_should)
{
    static const uint32_t rates[] = {2, 5, 12};
    uint64_t seed = unit_seed("distribution");
    for (size_t r = 0; r < sizeof rates / sizeof rates[0]; r++) {
        enum { CELLS = 21, N = 500000 };
        unsigned count[CELLS] = {0};
        double p = 1.0 / rates[r], chi = 0, rest = 1;
        bhi_choice_init(&choice, rates[r]);
        for (int i = 0; i < N; i++) {
            uint32_t k = bhi_choice_draw(&choice, unit_random(&seed));
            count[k < CELLS - 1 ? k : CELLS - 1]++;
        }
        for (int k = 0; k < CELLS; k++) {
            double of = k < CELLS - 1 ? rest * p : rest, expected = of * N;
            rest -= of;
            if (expected > 5)
                chi += (count[k] - expected) * (count[k] - expected) / expected;
        }
        ck_assert_msg(chi < 67, "rate %u: chi-square %f", rates[r], chi);
    }
}
END_TEST

START_TEST(large_rates_stay_within_bounds)
{
    uint64_t seed = unit_seed("large");
    bhi_choice_init(&choice, UINT32_MAX);
    double sum = 0;
    for (int i = 0; i < 2000; i++) {
        uint32_t k = bhi_choice_draw(&choice, unit_random(&seed));
        ck_assert_uint_le(k, BHI_CHOICE_MOST);
        sum += k;
    }
    ck_assert(sum / 2000 > 0.5 * UINT32_MAX); /* cut at the top: 0.63 of the rate */
}
END_TEST

START_TEST(a_seed_is_a_stream)
{
    uint64_t a = 7, b = 7, c = 8;
    unsigned same = 0;
    for (int i = 0; i < 100; i++) {
        uint64_t x = bhi_choice_seeded(&a);
        ck_assert_uint_eq(x, bhi_choice_seeded(&b));
        same += x == bhi_choice_seeded(&c);
    }
    ck_assert_uint_eq(same, 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("choice");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, UNIT_TIMEOUT);
    tcase_add_test(all, rate_one_takes_every_one);
    tcase_add_test(all, the_mean_is_the_rate);
    tcase_add_test(all, each_number_is_as_likely_as_it_should);
    tcase_add_test(all, large_rates_stay_within_bounds);
    tcase_add_test(all, a_seed_is_a_stream);
    suite_add_tcase(s, all);
    return unit_main(s);
}
