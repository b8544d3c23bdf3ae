/* harden/map.h: the table of states of meta/types.h, every move from every
 * state, and the atomic half under contention. */
#include "harden/map.h"
#include "support.h"

#include <pthread.h>

static bhi_map_block_t map[256] BH_ALIGNED(64);

enum { LIVE = 1, HELD = 2 };

static void put(uint32_t i, unsigned state)
{
    atomic_store(&map[i].live, (state & LIVE) != 0);
    atomic_store(&map[i].held, (state & HELD) != 0);
}

static unsigned at(uint32_t i)
{
    return (unsigned)atomic_load(&map[i].live) | (unsigned)atomic_load(&map[i].held) << 1;
}

/* Every state of one block, with all other blocks in every state. */
static void each(void (*check)(uint32_t, unsigned))
{
    for (unsigned others = 0; others < 4; others++) {
        for (uint32_t i = 0; i < 256; i += i == 0 ? 1 : 31) {
            for (unsigned state = 0; state < 4; state++) {
                for (uint32_t k = 0; k < 256; k++)
                    put(k, others);
                put(i, state);
                check(i, state);
                for (uint32_t k = 0; k < 256; k++)
                    ck_assert_msg(k == i || at(k) == others, "block %u changed with %u", k, i);
            }
        }
    }
}

static void set_live(uint32_t i, unsigned state)
{
    ck_assert(bhi_map_set_live(map, i) == (state == 0));
    ck_assert_uint_eq(at(i), state == 0 ? LIVE : state);
}

static void clear_live(uint32_t i, unsigned state)
{
    ck_assert(bhi_map_clear_live(map, i) == (state == LIVE));
    ck_assert_uint_eq(at(i), state == LIVE ? 0 : state);
}

static void is_live(uint32_t i, unsigned state)
{
    ck_assert(bhi_map_is_live(map, i) == (state == LIVE));
    ck_assert_uint_eq(at(i), state);
}

static void is_free(uint32_t i, unsigned state)
{
    ck_assert(bhi_map_is_free(map, i) == (state == 0));
}

static void release(uint32_t i, unsigned state)
{
    (void)state;
    bhi_map_release(map, i);
    ck_assert_uint_eq(at(i), 0);
}

static void is_stray(uint32_t i, unsigned state)
{
    ck_assert(bhi_map_is_stray(map, i) == (state == HELD));
}

static void set_held(uint32_t i, unsigned state)
{
    ck_assert(bhi_map_set_held(map, i) == (state == LIVE));
    ck_assert_uint_eq(at(i), state == LIVE ? (LIVE | HELD) : state);
}

START_TEST(state_table)
{
    if (!BH_HARDEN_MAP)
        return;
    each(set_live);
    each(clear_live);
    each(is_live);
    each(is_stray);
    each(is_free);
    each(release);
    each(set_held);
}
END_TEST

static void put_sets(uint32_t word, uint64_t live, uint64_t held)
{
    for (uint32_t i = 0; i < 64; i++)
        put(word * 64 + i, (unsigned)(live >> i & 1) | (unsigned)(held >> i & 1) << 1);
}

START_TEST(take_held)
{
    uint64_t seed = unit_seed("map");
    for (int round = 0; round < 20000; round++) {
        uint64_t live = unit_random(&seed), held = unit_random(&seed) & unit_random(&seed);
        if (round % 3 == 0)
            held &= live;
        if (round % 7 == 0)
            held = 0;
        uint32_t word = (uint32_t)round % 4;
        put_sets(word, live, held);
        bhi_map_sets_t sets = bhi_map_sets(map, word);
        ck_assert(sets.live == live && sets.held == held);
        ck_assert_uint_eq(bhi_map_free(map, word), ~(live | held));
        ck_assert_uint_eq(bhi_map_live(map, word), live & ~held);
        uint64_t stray;
        uint64_t taken = bhi_map_take_held(map, word, &stray);
        if (!BH_HARDEN_MAP) {
            ck_assert_uint_eq(taken, held);
            continue;
        }
        ck_assert_uint_eq(taken, held & live);
        ck_assert_uint_eq(stray, held & ~live);
        sets = bhi_map_sets(map, word);
        ck_assert_uint_eq(sets.live, live & ~held);
        ck_assert_uint_eq(sets.held, held & ~live); /* the trace of a double free stays */
    }
}
END_TEST

/* What nobody but an attacker writes there (or, even numbers, profile hardened): such a block is neither handed out nor freed,
 * and who looks for free ones does not take it for one. */
START_TEST(other_values)
{
    for (unsigned value = 2; value < 256; value++) {
        for (uint32_t i = 0; i < 256; i += 17) {
            put_sets(i / 64, 0, 0);
            bhi_map_block_t *block = &map[i];
            for (unsigned which = 0; which < 2; which++) {
                atomic_store(which == 0 ? &block->live : &block->held, (uint8_t)value);
                bhi_map_sets_t sets = bhi_map_sets(map, i / 64);
                uint64_t bit = bhi_map_bit(i);
                ck_assert(sets.live == (which == 0 && value % 2 != 0 ? bit : 0) && sets.held == (which == 0 ? 0 : bit));
                ck_assert_uint_eq(bhi_map_free(map, i / 64), ~bit);
                ck_assert(!bhi_map_is_free(map, i));
                if (BH_HARDEN_MAP)
                    ck_assert(!bhi_map_set_live(map, i) && !bhi_map_clear_live(map, i) && !bhi_map_is_live(map, i));
                put(i, 0);
            }
        }
    }
}
END_TEST

/* Of many threads that free the same blocks, exactly one gets each. */
#define THREADS 6
static _Atomic(unsigned) won[256];
static pthread_barrier_t barrier;

static void *hold_all(void *arg)
{
    pthread_barrier_wait(&barrier);
    for (uint32_t i = 0; i < 256; i++) {
        if (bhi_map_set_held(map, i))
            atomic_fetch_add(&won[i], 1);
    }
    return arg;
}

START_TEST(one_winner)
{
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (int round = 0; round < 200; round++) {
        pthread_t threads[THREADS];
        for (uint32_t i = 0; i < 256; i++) {
            put(i, LIVE);
            atomic_store(&won[i], 0);
        }
        for (int t = 0; t < THREADS; t++)
            pthread_create(&threads[t], NULL, hold_all, NULL);
        for (int t = 0; t < THREADS; t++)
            pthread_join(threads[t], NULL);
        for (uint32_t i = 0; i < 256; i++)
            ck_assert_uint_eq(atomic_load(&won[i]), 1);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("map");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, state_table);
    tcase_add_test(c, take_held);
    tcase_add_test(c, other_values);
    tcase_add_test(c, one_winner);
    suite_add_tcase(s, c);
    return unit_main(s);
}
