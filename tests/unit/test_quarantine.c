/* harden/quarantine.c: nothing is lost or given out twice, no block leaves early,
 * and when it leaves is as random as the header says. */
#include "harden/quarantine.h"
#include "meta/size_class.h"
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static uint64_t seed;
static bhi_random_t r;
static union {
    bhi_quarantine_t q;
    unsigned char bytes[sizeof(bhi_quarantine_t) + (BH_QUARANTINE_MOST + 2) * sizeof(uintptr_t)];
} place;
#define q (&place.q)

/* A generator that gives the same for the same seed: the allocator, whose root
 * would key it anew, is not started here. */
static void key_generator(void)
{
    memset(&r, 0, sizeof r);
    for (unsigned i = 0; i < sizeof r.key; i++)
        r.key[i] = (uint8_t)unit_random(&seed);
    r.at = sizeof r.buf;
}

static void make(size_t size, size_t budget)
{
    size_t bytes = bhi_quarantine_bytes(size, budget);
    ck_assert_uint_ge(bytes, sizeof(bhi_quarantine_t) + 8);
    ck_assert_uint_le(bytes, sizeof place.bytes - sizeof(uintptr_t));
    memset(&place, 0, bytes);
    memset(place.bytes + bytes, 0x77, sizeof(uintptr_t));
    bhi_quarantine_init(q, size, budget);
    key_generator();
}

static void assert_nothing_behind(size_t size, size_t budget)
{
    ck_assert(unit_is(place.bytes + bhi_quarantine_bytes(size, budget), sizeof(uintptr_t), 0x77));
}

static unsigned young(void)
{
    return q->end - q->first;
}

static unsigned middle(void)
{
    return q->first - q->old;
}

static unsigned old(void)
{
    return q->old;
}

/* What the put of a block releases, in `out`. */
static uintptr_t out[BH_QUARANTINE_TURN];

static unsigned put(uintptr_t block)
{
    return bhi_quarantine_put(q, block) ? bhi_quarantine_turn(q, out, &r) : 0;
}

/* ------------------------------------------------------------------- sizes */

START_TEST(slots_are_as_promised)
{
    if (!BH_HARDEN_QUARANTINE)
        return;
    static const size_t budgets[] = {0, 1, 4096, 24 * 1024, 65536, 100000, 1 << 20, SIZE_MAX};
    for (unsigned c = 0; c < BHI_CLASSES; c++) {
        size_t size = bhi_class_size(c);
        for (size_t b = 0; b < sizeof budgets / sizeof budgets[0]; b++) {
            if (size > 256 && budgets[b] < size) {
                ck_assert_uint_eq(bhi_quarantine_bytes(size, budgets[b]), 0);
                continue;
            }
            make(size, budgets[b]);
            unsigned blocks = bhi_quarantine_slots(q) - 1; /* one place is empty between two puts */
            ck_assert_uint_eq(bhi_quarantine_bytes(size, budgets[b]), sizeof(bhi_quarantine_t) + 8 * (blocks + 1));
            ck_assert(blocks >= 1 && blocks <= 192);
            ck_assert(blocks * size <= budgets[b] || blocks * size <= 128 * 256);
            ck_assert(blocks == 192 || (blocks + 1) * size > budgets[b]);
            ck_assert(size > 256 || young() >= 32);
            ck_assert(young() == (blocks < 4 ? 1 : blocks / 4) && young() <= BH_QUARANTINE_TURN);
            unsigned middles = blocks < 32 ? 2 * young() : young();
            ck_assert(middle() == (blocks <= middles ? blocks - 1 : middles) && old() >= young());
        }
    }
}
END_TEST

START_TEST(none_has_no_slots)
{
    ck_assert_uint_eq(bhi_quarantine_bytes(1024, 1023), 0);
    ck_assert_uint_eq(bhi_quarantine_slots(NULL) + bhi_quarantine_count(NULL), 0);
    if (!BH_HARDEN_QUARANTINE)
        ck_assert_uint_eq(bhi_quarantine_bytes(16, 1 << 20), 0);
}
END_TEST

/* ------------------------------------------------------------------- model */

enum { BLOCKS = 2000 };
static bool in[BLOCKS];
static unsigned inside;

static void goes_in(uintptr_t block)
{
    ck_assert(block % 16 == 0 && block / 16 < BLOCKS && !in[block / 16]);
    in[block / 16] = true;
    inside++;
}

static void comes_out(uintptr_t block)
{
    ck_assert(block % 16 == 0 && block / 16 < BLOCKS && in[block / 16]);
    in[block / 16] = false;
    inside--;
}

static void assert_as_model(void)
{
    unsigned found = 0;
    for (unsigned i = 0; i < bhi_quarantine_slots(q); i++) {
        uintptr_t block = bhi_quarantine_at(q, i);
        ck_assert(block == 0 || in[block / 16]);
        found += block != 0;
    }
    ck_assert_uint_eq(found, inside);
    for (unsigned i = bhi_quarantine_from(q); i < bhi_quarantine_to(q); i++)
        found -= bhi_quarantine_at(q, i) != 0;
    ck_assert_uint_eq(found, 0); /* none is anywhere else */
    ck_assert_uint_eq(bhi_quarantine_count(q), inside);
}

