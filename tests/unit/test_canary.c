/* harden/canary.c: every changed byte of the slack is seen, nothing else is
 * touched, and no other block's pattern passes. */
#include "bulkhead.h"
#include "harden/canary.h"
#include "harden/wipe.h"
#include "meta/size_class.h"
#include "support.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { FRONT = 64, LARGEST = 128 * 1024 };

static unsigned char area[FRONT + LARGEST + FRONT] BH_ALIGNED(64);
static unsigned char copy[sizeof area];
static uint64_t seed, key, place;
static uintptr_t block;

static void start(void)
{
    ck_assert_ptr_nonnull(bh_malloc(1)); /* the process's multiplier */
    seed = unit_seed("canary");
    key = unit_random(&seed);
    place = unit_below(&seed, 1u << 24);
    block = (uintptr_t)area + FRONT;
    memset(area, 0x5a, sizeof area);
}

static void write_canary(size_t requested, size_t size)
{
    bhi_canary_write(block, requested, size, key, place);
}

static size_t check(size_t requested, size_t size)
{
    return bhi_canary_check(block, requested, size, key, place);
}

static void assert_all_seen(size_t requested, size_t size, unsigned values)
{
    unsigned char *bytes = (unsigned char *)block;
    for (size_t at = requested; at < size; at++) {
        unsigned char was = bytes[at];
        for (unsigned v = 1; v <= values; v++) {
            bytes[at] = (unsigned char)(was ^ (values == 255 ? v : 1 + unit_below(&seed, 255)));
            if (check(requested, size) != at)
                ck_abort_msg("size %zu, requested %zu: byte %zu changed, found %zu", size, requested, at, check(requested, size));
        }
        bytes[at] = was;
    }
    ck_assert_uint_eq(check(requested, size), BH_CANARY_INTACT);
}

/* The pattern covers the slack and nothing else, and its ends are as promised. */
static void assert_written(size_t requested, size_t size)
{
    const unsigned char *bytes = (const unsigned char *)block;
    memcpy(copy, area, FRONT + size + FRONT);
    write_canary(requested, size);
    ck_assert_int_eq(memcmp(area, copy, FRONT + requested), 0);
    ck_assert_int_eq(memcmp(bytes + size, copy + FRONT + size, FRONT), 0);
    ck_assert_msg(bytes[requested] != 0 && bytes[requested + 1] == 0 && bytes[size - 1] != 0,
                  "size %zu, requested %zu: ends %02x %02x .. %02x", size, requested, bytes[requested], bytes[requested + 1], bytes[size - 1]);
    ck_assert_uint_eq(check(requested, size), BH_CANARY_INTACT);
    /* In a new block the same pattern, and nothing of the request but zeros. */
    memcpy(copy, bytes, size);
    memset((void *)block, 0, size);
    bhi_canary_write_new(block, requested, size, key, place);
    ck_assert_int_eq(memcmp(bytes + requested, copy + requested, size - requested), 0);
    ck_assert(unit_is(bytes, requested, 0) && unit_is(bytes + size, FRONT, 0x5a) && unit_is(area, FRONT, 0x5a));
    memcpy((void *)block, copy, size);
}

START_TEST(every_changed_byte_of_small_blocks)
{
    if (!BH_HARDEN_CANARIES)
        return;
    start();
    for (size_t size = 16; size <= 144; size += 8) {
        for (size_t requested = 0; requested <= size - BH_CANARY_LEAST; requested++) {
            place = unit_below(&seed, 1u << 24);
            assert_written(requested, size);
            assert_all_seen(requested, size, size <= 48 ? 255 : 16);
        }
    }
}
END_TEST

START_TEST(every_changed_byte_of_every_class)
{
    if (!BH_HARDEN_CANARIES)
        return;
    start();
    for (unsigned c = 9; c < BHI_CLASSES; c++) {
        size_t size = bhi_class_size(c), below = bhi_class_size(c - 1);
        for (unsigned round = 0; round < 24; round++) {
            /* From the least slack on upwards, the most that a class has, and between. */
            size_t most = size - below + BH_CANARY_LEAST - 1;
            size_t slack = round < 21 ? round + BH_CANARY_LEAST : round == 21 ? most : BH_CANARY_LEAST + unit_below(&seed, (uint32_t)(most - BH_CANARY_LEAST + 1));
            place = unit_below(&seed, 1u << 24);
            assert_written(size - slack, size);
            if (slack < 400 || round == 22)
                assert_all_seen(size - slack, size, slack < 100 ? 4 : 1);
        }
    }
}
END_TEST

