/* How many allocations pass before the next one is guarded: geometric with mean
 * rate - 1, so that each is chosen with probability 1/rate, whatever was chosen
 * before. The binary digits of such a number are independent (q = 1 - 1/rate; digit
 * i is 1 with probability q^(2^i) / (1 + q^(2^i))), so each is drawn by comparing a
 * random fraction with that: no logarithm, and no rounding that biases the mean by
 * more than one part in 10^7. All digits are compared at once, a bit of each
 * fraction at a time, until each has met one in which the two differ: some six halves
 * of random words serve twenty digits. */
#ifndef BH_HARDEN_CHOICE_H
#define BH_HARDEN_CHOICE_H

#include "base/compiler.h"
#include "rt/process.h"

#define BHI_CHOICE_MOST (UINT32_MAX - 1)

/* rate > 0. */
void bhi_choice_init(bhi_choice_t *choice, uint32_t rate);

/* One such number, at most BHI_CHOICE_MOST. 64 random bits serve for all its digits:
 * they begin a stream that is many times cheaper than a keystream, and of which nothing
 * is ever seen. */
uint32_t bhi_choice_draw(const bhi_choice_t *choice, uint64_t random);

/* A stream of a seed: SplitMix64, which is no secret. */
uint64_t bhi_choice_seeded(uint64_t *state);

#endif
