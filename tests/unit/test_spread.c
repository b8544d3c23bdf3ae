/* harden/spread.c: the elements of a set come out in their order, encoded, with the
 * instructions of this processor and without them, and nothing beyond is written to. */
#include "harden/map.h"
#include "harden/spread.h"
#include "harden/wipe.h"
#include "rt/process.h"
#include "support.h"

#include <string.h>

#define ROOM 64u
#define UNTOUCHED 0xa5a5u

static uint64_t seed;
static bhi_index_t area[16 + ROOM + 16];

static void check(uint64_t set, bhi_index_t first)
{
    for (unsigned i = 0; i < sizeof area / sizeof area[0]; i++)
        area[i] = UNTOUCHED;
    bhi_index_t *at = &area[16], *end = bhi_spread(at, set, first);
    unsigned n = 0;
    for (unsigned b = 0; b < 64; b++) {
        if ((set >> b & 1) != 0) {
            ck_assert_msg(at[n] == (bhi_index_t)(first ^ b), "set %llx: entry %u is %x", (unsigned long long)set, n, at[n]);
            n++;
        }
    }
    ck_assert_uint_eq((size_t)(end - at), n);
    for (unsigned i = 0; i < 16; i++) {
        ck_assert_uint_eq(area[i], UNTOUCHED);
        ck_assert_uint_eq(area[16 + ROOM + i], UNTOUCHED);
    }
}

/* Without what some processors know, and with it. */
static void with_and_without(int with)
{
    seed = unit_seed("spread");
    bhi_process.has_avx2 = with == 1 && bhi_wipe_knows_avx2();
    bhi_process.has_compress = with == 2 && bhi_spread_knows_compress();
}

START_TEST(single_elements_and_their_complements)
{
    with_and_without(_i);
    check(0, 0);
    check(~(uint64_t)0, 0);
    for (unsigned b = 0; b < 64; b++) {
        check((uint64_t)1 << b, 64);
        check(~((uint64_t)1 << b), 0x1fc0);
    }
}
END_TEST

/* Sets of any density, encoded with keys that change all bits. */
START_TEST(any_set)
{
    with_and_without(_i);
    for (unsigned round = 0; round < 100000; round++) {
        uint64_t set = unit_random(&seed);
        for (unsigned thin = round % 5; thin > 0; thin--)
            set &= unit_random(&seed);
        if (round % 2 != 0)
            set = ~set;
        check(set, (bhi_index_t)unit_random(&seed));
    }
}
END_TEST

/* What a list is made of: of words from any one on, and around, until there are enough. */
START_TEST(free_blocks_of_a_map)
{
    with_and_without(_i);
    for (unsigned round = 0; round < 20000; round++) {
        static bhi_map_block_t map[9 * 64] BH_ALIGNED(64);
        uint64_t used[9];
        uint32_t words = 1 + unit_below(&seed, 8), thin = unit_below(&seed, 5);
        for (uint32_t w = 0; w < 9; w++) {
            uint64_t live = unit_random(&seed);
            for (uint32_t i = 0; i < thin; i++)
                live |= unit_random(&seed);
            uint64_t held = unit_below(&seed, 3) == 0 ? unit_random(&seed) & live : 0;
            if (w == 0 && unit_below(&seed, 8) == 0)
                held |= unit_random(&seed); /* the trace of two frees at once */
            for (uint32_t b = 0; b < 64; b++) {
                atomic_store(&map[w * 64 + b].live, live >> b & 1);
                atomic_store(&map[w * 64 + b].held, held >> b & 1);
            }
            used[w] = live | held;
        }
        bhi_spread_of_t of = {map, words, unit_below(&seed, words), unit_random(&seed), (bhi_index_t)unit_random(&seed), {0, 0}};
        bhi_index_t entries[63 + 64], *at = entries, *wanted = entries + unit_below(&seed, 65);
        bhi_index_t *end = bhi_spread_free(entries, (uint32_t)(wanted - entries), &of);
        for (uint32_t i = 0, w = of.from; i < words && at < wanted; i++, w = (w + 1) % words) {
            uint64_t set = ~used[w] & (w == words - 1 ? of.of_last : UINT64_MAX);
            for (unsigned b = 0; b < 64; b++) {
                if ((set >> b & 1) != 0) {
                    ck_assert_uint_eq(*at, (bhi_index_t)((w * 64 + b) ^ of.key));
                    at++;
                }
            }
        }
        ck_assert_ptr_eq(at, end);
    }
}
END_TEST

/* In profile hardened: those that are neither live nor held and whose mark is old. */
START_TEST(old_blocks_of_a_map)
{
    with_and_without(_i);
    for (unsigned round = 0; round < 20000; round++) {
        static bhi_map_block_t map[9 * 64] BH_ALIGNED(64);
        static bool is_old[9 * 64];
        uint32_t words = 1 + unit_below(&seed, 8), live = unit_below(&seed, 5);
        uint8_t marks[4] = {(uint8_t)(unit_random(&seed) & 0xfe), (uint8_t)(unit_random(&seed) & 0xfe), (uint8_t)(unit_random(&seed) & 0xfe), 0};
        bhi_spread_of_t of = {map, words, unit_below(&seed, words), unit_random(&seed), (bhi_index_t)unit_random(&seed), {marks[0], marks[1]}};
        for (uint32_t b = 0; b < 9 * 64; b++) {
            uint8_t first = unit_below(&seed, 4) < live ? BHI_MAP_LIVE : marks[unit_below(&seed, 4)];
            uint8_t held = unit_below(&seed, 8) == 0;
            atomic_store(&map[b].live, first);
            atomic_store(&map[b].held, held);
            bool listable = b / 64 != words - 1 || (of.of_last >> b % 64 & 1) != 0;
            is_old[b] = first != BHI_MAP_LIVE && held == 0 && first != marks[0] && first != marks[1] && listable;
        }
        bhi_index_t entries[63 + 64], *at = entries, *wanted = entries + unit_below(&seed, 65);
        bhi_index_t *end = bhi_spread_old(entries, (uint32_t)(wanted - entries), &of);
        for (uint32_t i = 0, w = of.from; i < words && at < wanted; i++, w = (w + 1) % words) {
            for (uint32_t b = w * 64; b < w * 64 + 64; b++) {
                if (is_old[b])
                    ck_assert_uint_eq(*at++, (bhi_index_t)(b ^ of.key));
            }
        }
        ck_assert_ptr_eq(at, end);
        uint32_t n = 0, enough = unit_below(&seed, 200);
        for (uint32_t b = 0; b < words * 64 && (b % 64 != 0 || n < enough); b++)
            n += is_old[b];
        ck_assert_uint_eq(bhi_spread_count_old(enough, &of), n);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("spread");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_loop_test(c, single_elements_and_their_complements, 0, 3);
    tcase_add_loop_test(c, any_set, 0, 3);
    tcase_add_loop_test(c, free_blocks_of_a_map, 0, 3);
    tcase_add_loop_test(c, old_blocks_of_a_map, 0, 3);
    suite_add_tcase(s, c);
    return unit_main(s);
}
