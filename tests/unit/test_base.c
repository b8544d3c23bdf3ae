/* base/bits.h and base/checked.h against the slow and obvious way. */
#include "base/bits.h"
#include "base/checked.h"
#include "support.h"

static bool bit(uint64_t set, unsigned i)
{
    return i < 64 && (set >> i & 1) != 0;
}

/* Sets with few, some and nearly all bits: dense sets have the long runs. */
static uint64_t some_set(uint64_t *seed)
{
    uint64_t a = unit_random(seed), b = unit_random(seed), c = unit_random(seed);
    switch (unit_below(seed, 5)) {
    case 0: return a & b & c;
    case 1: return a | b | c;
    case 2: return a;
    case 3: return ~(uint64_t)0 << unit_below(seed, 64);
    default: return (a | b | c) & (unit_random(seed) | b | unit_random(seed));
    }
}

START_TEST(first_last_count_nth)
{
    uint64_t seed = unit_seed("bits");
    for (int round = 0; round < 20000; round++) {
        uint64_t set = some_set(&seed);
        unsigned seen = 0;
        for (unsigned i = 0; i < 64; i++) {
            if (!bit(set, i))
                continue;
            if (seen == 0)
                ck_assert_uint_eq(bhi_bit_first(set), i);
            ck_assert_uint_eq(bhi_bit_nth(set, seen), i);
            seen++;
            if (seen == bhi_bit_count(set))
                ck_assert_uint_eq(bhi_bit_last(set), i);
        }
        ck_assert_uint_eq(bhi_bit_count(set), seen);
    }
}
END_TEST

START_TEST(range)
{
    for (unsigned first = 0; first < 64; first++) {
        for (unsigned n = 1; first + n <= 64; n++) {
            uint64_t set = bhi_bit_range(first, n);
            for (unsigned i = 0; i < 64; i++)
                ck_assert(bit(set, i) == (i >= first && i < first + n));
        }
    }
}
END_TEST

START_TEST(runs)
{
    uint64_t seed = unit_seed("runs");
    for (int round = 0; round < 3000; round++) {
        uint64_t set = round == 0 ? 0 : round == 1 ? ~(uint64_t)0 : some_set(&seed);
        unsigned longest = 0;
        for (unsigned n = 1; n <= 64; n++) {
            uint64_t starts = bhi_bit_run_starts(set, n);
            for (unsigned i = 0; i < 64; i++) {
                bool run = true;
                for (unsigned k = 0; k < n; k++)
                    run &= bit(set, i + k);
                ck_assert(bit(starts, i) == run);
            }
            if (starts != 0)
                longest = n;
        }
        ck_assert_uint_eq(bhi_bit_longest_run(set), longest);
    }
}
END_TEST

START_TEST(multiplication)
{
    static const size_t edges[] = {0, 1, 2, 3, (size_t)1 << 31, ((size_t)1 << 32) - 1, (size_t)1 << 32, ((size_t)1 << 32) + 1,
                                   SIZE_MAX / 3, SIZE_MAX / 2, SIZE_MAX / 2 + 1, SIZE_MAX - 1, SIZE_MAX};
    for (size_t i = 0; i < sizeof edges / sizeof edges[0]; i++) {
        for (size_t k = 0; k < sizeof edges / sizeof edges[0]; k++) {
            size_t out = 0;
            bool fits = edges[i] == 0 || edges[k] <= SIZE_MAX / edges[i];
            ck_assert(bhi_mul_ok(edges[i], edges[k], &out) == fits);
            if (fits)
                ck_assert_uint_eq(out, edges[i] * edges[k]);
        }
    }
}
END_TEST

START_TEST(rounding)
{
    for (size_t align = 1; align <= 4096; align *= 2) {
        for (size_t n = 0; n < 9000; n++) {
            size_t up = bhi_align_up(n, align), down = bhi_align_down(n, align);
            ck_assert(up % align == 0 && up >= n && up - n < align);
            ck_assert(down % align == 0 && down <= n && n - down < align);
        }
    }
    for (size_t n = 0; n < 5000; n++) {
        size_t p = 1;
        while (p < n)
            p *= 2;
        ck_assert(bhi_is_power_of_two(n) == (n != 0 && p == n));
    }
    ck_assert(bhi_is_power_of_two((size_t)1 << 63) && !bhi_is_power_of_two(SIZE_MAX));
    ck_assert(bhi_min(3, 4) == 3 && bhi_min(4, 3) == 3 && bhi_max(3, 4) == 4 && bhi_max(4, 3) == 4);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("base");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, first_last_count_nth);
    tcase_add_test(c, range);
    tcase_add_test(c, runs);
    tcase_add_test(c, multiplication);
    tcase_add_test(c, rounding);
    suite_add_tcase(s, c);
    return unit_main(s);
}
