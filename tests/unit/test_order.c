/* rt/order.c: riffles are shuffles of cards, with the vectors of this processor and without
 * them, and each item comes where the order says. */
#include "harden/wipe.h"
#include "rt/order.h"
#include "rt/process.h"
#include "support.h"

#include <string.h>

static uint64_t seed;

static void with_and_without(int with)
{
    seed = unit_seed("order");
    bhi_process.has_avx2 = with != 0 && bhi_wipe_knows_avx2();
}

/* Against a deck of cards as the books have it. Each coin, each card: red when one is left
 * out, or belongs to another pair. */
START_TEST(riffles_are_those_of_thorp)
{
    with_and_without(_i);
    bhi_order_t order;
    uint8_t deck[BH_ORDER_PLACES], coins[BH_ORDER_COINS];
    for (unsigned i = 0; i < BH_ORDER_PLACES; i++)
        order.place[i] = deck[i] = (uint8_t)i;
    for (unsigned k = 0; k < 1000; k++) {
        for (unsigned i = 0; i < sizeof coins; i += sizeof(uint64_t)) {
            uint64_t word = unit_random(&seed);
            memcpy(coins + i, &word, sizeof word);
        }
        for (unsigned round = 0; round < 12; round++) {
            uint8_t next[BH_ORDER_PLACES];
            for (unsigned i = 0; i < 32; i++) {
                unsigned bit = round < 8 ? coins[i] >> (7 - round) : coins[32 + i % 16] >> (15 - round - i / 16 * 4);
                next[2 * i + (bit & 1)] = deck[i];
                next[2 * i + 1 - (bit & 1)] = deck[i + 32];
            }
            memcpy(deck, next, sizeof deck);
        }
        bhi_order_riffle(&order, coins);
        ck_assert_mem_eq(order.place, deck, sizeof deck);
    }
}
END_TEST

/* Items whose bits all change, and of any alignment, which a list's need not have. */
START_TEST(an_order_puts_each_item_in_its_place)
{
    with_and_without(_i);
    bhi_index_t area[1 + BH_ORDER_PLACES], out[1 + BH_ORDER_PLACES + 1], *items = area + 1;
    bhi_order_t order;
    for (unsigned i = 0; i < BH_ORDER_PLACES; i++)
        order.place[i] = (uint8_t)i;
    for (unsigned k = 0; k < 2000; k++) {
        uint8_t coins[BH_ORDER_COINS];
        for (unsigned i = 0; i < sizeof coins; i++)
            coins[i] = (uint8_t)unit_random(&seed);
        bhi_order_riffle(&order, coins);
        for (unsigned i = 0; i < BH_ORDER_PLACES; i++)
            items[i] = (bhi_index_t)unit_random(&seed);
        out[0] = out[1 + BH_ORDER_PLACES] = (bhi_index_t)k;
        bhi_order_apply(&order, items, out + 1);
        for (unsigned i = 0; i < BH_ORDER_PLACES; i++)
            ck_assert_uint_eq(out[1 + i], items[order.place[i]]);
        ck_assert_uint_eq(out[0], (bhi_index_t)k);
        ck_assert_uint_eq(out[1 + BH_ORDER_PLACES], (bhi_index_t)k);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("order");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_loop_test(c, riffles_are_those_of_thorp, 0, 2);
    tcase_add_loop_test(c, an_order_puts_each_item_in_its_place, 0, 2);
    suite_add_tcase(s, c);
    return unit_main(s);
}