START_TEST(the_whole_of_the_largest_block)
{
    if (!BH_HARDEN_CANARIES)
        return;
    start();
    for (size_t requested = 0; requested < 9; requested++) {
        assert_written(requested, LARGEST);
        for (unsigned round = 0; round < 200; round++) {
            size_t at = requested + unit_below(&seed, (uint32_t)(LARGEST - requested));
            area[FRONT + at] ^= 0x10;
            ck_assert_uint_eq(check(requested, LARGEST), at);
            area[FRONT + at] ^= 0x10;
        }
    }
}
END_TEST

#if BH_CANARY_AES
BH_WIDE static void write_soon(size_t requested, size_t size, bool wide)
{
    if (wide)
        bhi_canary_write_wide(block, requested, size, bhi_canary_soon(requested, key, place));
    else
        bhi_canary_write_short(block, requested, size, bhi_canary_soon(requested, key, place));
}

BH_WIDE static bool is_whole_soon(size_t requested, size_t size, bool wide)
{
    bhi_canary_t canary = bhi_canary_soon(requested, key, place);
    return wide ? bhi_canary_is_whole_wide(block, requested, size, canary)
                : bhi_canary_is_whole(bhi_canary_damage(block, requested, size, canary));
}

/* What malloc and free do by themselves is what all others do. */
START_TEST(the_short_ways_write_and_check_the_same)
{
    start();
    if (!BH_HARDEN_CANARIES || BH_SANITIZED || !bhi_process.has_aes || !bhi_process.has_avx2)
        return;
    for (unsigned round = 0; round < 20000; round++) {
        bool wide = round % 2 != 0;
        size_t size = wide ? 72 + 8 * unit_below(&seed, 120) : 32 + 8 * unit_below(&seed, 29);
        size_t slack = BH_CANARY_LEAST + unit_below(&seed, wide ? BH_CANARY_WIDE + 1 : 17), requested = size - slack;
        place = unit_below(&seed, 1u << 16);
        memset((void *)block, 0, size);
        write_soon(requested, size, wide);
        ck_assert(check(requested, size) == BH_CANARY_INTACT && is_whole_soon(requested, size, wide));
        ck_assert(unit_is((const unsigned char *)block, requested, 0) && unit_is((const unsigned char *)block + size, FRONT, 0x5a) && unit_is(area, FRONT, 0x5a));
        size_t at = unit_below(&seed, (uint32_t)size);
        ((unsigned char *)block)[at] ^= (unsigned char)(1 + unit_below(&seed, 255));
        ck_assert(is_whole_soon(requested, size, wide) == (at < requested));
        memset((void *)block, 0x5a, size);
    }
}
END_TEST
#endif

/* A slack copied from elsewhere, or left from another life, does not pass. */
START_TEST(no_other_pattern_passes)
{
    if (!BH_HARDEN_CANARIES)
        return;
    start();
    for (unsigned round = 0; round < 20000; round++) {
        size_t size = 16 + 8 * unit_below(&seed, 20), requested = unit_below(&seed, (uint32_t)(size - BH_CANARY_LEAST));
        key = unit_random(&seed);
        place = 16 * unit_below(&seed, 4096);
        write_canary(requested, size);
        uint64_t other = place ^ (uint64_t)1 << unit_below(&seed, 24), bit = (uint64_t)1 << unit_below(&seed, 64);
        ck_assert(bhi_canary_check(block, requested, size, key, other) != BH_CANARY_INTACT);
        ck_assert(bhi_canary_check(block, requested, size, key ^ bit, place) != BH_CANARY_INTACT);
        size_t longer = requested + 1 + unit_below(&seed, (uint32_t)(size - BH_CANARY_LEAST - requested));
        ck_assert(bhi_canary_check(block, longer, size, key, place) != BH_CANARY_INTACT);
    }
}
END_TEST

/* The end of the slack tells of its beginning: what is left of a longer or
 * shorter one in an earlier life of the block does not pass. */
START_TEST(each_requested_size_has_its_own_pattern)
{
    if (!BH_HARDEN_CANARIES)
        return;
    start();
    uint64_t ends[100], last;
    for (size_t requested = 0; requested < 100; requested++) {
        write_canary(requested, 128);
        memcpy(&last, (const void *)(block + 120), sizeof last);
        for (size_t i = 0; i < requested; i++)
            ck_assert_uint_ne(ends[i], last);
        ends[requested] = last;
    }
}
END_TEST

/* Words moved inside a slack do not pass: none occurs twice, nor is the next
 * one told by a constant difference. */
START_TEST(a_long_slack_does_not_repeat)
{
    if (!BH_HARDEN_CANARIES)
        return;
    start();
    enum { SIZE = 16 * 1024, WORDS = SIZE / 8 };
    static uint64_t words[WORDS];
    write_canary(0, SIZE);
    memcpy(words, (const void *)block, sizeof words);
    for (unsigned i = 0; i < WORDS; i++) {
        for (unsigned k = i + 1; k < WORDS; k++)
            if (words[i] == words[k])
                ck_abort_msg("words %u and %u are the same", i, k);
    }
    for (unsigned i = 0; i + 3 < WORDS; i++)
        ck_assert(words[i + 1] - words[i] != words[i + 2] - words[i + 1]);
}
END_TEST

