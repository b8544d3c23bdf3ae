/* The few statistics that the measurements need. */
#ifndef BH_RANDOM_STATS_H
#define BH_RANDOM_STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A verdict says FAIL of a generator that keeps its bound at most this often. */
#define STATS_ALPHA 1e-6

/* P(X >= x) and P(X <= x) for X binomial with n trials of probability p. */
double stats_at_least(uint64_t x, uint64_t n, double p);
double stats_at_most(uint64_t x, uint64_t n, double p);

/* Whether x hits in n trials are compatible with a probability of at most p. */
bool stats_within(uint64_t x, uint64_t n, double p);

/* Bits of min-entropy in n values of `width` bits (5..64) each: one for every bit
 * below the highest four that is unbiased and uncorrelated with those counted
 * before it, and the min-entropy of the highest four as a whole, from the most
 * frequent of their 16 values: a range that is no power of two shows there.
 * `alpha` is shared among all these tests. */
double stats_entropy(const uint64_t *values, size_t n, unsigned width);

/* Pairs of equal values; sorts them. */
uint64_t stats_collisions(uint64_t *values, size_t n);

/* Known results of all of these; false: the measurement itself is broken. */
bool stats_self_test(void);

#endif