/* Puts one that is outside. */
static void put_one(void)
{
    uintptr_t block;
    do
        block = 16 * (uintptr_t)(1 + unit_below(&seed, BLOCKS - 1));
    while (in[block / 16]);
    goes_in(block);
    unsigned n = put(block);
    ck_assert_uint_le(n, young());
    for (unsigned i = 0; i < n; i++) {
        ck_assert(out[i] != block);
        comes_out(out[i]);
    }
    ck_assert_uint_lt(inside, bhi_quarantine_slots(q));
}

static void take(unsigned i)
{
    uintptr_t block = bhi_quarantine_take_at(q, i);
    if (block != 0)
        comes_out(block);
}

START_TEST(each_block_comes_out_once)
{
    if (!BH_HARDEN_QUARANTINE)
        return;
    seed = unit_seed("model");
    static const size_t budgets[] = {1, 2, 3, 5, 6, 7, 24, 96, 100, 192};
    for (size_t b = 0; b < sizeof budgets / sizeof budgets[0]; b++) {
        size_t budget = budgets[b] * 1024;
        make(1024, budget);
        memset(in, 0, sizeof in);
        inside = 0;
        for (unsigned step = 0; step < 4000; step++) {
            if (unit_below(&seed, 40) == 0)
                take(unit_below(&seed, bhi_quarantine_slots(q)));
            else
                put_one();
            if (step % 16 == 0)
                assert_as_model();
        }
        for (unsigned i = 0; i < bhi_quarantine_slots(q); i++)
            take(i);
        ck_assert_uint_eq(inside + bhi_quarantine_count(q), 0);
        assert_nothing_behind(1024, budget);
    }
}
END_TEST

/* Up to three blocks leave nothing to chance: first in, first out. */
START_TEST(few_keep_their_order)
{
    if (!BH_HARDEN_QUARANTINE)
        return;
    seed = unit_seed("few");
    for (unsigned blocks = 1; blocks <= 3; blocks++) {
        make(8192, blocks * 8192);
        for (uintptr_t i = 1; i < 100; i++) {
            ck_assert_uint_eq(put(16 * i), i > blocks);
            if (i > blocks)
                ck_assert_uint_eq(out[0], 16 * (i - blocks));
        }
    }
}
END_TEST

/* ------------------------------------------------------------------ delays */

/* A correct quarantine is accused in one run of 10^6. The bound is Wilson and
 * Hilferty's approximation of the chi-square quantile; 4.7534 is the normal one
 * at 1 - 10^-6. */
static void assert_chi_square(const char *what, double chi, double df)
{
    double bound = df * pow(1 - 2 / (9 * df) + 4.7534 * sqrt(2 / (9 * df)), 3);
    printf("%s, %u of %u: chi-square %.1f, bound %.1f\n", what, young(), old(), chi, bound);
    ck_assert_msg(chi < bound, "%s: chi-square %.1f is above %.1f", what, chi, bound);
}

static unsigned least_delay(void)
{
    return middle() + young();
}

/* Fills the last part (but for one run in 10^9). */
static uintptr_t fill(void)
{
    uintptr_t next = 1;
    for (unsigned i = 0; i < 50 * old(); i++)
        (void)put(16 * next++);
    while (q->at != q->first)
        (void)put(16 * next++);
    return next;
}

/* Turns that the block `next` lives through in the last part. */
static unsigned turns(uintptr_t *next)
{
    uintptr_t block = 16 * (*next)++;
    ck_assert_uint_eq(put(block), young() == 1 ? 1 : 0);
    for (unsigned turn = 0, puts = 1;; puts++) {
        unsigned n = put(16 * (*next)++);
        turn += n != 0;
        for (unsigned i = 0; i < n; i++) {
            if (out[i] == block) {
                ck_assert_uint_ge(puts, least_delay());
                while (q->at != q->first)
                    (void)put(16 * (*next)++);
                return turn - (2 + middle() / young() - (young() == 1 ? 1 : 0));
            }
        }
    }
}

/* Of many blocks, each put when the one before was released, so that all are
 * independent. The last bin has the rest. */
static void assert_geometric(size_t size, size_t budget)
{
    enum { SEEDS = 500, EACH = 40, SAMPLES = SEEDS * EACH, BINS = 6 };
    static unsigned seen[BINS + 1];
    memset(seen, 0, sizeof seen);
    for (unsigned s = 0; s < SEEDS; s++) {
        make(size, budget);
        uintptr_t next = fill();
        for (unsigned i = 0; i < EACH; i++) {
            unsigned n = turns(&next);
            seen[n < BINS ? n : BINS]++;
        }
    }
    double chi = 0, left = 1, stay = 1 - (double)young() / old();
    for (unsigned i = 0; i <= BINS; i++) {
        double expected = SAMPLES * (i < BINS ? left * (1 - stay) : left);
        ck_assert_double_ge(expected, 20);
        chi += (seen[i] - expected) * (seen[i] - expected) / expected;
        left *= stay;
    }
    assert_chi_square("turns", chi, BINS);
}

