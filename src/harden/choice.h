/* How many allocations pass before the next one is guarded: geometric with mean
 * rate - 1, so that each is chosen with probability 1/rate, whatever was chosen
 * before. The binary digits of such a number are independent (q = 1 - 1/rate; digit
 * i is 1 with probability q^(2^i) / (1 + q^(2^i))), so it is drawn digit by digit
 * against thresholds computed once, with 32 random bits each: no logarithm, and no
 * rounding that biases the mean by more than one part in 10^7. */
#ifndef BH_HARDEN_CHOICE_H
#define BH_HARDEN_CHOICE_H

#include "base/compiler.h"
#include "rt/process.h"

#define BHI_CHOICE_MOST (UINT32_MAX - 1)

/* Thresholds, in parts of 2^64, of the digits; those behind the last that is ever
 * 1 are 0. rate > 0. */
void bhi_choice_init(uint64_t bits[BHI_CHOICE_BITS], uint32_t rate);

/* One such number, at most BHI_CHOICE_MOST. 64 random bits serve for all its digits:
 * they begin a stream as that of a seed, which is many times cheaper than a keystream,
 * and of which nothing is ever seen. */
uint32_t bhi_choice_draw(const uint64_t bits[BHI_CHOICE_BITS], uint32_t rate, uint64_t random);

/* A stream of a seed: SplitMix64, which is no secret. */
uint64_t bhi_choice_seeded(uint64_t *state);

#endif
