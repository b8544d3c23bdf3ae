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
    unsigned char bytes[sizeof(bhi_quarantine_t) + (BH_QUARANTINE_MOST + 1) * sizeof(uintptr_t)];
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

static unsigned array(void)
{
    return 1u << q->array_bits;
}

static unsigned ring(void)
{
    return bhi_quarantine_slots(q) - array();
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
            unsigned slots = bhi_quarantine_slots(q);
            ck_assert_uint_eq(bhi_quarantine_bytes(size, budgets[b]), sizeof(bhi_quarantine_t) + 8 * slots);
            ck_assert(slots >= 1 && slots <= 192);
            ck_assert(slots * size <= budgets[b] || slots * size <= 96 * 256);
            ck_assert(slots == 192 || (slots + 1) * size > budgets[b]);
            ck_assert(size > 256 || (ring() >= 64 && array() >= 32));
            ck_assert(array() == 1 || array() <= slots / 3);
            ck_assert(6 * array() > slots || slots < 3);
        }
    }
}
END_TEST

START_TEST(without_slots_a_block_comes_back_at_once)
{
    seed = unit_seed("none");
    key_generator();
    ck_assert_uint_eq(bhi_quarantine_put(NULL, 4711, &r), 4711);
    ck_assert_uint_eq(bhi_quarantine_take_within(NULL, 0, SIZE_MAX), 0);
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
    uintptr_t out = bhi_quarantine_put(q, block, &r);
    ck_assert(out != block);
    if (out != 0)
        comes_out(out);
}

/* Out goes what lies within; afterwards nothing there is left. */
static void take_range(void)
{
    uintptr_t from = 16 * (uintptr_t)unit_below(&seed, BLOCKS), to = from + 16 * unit_below(&seed, 200);
    for (uintptr_t out; (out = bhi_quarantine_take_within(q, from, to - from)) != 0;) {
        ck_assert(out >= from && out < to);
        comes_out(out);
    }
    for (uintptr_t i = from; i < to && i / 16 < BLOCKS; i += 16)
        ck_assert(!in[i / 16]);
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
                take_range();
            else if (unit_below(&seed, 40) == 0) {
                uintptr_t out = bhi_quarantine_take_at(q, unit_below(&seed, bhi_quarantine_slots(q)));
                if (out != 0)
                    comes_out(out);
            } else
                put_one();
            if (step % 16 == 0)
                assert_as_model();
        }
        for (unsigned i = 0; i < bhi_quarantine_slots(q); i++) {
            uintptr_t out = bhi_quarantine_take_at(q, i);
            if (out != 0)
                comes_out(out);
        }
        ck_assert_uint_eq(inside + bhi_quarantine_count(q), 0);
        assert_nothing_behind(1024, budget);
    }
}
END_TEST

/* An array of one slot leaves nothing to chance: first in, first out. */
START_TEST(the_ring_keeps_order)
{
    if (!BH_HARDEN_QUARANTINE)
        return;
    seed = unit_seed("ring");
    for (unsigned slots = 1; slots <= 5; slots++) {
        make(8192, slots * 8192);
        ck_assert_uint_eq(array(), 1);
        for (uintptr_t i = 1; i < 100; i++)
            ck_assert_uint_eq(bhi_quarantine_put(q, 16 * i, &r), i <= slots ? 0 : 16 * (i - slots));
    }
}
END_TEST

/* ------------------------------------------------------------------ delays */

/* Fills every slot of the array (but for one run in 10^9) and of the ring. */
static uintptr_t fill(void)
{
    uintptr_t next = 1;
    while (next < 40u * array())
        (void)bhi_quarantine_put(q, 16 * next++, &r);
    return next;
}

/* Puts after that of the block `next` until it is released. */
static unsigned delay(uintptr_t *next)
{
    uintptr_t block = 16 * (*next)++;
    ck_assert(bhi_quarantine_put(q, block, &r) != block);
    for (unsigned puts = 1;; puts++)
        if (bhi_quarantine_put(q, 16 * (*next)++, &r) == block)
            return puts;
}

/* A correct quarantine is accused in one run of 10^6. The bound is Wilson and
 * Hilferty's approximation of the chi-square quantile; 4.7534 is the normal one
 * at 1 - 10^-6. */
static void assert_chi_square(const char *what, double chi, double df)
{
    double bound = df * pow(1 - 2 / (9 * df) + 4.7534 * sqrt(2 / (9 * df)), 3);
    printf("%s, array of %u, ring of %u: chi-square %.1f, bound %.1f\n", what, array(), ring(), chi, bound);
    ck_assert_msg(chi < bound, "%s: chi-square %.1f is above %.1f", what, chi, bound);
}

/* The delays of many blocks, each put after the one before was released, so
 * that all are independent. Their part in the array,
 * delay - ring, is geometric; `width` of its values share a bin, the last bin
 * has the rest. */