START_TEST(delays_are_geometric)
{
    if (!BH_HARDEN_QUARANTINE)
        return;
    seed = unit_seed("geometric");
    assert_geometric(256, 0);
    assert_geometric(16, 65536);
    assert_geometric(1024, 32 * 1024);
    assert_geometric(8192, 32 * 1024);
}
END_TEST

/* Of all pairs of blocks in the last part each is as often released one right after the
 * other. So addresses that were freed in their order come in another one. */
static void assert_even(size_t size, size_t budget)
{
    enum { ROUNDS = 60000, MOST = 128 };
    static unsigned seen[MOST][MOST];
    memset(seen, 0, sizeof seen);
    make(size, budget);
    ck_assert_uint_le(old(), MOST);
    ck_assert_uint_ge(young(), 2);
    fill();
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < old(); i++)
            q->block[i] = 1 + i;
        while (put(MOST + 1) == 0)
            ;
        seen[out[0] - 1][out[1] - 1]++;
    }
    double cells = old() * (old() - 1.0), expected = ROUNDS / cells, chi = 0;
    for (unsigned i = 0; i < old(); i++) {
        ck_assert_uint_eq(seen[i][i], 0);
        for (unsigned k = 0; k < old(); k++)
            chi += i == k ? 0 : (seen[i][k] - expected) * (seen[i][k] - expected) / expected;
    }
    assert_chi_square("pairs", chi, cells - 1);
}

START_TEST(all_are_drawn_evenly)
{
    if (!BH_HARDEN_QUARANTINE)
        return;
    seed = unit_seed("even");
    assert_even(256, 0);
    assert_even(16, 65536);
    assert_even(1024, 32 * 1024);
}
END_TEST

/* From the very first put on, when places are still empty, too. */
START_TEST(no_block_leaves_before_its_third_turn)
{
    if (!BH_HARDEN_QUARANTINE)
        return;
    seed = unit_seed("least");
    for (unsigned round = 0; round < 300; round++) {
        size_t size = round % 2 == 0 ? 64 : 512;
        make(size, 4096 + 512 * unit_below(&seed, 100));
        for (uintptr_t now = 1; now < 2000; now++) {
            unsigned n = put(16 * now);
            for (unsigned i = 0; i < n; i++)
                ck_assert_uint_ge(now - out[i] / 16, least_delay());
        }
    }
}
END_TEST

/* The promise for blocks of up to 256 B against the allocator that reuses most
 * eagerly, last released first. */
START_TEST(a_just_freed_block_does_not_come_back_soon)
{
    if (!BH_HARDEN_QUARANTINE)
        return;
    seed = unit_seed("soon");
    for (unsigned round = 0; round < 10000; round++) {
        make(256, 0);
        uintptr_t free_list[9 * BH_QUARANTINE_TURN], next = 1;
        unsigned listed = 0, warm = unit_below(&seed, 600);
        while (next < warm)
            (void)put(16 * next++);
        uintptr_t freed = 16 * next++, block = freed;
        for (unsigned i = 0; i < 8; i++) {
            for (unsigned n = put(block); n > 0; n--)
                free_list[listed++] = out[n - 1];
            block = listed > 0 ? free_list[--listed] : 16 * next++;
            ck_assert(block != freed);
        }
    }
}
END_TEST

/* Same puts, other seed, other order. */
START_TEST(the_order_cannot_be_told)
{
    if (!BH_HARDEN_QUARANTINE)
        return;
    seed = unit_seed("order");
    static uintptr_t first[2000];
    unsigned same = 0, compared = 0;
    for (unsigned run = 0; run < 2; run++) {
        make(64, 0);
        unsigned at = 0;
        for (uintptr_t i = 1; i <= 2000; i++) {
            unsigned n = put(16 * i);
            for (unsigned k = 0; k < n; k++, at++) {
                if (run == 0)
                    first[at] = out[k];
                else if (first[at] != 0) {
                    compared++;
                    same += out[k] == first[at];
                }
            }
        }
    }
    ck_assert_uint_gt(compared, 1500);
    ck_assert_msg(same < compared / 16, "%u of %u are the same", same, compared); /* 1 in 65 expected */
}
END_TEST

int main(void)
{
    Suite *s = suite_create("quarantine");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, slots_are_as_promised);
    tcase_add_test(c, none_has_no_slots);
    tcase_add_test(c, each_block_comes_out_once);
    tcase_add_test(c, few_keep_their_order);
    tcase_add_test(c, delays_are_geometric);
    tcase_add_test(c, all_are_drawn_evenly);
    tcase_add_test(c, no_block_leaves_before_its_third_turn);
    tcase_add_test(c, a_just_freed_block_does_not_come_back_soon);
    tcase_add_test(c, the_order_cannot_be_told);
    suite_add_tcase(s, c);
    return unit_main(s);
}
