/* harden/age.h: how long a freed block waits, against a model that counts. */
#include "harden/age.h"

#include "harden/map.h"
#include "support.h"

/* A byte budget for larger blocks, a length of their own for small ones. */
START_TEST(lengths)
{
    if (!BH_HARDEN_QUARANTINE) {
        ck_assert_uint_eq(bhi_age_length(64, 32768), 0);
        return;
    }
    for (size_t size = 8; size <= BH_AGE_SMALL; size += 8)
        ck_assert(bhi_age_length(size, 0) == bhi_age_length(size, SIZE_MAX) && bhi_age_length(size, 0) >= 24);
    ck_assert(bhi_age_length(16, 0) == 48 && bhi_age_length(128, 0) == 48 && bhi_age_length(BH_AGE_SMALL, 0) == 24);
    ck_assert_uint_eq(bhi_age_length(BH_AGE_SMALL + 64, 0), 0);
    ck_assert_uint_eq(bhi_age_length(4096, 32768), 8);
    ck_assert_uint_eq(bhi_age_length(32768, 32768), 1);
    ck_assert_uint_eq(bhi_age_length(32769, 32768), 0);
    ck_assert_uint_eq(bhi_age_length(32769, SIZE_MAX), BH_AGE_MOST);
}
END_TEST

static bool is_young(const bhi_age_t *age, uint8_t mark)
{
    return mark == age->mark || mark == age->before;
}

/* Blocks are freed at random moments; lists of random lengths are made one behind the
 * other, each when the last one is used up, or, one in 16, given up somewhere. Who is old as a list is made has waited for
 * `length` allocations; nobody stays young for more than two ages. */
START_TEST(nobody_is_old_too_soon)
{
    enum { FREED = 64, STEPS = 200000 };
    struct {
        uint8_t mark;
        uint64_t at;
        int64_t ages;
        bool waits;
    } freed[FREED] = {{0}};
    uint64_t seed = unit_seed("ages");
    for (unsigned longest = 1; longest <= 64; longest *= 2) {
        bhi_age_t age = {0};
        uint64_t now = 0;
        int64_t ages = 0;
        uint32_t left = 0;
        unsigned taken = 0;
        bhi_age_begin(&age, 64, 0);
        if (!BH_HARDEN_QUARANTINE)
            return;
        for (unsigned i = 0; i < FREED; i++)
            freed[i].waits = false;
        for (unsigned step = 0; step < STEPS; step++) {
            unsigned i = unit_below(&seed, FREED);
            if (!freed[i].waits && unit_below(&seed, 2) == 0) {
                freed[i].mark = age.mark;
                freed[i].at = now;
                freed[i].ages = ages;
                freed[i].waits = true;
            }
            if (left != 0 && unit_below(&seed, 16 * longest) == 0) {
                bhi_age_give_up(&age);
                left = 0;
            }
            if (left == 0) {
                uint8_t before = age.mark;
                bhi_age_used_up(&age);
                ages += age.mark != before;
                for (unsigned k = 0; k < FREED; k++) {
                    if (!freed[k].waits || is_young(&age, freed[k].mark))
                        continue;
                    ck_assert_msg(now - freed[k].at >= age.length, "old after %llu of %u", (unsigned long long)(now - freed[k].at), age.length);
                    freed[k].waits = false;
                    taken++;
                }
                for (unsigned k = 0; k < FREED; k++)
                    ck_assert(!freed[k].waits || ages - freed[k].ages < 2);
                left = 1 + unit_below(&seed, longest);
                bhi_age_list(&age, left);
            }
            left--;
            now++;
        }
        ck_assert_uint_gt(taken, STEPS / 256);
    }
}
END_TEST

/* Marks are never odd or 0, and 127 in a circle. */
START_TEST(marks_go_round)
{
    uint8_t mark = 2;
    unsigned n = 0;
    do {
        ck_assert(mark != 0 && mark % 2 == 0);
        mark = bhi_age_next(mark);
        n++;
    } while (mark != 2);
    ck_assert_uint_eq(n, 127);
}
END_TEST

/* Which blocks of a word are old, with every pair of bytes that a block can have. */
START_TEST(old_blocks_of_a_word)
{
    static bhi_map_block_t map[128] BH_ALIGNED(16);
    uint64_t seed = unit_seed("old");
    for (unsigned round = 0; round < 20000; round++) {
        const uint8_t young[2] = {(uint8_t)(2 * (1 + unit_below(&seed, 127))), (uint8_t)(2 * (1 + unit_below(&seed, 127)))};
        uint64_t expected = 0;
        for (unsigned i = 0; i < 64; i++) {
            static const unsigned kinds = 6;
            unsigned kind = unit_below(&seed, kinds);
            uint8_t live = (uint8_t[]){0, 1, young[0], young[1], (uint8_t)(2 * unit_below(&seed, 128)), 1}[kind];
            bool held = kind == 5 || unit_below(&seed, 8) == 0;
            atomic_store(&map[64 + i].live, live);
            atomic_store(&map[64 + i].held, held);
            bool is_old = live % 2 == 0 && !held && live != young[0] && live != young[1];
            expected |= (uint64_t)is_old << i;
            ck_assert(bhi_map_is_free_marked(map, 64 + i) == (live % 2 == 0 && !held));
            ck_assert(bhi_map_is_live(map, 64 + i) == (live == 1 && !held) || !BH_HARDEN_MAP);
        }
        ck_assert_uint_eq(bhi_map_old(map, 1, young), expected);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("age");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, lengths);
    tcase_add_test(c, nobody_is_old_too_soon);
    tcase_add_test(c, marks_go_round);
    tcase_add_test(c, old_blocks_of_a_word);
    suite_add_tcase(s, c);
    return unit_main(s);
}