static void assert_geometric(size_t size, size_t budget, unsigned width)
{
    enum { SEEDS = 1000, EACH = 40, SAMPLES = SEEDS * EACH, BINS = 100 };
    static unsigned seen[BINS + 1];
    memset(seen, 0, sizeof seen);
    for (unsigned s = 0; s < SEEDS; s++) {
        make(size, budget);
        uintptr_t next = fill();
        for (unsigned i = 0; i < EACH; i++) {
            unsigned d = delay(&next);
            ck_assert_msg(d > ring(), "released after %u puts, the ring has %u slots", d, ring());
            unsigned bin = (d - ring() - 1) / width;
            seen[bin < BINS ? bin : BINS]++;
        }
    }
    double chi = 0, left = 1, stay = pow(1 - 1.0 / array(), width);
    for (unsigned i = 0; i <= BINS; i++) {
        double expected = SAMPLES * (i < BINS ? left * (1 - stay) : left);
        ck_assert_double_ge(expected, 20);
        chi += (seen[i] - expected) * (seen[i] - expected) / expected;
        left *= stay;
    }
    assert_chi_square("delays", chi, BINS);
}

START_TEST(delays_of_small_blocks_are_geometric)
{
    if (!BH_HARDEN_QUARANTINE)
        return;
    seed = unit_seed("geometric, 96 slots");
    assert_geometric(256, 0, 1);
}
END_TEST

START_TEST(delays_of_the_longest_are_geometric)
{
    if (!BH_HARDEN_QUARANTINE)
        return;
    seed = unit_seed("geometric, 192 slots");
    assert_geometric(16, 65536, 2);
}
END_TEST

/* A block goes to each slot of the array equally often, whichever the one before
 * it went to. */
static void assert_even(size_t size, size_t budget)
{
    enum { SEEDS = 500, EACH = 1000, ARRAY_MOST = 64 };
    static unsigned seen[ARRAY_MOST][ARRAY_MOST];
    memset(seen, 0, sizeof seen);
    for (unsigned s = 0; s < SEEDS; s++) {
        make(size, budget);
        ck_assert_uint_le(array(), ARRAY_MOST);
        unsigned slot = 0, before;
        for (uintptr_t i = 1; i <= EACH; i++) {
            (void)bhi_quarantine_put(q, 16 * i, &r);
            before = slot;
            for (slot = 0; bhi_quarantine_at(q, slot) != 16 * i; slot++)
                ck_assert_uint_lt(slot + 1, array());
            seen[before][slot] += i % 2 == 0; /* pairs share no put, so they are independent */
        }
    }
    double cells = array() * array(), expected = SEEDS * EACH / 2 / cells, chi = 0;
    for (unsigned i = 0; i < array(); i++)
        for (unsigned k = 0; k < array(); k++)
            chi += (seen[i][k] - expected) * (seen[i][k] - expected) / expected;
    assert_chi_square("slots", chi, cells - 1);
}

START_TEST(slots_are_taken_evenly)
{
    if (!BH_HARDEN_QUARANTINE)
        return;
    seed = unit_seed("slots");
    assert_even(256, 0);
    assert_even(16, 65536);
    assert_even(1024, 7 * 1024);
}
END_TEST

/* From the very first put on, when slots are still empty, too. */
START_TEST(no_block_leaves_before_the_ring_went_round)
{
    if (!BH_HARDEN_QUARANTINE)
        return;
    seed = unit_seed("least");
    static unsigned put_at[4096];
    for (unsigned round = 0; round < 300; round++) {
        size_t size = round % 2 == 0 ? 64 : 512;
        make(size, 4096 + 512 * unit_below(&seed, 100));
        for (unsigned now = 1; now < 2000; now++) {
            put_at[now] = now;
            uintptr_t out = bhi_quarantine_put(q, 16 * now, &r);
            if (out != 0)
                ck_assert_uint_gt(now - put_at[out / 16], ring());
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
        uintptr_t free_list[16], next = 1;
        unsigned listed = 0, warm = unit_below(&seed, 600);
        while (next < warm)
            (void)bhi_quarantine_put(q, 16 * next++, &r);
        uintptr_t freed = 16 * next++;
        uintptr_t out = bhi_quarantine_put(q, freed, &r);
        for (unsigned i = 0; i < 8; i++) {
            if (out != 0)
                free_list[listed++] = out;
            uintptr_t block = listed > 0 ? free_list[--listed] : 16 * next++;
            ck_assert(block != freed);
            out = bhi_quarantine_put(q, block, &r);
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
        for (unsigned i = 0; i < 2000; i++) {
            uintptr_t out = bhi_quarantine_put(q, 16 * (1 + (uintptr_t)i), &r);
            if (run == 0)
                first[i] = out;
            else if (out != 0 && first[i] != 0) {
                compared++;
                same += out == first[i];
            }
        }
    }
    ck_assert_uint_gt(compared, 1500);
    ck_assert_msg(same < compared / 16, "%u of %u are the same", same, compared); /* 1 in 64 expected */
}
END_TEST

int main(void)
{
    Suite *s = suite_create("quarantine");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, slots_are_as_promised);
    tcase_add_test(c, without_slots_a_block_comes_back_at_once);
    tcase_add_test(c, each_block_comes_out_once);
    tcase_add_test(c, the_ring_keeps_order);
    tcase_add_test(c, delays_of_small_blocks_are_geometric);
    tcase_add_test(c, delays_of_the_longest_are_geometric);
    tcase_add_test(c, slots_are_taken_evenly);
    tcase_add_test(c, no_block_leaves_before_the_ring_went_round);
    tcase_add_test(c, a_just_freed_block_does_not_come_back_soon);
    tcase_add_test(c, the_order_cannot_be_told);
    suite_add_tcase(s, c);
    return unit_main(s);
}
