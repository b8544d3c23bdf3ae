/* See stats.h. Exact tails; sums of logarithms, so that nothing overflows. */
#include "stats.h"

#include <math.h>
#include <stdlib.h>

#define TOP_BITS 4u

static double log_term(uint64_t k, uint64_t n, double p)
{
    double a = (double)k, b = (double)n;
    return lgamma(b + 1) - lgamma(a + 1) - lgamma(b - a + 1) + a * log(p) + (b - a) * log1p(-p);
}

double stats_at_least(uint64_t x, uint64_t n, double p)
{
    if (x == 0)
        return 1;
    double sum = 0;
    for (uint64_t k = x; k <= n; k++) {
        double term = exp(log_term(k, n, p));
        sum += term;
        if ((double)k > (double)n * p && term <= sum * 1e-12)
            break;
    }
    return sum < 1 ? sum : 1;
}

double stats_at_most(uint64_t x, uint64_t n, double p)
{
    return stats_at_least(n - x, n, 1 - p);
}

bool stats_within(uint64_t x, uint64_t n, double p)
{
    return stats_at_least(x, n, p) >= STATS_ALPHA;
}

/* Whether half of n are hits, but for chance. */
static bool is_half(uint64_t x, uint64_t n, double alpha)
{
    return (x * 2 > n ? stats_at_least(x, n, 0.5) : stats_at_most(x, n, 0.5)) >= alpha / 2;
}

static uint64_t count_odd(const uint64_t *values, size_t n, uint64_t mask)
{
    uint64_t odd = 0;
    for (size_t i = 0; i < n; i++)
        odd += (uint64_t)__builtin_parityll(values[i] & mask);
    return odd;
}

/* The correlation of two bits is the bias of their exclusive or. */
static bool is_good_bit(const uint64_t *values, size_t n, unsigned bit, uint64_t good, double alpha)
{
    uint64_t mask = (uint64_t)1 << bit;
    if (!is_half(count_odd(values, n, mask), n, alpha))
        return false;
    for (; good != 0; good &= good - 1) {
        if (!is_half(count_odd(values, n, mask | (good & -good)), n, alpha))
            return false;
    }
    return true;
}

double stats_entropy(const uint64_t *values, size_t n, unsigned width)
{
    unsigned low = width - TOP_BITS;
    double alpha = STATS_ALPHA / (double)(low * (low + 1) / 2);
    uint64_t good = 0, most = 1, of[1u << TOP_BITS] = {0};
    for (unsigned bit = 0; bit < low; bit++) {
        if (is_good_bit(values, n, bit, good, alpha))
            good |= (uint64_t)1 << bit;
    }
    for (size_t i = 0; i < n; i++) {
        uint64_t same = ++of[(values[i] >> low) & ((1u << TOP_BITS) - 1)];
        most = same > most ? same : most;
    }
    return (double)__builtin_popcountll(good) - log2((double)most / (double)n);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

uint64_t stats_collisions(uint64_t *values, size_t n)
{
    uint64_t pairs = 0, same = 0;
    qsort(values, n, sizeof *values, by_value);
    for (size_t i = 1; i < n; i++) {
        same = values[i] == values[i - 1] ? same + 1 : 0;
        pairs += same;
    }
    return pairs;
}

static bool near(double x, double expected)
{
    return fabs(x - expected) <= 1e-9 + 1e-6 * expected;
}

bool stats_self_test(void)
{
    /* 10 tosses; 1 - 0.999^500; a Poisson tail of 5 with mean 1. */
    bool tails = near(stats_at_least(8, 10, 0.5), 56.0 / 1024) && near(stats_at_most(2, 10, 0.5), 56.0 / 1024) &&
                 near(stats_at_least(1, 500, 0.001), 1 - pow(0.999, 500)) && stats_at_least(0, 5, 0.1) >= 1 &&
                 fabs(stats_at_least(5, 1000000, 1e-6) - 0.003659847) < 1e-6;
    uint64_t values[2000], x = 1;
    for (size_t i = 0; i < 2000; i++) { /* 12 random bits; one of them twice; one stuck; top bits of 16 */
        x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        values[i] = (x >> 40 & 0xfff) | (x >> 40 & 1) << 12 | (uint64_t)1 << 13 | (x >> 56 & 15) << 14;
    }
    double bits = stats_entropy(values, 2000, 18);
    uint64_t same[] = {3, 1, 3, 2, 3, 1};
    return tails && bits > 12 + 3.4 && bits < 12 + 4 && stats_collisions(same, 6) == 4;
}
