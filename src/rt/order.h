/* An order of 64 places that changes by riffle shuffles. */
#ifndef BH_RT_ORDER_H
#define BH_RT_ORDER_H

#include "base/constants.h"

#define BH_ORDER_PLACES 64u
#define BH_ORDER_COINS 48u

/* Each of the numbers below 64 once. */
typedef struct bhi_order {
    uint8_t BH_ALIGNED(16) place[BH_ORDER_PLACES];
} bhi_order_t;

/* Twelve rounds of the Thorp shuffle (E. Thorp, "Nonrandom shuffling with applications to
 * the game of Faro", JASA 68, 1973): the halves of the order meet pair by pair, and a
 * coin says who of each pair goes first. `coins` is random. Same coins, same order, on
 * every processor.
 *
 * What was uniform over all orders stays so, exactly, as each round is a fixed permutation
 * for given coins. Who knows the order before guesses one place with 1/64, exactly, the
 * places of two with at most 1.016 and of three with 1.031 times the chance of a guess
 * (computed over all coins: all pairs, 60 triples). */
void bhi_order_riffle(bhi_order_t *order, const uint8_t coins[BH_ORDER_COINS]);

/* Puts 64 items in that order. */
void bhi_order_apply(const bhi_order_t *order, const bhi_index_t *items, bhi_index_t *out);

#endif