/* How often each bit of the pattern is set over many keys, or many places: half
 * of the times but for the fixed ones. */
static void assert_bits(size_t requested, size_t size, bool by_place)
{
    enum { ROUNDS = 4000 };
    static unsigned ones[64 * 8];
    memset(ones, 0, sizeof ones);
    for (unsigned round = 0; round < ROUNDS; round++) {
        if (by_place)
            place = 16 * round;
        else
            key = unit_random(&seed);
        write_canary(requested, size);
        for (size_t i = requested; i < size; i++)
            for (unsigned b = 0; b < 8; b++)
                ones[8 * (i - requested) + b] += area[FRONT + i] >> b & 1u;
    }
    unsigned fixed = 0;
    for (size_t i = 0; i < 8 * (size - requested); i++) {
        if (ones[i] == 0 || ones[i] == ROUNDS)
            fixed++;
        else
            ck_assert_msg(ones[i] > ROUNDS * 45 / 100 && ones[i] < ROUNDS * 55 / 100, "slack %zu, bit %zu: %u", size - requested, i, ones[i]);
    }
    /* First byte, whole second byte, last byte, and what may be the last. */
    ck_assert_msg(fixed >= 8 + 2 && fixed <= 8 + 4, "slack %zu: %u bits are fixed", size - requested, fixed);
}

START_TEST(all_but_the_stated_bits_are_keyed)
{
    if (!BH_HARDEN_CANARIES)
        return;
    start();
    for (size_t slack = BH_CANARY_LEAST; slack <= 40; slack++) {
        assert_bits(64 - slack, 64, false);
        assert_bits(64 - slack, 64, true);
    }
}
END_TEST

/* The owner sweeps while the thread that has the block writes to all that it
 * asked for, and then frees it. Under the thread sanitizer this is a test of the
 * kind of access, too. */
typedef struct race {
    size_t requested, size;
    _Atomic(bool) freeing;
} race_t;

static void *user(void *arg)
{
    race_t *race = arg;
    for (unsigned i = 0; i < 200; i++)
        memset((void *)block, (int)i, race->requested);
    atomic_store(&race->freeing, true);
    atomic_thread_fence(memory_order_release);
    bhi_wipe_block(block, race->requested, race->size);
    return NULL;
}

START_TEST(sweeps_beside_the_users_writes_and_free)
{
    if (!BH_HARDEN_CANARIES)
        return;
    start();
    static const size_t sizes[] = {16, 48, 64, 320, 4096};
    unsigned beside = 0;
    for (unsigned round = 0; round < 400; round++) {
        race_t race = {.size = sizes[round % 5]};
        size_t slack = BH_CANARY_LEAST + round / 5 % (race.size < 40 ? race.size - BH_CANARY_LEAST + 1 : 37);
        race.requested = race.size - slack;
        write_canary(race.requested, race.size);
        pthread_t thread;
        ck_assert_int_eq(pthread_create(&thread, NULL, user, &race), 0);
        for (bool over = false; !over;) {
            size_t found = check(race.requested, race.size);
            atomic_thread_fence(memory_order_acquire);
            over = atomic_load(&race.freeing);
            /* What was seen before the free began is no damage. */
            ck_assert(over || found == BH_CANARY_INTACT);
            beside++;
        }
        (void)check(race.requested, race.size);
        ck_assert_int_eq(pthread_join(thread, NULL), 0);
        if (BH_HARDEN_WIPE)
            ck_assert_uint_eq(bhi_wipe_check(block, race.size), BH_WIPE_CLEAN);
    }
    ck_assert_uint_gt(beside, 400);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("canary");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    bhi_canary_without_aes = getenv("WITHOUT_AES") != NULL;
    tcase_add_test(c, every_changed_byte_of_small_blocks);
#if BH_CANARY_AES
    tcase_add_test(c, the_short_ways_write_and_check_the_same);
#endif
    tcase_add_test(c, every_changed_byte_of_every_class);
    tcase_add_test(c, the_whole_of_the_largest_block);
    tcase_add_test(c, no_other_pattern_passes);
    tcase_add_test(c, each_requested_size_has_its_own_pattern);
    tcase_add_test(c, a_long_slack_does_not_repeat);
    tcase_add_test(c, all_but_the_stated_bits_are_keyed);
    tcase_add_test(c, sweeps_beside_the_users_writes_and_free);
    suite_add_tcase(s, c);
    return unit_main(s);
}
