/* harden/link.h: a link decodes where it was written and nowhere else. */
#include "bulkhead.h"
#include "harden/link.h"
#include "support.h"

static uint64_t key;
static uint64_t seed;

static void start(void)
{
    ck_assert_ptr_nonnull(bh_malloc(1)); /* the process's multipliers */
    seed = unit_seed("link");
    key = unit_random(&seed);
}

static uint64_t encode(uint64_t with, uint32_t next, uint32_t at, uint16_t list)
{
    return bhi_link_encode(with + list * BH_LINK_NEXT_LIST, next, at);
}

static bool decodes(uint64_t with, uint64_t word, uint32_t at, uint16_t list, uint32_t expected)
{
    uint32_t next = 0xdead;
    return bhi_link_decode(with + list * BH_LINK_NEXT_LIST, word, at, &next) && next == expected;
}

static bool accepted(uint64_t with, uint64_t word, uint32_t at, uint16_t list)
{
    uint32_t next;
    return bhi_link_decode(with + list * BH_LINK_NEXT_LIST, word, at, &next);
}

START_TEST(round_trip)
{
    start();
    for (int i = 0; i < 200000; i++) {
        uint64_t k = unit_random(&seed);
        uint32_t next = i % 5 == 0 ? BHI_PLACE_NONE : unit_below(&seed, BHI_PLACE_NONE);
        uint32_t at = unit_below(&seed, 1u << 13);
        uint16_t list = (uint16_t)unit_random(&seed);
        ck_assert(decodes(k, encode(k, next, at, list), at, list, next));
    }
}
END_TEST

/* 40 bits of tag: in a few hundred thousand trials nothing gets through. */
START_TEST(every_other_place_list_and_key_is_refused)
{
    if (!BH_HARDEN_LINKS)
        return;
    start();
    uint64_t word = encode(key, 17, 5, 3);
    for (uint32_t at = 0; at < 1u << 13; at++)
        ck_assert_msg(accepted(key, word, at, 3) == (at == 5), "location %u", at);
    for (uint32_t list = 0; list <= UINT16_MAX; list++)
        ck_assert_msg(accepted(key, word, 5, (uint16_t)list) == (list == 3), "list %u", list);
    /* A change of the low 24 bits moves index and hash alike, so such a pair of
     * keys shares links; keys are drawn at random, so no two pages have one. */
    for (int bit = 24; bit < 64; bit++)
        ck_assert_msg(!accepted(key ^ (uint64_t)1 << bit, word, 5, 3), "key bit %d", bit);
    for (int i = 0; i < 100000; i++)
        ck_assert(!accepted(unit_random(&seed), word, 5, 3));
}
END_TEST

START_TEST(every_altered_word_is_refused)
{
    if (!BH_HARDEN_LINKS)
        return;
    start();
    for (int round = 0; round < 500; round++) {
        uint32_t next = unit_below(&seed, 1u << 13), at = unit_below(&seed, 1u << 13);
        uint16_t list = (uint16_t)unit_random(&seed);
        uint64_t word = encode(key, next, at, list);
        for (int bit = 0; bit < 64; bit++) {
            ck_assert(!accepted(key, word ^ (uint64_t)1 << bit, at, list));
            ck_assert(!accepted(key, word ^ (uint64_t)3 << bit, at, list));
        }
        ck_assert(!accepted(key, 0, at, list) && !accepted(key, ~(uint64_t)0, at, list));
        ck_assert(!accepted(key, unit_random(&seed), at, list));
    }
}
END_TEST

/* Somebody who has read three links of a list cannot make a fourth of them: not
 * by XOR (all that plain XOR links need), not by adding the difference of two
 * tags to a third. 40 bits of a tag cannot be counted out, so this looks how often
 * the top 16 bits come out right: `rounds` / 2^16 times if by chance. */
START_TEST(links_do_not_add_up)
{
    if (!BH_HARDEN_LINKS)
        return;
    start();
    enum { rounds = 1 << 22, expected = rounds >> 16 };
    unsigned xors = 0, sums = 0;
    for (int round = 0; round < rounds; round++) {
        uint32_t a = unit_below(&seed, 4096), b = a ^ 1u << unit_below(&seed, 12), c = unit_below(&seed, 4096);
        if (round % 2 == 0)
            c = a;
        uint64_t x = encode(key, a, 1, 9), y = encode(key, b, 1, 9), z = encode(key, c, 2, 9);
        uint64_t true_one = encode(key, a ^ b ^ c, 2, 9);
        xors += (x ^ y ^ z ^ true_one) >> 48 == 0;
        sums += (y - x + z - true_one + ((uint64_t)1 << 47)) >> 48 == 0;
        key = round % 64 == 0 ? unit_random(&seed) : key;
    }
    /* Eight standard deviations. One step of the hash gives hundreds of times more. */
    ck_assert_msg(xors < 2 * expected, "XOR: %u, by chance %u", xors, (unsigned)expected);
    ck_assert_msg(sums < 2 * expected, "sums: %u, by chance %u", sums, (unsigned)expected);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("link");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, round_trip);
    tcase_add_test(c, every_other_place_list_and_key_is_refused);
    tcase_add_test(c, every_altered_word_is_refused);
    tcase_add_test(c, links_do_not_add_up);
    suite_add_tcase(s, c);
    return unit_main(s);
}
